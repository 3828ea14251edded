r"""Certified lower and upper bounds of the semi-norm, for networks of any size.

Signs are those of the stored weights and rounding is added or subtracted, so that the
semi-norm of the network as stored lies in $[\text{lower}, \text{upper}]$. With
$G(s) = \tfrac12(T + \sum_H s_H J_H)$ and opposite cells in mind,

$$\tfrac12 \max\{\|T\|, \max_H \|J_H\|\} \le |f|_{W^{1,\infty}} \le
  \min\bigl\{\|U\|, \tfrac12(\|T\| + \textstyle\sum_H \|J_H\|)\bigr\},
  \quad U = \tfrac12\bigl(|T| + \textstyle\sum_H |J_H|\bigr).$$
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxrelu._memory import require_bytes
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.realization._arrangement import (
    EPS,
    Arrangement,
    arrange,
    group_rows,
    unit_rows,
)
from jaxrelu.realization._ascent import climb
from jaxrelu.realization._cells import box_walls
from jaxrelu.realization._lp import interior_point
from jaxrelu.realization._norms import check_norm, host_norm
from jaxrelu.realization._rational import group_integer_rows, integer_row
from jaxrelu.realization._units import Units, units_of


MAX_PROGRAM = 200_000  # entries of the linear program, seconds


class Bounds(eqx.Module):
    r"""$\text{lower} \le |f|_{W^{1,\infty}} \le \text{upper}$, rounding included.

    Attributes:
        lower: the norm of a Jacobian that occurs, or half of one that is the difference
            or the sum of two.
        upper: by the triangle inequality.
        lower_method: how the lower bound came about.
        upper_method: how the upper bound came about; says so if it is attained.
        pattern: active neurons (k,) of a cell whose Jacobian has norm `lower`, None
            when the lower bound is not that of a cell.
    """

    lower: Float[Array, ""]
    upper: Float[Array, ""]
    pattern: Bool[np.ndarray, " k"] | None
    lower_method: str = eqx.field(static=True)
    upper_method: str = eqx.field(static=True)

    def estimate(self) -> Estimate:
        """Midpoint and half-width, a certified bound."""
        low, high = float(self.lower), float(self.upper)
        dtype = self.lower.dtype
        middle = np.asarray((low + high) / 2).astype(dtype)
        reach = max(high - float(middle), float(middle) - low)
        return Estimate(
            jnp.asarray(middle),
            jnp.asarray(_round_up(reach, dtype)),
            RESULTS.successful,  # pyright: ignore[reportArgumentType]
            "certified bound",
            f"between bounds: {self.lower_method}; {self.upper_method}",
        )


class _Low(NamedTuple):
    value: float
    method: str
    pattern: np.ndarray | None


def _round_up(x: float, dtype: Any) -> np.ndarray:
    rounded = np.asarray(x).astype(dtype)
    if rounded < x:
        rounded = np.nextafter(rounded, rounded.dtype.type(np.inf))
    return np.asarray(rounded)


def _round_down(x: float, dtype: Any) -> np.ndarray:
    return np.asarray(-_round_up(-x, dtype))


def slack_of(units: Units, norm: str) -> float:
    r"""More than rounding can add to any norm here: worst case, not square-root."""
    k, d = units.inner.shape
    m = units.outer.shape[0]
    size = np.abs(units.outer) @ np.abs(units.inner)
    size = host_norm(size, "fro" if norm == "spectral" else norm)
    return float((4 * k + 8 * (m + d) + 64) * EPS * size)


def is_finite(units: Units, norm: str) -> bool:
    """Whether float64 holds all Jacobians and their norms."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(slack_of(units, norm)))


def require_finite(units: Units, norm: str) -> None:
    """Refuses weights whose Jacobians float64 cannot hold.

    Raises:
        ValueError: their products, or squares of these, overflow.
    """
    if not is_finite(units, norm):
        msg = (
            "products of inner and outer weights overflow float64; expected Jacobians "
            f"that it holds (norm={norm!r}). Divide the outer weights by a power of 2: "
            "the semi-norm is divided by as much."
        )
        raise ValueError(msg)


def _exact_jumps(units: Units) -> tuple[np.ndarray, np.ndarray]:
    """J_H (h, m, d) with rows grouped when parallel as rationals, and one row each."""
    rows = units.rows
    first, group, orientation = group_rows(rows, 1e-12)
    present = np.flatnonzero(group >= 0)
    shared = np.bincount(group[present], minlength=first.size)[group[present]] > 1
    crowded = present[shared]
    if crowded.size:
        exact = group_integer_rows([integer_row(rows[i]) for i in crowded])
        alone = present[~shared]
        group = np.full(group.size, -1)
        group[alone] = np.arange(alone.size)
        group[crowded] = alone.size + np.array(exact[1])
        orientation = np.ones(group.size, int)
        orientation[crowded] = exact[2]
    alive = np.flatnonzero(group >= 0)
    names, group = np.unique(group[alive], return_inverse=True)
    m, d = units.outer.shape[0], units.inner.shape[1]
    require_bytes(
        16 * names.size * m * d,
        f"the jumps of {names.size} planes, ({names.size}, {m}, {d})",
        "Take norm='max' of one output at a time.",
    )
    jumps = np.zeros((names.size, m, d))
    weights = (units.outer[:, alive] * orientation[alive]).T
    np.add.at(jumps, group, weights[:, :, None] * units.inner[alive][:, None, :])
    representative = np.zeros((names.size, rows.shape[1]))
    representative[group] = rows[alive]
    return jumps, representative


