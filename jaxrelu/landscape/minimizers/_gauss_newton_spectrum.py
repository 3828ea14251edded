r"""The Hessian at global minimisers through a matrix of the size of the data.

At a global minimiser $\nabla^2 f = J^\top J$ exactly: for linear and residual networks
even if $f^* > 0$, because the residual is orthogonal to all that X can produce; for
other networks if $f^* = 0$ and no pre-activation is at a kink. Its non-zero eigenvalues
are those of $JJ^\top$, and for linear and residual networks, rows of X being samples
and $R^\top R = X^\top X$, of the md × md matrix

$$T = \sum_{k=1}^l (RB_k^\top)(RB_k^\top)^\top \otimes A_kA_k^\top, \qquad
A_k = M_l\cdots M_{k+1},\; B_k = M_{k-1}\cdots M_1,$$

instead of the p × p Hessian. Re-derived; checked against automatic differentiation.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrelu._checks import check_rank
from jaxrelu._products import matmul
from jaxrelu.landscape.minimizers._matrix_products import (
    ReducedData,
    check_problem,
    into,
    norm,
    onto,
    partial_products,
    products_of_others,
    reduced_data,
    singular_values,
    spectral_norm,
)
from jaxrelu.landscape.minimizers._minimizer_set import all_weights, chain_of
from jaxrelu.landscape.minimizers._nonlinear_minimizers import OutputActivated
from jaxrelu.networks import LinearNetwork, LinearResidualNetwork
from jaxrelu.objectives import SquaredLoss
from jaxrelu.operators import GaussNewton, jacobian
from jaxrelu.spectra import DistinctSpectrum, eigvalsh
from jaxrelu.spectra._rounding import eigenvalue_rounding, gram_underflow


def residual_jacobian(objective: SquaredLoss, network: Any) -> Any:
    r"""J of the residual that counts, as an operator: (rm, p) or (nm, p).

    For linear and residual networks the rows are those of R in place of X, which leaves
    $JJ^\top = T$ at most md × md whatever n.

    Raises:
        TypeError, ValueError: a network without plain weights, shapes that do not fit.
    """
    if isinstance(network, LinearNetwork | LinearResidualNetwork):
        check_problem(objective, network)
        return jacobian(network, reduced_data(objective.data).root)
    inside = network.network if isinstance(network, OutputActivated) else network
    chain_of(inside)
    return jacobian(network, objective.data.inputs, all_weights)


def minimizer_gram(objective: SquaredLoss, network: Any) -> GaussNewton:
    r"""$T = JJ^\top$ as a symmetric operator, see the module.

    Products with it cost a pass forward and one back over the rows of R; `as_matrix`
    forms the Kronecker sum, $2l(rm)^2$ operations and $(rm)^2$ numbers.

    Args:
        objective: a `SquaredLoss`.
        network: linear, residual, shallow, or dense without biases; all weights train.
    """
    return GaussNewton(residual_jacobian(objective, network).transpose())


def minimizer_spectrum(objective: SquaredLoss, network: Any) -> DistinctSpectrum:
    r"""All eigenvalues of the Hessian at a global minimiser, through T.

    Those of T (the p largest, if it has more), and 0 with the multiplicity that is
    left. Eigenvalues of T that are zero up to their error, at minimisers of deficient
    rank or for inputs of rank below r, belong to the kernel, too: `inertia` counts
    them.

    Args:
        objective: a `SquaredLoss`.
        network: a global minimiser, not checked: anywhere else this is the spectrum of
            the Gauss-Newton part (for linear networks of the reduced problem).

    Cost: $O((rm)^3)$, $r = \min(n, d)$, against $O(p^3)$ for the dense Hessian.
    """
    operator = residual_jacobian(objective, network)
    rows, cols = operator.shape
    values = eigvalsh(operator.gram())[::-1]
    count = min(rows, cols)
    values = values[:count]
    underflow = gram_underflow(operator, rows)
    error = eigenvalue_rounding(values[0], rows, operator.gram_terms, underflow)
    error = jnp.broadcast_to(error, values.shape)
    multiplicities: tuple[int, ...] = (1,) * count
    labels = ("normal",) * count
    if cols > count:
        values = jnp.append(values, jnp.zeros((), values.dtype))
        error = jnp.append(error, jnp.zeros((), values.dtype))
        multiplicities += (cols - count,)
        labels += ("kernel",)
    return DistinctSpectrum(
        values,
        error,
        multiplicities,
        labels,
        method="eigenvalues of J J^T, the zeros counted",
        error_kind="rounding bound",
    )


def hessian_rank(
    objective: SquaredLoss, network: Any, tolerance: float | None = None
) -> Int[Array, ""]:
    r"""Rank of the Hessian at a global minimiser of a linear or residual network.

    $$\operatorname{rank} = \sum_{k=1}^l (a_k - a_{k-1})\,b_k, \qquad
    a_k = \operatorname{rank} A_k,\; a_0 = 0,\; b_k = \operatorname{rank}(XB_k^\top).$$

    *Proof.* The range of $JJ^\top$ is $\sum_k \operatorname{range}(XB_k^\top) \otimes
    \operatorname{range}A_k$. The ranges of $A_k$ grow with k, those of $XB_k^\top$
    shrink; in bases adapted to the two flags the sum is spanned by the pairs under a
    staircase of steps $a_k$ and $b_k$, whose area this is. $\square$

    With all layers invertible: $m\operatorname{rank}X$, nullity $(l-1)d^2$ for square
    ones; for two layers $mr - (m - r_2)(r - b_2)$, the notes' formula for r = d. Any
    network of this kind has this rank of $J^\top J$.

    Args:
        objective: a `SquaredLoss`.
        network: linear or residual.
        tolerance: singular values at most this times the largest of their matrix count
            as 0; 16 max(shape) ε by default.
    """
    layers = check_problem(objective, network)
    above, below = partial_products(layers)
    root = reduced_data(objective.data).root
    tops = [_rank(a, tolerance) for a in above]
    bottoms = [_rank(matmul(root, b.T), tolerance) for b in below]
    total, before = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
    for top, bottom in zip(tops, bottoms, strict=True):
        total = total + (top - before) * bottom
        before = top
    return total


def _rank(matrix: Array, tolerance: float | None) -> Array:
    values = singular_values(matrix)
    if tolerance is None:
        tolerance = 16 * max(matrix.shape) * float(jnp.finfo(matrix.dtype).eps)
    return jnp.sum(values > tolerance * values[0], dtype=jnp.int32)


def spectrum_bounds(
    objective: SquaredLoss, network: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""A lower bound on $\lambda_{\min}(T)$ and an upper one on $\|J\|_2^2$.

    $\sigma_{\min}^+(X)^2\sum_k\sigma(A_k)^2\sigma(B_k)^2$ with the m-th and the d-th
    singular values (0 where a hidden layer is narrower), and
    $\|X\|_2^2\sum_k\|A_k\|_2^2\|B_k\|_2^2$. On the directions that X has; at any W.
    """
    layers = check_problem(objective, network)
    above, below = partial_products(layers)
    reduced = reduced_data(objective.data)
    low = sum((onto(a) * into(b)) ** 2 for a, b in zip(above, below, strict=True))
    high = sum(
        (spectral_norm(a) * spectral_norm(b)) ** 2
        for a, b in zip(above, below, strict=True)
    )
    return reduced.smallest**2 * low, reduced.largest**2 * high


