r"""Gradient dominance of networks with hidden layers, from singular values of features.

$f = \tfrac12\|S_{l-1}W_l^\top - Y\|^2$, $S_k = \varphi(Z_k)$, $Z_k = S_{k-1}W_k^\top$,
$S_0 = X$, rows are samples. At every point

$$f \le \frac{1}{2\mu}\|\nabla f\|^2, \qquad \mu = \sum_{k=1}^l
\sigma(S_{k-1})^2\prod_{j>k}a_{j-1}^2\sigma(W_j)^2$$

with the n-th singular value of the features (0 when they have fewer columns), for $W_j$
that of as many as it has rows, and $a_k = \min|\varphi'(Z_k)|$. *Proof.* The gradient
of layer k is $E_k^\top S_{k-1}$, $E_l$ the residual, $E_{k} = (E_{k+1}W_{k+1}) \circ
\varphi'(Z_k)$: each product shrinks the norm by its singular value at most, each
entrywise one by a. $\square$ So full rank of S *or* of the outer weights is enough, and
plain ReLU (a = 0) keeps the top layer's term. Holds at kinks for any slope chosen
there.
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrelu._products import matmul
from jaxrelu._results import RESULTS
from jaxrelu.activations import AbstractActivation
from jaxrelu.landscape.minimizers._gauss_newton_spectrum import residual_jacobian
from jaxrelu.landscape.minimizers._matrix_products import (
    half_inverse,
    onto,
    quotient,
    spectral_norm,
)
from jaxrelu.landscape.minimizers._minimizer_set import chain_of
from jaxrelu.landscape.minimizers._nonlinear_minimizers import OutputActivated
from jaxrelu.networks import Shallow
from jaxrelu.objectives import SquaredLoss
from jaxrelu.spectra._rounding import eigenvalue_rounding, gram_underflow


class NonlinearDominance(eqx.Module):
    r"""$f/\|\nabla f\|^2 \le \lambda_0 \le \lambda_1$ at one point.

    Attributes:
        ratio: at this point; NaN where the loss is 0, infinite at other critical
            points.
        lam0: $1/(2\lambda_{\min}(JJ^\top))$.
        lam1: $1/2\mu$ by the singular values of features and weights.
        result: `RESULTS.unresolved` where $\lambda_{\min}(JJ^\top)$ is rounding.
    """

    ratio: Float[Array, "..."]
    lam0: Float[Array, "..."]
    lam1: Float[Array, "..."]
    result: RESULTS


def nonlinear_dominance(objective: SquaredLoss, network: Any) -> NonlinearDominance:
    r"""Both bounds at a point; all weights train.

    With an `OutputActivated` network $\mu$ is multiplied by the square of the smallest
    output slope.

    Args:
        objective: a `SquaredLoss`.
        network: `Shallow`, `DenseNetwork` without biases, or `OutputActivated`.

    Raises:
        TypeError: another network.

    Cost: $O((nm)^3)$ for $\lambda_0$.
    """
    operator = residual_jacobian(objective, network)
    residual = objective.residual(network).reshape(-1)
    square = jnp.sum(operator.rmv(residual) ** 2)
    gap = jnp.sum(residual**2) / 2
    values = jnp.linalg.eigvalsh(operator.gram())
    rows = operator.shape[0]
    underflow = gram_underflow(operator, rows)
    error = eigenvalue_rounding(values[-1], rows, operator.gram_terms, underflow)
    mu = feature_mu(objective, network, 0.0)
    successful: Any = RESULTS.successful
    return NonlinearDominance(
        ratio=quotient(gap, square),
        lam0=half_inverse(values[0]),
        lam1=half_inverse(mu),
        result=RESULTS.where(values[0] > error, successful, RESULTS.unresolved),
    )


def nonlinear_neighbourhood_dominance(
    objective: SquaredLoss, network: Any, radius: float | Float[Array, ""]
) -> Float[Array, ""]:
    r"""$\lambda$ for all weights with $\|\Delta W_k\|_F \le \delta$ in every layer.

    $\mu$ of the module with $\sigma(W_j) - \delta$, $\sigma(S_k) - \Delta_k$ and slopes
    that can have changed,
    $\Delta_k = B_1\bigl((\|W_k\|_2 + \delta)\Delta_{k-1} + \delta\|S_{k-1}\|_2\bigr)$,
    $B_1 = \sup|\varphi'|$; for one hidden layer $\Delta_1 = B_1\|X\|_2\delta$. The
    Frobenius norm matters: an entrywise Lipschitz map is not one in spectral norm.

    Args:
        objective: a `SquaredLoss`.
        network: the centre.
        radius: δ.
    """
    return half_inverse(feature_mu(objective, network, radius))


def feature_mu(
    objective: SquaredLoss, network: Any, radius: float | Float[Array, ""]
) -> Float[Array, ""]:
    r"""$\mu$ on the ball, 0 if nothing is promised."""
    output = None
    if isinstance(network, OutputActivated):
        network, output = network.network, network.activation
    weights, activation = chain_of(network)
    features = objective.data.inputs
    dtype = features.dtype
    radius = jnp.asarray(radius, dtype)
    lipschitz = jnp.asarray(activation.derivative_bound, dtype)
    shift = jnp.zeros((), dtype)
    ranks, links = [], []
    for k, weight in enumerate(weights):
        weight = jnp.atleast_2d(weight)
        last = k == len(weights) - 1
        ranks.append(jnp.maximum(onto(features) - shift, 0))
        z = matmul(features, weight.T)
        reach = spectral_norm(weight) + radius
        rows = jnp.sqrt(jnp.max(jnp.sum(features**2, axis=1)))
        moved = reach * shift + radius * rows
        rule = output if last else activation
        slope = jnp.ones((), dtype) if rule is None else least_slope(rule, z, moved)
        links.append((jnp.maximum(onto(weight) - radius, 0), slope))
        shift = lipschitz * (reach * shift + radius * spectral_norm(features))
        features = activation(z)
    mu, through = jnp.zeros((), dtype), links[-1][1] ** 2
    for k in reversed(range(len(weights))):
        mu = mu + through * ranks[k] ** 2
        if k:
            through = through * (links[k][0] * links[k - 1][1]) ** 2
    return mu


def least_slope(
    activation: AbstractActivation, z: Float[Array, "n k"], moved: Float[Array, ""]
) -> Float[Array, ""]:
    r"""A lower bound on $|\varphi'|$ at all points within `moved` of entries of z."""
    if activation.slopes is not None:
        least = [jnp.abs(jnp.asarray(s, z.dtype)) for s in activation.slopes]
        anywhere = jnp.min(jnp.stack(least))
        here = jnp.min(jnp.abs(activation.derivative(z)))
        return jnp.where(jnp.min(jnp.abs(z)) > moved, here, anywhere)
    bend = jnp.asarray(activation.second_derivative_bound, z.dtype)
    here = jnp.min(jnp.abs(activation.derivative(z)))
    return jnp.maximum(here - bend * moved, 0)