def certified_pattern(
    units: Units, point: np.ndarray, half_width: float | None = None
) -> np.ndarray | None:
    """Active neurons at a point, or None if rounding could have decided one of them.

    The point is (d,), or (d + 1,) homogeneous with biases, then inside the domain.
    """
    rows = units.rows
    alive = (rows != 0).any(axis=1)
    values = rows @ point
    doubt = (rows.shape[1] + 4) * EPS * (np.abs(rows) @ np.abs(point))
    if (np.abs(values) <= doubt)[alive].any():
        return None
    if units.bias is not None:
        if point[-1] <= 0:
            return None
        reach = np.abs(point[:-1]).max()
        if half_width is not None and reach * (1 + 4 * EPS) >= half_width * point[-1]:
            return None
    return values > 0


def _at_points(
    units: Units, points: np.ndarray, norm: str, half_width: float | None, text: str
) -> _Low:
    best = _Low(0.0, "zero", None)
    slack = slack_of(units, norm)
    for point in points:
        pattern = certified_pattern(units, point, half_width)
        if pattern is None:
            continue
        jacobian = units.outer[:, pattern] @ units.inner[pattern]
        value = float(host_norm(jacobian, norm)) - slack
        if value > best.value:
            best = _Low(value, text, pattern)
    return best


def _cheap_lower(
    units: Units,
    jumps: np.ndarray,
    rows: np.ndarray,
    norm: str,
    half_width: float | None,
) -> _Low:
    """Half of what two cells differ by, or of what opposite ones add up to."""
    slack = slack_of(units, norm)
    candidates = []
    if units.bias is None or half_width is None:
        total = float(host_norm(units.outer @ units.inner, norm))
        candidates.append((total / 2 - slack, "half the sum over opposite cells"))
        met = (rows[:, : units.inner.shape[1]] != 0).any(axis=1)
    else:
        reach = half_width * np.abs(rows[:, :-1]).sum(axis=1)
        met = np.abs(rows[:, -1]) < reach * (1 - 4 * rows.shape[1] * EPS)
    if met.any():
        largest = float(host_norm(jumps[met], norm).max())
        candidates.append((largest / 2 - slack, "half the largest jump at a kink"))
    value, text = max(candidates, default=(0.0, "zero"))
    return _Low(value, text, None) if value > 0 else _Low(0.0, "zero", None)


def _upper(
    units: Units, jumps: np.ndarray, rows: np.ndarray, norm: str
) -> tuple[float, str]:
    total = units.outer @ units.inner
    size = (np.abs(total) + np.abs(jumps).sum(axis=0)) / 2
    candidates = [(float(host_norm(size, norm)), "entrywise triangle inequality")]
    spread = host_norm(total, norm) + host_norm(jumps, norm).sum()
    candidates.append((float(spread) / 2, "triangle inequality over the kinks"))
    if norm == "spectral" and jumps.shape[0] and units.bias is None:
        # J_H = w_H n_H^T: a product of two thin matrices, balanced
        directions = unit_rows(rows)
        weights = np.einsum("hmd,hd->hm", jumps, directions)
        scale = np.sqrt(np.linalg.norm(weights, axis=1))
        alive = scale > 0
        if alive.any():
            left = weights[alive] / scale[alive, None]
            right = directions[alive] * scale[alive, None]
            product = np.linalg.norm(left, 2) * np.linalg.norm(right, 2)
            value = (host_norm(total, norm) + product) / 2
            candidates.append((float(value), "product of two spectral norms"))
    value, text = min(candidates)
    return value * (1 + 1e-13) + slack_of(units, norm), text


def _attained(
    units: Units, jumps: np.ndarray, rows: np.ndarray, half_width: float | None
) -> _Low:
    """Whether the largest possible entry occurs: one linear program decides."""
    total = units.outer @ units.inner
    size = np.abs(total) + np.abs(jumps).sum(axis=0)
    p, q = np.unravel_index(int(size.argmax()), size.shape)
    direction = 1.0 if total[p, q] >= 0 else -1.0
    signs = np.sign(direction * jumps[:, p, q])
    needed = unit_rows(rows[signs != 0]) * signs[signs != 0, None]
    if units.bias is not None:
        needed = np.concatenate([needed, np.eye(rows.shape[1])[-1:]])
    if not needed.shape[0]:
        return _Low(0.0, "zero", None)
    point, margin = interior_point(needed)
    if margin <= 0:
        return _Low(0.0, "zero", None)
    # rows of weight 0 may stand on the point: step aside, well inside the margin
    aside = np.cos(1.0 + np.arange(point.size)) * margin / (4 * np.sqrt(point.size))
    text = "the cell that the upper bound asks for, found by a linear program"
    return _at_points(units, np.array([point, point + aside]), "max", half_width, text)


