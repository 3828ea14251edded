"""What samplers and readers share: the dtype asked for, and lists in words."""

from typing import Any

import jax.numpy as jnp
import numpy as np


def floating_dtype(dtype: Any) -> np.dtype:
    """``dtype`` as a floating dtype; None means the current default float.

    Raises:
        TypeError: not a floating dtype, or float64 while x64 is off.
    """
    if dtype is None:
        return jnp.result_type(float)
    wanted = jnp.dtype(dtype)
    if not jnp.issubdtype(wanted, jnp.floating):
        msg = (
            f"dtype is {wanted}; expected a floating dtype such as 'float32' or "
            "'float64', or None for JAX's current default."
        )
        raise TypeError(msg)
    if wanted.itemsize > jnp.result_type(float).itemsize:
        msg = (
            f"dtype is {wanted}, which JAX holds only when x64 is on; expected "
            f"{jnp.result_type(float)} or a narrower one. Call "
            "jax.config.update('jax_enable_x64', True) first, or leave dtype out."
        )
        raise TypeError(msg)
    return wanted


def listing(items: Any, most: int = 5) -> str:
    """The first few items in words, and how many more there are."""
    shown = ", ".join(str(item) for item in items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
