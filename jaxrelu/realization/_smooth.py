r"""A smooth stand-in for the semi-norm, from sampled cells."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrelu._products import matmul
from jaxrelu.realization._norms import check_norm, jax_norm
from jaxrelu.realization._units import leaves_of


def _jacobians(network: Any, points: Array) -> Array:
    leaves = leaves_of(network)
    if jnp.ndim(points) != 2 or points.shape[1] != leaves.inner.shape[1]:
        msg = (
            f"points have shape {jnp.shape(points)}; expected "
            f"(n, {leaves.inner.shape[1]}), one input per row."
        )
        raise ValueError(msg)
    z = matmul(points, jnp.asarray(leaves.inner.T))
    if leaves.bias is not None:
        z = z + jnp.asarray(leaves.bias)[None]
    active = jnp.where(z[:, None, :] > 0, leaves.outer[None], 0)
    n, m, k = active.shape
    flat = matmul(active.reshape(n * m, k), jnp.asarray(leaves.inner))
    return flat.reshape(n, m, -1)


def sampled_seminorm(
    network: Any, points: Float[Array, "n d"], norm: str = "max"
) -> Float[Array, ""]:
    r"""$\max_n \|Df(x_n)\| \le |f|_{W^{1,\infty}}$: dense sampling, a lower bound.

    Differentiable in the weights; a ReLU has slope 0 at a kink, so a point on one
    counts as a cell that need not exist. Cost: nkmd.

    Args:
        network: one hidden ReLU layer, or a pair `(a, b)`.
        points: inputs.
        norm: of the Jacobian, as in `seminorm`.
    """
    check_norm(norm)
    return jnp.max(jax_norm(_jacobians(network, points), norm))


def smooth_seminorm(
    network: Any,
    points: Float[Array, "n d"],
    temperature: float | Float[Array, ""],
    norm: str = "max",
) -> Float[Array, ""]:
    r"""$\tau \log \sum_n e^{\|Df(x_n)\| / \tau}$, and over signed entries for `"max"`.

    With N terms (n of them, 2nmd for `"max"`)

    $$\text{sampled} \le \text{smooth} \le \text{sampled} + \tau \log N, \qquad
      \text{smooth} - \tau \log N \le |f|_{W^{1,\infty}}:$$

    a lower bound after subtraction, and within $\tau \log N$ of the semi-norm once
    every cell holds a point (`cells(network).points`). The gradient spreads over all
    cells that are nearly the largest, where that of `seminorm` sees one.

    Args:
        network: one hidden ReLU layer, or a pair `(a, b)`.
        points: inputs, one per cell at best.
        temperature: τ > 0.
        norm: of the Jacobian, as in `seminorm`.
    """
    check_norm(norm)
    jacobians = _jacobians(network, points)
    if norm == "max":
        terms = jnp.concatenate([jacobians.ravel(), -jacobians.ravel()])
    else:
        terms = jax_norm(jacobians, norm)
    scale = jnp.asarray(temperature, terms.dtype)
    return scale * jax.scipy.special.logsumexp(terms / scale)
