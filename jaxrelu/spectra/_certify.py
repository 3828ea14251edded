"""A lower bound on the smallest value that rounding cannot undo."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxrelu._checks import is_concrete
from jaxrelu._results import RESULTS, throw_if_failed
from jaxrelu.spectra import _host
from jaxrelu.spectra._dense import (
    SUCCESS,
    Kind,
    as_operator,
    dense_symmetric,
    dtype_of,
    in_float64,
    is_traced,
    shape_of,
    short_gram,
)
from jaxrelu.spectra._extreme import matrix_ends
from jaxrelu.spectra._rounding import (
    eigenvalue_rounding,
    gram_terms,
    gram_underflow,
)


_ATTEMPTS = 6


class Certificate(eqx.Module):
    r"""A proved lower bound.

    Attributes:
        lower: $\lambda_{\min}$ or $\sigma_{\min}$ is at least this, all rounding of its
            computation included. When nothing is proved: 0 for singular values,
            $-\infty$ for eigenvalues.
        result: ``RESULTS.unresolved`` when nothing (no positive bound, for singular
            values; not the candidate, where one was given) could be proved.
        kind: ``"eigenvalues"`` or ``"singular values"``.
        method: how.
        shape: of the operator.
        dtype: of the operator.
    """

    lower: Float[Array, ""]
    result: RESULTS
    kind: Kind = eqx.field(static=True)
    method: str = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)
    dtype: str = eqx.field(static=True)


def certify_smallest(
    operator: lx.AbstractLinearOperator | ArrayLike,
    candidate: float | Float[ArrayLike, ""] | None = None,
    *,
    throw: bool = False,
) -> Certificate:
    r"""A rigorous lower bound on $\sigma_{\min}$, or $\lambda_{\min}$ if symmetric.

    **Theorem** (J. W. Demmel, On floating point errors in Cholesky, LAPACK Working Note
    14, 1989; S. M. Rump, Verification of positive definiteness, BIT 46, 2006). Let $B$
    be a symmetric floating-point matrix of order $n$, $u$ the unit roundoff and
    $\gamma_k = ku/(1-ku)$. If Cholesky's algorithm runs to completion on $B$, in any
    order of the sums, then
    $\lambda_{\min}(B) \ge -\frac{\gamma_{n+1}}{1-\gamma_{n+1}} \operatorname{tr} B$.

    *Proof.* The computed $L$ satisfies
    $|B - LL^\top|_{ij} \le \gamma_{n+1} \sum_k |l_{ik}||l_{jk}| \le
    \gamma_{n+1} \|l_i\| \|l_j\|$ with $l_i$ the rows of $L$. For $i = j$ this gives
    $\|l_i\|^2 \le b_{ii}/(1-\gamma_{n+1})$, so $|B - LL^\top| \le
    \frac{\gamma_{n+1}}{1-\gamma_{n+1}} dd^\top$ entry by entry with
    $d_i = \sqrt{b_{ii}}$, whose norm is $\operatorname{tr} B$ times the factor; and
    $LL^\top$ is positive semidefinite. $\square$

    Applied to $B = \mathrm{fl}(A - sI)$, whose diagonal is off by at most
    $u \max_i b_{ii}$: $\lambda_{\min}(A) \ge s - c$, $c$ the sum of both errors. For
    singular values $A$ is the Gram matrix; a sum of $t$ products per entry leaves it
    off by at most $\gamma_t \|a_i\| \|a_j\|$, hence
    $\frac{\gamma_t}{1-\gamma_t}\operatorname{tr}$ in norm, which is subtracted too
    ($t$: the operator's ``gram_terms``, else its longer side). We take
    $\gamma_{n+10}$ and $\gamma_{t+10}$, to cover a multiplication by a reciprocal
    instead of a division, and add Rump's term for underflow, and what underflow can
    do to a Gram matrix formed from factors, which is large if one factor is.

    Concrete operators are converted to float64 first, whatever their precision; the
    bound is for the matrix that the stored numbers define: of a structured Jacobian
    its factors, rounded as they are; of a symmetric operator, a sum, or an
    `AutodiffJacobian` what ``as_matrix`` writes out. IEEE arithmetic is assumed.

    Cost: one Cholesky factorisation, $n^3/3$, for a candidate; without one also
    `extreme`, and more factorisations if the first guess was too bold.

    Args:
        operator: any lineax operator with flat vectors, or a matrix; one tagged
            symmetric is certified for $\lambda_{\min}$ (from one of its triangles).
        candidate: the bound to prove, in the operator's precision. By default one
            close to the computed value.
        throw: raise on the host when nothing could be proved.

    Returns:
        The bound; failures are data.

    Raises:
        MemoryRefusedError: the dense matrix does not fit.
        RuntimeError: with ``throw``.
    """
    operator = as_operator(operator)
    dtype = dtype_of(operator)
    if candidate is not None:
        candidate = jnp.asarray(candidate, dtype)
    traced = is_traced(operator) or not is_concrete(candidate)
    if traced or dtype == jnp.float64 or jax.default_backend() == "tpu":
        answer = _certify(operator, candidate, dtype)
    else:
        try:
            answer = in_float64(operator, lambda op: _certify(op, candidate, dtype))
        except TypeError:  # an operator that stays in float32
            answer = _certify(operator, candidate, dtype)
    if throw:
        throw_if_failed(answer.result, "certify_smallest")
    return answer


def _gamma(count: int, unit: float) -> float:
    """An upper bound on gamma/(1 - gamma), infinite where it is not defined."""
    if 4 * count * unit >= 1:
        return float("inf")
    gamma = count * unit / (1 - count * unit)
    return gamma / (1 - gamma) * (1 + 1e-9)


def _certify(operator, candidate, dtype) -> Certificate:
    symmetric = bool(lx.is_symmetric(operator))
    matrix = dense_symmetric(operator) if symmetric else short_gram(operator)
    n, wide = matrix.shape[0], matrix.dtype
    info = jnp.finfo(wide)
    unit, tiny = float(info.eps) / 2, float(info.tiny)
    # every float operation below is followed by a factor that covers its rounding
    up = 1 + 8 * float(info.eps)
    given = candidate
    diagonal = jnp.abs(jnp.diagonal(matrix))
    trace = jnp.sum(diagonal) * (1 + 2 * n * float(info.eps)) * up
    largest = diagonal.max()
    formation = 0 * trace
    if not symmetric:
        formation = _gamma(gram_terms(operator) + 10, unit) * trace * up
        formation = (formation + gram_underflow(operator, n)) * up

    def loss(shift):
        order = trace + n * jnp.abs(shift) * up
        entry = (largest + jnp.abs(shift)) * up
        backward = _gamma(n + 10, unit) * order * up
        underflow = 4 * n * tiny * (2 * (n + 10) + entry)
        return (backward + 2 * unit * entry + underflow + formation) * up

    if candidate is not None:
        candidate = candidate.astype(wide)
        goal = candidate * (1 + jnp.sign(candidate) * 4 * float(info.eps))
        goal = goal if symmetric else goal * jnp.abs(goal) * up
        shifts = jnp.stack([goal + 2 * loss(goal)])
    else:
        low, high, _ = matrix_ends(matrix, not symmetric, jax.random.key(0), 1e-3, 200)
        norm = jnp.maximum(jnp.abs(low[0]), jnp.abs(high[0]))
        step = low[1] + eigenvalue_rounding(norm, n, 0) + loss(low[0])
        shifts = jnp.stack([low[0] - step * 4.0**j for j in range(_ATTEMPTS)])
    shift, proved = _first_definite(matrix, jnp.stack(shifts))
    lower = shift - loss(shift)
    lower = lower - jnp.abs(lower) * 4 * float(info.eps)
    floor = -jnp.inf
    if not symmetric:
        lower = jnp.sqrt(jnp.maximum(lower, 0)) * (1 - 4 * float(info.eps))
        proved &= lower > 0
        floor = 0.0
    if candidate is not None:
        proved &= lower >= candidate
    if dtype != wide:
        lower = (lower - jnp.abs(lower) * 2.0**-22).astype(dtype)
    if given is not None:
        lower = jnp.maximum(lower, given)  # where proved, not lost to the conversion
    lower = jnp.where(proved, lower, floor)
    return Certificate(
        lower=lower,
        result=RESULTS.where(proved, SUCCESS, RESULTS.unresolved),
        kind="eigenvalues" if symmetric else "singular values",
        method=f"Cholesky factorisation of the shifted {n} x {n} matrix in {wide}",
        shape=shape_of(operator),
        dtype=dtype.name,
    )


def _first_definite(matrix, shifts):
    """The first shift whose Cholesky factorisation completes, and whether one does."""
    count = shifts.shape[0]
    if _host.on_host(matrix) and is_concrete(shifts):
        host = np.asarray(matrix)
        for shift in shifts:
            finite = np.isfinite(float(shift)) and _host.all_finite(host)
            if finite and _host.cholesky(host, float(shift)) is not None:
                return shift, jnp.asarray(True)
        return shifts[-1], jnp.asarray(False)
    identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)

    def definite(index):
        factor = jax.lax.linalg.cholesky(
            matrix - shifts[index] * identity, symmetrize_input=False
        )
        return jnp.all(jnp.isfinite(jnp.diagonal(factor)))

    def advance(carry):
        return carry[0] + 1, definite(carry[0] + 1)

    # the first attempt is the loop's, too: one factorisation in the program
    index, proved = jax.lax.while_loop(
        lambda carry: ~carry[1] & (carry[0] < count - 1),
        advance,
        (jnp.asarray(-1, jnp.int32), jnp.asarray(False)),
    )
    return shifts[index], proved
