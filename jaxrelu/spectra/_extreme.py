"""Both ends of a spectrum without the rest of it, each with a residual bound."""

import contextlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from jaxrelu._checks import check_choice, check_positive, is_concrete
from jaxrelu._memory import MemoryRefusedError, require_bytes
from jaxrelu._results import RESULTS, Estimate, throw_if_failed
from jaxrelu.spectra import _host, _lanczos
from jaxrelu.spectra._dense import (
    SUCCESS,
    Kind,
    as_operator,
    dense_symmetric,
    dtype_of,
    in_float64,
    may_escalate,
    overflowed,
    rounded_to,
    shape_of,
    short_gram,
    spectrum,
    unresolved,
)
from jaxrelu.spectra._rounding import (
    eigenvalue_rounding,
    gram_terms,
    gram_underflow,
    root,
    singular_value_rounding,
)


_ALL_BELOW = 512
"""Up to this order all values cost about what two do, and carry rounding only."""
_STAGES = 2  # shifts: one below all of the spectrum, one just below its lower end
_COARSE = 0.01  # relative residual that is enough for the next shift


class Extreme(eqx.Module):
    r"""Smallest and largest eigenvalue or singular value of an operator.

    Attributes:
        smallest: $\lambda_{\min}$, or $\sigma_{\min}$ among the
            $\min(\text{rows}, \text{cols})$ singular values.
        largest: $\lambda_{\max}$ or $\sigma_{\max}$.
        stats: ``"steps"``, products or solves spent on each end (0: dense).
        kind: ``"eigenvalues"`` or ``"singular values"``.
        shape: of the operator.
        dtype: of the operator.
    """

    smallest: Estimate
    largest: Estimate
    stats: dict[str, Any]
    kind: Kind = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)
    dtype: str = eqx.field(static=True)

    def __repr__(self) -> str:
        values = (self.smallest.value, self.largest.value)
        if not all(is_concrete(value) and value.ndim == 0 for value in values):
            return eqx.tree_pformat(self)
        lines = [f"extreme {self.kind} of a {self.shape} {self.dtype} operator"]
        for name, end in (("smallest", self.smallest), ("largest", self.largest)):
            line = f"{name} {end}"
            if bool(end.result != RESULTS.successful):
                line += f" [{RESULTS[end.result]}]"
            lines.append(line)
        return f"<Extreme: {'; '.join(lines)}>"

    __str__ = __repr__


