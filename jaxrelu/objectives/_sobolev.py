"""Losses that also fit the derivative."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrelu.data import Dataset
from jaxrelu.objectives._empirical import SquaredLoss


class SobolevLoss(eqx.Module):
    r"""$L = \tfrac12 \sum_i \|f(x_i) - y_i\|^2 + \tfrac\lambda2 \|Df(x_i) - Y'_i\|^2$.

    Squared distance in a discrete $H^1$ norm (the derivative's in the Frobenius norm):
    Sobolev training, the natural loss for the geometry of Berner, Elbrächter & Grohs.
    A sum, without 1/n. At a kink the derivative is the one that `jax.jacrev` takes.

    Attributes:
        data: inputs (n, d), targets (n,) for a scalar output and (n, m) otherwise.
        derivatives: targets of the Jacobian, (n, d) or (n, m, d).
        weight: λ, of the derivative's part.

    Raises:
        ValueError: derivatives that do not fit the data.
    """

    data: Dataset
    derivatives: Float[Array, "n d"] | Float[Array, "n m d"]
    weight: Float[Array, ""]

    def __init__(
        self,
        data: Dataset,
        derivatives: Float[Array, "..."],
        weight: float | Float[Array, ""] = 1.0,
    ):
        self.data = data
        self.derivatives = derivatives
        self.weight = jnp.asarray(weight, derivatives.dtype)

    def __check_init__(self):
        expected = (*self.data.targets.shape, self.data.inputs.shape[1])
        if self.derivatives.shape != expected:
            msg = (
                f"derivatives have shape {self.derivatives.shape}; expected {expected}:"
                " one gradient of each target, along the inputs."
            )
            raise ValueError(msg)

    def residual(self, network: Any) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        r"""$f(X) - y$ and $Df(X) - Y'$, in the shapes of the targets."""
        values = SquaredLoss(self.data).residual(network)
        jacobians = jax.vmap(jax.jacrev(network))(self.data.inputs)
        return values, jacobians - self.derivatives

    def __call__(self, network: Any) -> Float[Array, ""]:
        """The loss; a forward and m backward passes."""
        values, jacobians = self.residual(network)
        return 0.5 * (jnp.sum(values**2) + self.weight * jnp.sum(jacobians**2))
