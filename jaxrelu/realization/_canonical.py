r"""Linear plus even: the form in which equal functions have equal coefficients.

With $\rho(t) = \tfrac12(t + |t|)$ a network
$\sum_i c_i\,\rho(\langle a_i, x\rangle)$ is
$$ f(x) = L x + \sum_H \kappa_H\,|\langle n_H, x\rangle|, \qquad
   L = \tfrac12 C A, \qquad
   \kappa_H = \tfrac12 \sum_{a_i \parallel n_H} \|a_i\|_\infty\, c_i, $$
one $n_H$ per hyperplane, $\|n_H\|_\infty = 1$, first nonzero entry positive. After
$\kappa_H = 0$ is dropped the form is unique: $Lx = \tfrac12(f(x) - f(-x))$, and across
$H$ the derivative of $f$ jumps by $2\kappa_H n_H^\top$, which only $\kappa_H n_H^\top$
can give because the $n_H$ are pairwise not parallel. So two networks are one function
if and only if their forms agree. With biases the same holds for $(x, 1)$ after the
plane $(0, \dots, 0, 1)$, where nothing kinks, is added to the constant.

Host code. Two arithmetics: floating, in which rows count as parallel up to a tolerance,
and rational, in which every stored weight is the fraction that it is and nothing is
rounded. The splitting also stands in a blog post by J. Simon; the proof is above.
"""

from fractions import Fraction
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from jaxrelu._checks import check_positive
from jaxrelu.realization._arrangement import default_tolerance, group_rows
from jaxrelu.realization._neurons import (
    Neurons,
    neurons,
    pair,
    sup,
)


Rows = tuple[tuple[Fraction, ...], ...]


class CanonicalForm(eqx.Module):
    r"""$f(x) = L x + \sum_H \kappa_H |\langle n_H, x\rangle|$ in floating point.

    For a network with biases $d$ counts the constant 1 behind the inputs.

    Attributes:
        linear: L, (m, d).
        normals: $n_H$, sup-norm 1, first nonzero entry positive, sorted, (h, d).
        kinks: $\kappa_H$, (h, m).
        tolerance: rows within it of each other (after scaling) were taken as parallel.
        affine: whether the last coordinate is the constant 1.
        scalar: whether the network has no output axis.
        dtype: the network's own precision; the form itself is float64.
    """

    linear: Float[np.ndarray, "m d"]
    normals: Float[np.ndarray, "h d"]
    kinks: Float[np.ndarray, "h m"]
    tolerance: float = eqx.field(static=True)
    affine: bool = eqx.field(static=True)
    scalar: bool = eqx.field(static=True)
    dtype: str = eqx.field(static=True)

    def __call__(self, x: Any) -> Float[np.ndarray, "..."]:
        """Values at inputs (…, d), on the host in float64."""
        x = np.asarray(x, np.float64)
        if self.affine:
            x = np.concatenate([x, np.ones_like(x[..., :1])], axis=-1)
        value = x @ self.linear.T + np.abs(x @ self.normals.T) @ self.kinks
        return value[..., 0] if self.scalar else value


class ExactForm(eqx.Module):
    r"""The canonical form in rational arithmetic; hashable, `==` is equality of $f$.

    Attributes:
        linear: L, m rows of d fractions.
        normals: $n_H$, h rows of d fractions, sorted.
        kinks: $\kappa_H$, h rows of m fractions.
        affine: whether the last coordinate is the constant 1.
    """

    linear: Rows
    normals: Rows
    kinks: Rows
    affine: bool = eqx.field(static=True)


class Equality(eqx.Module):
    r"""Whether two networks are one function; true or false where a bool is asked.

    Attributes:
        equal: the answer.
        defect: largest coefficient of the canonical form of the difference, 0.0 when
            the difference vanishes in exact arithmetic.
        scale: $\max_{pq} \sum_i |c_{pi} a_{iq}|$, the larger of the two networks'.
        tolerance: `defect <= tolerance * scale` counts as equal; 0.0 if exact.
        exact: whether the answer is that of rational arithmetic on stored weights.
    """

    equal: bool = eqx.field(static=True)
    defect: float = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    exact: bool = eqx.field(static=True)

    def __bool__(self) -> bool:
        return self.equal