def smallest_normal_eigenvalue(
    reduced: ReducedData, gram: Float[Array, "rm rm"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""$\lambda_{\min}(T)$ on the directions that X has, and its rounding error."""
    outputs = gram.shape[0] // reduced.kept.shape[0]
    absent = jnp.repeat(~reduced.kept, outputs)
    trace = jnp.trace(gram)
    # the zero rows of absent directions are moved out of the way
    filled = gram + jnp.diag(jnp.where(absent, trace, 0))
    values = jnp.linalg.eigvalsh(filled)
    eps = float(jnp.finfo(values.dtype).eps)
    error = eps * (4 + 2 * gram.shape[0] ** 0.5) * values[-1]
    return jnp.maximum(values[0], 0), error


def balanced_spectrum(
    singular: Float[Array, " d"], depth: int, scale: float | Float[Array, ""] = 1.0
) -> DistinctSpectrum:
    r"""The Hessian at a balanced minimiser for whitened inputs, in closed form.

    $X^\top X = cI$, $P^*$ square with singular values $s_i$: eigenvalues

    $$c\,e_{ij} = c\sum_{k=1}^l s_i^{2(l-k)/l}s_j^{2(k-1)/l}, \quad
    e_{ii} = l\,s_i^{2(l-1)/l},$$

    one for each pair (i, j), and 0 with multiplicity $(l-1)d^2$. The smallest non-zero
    one is $c\,l\,s_{\min}^{2(l-1)/l}$, the largest $c\,l\,s_{\max}^{2(l-1)/l}$.

    Args:
        singular: singular values of $P^*$, (d,).
        depth: l.
        scale: c.
    """
    check_rank(singular, 1, "singular", "(d,)")
    size = singular.shape[0]
    powers = [singular ** (2 * j / depth) for j in range(depth)]
    table = sum(
        powers[depth - k][:, None] * powers[k - 1][None] for k in range(1, depth + 1)
    )
    values = jnp.sort(jnp.asarray(scale, singular.dtype) * jnp.ravel(table))[::-1]
    eps = float(jnp.finfo(values.dtype).eps)
    error = 16 * depth * eps * values
    multiplicities: tuple[int, ...] = (1,) * size**2
    labels = ("normal",) * size**2
    if depth > 1:
        values = jnp.append(values, jnp.zeros((), values.dtype))
        error = jnp.append(error, jnp.zeros((), values.dtype))
        multiplicities += ((depth - 1) * size**2,)
        labels += ("kernel",)
    return DistinctSpectrum(
        values,
        error,
        multiplicities,
        labels,
        method="closed form for whitened inputs and balanced layers",
        error_kind="rounding bound",
    )


def scalar_curvature(
    inputs: Float[Array, "n 1"], weights: Float[Array, " l"]
) -> Float[Array, ""]:
    r"""D = m = 1: the only non-zero eigenvalue, $\|x\|^2\sum_k\prod_{j\ne k}w_j^2$."""
    return norm(inputs) ** 2 * jnp.sum(products_of_others(weights) ** 2)
