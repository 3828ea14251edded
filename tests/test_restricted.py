"""Restricted sets: membership, the ways into them, training inside."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

import jaxrelu as jr
from jaxrelu.realization import (
    RestrictedCoordinates,
    balance,
    equal,
    extend_inputs,
    from_restricted,
    is_restricted,
    keep_restricted,
    merge,
    project_restricted,
    restriction_penalty,
    to_restricted,
)


LAW = settings(deadline=None, derandomize=True, max_examples=25)
SEEDS = st.integers(0, 2**31)


def shallow(inner, outer, dtype="float64"):
    return jr.Shallow(jnp.asarray(inner, dtype), jnp.asarray(outer, dtype))


def values(network, x):
    """The network by its definition, in numpy."""
    if isinstance(network, jr.Shallow):
        weights, biases = (network.inner, network.outer), (0, 0)
    else:
        weights = network.weights
        biases = [0 if b is None else np.asarray(b) for b in network.biases]
    first, last = (np.asarray(w, np.float64) for w in weights)
    return np.maximum(x @ first.T + biases[0], 0) @ last.T + biases[1]


def member_by_definition(network, kind):
    """The definition, neuron by neuron, pair by pair."""
    a, c = np.asarray(network.inner), np.atleast_2d(network.outer)
    size, mass = np.abs(a).max(axis=1), np.abs(c).max(axis=0)
    if np.any(np.abs(size - mass) > 1e-12 * size):
        return False
    alive = [i for i in range(len(a)) if size[i] > 0]
    for i in alive:
        if kind == "N*" and not (a[i, -1] > 0 and a[i, -2] > 0):
            return False
        for j in alive:
            if i < j and np.abs(a[i] / size[i] - a[j] / size[j]).max() < 1e-12:
                return False
    return True


@LAW
@given(SEEDS, st.sampled_from(["N'", "N*"]))
def test_membership_by_definition(seed, kind):
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        a = rng.integers(-1, 3, (3, 3)).astype(float)
        c = np.abs(a).max(axis=1) * rng.choice([-1, 1, 1], 3)
        c[0] *= rng.choice([1, 1, 2])
        network = shallow(a, c)
        found = is_restricted(network, kind)
        assert bool(found) == member_by_definition(network, kind)
        assert bool(found.reasons) != found.member


def test_reasons_name_the_neurons(float64):
    rows = [[1, 1, 1], [0, 0, 0], [2, 2, 2], [3, -1, 1], [0, 1, 2]]
    found = is_restricted(shallow(rows, [1, 0, 1, 3, 2]), "N*")
    assert not found
    assert found.unbalanced == (2,)
    assert found.redundant == ((0, 2),)
    assert found.not_positive == (3,)
    assert "neuron 2 has |a| = 2, |c| = 1" in found.reasons[0]
    assert "(0, 2)" in found.reasons[1]
    assert "row 3 ends in [-1.  1.]" in found.reasons[2]
    assert is_restricted(shallow([[3, -1, 1], [-3, 1, -1]], [3, -3]), "N'")
    with pytest.raises(ValueError, match="has biases"):
        is_restricted(jr.DenseNetwork.init(jax.random.key(0), (2, 3, 1)))


@LAW
@given(SEEDS, st.sampled_from([1, 2]))
def test_merged_and_balanced_networks_are_the_same_function(seed, m):
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        a = rng.integers(-1, 2, (6, 2)) * rng.choice([1, 2, 0.5], (6, 1))
        network = shallow(a, rng.integers(-2, 3, (m, 6) if m > 1 else 6))
        x = rng.normal(size=(100, 2))
        for change in (merge, to_restricted):
            changed = change(network)
            assert changed.width == 6
            np.testing.assert_allclose(
                values(changed, x), values(network, x), atol=1e-12
            )
        assert member_by_definition(to_restricted(network), "N'")


@LAW
@given(SEEDS, st.sampled_from([1, 2]))
def test_biases_embed(seed, m):
    """Degenerate nets included: zero rows, equal directions, cancelling weights."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)
        draw = lambda *shape: jnp.asarray(rng.integers(-2, 3, shape), float)
        network = jr.DenseNetwork((draw(5, 2), draw(m, 5)), (draw(5), draw(m)))
        x = rng.normal(size=(100, 2)) * 3
        embedded = to_restricted(network)
        assert embedded.inner.shape == (6, 4)
        assert is_restricted(embedded, "N*")
        assert member_by_definition(embedded, "N*")
        slice_ = np.concatenate([x, np.ones((100, 1)), -np.ones((100, 1))], axis=1)
        wanted = values(network, x)
        np.testing.assert_allclose(values(embedded, slice_), wanted, atol=1e-11)
        back = from_restricted(embedded)
        np.testing.assert_allclose(values(back, x), wanted, atol=1e-11)
        assert equal(back, network)


