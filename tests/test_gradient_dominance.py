"""Hessians at minimisers, and constants of dominance, against autodiff and numpy."""

import itertools

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


def dense_hessian(loss, network):
    flat, build = flatten(network)
    return np.asarray(jax.jit(jax.hessian(lambda w: loss(build(w))))(flat))


def test_spectra_are_those_of_the_dense_hessian(float64):
    for instance in (lin2, nl2):
        loss, network = instance(float64)
        want = np.linalg.eigvalsh(dense_hessian(loss, network))[::-1]
        found = ls.minimizer_spectrum(loss, network)
        np.testing.assert_allclose(found.expand(), want, atol=2e-13 * want[0])
        below, zero, above = found.inertia(1e-9 * want[0])
        assert (below, above) == (0, int((want > 1e-9 * want[0]).sum()))
        assert zero + above == want.size
        operator = ls.minimizer_gram(loss, network)
        vector = np.arange(1.0, operator.shape[0] + 1)
        dense = np.asarray(operator.as_matrix())
        product = operator.mv(jnp.asarray(vector))
        np.testing.assert_allclose(product, dense @ vector, rtol=1e-12)


def dense_jacobian(loss, network):
    flat, build = flatten(network)
    outputs = lambda w: build(w)(loss.data.inputs).ravel()
    return np.asarray(jax.jit(jax.jacfwd(outputs))(flat))


def random_factor(rng, rows, cols, rank):
    return rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, cols))


def test_rank_formula(float64):
    """60 networks of two and three layers with every rank, against numpy."""
    rng = np.random.default_rng(3)
    for widths in ((3, 3, 2), (3, 4, 3, 2)):
        batch, ranks = [], []
        for _ in range(30):
            n = rng.integers(1, 4)
            inputs = random_factor(rng, 4, 3, n)
            weights = [
                random_factor(rng, b, a, rng.integers(0, min(a, b) + 1))
                for a, b in itertools.pairwise(widths)
            ]
            blocks = []
            for k in range(len(weights)):
                above = np.eye(widths[-1])
                for weight in weights[:k:-1]:
                    above = above @ weight
                below = inputs.T
                for weight in weights[:k]:
                    below = weight @ below
                blocks.append(np.kron(below.T, above))
            jacobian = np.concatenate(blocks, axis=1)
            ranks.append(np.linalg.matrix_rank(jacobian, 1e-9))
            batch.append((inputs, *weights))
        assert len(set(ranks)) > 4
        inputs, *weights = (jnp.asarray(np.stack(x)) for x in zip(*batch, strict=True))

        def rank(inputs, weights, m=widths[-1]):
            data = jr.data.Dataset(inputs, jnp.ones((4, m)))
            network = jr.LinearNetwork(tuple(weights))
            return ls.hessian_rank(jr.SquaredLoss(data), network, 1e-9)

        found = jax.jit(jax.vmap(rank))(inputs, weights)
        np.testing.assert_array_equal(found, ranks)


def test_closed_form_spectra(float64):
    """Balanced layers with whitened inputs, and scalars."""
    singular, depth, scale = jnp.array([2.0, 1.0]), 3, 4.0
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    targets = turn @ np.diag(singular) @ turn.T @ turn
    inputs = jnp.asarray(scale**0.5 * np.eye(2))
    data = jr.data.Dataset(inputs, inputs @ targets.T)
    network = ls.balanced_minimizer(data, depth)
    loss = jr.SquaredLoss(data)
    assert bool(ls.check_minimizer(loss, network).is_minimizer)
    want = np.linalg.eigvalsh(jr.hessian(loss, network).as_matrix())[::-1]
    found = ls.balanced_spectrum(singular, depth, scale)
    np.testing.assert_allclose(found.expand(), want, atol=1e-12)
    assert found.multiplicities[-1] == 2 * 4
    np.testing.assert_allclose(found.values[:4].min(), scale * depth, rtol=1e-14)
    np.testing.assert_allclose(found.maximum, scale * 3 * 2 ** (4 / 3), rtol=1e-14)
    chain = ls.dominance_chain(loss, network)
    np.testing.assert_allclose(chain.lam3, chain.lam0, rtol=1e-12)
    weights = jnp.array([0.5, -2.0, 3.0])
    column = jnp.array([[1.0], [2.0]])
    scalar = jr.LinearNetwork(tuple(w[None, None] for w in weights))
    loss = jr.SquaredLoss(jr.data.Dataset(column, scalar(column)))
    largest = np.linalg.eigvalsh(jr.hessian(loss, scalar).as_matrix())[-1]
    np.testing.assert_allclose(ls.scalar_curvature(column, weights), largest)


