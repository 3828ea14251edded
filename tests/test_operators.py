"""Structured Jacobians against reverse-mode autodiff through the batched network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from _cases import NAMES, D, inputs, networks, reference_jacobian

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
def products(J, u, r):
    return {
        "as_matrix": J.as_matrix(),
        "mv": J.mv(u),
        "rmv": J.rmv(r),
        "T.mv": J.T.mv(r),
        "gram": J.gram(),
        "cogram": J.cogram(),
        "T.gram": J.T.gram(),
        "T.as_matrix": J.T.as_matrix(),
    }


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


def check_products(J, dense, dtype):
    """Every product of an operator against the NumPy products of a dense matrix."""
    dense = np.asarray(dense)
    assert J.shape == dense.shape == (J.out_size(), J.in_size())
    assert J.T.T.shape == J.shape
    rng = np.random.default_rng(5)
    u = rng.standard_normal(dense.shape[1]).astype(dtype)
    r = rng.standard_normal(dense.shape[0]).astype(dtype)
    results = products(J, jnp.asarray(u), jnp.asarray(r))
    for name, expected in dense_products(dense, u, r).items():
        close(results[name], expected, dtype)


AUTODIFF = ("relu both layers", "dense scalar", "linear residual")


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, "auto") for name in NAMES] + [(name, "autodiff") for name in AUTODIFF],
)
def test_jacobian_is_that_of_autodiff(name, method, dtype):
    network, where = networks(dtype)[name]
    x = inputs(dtype)
    J = jr.jacobian(network, x, where, method=method)
    assert isinstance(J, AutodiffJacobian) == (method == "autodiff")
    check_products(J, reference_jacobian(network, where, x), dtype)


@pytest.mark.parametrize(
    "name",
    ["relu", "relu both layers", "tanh, three outputs", "dense scalar", "linear"],
)
def test_kernel_between_two_sets_of_inputs(name, float64):
    network, where = networks(float64)[name]
    one, two = inputs(float64), inputs(float64, n=5, seed=1)
    J, K = jr.jacobian(network, one, where), jr.jacobian(network, two, where)
    dense, other = (reference_jacobian(network, where, x) for x in (one, two))
    close(J.cross_gram(K), dense @ other.T, float64)
    close(cross_gram(J, lx.MatrixLinearOperator(other)), dense @ other.T, float64)
    close(cross_gram(lx.MatrixLinearOperator(dense), K), dense @ other.T, float64)


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
    batch = eqx.filter_vmap(lambda key: jr.Shallow.init(key, d=D, k=6, dtype=dtype))(
        jax.random.split(jax.random.key(3), 4)
    )
    grams = eqx.filter_vmap(lambda net: jr.jacobian(net, x).gram())(batch)
    one = jax.tree.map(lambda leaf: leaf[2] if eqx.is_array(leaf) else leaf, batch)
    close(grams[2], jr.jacobian(one, x).gram(), dtype)

    smooth, _ = networks(dtype)["softplus"]
    direction = jnp.ones_like(smooth.inner)

    def trace(t):
        net = eqx.tree_at(lambda net: net.inner, smooth, smooth.inner + t * direction)
        return jnp.trace(jr.jacobian(net, x).gram())

    step = float(jnp.finfo(dtype).eps) ** (1 / 3)
    slope = jax.grad(trace)(jnp.zeros((), dtype))
    finite = (trace(step) - trace(-step)) / (2 * step)
    assert abs(float(slope - finite)) < 30 * step**2 * (1 + abs(float(slope)))


def test_a_trained_activation_parameter_falls_back_to_autodiff(float64):
    slope = jnp.asarray(0.3, float64)
    network = jr.Shallow.init(
        jax.random.key(0),
        d=D,
        k=6,
        activation=jr.activations.LeakyReLU(slope),
        dtype=float64,
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

    network = Cosines(jax.random.normal(jax.random.key(0), (3, D), float64))
    x = inputs(float64, n=9)
    J = jr.jacobian(network, x)
    dense = jax.jacrev(lambda w: jnp.cos(x @ w.T).reshape(-1))(network.frequencies)
    dense = dense.reshape(27, -1)
    close(J.as_matrix(), dense, float64)
    blocked = AutodiffJacobian(J.trained, J.rest, J.inputs, block=4)
    close(blocked.gram(), dense @ dense.T, float64)


def test_stacks_sums_and_blocks(dtype):
    rng = np.random.default_rng(3)

    def array(*shape):
        return jnp.asarray(rng.standard_normal(shape), dtype)

    a = KhatriRao(array(5, 3), array(5, 2))
    b = KhatriRao(array(5, 3), array(5, 2))
    c = KhatriRao(array(4, 3), array(4, 2))
    kron = Kronecker(array(1, 2), array(5, 3))
    A, B, C = a.as_matrix(), b.as_matrix(), c.as_matrix()
    cases = [
        (HStack((a, b)), jnp.concatenate([A, B], 1)),
        (HStack((a, kron)), jnp.concatenate([A, kron.as_matrix()], 1)),
        (VStack((a, c, b)), jnp.concatenate([A, C, B])),
        (BlockDiagonal((a, c)), jax.scipy.linalg.block_diag(A, C)),
        (VStack((a, b)).T, jnp.concatenate([A, B]).T),
    ]
    for operator, dense in cases:
        check_products(operator, dense, dtype)
        block = array(dense.shape[1], 3)
        close(matmat(operator, block), dense @ block, dtype)
    close(gram(a + b), (A + B) @ (A + B).T, dtype)
    close(gram(3.0 * a), 9 * A @ A.T, dtype)
    close(gram(a / 2.0), A @ A.T / 4, dtype)
    close(gram(-a), A @ A.T, dtype)
    weights = array(5)
    scaled = lx.DiagonalLinearOperator(weights) @ a
    W = jnp.diag(weights)
    close(gram(scaled), W @ A @ A.T @ W, dtype)
    close(gram(lx.MatrixLinearOperator(A)), A @ A.T, dtype)
    close(HStack((a, b)).cross_gram(HStack((b, a))), A @ B.T + B @ A.T, dtype)
    close(
        HStack((a, kron)).cross_gram(HStack((b, b))),
        A @ B.T + kron.as_matrix() @ B.T,
        dtype,
    )


def test_lineax_solves_with_our_operators(float64):
    network, _ = networks(float64)["softplus"]
    J = jr.jacobian(network, inputs(float64))
    y = jnp.arange(1.0, 8.0, dtype=float64)
    solution = lx.linear_solve(J, y, lx.LSMR(rtol=1e-10, atol=1e-10)).value
    close(solution, jnp.linalg.lstsq(J.as_matrix(), y)[0], float64, 1e7)
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
def test_expected_gram_is_the_mean_over_inner_weights(activation, float64, getkey):
    x = inputs(float64, n=5)
    network = jr.Shallow.init(
        getkey(), d=D, k=4, m=2, activation=activation, outer="gaussian", dtype=float64
    )

    def where(net):
        return (net.inner, net.outer)

    def draw(key):
        inner = jax.random.normal(key, network.inner.shape, float64)
        net = eqx.tree_at(lambda net: net.inner, network, inner)
        return jr.jacobian(net, x, where).gram()

    draws = jax.vmap(draw)(jax.random.split(getkey(), 4000))
    mean, deviation = draws.mean(0), draws.std(0) / 4000**0.5
    expected = jr.expected_gram(network, x, where)
    assert float(jnp.abs((mean - expected) / (deviation + 1e-12)).max()) < 5


@pytest.mark.parametrize("name", ["relu", "softplus", "relu both layers", "linear"])
def test_structured_float32_grams_keep_their_rounding_promise(name):
    """`gram_terms` bounds what float32 does to the Gram of wide layers, in norm."""
    with jax.enable_x64(True):
        key, x = jax.random.key(0), inputs(jnp.float32, n=40, d=30)
        if name == "linear":
            network = jr.LinearNetwork.init(key, (30, 500, 3), dtype=jnp.float32)
            where = None
        else:
            kind, _, both = name.partition(" ")
            network = jr.Shallow.init(
                key, d=30, k=500, activation=kind, dtype=jnp.float32
            )
            where = (lambda net: (net.inner, net.outer)) if both else None
        J = jr.jacobian(network, x, where)
        wide = jax.tree.map(
            lambda leaf: leaf.astype("float64") if eqx.is_inexact_array(leaf) else leaf,
            J,
        )
        exact = np.asarray(wide.as_matrix()) @ np.asarray(wide.as_matrix()).T
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
