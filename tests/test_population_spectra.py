"""The population Hessian's blocks as expectations, its spectra, what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _draws import normal

import jaxrelu as jr
from jaxrelu.landscape import hessian_spectrum
from jaxrelu.spectra import extreme, spectrum


def test_blocks_are_expectations(float64, getkey):
    """h_2 = E[1{wx > 0} 1{vx > 0} xxᵀ], h_1 = E[δ(wx) relu(vx) xxᵀ]."""
    W, V = normal(getkey(), (2, 3, 3))
    w, v = W[:2]
    x = normal(getkey(), (200_000, 3))

    def close(samples, exact):
        error = samples.std(axis=0) / math.sqrt(len(samples))
        assert np.all(np.abs(samples.mean(axis=0) - exact) < 4.5 * error + 1e-15)

    outer = x[:, :, None] * x[:, None, :]
    both = np.asarray((x @ w > 0) & (x @ v > 0), float)
    H = jr.hessian(jr.PopulationLoss(V), W)
    close(both[:, None, None] * outer, np.asarray(H.blocks())[0, :, 1, :])
    size = float(np.linalg.norm(w))
    on = x - np.outer(x @ w, w) / size**2  # on the plane wx = 0
    # the other neurons of the student less those of the teacher
    rest = np.maximum(on @ W[1:].T, 0).sum(axis=1) - np.maximum(on @ V.T, 0).sum(axis=1)
    values = rest / (math.sqrt(2 * math.pi) * size)
    exact = np.asarray(H.own_blocks())[0]
    close(values[:, None, None] * (on[:, :, None] * on[:, None, :]), exact)


def eigenvalues_at_the_teacher(k, d):
    """Safran, Yehudai and Shamir's point W = V, value -> multiplicity."""
    pi = math.pi
    root = math.sqrt(k**2 - 16 * (pi - 1) / pi**2)
    trivial = math.sqrt(pi**2 * k**2 - 4 * (pi - 1) * (k - 2) ** 2)
    pairs = [
        (1 / 4 - 1 / (2 * pi), k * (k - 1) // 2),
        (1 / 4 + 1 / (2 * pi), k * (k - 3) // 2),
        ((k + 2 + root) / 8, k - 1),
        ((k + 2 - root) / 8, k - 1),
        (((k + 2) * pi + 2 * k + trivial) / (8 * pi), 1),
        (((k + 2) * pi + 2 * k - trivial) / (8 * pi), 1),
        (1 / 4, (k - 1) * (d - k)),
        ((k + 1) / 4, d - k),
    ]
    return np.sort(np.concatenate([np.full(m, value) for value, m in pairs]))[::-1]


@pytest.mark.parametrize(
    ("k", "d", "dtype"),
    [(3, 3, "float32"), (3, 3, "float64"), (5, 7, "float64")],
    indirect=["dtype"],
)
def test_spectrum_at_the_teacher(k, d, dtype):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(k, d, dtype))
    H = jr.hessian(F, F.teacher)
    found = spectrum(H)
    assert found.kind == "eigenvalues"
    off = np.abs(np.asarray(found.values, float) - eigenvalues_at_the_teacher(k, d))
    assert np.all(off <= np.asarray(found.error) + 4 * jnp.finfo(dtype).eps)
    assert [int(c) for c in found.inertia()] == [0, 0, k * d]
    whole = hessian_spectrum(F, F.teacher)
    off = np.abs(np.asarray(whole.expand(), float) - eigenvalues_at_the_teacher(k, d))
    assert off.max() <= np.max(whole.error)


@pytest.mark.parametrize(
    ("dtype", "turned"), [("float32", True), ("float64", False)], indirect=["dtype"]
)
def test_dimensions_beyond_the_span(turned, dtype, getkey):
    n, k, d, rank = 4, 2, 9, 3
    inner = np.zeros((n + k, d))
    inner[:, :rank] = normal(getkey(), (n + k, rank))
    if turned:
        inner = inner @ np.linalg.qr(normal(getkey(), (d, d)))[0]
    inner, outer = inner.astype(dtype), normal(getkey(), (n + k,), dtype)
    F = jr.PopulationLoss(jr.Shallow(jnp.asarray(inner[n:]), jnp.asarray(outer[n:])))
    student = jr.Shallow(jnp.asarray(inner[:n]), jnp.asarray(outer[:n]))
    H = jr.hessian(F, student)
    dense = spectrum(H)
    whole = hessian_spectrum(F, student)
    assert whole.total == n * d
    assert whole.multiplicities.count(d - rank) == n
    off = np.abs(np.asarray(whole.expand()) - np.asarray(dense.values))
    assert off.max() <= np.max(whole.error)
    assert np.max(whole.error) < 1e4 * jnp.finfo(dtype).eps
    assert whole.inertia(1e-3) == tuple(int(c) for c in dense.inertia(1e-3))
    if not turned:
        matrix = np.asarray(H.blocks())
        np.testing.assert_array_equal(matrix[:, :rank, :, rank:], 0)
        reduced = np.asarray(H.reduced_block())
        eps = 16 * float(jnp.finfo(dtype).eps) * np.abs(reduced).max()
        np.testing.assert_allclose(matrix[:, -1, :, -1], reduced, atol=eps)


def test_full_span_and_traced_weights(float64, getkey):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(3))
    W = normal(getkey(), (3, 3))
    whole = hessian_spectrum(F, W)
    assert set(whole.labels) == {"span"}
    dense = spectrum(jr.hessian(F, W))
    np.testing.assert_allclose(whole.expand(), dense.values, atol=1e-14)
    with pytest.raises(ValueError, match="weights are traced"):
        jax.jit(lambda w: hessian_spectrum(F, w).values)(W)
    with pytest.raises(ValueError, match="neuron 1 is zero"):
        hessian_spectrum(F, W * np.array([[1], [0], [1]]))


