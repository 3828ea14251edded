"""Canonical forms: equality of functions, minimal widths, flips, skip form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxrelu as jr
from jaxrelu.realization import (
    Symmetry,
    canonical,
    canonical_exact,
    distance,
    equal,
    flip_fibre,
    minimal_network,
    minimal_width,
    opposite_networks,
    opposite_vectors,
    skip_distance,
    skip_normal_form,
    with_signs,
)


LAW = settings(deadline=None, derandomize=True, max_examples=40)
SEEDS = st.integers(0, 2**31)
SKIPS = st.sampled_from([(4, 2, 1), (5, 3, 2)])
SIZES = st.sampled_from([(1, 1, 1), (3, 1, 2), (5, 2, 1), (6, 2, 2), (5, 3, 1)])
SLOPE = jax.jit(lambda network, x: jax.jacrev(network)(x))
TRIANGLE = [[1, 0], [-0.5, 1], [-0.5, -1]]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def shallow(inner, outer, dtype="float64"):
    return jr.Shallow(jnp.asarray(inner, dtype), jnp.asarray(outer, dtype))


def degenerate(seed, size, top=2):
    """Small integers: parallel, opposite, equal, dead and cancelling neurons."""
    k, d, m = size
    rng = np.random.default_rng(seed)
    outer = rng.integers(-top, top + 1, (m, k) if m > 1 else k)
    return shallow(rng.integers(-top, top + 1, (k, d)), outer)


def affine(seed, size):
    k, d, m = size
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.integers(-1, 2, shape), float)
    return jr.DenseNetwork((draw(k, d), draw(m, k)), (draw(k), draw(m)))


def values(network, x):
    """The network by its definition, in numpy."""
    if isinstance(network, jr.Shallow):
        weights, biases = (network.inner, network.outer), (0, 0)
    else:
        weights, biases = network.weights, network.biases
    first, last = (np.asarray(w) for w in weights)
    hidden = np.maximum(x @ first.T + np.asarray(biases[0]), 0)
    return hidden @ last.T + np.asarray(biases[1])


def points(d, count=200):
    return np.random.default_rng(1).normal(size=(count, d)) * 2


@LAW
@given(SEEDS, SIZES, st.booleans())
def test_the_form_is_the_function(seed, size, biased):
    network = affine(seed, size) if biased else degenerate(seed, size)
    form = canonical(network)
    x = points(size[1])
    np.testing.assert_allclose(form(x), values(network, x), rtol=0, atol=1e-12)
    # what makes it unique
    assert np.all(np.abs(form.kinks).max(axis=1, initial=0) > 0)
    np.testing.assert_array_equal(np.abs(form.normals).max(axis=1), 1)
    for n in form.normals:
        assert n[np.flatnonzero(n)[0]] > 0
    assert len(np.unique(form.normals, axis=0)) == len(form.normals)
    if len(form.normals):
        np.testing.assert_array_equal(
            form.normals, np.array(sorted(form.normals.tolist()))
        )


@LAW
@given(SEEDS, SIZES, st.booleans(), st.booleans())
def test_equal_forms_are_equal_functions(seed, size, biased, exact):
    """Against the values at points that reach every cell of small integer rows."""
    make = affine if biased else degenerate
    network, x = make(seed, size), points(size[1], 400)
    rng = np.random.default_rng(seed + 1)
    leaves, structure = jax.tree.flatten(network)
    at = rng.integers(len(leaves))
    leaf = np.array(leaves[at])
    leaf.flat[rng.integers(leaf.size)] += 1
    other = structure.unflatten([*leaves[:at], jnp.asarray(leaf), *leaves[at + 1 :]])
    same = np.abs(values(network, x) - values(other, x)).max() < 1e-9
    assert bool(equal(network, other, exact=exact)) == same
    rebuilt = minimal_network(network)
    assert np.abs(values(network, x) - values(rebuilt, x)).max() < 1e-10
    assert equal(network, rebuilt)
    forms = canonical_exact(network), canonical_exact(other)
    assert (forms[0] == forms[1]) == same
    if same:
        assert hash(forms[0]) == hash(forms[1])


def test_all_rows_turned_round_may_be_the_same_function():
    one, two = shallow(TRIANGLE, [1, 1, 1]), shallow(-np.array(TRIANGLE), [1, 1, 1])
    answer = equal(one, two, exact=True)
    assert answer
    assert answer.exact
    assert answer.defect == 0
    assert canonical_exact(one) == canonical_exact(two)
    assert hash(canonical_exact(one)) == hash(canonical_exact(two))
    other = shallow(-np.array(TRIANGLE), [1, 2, 3])
    assert not equal(shallow(TRIANGLE, [1, 2, 3]), other)
    assert canonical_exact(other) != canonical_exact(shallow(TRIANGLE, [1, 2, 3]))


def test_exact_arithmetic_sees_one_bit(getkey, dtype):
    network = jr.Shallow.init(getkey(), d=3, k=5, m=2, outer="gaussian", dtype=dtype)
    powers = jnp.asarray([0.5, 2.0, 4.0, 0.25, 1.0], dtype)
    order = jnp.asarray([3, 1, 4, 0, 2])
    moved = Symmetry((order,), (powers,))(network)
    assert equal(network, moved, exact=True)
    assert canonical_exact(network) == canonical_exact(moved)
    eps = float(jnp.finfo(dtype).eps)
    bumped = jr.Shallow(network.inner, network.outer.at[1, 2].multiply(1 + eps))
    assert not equal(network, bumped, exact=True)
    answer = equal(network, bumped)
    assert answer
    default = {"float32": 5e-7, "float64": 1e-13}[dtype.name]
    assert answer.tolerance == canonical(network).tolerance == default
    thirds = Symmetry((order,), (powers / 3,))(network)
    assert equal(network, thirds)
    off = jr.Shallow(network.inner, network.outer.at[1, 2].multiply(1 + 1e-3))
    answer = equal(network, off)
    assert not answer
    assert answer.defect > answer.tolerance * answer.scale


def test_a_wider_network_can_be_the_same_function(dtype):
    one = shallow([[1, 2]], [3], dtype)
    two = shallow([[2, 4], [1, 2], [1, -1], [1, -1]], [1, 1, 5, -5], dtype)
    assert equal(one, two, exact=True)
    assert equal(jr.DenseNetwork((one.inner, one.outer)), two)
    biased = jr.DenseNetwork((one.inner, one.outer), (jnp.zeros((1,), dtype), None))
    assert equal(biased, two)


@pytest.mark.parametrize("exact", [False, True])
def test_constant_neurons_join_the_output_bias(exact):
    def affine(bias, end):
        rows = jnp.asarray([[1.0, 2], [0, 0]])
        hidden = jnp.asarray([0.5, bias])
        return jr.DenseNetwork(
            (rows, jnp.asarray([1.0, 3])), (hidden, jnp.asarray(end))
        )

    assert equal(affine(-1.0, 2.0), affine(0.0, 2.0), exact=exact)
    assert equal(affine(1.0, 2.0), affine(0.0, 5.0), exact=exact)
    assert not equal(affine(1.0, 2.0), affine(-1.0, 2.0), exact=exact)


@pytest.mark.parametrize(
    ("inner", "outer", "h", "width"),
    [
        ([[1, 0], [-1, 0]], [1, -1], 0, 2),
        ([[1, 0], [-1, 0]], [3, 1], 1, 2),
        ([[1, 0], [-1, 0], [0, 1], [0, -1]], [1, 1, 1, -1], 1, 3),
        (
            [[1, 0], [-1, 0], [0, 1], [0, -1], [1, 2], [-1, -2]],
            [1, 1, 1, 1, 1, -1],
            2,
            3,
        ),
        ([[1, 0], [1, 0]], [1, -1], 0, 0),
        (TRIANGLE, [1, 1, 1], 3, 3),
        ([*TRIANGLE, [1, 0], [-1, 0]], [1, 1, 1, 1, -1], 3, 3),
        ([*TRIANGLE, [1, 0], [-1, 0]], [1, 1, 1, 2, -2], 3, 4),
        ([*TRIANGLE, [1, 7], [-1, -7]], [1, 1, 1, 2, -2], 3, 5),
    ],
)
def test_minimal_widths_of_the_examples(inner, outer, h, width):
    network = shallow(inner, outer)
    assert len(canonical(network).normals) == h
    assert minimal_width(network).width == width
    smallest = minimal_network(network)
    assert smallest.width == max(width, 1)
    assert equal(network, smallest)


@LAW
@given(SEEDS, SIZES, st.booleans())
def test_minimal_networks_reach_the_width_and_none_is_smaller(seed, size, biased):
    """The network itself is a representation, so its alive neurons are an upper end."""
    network = affine(seed, size) if biased else degenerate(seed, size)
    least = minimal_width(network)
    h = len(canonical(network).normals)
    smallest = minimal_network(network)
    x = points(size[1])
    np.testing.assert_allclose(values(smallest, x), values(network, x), atol=1e-10)
    if biased:
        first, last = (np.asarray(w) for w in network.weights)
        found = smallest.weights[0].shape[0]
    else:
        first, last = np.asarray(network.inner), np.atleast_2d(network.outer)
        found = smallest.width
    alive = np.abs(first).max(axis=1) * np.abs(last).max(axis=0) > 0
    assert found == max(least.width, 1)
    assert h <= least.width <= alive.sum()
    if size[2] == 1:
        assert least.width <= h + (1 if biased and size[1] == 1 and h else 2)


@LAW
@given(SEEDS, SIZES)
def test_flips_by_brute_force(seed, size):
    """Every sign pattern tried on every network of width h, by its values."""
    form = canonical(degenerate(seed, size))
    h, x = len(form.normals), points(size[1])
    wanted = form(x)
    found = []
    for signs in itertools.product((-1, 1), repeat=h):
        hidden = np.maximum(x @ (np.array(signs)[:, None] * form.normals).T, 0)
        value = hidden @ (2 * form.kinks)
        if np.abs(value.reshape(wanted.shape) - wanted).max() < 1e-9:
            found.append(signs)
    assert sorted(found) == sorted(map(tuple, flip_fibre(form).tolist()))


def test_flips_of_the_triangle():
    assert len(flip_fibre(shallow(TRIANGLE, [1, 1, 1]))) == 2
    assert len(flip_fibre(shallow(TRIANGLE, [1, 2, 3]))) == 1
    network = shallow(TRIANGLE, [1, 1, 1])
    one, two = (with_signs(network, signs) for signs in flip_fibre(network))
    assert equal(one, two)
    assert not np.allclose(np.sort(one.inner, axis=0), np.sort(two.inner, axis=0))


@LAW
@given(SEEDS, SKIPS)
def test_skip_form_is_the_function_and_its_lowest_cell(seed, size):
    network = degenerate(seed, size)
    skip = skip_normal_form(network)
    x = points(size[1])
    linear, inner, outer = (np.asarray(leaf) for leaf in jax.tree.leaves(skip))
    value = x @ linear.T + np.maximum(x @ inner.T, 0) @ outer.T
    wanted = values(network, x).reshape(value.shape)
    np.testing.assert_allclose(value, wanted, atol=1e-11)
    assert equal(network, skip.to_network())
    corner = -jnp.asarray([1.0, 1e-3, 1e-6][: size[1]])
    slope = SLOPE(network, corner)
    np.testing.assert_allclose(skip.linear, np.atleast_2d(slope), atol=1e-12)
    np.testing.assert_allclose(
        np.abs(skip.inner).max(axis=1), np.abs(skip.outer).max(axis=0), rtol=1e-12
    )


@pytest.mark.parametrize("m", [1, 2])
def test_skip_forms_run(m, dtype):
    rng = np.random.default_rng(m)
    outer = rng.normal(size=(m, 4) if m > 1 else 4)
    network = shallow(rng.normal(size=(4, 2)), outer, dtype)
    skip, x = skip_normal_form(network), jnp.asarray(rng.normal(size=(9, 2)), dtype)
    eps = 64 * float(jnp.finfo(dtype).eps)
    value = jax.jit(lambda f, x: f(x))(skip, x)
    assert value.dtype == dtype
    assert value.shape == network(x).shape
    np.testing.assert_allclose(value, network(x), rtol=eps, atol=eps)


def test_skip_coordinates_are_stable():
    """|M - M'| <= r and neurons within 2 sqrt(2) sqrt(r), no set restricted."""
    rng = np.random.default_rng(0)
    largest = 0.0
    for _ in range(60):
        a = rng.integers(-2, 3, (4, 2))
        b = np.where(rng.random((4, 1)) < 0.7, a * rng.choice([-1, 1], (4, 1)), -a + 1)
        one = shallow(a, rng.integers(-2, 3, 4) + 0.1 * rng.normal(size=4))
        two = shallow(b, np.asarray(one.outer) + 0.3 * rng.normal(size=4))
        r = float(distance(one, two).value)
        gap = skip_distance(skip_normal_form(one), skip_normal_form(two))
        assert gap.linear <= r * (1 + 1e-12) + 1e-12
        assert gap.neurons <= 2 * np.sqrt(2 * r) * (1 + 1e-12)
        largest = max(largest, gap.linear / r)
    assert largest > 0.9


