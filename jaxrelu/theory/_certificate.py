"""Certificates: does gradient descent converge from this network, on these data."""

from typing import Any

import jax.numpy as jnp

from jaxrelu._checks import check_choice
from jaxrelu.data import Dataset
from jaxrelu.networks import Shallow
from jaxrelu.objectives import SquaredLoss
from jaxrelu.operators import jacobian
from jaxrelu.spectra import Extreme, certify_smallest, extreme
from jaxrelu.theory._conditions import Condition, Report, Scalar
from jaxrelu.theory._instance import (
    bend_bound,
    check_problem,
    jumps,
    kink,
    spectral_norm,
    upper,
)
from jaxrelu.theory._lemmas import flip_radii, max_flips
from jaxrelu.theory._meta import gradient_descent_bounds, gradient_flow_bounds


_FLOATING = (
    "σ_min(J₀) is a proved lower bound, for J₀ as stored in this precision",
    "‖J₀‖ and ‖X‖ count with their error bounds, ‖r₀‖ as computed",
    "GD is in exact arithmetic",
)


def certify_convergence(
    network: Any,
    data: Any,
    *,
    rule: str = "auto",
) -> Report:
    r"""Whether a theorem promises that descent on W from here fits the data.

    Deterministic and a posteriori: $\sigma = \sigma_{\min}(J(W_0))$ and $\|r_0\|$ are
    measured on this network, and nothing is assumed about where it came from. Rows of
    X may have any norm. With $\ell = B_2\|v\|_\infty\|X\|\max_i\|x_i\|$ and
    $\beta = \min(B_1\|v\|_2\|X\|,\; \|J(W_0)\| + \sigma/2)$:

    * ``"standard"``: $\sigma^2 \ge 16\,\ell\|r_0\|$, step $1/(2\beta^2)$,
      $\alpha = \sigma/2$, radius and path at most $4\|r_0\|/\alpha$,
      $\|r_t\|^2 \le (1-\frac12\eta\alpha^2)^t\|r_0\|^2$. Proof: $\ell R \le \sigma/2$
      for $R = 4\|r_0\|/\alpha$, so A1 holds on the ball; and
      $\ell\|r_0\| \le \alpha^2/4$ allows that step (`gradient_descent_bounds`).
    * ``"sharp"``: $\sigma^2 \ge 4\,\ell\|r_0\|/(\lambda-\frac14)$ with
      $\lambda = 1-\eta\ell\|r_0\|/2$ and the same step, a constant near 5.4 in place of
      16; $\alpha$ is the larger root of $\alpha(\sigma-\alpha) =
      \ell\|r_0\|/(\lambda-\frac14)$. Proof: the sharp form of `gradient_descent_bounds`
      with $R = \|r_0\|/((\lambda-\frac14)\alpha)$ and $\ell R = \sigma - \alpha$.
    * ``"flow"``: gradient flow, the limit of small steps, $\lambda \to 1$:
      $\sigma^2 \ge 4\,\ell\|r_0\|$, $\alpha$ the larger root of
      $\alpha(\sigma-\alpha)=\ell\|r_0\|$ (`gradient_flow_bounds`).
    * ``"flips"``, for φ with a kink (slopes s, t, where $B_2 = \infty$): let
      $c = |t-s|\,\|v\|_\infty\|X\|$ and let $F(\rho)$ be the most activation bits that
      one sample can flip within $\|W-W_0\|_F \le \rho$ (`flip_radii`). For some number
      m of flips, with $\alpha = \sigma - c\sqrt m$ and $R = 4\|r_0\|/\alpha$:
      $F(R) \le m$ and $c\sqrt{F(\sqrt2R)} \le \alpha/2$. Proof: on the ball J is
      within $c\sqrt m$ of $J(W_0)$ (`flip_deviation_bound`), hence A1 with α. Bits on
      which W and W' differ are flips of W or of W', whose squared pre-activations
      sum to at most $2R^2\|x_i\|^2$; so two Jacobians differ by at most
      $c\sqrt{F(\sqrt2R)}$ and the sharp form with $\lambda = 1/2$, step $1/(2\beta^2)$
      applies. All m are tried.
    * ``"auto"``: ``"flips"`` for φ with a kink, else ``"standard"``.

    Constants report the margins of the other rules. The margin of ``"standard"`` grows
    like $\sqrt k$; scaling v by $s > 1$ helps until $f(W_0)$ dominates y.

    Args:
        network: the starting point, a `Shallow` with one output.
        data: a `Dataset`, inputs of any norm, targets (n,).
        rule: as above.

    Returns:
        A report; `holds` is the verdict, `failures` the inequalities that fail,
        `margin` how far off they are. In floating point: $\sigma$ is the bound of
        `certify_smallest`, which includes all rounding after $J_0$ is stored;
        $\|J_0\|$ and $\|X\|$ are taken at the upper ends of their error bounds, which
        are realistic rather than proved, and $\|r_0\|$ as it was computed.

    Raises:
        TypeError: not a `Shallow` or not a `Dataset`.
        ValueError: several outputs, shapes or dtypes that do not fit, a rule that does
            not go with the activation.

    Cost: $O(n^2(d+k) + n^3)$, and $nk\log k$ for ``"flips"``.
    """
    check_choice(rule, ("auto", "standard", "sharp", "flow", "flips"), "rule")
    check_problem(network, data, unit=False, nonzero=False)
    kinked = jumps(network.activation)
    if rule == "auto":
        rule = "flips" if kinked else "standard"
    if kinked != (rule == "flips"):
        fits = "'flips'" if kinked else "'standard', 'sharp' or 'flow'"
        msg = (
            f"rule is {rule!r} for the activation {network.activation.name}, whose "
            f"derivative {'jumps' if kinked else 'is continuous'}; expected {fits}."
        )
        raise ValueError(msg)
    at_start = jacobian(network, data.inputs, lambda net: net.inner)
    ends = extreme(at_start)
    # with more samples than parameters J J^T is singular, whatever the others are
    sigma = certify_smallest(at_start).lower * float(data.n <= network.inner.size)
    residual = jnp.linalg.norm(SquaredLoss(data).residual(network))
    norm = spectral_norm(data.inputs)
    if kinked:
        return _by_flips(network, data, ends, sigma, residual, norm)
    return _by_curvature(network, data, ends, sigma, residual, norm, rule)