def parallel_groups(
    rows: Float[np.ndarray, "k d"], tolerance: float
) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "h d"]]:
    r"""Which hyperplane each nonzero row belongs to.

    Args:
        rows: nonzero rows.
        tolerance: rows are parallel when, scaled to sup-norm 1, one is within it of
            the other or of its negative; chains of such pairs are one group.

    Returns:
        Group of each row (k,), sign of the row against its normal (k,), normals (h, d)
        with sup-norm 1 and the first entry beyond the tolerance positive.

    Cost: as `jaxrelu.realization._arrangement.group_rows`.
    """
    if not len(rows):
        return np.zeros(0, int), np.zeros(0), rows
    first, group, orientation = group_rows(rows, tolerance)
    normals = rows[first] / sup(rows[first])[:, None]
    leading = np.argmax(np.abs(normals) > tolerance, axis=1)
    turn = np.sign(normals[np.arange(len(normals)), leading])
    normals = normals * turn[:, None] + 0.0  # no negative zeros
    order = np.lexsort(normals.T[::-1])
    place = np.argsort(order)
    return place[group], orientation * turn[group], normals[order]


def _require_products(inner: np.ndarray, outer: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.abs(outer) @ np.abs(inner)).all()
    if not finite:
        msg = (
            "products of inner and outer weights overflow float64; expected products "
            "that it holds. Divide the outer weights by a power of 2, or compare "
            "`canonical_exact` forms."
        )
        raise ValueError(msg)


def _form(n: Neurons, tolerance: float) -> CanonicalForm:
    size, mass = sup(n.inner), sup(n.outer.T)
    alive = (size > 0) & (mass > 0)
    rows, outer, size = n.inner[alive], n.outer[:, alive], size[alive]
    _require_products(rows, outer)
    group, _, normals = parallel_groups(rows, tolerance)
    linear = outer @ rows / 2
    weights = outer.T * size[:, None] / 2
    kinks = np.zeros((len(normals), len(n.outer)))
    total = np.zeros_like(kinks)
    np.add.at(kinks, group, weights)
    np.add.at(total, group, np.abs(weights))
    keep = sup(kinks) > tolerance * sup(total)
    if n.affine:
        constant = sup(normals[:, :-1]) <= tolerance
        linear[:, -1] += kinks[constant].sum(axis=0)
        keep &= ~constant
    return CanonicalForm(
        linear, normals[keep], kinks[keep], tolerance, n.affine, n.scalar, n.dtype
    )


def canonical(network: Any, tolerance: float | None = None) -> CanonicalForm:
    r"""The canonical form of a ReLU network with one hidden layer.

    A kink counts as cancelled when $\kappa_H$ is below the tolerance times the sum of
    the absolute contributions to it.

    Args:
        network: `Shallow`, or `DenseNetwork` with one hidden layer (biases allowed).
        tolerance: None takes 1e-13 for float64 weights and 5e-7 for float32.

    Raises:
        TypeError, ValueError: not such a network, traced weights, NaN, products of
            weights that overflow.

    Cost: O(k log k + kdm) on the host.
    """
    n = neurons(network)
    tolerance = default_tolerance(n.dtype) if tolerance is None else tolerance
    check_positive(tolerance, "tolerance")
    return _form(n, tolerance)


def canonical_exact(network: Any) -> ExactForm:
    """The canonical form of the stored weights in rational arithmetic.

    Every floating number is a fraction, so nothing is rounded: two networks are the
    same function if and only if their exact forms are equal, and `hash` of the form is
    a hash of the function (equal functions, equal hashes). Networks that only rounding
    keeps apart, for example after a rescaling by 1/3, are different functions; ask
    `equal` with a tolerance for those.

    Raises:
        TypeError, ValueError: as `canonical`.

    Cost: kdm operations on fractions of a few hundred digits at most.
    """
    n = neurons(network)
    return _exact_form(n.inner, n.outer, n.affine)


