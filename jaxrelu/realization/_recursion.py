r"""All cells of a central arrangement by deletion and restriction, in any dimension.

Planes are inserted one by one. A new plane $H$ splits exactly the cells that it meets,
and those are the cells of the arrangement restricted to $H$, one dimension lower:

$$\mathrm{cells}(A \cup H) = \mathrm{cells}(A) \,\dot\cup\, \mathrm{cells}(A|_H).$$

Each cell is therefore found once. Normals whose restrictions to $H$ become parallel are
regrouped, so degenerate arrangements need no special case. Only cells on the positive
side of the first plane are listed; the others are their opposites.
"""

import numpy as np

from jaxrelu.realization._arrangement import EPS, group_rows
from jaxrelu.realization._sweep import half_turn


class InconsistentError(RuntimeError):
    """Rounding decided whether a plane meets a cell."""


INCONSISTENT = (
    "two computations of which cells a plane meets disagree: normals are degenerate to "
    "within rounding but not to within the tolerance. Pass tolerance=1e-9, or "
    "method='rational', which decides every sign in exact arithmetic."
)


def half_cells(
    normals: np.ndarray, errors: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Interior points (p, r) and signs (p, h) of the cells with first sign +.

    Args:
        normals: (h, r), Euclidean length 1, no two parallel.
        errors: (h,), how far each may be off.
        tolerance: normals closer than this in a restriction are one.

    Cost: about h r operations per cell and insertion, $O(h^d)$ in all.
    """
    h, rank = normals.shape
    if h == 1:
        return normals.copy(), np.ones((1, 1), np.int8)
    if rank == 2:
        return _half_cells_of_lines(normals, errors)
    # random linear hashes of the sign vectors, kept up to date as columns are added
    codes = np.random.default_rng(0).integers(1, 2**63, size=h, dtype=np.uint64)
    points, signs = normals[:1].copy(), np.ones((1, 1), np.int8)
    hashes = codes[:1].copy()
    for j in range(1, h):
        met, met_signs = _cells_on_plane(normals, errors, tolerance, j)
        met_hashes = ((met_signs > 0) * codes[:j]).sum(axis=1, dtype=np.uint64)
        split = np.isin(hashes, met_hashes, assume_unique=True)
        whole = points[~split] @ normals[j]
        if split.sum() != met.shape[0] or (np.abs(whole) <= 8 * EPS).any():
            raise InconsistentError(INCONSISTENT)
        sides = np.where(whole > 0, 1, -1).astype(np.int8)
        above, below = _beside(normals[:j], normals[j], met)
        points = np.concatenate([points[~split], above, below])
        column = np.repeat(np.array([1, -1], np.int8), met.shape[0])
        signs = np.concatenate(
            [
                np.column_stack([signs[~split], sides]),
                np.column_stack([np.concatenate([met_signs, met_signs]), column]),
            ]
        )
        grown = hashes[~split] + np.where(sides > 0, codes[j], np.uint64(0))
        hashes = np.concatenate([grown, met_hashes + codes[j], met_hashes])
    return points, signs


def _half_cells_of_lines(
    normals: np.ndarray, errors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    turn = half_turn(normals, 2 * errors + 4 * EPS)
    angles = turn.middle[turn.valid]
    points = np.column_stack([np.cos(angles), np.sin(angles)])
    signs = np.where(normals @ points.T > 0, 1, -1).T.astype(np.int8)
    return points * signs[:, :1], signs * signs[:, :1]


def _cells_on_plane(
    normals: np.ndarray, errors: np.ndarray, tolerance: float, j: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points on plane j, one in each cell that it meets, and the signs before j."""
    frame = np.linalg.svd(normals[j : j + 1])[2][1:]
    flat = normals[:j] @ frame.T
    flat_errors = errors[:j] + errors[j] + 8 * EPS
    first, group, orientation = group_rows(flat, tolerance, flat_errors)
    if (group < 0).any():
        raise InconsistentError(INCONSISTENT)
    length = np.linalg.norm(flat[first], axis=1)
    inner, signs = half_cells(
        flat[first] / length[:, None], flat_errors[first] / length, tolerance
    )
    return inner @ frame, signs[:, group] * orientation.astype(np.int8)


def _beside(
    earlier: np.ndarray, normal: np.ndarray, met: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points on both sides of a plane, half-way to the nearest earlier plane."""
    across = np.abs(earlier @ normal)
    with np.errstate(divide="ignore"):
        room = np.abs(met @ earlier.T) / across
    step = np.minimum(room.min(axis=1) / 2, 1.0)[:, None] * normal
    above, below = met + step, met - step
    return (
        above / np.linalg.norm(above, axis=1, keepdims=True),
        below / np.linalg.norm(below, axis=1, keepdims=True),
    )