def _by_curvature(
    network: Shallow,
    data: Dataset,
    ends: Extreme,
    sigma: Scalar,
    residual: Scalar,
    norm: Any,
    rule: str,
) -> Report:
    act, v = network.activation, network.outer
    reach = jnp.max(jnp.linalg.norm(data.inputs, axis=1))
    bend = bend_bound(act) * jnp.max(jnp.abs(v)) * upper(norm) * reach
    largest = act.derivative_bound * jnp.linalg.norm(v) * upper(norm)
    beta = jnp.minimum(largest, upper(ends.largest) + sigma / 2)
    pull = bend * residual
    step = 1 / (2 * beta**2)
    keep = jnp.where(pull > 0, 1 - step * pull / 2, 1)  # an infinite step: v = 0
    share = jnp.maximum(keep - 0.25, 0)
    needed = {
        "standard": 16 * pull,
        "sharp": jnp.where(pull > 0, 4 * pull / share, 0),
        "flow": 4 * pull,
    }
    words = {
        "standard": "σ_min(J₀)² ≥ 16 ℓ‖r₀‖",
        "sharp": "σ_min(J₀)² ≥ 4 ℓ‖r₀‖/(λ - 1/4)",
        "flow": "σ_min(J₀)² ≥ 4 ℓ‖r₀‖",
    }
    tests = {
        name: Condition(sigma**2, needed[name], words[name], ">=") for name in words
    }
    root = jnp.sqrt(jnp.maximum(sigma**2 - needed[rule], 0))
    if rule == "flow":
        meta = gradient_flow_bounds((sigma + root) / 2, beta, residual)
    elif rule == "sharp":
        meta = gradient_descent_bounds(
            (sigma + root) / 2,
            beta,
            residual,
            lipschitz=bend,
            contraction=jnp.clip(keep, 0.5, 1),
            step_size=step,
            sharp=True,
        )
    else:
        meta = gradient_descent_bounds(
            sigma / 2, beta, residual, lipschitz=bend, step_size=step
        )
    others = {f"margin, {n} rule": t.margin for n, t in tests.items() if n != rule}
    return Report(
        conditions=(
            Condition(sigma, jnp.zeros_like(sigma), "proved: σ_min(J₀) > 0", ">"),
            tests[rule],
        ),
        constants={
            "σ_min(J₀)": ends.smallest,
            "‖J₀‖": ends.largest,
            "‖r₀‖": residual,
            "‖X‖": norm,
            "α": meta.constants["α"],
            "β": beta,
            "ℓ": bend,
            **others,
        },
        prediction=meta.prediction,
        title=f"Convergence from this network ({rule} rule)",
        method="proved in the docstring, after S1",
        hypotheses=_FLOATING,
    )


