r"""What the conditions promise to gradient descent: steps, rates, path lengths.

$x^+ = x - \eta\nabla f(x)$; $L$ is a Lipschitz constant of the gradient, $d$ the
distance to the minimisers (or to $x^*$, for a condition at a fixed one). Premises must
hold where the iterates go; `certify_local_convergence` proves that they stay in a ball.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrelu.landscape.constants._implications import (
    error_bound_from_secant,
    pl_from_dominance,
    pl_from_error_bound,
    pl_from_quasi_strong,
)
from jaxrelu.landscape.constants._quadratic_conditions import (
    AbstractCondition,
    ErrorBound,
    GradientDominance,
    OnePointConvexity,
    PolyakLojasiewicz,
    QuadraticGrowth,
    QuasiStrongConvexity,
    RegularityCondition,
    RestrictedSecant,
    StrongConvexity,
)


Number = float | Float[Array, "..."]


class DescentRate(eqx.Module):
    """Contraction per step of gradient descent.

    Attributes:
        step: η.
        factor: of `quantity` per step at most; infinite for a step not allowed.
        step_limit: steps below it are allowed (for RC: up to it).
        best_step: the step of the smallest factor.
        best_factor: its factor.
        quantity: ``"gap"`` or ``"squared distance"``.
    """

    step: Float[Array, "..."]
    factor: Float[Array, "..."]
    step_limit: Float[Array, "..."]
    best_step: Float[Array, "..."]
    best_factor: Float[Array, "..."]
    quantity: str = eqx.field(static=True)

    def num_steps(self, reduction: Number) -> Float[Array, "..."]:
        r"""Steps after which at most ``reduction`` times `quantity` is left.

        Infinite where the factor is not below 1.
        """
        slope = jnp.log(jnp.clip(self.factor, jnp.finfo(self.factor.dtype).tiny, 1))
        asked = jnp.log(jnp.asarray(reduction, self.factor.dtype))
        return jnp.where(slope < 0, jnp.ceil(asked / slope), jnp.inf)


def descent_rate(
    condition: AbstractCondition,
    step: Number | None = None,
    smoothness: Number | None = None,
) -> DescentRate:
    r"""Allowed steps, factor per step and best step of gradient descent.

    * PL($\mu$), GD, QSC, EB with $L$: $\eta < 2/L$ contracts the gap by
      $1 - 2\mu\eta(1 - \eta L/2)$; best at $1/L$: $1 - \mu/L$.
    * RC($\alpha,\beta$): $\eta \le 2\alpha$ contracts $d^2$ by $1 - 2\eta\beta$; best
      at $2\alpha$: $1 - 4\alpha\beta$.
    * RSI($\nu$), OPC with $L$: $\eta < 2\nu/L^2$ contracts $d^2$ by
      $1 - 2\eta\nu + \eta^2L^2$; best at $\nu/L^2$: $1-\nu^2/L^2$.
    * SC($m$) with $L$, $f \in C^2$: $\eta < 2/L$ contracts $d^2$ by
      $\max(|1-\eta m|, |1-\eta L|)^2$; best at $2/(m+L)$.

    *Proofs.* PL: $f^+ \le f - \eta(1 - \eta L/2)g^2$, the descent lemma. RC, RSI:
    $d_+^2 \le |x^+ - x_p|^2 = d^2 - 2\eta u + \eta^2g^2$, with
    $u \ge \alpha g^2 + \beta d^2$, or $u \ge \nu d^2$ and $g \le Ld$. SC:
    $\nabla f(x) = \bar H(x - x^*)$ with an average Hessian $\bar H$, whose
    eigenvalues are in $[m, L]$.

    Args:
        condition: what holds where the iterates are.
        step: η; the best one by default.
        smoothness: L; needed for all but RC.

    Raises:
        ValueError: no smoothness, or quadratic growth, which promises nothing.
    """
    if isinstance(condition, RegularityCondition):
        alpha, beta = condition.alpha, condition.beta
        best = 2 * alpha
        eta = best if step is None else jnp.asarray(step, alpha.dtype)
        factor = jnp.where((eta > 0) & (eta <= best), 1 - 2 * eta * beta, jnp.inf)
        least = 1 - 4 * alpha * beta
        return DescentRate(eta, factor, best, best, least, "squared distance")
    if isinstance(condition, QuadraticGrowth) or smoothness is None:
        got = "no smoothness" if smoothness is None else "quadratic growth"
        msg = (
            f"descent_rate was given {got}; expected RegularityCondition, or another "
            "condition and a Lipschitz constant of the gradient, smoothness=L. "
            "Quadratic growth alone promises no rate."
        )
        raise ValueError(msg)
    if isinstance(condition, StrongConvexity):
        low = condition.mu
        high = jnp.asarray(smoothness, low.dtype)
        rate = lambda eta: jnp.maximum(jnp.abs(1 - eta * low), jnp.abs(1 - eta * high))
        return _rate(
            step, 2 / high, 2 / (low + high), lambda e: rate(e) ** 2, "squared distance"
        )
    if isinstance(condition, RestrictedSecant | OnePointConvexity):
        nu = condition.nu
        high = jnp.asarray(smoothness, nu.dtype)
        return _rate(
            step,
            2 * nu / high**2,
            nu / high**2,
            lambda eta: 1 - 2 * eta * nu + (eta * high) ** 2,
            "squared distance",
        )
    mu = _pl(condition, smoothness).mu
    high = jnp.asarray(smoothness, mu.dtype)
    return _rate(
        step,
        2 / high,
        1 / high,
        lambda eta: 1 - 2 * mu * eta * (1 - eta * high / 2),
        "gap",
    )


def _rate(step, limit, best, factor, quantity) -> DescentRate:
    eta = best if step is None else jnp.asarray(step, limit.dtype)
    at = jnp.where((eta > 0) & (eta < limit), factor(eta), jnp.inf)
    return DescentRate(eta, at, limit, best, factor(best), quantity)


def _pl(condition: AbstractCondition, smoothness: Number) -> PolyakLojasiewicz:
    if isinstance(condition, GradientDominance):
        return pl_from_dominance(condition)
    if isinstance(condition, QuasiStrongConvexity):
        return pl_from_quasi_strong(condition)
    if isinstance(condition, RestrictedSecant):
        condition = error_bound_from_secant(condition)
    if isinstance(condition, ErrorBound):
        return pl_from_error_bound(condition, smoothness)
    if isinstance(condition, PolyakLojasiewicz):
        return condition
    msg = (
        f"no rate is known for a {type(condition).__name__}; expected PL, for example."
    )
    raise TypeError(msg)


def flow_gap(gap: Number, mu: Number, time: Number) -> Float[Array, "..."]:
    r"""Gradient flow under PL($\mu$): $\Delta(t) \le e^{-2\mu t}\Delta(0)$."""
    return jnp.exp(-2 * jnp.asarray(mu) * time) * gap


def path_length(
    gap: Number, mu: Number, step: Number = 0.0, smoothness: Number = 0.0
) -> Float[Array, "..."]:
    r"""Length of the whole path under PL($\mu$): $\sqrt{2\Delta/\mu}/(1 - \eta L/2)$.

    *Proof.* For $0 \le t \le \eta$, $a = \Delta(x)$, $b = \Delta(x - t\nabla f)$:
    $a - b \ge t(1 - tL/2)g^2$, so $\sqrt a - \sqrt b \ge t(1-\eta L/2)g^2/2\sqrt a \ge
    tg(1 - \eta L/2)\sqrt{\mu/2}$ by $g \ge \sqrt{2\mu a}$. The lengths $tg$ sum up to
    at most $\sqrt a\sqrt{2/\mu}/(1-\eta L/2)$. $\square$ The flow is $\eta = 0$; at
    $\eta = 1/L$ it is the familiar $2\sqrt{2\Delta/\mu}$.

    Args:
        gap: Δ at the start.
        mu: μ > 0.
        step: η < 2/L; 0 for the gradient flow.
        smoothness: L.

    Returns:
        the bound, infinite for η ≥ 2/L.
    """
    mu = jnp.asarray(mu)
    slack = 1 - jnp.asarray(step, mu.dtype) * smoothness / 2
    length = jnp.sqrt(2 * gap / mu) / jnp.where(slack > 0, slack, 1)
    return jnp.where(slack > 0, length, jnp.inf)


def asymptotic_rate(
    step: Number,
    eigenvalues: Float[Array, " p"],
    excited: Bool[Array, " p"] | None = None,
    *,
    tolerance: float | None = None,
) -> Float[Array, ""]:
    r"""The limit of $\Delta_{k+1}/\Delta_k$: the largest $(1 - \eta\lambda)^2$.

    Over the excited $\lambda \ne 0$ at a limit point whose Hessian has the eigenvalues
    $\lambda$ and, as its kernel, the tangent space of the minimisers;
    $\eta < 2/\lambda_{\max}$.

    Args:
        step: η.
        eigenvalues: of the Hessian at the limit.
        excited: those along which the iterates approach; all by default.
        tolerance: eigenvalues below this times the largest are zero modes; by default
            1e-9, or 4p epsilons where that is more.

    Returns:
        the factor of the gap, NaN where nothing is excited.
    """
    nonzero = nonzero_modes(eigenvalues, tolerance)
    if excited is not None:
        nonzero &= excited
    rates = jnp.where(nonzero, (1 - step * eigenvalues) ** 2, -jnp.inf)
    return jnp.where(jnp.any(nonzero), jnp.max(rates), jnp.nan)


def nonzero_modes(
    eigenvalues: Float[Array, " p"], tolerance: float | None = None
) -> Bool[Array, " p"]:
    r"""Which eigenvalues exceed `tolerance` times the largest in size."""
    if tolerance is None:
        eps = float(jnp.finfo(eigenvalues.dtype).eps)
        tolerance = max(1e-9, 4 * eigenvalues.shape[0] * eps)
    size = jnp.abs(eigenvalues)
    return size > tolerance * jnp.max(size)


class LocalConvergence(eqx.Module):
    r"""Whether gradient descent provably stays in a ball and converges there.

    Attributes:
        certified: whether the premises hold; then $\Delta_k \le$ `factor`$^k\Delta_0$,
            all iterates stay in the ball and $\|x_k - x_\infty\| \le$ `length` ·
            `factor`$^{k/2}$.
        length: bound on the length of the path: the radius that is needed.
        margin: radius / length; certified when at least 1 and the step is allowed.
        factor: of the gap per step.
        step: η.
    """

    certified: Bool[Array, "..."]
    length: Float[Array, "..."]
    margin: Float[Array, "..."]
    factor: Float[Array, "..."]
    step: Float[Array, "..."]


def certify_local_convergence(
    gap: Number,
    mu: Number,
    smoothness: Number,
    radius: Number,
    step: Number | None = None,
) -> LocalConvergence:
    r"""From PL on a ball: gradient descent stays in it and converges linearly.

    **Theorem.** Let PL($\mu$) hold on $B = B(x_0, R)$ and $\nabla f$ be $L$-Lipschitz
    on the part of $B$ where $f \le f(x_0)$ (so the descent lemma holds along the
    steps), $0 < \eta < 2/L$, and $\ell = \sqrt{2\Delta_0/\mu}/(1-\eta L/2) \le R$. Then
    all iterates stay in $B$, $\Delta_k \le (1 - 2\mu\eta(1-\eta L/2))^k\Delta_0$, and
    $x_k \to x_\infty \in X^* \cap B$ with $\|x_k - x_\infty\| \le
    \sqrt{2\Delta_k/\mu}/(1-\eta L/2)$.

    *Proof.* As long as the iterates and the segments between them are in $B$, the bound
    of `path_length` holds; the first point of a segment outside would lie at a length
    beyond $\ell \le R$ from $x_0$. The length is finite, so there is a limit, where
    $\Delta = 0$. $\square$ For $\eta = 1/L$: $2\sqrt{2\Delta_0/\mu} \le R$. Shorter
    steps need a smaller ball, down to $\sqrt{2\Delta_0/\mu}$.

    Arguments may be arrays, one entry for each radius: $\mu$ falls and $L$ grows with
    it, and one entry that is certified is enough. The conclusion is as rigorous as
    $\mu$ and $L$ are; rounding of the formula is not enclosed.

    Args:
        gap: $\Delta_0 = f(x_0) - f^*$ with $f^* = \inf f$.
        mu: PL constant on the ball; 0 certifies nothing.
        smoothness: L.
        radius: R.
        step: η; 1/L by default.
    """
    mu = jnp.asarray(mu)
    mu = mu.astype(jnp.result_type(float)) if mu.dtype.kind != "f" else mu
    high = jnp.asarray(smoothness, mu.dtype)
    gap, radius = jnp.asarray(gap, mu.dtype), jnp.asarray(radius, mu.dtype)
    positive = jnp.where(mu > 0, mu, 1)
    rate = descent_rate(PolyakLojasiewicz(positive), step, high)
    length = path_length(gap, positive, rate.step, high)
    length = jnp.where((gap > 0) & (mu <= 0), jnp.inf, length)
    allowed = (mu > 0) & (rate.step > 0) & (rate.step < rate.step_limit)
    margin = radius / jnp.where(length > 0, length, 1)
    margin = jnp.where(length > 0, margin, jnp.inf)
    certified = allowed & (length <= radius)
    factor = jnp.where(allowed, rate.factor, jnp.inf)
    return LocalConvergence(certified, length, margin, factor, rate.step)
