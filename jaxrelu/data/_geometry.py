"""Rows as directions: unit length, separation, and refusal of parallel rows."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import as_floating, check_finite, check_rank, is_concrete
from jaxrelu.data._arguments import listing


def unit_rows(inputs: Any) -> Float[Array, "n d"]:
    r"""Rows divided by their Euclidean length, $x_i / \lVert x_i \rVert_2$.

    Each row is first multiplied by a power of two, so that no square over- or
    underflows; the direction is that of the row as stored. Differentiable in
    ``inputs``. Under tracing zero rows give NaN; otherwise they are refused.

    Args:
        inputs: shape (n, d), floating.

    Returns:
        Shape (n, d), the dtype of ``inputs``. Cost $O(nd)$.

    Raises:
        TypeError: integer dtype.
        ValueError: wrong rank, NaN or infinity, or rows of length 0 (with their
            indices). A row whose entries are all subnormal counts as 0, because
            accelerators flush such numbers to 0.
    """
    inputs = as_floating(inputs, "inputs")
    check_rank(inputs, 2, "inputs", "(n, d)")
    check_finite(inputs, "inputs")
    unit, largest = _unit_rows(inputs)
    if is_concrete(largest):
        tiny = float(jnp.finfo(inputs.dtype).tiny)
        zero = np.flatnonzero(np.asarray(largest, dtype=np.float64) < tiny)
        if zero.size:
            msg = (
                f"inputs has {zero.size} zero rows, at {listing(zero)}; expected rows "
                "that have a direction. Drop them, for example with dataset.subset."
            )
            raise ValueError(msg)
    return unit


@jax.jit
def _unit_rows(
    inputs: Float[Array, "n d"],
) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
    """Unit rows, and the largest entry of each row before."""
    largest = jnp.max(jnp.abs(inputs), axis=1, keepdims=True)
    scale = jnp.ldexp(jnp.ones_like(largest), -_exponent(largest))
    # The quotient does not depend on the scale, so neither does its derivative.
    scaled = inputs * jax.lax.stop_gradient(scale)
    unit = scaled / jnp.sqrt(jnp.sum(scaled**2, axis=1, keepdims=True))
    return unit, largest[:, 0]


def _exponent(largest: Array) -> Array:
    """Of the power of two above it, which scales exactly.

    Its inverse is never subnormal: accelerators flush such numbers to 0 (and XLA turns
    a division by a large number into a product with a subnormal inverse).
    """
    return jnp.minimum(jnp.frexp(largest)[1], jnp.finfo(largest.dtype).maxexp - 2)


def rounding_tolerance(inputs: Array) -> float:
    r"""$8 \sqrt{d}\,\varepsilon$: what rounding alone can do to a row's unit length."""
    return 8 * math.sqrt(inputs.shape[1]) * float(jnp.finfo(inputs.dtype).eps)


def check_unit_rows(inputs: Any, tolerance: float | int | None = None) -> None:
    r"""Raises unless $|\lVert x_i\rVert_2 - 1| \le$ ``tolerance`` for every row.

    Does nothing for traced values. Cost $O(nd)$, in float64.

    Args:
        inputs: shape (n, d), floating.
        tolerance: default $8\sqrt d\,\varepsilon$ of the dtype of ``inputs``.

    Raises:
        TypeError: integer dtype.
        ValueError: wrong rank, or rows that are not unit, with their indices.
    """
    inputs = as_floating(inputs, "inputs")
    check_rank(inputs, 2, "inputs", "(n, d)")
    if not is_concrete(inputs):
        return
    tolerance = rounding_tolerance(inputs) if tolerance is None else tolerance
    lengths = np.linalg.norm(np.asarray(inputs, dtype=np.float64), axis=1)
    # "not <=" rather than ">", so that NaN is an offender.
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= tolerance))
    if bad.size:
        worst = bad[np.argmax(np.abs(lengths[bad] - 1))]
        msg = (
            f"inputs has {bad.size} rows that are not of unit length, at "
            f"{listing(bad)}; row {worst} has length {lengths[worst]:.6g}. Expected 1 "
            f"to within {tolerance:.1e}. Use dataset.normalise() or data.unit_rows."
        )
        raise ValueError(msg)


def separation(inputs: Any) -> Float[Array, ""]:
    r"""How far the rows stay from being equal or opposite.

    $$\delta(X) = \min_{i \ne j} \min(\lVert x_i - x_j\rVert_2,
      \lVert x_i + x_j\rVert_2)$$

    Distances come from differences of rows, not from a Gram matrix, so that a small
    $\delta$ keeps its relative accuracy, whatever the size of the rows, down to the
    smallest normal number. Works under `jax.jit` and `jax.vmap`.

    Args:
        inputs: shape (n, d), floating; the rows need not be unit.

    Returns:
        A scalar of the dtype of ``inputs``; infinity when n is 1. Cost $O(n^2 d)$
        time in blocks of rows; no (n, n) array is formed.

    Raises:
        TypeError: integer dtype.
        ValueError: wrong rank, NaN or infinity.
    """
    inputs = as_floating(inputs, "inputs")
    check_rank(inputs, 2, "inputs", "(n, d)")
    check_finite(inputs, "inputs")
    return jnp.min(_nearest(inputs))


