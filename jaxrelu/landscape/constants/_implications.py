r"""What each condition of quadratic type implies, with constants and proofs.

Letters as in `_quadratic_conditions`: $\Delta = f - f^*$, $g = \|\nabla f\|$, $d$ the
distance to $X^*$, $u = \langle\nabla f(x), x - x_p\rangle$. $L$ is a Lipschitz constant
of the gradient. The names are those of Karimi, Nutini & Schmidt (2016); the constants
are proved here. An implication holds on a region that holds the segment from $x$ to
$x_p$ (for those from PL: the gradient flow from $x$) whenever its premise holds there.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

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


def dominance_from_pl(condition: PolyakLojasiewicz) -> GradientDominance:
    r"""PL($\mu$) is GD($1/2\mu$): both say $\Delta \le g^2/2\mu$."""
    return GradientDominance(1 / (2 * condition.mu))


def pl_from_dominance(condition: GradientDominance) -> PolyakLojasiewicz:
    r"""GD($\lambda$) is PL($1/2\lambda$)."""
    return PolyakLojasiewicz(1 / (2 * condition.lam))


def quasi_strong_from_strong(condition: StrongConvexity) -> QuasiStrongConvexity:
    r"""SC($\mu$) ⇒ QSC($\mu$): the case $y = x_p$."""
    return QuasiStrongConvexity(condition.mu)


def one_point_from_strong(condition: StrongConvexity) -> OnePointConvexity:
    r"""SC($\mu$) ⇒ OPC($\mu$): the minimiser is unique; then as for QSC ⇒ RSI."""
    return OnePointConvexity(condition.mu)


def pl_from_quasi_strong(condition: QuasiStrongConvexity) -> PolyakLojasiewicz:
    r"""QSC($\mu$) ⇒ PL($\mu$): $\Delta \le gd - \tfrac\mu2 d^2 \le g^2/2\mu$."""
    return PolyakLojasiewicz(condition.mu)


def secant_from_quasi_strong(condition: QuasiStrongConvexity) -> RestrictedSecant:
    r"""QSC($\mu$) ⇒ RSI($\mu$).

    *Proof.* On $x_t = x_p + t(x - x_p)$, which has the same nearest point, let
    $\phi(t) = \Delta(x_t)$. QSC there is $t\phi' \ge \phi + \tfrac\mu2t^2d^2$, that is
    $(\phi/t)' \ge \tfrac\mu2 d^2$, and $\phi/t \to \phi'(0) = 0$; so $\phi(1) \ge
    \tfrac\mu2d^2$ and $u = \phi'(1) \ge \phi(1) + \tfrac\mu2d^2 \ge \mu d^2$. $\square$
    """
    return RestrictedSecant(condition.mu)


def secant_from_one_point(condition: OnePointConvexity) -> RestrictedSecant:
    r"""OPC($\nu$) ⇒ RSI($\nu$): $x^*$ is the only stationary point, hence $x_p$."""
    return RestrictedSecant(condition.nu)


def error_bound_from_secant(condition: RestrictedSecant) -> ErrorBound:
    r"""RSI($\nu$) ⇒ EB($\nu$): $\nu d^2 \le u \le gd$."""
    return ErrorBound(condition.nu)


def growth_from_secant(condition: RestrictedSecant) -> QuadraticGrowth:
    r"""RSI($\nu$) ⇒ QG($\nu$).

    *Proof.* $\Delta = \int_0^1 \tfrac1t \langle\nabla f(x_t), x_t - x_p\rangle dt \ge
    \int_0^1 \nu t d^2 dt$ on $x_t = x_p + t(x-x_p)$, whose nearest point is $x_p$ for
    every $t$. $\square$
    """
    return QuadraticGrowth(condition.nu)


def growth_from_pl(condition: PolyakLojasiewicz) -> QuadraticGrowth:
    r"""PL($\mu$) ⇒ QG($\mu$).

    *Proof.* Along the gradient flow, per unit of length, $\sqrt\Delta$ changes by
    $-g/2\sqrt\Delta \le -\sqrt{\mu/2}$; the flow ends in $X^*$, so $d \le$ length
    $\le \sqrt{2\Delta/\mu}$. $\square$
    """
    return QuadraticGrowth(condition.mu)


def error_bound_from_pl(condition: PolyakLojasiewicz) -> ErrorBound:
    r"""PL($\mu$) ⇒ EB($\mu$): $g^2 \ge 2\mu\Delta \ge \mu^2d^2$ by quadratic growth."""
    return ErrorBound(condition.mu)


def pl_from_error_bound(condition: ErrorBound, smoothness: Number) -> PolyakLojasiewicz:
    r"""EB($c$) and $L$ ⇒ PL($c^2/L$): $\Delta \le \tfrac L2d^2 \le Lg^2/2c^2$."""
    return PolyakLojasiewicz(condition.c**2 / smoothness)


def secant_from_regularity(condition: RegularityCondition) -> RestrictedSecant:
    r"""RC($\alpha,\beta$) ⇒ RSI$((1-s)/2\alpha)$, $s = \sqrt{1-4\alpha\beta}$.

    *Proof.* $g \ge (1-s)d/2\alpha$, so $u \ge \alpha g^2 + \beta d^2 \ge
    ((1-s)^2 + 1 - s^2)d^2/4\alpha$. $\square$ Never smaller than the plain $\beta$,
    with equality only at $4\alpha\beta = 0$: $(1-s)/2\alpha = 2\beta/(1+s)$.
    """
    return RestrictedSecant(2 * condition.beta / (1 + condition.root))


def pl_from_regularity(condition: RegularityCondition) -> PolyakLojasiewicz:
    r"""RC($\alpha,\beta$) ⇒ PL$((1-s)^2/2\alpha(1+s))$.

    *Proof.* $\Delta \le \int_0^1 g(x_t) d\,dt \le \tfrac{1+s}{2\alpha} \tfrac{d^2}2$,
    $g \ge \tfrac{1-s}{2\alpha} d$. $\square$ Equal to $8\alpha\beta^2/(1+s)^3$, which
    keeps its digits for small $\alpha\beta$.
    """
    alpha, beta = condition.alpha, condition.beta
    return PolyakLojasiewicz(8 * alpha * beta**2 / (1 + condition.root) ** 3)


def regularity_from_secant(
    condition: RestrictedSecant, smoothness: Number, share: Number = 0.5
) -> RegularityCondition:
    r"""RSI($\nu$) and $L$ ⇒ RC$(t\nu/L^2, (1-t)\nu)$, $t \in [0, 1]$: $g \le Ld$."""
    nu = condition.nu
    return RegularityCondition(share * nu / smoothness**2, (1 - share) * nu)


def regularity_from_curvature(smallest: Number, largest: Number) -> RegularityCondition:
    r"""RC$(1/(m+M), mM/(m+M))$ for $f$ strongly convex with curvature in $[m, M]$.

    Along one variable, $h = f'/(x - x^*) \in [m, M]$ gives $(h-m)(M-h) \ge 0$, the
    claim; a quadratic with eigenvalues in $[m, M]$ is a sum of such, and for
    $m$-strongly convex $M$-smooth functions it is the co-coercivity of
    $f - \tfrac m2|x|^2$. No pair with this $\alpha$ has a larger $\beta$ when both ends
    occur.
    """
    total = smallest + largest
    return RegularityCondition(1 / total, smallest * largest / total)


def regularity_from_strong(
    condition: StrongConvexity, smoothness: Number
) -> RegularityCondition:
    r"""SC($m$) and $L$ ⇒ RC$(1/(m+L), mL/(m+L))$, see `regularity_from_curvature`."""
    return regularity_from_curvature(condition.mu, smoothness)


# In an order in which one pass finds the best constant of every chain: what leads back
# (EB to PL to EB) is never better than what it started from.
_EDGES: tuple[tuple[type, Callable, bool], ...] = (
    (StrongConvexity, quasi_strong_from_strong, False),
    (StrongConvexity, one_point_from_strong, False),
    (StrongConvexity, regularity_from_strong, True),
    (QuasiStrongConvexity, secant_from_quasi_strong, False),
    (OnePointConvexity, secant_from_one_point, False),
    (RegularityCondition, secant_from_regularity, False),
    (RestrictedSecant, regularity_from_secant, True),
    (RestrictedSecant, error_bound_from_secant, False),
    (QuasiStrongConvexity, pl_from_quasi_strong, False),
    (RegularityCondition, pl_from_regularity, False),
    (GradientDominance, pl_from_dominance, False),
    (ErrorBound, pl_from_error_bound, True),
    (PolyakLojasiewicz, dominance_from_pl, False),
    (PolyakLojasiewicz, growth_from_pl, False),
    (RestrictedSecant, growth_from_secant, False),
    (PolyakLojasiewicz, error_bound_from_pl, False),
)


def implied(
    condition: Any, smoothness: Number | None = None
) -> dict[str, AbstractCondition]:
    r"""Everything a condition implies, with the best constant of any chain.

    * SC($\mu$): QSC($\mu$), OPC($\mu$); with $L$:
      RC$(\frac1{\mu+L}, \frac{\mu L}{\mu+L})$;
    * QSC($\mu$): PL($\mu$), RSI($\mu$);
    * OPC($\nu$): RSI($\nu$);
    * RC($\alpha, \beta$): RSI$(\frac{1-s}{2\alpha})$,
      PL$(\frac{(1-s)^2}{2\alpha(1+s)})$, $s = \sqrt{1 - 4\alpha\beta}$;
    * RSI($\nu$): EB($\nu$), QG($\nu$); with $L$: RC$(\frac\nu{2L^2}, \frac\nu2)$;
    * PL($\mu$), the same as GD($\frac1{2\mu}$): QG($\mu$), EB($\mu$);
    * EB($c$): with $L$, PL($c^2/L$).

    Quadratic growth implies nothing else here, see `growth_without_dominance`.

    Args:
        condition: what is known.
        smoothness: $L$, a Lipschitz constant of the gradient, if there is one.

    Returns:
        short name (``"PL"``, ``"GD"``, ``"EB"``, …) → the condition, the given one
        among them. Of the pairs RC only one is kept, the first found.

    Raises:
        TypeError: something that is no condition.
    """
    if not isinstance(condition, AbstractCondition):
        msg = (
            f"condition is a {type(condition).__name__}; expected one of this module's "
            "conditions, PolyakLojasiewicz(mu) for example."
        )
        raise TypeError(msg)
    known = {condition.short: condition}
    for premise, follow, smooth in _EDGES:
        if premise.short not in known or (smooth and smoothness is None):
            continue
        at = known[premise.short]
        new = follow(at, smoothness) if smooth else follow(at)
        old = known.get(new.short)
        known[new.short] = new if old is None else _better(old, new)
    return known


def _better(old: AbstractCondition, new: AbstractCondition) -> AbstractCondition:
    if isinstance(new, GradientDominance) and isinstance(old, GradientDominance):
        return GradientDominance(jnp.minimum(old.lam, new.lam))
    if isinstance(new, RegularityCondition):
        return old
    (name,) = vars(new)
    kind: Any = type(new)
    return kind(jnp.maximum(getattr(old, name), getattr(new, name)))