def test_both_ends_of_an_indefinite_hessian(float64, getkey):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(5, 7))
    H = jr.hessian(F, normal(getkey(), (5, 7)) / 5)
    values = np.linalg.eigvalsh(np.asarray(H.as_matrix(), float))
    assert values[0] < -0.05 < 0 < values[-1]
    for method in ("gram", "matrix-free"):
        ends = extreme(H, method=method)
        assert ends.kind == "eigenvalues"
        for end, true in ((ends.smallest, values[0]), (ends.largest, values[-1])):
            assert abs(float(end.value) - true) <= float(end.error)
            assert bool(end.result == jr.RESULTS.successful)
    found = spectrum(H)
    counts = [int(c) for c in found.inertia()]
    assert counts == [int(np.sum(values < 0)), 0, int(np.sum(values > 0))]
    wide = found.inertia(float(-values[0]) * 1.001)
    assert int(wide[0]) == 0
    assert int(wide[1]) >= counts[0]
    assert sum(int(c) for c in wide) == len(values)
    with pytest.raises(ValueError, match="these are singular values"):
        spectrum(H, method="gram").inertia()


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_stacked_students(dtype, getkey):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(3, dtype=dtype))
    W = normal(getkey(), (3, 3, 3), dtype)
    W[1, 0] = 0

    @jax.jit
    @jax.vmap
    def both(w):
        H = jr.hessian(F, w)
        return H.as_matrix(), H.zero_neurons

    matrices, zero = both(W)
    assert np.argwhere(zero).tolist() == [[1, 0]]
    matrices = np.asarray(matrices)
    for w, matrix in zip(W[::2], matrices[::2], strict=True):
        exact = jr.hessian(F, w).as_matrix()
        np.testing.assert_allclose(matrix, exact, atol=50 * jnp.finfo(dtype).eps)
    # no Hessian at a zero neuron: said in its own block
    assert np.isnan(matrices[1][:3, :3]).all()
    assert np.isfinite(matrices[1][3:, 3:]).all()
    with pytest.raises(ValueError, match="student neuron 0 is zero"):
        jr.hessian(F, W[1])


def test_what_has_no_closed_form_is_refused(getkey):
    F = jr.PopulationLoss(jnp.eye(3))
    with pytest.raises(ValueError, match="`where` was given"):
        jr.hessian(F, jr.Shallow.orthonormal(3), where=lambda net: net.outer)
    with pytest.raises(TypeError, match="objective is a"):
        jr.hessian(lambda net: 0.0, jr.Shallow.orthonormal(3))


def test_derivative_of_the_matrix(float64, getkey):
    """Third derivatives of F, inside a program, against central differences."""
    W, U = normal(getkey(), (2, 3, 4))
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2, 4))
    matrix = lambda W: jr.hessian(F, W).as_matrix()
    both = jax.jit(lambda W: jax.jvp(matrix, (W,), (jnp.asarray(U),)))
    found, h = both(W)[1], 1e-4
    at = lambda t: np.asarray(both(W + t * U)[0])
    one, two = ((at(s) - at(-s)) / (2 * s) for s in (h, h / 2))
    np.testing.assert_allclose(found, (4 * two - one) / 3, rtol=0, atol=1e-9)
