r"""Numbers with a proved error: midpoint and radius, over whole arrays.

A `Ball` stands for all real arrays within `radius` of `centre`, entry by entry. Every
operation returns a ball that holds every result of the operands' members: what the
operands' radii become, plus the rounding of the centre, everything rounded up. The
centre is float64, or mpmath's numbers when more digits are wanted; radii are float64.

Assumed: IEEE float64 with gradual underflow and no overflow; sums of N terms in any
order err by at most $\gamma_N = N u/(1 - N u)$ times the sum of moduli; the arctangent
of the platform errs by at most 8 units in the last place (glibc and NumPy state 4).
"""

import math
from typing import Any, NamedTuple

import numpy as np


_UNIT = 2.0**-53
_UP = 1 + 2.0**-45  # covers two hundred roundings of the radius
_TINY = 2.0**-1000  # covers underflow


class Arithmetic(NamedTuple):
    """What centres are made of.

    Attributes:
        unit: relative rounding error of one operation.
        context: mpmath's, or None for float64.
    """

    unit: float
    context: Any

    def exact(self, array: Any) -> "Ball":
        """Stored floating-point numbers, taken as they are."""
        array = np.asarray(array, np.float64)
        centre = array
        if self.context is not None:
            convert = np.frompyfunc(self.context.mpf, 1, 1)
            centre = np.asarray(convert(array), object).reshape(array.shape)
        return Ball(centre, np.zeros(array.shape), self)

    def pi(self) -> "Ball":
        """The number π."""
        if self.context is None:
            return self.rounded(np.asarray(math.pi), np.zeros(()))
        value = np.empty((), object)
        value[()] = +self.context.pi
        return self.rounded(value, np.zeros(()))

    def rounded(self, centre: Any, radius: Any, units: float = 1.0) -> "Ball":
        """A ball whose centre has just been rounded, by so many units of roundoff."""
        return Ball(centre, _up(radius + units * self.unit * magnitude(centre)), self)

    def apply(self, name: str, *arrays: Any) -> Any:
        """An elementary function on centres."""
        if self.context is None:
            numpy_name = {"sqrt": "sqrt", "atan2": "arctan2"}[name]
            return getattr(np, numpy_name)(*arrays)
        function = np.frompyfunc(getattr(self.context, name), len(arrays), 1)
        return np.asarray(function(*arrays), object)


FLOAT64 = Arithmetic(_UNIT, None)


def multiprecision(digits: int) -> Arithmetic:
    """Centres with so many decimal digits, by mpmath."""
    import mpmath  # optional, and slow to import

    context: Any = mpmath.MPContext()
    context.dps = digits
    return Arithmetic(2.0 ** (1 - context.prec), context)


def _up(radius: Any) -> np.ndarray:
    return np.asarray(np.asarray(radius, np.float64) * _UP + _TINY)


def magnitude(centre: Any) -> np.ndarray:
    """Moduli as float64, rounded up."""
    return np.asarray(np.asarray(abs(np.asarray(centre)), np.float64) * _UP)


