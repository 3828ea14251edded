"""One instance of every network family, small enough for dense references."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import jaxrelu as jr


N, D = 7, 4


def inputs(dtype, n=N, d=D, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return jnp.asarray(rows, dtype)


@functools.cache
def networks(dtype):
    """name -> (network, where)."""
    key = jax.random.key(7)

    def both(net):
        return (net.inner, net.outer)

    def shallow(**kwargs):
        return jr.Shallow.init(key, d=D, k=6, dtype=dtype, **kwargs)

    def dense(widths, **kwargs):
        net = jr.DenseNetwork.init(key, widths, dtype=dtype, **kwargs)
        if net.biases[0] is None:
            return net
        biases = tuple(
            jax.random.normal(jax.random.fold_in(key, i), b.shape, dtype)
            for i, b in enumerate(net.biases)
        )
        return eqx.tree_at(lambda net: net.biases, net, biases)

    return {
        "relu": (shallow(), None),
        "relu both layers": (shallow(), both),
        "relu outer layer": (shallow(), lambda net: net.outer),
        "relu unequal outer": (shallow(outer="gaussian"), None),
        "leaky": (shallow(activation=jr.activations.LeakyReLU(0.1)), None),
        "softplus": (shallow(activation="softplus"), None),
        "tanh, three outputs": (shallow(activation="tanh", m=3), both),
        "relu, three outputs": (shallow(m=3), both),
        "dense relu": (dense((D, 5, 3, 2)), None),
        "dense scalar": (dense((D, 5, 3, 1), scalar=True, activation="gelu"), None),
        "dense, no biases": (dense((D, 5, 2), biases=False), None),
        "dense, one middle layer": (dense((D, 5, 3, 2)), lambda net: net.weights[1]),
        "dense, weight and a bias": (
            dense((D, 5, 3, 2)),
            lambda net: (net.weights[0], net.biases[1]),
        ),
        "linear": (jr.LinearNetwork.init(key, (D, 5, 3), dtype=dtype), None),
        "linear residual": (
            jr.LinearResidualNetwork.init(key, d=D, depth=3, dtype=dtype),
            None,
        ),
    }


NAMES = tuple(networks(jnp.dtype("float32")))


def reference_jacobian(network, where, x):
    """(n m, p) by reverse mode through the batched network, in ravel order."""
    trained, rest = eqx.partition(network, jr.networks.where_spec(network, where))
    flat, unravel = ravel_pytree(trained)
    outputs = eqx.filter_jit(
        jax.jacrev(lambda p, x: eqx.combine(unravel(p), rest)(x).reshape(-1))
    )
    return outputs(flat, x)
