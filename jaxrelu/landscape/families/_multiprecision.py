"""Numbers of mpmath: contexts of our own, and the way to floats with an error."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrelu._results import RESULTS, Estimate


SUCCESS: Any = RESULTS.successful  # RESULTS is typed on its members


def context(digits: int) -> Any:
    """A multiprecision context of our own: mpmath's global precision stays as it is.

    Raises:
        ValueError: digits below 1.
    """
    import mpmath

    if not isinstance(digits, int) or digits < 1:
        msg = f"digits is {digits}; expected a positive integer."
        raise ValueError(msg)
    ctx = mpmath.mp.clone()
    ctx.dps = digits
    return ctx


def converted(ctx: Any, x: Any) -> Any:
    """A number of another context in this one; integers stay integers."""
    return x if isinstance(x, int) else ctx.convert(x)


def kept(x: Any) -> Any:
    """A number with every digit, in the context that users print and compute in."""
    import mpmath

    return x if isinstance(x, int) else mpmath.mp.make_mpf(x._mpf_)


def as_number(x: Any, name: str) -> Any:
    """An int where x is one, else an mpmath number.

    Raises:
        TypeError: x is not a real number.
        ValueError: x is not finite.
    """
    import mpmath

    try:
        number = None if isinstance(x, str) else x
        finite = math.isfinite(float(number))  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        msg = f"{name} is {x!r}; expected a number, integer or real."
        raise TypeError(msg) from None
    if not finite:
        msg = f"{name} is {x}; expected a finite number."
        raise ValueError(msg)
    if x == int(x):
        return int(x)
    return x if hasattr(x, "_mpf_") else mpmath.mpf(float(x))


def rounded(value: Any, error: Any, method: str) -> Estimate:
    """Multiprecision numbers in JAX's default dtype, the rounding in their error."""
    there = np.asarray(value, float)
    number = jnp.asarray(there)
    unit = float(jnp.finfo(number.dtype).eps) / 2
    bound = (np.asarray(error, float) + unit * np.abs(there)) * (1 + 4 * unit)
    return Estimate(
        value=number,
        error=jnp.asarray(bound, number.dtype),
        result=SUCCESS,
        error_kind="rounding bound",
        method=method,
    )
