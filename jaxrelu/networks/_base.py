"""What the rest of the library asks of a network."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree


class LayerFactors(eqx.Module):
    r"""The two thin factors of one weight leaf's Jacobian, for all samples.

    Row $(i, o)$ of the Jacobian of output $o$ at sample $i$ with respect to the leaf
    (flattened row by row) is `backprop[i, o] ⊗ input[i]`.

    Attributes:
        backprop: $\partial f_o(x_i) / \partial z$ with $z$ the leaf's pre-activation,
            (n, m, k), or (m, k) when it is the same for every sample.
        input: what the leaf multiplies, (n, d); ones of shape (n, 1) for a bias.
    """

    backprop: Float[Array, "n m k"] | Float[Array, "m k"]
    input: Float[Array, "n d"]


class GatedFactors(eqx.Module):
    r"""`LayerFactors` of a layer below a piecewise linear activation with one kink.

    `backprop[i, o, l] = outer[o, l] · (slopes[1] if gates[i, l] else slopes[0])`, with
    the gates kept as bits so that products of patterns stay exact integers.
    """

    gates: Bool[Array, "n k"]
    outer: Float[Array, "m k"]
    slopes: tuple[Any, Any]
    input: Float[Array, "n d"]

    def dense(self) -> LayerFactors:
        """The same factors with the backprop written out, (n, m, k)."""
        low, high = self.slopes
        dtype = self.outer.dtype
        slope = jnp.where(self.gates, jnp.asarray(high, dtype), jnp.asarray(low, dtype))
        return LayerFactors(slope[:, None, :] * self.outer[None], self.input)


class AbstractNetwork(eqx.Module):
    """A network whose weights enter through matrix products.

    Calling it maps inputs `(..., d)` to outputs `(...)` (scalar output) or `(..., m)`;
    `jax.vmap` over single samples gives the same.
    """

    @property
    @abc.abstractmethod
    def in_size(self) -> int:
        """Input dimension d."""

    @property
    @abc.abstractmethod
    def out_size(self) -> int | None:
        """Number of outputs m, or None for a scalar output without an output axis."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "..."]:
        """Outputs at one input or at a batch of them."""

    @abc.abstractmethod
    def trained(self) -> Any:
        """The leaves that train unless a `where` says otherwise."""

    @abc.abstractmethod
    def factors(self, inputs: Float[Array, "n d"]) -> "AbstractNetwork":
        """The network with each weight leaf replaced by its Jacobian factors.

        Every leaf that carries weights becomes a `LayerFactors` or `GatedFactors`.
        """


class _Leaf:
    """Stands for the leaf at one position while `where` chooses."""

    def __init__(self, position: int):
        self.position = position


def where_spec(network: PyTree, where: Callable | None) -> PyTree[bool]:
    """Boolean pytree marking the trained floating leaves, in the network's structure.

    Args:
        network: any pytree.
        where: Equinox's idiom, `lambda net: net.inner`, or any pytree of nodes. None
            takes the network's own default (`trained`), or every floating leaf of a
            module that is not one of ours.

    Raises:
        ValueError: nothing trainable was selected, or a selected array is not floating.
    """
    leaves, structure = jax.tree.flatten(network)
    tokens = jax.tree.unflatten(structure, [_Leaf(i) for i in range(len(leaves))])
    if where is None and isinstance(network, AbstractNetwork):
        chosen = jax.tree.leaves(tokens.trained())
    else:
        chosen = jax.tree.leaves(tokens if where is None else where(tokens))
    if not all(isinstance(leaf, _Leaf) for leaf in chosen):
        msg = "`where` returns something that is not a node of the network."
        raise ValueError(msg)
    positions = {leaf.position for leaf in chosen}
    arrays = {i for i in positions if eqx.is_array(leaves[i])}
    floating = {i for i in arrays if eqx.is_inexact_array(leaves[i])}
    if where is not None and arrays != floating:
        msg = "`where` selects an integer or boolean array; only floating ones train."
        raise ValueError(msg)
    if not floating:
        msg = (
            "`where` selects no floating array of the network; expected at least one, "
            "for example where=lambda net: net.inner."
        )
        raise ValueError(msg)
    return jax.tree.unflatten(structure, [i in floating for i in range(len(leaves))])


def check_inputs(network: AbstractNetwork, inputs: Array) -> None:
    """Raises `ValueError` unless inputs are (n, d) with the network's own d."""
    if inputs.ndim != 2 or inputs.shape[1] != network.in_size:
        msg = (
            f"inputs have shape {inputs.shape}; expected (n, {network.in_size}): one "
            "sample per row, as wide as the network's input."
        )
        raise ValueError(msg)
    if inputs.shape[0] == 0:
        msg = "inputs have no rows; expected at least one sample."
        raise ValueError(msg)
