"""Permutations, rescalings, sign flips; functional dimension; path lifting."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxrelu as jr
from jaxrelu.realization import (
    Symmetry,
    functional_dimension,
    path_bound,
    path_lifting,
    path_norm,
    permute,
    rescale,
)


LAW = settings(deadline=None, derandomize=True, max_examples=40)


PATHS = jax.jit(lambda network: (path_lifting(network), path_norm(network)))


def draw(rng, dtype, *shape):
    return jnp.asarray(rng.normal(size=shape), dtype)


def nets(dtype):
    rng = np.random.default_rng(0)
    weights = tuple(draw(rng, dtype, *s) for s in ((3, 2), (4, 3), (2, 4)))
    bias = tuple(draw(rng, dtype, k) for k in (3, 4, 2))
    last = (*weights[:2], draw(rng, dtype, 4))
    rows, columns = draw(rng, dtype, 4, 2), draw(rng, dtype, 2, 4)
    return {
        "shallow": jr.Shallow(rows, columns[0]),
        "shallow, outputs": jr.Shallow(rows, columns),
        "deep": jr.DenseNetwork(weights, bias),
        "deep, leaky": jr.DenseNetwork(weights, (bias[0], None, None), "leaky_relu"),
        "deep, tanh": jr.DenseNetwork(weights, bias, "tanh"),
        "deep, gelu": jr.DenseNetwork(weights, bias, "gelu"),
        "scalar": jr.DenseNetwork(last, (None, None, bias[0][0])),
    }


NAMES = tuple(nets("float32"))


def close(a, b, dtype, factor=256):
    eps = factor * float(jnp.finfo(dtype).eps)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=eps, atol=eps)


SINGLE = ("shallow, outputs", "deep")
CASES = [(name, "float32" if name in SINGLE else "float64") for name in NAMES]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_symmetries_keep_the_function_and_form_a_group(name, kind, getkey):
    with jax.enable_x64(kind == "float64"):
        check_symmetries(nets(kind)[name], getkey, jnp.dtype(kind))


def check_symmetries(network, getkey, dtype):
    g = Symmetry.random(network, getkey())
    h = Symmetry.random(network, getkey())
    x = draw(np.random.default_rng(1), dtype, 20, 2)

    @jax.jit
    def everything(g, h, network, x):
        moved, one = g(network), Symmetry.identity(network)
        cycles = (g @ h)(network), g(h(network)), g.inverse()(moved), one(network)
        return moved, cycles, network(x), moved(x)

    moved, cycles, before, after = everything(g, h, network, x)
    assert jax.tree.structure(moved) == jax.tree.structure(network)
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(moved))
    close(after, before, dtype)
    assert not np.allclose(jax.tree.leaves(moved)[0], jax.tree.leaves(network)[0])
    close(cycles[0], cycles[1], dtype)
    close(cycles[2], network, dtype)
    close(cycles[3], network, dtype, 1)


def test_actions_written_out_by_hand(float64):
    network = jr.DenseNetwork(
        (jnp.asarray([[1.0, 2], [3, 4]]), jnp.asarray([[5.0, 6], [7, 8]])),
        (jnp.asarray([1.0, -1]), None),
    )
    swapped = permute(network, jnp.asarray([1, 0]))
    np.testing.assert_array_equal(swapped.weights[0], [[3, 4], [1, 2]])
    np.testing.assert_array_equal(swapped.weights[1], [[6, 5], [8, 7]])
    np.testing.assert_array_equal(swapped.biases[0], [-1, 1])
    scaled = rescale(network, jnp.asarray([2.0, 0.5]))
    np.testing.assert_array_equal(scaled.weights[0], [[2, 4], [1.5, 2]])
    np.testing.assert_array_equal(scaled.weights[1], [[2.5, 12], [3.5, 16]])
    np.testing.assert_array_equal(scaled.biases[0], [2, -0.5])
    assert scaled.biases[1] is None


def test_scales_are_differentiable_along_the_fibre(float64):
    network = nets(float64)["shallow, outputs"]
    x = draw(np.random.default_rng(1), float64, 5, 2)
    scales = jnp.asarray([0.5, 1, 2, 3])
    slope = jax.jit(jax.jacrev(lambda s: rescale(network, s)(x)))(scales)
    np.testing.assert_allclose(slope, 0, atol=1e-14)


@pytest.mark.parametrize(
    ("activation", "scales", "words"),
    [
        ("relu", [1, -1, 1], "only positive"),
        ("tanh", [2, 1, 1], "only sign"),
        ("gelu", [1, 2, 1], "only one"),
        ("linear", [1, 0, 1], "only nonzero"),
    ],
)
def test_scales_that_change_the_function_are_refused(activation, scales, words):
    network = jr.Shallow(jnp.ones((3, 2)), jnp.ones(3), activation)
    with pytest.raises(ValueError, match=words):
        rescale(network, jnp.asarray(scales, jnp.float32))
    flipped = {"tanh": [1, -1, -1], "linear": [-3, 2, 1]}.get(activation)
    if flipped:
        rescale(network, jnp.asarray(flipped, jnp.float32))


def test_misfits_are_refused():
    network = jr.Shallow(jnp.ones((3, 2)), jnp.ones(3))
    with pytest.raises(ValueError, match="not a permutation"):
        permute(network, jnp.asarray([0, 0, 1]))
    with pytest.raises(ValueError, match="widths"):
        permute(network, jnp.asarray([1, 0]))
    with pytest.raises(ValueError, match="layer is 1"):
        rescale(network, jnp.ones(3), layer=1)


# ---------------------------------------------------------------- functional dimension


@pytest.mark.parametrize(
    ("widths", "value"),
    [((2, 3, 1), 10), ((2, 3, 2, 1), 15), ((3, 4, 3, 2), 32), ((2, 5, 3, 1), 29)],
)
def test_dimension_of_deep_networks(widths, value, float64):
    """#weights - #hidden, at a point of the open set where it is reached."""
    inputs = 4 * draw(np.random.default_rng(9), float64, 200, widths[0])
    values = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        pairs = list(itertools.pairwise(widths))
        network = jr.DenseNetwork(
            tuple(draw(rng, float64, b, a) for a, b in pairs),
            tuple(draw(rng, float64, b) for _, b in pairs),
        )
        found = functional_dimension(network, inputs)
        assert found.below < found.threshold < found.above
        values.append(found.value)
    assert max(values) == found.upper == value


