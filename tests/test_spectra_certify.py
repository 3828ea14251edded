"""Certificates: never above the truth, never far below it."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxrelu._results import RESULTS
from jaxrelu.operators import GatedKhatriRao, KhatriRao, Kronecker
from jaxrelu.spectra import certify_smallest, extreme, spectrum


def prescribed(rng, values, cols):
    rows = len(values)
    left = np.linalg.qr(rng.standard_normal((rows, rows)))[0]
    right = np.linalg.qr(rng.standard_normal((cols, rows)))[0]
    return (left * values) @ right.T


def exact_smallest(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)[-1]


@pytest.mark.parametrize("cond", [1.0, 100.0, 1e4, 1e9])
def test_lower_bound_on_singular_values(cond, dtype):
    rng = np.random.default_rng(0)
    for _ in range(5):
        matrix = jnp.asarray(prescribed(rng, np.geomspace(1, 1 / cond, 20), 30), dtype)
        exact, found = exact_smallest(matrix), certify_smallest(matrix)
        lower = float(found.lower)
        assert 0 <= lower <= exact + 1e-16
        if cond <= 1e4:  # resolved by a float64 Gram matrix, the input in either dtype
            assert bool(found.result == RESULTS.successful)
            assert lower >= 0.998 * exact
        if cond == 1e9 and dtype == np.float64:
            assert bool(found.result == RESULTS.unresolved)
            assert lower == 0


def test_candidates(dtype):
    rng = np.random.default_rng(1)
    matrix = jnp.asarray(prescribed(rng, np.linspace(1, 0.1, 20), 30), dtype)
    exact = exact_smallest(matrix)
    for fraction in (0.5, 0.99, 1 - 1e-9):
        found = certify_smallest(matrix, fraction * exact)
        proved = bool(found.result == RESULTS.successful)
        assert proved or fraction > 1 - 1e-8
        if proved:
            assert float(found.lower) >= float(jnp.asarray(fraction * exact, dtype))
            assert float(found.lower) <= exact
    for fraction in (1 + 1e-6, 1.5):
        found = certify_smallest(matrix, fraction * exact)
        assert bool(found.result == RESULTS.unresolved)
        assert float(found.lower) == 0
        with pytest.raises(RuntimeError, match="certify_smallest"):
            certify_smallest(matrix, fraction * exact, throw=True)


def test_signed_eigenvalues(dtype):
    rng = np.random.default_rng(2)
    rotation = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    for values in (np.linspace(-3, 2, 20), np.ones(20), np.r_[0, np.ones(19)]):
        matrix = (rotation * values) @ rotation.T
        matrix = np.asarray((matrix + matrix.T) / 2, dtype)
        exact = np.linalg.eigvalsh(matrix.astype(np.float64))[0]
        operator = lx.MatrixLinearOperator(jnp.asarray(matrix), lx.symmetric_tag)
        found = certify_smallest(operator)
        assert found.kind == "eigenvalues"
        assert exact - 0.01 <= float(found.lower) <= exact + 1e-15
        above = certify_smallest(operator, exact + 0.1)
        assert float(above.lower) == -np.inf


def test_traced():
    """Under jit and vmap the certificate is in the working precision."""
    dtype = np.dtype("float32")
    rng = np.random.default_rng(3)
    batch = [prescribed(rng, np.linspace(1, low, 20), 30) for low in (0.5, 0.1, 0.0)]
    batch = jnp.asarray(np.stack(batch), dtype)
    found = jax.jit(jax.vmap(certify_smallest))(batch)
    for i in range(3):
        assert 0 <= float(found.lower[i]) <= exact_smallest(batch[i]) + 1e-16
    proved = np.asarray(found.result == RESULTS.successful)
    assert list(proved) == [True, True, False]
    assert float(found.lower[0]) > 0.49


def test_rounding_of_the_factorisation_is_not_ignored():
    """A singular float32 matrix whose Cholesky factorisation completes by rounding."""
    rng = np.random.default_rng(4)
    with jax.enable_x64(False):
        completed = 0
        traced = jax.jit(lambda op: certify_smallest(op).lower)
        for _ in range(60):
            thin = rng.integers(-40, 40, (6, 5)).astype(np.float32) / 16
            gram = thin @ thin.T  # exact: small integers over 256, rank at most 5
            operator = lx.MatrixLinearOperator(jnp.asarray(gram), lx.symmetric_tag)
            completed += bool(np.isfinite(np.asarray(jnp.linalg.cholesky(gram))).all())
            assert float(traced(operator)) <= 0
            assert float(certify_smallest(operator, 0.0).lower) <= 0
        assert completed > 5


def test_allowance_of_the_theorem_is_made(float64):
    """Nothing closer to the truth than n times the error of one entry is proved."""
    n = 50
    operator = lx.MatrixLinearOperator(jnp.eye(n), lx.symmetric_tag)
    per_entry = (n + 1) * 2.0**-53
    for units, provable in ((1, False), (10, True)):
        found = certify_smallest(operator, 1 - units * n * per_entry)
        assert bool(found.result == RESULTS.successful) == provable


def test_a_factor_that_overflows_proves_nothing(float64):
    big = 1.5e308
    matrix = jnp.asarray([[0.01, 0.0, big], [0.0, 1.0, 0.0], [big, 0.0, 1.0]])
    operator = lx.MatrixLinearOperator(matrix, lx.symmetric_tag)
    certificate = certify_smallest(operator, -1e-3)
    assert bool(certificate.result != RESULTS.successful)
    assert float(certificate.lower) == -np.inf


def with_a_factor_that_underflows(kind, dtype):
    r"""Operators of ordinary size, and their matrix in extended precision.

    In each the squares of one factor, or of a scalar, fall below the smallest normal
    number $\tau$, in part or all of them.
    """
    tiny = float(jnp.finfo(dtype).tiny)
    small, big = 0.7 * tiny**0.5, 1e-4 / tiny**0.5
    pair = np.array([[2.0, 1.0], [1.0, 2.0]])
    array = lambda x: jnp.asarray(x, dtype)
    wide = lambda x: np.asarray(x, np.longdouble)
    if kind == "kronecker":
        left, right = array(small * pair), array([[big]])
        return Kronecker(left, right), wide(left) * wide(right)
    if kind == "gated":
        gates = jnp.asarray([[True, True, False], [False, True, True]])
        outer, right = array(np.full(3, small)), array(big * np.ones((2, 1)))
        matrix = wide(gates) * wide(outer[0]) * wide(right[0, 0])
        return GatedKhatriRao(gates, outer, (0.0, 1.0), right), matrix
    if kind == "khatri-rao":  # only the off-diagonal products underflow
        left = array([[1e3 * small, small], [small, 0.0]])
        right = array([[1e-3 * big], [1e3 * big]])
        return KhatriRao(left, right), wide(left) * wide(right)
    inner = array(big * pair)
    if kind == "times":
        scalar = array(tiny**0.55)
        return lx.MatrixLinearOperator(inner) * scalar, wide(inner) * wide(scalar)
    if kind == "over":
        scalar = array(tiny**-0.55)
        return lx.MatrixLinearOperator(inner) / scalar, wide(inner) / wide(scalar)
    rows = array([big, 1.0])
    left, right = array([[small], [1.0]]), array([[1.0, 0.0], [1.0, 2.0]])
    matrix = wide(rows)[:, None] * wide(left) * wide(right)
    return lx.DiagonalLinearOperator(rows) @ KhatriRao(left, right), matrix


def smallest_of_two(matrix):
    r"""$\sigma_{\min}$ of two rows: $\det(AA^\top)$ is the sum of squared minors."""
    first, second = matrix
    minors = np.outer(first, second) - np.outer(second, first)
    det, half = (minors**2).sum() / 2, (matrix**2).sum() / 2
    return float(np.sqrt(det / (half + np.sqrt(half**2 - det))))


@pytest.mark.parametrize(
    "kind", ["kronecker", "gated", "khatri-rao", "times", "over", "diagonal"]
)
def test_nothing_false_is_proved_where_a_factor_underflows(kind, dtype):
    operator, matrix = with_a_factor_that_underflows(kind, dtype)
    exact = smallest_of_two(matrix)
    proved = [certify_smallest(operator), certify_smallest(operator, 1.001 * exact)]
    found = [spectrum(operator), spectrum(operator, method="svd")]
    if kind == "kronecker" and dtype == np.float64:
        proved.append(jax.jit(certify_smallest)(operator))
        found.append(jax.jit(spectrum)(operator))
    for bound in proved:
        assert float(bound.lower) <= exact
        assert bool(bound.result == RESULTS.successful) == (float(bound.lower) > 0)
    for every in found:
        assert abs(float(every.values[-1]) - exact) <= float(every.error[-1])
    least = extreme(operator, method="gram").smallest
    assert abs(float(least.value) - exact) <= float(least.error)
    if dtype == np.float32 or kind in ("times", "over"):  # there is room for squares
        assert float(proved[0].lower) >= 0.99 * exact
        assert bool(found[0].result == RESULTS.successful)
