"""The Hessian of the population loss: blocks, products, spectra, degenerate pairs."""

import functools
import math

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from _draws import normal
from _population_oracle import Oracle
from test_population import degenerate

import jaxrelu as jr
from jaxrelu.landscape import hessian_spectrum
from jaxrelu.operators import _population_hessian as module
from jaxrelu.spectra import extreme, spectrum


pytestmark = pytest.mark.optimised  # rounding is what they are about

ANGLES = [0.1, 1e-4, 1e-8, 1e-12, 1e-16, 1e-40, 1e-160, 1e-300, 1.3, 0.0]


@functools.cache
def everything(x64):
    """The matrix, a product, and the same by automatic differentiation."""

    def compute(w, a, v, b, u):
        F, flat = jr.PopulationLoss(jr.Shallow(v, b)), u.reshape(-1)
        of = lambda w: F(jr.Shallow(w, a))
        H = jr.hessian(F, jr.Shallow(w, a))
        dense = jax.hessian(of)(w).reshape(H.shape)
        along = jax.jvp(jax.grad(of), (w,), (u,))[1].reshape(-1)
        return H.as_matrix(), dense, H.mv(flat), along

    return jax.jit(compute)


@pytest.mark.parametrize("axes", [True, False], ids=["axes", "generic"])
@pytest.mark.parametrize("backwards", [False, True], ids=["parallel", "antiparallel"])
def test_hessian_at_degenerate_angles(backwards, axes, dtype):
    eps = float(jnp.finfo(dtype).eps)
    u = np.asarray(np.random.default_rng(5).standard_normal((3, 3)), dtype)
    for angle in ANGLES if dtype == "float64" else ANGLES[::3]:
        w, a, v, b = degenerate(angle, backwards, dtype, axes)
        true = Oracle(w, a, v, b).hessian()
        reach = np.abs(a) / np.linalg.norm(w, axis=1)
        mass = sum(
            np.sum(np.abs(c) * np.linalg.norm(z, axis=1)) for z, c in ((w, a), (v, b))
        )
        scale = eps * (np.max(a**2) + np.max(reach) * mass)
        matrix, dense, product, along = everything(dtype == "float64")(w, a, v, b, u)
        assert matrix.dtype == product.dtype == dtype
        assert np.abs(np.asarray(matrix, float) - true).max() <= scale / 4
        assert np.abs(np.asarray(dense, float) - true).max() <= scale
        exact = true @ np.asarray(u, float).reshape(-1)
        for got in (product, along):
            assert np.abs(np.asarray(got, float) - exact).max() <= 2 * scale


def test_blocks_are_expectations(float64, getkey):
    """h_2 = E[1{wx > 0} 1{vx > 0} xxᵀ], h_1 = E[δ(wx) relu(vx) xxᵀ]."""
    w, v = normal(getkey(), (2, 3))
    x = normal(getkey(), (200_000, 3))

    def close(samples, exact):
        error = samples.std(axis=0) / math.sqrt(len(samples))
        assert np.all(np.abs(samples.mean(axis=0) - exact) < 4.5 * error + 1e-15)

    outer = x[:, :, None] * x[:, None, :]
    both = np.asarray((x @ w > 0) & (x @ v > 0), float)
    F = jr.PopulationLoss(jnp.asarray(v[None]))
    pair = np.asarray(jr.hessian(F, np.stack([w, v])).blocks())
    close(both[:, None, None] * outer, pair[0, :, 1, :])
    size = float(np.linalg.norm(w))
    on = x - np.outer(x @ w, w) / size**2  # on the plane wx = 0
    values = np.maximum(on @ v, 0) / (math.sqrt(2 * math.pi) * size)
    exact = -np.asarray(jr.hessian(F, w[None]).own_blocks())[0]
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


@pytest.mark.parametrize(("k", "d"), [(3, 3), (5, 5), (5, 7)])
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


def test_split_teachers_have_one_spectrum_and_known_nullity(dtype):
    k, d = 3, 4
    F = jr.PopulationLoss(jr.Shallow.orthonormal(k, d, dtype))
    reference = None
    for ratio in (0.5, 0.3, 1e-3):
        W = np.asarray(F.teacher.inner)
        W = np.concatenate([W[1:], ratio * W[:1], (1 - ratio) * W[:1]]).astype(dtype)
        H = jr.hessian(F, W)
        own = np.asarray(H.own_blocks())
        assert np.abs(own).max() <= 4 * jnp.finfo(dtype).eps
        found = spectrum(H)
        counts = [int(c) for c in found.inertia()]
        assert counts == [0, d, k * d]
        reference = found.values if reference is None else reference
        np.testing.assert_allclose(found.values, reference, atol=2 * found.tolerance)


@pytest.mark.parametrize("ratio", [0.5, 0.3])
def test_negative_curvature_beside_split_teachers(ratio, float64):
    """Exactly -ε/(π(1 + ε²)) (α₁ + α₂)²/(α₁α₂) along (z, -z), at every ε."""
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2, 3))
    for small in (0.3, 1e-2, 1e-6):
        point = np.asarray([1.0, 0.0, small])
        W = np.stack([ratio * point, (1 - ratio) * point, np.eye(3)[1]])
        away = np.eye(3)[0] - point / (point @ point)
        away /= np.linalg.norm(away)
        u = np.concatenate([away, -away, np.zeros(3)])
        got = u @ np.asarray(jr.hessian(F, W).mv(jnp.asarray(u)))
        exact = -small / (math.pi * (1 + small**2)) / (ratio * (1 - ratio))
        np.testing.assert_allclose(got, exact, atol=5e-15)


