"""Refusals of bad input, before anything compiles: got, expected, remedy."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def is_concrete(x: Any) -> bool:
    """Whether ``x`` holds numbers now (False for values traced by jit/vmap/grad)."""
    if not isinstance(x, jax.Array):
        return True
    try:
        x.devices()
    except jax.errors.ConcretizationTypeError:
        return False
    return True


def as_floating(x: Any, name: str) -> Array:
    """``x`` as a floating array of its own precision; integers are refused.

    Raises:
        TypeError: integer, boolean, complex or non-numeric entries.
    """
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        msg = (
            f"{name} has dtype {x.dtype}; expected a floating dtype. "
            f"Convert it first, for example {name}.astype('float32')."
        )
        raise TypeError(msg)
    return jnp.asarray(x)


def check_rank(x: Array, rank: int, name: str, shape: str) -> None:
    """Raises `ValueError` unless ``x`` has ``rank`` axes; ``shape`` names them."""
    if jnp.ndim(x) != rank:
        msg = f"{name} has shape {jnp.shape(x)}; expected {rank} axes, {shape}."
        raise ValueError(msg)


def check_finite(x: Array | np.ndarray, name: str) -> None:
    """Raises `ValueError` if a concrete ``x`` holds NaN or infinity."""
    if not is_concrete(x):
        return
    bad = ~np.isfinite(np.asarray(x))
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        msg = (
            f"{name} holds {int(bad.sum())} NaN or infinite entries, the first at "
            f"index {first}; expected finite numbers. Drop or impute those rows."
        )
        raise ValueError(msg)


def check_choice(value: str, choices: tuple[str, ...], name: str) -> None:
    """Raises `ValueError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        msg = f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}."
        raise ValueError(msg)


def check_positive(value: float | int, name: str) -> None:
    """Raises `ValueError` unless the Python number ``value`` is finite and positive."""
    if not (np.isfinite(value) and value > 0):
        msg = f"{name} is {value}; expected a positive finite number."
        raise ValueError(msg)


def check_size(value: Any, name: str, least: int = 1) -> int:
    """``value`` as a Python int of at least ``least``.

    Raises:
        TypeError: not an integer.
        ValueError: too small.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        msg = (
            f"{name} is {value!r} of type {type(value).__name__}; expected a Python "
            f"int. Pass int({name})."
        )
        raise TypeError(msg)
    size = operator.index(value)
    if size < least:
        msg = f"{name} is {size}; expected at least {least}. Pass a larger {name}."
        raise ValueError(msg)
    return size


def sized(name: str) -> Callable[[Any], int]:
    """`check_size` as the converter of a field."""
    return lambda value: check_size(value, name)


def row_of(values: Any, name: str) -> np.ndarray:
    """``values`` as float64 of shape (r,); raises `ValueError` if they are no row."""
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or row.size == 0:
        msg = f"{name} has shape {row.shape}; expected (r,), r ≥ 1. Flatten it first."
        raise ValueError(msg)
    return row
