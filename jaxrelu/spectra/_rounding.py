r"""What rounding does to eigenvalues and singular values computed densely."""

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from jaxrelu.operators._interface import AbstractOperator


def eigenvalue_rounding(norm: Float[Array, ""], n: int, terms: int) -> Float[Array, ""]:
    r"""Bound $\delta = (4 + \sqrt n + \sqrt t)\,\varepsilon\,\|A\|_2$ on eigenvalues.

    By Weyl's inequality every eigenvalue moves by at most the norm of the backward
    error. Householder reduction and the QR iteration (or a Cholesky factorisation) of
    an $n \times n$ matrix, and sums of $t$ products in every entry when the matrix is a
    Gram matrix, have worst-case errors proportional to $n$ and $t$; rounding errors of
    mean zero add up to $\sqrt n$ and $\sqrt t$ (Higham and Mary, A new approach to
    probabilistic rounding error analysis, SIAM J. Sci. Comput. 41, 2019). It is
    therefore a realistic bound and no certificate: `certify_smallest` gives one.
    Products that underflow add $n t$ times the smallest normal number.

    Args:
        norm: the largest modulus of an eigenvalue.
        n: order of the matrix.
        terms: products summed in each entry; 0 for a matrix given by its entries.
    """
    info = jnp.finfo(norm.dtype)
    underflow = float(info.tiny) * n * max(terms, 1)
    return norm * (float(info.eps) * (4 + n**0.5 + terms**0.5)) + underflow


def singular_value_rounding(
    norm: Float[Array, ""], shape: tuple[int, int]
) -> Float[Array, ""]:
    r"""Bound $(54 + \sqrt r)\,\varepsilon\,\sigma_{\max}$, $r$ the shorter side.

    The same argument for a bidiagonalisation of the matrix itself; the rounding of its
    entries, when an operator writes them out, is within it too. LAPACK's qd iteration
    for the values of a bidiagonal matrix deflates at 100 units of roundoff, that is
    $50\,\varepsilon$, and clustered values do get that wrong.
    """
    return norm * (float(jnp.finfo(norm.dtype).eps) * (54 + min(shape) ** 0.5))


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
    above = error / jnp.maximum(value + high, tiny)
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
