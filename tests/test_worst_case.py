"""Worst cases in a ball, on objectives whose worst point is known exactly."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _draws import normal

import jaxrelu as jr
from jaxrelu import RESULTS, landscape as ls


class Product(eqx.Module):
    """f = (w₀w₁ - c)²/2, whose ratio is 1/(2|w|²): worst nearest to 0.

    A module, so that two of them share their programs.
    """

    target: jax.Array

    def __call__(self, w):
        return (w[0] * w[1] - self.target) ** 2 / 2


def test_ascent_finds_the_worst_point_of_a_product(dtype):
    centre, radius = jnp.asarray([2.0, 0.5], dtype), 0.3
    scalar_product = Product(jnp.asarray(1.0, dtype))
    found = jr.dominance(scalar_product, centre, radius, gap=scalar_product)
    norm = math.sqrt(4.25)
    exact = 1 / (2 * (norm - radius) ** 2)
    assert float(found.found) == pytest.approx(exact, rel=2e-3)
    least = float(found.found.value) - float(found.found.error)
    assert least <= exact * (1 + 1e-6)
    nearest = np.asarray(centre) * (1 - radius / norm)
    assert np.abs(np.asarray(found.witness) - nearest).max() < 0.05
    assert found.found.value.dtype == dtype
    assert float(found.asymptotic) == pytest.approx(1 / (2 * 4.25), rel=1e-4)
    assert int(found.nullity) == 1
    assert float(found.lower) <= exact * (1 + 1e-6)
    assert float(found.mu_upper) == pytest.approx((norm - radius) ** 2, rel=5e-3)
    assert found.theorem is None
    assert found.certified is None
    assert float(found.upper) == math.inf
    assert float(found.mu_lower) == 0.0
    assert np.isnan(float(found.centre))


def test_ratio_blows_up_between_singular_factors(float64):
    """P* = diag(1, 0), W₁ = W₂ = diag(1, t): the ratio is 1/(4t²), without bound."""
    targets = jnp.asarray(np.diag([1.0, 0.0]))
    loss = jr.SquaredLoss(jr.data.Dataset(jnp.asarray(np.eye(2)), targets))
    for t in (0.1, 0.01):
        layer = jnp.asarray(np.diag([1.0, t]))
        net = jr.LinearNetwork((layer, layer))
        report = jr.dominance(loss, net, 0.9 * t, num_steps=100)
        assert float(report.centre) == pytest.approx(1 / (4 * t * t), rel=1e-12)
        # the nearest multiple of the witness in the plane of the two small entries
        worse = 1 / (4 * (t - 0.9 * t / math.sqrt(2)) ** 2)
        assert float(report.found) > 0.99 * worse
        assert bool(report.asymptotic.result == RESULTS.no_minimum)
    # one singular factor: a minimiser, and the constant is that of the scalar valley
    point, valley = jnp.array([0.0, 1.0]), Product(jnp.asarray(0.0, float64))
    report = jr.dominance(valley, point, 0.5, gap=valley)
    assert float(report.asymptotic) == pytest.approx(0.5, rel=1e-12)
    assert float(report.found) == pytest.approx(2.0, rel=1e-5)  # 1/(2(1 - R)²)
    plain = jr.dominance(valley, point, 0.5)  # f(point) as f*, by subtraction
    assert float(plain.found) == pytest.approx(2.0, rel=1e-5)


class Quadratic(eqx.Module):
    """Half of a quadratic form."""

    matrix: jax.Array

    def __call__(self, x):
        return x @ self.matrix @ x / 2


def quadratic(spectrum, basis):
    return Quadratic(jnp.asarray(basis @ np.diag(spectrum) @ basis.T))


def test_quadratics_with_known_spectra(float64, getkey):
    """Every constant is known and holds at every point; a kernel of dimension 2."""
    spectrum = np.array([0.0, 0.0, 0.5, 1.0, 3.0])
    basis = np.linalg.qr(normal(getkey(), (5, 5)))[0]
    f, centre = quadratic(spectrum, basis), jnp.asarray(np.zeros(5))
    report = jr.dominance(f, centre, 0.7, key=getkey(), gap=f, num_starts=4)
    for estimate in (report.found, report.asymptotic):
        assert float(estimate) == pytest.approx(1.0, rel=1e-6)
    assert int(report.nullity) == 2
    for angle in (0.0, 1.0):
        for alpha in (None, 0.1, 0.4):
            cone = jr.regularity(
                f, centre, 0.7, angle=angle, alpha=alpha, num_starts=4, key=getkey()
            )
            a = 1 / 3.5 if alpha is None else alpha
            assert float(cone.alpha) == pytest.approx(a)
            beta = min(0.5 - a * 0.25, 3 - a * 9)
            beta *= math.cos(angle) ** 2 if beta > 0 else 1
            assert float(cone.asymptotic) == pytest.approx(beta, rel=1e-9)
            assert float(cone.found) == pytest.approx(beta, rel=1e-9)
            assert bool(cone.condition.is_possible)
    settings = {"radius": 0.7, "key": getkey(), "num_starts": 4}
    flat = jr.one_point_convexity(f, centre, **settings)
    assert not bool(flat.is_isolated)
    assert float(flat.asymptotic) == 0
    assert abs(float(flat.found)) < 1e-9
    steep = quadratic(spectrum + 0.25, basis)
    x = normal(getkey(), 5)
    report = jr.one_point_convexity(steep, jnp.asarray(x), centre, **settings)
    quotient = x @ np.asarray(steep.matrix) @ x / (x @ x)
    assert float(report.quotient) == pytest.approx(quotient)
    for estimate in (report.found, report.asymptotic):
        assert float(estimate) == pytest.approx(0.25, rel=1e-6)


def lin2():
    """The page's instance: f* = 5/3 > 0, a minimiser with layers of full rank."""
    inputs = jnp.asarray(np.array([[1.0, 0, 2], [0, 1, -1]]).T)
    targets = jnp.asarray(np.array([[2.0, 1, 1], [0, 1, 3]]).T)
    first = jnp.asarray(np.array([[1.0, 1], [0, 2]]))
    last = jnp.asarray(np.array([[4 / 3, 0], [4 / 3, -0.5]]))
    loss = jr.SquaredLoss(jr.data.Dataset(inputs, targets))
    return loss, jr.LinearNetwork((first, last))


