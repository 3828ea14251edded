r"""Moderate overparameterisation: gradient descent on the inner weights.

The setting of Oymak & Soltanolkotabi, "Towards moderate overparameterization" (arXiv
1902.04674): unit rows $x_i$, $f(x) = v^\top\varphi(Wx)$, only W trained, $W_0$ iid
$N(0, 1)$, half of the entries of v equal to $+\|y\|/\sqrt{kn}$ and half to
$-\|y\|/\sqrt{kn}$, loss $\frac12\sum_i(f(x_i)-y_i)^2$. The paper's text was not at
hand: the statements below were derived here, with constants of their own, and have the
form of the theorems as recalled. The paper's unnamed constants are never used.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp

from jaxrelu._checks import check_choice, check_positive
from jaxrelu.data import check_no_parallel_rows
from jaxrelu.objectives import SquaredLoss
from jaxrelu.theory._conditions import Condition, Report, Scalar
from jaxrelu.theory._instance import (
    Instance,
    check_problem,
    instance,
    jumps,
    kink,
    lower,
    upper,
)
from jaxrelu.theory._lemmas import initial_jacobian
from jaxrelu.theory._meta import check_fraction, gradient_descent_bounds


_POSITIVE = {
    "exact": "λ(X) - error > 0, else take float64",
    "hermite": "μ_φ² σ_min²(X∗X) > 0, else empty: take eigenvalue='exact'",
}
GAUSSIAN = "the inner weights W₀ are iid N(0, 1), drawn independently of the data"


class Setting(eqx.Module):
    """What every theorem of the paper's setting uses, gathered and checked once."""

    case: Instance
    norm: Scalar
    lam: Scalar
    targets: Scalar
    residual: Scalar
    misfit: Scalar
    misfit_failure: Scalar
    chernoff_width: Scalar
    chernoff_failure: Scalar
    conditions: tuple[Condition, ...]
    k: int = eqx.field(static=True)

    def constants(self) -> dict[str, Any]:
        """The part of a report's constants that all theorems share."""
        case = self.case
        return {
            "‖X‖": case.norm,
            "λ(X)": case.covariance_min,
            "σ_min²(X∗X)": case.khatri_rao_min,
            "κ(X)": case.kappa,
            "μ_φ": case.mu,
            "B₁": case.B1,
            "B₂": case.B2,
            "‖y‖": self.targets,
            "bound on ‖r₀‖": self.misfit * self.targets,
        }

    def wide_enough(self, required: Scalar, words: str) -> Condition:
        """A lower bound on the width."""
        return Condition(jnp.asarray(self.k, required.dtype), required, words, ">=")


