r"""What can be recorded on the way: functions of a `Point`.

A recorder is any callable, best a module, from a `Point` to a pytree of arrays of fixed
shape. One with a method ``prepare`` is called with the start first, and what that
returns records in its place. They run at every record, inside the compiled loop.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrelu._products import matmul
from jaxrelu.dynamics._trajectory import Point, norm
from jaxrelu.networks import Shallow


class ResidualNorm(eqx.Module):
    r"""$\|r_t\|_2$, $r = f_\theta(X) - y$. One forward pass."""

    def __call__(self, now: Point) -> Float[Array, ""]:
        """The norm."""
        return norm(now.residual)


class GradientNorm(eqx.Module):
    r"""$\|\nabla L(\theta_t)\|_2$ over the trained leaves. One backward pass."""

    def __call__(self, now: Point) -> Float[Array, ""]:
        """The norm."""
        return norm(now.gradient)


class NeuronDistance(eqx.Module):
    r"""$\max_l \|w_l^{(t)} - w_l^{(0)}\|_2$ over the rows of all trained leaves.

    The entries of a leaf with one axis are rows of length 1.
    """

    def __call__(self, now: Point) -> Float[Array, ""]:
        """The largest distance that a neuron has gone."""

        def farthest(leaf):
            rows = jnp.reshape(leaf, (leaf.shape[0] if leaf.ndim else 1, -1))
            return rows[jnp.argmax(jnp.sum(rows**2, axis=1))]

        leaves = jax.tree.leaves(now.displacement)
        return jnp.max(jnp.stack([norm(farthest(leaf)) for leaf in leaves]))


class PolyakLojasiewicz(eqx.Module):
    r"""$\tfrac12\|\nabla L\|^2 / (L - L_*)$: at least $\mu$ under the PL inequality.

    For the squared loss it lies between $\sigma_{\min}^2(J)$ and
    $\sigma_{\max}^2(J)$ if $L_* = 0$. Where $L \le L_*$ it is infinite.

    Attributes:
        minimum: $L_*$.
    """

    minimum: float = 0.0

    def __call__(self, now: Point) -> Float[Array, ""]:
        """The ratio."""
        gap = now.loss - self.minimum
        ratio = norm(now.gradient) ** 2 / 2 / jnp.where(gap > 0, gap, 1)
        return jnp.where(gap > 0, ratio, jnp.inf)


class Flips(eqx.Module):
    """How the activation pattern differs from that at the start.

    Attributes:
        fraction: of all pairs of a sample and a neuron.
        most: the largest number of neurons that flipped at one sample.
    """

    fraction: Float[Array, ""]
    most: Int[Array, ""]


class ActivationFlips(eqx.Module):
    r"""`Flips` of the signs $1\{w_l \cdot x_i > 0\}$ of a `Shallow` network.

    Rounding may decide the sign of a pre-activation that is almost 0, see
    `jaxrelu.near_kinks`.

    Attributes:
        inputs: where, (n, d); None takes the objective's data.
    """

    inputs: Float[Array, "n d"] | None = None

    def prepare(self, start: Point) -> Any:
        """With the pattern at the start.

        Raises:
            TypeError: another network, or an objective without data and no inputs.
        """
        if not isinstance(start.network, Shallow):
            kind = type(start.network).__name__
            msg = f"the network is a {kind}; expected a Shallow, with inner weights."
            raise TypeError(msg)
        inputs = self.inputs
        if inputs is None:
            if not hasattr(start.objective, "data"):
                kind = type(start.objective).__name__
                msg = f"a {kind} has no data; pass ActivationFlips(inputs=...)."
                raise TypeError(msg)
            inputs = start.objective.data.inputs
        return _FlipsSince(inputs, matmul(inputs, start.network.inner.T) > 0)


class _FlipsSince(eqx.Module):
    inputs: Float[Array, "n d"]
    pattern: Bool[Array, "n k"]

    def __call__(self, now: Point) -> Flips:
        flipped = (matmul(self.inputs, now.network.inner.T) > 0) != self.pattern
        count = jnp.sum(flipped, axis=1, dtype=jnp.int32)
        return Flips(jnp.mean(flipped, dtype=now.loss.dtype), jnp.max(count))