def extreme(
    operator: lx.AbstractLinearOperator | ArrayLike,
    *,
    method: str = "auto",
    key: Key[Array, ""] | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 200,
    throw: bool = False,
) -> Extreme:
    r"""Both ends of the singular values of $A$, or of a symmetric operator's spectrum.

    Methods, with $r = \min(\text{rows}, \text{cols})$:

    - ``"gram"``: on the $r \times r$ Gram matrix (or the symmetric operator written
      out). The upper end by Lanczos; the lower by Lanczos on the inverse of
      $A - sI = LL^\top$, first with $s$ below all of the spectrum, then with $s$ just
      below the eigenvalue found: $2r^3/3$ operations and a few dozen products and
      triangular solves. That $L$ exists shows that nothing lies below $s$ (up to
      rounding), and 1/(largest Ritz value of the inverse) + $s$ is the smallest
      eigenvalue above it. One shift alone takes more solves where the lower edge is
      dense, and stops at the second eigenvalue now and then (two starts of 60 at
      $r = 8192$), which a residual does not show.
    - ``"matrix-free"``: Golub-Kahan bidiagonalisation on the short side (Lanczos for a
      symmetric operator), products with $A$ and $A^\top$ only, full
      reorthogonalisation; ``max_steps`` vectors of each side are stored. The inner
      values converge late: ``RESULTS.no_convergence`` says that ``tolerance`` was not
      reached, and then only "some value lies within ``error``" is known.
    - ``"spectrum"``, ``"svd"``, ``"float64"``: all values by `spectrum`, or ``"gram"``
      in float64.
    - ``"auto"``: ``"spectrum"`` up to $r = 512$, ``"gram"`` while it fits in memory,
      ``"matrix-free"`` beyond; a smallest singular value that a float32 Gram matrix
      leaves unresolved is computed again in float64 where `spectrum` would do so, and
      where the Gram matrix overflows another method follows.

    The error is the residual bound (some exact eigenvalue lies within it) plus the
    rounding bound of the method; see `certify_smallest` for a rigorous lower bound.

    Args:
        operator: any lineax operator with flat vectors, or a matrix.
        method: as above.
        key: for the random starting vector; a fixed one by default.
        tolerance: residual bound asked for, relative to the value.
        max_steps: most Lanczos steps per end.
        throw: raise on the host if an end is unresolved or has not converged.

    Returns:
        Both ends, with error, method and result each.

    Raises:
        MemoryRefusedError: a dense method was asked for and does not fit.
        RuntimeError: with ``throw``, if an end failed.
    """
    operator = as_operator(operator)
    choices = ("auto", "gram", "matrix-free", "spectrum", "svd", "float64")
    check_choice(method, choices, "method")
    check_positive(tolerance, "tolerance")
    check_positive(max_steps, "max_steps")
    key = jax.random.key(0) if key is None else key
    symmetric = bool(lx.is_symmetric(operator))
    dtype = dtype_of(operator)
    options = (key, tolerance, max_steps)

    def by_gram(op):
        return _by_gram(op, symmetric, dtype, *options)

    if method in ("spectrum", "svd"):
        answer = _by_spectrum(operator, "auto" if method == "spectrum" else method)
    elif method == "float64":
        answer = in_float64(operator, by_gram)
    elif method == "matrix-free":
        answer = _matrix_free(operator, symmetric, *options)
    elif method == "auto" and min(shape_of(operator)) <= _ALL_BELOW:
        answer = _by_spectrum(operator, "auto")
    else:
        try:
            answer = by_gram(operator)
        except MemoryRefusedError:
            if method == "gram":
                raise
            answer = _matrix_free(operator, symmetric, *options)
        else:
            squared = method == "auto" and not symmetric
            if squared and may_escalate(operator, answer.smallest.result):
                # else the float32 answer stands, and says that it is unresolved
                with contextlib.suppress(MemoryRefusedError, TypeError):
                    answer = in_float64(operator, by_gram)
            if squared and overflowed(operator, answer.smallest.value):
                with contextlib.suppress(MemoryRefusedError):
                    answer = _matrix_free(operator, symmetric, *options)
    if throw:
        throw_if_failed(answer.smallest.result, "extreme, smallest value")
        throw_if_failed(answer.largest.result, "extreme, largest value")
    return answer


def _by_spectrum(operator: lx.AbstractLinearOperator, method: str) -> Extreme:
    full = spectrum(operator, method=method)

    def end(index):
        value, error = full.values[index], full.error[index]
        return Estimate(
            value=value,
            error=error,
            result=unresolved(value, error),
            error_kind=full.error_kind,
            method=full.method,
        )

    zero = jnp.asarray(0, jnp.int32)
    return Extreme(
        smallest=end(-1),
        largest=end(0),
        stats={"steps": (zero, zero)},
        kind=full.kind,
        shape=full.shape,
        dtype=full.dtype,
    )


def _by_gram(
    operator: lx.AbstractLinearOperator,
    symmetric: bool,
    dtype: jnp.dtype,
    key: Key[Array, ""],
    tolerance: float,
    max_steps: int,
) -> Extreme:
    matrix = dense_symmetric(operator) if symmetric else short_gram(operator)
    n = matrix.shape[0]
    terms = 0 if symmetric else gram_terms(operator)
    low, high, steps = matrix_ends(matrix, not symmetric, key, tolerance, max_steps)
    norm = jnp.maximum(jnp.abs(low[0]), jnp.abs(high[0]))
    underflow = None if symmetric else gram_underflow(operator, n)
    rounding = eigenvalue_rounding(norm, n, terms, underflow)
    name = "matrix" if symmetric else "Gram matrix"
    name = f"the {n} x {n} {name} in {jnp.dtype(matrix.dtype).name}"

    def end(pair, method):
        value, residual = pair
        converged = residual <= jnp.maximum(tolerance * jnp.abs(value), rounding)
        error = residual + rounding
        if not symmetric:
            value, error = root(value, error)
        value, error = rounded_to(dtype, value, error)
        return _estimate(value, error, converged, method)

    return Extreme(
        smallest=end(low, f"shift-inverted Lanczos on {name}"),
        largest=end(high, f"Lanczos on {name}"),
        stats={"steps": steps},
        kind="eigenvalues" if symmetric else "singular values",
        shape=shape_of(operator),
        dtype=dtype.name,
    )


def _estimate(
    value: Float[Array, ""],
    error: Float[Array, ""],
    converged: Any,
    method: str,
) -> Estimate:
    result = RESULTS.where(converged, SUCCESS, RESULTS.no_convergence)
    lost = unresolved(value, error)
    result = RESULTS.where(lost == RESULTS.successful, result, lost)
    return Estimate(
        value=value,
        error=error,
        result=result,
        error_kind="residual bound",
        method=method,
    )


