"""A shallow ReLU network, or a difference of two, as arrays on the host."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrelu._checks import check_finite, is_concrete
from jaxrelu.activations import ReLU
from jaxrelu.networks import DenseNetwork, Shallow


class Leaves(NamedTuple):
    r"""The arrays of $f(x) = C\,\mathrm{relu}(Ax + b) + e$, traced or not.

    `inner` A (k, d), `bias` b (k,) or None, `outer` C (m, k), `shift` e (m,) or None.
    """

    inner: Any
    bias: Any
    outer: Any
    shift: Any


class Units(NamedTuple):
    """`Leaves` in float64 on the host, with the dtype they came in."""

    inner: np.ndarray
    bias: np.ndarray | None
    outer: np.ndarray
    shift: np.ndarray | None
    dtype: np.dtype

    @property
    def rows(self) -> np.ndarray:
        """Normals of the central arrangement: A, or (A | b) in one dimension more."""
        if self.bias is None:
            return self.inner
        return np.concatenate([self.inner, self.bias[:, None]], axis=1)


def _arrays_of(network: Any, name: str) -> Leaves:
    if isinstance(network, Shallow):
        weights, biases = (network.inner, network.outer), (None, None)
    elif isinstance(network, DenseNetwork) and len(network.weights) == 2:
        weights, biases = network.weights, network.biases
    else:
        msg = (
            f"{name} is a {type(network).__name__}; expected a Shallow network or a "
            "DenseNetwork with one hidden layer."
        )
        raise TypeError(msg)
    if not isinstance(network.activation, ReLU):
        msg = (
            f"{name} has activation {network.activation}; expected relu: cells and "
            "canonical forms are those of a piecewise linear function."
        )
        raise TypeError(msg)
    return Leaves(weights[0], biases[0], weights[1], biases[1])


def _with_output_axis(leaves: Leaves) -> Leaves:
    outer, shift = leaves.outer, leaves.shift
    if 0 in outer.shape:
        msg = f"outer weights have shape {outer.shape}; expected at least one output."
        raise ValueError(msg)
    return leaves._replace(
        outer=outer if outer.ndim == 2 else outer[None],
        shift=None if shift is None else shift.reshape(-1),
    )


def _as_difference(first: Leaves, second: Leaves, xp: Any) -> Leaves:
    a, b = first.inner, second.inner
    same = a.shape[1] == b.shape[1] and a.dtype == b.dtype
    if not same or first.outer.shape[0] != second.outer.shape[0]:
        msg = (
            f"the networks map R^{a.shape[1]} to R^{first.outer.shape[0]} ({a.dtype}) "
            f"and R^{b.shape[1]} to R^{second.outer.shape[0]} ({b.dtype}); expected "
            "the same sizes and dtype to take a difference."
        )
        raise ValueError(msg)

    def or_zero(x: Any, size: int) -> Any:
        return xp.zeros(size, a.dtype) if x is None else x

    bias = shift = None
    if first.bias is not None or second.bias is not None:
        sizes = a.shape[0], b.shape[0]
        biases = or_zero(first.bias, sizes[0]), or_zero(second.bias, sizes[1])
        bias = xp.concatenate(biases)
    if first.shift is not None or second.shift is not None:
        m = first.outer.shape[0]
        shift = or_zero(first.shift, m) - or_zero(second.shift, m)
    outer = xp.concatenate([first.outer, -second.outer], axis=1)
    return Leaves(xp.concatenate([a, b]), bias, outer, shift)


def leaves_of(network: Any) -> Leaves:
    r"""Arrays of a network, or of $R(a) - R(b)$ for a pair `(a, b)`: neurons stacked.

    Raises:
        TypeError: anything but one hidden ReLU layer.
        ValueError: a pair whose sizes or dtypes differ.
    """
    pair = isinstance(network, tuple | list)
    if pair and len(network) != 2:
        msg = f"got {len(network)} networks; expected one, or a pair (a, b)."
        raise ValueError(msg)
    names = ("the first network", "the second network") if pair else ("network",)
    parts = network if pair else (network,)
    found = [_arrays_of(x, name) for x, name in zip(parts, names, strict=True)]
    xp = jnp
    if not any(is_traced(leaves) for leaves in found):
        # no device, and nothing compiled, for what the host will look at
        found, xp = jax.device_get(found), np
    found = [_with_output_axis(leaves) for leaves in found]
    return _as_difference(found[0], found[1], xp) if pair else found[0]


def is_traced(leaves: Leaves) -> bool:
    """Whether some array holds no numbers now."""
    return not all(is_concrete(x) for x in leaves if x is not None)


def units_of(network: Any) -> Units:
    """`leaves_of` a concrete network, converted to float64 without rounding.

    Raises:
        TypeError, ValueError: as `leaves_of`; NaN or infinite entries; traced values.
    """
    return host_units(leaves_of(network))


def host_units(leaves: Leaves) -> Units:
    """Leaves as float64 on the host."""
    if is_traced(leaves):
        msg = (
            "the network is being traced by jit, vmap or grad; expected numbers. Call "
            "this outside, or use seminorm, which works under jit and grad."
        )
        raise TypeError(msg)
    for name, leaf in zip(Leaves._fields, leaves, strict=True):
        if leaf is not None:
            check_finite(leaf, name)
    arrays = [None if leaf is None else np.asarray(leaf, np.float64) for leaf in leaves]
    inner, bias, outer, shift = arrays
    assert inner is not None
    assert outer is not None
    return Units(inner, bias, outer, shift, np.dtype(leaves.inner.dtype))
