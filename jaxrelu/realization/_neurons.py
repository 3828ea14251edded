"""The neurons of a one-hidden-layer ReLU network, on the host in float64."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxrelu.networks import Shallow
from jaxrelu.realization._units import units_of


class Neurons(eqx.Module):
    r"""$x \mapsto \sum_i c_i\,\rho(\langle a_i, x\rangle)$ as two host arrays.

    With biases, $x$ stands for $(x, 1)$, rows for $(a_i, b_i)$, and an output bias is
    one more neuron with the row $(0, \dots, 0, 1)$.

    Attributes:
        inner: $a_i$ as rows.
        outer: $c_i$ as columns; one row for a scalar output.
        affine: whether the last coordinate of the input is the constant 1.
        scalar: whether the network has no output axis.
        dtype: the network's own precision.
    """

    inner: Float[np.ndarray, "k d"]
    outer: Float[np.ndarray, "m k"]
    affine: bool = eqx.field(static=True)
    scalar: bool = eqx.field(static=True)
    dtype: str = eqx.field(static=True)


def neurons(network: Any, affine: bool = True) -> Neurons:
    """The network's weights, an output bias as one more neuron.

    Args:
        network: `Shallow`, or `DenseNetwork` with one hidden layer.
        affine: whether biases are allowed.

    Raises:
        TypeError: not one hidden ReLU layer, or weights that are being traced.
        ValueError: biases where there may be none, NaN.
    """
    units = units_of(network)
    inner, outer = units.inner, units.outer
    biased = units.bias is not None or units.shift is not None
    if biased and not affine:
        msg = (
            "the network has biases; expected none. `to_restricted` embeds it into a "
            "network without biases in two more dimensions."
        )
        raise ValueError(msg)
    if biased:
        b = np.zeros(len(inner)) if units.bias is None else units.bias
        inner = np.column_stack([inner, b])
    if units.shift is not None:
        constant = np.zeros((1, inner.shape[1]))
        constant[0, -1] = 1.0
        inner = np.concatenate([inner, constant])
        outer = np.column_stack([outer, units.shift])
    return Neurons(inner, outer, biased, network.out_size is None, units.dtype.name)


def pair(a: Any, b: Any, affine: bool = True) -> tuple[Neurons, Neurons]:
    """Both networks' neurons, with biases of 0 added if only one has biases.

    Raises:
        ValueError: input or output sizes differ.
    """
    both = [neurons(a, affine), neurons(b, affine)]
    if both[0].affine != both[1].affine:
        both = [n if n.affine else _with_biases(n) for n in both]
    first, second = both
    sizes = [(n.inner.shape[1] - n.affine, n.outer.shape[0], n.scalar) for n in both]
    if sizes[0] != sizes[1]:
        (d, m, s), (d2, m2, s2) = sizes
        msg = (
            f"the networks map {d} inputs to {'a scalar' if s else f'{m} outputs'} and "
            f"{d2} inputs to {'a scalar' if s2 else f'{m2} outputs'}; expected equal "
            "sizes."
        )
        raise ValueError(msg)
    return first, second


def equal_pair(a: Any, b: Any) -> tuple[Neurons, Neurons]:
    """`pair` of networks without biases and with equally many neurons.

    Raises:
        ValueError: input or output sizes, or numbers of neurons, differ.
    """
    first, second = pair(a, b, affine=False)
    if first.inner.shape != second.inner.shape:
        msg = (
            f"the networks have {len(first.inner)} and {len(second.inner)} neurons; "
            "expected equally many. Pad the smaller one with zero neurons."
        )
        raise ValueError(msg)
    return first, second


def _with_biases(n: Neurons) -> Neurons:
    inner = np.column_stack([n.inner, np.zeros(len(n.inner))])
    return Neurons(inner, n.outer, True, n.scalar, n.dtype)


def shallow(inner: Any, outer: Any, like: Any) -> Shallow:
    """A `Shallow` ReLU network in the precision and output shape of ``like``.

    Args:
        inner: (k, d).
        outer: (m, k); the output axis is dropped if ``like.scalar``.
        like: has ``scalar`` and ``dtype``.
    """
    rows = outer[0] if like.scalar else outer
    return Shallow(jnp.asarray(inner, like.dtype), jnp.asarray(rows, like.dtype))


def sup(rows: Float[np.ndarray, "k d"]) -> Float[np.ndarray, " k"]:
    """Largest absolute entry of each row."""
    return np.abs(rows).max(axis=1, initial=0.0)


def balanced(
    rows: Float[np.ndarray, "k d"], columns: Float[np.ndarray, "m k"]
) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, "m k"]]:
    """Neurons rescaled to factors of equal size; those with a zero factor become 0."""
    a, c = sup(rows), sup(columns.T)
    alive = (a > 0) & (c > 0)
    t = np.sqrt(np.where(alive, c, 1)) / np.sqrt(np.where(alive, a, 1))
    return np.where(alive, t, 0)[:, None] * rows, np.where(alive, 1 / t, 0) * columns
