"""Structured Hessians of the squared loss against jax.hessian, and exact minima."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from _cases import NAMES, D, in_double, inputs, networks
from jax.flatten_util import ravel_pytree

import jaxrelu as jr
from jaxrelu.networks import where_spec
from jaxrelu.operators import AutodiffCurvature, LayeredCurvature, _pairs


def random_data(network, dtype, n=7, seed=0):
    """Targets that leave a residual of order one."""
    x = inputs(dtype, n=n, d=network.in_size, seed=seed)
    shape = (n,) if network.out_size is None else (n, network.out_size)
    y = np.random.default_rng(seed + 1).standard_normal(shape)
    return jr.data.Dataset(x, jnp.asarray(y.astype(dtype)))


def normal(rng, *shapes):
    """Weights by NumPy: JAX would compile a program for every shape."""
    return tuple(
        jnp.asarray(rng.standard_normal(shape) / shape[-1] ** 0.5) for shape in shapes
    )


@eqx.filter_jit
def autodiff_products(trained, rest, x, y, v):
    """(Hessian times v, Jacobian times v) in the order of ravel_pytree."""
    flat, unravel = ravel_pytree(trained)

    def residual(flat):
        return (eqx.combine(unravel(flat), rest)(x) - y).reshape(-1)

    def gradient(flat):
        r, pullback = jax.vjp(residual, flat)
        return pullback(r)[0], r

    return jax.jvp(gradient, (flat,), (v,))[1]


def reference(network, where, data):
    """(Hessian, its Gauss-Newton part), in float64 whatever came in."""
    spec = where_spec(network, where)
    with jax.enable_x64(True):
        network, data = jax.tree.map(in_double, (network, data))
        trained, rest = eqx.partition(network, spec)
        size = sum(leaf.size for leaf in jax.tree.leaves(trained))
        # one column at a time: all of them in one program take twice as long to compile
        columns = [
            autodiff_products(trained, rest, data.inputs, data.targets, jnp.asarray(e))
            for e in np.eye(size)
        ]
        full, J = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
        return [full, J.T @ J]


@eqx.filter_jit
def everything(build, u):
    H = build()
    return H, {
        "H": (H.as_matrix(), H.mv(u)),
        "G": (H.gauss_newton.as_matrix(), H.gauss_newton.mv(u)),
        "C": (H.curvature.as_matrix(), H.curvature.mv(u)),
    }


def hessian_of(network, where, data):
    """A function without arguments that `everything` compiles with what it builds."""
    return jax.tree_util.Partial(build_hessian, network, Static(where), data)


def itself(H):
    """The same for an operator that was built outside of jit."""
    return jax.tree_util.Partial(lambda H: H, H)


class Static(eqx.Module):
    value: object = eqx.field(static=True)


def build_hessian(network, where, data):
    return jr.hessian(jr.SquaredLoss(data), network, where.value)


def close(actual, expected, dtype, factor=64):
    assert actual.dtype == dtype
    scale = max(1.0, float(np.abs(expected).max()))
    atol = factor * float(jnp.finfo(dtype).eps) * scale
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


def check(build, full, first, dtype):
    """Matrices and products of an operator and its parts; symmetry and sign."""
    expected = {"H": full, "G": first, "C": full - first}
    p = len(full)
    u = np.random.default_rng(5).standard_normal(p).astype(dtype)
    H, found = everything(build, jnp.asarray(u))
    assert H.shape == H.gauss_newton.shape == H.curvature.shape == (p, p)
    for name, dense in expected.items():
        matrix, product = found[name]
        close(matrix, dense, dtype)
        close(product, dense @ u, dtype)
    for operator in (H, H.gauss_newton, H.curvature):
        assert lx.is_symmetric(operator)
    assert lx.is_positive_semidefinite(H.gauss_newton)
    assert not lx.is_positive_semidefinite(H)
    values = np.linalg.eigvalsh(np.asarray(found["G"][0], "float64"))
    assert values[0] > -p * float(jnp.finfo(dtype).eps) * values[-1]
    return H


SINGLE = ("relu", "tanh, three outputs", "dense, weight and a bias")
CASES = [(name, "float64") for name in NAMES] + [(name, "float32") for name in SINGLE]


@pytest.mark.parametrize(("name", "dtype"), CASES, indirect=["dtype"])
def test_hessian_is_that_of_autodiff(name, dtype):
    network, where = networks(dtype)[name]
    data = random_data(network, dtype)
    full, first = reference(network, where, data)
    H = check(hessian_of(network, where, data), full, first, dtype)
    assert isinstance(H.curvature, LayeredCurvature)
    straight = np.abs(full - first).max() < 1e-12
    assert H.curvature.is_zero == straight


def test_a_network_of_four_smooth_layers(float64):
    """Blocks between layers that are two and three apart, biases below and above."""
    shapes = ((4, 3), (2, 4), (3, 2), (2, 3))
    weights = normal(np.random.default_rng(1), *shapes)
    biases = tuple(jnp.asarray(np.linspace(-0.3, 0.5, rows)) for rows, _ in shapes)
    network = jr.DenseNetwork(weights, biases, "tanh")
    where = lambda net: (net.weights[0], net.weights[3], net.biases[0], net.biases[2])
    data = random_data(network, float64)
    build = hessian_of(network, where, data)
    check(build, *reference(network, where, data), float64)


@pytest.mark.parametrize("activation", ["erf", "quadratic", "linear"])
def test_further_activations(activation, float64):
    inner, outer = normal(np.random.default_rng(2), (5, D), (2, 5))
    network = jr.Shallow(2 * inner, outer, activation)
    where = lambda net: (net.inner, net.outer)
    data = random_data(network, float64)
    build = hessian_of(network, where, data)
    check(build, *reference(network, where, data), float64)


def test_samples_in_blocks_give_the_same(float64, monkeypatch):
    """More samples than one block of pairs holds, and a last block that is not full."""
    monkeypatch.setattr(_pairs, "_NUMBERS", 150)
    weights = normal(np.random.default_rng(4), (4, 5), (3, 4))
    network = jr.DenseNetwork(weights, None, "tanh")
    data = random_data(network, float64, n=11)
    build = hessian_of(network, None, data)
    check(build, *reference(network, None, data), float64)


class Cosines(eqx.Module):
    frequencies: jax.Array
    shift: jax.Array
    names: tuple = ("any", "module")

    def __call__(self, x):
        return jnp.cos(self.frequencies @ x + self.shift)


def test_any_equinox_module(dtype):
    rng = np.random.default_rng(0)
    array = lambda *shape: jnp.asarray(rng.standard_normal(shape).astype(dtype))
    network = Cosines(array(3, D), array(3))
    x, y = inputs(dtype, n=9), array(9, 3)
    data = jr.data.Dataset(x, y)
    H = jr.hessian(jr.SquaredLoss(data), network)
    assert isinstance(H.curvature, AutodiffCurvature)

    class Batched(eqx.Module):
        net: Cosines

        def __call__(self, x):
            return jnp.cos(x @ self.net.frequencies.T + self.net.shift[None])

    full, first = reference(Batched(network), None, data)
    C = H.curvature
    by_four = AutodiffCurvature(C.trained, C.rest, x, C.residual, block=4)
    # either way in one of the precisions
    H = eqx.tree_at(lambda H: H.curvature, H, C if dtype == "float32" else by_four)
    check(itself(H), full, first, dtype)


def test_a_trained_activation_parameter_takes_autodiff(float64):
    network = eqx.tree_at(
        lambda net: net.activation,
        networks(float64)["relu"][0],
        jr.activations.LeakyReLU(jnp.asarray(0.3, float64)),
    )
    where = lambda net: (net.inner, net.activation)
    data = random_data(network, float64)
    H = jr.hessian(jr.SquaredLoss(data), network, where)
    assert isinstance(H.curvature, AutodiffCurvature)
    full, first = reference(network, where, data)
    assert np.abs((full - first)[-1]).max() > 1e-3
    check(itself(H), full, first, float64)


def test_single_precision_of_many_samples():
    """Entries are sums over 600 samples; none is off by more than 8 roundings."""
    rng = np.random.default_rng(3)
    single = lambda array: jnp.asarray(array.astype("float32"))
    inner, outer = rng.standard_normal((8, 6)), np.repeat([1, -1], 4) / 8**0.5
    network = jr.Shallow(single(inner), single(outer), "tanh")
    data = random_data(network, "float32", n=600)
    full, _ = reference(network, None, data)
    dense = np.asarray(jr.hessian(jr.SquaredLoss(data), network).as_matrix())
    assert dense.dtype == np.float32
    assert np.abs(dense - full).max() < 8 * np.finfo("float32").eps * np.abs(full).max()
    np.testing.assert_array_equal(dense, dense.T)


def test_gauss_newton_is_a_part_and_ignores_targets(float64):
    network, where = networks(float64)["tanh, three outputs"]
    data = random_data(network, float64)
    G = jr.gauss_newton(jr.SquaredLoss(data), network, where)
    J = np.asarray(jr.jacobian(network, data.inputs, where).as_matrix())
    close(G.as_matrix(), J.T @ J, float64)
    other = jr.data.Dataset(data.inputs, data.targets + 1)
    H = jr.hessian(jr.SquaredLoss(other), network, where)
    np.testing.assert_array_equal(H.gauss_newton.as_matrix(), G.as_matrix())
    dense, u = np.asarray(H.as_matrix()), jnp.asarray(np.ones(H.shape[0]))

    @eqx.filter_jit
    def others(H, G, u):
        return H.rmv(u), H.gram(), H.T.cogram(), H.cross_gram(G)

    square = dense @ dense.T
    exact = dense.T @ u, square, square, dense @ (J.T @ J)
    for found, expected in zip(others(H, G, u), exact, strict=True):
        close(found, expected, float64)


# ------------------------------------------------------------------- global minima


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_at_zero_residual_the_curvature_is_exactly_zero(dtype):
    r"""Teacher and student equal, W = I, inputs ±e_i: integers, nothing is rounded.

    Neuron l sees the one sample e_l, so $J^\top J$ has the block $e_l e_l^\top$ for it
    and rank k; the sign of the outer weights does not matter.
    """
    k = 4
    eye, signs = np.eye(k, dtype=dtype), np.array([1, -1, 1, 1], dtype)
    teacher = jr.Shallow(jnp.asarray(eye), jnp.asarray(signs))
    x, y = np.concatenate([eye, -eye]), np.concatenate([signs, 0 * signs])
    loss = jr.SquaredLoss(jr.data.Dataset(jnp.asarray(x), jnp.asarray(y)))
    H = jr.hessian(loss, teacher, lambda net: (net.inner, net.outer))
    assert not H.curvature.is_zero  # zero by its numbers, not by its structure
    _, found = everything(itself(H), jnp.asarray(np.ones(20, dtype)))
    assert not any(np.asarray(part).any() for part in found["C"])
    inner = jr.hessian(loss, teacher)
    expected = np.zeros((k * k, k * k))
    for neuron in range(k):
        expected[neuron * k + neuron, neuron * k + neuron] = 1
    np.testing.assert_array_equal(inner.as_matrix(), expected)
    values = np.sort(np.asarray(jr.spectrum(H).values))
    close(jnp.asarray(values), np.array([0.0] * 16 + [2.0] * 4), dtype)


@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
def test_bottleneck_at_its_minimum_with_a_residual(dtype):
    r"""Best approximation of rank 1 to diag(2, 1): residual diag(0, -1).

    With $W_2 W_1 = u v^\top$, $u = v = (\sqrt2, 0)$, the second differential is
    $\|\delta u\,v^\top + u\,\delta v^\top\|^2 + 2\delta u^\top R\,\delta v$, hence
    eigenvalues 4, 0 along u and v, and 3, 1 across; the curvature alone has ±1, 0, 0.
    """
    root = jnp.asarray([[math.sqrt(2), 0.0]], dtype)
    network = jr.LinearNetwork((root, root.T))
    data = jr.data.Dataset(
        jnp.eye(2, dtype=dtype), jnp.diag(jnp.asarray([2, 1], dtype))
    )
    loss = jr.SquaredLoss(data)
    assert abs(float(loss(network)) - 0.5) < 1e-6
    H = jr.hessian(loss, network)
    close(jr.spectrum(H).values, np.array([4.0, 3, 1, 0]), dtype)
    close(jr.spectrum(H.curvature).values, np.array([1.0, 0, 0, -1]), dtype)
    close(jr.spectrum(H.gauss_newton).values, np.array([4.0, 2, 2, 0]), dtype)


@pytest.mark.parametrize("dtype", ["float64"], indirect=True)
def test_smooth_neuron_at_its_minimum_with_a_residual(dtype):
    r"""GELU at inputs ±1 with targets -1: w = 0 is the global minimum, residual (1, 1).

    For $g(w) = w\Phi(w)$ the loss is $\frac12 g(w)^2 + \frac12 g(-w)^2 + 1
    + w(2\Phi(w) - 1)$, where all terms are least at 0. There $g' = \frac12$ and
    $g'' = 2/\sqrt{2\pi}$: Gauss-Newton ½, curvature $4/\sqrt{2\pi}$.
    """
    network = jr.Shallow(jnp.zeros((1, 1), dtype), jnp.ones((1,), dtype), "gelu")
    data = jr.data.Dataset(jnp.asarray([[1], [-1]], dtype), -jnp.ones((2,), dtype))
    bend = 4 / math.sqrt(2 * math.pi)
    _, found = everything(hessian_of(network, None, data), jnp.ones((1,), dtype))
    for name, value in (("G", 0.5), ("C", bend), ("H", 0.5 + bend)):
        close(found[name][0], np.array([[value]]), dtype)


# --------------------------------------------------- transformations, other rooms


def test_traces_under_jit_and_vmap(float64):
    network, where = networks(float64)["tanh, three outputs"]
    data = random_data(network, float64)

    def dense(network, data):
        return jr.hessian(jr.SquaredLoss(data), network, where).as_matrix()

    alone = dense(network, data)
    close(eqx.filter_jit(dense)(network, data), np.asarray(alone), float64)
    scales = jnp.asarray([0.5, 1.0, 2.0], float64)
    arrays, rest = eqx.partition(network, eqx.is_array)

    def scaled(scale):
        moved = jax.tree.map(lambda leaf: scale * leaf, arrays)
        return dense(eqx.combine(moved, rest), data)

    batch = jax.vmap(scaled)(scales)
    close(batch[1], np.asarray(alone), float64)
    assert float(jnp.abs(batch[2] - batch[1]).max()) > 1e-2


def test_spectra_of_a_hessian_are_signed(float64):
    network, where = networks(float64)["tanh, three outputs"]
    data = random_data(network, float64)
    H = jr.hessian(jr.SquaredLoss(data), network, where)
    full, _ = reference(network, where, data)
    exact = np.linalg.eigvalsh(full)[::-1]
    assert exact[-1] < -0.1
    answer = jr.spectrum(H)
    assert answer.kind == "eigenvalues"
    assert np.all(np.abs(np.asarray(answer.values) - exact) <= np.asarray(answer.error))
    ends = jr.extreme(H, method="matrix-free")
    for end, value in ((ends.smallest, exact[-1]), (ends.largest, exact[0])):
        assert abs(float(end.value) - value) <= float(end.error)
        assert float(end.error) < 1e-2


# ---------------------------------------------------------------------- refusals


def test_refusals(float64):
    network, _ = networks(float64)["relu, three outputs"]
    data = random_data(network, float64)
    loss = jr.SquaredLoss(data)
    scalar, _ = networks(float64)["relu"]
    with pytest.raises(ValueError, match=r"outputs have shape \(7,\)"):
        jr.hessian(loss, scalar)
    wide = jr.data.Dataset(inputs(float64, d=9), data.targets)
    with pytest.raises(ValueError, match="as wide as the network's input"):
        jr.hessian(jr.SquaredLoss(wide), network)
    with pytest.raises(ValueError, match="selects no floating array"):
        jr.hessian(loss, network, where=lambda net: ())
    counts = Cosines(jnp.arange(12, dtype="int32").reshape(3, 4), jnp.zeros((3,)))
    with pytest.raises(ValueError, match="integer or boolean"):
        jr.hessian(loss, counts, where=lambda net: net.frequencies)
    single = jax.tree.map(lambda leaf: leaf.astype("float32"), data)
    with pytest.raises(ValueError, match="expected one dtype"):
        jr.hessian(jr.SquaredLoss(single), network)
    broken = eqx.tree_at(
        lambda net: net.inner, network, network.inner.at[1, 2].set(jnp.nan)
    )
    with pytest.raises(ValueError, match=r"NaN or infinite entries.*\(1, 2\)"):
        jr.hessian(loss, broken)
    with pytest.raises(TypeError, match="expected a SquaredLoss"):
        jr.gauss_newton(lambda network: 0.0, network)
    with pytest.raises(TypeError, match="SquaredLoss"):
        jr.hessian(lambda network: 0.0, network)


def test_a_matrix_that_would_not_fit_is_refused(float64, monkeypatch):
    network, where = networks(float64)["tanh, three outputs"]
    H = jr.hessian(jr.SquaredLoss(random_data(network, float64)), network, where)
    p = H.shape[0]
    monkeypatch.setenv("JAXRELU_MEMORY_LIMIT", str(p * p * 8))
    for operator in (H, H.gauss_newton, H.curvature):
        copies = 3 if operator is H else 2
        with pytest.raises(
            jr.MemoryRefusedError, match=f"{copies * p * p * 8:,} bytes"
        ):
            operator.as_matrix()
    with pytest.raises(jr.MemoryRefusedError, match="matrix-free"):
        jr.spectrum(H)
    assert H.mv(jnp.ones((p,), float64)).shape == (p,)