def by_numpy(loss, weights):
    """f - f* and ‖∇f‖² from the definitions, f* by least squares."""
    x, y = np.asarray(loss.data.inputs), np.asarray(loss.data.targets)
    first, last = weights
    error = x @ first.T @ last.T - y
    fit = np.linalg.lstsq(x, y, rcond=None)[0]
    gap = 0.5 * np.sum((x @ (first.T @ last.T - fit)) ** 2)
    slopes = last.T @ error.T @ x, error.T @ x @ first.T
    return gap, sum(np.sum(s**2) for s in slopes)


def test_linear_network_from_both_sides(float64, getkey):
    loss, net = lin2()
    assert float(loss(net)) == pytest.approx(5 / 3)
    dense = jax.jit(jax.hessian(lambda w: loss(jr.LinearNetwork(w))))(net.weights)
    dense = np.block([[np.asarray(h).reshape(4, 4) for h in row] for row in dense])
    values = np.linalg.eigvalsh(dense)
    limit = 1 / (2 * values[values > 1e-9].min())
    reports = [
        jr.dominance(loss, net, r, key=getkey(), num_starts=8, num_steps=100)
        for r in (0.02, 0.1, 0.3)
    ]
    for report in reports:
        np.testing.assert_allclose(float(report.asymptotic), limit, rtol=1e-11)
        weights = [np.asarray(w) for w in report.witness.weights]
        moved = np.sqrt(
            sum(
                np.sum((w - np.asarray(v)) ** 2)
                for w, v in zip(weights, net.weights, strict=True)
            )
        )
        assert moved <= float(report.radius) * (1 + 1e-12)
        gap, square = by_numpy(loss, weights)
        assert float(report.found) == pytest.approx(gap / square, rel=1e-8)
        assert float(report.found) > limit
        assert float(report.found) < float(report.certified)
        assert float(report.found) < float(report.theorem)
        assert float(report.upper) <= float(report.theorem) * (1 + 1e-12)
    found = [float(r.found) for r in reports]
    assert found == sorted(found)
    # no point of thousands is worse than the certificate, few come near the witness
    report = reports[-1]
    moves = normal(getkey(), (4000, 8))
    moves = moves * (0.3 / np.linalg.norm(moves, axis=1))[:, None]
    ratios = []
    centre = [np.asarray(w) for w in net.weights]
    for move in moves:
        weights = [w + m for w, m in zip(centre, move.reshape(2, 2, 2), strict=True)]
        gap, square = by_numpy(loss, weights)
        ratios.append(gap / square)
    assert max(ratios) < float(report.certified)
    assert max(ratios) < float(report.found) * (1 + 1e-9)


