"""Neighbourhoods of a minimum, neuron by neuron, with and without orthogonality."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jrandom
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxrelu._checks import is_concrete
from jaxrelu.activations._angle import row_norms, unit_rows


class Neighbourhood(eqx.Module):
    r"""$\{W : |w_i - \tilde w_i| \le \varepsilon$ for all $i\}$, orthogonal or not.

    $U_\varepsilon(\tilde W)$; with ``orthogonal``, $U^\perp_\varepsilon(\tilde W)$ also
    asks that $w_i - \tilde w_i \perp \tilde w_i$ (Definition 6 of Safran, Yehudai and
    Shamir; a zero $\tilde w_i$ asks nothing).

    Attributes:
        minimum: $\tilde W$, (n, d).
        radius: $\varepsilon$, of each neuron's ball.
        orthogonal: whether only orthogonal displacements belong to it.

    Raises:
        ValueError: an orthogonal neighbourhood for d = 1, which is a point; a radius
            that is negative or not finite.
    """

    minimum: Float[Array, "n d"]
    radius: Float[Array, ""]
    orthogonal: bool = eqx.field(static=True)

    def __init__(
        self,
        minimum: Float[Array, "n d"],
        radius: float | Float[Array, ""],
        *,
        orthogonal: bool = True,
    ):
        self.minimum = minimum
        self.radius = jnp.asarray(radius, minimum.dtype)
        self.orthogonal = orthogonal

    def __check_init__(self):
        if self.orthogonal and self.minimum.shape[1] == 1:
            msg = "d is 1; expected at least 2, no displacement is orthogonal there."
            raise ValueError(msg)
        if is_concrete(self.radius) and not 0 <= float(self.radius) < float("inf"):
            msg = f"radius is {float(self.radius)}; expected a finite one, 0 or more."
            raise ValueError(msg)

    def contains(
        self, weights: Float[Array, "n d"], tolerance: float | None = None
    ) -> Bool[Array, ""]:
        r"""Whether W belongs to it, up to rounding.

        Args:
            weights: W, (n, d).
            tolerance: relative to $|\tilde w_i| + \varepsilon$; None takes 16 units of
                roundoff.
        """
        if tolerance is None:
            tolerance = 16 * float(jnp.finfo(weights.dtype).eps)
        return _contains(self, weights, jnp.asarray(tolerance, weights.dtype))

    def project(self, weights: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The nearest member."""
        move = self.tangent(weights - self.minimum)
        size = row_norms(move)
        scale = jnp.where(size > self.radius, self.radius / jnp.where(size, size, 1), 1)
        return self.minimum + scale[:, None] * move

    def sample(self, key: PRNGKeyArray) -> Float[Array, "n d"]:
        """A member, uniform: each neuron in its own ball, of dimension d or d - 1."""
        n, d = self.minimum.shape
        direction, length = jrandom.split(key)
        dtype = self.minimum.dtype
        move = self.tangent(jrandom.normal(direction, (n, d), dtype))
        share = jrandom.uniform(length, (n,), dtype)
        size = self.radius * share ** (1 / (d - self.orthogonal))
        return self.minimum + (size / row_norms(move))[:, None] * move

    def tangent(self, move: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The part of a displacement that is allowed: orthogonal row by row, or all."""
        if not self.orthogonal:
            return move
        units = self._units()
        return move - jnp.sum(move * units, axis=1, keepdims=True) * units

    def _units(self) -> Float[Array, "n d"]:
        return unit_rows(self.minimum, row_norms(self.minimum))


@eqx.filter_jit
def _contains(near: Neighbourhood, weights: Array, tolerance: Array) -> Array:
    move = weights - near.minimum
    slack = tolerance * (row_norms(near.minimum) + near.radius)
    inside = row_norms(move) <= near.radius + slack
    if near.orthogonal:
        along = jnp.sum(move * near._units(), axis=1)
        inside &= jnp.abs(along) <= slack
    return jnp.all(inside)