class Ball:
    """All arrays within `radius` of `centre`, entry by entry; see the module."""

    def __init__(self, centre: Any, radius: Any, arithmetic: Arithmetic):
        self.centre = np.asarray(centre)
        self.radius = np.broadcast_to(np.asarray(radius, float), self.centre.shape)
        self.arithmetic = arithmetic

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.centre.shape

    def __getitem__(self, index: Any) -> "Ball":
        return Ball(self.centre[index], self.radius[index], self.arithmetic)

    def transpose(self, *axes: int) -> "Ball":
        """Axes permuted."""
        return Ball(
            self.centre.transpose(*axes), self.radius.transpose(*axes), self.arithmetic
        )

    def __neg__(self) -> "Ball":
        return Ball(-self.centre, self.radius, self.arithmetic)

    def __add__(self, other: "Ball") -> "Ball":
        centre = self.centre + other.centre
        return self.arithmetic.rounded(centre, self.radius + other.radius)

    def __sub__(self, other: "Ball") -> "Ball":
        return self + (-other)

    def __mul__(self, other: "Ball") -> "Ball":
        radius = self.magnitude * other.radius + self.radius * other.upper
        return self.arithmetic.rounded(self.centre * other.centre, radius)

    def __truediv__(self, other: "Ball") -> "Ball":
        """Infinite radius where the divisor may be 0."""
        room = np.maximum(other.lower, 0.0)
        safe = np.where(room > 0, other.centre, other.centre * 0 + 1)
        centre = self.centre / safe
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = self.radius + magnitude(centre) * other.radius
            radius = np.where(room > 0, spread / room, np.inf)
        return self.arithmetic.rounded(centre, radius)

    def scaled(self, power_of_two: float) -> "Ball":
        """Times a power of two, exactly."""
        centre = self.centre * power_of_two
        radius = _up(self.radius * abs(power_of_two))
        return Ball(centre, radius, self.arithmetic)

    def widened(self, radius: Any) -> "Ball":
        """The same with more room."""
        return Ball(self.centre, _up(self.radius + radius), self.arithmetic)

    def where(self, mask: Any, other: "Ball") -> "Ball":
        """Entries of this ball where ``mask``, else those of the other."""
        return Ball(
            np.where(mask, self.centre, other.centre),
            np.where(mask, self.radius, other.radius),
            self.arithmetic,
        )

    @property
    def magnitude(self) -> np.ndarray:
        """Of the centre, rounded up."""
        return magnitude(self.centre)

    @property
    def upper(self) -> np.ndarray:
        """Bound on the moduli of all members."""
        return _up(self.magnitude + self.radius)

    @property
    def lower(self) -> np.ndarray:
        """Lower bound on the moduli of all members; may be negative."""
        below = np.asarray(abs(self.centre), np.float64) * (2 - _UP)
        gap = below - self.radius
        return np.asarray(gap - np.abs(gap) * 2.0**-45 - _TINY)

    def sum(self, axis: Any = None) -> "Ball":
        """Over one axis or all."""
        centre = np.sum(self.centre, axis=axis)
        count = self.centre.size // max(np.size(centre), 1)
        grown = np.sum(self.radius, axis=axis)
        rounding = np.sum(self.magnitude, axis=axis) * (count * self.arithmetic.unit)
        more = 1 + 4 * (count + 8) * _UNIT
        return Ball(centre, _up((grown + rounding) * more), self.arithmetic)

    def matmul(self, other: "Ball") -> "Ball":
        """Matrix product over the last two axes."""
        count = self.shape[-1]
        size, mine = other.magnitude, self.magnitude
        grown = mine @ other.radius + self.radius @ other.upper
        rounding = (mine @ size) * (count * self.arithmetic.unit)
        more = 1 + 4 * (count + 8) * _UNIT
        radius = _up((grown + rounding) * more)
        return Ball(self.centre @ other.centre, radius, self.arithmetic)

    def sqrt(self) -> "Ball":
        r"""Of members that are known to be non-negative.

        $|\sqrt x - \sqrt y| \le \min(|x-y|/\sqrt y, \sqrt{|x-y|})$.
        """
        inside = np.where(self.centre > 0, self.centre, self.centre * 0)
        root = self.arithmetic.apply("sqrt", inside)
        size = np.asarray(root, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            steep = np.where(size > 0, self.radius / size, np.inf)
        radius = np.minimum(np.sqrt(self.radius), steep)
        return self.arithmetic.rounded(root, radius)

    def norm(self) -> "Ball":
        """Euclidean norms over the last axis."""
        return (self * self).sum(-1).sqrt()

    def to_float64(self) -> tuple[np.ndarray, np.ndarray]:
        """Float64 centre and a radius that includes its rounding."""
        centre = np.asarray(self.centre, np.float64)
        if self.arithmetic.context is None:
            return centre, np.asarray(self.radius)
        return centre, _up(self.radius + _UNIT * np.abs(centre))

    def in_float64(self) -> "Ball":
        """The same numbers with float64 centres."""
        return Ball(*self.to_float64(), FLOAT64)


def arctangent(y: Ball, x: Ball) -> Ball:
    r"""$\operatorname{atan2}(y, x)$ for members with $y, x \ge 0$, not both 0.

    Its gradient is $1/\rho$, $\rho$ the distance from the origin, which on the way from
    the centre to a member is at least $\rho_0 - r_x - r_y$.
    """
    centre = y.arithmetic.apply("atan2", y.centre, x.centre)
    size = np.maximum(y.magnitude, x.magnitude) * (2 - _UP) ** 2
    step = y.radius + x.radius
    room = size - step * _UP
    with np.errstate(divide="ignore", invalid="ignore"):
        radius = np.where(room > 0, step / room, np.inf)
    # a unit in the last place is up to two units of roundoff
    return y.arithmetic.rounded(centre, np.minimum(radius, 4.0), units=16.0)
