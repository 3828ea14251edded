r"""The symmetry group of dense networks: permutations and rescalings of neurons.

On a hidden layer of width k, $(\sigma, \lambda) \in S_k \ltimes (\mathbb R^*)^k$
acts by
$$ (W_l, b_l, W_{l+1}) \mapsto
   (\Lambda P W_l, \Lambda P b_l, W_{l+1} P^\top \Lambda^{-1}), $$
so that new neuron i is old neuron σ(i), scaled by $\lambda_i$. The function stays the
same when $\varphi(\lambda t) = \lambda\varphi(t)$: λ > 0 for ReLU and leaky ReLU,
λ = ±1 for odd activations (tanh, erf), any λ ≠ 0 for the identity, λ = 1 otherwise.
"""

from typing import Any, TypeVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxrelu._checks import is_concrete
from jaxrelu.activations import AbstractActivation, Erf, Linear, Tanh
from jaxrelu.networks import DenseNetwork, Shallow


Net = TypeVar("Net", Shallow, DenseNetwork)


class Symmetry(eqx.Module):
    r"""One element of the group, acting on networks as `symmetry(network)`.

    `(g @ h)(network)` is `g(h(network))`. Pure functions of arrays: they work under
    `jit`, `vmap` and `grad`, in λ as well.

    Attributes:
        permutations: σ per hidden layer, (k,) integers.
        scales: λ per hidden layer, (k,).
    """

    permutations: tuple[Int[Array, " _"], ...]
    scales: tuple[Float[Array, " _"], ...]

    @classmethod
    def identity(cls, network: Shallow | DenseNetwork) -> "Symmetry":
        """The neutral element for a network."""
        widths, dtype = hidden_widths(network), _dtype(network)
        return cls(
            tuple(jnp.arange(k) for k in widths),
            tuple(jnp.ones((k,), dtype) for k in widths),
        )

    @classmethod
    def random(
        cls, network: Shallow | DenseNetwork, key: PRNGKeyArray, spread: float = 1.0
    ) -> "Symmetry":
        r"""Uniform permutations, and the scales that the activation allows.

        Args:
            network: whose symmetry.
            key: PRNG key.
            spread: $\log\lambda$ is normal with this deviation where λ > 0 is allowed;
                odd activations get uniform signs, others λ = 1.
        """
        widths, dtype = hidden_widths(network), _dtype(network)
        kind = scale_kind(network.activation)
        permutations, scales = [], []
        for k, sub in zip(widths, jrandom.split(key, len(widths)), strict=True):
            one, two = jrandom.split(sub)
            permutations.append(jrandom.permutation(one, k))
            if kind in ("positive", "nonzero"):
                scales.append(jnp.exp(spread * jrandom.normal(two, (k,), dtype)))
            elif kind == "sign":
                scales.append(jrandom.rademacher(two, (k,), dtype))
            else:
                scales.append(jnp.ones((k,), dtype))
        return cls(tuple(permutations), tuple(scales))

    def __call__(self, network: Net) -> Net:
        r"""The network moved along its fibre: the same function, other weights.

        Raises:
            ValueError: widths that do not fit, or scales that would change the
                function (only checked where they are numbers).
        """
        _check_fits(self, network)
        if isinstance(network, Shallow):
            order, scale = self.permutations[0], self.scales[0]
            inner = scale[:, None] * network.inner[order]
            divisor = scale if network.outer.ndim == 1 else scale[None]
            outer = network.outer[..., order] / divisor
            return eqx.tree_at(lambda n: (n.inner, n.outer), network, (inner, outer))
        weights, biases = list(network.weights), list(network.biases)
        for level, (order, scale) in enumerate(
            zip(self.permutations, self.scales, strict=True)
        ):
            weights[level] = scale[:, None] * weights[level][order]
            bias = biases[level]
            biases[level] = None if bias is None else scale * bias[order]
            after = weights[level + 1]
            divisor = scale if after.ndim == 1 else scale[None]
            weights[level + 1] = after[..., order] / divisor
        return eqx.tree_at(
            lambda n: (n.weights, n.biases),
            network,
            (tuple(weights), tuple(biases)),
            is_leaf=lambda leaf: leaf is None,
        )

    def __matmul__(self, first: "Symmetry") -> "Symmetry":
        """The element that acts as `first` and then as this one."""
        pairs = zip(self.permutations, first.permutations, strict=True)
        scales = zip(self.scales, self.permutations, first.scales, strict=True)
        return Symmetry(
            tuple(before[after] for after, before in pairs),
            tuple(scale * other[order] for scale, order, other in scales),
        )

    def inverse(self) -> "Symmetry":
        """The element that undoes this one."""
        orders = tuple(jnp.argsort(p) for p in self.permutations)
        pairs = zip(self.scales, orders, strict=True)
        return Symmetry(orders, tuple(1 / scale[order] for scale, order in pairs))


