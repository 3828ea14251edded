"""Small data sets with a global minimiser that is known in closed form."""

import jax.numpy as jnp
import numpy as np

import jaxrelu as jr
from jaxrelu import landscape as ls


def waves(rows, cols, k):
    """A deterministic matrix, sin(1 + 2i + 3j + 5k + ij)."""
    i, j = np.arange(rows)[:, None], np.arange(cols)[None]
    return np.sin(1 + 2 * i + 3 * j + 5 * k + i * j)


def data_of(columns, targets, dtype):
    """The notes keep samples in columns: transposed here."""
    turn = lambda matrix: jnp.asarray(np.asarray(matrix, float).T, dtype)
    return jr.data.Dataset(turn(columns), turn(targets))


SKEW = [[1, 0, 2], [0, 1, -1]]


def lin2(dtype):
    data = data_of(SKEW, [[2, 1, 1], [0, 1, 3]], dtype)
    change = jnp.asarray([[1, 1], [0, 2]], dtype)
    return jr.SquaredLoss(data), ls.linear_minimizer(data, (change,))


def lin3(dtype):
    data = data_of(waves(3, 5, 0), waves(3, 5, 1), dtype)
    changes = [jnp.asarray(2 * np.eye(3) + waves(3, 3, k), dtype) for k in (2, 3)]
    return jr.SquaredLoss(data), ls.linear_minimizer(data, changes)


def res3(dtype):
    target = np.array([[1.2, 0.3], [-0.1, 0.9]])
    data = data_of(SKEW, target @ np.array(SKEW), dtype)
    changes = [[[1.1, 0.1], [0, 0.9]], [[1.1, 0.2], [-0.1, 1]]]
    changes = [jnp.asarray(change, dtype) for change in changes]
    return jr.SquaredLoss(data), ls.residual_minimizer(data, changes)


def nl2(dtype):
    data = data_of([[2, 1], [0, 1]], [[1, -1], [2, 1]], dtype)
    features = jnp.asarray([[1, 0.75], [-0.5, 2]], dtype)
    leaky = jr.activations.LeakyReLU(0.25)
    return jr.SquaredLoss(data), ls.shallow_minimizer(data, features, leaky)


def nl3(dtype):
    x, y, s = (2 * np.eye(3) + waves(3, 3, k) for k in (4, 5, 6))
    data = data_of(x, y, dtype)
    leaky = jr.activations.LeakyReLU(0.1)
    return jr.SquaredLoss(data), ls.shallow_minimizer(
        data, jnp.asarray(s.T, dtype), leaky
    )


def deficient(dtype):
    """Two singular layers: still a minimiser of full dominance along its cone."""
    layer = jnp.asarray(np.diag([1.0, 0.0]), dtype)
    data = jr.data.Dataset(jnp.asarray(np.eye(2), dtype), layer)
    return jr.SquaredLoss(data), jr.LinearNetwork((layer, layer))
