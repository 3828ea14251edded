r"""Gradient dominance $f - f^* \le \lambda\|\nabla f\|^2$ of products of matrices.

Constants proved here (the notes on Zhou & Liang re-derive them; the paper's own
constants and theorem numbers are not confirmed). $\mu = 1/(2\lambda)$ is the constant
of Polyak and Łojasiewicz. For $cf$ in place of f, $\lambda$ becomes $\lambda/c$.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._products import matmul
from jaxrelu._results import RESULTS
from jaxrelu.data import Dataset
from jaxrelu.landscape.constants._rates import nonzero_modes
from jaxrelu.landscape.minimizers._gauss_newton_spectrum import (
    minimizer_spectrum,
    residual_jacobian,
    smallest_normal_eigenvalue,
)
from jaxrelu.landscape.minimizers._matrix_products import (
    check_problem,
    half_inverse,
    into,
    onto,
    partial_products,
    quotient,
    reduced_data,
    reduced_residual,
    singular_values,
)
from jaxrelu.networks import LinearNetwork
from jaxrelu.objectives import SquaredLoss


class DominanceChain(eqx.Module):
    r"""The ratio $(f-f^*)/\|\nabla f\|^2$ and four bounds, each above the one before.

    Infinity where a bound promises nothing.

    Attributes:
        ratio: at this point; NaN at a minimiser, where it is 0/0, and infinite at other
            critical points.
        lam0: $1/(2\lambda_{\min}(T))$.
        lam1: $1/(2\sigma_{\min}(X)^2\sum_k\sigma_{\min}(A_k)^2\sigma_{\min}(B_k)^2)$.
        lam2: $1/(2\sigma_{\min}(X)^2\sum_k\prod_{j\ne k}s_j^2)$.
        lam3: $1/(2l\tau^{2(l-1)}\sigma_{\min}(X)^2)$, $\tau = \min_ks_k$.
        result: `RESULTS.unresolved` where $\lambda_{\min}(T)$ is rounding.
    """

    ratio: Float[Array, "..."]
    lam0: Float[Array, "..."]
    lam1: Float[Array, "..."]
    lam2: Float[Array, "..."]
    lam3: Float[Array, "..."]
    result: RESULTS


def dominance_chain(objective: SquaredLoss, network: Any) -> DominanceChain:
    r"""Four bounds on the ratio that gradient dominance bounds, at any point.

    Linear and residual networks, $s_k = \sigma_{\min}(M_k)$; $\sigma_{\min}(X)$ is the
    smallest non-zero singular value, so X may be rank-deficient. *Proof.* With $D = X(P
    - P^*)^\top$, $f - f^* = \tfrac12\|D\|^2$ and the gradient of layer k is $A_k^\top
    D^\top XB_k^\top$, of norm at least $\sigma(A_k)\sigma(B_k)\sigma(X)\|D\|$; together
    $\|\nabla f\|^2 = \langle D, TD\rangle$. The rest are products of singular values.
    $\square$

    The layers need not be square. $A_k$ enters by its m-th singular value and $B_k$ by
    its d-th, 0 in case a layer between is too narrow; so do the factors in $\lambda_2$,
    by the smallest singular value on the side where they are multiplied.
    $\lambda_3$ is for square layers, infinite otherwise. For d = m = 1 the first four
    are equal.

    Args:
        objective: a `SquaredLoss` with targets (n, m).
        network: linear or residual, hidden layers no narrower than both ends.

    Raises:
        TypeError, ValueError: another network or objective; shapes.

    Cost: the eigenvalues of T, $O((md)^3)$.
    """
    layers = check_problem(objective, network)
    above, below = partial_products(layers)
    reduced = reduced_data(objective.data)
    residual = reduced_residual(reduced, layers)
    gap = jnp.sum(residual**2) / 2
    square = jnp.zeros((), residual.dtype)
    for a, b in zip(above, below, strict=True):
        inner = matmul(matmul(residual, a).T, matmul(reduced.root, b.T))
        square = square + jnp.sum(inner**2)
    gram = residual_jacobian(objective, network).gram()
    smallest, error = smallest_normal_eigenvalue(reduced, gram)
    size = reduced.smallest**2
    ends = sum((onto(a) * into(b)) ** 2 for a, b in zip(above, below, strict=True))
    each = layer_products(layers, jnp.zeros((), residual.dtype))
    lam3 = jnp.asarray(jnp.inf, residual.dtype)
    if all(layer.shape[0] == layer.shape[1] for layer in layers):
        tau = jnp.min(jnp.stack([onto(layer) for layer in layers]))
        lam3 = half_inverse(size * len(layers) * tau ** (2 * len(layers) - 2))
    resolved = smallest > error
    successful: Any = RESULTS.successful
    return DominanceChain(
        ratio=quotient(gap, square),
        lam0=half_inverse(smallest),
        lam1=half_inverse(size * ends),
        lam2=half_inverse(size * jnp.sum(each**2)),
        lam3=lam3,
        result=RESULTS.where(resolved, successful, RESULTS.unresolved),
    )


def layer_products(
    layers: tuple[Array, ...], radius: Array | float
) -> Float[Array, " l"]:
    r"""$\prod_{j\ne k}(s_j - \delta)_+$ with the singular value on the side of use."""
    smallest = jnp.stack([singular_values(layer)[-1] for layer in layers])
    shapes = np.array([layer.shape for layer in layers])
    over = jnp.where(shapes[:, 0] <= shapes[:, 1], smallest, 0)
    under = jnp.where(shapes[:, 0] >= shapes[:, 1], smallest, 0)
    over = jnp.maximum(over - radius, 0)
    under = jnp.maximum(under - radius, 0)
    each = []
    for k in range(len(layers)):
        each.append(jnp.prod(over[k + 1 :]) * jnp.prod(under[:k]))
    return jnp.stack(each)


def neighbourhood_dominance(
    objective: SquaredLoss, network: Any, radius: float | Float[Array, ""]
) -> Float[Array, ""]:
    r"""$\lambda$ for all $W'$ with $\max_k\|W'_k - W_k\|_2 \le \delta$.

    $$\lambda = \frac{1}{2\sigma_{\min}(X)^2\sum_k\prod_{j\ne k}(s_j - \delta)_+^2},$$

    at most $1/(2l(\tau-\delta)^{2(l-1)}\sigma_{\min}(X)^2)$. By Weyl's inequality and
    $\lambda_2$ of `dominance_chain`; the centre need not be a minimiser. Frobenius
    balls are inside. For residual networks $s_k = \sigma_{\min}(I + W_k)$, at least
    $1 - t$ for $\|W_k\|_2 \le t$: with the centre 0 and $\delta = t$ this is
    `residual_dominance`.

    Args:
        objective: a `SquaredLoss`.
        network: the centre.
        radius: δ; the bound is infinite once two factors may be singular.
    """
    layers = check_problem(objective, network)
    size = reduced_data(objective.data).smallest ** 2
    each = layer_products(layers, jnp.asarray(radius, size.dtype))
    return half_inverse(size * jnp.sum(each**2))


def residual_dominance(
    data: Dataset, depth: int, bound: float | Float[Array, ""]
) -> Float[Array, ""]:
    r"""$\lambda = 1/(2l(1-t)^{2(l-1)}\sigma_{\min}(X)^2)$ where all $\|W_k\|_2 \le t$.

    For linear residual networks; with $t = O(1/l)$ it falls like 1/l. Hardt & Ma's
    bound $\|\nabla F\|^2 \ge 4l(1-t)^{2l-2}\sigma_{\min}(\Sigma_x)(F - F^*)$ is the
    same for F = 2f (recalled, re-derived). Attained at l = d = 1.

    Args:
        data: inputs (n, d), targets (n, d).
        depth: l.
        bound: t; infinite from t = 1 on.
    """
    size = reduced_data(data).smallest ** 2
    slack = jnp.maximum(1 - jnp.asarray(bound, size.dtype), 0)
    return half_inverse(size * depth * slack ** (2 * depth - 2))


def single_factor_dominance(objective: SquaredLoss, network: Any) -> Float[Array, ""]:
    r"""$\min_k 1/(2\sigma(A_k)^2\sigma(B_k)^2\sigma_{\min}(X)^2)$ at this point.

    Finite with at most one singular factor: full rank of all layers is not needed. With
    two it fails, see `two_singular_factors`.
    """
    layers = check_problem(objective, network)
    size = reduced_data(objective.data).smallest
    above, below = partial_products(layers)
    each = [onto(a) * into(b) for a, b in zip(above, below, strict=True)]
    return half_inverse((size * jnp.max(jnp.stack(each))) ** 2)


def asymptotic_dominance(objective: SquaredLoss, network: Any) -> Float[Array, ""]:
    r"""$1/(2\lambda_{\min}^+(\nabla^2f))$ at a minimiser: the best local $\lambda$.

    No smaller $\lambda$ is valid in any neighbourhood (go along the eigenvector); every
    larger one is, in a small one, if the minimisers are a manifold whose tangent space
    is the kernel. Eigenvalues below 1e-9 of the largest (4 rm ε, if that is more) count
    as 0.

    Args:
        objective: a `SquaredLoss`.
        network: a global minimiser (not checked).
    """
    values = minimizer_spectrum(objective, network).values
    nonzero = nonzero_modes(values)
    return half_inverse(jnp.min(jnp.where(nonzero, values, jnp.inf)))


def two_singular_factors(
    t: float | Float[Array, ""],
) -> tuple[SquaredLoss, LinearNetwork]:
    r"""$W_1 = W_2 = \operatorname{diag}(1, t)$, $P^* = $ diag(1, 0): ratio $1/4t^2$.

    X = I. As $t \to 0$ the point tends to a global minimiser with two singular factors,
    and no $\lambda$ is large enough.

    Args:
        t: not 0; its dtype is that of the network.

    Returns:
        the objective and the network.
    """
    t = jnp.asarray(t)
    one = jnp.ones((), t.dtype)
    data = Dataset(jnp.eye(2, dtype=t.dtype), jnp.diag(jnp.stack([one, 0 * one])))
    layer = jnp.diag(jnp.stack([one, t]))
    return SquaredLoss(data), LinearNetwork((layer, layer))


def unbounded_dominance(
    t: float | Float[Array, ""],
) -> tuple[SquaredLoss, LinearNetwork]:
    r"""Minimisers $\operatorname{diag}(t, 1/t)$, $\operatorname{diag}(1/t, t)$ of I.

    $\lambda_0 = t^2/4$ and $\lambda_{\max}(\nabla^2f) = 2t^2$ for $t \ge 1$: there is
    no $\lambda$ for all minimisers, of full rank though they are. (For d = 1, l = 2
    there is one, by $w_1^2 + w_2^2 \ge 2|p|$.)

    Args:
        t: not 0; its dtype is that of the network.

    Returns:
        the objective and the network.
    """
    t = jnp.asarray(t)
    eye = jnp.eye(2, dtype=t.dtype)
    layers = (jnp.diag(jnp.stack([t, 1 / t])), jnp.diag(jnp.stack([1 / t, t])))
    return SquaredLoss(Dataset(eye, eye)), LinearNetwork(layers)