def random_ratio(loss, network, minimum):
    """(f - f*)/|∇f|² by automatic differentiation and a subtraction."""
    flat, build = flatten(network)
    value, slope = jax.value_and_grad(lambda w: loss(build(w)))(flat)
    return (value - minimum) / jnp.sum(slope**2)


def below(low, high, slack=1e-6):
    low, high = np.asarray(low), np.asarray(high)
    return bool((low <= high * (1 + slack)).all())


@pytest.mark.parametrize("kind", ["square", "rectangular", "residual"])
def test_chain_on_thousands(float64, getkey, kind):
    """3000 random networks of each kind, 0 violations."""
    widths = (3, 4, 2) if kind == "rectangular" else (2, 2, 2, 2)
    n = 2 if kind == "residual" else 4  # and those 2 samples on one line

    inputs = normal(getkey(), (3000, n, widths[0]))
    if kind == "residual":
        inputs[:, 1] = -2 * inputs[:, 0]
    targets = normal(getkey(), (3000, n, widths[-1]))
    weights = tuple(
        normal(getkey(), (3000, b, a)) for a, b in itertools.pairwise(widths)
    )
    left = np.linalg.svd(inputs, full_matrices=False)[0]
    left = left[:, :, :1] if kind == "residual" else left
    outside = targets - left @ (left.swapaxes(1, 2) @ targets)
    best = np.sum(outside**2, axis=(1, 2)) / 2

    def instance(inputs, targets, weights, best):
        make = jr.LinearResidualNetwork if kind == "residual" else jr.LinearNetwork
        loss = jr.SquaredLoss(jr.data.Dataset(inputs, targets))
        network = make(weights)
        chain = ls.dominance_chain(loss, network)
        low, high = ls.spectrum_bounds(loss, network)
        one = ls.single_factor_dominance(loss, network)
        return chain, random_ratio(loss, network, best), (low, high, one)

    every = jax.jit(jax.vmap(instance))(inputs, targets, weights, best)
    chain, ratio, (low, high, one) = jax.tree.map(np.asarray, every)
    np.testing.assert_allclose(chain.ratio, ratio, rtol=1e-4)
    good = np.asarray(chain.lam0) < 1e6  # λ_min(T) far from rounding
    assert good.mean() > 0.95
    for less, more in (
        (ratio, chain.lam0),
        (chain.lam0, chain.lam1),
        (chain.lam1, chain.lam2),
        (chain.lam2, chain.lam3),
        (chain.lam1, one),
        (chain.lam0, 0.5 / low),
        (0.5 / high, chain.ratio),
    ):
        assert below(less[good], more[good])
    if kind == "rectangular":
        assert np.isinf(chain.lam3).all()
    # the bounds are not empty: some instance comes near each
    assert (np.asarray(ratio) / np.asarray(chain.lam0)).max() > 0.5
    if kind == "square":
        assert (np.asarray(chain.lam0) / np.asarray(chain.lam3)).max() > 0.05


def test_where_the_chain_is_an_equality(dtype):
    eps = float(jnp.finfo(dtype).eps)
    column = jnp.asarray([[1.0], [2.0]], dtype)
    data = jr.data.Dataset(column, jnp.asarray([[3.0], [-1.0]], dtype))
    weights = (jnp.asarray([[w]], dtype) for w in (0.5, 2.0))
    network = jr.LinearNetwork(tuple(weights))
    chain = ls.dominance_chain(jr.SquaredLoss(data), network)
    assert chain.ratio.dtype == dtype
    for other in (chain.lam0, chain.lam1, chain.lam2):
        np.testing.assert_allclose(other, chain.ratio, rtol=64 * eps)
    # the residual form is attained for one scalar layer
    one = jr.data.Dataset(column, column)
    network = jr.LinearResidualNetwork((jnp.asarray([[0.25]], dtype),))
    chain = ls.dominance_chain(jr.SquaredLoss(one), network)
    np.testing.assert_allclose(
        ls.residual_dominance(one, 1, 0.25), chain.ratio, rtol=64 * eps
    )


def test_reference_ratios(float64):
    """How loose the singular values of the layers are: published to three digits."""
    for instance, loose in ((res3, 1.55), (lin3, 1221)):
        loss, network = instance(float64)
        chain = ls.dominance_chain(loss, network)
        tight = float(chain.lam0)
        np.testing.assert_allclose(chain.lam3, loose * tight, rtol=4e-3)
        limit = ls.asymptotic_dominance(loss, network)
        np.testing.assert_allclose(limit, chain.lam0, rtol=1e-11)
        values, vectors = np.linalg.eigh(dense_hessian(loss, network))
        first = int((values < 1e-9 * values[-1]).sum())
        flat, build = flatten(network)
        beside = build(jnp.asarray(np.asarray(flat) + 1e-5 * vectors[:, first]))
        near = ls.dominance_chain(loss, beside).ratio
        np.testing.assert_allclose(near, limit, rtol=1e-3)