def test_opposite_vectors_vanish_in_skip_form():
    zero = skip_normal_form(opposite_vectors(10.0).gamma)
    assert len(zero.inner) == 0
    np.testing.assert_array_equal(zero.linear, 0)
    example = opposite_networks(10.0)
    one, two = skip_normal_form(example.gamma), skip_normal_form(example.target)
    np.testing.assert_allclose(one.inner, two.inner, rtol=1e-12)
    np.testing.assert_allclose(one.outer, two.outer, rtol=1e-12)
    np.testing.assert_allclose(two.linear - one.linear, [[0, 0, 3]], atol=1e-11)


def test_refusals(float64):
    network = shallow(TRIANGLE, [1, 1, 1])
    with pytest.raises(TypeError, match="expected relu"):
        canonical(jr.Shallow(network.inner, network.outer, "tanh"))
    with pytest.raises(TypeError, match="expected a Shallow"):
        canonical(jr.DenseNetwork((jnp.eye(2), jnp.eye(2), jnp.eye(2))))
    with pytest.raises(ValueError, match="expected equal sizes"):
        equal(network, shallow([[1, 0, 0]], [1]))
    with pytest.raises(ValueError, match="needs no tolerance"):
        equal(network, network, exact=True, tolerance=1e-3)
    with pytest.raises(ValueError, match="one per kink"):
        with_signs(network, np.array([1, 1]))
    many = shallow(np.arange(1, 31)[:, None] * [[0, 1]] + [[1, 0]], np.ones(30))
    with pytest.raises(ValueError, match="sign patterns"):
        flip_fibre(many)
    with pytest.raises(TypeError, match="traced"):
        jax.jit(lambda n: canonical(n).linear)(network)


def test_products_that_overflow_are_refused(float64):
    """Not a number is neither equal nor different."""
    net = jr.Shallow(1e200 * jnp.eye(2), jnp.array([1e200, 1e200]))
    for ask in (canonical, lambda net: equal(net, net), minimal_width):
        with pytest.raises(ValueError, match="overflow"):
            ask(net)
    assert canonical_exact(net) == canonical_exact(net)
    with pytest.raises(ValueError, match="at least one output"):
        canonical(jr.Shallow(jnp.eye(2), jnp.zeros((0, 2))))
