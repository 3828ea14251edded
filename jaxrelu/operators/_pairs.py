r"""Sums over samples of products of pairs: $J^\top J$ without $J$.

Where row $(i, o)$ of a Jacobian block is $\Delta_{io} \otimes a_i$, an entry of
$J^\top J$ is $\sum_i (\sum_o \Delta_{iop}\Delta_{ior})\, a_{iq} a_{is}$: a product of
pairs of neurons with pairs of inputs. Both kinds of pair are symmetric, so one
matrix product of $k(k+1)/2$ by $d(d+1)/2$ entries holds all of it, with a quarter of
the multiplications of $J^\top J$.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxrelu._products import matmul


_FEW = 4  # neurons or inputs below which products of pairs are mostly overhead
_NUMBERS = 2**22  # numbers of the pairs of one block of samples: 32 MB in float64
_TABLE = 2**20  # entries up to which a program carries their places: 4 MB
_INSIDE = "promise_in_bounds"


def cogram(
    left: Float[Array, "n m k"], right: Float[Array, "n d"]
) -> Float[Array, "cols cols"]:
    r"""$J^\top J$ of the rows $\Delta_{io} \otimes a_i$, (kd, kd), exactly symmetric.

    Cost: $n k^2 d^2 / 2$ operations in the product, $n m k^2 / 2$ in its factors. For
    k or d below 4 the pairs cost more than they save, and the rows are multiplied.
    """
    k, d = left.shape[2], right.shape[1]
    if min(k, d) < _FEW:
        return _rows_product(left, right, left, right)
    p, r = np.triu_indices(k)

    def weights(part):
        left = part.transpose(1, 2, 0)
        return jnp.sum(left[:, p] * left[:, r], axis=0)

    return symmetric_pairs(weights, left, right, k, d)


def symmetric_pairs(
    weights: Callable,
    factors: PyTree,
    right: Float[Array, "n d"],
    k: int,
    d: int,
) -> Float[Array, "cols cols"]:
    r"""$\sum_i M_i \otimes a_i a_i^\top$ for symmetric $M_i$, (kd, kd).

    Args:
        weights: from a block of `factors` to the upper triangles of $M_i$ in the order
            of `numpy.triu_indices`, (k(k+1)/2, block).
        factors: pytree with a leading axis of n.
        right: a, (n, d).
        k: order of M.
        d: width of a.
    """
    q, s = np.triu_indices(d)

    def pairs(part):
        factors, right = part
        return weights(factors), right.T[q] * right.T[s]

    width = k * (k + 1) // 2 + d * (d + 1) // 2
    return _unpack(over_samples(pairs, (factors, right), width), k, d)


def cross_cogram(
    left: Float[Array, "n m k"],
    right: Float[Array, "n d"],
    left2: Float[Array, "n m k2"],
    right2: Float[Array, "n d2"],
) -> Float[Array, "cols cols2"]:
    r"""$J^\top K$ of two blocks with rows $\Delta_{io} \otimes a_i$, (kd, k2 d2).

    Cost: $2n k k_2 d d_2$ operations by pairs, which have no symmetry here; with one
    output the rows are multiplied, at the same number of operations and fewer passes.
    """
    if left.shape[1] == 1 or right.shape[1] * right2.shape[1] < _FEW**2:
        return _rows_product(left, right, left2, right2)

    def weights(part):
        left, left2 = (x.transpose(1, 2, 0) for x in part)
        return jnp.sum(left[:, :, None] * left2[:, None], axis=0)

    sizes = (left.shape[2], left2.shape[2])
    return all_pairs(weights, (left, left2), right, right2, sizes)


def _rows_product(left: Array, right: Array, left2: Array, right2: Array) -> Array:
    def columns(left, right):
        left, right = left.transpose(2, 0, 1)[:, None], right.T[None, :, :, None]
        return (left * right).reshape(left.shape[0] * right.shape[1], -1)

    def pairs(part):
        left, right, left2, right2 = part
        return columns(left, right), columns(left2, right2)

    width = sum(
        x.shape[1] * x.shape[2] * y.shape[1]
        for x, y in ((left, right), (left2, right2))
    )
    return over_samples(pairs, (left, right, left2, right2), width)


def all_pairs(
    weights: Callable,
    factors: PyTree,
    right: Float[Array, "n d"],
    right2: Float[Array, "n d2"],
    sizes: tuple[int, int],
) -> Float[Array, "cols cols2"]:
    r"""$\sum_i M_i \otimes a_i b_i^\top$ for any $M_i$ (k, k2), as (k d, k2 d2).

    Args:
        weights: from a block of `factors` to all $M_i$, (k, k2, block).
        factors: pytree with a leading axis of n.
        right: a, (n, d).
        right2: b, (n, d2).
        sizes: (k, k2).
    """
    (k, k2), d, d2 = sizes, right.shape[1], right2.shape[1]

    def pairs(part):
        factors, right, right2 = part
        inputs = right.T[:, None] * right2.T[None]
        rows = weights(factors)
        return rows.reshape(k * k2, -1), inputs.reshape(d * d2, -1)

    total = over_samples(pairs, (factors, right, right2), k * k2 + d * d2)
    return total.reshape(k, k2, d, d2).transpose(0, 2, 1, 3).reshape(k * d, k2 * d2)


def over_samples(
    pairs: Callable, factors: PyTree, width: int
) -> Float[Array, "rows cols"]:
    r"""$\sum_i u_i v_i^\top$ with `pairs` giving the columns u and v of a block.

    Args:
        pairs: from a block of `factors` to (rows, block) and (cols, block); zero
            factors must give zero columns, they pad the last block.
        factors: pytree with a leading axis of n.
        width: rows + cols; blocks are as large as fixed memory for them allows.
    """
    n = jax.tree.leaves(factors)[0].shape[0]
    block = max(1, _NUMBERS // width)

    def product(part):
        rows, cols = pairs(part)
        return matmul(rows, cols.T)

    if n <= block:
        return product(factors)
    block = -(-n // -(-n // block))  # the same number of blocks, filled evenly

    def fold(leaf):
        padded = jnp.pad(leaf, [(0, -n % block)] + [(0, 0)] * (leaf.ndim - 1))
        return padded.reshape(-1, block, *leaf.shape[1:])

    parts = jax.tree.map(fold, factors)
    shape = jax.eval_shape(product, jax.tree.map(lambda leaf: leaf[0], parts))
    start = jnp.zeros(shape.shape, shape.dtype)
    return jax.lax.scan(lambda sum_, part: (sum_ + product(part), None), start, parts)[
        0
    ]


def _unpack(packed: Array, k: int, d: int) -> Array:
    """From pairs (p <= r, q <= s) to the matrix of rows (p, q) and columns (r, s)."""
    size = k * d
    if size**2 <= _TABLE:  # looked up, not computed: a third of the time (measured)
        places = _places(packed.shape[1], _positions(np, k), _positions(np, d))
        return packed.reshape(-1).at[places.reshape(size, size)].get(mode=_INSIDE)
    neurons, inputs = _positions(jnp, k), _positions(jnp, d)
    if packed.size < 2**31:  # one pass over the result
        places = _places(packed.shape[1], neurons, inputs)
        full = packed.reshape(-1).at[places].get(mode=_INSIDE)
    else:
        full = packed[neurons][:, :, inputs].transpose(0, 2, 1, 3)
    return full.reshape(size, size)


def _places(width: int, neurons: Any, inputs: Any) -> Any:
    return width * neurons[:, None, :, None] + inputs[None, :, None, :]


def _positions(numpy: Any, size: int) -> Any:
    """Where the pair of a row and a column stands in `numpy.triu_indices`."""
    index = numpy.arange(size, dtype=numpy.int32)
    low = numpy.minimum(index[:, None], index[None])
    high = numpy.maximum(index[:, None], index[None])
    return (low * (2 * size - low - 1) >> 1) + high  # no division: one per entry
