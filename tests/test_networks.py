"""Networks: values, initialisers, default training leaves, refusals."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import NAMES, inputs, networks

import jaxrelu as jr
from jaxrelu.networks._initializers import OUTER


@eqx.filter_jit
def together_and_apart(network, x):
    return network(x), jax.vmap(network)(x)


@pytest.mark.parametrize("name", NAMES)
def test_batched_call_is_vmap_of_samples(name, dtype):
    network, _ = networks(dtype)[name]
    x = inputs(dtype)
    batch, one_by_one = together_and_apart(network, x)
    assert batch.dtype == dtype
    assert batch.shape[1:] == (() if network.out_size is None else (network.out_size,))
    eps = 64 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(batch, one_by_one, rtol=eps, atol=eps)


def test_values_written_out_by_hand(float64):
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    W = np.array([[1.0, 1.0], [-2.0, 0.5], [0.0, 1.0]])
    v = np.array([1.0, -1.0, 0.5])
    shallow = jr.Shallow(jnp.asarray(W), jnp.asarray(v))
    expected = [
        sum(vl * max(0.0, float(w @ xi)) for vl, w in zip(v, W, strict=True))
        for xi in x
    ]
    np.testing.assert_allclose(shallow(jnp.asarray(x)), expected, rtol=1e-15)

    b, c = np.array([0.1, 0.2, -0.3]), np.array([0.7])
    dense = jr.DenseNetwork(
        (jnp.asarray(W), jnp.asarray(v[None])), (jnp.asarray(b), jnp.asarray(c))
    )
    by_hand = np.maximum(x @ W.T + b, 0) @ v[:, None] + c
    np.testing.assert_allclose(dense(jnp.asarray(x)), by_hand, rtol=1e-14)

    A, B = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.5, -1.0], [2.0, 0.0]])
    linear = jr.LinearNetwork((jnp.asarray(A), jnp.asarray(B)))
    np.testing.assert_allclose(linear(jnp.asarray(x)), x @ (B @ A).T, rtol=1e-14)
    residual = jr.LinearResidualNetwork((jnp.asarray(A), jnp.asarray(B)))
    both = (np.eye(2) + B) @ (np.eye(2) + A)
    np.testing.assert_allclose(residual(jnp.asarray(x)), x @ both.T, rtol=1e-14)


def test_balanced_outer_weights_are_those_of_the_paper(dtype):
    norm = 3.0
    net = jr.Shallow.init(jax.random.key(0), d=2, k=1000, outer_norm=norm, dtype=dtype)
    v = np.asarray(net.outer)
    assert (v > 0).sum() == (v < 0).sum() == 500
    assert len(set(np.abs(v))) == 1
    assert math.fsum(v) == 0
    assert np.linalg.norm(v) == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize(
    ("scheme", "deviation"),
    [
        ("gaussian", 1.0),
        ("xavier", 1 / 20**0.5),
        ("glorot_normal", (2 / 420) ** 0.5),
        ("glorot_uniform", (2 / 420) ** 0.5),
        ("he_normal", (2 / 20) ** 0.5),
        ("he_uniform", (2 / 20) ** 0.5),
    ],
)
def test_inner_schemes_have_their_standard_deviation(scheme, deviation, dtype, getkey):
    W = jr.Shallow.init(getkey(), d=20, k=400, inner=scheme, dtype=dtype).inner
    assert W.shape == (400, 20)
    assert W.dtype == dtype
    # the sample deviation of 8000 entries is within 4 / sqrt(2 * 8000) of the true one
    assert float(W.std()) == pytest.approx(deviation, rel=4 / 16000**0.5)
    assert abs(float(W.mean())) < 5 * deviation / 8000**0.5


@pytest.mark.parametrize("scheme", OUTER)
@pytest.mark.parametrize("m", [None, 3])
def test_outer_schemes_have_their_shape_and_norm(scheme, m, getkey):
    net = jr.Shallow.init(getkey(), d=2, k=1000, m=m, outer=scheme, outer_norm=2.0)
    assert net.outer.shape == ((1000,) if m is None else (m, 1000))
    norms = jnp.linalg.norm(jnp.atleast_2d(net.outer), axis=1)
    if scheme in ("balanced", "signs"):
        np.testing.assert_allclose(norms, 2.0, rtol=1e-5)
    elif scheme == "gaussian":
        np.testing.assert_allclose(norms, 2.0, rtol=0.2)
    elif scheme == "ones":
        assert (net.outer == 1).all()


def test_dtype_defaults_to_that_of_jax():
    for flag, name in ((False, "float32"), (True, "float64")):
        with jax.enable_x64(flag):
            net = jr.Shallow.init(jax.random.key(0), d=2, k=2)
            assert net.inner.dtype == net.outer.dtype == name


def test_default_training_leaves():
    spec = jr.networks.where_spec
    shallow = jr.Shallow.init(jax.random.key(0), d=2, k=2)
    marks = spec(shallow, None)
    assert (marks.inner, marks.outer) == (True, False)
    dense = jr.DenseNetwork(
        (jnp.ones((3, 2)), jnp.ones((1, 3))), (jnp.zeros(3), jnp.zeros(1))
    )
    assert all(jax.tree.leaves((spec(dense, None).weights, spec(dense, None).biases)))
    chosen = spec(dense, lambda net: [net.biases[0]])
    assert (chosen.biases, chosen.weights) == ((True, False), (False, False))


def test_a_residual_network_of_scale_zero_is_the_identity(dtype):
    net = jr.LinearResidualNetwork.init(
        jax.random.key(0), d=2, depth=4, scale=0.0, dtype=dtype
    )
    x = inputs(dtype, d=2)
    assert (net(x) == x).all()


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: jr.Shallow.init(KEY, d=2, k=3), "expected an even k"),
        (lambda: jr.Shallow.init(KEY, d=0, k=2), "d is 0; expected at least 1"),
        (lambda: jr.Shallow.init(KEY, d=2, k=2, inner="lecun"), "'gaussian', 'xavier'"),
        (lambda: jr.Shallow.init(KEY, d=2, k=2, outer="x"), "expected one of"),
        (lambda: jr.Shallow.init(KEY, d=2, k=2, outer_norm=-1.0), "positive finite"),
        (lambda: jr.Shallow(jnp.ones((3, 2)), jnp.ones(4)), r"expected \(3,\)"),
        (lambda: jr.Shallow(jnp.ones((0, 2)), jnp.ones(0)), "none 0"),
        (lambda: jr.DenseNetwork.init(KEY, (3,)), "input, hidden and output"),
        (lambda: jr.DenseNetwork.init(KEY, (3, 2), scalar=True), r"widths\[-1\] = 1"),
        (lambda: jr.DenseNetwork((jnp.ones((2, 3)), jnp.ones((1, 4)))), "layer before"),
        (
            lambda: jr.DenseNetwork((jnp.ones((2, 3)),), (jnp.ones(3),)),
            r"biases\[0\] has shape \(3,\)",
        ),
        (lambda: jr.LinearNetwork(()), "at least one weight"),
        (lambda: jr.LinearResidualNetwork((jnp.ones((2, 3)),)), r"expected \(d, d\)"),
    ],
)
def test_bad_networks_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_mixed_dtypes_are_refused(float64):
    with pytest.raises(ValueError, match="one dtype"):
        jr.Shallow(jnp.ones((2, 2), "float32"), jnp.ones(2))


def test_networks_vmap_over_their_weights(dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    batch = eqx.filter_vmap(lambda key: jr.Shallow.init(key, d=2, k=2, dtype=dtype))(
        keys
    )
    outputs = eqx.filter_vmap(lambda net, x: net(x), in_axes=(eqx.if_array(0), None))(
        batch, inputs(dtype, d=2)
    )
    single = jr.Shallow.init(keys[1], d=2, k=2, dtype=dtype)(inputs(dtype, d=2))
    eps = 64 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(outputs[1], single, rtol=eps, atol=eps)
