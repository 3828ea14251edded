"""Targets: signs, random labels, a linear teacher, one sign per cluster."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrelu._checks import as_floating, check_finite, check_rank, check_size
from jaxrelu.data._arguments import floating_dtype


def signs(
    values: Any, threshold: float | int = 0.0, *, dtype: Any = None
) -> Float[Array, "..."]:
    r"""Labels $+1$ where ``values`` exceeds ``threshold`` and $-1$ elsewhere.

    Args:
        values: numbers or booleans of any shape, for example ``labels == 3``.
        threshold: where the sign changes; a value equal to it gets $-1$.
        dtype: of the result; default that of ``values`` if floating, else the current
            default float.
    """
    values = jnp.asarray(values)
    if jnp.issubdtype(values.dtype, jnp.floating):
        check_finite(values, "values")
        dtype = values.dtype if dtype is None else dtype
        above = values > threshold
    else:
        above = values.astype(float) > threshold
    return jnp.where(above, 1.0, -1.0).astype(floating_dtype(dtype))


def random_signs(key: PRNGKeyArray, n: int, *, dtype: Any = None) -> Float[Array, " n"]:
    r"""Independent labels, $\pm 1$ with probability ½ each; shape (n,)."""
    return jax.random.rademacher(key, (check_size(n, "n"),)).astype(
        floating_dtype(dtype)
    )


def linear_teacher(key: PRNGKeyArray, inputs: Any) -> Float[Array, " n"]:
    r"""Targets $y_i = \langle w, x_i\rangle$ with $w$ uniform on the unit sphere.

    For classes take `signs` of them.

    Args:
        key: decides $w$.
        inputs: shape (n, d), floating.

    Returns:
        Shape (n,), the dtype of ``inputs``.
    """
    inputs = as_floating(inputs, "inputs")
    check_rank(inputs, 2, "inputs", "(n, d)")
    teacher = jax.random.normal(key, (inputs.shape[1],), inputs.dtype)
    return inputs @ (teacher / jnp.linalg.norm(teacher))


def cluster_signs(
    n: int, num_clusters: int, *, dtype: Any = None
) -> Float[Array, " n"]:
    r"""Labels for `clustered` inputs: all samples of cluster $c$ get $(-1)^c$.

    Sample $i$ belongs to cluster $i \bmod K$, where $K$ is ``num_clusters``.
    """
    n = check_size(n, "n")
    cluster = np.arange(n) % check_size(num_clusters, "num_clusters")
    return jnp.asarray(1 - 2 * (cluster % 2), floating_dtype(dtype))