def test_least_squares_refusals_and_scaling(float64):
    loss, net = lin2()
    narrow = jr.LinearNetwork((jnp.ones((1, 2)), jnp.ones((2, 1))))
    with pytest.raises(ValueError, match="narrower than both"):
        jr.dominance(loss, narrow, 0.1)
    with pytest.raises(ValueError, match="0 does not fit"):
        jr.dominance(loss, jr.Shallow(jnp.eye(2), jnp.eye(2)), 0.1)
    with pytest.raises(ValueError, match="one of them at most"):
        jr.dominance(loss, net, 0.1, minimum=0.0, gap=loss)
    with pytest.raises(TypeError, match="expected a callable"):
        jr.dominance(3, net, 0.1)
    with pytest.raises(ValueError, match="radians"):
        jr.regularity(loss, net, 0.1, angle=2.0)
    with pytest.raises(ValueError, match="num_starts"):
        jr.regularity(loss, net, 0.1, num_starts=-1)
    with pytest.raises(ValueError, match="same network"):
        jr.one_point_convexity(jnp.sum, jnp.ones(2), jnp.ones(3))
    # duplicated columns of X: a rank-deficient input, f* by projection all the same
    data = loss.data
    flat = jr.data.Dataset(data.inputs[:, :1] * jnp.ones((1, 2)), data.targets)
    reduced = ls.reduced_loss(jr.SquaredLoss(flat), net)
    assert reduced.data.inputs.shape == (1, 2)
    weights = [np.asarray(w) + 0.1 for w in net.weights]
    moved = jr.LinearNetwork(tuple(jnp.asarray(w) for w in weights))
    gap, _ = by_numpy(jr.SquaredLoss(flat), weights)
    np.testing.assert_allclose(float(reduced(moved)), gap, rtol=1e-13)


def leaky_instance(slope=0.25):
    """The page's NL2, rows as samples: zero loss, no pre-activation at 0."""
    inputs = jnp.asarray(np.array([[2.0, 1], [0, 1]]).T)
    targets = jnp.asarray(np.array([[1.0, -1], [2, 1]]).T)
    first = jnp.asarray(np.array([[1 / 2, -5 / 2], [3 / 8, 13 / 8]]))
    last = jnp.asarray(np.array([[22.0, -4], [26, 16]]) / 19)
    net = jr.Shallow(first, last, jr.activations.LeakyReLU(slope))
    return jr.SquaredLoss(jr.data.Dataset(inputs, targets)), net


def both(net):
    return net.inner, net.outer


def test_leaky_network_cone(float64):
    loss, net = leaky_instance()
    assert float(loss(net)) < 1e-28
    report = jr.dominance(loss, net, 0.02, where=both)
    assert float(report.lower) < float(report.certified) < 1.2 * float(report.lower)
    # beyond the sign change of a pre-activation nothing is certified
    signs = float(ls.jacobian_lipschitz(net, loss.data.inputs, 0.4, both))
    assert signs == math.inf
    assert int(report.nullity) == 8 - 4
    assert float(report.lower) < float(report.theorem) < 1.2 * float(report.lower)
    partly = jr.dominance(loss, net, 0.02)
    assert partly.theorem is None  # of all weights, while the inner ones train
    assert float(partly.lower) < float(partly.upper) < 1.01 * float(partly.lower)
    cone = jr.regularity(loss, net, 0.002, where=both, alpha=0.02)
    assert 0 < float(cone.lower) <= float(cone.found) <= float(cone.asymptotic) + 1e-9


def test_jacobian_lipschitz_holds(float64, getkey):
    """Against the Jacobian itself at pairs of points; attained by two linear layers."""
    inputs = jnp.asarray(normal(getkey(), (3, 2)))

    def linear(weights):
        return jr.LinearNetwork(weights)

    def residual(weights):
        return jr.LinearResidualNetwork(weights)

    def smooth(weights):
        return jr.Shallow(weights[0], weights[1], "tanh")

    for build, depth in ((linear, 2), (linear, 3), (residual, 3), (smooth, 2)):
        start = normal(getkey(), (depth, 2, 2))
        if build is smooth:  # large outer weights: the second derivative decides
            start[1] *= 20
        start = tuple(jnp.asarray(w) for w in start)
        radius = 0.5
        where = both if build is smooth else None
        constant = ls.jacobian_lipschitz(build(start), inputs, radius, where)

        @jax.jit
        def quotients(start, moves, build=build, depth=depth):
            def flat(weights):
                dense = jax.jacrev(lambda w: build(w)(inputs))(weights)
                return jnp.concatenate([d.reshape(6, 4) for d in dense], axis=1)

            def one(pair):
                parts = jnp.split(pair[0], depth)
                near = tuple(
                    w + m.reshape(2, 2) for w, m in zip(start, parts, strict=True)
                )
                change = flat(near) - flat(start)
                return jnp.linalg.norm(change, 2) / jnp.linalg.norm(pair[0])

            return jax.vmap(one)(moves)

        moves = normal(getkey(), (500, 1, 4 * depth))
        moves *= radius / np.linalg.norm(moves, axis=2, keepdims=True)
        worst = np.max(quotients(start, moves))
        assert worst <= constant, build.__name__
        if (build, depth) == (linear, 2):
            assert worst > 0.6 * constant
            _, _, right = np.linalg.svd(inputs)
            top = np.outer(np.ones(2) / math.sqrt(2), right[0])
            moves[0, 0] = np.concatenate([radius * top.ravel(), np.zeros(4)])
            attained = np.asarray(quotients(start, moves))[0]
            np.testing.assert_allclose(attained, constant, rtol=1e-8)


