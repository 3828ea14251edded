"""What a theorem says of an instance: conditions, constants, predictions."""

import math
import operator
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrelu._checks import is_concrete
from jaxrelu._results import Estimate


Scalar = Float[Array, ""]
Relation = Literal[">=", ">", "<=", "<"]
_COMPARE = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}


class Condition(eqx.Module):
    r"""One inequality of a theorem between two non-negative numbers.

    An equality that a theorem asks for is written as a deviation `<=` a tolerance.

    Attributes:
        name: the inequality in words and symbols.
        lhs: its left side.
        rhs: its right side.
        relation: how they must compare.
    """

    lhs: Scalar
    rhs: Scalar
    name: str = eqx.field(static=True)
    relation: Relation = eqx.field(static=True)

    @property
    def met(self) -> Bool[Array, ""]:
        """Whether the inequality holds; False when a side is NaN."""
        return _COMPARE[self.relation](self.lhs, self.rhs)

    @property
    def margin(self) -> Scalar:
        """The side that should be larger over the other: ≥ 1 if met, ≤ 1 if not.

        1 when both sides are equal (also when both are 0 or infinite).
        """
        up = self.relation in (">=", ">")
        high, low = (self.lhs, self.rhs) if up else (self.rhs, self.lhs)
        equal = high == low
        safe = jnp.where(equal, jnp.ones_like(low), low)
        return jnp.where(equal, jnp.ones_like(high), high / safe)

    def __str__(self) -> str:
        sides = f"{_number(self.lhs):>12} {self.relation:<2} {_number(self.rhs):>12}"
        return f"{self.name}: {sides.strip()} (margin {_number(self.margin)})"


class Prediction(eqx.Module):
    r"""What follows for the residuals $r_t$ of the iterates $\theta_t$.

    For gradient flow (`step_size` None) $t$ is time, otherwise it counts steps.

    Attributes:
        step_size: $\eta$; None for gradient flow.
        log_rate: $\log q$ in $\|r_t\|^2 \le q^t \|r_0\|^2$ (squared norms).
        initial_residual: $\|r_0\|$, measured or bounded as the report says.
        radius: of the ball around $\theta_0$ that no iterate leaves.
        path_length: bound on $\sum_t \|\theta_{t+1} - \theta_t\|$; None if none is
            claimed.
        slope: $\zeta$ in $\|r_t\| + \zeta \cdot$ (path length up to $t$)
            $\le \|r_0\|$; None if this is not claimed.
        min_distance: lower bound on the distance from $\theta_0$ to any
            interpolating parameter in the ball; None if none is claimed.
        probability: lower bound on the probability of all of this, over the source of
            randomness that the report names; 1 for deterministic statements.
    """

    step_size: Scalar | None
    log_rate: Scalar
    initial_residual: Scalar
    radius: Scalar
    path_length: Scalar | None
    slope: Scalar | None
    min_distance: Scalar | None
    probability: Scalar

    @property
    def squared_rate(self) -> Scalar:
        r"""$q$: what $\|r_t\|^2$ is multiplied by, at most, per step or unit time."""
        return jnp.exp(self.log_rate)

    @property
    def rate(self) -> Scalar:
        r"""$\sqrt q$: the same for $\|r_t\|$."""
        return jnp.exp(self.log_rate / 2)

    def residual_bound(self, t: Any) -> Float[Array, "..."]:
        r"""$q^{t/2} \|r_0\|$, the bound on $\|r_t\|$ (root mean square if random).

        Args:
            t: step or time, any shape.
        """
        t = jnp.asarray(t, self.log_rate.dtype)
        # a rate of 0 has logarithm -inf, and 0 steps leave the residual as it is
        power = jnp.where(t > 0, jnp.where(t > 0, t, 1) * self.log_rate / 2, 0)
        return self.initial_residual * jnp.exp(power)

    def steps_to(self, fraction: float) -> int | float:
        r"""Steps after which $\|r_t\| \le$ ``fraction`` $\cdot \|r_0\|$ is promised.

        Infinity when the rate is 1, or the fraction 0 and the rate is not. For
        gradient flow this is a time.

        Raises:
            ValueError: a negative fraction, or NaN.
        """
        if not fraction >= 0:
            msg = f"fraction is {fraction}; expected a number of at least 0."
            raise ValueError(msg)
        log_rate = float(self.log_rate)
        if not log_rate < 0:
            return math.inf
        if fraction >= 1:
            return 0
        if fraction == 0 and log_rate > -math.inf:
            return math.inf
        steps = 2 * math.log(fraction) / log_rate if fraction > 0 else 0.0
        return steps if self.step_size is None else max(1, math.ceil(steps))

    def lyapunov(
        self, residuals: Float[Array, " steps"], path_lengths: Float[Array, " steps"]
    ) -> Float[Array, " steps"]:
        r"""$V_t = \|r_t\| + \zeta \sum_{s<t} \|\theta_{s+1} - \theta_s\|$.

        Non-increasing along every run that the report covers, so a cheap assertion at
        run time.

        Raises:
            ValueError: the report claims no such function.
        """
        if self.slope is None:
            msg = "this prediction has no Lyapunov function; slope is None."
            raise ValueError(msg)
        return residuals + self.slope * path_lengths


