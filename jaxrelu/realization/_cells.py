"""Enumeration of cells: which neurons are active together, and where."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float

from jaxrelu._checks import check_choice, check_positive
from jaxrelu._memory import require_bytes
from jaxrelu.realization._arrangement import (
    Arrangement,
    arrange,
    num_cells,
    pattern_of,
)
from jaxrelu.realization._lp import interior_point, lp_half_cells
from jaxrelu.realization._norms import host_norm
from jaxrelu.realization._rational import (
    group_integer_rows,
    integer_half_cells,
    integer_row,
)
from jaxrelu.realization._recursion import half_cells
from jaxrelu.realization._sweep import Best
from jaxrelu.realization._units import Units, units_of


MAX_CELLS = 4_000_000


class Cells(eqx.Module):
    """Cells of the arrangement of a network's kinks.

    Attributes:
        patterns: which neurons are active on each cell, (p, k); zero rows never are.
        points: a point inside each cell, (p, d).
        method: how they were found.
    """

    patterns: Bool[np.ndarray, "p k"]
    points: Float[np.ndarray, "p d"]
    method: str = eqx.field(static=True)

    def __len__(self) -> int:
        return self.patterns.shape[0]


class Enumeration(NamedTuple):
    """Signs (p, h) of all cells with the required signs, and points (p, D)."""

    signs: np.ndarray
    points: np.ndarray


def require_cells(arrangement: Arrangement, max_cells: int, what: str) -> None:
    """Refuses an enumeration that would be too large, before it starts.

    Raises:
        ValueError: more than `max_cells` cells in general position.
        MemoryRefusedError: points and signs that would not fit.
    """
    h, rank = arrangement.num_planes, max(arrangement.rank, 1)
    count = num_cells(h, rank)
    if count > max_cells:
        msg = (
            f"{what} would visit up to {count:,} cells ({h} distinct planes in rank "
            f"{rank}); expected at most max_cells = {max_cells:,}. Raise max_cells, or "
            "take method='bounds' (certified lower and upper bounds), or method='milp' "
            "for norm='max'."
        )
        raise ValueError(msg)
    require_bytes(
        4 * count * (8 * rank + h + 8),
        f"{what} of {count:,} cells of {h} planes in rank {rank}",
        "Take method='bounds'.",
    )


def _both_halves(
    arrangement: Arrangement, signs: np.ndarray, points: np.ndarray
) -> Enumeration:
    if not arrangement.num_planes:
        return Enumeration(signs, points)
    halves = []
    for side in (1, -1):
        keep = np.ones(signs.shape[0], bool)
        for plane, sign in arrangement.required:
            keep &= signs[:, plane] * side == sign
        halves.append((signs[keep] * np.int8(side), points[keep] * side))
    return Enumeration(
        np.concatenate([half[0] for half in halves]),
        np.concatenate([half[1] for half in halves]),
    )


def enumerate_cells(arrangement: Arrangement) -> Enumeration:
    """All cells of the arrangement, by deletion and restriction in float64."""
    dimension = arrangement.basis.shape[1]
    if not arrangement.num_planes:
        return Enumeration(np.zeros((1, 0), np.int8), np.zeros((1, dimension)))
    errors = np.full(arrangement.num_planes, arrangement.error)
    points, signs = half_cells(arrangement.normals, errors, arrangement.coincidence)
    return _both_halves(arrangement, signs, points @ arrangement.basis)


def exact_arrangement(
    units: Units, arrangement: Arrangement, walls: np.ndarray | None = None
) -> tuple[Arrangement, Enumeration]:
    """The arrangement regrouped, and its cells, in integer arithmetic.

    The float fields that depend on the grouping are rebuilt; `jumps` stay float64.
    """
    rows = units.rows
    k, dimension = rows.shape
    if units.bias is not None:
        rows = np.concatenate([rows, np.eye(dimension)[-1:]])
    if walls is not None:
        rows = np.concatenate([rows, walls])
    planes, group, orientation = group_integer_rows([integer_row(r) for r in rows])
    signs_of = np.array(orientation)
    jumps = np.zeros((len(planes), *arrangement.total.shape))
    for i in range(k):
        if group[i] >= 0:
            change = np.outer(units.outer[:, i], units.inner[i])
            jumps[group[i]] += signs_of[i] * change
    required = tuple((group[i], orientation[i]) for i in range(k, len(group)))
    arrangement = arrangement._replace(
        group=np.array(group[:k], int),
        orientation=signs_of[:k],
        jumps=jumps,
        required=required,
        merged=0,
        doubtful=np.zeros(k, bool),
        normals=np.zeros((len(planes), dimension)),
        basis=np.eye(dimension),
    )
    if not planes:
        signs, points = np.zeros((1, 0), np.int8), np.zeros((1, dimension))
        return arrangement, Enumeration(signs, points)
    found = integer_half_cells(planes)
    signs = np.array(list(found), np.int8).reshape(-1, len(planes))
    # integers of any length to doubles: direction only
    points = np.array(
        [[float(x / max(map(abs, p))) for x in p] for p in _fractions(found.values())]
    )
    return arrangement, _both_halves(arrangement, signs, points)


def _fractions(points: Any) -> Any:
    from fractions import Fraction

    return [[Fraction(x) for x in point] for point in points]


def largest(arrangement: Arrangement, signs: np.ndarray, norm: str) -> Best:
    """The largest Jacobian among cells given by their signs, in blocks."""
    shape = arrangement.total.shape
    flat = arrangement.jumps.reshape(arrangement.num_planes, shape[0] * shape[1])
    block = max(1, 2**22 // max(flat.shape[1], 1))
    best = Best(-np.inf, np.zeros(0, int), 0)
    for start in range(0, signs.shape[0], block):
        part = signs[start : start + block]
        sums = (part.astype(np.float64) @ flat).reshape(-1, *shape)
        values = host_norm(arrangement.total + sums, norm) / 2
        top = int(values.argmax())
        if values[top] > best.value:
            best = Best(float(values[top]), part[top].astype(int), 0)
    return best._replace(visited=signs.shape[0])


def box_walls(dimension: int, half_width: float) -> np.ndarray:
    """Rows that are positive at (x, 1) exactly for x in (-B, B)^d."""
    identity = np.eye(dimension)
    column = np.full((dimension, 1), half_width)
    return np.block([[identity, column], [-identity, column]])


def cells(
    network: Any,
    *,
    method: Literal["recursion", "rational", "lp"] = "recursion",
    tolerance: float | None = None,
    max_cells: int = MAX_CELLS,
) -> Cells:
    r"""All activation patterns that occur on an open set, each with a point.

    Host code. For a network without biases these are the cones cut out by the planes
    $\langle a_i, x\rangle = 0$; $2\sum_{j<d}\binom{h-1}{j}$ of them for h planes in
    general position (`num_cells`), fewer for degenerate ones. For a network with
    biases the cells of $\{(x, 1)\}$ in the arrangement of the rows $(a_i, b_i)$ and
    $(0, \dots, 0, 1)$ in $R^{d+1}$.

    Args:
        network: one hidden ReLU layer, or a pair `(a, b)` of such networks.
        method: `"recursion"`, deletion and restriction in float64; `"rational"`, the
            same in integers, exact for the weights as stored; `"lp"`, a tree of linear
            programs, which sees no cell of inradius below 1e-6.
        tolerance: rows whose directions differ by less, after sup-norm scaling, are one
            plane; 1e-13 for float64, 5e-7 for float32. Not used by `"rational"`.
        max_cells: refuse to enumerate more.

    Raises:
        ValueError: too many cells.
        MemoryRefusedError: cells that would not fit in memory.
        RuntimeError: an arrangement degenerate to within rounding only.

    Cost: $O(h^d)$ operations for the recursion; h programs per cell for `"lp"`.
    """
    check_choice(method, ("recursion", "rational", "lp"), "method")
    units = units_of(network)
    check_tolerance(tolerance)
    arrangement = arrange(units, tolerance)
    require_cells(arrangement, max_cells, "cells")
    if method == "rational":
        arrangement, found = exact_arrangement(units, arrangement)
    elif method == "lp" and arrangement.num_planes:
        signs = lp_half_cells(arrangement)
        points = [interior_point(arrangement.normals * s[:, None])[0] for s in signs]
        points = np.array(points) @ arrangement.basis
        found = _both_halves(arrangement, signs, points)
    else:
        found = enumerate_cells(arrangement)
    points = found.points
    if units.bias is not None:
        points = points[:, :-1] / points[:, -1:]
    patterns = np.zeros((len(found.signs), arrangement.group.size), bool)
    for row, signs in zip(patterns, found.signs, strict=True):
        row[:] = pattern_of(arrangement, signs)
    return Cells(patterns, points, method)


def check_tolerance(tolerance: float | None) -> None:
    """Raises `ValueError` unless the tolerance is None or positive."""
    if tolerance is not None:
        check_positive(tolerance, "tolerance")
