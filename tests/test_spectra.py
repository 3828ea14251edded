"""All values and both ends: against prescribed spectra, float64 and mpmath."""

import functools

import jax
import jax.numpy as jnp
import lineax as lx
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxrelu._memory import MemoryRefusedError
from jaxrelu._results import RESULTS
from jaxrelu.operators._interface import AbstractOperator
from jaxrelu.spectra import eigvalsh, extreme, spectrum
from jaxrelu.spectra._lanczos import extend_lanczos, start_lanczos


N, P = 24, 40
SHAPES = {
    "flat": lambda n, cond: np.r_[np.ones(n - 1), 1 / cond],
    "decaying": lambda n, cond: np.geomspace(1, 1 / cond, n),
    "stepped": lambda n, cond: np.r_[np.ones(n // 2), np.full(n - n // 2, 1 / cond)],
    "clustered": lambda n, cond: np.r_[
        1 + 1e-6 * np.arange(n // 2), (1 + 1e-6 * np.arange(n - n // 2)) / cond
    ],
    "linear": lambda n, cond: np.linspace(1, 1 / cond, n),
}


class Factored(AbstractOperator):
    """B C with thin factors, as a structured operator would hold them."""

    left: jax.Array
    right: jax.Array

    @property
    def shape(self):
        return self.left.shape[0], self.right.shape[1]

    @property
    def dtype(self):
        return self.left.dtype

    def mv(self, vector):
        return self.left @ (self.right @ vector)

    def rmv(self, vector):
        return self.right.T @ (self.left.T @ vector)

    def gram(self):
        return self.left @ (self.right @ self.right.T) @ self.left.T

    @property
    def gram_terms(self):
        return self.left.shape[1] + self.right.shape[1]

    def cross_gram(self, other):
        return self.as_matrix() @ other.as_matrix().T

    def cogram(self):
        return self.right.T @ (self.left.T @ self.left) @ self.right

    def as_matrix(self):
        return self.left @ self.right


def orthogonal(rng, rows, cols):
    return np.linalg.qr(rng.standard_normal((rows, cols)))[0]


def prescribed(rng, values, rows, cols):
    r = len(values)
    return (orthogonal(rng, rows, r) * values) @ orthogonal(rng, cols, r).T


def exact_singular_values(matrix):
    """Of the matrix as stored, to about 1e-16 of the largest."""
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


def symmetric(matrix):
    matrix = np.asarray(matrix)
    matrix = (matrix + matrix.T) / 2
    return lx.MatrixLinearOperator(jnp.asarray(matrix), lx.symmetric_tag)


def within(value, error, exact, slack=0.0):
    value, error = np.asarray(value, np.float64), np.asarray(error, np.float64)
    return np.all(np.abs(value - exact) <= error + slack)


METHODS = ("auto", "gram", "svd", "float64")
# in float64 the others are "gram" by another name; a test of shapes calls them all
DISTINCT = {"float32": METHODS, "float64": ("gram", "svd")}


@pytest.mark.parametrize("shape", SHAPES)
def test_bounds_hold_on_prescribed_spectra(shape, dtype):
    rng = np.random.default_rng(7)
    # LAPACK's values are the reference: the next test holds float64 to mpmath
    slack = 2e-14 if dtype == np.float64 else 0.0
    for cond in (1.0, 1.01, 30.0, 3e3, 2e4, 1e6, 1e9):
        for _ in range(2):
            values = SHAPES[shape](N, cond)
            matrix = jnp.asarray(prescribed(rng, values, N, P), dtype)
            exact = exact_singular_values(matrix)
            for method in DISTINCT[dtype.name]:
                found = spectrum(matrix, method=method)
                assert found.values.dtype == dtype
                assert within(found.values, found.error, exact, slack), method
                assert np.all(np.asarray(found.values) >= 0)
                assert np.all(np.diff(np.asarray(found.values)) <= 0)
                lost = np.any(np.asarray(found.error) >= np.asarray(found.values))
                assert bool(found.result == RESULTS.unresolved) == lost
            ends = extreme(matrix, method="gram")
            for end, value in ((ends.smallest, exact[-1]), (ends.largest, exact[0])):
                # inside a cluster narrower than the tolerance any member may be found
                distance = np.abs(exact - float(end.value))
                assert distance.min() <= float(end.error) + slack
                allowed = max(float(end.error), 1e-3 * value)
                assert abs(float(end.value) - value) <= allowed + slack


@functools.cache
def known_to_forty_digits(shape, dtype):
    """Matrices as stored, and their singular values by mpmath."""
    rng, pairs = np.random.default_rng(3), []
    for cond in (30.0, 3e3, 1e6):
        matrix = prescribed(rng, SHAPES[shape](8, cond), 8, 12).astype(dtype)
        with mpmath.workdps(40):
            exact = mpmath.svd_r(mpmath.matrix(matrix), compute_uv=False)
        pairs.append((matrix, np.array([float(x) for x in exact])))
    return pairs


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["gram", "svd"])
def test_bounds_against_mpmath_and_not_absurd(shape, method, dtype):
    ratios = []
    for matrix, exact in known_to_forty_digits(shape, dtype):
        found = spectrum(jnp.asarray(matrix), method=method)
        assert within(found.values, found.error, exact)
        if method == "svd":  # the small end of a Gram matrix: see the bound's formula
            error = np.abs(np.asarray(found.values, np.float64) - exact).max()
        else:
            error = np.abs(np.asarray(found.values, np.float64) ** 2 - exact**2).max()
        bound = float(found.tolerance) ** (1 if method == "svd" else 2)
        ratios.append(bound / max(error, 1e-18))
    assert np.median(ratios) < 1000


@pytest.mark.parametrize("cond", [3e3, 2e4])
def test_float32_is_accurate_or_says_unresolved(cond):
    """Nearly parallel rows: a float32 Gram matrix has a negative eigenvalue here."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(False):
        matrix = jnp.asarray(prescribed(rng, SHAPES["stepped"](N, cond), N, P), "f4")
        exact = exact_singular_values(matrix)
        plain = spectrum(matrix, method="gram")
        assert bool(plain.result == RESULTS.unresolved)
        assert "cannot resolve" in repr(plain)
        assert int(plain.rank()) == N // 2
        for found in (spectrum(matrix), spectrum(matrix, method="svd")):
            assert bool(found.result == RESULTS.successful)
            assert found.values.dtype == jnp.float32
            assert int(found.rank()) == N
        accurate = spectrum(matrix)
        assert "float64" in accurate.method
        np.testing.assert_allclose(accurate.values, exact, rtol=2e-7)
        ends = extreme(matrix, method="float64")
        np.testing.assert_allclose(ends.smallest.value, exact[-1], rtol=1e-3)
        with pytest.raises(RuntimeError, match="cannot resolve"):
            spectrum(matrix, method="gram", throw=True)
        with pytest.raises(RuntimeError, match="cannot resolve"):
            extreme(matrix, method="gram", throw=True)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1), "float64"),
        ((9, 4), "float64"),
        ((4, 9), "float64"),
        ((4, 9), "float32"),
    ],
    indirect=["dtype"],
)
def test_every_shape_and_both_kinds_of_operator(shape, dtype):
    rng = np.random.default_rng(1)
    left = jnp.asarray(rng.standard_normal((shape[0], 9)), dtype)
    right = jnp.asarray(rng.standard_normal((9, shape[1])), dtype)
    operator = Factored(left, right)
    exact = exact_singular_values(
        np.asarray(left, np.float64) @ np.asarray(right, np.float64)
    )
    scale = 40 * float(jnp.finfo(dtype).eps) * exact[0]
    for method in METHODS:
        for given_as in (operator, lx.MatrixLinearOperator(operator.as_matrix())):
            found = spectrum(given_as, method=method)
            assert found.shape == shape
            assert found.values.shape == (min(shape),)
            assert found.kind == "singular values"
            assert within(found.values, found.error, exact, scale)
    # matrix-free on wide ones: the larger matrix, in both precisions
    for method in ("gram", "auto", "matrix-free")[: 2 + (shape[0] >= shape[1])]:
        ends = extreme(operator, method=method)
        assert within(ends.smallest.value, ends.smallest.error, exact[-1], scale)
        assert within(ends.largest.value, ends.largest.error, exact[0], scale)


def test_vectors(dtype):
    rng = np.random.default_rng(2)
    matrix = jnp.asarray(prescribed(rng, SHAPES["linear"](6, 10.0), 6, 9), dtype)
    tolerance = 100 * float(jnp.finfo(dtype).eps)
    full, dense = spectrum(matrix, method="svd", vectors=True), np.asarray(matrix)
    left, values, right = map(np.asarray, (full.left, full.values, full.right))
    np.testing.assert_allclose((left * values) @ right.T, dense, atol=tolerance)
    for given_as, name in ((matrix, "left"), (matrix.T, "right")):
        found = spectrum(given_as, vectors=True)
        short, values = np.asarray(getattr(found, name)), np.asarray(found.values)
        gram = (short * values**2) @ short.T
        np.testing.assert_allclose(gram, dense @ dense.T, atol=tolerance)
    assert spectrum(matrix, vectors=True).right is None
    square = symmetric(matrix[:, :6])
    found = spectrum(square, vectors=True)
    left, values = np.asarray(found.left), np.asarray(found.values)
    residual = np.asarray(square.matrix) @ left - left * values
    np.testing.assert_allclose(residual, np.zeros((6, 6)), atol=tolerance)


SIGNED = {
    "indefinite": np.linspace(-1, 2, 30),
    "semidefinite": np.r_[np.zeros(20), np.linspace(0.5, 5, 10)],
    "outlier below": np.r_[-3, np.ones(29)],
    "identity": np.ones(30),
    "negative": -np.ones(30),
    "zero": np.zeros(30),
    "tiny": 1e-25 * np.linspace(1, 2, 30),
}


@pytest.mark.parametrize("name", SIGNED)
def test_symmetric_operators_have_signed_eigenvalues(name, dtype):
    rng, exact = np.random.default_rng(4), np.sort(SIGNED[name])[::-1]
    rotation = orthogonal(rng, 30, 30)
    operator = symmetric(((rotation * exact) @ rotation.T).astype(dtype))
    scale = 10 * float(jnp.finfo(dtype).eps) * np.abs(exact).max()
    found = spectrum(operator)
    assert found.kind == "eigenvalues"
    assert within(found.values, found.error, exact, scale)
    assert int(found.rank()) == np.sum(exact != 0)
    for method in ("gram", "matrix-free", "float64"):
        ends = extreme(operator, method=method)
        assert ends.kind == "eigenvalues"
        assert within(ends.smallest.value, ends.smallest.error, exact[-1], scale)
        assert within(ends.largest.value, ends.largest.error, exact[0], scale)
    singular = spectrum(operator, method="svd")
    assert singular.kind == "singular values"
    exact = np.sort(np.abs(exact))[::-1]
    assert within(singular.values, singular.error, exact, scale)


@pytest.mark.parametrize("method", ["gram", "matrix-free"])
def test_traced_bounds_hold(method):
    """jit and vmap take the XLA path; failures are data."""
    dtype = np.dtype("float32")
    rng = np.random.default_rng(5)
    conds = [1.0, 10.0, 1e5]
    values = [SHAPES["decaying"](N, cond) for cond in conds] + [np.zeros(N)]
    batch = np.stack([prescribed(rng, v, N, P) for v in values]).astype(dtype)
    ends = jax.jit(jax.vmap(lambda a: extreme(a, method=method)))(jnp.asarray(batch))
    assert ends.smallest.value.shape == (4,)
    for i, matrix in enumerate(batch):
        exact = exact_singular_values(matrix)
        low, high = ends.smallest, ends.largest
        assert within(low.value[i], low.error[i], exact[-1], 1e-15)
        assert within(high.value[i], high.error[i], exact[0], 1e-15)
    if method == "gram":
        found = jax.vmap(spectrum)(jnp.asarray(batch))
        failed = np.asarray(found.result != RESULTS.successful)
        assert list(failed) == [False, False, True, True]
        assert list(found.rank())[:2] == [N, N]
        for i, matrix in enumerate(batch):
            exact = exact_singular_values(matrix)
            assert within(found.values[i], found.error[i], exact, 1e-15)


def test_traced_symmetric_ends(float64):
    dtype = float64
    rng = np.random.default_rng(4)
    stack = []
    for exact in SIGNED.values():
        rotation = orthogonal(rng, 30, 30)
        stack.append(symmetric(((rotation * exact) @ rotation.T).astype(dtype)).matrix)

    def ends_of(matrix):
        operator = lx.MatrixLinearOperator(matrix, lx.symmetric_tag)
        return extreme(operator, method="gram")

    ends = jax.jit(jax.vmap(ends_of))(jnp.stack(stack))
    for i, exact in enumerate(SIGNED.values()):
        scale = 10 * float(jnp.finfo(dtype).eps) * np.abs(exact).max()
        low, high = ends.smallest, ends.largest
        assert within(low.value[i], low.error[i], exact.min(), scale)
        assert within(high.value[i], high.error[i], exact.max(), scale)


def test_larger_matrix_stops_early_with_small_residual(dtype):
    """The iterations, not the complete Krylov space, reach the tolerance."""
    rng = np.random.default_rng(6)
    matrix = jnp.asarray(rng.standard_normal((150, 300)) / 300**0.5, dtype)
    exact = exact_singular_values(matrix)
    ends = extreme(matrix, method="gram")
    assert max(int(steps) for steps in ends.stats["steps"]) < 80
    for end, value in ((ends.smallest, exact[-1]), (ends.largest, exact[0])):
        assert bool(end.result == RESULTS.successful)
        assert abs(float(end.value) - value) <= float(end.error) < 2e-3 * value
    free = extreme(matrix, method="matrix-free", max_steps=20)
    assert bool(free.smallest.result == RESULTS.no_convergence)
    assert float(free.smallest.error) > 1e-3 * exact[-1]
    nearest = np.abs(exact - float(free.smallest.value)).min()
    assert nearest <= float(free.smallest.error)
    with pytest.raises(RuntimeError, match="tolerance"):
        extreme(matrix, method="matrix-free", max_steps=20, throw=True)


def test_no_orthogonality_is_lost_at_breakdown(dtype):
    """Few distinct eigenvalues, exact or up to rounding: invariant after few steps."""
    rng = np.random.default_rng(8)
    tolerance = 100 * float(jnp.finfo(dtype).eps)

    @jax.jit
    def full_space(matrix, start):
        return extend_lanczos(start_lanczos(start, 20), lambda v: matrix @ v, 20)

    for values in [np.r_[5.0, -2.0, np.ones(18)]] + 6 * [np.ones(20)]:
        rotation = orthogonal(rng, 20, 20).astype(dtype)
        matrix = jnp.asarray((rotation * values.astype(dtype)) @ rotation.T)
        space = full_space(matrix, jnp.asarray(rng.standard_normal(20), dtype))
        basis = np.asarray(space.basis, np.float64)
        np.testing.assert_allclose(basis @ basis.T, np.eye(20), atol=tolerance)
        couplings = np.asarray(space.off)[:-1]
        small = np.diag(np.asarray(space.diagonal))
        small += np.diag(couplings, 1) + np.diag(couplings, -1)
        np.testing.assert_allclose(
            np.linalg.eigvalsh(small), np.sort(values), atol=10 * tolerance
        )


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(SHAPES)),
    st.floats(0, 4),
    st.floats(-6, 6),
)
def test_laws(seed, shape, exponent, scale):
    """Orthogonal invariance, scaling, interlacing when a row is added."""
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        matrix = prescribed(rng, SHAPES[shape](N, 10**exponent), N, P)
        found = spectrum(jnp.asarray(matrix))
        rotated = orthogonal(rng, N, N) @ matrix @ orthogonal(rng, P, P)
        other = spectrum(jnp.asarray(rotated))
        both = found.error + other.error
        assert np.all(np.abs(found.values - other.values) <= both + 1e-14)
        factor = 10.0**scale
        scaled = spectrum(jnp.asarray(matrix * factor))
        both = found.error + scaled.error / factor
        assert np.all(np.abs(found.values - scaled.values / factor) <= both + 1e-14)
        fewer = spectrum(jnp.asarray(matrix[:-1]))
        assert np.all(
            found.values[:-1] + found.error[:-1] >= fewer.values - fewer.error
        )
        assert np.all(found.values[1:] - found.error[1:] <= fewer.values + fewer.error)


def test_eigvalsh_reads_one_triangle_and_keeps_the_dtype(dtype):
    rng = np.random.default_rng(9)
    matrix = np.asarray(symmetric(rng.standard_normal((7, 7))).matrix, dtype)
    exact = np.linalg.eigvalsh(matrix.astype(np.float64))
    tolerance = 50 * float(jnp.finfo(dtype).eps)
    for found in (eigvalsh(jnp.asarray(matrix)), jax.jit(eigvalsh)(matrix)):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, exact, atol=tolerance)


def test_errors_too_small_for_the_dtype_are_not_lost(dtype):
    """Two precisions down a scale at which the errors themselves are subnormal."""
    rng, tiny = np.random.default_rng(5), float(jnp.finfo(dtype).tiny)
    for scale in (1e6 * tiny, 1e4 * tiny):
        square = rng.standard_normal((4, 4)).astype(dtype)
        singular = square[:, :2] @ square[:2]
        for matrix in (square, singular):
            matrix = jnp.asarray(matrix * np.asarray(scale, dtype))
            with mpmath.workdps(40):
                exact = mpmath.svd_r(mpmath.matrix(np.float64(matrix)), compute_uv=0)
                for method in ("auto", "svd"):
                    found = spectrum(matrix, method=method)
                    assert float(found.tolerance) > 0
                    for value, error, true in zip(
                        found.values, found.error, exact, strict=True
                    ):
                        assert abs(mpmath.mpf(float(value)) - true) <= float(error)


def test_a_gram_matrix_that_overflows(dtype, monkeypatch):
    big = 0.1 * float(jnp.finfo(dtype).max)
    matrix = jnp.asarray([[2 * big, big], [big, 3 * big]], dtype)
    exact = big * (2.5 + np.array([1, -1]) * 1.25**0.5)
    relative = 8 * float(jnp.finfo(dtype).eps)
    for given_as in (matrix, lx.MatrixLinearOperator(matrix)):
        np.testing.assert_allclose(spectrum(given_as).values, exact, relative)
    monkeypatch.setattr("jaxrelu.spectra._extreme._ALL_BELOW", 1)
    ends = extreme(matrix)
    found = [ends.largest.value, ends.smallest.value]
    np.testing.assert_allclose(found, exact, relative)
    for refused in (spectrum(matrix, method="gram"), jax.jit(spectrum)(matrix)):
        assert bool(refused.result == RESULTS.not_finite)
        assert "Gram matrix overflows: use method='svd'" in repr(refused)


def test_not_finite_and_bad_input(dtype):
    bad = jnp.asarray(np.full((3, 4), np.nan), dtype)
    for found in (spectrum(bad), spectrum(bad, method="svd")):
        assert bool(found.result == RESULTS.not_finite)
    assert bool(extreme(bad, method="gram").smallest.result == RESULTS.not_finite)
    with pytest.raises(RuntimeError, match="NaN"):
        spectrum(bad, throw=True)
    with pytest.raises(TypeError, match="dtype int"):
        spectrum(np.ones((2, 2), int))
    with pytest.raises(ValueError, match="expected 2 axes"):
        spectrum(jnp.ones(3, dtype))
    with pytest.raises(ValueError, match="one of"):
        spectrum(jnp.ones((2, 2), dtype), method="qr")
    with pytest.raises(ValueError, match="symmetric tag"):
        spectrum(jnp.ones((2, 2), dtype), method="symmetric")
    with pytest.raises(ValueError, match="empty"):
        extreme(jnp.ones((0, 2), dtype))
    with pytest.raises(ValueError, match="fixed"):
        jax.jit(lambda a: spectrum(a, method="float64").values)(jnp.ones((2, 2), dtype))
    if dtype == np.float32:  # a structure of its own cannot be widened
        stuck = lx.FunctionLinearOperator(
            lambda v: 2 * v, jax.ShapeDtypeStruct((3,), dtype)
        )
        with pytest.raises(TypeError, match="float32 structure"):
            spectrum(stuck, method="float64")


def test_what_does_not_fit_is_refused_with_numbers(float64, monkeypatch):
    rng = np.random.default_rng(10)
    matrix = rng.standard_normal((150, 300)) / 17
    operator = Factored(jnp.asarray(np.eye(150)), jnp.asarray(matrix))
    monkeypatch.setenv("JAXRELU_MEMORY_LIMIT", str(2 * 150**2 * 8 - 1))
    with pytest.raises(MemoryRefusedError, match=r"150 x 150 .* bytes .*matrix-free"):
        spectrum(operator)
    with pytest.raises(MemoryRefusedError, match="Gram"):
        extreme(operator, method="gram")
    with pytest.raises(MemoryRefusedError, match="written out"):
        spectrum(operator, method="svd")
    monkeypatch.setattr("jaxrelu.spectra._extreme._ALL_BELOW", 1)
    found = extreme(matrix, max_steps=20)  # a program that another test has compiled
    assert "matrix-free" in found.largest.method
    exact = exact_singular_values(matrix)
    assert abs(float(found.largest.value) - exact[0]) <= float(found.largest.error)


def test_underflow_of_the_gram_matrix_is_admitted():
    """1e-25 squared is 0 in float32; float64 holds it."""
    with jax.enable_x64(False):
        matrix = jnp.asarray(1e-25 * np.diag([3.0, 2.0]), jnp.float32)
        plain = spectrum(matrix, method="gram")
        assert bool(plain.result == RESULTS.unresolved)
        assert within(plain.values, plain.error, [3e-25, 2e-25])
        np.testing.assert_allclose(spectrum(matrix).values, [3e-25, 2e-25], rtol=1e-6)


def test_lowest_of_a_dense_edge_is_not_the_second(float64):
    """From starts with next to nothing of its vector, one shift stops above it."""
    values = 1 + 2e-3 * np.arange(600) ** (2 / 3)
    whole = symmetric(jnp.asarray(np.diag(values)))
    factor = lx.MatrixLinearOperator(jnp.asarray(np.diag(np.sqrt(values))))
    ends = lambda operator, key: extreme(operator, method="gram", key=key).smallest
    traced = jax.jit(functools.partial(ends, factor))
    for seed in (39, 60, 97):
        key = jax.random.key(seed)
        for low in (ends(whole, key), ends(factor, key), traced(key)):
            assert abs(float(low.value) - 1) <= float(low.error) < 1e-3