def test_diagonal_blocks(dtype, getkey):
    k, d, n = 3, 4, 4
    F = jr.PopulationLoss(jnp.asarray(normal(getkey(), (k, d), dtype)))
    W, a = normal(getkey(), (n, d), dtype), normal(getkey(), (n,), dtype)
    H = jr.hessian(F, jr.Shallow(jnp.asarray(W), jnp.asarray(a)))
    own, blocks = np.asarray(H.own_blocks()), np.asarray(H.blocks())
    traces = np.asarray(H.traces)
    eps = float(jnp.finfo(dtype).eps) * max(1, float(np.abs(own).max()))
    for i in range(n):
        half = a[i] ** 2 / 2 * np.eye(d)
        np.testing.assert_allclose(blocks[i, :, i], own[i] + half, atol=8 * eps)
        assert np.abs(own[i] @ W[i]).max() <= 32 * eps
        np.testing.assert_allclose(np.trace(own[i]) / d, traces[i], atol=16 * eps)
    assert H.shape == (n * d, n * d)
    assert lx.is_symmetric(H)
    assert H.gram_terms == n * d
    u = jnp.asarray(W.reshape(-1))
    np.testing.assert_array_equal(H.rmv(u), H.mv(u))


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
    W = normal(getkey(), (2, 3))
    whole = hessian_spectrum(F, W)
    assert set(whole.labels) == {"span"}
    dense = spectrum(jr.hessian(F, W))
    np.testing.assert_allclose(whole.expand(), dense.values, atol=1e-14)
    with pytest.raises(ValueError, match="weights are traced"):
        jax.jit(lambda w: hessian_spectrum(F, w).values)(W)
    with pytest.raises(ValueError, match="neuron 1 is zero"):
        hessian_spectrum(F, W * np.array([[1], [0]]))


def test_both_ends_of_an_indefinite_hessian(dtype, getkey):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(5, 7, dtype))
    H = jr.hessian(F, normal(getkey(), (5, 7), dtype) / 5)
    values = np.linalg.eigvalsh(np.asarray(H.as_matrix(), float))
    assert values[0] < -0.05 < 0 < values[-1]
    for method in ("gram", "matrix-free")[dtype == "float32" :]:
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


def test_products_in_blocks_of_rows(float64, getkey, monkeypatch):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(3))
    W, u = normal(getkey(), (3, 3)), normal(getkey(), (9,))
    W[2] = 2 * np.eye(3)[1]
    monkeypatch.setattr(module, "_BLOCK", 36)  # two rows at once
    module._product.clear_cache()  # compiled for other blocks
    H = jr.hessian(F, W)
    got = H.mv(jnp.asarray(u))
    module._product.clear_cache()
    np.testing.assert_allclose(got, np.asarray(H.as_matrix()) @ u, atol=1e-14)


def test_memory(float64, getkey, monkeypatch):
    n, d = 16, 16
    F = jr.PopulationLoss(jr.Shallow.orthonormal(n))
    H = jr.hessian(F, normal(getkey(), (n, d)))
    plan = module._dense.lower(H).compile().memory_analysis()
    assert plan.output_size_in_bytes == 8 * (n * d) ** 2
    assert 0 < plan.temp_size_in_bytes < plan.output_size_in_bytes / 2
    needed = 8 * (n * d) ** 2
    monkeypatch.setenv("JAXRELU_MEMORY_LIMIT", str(needed))
    with pytest.raises(jr.MemoryRefusedError, match=f"{needed:,}"):
        H.as_matrix()
    assert H.mv(jnp.asarray(np.ones(n * d))).shape == (n * d,)


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_stacked_students(dtype, getkey):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2, 3, dtype))
    W = normal(getkey(), (3, 2, 3), dtype)
    W[1, 0] = 0
    both = jax.jit(
        jax.vmap(
            lambda w: (jr.hessian(F, w).as_matrix(), jr.hessian(F, w).zero_neurons)
        )
    )
    matrices, zero = both(W)
    assert zero.tolist() == [[False, False], [True, False], [False, False]]
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


def test_matrix_inside_a_program(getkey, float64):
    W = normal(getkey(), (3, 3))
    W[1] = 2 * W[0]
    W = jnp.asarray(W)
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2, 3))
    outside = jr.hessian(F, W).as_matrix()
    inside = jax.jit(lambda F, W: jr.hessian(F, W).as_matrix())(F, W)
    np.testing.assert_allclose(inside, outside, rtol=0, atol=1e-15)
    many = np.asarray(
        jax.jit(jax.vmap(lambda W: jr.hessian(F, W).as_matrix()))(np.asarray(W)[None])
    )
    np.testing.assert_allclose(many[0], outside, rtol=0, atol=1e-15)


def test_derivative_of_the_matrix(float64, getkey):
    """Third derivatives of F, inside a program, against central differences."""
    W, U = (jax.random.normal(getkey(), (3, 4)) for _ in range(2))
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2, 4))
    matrix = jax.jit(lambda W: jr.hessian(F, W).as_matrix())
    _, found = jax.jit(lambda W, U: jax.jvp(matrix, (W,), (U,)))(W, U)
    h = 1e-4
    one, two = ((matrix(W + s * U) - matrix(W - s * U)) / (2 * s) for s in (h, h / 2))
    np.testing.assert_allclose(found, (4 * two - one) / 3, rtol=0, atol=1e-9)
