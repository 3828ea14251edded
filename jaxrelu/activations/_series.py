r"""Mehler series $T_{ij} = \sum_r c^{(i)}_r(|x|)\, c^{(j)}_r(|y|) \cos^r\theta$.

For activations without a closed form. $c^{(i)}_r(p) = E[\varphi^{(i)}(p g) h_r(g)]$
with the orthonormal Hermite polynomials $h_r$, by quadrature: one matrix product for
all rows, instead of a two-dimensional integral for every pair.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxrelu.activations._angle import (
    product,
    row_norms,
    row_products,
    unit_rows,
)
from jaxrelu.activations._functions import AbstractActivation
from jaxrelu.activations._quadrature import innermost, projection


# Panels as long as their distance from 0: 12 nodes reach rounding, 20 say so.
_POINTS, _FINE = 12, 20


def nth_derivative(act: AbstractActivation, order: int) -> Callable[[Array], Array]:
    r"""$\varphi^{(\text{order})}$ as an elementwise function."""
    function = (act, act.derivative, act.second_derivative)[min(order, 2)]
    for _ in range(order - 2):
        function = _elementwise_derivative(function)
    return function


def _elementwise_derivative(function):
    return lambda z: jax.jvp(function, (z,), (jnp.ones_like(z),))[1]


def _samples(act, derivative: int, order: int, norms: Array, points: int = _POINTS):
    """Values of norms.shape + (N,), and the matrix that makes them coefficients."""
    z, matrix = projection(points, order)
    z = jnp.asarray(z, norms.dtype)
    values = nth_derivative(act, derivative)(jnp.multiply.outer(norms, z))
    return values, jnp.asarray(matrix, norms.dtype)


def _projected(values: Array, matrix: Array) -> Array:
    out = jnp.matmul(values, matrix, precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(out, -1, 0)


def _coefficients(act, derivative: int, order: int, norms: Array) -> Array:
    """(order + 1,) + norms.shape."""
    return _projected(*_samples(act, derivative, order, norms))


def _horner(left: Array, right: Array, cos: Array) -> Array:
    """Sum over the first axis of left and right times powers of cos."""

    def step(total, pair):
        return total * cos + pair[0] * pair[1], None

    shape = jnp.broadcast_shapes(left.shape[1:], right.shape[1:], cos.shape)
    total, _ = jax.lax.scan(
        step, jnp.zeros(shape, cos.dtype), (left, right), reverse=True
    )
    return total


def _short_horner(left: Array, right: Array, cos: Array) -> Array:
    """`_horner` of outer products, from the last term above rounding on.

    Not differentiable in reverse mode: for `matrix_series`, which has its own rule.
    """
    # rows as multiples of their largest coefficient: nothing overflows on the way
    left, rows = _over_largest(left)
    right, columns = _over_largest(right)
    size = jnp.max(jnp.abs(left), axis=1) * jnp.max(jnp.abs(right), axis=1)
    small = size <= jnp.finfo(cos.dtype).eps / 1024  # False for NaN
    count = jnp.max(jnp.where(small, 0, jnp.arange(1, size.shape[0] + 1)))

    def step(k, total):
        r = count - 1 - k
        return total * cos + left[r][:, None] * right[r][None, :]

    total = jax.lax.fori_loop(0, count, step, jnp.zeros_like(cos))
    return total * rows[:, None] * columns[None, :]


def _over_largest(columns: Array) -> tuple[Array, Array]:
    largest = jnp.max(jnp.abs(columns), axis=0, keepdims=True)
    return columns / jnp.where(largest > 0, largest, 1), largest[0]


def angle_series(
    act: AbstractActivation, derivative: int, order: int, cos: Array, p: Array, q: Array
) -> Array:
    """The series for cosines and norms, entry by entry."""
    left = _coefficients(act, derivative, order, p)
    return _horner(left, _coefficients(act, derivative, order, q), cos)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3, 4))
def matrix_series(
    act: AbstractActivation, i: int, j: int, order: int, same: bool, x: Array, y: Array
) -> Array:
    r"""The matrix $E[\varphi^{(i)}(w \cdot x_a)\, \varphi^{(j)}(w \cdot y_b)]$.

    ``same``: x and y are one array. The diagonal is then an integral over one variable
    and needs no series, which converges worst there.
    """
    p, q = row_norms(x), row_norms(y)
    values, matrix = _samples(act, i, order, p)
    others = values if same and i == j else _samples(act, j, order, q)[0]
    left, right = _projected(values, matrix), _projected(others, matrix)
    series = _short_horner(left, right, cosines(x, y))
    if not same:
        return series
    values, rows = _over_largest(values.T)
    others, columns = _over_largest(others.T)
    return _on_diagonal(series, _mean((values * others).T, matrix) * rows * columns)


def cosines(x: Array, y: Array) -> Array:
    """Cosines of all pairs of rows; 0 for zero rows."""
    u, v = unit_rows(x, row_norms(x)), unit_rows(y, row_norms(y))
    return jnp.clip(product(u, v), -1, 1)


def _mean(values: Array, matrix: Array) -> Array:
    """E f(g), as h_0 = 1."""
    weights = matrix[:, 0]
    return jnp.matmul(values, weights, precision=jax.lax.Precision.HIGHEST)


def _on_diagonal(matrix: Array, entries: Array) -> Array:
    index = jnp.arange(len(entries))
    return matrix.at[index, index].set(entries)


@matrix_series.defjvp
def _(act, i, j, order, same, primals, tangents):
    (x, y), (dx, dy) = primals, tangents

    def moment(i, j):
        return matrix_series(act, i, j, order, same, x, y)

    change = moment(i + 1, j + 1) * (product(dx, y) + product(x, dy))
    change = change + moment(i + 2, j) * row_products(x, dx)[:, None]
    change = change + moment(i, j + 2) * row_products(y, dy)[None, :]
    return moment(i, j), change


class _Rows(NamedTuple):
    """What the error of a series needs to know of each row's f(g) = φ^(i)(p g).

    Attributes:
        size: (E f²)^{1/2}.
        slip: bound on the error of the coefficients, their Euclidean norm.
        tail: square root of what Parseval's equation leaves to degrees > order.
        own: error of E f².
        turn: (E (p φ^(i+1)(p g))²)^{1/2}: rounding of the cosine.
        stretch: (E (p g φ^(i+1)(p g))²)^{1/2}: rounding of p.
    """

    size: Array
    slip: Array
    tail: Array
    own: Array
    turn: Array
    stretch: Array


def _row_errors(act, derivative: int, order: int, p: Array) -> _Rows:
    eps = float(jnp.finfo(p.dtype).eps)
    values, matrix = _samples(act, derivative, order, p)
    finer, fine = _samples(act, derivative, order, p, _FINE)
    coarse, better = _projected(values, matrix), _projected(finer, fine)
    energy = _mean(finer * finer, fine)
    size = jnp.sqrt(energy)

    # φ may bend within the two innermost panels, where no node sees it: there f is
    # within `reach` of a constant
    edge = innermost(order)
    bound, bend = (
        jnp.asarray(b, p.dtype)
        for b in (act.derivative_bound, act.second_derivative_bound)
    )
    hidden = ~(p * edge * bend <= bound / 4)
    reach = bound if derivative else bound * p * edge
    start = jnp.abs(act(jnp.zeros_like(p))) * (1 - derivative)
    lost = jnp.where(hidden, edge * reach, 0)
    own = jnp.abs(energy - _mean(values * values, matrix)) + 8 * eps * energy
    own = own + 2 * lost * (reach + 2 * start)
    # |h_r p^{1/2}| < 1 and p^{1/2} < 2/3; twice the length, twice the constant
    slip = jnp.sqrt(jnp.sum((better - coarse) ** 2, axis=0)) + 8 * eps * size
    slip = slip + 8 / 3 * (order + 1) ** 0.5 * lost
    rest = jnp.maximum(energy - jnp.sum(better * better, axis=0), 0) + own
    rest = rest + 2 * slip * size

    slopes = _samples(act, derivative + 1, order, p, _FINE)[0] * p[:, None]
    z = jnp.asarray(projection(_FINE, order)[0], p.dtype)
    turn = jnp.sqrt(_mean(slopes * slopes, fine))
    turn = jnp.where(hidden, jnp.inf, turn)
    return _Rows(
        size=size,
        slip=slip,
        tail=jnp.sqrt(rest),
        own=own,
        # the sum's derivative by the cosine is at most its degree times its size
        turn=jnp.minimum(turn, order**0.5 * size),
        stretch=jnp.sqrt(_mean((z[None, :] * slopes) ** 2, fine)) + size,
    )


def series_error(
    act: AbstractActivation,
    derivative: int,
    order: int,
    same: bool,
    x: Array,
    y: Array,
) -> tuple[Array, Array]:
    r"""Errors of `matrix_series` for i = j, and whether one exceeds its entry's scale.

    With $t^2 = E f^2 - \sum_{r \le \text{order}} c_r^2$ of either row, what the series
    leaves out is at most $|\cos\theta|^{\text{order}+1}\, t_x t_y$ by Cauchy-Schwarz.
    """
    eps = 4 * (x.shape[1] + 8) * float(jnp.finfo(x.dtype).eps)
    a = _row_errors(act, derivative, order, row_norms(x))
    b = a if same else _row_errors(act, derivative, order, row_norms(y))

    def outer(left, right):
        return left[:, None] * right[None, :]

    scale = outer(a.size, b.size)
    rounding = outer(a.turn, b.turn) + outer(a.stretch, b.size)
    rounding = rounding + outer(a.size, b.stretch)
    near = jnp.minimum(jnp.abs(cosines(x, y)) + eps, 1) ** (order + 1)
    error = near * outer(a.tail, b.tail) + outer(a.slip, b.size + b.slip)
    error = error + outer(a.size, b.slip) + eps * rounding
    if same:
        error = _on_diagonal(error, a.own + 2 * eps * a.stretch * a.size)
    return error, jnp.any(error > scale)