@pytest.mark.parametrize("instance", [res3, nl2])
def test_theorem_on_balls(float64, getkey, instance):
    """2000 points of balls of every radius: no ratio above λ."""
    loss, network = instance(float64)
    flat, build = flatten(network)
    count = 2000
    move = normal(getkey(), (count, flat.size))
    move /= np.linalg.norm(move, axis=1, keepdims=True)
    radii = np.logspace(-3, 0, count)
    radii = radii * (1.0 if instance is res3 else 3.0)
    size = radii * np.random.default_rng(2).uniform(size=count) ** (1 / flat.size)
    starts = np.asarray(flat)[None] + size[:, None] * move

    def values(point, radius):
        proved = ls.dominance_theorem(loss, network, radius)
        gap = ls.minimum_gap(loss, build(point))
        slope = jax.grad(lambda w: loss(build(w)))(point)
        layers = None
        if instance is not nl2:
            layers = ls.neighbourhood_dominance(loss, network, radius)
        return proved, gap / jnp.sum(slope**2), layers

    proved, ratio, layers = jax.jit(jax.vmap(values))(starts, radii)
    ratio, value = np.asarray(ratio), np.asarray(proved.value)
    by_jacobian = np.asarray(proved.by_jacobian)
    assert below(ratio, value)
    finite = np.isfinite(value)
    assert 0.3 < finite.mean() < 1
    assert (np.diff(value[finite]) >= -1e-12).all()
    assert (ratio / value).max() > 0.3
    np.testing.assert_array_equal(
        finite, np.any([c.met for c in proved.conditions], axis=0)
    )
    limit = float(ls.asymptotic_dominance(loss, network))
    assert limit <= value[0] * (1 + 1e-12)
    assert by_jacobian[0] <= 1.02 * limit
    # σ_min(J) falls by L_J δ at most; L_J is tested on its own
    radius = float(radii[300])
    lipschitz = float(ls.regularity_on_ball(loss, network, radius).lipschitz)
    smallest = np.linalg.svd(dense_jacobian(loss, network), compute_uv=False)
    left = smallest[smallest > 1e-9][-1] - lipschitz * radius
    np.testing.assert_allclose(by_jacobian[300], 0.5 / left**2, rtol=1e-10)
    if layers is not None:
        np.testing.assert_allclose(layers, proved.by_layers, rtol=1e-12)
    np.testing.assert_allclose(0.5 / value, proved.mu)


def test_theorem_is_for_known_types_only(float64):
    loss, network = lin2(float64)
    narrow = jr.LinearNetwork((jnp.ones((1, 2)), jnp.ones((2, 1))))
    eyes, zeros = (jnp.eye(3, 2), jnp.eye(2, 3)), (jnp.zeros(3), jnp.zeros(2))
    biased = jr.DenseNetwork(eyes, zeros)
    assert ls.dominance_theorem(loss, narrow, 0.1) is None
    assert ls.dominance_theorem(loss, biased, 0.1) is None
    assert ls.dominance_theorem(lambda n: 0.0, network, 0.1) is None


LEAKY = jr.activations.LeakyReLU(0.3)


@pytest.mark.parametrize("kind", ["deep", "output", "relu"])
def test_nonlinear_dominance_on_thousands(float64, getkey, kind):
    """3000 random networks of each kind, each displaced once: 0 violations.

    The last 1000 go further and towards 0, where the ratio grows.
    """
    n, d, k, m, near = 2, 3, 3, 2, 2000
    rule = {"output": "tanh", "relu": "relu"}.get(kind, LEAKY)

    draw = lambda *shape: normal(getkey(), (3000, *shape))
    inner, middle, outer = draw(k, d), draw(k, k), draw(m, k)
    inner[:, 0] = 0  # a neuron whose pre-activations are at the kink
    weights = [inner, middle, outer] if kind == "deep" else [inner, outer]
    step = -np.concatenate([w.reshape(3000, -1) for w in weights], axis=1)
    step[:near] = draw(step.shape[1])[:near]
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    radii = np.random.default_rng(4).uniform(size=3000)
    radii[:near] *= 0.2
    drawn = (draw(n, d), draw(n, m), inner, outer, middle, step, radii)

    def instance(inputs, targets, inner, outer, middle, step, radius):
        data = jr.data.Dataset(inputs, targets)
        if kind == "deep":
            network = jr.DenseNetwork((inner, middle, outer), None, rule)
        else:
            network = jr.Shallow(inner, outer, rule)
        if kind == "output":
            network = ls.OutputActivated(network, LEAKY)
        loss = jr.SquaredLoss(data)
        flat, build = flatten(network)
        here = ls.nonlinear_dominance(loss, network)
        other = build(flat + radius * step)
        wide = ls.nonlinear_neighbourhood_dominance(loss, network, radius)
        ratio = random_ratio(loss, network, 0.0)
        return here, ratio, random_ratio(loss, other, 0.0), wide

    every = jax.jit(jax.vmap(instance))(*drawn)
    here, ratio, moved, wide = jax.tree.map(np.asarray, every)
    np.testing.assert_allclose(here.ratio, ratio, rtol=1e-6)
    good = np.asarray(here.lam0) < 1e6
    assert good.mean() > (0.3 if kind == "relu" else 0.95)
    assert below(ratio[good], here.lam0[good])
    assert below(here.lam0[good], here.lam1[good])
    assert below(here.lam1, wide)
    assert below(moved, wide)
    assert np.isfinite(wide[:near]).mean() > 0.2
    assert (np.asarray(ratio)[good] / np.asarray(here.lam1)[good]).max() > 0.05


