"""One hidden layer without biases."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrelu._checks import check_size
from jaxrelu._products import matmul
from jaxrelu.activations import AbstractActivation, activation as get_activation
from jaxrelu.networks._base import (
    AbstractNetwork,
    GatedFactors,
    LayerFactors,
)
from jaxrelu.networks._initializers import (
    inner_weights,
    outer_weights,
)


class Shallow(AbstractNetwork):
    r"""$f(x) = V \varphi(W x)$: one hidden layer, no bias.

    The networks of all four papers are of this form: Oymak & Soltanolkotabi's
    $v^\top \varphi(Wx)$, Safran & Shamir's student and teacher (outer weights one),
    Berner et al.'s $(A, C)$, Zhou & Liang's $W_2 \sigma(W_1 x)$. By default only
    `inner` trains; pass `where=lambda net: (net.inner, net.outer)` to train both.

    Attributes:
        inner: W, (k, d), one neuron per row.
        outer: v of shape (k,) for a scalar output, or V of shape (m, k).
        activation: φ, applied entrywise.

    Raises:
        ValueError: `outer` does not have k entries per row, or there is no neuron.
    """

    inner: Float[Array, "k d"]
    outer: Float[Array, " k"] | Float[Array, "m k"]
    activation: AbstractActivation

    def __init__(
        self,
        inner: Float[Array, "k d"],
        outer: Float[Array, "..."],
        activation: AbstractActivation | str = "relu",
    ):
        self.inner = inner
        self.outer = outer
        self.activation = get_activation(activation)

    def __check_init__(self):
        if jnp.ndim(self.inner) != 2 or 0 in jnp.shape(self.inner):
            msg = f"inner has shape {jnp.shape(self.inner)}; expected (k, d), none 0."
            raise ValueError(msg)
        k = self.inner.shape[0]
        if jnp.ndim(self.outer) not in (1, 2) or jnp.shape(self.outer)[-1] != k:
            msg = (
                f"outer has shape {jnp.shape(self.outer)}; expected ({k},) for a "
                f"scalar output or (m, {k}), because inner has {k} neurons."
            )
            raise ValueError(msg)
        if self.inner.dtype != self.outer.dtype:
            msg = (
                f"inner is {self.inner.dtype} and outer {self.outer.dtype}; expected "
                "one dtype. Convert one of them with .astype."
            )
            raise ValueError(msg)

    @classmethod
    def init(
        cls,
        key: PRNGKeyArray,
        *,
        d: int,
        k: int,
        m: int | None = None,
        activation: AbstractActivation | str = "relu",
        inner: str = "gaussian",
        outer: str = "balanced",
        outer_norm: float = 1.0,
        dtype: Any = None,
    ) -> "Shallow":
        r"""A random network; the defaults are Oymak & Soltanolkotabi's.

        Args:
            key: PRNG key.
            d: input dimension.
            k: hidden neurons.
            m: outputs; None for a scalar output without an output axis.
            activation: an activation or its name.
            inner: scheme of W, see `jaxrelu.networks.inner_weights`.
            outer: scheme of v, see `jaxrelu.networks.outer_weights`.
            outer_norm: Euclidean norm of each row of the outer weights.
            dtype: floating dtype; None takes JAX's default.

        Raises:
            ValueError: unknown scheme, odd k with `outer="balanced"`, sizes below 1.
        """
        for size, name in ((d, "d"), (k, "k"), (1 if m is None else m, "m")):
            check_size(size, name)
        dtype = jnp.zeros((), dtype if dtype is not None else float).dtype
        key_inner, key_outer = jrandom.split(key)
        return cls(
            inner_weights(key_inner, k, d, inner, dtype),
            outer_weights(key_outer, k, m, outer, outer_norm, dtype),
            activation,
        )

    @classmethod
    def orthonormal(cls, k: int, d: int | None = None, dtype: Any = None) -> "Shallow":
        r"""$x \mapsto \sum_{j \le k} \mathrm{relu}(x_j)$.

        The teacher of Safran & Shamir: inner weights $e_1, \dots, e_k$, outer ones.

        Args:
            k: hidden neurons.
            d: input dimension, at least k; k if None.
            dtype: floating dtype; None takes JAX's default.

        Raises:
            ValueError: sizes below 1, or d < k.
        """
        d = k if d is None else d
        check_size(d, "d")
        check_size(k, "k")
        if d < k:
            msg = f"d is {d} and k is {k}; expected d >= k for orthonormal neurons."
            raise ValueError(msg)
        dtype = jnp.zeros((), dtype if dtype is not None else float).dtype
        # NumPy: nothing to compile for every size
        return cls(jnp.asarray(np.eye(k, d), dtype), jnp.asarray(np.ones(k), dtype))

    @property
    def in_size(self) -> int:
        """Input dimension d."""
        return self.inner.shape[1]

    @property
    def width(self) -> int:
        """Number of neurons k."""
        return self.inner.shape[0]

    @property
    def out_size(self) -> int | None:
        """Number of outputs m, or None for a scalar output."""
        return None if self.outer.ndim == 1 else self.outer.shape[0]

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "..."]:
        """Outputs (*batch,) or (*batch, m); 2k(d + m) operations per sample."""
        if x.ndim == 1 or self.inner.dtype != jnp.float64:
            return matmul(self.activation(matmul(x, self.inner.T)), self.outer.T)
        # Neurons before samples: of many networks at once nothing is transposed on the
        # way back. On CPUs a tenth to a fifth faster in float64, and as much slower in
        # float32 (measured).
        found = matmul(self.outer, self.activation(matmul(self.inner, x.mT)))
        return found if self.outer.ndim == 1 else found.mT

    def trained(self) -> Any:
        """The inner weights: v is fixed in Oymak & Soltanolkotabi."""
        return self.inner

    def factors(self, inputs: Float[Array, "n d"]) -> "Shallow":
        """Jacobian factors of both layers; 2nkd operations."""
        z = matmul(inputs, self.inner.T)
        outer = self.outer if self.outer.ndim == 2 else self.outer[None]
        slopes = self.activation.slopes
        if slopes is None:
            slope = self.activation.derivative(z)
            inner = LayerFactors(slope[:, None, :] * outer[None], inputs)
        else:
            inner = GatedFactors(z > 0, outer, slopes, inputs)
        last = LayerFactors(jnp.eye(outer.shape[0], dtype=z.dtype), self.activation(z))
        return eqx.tree_at(lambda net: (net.inner, net.outer), self, (inner, last))
