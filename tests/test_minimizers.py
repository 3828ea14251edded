"""Minimisers in closed form against least squares, exact rationals and solvers."""

from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import pytest
import scipy.optimize as sopt
from _draws import normal
from _minimizer_cases import lin2, lin3, nl2, nl3, res3
from jax.flatten_util import ravel_pytree

import jaxrelu as jr
from jaxrelu import landscape as ls


def test_reference_instances(dtype):
    eps = float(jnp.finfo(dtype).eps)
    stated = {
        lin2: (5 / 3, [[[1, 1], [0, 2]], [[4 / 3, 0], [4 / 3, -1 / 2]]]),
        lin3: (1.800871000355, None),
        res3: (
            0,
            [
                [[0.1, 0.1], [0, -0.1]],
                [[0, 1 / 9], [-1 / 11, 4 / 33]],
                [[11 / 112, 9 / 112], [-1 / 112, -11 / 112]],
            ],
        ),
    }
    if dtype == np.float32:  # the larger ones of both kinds in float64 only
        del stated[lin3]
    for instance, (value, weights) in stated.items():
        loss, network = instance(dtype)
        found = ls.check_minimizer(loss, network)
        assert bool(found.is_minimizer)
        assert found.gap.dtype == dtype
        np.testing.assert_allclose(
            found.minimum, value, rtol=1e-12 + 100 * eps, atol=eps
        )
        fit = np.linalg.lstsq(loss.data.inputs, loss.data.targets)
        rest = loss.data.targets - loss.data.inputs @ fit[0]
        np.testing.assert_allclose(loss(network), (rest**2).sum() / 2, atol=1e2 * eps)
        if weights is not None:
            for got, want in zip(network.weights, weights, strict=True):
                np.testing.assert_allclose(got, want, atol=32 * eps)
    for instance in (nl2,) if dtype == np.float32 else (nl2, nl3):
        loss, network = instance(dtype)
        found = ls.check_minimizer(loss, network)
        assert bool(found.is_minimizer)
        assert float(found.minimum) == 0
        moved = eqx.tree_at(lambda n: n.outer, network, network.outer + 1e-3)
        assert not bool(ls.check_minimizer(loss, moved).is_minimizer)
    _, network = nl2(dtype)
    np.testing.assert_allclose(
        network.inner, [[1 / 2, -5 / 2], [3 / 8, 13 / 8]], atol=32 * eps
    )
    outer = np.array([[22, -4], [26, 16]]) / 19
    np.testing.assert_allclose(network.outer, outer, atol=32 * eps)


@pytest.mark.slow
def test_random_members_are_minimisers(float64, getkey):
    """300 members of each family: the gradient vanishes, the loss is least squares'."""
    keys = jrandom.split(getkey(), 300)
    drawn = normal(getkey(), (300, 5, 3)), normal(getkey(), (300, 5, 2))

    def gradient_and_loss(loss, network):
        trained, rest = eqx.partition(network, eqx.is_inexact_array)
        value, slope = jax.value_and_grad(lambda t: loss(eqx.combine(t, rest)))(trained)
        return jnp.linalg.norm(ravel_pytree(slope)[0]), value

    def members(key, inputs, targets):
        tall = jr.data.Dataset(inputs, targets)
        flat = tall.subset(2)  # fewer samples than dimensions
        families = (
            (tall, ls.sample_linear_minimizer(key, tall, 3)),
            (flat, ls.balanced_minimizer(flat, 3)),
            (flat, ls.sample_shallow_minimizer(key, flat, 3)),
        )
        return [(d, gradient_and_loss(jr.SquaredLoss(d), n)) for d, n in families]

    for data, (slopes, values) in jax.jit(jax.vmap(members))(keys, *drawn):
        inputs, targets = np.asarray(data.inputs), np.asarray(data.targets)
        best = targets - inputs @ np.linalg.pinv(inputs) @ targets
        np.testing.assert_allclose(values, (best**2).sum((1, 2)) / 2, atol=1e-9)
        assert np.median(slopes) < 1e-11
        assert np.max(slopes) < 1e-6  # singular values of 1e-3 do occur
    loss, _ = res3(float64)
    one = jax.jit(ls.sample_residual_minimizer, static_argnums=2)(
        getkey(), loss.data, 3
    )
    assert bool(ls.check_minimizer(loss, one).is_minimizer)