def test_embedding_in_both_precisions(dtype):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    network = jr.DenseNetwork((draw(5, 2), draw(5)), (draw(5), draw()))
    embedded = to_restricted(network)
    assert embedded.inner.dtype == embedded.outer.dtype == dtype
    assert embedded.out_size is None
    assert is_restricted(embedded)
    x = draw(50, 2)
    eps = 64 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        embedded(extend_inputs(x)), network(x), rtol=eps, atol=eps
    )
    other = to_restricted(network, shift=3.0)
    assert is_restricted(other)
    np.testing.assert_allclose(other(extend_inputs(x)), network(x), rtol=eps, atol=eps)
    assert not equal(other, embedded)  # they differ off the slice


def test_embedding_does_not_depend_on_how_neurons_are_scaled(float64):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
    network = jr.DenseNetwork((draw(5, 2), draw(1, 5)), (draw(5), draw(1)))
    moved = jr.realization.rescale(network, jnp.asarray([2.0, 0.1, 5, 1, 3]))
    one, two = to_restricted(network), to_restricted(moved)
    np.testing.assert_allclose(one.inner, two.inner, rtol=1e-13)


def test_balance_is_differentiable_and_keeps_values(dtype):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    network, x = jr.Shallow(draw(4, 3), draw(2, 4)), draw(10, 3)

    @jax.jit
    def both(network, x):
        loss = lambda net: jnp.sum(balance(net)(x) ** 2)
        plain = lambda net: jnp.sum(net(x) ** 2)
        return balance(network), jax.grad(loss)(network), jax.grad(plain)(network)

    balanced, through, plain = both(network, x)
    size = np.abs(balanced.inner).max(axis=1)
    eps = 64 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(size, np.abs(balanced.outer).max(axis=0), rtol=eps)
    for a, b in zip(jax.tree.leaves(through), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=20 * eps, atol=20 * eps)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e155, 1e300])
def test_balancing_survives_any_factor(size, float64):
    rng = np.random.default_rng(0)
    inner, outer = rng.standard_normal((4, 3)), rng.standard_normal((2, 4))
    unequal = shallow(size * inner, outer / size)
    for moved in (balance(unequal), to_restricted(unequal)):
        assert is_restricted(moved, "N'")
        assert equal(moved, shallow(inner, outer))


def test_balance_kills_neurons_with_a_zero_factor(float64):
    network = shallow([[1, 2], [0, 0], [3, 4]], [0, 5, 1])
    balanced = balance(network)
    np.testing.assert_array_equal(balanced.inner[:2], 0)
    np.testing.assert_array_equal(balanced.outer[:2], 0)
    np.testing.assert_allclose(balanced.inner[2], [1.5, 2])
    with pytest.raises(ValueError, match="one kink"):
        balance(jr.Shallow(network.inner, network.outer, "tanh"))


# ------------------------------------------------------------------------- training


def problem(dtype):
    rng = np.random.default_rng(5)
    drawn = rng.normal(size=(40, 1)).astype(dtype)
    x = extend_inputs(jnp.asarray(drawn))
    y = jnp.asarray(np.abs(drawn[:, 0]) - dtype.type(0.5))
    start = jr.DenseNetwork(
        (
            jnp.asarray(rng.normal(size=(12, 1)), dtype),
            jnp.asarray(rng.normal(size=12) / 4, dtype),
        ),
        (jnp.asarray(rng.normal(size=12), dtype), None),
    )
    return x, y, to_restricted(start)


