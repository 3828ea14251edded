"""Rates of gradient descent against runs whose iterates are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _draws import random_of

from jaxrelu import landscape as ls


def test_rates_hold_and_are_attained_on_quadratics(dtype, getkey):
    """One step of 2000 quadratics from random points, all steps that are allowed."""
    rng, draws = random_of(getkey()), 2000
    m = rng.uniform(0.1, 1, draws).astype(dtype)
    high = m * rng.uniform(1, 20, draws).astype(dtype)
    portion = rng.uniform(0.01, 0.99, draws).astype(dtype)
    x = rng.standard_normal((draws, 2)).astype(dtype)
    spectrum = np.stack([m, high], axis=1)
    gap = lambda x: np.sum(spectrum * x * x, axis=1) / 2
    square = lambda x: np.sum(x * x, axis=1)
    eps = float(jnp.finfo(dtype).eps)
    m, high = jnp.asarray(m), jnp.asarray(high)
    for condition in (
        ls.PolyakLojasiewicz(m),
        ls.GradientDominance(1 / (2 * m)),
        ls.ErrorBound(m),
        ls.QuasiStrongConvexity(m),
        ls.RestrictedSecant(m),
        ls.OnePointConvexity(m),
        ls.StrongConvexity(m),
        ls.regularity_from_curvature(m, high),
    ):
        smoothness = None if condition.short == "RC" else high
        limit = ls.descent_rate(condition, None, smoothness).step_limit
        for step in (portion * limit, None):
            rate = ls.descent_rate(condition, step, smoothness)
            taken, factor = np.asarray(rate.step), np.asarray(rate.factor)
            assert factor.dtype == dtype
            after = (1 - taken[:, None] * spectrum) * x
            size = gap if rate.quantity == "gap" else square
            bound = factor * size(x)
            assert np.max((size(after) - bound) / size(x)) < 64 * eps
            assert (np.asarray(rate.best_factor) <= factor + 64 * eps).all()
            assert (factor < 1 + 4 * eps).all()
    # tight: strong convexity along an eigenvector, at any step
    rate = ls.descent_rate(ls.StrongConvexity(m), portion * 2 / high, high)
    along = ((1 - np.asarray(rate.step)[:, None] * spectrum) ** 2).max(axis=1)
    np.testing.assert_allclose(rate.factor, along, rtol=8 * eps)
    # the sharp pair and strong convexity agree at their best step
    sharp = ls.descent_rate(ls.regularity_from_curvature(m, high))
    convex = ls.descent_rate(ls.StrongConvexity(m), None, high)
    np.testing.assert_allclose(sharp.best_factor, convex.best_factor, atol=16 * eps)


def test_steps_outside_are_refused_as_data(dtype):
    m, high = jnp.asarray(0.5, dtype), jnp.asarray(2.0, dtype)
    for step in (-0.1, 0.0, 1.0, 1.5):
        rate = ls.descent_rate(ls.PolyakLojasiewicz(m), step, high)
        assert np.isinf(float(rate.factor))
        assert np.isinf(float(rate.num_steps(0.1)))
    assert float(ls.descent_rate(ls.PolyakLojasiewicz(m), 0.5, high).factor) == 0.75
    pair = ls.RegularityCondition(jnp.asarray(0.25, dtype), m)
    assert float(ls.descent_rate(pair, 0.5).factor) == 0.5
    assert np.isinf(float(ls.descent_rate(pair, 0.51).factor))
    assert int(ls.descent_rate(pair, 0.5).num_steps(1e-3)) == 10  # 2⁻¹⁰ < 1e-3
    with pytest.raises(ValueError, match="smoothness=L"):
        ls.descent_rate(ls.PolyakLojasiewicz(m))
    with pytest.raises(ValueError, match="promises no rate"):
        ls.descent_rate(ls.QuadraticGrowth(m), None, high)


def ring(x):
    """(|x|² - 1)²/4: minimisers on a circle; PL(2a²), L = 3b² - 1 on an annulus."""
    return (x @ x - 1) ** 2 / 4


def descend(x, step, num_steps):
    def body(carry, _):
        x, length = carry
        move = step * jax.grad(ring)(x)
        after = x - move
        return (after, length + jnp.linalg.norm(move)), (ring(after), length)

    (last, length), (gaps, _) = jax.lax.scan(body, (x, 0.0), length=num_steps)
    return last, length, gaps


def test_certificates_of_random_runs_are_kept(float64, getkey):
    """400 starts: the certified runs stay, contract and end where they must."""
    rng = random_of(getkey())
    ends = ((0.7, 1.3), (0.02, 0.5), (0.05, 1.9))
    radius0, ball, portion = (rng.uniform(*pair, 400) for pair in ends)
    low, high = radius0 - ball, radius0 + ball
    mu = 2 * np.maximum(low, 0) ** 2
    smoothness = np.maximum(3 * high**2 - 1, np.abs(3 * low**2 - 1))
    starts = radius0[:, None] * [0.6, 0.8]
    step = portion / smoothness
    gaps0 = (radius0**2 - 1) ** 2 / 4
    mu, smoothness, ball, gaps0, step = map(
        jnp.asarray, (mu, smoothness, ball, gaps0, step)
    )
    proof = ls.certify_local_convergence(gaps0, mu, smoothness, ball, step)
    run = jax.jit(jax.vmap(lambda x, s: descend(x, s, 120)))
    last, lengths, gaps = run(starts, step)
    sure = np.asarray(proof.certified)
    assert 50 < sure.sum() < 380
    np.testing.assert_array_equal(sure, np.asarray(proof.margin) >= 1)
    lengths, bound = np.asarray(lengths), np.asarray(proof.length)
    assert (lengths[sure] <= bound[sure] * (1 + 1e-12)).all()
    power = np.asarray(proof.factor)[:, None] ** np.arange(1, 121)
    allowed = power * np.asarray(gaps0)[:, None] * (1 + 1e-9) + 1e-30
    assert (np.asarray(gaps)[sure] <= allowed[sure]).all()
    # what is left to go is bounded by the same formula at the end
    final = np.asarray(last)
    distance = np.abs(np.linalg.norm(final, axis=1) - 1)
    assert (distance[sure] <= bound[sure]).all()
    # the bound is not empty: some runs use most of their length
    moving = sure & (lengths > 1e-3)
    assert (lengths[moving] / bound[moving]).max() > 0.4
    # the default step is 1/L, whose length is the familiar one
    plain = ls.certify_local_convergence(gaps0, mu, smoothness, ball)
    positive = np.asarray(mu) > 0
    familiar = 2 * np.sqrt(2 * np.asarray(gaps0) / np.where(positive, mu, 1))
    np.testing.assert_allclose(
        np.asarray(plain.length)[positive], familiar[positive], rtol=1e-14
    )


def test_certificates_that_fail(dtype):
    one = jnp.asarray(1.0, dtype)
    far = ls.certify_local_convergence(one, one, 2 * one, 2.7)
    assert not bool(far.certified)  # needs 2√2 = 2.83
    assert bool(ls.certify_local_convergence(one, one, 2 * one, 2.9).certified)
    assert not bool(ls.certify_local_convergence(one, one, 2 * one, 9.0, 1.0).certified)
    flat = ls.certify_local_convergence(one, 0 * one, 2 * one, 9.0)
    assert not bool(flat.certified)
    assert np.isinf(float(flat.length))
    there = ls.certify_local_convergence(0 * one, one, 2 * one, 0.0)
    assert bool(there.certified)
    assert there.length.dtype == dtype


def test_flow_and_its_length(float64):
    """f = ax²/2 + by²/2 flows exactly; along one axis both bounds are equalities."""
    a, x, t = 0.7, 1.3, 0.9
    gap = a * x * x / 2
    np.testing.assert_allclose(
        ls.flow_gap(gap, a, t), a * (x * np.exp(-a * t)) ** 2 / 2, rtol=1e-14
    )
    np.testing.assert_allclose(ls.path_length(gap, a), x, rtol=1e-14)
    # descent with step η on one axis moves by x in all, below the bound x/(1 - ηa/2)
    eta = 0.5
    bound = float(ls.path_length(gap, a, eta, a))
    assert x < bound == pytest.approx(x / (1 - eta * a / 2))
    assert np.isinf(float(ls.path_length(gap, a, 2.0, 1.0)))


def test_asymptotic_rate_of_a_run(float64):
    """A run on the ring and a quadratic with a kernel, to their last digits."""
    eta = 0.3
    _, _, gaps = jax.jit(lambda x: descend(x, eta, 12))(np.array([0.9, 0.3]))
    gaps = np.asarray(gaps)
    hessian = jax.jit(jax.hessian(ring))(np.array([0.6, 0.8]))
    eigenvalues = jnp.asarray(np.linalg.eigvalsh(hessian))
    np.testing.assert_allclose(eigenvalues, [0, 2], atol=1e-15)
    rate = ls.asymptotic_rate(eta, eigenvalues)
    np.testing.assert_allclose(gaps[-1] / gaps[-2], rate, rtol=1e-4)
    spectrum = jnp.array([0.0, 0.5, 1.0, 3.0])
    assert float(ls.asymptotic_rate(0.5, spectrum)) == 0.75**2
    excited = jnp.array([True, False, False, True])
    assert float(ls.asymptotic_rate(0.5, spectrum, excited)) == 0.25
    assert np.isnan(float(ls.asymptotic_rate(0.5, spectrum, spectrum == 0)))
    assert float(ls.asymptotic_rate(0.5, spectrum, tolerance=0.2)) == 0.25