def test_jacobian_lipschitz_of_one_layer(float64, getkey):
    """Inner weights alone, by pairs of Jacobians; the outer ones alone: linear."""
    inputs = jnp.asarray(normal(getkey(), (3, 2)))
    inner, outer = normal(getkey(), (4, 2)), 5 * normal(getkey(), (2, 4))
    net = jr.Shallow(jnp.asarray(inner), jnp.asarray(outer), "tanh")
    radius = 0.3
    dense = jax.jit(
        jax.vmap(
            lambda move: jax.jacrev(
                lambda w: jr.Shallow(w, net.outer, "tanh")(inputs).ravel()
            )(net.inner + move).reshape(6, 8)
        )
    )
    moves = normal(getkey(), (2000, 4, 2))
    moves *= radius / np.linalg.norm(moves, axis=(1, 2), keepdims=True)
    moves[0] = 0
    every = np.asarray(dense(moves))
    change = every[1:] - every[:1]
    worst = np.max(np.linalg.norm(change, 2, axis=(1, 2))) / radius
    inner = ls.jacobian_lipschitz(net, inputs, radius, lambda n: n.inner)
    assert 0.02 * inner < worst <= inner
    assert inner < ls.jacobian_lipschitz(net, inputs, radius, both)
    assert ls.jacobian_lipschitz(net, inputs, radius, lambda n: n.outer) == 0


def test_nothing_is_proved_without_curvature(float64):
    """Two layers of 0, targets of 0: a minimiser whose Hessian is 0, no cone at all."""
    nothing = jnp.asarray(np.zeros((2, 2)))
    loss = jr.SquaredLoss(jr.data.Dataset(jnp.asarray(np.eye(2)), nothing))
    net = jr.LinearNetwork((nothing, nothing))
    cone = jr.regularity(loss, net, 0.1, num_steps=10)
    assert float(cone.lower) == -math.inf
    assert float(cone.asymptotic.error) == math.inf
    report = jr.dominance(loss, net, 0.1, num_steps=100)
    assert float(report.asymptotic.error) == math.inf
    flat = jr.SquaredLoss(jr.data.Dataset(jnp.zeros((3, 2)), jnp.ones((3, 2))))
    with pytest.raises(ValueError, match="inputs are all zero"):
        jr.dominance(flat, net, 0.1)
    assert bool(cone.asymptotic.result == RESULTS.no_minimum)


@pytest.mark.slow
def test_population_loss(float64, getkey):
    """n = k: strongly convex near the teacher; n = k + 1: minimisers not isolated."""
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2, 2))
    centre = np.eye(2)
    constant = 0.25 - 1 / (2 * math.pi)
    convex = jr.one_point_convexity(
        F,
        jnp.asarray(centre + 0.1),
        jnp.asarray(centre),
        radius=0.01,
        key=getkey(),
        num_starts=4,
    )
    assert float(convex.asymptotic) == pytest.approx(constant, rel=1e-12)
    assert 0 < float(convex.certified) < float(convex.found) < constant * (1 + 1e-9)
    move = 0.1 * np.ones((2, 2))
    slope = np.asarray(F.gradient(centre + 0.1))
    quotient = np.sum(slope * move) / np.sum(move**2)
    assert float(convex.quotient) == pytest.approx(quotient, rel=1e-12)
    centre = jnp.asarray(centre)
    report = jr.dominance(F, centre, 0.01, key=getkey(), num_starts=4)
    assert float(report.asymptotic) == pytest.approx(1 / (2 * constant), rel=1e-12)
    assert float(report.lower) < float(report.certified)
    witness = report.witness
    ratio = float(F(witness)) / np.sum(np.asarray(F.gradient(witness)) ** 2)
    assert float(report.found) == pytest.approx(ratio, rel=1e-9)
    assert float(report.found.error) < 1e-6
    # beyond the reach of the Lipschitz constant nothing is certified
    far = jr.dominance(F, centre, 0.1, key=getkey(), num_starts=4)
    assert float(far.upper) == math.inf
    assert bool(far.certified.result == RESULTS.unresolved)
