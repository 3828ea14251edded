"""The population loss in any number of digits, on the host."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxrelu._checks import is_concrete


def digits_loss(*arrays: Array, digits: int) -> float:
    """F of `PopulationLoss` for weights (w, a, v, b) taken as exact numbers.

    Raises:
        ValueError: fewer than 16 digits, or traced weights.
    """
    if digits < 16:
        msg = f"digits is {digits}; expected at least 16, or None for the dtype's own."
        raise ValueError(msg)
    if not all(is_concrete(x) for x in arrays):
        msg = (
            "digits was given with traced weights; expected numbers: mpmath computes "
            "on the host. Call evaluate outside jit and vmap."
        )
        raise ValueError(msg)
    import mpmath as mp  # optional, and slow to import

    w, a, v, b = (np.asarray(x, float) for x in arrays)
    rows, weights = np.concatenate([w, v]), np.concatenate([a, -b])
    with mp.workdps(2 * digits):  # cos θ loses half of them near 0 and π
        exact = [[mp.mpf(x) for x in row.tolist()] for row in rows]
        norms = [mp.sqrt(mp.fdot(row, row)) for row in exact]
        total = mp.mpf(0)
        for i, weight in enumerate(weights.tolist()):
            total += mp.mpf(weight) ** 2 * norms[i] ** 2 / 4
            for j in range(i):
                scale = norms[i] * norms[j]
                if scale == 0:
                    continue
                cos = mp.fdot(exact[i], exact[j]) / scale
                sin = mp.sqrt(max((1 - cos) * (1 + cos), 0))
                value = scale * (sin + mp.atan2(sin, -cos) * cos) / (2 * mp.pi)
                total += mp.mpf(weight) * mp.mpf(float(weights[j])) * value
        return float(total)


def digits_rounding(error: Array, value: Array, digits: int) -> Any:
    """The rounding bound of the dtype, scaled to so many digits, and that of value."""
    eps = float(jnp.finfo(value.dtype).eps)
    return error * (10.0 ** (1 - digits) / eps) + eps * jnp.abs(value)
