"""Losses over a data set."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrelu.data import Dataset
from jaxrelu.networks import AbstractNetwork, check_inputs


class SquaredLoss(eqx.Module):
    r"""$L(\theta) = \tfrac12 \sum_i \|f_\theta(x_i) - y_i\|^2$: a sum, no $1/n$.

    Attributes:
        data: inputs (n, d), targets (n,) for a scalar output and (n, m) otherwise.
    """

    data: Dataset

    def residual(self, network: Any) -> Float[Array, "..."]:
        r"""$r = f_\theta(X) - y$, in the shape of the targets.

        Raises:
            ValueError: inputs or outputs that do not fit the data.
        """
        if isinstance(network, AbstractNetwork):
            check_inputs(network, self.data.inputs)
            outputs = network(self.data.inputs)
        else:
            outputs = eqx.filter_vmap(network)(self.data.inputs)
        if outputs.shape != self.data.targets.shape:
            msg = (
                f"the network's outputs have shape {outputs.shape} and the targets "
                f"{self.data.targets.shape}; expected the same. A scalar output needs "
                "targets (n,), a network with m outputs (n, m)."
            )
            raise ValueError(msg)
        return outputs - self.data.targets

    def __call__(self, network: Any) -> Float[Array, ""]:
        """The loss; one forward pass."""
        return 0.5 * jnp.sum(self.residual(network) ** 2)
