"""Networks for the tests of semi-norms, and Jacobians by automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxrelu as jr
from jaxrelu.realization._norms import host_norm


NORMS = ("max", "fro", "spectral", "opinf", "op1")


def network(inner, outer, dtype=None):
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    inner, outer = np.asarray(inner, float), np.asarray(outer, float)
    return jr.Shallow(
        jnp.asarray(inner.astype(dtype)), jnp.asarray(outer.astype(dtype))
    )


def random_network(k, d, m, seed=0, dtype=None):
    rng = np.random.default_rng([seed, k, d, m])
    return network(rng.standard_normal((k, d)), rng.standard_normal((m, k)), dtype)


def degenerate_network(d, m, seed, dtype=None):
    """Parallel, antiparallel, repeated and coplanar rows, a zero row, a dead one."""
    rng = np.random.default_rng([seed, d, m])
    rows = rng.integers(-2, 3, (9, d)).astype(float)
    rows[0] = 1.0
    rows[1] = 2 * rows[0]
    rows[2] = -rows[0]
    rows[3] = 0
    rows[4] = rows[0] + rows[5]
    outer = rng.standard_normal((m, 9))
    outer[:, 6] = 0
    return network(rows, outer, dtype)


def affine_network(k, d, m, seed=0):
    rng = np.random.default_rng([seed, k, d, m])
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape))
    return jr.DenseNetwork((draw(k, d), draw(m, k)), (draw(k), draw(m)))


@jax.jit
def jacobians_at(net, x):
    return jax.vmap(jax.jacrev(net))(x)


def jacobian_norms(net, points, norm):
    """Norms of Df at points, by automatic differentiation of the network itself."""
    x = jnp.asarray(points, jax.tree.leaves(net)[0].dtype)
    jacobians = jacobians_at(net, x)
    return host_norm(np.asarray(jacobians, float).reshape(len(x), -1, x.shape[1]), norm)