def _climbed(
    units: Units,
    arrangement: Arrangement,
    norm: str,
    half_width: float | None,
    key: PRNGKeyArray,
    num_starts: int,
    num_steps: int,
) -> _Low:
    dtype = jnp.zeros((), float).dtype
    require_bytes(
        6 * 16 * arrangement.jumps.size * dtype.itemsize,
        f"16 climbs over jumps of shape {arrangement.jumps.shape}",
        "Pass key=None for the bounds that need no climb.",
    )
    points, values = climb(
        key,
        jnp.asarray(arrangement.normals.astype(dtype)),
        jnp.asarray(arrangement.jumps.astype(dtype)),
        jnp.asarray(arrangement.total.astype(dtype)),
        arrangement.required,
        norm,
        num_starts,
        num_steps,
    )
    order = np.argsort(-np.asarray(values))[:32]
    lifted = np.asarray(points, np.float64)[order] @ arrangement.basis
    text = f"{num_starts} climbs of {num_steps} great circles"
    return _at_points(units, lifted, norm, half_width, text)


def bounds(
    network: Any,
    norm: str = "max",
    domain: float | None = None,
    *,
    key: PRNGKeyArray | None = None,
    num_starts: int = 64,
    num_steps: int = 32,
) -> Bounds:
    r"""Certified bounds of $|f|_{W^{1,\infty}}$ without visiting all cells.

    Lower: half the sum over opposite cells, half the largest jump at a kink, the norm
    at the rows themselves taken as inputs and, with a key, at the best of random climbs
    over great circles (`jax`, on the default device; the result is checked on the host
    with signs that no rounding decided). Upper: the triangle inequality in three ways.
    For `norm="max"` a linear program tells whether the upper bound is attained; it is
    whenever the distinct normals are independent.

    Args:
        network: one hidden ReLU layer, or a pair `(a, b)`.
        norm: as in `seminorm`.
        domain: half-width of the box, for networks with biases; None is $R^d$.
        key: PRNG key of the climbs; None leaves them out.
        num_starts: climbs.
        num_steps: great circles per climb.

    Cost: $O(kmd)$ without a key; each great circle adds $O(h \log h + hmd)$.
    """
    check_norm(norm)
    return host_bounds(units_of(network), norm, domain, key, num_starts, num_steps)


def host_bounds(
    units: Units,
    norm: str,
    domain: float | None,
    key: PRNGKeyArray | None,
    num_starts: int = 64,
    num_steps: int = 32,
) -> Bounds:
    """`bounds` of a network on the host."""
    require_finite(units, norm)
    jumps, rows = _exact_jumps(units)
    upper, upper_text = _upper(units, jumps, rows, norm)
    lows = [_cheap_lower(units, jumps, rows, norm, domain)]
    if norm == "max" and rows.size <= MAX_PROGRAM:
        lows.append(_attained(units, jumps, rows, domain))
        if lows[-1].value >= upper * (1 - 1e-12) - 4 * slack_of(units, norm):
            upper_text += ", attained"
            key = None
    rows = unit_rows(rows)
    points = np.concatenate([rows, -rows])[: 2 * 256]
    if units.bias is not None:  # feet of the perpendiculars from 0 to the kinks
        points = np.concatenate([points, _near_kinks(rows)])
    lows.append(_at_points(units, points, norm, domain, "the rows taken as inputs"))
    if key is not None and rows.shape[0]:
        walls = None
        if units.bias is not None and domain is not None:
            walls = box_walls(units.inner.shape[1], domain)
        arrangement = arrange(units, None, walls)
        if arrangement.rank > 1:
            lows.append(
                _climbed(units, arrangement, norm, domain, key, num_starts, num_steps)
            )
    low = max(lows, key=lambda low: low.value)
    return Bounds(
        jnp.asarray(_round_down(low.value, units.dtype)),
        jnp.asarray(_round_up(upper, units.dtype)),
        low.pattern,
        f"lower by {low.method}",
        f"upper by {upper_text}",
    )


def _near_kinks(rows: np.ndarray) -> np.ndarray:
    normals, offsets = rows[:256, :-1], rows[:256, -1:]
    square = (normals**2).sum(axis=1, keepdims=True)
    normals, offsets = normals[square[:, 0] > 0], offsets[square[:, 0] > 0]
    square = square[square[:, 0] > 0]
    feet = -offsets * normals / square
    beside = normals / np.sqrt(square) * 1e-3
    feet = np.concatenate([feet + beside, feet - beside])
    return np.column_stack([feet, np.ones(len(feet))])
