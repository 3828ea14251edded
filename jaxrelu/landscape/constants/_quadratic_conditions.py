r"""Conditions of quadratic type on a function around its minimisers.

$f$ is continuously differentiable, $X^*$ its set of minimisers, $x_p$ a point of $X^*$
nearest to $x$; $\Delta = f(x) - f^*$, $g = \|\nabla f(x)\|$, $d = \|x - x_p\|$ and
$u = \langle \nabla f(x), x - x_p\rangle$. Every condition compares these four numbers.
Two constants of gradient dominance are in use, $\lambda$ and $\mu = 1/(2\lambda)$.
"""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def _constant(value: Any) -> Any:
    if isinstance(value, float | int):
        return jnp.asarray(value, jnp.result_type(float))
    # structures that hold something else pass through jax.tree.map
    return value if not hasattr(value, "dtype") else jnp.asarray(value)


class LocalValues(eqx.Module):
    r"""The four numbers at one point (or at many) that the conditions compare.

    Attributes:
        gap: $\Delta = f(x) - f^*$.
        gradient: $g = \|\nabla f(x)\|$.
        distance: $d = \|x - x_p\|$, to the nearest minimiser or to a fixed one.
        inner: $u = \langle \nabla f(x), x - x_p\rangle$.
    """

    gap: Float[Array, "..."]
    gradient: Float[Array, "..."]
    distance: Float[Array, "..."]
    inner: Float[Array, "..."]


class AbstractCondition(eqx.Module):
    """One inequality with its constants; constants may be arrays of any one shape."""

    short: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def slack(self, at: LocalValues) -> Float[Array, "..."]:
        """Larger minus smaller side: non-negative where the condition holds."""

    @abc.abstractmethod
    def scaled(self, factor: float | Float[Array, "..."]) -> "AbstractCondition":
        """The condition of $cf$, $c > 0$, when this one is that of $f$."""


class PolyakLojasiewicz(AbstractCondition):
    r"""PL($\mu$): $\tfrac12 g^2 \ge \mu \Delta$.

    Attributes:
        mu: $\mu > 0$; $\lambda = 1/(2\mu)$.
    """

    mu: Float[Array, "..."] = eqx.field(converter=_constant)
    short: ClassVar[str] = "PL"

    def slack(self, at: LocalValues) -> Float[Array, "..."]:
        r"""$\tfrac12 g^2 - \mu\Delta$."""
        return at.gradient**2 / 2 - self.mu * at.gap

    def scaled(self, factor: float | Float[Array, "..."]) -> "PolyakLojasiewicz":
        r"""$\mu \to c\mu$."""
        return PolyakLojasiewicz(factor * self.mu)


class GradientDominance(AbstractCondition):
    r"""GD($\lambda$): $\Delta \le \lambda g^2$ (gradient dominance).

    Attributes:
        lam: $\lambda > 0$; $\mu = 1/(2\lambda)$.
    """

    lam: Float[Array, "..."] = eqx.field(converter=_constant)
    short: ClassVar[str] = "GD"

    def slack(self, at: LocalValues) -> Float[Array, "..."]:
        r"""$\lambda g^2 - \Delta$."""
        return self.lam * at.gradient**2 - at.gap

    def scaled(self, factor: float | Float[Array, "..."]) -> "GradientDominance":
        r"""$\lambda \to \lambda/c$."""
        return GradientDominance(self.lam / factor)


class ErrorBound(AbstractCondition):
    r"""EB($c$): $g \ge c\,d$.

    Attributes:
        c: $c > 0$.
    """

    c: Float[Array, "..."] = eqx.field(converter=_constant)
    short: ClassVar[str] = "EB"

    def slack(self, at: LocalValues) -> Float[Array, "..."]:
        """$g - cd$."""
        return at.gradient - self.c * at.distance

    def scaled(self, factor: float | Float[Array, "..."]) -> "ErrorBound":
        r"""The constant times the factor."""
        return ErrorBound(factor * self.c)


