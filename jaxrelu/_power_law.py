"""Exponents: a straight line in logarithms."""

import math
from typing import Any, NamedTuple

import numpy as np

from jaxrelu._checks import row_of


class PowerLaw(NamedTuple):
    r"""$y = c\, x^a$, fitted by least squares in logarithms.

    Attributes:
        exponent: a.
        error: one standard error of a.
        factor: c.
    """

    exponent: float
    error: float
    factor: float

    def __call__(self, x: Any) -> np.ndarray:
        r"""$c\, x^a$."""
        return self.factor * np.asarray(x, dtype=np.float64) ** self.exponent


def fit_power_law(x: Any, y: Any, errors: Any = None) -> PowerLaw:
    r"""Straight line through $(\log x_i, \log y_i)$.

    Without ``errors`` all points weigh the same and the standard error of the exponent
    comes from their scatter about the line (NaN for two points, which leave none). With
    them, point i weighs $(y_i/e_i)^2$ and the standard error is theirs, enlarged by the
    scatter where that is larger than they explain.

    Args:
        x: shape (r,), positive.
        y: shape (r,), positive.
        errors: standard errors $e_i$ of y, shape (r,), positive.

    Raises:
        ValueError: fewer than two different x, or numbers that are not positive.
    """
    x, y = row_of(x, "x"), row_of(y, "y")
    e = y if errors is None else row_of(errors, "errors")
    same = x.shape == y.shape == e.shape
    if not same or len(np.unique(x)) < 2 or not min(x.min(), y.min(), e.min()) > 0:
        msg = (
            f"x holds {x}, y {y}, errors {errors}; expected as many positive numbers "
            "in each, and at least two different x. Drop the other points."
        )
        raise ValueError(msg)
    weight = (y / e) ** 2
    u, w = np.log(x), np.log(y)
    du = u - np.average(u, weights=weight)
    curvature = np.sum(weight * du**2)
    exponent = float(np.sum(weight * du * w) / curvature)
    intercept = float(np.average(w - exponent * u, weights=weight))
    freedom = len(u) - 2
    scatter = np.sum(weight * (w - intercept - exponent * u) ** 2)
    spread = scatter / freedom if freedom else np.nan
    if errors is not None:
        spread = np.fmax(spread, 1.0)
    return PowerLaw(exponent, float(np.sqrt(spread / curvature)), math.exp(intercept))