def test_tangents_and_the_size_of_the_family(float64, getkey):
    """(l - 1)d² independent tangents, all in the kernel of the dense Hessian."""
    for instance, size in ((lin3, 3), (res3, 2)):
        loss, network = instance(float64)
        flat, unravel = ravel_pytree(network)
        dense = jax.jit(jax.hessian(lambda w, u=unravel, f=loss: f(u(w))))(flat)
        count = 2 * size**2
        units = np.eye(count).reshape(count, 2, size, size)
        tangent = jax.jit(lambda n, u: ravel_pytree(ls.minimizer_tangent(n, u))[0])
        tangents = np.stack([tangent(network, tuple(u)) for u in units])
        assert np.linalg.matrix_rank(tangents, 1e-9) == count
        np.testing.assert_allclose(np.asarray(dense) @ tangents.T, 0, atol=1e-11)
        assert int(ls.hessian_rank(loss, network)) == flat.size - count
    with pytest.raises(ValueError, match="one less"):
        ls.minimizer_tangent(network, (jnp.eye(2),))


def test_gap_keeps_its_digits(float64):
    """A displacement of 2⁻²⁶ from LIN2, in rationals; the subtraction loses all."""
    loss, network = lin2(float64)
    shift = 2.0**-26
    moved = eqx.tree_at(lambda n: n.weights[0], network, network.weights[0] + shift)
    exact = lambda m: [[Fraction(float(v)) for v in row] for row in m]
    times = lambda a, b: [
        [
            sum(x * y for x, y in zip(row, col, strict=True))
            for col in zip(*b, strict=True)
        ]
        for row in a
    ]
    inputs, targets = exact(loss.data.inputs), exact(loss.data.targets)
    outputs = times(inputs, list(zip(*exact(moved.weights[0]), strict=True)))
    outputs = times(outputs, list(zip(*exact(moved.weights[1]), strict=True)))
    total = sum(
        (p - q) ** 2
        for one, two in zip(outputs, targets, strict=True)
        for p, q in zip(one, two, strict=True)
    )
    gap = float(total / 2 - Fraction(5, 3))
    np.testing.assert_allclose(ls.minimum_gap(loss, moved), gap, rtol=1e-6)
    assert abs(float(loss(moved)) - 5 / 3 - gap) > 1e-2 * gap


def test_rank_deficient_inputs(float64, getkey):
    """Rank 2 of 3: a free part that changes P and not the loss."""
    inputs = normal(getkey(), (5, 2)) @ normal(getkey(), (2, 3))
    targets = normal(getkey(), (5, 3))
    data = jr.data.Dataset(jnp.asarray(inputs), jnp.asarray(targets))
    loss = jr.SquaredLoss(data)
    changes = (jnp.asarray(np.eye(3) + 0.1 * normal(getkey(), (3, 3))),)
    free = jnp.asarray(normal(getkey(), (3, 3)))
    plain = ls.linear_minimizer(data, changes)
    other = ls.linear_minimizer(data, changes, free)
    apart = np.asarray(plain.weights[1]) - np.asarray(other.weights[1])
    assert np.linalg.norm(apart) > 0.1
    want = np.linalg.lstsq(inputs, targets, rcond=1e-12)
    np.testing.assert_allclose(ls.least_squares_map(data), want[0].T, atol=1e-12)
    value = ((targets - inputs @ want[0]) ** 2).sum() / 2
    for network in (plain, other, ls.residual_minimizer(data, changes, free)):
        found = ls.check_minimizer(loss, network)
        assert bool(found.is_minimizer)
        np.testing.assert_allclose(found.minimum, value, rtol=1e-12)
        np.testing.assert_allclose(loss(network), value, rtol=1e-12)
        assert int(ls.hessian_rank(loss, network)) == 6


def test_singular_targets(float64):
    """P* of rank 1: minimisers exist, each with a singular layer."""
    data = jr.data.Dataset(jnp.eye(2), jnp.array([[1.0, 0], [2.0, 0]]))
    for network in (
        ls.balanced_minimizer(data, 3),
        ls.linear_minimizer(data, (jnp.array([[1.0, 2], [0, 1]]),)),
    ):
        assert bool(ls.check_minimizer(jr.SquaredLoss(data), network).is_minimizer)
        ranks = [np.linalg.matrix_rank(w, 1e-9) for w in network.weights]
        assert min(ranks) == 1
    one = ls.balanced_minimizer(data, 1).weights[0]
    np.testing.assert_allclose(one, data.targets.T, atol=1e-15)