def hidden_widths(network: Shallow | DenseNetwork) -> tuple[int, ...]:
    """Widths of the hidden layers."""
    if isinstance(network, Shallow):
        return (network.width,)
    return tuple(weight.shape[0] for weight in network.weights[:-1])


def _dtype(network: Shallow | DenseNetwork) -> Any:
    leaf = network.inner if isinstance(network, Shallow) else network.weights[0]
    return leaf.dtype


def scale_kind(activation: AbstractActivation) -> str:
    r"""For which λ $\varphi(\lambda t) = \lambda \varphi(t)$ holds for all t.

    Returns:
        `"nonzero"` (identity), `"positive"` (one kink at 0), `"sign"` (odd), `"one"`.
    """
    if isinstance(activation, Linear):
        return "nonzero"
    if activation.slopes is not None:
        return "positive"
    return "sign" if isinstance(activation, Tanh | Erf) else "one"


def _check_fits(symmetry: Symmetry, network: Shallow | DenseNetwork) -> None:
    widths = hidden_widths(network)
    got = tuple(p.shape[0] for p in symmetry.permutations)
    if got != widths or tuple(s.shape[0] for s in symmetry.scales) != widths:
        msg = (
            f"the symmetry acts on hidden layers of widths {got}, the network has "
            f"{widths}. Make it with Symmetry.identity(network) or Symmetry.random."
        )
        raise ValueError(msg)
    kind = scale_kind(network.activation)
    allowed = {
        "nonzero": lambda s: s != 0,
        "positive": lambda s: s > 0,
        "sign": lambda s: np.abs(s) == 1,
        "one": lambda s: s == 1,
    }[kind]
    for order, scale in zip(symmetry.permutations, symmetry.scales, strict=True):
        if is_concrete(order) and set(np.asarray(order)) != set(range(len(order))):
            msg = f"{np.asarray(order)} is not a permutation of 0..{len(order) - 1}."
            raise ValueError(msg)
        if is_concrete(scale) and not np.all(allowed(np.asarray(scale))):
            msg = (
                f"scales are {np.asarray(scale)}; with {network.activation.name!r} "
                f"only {kind} factors leave the function as it is."
            )
            raise ValueError(msg)


def permute(network: Net, order: Int[Array, " k"], layer: int = 0) -> Net:
    """Neuron i of a hidden layer becomes neuron `order[i]`.

    Args:
        network: `Shallow` or `DenseNetwork`.
        order: a permutation of the layer's neurons.
        layer: hidden layer, counted from 0.

    Raises:
        ValueError: not a permutation of the layer's neurons, no such layer.
    """
    symmetry = Symmetry.identity(network)
    _check_layer(symmetry, layer)
    return eqx.tree_at(lambda s: s.permutations[layer], symmetry, order)(network)


def rescale(network: Net, scales: Float[Array, " k"], layer: int = 0) -> Net:
    r"""$(a_i, c_i) \to (\lambda_i a_i, c_i/\lambda_i)$ in a hidden layer.

    With λ = ±1 these are the sign flips of odd activations.

    Args:
        network: `Shallow` or `DenseNetwork`.
        scales: λ, one per neuron.
        layer: hidden layer, counted from 0.

    Raises:
        ValueError: factors that would change the function, no such layer.
    """
    symmetry = Symmetry.identity(network)
    _check_layer(symmetry, layer)
    return eqx.tree_at(lambda s: s.scales[layer], symmetry, scales)(network)


def _check_layer(symmetry: Symmetry, layer: int) -> None:
    if not 0 <= layer < len(symmetry.scales):
        msg = f"layer is {layer}; expected 0..{len(symmetry.scales) - 1}."
        raise ValueError(msg)
