"""Networks of any depth: dense with biases, linear, linear residual."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrelu._checks import check_choice, check_size
from jaxrelu._products import matmul
from jaxrelu.activations import AbstractActivation, activation as get_activation
from jaxrelu.networks._base import AbstractNetwork, LayerFactors
from jaxrelu.networks._initializers import INNER, inner_weights


def _check_chain(weights: tuple[Array, ...], name: str) -> None:
    if not weights:
        msg = f"{name} needs at least one weight matrix; got none."
        raise ValueError(msg)
    for level, weight in enumerate(weights):
        last = level == len(weights) - 1
        if weight.ndim != 2 and not (last and weight.ndim == 1):
            msg = f"weights[{level}] has shape {weight.shape}; expected a matrix."
            raise ValueError(msg)
        if level and weight.shape[-1] != weights[level - 1].shape[0]:
            msg = (
                f"weights[{level}] has shape {weight.shape}; expected "
                f"(..., {weights[level - 1].shape[0]}), the width of the layer before."
            )
            raise ValueError(msg)
        if weight.dtype != weights[0].dtype:
            msg = f"weights mix {weights[0].dtype} and {weight.dtype}; use one dtype."
            raise ValueError(msg)


def _as_rows(weight: Array) -> Array:
    return weight if weight.ndim == 2 else weight[None]


def _random_chain(
    key: PRNGKeyArray, widths: tuple[int, ...], scheme: str, dtype: Any
) -> tuple[Array, ...]:
    if len(widths) < 2:
        msg = f"widths is {widths}; expected input, hidden and output sizes."
        raise ValueError(msg)
    for i, width in enumerate(widths):
        check_size(width, f"widths[{i}]")
    check_choice(scheme, INNER, "scheme")
    dtype = jnp.zeros((), dtype if dtype is not None else float).dtype
    keys = jrandom.split(key, len(widths) - 1)
    pairs = zip(keys, widths[1:], widths[:-1], strict=True)
    return tuple(inner_weights(k, rows, cols, scheme, dtype) for k, rows, cols in pairs)


class DenseNetwork(AbstractNetwork):
    r"""$x \mapsto W_l\,\varphi(W_{l-1} \cdots \varphi(W_1 x + b_1) \cdots) + b_l$.

    The activation stands between layers, not after the last. With ReLU these are the
    networks of Berner, Elbrächter & Grohs. All weights and biases train by default.

    Attributes:
        weights: $W_1, \dots, W_l$, each (out, in); the last may be a vector (in,),
            then the output is a scalar without an output axis.
        biases: one per layer, (out,), or None for a layer without; for a vector last
            weight a scalar array.
        activation: φ, applied entrywise.

    Raises:
        ValueError: widths that do not chain, biases that do not fit.
    """

    weights: tuple[Float[Array, "..."], ...]
    biases: tuple[Float[Array, "..."] | None, ...]
    activation: AbstractActivation

    def __init__(
        self,
        weights: tuple[Float[Array, "..."], ...],
        biases: tuple[Float[Array, "..."] | None, ...] | None = None,
        activation: AbstractActivation | str = "relu",
    ):
        self.weights = tuple(weights)
        self.biases = (None,) * len(self.weights) if biases is None else tuple(biases)
        self.activation = get_activation(activation)

    def __check_init__(self):
        _check_chain(self.weights, "DenseNetwork")
        if len(self.biases) != len(self.weights):
            msg = f"got {len(self.biases)} biases for {len(self.weights)} weights."
            raise ValueError(msg)
        for level, (weight, bias) in enumerate(
            zip(self.weights, self.biases, strict=True)
        ):
            if bias is not None and bias.shape != weight.shape[:-1]:
                msg = (
                    f"biases[{level}] has shape {bias.shape}; expected "
                    f"{weight.shape[:-1]} to fit weights[{level}]."
                )
                raise ValueError(msg)

    @classmethod
    def init(
        cls,
        key: PRNGKeyArray,
        widths: tuple[int, ...],
        *,
        activation: AbstractActivation | str = "relu",
        weights: str = "he_normal",
        biases: bool = True,
        scalar: bool = False,
        dtype: Any = None,
    ) -> "DenseNetwork":
        """Random weights, zero biases.

        Args:
            key: PRNG key.
            widths: (d, width of each hidden layer, m).
            activation: an activation or its name.
            weights: scheme of every layer, see `jaxrelu.networks.inner_weights`.
            biases: whether layers have one.
            scalar: drop the output axis; the last width must be 1.
            dtype: floating dtype; None takes JAX's default.

        Raises:
            ValueError: fewer than two widths, a width below 1, unknown scheme.
        """
        chain = _random_chain(key, widths, weights, dtype)
        if scalar:
            if widths[-1] != 1:
                msg = f"scalar=True with {widths[-1]} outputs; expected widths[-1] = 1."
                raise ValueError(msg)
            chain = (*chain[:-1], chain[-1][0])
        zeros = tuple(
            jnp.zeros(w.shape[:-1], w.dtype) if biases else None for w in chain
        )
        return cls(chain, zeros, activation)

    @property
    def in_size(self) -> int:
        """Input dimension d."""
        return self.weights[0].shape[-1]

    @property
    def out_size(self) -> int | None:
        """Number of outputs m, or None for a scalar output."""
        last = self.weights[-1]
        return None if last.ndim == 1 else last.shape[0]

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "..."]:
        """Outputs (*batch,) or (*batch, m)."""
        last = len(self.weights) - 1
        for level, (weight, bias) in enumerate(
            zip(self.weights, self.biases, strict=True)
        ):
            x = matmul(x, weight.T)
            if bias is not None:
                x = x + jnp.broadcast_to(bias, x.shape)
            x = x if level == last else self.activation(x)
        return x

    def trained(self) -> Any:
        """All weights and biases."""
        return self.weights, self.biases

    def factors(self, inputs: Float[Array, "n d"]) -> "DenseNetwork":
        """Jacobian factors of every layer: one forward and m backward passes."""
        n = inputs.shape[0]
        hidden, slopes = [inputs], []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = matmul(hidden[-1], weight.T)
            z = z if bias is None else z + bias[None]
            slopes.append(self.activation.derivative(z))
            hidden.append(self.activation(z))
        m = self.out_size or 1
        backprop = jnp.eye(m, dtype=inputs.dtype)
        ones = jnp.ones((n, 1), inputs.dtype)
        weight_factors, bias_factors = [], []
        for level in reversed(range(len(self.weights))):
            weight_factors.append(LayerFactors(backprop, hidden[level]))
            bias_factors.append(
                None if self.biases[level] is None else LayerFactors(backprop, ones)
            )
            if level:
                through = matmul(backprop, _as_rows(self.weights[level]))
                through = through if through.ndim == 3 else through[None]
                backprop = through * slopes[level - 1][:, None, :]
        return eqx.tree_at(
            lambda net: (net.weights, net.biases),
            self,
            (tuple(reversed(weight_factors)), tuple(reversed(bias_factors))),
            is_leaf=lambda leaf: leaf is None,
        )


class LinearNetwork(AbstractNetwork):
    r"""$x \mapsto W_l \cdots W_1 x$ (Zhou & Liang); all factors train by default.

    Attributes:
        weights: $W_1$ (applied first), …, $W_l$, each (out, in).

    Raises:
        ValueError: widths that do not chain, or a weight that is not a matrix.
    """

    weights: tuple[Float[Array, "out in"], ...]

    def __init__(self, weights: tuple[Float[Array, "..."], ...]):
        self.weights = tuple(weights)

    def __check_init__(self):
        _check_chain(self.weights, "LinearNetwork")
        if self.weights[-1].ndim != 2:
            msg = (
                f"the last weight has shape {self.weights[-1].shape}; expected (m, k)."
            )
            raise ValueError(msg)

    @classmethod
    def init(
        cls,
        key: PRNGKeyArray,
        widths: tuple[int, ...],
        *,
        weights: str = "xavier",
        dtype: Any = None,
    ) -> "LinearNetwork":
        """Random factors; `widths` is (d, hidden widths…, m)."""
        return cls(_random_chain(key, widths, weights, dtype))

    @property
    def in_size(self) -> int:
        """Input dimension d."""
        return self.weights[0].shape[1]

    @property
    def out_size(self) -> int | None:
        """Number of outputs m."""
        return self.weights[-1].shape[0]

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch m"]:
        """Outputs (*batch, m)."""
        for weight in self.weights:
            x = matmul(x, weight.T)
        return x

    def trained(self) -> Any:
        """All factors."""
        return self.weights

    def factors(self, inputs: Float[Array, "n d"]) -> "LinearNetwork":
        r"""Factor k is $(W_l \cdots W_{k+1}) \otimes (W_{k-1} \cdots W_1 x_i)$."""
        return eqx.tree_at(
            lambda net: net.weights, self, _linear_factors(self.weights, inputs)
        )


class LinearResidualNetwork(AbstractNetwork):
    r"""$x \mapsto (I + W_l) \cdots (I + W_1) x$ (Hardt & Ma; Zhou & Liang).

    Attributes:
        weights: $W_1$ (applied first), …, $W_l$, each (d, d). All train by default.

    Raises:
        ValueError: a weight that is not (d, d).
    """

    weights: tuple[Float[Array, "d d"], ...]

    def __init__(self, weights: tuple[Float[Array, "..."], ...]):
        self.weights = tuple(weights)

    def __check_init__(self):
        _check_chain(self.weights, "LinearResidualNetwork")
        for level, weight in enumerate(self.weights):
            if weight.shape != (self.weights[0].shape[0],) * 2:
                msg = f"weights[{level}] has shape {weight.shape}; expected (d, d)."
                raise ValueError(msg)

    @classmethod
    def init(
        cls,
        key: PRNGKeyArray,
        *,
        d: int,
        depth: int,
        scale: float | None = None,
        dtype: Any = None,
    ) -> "LinearResidualNetwork":
        r"""Entries iid $N(0, s^2)$; the scale s defaults to $1/(\text{depth}\sqrt d)$.

        Args:
            key: PRNG key.
            d: dimension.
            depth: number of residual layers.
            scale: standard deviation of the entries; 0 starts at the identity map.
            dtype: floating dtype; None takes JAX's default.
        """
        check_size(d, "d")
        check_size(depth, "depth")
        chain = _random_chain(key, (d,) * (depth + 1), "gaussian", dtype)
        deviation = 1 / (depth * d**0.5) if scale is None else scale
        return cls(tuple(deviation * weight for weight in chain))

    @property
    def in_size(self) -> int:
        """Input dimension d."""
        return self.weights[0].shape[1]

    @property
    def out_size(self) -> int | None:
        """Number of outputs, d."""
        return self.weights[0].shape[0]

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """Outputs (*batch, d)."""
        for weight in self.weights:
            x = x + matmul(x, weight.T)
        return x

    def trained(self) -> Any:
        """All residual weights."""
        return self.weights

    def factors(self, inputs: Float[Array, "n d"]) -> "LinearResidualNetwork":
        """As those of `LinearNetwork`, with I + W for W."""
        identity = jnp.eye(self.in_size, dtype=inputs.dtype)
        layers = jax.tree.map(lambda weight: identity + weight, self.weights)
        return eqx.tree_at(
            lambda net: net.weights, self, _linear_factors(layers, inputs)
        )


def _linear_factors(
    layers: tuple[Array, ...], inputs: Array
) -> tuple[LayerFactors, ...]:
    hidden = [inputs]
    for layer in layers[:-1]:
        hidden.append(matmul(hidden[-1], layer.T))
    backprop = jnp.eye(layers[-1].shape[0], dtype=inputs.dtype)
    factors = []
    for level in reversed(range(len(layers))):
        factors.append(LayerFactors(backprop, hidden[level]))
        backprop = matmul(backprop, layers[level])
    return tuple(reversed(factors))
