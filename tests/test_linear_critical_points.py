"""Critical points of two-layer linear networks, against automatic differentiation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _draws import normal
from jax.flatten_util import ravel_pytree

import jaxrelu as jr
from jaxrelu import landscape as ls


D, K, M, N = 3, 2, 3, 5
SUBSETS = {3: ((0, 2), ()), 2: ((0, 1), (2,))}


def random_data(getkey, rank=D, count=()):
    inputs = normal(getkey(), (*count, N, rank)) @ normal(getkey(), (*count, rank, D))
    return jnp.asarray(inputs), jnp.asarray(normal(getkey(), (*count, N, M)))


@pytest.mark.parametrize("rank", [3, 2])
def test_constructed_points_are_critical(float64, getkey, rank):
    """100 random points of each subset: gradient 0, stated value, all conditions."""

    def build(inputs, targets, mixing, free):
        data = jr.data.Dataset(inputs, targets)
        found = []
        for subset in SUBSETS[rank]:
            network = ls.shallow_critical_point(data, subset, mixing, free)
            loss = jr.SquaredLoss(data)
            value, slope = jax.value_and_grad(loss)(network)
            check = ls.check_critical_point(loss, network)
            found.append((value, jnp.linalg.norm(ravel_pytree(slope)[0]), check))
        return found

    inputs, targets = map(np.asarray, random_data(getkey, rank, (100,)))
    mixing, free = normal(getkey(), (100, K, K)), normal(getkey(), (100, K, D))
    found = jax.jit(jax.vmap(build))(inputs, targets, mixing, free)
    found = jax.tree.map(np.asarray, found)
    fit = inputs @ np.linalg.pinv(inputs, rcond=1e-10) @ targets
    levels = np.linalg.eigvalsh(fit.swapaxes(1, 2) @ fit)[:, ::-1]
    square = (targets**2).sum((1, 2))
    scale = square
    for subset, (value, slope, check) in zip(SUBSETS[rank], found, strict=True):
        want = (square - levels[:, list(subset)].sum(1)) / 2
        np.testing.assert_allclose(value, want, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(check.value, want, rtol=1e-8, atol=1e-9)
        assert np.median(slope / scale) < 1e-12
        assert np.median(check.coupling / scale) < 1e-12
        assert np.median(check.form) < 1e-12
        assert np.median(check.commutator / scale) < 1e-12
        assert np.asarray(check.is_critical).mean() > 0.95
        excess = (levels[:, :K].sum(1) - levels[:, list(subset)].sum(1)) / 2
        np.testing.assert_allclose(check.excess, excess, rtol=1e-7, atol=1e-8)
        if subset == (0, 1):
            assert np.asarray(check.is_global).mean() > 0.95
        elif rank == 3:
            assert not np.asarray(check.is_global).any()


def test_found_critical_points_satisfy_the_conditions(float64, getkey):
    """The converse: roots of the gradient by Levenberg-Marquardt from 60 starts."""
    data = jr.data.Dataset(*random_data(getkey))
    loss = jr.SquaredLoss(data)
    template = jr.LinearNetwork((jnp.zeros((K, D)), jnp.zeros((M, K))))
    flat, unravel = ravel_pytree(template)
    slope = jax.grad(lambda w: loss(unravel(w)))

    def solve(start):
        def step(carry, _):
            w, damping = carry
            g, h = slope(w), jax.jacfwd(slope)(w)
            move = jnp.linalg.solve(h @ h + damping * jnp.eye(w.size), h @ g)
            after = w - move
            better = jnp.sum(slope(after) ** 2) < jnp.sum(g**2)
            damping = jnp.where(better, damping / 5, damping * 4)
            return (jnp.where(better, after, w), damping), None

        (w, _), _ = jax.lax.scan(step, (start, 1.0), length=120)
        return jnp.linalg.norm(slope(w)), ls.check_critical_point(loss, unravel(w))

    starts = 1.5 * normal(getkey(), (60, flat.size))
    slopes, check = jax.jit(jax.vmap(solve))(starts)
    good = np.asarray(slopes) < 1e-10
    assert good.sum() > 20
    assert np.asarray(check.commutator)[good].max() < 1e-7
    assert np.asarray(check.coupling)[good].max() < 1e-7
    assert np.asarray(check.form)[good].max() < 1e-7
    assert np.asarray(check.is_critical)[good].all()
    levels = np.asarray(ls.shallow_levels(data, K).values)
    found = np.asarray(check.value)[good]
    near = np.abs(found[:, None] - levels[None]).min(1)
    assert near.max() < 1e-7
    assert len({int(i) for i in np.abs(found[:, None] - levels[None]).argmin(1)}) > 1


def test_levels(float64, getkey):
    data = jr.data.Dataset(*random_data(getkey))
    inputs, targets = np.asarray(data.inputs), np.asarray(data.targets)
    fit = inputs @ np.linalg.lstsq(inputs, targets)[0]
    eigenvalues = np.linalg.eigvalsh(fit.T @ fit)[::-1]
    levels = ls.shallow_levels(data, K)
    np.testing.assert_allclose(levels.eigenvalues, eigenvalues, rtol=1e-10)
    assert len(levels.subsets) == 1 + 3 + 3
    for value, subset in zip(levels.values, levels.subsets, strict=True):
        want = ((targets**2).sum() - eigenvalues[list(subset)].sum()) / 2
        np.testing.assert_allclose(value, want, rtol=1e-12)
    assert levels.subsets[0] == (0, 1)
    with pytest.raises(ValueError, match="100,000"):
        ls.shallow_levels(jr.data.Dataset(inputs, np.zeros((N, 40))), 10)


def test_saddles_have_a_way_down(float64, getkey):
    """The stated curvature is that of the dense Hessian, at 0 its whole spectrum."""
    data = jr.data.Dataset(*random_data(getkey))
    loss = jr.SquaredLoss(data)
    mixing = jnp.asarray(normal(getkey(), (K, K)))
    template = jr.LinearNetwork((jnp.zeros((K, D)), jnp.zeros((M, K))))
    flat, unravel = ravel_pytree(template)
    dense = jax.jit(jax.hessian(lambda w: loss(unravel(w))))
    for subset in ((0, 1), (1, 2), (1,), ()):
        point = ls.shallow_critical_point(data, subset, mixing)
        direction, curvature = ls.escape_direction(data, subset, mixing)
        along = np.asarray(ravel_pytree(direction)[0])
        matrix = np.asarray(dense(ravel_pytree(point)[0]))
        np.testing.assert_allclose(np.sum(along**2), 1, rtol=1e-12)
        np.testing.assert_allclose(along @ matrix @ along, curvature, rtol=1e-9)
        assert (float(curvature) < 0) == (subset != (0, 1))
    values = np.linalg.eigvalsh(np.asarray(dense(flat)))[::-1]
    origin = ls.origin_spectrum(data, K)
    np.testing.assert_allclose(origin.expand(), values, atol=1e-12)
    # as many inputs as outputs here; one output less has zeros in the middle
    fewer = jr.data.Dataset(data.inputs, data.targets[:, :2])
    small = jr.LinearNetwork((jnp.zeros((K, D)), jnp.zeros((2, K))))
    matrix = jr.hessian(jr.SquaredLoss(fewer), small).as_matrix()
    want = np.linalg.eigvalsh(matrix)[::-1]
    np.testing.assert_allclose(ls.origin_spectrum(fewer, K).expand(), want, atol=1e-12)
    # three layers: the origin is critical, its Hessian 0
    square = (jnp.zeros((D, D)),) * 3
    matrix = jr.hessian(loss, jr.LinearNetwork(square)).as_matrix()
    assert np.abs(np.asarray(matrix)).max() == 0


def test_spurious_minimum_of_relu(dtype):
    """The closed form of the loss around it, and the global value, on a grid."""
    loss, local, best = ls.spurious_relu_minimum(dtype)
    assert float(loss(local)) == 2
    assert float(loss(best)) == 0.5
    assert loss(local).dtype == dtype
    w, v = np.meshgrid(np.linspace(-3, 3, 121), np.linspace(-3, 3, 121))
    w, v = w.astype(dtype).ravel(), v.astype(dtype).ravel()
    values = jax.jit(jax.vmap(lambda w, v: loss(jr.Shallow(w[None, None], v[None]))))(
        w, v
    )
    there = w > 0
    stated = 2 + (w * v - 1) ** 2 / 2
    np.testing.assert_allclose(np.asarray(values)[there], stated[there], rtol=1e-5)
    assert np.asarray(values)[there].min() >= 2
    assert np.asarray(values).min() >= 0.5


def test_refusals(float64, getkey):
    data = jr.data.Dataset(*random_data(getkey))
    eye = jnp.eye(K)
    for call, words in (
        (lambda: ls.shallow_critical_point(data, (0, 1, 2), eye), "at most 2"),
        (lambda: ls.shallow_critical_point(data, (0, 0), eye), "different indices"),
        (lambda: ls.shallow_critical_point(data, (3,), eye), "from 0 to 2"),
        (lambda: ls.shallow_critical_point(data, (0,), 0 * eye), "singular"),
        (lambda: ls.shallow_critical_point(data, (0,), eye, eye), r"expected \(2, 3\)"),
        (lambda: ls.escape_direction(data, (0, 1, 2), jnp.eye(3)), "global minimum"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(ValueError, match="expected 2"):
        ls.check_critical_point(jr.SquaredLoss(data), jr.LinearNetwork((jnp.eye(D),)))
    network = ls.shallow_critical_point(data, (0,), eye)
    moved = eqx.tree_at(lambda n: n.weights[0], network, network.weights[0] + 0.1)
    assert not bool(ls.check_critical_point(jr.SquaredLoss(data), moved).is_critical)
