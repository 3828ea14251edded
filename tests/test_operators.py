"""Structured Jacobians against reverse-mode autodiff through the batched network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from _cases import NAMES, D, in_double, inputs, networks, reference_jacobian

import jaxrelu as jr
from jaxrelu.operators import (
    AutodiffJacobian,
    BlockDiagonal,
    GatedKhatriRao,
    HStack,
    KhatriRao,
    Kronecker,
    VStack,
    cross_gram,
    gram,
    matmat,
)


def close(actual, expected, dtype, factor=64):
    """Equality up to `factor` units of rounding of the largest entry."""
    expected = np.asarray(expected)
    scale = max(1.0, float(np.abs(expected).max()))
    atol = factor * float(jnp.finfo(dtype).eps) * scale
    assert actual.dtype == dtype
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=atol)


@eqx.filter_jit
def products(operators, vectors):
    """One program for all of them: it is compiling that takes the time."""
    return [
        {
            "as_matrix": J.as_matrix(),
            "mv": J.mv(u),
            "rmv": J.rmv(r),
            "T.mv": J.T.mv(r),
            "gram": J.gram(),
            "cogram": J.cogram(),
            "T.gram": J.T.gram(),
            "T.as_matrix": J.T.as_matrix(),
        }
        for J, (u, r) in zip(operators, vectors, strict=True)
    ]


def dense_products(A, u, r):
    return {
        "as_matrix": A,
        "mv": A @ u,
        "rmv": A.T @ r,
        "T.mv": A.T @ r,
        "gram": A @ A.T,
        "cogram": A.T @ A,
        "T.gram": A.T @ A,
        "T.as_matrix": A.T,
    }


def check_products(operators, matrices, dtype):
    """Every product of operators against the NumPy products of dense matrices."""
    rng, vectors = np.random.default_rng(5), []
    for J, dense in zip(operators, matrices, strict=True):
        assert J.shape == dense.shape == (J.out_size(), J.in_size())
        assert J.T.T.shape == J.shape
        u, r = (rng.standard_normal(size).astype(dtype) for size in dense.shape[::-1])
        vectors.append((u, r))
    found = products(operators, jax.tree.map(jnp.asarray, vectors))
    for results, dense, pair in zip(found, matrices, vectors, strict=True):
        for name, expected in dense_products(dense, *pair).items():
            close(results[name], expected, dtype)


AUTODIFF = ("relu both layers", "dense scalar", "linear residual")
# one network per kind of factor; the others differ from these in what is trained
SINGLE = (
    "relu both layers",
    "relu unequal outer",
    "leaky",
    "softplus",
    "tanh, three outputs",
    "relu, three outputs",
    "dense relu",
    "linear",
)
CASES = [
    *((name, "auto", "float64") for name in NAMES),
    *((name, "autodiff", "float64") for name in AUTODIFF),
    *((name, "auto", "float32") for name in SINGLE),
    ("relu both layers", "autodiff", "float32"),
]


@pytest.mark.parametrize(("name", "method", "dtype"), CASES, indirect=["dtype"])
def test_jacobian_is_that_of_autodiff(name, method, dtype):
    network, where = networks(dtype)[name]
    x = inputs(dtype)
    J = jr.jacobian(network, x, where, method=method)
    assert isinstance(J, AutodiffJacobian) == (method == "autodiff")
    check_products([J], [reference_jacobian(network, where, x)], dtype)


@pytest.mark.parametrize(
    "name",
    ["relu", "relu both layers", "tanh, three outputs", "dense scalar", "linear"],
)
def test_kernel_between_two_sets_of_inputs(name, float64):
    network, where = networks(float64)[name]
    one, other = inputs(float64), inputs(float64, seed=1)
    dense, rows = (reference_jacobian(network, where, x) for x in (one, other))
    rows = rows[: 5 * len(rows) // 7]  # rows are per sample: those of five of the seven

    @eqx.filter_jit
    def kernels(network, one, two, dense, rows):
        J, K = jr.jacobian(network, one, where), jr.jacobian(network, two, where)
        return (
            J.cross_gram(K),
            cross_gram(J, lx.MatrixLinearOperator(rows)),
            cross_gram(lx.MatrixLinearOperator(dense), K),
        )

    two = inputs(float64, n=5, seed=1)
    np.testing.assert_array_equal(two, other[:5])
    for kernel in kernels(network, one, two, jnp.asarray(dense), jnp.asarray(rows)):
        close(kernel, dense @ rows.T, float64)


def test_relu_uses_the_bits_only_when_the_outer_weights_allow_it(float64):
    cases = networks(float64)
    kinds = {
        "relu": GatedKhatriRao,
        "leaky": GatedKhatriRao,
        "relu unequal outer": KhatriRao,
        "softplus": KhatriRao,
        "relu outer layer": Kronecker,
    }
    for name, kind in kinds.items():
        network, where = cases[name]
        assert type(jr.jacobian(network, inputs(float64), where)) is kind


def test_jacobian_traces_under_jit_vmap_and_grad(dtype):
    network, _ = networks(dtype)["relu"]
    x = inputs(dtype)
    eager = jr.jacobian(network, x).gram()
    close(
        eqx.filter_jit(lambda net, x: jr.jacobian(net, x).gram())(network, x),
        eager,
        dtype,
    )
    scales = jnp.asarray([0.5, 2.0, 1.0, 3.0], dtype)

    @eqx.filter_jit
    @eqx.filter_vmap(in_axes=(eqx.if_array(0), None))
    def grams(network, x):
        return jr.jacobian(network, x).gram()

    arrays, rest = eqx.partition(network, eqx.is_array)
    several = jax.tree.map(
        lambda leaf: jnp.asarray(np.multiply.outer(scales, leaf)), arrays
    )
    found = grams(eqx.combine(several, rest), x)
    close(found[2], eager, dtype)
    close(found[1], 4 * eager, dtype, 256)

    smooth, _ = networks(dtype)["softplus"]
    direction = jnp.ones_like(smooth.inner)

    def trace(t):
        net = eqx.tree_at(lambda net: net.inner, smooth, smooth.inner + t * direction)
        return jnp.trace(jr.jacobian(net, x).gram())

    both = jax.jit(jax.value_and_grad(trace))
    step = np.asarray(float(jnp.finfo(dtype).eps) ** (1 / 3), dtype)
    slope = both(0 * step)[1]
    finite = (both(step)[0] - both(-step)[0]) / (2 * step)
    assert abs(float(slope - finite)) < 30 * step**2 * (1 + abs(float(slope)))


def test_a_trained_activation_parameter_falls_back_to_autodiff(float64):
    slope = jnp.asarray(0.3, float64)
    network = eqx.tree_at(
        lambda net: net.activation,
        networks(float64)["relu"][0],
        jr.activations.LeakyReLU(slope),
    )
    x = inputs(float64)

    def where(net):
        return (net.inner, net.activation)

    J = jr.jacobian(network, x, where)
    assert isinstance(J, HStack)
    assert [type(part) for part in J.parts] == [GatedKhatriRao, AutodiffJacobian]
    close(J.as_matrix(), reference_jacobian(network, where, x), float64)


def test_any_equinox_module(float64):
    class Cosines(eqx.Module):
        frequencies: jax.Array

        def __call__(self, x):
            return jnp.cos(self.frequencies @ x)

    frequencies = np.random.default_rng(0).standard_normal((3, D))
    network = Cosines(jnp.asarray(frequencies))
    x = inputs(float64, n=9)
    J = jr.jacobian(network, x)
    # ∂cos(w_j·x)/∂w_l = -sin(w_j·x) x if l = j
    slopes = -np.sin(x @ frequencies.T)[:, :, None] * np.asarray(x)[:, None, :]
    dense = np.einsum("jl,ijd->ijld", np.eye(3), slopes).reshape(27, -1)
    close(J.as_matrix(), dense, float64)
    blocked = AutodiffJacobian(J.trained, J.rest, J.inputs, block=4)
    close(blocked.gram(), dense @ dense.T, float64)


def test_stacks_sums_and_blocks(dtype):
    rng = np.random.default_rng(3)

    def array(*shape):
        return jnp.asarray(rng.standard_normal(shape).astype(dtype))

    a = KhatriRao(array(5, 3), array(5, 2))
    b = KhatriRao(array(5, 3), array(5, 2))
    c = KhatriRao(array(4, 3), array(4, 2))
    kron = Kronecker(array(1, 2), array(5, 3))
    weights = array(5)
    A, B, C, K = (np.asarray(part.as_matrix()) for part in (a, b, c, kron))
    W = np.diag(np.asarray(weights))
    zeros = np.zeros((5, 6), dtype)
    stacks = (
        HStack((a, b)),
        HStack((a, kron)),
        VStack((a, c, b)),
        BlockDiagonal((a, c)),
        VStack((a, b)).T,
    )
    dense = (
        np.concatenate([A, B], 1),
        np.concatenate([A, K], 1),
        np.concatenate([A, C, B]),
        np.block([[A, zeros], [zeros[:4], C]]),
        np.concatenate([A, B]).T,
    )
    # float32: the classes of the first and of the third are those of two others
    chosen = (0, 1, 2, 3, 4) if dtype == "float64" else (1, 3, 4)
    check_products([stacks[i] for i in chosen], [dense[i] for i in chosen], dtype)

    @eqx.filter_jit
    def others(a, b, kron, stacks, blocks):
        scaled = lx.DiagonalLinearOperator(weights) @ a
        sums = (
            a + b,
            3.0 * a,
            a / 2.0,
            -a,
            scaled,
            lx.MatrixLinearOperator(jnp.array(A)),
        )
        both = HStack((a, b)).cross_gram(HStack((b, a)))
        mixed = HStack((a, kron)).cross_gram(HStack((b, b)))
        products = [matmat(*pair) for pair in zip(stacks, blocks, strict=True)]
        return [gram(operator) for operator in sums], both, mixed, products

    blocks = [array(matrix.shape[1], 3) for matrix in dense]
    grams, both, mixed, found = others(a, b, kron, stacks, blocks)
    square = A @ A.T
    exact = (
        (A + B) @ (A + B).T,
        9 * square,
        square / 4,
        square,
        W @ square @ W,
        square,
    )
    for actual, expected in zip(grams, exact, strict=True):
        close(actual, expected, dtype)
    close(both, A @ B.T + B @ A.T, dtype)
    close(mixed, A @ B.T + K @ B.T, dtype)
    for actual, matrix, block in zip(found, dense, blocks, strict=True):
        close(actual, matrix @ np.asarray(block), dtype)


def test_lineax_solves_with_our_operators(float64):
    network, _ = networks(float64)["softplus"]
    J = jr.jacobian(network, inputs(float64))
    y = jnp.arange(1.0, 8.0, dtype=float64)
    solution = lx.linear_solve(J, y, lx.LSMR(rtol=1e-10, atol=1e-10)).value
    close(solution, np.linalg.lstsq(J.as_matrix(), y)[0], float64, 1e7)
    assert not lx.is_symmetric(J)
    close(lx.materialise(J).as_matrix(), J.as_matrix(), float64)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x: x[:, :3], ValueError, "expected \\(n, 4\\)"),
        (lambda x: x[0], ValueError, "expected \\(n, 4\\)"),
        (lambda x: x[:0], ValueError, "no rows"),
        (lambda x: x.at[2, 1].set(jnp.nan), ValueError, "index \\(2, 1\\)"),
        (lambda x: x.astype(int), TypeError, "expected a floating dtype"),
        (lambda x: x.astype("float32"), ValueError, "one dtype"),
    ],
)
def test_bad_inputs_are_refused(change, error, words, float64):
    network, _ = networks(float64)["relu"]
    with pytest.raises(error, match=words):
        jr.jacobian(network, change(inputs(float64)))


def test_bad_where_and_method_are_refused(float64):
    network, _ = networks(float64)["relu"]
    x = inputs(float64)
    with pytest.raises(ValueError, match="selects no floating array"):
        jr.jacobian(network, x, lambda net: net.activation)
    with pytest.raises(ValueError, match="expected one of 'auto', 'autodiff'"):
        jr.jacobian(network, x, method="magic")


def test_what_would_not_fit_is_refused_with_the_bytes(float64, monkeypatch):
    network, _ = networks(float64)["relu"]
    J = jr.jacobian(network, inputs(float64))
    monkeypatch.setenv("JAXRELU_MEMORY_LIMIT", "1000")
    with pytest.raises(MemoryError, match=r"needs 1,344 bytes"):
        J.as_matrix()
    with pytest.raises(MemoryError, match="mv, rmv or gram"):
        J.cogram()
    with pytest.raises(MemoryError, match="1,176 bytes"):
        J.gram()
    J.mv(jnp.ones(24, float64))


@pytest.mark.parametrize("activation", ["relu", "softplus", "erf"])
def test_expected_gram_is_the_mean_over_inner_weights(activation, float64):
    x, rng = inputs(float64, n=5), np.random.default_rng(8)
    outer = jnp.asarray(rng.standard_normal((2, 4)) / 2)

    def where(net):
        return (net.inner, net.outer)

    @jax.jit
    @jax.vmap
    def draw(inner):
        net = jr.Shallow(inner, outer, activation)
        return jr.jacobian(net, x, where).gram()

    inner = jnp.asarray(rng.standard_normal((4000, 4, D)))
    draws = np.asarray(draw(inner))
    mean, deviation = draws.mean(0), draws.std(0) / 4000**0.5
    expected = jr.expected_gram(jr.Shallow(inner[0], outer, activation), x, where)
    assert np.abs((mean - np.asarray(expected)) / (deviation + 1e-12)).max() < 5


@pytest.mark.parametrize("name", ["relu", "softplus", "relu both layers", "linear"])
def test_structured_float32_grams_keep_their_rounding_promise(name):
    """`gram_terms` bounds what float32 does to the Gram of wide layers, in norm."""
    with jax.enable_x64(True):
        rng, x = np.random.default_rng(0), inputs(jnp.float32, n=40, d=30)
        single = lambda array: jnp.asarray(np.asarray(array, "float32"))
        inner = single(rng.standard_normal((500, 30)))
        if name == "linear":
            outer = single(rng.standard_normal((3, 500)) / 500**0.5)
            network, where = jr.LinearNetwork((inner, outer)), None
        else:
            kind, _, both = name.partition(" ")
            outer = single(np.repeat([1, -1], 250) / 500**0.5)
            network = jr.Shallow(inner, outer, kind)
            where = (lambda net: (net.inner, net.outer)) if both else None
        J = jr.jacobian(network, x, where)
        wide = np.asarray(jax.tree.map(in_double, J).as_matrix())
        exact = wide @ wide.T
        error = np.linalg.norm(np.asarray(J.gram(), "float64") - exact, 2)
        promise = J.gram_terms**0.5 * 2.0**-23 * np.linalg.norm(exact, 2)
        assert promise / 1000 < error < promise


def test_the_gram_of_a_difference_does_not_cancel(float64):
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((2, 3, 5))
    one = KhatriRao(jnp.asarray(a), jnp.asarray(b[:, :2]))
    two = KhatriRao(jnp.asarray(a + 1e-9 * b), jnp.asarray(b[:, :2]))
    difference = np.asarray(one.as_matrix() - two.as_matrix())
    exact = np.linalg.svd(difference, compute_uv=False)
    answer = jr.spectrum(one - two)
    assert (np.abs(np.asarray(answer.values) - exact) <= answer.error).all()
    assert exact[-1] > 1e-11
