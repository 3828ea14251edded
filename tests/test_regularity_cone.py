"""The regularity condition along cones, against automatic differentiation."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _draws import normal
from _minimizer_cases import deficient, lin2, lin3, nl2, res3
from jax.flatten_util import ravel_pytree

import jaxrelu as jr
from jaxrelu import landscape as ls


def flatten(network):
    trained, rest = eqx.partition(network, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(trained)
    return flat, lambda w: eqx.combine(unravel(w), rest)


def test_minimiser_of_deficient_rank(dtype):
    """Exact numbers: gradient dominance fails there, regularity holds."""
    eps = float(jnp.finfo(dtype).eps)
    loss, network = deficient(dtype)
    cone = ls.regularity_cone(loss, network)
    assert cone.alpha.dtype == dtype
    assert bool(cone.is_minimizer)
    for got, want in (
        (cone.radius, 0.125),
        (cone.alpha, 0.07506172839506),
        (cone.beta, 0.07421875),
        (cone.kappa, 0.5),
        (cone.lipschitz, 1),
        (cone.smallest, 1),
        (cone.largest, 2**0.5),
    ):
        np.testing.assert_allclose(got, want, rtol=1e-13 + 64 * eps)
    assert bool(cone.condition.is_possible)
    sharp = ls.sharp_regularity(loss, network)
    np.testing.assert_allclose(sharp.alpha, 1 / 3, rtol=64 * eps)
    np.testing.assert_allclose(sharp.beta, 2 / 3, rtol=64 * eps)
    # one side of 0.125 is within, the other beyond
    inside = ls.regularity_on_ball(loss, network, 0.1)
    assert float(inside.alpha) > float(cone.alpha)
    far = ls.regularity_on_ball(loss, network, 0.3)
    assert float(far.alpha) == float(far.beta) == 0


@pytest.mark.parametrize("instance", [res3, nl2, deficient])
def test_regularity_on_the_cone(float64, getkey, instance):
    """4000 displacements in the cone, up to its radius: the slack is positive."""
    loss, network = instance(float64)
    flat, build = flatten(network)
    count, angle = 4000, math.pi / 3
    cone = ls.regularity_cone(loss, network, angle=angle)
    moves = ls.sample_cone(getkey(), loss, network, count, angle)
    moves = np.asarray(moves)
    np.testing.assert_allclose(np.sum(moves**2, axis=1), 1, rtol=1e-12)
    shares = np.random.default_rng(6).uniform(size=(count, 1))
    moves = moves * float(cone.radius) * shares**0.2

    def slack(move):
        gap = lambda w: loss(build(w))
        at = ls.local_values(gap, flat + move, flat)
        return cone.condition.slack(at) / at.distance**2

    slacks = np.asarray(jax.jit(jax.vmap(slack))(moves))
    assert slacks.min() > 0
    ratios = [float(ls.cone_ratio(loss, network, move)) for move in moves[:5]]
    assert min(ratios) >= float(cone.kappa) * (1 - 1e-12)
    assert max(ratios) <= float(cone.largest)
    # limits of the constants
    assert 4 * float(cone.alpha) * float(cone.beta) <= 1
    assert float(cone.alpha) <= 1 / float(cone.largest) ** 2
    assert float(cone.beta) <= float(cone.kappa) ** 2
    if instance is nl2:
        assert float(cone.radius) <= float(ls.sign_radius(network, loss.data.inputs))


def test_radius_fills_the_bound(float64):
    """L_J(ρ)ρ = εκ to the last digits, with L_J from numpy."""
    loss, network = lin3(float64)
    cone = ls.regularity_cone(loss, network, epsilon=0.1)
    rho = float(cone.radius)
    w = [np.linalg.norm(m, 2) + rho for m in network.weights]
    pairs = np.array([[0, w[2], w[1]], [w[2], 0, w[0]], [w[1], w[0], 0]])
    lipschitz = np.linalg.norm(loss.data.inputs, 2) * np.linalg.eigvalsh(pairs)[-1]
    np.testing.assert_allclose(cone.lipschitz, lipschitz, rtol=1e-12)
    np.testing.assert_allclose(lipschitz * rho, 0.1 * float(cone.kappa), rtol=1e-12)
    ball = ls.regularity_on_ball(loss, network, rho)
    np.testing.assert_allclose(ball.alpha, cone.alpha, rtol=1e-10)
    np.testing.assert_allclose(ball.beta, cone.beta, rtol=1e-10)


@pytest.mark.parametrize("kind", ["residual", "leaky", "tanh"])
def test_lipschitz_constants(float64, getkey, kind):
    """3000 pairs of points of a ball; differences of Jacobians in spectral norm."""
    if kind == "residual":
        loss, network = res3(float64)
        bound = lambda radius: ls.regularity_on_ball(loss, network, radius).lipschitz
        reach = 0.5
    else:
        loss, network = nl2(float64)
        if kind == "tanh":
            network = jr.Shallow(network.inner, network.outer, "tanh")
        bound = lambda r: ls.shallow_lipschitz(network, loss.data.inputs, r)
        reach = (
            0.5
            if kind == "tanh"
            else 0.9 * float(ls.sign_radius(network, loss.data.inputs))
        )
    flat, build = flatten(network)
    outputs = lambda w: build(w)(loss.data.inputs).ravel()

    rng = np.random.default_rng(8)
    pairs = normal(getkey(), (2, 3000, flat.size))
    pairs /= np.linalg.norm(pairs, axis=2, keepdims=True)
    first, second = pairs * reach * rng.uniform(size=(2, 3000, 1))
    second = first + rng.uniform(1e-3, 1, (3000, 1)) * (second - first)
    jacobians = jax.jit(jax.vmap(jax.jacfwd(outputs)))
    points = np.asarray(flat) + np.concatenate([first, second])
    one, two = np.split(np.asarray(jacobians(points)), 2)
    change = np.linalg.norm(one - two, 2, axis=(1, 2))
    most = (change / np.linalg.norm(first - second, axis=1)).max()
    stated = float(bound(reach))
    assert 0.1 * stated < most <= stated * (1 + 1e-9)
    if kind == "leaky":
        assert np.isinf(float(bound(1.2 * reach)))


def test_lipschitz_constant_of_two_layers_is_attained(float64):
    """Along a rank-one displacement the Jacobian of LIN2 changes by |X| |Δ|."""
    loss, network = lin2(float64)
    flat, build = flatten(network)
    outputs = lambda w: build(w)(loss.data.inputs).ravel()
    right = np.linalg.svd(loss.data.inputs)[2][0]
    move = np.concatenate([np.outer(np.ones(2), right).ravel(), np.zeros(4)])
    jacobian, flat = jax.jit(jax.jacfwd(outputs)), np.asarray(flat)
    change = np.asarray(jacobian(flat + move)) - np.asarray(jacobian(flat))
    size = np.linalg.norm(change, 2) / np.linalg.norm(move)
    bound = ls.regularity_on_ball(loss, network, 0.1).lipschitz
    np.testing.assert_allclose(size, bound, rtol=1e-12)


def test_sharp_pair(float64, getkey):
    """Small normal displacements: held with a hair less, violated with a hair more."""
    loss, network = res3(float64)
    flat, build = flatten(network)
    sharp = ls.sharp_regularity(loss, network)
    moves = ls.sample_cone(getkey(), loss, network, 4000, 0.0)
    dense = np.asarray(jr.hessian(loss, network).as_matrix())
    values, vectors = np.linalg.eigh(dense)
    first = int((values < 1e-9 * values[-1]).sum())
    ends = vectors[:, [first, -1]].T
    moves = 1e-6 * np.concatenate([ends, np.asarray(moves)])

    def slack(move, factor):
        gap = lambda w: ls.minimum_gap(loss, build(w))
        at = ls.local_values(gap, flat + move, flat)
        pair = ls.RegularityCondition(sharp.alpha, factor * sharp.beta)
        return pair.slack(at) / at.distance**2

    slack = jax.jit(jax.vmap(slack, in_axes=(0, None)))
    assert np.min(slack(moves, 0.999)) > 0
    assert np.max(np.asarray(slack(moves, 1.001))[:2]) < 0
    tilted = ls.sharp_regularity(loss, network, math.pi / 3)
    np.testing.assert_allclose(tilted.beta, float(sharp.beta) / 4, rtol=1e-12)


def test_failure_along_the_kernel(float64, getkey):
    """The gap and the inner product there, by automatic differentiation."""
    loss, network = lin2(float64)
    flat, build = flatten(network)
    direction = jnp.asarray(normal(getkey(), (2, 2)))
    tangent = ravel_pytree(ls.minimizer_tangent(network, (direction,)))[0]
    assert float(ls.cone_ratio(loss, network, tangent)) < 1e-12
    for t in (1.0, 0.1):
        gap, inner, square = ls.kernel_failure(loss, network, direction, t)
        at = ls.local_values(
            lambda w: ls.minimum_gap(loss, build(w)), flat + t * tangent, flat
        )
        np.testing.assert_allclose(at.gap, gap, rtol=1e-10)
        np.testing.assert_allclose(at.inner, inner, rtol=1e-10)
        np.testing.assert_allclose(at.distance**2, square, rtol=1e-12)
        np.testing.assert_allclose(inner, 4 * gap, rtol=1e-14)
    small = [ls.kernel_failure(loss, network, direction, t) for t in (1e-2, 1e-3)]
    ratios = [float(inner / square) for _, inner, square in small]
    np.testing.assert_allclose(ratios[0] / ratios[1], 100, rtol=1e-9)


def test_with_respect_to_the_nearest_minimiser(float64, getkey):
    """From the nearest minimiser every displacement will do, and descent contracts."""
    loss, network = res3(float64)
    flat, build = flatten(network)
    gradient = jax.jit(jax.grad(lambda w: loss(build(w))))
    for _ in range(3):
        start = build(flat + 0.02 * normal(getkey(), flat.shape) / 3)
        near = ls.project_to_minimizers(loss, start)
        cone = ls.regularity_on_ball(loss, near.network, near.distance, angle=0.0)
        assert float(cone.alpha) > 0
        at = ls.local_values(
            lambda w: ls.minimum_gap(loss, build(w)),
            flatten(start)[0],
            flatten(near.network)[0],
        )
        assert float(cone.condition.slack(at)) > 0
        rate = ls.descent_rate(cone.condition)
        slope = gradient(flatten(start)[0])
        after = build(flatten(start)[0] - rate.step * slope)
        moved = ls.project_to_minimizers(loss, after).distance
        assert float(moved) ** 2 <= float(rate.factor * near.distance**2)


def test_scaling_of_the_objective(float64):
    """f → cf: α/c, cβ, the same radius."""
    for instance in (lin2, nl2):
        loss, network = instance(float64)
        data = loss.data
        grown = jr.data.Dataset(2 * data.inputs, 2 * data.targets)
        one = ls.regularity_cone(loss, network)
        four = ls.regularity_cone(jr.SquaredLoss(grown), network)
        np.testing.assert_allclose(four.alpha, one.alpha / 4, rtol=1e-12)
        np.testing.assert_allclose(four.beta, 4 * one.beta, rtol=1e-12)
        np.testing.assert_allclose(four.radius, one.radius, rtol=1e-12)


def test_refusals(float64):
    loss, network = lin2(float64)
    for settings, words in (
        ({"epsilon": 0.57}, "0.561553"),
        ({"gamma": 1.0}, "strictly between"),
        ({"angle": 1.6}, "below pi/2"),
    ):
        with pytest.raises(ValueError, match=words):
            ls.regularity_cone(loss, network, **settings)
    deep = jr.DenseNetwork((jnp.eye(2), jnp.eye(2)), None)
    with pytest.raises(TypeError, match="Lipschitz"):
        ls.regularity_cone(loss, deep)
    with pytest.raises(ValueError, match="2 layers"):
        ls.kernel_failure(loss, network, jnp.eye(3), 0.1)
    moved = jax.tree.map(lambda w: w + 0.01, network)
    assert not bool(ls.regularity_cone(loss, moved).is_minimizer)
    assert pytest.approx((17**0.5 - 3) / 2) == ls.EPSILON_LIMIT
    one = jr.LinearNetwork((jnp.eye(2),))
    data = jr.data.Dataset(jnp.eye(2), jnp.eye(2))
    assert np.isinf(float(ls.regularity_cone(jr.SquaredLoss(data), one).radius))
