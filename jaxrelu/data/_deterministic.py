"""Inputs without randomness, on which the theory can be evaluated in closed form."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import check_size
from jaxrelu.data._arguments import floating_dtype


def half_circle(n: int, *, dtype: Any = None) -> Float[Array, "n 2"]:
    r"""Rows $(\cos\frac{j\pi}{n}, \sin\frac{j\pi}{n})$, $j = 0, \dots, n-1$.

    The best separated unit vectors of the plane: `separation` is $2\sin\frac{\pi}{2n}$.
    """
    dtype = floating_dtype(dtype)
    angle = np.arange(check_size(n, "n")) * (math.pi / n)
    return jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], axis=1), dtype)


def equicorrelated(
    n: int, rho: float | int, *, dtype: Any = None
) -> Float[Array, "n n"]:
    r"""Unit rows in $\mathbb{R}^n$ with $\langle x_i, x_j\rangle = \rho$ for $i \ne j$.

    The symmetric square root of $(1-\rho) I + \rho \mathbf{1}\mathbf{1}^\top$.

    Args:
        n: number of samples, and their dimension.
        rho: the common inner product, $-1/(n-1) \le \rho \le 1$.
        dtype: floating dtype; default the current default float.

    Raises:
        ValueError: no unit vectors have this inner product.
    """
    n, dtype = check_size(n, "n"), floating_dtype(dtype)
    lowest = -1 / (n - 1) if n > 1 else -1.0
    if not lowest <= rho <= 1:
        msg = (
            f"rho is {rho} for n = {n}; expected {lowest:.6g} <= rho <= 1, because the "
            "Gram matrix must be positive semidefinite. Move rho into that range."
        )
        raise ValueError(msg)
    rest = math.sqrt(1 - rho)
    ones = math.sqrt(max(0.0, 1 + (n - 1) * rho))
    return jnp.asarray(rest * np.eye(n) + (ones - rest) / n, dtype)


def basis_and_bisectors(d: int, *, dtype: Any = None) -> Float[Array, "n d"]:
    r"""Rows $e_i$, then $(e_i + e_j)/\sqrt2$ for $i < j$: $n = d(d+1)/2$ unit vectors.

    $\lVert X\rVert^2 = d$, and the squares $x_i x_i^\top$ form a basis of the symmetric
    matrices.
    """
    d, dtype = check_size(d, "d"), floating_dtype(dtype)
    i, j = np.triu_indices(d, k=1)
    basis = np.eye(d)
    return jnp.asarray(
        np.concatenate([basis, (basis[i] + basis[j]) / math.sqrt(2)]), dtype
    )
