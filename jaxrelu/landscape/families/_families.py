r"""The families of symmetric critical points, and Newton's method along them.

Every family is a curve in k of zeros of the gradient restricted to block matrices
(`_blocks`). It is named by its blocks and by where it goes for large k: a family is
followed, in real k, from the end where its limit is known, so that no basin of
attraction decides which point is found.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrelu._checks import check_choice
from jaxrelu.landscape.families._blocks import (
    Geometry,
    Number,
    assemble,
    entries,
    flatten,
    geometry,
    gradient,
    hessian_product,
)


FAMILIES = ("global", "A", "I", "II", "M", "N")
"""Names of the families; M and N take the size p of their small block."""

PARAMETERS = {
    "global": ("delta", "beta"),
    "A": ("delta", "beta"),
    "I": ("a", "b", "c", "e", "r"),
    "II": ("a", "b", "c", "e", "r"),
    "M": ("a", "b", "c", "e", "f", "r"),
    "N": ("a", "b", "c", "e", "f", "r"),
}


class Family(NamedTuple):
    """A family and the size of its block of fixed size: 0 where there is none."""

    name: str
    p: int

    def sizes(self, free: Number) -> tuple[Number, ...]:
        """Block sizes, ``free`` being that of the block that grows with k."""
        if self.p == 0:
            return (free,)
        return (self.p, free) if self.name == "N" else (free, self.p)

    @property
    def label(self) -> str:
        """As in print: M_2, N_6, II."""
        return f"{self.name}_{self.p}" if self.name in ("M", "N") else self.name


def family_of(name: str, p: int | None) -> Family:
    """The family called ``name``: ``"M"`` with p, or ``"M_2"``.

    Raises:
        ValueError: an unknown name; p missing, superfluous or too small.
    """
    stem, _, tail = name.partition("_")
    if tail.isdigit() and p is None:
        name, p = stem, int(tail)
    check_choice(name, FAMILIES, "name")
    if name in ("global", "A", "I", "II"):
        if p is not None:
            msg = f"p is {p}, but family {name} has no block of a size to choose."
            raise ValueError(msg)
        return Family(name, 0 if name in ("global", "A") else 1)
    least, alike = (2, "M_1 is II") if name == "M" else (3, "a block of A needs 3")
    if not isinstance(p, int) or p < least:
        msg = f"p is {p}; family {name} takes an integer p >= {least} ({alike})."
        raise ValueError(msg)
    return Family(name, p)


def check_size(family: Family, k: Number) -> None:
    """Refuses k below which the family's blocks are too small for it.

    Raises:
        ValueError: with the least k.
    """
    least = {"global": 2, "A": 3, "I": 4, "II": 3}.get(family.name, family.p + 2)
    if k < least:
        msg = f"k is {k}; family {family.label} starts at k = {least}."
        raise ValueError(msg)


# ------------------------------------------------------------------------------ Newton


def reduced_jacobian(point: Geometry) -> list[list[Number]]:
    """Columns of the Jacobian of the gradient in the free numbers."""
    free, columns = entries(point.sizes), []
    for j in range(len(free)):
        unit = [0] * len(free)
        unit[j] = 1
        column = hessian_product(point, assemble(point.sizes, unit))
        columns.append(flatten(point.sizes, column))
    return columns


def solved(
    ctx: Any, columns: list[list[Number]], right: Sequence[Number]
) -> list[Number]:
    """The solution of a linear system given by the columns of its matrix.

    Raises:
        ArithmeticError: the matrix is singular.
    """
    if ctx.prec > 53:
        return list(ctx.lu_solve(ctx.matrix(columns).T, ctx.matrix(right)))
    try:  # mpmath's elimination of floats takes a hundred times as long
        return np.linalg.solve(np.transpose(columns), np.asarray(right)).tolist()
    except np.linalg.LinAlgError as error:
        raise ArithmeticError(str(error)) from None


def newton(
    ctx: Any,
    sizes: Sequence[Number],
    start: Sequence[Number],
    tolerance: Number,
    steps: int = 30,
) -> tuple[list[Number], Number]:
    """A zero of the reduced gradient near ``start``, and the length of the last step.

    Raises:
        ArithmeticError: no convergence: the steps stop shrinking above ``tolerance``.
    """
    x = [ctx.mpf(value) for value in start]
    step = ctx.inf
    for _ in range(steps):
        point = geometry(ctx, sizes, assemble(sizes, x))
        move = solved(ctx, reduced_jacobian(point), flatten(sizes, gradient(point)))
        x = [value - change for value, change in zip(x, move, strict=True)]
        last, step = step, max(abs(change) for change in move)
        if step <= tolerance:
            return x, step
        if not step <= 2:
            break
        if step > last / 2 and step < ctx.sqrt(tolerance):
            return x, step  # rounding is reached; the caller looks at the step
    msg = f"Newton's method stopped with a step of {float(step):.1e}."
    raise ArithmeticError(msg)


def follow(
    sizes_of: Callable[[Number], Sequence[Number]],
    start: Sequence[float],
    begin: float,
    end: float,
) -> list[float]:
    """The solution at ``end`` on the curve through ``start`` at ``begin``, in float64.

    Steps are in the logarithm of the parameter and start on the tangent. Where a curve
    turns back, other families are near, and a long step would land on one of them: one
    that differs from the mean of the tangents at its ends by a tenth of its length is
    halved, and so is one that Newton's method fails on.

    Raises:
        ArithmeticError: the curve could not be followed: it ends, or turns back.
    """
    import mpmath

    ctx, here, target, step = mpmath.fp, math.log(begin), math.log(end), 0.5
    x, _ = newton(ctx, sizes_of(begin), start, 1e-6)
    slope = _tangent(ctx, sizes_of, begin, x)
    while here != target:
        there, size = target, end
        if abs(target - here) > step:
            there = here + math.copysign(step, target - here)
            size = math.exp(there)
        h = there - here
        try:
            ahead = [a + h * s for a, s in zip(x, slope, strict=True)]
            new, _ = newton(ctx, sizes_of(size), ahead, 1e-6, steps=6)
            bend = _tangent(ctx, sizes_of, size, new)
        except (ArithmeticError, ValueError):
            new, bend = x, [math.inf] * len(x)
        mean = [a + h * (s + t) / 2 for a, s, t in zip(x, slope, bend, strict=True)]
        sizes = sizes_of(size)
        off, moved = _row_distance(sizes, new, mean), _row_distance(sizes, new, x)
        if off <= 0.1 * moved + 1e-6:
            x, slope, here, step = new, bend, there, min(2 * step, 0.5)
            continue
        step /= 2
        if step < 1e-3:
            msg = f"the family could not be followed beyond size {size:.6g}."
            raise ArithmeticError(msg)
    return x


def _tangent(ctx, sizes_of, size, x) -> list[float]:
    """Derivative of the solution by the logarithm of the parameter."""
    slopes, h = [], 1e-5
    for shifted in (size * math.exp(h), size * math.exp(-h)):
        sizes = sizes_of(shifted)
        point = geometry(ctx, sizes, assemble(sizes, x))
        slopes.append(flatten(sizes, gradient(point)))
    sizes = sizes_of(size)
    columns = reduced_jacobian(geometry(ctx, sizes, assemble(sizes, x)))
    change = [(b - a) / (2 * h) for a, b in zip(*slopes, strict=True)]
    return solved(ctx, columns, change)


def _row_distance(sizes, x, y) -> float:
    """How far the neuron that differs most is moved, up to a factor of a few."""
    pairs = zip(entries(sizes), x, y, strict=True)
    return max(
        abs(a - b) * math.sqrt(1 if diagonal else sizes[column])
        for (_, column, diagonal), a, b in pairs
    )


# ------------------------------------------------------------------------------- seeds


def seed(family: Family, k: Number, ctx: Any) -> list[Number]:
    """A start for Newton's method at this k, good enough to converge from.

    For large k the leading terms of the family's expansion in 1/k; below, and for N at
    any k, `follow` from where those hold. N_p starts as A at dimension p next to a
    block of vanishing size, which the family is joined to for real k.
    """
    if family.name == "global":
        return [ctx.mpf(1), ctx.mpf(0)]
    if family.name != "N" and k >= _large(family):
        return leading(family, ctx.mpf(k), ctx)
    free = min(float(k) - family.p, 1e5)
    last = math.floor(abs(math.log(free / _free(family, 0))) / STRIDE)
    start = follow(family.sizes, waypoint(family, last), _free(family, last), free)
    if free == 1e5:  # float64 follows no further; each number goes on to its limit
        a, b, c, e, f, r = start
        q = free / (k - family.p)
        start = [a, b, q * c, 1 + q * (e - 1), q * q * f, q * r]
    return start


STRIDE = 0.5
"""Between the waypoints of a family, in the logarithm of the growing block's size."""