@pytest.mark.parametrize("maker", [ls.root_minimizer, ls.polar_minimizer])
def test_near_identity_members(float64, getkey, maker):
    """Products are P*, and the weights shrink like 1/l; half turns included."""
    turn = np.diag([-1.0, -1.0, 1.0])
    draw = np.eye(3) + 0.3 * normal(getkey(), (3, 3))
    targets = [draw, 2.5 * np.eye(3), np.eye(3)]
    if maker is ls.polar_minimizer:
        targets += [turn, turn @ draw @ draw.T, -turn @ np.diag([2.0, 0.5, -1.0])]
    for target in targets:
        assert np.linalg.det(target) > 0
        data = jr.data.Dataset(jnp.asarray(np.eye(3)), jnp.asarray(target.T))
        log = np.abs(np.log(np.linalg.svd(target, compute_uv=False))).max()
        sizes = {}
        for depth in (1, 2, 5, 40):
            network = maker(data, depth)
            whole = np.eye(3)
            for weight in network.weights:
                whole = (np.eye(3) + np.asarray(weight)) @ whole
            np.testing.assert_allclose(whole, target, atol=1e-12)
            sizes[depth] = max(np.linalg.norm(w, 2) for w in network.weights)
        # half of the layers for each factor is one of the choices
        if maker is ls.polar_minimizer:
            assert sizes[40] <= max(2 * np.sin(np.pi / 40), np.expm1(log / 20)) + 1e-12
        assert sizes[40] <= 3 * sizes[5] * 5 / 40 + 1e-12


def test_roots_that_do_not_exist(float64):
    negative = jr.data.Dataset(jnp.eye(2), jnp.diag(jnp.array([-1.0, -2.0])))
    with pytest.raises(ValueError, match="polar_minimizer"):
        ls.root_minimizer(negative, 3)
    ls.polar_minimizer(negative, 3)
    for entries in ([1.0, -1.0], [1.0, 0.0]):
        data = jr.data.Dataset(jnp.eye(2), jnp.diag(jnp.array(entries)))
        with pytest.raises(ValueError, match="residual_minimizer"):
            ls.polar_minimizer(data, 3)
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda data: ls.root_minimizer(data, 2))(data)
    with pytest.raises(ValueError, match="at least 1 layer"):
        ls.root_minimizer(data, 0)


def test_deep_and_output_activated(float64, getkey):
    """Features of every layer are as prescribed; losses are 0."""
    targets = jnp.asarray([[0.3, -0.8], [0.1, 0.6]])
    data = jr.data.Dataset(jnp.asarray(normal(getkey(), (2, 3))), targets)
    hidden = [jnp.asarray(normal(getkey(), (2, k))) for k in (3, 2)]
    leaky = jr.activations.LeakyReLU(0.2)
    deep = ls.nonlinear_minimizer(data, hidden, leaky)
    np.testing.assert_allclose(deep(data.inputs), data.targets, atol=1e-13)
    first = leaky(data.inputs @ deep.weights[0].T)
    np.testing.assert_allclose(first, hidden[0], atol=1e-13)
    np.testing.assert_allclose(leaky(first @ deep.weights[1].T), hidden[1], atol=1e-13)
    assert bool(ls.check_minimizer(jr.SquaredLoss(data), deep).is_minimizer)
    for output in (leaky, "tanh", "erf"):
        network = ls.nonlinear_minimizer(data, hidden, leaky, output_activation=output)
        np.testing.assert_allclose(network(data.inputs), data.targets, atol=1e-13)
    found = ls.nonlinear_minimizer(data, hidden, leaky, output_activation=leaky)
    assert bool(ls.check_minimizer(jr.SquaredLoss(data), found).is_minimizer)
    inside = [jnp.tanh(h) for h in hidden]
    smooth = ls.nonlinear_minimizer(data, inside, "tanh")
    np.testing.assert_allclose(smooth(data.inputs), data.targets, atol=1e-12)
    z = np.linspace(-2.0, 2.0, 9)
    names = ("tanh", "erf", "sigmoid", "softplus", "leaky_relu", "linear")
    rules = {name: jr.activations.activation(name) for name in names}
    values = jax.jit(lambda z: {name: rules[name](z) for name in names})(z)
    back = jax.jit(lambda y: {name: ls.activation_inverse(name)(y[name]) for name in y})
    for name, found in back(values).items():
        np.testing.assert_allclose(found, z, rtol=1e-12, atol=1e-12, err_msg=name)


def test_free_parts_of_shallow_minimisers(float64, getkey):
    draw = lambda *shape: jnp.asarray(normal(getkey(), shape))
    data = jr.data.Dataset(draw(2, 3), draw(2))
    features = draw(2, 4)
    free = {"free_inner": draw(4, 3), "free_outer": draw(4)}
    plain = ls.shallow_minimizer(data, features)
    moved = ls.shallow_minimizer(data, features, **free)
    for one, two in ((plain.inner, moved.inner), (plain.outer, moved.outer)):
        assert np.linalg.norm(np.asarray(one) - np.asarray(two)) > 0.1
    for network in (plain, moved):
        assert bool(ls.check_minimizer(jr.SquaredLoss(data), network).is_minimizer)