class QuadraticGrowth(AbstractCondition):
    r"""QG($m$): $\Delta \ge \tfrac m2 d^2$.

    Attributes:
        m: $m > 0$.
    """

    m: Float[Array, "..."] = eqx.field(converter=_constant)
    short: ClassVar[str] = "QG"

    def slack(self, at: LocalValues) -> Float[Array, "..."]:
        r"""$\Delta - \tfrac m2 d^2$."""
        return at.gap - self.m * at.distance**2 / 2

    def scaled(self, factor: float | Float[Array, "..."]) -> "QuadraticGrowth":
        r"""$m \to cm$."""
        return QuadraticGrowth(factor * self.m)


class RestrictedSecant(AbstractCondition):
    r"""RSI($\nu$): $\langle \nabla f(x), x - x_p \rangle \ge \nu d^2$.

    Attributes:
        nu: $\nu > 0$.
    """

    nu: Float[Array, "..."] = eqx.field(converter=_constant)
    short: ClassVar[str] = "RSI"

    def slack(self, at: LocalValues) -> Float[Array, "..."]:
        r"""$u - \nu d^2$."""
        return at.inner - self.nu * at.distance**2

    def scaled(self, factor: float | Float[Array, "..."]) -> "RestrictedSecant":
        r"""$\nu \to c\nu$."""
        return RestrictedSecant(factor * self.nu)


class OnePointConvexity(AbstractCondition):
    r"""OPC($\nu$): $\langle \nabla f(x), x - x^* \rangle \ge \nu \|x - x^*\|^2$.

    The same as `RestrictedSecant` with one fixed $x^*$. Then $x^*$ is the only
    stationary point of the region (at another one the left side is 0), so no $\nu > 0$
    exists on a neighbourhood of a minimiser that is not isolated.

    Attributes:
        nu: $\nu > 0$.
    """

    nu: Float[Array, "..."] = eqx.field(converter=_constant)
    short: ClassVar[str] = "OPC"

    def slack(self, at: LocalValues) -> Float[Array, "..."]:
        r"""$u - \nu d^2$, with $x^*$ for $x_p$."""
        return at.inner - self.nu * at.distance**2

    def scaled(self, factor: float | Float[Array, "..."]) -> "OnePointConvexity":
        r"""$\nu \to c\nu$."""
        return OnePointConvexity(factor * self.nu)


class RegularityCondition(AbstractCondition):
    r"""RC($\alpha, \beta$): $u \ge \alpha g^2 + \beta d^2$.

    With $u \le gd$ it says $\alpha g^2 - gd + \beta d^2 \le 0$: impossible for
    $4\alpha\beta > 1$, and otherwise $g/d$ lies in $[(1-s)/2\alpha, (1+s)/2\alpha]$,
    $s = \sqrt{1-4\alpha\beta}$.

    Attributes:
        alpha: $\alpha > 0$.
        beta: $\beta > 0$.
    """

    alpha: Float[Array, "..."] = eqx.field(converter=_constant)
    beta: Float[Array, "..."] = eqx.field(converter=_constant)
    short: ClassVar[str] = "RC"

    @property
    def is_possible(self) -> Array:
        r"""Whether $4\alpha\beta \le 1$ up to rounding: otherwise a bug."""
        return 4 * self.alpha * self.beta <= 1 + 16 * jnp.finfo(self.alpha.dtype).eps

    @property
    def root(self) -> Float[Array, "..."]:
        r"""$s = \sqrt{1 - 4\alpha\beta}$, 0 where rounding made it imaginary."""
        return jnp.sqrt(jnp.maximum(1 - 4 * self.alpha * self.beta, 0))

    def slack(self, at: LocalValues) -> Float[Array, "..."]:
        r"""$u - \alpha g^2 - \beta d^2$."""
        return at.inner - self.alpha * at.gradient**2 - self.beta * at.distance**2

    def scaled(self, factor: float | Float[Array, "..."]) -> "RegularityCondition":
        r"""$\alpha \to \alpha/c$, $\beta \to c\beta$."""
        return RegularityCondition(self.alpha / factor, factor * self.beta)