def setting(
    network: Any, data: Any, delta: float, eigenvalue: str = "exact"
) -> Setting:
    """Checks an instance and gathers its constants.

    Raises:
        TypeError: not a `Shallow` or not a `Dataset`.
        ValueError: several outputs, an odd width, rows that are not unit or repeat,
            targets that are all 0, δ not positive.
    """
    check_problem(network, data, unit=True, nonzero=True)
    check_positive(delta, "delta")
    check_choice(eigenvalue, ("exact", "hermite"), "eigenvalue")
    if eigenvalue == "hermite":
        check_no_parallel_rows(data.inputs)  # x and -x have the same square
    n, k = data.n, network.width
    if k % 2:
        msg = (
            f"the network has {k} neurons; expected an even number, half of the outer "
            "weights being positive and half negative. Add or drop one neuron."
        )
        raise ValueError(msg)
    case = instance(network.activation, data.inputs)
    norm = upper(case.norm)
    lam = lower(case.covariance_min)
    if eigenvalue == "hermite":
        lam = case.mu**2 * lower(case.khatri_rao_min)
    targets = jnp.linalg.norm(data.targets)
    residual = jnp.linalg.norm(SquaredLoss(data).residual(network))
    start = initial_jacobian(network, data.inputs, lam)
    lengths = jnp.linalg.norm(data.inputs, axis=1)
    v = network.outer
    eps = float(jnp.finfo(data.dtype).eps)
    unit = Condition(
        jnp.max(jnp.abs(lengths - 1)),
        jnp.asarray(8 * eps * data.d**0.5, lengths.dtype),
        "|‖xᵢ‖ - 1| ≤ rounding",
        "<=",
    )
    tolerance = jnp.asarray(64 * eps, v.dtype)
    magnitude = targets / (k * n) ** 0.5
    balance = jnp.abs(jnp.sum(v)) / jnp.maximum(jnp.sum(jnp.abs(v)), 1e-30)
    misfit = 1 + (1 + delta) * case.B1
    size = jnp.max(jnp.abs(jnp.abs(v) / magnitude - 1))
    return Setting(
        case=case,
        norm=norm,
        lam=lam,
        targets=targets,
        residual=residual,
        misfit=misfit,
        misfit_failure=jnp.exp(-(delta**2) * n / (2 * norm**2)),
        chernoff_width=start.required_width,
        chernoff_failure=start.failure_probability,
        conditions=(
            unit,
            Condition(balance, tolerance, "|Σ v_l| / Σ|v_l| ≤ rounding", "<="),
            Condition(
                size, tolerance, "| |v_l|√(kn)/‖y‖ - 1 | ≤ rounding (outer_norm)", "<="
            ),
            Condition(lam, jnp.zeros_like(lam), _POSITIVE[eigenvalue], ">"),
            Condition(
                residual, misfit * targets, "‖r₀‖ ≤ C₀‖y‖ for this draw of W₀", "<="
            ),
        ),
        k=k,
    )


