"""Matrix products in the full precision of their dtype."""

import jax
import jax.numpy as jnp
from jaxtyping import Array


def matmul(a: Array, b: Array) -> Array:
    """$ab$ without the reduced-precision passes that accelerators take by default.

    An activation bit or a small singular value that a 10-bit product decides is wrong
    by more than any bound stated here.
    """
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
