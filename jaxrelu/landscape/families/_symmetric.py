r"""Symmetric critical points of the teacher-student loss, for any k, with spectra.

Names: A, I and II as in the literature on symmetry breaking (Arjevani and Field,
2020-21, from memory); M_p and N_p are ours.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import check_size as as_size
from jaxrelu._memory import require_bytes
from jaxrelu._results import Estimate
from jaxrelu.landscape.families._blocks import (
    Geometry,
    assemble,
    entries,
    geometry,
    gradient,
    inner,
    loss,
    loss_of_critical,
)
from jaxrelu.landscape.families._families import (
    PARAMETERS,
    check_size,
    family_of,
    newton,
    seed,
)
from jaxrelu.landscape.families._isotypic import Component, components
from jaxrelu.landscape.families._multiprecision import (
    SUCCESS,
    as_number,
    context,
    converted,
    kept,
    rounded,
)
from jaxrelu.spectra import DistinctSpectrum


class IsotypicPart(NamedTuple):
    """One representation: its name, its eigenvalues, and how often each occurs."""

    label: str
    values: list[Any]
    multiplicity: Any


class SymmetricPoint(eqx.Module):
    r"""A critical point of $F$, teacher $v_j = e_j$, $n = k$, given by a few numbers.

    $W$ is constant on the orbits of $\Delta(S_{p_1} \times \dots \times S_{p_m})$: see
    `symmetric_minimum`. The numbers are solved for in multiprecision arithmetic; what
    comes out as floats is rounded once. Nothing but `weights` costs more for larger k.

    Attributes:
        name: of the family, as ``"II"`` or ``"M_2"``.
        sizes: block sizes $p_1, \dots, p_m$, in the order of rows and columns.
        numbers: the free numbers as `mpmath.mpf`, in the order of `names`.
        names: of the free numbers.
        k: number of neurons and of teacher neurons; real where not an integer.
        d: input dimension, at least k.
        digits: decimal digits that `numbers` and all that follows from them carry.
    """

    name: str = eqx.field(static=True)
    sizes: tuple[Any, ...] = eqx.field(static=True)
    numbers: tuple[Any, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    k: Any = eqx.field(static=True)
    d: Any = eqx.field(static=True)
    digits: int = eqx.field(static=True)

    @property
    def parameters(self) -> dict[str, float]:
        """The free numbers by name, rounded to float64."""
        return dict(zip(self.names, map(float, self.numbers), strict=True))

    @property
    def high_precision(self) -> dict[str, Any]:
        """The free numbers by name as `mpmath.mpf` of `digits` digits."""
        return dict(zip(self.names, self.numbers, strict=True))

    @property
    def _method(self) -> str:
        return f"{self.digits} digits, rounded"

    @property
    def _eigenvalue_error(self) -> float:
        # k times what the numbers are off (`_polished`), with five digits to spare
        return 10.0 ** -(self.digits + 5)

    @property
    def isotropy(self) -> str:
        """The group that fixes the family; at single k a point can have more."""
        sizes = [s for s in self.sizes if s != 1] if len(self.sizes) < 3 else self.sizes
        text = " x ".join(f"S_{s if isinstance(s, int) else float(s)}" for s in sizes)
        return f"Δ({text})" if len(sizes) > 1 else f"Δ{text}"

    @property
    def loss(self) -> Estimate:
        r"""$F(W)$, the factor ½ included.

        Computed as the sum over pairs and as $\frac12(\sum f(v,v) - \sum f(w,w))$; the
        error holds their difference and one rounding.
        """
        point = self.geometry()
        value = loss(point)
        error = abs(value - loss_of_critical(point))
        return rounded(value, error, self._method)

    @property
    def norm_sum(self) -> Estimate:
        r"""$\sum_i \|w_i\|$, at most k at every minimum with $n = k$ met so far."""
        point = self.geometry()
        pairs = zip(point.sizes, point.norms, strict=True)
        return rounded(sum(size * norm for size, norm in pairs), 0, self._method)

    @property
    def gradient_norm(self) -> float:
        r"""$\|\nabla F(W)\|_F$ of the full problem, in multiprecision arithmetic."""
        point = self.geometry()
        slope = gradient(point)
        return float(point.ctx.sqrt(inner(point.sizes, slope, slope)))

    @property
    def inertia(self) -> tuple[int | float, int | float, int | float]:
        r"""Numbers of negative, zero and positive eigenvalues of the Hessian.

        By the eigenvalues as computed, not by their floats; a zero is one within
        $10^{-\text{digits} - 5}$.
        """
        found, small = self._distinct(), self._eigenvalue_error
        signs = [0 if abs(v) <= small else int(v > 0) - int(v < 0) for v, *_ in found]
        counts = [
            sum(row[2] for row, s in zip(found, signs, strict=True) if s == sign)
            for sign in (-1, 0, 1)
        ]
        return counts[0], counts[1], counts[2]

    @property
    def is_local_minimum(self) -> bool:
        """Whether the Hessian is positive definite, by its computed eigenvalues."""
        negative, zero, _ = self.inertia
        return negative == 0 and zero == 0

    @property
    def smallest_eigenvalue(self) -> Estimate:
        r"""$\lambda_{\min}$ of the Hessian."""
        spectrum = self.hessian_spectrum()
        return Estimate(
            value=spectrum.minimum,
            error=spectrum.error[-1],
            result=SUCCESS,
            error_kind=spectrum.error_kind,
            method=f"{spectrum.labels[-1]}: {spectrum.method}",
        )

    def hessian_spectrum(self) -> DistinctSpectrum:
        r"""All $kd$ eigenvalues of $\nabla^2 F$, distinct ones with multiplicities.

        At most 7 for A, 12 for I and II, 22 for M and N, and a few more when
        $d > k$. Labels: ``trivial``, ``standard`` (dimension $p - 1$), ``alternating``
        ($\wedge^2$, $(p-1)(p-2)/2$), ``Young`` ($(p-2, 2)$, $p(p-3)/2$), their block
        where there are two, and ``outside`` for input directions orthogonal to all
        teachers. Each is computed to $10^{-\text{digits} - 5}$, whatever k and the
        other eigenvalues are, before it is rounded to a float.

        Raises:
            ValueError: a block of a size below 3 that is not an integer; there the
                dimensions of the representations do not add up.
        """
        found = self._distinct()
        values = [row[0] for row in found]
        numbers = rounded(values, self._eigenvalue_error, self._method)
        return DistinctSpectrum(
            values=numbers.value,
            error=numbers.error,
            multiplicities=tuple(row[2] for row in found),
            labels=tuple(row[1] for row in found),
            method=f"isotypic components, {self._method}",
            error_kind="rounding bound",
        )

    def _distinct(self) -> list[tuple[Any, str, int | float]]:
        """Distinct eigenvalues, descending, with labels and multiplicities."""
        found = []
        for part in self.isotypic():
            times = _plain(part.multiplicity)
            found += [(v, part.label, times) for v in part.values]
        found.sort(key=lambda row: row[0], reverse=True)
        if abs(sum(row[2] for row in found) - self.k * self.d) > 1e-6 * self.k:
            msg = (
                f"the blocks have sizes {tuple(map(float, self.sizes))}; expected "
                "integers, or real sizes of at least 3."
            )
            raise ValueError(msg)
        return found

    def isotypic(self) -> list["IsotypicPart"]:
        """The representations in the Hessian, with eigenvalues as mpmath numbers."""
        outside = 0 if self.d == self.k else self.d - self.k
        return _components(self.sizes, self.numbers, outside, self.digits)

    def weights(self, dtype: Any = None) -> Float[Array, "k d"]:
        """W written out, rows and columns block after block.

        Args:
            dtype: floating dtype; None takes JAX's default.

        Raises:
            MemoryRefusedError: with the bytes needed, before anything is allocated.
            ValueError: k or d is not an integer.
        """
        if not all(isinstance(size, int) for size in (self.k, self.d)):
            msg = f"k is {self.k} and d {self.d}; expected integers to write W out."
            raise ValueError(msg)
        dtype = jnp.zeros((), dtype if dtype is not None else float).dtype
        require_bytes(
            self.k * self.d * (8 + dtype.itemsize),
            f"The {self.k} x {self.d} weights, {dtype.name},",
            "Use parameters: the same numbers, one for each block.",
        )
        matrix = assemble(self.sizes, [float(x) for x in self.numbers])
        block = np.repeat(np.arange(len(self.sizes)), self.sizes)
        out = np.zeros((self.k, self.d))
        out[:, : self.k] = np.array(matrix.cross, float)[block[:, None], block[None]]
        out[np.arange(self.k), np.arange(self.k)] = np.array(matrix.diag, float)[block]
        return jnp.asarray(out, dtype)

    def geometry(self) -> Geometry:
        """Norms and angles between the orbits, in multiprecision arithmetic."""
        return _geometry(self.sizes, self.numbers, self.digits)

    def __repr__(self) -> str:
        numbers = ", ".join(f"{n} = {v:.10g}" for n, v in self.parameters.items())
        return f"<SymmetricPoint {self.name}, k = {self.k}, d = {self.d}: {numbers}>"


def symmetric_minimum(
    name: str,
    k: Any,
    d: Any = None,
    *,
    p: int | None = None,
    digits: int = 30,
) -> SymmetricPoint:
    r"""The point of a symmetric family at dimension k, whatever k is.

    $F(W) = \frac12 \mathbb E(\sum_i \sigma(w_i x) - \sum_j \sigma(x_j))^2$ with
    $n = k$ neurons is invariant under permutations of neurons and of coordinates. A
    point fixed by $\Delta(S_{p_1} \times \dots)$ is one number per block on the
    diagonal and per pair of blocks off it; the gradient in those numbers is a smooth
    function of real k, and a family is a curve of its zeros:

    | name | blocks | numbers | limit for large k | minimum for |
    | --- | --- | --- | --- | --- |
    | global | k | delta, beta | $I$ | all k |
    | A | k | delta, beta | $-I + \frac2k 11^\top$ | k ≥ 6 |
    | I | k-1, 1 | a, b, c, e, r | A on the first, $e_k$ | k ≥ 7 |
    | II | k-1, 1 | a, b, c, e, r | $e_i$, and $-e_k$ | k ≥ 6 |
    | M, p | k-p, p | a, b, c, e, f, r | $e_i$, and p times $-e_i$ | k ≥ 8 at p = 2 |
    | N, p | p, k-p | a, b, c, e, f, r | A of size p, and $e_i$ | some k only |

    a and b are the diagonal and the rest of the first block, e and f of the last, c
    the entries of the first block's rows in the last block's columns, r the others.
    M_1 is II; N with one last neuron is I. The points are critical for every k; whether
    one is a minimum, `is_local_minimum` says (the column holds what was found, for
    integer k ≤ 100). M_p at $k = p + 2$ is a point of A's orbit (two columns
    exchanged), whose isotropy group is larger; so is II at k = 3.

    A family can end where its curve turns back (a fold in k): N_p does for p ≥ 16, at
    $k - p \approx 400, 115, 90$ for p = 16, 20, 25; M_p coming from large k does for
    p ≥ 46, at $k - p \approx 24, 41, 80$ for p = 46, 60, 100. Found numerically, like
    the rest.

    Newton's method runs in multiprecision arithmetic (mpmath) from a start that is
    followed in real k from the family's limit. Milliseconds up to a second, at any k.

    Args:
        name: ``"global"``, ``"A"``, ``"I"``, ``"II"``, ``"M"``, ``"N"``, or ``"M_2"``.
        k: neurons; a real number follows the family between the integers.
        d: input dimension, k or more; None for k. W does not depend on it, the
            Hessian does.
        p: size of the small block of M (p ≥ 2) and N (p ≥ 3).
        digits: decimal digits to solve for.

    Raises:
        ValueError: unknown name; p, k, d or digits too small.
        RuntimeError: the family could not be followed to this k.
    """
    family = family_of(name, p)
    k = as_number(k, "k")
    check_size(family, k)
    ctx = _context(digits, k)
    sizes = family.sizes(converted(ctx, k) - family.p)
    try:
        start = seed(family, k, ctx)
        if family.name == "global":
            numbers = start
        else:
            numbers = _polished(ctx, sizes, start, digits)
    except ArithmeticError as error:
        msg = f"family {family.label} was not found at k = {k}: {error}"
        raise RuntimeError(msg) from error
    return _point(family.label, sizes, numbers, PARAMETERS[family.name], d, digits)


def symmetric_critical_point(
    sizes: Sequence[int],
    start: Sequence[float],
    d: int | None = None,
    *,
    digits: int = 30,
) -> SymmetricPoint:
    r"""A critical point fixed by $\Delta(S_{p_1} \times \dots \times S_{p_m})$.

    For isotropy groups with no family of their own here, as
    $\Delta(S_p \times S_1 \times S_{k-p-1})$: Newton's method from ``start``.

    Args:
        sizes: block sizes $p_1, \dots, p_m$, which add up to k.
        start: for each row block: its diagonal, the rest of the diagonal block (left
            out if the size is 1), then the other blocks in their order.
        d: input dimension, k or more; None for k.
        digits: decimal digits to solve for.

    Raises:
        TypeError: a size that is no integer.
        ValueError: no size, or one below 1; another number of starting values, or a
            NaN.
        RuntimeError: Newton's method does not converge from there.
    """
    sizes = tuple(as_size(size, "each of sizes") for size in sizes)
    if not sizes:
        msg = "sizes is empty; expected the sizes of one block or more."
        raise ValueError(msg)
    free = entries(sizes)
    names = tuple(
        f"diag_{a + 1}" if diagonal else f"cross_{a + 1}{b + 1}"
        for a, b, diagonal in free
    )
    if len(start) != len(free):
        msg = f"start has {len(start)} numbers; expected {len(free)}: {names}."
        raise ValueError(msg)
    if not all(math.isfinite(float(value)) for value in start):
        msg = f"start is {list(start)}; expected finite numbers."
        raise ValueError(msg)
    ctx = _context(digits, sum(sizes))
    try:
        numbers = _polished(ctx, sizes, start, digits)
    except ArithmeticError as error:
        reason = str(error) or (
            "a neuron became zero, or parallel to another neuron or a teacher, where "
            "the equations divide by 0. Start from elsewhere."
        )
        msg = f"no critical point was found from this start: {reason}"
        raise RuntimeError(msg) from error
    return _point("blocks", sizes, numbers, names, d, digits)


def _point(name, sizes, numbers, names, d, digits) -> SymmetricPoint:
    k = kept(sum(sizes))
    d = k if d is None else as_number(d, "d")
    if not d >= k:
        msg = f"d is {d} and k is {k}; expected d >= k, the teacher being orthonormal."
        raise ValueError(msg)
    sizes, numbers = tuple(map(kept, sizes)), tuple(map(kept, numbers))
    return SymmetricPoint(name, sizes, numbers, names, k, d, digits)


def _polished(ctx, sizes, start, digits) -> list[Any]:
    """The numbers to a k-th of ten digits more: a Hessian of norm k magnifies them."""
    tolerance = ctx.mpf(10) ** -(digits + 10) / sum(sizes)
    numbers, step = newton(ctx, sizes, start, tolerance)
    if step > tolerance:
        msg = f"Newton's method stopped with a step of {float(step):.1e}."
        raise ArithmeticError(msg)
    return numbers


def _plain(times: Any) -> int | float:
    return times if isinstance(times, int) else float(times)


def _context(digits: int, k: Any) -> Any:
    """Sums over pairs cancel three powers of k in the loss; one more for the rest."""
    ctx = context(digits)
    ctx.dps += 20 + 4 * math.ceil(math.log10(max(float(k), 10)))
    return ctx


@functools.lru_cache(maxsize=256)
def _geometry(sizes: tuple, numbers: tuple, digits: int) -> Geometry:
    ctx = _context(digits, sum(sizes))
    sizes = tuple(converted(ctx, size) for size in sizes)
    return geometry(ctx, sizes, assemble(sizes, [ctx.convert(x) for x in numbers]))


@functools.lru_cache(maxsize=256)
def _components(
    sizes: tuple, numbers: tuple, outside: Any, digits: int
) -> list[IsotypicPart]:
    point = _geometry(sizes, numbers, digits)
    return [
        IsotypicPart(part.label, _eigenvalues(point.ctx, part), part.multiplicity)
        for part in components(point, converted(point.ctx, outside))
    ]


def _eigenvalues(ctx: Any, part: Component) -> list[Any]:
    if len(part.matrix) == 1:
        return [part.matrix[0][0]]
    return list(ctx.eigsy(ctx.matrix(part.matrix), eigvals_only=True))