class QuasiStrongConvexity(AbstractCondition):
    r"""QSC($\mu$): $f^* \ge f + \langle\nabla f, x_p - x\rangle + \tfrac\mu2 d^2$.

    Attributes:
        mu: $\mu > 0$.
    """

    mu: Float[Array, "..."] = eqx.field(converter=_constant)
    short: ClassVar[str] = "QSC"

    def slack(self, at: LocalValues) -> Float[Array, "..."]:
        r"""$u - \Delta - \tfrac\mu2 d^2$."""
        return at.inner - at.gap - self.mu * at.distance**2 / 2

    def scaled(self, factor: float | Float[Array, "..."]) -> "QuasiStrongConvexity":
        r"""$\mu \to c\mu$."""
        return QuasiStrongConvexity(factor * self.mu)


class StrongConvexity(AbstractCondition):
    r"""SC($\mu$): $f(y) \ge f(x) + \langle\nabla f(x), y-x\rangle + \tfrac\mu2|y-x|^2$.

    Attributes:
        mu: $\mu > 0$.
    """

    mu: Float[Array, "..."] = eqx.field(converter=_constant)
    short: ClassVar[str] = "SC"

    def slack(self, at: LocalValues) -> Float[Array, "..."]:
        r"""The case $y = x_p$, a necessary condition: $u - \Delta - \tfrac\mu2 d^2$."""
        return at.inner - at.gap - self.mu * at.distance**2 / 2

    def scaled(self, factor: float | Float[Array, "..."]) -> "StrongConvexity":
        r"""$\mu \to c\mu$."""
        return StrongConvexity(factor * self.mu)


def to_wirtinger(condition: RegularityCondition) -> tuple[Array, Array]:
    r"""$(a, b)$ of $u \ge \tfrac1a d^2 + \tfrac1b g^2$: $a = 1/\beta$, $b = 1/\alpha$.

    The convention of the papers on Wirtinger flow; $4\alpha\beta \le 1$ becomes
    $ab \ge 4$, and a step $\eta \le 2/b$ contracts squared distances by $1 - 2\eta/a$.
    """
    return 1 / condition.beta, 1 / condition.alpha


def from_wirtinger(
    a: float | Float[Array, "..."], b: float | Float[Array, "..."]
) -> RegularityCondition:
    r"""RC$(1/b, 1/a)$ from $u \ge \tfrac1a d^2 + \tfrac1b g^2$."""
    return RegularityCondition(alpha=1 / b, beta=1 / a)


def growth_without_dominance(x: Float[Array, "..."]) -> LocalValues:
    r"""$f = x^2 + 10\sin^2 x$: quadratic growth does not imply gradient dominance.

    $f \ge x^2$ is QG(2) with $X^* = \{0\}$; but $f' = 2x + 10\sin 2x$ vanishes also at
    $x = \pm 1.7495\ldots$ (a maximum) and $\pm 2.8396\ldots$ (a minimum), where
    $\Delta > 0$, so no $\lambda$ is large enough.

    Args:
        x: where, any shape.
    """
    slope = 2 * x + 10 * jnp.sin(2 * x)
    return LocalValues(
        gap=x * x + 10 * jnp.sin(x) ** 2,
        gradient=jnp.abs(slope),
        distance=jnp.abs(x),
        inner=slope * x,
    )


def local_values(
    gap: Any, x: Float[Array, " p"], minimiser: Float[Array, " p"]
) -> LocalValues:
    r"""The four numbers at $x$, by automatic differentiation of a gap.

    Args:
        gap: $x \mapsto f(x) - f^*$, not computed by a subtraction where that loses
            digits.
        x: where.
        minimiser: the nearest minimiser $x_p$, or a fixed $x^*$.
    """
    value, gradient = jax.value_and_grad(gap)(x)
    away = x - minimiser
    norm = lambda v: jnp.sqrt(jnp.sum(v * v))
    return LocalValues(value, norm(gradient), norm(away), jnp.sum(gradient * away))
