r"""Deletion and restriction in integer arithmetic: every sign is decided exactly.

A stored floating number is a rational with a power of two below, so rows become
integer vectors, and interior points of cones may be scaled to integer vectors too.
"""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np


Row = tuple[int, ...]
Signs = tuple[int, ...]


def _primitive(row: Iterable[int]) -> Row:
    row = tuple(row)
    divisor = math.gcd(*row)
    return row if divisor in (0, 1) else tuple(x // divisor for x in row)


def integer_row(row: Iterable[Any]) -> Row:
    """The primitive integer vector on the ray of a row of floats or Fractions."""
    fractions = [x if isinstance(x, Fraction) else Fraction(float(x)) for x in row]
    common = math.lcm(*(x.denominator for x in fractions))
    return _primitive(int(x * common) for x in fractions)


def _dot(a: Row, b: Row) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _oriented(row: Row) -> tuple[Row, int]:
    """The row or its negative, first nonzero entry positive, and the sign taken."""
    lead = next((x for x in row if x), 0)
    return (row, 1) if lead >= 0 else (tuple(-x for x in row), -1)


def group_integer_rows(rows: list[Row]) -> tuple[list[Row], list[int], list[int]]:
    """Distinct planes, oriented as their first row; group (-1: zero) and sign of each.

    As `group_rows`, exactly.
    """
    index: dict[Row, int] = {}
    planes: list[Row] = []
    lead_signs: list[int] = []
    group, orientation = [], []
    for row in rows:
        key, sign = _oriented(_primitive(row))
        if not any(key):
            group.append(-1)
            orientation.append(1)
            continue
        if key not in index:
            index[key] = len(planes)
            planes.append(_primitive(row))
            lead_signs.append(sign)
        group.append(index[key])
        orientation.append(sign * lead_signs[index[key]])
    return planes, group, orientation


def _restrict(plane: Row, rows: list[Row]) -> tuple[list[Row], int]:
    """Rows on the plane, in the coordinates that are left without the pivot."""
    pivot = max(range(len(plane)), key=lambda q: abs(plane[q]))
    side = 1 if plane[pivot] > 0 else -1
    restricted = [
        _primitive(
            side * (row[q] * plane[pivot] - row[pivot] * plane[q])
            for q in range(len(plane))
            if q != pivot
        )
        for row in rows
    ]
    return restricted, pivot


def _lift(plane: Row, pivot: int, point: Row) -> Row:
    """The point of the plane with the given other coordinates, scaled up."""
    side = 1 if plane[pivot] > 0 else -1
    rest = plane[:pivot] + plane[pivot + 1 :]
    lifted = [abs(plane[pivot]) * x for x in point]
    lifted.insert(pivot, -side * _dot(rest, point))
    return _primitive(lifted)


def _beside(earlier: list[Row], plane: Row, point: Row, side: int) -> Row:
    """A point next to a point of the plane, about half-way to the nearest plane."""
    nearest = max(Fraction(abs(_dot(r, plane)), abs(_dot(r, point))) for r in earlier)
    size = nearest.numerator.bit_length() - nearest.denominator.bit_length() + 2
    stay, step = (1 << size, 1) if size >= 0 else (1, 1 << -size)
    return _primitive(
        stay * x + side * step * y for x, y in zip(point, plane, strict=True)
    )


def integer_half_cells(planes: list[Row]) -> dict[Signs, Row]:
    """Signs and an interior point of every cell on the positive side of the first.

    Args:
        planes: integer normals, no two parallel, none zero.
    """
    found: dict[Signs, Row] = {(1,): planes[0]}
    for j in range(1, len(planes)):
        plane, earlier = planes[j], planes[:j]
        restricted, pivot = _restrict(plane, earlier)
        lower, group, orientation = group_integer_rows(restricted)
        grown: dict[Signs, Row] = {}
        for inner_signs, inner in integer_half_cells(lower).items():
            signs = tuple(
                inner_signs[g] * o for g, o in zip(group, orientation, strict=True)
            )
            point = _lift(plane, pivot, inner)
            del found[signs]  # a plane meets only cells that are there
            for side in (1, -1):
                grown[(*signs, side)] = _beside(earlier, plane, point, side)
        for signs, point in found.items():
            grown[(*signs, 1 if _dot(plane, point) > 0 else -1)] = point
        found = grown
    return found


def exact_jacobian(
    inner: np.ndarray, outer: np.ndarray, pattern: np.ndarray
) -> list[list[Fraction]]:
    r"""$\sum_{i \in \text{pattern}} c_i a_i^\top$ in rational arithmetic."""
    m, d = outer.shape[0], inner.shape[1]
    total = [[Fraction(0)] * d for _ in range(m)]
    for i in np.flatnonzero(pattern):
        row = [Fraction(float(x)) for x in inner[i]]
        for p in range(m):
            weight = Fraction(float(outer[p, i]))
            total[p] = [x + weight * y for x, y in zip(total[p], row, strict=True)]
    return total


def exact_norm(matrix: list[list[Fraction]], norm: str) -> Fraction | None:
    """The norm if it is rational for every rational matrix, else None."""
    size = [[abs(x) for x in row] for row in matrix]
    if norm == "max":
        return max(max(row) for row in size)
    if norm == "opinf":
        return max(sum(row, Fraction(0)) for row in size)
    if norm == "op1":
        return max(sum(col, Fraction(0)) for col in zip(*size, strict=True))
    return None
