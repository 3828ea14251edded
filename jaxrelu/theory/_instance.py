r"""The numbers through which data and an activation enter the theorems."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import as_floating, check_finite, check_rank, is_concrete
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.activations import (
    AbstractActivation,
    dual_kernel_estimate,
    hermite_coefficients,
    variance,
)
from jaxrelu.data import Dataset, check_unit_rows
from jaxrelu.networks import Shallow, check_inputs
from jaxrelu.spectra import extreme
from jaxrelu.theory._conditions import Scalar


def derivative_coefficient(
    activation: AbstractActivation, order: int, dtype: Any = None
) -> Scalar:
    r"""$c_r = E[\varphi'(g)\, h_r(g)]$, $h_r = He_r/\sqrt{r!}$; $c_1 = \mu_\varphi$.

    Exactly 0 where the quadrature cannot tell it from 0, as for odd r and even φ'.

    Args:
        activation: φ.
        order: r.
        dtype: floating dtype; None takes JAX's default.
    """
    all_of_them = hermite_coefficients(activation, order, 1, dtype=dtype)
    value, error = all_of_them.value[order], all_of_them.error[order]
    return jnp.where(jnp.abs(value) <= error, jnp.zeros_like(value), value)


def spectral_norm(inputs: Any) -> Estimate:
    r"""$\|X\|$, the largest singular value of the data matrix."""
    return extreme(as_inputs(inputs)).largest


def covariance_smallest(activation: AbstractActivation, inputs: Any) -> Estimate:
    r"""$\lambda(X) = \lambda_{\min}(\Sigma(X))$ of the neural net covariance.

    $\Sigma(X) = E_w[\varphi'(Xw)\varphi'(Xw)^\top] \circ (XX^\top)$, see
    `jaxrelu.operators.neural_covariance`. The error holds that of the dual kernel's
    entries (by Weyl's inequality and the Frobenius norm) and of the eigenvalue.

    Args:
        activation: φ.
        inputs: X, (n, d), rows of any norm.

    Raises:
        TypeError: inputs that are not floating.
        ValueError: wrong shape, NaN or infinity.

    Cost: that of $\Sigma(X)$, $O(n^2 d)$, and $O(n^3)$.
    """
    x = as_inputs(inputs)
    return smallest_eigenvalue(_covariance(activation, x))


def khatri_rao_smallest(inputs: Any, power: int = 2) -> Estimate:
    r"""$\sigma_{\min}^2(X^{*r}) = \lambda_{\min}((XX^\top)^{\circ r})$.

    $X^{*r}$ has rows $x_i^{\otimes r}$; $r = 2$ is $X * X$. Exactly 0 when n exceeds
    $\binom{d+r-1}{r}$, the dimension of the symmetric tensors.

    Args:
        inputs: X, (n, d).
        power: r, at least 1.

    Raises:
        TypeError: inputs that are not floating.
        ValueError: wrong shape, NaN or infinity.
    """
    x = as_inputs(inputs)
    n, d = x.shape
    if n > math.comb(d + power - 1, power):
        zero = jnp.zeros((), x.dtype)
        return Estimate(
            value=zero,
            error=zero,
            result=RESULTS.successful,  # pyright: ignore[reportArgumentType]
            error_kind="exact",
            method=f"0, as n exceeds the rank of the entrywise power {power}",
        )
    return smallest_eigenvalue(_power(x, power))


@eqx.filter_jit
def _covariance(activation: AbstractActivation, x: Array) -> Estimate:
    kernel = dual_kernel_estimate(activation, x, derivative=1)
    products, off = _products(x)
    return Estimate(
        value=kernel.value * products,
        error=kernel.error * jnp.abs(products) + jnp.abs(kernel.value) * off,
        result=kernel.result,
        error_kind=kernel.error_kind,
        method=kernel.method,
    )


@eqx.filter_jit
def _power(x: Array, power: int) -> Estimate:
    products, off = _products(x)
    return Estimate(
        value=products**power,
        error=power * jnp.abs(products) ** (power - 1) * off,
        result=RESULTS.successful,  # pyright: ignore[reportArgumentType]
        error_kind="rounding bound",
        method=f"entrywise power {power}",
    )


def _products(x: Array) -> tuple[Array, Array]:
    """XX^T and a bound on the rounding of its entries."""
    products = jnp.matmul(x, x.T, precision=jax.lax.Precision.HIGHEST)
    lengths = jnp.sqrt(jnp.sum(x * x, axis=1))
    eps = float(jnp.finfo(x.dtype).eps)
    return products, (x.shape[1] + 2) * eps * lengths[:, None] * lengths[None, :]


def smallest_eigenvalue(matrix: Estimate) -> Estimate:
    r"""$\lambda_{\min}$ of a symmetric matrix whose entries carry errors (Weyl)."""
    end = extreme(lx.MatrixLinearOperator(matrix.value, lx.symmetric_tag)).smallest
    error = end.error + jnp.sqrt(jnp.sum(matrix.error**2))
    lost = RESULTS.where(
        error >= jnp.abs(end.value),
        RESULTS.unresolved,
        RESULTS.successful,  # pyright: ignore[reportArgumentType]
    )
    rounding = matrix.error_kind == "rounding bound"
    return Estimate(
        value=end.value,
        error=error,
        result=RESULTS.where(end.result == RESULTS.successful, lost, end.result),
        error_kind=end.error_kind if rounding else matrix.error_kind,
        method=f"{matrix.method}; {end.method}",
    )


def lower(estimate: Estimate) -> Scalar:
    """The lower end of an estimate of a non-negative number."""
    return jnp.maximum(estimate.value - estimate.error, 0)


def upper(estimate: Estimate) -> Scalar:
    """The upper end of an estimate."""
    return estimate.value + estimate.error


class Instance(eqx.Module):
    r"""What the theorems need to know of data $X$ and activation φ.

    Attributes:
        norm: $\|X\|$.
        covariance_min: $\lambda(X)$.
        khatri_rao_min: $\sigma_{\min}^2(X * X)$.
        mu: $\mu_\varphi = E[g \varphi'(g)]$.
        variance: $\operatorname{Var}\varphi(g)$.
        B1: $\sup|\varphi'|$.
        B2: $\sup|\varphi''|$, infinite where φ' jumps.
        activation: φ.
        n: samples.
        d: input dimension.
    """

    norm: Estimate
    covariance_min: Estimate
    khatri_rao_min: Estimate
    mu: Scalar
    variance: Scalar
    B1: Scalar
    B2: Scalar
    activation: AbstractActivation
    n: int = eqx.field(static=True)
    d: int = eqx.field(static=True)

    @property
    def kappa(self) -> Scalar:
        r"""$\kappa(X)$, which measures how the data resist.

        $\sqrt{d/n}\,\|X\|/\sigma_{\min}^2(X*X)$ for smooth φ,
        $\sqrt{d/n}\,\|X\|^3/\lambda(X)^2$ for piecewise linear φ. Recalled from the
        paper; the form is confirmed by the derivations of this room.
        """
        scale = (self.d / self.n) ** 0.5
        if jumps(self.activation):
            lam = self.covariance_min.value
            return scale * self.norm.value**3 / lam**2
        return scale * self.norm.value / self.khatri_rao_min.value

    @property
    def hermite_bound(self) -> Scalar:
        r"""$\mu_\varphi^2 \sigma_{\min}^2(X*X) \le \lambda(X)$, unit rows only."""
        return self.mu**2 * self.khatri_rao_min.value


def instance(activation: AbstractActivation, inputs: Any) -> Instance:
    r"""Gathers the constants of (φ, X) once.

    Args:
        activation: φ.
        inputs: X, (n, d).

    Raises:
        TypeError: inputs that are not floating.
        ValueError: wrong shape, NaN or infinity.

    Cost: $O(n^2 d + n^3)$.
    """
    x = as_inputs(inputs)

    def scalar(value):
        return jnp.asarray(value, x.dtype)

    return Instance(
        norm=spectral_norm(x),
        covariance_min=covariance_smallest(activation, x),
        khatri_rao_min=khatri_rao_smallest(x),
        mu=derivative_coefficient(activation, 1, x.dtype),
        variance=variance(activation, dtype=x.dtype).value,
        B1=scalar(activation.derivative_bound),
        B2=scalar(bend_bound(activation)),
        activation=activation,
        n=x.shape[0],
        d=x.shape[1],
    )


def jumps(activation: AbstractActivation) -> bool:
    """Whether φ' jumps at 0: piecewise linear and not known to be linear."""
    slopes = activation.slopes
    if slopes is None:
        return False
    known = all(not isinstance(s, jax.Array) or is_concrete(s) for s in slopes)
    return not known or float(slopes[0]) != float(slopes[1])


def bend_bound(activation: AbstractActivation) -> Any:
    """B₂, the Lipschitz constant of φ': 0 for equal slopes on both sides."""
    straight = activation.slopes is not None and not jumps(activation)
    return 0.0 if straight else activation.second_derivative_bound


def kink(activation: AbstractActivation, dtype: Any = None) -> Scalar:
    """|t - s| for the slopes s, t of a piecewise linear φ; 1 for ReLU.

    Raises:
        ValueError: an activation that is not piecewise linear.
    """
    if activation.slopes is None:
        msg = (
            f"{activation.name} is not piecewise linear; its Jacobian is bounded by "
            "jacobian_lipschitz_bound."
        )
        raise ValueError(msg)
    dtype = jnp.zeros((), dtype).dtype
    low, high = (jnp.asarray(slope, dtype) for slope in activation.slopes)
    return jnp.abs(high - low)


def as_inputs(inputs: Any) -> Float[Array, "n d"]:
    """Floating finite (n, d) inputs, or a clear refusal."""
    x = as_floating(inputs, "inputs")
    check_rank(x, 2, "inputs", "(n, d)")
    check_finite(x, "inputs")
    return x


def check_problem(network: Any, data: Any, *, unit: bool, nonzero: bool) -> None:
    """Refuses what is not a scalar shallow network on fitting data.

    Args:
        network: should be a `Shallow` with one output.
        data: should be a `Dataset` with targets (n,).
        unit: rows must have unit length and no two be equal.
        nonzero: the targets must not all be 0.
    """
    if not isinstance(network, Shallow):
        msg = (
            f"network is a {type(network).__name__}; the theorem is about one hidden "
            "layer without biases. Use jaxrelu.Shallow."
        )
        raise TypeError(msg)
    if not isinstance(data, Dataset):
        msg = (
            f"data is a {type(data).__name__}; expected a data set. Wrap the arrays: "
            "jaxrelu.data.Dataset(inputs, targets)."
        )
        raise TypeError(msg)
    if network.out_size is not None or data.targets.ndim != 1:
        msg = (
            f"outer has shape {network.outer.shape} and targets {data.targets.shape}; "
            "the theorem is about one scalar output, outer (k,) and targets (n,). "
            "Take one output at a time, for example network.outer[0]."
        )
        raise ValueError(msg)
    check_inputs(network, data.inputs)
    if network.inner.dtype != data.inputs.dtype:
        msg = (
            f"the network is {network.inner.dtype} and the data {data.inputs.dtype}; "
            f"expected one dtype. Use data.astype('{network.inner.dtype}')."
        )
        raise ValueError(msg)
    if unit:
        check_unit_rows(data.inputs)
        _check_distinct_rows(data.inputs)
    if nonzero and is_concrete(data.targets) and not np.any(np.asarray(data.targets)):
        msg = (
            "all targets are 0; the theorem scales the outer weights by ||y||, which "
            "must not vanish. Use other targets, or certify_convergence."
        )
        raise ValueError(msg)


def _check_distinct_rows(inputs: Array) -> None:
    if not is_concrete(inputs):
        return
    host = np.asarray(inputs)
    distinct = len(np.unique(host, axis=0))
    if distinct < len(host):
        msg = (
            f"inputs has {len(host) - distinct} rows that repeat others; expected "
            "distinct rows, because two equal ones with different targets cannot both "
            "be fitted (λ(X) = 0). Use data.drop_duplicates()."
        )
        raise ValueError(msg)
