r"""$\|f\|_{L^\infty}$ on a box, and the full $W^{1,\infty}$ norm.

$f$ is linear on each cell, so $|f_p|$ is largest at a vertex of a cell cut by the box:
a point where s kinks and d - s sides of the box meet.
"""

import math
from collections.abc import Iterator
from itertools import combinations, product
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog

from jaxrelu._checks import check_choice, check_positive
from jaxrelu._results import RESULTS, ErrorKind, Estimate
from jaxrelu.realization._arrangement import (
    EPS,
    arrange,
    default_tolerance,
    group_rows,
    inexact_rows,
    num_cells,
    pattern_of,
)
from jaxrelu.realization._bounds import require_finite
from jaxrelu.realization._cells import box_walls, check_tolerance, enumerate_cells
from jaxrelu.realization._seminorm import seminorm
from jaxrelu.realization._units import Units, units_of


MAX_VERTICES = 1_000_000
MAX_PROGRAMS = 50_000


def num_vertices(h: int, d: int, biased: bool) -> int:
    r"""Candidates $\sum_s \binom{h}{s}\binom{d}{s} 2^{d-s}$, s < d without biases."""
    top = d if biased else d - 1
    return sum(math.comb(h, s) * math.comb(d, s) * 2 ** (d - s) for s in range(top + 1))


def evaluate(units: Units, points: np.ndarray) -> np.ndarray:
    """Outputs (p, m) at points (p, d)."""
    z = points @ units.inner.T
    if units.bias is not None:
        z += units.bias
    f = np.maximum(z, 0) @ units.outer.T
    return f if units.shift is None else f + units.shift


