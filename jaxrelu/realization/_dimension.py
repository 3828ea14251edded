r"""Functional dimension: how many directions in weight space change the function.

It is the rank of $\theta \mapsto (f_\theta(x_1), \dots, f_\theta(x_n))$ at θ for inputs
that see every cell. Rescalings take one direction per hidden neuron, so it is at most
the number of weights minus the number of hidden neurons. For shallow ReLU networks
without biases and in general position it is $k(d + m - 1)$.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxrelu._memory import require_bytes
from jaxrelu.networks import DenseNetwork, Shallow, check_inputs
from jaxrelu.realization._symmetry import hidden_widths, scale_kind


class FunctionalDimension(eqx.Module):
    r"""Rank of the parameter Jacobian over given inputs.

    The rank over finitely many inputs never exceeds the functional dimension; it equals
    it when the inputs meet all the cells that matter.

    Attributes:
        value: singular values above the threshold.
        upper: weights minus hidden neurons, where rescalings are symmetries.
        parameters: number of weights and biases.
        threshold: $\max(nm, p)\,\epsilon\,\sigma_1$, below which a value counts as 0.
        above: smallest singular value that counts (infinite if there is none).
        below: largest singular value that does not (0 if there is none). The rank is
            beyond doubt when `below` ≪ `threshold` ≪ `above`.
        singular_values: all of them, descending.
    """

    singular_values: Float[np.ndarray, " r"]
    value: int = eqx.field(static=True)
    upper: int = eqx.field(static=True)
    parameters: int = eqx.field(static=True)
    threshold: float = eqx.field(static=True)
    above: float = eqx.field(static=True)
    below: float = eqx.field(static=True)


@eqx.filter_jit
def _parameter_jacobian(network: Any, inputs: Array) -> Array:
    weights, rest = eqx.partition(network, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(weights)

    def outputs(theta: Array, x: Array) -> Array:
        return jnp.reshape(eqx.combine(unravel(theta), rest)(x), (-1,))

    rows = jax.vmap(jax.jacrev(outputs), in_axes=(None, 0))(flat, inputs)
    return rows.reshape(-1, flat.size)


def functional_dimension(
    network: Shallow | DenseNetwork, inputs: Float[Array, "n d"]
) -> FunctionalDimension:
    r"""The rank of the Jacobian of the outputs in all weights and biases.

    Rescaling neurons does not change the rank, but very unequal factors make its
    small singular values unreadable: `balance` a shallow network first.

    Args:
        network: `Shallow` or `DenseNetwork`, any activation.
        inputs: take several times p/m of them, spread over all cells, for example
            Gaussian ones; float64 resolves more.

    Raises:
        ValueError: inputs that do not fit, NaN weights.
        MemoryRefusedError: the Jacobian (nm, p) does not fit.

    Cost: n m backward passes and a dense SVD, $O(nmp^2)$.
    """
    check_inputs(network, inputs)
    leaves = jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array))
    p = sum(leaf.size for leaf in leaves)
    rows = inputs.shape[0] * (network.out_size or 1)
    require_bytes(
        3 * rows * p * inputs.dtype.itemsize,
        f"the Jacobian ({rows}, {p})",
        "Take fewer inputs; about 2p/m are enough.",
    )
    jacobian = np.asarray(_parameter_jacobian(network, inputs))
    if not np.isfinite(jacobian).all():
        msg = "the Jacobian holds NaN or infinite entries; expected finite weights."
        raise ValueError(msg)
    values = np.linalg.svd(jacobian, compute_uv=False)
    eps = float(np.finfo(values.dtype).eps)
    threshold = max(jacobian.shape) * eps * float(values[0])
    rank = int(np.sum(values > threshold))
    free = scale_kind(network.activation) in ("positive", "nonzero")
    return FunctionalDimension(
        values,
        rank,
        p - sum(hidden_widths(network)) if free else p,
        p,
        threshold,
        float(values[rank - 1]) if rank else float("inf"),
        float(values[rank]) if rank < len(values) else 0.0,
    )
