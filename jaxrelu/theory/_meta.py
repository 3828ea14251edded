r"""Convergence from the Jacobian alone: the theorems under all the others.

Notation: $r(\theta) = f(\theta) - y$, $L(\theta) = \|r\|^2/2$, $J$ the Jacobian of $f$,
$D$ the ball of radius $R$ around $\theta_0$. The assumptions are

* A1: $\alpha \le \sigma_{\min}(J(\theta)) \le \|J(\theta)\| \le \beta$ on $D$;
* A2(b): $\|J(\theta') - J(\theta)\| \le \ell \|\theta' - \theta\|$ on $D$, or
* A2(a): $\|J(\theta') - J(\theta)\| \le$ a threshold on $D$.

Each function takes the constants, returns a `Report`, and leaves it to the caller that
A1 and A2 hold on the ball of the report's radius. Sources: Oymak & Soltanolkotabi,
"Overparameterized nonlinear learning: gradient descent takes the shortest path?"
(arXiv 1812.10004v1, called S1 here), read there; what is sharper is proved below.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrelu._checks import check_positive, is_concrete
from jaxrelu.theory._conditions import Condition, Prediction, Report, Scalar


def scalars(*values: Any) -> tuple[Scalar, ...]:
    """The values as 0-d arrays of one floating dtype, that of the arrays among them."""
    arrays = [v for v in values if isinstance(v, jax.Array)]
    dtype = jnp.result_type(*arrays) if arrays else jnp.zeros(()).dtype
    return tuple(jnp.asarray(v, dtype) for v in values)


def check_fraction(value: Any, name: str, *, one: bool = True) -> None:
    """Raises `ValueError` unless a known ``value`` lies in (0, 1], or in (0, 1)."""
    if not is_concrete(value):
        return
    if not (0 < float(value) <= 1) or (float(value) == 1 and not one):
        ends = "(0, 1]" if one else "(0, 1)"
        msg = f"{name} is {float(value)}; expected a number in {ends}."
        raise ValueError(msg)


def check_not_negative(**values: Any) -> None:
    """Raises `ValueError` for a known value below 0."""
    for name, value in values.items():
        if value is not None and is_concrete(value) and float(value) < 0:
            msg = (
                f"{name} is {float(value)}; expected a number of at least 0: it bounds "
                "a norm."
            )
            raise ValueError(msg)


def _steps(eta: Scalar, largest: Scalar, *norms: Scalar) -> tuple[Condition, Condition]:
    """The step allowed: none where what should bound a norm is negative, or NaN."""
    known = jnp.all(jnp.stack(norms) >= 0)
    largest = jnp.where(known, largest, jnp.nan)
    return (
        Condition(eta, jnp.zeros_like(eta), "η > 0", ">"),
        Condition(eta, largest, "η ≤ largest allowed step", "<="),
    )


def gradient_descent_bounds(
    alpha: Any,
    beta: Any,
    initial_residual: Any,
    *,
    lipschitz: Any = None,
    deviation: Any = None,
    contraction: Any = 0.5,
    step_size: Any = None,
    sharp: bool = False,
) -> Report:
    r"""Gradient descent under A1 and A2.

    With $\lambda$ = ``contraction``, $\zeta = (\lambda - \eta\beta^2/2)\,\alpha$ and
    $R = \|r_0\|/\zeta$, all iterates stay in $D$ and

    * $\|r_t\|^2 \le (1 - \lambda\eta\alpha^2)^t \|r_0\|^2$ (squared norms);
    * $\|r_t\| + \zeta \sum_{s<t}\|\theta_{s+1}-\theta_s\|$ does not increase, so the
      path is no longer than $R$;
    * every interpolant in $D$ is at distance at least $\|r_0\|/\beta$; distance and
      path are at most $\beta/\zeta$ times that of the closest one.

    The step must satisfy $0 < \eta \le \lambda/\beta^2$ and, under A2(b)
    (``lipschitz``), $\eta \le 2(1-\lambda)\alpha^2/(\beta^2 \ell \|r_0\|)$. Under A2(a)
    (``deviation``) the threshold is $(1-\lambda)\alpha^2/\beta$. This is the general
    form, Theorem 9.3 of S1; $\lambda = 1/2$, $\eta \le 1/(2\beta^2)$ gives its Theorem
    2.1 with $R = 4\|r_0\|/\alpha$.

    ``sharp=True`` replaces the threshold by $(1-\lambda)\,\alpha$ and the second bound
    on the step by $2(1-\lambda)/(\ell\|r_0\|)$; the conclusions are the same. Proof:
    $r_{t+1} = (I - \eta\bar J J^\top) r_t$ with $J = J(\theta_t)$ and $\bar J$ the mean
    of $J$ over the segment to $\theta_{t+1}$. As $\|J^\top r\| \ge \alpha\|r\|$,
    $$ r^\top \bar J J^\top r \ge \|J^\top r\|^2 - \|\bar J - J\|\,\|r\|\,\|J^\top r\|
       \ge \lambda \|J^\top r\|^2 $$
    once $\|\bar J - J\| \le (1-\lambda)\alpha$; under A2(b) the left side is at most
    $\ell\eta\|J^\top r\|/2$ and $\ell\eta\|r\|/2 \le 1-\lambda$ is enough. With
    $\|\bar J J^\top r\| \le \beta\|J^\top r\|$,
    $$ \|r_{t+1}\|^2 \le \|r_t\|^2
       - (2\lambda - \eta\beta^2)\,\eta\,\|J^\top r_t\|^2 .$$
    The rate follows with $\eta\beta^2 \le \lambda$ and
    $\|J^\top r\| \ge \alpha \|r\|$. Its square root is
    $\|r_{t+1}\| \le \|r_t\| - \zeta\,\eta\|J^\top r_t\|$, the second claim; and since
    $\eta\|J^\top r_t\| \le \eta\beta\|r_t\| \le \|r_t\|/\zeta$ the segment is still in
    $D$ (induction on $t$).

    Args:
        alpha: $\alpha$.
        beta: $\beta$.
        initial_residual: $\|r_0\|$.
        lipschitz: $\ell$ of A2(b); 0 for a linear model.
        deviation: the left side of A2(a); one of the two is needed.
        contraction: $\lambda$ in (0, 1]; below 1 under A2(b) unless $\ell$ is 0.
        step_size: $\eta$; the largest allowed one if None.
        sharp: use the weaker assumption above.

    Raises:
        ValueError: neither or both of the two assumptions, $\lambda$ outside (0, 1],
            a negative $\ell$, deviation or residual.
    """
    if (lipschitz is None) == (deviation is None):
        msg = (
            "expected one of lipschitz (A2(b)) and deviation (A2(a)); got "
            f"{'neither' if lipschitz is None else 'both'}."
        )
        raise ValueError(msg)
    check_fraction(contraction, "contraction")
    check_not_negative(
        initial_residual=initial_residual, lipschitz=lipschitz, deviation=deviation
    )
    bend = lipschitz if deviation is None else deviation
    alpha, beta, r0, bend = scalars(alpha, beta, initial_residual, bend)
    largest = contraction / beta**2
    slack = 1 - contraction
    conditions = [
        Condition(alpha, jnp.zeros_like(alpha), "α > 0", ">"),
        Condition(alpha, beta, "α ≤ β", "<="),
    ]
    if deviation is None:
        pull = bend * r0
        cap = 2 * slack * (1.0 if sharp else (alpha / beta) ** 2)
        second = jnp.where(pull > 0, cap / jnp.where(pull > 0, pull, 1), jnp.inf)
        largest = jnp.minimum(largest, second)
    else:
        threshold = slack * alpha * (1 if sharp else alpha / beta)
        words = "sup ‖J(θ')-J(θ)‖ ≤ (1-λ)α" + ("" if sharp else "²/β")
        conditions.append(Condition(bend, threshold, words, "<="))
    eta = largest if step_size is None else jnp.asarray(step_size, alpha.dtype)
    conditions.extend(_steps(eta, largest, bend, r0))
    slope = (contraction - eta * beta**2 / 2) * alpha
    radius = r0 / slope
    return Report(
        conditions=tuple(conditions),
        constants={
            "α": alpha,
            "β": beta,
            "ℓ" if deviation is None else "sup ‖J(θ')-J(θ)‖": bend,
            "λ": jnp.asarray(contraction, alpha.dtype),
            "path / distance to closest optimum, at most": beta / slope,
        },
        prediction=Prediction(
            step_size=eta,
            log_rate=jnp.log1p(-contraction * eta * alpha**2),
            initial_residual=r0,
            radius=radius,
            path_length=radius,
            slope=slope,
            min_distance=r0 / beta,
            probability=jnp.ones_like(alpha),
        ),
        title="Gradient descent under A1 and A2" + (", sharp" if sharp else ""),
        method=(
            "proved in the docstring, after S1" if sharp else "read in S1, Theorem 9.3"
        ),
        hypotheses=("A1 and A2 with these constants on the ball of this radius",),
    )


def gradient_flow_bounds(alpha: Any, beta: Any, initial_residual: Any) -> Report:
    r"""Gradient flow $\dot\theta = -\nabla L$ under A1 alone.

    The limit $\eta \to 0$, $\lambda \to 1$ of `gradient_descent_bounds`:
    $\frac{d}{dt}\|r\| = -\|J^\top r\|^2/\|r\| \le -\alpha\|\dot\theta\|$, hence
    $\|r(t)\| + \alpha \cdot$ path $\le \|r_0\|$, $R = \|r_0\|/\alpha$ and
    $\|r(t)\|^2 \le e^{-2\alpha^2 t}\|r_0\|^2$.

    Args:
        alpha: $\alpha$.
        beta: $\beta$, for the lower bound on the distance only.
        initial_residual: $\|r_0\|$.

    Raises:
        ValueError: a negative residual.
    """
    check_not_negative(initial_residual=initial_residual)
    alpha, beta, r0 = scalars(alpha, beta, initial_residual)
    return Report(
        conditions=(
            Condition(alpha, jnp.zeros_like(alpha), "α > 0", ">"),
            Condition(alpha, beta, "α ≤ β", "<="),
        ),
        constants={"α": alpha, "β": beta},
        prediction=Prediction(
            step_size=None,
            log_rate=-2 * alpha**2,
            initial_residual=r0,
            radius=r0 / alpha,
            path_length=r0 / alpha,
            slope=alpha,
            min_distance=r0 / beta,
            probability=jnp.ones_like(alpha),
        ),
        title="Gradient flow under A1",
        method="proved in the docstring",
        hypotheses=("A1 with these constants on the ball of this radius",),
    )


def sgd_bounds(
    alpha: Any,
    beta: Any,
    row_norm: Any,
    initial_residual: Any,
    *,
    lipschitz: Any,
    n: int,
    p: int,
    nu: float = 3.0,
    step_size: Any = None,
) -> Report:
    r"""Stochastic gradient descent, one sample per step, under A1 and A2(b).

    Samples are drawn uniformly with replacement. With $R = \nu\|r_0\|/\alpha$,
    $\|J_i\| \le$ ``row_norm`` $= B$ on $D$ for every row, and
    $0 < \eta \le \alpha^2/(\nu\beta^2B^2 + \nu\beta B\ell\|r_0\|)$ there is an event
    $E$ of probability at least $1 - \frac4\nu(\beta/\alpha)^{1/p}$ on which no iterate
    leaves $D$, and $E[\|r_t\|^2 1_E] \le (1 - \eta\alpha^2/(2n))^t \|r_0\|^2$. This is
    Theorem 3.1(b) of S1 as read there; its packing argument is not repeated here. The
    probability is over the samples drawn, $\theta_0$ is given.

    Args:
        alpha: $\alpha$.
        beta: $\beta$.
        row_norm: $B$.
        initial_residual: $\|r_0\|$.
        lipschitz: $\ell$.
        n: number of samples.
        p: number of trained parameters.
        nu: $\nu \ge 3$.
        step_size: $\eta$; the largest allowed one if None.

    Raises:
        ValueError: a negative B, $\ell$ or residual, $\nu$ not positive.
    """
    check_positive(nu, "nu")
    check_not_negative(
        row_norm=row_norm, initial_residual=initial_residual, lipschitz=lipschitz
    )
    alpha, beta, row, r0, bend, nu_, three = scalars(
        alpha, beta, row_norm, initial_residual, lipschitz, nu, 3.0
    )
    largest = alpha**2 / (nu * beta**2 * row**2 + nu * beta * row * bend * r0)
    eta = largest if step_size is None else jnp.asarray(step_size, alpha.dtype)
    floor = 1 - 4 / nu * jnp.exp(jnp.log(beta / alpha) / p)
    return Report(
        conditions=(
            Condition(alpha, jnp.zeros_like(alpha), "α > 0", ">"),
            Condition(alpha, beta, "α ≤ β", "<="),
            Condition(nu_, three, "ν ≥ 3", ">="),
            *_steps(eta, largest, row, bend, r0),
        ),
        constants={"α": alpha, "β": beta, "B": row, "ℓ": bend, "ν": nu_},
        prediction=Prediction(
            step_size=eta,
            log_rate=jnp.log1p(-eta * alpha**2 / (2 * n)),
            initial_residual=r0,
            radius=nu * r0 / alpha,
            path_length=None,
            slope=None,
            min_distance=r0 / beta,
            probability=jnp.maximum(floor, 0),
        ),
        title="Stochastic gradient descent under A1 and A2(b)",
        method="read in S1, Theorem 3.1(b)",
        hypotheses=("A1 and A2(b) with these constants on the ball of this radius",),
    )


def polyak_lojasiewicz_bounds(
    mu: Any, smoothness: Any, initial_loss: Any, *, step_size: Any = None
) -> Report:
    r"""Gradient descent under the Polyak-Łojasiewicz inequality.

    If $\|\nabla L\|^2 \ge 2\mu L$ and $\nabla L$ is $M$-Lipschitz on the ball of radius
    $\sqrt{8L_0/\mu}$ and $0 < \eta \le 1/M$, then $L_t \le (1-\eta\mu)^t L_0$ and
    the path is no longer than that radius: Theorem 5.2 of S1, as read there. In the
    terms of `Prediction`, $\|r_t\|^2 = 2L_t$.

    Args:
        mu: $\mu$.
        smoothness: $M$.
        initial_loss: $L_0$.
        step_size: $\eta$; $1/M$ if None.

    Raises:
        ValueError: a negative M or loss.
    """
    check_not_negative(smoothness=smoothness, initial_loss=initial_loss)
    mu, smoothness, loss = scalars(mu, smoothness, initial_loss)
    eta = 1 / smoothness if step_size is None else jnp.asarray(step_size, mu.dtype)
    radius = jnp.sqrt(8 * loss / mu)
    return Report(
        conditions=(
            Condition(mu, jnp.zeros_like(mu), "μ > 0", ">"),
            *_steps(eta, 1 / smoothness, smoothness, loss),
        ),
        constants={"μ": mu, "M": smoothness},
        prediction=Prediction(
            step_size=eta,
            log_rate=jnp.log1p(-eta * mu),
            initial_residual=jnp.sqrt(2 * loss),
            radius=radius,
            path_length=radius,
            slope=None,
            min_distance=None,
            probability=jnp.ones_like(mu),
        ),
        title="Gradient descent under the Polyak-Łojasiewicz inequality",
        method="read in S1, Theorem 5.2",
        hypotheses=("both inequalities with these constants on the ball",),
    )