def moderate_overparameterization(
    network: Any,
    data: Any,
    *,
    delta: float = 1.0,
    step: float = 1.0,
    eigenvalue: str = "exact",
) -> Report:
    r"""When gradient descent on W is promised to fit the data, and how fast.

    Let $C_0 = 1 + (1+\delta)B_1$ and $\lambda = \lambda(X)$. **Smooth φ** (derived
    here): if k is even and
    $$ k \ge \max\left\{13.04 \log(n)\, \frac{B_1^2\|X\|^2}{\lambda},\;
        \frac{(32 B_2 C_0)^2\, n \|X\|^2}{\lambda^2}\right\}, $$
    then with probability at least $1 - \frac1n - e^{-\delta^2n/(2\|X\|^2)}$ over $W_0$
    (the first failure is reported by its sharper form, see `initial_jacobian`), with
    $\eta = \bar\eta\, n/(2B_1^2\|y\|^2\|X\|^2)$, $0 < \bar\eta \le 1$ = ``step``:
    $\|r_0\| \le C_0\|y\|$,
    $\|r_t\|^2 \le (1 - \frac{\bar\eta\lambda}{32B_1^2\|X\|^2})^t\|r_0\|^2$, and with
    $\zeta = \|y\|\sqrt{\lambda/(128n)}$ the path is at most $\|r_0\|/\zeta$.

    Proof. $\beta = B_1\|y\|\|X\|/\sqrt n$ and $\ell = B_2\|y\|\|X\|/\sqrt{kn}$
    (`jacobian_norm_bound`, `jacobian_lipschitz_bound`);
    $\alpha_0 = \sigma_{\min}(J(W_0)) \ge \|y\|\sqrt{\lambda/(2n)}$ by
    `initial_jacobian`; $\|r_0\| \le C_0\|y\|$ by `initial_output_bound`. The second
    condition on k is then $\alpha_0^2 \ge 16\,\ell\|r_0\|$. Take $\alpha = \alpha_0/2$
    and $R = 4\|r_0\|/\alpha$: $\ell R \le \alpha_0/2$ keeps $\sigma_{\min}(J) \ge
    \alpha$ on the ball, and `gradient_descent_bounds` with $\lambda = 1/2$ applies.

    **φ with a kink** (slopes s, t; $q = |t - s|$, ReLU: $q = B_1 = 1$; derived here
    for ReLU, the factors q follow from the same lines): the second condition becomes
    $$ k \ge 2\cdot10^8\, C_0^2\, q^6\, \frac{n\|X\|^6}{\lambda^4}, $$
    the probability loses another $n e^{-m_0/6}$ with
    $m_0 = \lfloor k\lambda/(100q^2\|X\|^2)\rfloor$, and
    $\alpha = \frac45\|y\|\sqrt{\lambda/(2n)}$ in rate $1 - \eta\alpha^2/2$ and path
    $4\|r_0\|/\alpha$.

    Proof. By `flip_radius` and `flip_deviation_bound`,
    $\epsilon = \sup\|J(W)-J(W_0)\| \le q\sqrt{2m_0}\,\|v\|_\infty\|X\| \le \alpha_0/5$
    on the ball of radius $m_0^{3/2}/(2k)$, which holds
    $R = 4\|r_0\|/\alpha \le 5C_0\sqrt{2n/\lambda}$ by the condition on k, up to the
    rounding down of $m_0$, which a condition of its own checks (and the width is taken
    with $2.0001\cdot10^8$); for $m_0 \ge k$ there is nothing to check. On it
    $\sigma_{\min}(J) \ge \alpha_0 - \epsilon \ge \alpha$ and any two Jacobians differ
    by at most $2\epsilon \le \alpha/2$: `gradient_descent_bounds` with ``sharp`` and
    $\lambda = 1/2$ applies; f is piecewise linear, so it is still the integral of J.

    The paper's own conditions have the forms
    $\sqrt{kd} \ge c\,\frac{B^2}{\mu_\varphi^2}(1+\delta)\,\kappa(X)\,n$ (smooth) and
    $\sqrt{kd} \ge c\,(1+\delta)\,\kappa(X)\,n$ (ReLU) as recalled, with a constant c
    that is unconfirmed and therefore never compared with: the report only gives the
    ratio of $\sqrt{kd}$ to the rest.

    Args:
        network: $f$, a `Shallow`; its `inner` is used only for the measured $\|r_0\|$.
        data: a `Dataset` with unit rows, targets (n,).
        delta: δ, trades the misfit against its probability.
        step: $\bar\eta$ in (0, 1].
        eigenvalue: ``"exact"`` takes λ(X); ``"hermite"`` the lower bound
            $\mu_\varphi^2\sigma_{\min}^2(X*X)$ through which the paper's κ(X) enters.
            That is 0, and the theorem empty, for tanh, sigmoid and erf
            ($\mu_\varphi = 0$), for $n > d(d+1)/2$ and for opposite rows.

    Returns:
        Conditions, constants and predictions. λ(X) enters at the lower end of its
        error, $\|X\|$ at the upper.

    Raises:
        TypeError: not a `Shallow` or not a `Dataset`.
        ValueError: several outputs, an odd width, rows that are not unit or repeat,
            targets that are all 0, δ or the step out of range.

    Cost: $O(n^2d + n^3 + nkd)$.
    """
    check_fraction(step, "step")
    at = setting(network, data, delta, eigenvalue)
    if jumps(network.activation):
        return _kinked(at, step, delta)
    return _smooth(at, step, delta, eigenvalue)


def _smooth(at: Setting, step: float, delta: float, eigenvalue: str) -> Report:
    case, n, norm, lam = at.case, at.case.n, at.norm, at.lam
    width = smooth_width(case.B1, case.B2, n, norm, lam, delta)
    beta = case.B1 * at.targets * norm / n**0.5
    guaranteed = gradient_descent_bounds(
        at.targets * jnp.sqrt(lam / (8 * n)),
        beta,
        at.residual,
        lipschitz=case.B2 * at.targets * norm / (at.k * n) ** 0.5,
        step_size=step / (2 * beta**2),
    )
    bound = jnp.maximum(case.B1, case.B2)  # the paper's single B
    form = (bound / case.mu) ** 2 * ((1 + delta) * case.kappa * n)
    constants = {
        **at.constants(),
        "required width": even_ceil(jnp.maximum(at.chernoff_width, width)),
        "recalled form, √(kd)/((1+δ)(B/μ_φ)²κn)": (at.k * case.d) ** 0.5 / form,
    }
    source = "" if eigenvalue == "exact" else ", with μ_φ²σ_min²(X∗X) for λ(X)"
    return Report(
        conditions=(
            *at.conditions,
            at.wide_enough(at.chernoff_width, "k ≥ 13.04 log(n) B₁²‖X‖²/λ"),
            at.wide_enough(width, "k ≥ (32 B₂ C₀)² n ‖X‖²/λ²"),
        ),
        constants=constants,
        prediction=_with_probability(
            guaranteed, 1 - at.chernoff_failure - at.misfit_failure
        ),
        title="Gradient descent on W, smooth activation",
        method=f"proved in the docstring{source}; the paper's form is recalled only",
        hypotheses=(GAUSSIAN,),
    )


