r"""Expansions of the symmetric families in powers of $k^{-1/2}$, in closed form.

The coefficients are known numerically: solve at many k in several hundred digits,
eliminate (Richardson), and search for integer relations with powers of $\pi$ (PSLQ).
Each relation holds to 120 digits or more and has small coefficients; none is proved.
Some need a factor $1/(\pi - 2)$; with it every coefficient up to the order kept here
has a closed form.
"""

from fractions import Fraction
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from jaxrelu._checks import as_floating, check_choice
from jaxrelu._results import Estimate
from jaxrelu.landscape.families._families import Family, family_of
from jaxrelu.landscape.families._multiprecision import SUCCESS, context, kept
from jaxrelu.landscape.families._series_data import CLOSED_FORMS


Coefficient = tuple[int, dict[int, str]]
r"""(m, {i: c}) is $(\pi - 2)^{-m} \sum_i c \pi^i$."""


class HalfPowerSeries(eqx.Module):
    r"""$\sum_j c_j k^{-j/2}$ with coefficients in closed form.

    Attributes:
        name: of the family.
        quantity: what is expanded.
        powers: the j whose coefficients are not 0.
        forms: $c_j$ as (m, {i: c}), which is $(\pi - 2)^{-m} \sum_i c \pi^i$.
        next_power: of the first term left out.
    """

    name: str = eqx.field(static=True)
    quantity: str = eqx.field(static=True)
    powers: tuple[int, ...] = eqx.field(static=True)
    forms: tuple[Any, ...] = eqx.field(static=True)
    next_power: int = eqx.field(static=True)

    def coefficient(self, j: int, digits: int = 30) -> Any:
        r"""$c_j$ as `mpmath.mpf`; 0 where `powers` does not list j.

        Raises:
            ValueError: j is not below `next_power`.
        """
        if not 0 <= j < self.next_power:
            msg = f"j is {j}; coefficients are known for 0 <= j < {self.next_power}."
            raise ValueError(msg)
        ctx = context(digits + 10)
        if j not in self.powers:
            return kept(ctx.mpf(0))
        return kept(_value(ctx, self.forms[self.powers.index(j)]))

    def closed_form(self, j: int) -> str:
        r"""$c_j$ in words of $\pi$, as ``"1/2 - 2 π^-2"``."""
        if j not in self.powers:
            return "0"
        m, terms = self.forms[self.powers.index(j)]
        text = " + ".join(
            c if i == 0 else f"{c} π" if i == 1 else f"{c} π^{i}"
            for i, c in sorted(terms.items(), reverse=True)
        ).replace("+ -", "- ")
        if m == 0:
            return text
        return f"({text})/(π - 2)" + (f"^{m}" if m > 1 else "")

    def __call__(self, k: float | Float[ArrayLike, "..."]) -> Estimate:
        r"""The sum of all known terms at k.

        The error is the size of the last term, a factor of about $\sqrt k$ more than
        the first one left out as soon as k is large; it is an estimate, no bound.
        Works under `jit`, `vmap` and `grad`.
        """
        number = isinstance(k, float | int)
        k = jnp.asarray(k, float) if number else as_floating(k, "k")
        small = 1 / jnp.sqrt(k)
        total = size = last = jnp.zeros_like(k)
        power = jnp.ones_like(k)
        for j in range(self.next_power):
            if j in self.powers:
                last = np.asarray(float(self.coefficient(j)), k.dtype) * power
                total, size = total + last, size + jnp.abs(last)
            power = power * small
        rounding = len(self.powers) * jnp.finfo(k.dtype).eps * size
        return Estimate(
            value=total,
            error=jnp.abs(last) + rounding,
            result=SUCCESS,
            error_kind="truncation estimate",
            method=f"expansion in k^(-1/2) up to power {self.next_power - 1}",
        )


def series(
    name: str, quantity: str = "loss", *, p: int | None = None
) -> HalfPowerSeries:
    r"""Expansion of one quantity of a family in $k^{-1/2}$.

    For type II, $F = (\frac12 - \frac{2}{\pi^2}) k^{-1} - \frac{32}{3\pi^4} k^{-3/2} +
    \dots$: the loss vanishes, while that of A and I tends to
    $\frac12 - \frac1\pi$. $\lambda_{\wedge^2}$ at all of them tends to its value
    $\frac14 - \frac{1}{2\pi}$ at the global minimum, and so does $\lambda_Y$ to
    $\frac14 + \frac{1}{2\pi}$ with the same corrections up to $k^{-3/2}$.

    Args:
        name: ``"A"``, ``"I"``, ``"II"``, or ``"M"`` with p fixed (the loss only:
            p times that of II in the two terms known).
        quantity: ``"loss"``, ``"alternating"`` ($\lambda_{\wedge^2}$), ``"Young"``
            ($\lambda_Y$), or a parameter's name, see `symmetric_minimum`.
        p: size of the small block of M.

    Raises:
        ValueError: no such family or quantity.
    """
    family = family_of(name, p)
    known = _known(family)
    check_choice(quantity, tuple(known), "quantity")
    terms = known[quantity]
    powers = tuple(sorted(terms))
    return HalfPowerSeries(
        name=family.label,
        quantity=quantity,
        powers=powers,
        forms=tuple(terms[j] for j in powers),
        next_power=powers[-1] + 1,
    )


def _known(family: Family) -> dict[str, dict[int, Coefficient]]:
    check_choice(family.name, ("A", "I", "II", "M"), "name")
    if family.name == "M":
        first = {j: CLOSED_FORMS["II"]["loss"][j] for j in (2, 3)}
        return {"loss": {j: _scaled(form, family.p) for j, form in first.items()}}
    known = dict(CLOSED_FORMS[family.name])
    young = {j: form for j, form in known["alternating"].items() if j <= 3}
    young[0] = (0, {0: "1/4", -1: "1/2"})
    return known | {"Young": young}


def _scaled(form: Coefficient, p: int) -> Coefficient:
    m, terms = form
    return m, {i: str(p * Fraction(c)) for i, c in terms.items()}


def _value(ctx: Any, form: Coefficient) -> Any:
    m, terms = form
    fractions = {i: Fraction(c) for i, c in terms.items()}
    total = sum(c.numerator * ctx.pi**i / c.denominator for i, c in fractions.items())
    return total / (ctx.pi - 2) ** m