def sign_radius(network: Shallow, inputs: Float[Array, "n d"]) -> Float[Array, ""]:
    r"""$\min_{ij}|w_j\cdot x_i|/\|x_i\|$: no sign changes for smaller displacements.

    The notes have $\min|w_j\cdot x_i|/\max\|x_i\|$, which is smaller. The rounding of
    the products, $(d+2)\|w_j\|$ times the precision, is taken off. Infinite for an
    activation without a kink.
    """
    if not _has_kink(network.activation):
        return jnp.asarray(jnp.inf, inputs.dtype)
    lengths = jnp.sqrt(jnp.sum(inputs**2, axis=1))
    ratio = (
        jnp.abs(matmul(inputs, network.inner.T))
        / jnp.where(lengths > 0, lengths, 1)[:, None]
    )
    wrong = (inputs.shape[1] + 2) * float(jnp.finfo(inputs.dtype).eps)
    ratio -= wrong * jnp.sqrt(jnp.sum(network.inner**2, axis=1))[None]
    near = jnp.min(jnp.where((lengths > 0)[:, None], ratio, jnp.inf))
    return jnp.maximum(near, 0)


def shallow_lipschitz(
    network: Shallow,
    inputs: Float[Array, "n d"],
    radius: float | Float[Array, ""],
    *,
    inner: bool = True,
    outer: bool = True,
) -> Float[Array, ""]:
    r"""A Lipschitz constant of the Jacobian in the ball of the trained layers.

    $B_1\|X\|_2 + (\|V\|_2+\rho)B_2\|X\|_2\max_i\|x_i\|$ with the bounds of
    $\varphi'$, $\varphi''$; with the inner weights alone
    $\|V\|_2B_2\|X\|_2\max_i\|x_i\|$, with the outer ones alone 0. For a kink $B_2 = 0$
    while $\rho <$ `sign_radius`, and the constant is infinite beyond. *Proof:*
    $J(U,u) = (\varphi'\circ XU^\top)V^\top + Su^\top$; the differences in V and in S
    have norms $B_1\|X\|_2\|\Delta V\|\|U\|$, $B_1\|X\|_2\|\Delta W\|\|u\|$
    (Cauchy-Schwarz for the two), the one in $\varphi'$ is
    $B_2\max_i\|x_i\|\|\Delta W\|\|XU^\top\|\|V\|_2$. $\square$

    Args:
        network: the centre.
        inputs: (n, d), rows are samples.
        radius: ρ, Frobenius, of the trained weights together.
        inner: whether the inner weights train.
        outer: whether the outer ones do.
    """
    if not inner:
        return jnp.zeros((), inputs.dtype)
    activation = network.activation
    size = spectral_norm(inputs)
    radius = jnp.asarray(radius, inputs.dtype)
    flat = jnp.asarray(activation.derivative_bound, inputs.dtype) * size
    flat = flat if outer else jnp.zeros_like(flat)
    if _has_kink(activation):
        return jnp.where(radius < sign_radius(network, inputs), flat, jnp.inf)
    bend = jnp.asarray(activation.second_derivative_bound, inputs.dtype)
    reach = spectral_norm(jnp.atleast_2d(network.outer)) + (radius if outer else 0)
    longest = jnp.sqrt(jnp.max(jnp.sum(inputs**2, axis=1)))
    return flat + reach * bend * size * longest


def _has_kink(activation: AbstractActivation) -> bool:
    bound = activation.second_derivative_bound
    return isinstance(bound, float) and math.isinf(bound)
