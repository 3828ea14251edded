"""Random features: the inner weights stay fixed and only the outer ones train."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from jaxrelu._checks import as_floating
from jaxrelu._results import Estimate
from jaxrelu.activations import AbstractActivation, dual_kernel_estimate
from jaxrelu.networks import Shallow
from jaxrelu.objectives import SquaredLoss
from jaxrelu.spectra import extreme
from jaxrelu.theory._conditions import Condition, Prediction, Report
from jaxrelu.theory._instance import (
    as_inputs,
    check_problem,
    lower,
    smallest_eigenvalue,
    upper,
)
from jaxrelu.theory._meta import check_fraction


def feature_covariance_smallest(
    activation: AbstractActivation, inputs: Any
) -> Estimate:
    r"""$\tilde\lambda(X)$, smallest eigenvalue of $E[\varphi(Xw)\varphi(Xw)^\top]$.

    For ReLU and unit rows the entries are
    $(\sin\theta + (\pi-\theta)\cos\theta)/2\pi$. For unit rows
    $\tilde\lambda(X) \ge \frac12\mu_\varphi^2\sigma_{\min}^2(X*X)$, the second Hermite
    coefficient of φ being $\mu_\varphi/\sqrt2$.

    Args:
        activation: φ.
        inputs: X, (n, d).
    """
    kernel = eqx.filter_jit(dual_kernel_estimate)(activation, as_inputs(inputs))
    return smallest_eigenvalue(kernel)


def random_features(network: Any, data: Any, *, step: float = 1.0) -> Report:
    r"""Gradient descent on v with W fixed: a least-squares problem.

    With $\Phi = \varphi(XW^\top)$, (n, k), $\eta = \bar\eta/\|\Phi\|^2$ and
    $\sigma = \sigma_{\min}(\Phi) > 0$ (so $k \ge n$ and some v interpolates):
    $\|r_t\| \le (1-\eta\sigma^2)^t\|r_0\|$, no iterate is further than
    $\|r_0\|/\sigma$ from the start, the path is at most
    $\|r_0\|/((1-\bar\eta/2)\,\sigma)$, and the limit is the interpolant closest to the
    start (from $v = 0$ that of least norm). Elementary:
    $r_{t+1} = (I-\eta\Phi\Phi^\top)r_t$ and
    $v_t - v_0 = \Phi^+(r_t - r_0)$.

    The paper's theorem, as recalled, promises $\sigma^2 \ge c\,k\tilde\lambda(X)$ once
    $k \ge C(\log n)^q n/\tilde\lambda(X)$; C, c and q are unconfirmed, so the report
    only gives $k\tilde\lambda/n$ and the measured $\sigma^2/(k\tilde\lambda)$, whose
    expectation over $W$ is at most 1.

    Args:
        network: a `Shallow`; v is the starting point.
        data: a `Dataset`, inputs of any norm, targets (n,).
        step: $\bar\eta$ in (0, 1].

    Raises:
        TypeError: not a `Shallow` or not a `Dataset`.
        ValueError: several outputs, shapes or dtypes that do not fit, step
            out of range.

    Cost: $O(nkd + n^2k + n^3)$.
    """
    check_fraction(step, "step")
    check_problem(network, data, unit=False, nonzero=False)
    n, k = data.n, network.width
    features = features_of(network, data.inputs)
    ends = extreme(lx.MatrixLinearOperator(features))
    # with k < n the n-th singular value is 0, though the k-th may not be
    sigma = lower(ends.smallest) * float(k >= n)
    largest = upper(ends.largest)
    kernel = feature_covariance_smallest(network.activation, data.inputs)
    residual = jnp.linalg.norm(SquaredLoss(data).residual(network))
    eta = step / largest**2
    slope = (1 - step / 2) * sigma
    width = jnp.asarray(k, sigma.dtype)
    return Report(
        conditions=(
            Condition(width, jnp.asarray(n, sigma.dtype), "k ≥ n", ">="),
            Condition(sigma, jnp.zeros_like(sigma), "σ_min(Φ) - error > 0", ">"),
        ),
        constants={
            "σ_min(Φ)": ends.smallest,
            "‖Φ‖": ends.largest,
            "λ~(X)": kernel,
            "σ_min²(Φ)/(kλ~)": sigma**2 / (k * kernel.value),
            "recalled form, kλ~/n": k * kernel.value / n,
        },
        prediction=Prediction(
            step_size=eta,
            log_rate=2 * jnp.log1p(-eta * sigma**2),
            initial_residual=residual,
            radius=residual / sigma,
            path_length=residual / slope,
            slope=slope,
            min_distance=residual / largest,
            probability=jnp.ones_like(sigma),
        ),
        title="Gradient descent on v, random features",
        method="elementary, proved in the docstring; the theorem on k is recalled only",
        hypotheses=(),
    )


def features_of(network: Shallow, inputs: Any) -> Any:
    r"""$\Phi = \varphi(XW^\top)$, (n, k).

    Args:
        network: W and φ.
        inputs: X, (n, d).
    """
    x = as_floating(inputs, "inputs")
    z = jnp.matmul(x, network.inner.T, precision=jax.lax.Precision.HIGHEST)
    return network.activation(z)