def _above_shift(theta: Any, residual: Any, base: Any, reach: Any) -> tuple[Any, Any]:
    r"""Eigenvalue and bound from a Ritz pair $(\mu, \rho)$ of $h (A - sI)^{-1}$.

    With $s = $ ``base - reach`` and $h = $ ``reach`` (which keeps the inverse from
    overflowing), some eigenvalue has $|h/(\lambda-s) - \mu| \le \rho$, hence
    $|\lambda - s - h/\mu| \le \frac{h}{\mu}\frac{\rho/\mu}{1-\rho/\mu}$.
    """
    ratio = jnp.minimum(residual / theta, 1)
    distance = reach / theta
    return base + (distance - reach), ratio / (1 - ratio) * distance


def _share(tolerance: float, value: Any, reach: Any) -> Any:
    """Residual of the inverse, relative, that leaves ``tolerance`` of the value."""
    return jnp.clip(tolerance * abs(value) / reach, tolerance, max(tolerance, _COARSE))


End = tuple[Float[Array, ""], Float[Array, ""]]


def matrix_ends(
    matrix: Float[Array, "n n"],
    positive: bool,
    key: Key[Array, ""],
    tolerance: float,
    max_steps: int,
) -> tuple[End, End, tuple[Any, Any]]:
    """Extreme eigenvalues of a dense symmetric matrix.

    Args:
        matrix: one triangle is read.
        positive: whether it is known to be positive semidefinite.
        key: for the starting vector.
        tolerance: relative residual at which each iteration stops.
        max_steps: of each.

    Returns:
        (smallest, its residual), (largest, its residual), (solves, products).
    """
    solve = _host_ends if _host.on_host(matrix) else eqx.filter_jit(_traced_ends)
    return solve(matrix, positive, key, tolerance, max_steps)


def _starts(key: Key[Array, ""], matrix: Array) -> Float[Array, "count n"]:
    """Of the iteration upwards and of each stage downwards.

    One that misses an eigenvector by chance misses it at every shift.
    """
    keys = [key, *jax.random.split(key, _STAGES)]
    return jnp.stack(
        [jax.random.normal(k, matrix.shape[:1], matrix.dtype) for k in keys]
    )


def _host_ends(matrix, positive, key, tolerance, max_steps):
    """`matrix_ends` by LAPACK."""
    dtype = matrix.dtype
    start, *starts = np.asarray(_starts(key, matrix))
    host = np.asarray(matrix)
    if not _host.all_finite(host):
        nan, zero = jnp.full((), jnp.nan, dtype), jnp.asarray(0, jnp.int32)
        return (nan, nan), (nan, nan), (zero, zero)
    options = {"tolerance": tolerance, "max_steps": max_steps}
    eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
    low, low_residual, high, high_residual, steps = _host.lanczos_ends(
        _host.symmetric_product(host), start, **options
    )
    margin = 8 * eps * max(abs(low), abs(high)) + tiny / eps
    base, reach = (0.0, margin) if positive else (low, 2 * low_residual + margin)
    solves, share = 0, max(tolerance, _COARSE)
    for begin in starts:
        factor = _host.cholesky(host, base - reach)
        while factor is None and np.isfinite(reach):
            reach *= 8
            factor = _host.cholesky(host, base - reach)
        if factor is None:  # it overflows, whatever the shift
            low, low_residual = np.nan, np.inf
            break
        solve, scale = _host.inverse_product(factor), dtype.type(reach)
        _, _, theta, residual, count = _host.lanczos_ends(
            lambda v, solve=solve, scale=scale: solve(scale * v),
            begin,
            tolerance=share,
            max_steps=max_steps,
        )
        solves += count
        low, low_residual = _above_shift(theta, residual, base, reach)
        base, reach = float(low), 2 * float(low_residual) + margin
        share = float(_share(tolerance, base, reach))
        del factor, solve  # not two of them in memory
    scalar = lambda x: jnp.asarray(x, dtype)
    return (
        (scalar(low), scalar(low_residual)),
        (scalar(high), scalar(high_residual)),
        (jnp.asarray(solves, jnp.int32), jnp.asarray(steps, jnp.int32)),
    )