def _systems(
    rows: np.ndarray, dimension: int, half_width: float, biased: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of vertices (p, d) and the condition numbers (p,) of their systems."""
    normals, offsets = rows[:, :dimension], rows[:, dimension:]
    corners = list(product((-half_width, half_width), repeat=dimension))
    yield np.array(corners), np.ones(len(corners))
    top = dimension if biased else dimension - 1
    for s in range(1, min(top, rows.shape[0]) + 1):
        chosen = np.array(list(combinations(range(rows.shape[0]), s)))
        for free in combinations(range(dimension), s):
            fixed = [q for q in range(dimension) if q not in free]
            left = normals[chosen][:, :, list(free)]
            right, values, top_vectors = np.linalg.svd(left)
            good = values[:, -1] > 1e-13 * values[:, 0]
            condition = values[good, 0] / values[good, -1]
            for sides in product((-half_width, half_width), repeat=dimension - s):
                wall = normals[chosen][:, :, fixed] @ np.array(sides)
                target = -wall - (offsets[chosen][:, :, 0] if biased else 0.0)
                inner = np.einsum("pji,pj->pi", right[good], target[good])
                inner = np.einsum("pij,pi->pj", top_vectors[good], inner / values[good])
                points = np.empty((inner.shape[0], dimension))
                points[:, list(free)] = inner
                points[:, fixed] = sides
                yield points, condition


def _by_vertices(
    units: Units, half_width: float, tolerance: float | None
) -> tuple[Any, ...]:
    parallel = default_tolerance(units.dtype) if tolerance is None else tolerance
    d = units.inner.shape[1]
    rows = units.rows
    rows = rows[np.abs(units.inner).max(axis=1) > 0]
    rows = rows[group_rows(rows, parallel)[0]]
    scale = np.abs(rows[:, :d]).max(axis=1, keepdims=True, initial=0)
    rows = rows / scale if rows.shape[0] else rows.reshape(0, units.rows.shape[1])
    slope = (np.abs(units.outer) @ np.abs(units.inner)).sum(axis=1).max()
    best, most, count = 0.0, 0.0, 0
    if units.shift is not None:
        best = most = float(np.abs(evaluate(units, np.zeros((1, d)))).max())
    block = max(1, 2**24 // max(units.inner.shape[0], 1))
    for points, condition in _systems(rows, d, half_width, units.bias is not None):
        off = 16 * d * EPS * condition * half_width
        inside = np.abs(points).max(axis=1, initial=0) <= half_width + off
        points = np.clip(points[inside], -half_width, half_width)
        off = off[inside]
        count += points.shape[0]
        for start in range(0, points.shape[0], block):
            part = slice(start, start + block)
            values = np.abs(evaluate(units, points[part])).max(axis=1)
            best = max(best, float(values.max(initial=0)))
            most = max(most, float((values + slope * off[part]).max(initial=0)))
    return best, most - best, f"{count} vertices"


def _by_programs(
    units: Units, half_width: float, tolerance: float | None, max_programs: int
) -> tuple[Any, ...]:
    """Two linear programs per cell and output."""
    d, m = units.inner.shape[1], units.outer.shape[0]
    walls = None if units.bias is None else box_walls(d, half_width)
    arrangement = arrange(units, tolerance, walls)
    count = 2 * m * num_cells(arrangement.num_planes, max(arrangement.rank, 1))
    if count > max_programs:
        msg = (
            f"the sup norm would take up to {count:,} linear programs; expected at "
            f"most {max_programs:,}. Raise max_programs, or without biases use "
            "|f| <= d B |f|_{W^{1,inf}} with seminorm."
        )
        raise ValueError(msg)
    found = enumerate_cells(arrangement)
    normals = arrangement.normals @ arrangement.basis
    best, gap, solved = 0.0, 0.0, 0
    shift = np.zeros(m) if units.shift is None else units.shift
    for signs in found.signs:
        pattern = pattern_of(arrangement, signs)
        slope = units.outer[:, pattern] @ units.inner[pattern]
        level = shift.copy()
        facets = -normals * signs[:, None]
        offset = np.zeros(len(facets))
        if units.bias is not None:
            level += units.outer[:, pattern] @ units.bias[pattern]
            facets, offset = facets[:, :-1], -facets[:, -1]
        for p, direction in product(range(m), (1.0, -1.0)):
            done = linprog(
                -direction * slope[p],
                A_ub=facets if facets.shape[0] else None,
                b_ub=offset if facets.shape[0] else None,
                bounds=[(-half_width, half_width)] * d,
                method="highs",
            )
            solved += 1
            if done.status != 0:
                msg = f"linear program: {done.message}"
                raise RuntimeError(msg)
            value = float(direction * (slope[p] @ done.x + level[p]))
            at = float(np.abs(evaluate(units, done.x[None])).max())
            best, gap = max(best, at), max(gap, value - max(best, at))
    scale = half_width * (np.abs(units.outer) @ np.abs(units.inner)).sum(axis=1).max()
    # HiGHS, and a kink that stands for a side of the box
    slack = (1e-7 + arrangement.parallel) * float(scale)
    return best, gap + slack, f"{solved} linear programs"


def _merging(units: Units, half_width: float, tolerance: float | None) -> float:
    r"""Twice what turning merged rows until they are parallel changes f by.

    The turned function is largest where f was evaluated: both maxima and both values
    there are that close. A row moves by at most tolerance times its size per link of
    the chain of rows that joins it to the first of its group.
    """
    parallel = default_tolerance(units.dtype) if tolerance is None else tolerance
    rows = units.rows[np.abs(units.inner).max(axis=1) > 0]
    columns = units.outer[:, np.abs(units.inner).max(axis=1) > 0]
    if not rows.shape[0]:
        return 0.0
    off, group = inexact_rows(rows, parallel)
    if not off.any():
        return 0.0
    links = np.bincount(group[group >= 0])[group[off]] - 1
    turn = parallel * links * np.abs(rows[off]).max(axis=1)
    reach = half_width * units.inner.shape[1] + (units.bias is not None)
    return float(2 * reach * (np.abs(columns[:, off]) @ turn).max())


def supnorm(
    network: Any,
    half_width: float,
    *,
    method: Literal["auto", "vertices", "lp"] = "auto",
    tolerance: float | None = None,
    max_vertices: int = MAX_VERTICES,
    max_programs: int = MAX_PROGRAMS,
) -> Estimate:
    r"""$\|f\|_{L^\infty} = \max_{p, |x_q| \le B} |f_p(x)|$, on the host in float64.

    Without biases $\|f\|_{L^\infty} \le dB\,|f|_{W^{1,\infty}}$ in the norm `"max"`,
    attained by $\rho(x_1 + \dots + x_d)$: for $B \le 1/d$ the full norm is the
    semi-norm.

    Args:
        network: one hidden ReLU layer, or a pair `(a, b)` for $R(a) - R(b)$.
        half_width: B.
        method: `"vertices"` evaluates f wherever s kinks meet d - s sides of the box,
            $\sum_s \binom{h}{s}\binom{d}{s}2^{d-s}$ points; `"lp"` solves two linear
            programs per cell and output (HiGHS, tolerance 1e-7); `"auto"` takes the
            vertices if there are at most `max_vertices`.
        tolerance: rows closer than this are one kink; as in `seminorm`.
        max_vertices: most points to evaluate.
        max_programs: most programs to solve.

    Returns:
        An `Estimate` with a rounding bound: for the vertices by the condition numbers
        of their systems, for `"lp"` by the tolerance of HiGHS; and what merging nearly
        parallel rows may change.

    Raises:
        ValueError: too many vertices or programs, products of weights that overflow.
    """
    check_positive(half_width, "half_width")
    check_choice(method, ("auto", "vertices", "lp"), "method")
    units = units_of(network)
    check_tolerance(tolerance)
    k, d = units.inner.shape
    require_finite(units, "opinf")
    count = num_vertices(k, d, units.bias is not None)
    if method == "vertices" and count > max_vertices:
        msg = (
            f"the sup norm has {count:,} candidate vertices; expected at most "
            f"max_vertices = {max_vertices:,}. Raise it, or take method='lp'."
        )
        raise ValueError(msg)
    if method == "vertices" or (method == "auto" and count <= max_vertices):
        best, error, text = _by_vertices(units, half_width, tolerance)
    else:
        best, error, text = _by_programs(units, half_width, tolerance, max_programs)
    reach = half_width * np.abs(units.inner).sum(axis=1)
    if units.bias is not None:
        reach = reach + np.abs(units.bias)
    size = float((np.abs(units.outer) @ reach).max())
    if units.shift is not None:
        size += float(np.abs(units.shift).max())
    value = np.asarray(best).astype(units.dtype)
    error += 4 * np.sqrt(k + d) * EPS * size + abs(float(value) - best)
    error += _merging(units, half_width, tolerance)
    return Estimate(
        jnp.asarray(value),
        jnp.asarray(np.asarray(error * (1 + 1e-6)).astype(units.dtype)),
        RESULTS.successful,  # pyright: ignore[reportArgumentType]
        "rounding bound",
        text,
    )


def sobolev_norm(
    network: Any, half_width: float, norm: str = "max", **kwargs: Any
) -> Estimate:
    r"""$\|f\|_{W^{1,\infty}} = \max\{\|f\|_{L^\infty}, |f|_{W^{1,\infty}}\}$ on a box.

    Args:
        network: one hidden ReLU layer, or a pair `(a, b)`.
        half_width: B of the box $(-B, B)^d$.
        norm: of the Jacobian, as in `seminorm`.
        **kwargs: further arguments of `seminorm`.
    """
    semi = seminorm(network, norm, domain=half_width, **kwargs)
    sup = supnorm(network, half_width, tolerance=kwargs.get("tolerance"))
    above = bool(semi.value >= sup.value)
    kinds = {semi.error_kind, sup.error_kind}
    kind: ErrorKind = semi.error_kind if len(kinds) == 1 else "rounding bound"
    which = "semi-norm" if above else "sup norm"
    return Estimate(
        jnp.maximum(semi.value, sup.value),
        jnp.maximum(semi.error, sup.error),
        RESULTS.successful,  # pyright: ignore[reportArgumentType]
        kind,
        f"the {which} is larger; semi-norm: {semi.method}; sup norm: {sup.method}",
    )
