r"""Angles between vectors, right at 0 and $\pi$ in value and derivative.

For unit $u, v$ the angle is $\theta = 2\operatorname{atan2}(|u - v|, |u + v|)$.
$\arccos \langle u, v\rangle$ loses half of the digits near $0$ and $\pi$, its
derivative is infinite there, and clipping its argument makes the derivative wrong.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrelu._checks import as_floating, check_rank


# Above this cosine chords are computed by subtraction: at it, the angle from the
# cosine is off by 4 roundings of the cosine.
_NEAR = 31 / 32
_BLOCK = 256  # rows at once
_CHUNK = 2**20  # numbers gathered at once
_FEW = 2**14  # numbers up to which all pairs are subtracted at once
_MANY = 2**22  # numbers up to which a CPU subtracts all pairs, a column at a time


def product(a: Array, b: Array) -> Array:
    """$A B^T$ in full precision on every device."""
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


def row_products(a: Array, b: Array) -> Array:
    """Row-wise inner products."""
    return jnp.sum(a * b, axis=1)


@jax.custom_jvp
def row_norms(x: Array) -> Array:
    """Euclidean norms of rows, without overflow; derivative 0 at a zero row."""
    largest = jnp.max(jnp.abs(x), axis=1)
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(jnp.sum(_over(x, scale) ** 2, axis=1))


def unit_rows(x: Array, norms: Array) -> Array:
    """Rows over their norms; zero rows stay zero."""
    return _over(x, jnp.where(norms > 0, norms, 1))


def _over(x: Array, sizes: Array) -> Array:
    """Rows over numbers whose inverses may be subnormal: those are flushed to 0."""
    shrink = _shrinking(sizes)
    return (x * shrink[:, None]) / (sizes * shrink)[:, None]


def _shrinking(sizes: Array) -> Array:
    """A power of two that takes large numbers far from overflow, and 1 for others."""
    half = jnp.finfo(sizes.dtype).maxexp // 2
    return jnp.where(sizes > 2.0**half, 2.0**-half, 1).astype(sizes.dtype)


@row_norms.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    norms = row_norms(x)
    return norms, row_products(unit_rows(x, norms), dx)


def _chords(u: Array, v: Array, same: bool) -> tuple[Array, Array]:
    """|u_i - v_j| and |u_i + v_j| for rows that are unit or zero.

    All pairs are subtracted if they are few, which compiles sooner and gathers nothing
    under vmap; on a CPU also if they are more, which is faster than `_by_products`.
    """
    n, d = u.shape
    m = v.shape[0]
    if n * m * d <= _FEW:
        return _by_differences(u, v)
    by_products = functools.partial(_by_products, same=same)
    if d > n * m or n * m * d > _MANY:
        return by_products(u, v)
    return jax.lax.platform_dependent(u, v, cpu=_by_columns, default=by_products)


def _by_differences(u: Array, v: Array) -> tuple[Array, Array]:
    left, right = u[:, None, :], v[None, :, :]
    return _apart(_lengths(left - right), _lengths(left + right))


def _by_columns(u: Array, v: Array) -> tuple[Array, Array]:
    """The same, without an array of all differences."""

    def add(squares, columns):
        minus, plus = squares
        left, right = columns[0][:, None], columns[1][None, :]
        return (minus + (left - right) ** 2, plus + (left + right) ** 2), None

    none = jnp.zeros((len(u), len(v)), u.dtype)
    (minus, plus), _ = jax.lax.scan(add, (none, none), (u.T, v.T))
    return _apart(jnp.sqrt(minus), jnp.sqrt(plus))


def _apart(minus: Array, plus: Array) -> tuple[Array, Array]:
    """Two zero rows count as orthogonal."""
    zero = minus + plus == 0
    return jnp.where(zero, 1, minus), jnp.where(zero, 1, plus)


def _by_products(u: Array, v: Array, same: bool) -> tuple[Array, Array]:
    """A product for the bulk; differences and sums for the pairs with |cos| > 31/32.

    Those (but for the diagonal when both arguments are the same) are gathered in
    chunks.
    """
    n, d = u.shape
    m = v.shape[0]
    size = min(n, _BLOCK)
    count = -(-n // size)
    padded = jnp.pad(u, ((0, count * size - n), (0, 0))).reshape(count, size, d)
    indices = jnp.arange(count * size).reshape(count, size)
    columns = jnp.arange(m)[None, :]
    chunk = min(max(_CHUNK // max(d, 1), 64), size * m)

    def block(arguments):
        rows, index = arguments
        cosine = jnp.clip(product(rows, v), -1, 1)
        diagonal = (columns == index[:, None]) & same
        near = (jnp.abs(cosine) > _NEAR) & ~diagonal
        rank = jnp.cumsum(near.ravel(), dtype=jnp.int32)

        def subtract(state):
            done, minus, plus = state
            wanted = done + 1 + jnp.arange(chunk, dtype=jnp.int32)
            place = jnp.searchsorted(rank, wanted)  # size * m past the last one
            i, j = place // m, place % m
            left, right = rows[i], v[j]
            minus = minus.at[i, j].set(_lengths(left - right), mode="drop")
            plus = plus.at[i, j].set(_lengths(left + right), mode="drop")
            return done + chunk, minus, plus

        bulk = jnp.sqrt(2 - 2 * cosine), jnp.sqrt(2 + 2 * cosine)
        _, minus, plus = jax.lax.while_loop(
            lambda state: state[0] < rank[-1], subtract, (jnp.int32(0), *bulk)
        )
        return minus, plus

    minus, plus = jax.lax.map(block, (padded, indices))
    return minus.reshape(-1, m)[:n], plus.reshape(-1, m)[:n]


def _lengths(rows: Array) -> Array:
    return jnp.sqrt(jnp.sum(rows * rows, axis=-1))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def chord_pair(same: bool, x: Array, y: Array) -> tuple[Array, Array]:
    r"""$2\sin(\theta_{ij}/2)$ and $2\cos(\theta_{ij}/2)$, each accurate where small.

    The lengths of difference and sum of the unit vectors. ``same``: x and y are one
    array, whose rows are parallel to themselves.
    """
    x, y = (rows * _row_shrinking(rows) for rows in (x, y))
    norms = row_norms(x)
    minus, plus = _chords(unit_rows(x, norms), unit_rows(y, row_norms(y)), same)
    if same:
        # fused into a difference, two divisions of the same numbers need not agree
        itself = jnp.eye(len(x), dtype=bool) & (norms > 0)[:, None]
        minus, plus = jnp.where(itself, 0, minus), jnp.where(itself, 2, plus)
    return minus, plus


def _row_shrinking(x: Array) -> Array:
    """Angles do not depend on it, and norms no longer overflow."""
    return _shrinking(jnp.max(jnp.abs(x), axis=1, keepdims=True))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def angle_pair(same: bool, x: Array, y: Array) -> tuple[Array, Array]:
    r"""$\theta_{ij}$ and $\pi - \theta_{ij}$, each accurate where it is small.

    ``same``: as for `chord_pair`.
    """
    minus, plus = chord_pair(same, x, y)
    return 2 * jnp.arctan2(minus, plus), 2 * jnp.arctan2(plus, minus)


def sine(theta: Array, complement: Array) -> Array:
    r"""$\sin\theta$ with relative accuracy at both ends."""
    return jnp.sin(jnp.where(theta < complement, theta, complement))


@chord_pair.defjvp
def _(same, primals, tangents):
    minus, plus = chord_pair(same, *primals)
    dcos, proper = _cosine_slope(primals, tangents, 1 - minus**2 / 2, minus * plus / 2)
    less, more = (
        jnp.where(proper, dcos / jnp.where(proper, chord, 1), 0)
        for chord in (minus, plus)
    )
    return (minus, plus), (-less, more)


@angle_pair.defjvp
def _(same, primals, tangents):
    theta, complement = angle_pair(same, *primals)
    sin = sine(theta, complement)
    dcos, proper = _cosine_slope(primals, tangents, jnp.cos(theta), sin)
    dtheta = -jnp.where(proper, 1 / jnp.where(proper, sin, 1), 0) * dcos
    return (theta, complement), (dtheta, -dtheta)


def _cosine_slope(
    primals: tuple[Array, Array],
    tangents: tuple[Array, Array],
    cos: Array,
    sin: Array,
) -> tuple[Array, Array]:
    """The change of cos θ, and where θ has a derivative: not at parallel vectors.

    One-sided derivatives there are ± the same number: 0 lies between them.
    """
    (x, y), (dx, dy) = primals, tangents
    left, right = _row_shrinking(x), _row_shrinking(y)
    x, y, dx, dy = x * left, y * right, dx * left, dy * right
    p, q = row_norms(x), row_norms(y)
    u, v = unit_rows(x, p), unit_rows(y, q)
    dx, dy = unit_rows(dx, p), unit_rows(dy, q)
    proper = (p > 0)[:, None] & (q > 0)[None, :]
    proper &= sin > 16 * jnp.finfo(x.dtype).eps
    along = row_products(u, dx)[:, None] + row_products(v, dy)[None, :]
    across = product(dx, v) + product(u, dy)
    return across - cos * along, proper


def split_angle(theta: Array) -> tuple[Array, Array]:
    r"""$\theta$ and $\pi - \theta$, the latter without the rounding of $\pi$."""
    head = jnp.asarray(math.pi, theta.dtype)
    if theta.dtype == jnp.float64:
        rest = 1.2246467991473532e-16  # π - fl(π)
    else:
        rest = math.pi - float(jnp.finfo(theta.dtype).dtype.type(math.pi))
    # the barrier keeps XLA from adding the two constants first
    return theta, jax.lax.optimization_barrier(head - theta) + rest


def angles(inputs_a: Any, inputs_b: Any = None) -> Float[Array, "n m"]:
    r"""Angles in $[0, \pi]$ between the rows of two matrices, or of one.

    $\theta_{ij} = 2\operatorname{atan2}(|u_i - v_j|, |u_i + v_j|)$ with
    $u_i = x_i/|x_i|$, $v_j = y_j/|y_j|$; absolute error of a few roundings everywhere.

    The derivative is $\partial\theta/\partial x = -n/|x|$ with the unit vector $n$ of
    the part of $v$ orthogonal to $u$. At parallel and antiparallel vectors
    (within 16 roundings), where $\theta$ has a conical point, the derivative returned
    is 0: the mean of the two one-sided derivatives in every direction. A zero vector
    has angle $\pi/2$ to every vector and derivative 0.

    Args:
        inputs_a: (n, d).
        inputs_b: (m, d); ``inputs_a`` again if None, with an exactly zero diagonal.

    Returns:
        (n, m).

    Raises:
        TypeError: integer inputs.
        ValueError: not two axes, or rows of different length.

    Cost: a matrix product, 2nmd operations, and 6d more for every pair off the diagonal
    with |cos| > 31/32, whose vectors are gathered and subtracted about a million
    numbers at a time. Memory is that of the result.
    """
    x, y, same = check_pair(inputs_a, inputs_b)
    return _angles(same, x, y)


@functools.partial(jax.jit, static_argnums=0)
def _angles(same: bool, x: Array, y: Array) -> Array:
    return angle_pair(same, x, y)[0]


def angle(x: Any, y: Any) -> Float[Array, ""]:
    """Angle between two vectors; see `angles` for accuracy and derivatives.

    Args:
        x: (d,).
        y: (d,).

    Raises:
        TypeError: integer vectors.
        ValueError: not one axis, or different lengths.
    """
    x, y = as_floating(x, "x"), as_floating(y, "y")
    check_rank(x, 1, "x", "(d,)")
    check_rank(y, 1, "y", "(d,)")
    return angles(x[None], y[None])[0, 0]


def check_pair(inputs_a: Any, inputs_b: Any) -> tuple[Array, Array, bool]:
    """Two checked matrices, and whether the second was left out."""
    x = as_floating(inputs_a, "inputs_a")
    check_rank(x, 2, "inputs_a", "(n, d)")
    if x.size == 0:
        msg = f"inputs_a has shape {x.shape}; expected at least one row and column."
        raise ValueError(msg)
    if inputs_b is None:
        return x, x, True
    y = as_floating(inputs_b, "inputs_b")
    check_rank(y, 2, "inputs_b", "(m, d)")
    if x.shape[1] != y.shape[1] or x.dtype != y.dtype or y.size == 0:
        msg = (
            f"inputs_a is {x.shape} {x.dtype}, inputs_b is {y.shape} {y.dtype}; "
            "expected rows of one length and one dtype. Cast or cut one of them."
        )
        raise ValueError(msg)
    return x, y, False