def _traced_ends(matrix, positive, key, tolerance, max_steps):
    """`matrix_ends` in XLA."""
    dtype, n = matrix.dtype, matrix.shape[0]
    start, *starts = _starts(key, matrix)
    options = {"tolerance": tolerance, "max_steps": max_steps}
    eps, tiny = jnp.finfo(dtype).eps, jnp.finfo(dtype).tiny
    low, low_residual, high, high_residual, steps = _lanczos.lanczos_ends(
        lambda v: jnp.dot(matrix, v, precision="highest"), start, **options
    )
    margin = 8 * eps * jnp.maximum(jnp.abs(low), jnp.abs(high)) + tiny / eps
    base = jnp.zeros_like(low) if positive else low
    reach = margin if positive else 2 * low_residual + margin
    identity = jnp.eye(n, dtype=dtype)

    def broke(carry):
        reach, factor = carry
        return ~jnp.isfinite(factor[-1, -1]) & jnp.isfinite(reach)

    def stage(carry, begin):
        (base, _), reach, share, solves = carry

        def factorise(reach):
            shifted = matrix - (base - reach) * identity
            return jax.lax.linalg.cholesky(shifted, symmetrize_input=False)

        # the first factorisation is the loop's, too: one copy of it in the program
        reach, factor = jax.lax.while_loop(
            broke,
            lambda carry: (8 * carry[0], factorise(8 * carry[0])),
            (reach / 8, jnp.full_like(matrix, jnp.nan)),
        )

        def inverse(v):
            for transposed in (False, True):
                v = jax.lax.linalg.triangular_solve(
                    factor,
                    v[:, None],
                    left_side=True,
                    lower=True,
                    transpose_a=transposed,
                )[:, 0]
            return reach * v

        _, _, theta, residual, count = _lanczos.lanczos_ends(
            inverse, begin, tolerance=share, max_steps=max_steps
        )
        low, low_residual = _above_shift(theta, residual, base, reach)
        reach = 2 * low_residual + margin
        share = _share(tolerance, low, reach).astype(dtype)
        return ((low, low_residual), reach, share, solves + count), None

    coarse = jnp.full((), max(tolerance, _COARSE), dtype)
    first = (base, reach), reach, coarse, jnp.zeros_like(steps)
    (lowest, _, _, solves), _ = jax.lax.scan(stage, first, jnp.stack(starts))
    return lowest, (high, high_residual), (solves, steps)


def _matrix_free(
    operator: lx.AbstractLinearOperator,
    symmetric: bool,
    key: Key[Array, ""],
    tolerance: float,
    max_steps: int,
) -> Extreme:
    rows, cols = shape_of(operator)
    r, dtype = min(rows, cols), dtype_of(operator)
    side = r if symmetric else rows + cols
    require_bytes(
        min(max_steps, r) * side * dtype.itemsize,
        f"{min(max_steps, r)} {dtype.name} Lanczos vectors",
        "Lower max_steps.",
    )
    low, high, steps = _krylov_ends(operator, key, symmetric, tolerance, max_steps)
    norm = jnp.maximum(jnp.abs(low[0]), jnp.abs(high[0]))
    if symmetric:
        rounding = eigenvalue_rounding(norm, r, 0)
    else:
        rounding = singular_value_rounding(norm, operator)

    def end(pair, method):
        value, residual = pair
        converged = residual <= jnp.maximum(tolerance * jnp.abs(value), rounding)
        return _estimate(value, residual + rounding, converged, method)

    name = "Lanczos" if symmetric else "Golub-Kahan bidiagonalisation"
    return Extreme(
        smallest=end(low, f"matrix-free {name}"),
        largest=end(high, f"matrix-free {name}"),
        stats={"steps": (steps, steps)},
        kind="eigenvalues" if symmetric else "singular values",
        shape=(rows, cols),
        dtype=dtype.name,
    )


@eqx.filter_jit
def _krylov_ends(operator, key, symmetric, tolerance, max_steps):
    options = {"tolerance": tolerance, "max_steps": max_steps}
    short, long = sorted(shape_of(operator))
    keys = jax.random.split(key)
    start = jax.random.normal(keys[0], (short,), dtype_of(operator))
    with jax.default_matmul_precision("highest"):
        if symmetric:
            ends = _lanczos.lanczos_ends(operator.mv, start, both=True, **options)
        else:
            spare = jax.random.normal(keys[1], (long,), start.dtype)
            tall = operator if operator.out_size() == long else operator.transpose()
            ends = _lanczos.bidiagonal_ends(
                tall.mv, tall.transpose().mv, start, spare, **options
            )
    low, low_residual, high, high_residual, steps = ends
    return (low, low_residual), (high, high_residual), steps