def _fractions(row: np.ndarray) -> list[Fraction]:
    return [Fraction(float(x)) for x in row]


def _exact_form(inner: np.ndarray, outer: np.ndarray, affine: bool) -> ExactForm:
    m, d = len(outer), inner.shape[1]
    linear = [[Fraction(0)] * d for _ in range(m)]
    kinks: dict[tuple[Fraction, ...], list[Fraction]] = {}
    for row, column in zip(inner, outer.T, strict=True):
        a, c = _fractions(row), _fractions(column)
        size = max(map(abs, a))
        if size == 0 or not any(c):
            continue
        for p in range(m):
            for q in range(d):
                linear[p][q] += c[p] * a[q] / 2
        leading = next(x for x in a if x)
        scale = size if leading > 0 else -size
        normal = tuple(x / scale for x in a)
        kappa = kinks.setdefault(normal, [Fraction(0)] * m)
        for p in range(m):
            kappa[p] += c[p] * size / 2
    if affine:
        constant = (*([Fraction(0)] * (d - 1)), Fraction(1))
        for p, value in enumerate(kinks.pop(constant, [])):
            linear[p][-1] += value
    kept = sorted((n, tuple(k)) for n, k in kinks.items() if any(k))
    return ExactForm(
        tuple(map(tuple, linear)),
        tuple(n for n, _ in kept),
        tuple(k for _, k in kept),
        affine,
    )


def equal(
    a: Any, b: Any, *, exact: bool = False, tolerance: float | None = None
) -> Equality:
    r"""Whether two ReLU networks with one hidden layer are the same function.

    The canonical form of the difference (neurons of both, outer weights of the second
    negated) is compared with 0. With ``exact=True`` in rational arithmetic on the
    stored weights: then the answer is a proof. Otherwise up to the tolerance: rows
    within it count as parallel, and every coefficient of the form may be off by
    tolerance × scale. Equal then means that weights moved by about that much, relative
    to their own size, are exactly the same function; the derivatives of $a$ and $b$
    may still differ on thin wedges between rows that were taken as parallel.

    Args:
        a: `Shallow`, or `DenseNetwork` with one hidden layer (biases allowed).
        b: another, with inputs and outputs of the same sizes; widths may differ.
        exact: rational arithmetic.
        tolerance: None takes 1e-13 if both are float64, else 5e-7. Not with ``exact``.

    Raises:
        TypeError, ValueError: not such networks, sizes that differ, products of
            weights that overflow, a tolerance together with ``exact=True``.

    Cost: as `canonical` with both networks' neurons.
    """
    if exact and tolerance is not None:
        msg = "exact=True needs no tolerance; leave out one of the two."
        raise ValueError(msg)
    first, second = pair(a, b)
    for n in (first, second):
        _require_products(n.inner, n.outer)
    inner = np.concatenate([first.inner, second.inner])
    outer = np.concatenate([first.outer, -second.outer], axis=1)
    scale = max(
        float((np.abs(n.outer) @ np.abs(n.inner)).max()) for n in (first, second)
    )
    if exact:
        form = _exact_form(inner, outer, first.affine)
        left = [x for rows in (form.linear, form.kinks) for row in rows for x in row]
        same = not any(left)
        return Equality(same, float(max(map(abs, left))), scale, 0.0, True)
    if tolerance is None:
        tolerance = max(default_tolerance(n.dtype) for n in (first, second))
    check_positive(tolerance, "tolerance")
    form = _form(
        Neurons(inner, outer, first.affine, first.scalar, first.dtype), tolerance
    )
    defect = max(float(np.abs(x).max(initial=0.0)) for x in (form.linear, form.kinks))
    return Equality(defect <= tolerance * scale, defect, scale, tolerance, False)
