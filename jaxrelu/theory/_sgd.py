"""Stochastic gradient descent on the inner weights, one sample per step."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from jaxrelu.theory._conditions import Condition, Report
from jaxrelu.theory._gradient_descent import (
    GAUSSIAN,
    even_ceil,
    setting,
    smooth_width,
)
from jaxrelu.theory._instance import jumps
from jaxrelu.theory._meta import check_fraction, scalars, sgd_bounds


def stochastic_gradient_descent(
    network: Any,
    data: Any,
    *,
    nu: float = 8.0,
    delta: float = 1.0,
    step: float = 1.0,
) -> Report:
    r"""When SGD on W stays near $W_0$ and converges in mean square; smooth φ.

    The setting of `moderate_overparameterization`; samples are drawn uniformly with
    replacement and $W \leftarrow W - \eta\,(f(x_i)-y_i)\nabla f(x_i)$. Derived here
    from Theorem 3.1 of S1 (see `sgd_bounds`): if k is even and
    $$ k \ge \max\left\{13.04\log(n)\,\frac{B_1^2\|X\|^2}{\lambda},\;
       \frac{(8\nu B_2C_0)^2\,n\|X\|^2}{\lambda^2}\right\},\qquad \nu \ge 3, $$
    then with probability at least $1-\frac1n-e^{-\delta^2n/(2\|X\|^2)}$ over $W_0$
    there is an event E over the samples drawn,
    $P(E) \ge 1 - \frac4\nu(\sqrt8B_1\|X\|/\sqrt\lambda)^{1/(kd)}$, on which no iterate
    leaves the ball of radius $R = \nu\|r_0\|/\alpha$, and for
    $\eta = \bar\eta\,\lambda n/(8(\nu+1)B_1^4\|y\|^2\|X\|^2)$
    $$ E[\|r_t\|^2 1_E] \le
       \left(1-\frac{\bar\eta\lambda^2}{128(\nu+1)\,n\,B_1^4\|X\|^2}\right)^t
       \|r_0\|^2 . $$

    Proof. $\alpha = \alpha_0/2$ with $\alpha_0^2 \ge \|y\|^2\lambda/(2n)$; rows of J
    have norm at most $B = B_1\|y\|/\sqrt n$. The second condition on k is
    $\alpha_0^2 \ge 4\nu\ell\|r_0\|$, hence $\ell R \le \alpha_0/2$ (A1 on the ball) and
    $\nu\ell\|r_0\| \le \alpha^2 \le \beta B$, so that $\eta$ is at most the
    $\alpha^2/(\nu\beta^2B^2+\nu\beta B\ell\|r_0\|)$ of `sgd_bounds`.

    In the report `prediction.probability` bounds the product of both events. Since
    $P(E) \ge 1 - 4/\nu - \dots$, $\nu \le 4$ says nothing about it.

    Args:
        network: $f$, a `Shallow`; its `inner` is used only for the measured $\|r_0\|$.
        data: a `Dataset` with unit rows, targets (n,).
        nu: ν, at least 3: larger is likelier and slower.
        delta: δ, as in `moderate_overparameterization`.
        step: $\bar\eta$ in (0, 1].

    Raises:
        TypeError: not a `Shallow` or not a `Dataset`.
        ValueError: as `moderate_overparameterization`; or an activation with a kink,
            for which no such theorem is known to us.
    """
    check_fraction(step, "step")
    at = setting(network, data, delta)
    if jumps(network.activation):
        msg = (
            f"the activation is {network.activation.name}, whose derivative jumps; the "
            "theorem needs a Lipschitz derivative. Use softplus or another smooth one."
        )
        raise ValueError(msg)
    case, n, norm, lam = at.case, at.case.n, at.norm, at.lam
    width = smooth_width(case.B1, case.B2, n, norm, lam, delta, nu)
    alpha = at.targets * jnp.sqrt(lam / (8 * n))
    row = case.B1 * at.targets / n**0.5
    beta = row * norm
    meta = sgd_bounds(
        alpha,
        beta,
        row,
        at.residual,
        lipschitz=case.B2 * at.targets * norm / (at.k * n) ** 0.5,
        n=n,
        p=at.k * case.d,
        nu=nu,
        step_size=step * alpha**2 / ((nu + 1) * (beta * row) ** 2),
    )
    at_start = at.chernoff_failure + at.misfit_failure
    probability = meta.prediction.probability * jnp.maximum(1 - at_start, 0)
    nu_, three = scalars(jnp.asarray(nu, lam.dtype), 3.0)
    constants: dict[str, Any] = {
        **at.constants(),
        "ν": nu_,
        "required width": even_ceil(jnp.maximum(at.chernoff_width, width)),
        "P(E) at least, given W₀": meta.prediction.probability,
    }
    return Report(
        conditions=(
            *at.conditions,
            Condition(nu_, three, "ν ≥ 3", ">="),
            at.wide_enough(at.chernoff_width, "k ≥ 13.04 log(n) B₁²‖X‖²/λ"),
            at.wide_enough(width, "k ≥ (8ν B₂ C₀)² n ‖X‖²/λ²"),
        ),
        constants=constants,
        prediction=eqx.tree_at(
            lambda prediction: prediction.probability, meta.prediction, probability
        ),
        title="Stochastic gradient descent on W, smooth activation",
        method="proved in the docstring from Theorem 3.1 of S1",
        hypotheses=(GAUSSIAN, "samples are drawn uniformly with replacement"),
    )
