"""Five norms of a matrix, on the host and in JAX, over leading batch axes."""

from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxrelu._checks import check_choice


Norm = Literal["max", "fro", "spectral", "opinf", "op1"]
r"""Norm of the Jacobian whose essential supremum the semi-norm is.

* ``"max"``: largest entry, the paper's $\|\cdot\|_\infty$; the Lipschitz constant from
  $\ell_1$ to $\ell_\infty$.
* ``"fro"``: Frobenius.
* ``"spectral"``: largest singular value; Lipschitz from $\ell_2$ to $\ell_2$.
* ``"opinf"``: largest absolute row sum; Lipschitz from $\ell_\infty$ to
  $\ell_\infty$.
* ``"op1"``: largest absolute column sum; Lipschitz from $\ell_1$ to $\ell_1$.
"""


def check_norm(norm: str) -> None:
    """Raises `ValueError` unless ``norm`` is one of `Norm`."""
    check_choice(norm, get_args(Norm), "norm")


def _norm(xp: Any, matrix: Any, norm: str) -> Any:
    if norm == "max":
        return xp.max(xp.abs(matrix), axis=(-2, -1))
    if norm == "opinf":
        return xp.max(xp.sum(xp.abs(matrix), axis=-1), axis=-1)
    if norm == "op1":
        return xp.max(xp.sum(xp.abs(matrix), axis=-2), axis=-1)
    if norm == "fro" or min(matrix.shape[-2:]) == 1:
        return xp.linalg.norm(matrix, axis=(-2, -1))
    return xp.linalg.norm(matrix, ord=2, axis=(-2, -1))


def host_norm(matrix: np.ndarray, norm: str) -> np.ndarray:
    """The norm over the last two axes, on the host."""
    return np.asarray(_norm(np, matrix, norm))


def jax_norm(matrix: Array, norm: str) -> Array:
    """The norm over the last two axes, in JAX."""
    return _norm(jnp, matrix, norm)