def test_known_parts_of_the_nonlinear_bound(float64):
    """NL2: the two terms by numpy; a ReLU network keeps the top one."""
    loss, network = nl2(float64)
    smallest = lambda m: np.linalg.svd(np.asarray(m), compute_uv=False)[-1]
    inputs = loss.data.inputs
    features = np.asarray(network(inputs)) @ np.linalg.inv(network.outer).T
    top = smallest(features) ** 2
    full = top + (smallest(network.outer) * smallest(inputs) / 4) ** 2
    found = ls.nonlinear_dominance(loss, network)
    np.testing.assert_allclose(found.lam1, 0.5 / full, rtol=1e-12)
    relu = jr.Shallow(network.inner, network.outer)
    z = np.asarray(inputs) @ np.asarray(network.inner).T
    active = np.maximum(z, 0)
    found = ls.nonlinear_dominance(loss, relu)
    np.testing.assert_allclose(
        found.lam1, 0.5 / smallest(active) ** 2 if smallest(active) > 1e-9 else np.inf
    )
    # one neuron within its radius of a kink loses the slope of that side
    near = float(ls.sign_radius(network, inputs))
    lengths = np.linalg.norm(inputs, axis=1)
    ratios = np.abs(z) / lengths[:, None]
    np.testing.assert_allclose(near, ratios.min(), rtol=1e-14)


def test_where_dominance_fails(dtype):
    eps = float(jnp.finfo(dtype).eps)
    for t, want in ((0.1, 25), (0.001, 250000)):
        loss, network = ls.two_singular_factors(jnp.asarray(t, dtype))
        chain = ls.dominance_chain(loss, network)
        np.testing.assert_allclose(chain.ratio, want, rtol=256 * eps)
    for t in (1.0, 8.0):
        loss, network = ls.unbounded_dominance(jnp.asarray(t, dtype))
        assert bool(ls.check_minimizer(loss, network).is_minimizer)
        limit = ls.asymptotic_dominance(loss, network)
        np.testing.assert_allclose(limit, t * t / 4, rtol=1e5 * eps)
        largest = ls.minimizer_spectrum(loss, network).maximum
        np.testing.assert_allclose(largest, 2 * t * t, rtol=64 * eps)
    # one singular factor is harmless, two are not
    loss, network = deficient(dtype)
    assert np.isinf(float(ls.single_factor_dominance(loss, network)))
    one = eqx.tree_at(lambda n: n.weights[0], network, jnp.eye(2, dtype=dtype))
    assert float(ls.single_factor_dominance(loss, one)) == 0.5
    assert np.isinf(float(ls.dominance_theorem(loss, network, 0.1).value))
    chain = ls.dominance_chain(loss, network)
    assert bool(chain.result == jr.RESULTS.unresolved)


def test_scaling_of_the_objective(float64):
    """X, Y → √c X, √c Y multiplies f by c: every λ is divided by c."""
    scale = 3.0
    for instance in (lin2, nl2):
        loss, network = instance(float64)
        data = loss.data
        grown = jr.data.Dataset(scale**0.5 * data.inputs, scale**0.5 * data.targets)
        more = jr.SquaredLoss(grown)
        for function in (
            ls.asymptotic_dominance,
            lambda f, n: ls.dominance_theorem(f, n, 1e-3).by_layers,
            lambda f, n: ls.dominance_theorem(f, n, 1e-3).by_jacobian,
        ):
            before, after = function(loss, network), function(more, network)
            np.testing.assert_allclose(after, before / scale, rtol=1e-10)
