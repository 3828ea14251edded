"""The Jacobian of a network at given inputs, as an operator."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxrelu._checks import (
    as_floating,
    check_choice,
    check_finite,
    is_concrete,
)
from jaxrelu.networks import (
    AbstractNetwork,
    GatedFactors,
    LayerFactors,
    check_inputs,
    where_spec,
)
from jaxrelu.operators._autodiff import AutodiffJacobian
from jaxrelu.operators._interface import AbstractOperator
from jaxrelu.operators._khatri_rao import GatedKhatriRao, KhatriRao, Kronecker
from jaxrelu.operators._stacks import HStack


def jacobian(
    network: PyTree,
    inputs: Any,
    where: Callable | None = None,
    *,
    method: str = "auto",
) -> AbstractOperator:
    r"""$J = \partial (f(x_1), \dots, f(x_n)) / \partial \theta$ as a linear operator.

    Rows are ordered by sample, then output; columns as
    `jax.flatten_util.ravel_pytree` orders the trained leaves. `J.gram()` is the
    empirical neural tangent kernel on these inputs, $(nm, nm)$, for any depth.

    For the networks of this library every leaf's block is known by two thin factors
    and the n × p matrix is never formed. Any other callable module falls back to
    automatic differentiation, as do leaves that are not weights (a trained slope of a
    leaky ReLU, say).

    Args:
        network: a network, or any Equinox module that maps one sample to an output.
        inputs: (n, d), floating and finite.
        where: the trained leaves, `lambda net: net.inner`; None takes the network's
            default.
        method: `"auto"`, or `"autodiff"` to force automatic differentiation.

    Raises:
        TypeError: inputs that are not floating.
        ValueError: wrong shape, NaN or infinity, dtypes that differ from the network's,
            nothing to train.

    Cost: one forward pass and m backward passes of the batch; products with J cost as
    much, `gram` 2n²m²(width) + 2n²(fan-in) operations per layer.
    """
    check_choice(method, ("auto", "autodiff"), "method")
    inputs = as_floating(inputs, "inputs")
    check_finite(inputs, "inputs")
    spec = where_spec(network, where)
    trained, rest = eqx.partition(network, spec)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(trained)}
    if dtypes != {inputs.dtype}:
        names = ", ".join(sorted(str(dtype) for dtype in dtypes))
        msg = (
            f"inputs are {inputs.dtype} and the trained leaves {names}; expected one "
            "dtype. Convert the inputs with .astype."
        )
        raise ValueError(msg)
    if not isinstance(network, AbstractNetwork):
        return AutodiffJacobian(trained, rest, inputs)
    check_inputs(network, inputs)
    if method == "autodiff":
        return AutodiffJacobian(trained, rest, inputs)
    return _structured(network, spec, inputs)


def _structured(
    network: AbstractNetwork, spec: PyTree[bool], inputs: Float[Array, "n d"]
) -> AbstractOperator:
    factors = _factors(network, inputs)
    blocks = jax.tree.leaves(factors, is_leaf=_is_factors)
    marks, structure = jax.tree.flatten(spec)
    parts = []
    for position, (mark, block) in enumerate(zip(marks, blocks, strict=True)):
        if mark and _is_factors(block):
            parts.append(_operator(block))
        elif mark:
            alone = [i == position for i in range(len(marks))]
            alone = jax.tree.unflatten(structure, alone)
            parts.append(AutodiffJacobian(*eqx.partition(network, alone), inputs))
    return parts[0] if len(parts) == 1 else HStack(tuple(parts))


@eqx.filter_jit
def _factors(network: AbstractNetwork, inputs: Array) -> PyTree:
    return network.factors(inputs)


def _is_factors(node: Any) -> bool:
    return isinstance(node, LayerFactors | GatedFactors)


def _operator(factors: LayerFactors | GatedFactors) -> AbstractOperator:
    if isinstance(factors, GatedFactors):
        if _equal_magnitudes(factors.outer):
            return GatedKhatriRao(
                factors.gates, factors.outer[0], factors.slopes, factors.input
            )
        factors = factors.dense()
    if factors.backprop.ndim == 2:
        return Kronecker(factors.backprop, factors.input)
    return KhatriRao(factors.backprop, factors.input)


def _equal_magnitudes(outer: Float[Array, "m k"]) -> bool:
    """Whether there is one output and all |v_l| are the same number, known now."""
    if outer.shape[0] != 1 or not is_concrete(outer):
        return False
    magnitudes = np.abs(np.asarray(outer[0]))
    return bool(magnitudes[0] > 0 and (magnitudes == magnitudes[0]).all())