def _by_flips(
    network: Shallow,
    data: Dataset,
    ends: Extreme,
    sigma: Scalar,
    residual: Scalar,
    norm: Any,
) -> Report:
    act, v = network.activation, network.outer
    unit = kink(act, sigma.dtype) * jnp.max(jnp.abs(v)) * upper(norm)
    radii = flip_radii(network, data.inputs)
    # every number m of flips, and the radius below which there are no more
    count = jnp.arange(network.width + 1, dtype=sigma.dtype)
    until = jnp.append(radii, jnp.asarray(jnp.inf, radii.dtype))
    alphas = sigma - unit * jnp.sqrt(count)
    safe = jnp.where(alphas > 0, alphas, 1)
    reaches = jnp.where(alphas > 0, 4 * residual / safe, jnp.inf)
    # as m grows α shrinks and the deviation grows: the first m that fits is the best
    fits = (alphas > 0) & (reaches < until)
    score = jnp.where(jnp.isfinite(reaches) & (reaches > 0), until / reaches, 0)
    best = jnp.where(jnp.any(fits), jnp.argmax(fits), jnp.argmax(score))
    pairs = max_flips(radii, 2**0.5 * reaches[best])
    spread = unit * jnp.sqrt(pairs.astype(sigma.dtype))
    alpha = jnp.maximum(alphas[best], 0)
    largest = act.derivative_bound * jnp.linalg.norm(v) * upper(norm)
    beta = jnp.minimum(largest, upper(ends.largest) + (sigma - alpha))
    meta = gradient_descent_bounds(
        alpha,
        beta,
        residual,
        deviation=spread,
        step_size=1 / (2 * beta**2),
        sharp=True,
    )
    positive, _, deviation, *_ = meta.conditions
    return Report(
        conditions=(
            Condition(sigma, jnp.zeros_like(sigma), "proved: σ_min(J₀) > 0", ">"),
            positive,
            Condition(reaches[best], until[best], "R < radius of flip m+1", "<"),
            deviation,
        ),
        constants={
            "σ_min(J₀)": ends.smallest,
            "‖J₀‖": ends.largest,
            "‖r₀‖": residual,
            "‖X‖": norm,
            "α": alpha,
            "β": beta,
            "c = |t-s| ‖v‖_∞ ‖X‖": unit,
            "flips per sample, m": count[best],
        },
        prediction=meta.prediction,
        title="Convergence from this network (flips rule)",
        method="proved in the docstring",
        hypotheses=(*_FLOATING, "activation bits at W₀ are right (see near_kinks)"),
    )
