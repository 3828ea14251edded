"""Jacobian Gram matrices in expectation over random weights."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrelu._checks import as_floating, check_finite
from jaxrelu._products import matmul
from jaxrelu.activations import AbstractActivation, dual_kernel
from jaxrelu.networks import Shallow, check_inputs, where_spec
from jaxrelu.operators._interface import require_matrix_bytes


def neural_covariance(
    activation: AbstractActivation, inputs: Any
) -> Float[Array, "n n"]:
    r"""$\Sigma(X) = E_w[\varphi'(Xw)\varphi'(Xw)^\top] \circ (XX^\top)$.

    Here $w \sim N(0, I_d)$. The neural net covariance of Oymak & Soltanolkotabi,
    $H^\infty$ of Du et al. for ReLU. Its smallest eigenvalue is their $\lambda(X)$.

    Args:
        activation: φ.
        inputs: X, (n, d), rows of any norm.

    Raises:
        TypeError: inputs that are not floating.
        ValueError: wrong shape, NaN or infinity.

    Cost: 2n²d operations and n² evaluations of the dual kernel of φ'.
    """
    inputs = as_floating(inputs, "inputs")
    check_finite(inputs, "inputs")
    n = inputs.shape[0]
    require_matrix_bytes((n, 4 * n), inputs.dtype, "a covariance and its parts")
    return _covariance(activation, inputs)


@eqx.filter_jit
def _covariance(activation: AbstractActivation, inputs: Array) -> Array:
    return dual_kernel(activation, inputs, derivative=1) * matmul(inputs, inputs.T)


def expected_gram(
    network: Shallow, inputs: Any, where: Callable | None = None
) -> Float[Array, "rows rows"]:
    r"""$E[J J^\top]$ over inner weights iid $N(0, 1)$, outer weights as they are.

    For the inner weights $(VV^\top)$ weighs the outputs: the entry of samples i, j and
    outputs o, q is $(VV^\top)_{oq}\,\Sigma(X)_{ij}$; with one output this is
    $\|v\|_2^2\, \Sigma(X)$. For the outer weights it is
    $k\,\delta_{oq}\,E[\varphi(w \cdot x_i)\varphi(w \cdot x_j)]$. Rows are ordered as
    those of `jacobian`.

    Args:
        network: its width, outer weights and activation are used, `inner` is not.
        inputs: (n, d).
        where: the trained leaves, as for `jacobian`.

    Raises:
        TypeError: inputs that are not floating.
        ValueError: inputs that do not fit, or a trained leaf that is not a weight.
    """
    inputs = as_floating(inputs, "inputs")
    check_finite(inputs, "inputs")
    check_inputs(network, inputs)
    spec = where_spec(network, where)
    if any(jax.tree.leaves(spec.activation)):
        msg = "`where` selects a leaf of the activation; expected inner or outer only."
        raise ValueError(msg)
    rows = inputs.shape[0] * (network.out_size or 1)
    require_matrix_bytes((rows, 4 * rows), inputs.dtype, "an expected Gram matrix")
    return _expected(network, inputs, bool(spec.inner), bool(spec.outer))


@eqx.filter_jit
def _expected(network: Shallow, inputs: Array, inner: bool, outer: bool) -> Array:
    last = network.outer if network.outer.ndim == 2 else network.outer[None]
    m, k = last.shape
    n = inputs.shape[0]
    total = jnp.zeros((n * m, n * m), inputs.dtype)
    if inner:
        total = total + jnp.kron(
            _covariance(network.activation, inputs), matmul(last, last.T)
        )
    if outer:
        kernel = dual_kernel(network.activation, inputs)
        total = total + k * jnp.kron(kernel, jnp.eye(m, dtype=inputs.dtype))
    return total
