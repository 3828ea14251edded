r"""Mehler series $T_{ij} = \sum_r c^{(i)}_r(|x|)\, c^{(j)}_r(|y|) \cos^r\theta$.

For activations without a closed form. $c^{(i)}_r(p) = E[\varphi^{(i)}(p g) h_r(g)]$
with the orthonormal Hermite polynomials $h_r$, by quadrature: one matrix product for
all rows, instead of a two-dimensional integral for every pair.
"""

import functools
from collections.abc import Callable

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
from jaxrelu.activations._quadrature import projection


def nth_derivative(act: AbstractActivation, order: int) -> Callable[[Array], Array]:
    r"""$\varphi^{(\text{order})}$ as an elementwise function."""
    function = (act, act.derivative, act.second_derivative)[min(order, 2)]
    for _ in range(order - 2):
        function = _elementwise_derivative(function)
    return function


def _elementwise_derivative(function):
    return lambda z: jax.jvp(function, (z,), (jnp.ones_like(z),))[1]


def _coefficients(act, derivative: int, order: int, norms: Array) -> Array:
    """(order + 1,) + norms.shape."""
    # more terms come with more nodes, so that two orders differ in both
    points, matrix = projection(8 + order.bit_length(), order)
    z = jnp.asarray(points, norms.dtype)
    values = nth_derivative(act, derivative)(jnp.multiply.outer(norms, z))
    matrix = jnp.asarray(matrix, norms.dtype)
    out = jnp.matmul(values, matrix, precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(out, -1, 0)


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
    size = jnp.max(jnp.abs(left), axis=1) * jnp.max(jnp.abs(right), axis=1)
    small = size <= jnp.max(size) * jnp.finfo(cos.dtype).eps / 1024  # False for NaN
    count = jnp.max(jnp.where(small, 0, jnp.arange(1, size.shape[0] + 1)))

    def step(k, total):
        r = count - 1 - k
        return total * cos + left[r][:, None] * right[r][None, :]

    return jax.lax.fori_loop(0, count, step, jnp.zeros_like(cos))


def angle_series(
    act: AbstractActivation, derivative: int, order: int, cos: Array, p: Array, q: Array
) -> Array:
    """The series for cosines and norms, entry by entry."""
    left = _coefficients(act, derivative, order, p)
    return _horner(left, _coefficients(act, derivative, order, q), cos)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def matrix_series(
    act: AbstractActivation, i: int, j: int, order: int, x: Array, y: Array
) -> Array:
    r"""The matrix $E[\varphi^{(i)}(w \cdot x_a)\, \varphi^{(j)}(w \cdot y_b)]$."""
    p, q = row_norms(x), row_norms(y)
    cos = jnp.clip(product(unit_rows(x, p), unit_rows(y, q)), -1, 1)
    left = _coefficients(act, i, order, p)
    return _short_horner(left, _coefficients(act, j, order, q), cos)


@matrix_series.defjvp
def _(act, i, j, order, primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    moment = functools.partial(matrix_series, act)
    change = moment(i + 1, j + 1, order, x, y) * (product(dx, y) + product(x, dy))
    change = change + moment(i + 2, j, order, x, y) * row_products(x, dx)[:, None]
    change = change + moment(i, j + 2, order, x, y) * row_products(y, dy)[None, :]
    return moment(i, j, order, x, y), change