def _kinked(at: Setting, step: float, delta: float) -> Report:
    case, n, norm, lam = at.case, at.case.n, at.norm, at.lam
    rise = kink(case.activation, lam.dtype)
    width = kinked_width(case.B1, rise, n, norm, lam, delta)
    flips = jnp.floor(at.k * lam / (100 * (rise * norm) ** 2))
    reach = 5 * at.misfit * jnp.sqrt(2 * n / lam)
    room = jnp.where(flips < at.k, flips**1.5 / (2 * at.k), jnp.inf)
    beta = case.B1 * at.targets * norm / n**0.5
    alpha = 0.8 * at.targets * jnp.sqrt(lam / (2 * n))
    guaranteed = gradient_descent_bounds(
        alpha,
        beta,
        at.residual,
        deviation=alpha / 2,
        step_size=step / (2 * beta**2),
        sharp=True,
    )
    ratio = (at.k * case.d) ** 0.5 / ((1 + delta) * case.kappa * n)
    constants = {
        **at.constants(),
        "flips allowed per sample, 2m₀": 2 * flips,
        "required width": even_ceil(jnp.maximum(at.chernoff_width, width)),
        "recalled form, √(kd)/((1+δ)κn)": ratio,
    }
    failures = at.chernoff_failure + at.misfit_failure + n * jnp.exp(-flips / 6)
    return Report(
        conditions=(
            *at.conditions,
            at.wide_enough(at.chernoff_width, "k ≥ 13.04 log(n) B₁²‖X‖²/λ"),
            at.wide_enough(width, "k ≥ 2e8 C₀² q⁶ n ‖X‖⁶/λ⁴"),
            Condition(reach, room, "5 C₀ √(2n/λ) ≤ m₀^(3/2)/(2k)", "<="),
        ),
        constants=constants,
        prediction=_with_probability(guaranteed, 1 - failures),
        title="Gradient descent on W, activation with a kink",
        method="proved in the docstring; the paper's form is recalled only",
        hypotheses=(GAUSSIAN,),
    )


def smooth_width(
    b1: Any, b2: Any, n: int, norm: Any, lam: Any, delta: float, nu: float = 4.0
) -> Any:
    r"""$(8\nu B_2 C_0)^2 n\|X\|^2/\lambda^2$; gradient descent is $\nu = 4$."""
    bend = jnp.where(b2 > 0, b2 * (1 + (1 + delta) * b1), 0)  # 0 · inf is 0 here
    return (8 * nu * bend * (norm / lam)) ** 2 * n


def kinked_width(b1: Any, rise: Any, n: int, norm: Any, lam: Any, delta: float) -> Any:
    r"""$2.0001\cdot10^8\, C_0^2 q^6 n \|X\|^6/\lambda^4$."""
    ratio = (rise * norm) ** 3 / lam**2
    return 2.0001e8 * n * ((1 + (1 + delta) * b1) * ratio) ** 2


def even_ceil(x: Scalar) -> Scalar:
    """The smallest even number that is not below x."""
    return 2 * jnp.ceil(x / 2)


def _with_probability(report: Report, probability: Scalar) -> Any:
    return eqx.tree_at(
        lambda prediction: prediction.probability,
        report.prediction,
        jnp.maximum(probability, 0),
    )
