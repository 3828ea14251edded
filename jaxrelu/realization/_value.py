r"""The Jacobian on one cell as a differentiable function of the weights."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrelu._products import matmul
from jaxrelu.realization._norms import check_norm, jax_norm
from jaxrelu.realization._units import leaves_of


def cell_jacobian(network: Any, pattern: Bool[Array, " k"]) -> Float[Array, "m d"]:
    r"""$G = \sum_{i \in \text{pattern}} c_i a_i^\top$, the Jacobian on one cell.

    Args:
        network: one hidden ReLU layer, or a pair `(a, b)`: then k counts both.
        pattern: which neurons are active.
    """
    leaves = leaves_of(network)
    k = leaves.inner.shape[0]
    if jnp.shape(pattern) != (k,):
        msg = f"pattern has shape {jnp.shape(pattern)}; expected ({k},)."
        raise ValueError(msg)
    return matmul(jnp.where(pattern[None], leaves.outer, 0), jnp.asarray(leaves.inner))


def seminorm_value(
    network: Any, pattern: Bool[Array, " k"], norm: str = "max"
) -> Float[Array, ""]:
    r"""$\|\sum_{i \in \text{pattern}} c_i a_i^\top\|$, differentiable in the weights.

    At the pattern of the largest cell this is the semi-norm, and its gradient is the
    semi-norm's wherever that is differentiable: at almost all weights no row is
    parallel to another and one cell and entry attain the maximum, so the patterns and
    the maximiser stay the same nearby.
    """
    check_norm(norm)
    return jax_norm(cell_jacobian(network, pattern), norm)