class Report(eqx.Module):
    r"""A statement evaluated on an instance.

    Attributes:
        conditions: every inequality that the statement needs, both sides as numbers.
        constants: what entered, by name; arrays, or `Estimate` with an error.
        prediction: what follows if all conditions are met, and not otherwise.
        title: the statement.
        method: where it comes from: proved here, read, or recalled.
        hypotheses: what it takes for granted and no computation can check.
    """

    conditions: tuple[Condition, ...]
    constants: dict[str, Any]
    prediction: Prediction
    title: str = eqx.field(static=True)
    method: str = eqx.field(static=True)
    hypotheses: tuple[str, ...] = eqx.field(static=True)

    @property
    def holds(self) -> Bool[Array, ""]:
        """Whether every condition is met."""
        return jnp.all(jnp.stack([c.met for c in self.conditions]))

    @property
    def margin(self) -> Scalar:
        """The smallest margin: ≥ 1 if the report holds, ≤ 1 if not."""
        return jnp.min(jnp.stack([c.margin for c in self.conditions]))

    @property
    def failures(self) -> tuple[Condition, ...]:
        """The conditions that are not met. Needs concrete numbers."""
        return tuple(c for c in self.conditions if not bool(c.met))

    def __str__(self) -> str:
        if not is_concrete(self.holds) or jnp.ndim(self.holds):
            return eqx.tree_pformat(self)
        verdict = "holds" if bool(self.holds) else "does not hold"
        lines = [f"{self.title}: {verdict}", "conditions"]
        width = max(len(c.name) for c in self.conditions)
        for c in self.conditions:
            mark = "+" if bool(c.met) else "-"
            sides = f"{_number(c.lhs):>11} {c.relation:<2} {_number(c.rhs):>11}"
            lines.append(f"  {mark} {c.name:<{width}} {sides}  x{_number(c.margin)}")
        lines.append("constants")
        width = max(map(len, self.constants), default=0)
        for name, value in self.constants.items():
            lines.append(f"    {name:<{width}} {_words(value)}")
        lines.append("predictions" + ("" if bool(self.holds) else " (not promised)"))
        named = {
            "step size": self.prediction.step_size,
            "1 - squared rate": -jnp.expm1(self.prediction.log_rate),
            "initial residual": self.prediction.initial_residual,
            "radius": self.prediction.radius,
            "path length": self.prediction.path_length,
            "distance at least": self.prediction.min_distance,
            "probability": self.prediction.probability,
        }
        for name, value in named.items():
            if value is not None:
                lines.append(f"    {name:<17} {_number(value)}")
        lines.append(f"source: {self.method}")
        lines += [f"taken for granted: {each}" for each in self.hypotheses]
        return "\n".join(lines)


def _number(x: Any) -> str:
    return f"{float(np.asarray(x)):.6g}"


def _words(value: Any) -> str:
    if isinstance(value, Estimate):
        return f"{_number(value.value)} ± {float(value.error):.1e} ({value.error_kind})"
    return _number(value)