def test_projection_is_the_nearest_minimiser(float64, getkey):
    """Against a general solver of the constrained problem."""
    for instance in (lin2, nl2):
        loss, network = instance(float64)
        trained, rest = eqx.partition(network, eqx.is_inexact_array)
        flat, unravel = ravel_pytree(trained)
        start = flat + 0.05 * normal(getkey(), flat.shape)
        near = eqx.combine(unravel(start), rest)
        found = ls.project_to_minimizers(loss, near, throw=True)
        assert float(found.gap) < 1e-28
        assert float(found.obliqueness) < 1e-10
        inputs, targets = loss.data.inputs, loss.data.targets
        best = np.linalg.pinv(inputs) @ targets
        if instance is nl2:
            best = np.linalg.solve(inputs, targets)

        def misfit(w, loss=loss, unravel=unravel, rest=rest, best=best):
            model = eqx.combine(unravel(w), rest)
            outputs = model(loss.data.inputs) - loss.data.inputs @ best
            return outputs[:2].ravel()  # two rows determine a linear map of the plane

        misfit, slope = jax.jit(misfit), jax.jit(jax.jacfwd(misfit))
        solved = sopt.minimize(
            lambda w, s=start: (((w - s) ** 2).sum(), 2 * (w - s)),
            flat,
            jac=True,
            method="SLSQP",
            constraints={
                "type": "eq",
                "fun": lambda w, f=misfit: np.asarray(f(w)),
                "jac": lambda w, f=slope: np.asarray(f(w)),
            },
            options={"ftol": 1e-15, "maxiter": 200},
        )
        np.testing.assert_allclose(found.distance, solved.fun**0.5, rtol=1e-6)
        again = ls.project_to_minimizers(loss, found.network)
        assert float(again.distance) < 1e-13


def test_projection_that_does_not_settle(float64):
    loss, network = lin2(float64)
    far = jax.tree.map(lambda w: w + 0.3, network)
    with pytest.raises(RuntimeError, match="tolerance"):
        ls.project_to_minimizers(loss, far, max_steps=1, throw=True)


def test_refusals(float64):
    loss, network = lin2(float64)
    data = loss.data
    eye = jnp.eye(2)
    scalar = jr.data.Dataset(data.inputs, data.targets[:, 0])
    wide = jr.data.Dataset(data.inputs, jnp.ones((3, 3)))
    few = jr.data.Dataset(eye, eye)
    leaky = jr.activations.LeakyReLU(0.1)
    shallow = jr.Shallow(jnp.eye(3, 2), jnp.ones((2, 3)), leaky)
    narrow = jr.LinearNetwork((jnp.ones((1, 2)), jnp.ones((2, 1))))
    cases = [
        (lambda: ls.linear_minimizer(data, (jnp.ones((2, 2)),)), "singular to working"),
        (lambda: ls.linear_minimizer(data, (jnp.eye(3),)), r"expected \(2, 2\)"),
        (lambda: ls.linear_minimizer(scalar, (eye,)), r"targets\[:, None\]"),
        (lambda: ls.residual_minimizer(wide, (eye,)), "as many outputs"),
        (lambda: ls.least_squares_map(data, jnp.eye(3)), "one row per output"),
        (lambda: ls.balanced_minimizer(data, 0), "at least 1 layer"),
        (lambda: ls.minimum_gap(loss, narrow), "shallow_levels"),
        (lambda: ls.minimum_gap(loss, shallow), "f\\* = 0 is not known"),
        (lambda: ls.shallow_minimizer(data, jnp.eye(3)), "rank 3"),
        (lambda: ls.shallow_minimizer(few, jnp.ones((2, 2))), "rank 2"),
        (lambda: ls.shallow_minimizer(few, jnp.ones((3, 3))), r"expected \(2, k\)"),
        (lambda: ls.shallow_minimizer(few, 2 * eye, "tanh"), "outside the open range"),
        (lambda: ls.shallow_minimizer(few, eye, "relu"), "no inverse"),
        (lambda: ls.activation_inverse(jr.activations.LeakyReLU(-0.1)), "> 0"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()
    relu = jr.Shallow(eye, eye)
    with pytest.raises(ValueError, match="every real value"):
        ls.minimum_gap(jr.SquaredLoss(few), relu)
    biased = jr.DenseNetwork((eye, eye), (jnp.ones(2), jnp.ones(2)), leaky)
    with pytest.raises(TypeError, match="with biases"):
        ls.minimum_gap(jr.SquaredLoss(few), biased)
    with pytest.raises(TypeError, match="SquaredLoss"):
        ls.minimum_gap(lambda n: 0.0, network)
