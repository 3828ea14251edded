"""Pre-activations too close to a kink for their sign to be trusted."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrelu._products import matmul
from jaxrelu.networks._base import check_inputs
from jaxrelu.networks._shallow import Shallow


class NearKinks(eqx.Module):
    """How many activation bits rounding could have decided.

    Attributes:
        count: pre-activations within rounding of 0, over all samples and neurons.
        exact_zeros: those that are exactly 0, where φ'(0) is a convention.
        total: n k.
    """

    count: Int[Array, ""]
    exact_zeros: Int[Array, ""]
    total: int = eqx.field(static=True)


@eqx.filter_jit
def near_kinks(network: Shallow, inputs: Float[Array, "n d"]) -> NearKinks:
    r"""Counts pre-activations with $|w_l \cdot x_i| \le \gamma_d |w_l| \cdot |x_i|$.

    $\gamma_d = du/(1 - du)$ with $u$ the unit roundoff bounds the error of a dot
    product of length d in any order of summation, $|w| \cdot |x| = \sum_c |w_c x_c|$.
    A count of 0 means that every bit of the activation pattern is that of exact
    arithmetic (on the stored weights and inputs). Exact zeros of zero rows count, too.

    Raises:
        ValueError: inputs that do not fit the network.

    Cost: two products, 4nkd operations, and n k numbers.
    """
    check_inputs(network, inputs)
    unit = jnp.finfo(inputs.dtype).eps / 2
    d = network.in_size
    gamma = d * unit / (1 - d * unit)
    z = matmul(inputs, network.inner.T)
    # the bound itself is rounded: (1 + gamma)^2 covers its own dot product
    bound = gamma * (1 + gamma) ** 2 * matmul(jnp.abs(inputs), jnp.abs(network.inner).T)
    return NearKinks(
        jnp.sum(jnp.abs(z) <= bound, dtype=jnp.int32),
        jnp.sum(z == 0, dtype=jnp.int32),
        z.size,
    )
