"""Families over k: where one changes from saddle to minimum, and tables."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrelu._checks import check_size
from jaxrelu._results import Estimate
from jaxrelu.landscape.families._families import Family, family_of
from jaxrelu.landscape.families._multiprecision import context, kept, rounded
from jaxrelu.landscape.families._symmetric import SymmetricPoint, symmetric_minimum


class CriticalDimension(eqx.Module):
    r"""A real k at which a family's smallest Hessian eigenvalue passes through 0.

    Attributes:
        name: of the family.
        k: the dimension.
        number: the same as `mpmath.mpf`.
        label: the representation whose smallest eigenvalue vanishes.
        increasing: whether that eigenvalue grows with k: saddle below, minimum above.
    """

    name: str = eqx.field(static=True)
    k: Estimate
    number: Any = eqx.field(static=True)
    label: str = eqx.field(static=True)
    increasing: bool = eqx.field(static=True)


def critical_dimension(
    name: str,
    *,
    p: int | None = None,
    low: int | None = None,
    high: int | None = None,
    digits: int = 20,
) -> CriticalDimension:
    r"""The largest k in [low, high] at which a family turns from saddle to minimum.

    Families are curves in real k, and so are the eigenvalues of their Hessian. The
    integers from ``high`` down are tried until the sign of $\lambda_{\min}$ changes;
    the zero between the two is then found by root bracketing. For N the window in which
    it is a minimum ends at the answer; other families are minima above it.

    Args:
        name: of the family, see `symmetric_minimum`; not ``"global"``.
        p: size of the small block of M and N.
        low: least k tried; None for the family's first.
        high: largest; None for $12$ (A, I, II), $3p + 8$ (M), $4p + 8$ (N).
        digits: decimal digits wanted.

    Returns:
        k, its error being half the width of an interval at whose ends the eigenvalue,
        as computed, has different signs.

    Raises:
        TypeError: low or high not an integer.
        ValueError: no change of sign in [low, high]; low below 1 or not below high.
        RuntimeError: the zero found is no change of sign.
    """
    family = family_of(name, p)
    low, high = _bracket(family, low, high)
    check_size(digits, "digits")
    upper = None
    for k in range(high, low - 1, -1):
        try:
            lower = _smallest(family, k, 15)
        except RuntimeError:  # the family does not reach this k
            upper = None
            continue
        if upper is not None and (lower[0] > 0) != (upper[0] > 0):
            break
        upper = lower
    else:
        msg = (
            f"family {family.label} does not change inertia for k in [{low}, {high}]; "
            "give another range."
        )
        raise ValueError(msg)
    label = min(lower, upper)[1]
    ctx = context(digits + 15)

    def value(size):
        return ctx.convert(_smallest(family, size, digits + 10, label)[0])

    root = ctx.findroot(
        value,
        (ctx.mpf(k), ctx.mpf(k + 1)),
        solver="anderson",
        tol=ctx.mpf(10) ** (-2 * digits),
        verify=False,
    )
    width = root * ctx.mpf(10) ** -digits
    before, after = value(root - width), value(root + width)
    if not before * after < 0:
        msg = f"the zero at k = {float(root)} shows no change of sign."
        raise RuntimeError(msg)
    method = f"sign change of an eigenvalue at {digits} digits, rounded"
    return CriticalDimension(
        name=family.label,
        k=rounded(root, width, method),
        number=kept(root),
        label=label,
        increasing=bool(before < 0),
    )


def _bracket(family: Family, low: Any, high: Any) -> tuple[int, int]:
    p = family.p
    if family.name == "global":
        msg = "the global minimum is a minimum for every k; expected another family."
        raise ValueError(msg)
    first = {"A": 3, "I": 4, "II": 4}.get(family.name, p + 3)
    last = {"M": 3 * p + 8, "N": 4 * p + 8}.get(family.name, 12)
    first = first if low is None else check_size(low, "low")
    last = last if high is None else check_size(high, "high")
    if not first < last:
        msg = (
            f"low is {first} and high {last}; expected low < high: the sign changes "
            "between two integers."
        )
        raise ValueError(msg)
    return first, last


def _smallest(
    family: Family, k: Any, digits: int, label: str | None = None
) -> tuple[Any, str]:
    """Smallest eigenvalue of all representations or of one, and its label."""
    stem = family.name
    p = family.p if stem in ("M", "N") else None
    point = symmetric_minimum(stem, k, p=p, digits=digits)
    parts = [q for q in point.isotypic() if label is None or q.label == label]
    return min((min(part.values), part.label) for part in parts)


class FamilyTable(eqx.Module):
    """Loss and smallest eigenvalue of families over k; NaN where one is not defined.

    Attributes:
        names: of the families, rows.
        k: dimensions, columns.
        loss: $F$.
        smallest: the smallest Hessian eigenvalue, $d = k$.
        norm_sum: sum of the neurons' norms.
        is_minimum: whether the Hessian is positive definite.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    k: Float[Array, " sizes"]
    loss: Float[Array, "families sizes"]
    smallest: Float[Array, "families sizes"]
    norm_sum: Float[Array, "families sizes"]
    is_minimum: Bool[Array, "families sizes"]


def family_table(names: Sequence[str], k: Sequence[int | float]) -> FamilyTable:
    r"""Loss, $\lambda_{\min}$ and norm sum of families over k.

    Args:
        names: families, as ``"II"`` or ``"M_2"``.
        k: dimensions, real ones too; about a tenth of a second for each family and k.
    """
    rows = [[_summary(name, size) for size in k] for name in names]
    cells = np.array(rows, float).reshape(len(names), len(k), 3)
    number = jnp.zeros(()).dtype
    return FamilyTable(
        names=tuple(names),
        k=jnp.asarray(np.array([float(size) for size in k]), number),
        loss=jnp.asarray(cells[..., 0], number),
        smallest=jnp.asarray(cells[..., 1], number),
        norm_sum=jnp.asarray(cells[..., 2], number),
        is_minimum=jnp.asarray(cells[..., 1] > 0),
    )


def _summary(name: str, k: Any) -> tuple[float, float, float]:
    family_of(name, None)
    try:
        point: SymmetricPoint = symmetric_minimum(name, k, digits=20)
    except (ValueError, RuntimeError):
        return math.nan, math.nan, math.nan
    smallest = min(min(part.values) for part in point.isotypic())
    return float(point.loss), float(smallest), float(point.norm_sum)
