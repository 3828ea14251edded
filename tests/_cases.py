"""One instance of every network family, small enough for dense references."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy import special, stats

import jaxrelu as jr


N, D = 7, 4


def inputs(dtype, n=N, d=D, seed=0):
    rows = np.random.default_rng(seed).standard_normal((n, d))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return jnp.asarray(rows.astype(dtype))


@functools.cache
def networks(dtype):
    """name -> (network, where)."""
    # weights by NumPy: JAX would compile a program for every shape
    rng = np.random.default_rng(7)

    def both(net):
        return (net.inner, net.outer)

    def normal(shape, scale=1.0):
        return jnp.asarray((scale * rng.standard_normal(shape)).astype(dtype))

    def balanced(shape):
        half = np.repeat([1, -1], shape[-1] // 2) / shape[-1] ** 0.5
        return jnp.asarray(np.broadcast_to(half, shape).astype(dtype))

    def shallow(activation="relu", m=None, outer=balanced):
        shape = (6,) if m is None else (m, 6)
        return jr.Shallow(normal((6, D)), outer(shape), activation)

    def dense(widths, activation="relu", scalar=False, biases=True):
        shapes = list(zip(widths[1:], widths[:-1], strict=True))
        shapes[-1] = shapes[-1][1:] if scalar else shapes[-1]
        weights = [normal(shape, (2 / shape[-1]) ** 0.5) for shape in shapes]
        shifts = [normal(shape[:-1]) if biases else None for shape in shapes]
        return jr.DenseNetwork(tuple(weights), tuple(shifts), activation)

    deep = dense((D, 5, 3, 2))
    chain = tuple(normal(s, s[1] ** -0.5) for s in ((5, D), (3, 5)))
    residual = tuple(normal((D, D), 1 / (3 * D**0.5)) for _ in range(3))

    return {
        "relu": (shallow(), None),
        "relu both layers": (shallow(), both),
        "relu outer layer": (shallow(), lambda net: net.outer),
        "relu unequal outer": (shallow(outer=normal), None),
        "leaky": (shallow(activation=jr.activations.LeakyReLU(0.1)), None),
        "softplus": (shallow(activation="softplus"), None),
        "tanh, three outputs": (shallow(activation="tanh", m=3), both),
        "relu, three outputs": (shallow(m=3), both),
        "dense relu": (deep, None),
        "dense scalar": (dense((D, 5, 3, 1), scalar=True, activation="gelu"), None),
        "dense, no biases": (dense((D, 5, 2), biases=False), None),
        "dense, one middle layer": (deep, lambda net: net.weights[1]),
        "dense, weight and a bias": (
            deep,
            lambda net: (net.weights[0], net.biases[1]),
        ),
        "linear": (jr.LinearNetwork(chain), None),
        "linear residual": (jr.LinearResidualNetwork(residual), None),
    }


NAMES = tuple(networks(jnp.dtype("float32")))


@eqx.filter_jit
def _reverse_mode(trained, rest, x):
    flat, unravel = ravel_pytree(trained)
    outputs = lambda flat: eqx.combine(unravel(flat), rest)(x).reshape(-1)
    return jax.jacrev(outputs)(flat)


def reference_jacobian(network, where, x):
    """(n m, p) by reverse mode through the batched network, in ravel order.

    In float64 whatever came in: the truth for float32, too.
    """
    spec = jr.networks.where_spec(network, where)
    with jax.enable_x64(True):
        network, x = jax.tree.map(in_double, (network, x))
        return np.asarray(_reverse_mode(*eqx.partition(network, spec), x))


def in_double(leaf):
    """The same numbers in float64, without a program compiled for the conversion."""
    if not eqx.is_inexact_array(leaf):
        return leaf
    return jnp.asarray(np.asarray(leaf, "float64"))


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(160)
SLOPES = {
    "softplus": special.expit,
    "tanh": lambda z: 1 / np.cosh(z) ** 2,
    "gelu": lambda z: stats.norm.cdf(z) + z * stats.norm.pdf(z),
}


def exact_covariance(activation, x):
    """Σ(X) of unit rows: the angles for ReLU, a rule for two Gaussians otherwise."""
    products = np.clip(x @ x.T, -1, 1)
    np.fill_diagonal(products, 1)
    if activation == "relu":
        return products * (np.pi - np.arccos(products)) / (2 * np.pi)
    slope = SLOPES[activation]
    second = np.sqrt(1 - products**2)[:, :, None] * NODES  # the part across
    kernel = np.zeros_like(products)
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        beside = slope(products[:, :, None] * node + second) @ WEIGHTS
        kernel += weight * slope(node) * beside
    return products * kernel / (2 * np.pi)