@pytest.mark.parametrize(
    ("change", "one", "two"),
    [
        ("none", 12, 16),
        ("collinear", 9, 14),
        ("opposite", 12, None),
        ("zero", 10, None),
    ],
)
def test_dimension_of_degenerate_shallow_networks(change, one, two, float64):
    """k(d + m - 1) in general position; d = 3, k = 4, one and two outputs."""
    for m, value in ((1, one), (2, two)):
        if value is None:
            continue
        rng = np.random.default_rng(m)
        inner, outer = rng.normal(size=(4, 3)), rng.normal(size=(m, 4))
        if change == "collinear":
            inner[1] = 2 * inner[0]
        if change == "opposite":
            inner[1] = -inner[0]
        if change == "zero":
            outer[:, 1] = 0
        network = jr.Shallow(jnp.asarray(inner), jnp.asarray(outer))
        inputs = jnp.asarray(rng.normal(size=(120, 3)))
        assert functional_dimension(network, inputs).value == value


def test_dimension_counts_sign_flips_as_discrete(float64):
    shallow = nets(float64)["shallow"]
    network = jr.Shallow(shallow.inner, shallow.outer, "tanh")
    found = functional_dimension(
        network, 2 * draw(np.random.default_rng(2), float64, 60, 2)
    )
    assert found.value == found.upper == found.parameters == 12


# ------------------------------------------------------------------------------- paths


def paths_by_hand(weights, biases):
    """All products along paths, by enumeration of nodes."""
    products = []
    sizes = [weights[0].shape[1], *(w.shape[0] for w in weights)]
    for start in range(len(weights) + 1):
        if start and biases[start - 1] is None:
            continue
        for nodes in itertools.product(*map(range, sizes[start:])):
            value = 1.0 if start == 0 else biases[start - 1][nodes[0]]
            for level, (i, j) in enumerate(itertools.pairwise(nodes), start):
                value *= weights[level][j, i]
            products.append(float(value))
    return np.sort(products)