def _large(family: Family) -> float:
    return 200.0 * max(family.p, 1)


def _free(family: Family, i: int) -> float:
    """Size of the growing block at waypoint i."""
    if family.name == "N":
        return 0.05 * math.exp(STRIDE * i)
    return (_large(family) - family.p) * math.exp(-STRIDE * i)


@functools.lru_cache(maxsize=1024)
def waypoint(family: Family, i: int) -> tuple[float, ...]:
    """Float64 solution at the i-th waypoint, each followed from the one before."""
    import mpmath

    if i > 0:
        before, free = waypoint(family, i - 1), _free(family, i - 1)
        return tuple(follow(family.sizes, before, free, _free(family, i)))
    if family.name == "N":
        block = seed(Family("A", 0), float(family.p), mpmath.fp)
        start = [*block, -0.01, 1.07, 0.0, 0.02]
    else:
        start = leading(family, _large(family), mpmath.fp)
    return tuple(newton(mpmath.fp, family.sizes(_free(family, 0)), start, 1e-6)[0])


def leading(family: Family, k: Number, ctx: Any) -> list[Number]:
    """Leading terms of the expansion in 1/k, in the order of `PARAMETERS`."""
    pi, p = ctx.pi, family.p
    if family.name == "A":
        return [-1 + 2 / k, 2 / k]
    if family.name == "I":
        c = (16 / pi - 12) / (pi * k**2)
        e = 1 + (8 - 8 / pi) / (pi * k)
        return [-1 + 2 / k, 2 / k, c, e, (2 - 4 / pi) / k]
    a, b = 1 + 8 * p / (pi * k**2), -4 * p / (pi * k**2)
    e = -1 + (2 + 8 / pi + 8 / pi**2) / k
    r = 4 / (pi * k)
    return [a, b, 2 / k, e, r] if p == 1 else [a, b, 2 / k, e, 2 / k, r]
