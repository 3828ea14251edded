r"""The central arrangement $\{a_i^\perp\}$: distinct planes, and how many cells.

Rows whose directions agree are one plane. Everything here runs on the host in float64.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from jaxrelu.realization._units import Units


EPS = float(np.finfo(np.float64).eps)
TOLERANCE = {"float64": 1e-13, "float32": 5e-7}
COINCIDENCE = 1e-13


class Arrangement(NamedTuple):
    r"""Distinct planes $H$ with unit normals and what the Jacobian does across them.

    On the cell with signs $s$: $G(s) = \tfrac12 (T + \sum_H s_H J_H)$.

    Attributes:
        normals: (h, r), rows of Euclidean length 1, in coordinates of the row space.
        basis: (r, D), orthonormal rows: `normals @ basis` are the normals in R^D.
        error: how far a normal may be off, from the reduction to the row space.
        group: (k,), the plane of each row, -1 for rows that are zero.
        orientation: (k,), ±1, on which side of the plane the row is positive.
        jumps: (h, m, d), $J_H$.
        total: (m, d), $T$: the sum of the Jacobians on opposite cells.
        required: pairs (plane, sign): only these cells count (affine networks).
        merged: rows that agree with the first of their group only up to rounding.
        doubtful: (k,), the neurons that may differ from the plane of their group
            between such rows.
        coincidence: arcs and restricted normals this close together are one.
        parallel: the tolerance that rows were grouped with.
    """

    normals: np.ndarray
    basis: np.ndarray
    error: float
    group: np.ndarray
    orientation: np.ndarray
    jumps: np.ndarray
    total: np.ndarray
    required: tuple[tuple[int, int], ...]
    merged: int
    doubtful: np.ndarray
    coincidence: float
    parallel: float

    @property
    def num_planes(self) -> int:
        """Distinct planes h."""
        return self.normals.shape[0]

    @property
    def rank(self) -> int:
        """Dimension r of the span of the normals."""
        return self.normals.shape[1]


def num_cells(h: int, d: int) -> int:
    r"""Cells of h distinct hyperplanes through 0 in general position in $R^d$.

    $2 \sum_{j=0}^{d-1} \binom{h-1}{j}$, and 1 without a hyperplane: Schläfli's count,
    $O(h^{d-1})$. Any other h distinct hyperplanes through 0 have at most as many;
    `cells` counts those exactly.

    Args:
        h: hyperplanes, no two equal.
        d: dimension.

    Raises:
        ValueError: h negative or d not positive.
    """
    if h < 0 or d < 1:
        msg = f"h is {h} and d is {d}; expected h >= 0 and d >= 1."
        raise ValueError(msg)
    return 1 if h == 0 else 2 * sum(math.comb(h - 1, j) for j in range(min(h, d)))


def default_tolerance(dtype: np.dtype | str) -> float:
    """1e-13 for float64, 5e-7 for float32: a few times what rescaling a row rounds."""
    return TOLERANCE.get(np.dtype(dtype).name, 1e-2)


def group_rows(
    rows: np.ndarray, tolerance: float, errors: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Rows with the same direction up to sign, compared after sup-norm scaling.

    Returns the first row of each group, the group of each row (-1 for zero rows) and
    its sign relative to that first row. Rows belong together when the distance is at
    most the tolerance plus both rows' own errors. Cost: $O(k \log k + kd)$, plus the
    close pairs.
    """
    k = rows.shape[0]
    scale = np.abs(rows).max(axis=1, initial=0.0)
    errors = np.broadcast_to(np.asarray(errors, float), (k,))
    alive = np.flatnonzero(scale > 2 * errors)
    unit = np.zeros_like(rows)
    unit[alive] = rows[alive] / scale[alive, None]
    radius = np.zeros(k)
    radius[alive] = tolerance / 2 + 2 * errors[alive] / scale[alive]
    # a projection of u and -u has one modulus: groups are neighbours in its order
    probe = np.cos(1.0 + 2.0 * np.arange(rows.shape[1]) ** 1.5)
    key = np.abs(unit @ probe)
    order = alive[np.argsort(key[alive], kind="stable")]
    group = np.full(k, -1)
    orientation = np.ones(k, int)
    parent = list(range(k))
    reach = np.abs(probe).sum() * 2 * radius.max(initial=0.0) + 1e-14

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    offset = 1
    while offset < order.size:
        left, right = order[:-offset], order[offset:]
        near = key[right] - key[left] <= reach
        if not near.any():
            break
        left, right = left[near], right[near]
        distance = np.minimum(
            np.abs(unit[left] - unit[right]).max(axis=1),
            np.abs(unit[left] + unit[right]).max(axis=1),
        )
        same = distance <= radius[left] + radius[right]
        for i, j in zip(left[same], right[same], strict=True):
            low, high = sorted((root(int(i)), root(int(j))))
            parent[high] = low
        offset += 1
    roots = np.array([root(int(i)) for i in alive], int)
    first, inverse = np.unique(roots, return_inverse=True)
    group[alive] = inverse
    dots = np.einsum("ij,ij->i", unit[alive], unit[roots])
    orientation[alive] = np.where(dots < 0, -1, 1)
    return first, group, orientation


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Nonzero rows at Euclidean length 1; entries near both ends of the range too."""
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _row_space(unit: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """Orthonormal rows spanning the unit rows, and what the others lie off it."""
    values, right = np.linalg.svd(unit, full_matrices=False)[1:]
    rank = int((values > tolerance).sum())
    off = float(values[rank]) if rank < values.size else 0.0
    dimension = unit.shape[1]
    if rank == dimension:  # nothing to gain: keep the coordinates as they are
        return np.eye(dimension), 2 * EPS
    return right[:rank], off + 8 * EPS * dimension


def arrange(
    units: Units,
    tolerance: float | None,
    walls: np.ndarray | None = None,
) -> Arrangement:
    """The arrangement of a network's rows.

    For a network with biases the rows are (A | b), the plane at infinity (0, …, 0, 1)
    is added, and only cells on its positive side count.

    Args:
        units: the network.
        tolerance: rows closer than this after sup-norm scaling are one plane; None is
            the dtype's. All else is compared in float64, to within rounding.
        walls: further rows that must be positive, without weights.
    """
    parallel = default_tolerance(units.dtype) if tolerance is None else tolerance
    coincidence = COINCIDENCE if tolerance is None else tolerance
    rows = units.rows
    k, dimension = rows.shape
    extra = [] if walls is None else [walls]
    if units.bias is not None:
        infinity = np.zeros((1, dimension))
        infinity[0, -1] = 1.0
        extra.insert(0, infinity)
    everything = np.concatenate([rows, *extra]) if extra else rows
    first, group, orientation = group_rows(everything, parallel)
    m, d = units.outer.shape[0], units.inner.shape[1]
    jumps = np.zeros((first.size, m, d))
    alive = group[:k] >= 0
    signed = units.outer.T * orientation[:k, None]
    np.add.at(
        jumps,
        group[:k][alive],
        signed[alive, :, None] * units.inner[alive, None, :],
    )
    if first.size:
        unit = unit_rows(everything[first])
        basis, error = _row_space(unit, coincidence)
        normals = unit @ basis.T
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    else:
        basis, error, normals = np.zeros((0, dimension)), 0.0, np.zeros((0, 0))
    required = tuple((int(group[i]), int(orientation[i])) for i in range(k, len(group)))
    off = _inexact(everything, first, group)
    # a wall that a kink stands for: all neurons of that kink may be on either side
    walled = np.isin(group[:k], group[k:][off[k:]])
    return Arrangement(
        normals,
        basis,
        error,
        group[:k],
        orientation[:k],
        jumps,
        units.outer @ units.inner,
        required,
        int(off.sum()),
        off[:k] | walled,
        coincidence,
        parallel,
    )


def inexact_rows(rows: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """(k,): whether merged with a row not exactly parallel; and the groups."""
    first, group, _ = group_rows(rows, tolerance)
    return _inexact(rows, first, group), group


def exactly_parallel(first: Any, second: Any) -> bool:
    """Whether two rows are parallel as rational numbers."""
    from fractions import Fraction

    a = [Fraction(float(x)) for x in first]
    b = [Fraction(float(x)) for x in second]
    pivot = max(range(len(a)), key=lambda i: abs(a[i]))
    return all(a[pivot] * y == b[pivot] * x for x, y in zip(a, b, strict=True))


def _inexact(rows: np.ndarray, first: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(k,): rows that are parallel to the first of their group only up to rounding."""
    off = np.zeros(group.size, bool)
    leaders = set(first.tolist())
    for i in np.flatnonzero(group >= 0):
        if int(i) not in leaders:
            off[i] = not exactly_parallel(rows[first[group[i]]], rows[i])
    return off


def pattern_of(arrangement: Arrangement, signs: np.ndarray) -> np.ndarray:
    """Which neurons are active, (k,), on the cell with signs (h,) of the planes."""
    alive = arrangement.group >= 0
    pattern = np.zeros(arrangement.group.size, bool)
    active = signs[arrangement.group[alive]] * arrangement.orientation[alive] > 0
    pattern[alive] = active
    return pattern