@pytest.mark.parametrize("name", ["shallow", "shallow, outputs", "deep", "scalar"])
def test_path_lifting_by_enumeration(name, dtype):
    network = nets(dtype)[name]
    if isinstance(network, jr.Shallow):
        weights, biases = [network.inner, network.outer], [None, None]
    else:
        weights, biases = list(network.weights), list(network.biases)
    weights = [np.atleast_2d(np.asarray(w, np.float64)) for w in weights]
    biases = [None if b is None else np.atleast_1d(b) for b in biases]
    wanted = paths_by_hand(weights, biases)
    lifted, norm = PATHS(network)
    found = np.sort(np.concatenate([np.ravel(paths) for paths in lifted]))
    eps = 16 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(found, wanted, rtol=eps, atol=eps)
    np.testing.assert_allclose(norm, np.abs(wanted).sum(), rtol=eps)
    assert norm.dtype == dtype


def test_path_norm_does_not_see_symmetries(float64):
    network = nets(float64)["deep"]
    orders = jnp.asarray([2, 0, 1]), jnp.asarray([3, 1, 0, 2])
    scales = jnp.asarray([0.1, 2, 5]), jnp.asarray([3.0, 1, 7, 0.2])
    moved = jax.jit(lambda symmetry, net: symmetry(net))(
        Symmetry(orders, scales), network
    )
    np.testing.assert_allclose(PATHS(moved)[1], PATHS(network)[1], rtol=1e-14)


def test_path_lifting_of_a_shallow_network_has_named_axes(float64):
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(4, 3)), rng.normal(size=(2, 4))
    (paths,) = path_lifting(jr.Shallow(jnp.asarray(a), jnp.asarray(c)))
    np.testing.assert_allclose(paths, np.einsum("pi,iq->piq", c, a), rtol=1e-15)


@jax.jit
def compared(one, two, x):
    return path_bound(one, two, x), one(x) - two(x)


@LAW
@given(st.integers(0, 2**31), st.sampled_from([(3, 4, 2), (2, 3, 3, 2)]), st.booleans())
def test_path_inequality(seed, widths, biased):
    """Same signs, zeros among them; values by the forward pass."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(seed)

        def pair(*shape):
            sign, zero = rng.choice([-1, 1], shape), rng.random((2, *shape)) < 0.1
            sizes = np.abs(rng.normal(size=(2, *shape))) * np.where(zero, 0, 1)
            return [jnp.asarray(sign * size) for size in sizes]

        weights = [pair(b, a) for a, b in itertools.pairwise(widths)]
        biases = [pair(b) if biased else (None, None) for b in widths[1:]]
        one, two = (
            jr.DenseNetwork(tuple(w[i] for w in weights), tuple(b[i] for b in biases))
            for i in (0, 1)
        )
        x = jnp.asarray(rng.normal(size=(30, widths[0])) * 2)
        promised, difference = compared(one, two, x)
        assert promised.applies
        gap = np.abs(difference).sum(axis=1)
        assert np.all(gap <= np.asarray(promised.bound) * (1 + 1e-12))


def test_path_inequality_is_attained_and_needs_its_signs(float64):
    x = jnp.asarray([[1.0, 1.0]])
    ones = jnp.ones((1, 2))
    one = jr.Shallow(ones, jnp.asarray([1.0]))
    two = jr.Shallow(ones, jnp.asarray([1.5]))
    promised, difference = compared(one, two, x)
    assert promised.bound == abs(difference) == 1
    other = jr.Shallow(-ones, -jnp.asarray([1.0]))
    broken, difference = compared(one, other, x)
    assert not broken.applies
    assert broken.distance == 0
    assert difference != 0
    assert broken.bound == np.inf


def test_paths_are_refused_where_they_mean_nothing(monkeypatch):
    network = jr.Shallow(jnp.ones((3, 2)), jnp.ones(3), "tanh")
    with pytest.raises(ValueError, match="linear on both sides"):
        path_norm(network)
    relu = jr.Shallow(jnp.ones((3, 2)), jnp.ones(3))
    with pytest.raises(ValueError, match="different shapes"):
        path_bound(relu, jr.Shallow(jnp.ones((2, 2)), jnp.ones(2)), jnp.ones((1, 2)))
    monkeypatch.setenv("JAXRELU_MEMORY_LIMIT", "40")
    with pytest.raises(jr.MemoryRefusedError, match="path_norm"):
        path_lifting(relu)
