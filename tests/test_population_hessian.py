"""The Hessian of the population loss to the last digits: degenerate pairs, programs."""

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
from jaxrelu.operators import _population_hessian as module
from jaxrelu.spectra import spectrum


pytestmark = pytest.mark.optimised  # rounding is what they are about

ANGLES = [0.1, 1e-4, 1e-8, 1e-12, 1e-16, 1e-40, 1e-160, 1e-300, 1.3, 0.0]


@functools.cache
def everything(x64):
    """The matrix, a product, and the same by automatic differentiation."""

    def compute(w, a, v, b, u):
        F, flat = jr.PopulationLoss(jr.Shallow(v, b)), u.reshape(-1)
        of = lambda w: F(jr.Shallow(w, a))
        H = jr.hessian(F, jr.Shallow(w, a))
        # as jax.hessian does, the direction u beside those of the axes
        directions = jnp.concatenate([jnp.eye(*H.shape, dtype=w.dtype), flat[None]])
        along = lambda t: jax.jvp(jax.grad(of), (w,), (t.reshape(w.shape),))[1]
        dense = jax.vmap(along)(directions).reshape(-1, flat.size)
        return H.as_matrix(), dense[:-1], H.mv(flat), dense[-1]

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


def test_products_in_blocks_of_rows(float64, getkey, monkeypatch):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2, 3))
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


def test_matrix_inside_a_program(getkey, float64):
    W = normal(getkey(), (3, 3))
    W[1] = 2 * W[0]
    W = jnp.asarray(W)
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2, 3))
    outside = jr.hessian(F, W).as_matrix()
    matrix = lambda F, W: jr.hessian(F, W).as_matrix()
    both = lambda F, W: (matrix(F, W), jax.vmap(lambda W: matrix(F, W))(W[None])[0])
    for inside in jax.jit(both)(F, W):
        np.testing.assert_allclose(inside, outside, rtol=0, atol=1e-15)