def test_projection_leaves_members_alone_and_makes_members(dtype):
    network = problem(dtype)[2]
    inside = project_restricted(network, 1e-4)
    eps = 8 * float(jnp.finfo(dtype).eps)
    for a, b in zip(jax.tree.leaves(inside), jax.tree.leaves(network), strict=True):
        np.testing.assert_allclose(a, b, rtol=eps, atol=eps)
    inner, outer = np.asarray(network.inner), np.asarray(network.outer)
    pushed = shallow(inner - 0.3, outer * 2, dtype)
    assert not is_restricted(pushed)
    assert is_restricted(project_restricted(pushed))
    # one free input, all ends at the floor: the directions stay apart
    low = project_restricted(shallow(inner - 3, outer, dtype))
    first = np.abs(np.asarray(low.inner)[:, :1])
    assert np.all(np.asarray(low.inner)[:, 1:] <= 0.01 * first)
    assert is_restricted(low)
    with pytest.raises(ValueError, match="floor"):
        project_restricted(network, 0.0)
    with pytest.raises(ValueError, match="one input"):
        project_restricted(jr.Shallow(network.inner[:, :1], network.outer))


def test_training_stays_inside_and_learns(dtype):
    x, y, network = problem(dtype)
    optimiser = optax.chain(optax.sgd(0.03, momentum=0.9), keep_restricted())

    @jax.jit
    def train(network, x, y):
        loss = lambda net: jnp.mean((net(x) - y) ** 2)

        def step(carry, _):
            net, state = carry
            value, slope = jax.value_and_grad(loss)(net)
            change, state = optimiser.update(slope, state, net)
            return (eqx.apply_updates(net, change), state), (value, net)

        carry = network, optimiser.init(network)
        return jax.lax.scan(step, carry, length=60)

    (last, _), (losses, path) = train(network, x, y)
    assert losses[-1] < 0.2 * losses[0]
    for at in (1, 10, 30, 59):
        seen = jax.tree.map(lambda leaf, i=at: leaf[i], path)
        assert is_restricted(seen), is_restricted(seen).reasons
    assert is_restricted(last)
    with pytest.raises(TypeError, match="the Shallow network"):
        optimiser.update(network, optimiser.init(network))


def test_coordinates_cover_the_set_and_never_leave_it(dtype):
    x, y, network = problem(dtype)
    alive = np.flatnonzero(np.abs(network.inner).max(axis=1))
    rows, columns = np.asarray(network.inner)[alive], np.asarray(network.outer)[alive]
    network = shallow(rows, columns, dtype)
    coordinates = jax.jit(RestrictedCoordinates.of)(network)
    made = jax.jit(lambda coordinates: coordinates.network())
    again = made(coordinates)
    eps = 256 * float(jnp.finfo(dtype).eps)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(network), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=eps, atol=eps)
    slope = jax.jit(jax.grad(lambda c, x, y: jnp.mean((c.network()(x) - y) ** 2)))(
        coordinates, x, y
    )
    moved = jax.tree.map(
        lambda p, g: np.asarray(p) - 3 * np.asarray(g), coordinates, slope
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    assert is_restricted(made(moved))


def test_penalty_by_its_definition(float64):
    margin = 0.3
    penalty = jax.jit(lambda network: restriction_penalty(network, margin))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        a = rng.normal(size=(4, 3))
        a[1] = a[0] * 2 + 0.01 * rng.normal(size=3)
        a[3] = 0
        c = rng.normal(size=(2, 4))
        wanted = 0.0
        size, mass = np.abs(a).max(axis=1), np.abs(c).max(axis=0)
        for i in range(4):
            wanted += (size[i] - mass[i]) ** 2
            for q in (1, 2):
                if size[i]:
                    wanted += max(margin - a[i, q] / size[i], 0) ** 2
            for j in range(i):
                if size[i] and size[j]:
                    gap = np.abs(a[i] / size[i] - a[j] / size[j]).max()
                    wanted += max(margin - gap, 0) ** 2
        found = penalty(shallow(a, c))
        np.testing.assert_allclose(found, wanted, rtol=1e-13)


def test_penalty_vanishes_inside_only(dtype):
    inside = shallow([[1, 0.5, 0.5], [-1, 0.5, 0.5], [0, 0, 0]], [1, -1, 0], dtype)
    both = jax.jit(jax.value_and_grad(restriction_penalty))
    value, slope = both(inside)
    assert value == 0
    assert value.dtype == dtype
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope))
    for inner, outer in (
        ([[1, 0.5, 0.5], [-1, 0.5, 0.5], [0, 0, 0]], [1, -2, 0]),
        ([[1, 0.5, 0.5], [-1, 0.5, -0.5], [0, 0, 0]], [1, -1, 0]),
        ([[1, 0.5, 0.5], [2, 1, 1], [0, 0, 0]], [1, -2, 0]),
    ):
        outside = shallow(inner, outer, dtype)
        assert not is_restricted(outside)
        value, slope = both(outside)
        assert value > 0
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
