r"""Largest Jacobian over all cells by sweeping: angular (rank 2), great circles (3).

The boundaries of a half-turn are crossed in order of angle; crossing $H$ changes
$S = \sum_H s_H J_H$ by $-2 s_H J_H$, so all cells cost one sort and one running sum.
The other half-turn is $-S$, because $G(s) + G(-s) = T$.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxrelu.realization._arrangement import EPS, Arrangement
from jaxrelu.realization._norms import host_norm


class Best(NamedTuple):
    """The largest norm found, the signs (h,) of its cell, and the cells looked at.

    No cell that was looked at has a norm above `value + gap`.
    """

    value: float
    signs: np.ndarray
    visited: int
    gap: float = 0.0


class HalfTurn(NamedTuple):
    """Lines through 0 in the plane, in the order a half-turn crosses them.

    After crossing `order[: j + 1]` the signs are `-sides` there and `sides` elsewhere;
    `valid[j]` says whether that arc is wide enough to be a cell, `middle[j]` is the
    angle of its middle.
    """

    order: np.ndarray
    sides: np.ndarray
    valid: np.ndarray
    middle: np.ndarray

    def signs(self, arc: int) -> np.ndarray:
        """Signs of all lines on one arc."""
        signs = self.sides.copy()
        signs[self.order[: arc + 1]] *= -1
        return signs

    def track(self, line: int) -> np.ndarray:
        """Sign of one line on every arc."""
        rank = int(np.flatnonzero(self.order == line)[0])
        crossed = np.arange(self.order.size) >= rank
        return np.where(crossed, -self.sides[line], self.sides[line])


def half_turn(normals: np.ndarray, tolerance: np.ndarray | float) -> HalfTurn:
    """Sorts the lines with the given normals (h, 2); arcs within tolerance are none."""
    angle = np.arctan2(normals[:, 1], normals[:, 0])
    side = np.where((angle >= -np.pi / 2) & (angle < np.pi / 2), 1, -1)
    # no mod: at the seam it could round the angle to one end and the side to the other
    turned = np.where(angle < 0, angle + 3 * np.pi / 2, angle - np.pi / 2)
    boundary = np.where(side == 1, angle + np.pi / 2, turned)
    order = np.argsort(boundary, kind="stable")
    sorted_boundary = boundary[order]
    ends = np.append(sorted_boundary[1:], sorted_boundary[0] + np.pi)
    slack = np.broadcast_to(np.asarray(tolerance, float), boundary.shape)[order]
    valid = ends - sorted_boundary > slack + np.append(slack[1:], slack[0])
    return HalfTurn(order, side, valid, (sorted_boundary + ends) / 2)


def _running(turn: HalfTurn, jumps: np.ndarray) -> np.ndarray:
    """S on every arc: (h, m, d)."""
    signed = turn.sides[:, None, None] * jumps
    return signed.sum(axis=0) - 2 * np.cumsum(signed[turn.order], axis=0)


def _evaluate(total: np.ndarray, sums: np.ndarray, norm: str) -> np.ndarray:
    """Norms of G and of G on the opposite cells: (2, arcs)."""
    both = np.stack([total + sums, total - sums])
    return host_norm(both, norm) / 2


def _allowed(
    arrangement: Arrangement, tracks: dict[int, np.ndarray], arcs: int
) -> np.ndarray:
    """(2, arcs): whether the arc, and its opposite, has the required signs."""
    allowed = np.ones((2, arcs), bool)
    for plane, sign in arrangement.required:
        allowed[0] &= tracks[plane] == sign
        allowed[1] &= tracks[plane] == -sign
    return allowed


def angular_sweep(arrangement: Arrangement, norm: str) -> Best:
    r"""Rank 2: $O(h \log h)$ and one norm per cell."""
    # rows were grouped already: every other arc that rounding can tell is a cell
    slack = 4 * EPS + 4 * arrangement.error
    turn = half_turn(arrangement.normals, slack)
    sums = _running(turn, arrangement.jumps)
    values = _evaluate(arrangement.total, sums, norm)
    tracks = {plane: turn.track(plane) for plane, _ in arrangement.required}
    allowed = _allowed(arrangement, tracks, sums.shape[0]) & turn.valid
    values = np.where(allowed, values, -np.inf)
    flip, arc = np.unravel_index(int(values.argmax()), values.shape)
    signs = turn.signs(int(arc)) * (1 - 2 * int(flip))
    return Best(float(values.max()), signs, int(allowed.sum()))


def _circles(
    arrangement: Arrangement,
) -> Iterator[tuple[int, np.ndarray, HalfTurn]]:
    """Each plane, the other planes, and the arrangement they cut out of its circle."""
    for plane, normal in enumerate(arrangement.normals):
        others = np.delete(np.arange(arrangement.num_planes), plane)
        frame = np.linalg.svd(normal[None])[2][1:]
        flat = arrangement.normals[others] @ frame.T
        length = np.linalg.norm(flat, axis=1)
        # a normal that nearly stands on the plane cuts it in an uncertain direction
        slack = arrangement.coincidence / 2
        slack = slack + (4 * arrangement.error + 8 * EPS) / length
        yield plane, others, half_turn(flat, slack)


def great_circle_sweep(arrangement: Arrangement, norm: str) -> Best:
    r"""Rank 3: every cell has a side on some plane; sweep the circle of each plane.

    Cost: $O(h^2 \log h)$ and four norms for each of about $h^2$ arcs; memory $O(h)$.
    """
    best, visited = Best(-np.inf, np.zeros(0, int), 0), 0
    for plane, others, turn in _circles(arrangement):
        sums = _running(turn, arrangement.jumps[others])
        for side in (1, -1):
            shifted = sums + side * arrangement.jumps[plane]
            values = _evaluate(arrangement.total, shifted, norm)
            tracks = {}
            for required, _ in arrangement.required:
                inner = required - (required > plane)
                tracks[required] = (
                    np.full(others.size, side)
                    if required == plane
                    else turn.track(inner)
                )
            allowed = _allowed(arrangement, tracks, others.size) & turn.valid
            values = np.where(allowed, values, -np.inf)
            visited += int(allowed.sum())
            if values.max() > best.value:
                flip, arc = np.unravel_index(int(values.argmax()), values.shape)
                signs = np.empty(arrangement.num_planes, int)
                signs[others] = turn.signs(int(arc))
                signs[plane] = side
                best = Best(float(values.max()), signs * (1 - 2 * int(flip)), 0)
    return best._replace(visited=visited)
