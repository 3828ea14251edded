r"""What rounding does to eigenvalues and singular values computed densely."""

from typing import Any

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from jaxrelu.operators._interface import AbstractOperator, underflow_weight


def eigenvalue_rounding(
    norm: Float[Array, ""], n: int, terms: int, underflow: Any = None
) -> Float[Array, ""]:
    r"""Bound $\delta = (4 + \sqrt n + \sqrt t)\,\varepsilon\,\|A\|_2$ on eigenvalues.

    By Weyl's inequality every eigenvalue moves by at most the norm of the backward
    error. Householder reduction and the QR iteration (or a Cholesky factorisation) of
    an $n \times n$ matrix, and sums of $t$ products in every entry when the matrix is a
    Gram matrix, have worst-case errors proportional to $n$ and $t$; rounding errors of
    mean zero add up to $\sqrt n$ and $\sqrt t$ (Higham and Mary, A new approach to
    probabilistic rounding error analysis, SIAM J. Sci. Comput. 41, 2019). It is
    therefore a realistic bound and no certificate: `certify_smallest` gives one.
    Products that underflow add $n t$ times the smallest normal number, or what
    `gram_underflow` says.

    Args:
        norm: the largest modulus of an eigenvalue.
        n: order of the matrix.
        terms: products summed in each entry; 0 for a matrix given by its entries.
        underflow: what underflow changed the matrix by, in norm.
    """
    info = jnp.finfo(norm.dtype)
    if underflow is None:
        underflow = float(info.tiny) * n * max(terms, 1)
    return norm * (float(info.eps) * (4 + n**0.5 + terms**0.5)) + underflow


def singular_value_rounding(
    norm: Float[Array, ""], operator: lx.AbstractLinearOperator
) -> Float[Array, ""]:
    r"""Bound $(54 + \sqrt r)\,\varepsilon\,\sigma_{\max}$, $r$ the shorter side.

    The same argument for a bidiagonalisation of the matrix itself; the rounding of its
    entries, when an operator writes them out, is within it too. LAPACK's qd iteration
    for the values of a bidiagonal matrix deflates at 100 units of roundoff, that is
    $50\,\varepsilon$, and clustered values do get that wrong. Entries and products that
    underflow add the bound of `underflow_weight`.
    """
    info = jnp.finfo(norm.dtype)
    rows, cols = operator.out_size(), operator.in_size()
    underflow = 8 * rows * cols * float(info.tiny) * underflow_weight(operator)
    relative = float(info.eps) * (54 + min(rows, cols) ** 0.5)
    return norm * relative + _held(underflow, info)


def gram_underflow(operator: lx.AbstractLinearOperator, order: int) -> Any:
    """What underflow can change a Gram matrix by, in norm; see `underflow_weight`.

    Args:
        operator: whose Gram matrix it is.
        order: of that matrix.
    """
    info, weight = jnp.finfo(operator.in_structure().dtype), underflow_weight(operator)
    terms = max(operator.out_size(), operator.in_size())
    entry = 16 * terms * float(info.tiny) * weight * weight
    return _held(order * entry, info)


def _held(bound: Any, info: Any) -> Any:
    """As a number of the dtype: no value is told from 0 by the largest one."""
    return min(bound, float(info.max)) if isinstance(bound, float) else bound


def root(
    values: Float[Array, "..."], error: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""$\sigma = \sqrt\lambda$ and its error, given $|\hat\lambda-\lambda| \le \delta$.

    $\sigma$ lies between $a = \sqrt{\max(\hat\lambda-\delta, 0)}$ and
    $b = \sqrt{\hat\lambda+\delta}$, hence with $\hat\sigma=\sqrt{\hat\lambda}$
    $$|\hat\sigma-\sigma| \le \max\left(
        \frac{\min(\delta, \hat\lambda)}{\hat\sigma + a},
        \frac{\delta}{\hat\sigma + b}\right).$$
    The error is as large as the value exactly when $\hat\lambda \le \delta$. Negative
    $\hat\lambda$ are set to 0, which only brings them closer to the true value.
    """
    values = jnp.maximum(values, 0)
    value = jnp.sqrt(values)
    low = jnp.sqrt(jnp.maximum(values - error, 0))
    high = jnp.sqrt(values + error)
    tiny = jnp.finfo(values.dtype).tiny
    below = jnp.minimum(error, values) / jnp.maximum(value + low, tiny)
    above = jnp.where(high < jnp.inf, error / jnp.maximum(value + high, tiny), jnp.inf)
    return value, jnp.maximum(below, above)


def structured(operator: lx.AbstractLinearOperator) -> AbstractOperator | None:
    """The operator of ours under tags, signs and scalars, if there is one."""
    wrappers = (
        lx.TaggedLinearOperator,
        lx.NegLinearOperator,
        lx.MulLinearOperator,
    )
    while isinstance(operator, wrappers):
        operator = operator.operator
    return operator if isinstance(operator, AbstractOperator) else None


def gram_terms(operator: lx.AbstractLinearOperator) -> int:
    """Products summed in an entry of the short side's Gram matrix."""
    inner = structured(operator)
    if inner is None:
        return max(operator.out_size(), operator.in_size())
    rows, cols = inner.shape
    return (inner if rows <= cols else inner.transpose()).gram_terms
