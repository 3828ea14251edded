r"""Spectra of $JJ^\top$ and $\Sigma(X)$ by laws of Marchenko-Pastur type.

Predictions for large sizes, derived here; none of them is a bound.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrelu._checks import check_positive
from jaxrelu._products import matmul
from jaxrelu.activations import (
    AbstractActivation,
    gaussian_mean,
    hermite_coefficients,
)
from jaxrelu.spectra import marchenko_pastur
from jaxrelu.theory._conditions import Scalar
from jaxrelu.theory._instance import as_inputs


def finite_width_count(
    gates: Float[Array, "n n"], inputs: Any, k: Any, shift: Any
) -> Scalar:
    r"""$N(s) = \operatorname{tr} G (G + s)^{-1}$ for $G = JJ^\top$ of width k, |v| = 1.

    $G = \frac1k \sum_l D_l X X^\top D_l$ is a sum of independent terms,
    $D_l = \operatorname{diag}\varphi'(X w_l)$. Leave one term out, and replace
    $\frac1k X^\top D Q D X$ by its mean Δ, about which it concentrates as n and k grow:
    $$ Q = (\Phi \circ X (I + \Delta)^{-1} X^\top + s)^{-1}, \qquad
       \Delta = \tfrac1k X^\top (\Phi \circ Q) X, $$
    $\Phi = E[\varphi'(Xw)\varphi'(Xw)^\top]$, and $N(s) = n - s \operatorname{tr} Q$.
    For d = 1 this is the Marchenko-Pastur equation with population covariance Φ and
    aspect n/k. Solved by iteration to a relative change of 1e-4 in Δ.

    Args:
        gates: Φ, `dual_kernel(activation, inputs, derivative=1)`.
        inputs: X, (n, d).
        k: width.
        shift: s > 0.

    Raises:
        ValueError: wrong shape, NaN or infinity.

    Cost: $O(n^3)$ per iteration, some ten of them.
    """
    x = as_inputs(inputs)
    return _count(gates, x, jnp.asarray(k, x.dtype), jnp.asarray(shift, x.dtype))


@eqx.filter_jit
def _count(gates: Array, inputs: Array, k: Array, shift: Array) -> Array:
    n, d = inputs.shape
    one = jnp.eye(d, dtype=inputs.dtype)

    def resolvent(delta):
        middle = matmul(inputs, jnp.linalg.solve(one + delta, inputs.T))
        return jnp.linalg.inv(gates * middle + shift * jnp.eye(n, dtype=inputs.dtype))

    def unfinished(state):
        delta, change, count = state
        return (change > 1e-4 * jnp.linalg.norm(delta)) & (count < 100)

    def improve(state):
        delta, _, count = state
        new = matmul(inputs.T, matmul(gates * resolvent(delta), inputs)) / k
        return new, jnp.linalg.norm(new - delta), count + 1

    start = (one, jnp.asarray(jnp.inf, inputs.dtype), 0)
    delta, _, _ = jax.lax.while_loop(unfinished, improve, start)
    return n - shift * jnp.trace(resolvent(delta))


def smoothed_count(
    eigenvalues: Float[Array, " r"], shifts: Float[Array, " points"]
) -> Float[Array, " points"]:
    r"""$N(s) = \sum_i \lambda_i / (\lambda_i + s)$: eigenvalues above s, softly."""
    values = jnp.maximum(eigenvalues, 0)[:, None]
    return jnp.sum(values / (values + shifts[None, :]), axis=0)


def bulk_density(
    samples: int, features: float | int, *, scale: float, shift: float, mass: float
) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    r"""Density of ``shift + scale · eig(Z Zᵀ / features)``, Z samples × features.

    Entries of Z have mean 0 and variance 1. Only the min(samples, features) eigenvalues
    that are not 0 are described; ``mass`` is the fraction they make up.

    Returns:
        400 points, dense at the edges, and the density there.
    """
    law = marchenko_pastur(samples / features, scale)
    low, high = law.edges
    grid = jnp.linspace(0.0, jnp.pi, 400)
    x = low + (high - low) * (1 - jnp.cos(grid)) / 2
    return shift + x, mass * law.density(x) / (1 - law.atom)


def sphere_density(
    activation: AbstractActivation, n: int, d: int
) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    r"""Limiting density of Σ(X) for n points uniform on the sphere, d < n < d²/2.

    $\Sigma = \sum_r c_r^2 (XX^\top)^{\circ(r+1)}$, $c_r$ the Hermite coefficients of
    φ'. Power 1 has a bulk of d eigenvalues, power 2 one of its own with
    d(d+1)/2 − 1 features, smaller by n/d; higher powers are near the identity.

    Args:
        activation: φ.
        n: points.
        d: dimension.

    Returns:
        Points and the density there, of total mass 1.

    Raises:
        ValueError: n not between d and d²/2, where the two bulks are separate.
    """
    check_positive(n, "n")
    if not d < n < d * d / 2:
        msg = f"n is {n} and d is {d}; expected d < n < d²/2 = {d * d / 2:g}."
        raise ValueError(msg)
    c0, c1 = (float(c) ** 2 for c in hermite_coefficients(activation, 1, 1).value)
    rest = float(gaussian_mean(activation, 2, 1)) - c0 - c1
    pairs, part = d * (d + 1) / 2 - 1, c1 * (1 - 1 / d)
    lower = bulk_density(n - d, pairs, scale=part, shift=rest, mass=(n - d) / n)
    upper = bulk_density(n, d, scale=c0, shift=rest + part, mass=d / n)
    between = (jnp.stack([lower[0][-1], upper[0][0]]), jnp.zeros(2))
    x, density = zip(lower, between, upper, strict=True)
    return jnp.concatenate(x), jnp.concatenate(density)