@jax.jit
def _nearest(inputs: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Distance from each row to the nearest other row or its opposite.

    All rows are divided by one power of two; where a square underflows even then,
    each difference is divided by that of its pair.
    """
    n, d = inputs.shape
    info, block = jnp.finfo(inputs.dtype), max(1, min(n, 2**22 // (n * d)))
    largest = jnp.max(jnp.abs(inputs), axis=1, initial=0)
    own = jnp.maximum(_exponent(largest), info.minexp)
    own = jnp.where(largest > 0, own, info.minexp)
    common = jnp.max(own)
    scaled = inputs * jnp.ldexp(jnp.ones_like(largest), -common)[:, None]
    halves = inputs / 2  # their differences do not overflow

    def nearest(i):
        squared = closest_squared(scaled, scaled[i])
        return jnp.min(squared.at[i].set(jnp.inf))

    def nearest_by_pairs(i):
        exponent = jnp.maximum(own, own[i])
        scale = jnp.ldexp(jnp.ones_like(largest), -exponent)[:, None]
        zero = jnp.zeros_like(inputs[0])
        minus = closest_squared((halves - halves[i][None]) * scale, zero)
        plus = closest_squared((halves + halves[i][None]) * scale, zero)
        distances = jnp.ldexp(2 * jnp.sqrt(jnp.minimum(minus, plus)), exponent)
        return jnp.min(distances.at[i].set(jnp.inf))

    def over_rows(function):
        return jax.lax.map(function, jnp.arange(n), batch_size=block)

    squared = over_rows(nearest)
    return jax.lax.cond(
        jnp.min(squared) < d * float(info.tiny) / float(info.eps),
        lambda: over_rows(nearest_by_pairs),
        lambda: jnp.ldexp(jnp.sqrt(squared), common),
    )


def closest_squared(
    inputs: Float[Array, "n d"], row: Float[Array, " d"]
) -> Float[Array, " n"]:
    r"""$\min(\lVert x_i - x\rVert^2, \lVert x_i + x\rVert^2)$ for each row."""
    minus = jnp.sum((inputs - row[None]) ** 2, axis=1)
    plus = jnp.sum((inputs + row[None]) ** 2, axis=1)
    return jnp.minimum(minus, plus)


def check_no_parallel_rows(inputs: Any, tolerance: float | int | None = None) -> None:
    r"""Raises if two rows span the same line, where a theorem forbids it.

    Rows $i \ne j$ offend when the chord between their lines,
    $\min(\lVert u_i - u_j\rVert, \lVert u_i + u_j\rVert)$ with
    $u_i = x_i/\lVert x_i\rVert$, is at most ``tolerance``. Does nothing for traced
    values. Cost $O(n^2 d)$ time, $O(nd)$ memory.

    Args:
        inputs: shape (n, d), floating; the rows need not be unit.
        tolerance: default $8\sqrt d\,\varepsilon$: parallel up to rounding.

    Raises:
        TypeError: integer dtype.
        ValueError: wrong rank, zero rows (parallel to everything), or parallel rows,
            with the offending pairs.
    """
    inputs = as_floating(inputs, "inputs")
    if not is_concrete(inputs):
        return
    unit = unit_rows(inputs)
    tolerance = rounding_tolerance(unit) if tolerance is None else tolerance
    rows = np.flatnonzero(np.asarray(_nearest(unit)) <= tolerance)
    if not rows.size:
        return
    offenders = np.asarray(unit)[rows]
    count, pairs = 0, []
    for a in range(len(rows) - 1):
        minus = np.linalg.norm(offenders[a + 1 :] - offenders[a], axis=1)
        plus = np.linalg.norm(offenders[a + 1 :] + offenders[a], axis=1)
        # These norms may round differently from `_nearest`, hence the factor.
        close = np.flatnonzero(np.minimum(minus, plus) <= 1.01 * tolerance)
        count += close.size
        if len(pairs) < 5:
            pairs += [(int(rows[a]), int(rows[a + 1 + b])) for b in close[:5]]
    msg = (
        f"inputs has {count} pairs of parallel rows (equal or opposite directions), "
        f"the first {listing(pairs[:5])}; expected every two directions more than "
        f"{tolerance:.1e} apart. Keep one row of each pair, for example with "
        "dataset.drop_duplicates() or dataset.subset."
    )
    raise ValueError(msg)
