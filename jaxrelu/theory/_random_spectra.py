r"""Spectra of $JJ^\top$ and $\Sigma(X)$ by laws of Marchenko-Pastur type.

Predictions for large sizes, derived here; none of them is a bound.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import (
    as_floating,
    check_finite,
    check_positive,
    check_rank,
    is_concrete,
)
from jaxrelu._products import matmul
from jaxrelu.activations import (
    AbstractActivation,
    gaussian_mean,
)
from jaxrelu.spectra import marchenko_pastur
from jaxrelu.theory._conditions import Scalar
from jaxrelu.theory._instance import as_inputs, derivative_coefficient


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
    aspect n/k. Solved by iteration, extrapolated after every second step (Varadhan and
    Roland's SQUAREM), to a relative change of 1e-4 in Δ. N(s) is at most the rank of G,
    min(n, kd).

    Args:
        gates: Φ, `dual_kernel(activation, inputs, derivative=1)`.
        inputs: X, (n, d).
        k: width, at least 1.
        shift: s > 0.

    Returns:
        N(s); NaN if 500 steps did not suffice, as may happen for n = kd and s → 0.

    Raises:
        TypeError: integer gates or inputs.
        ValueError: wrong shape or dtype, NaN or infinity, k < 1, s ≤ 0.

    Cost: $O(n^3)$ per step, some ten of them.
    """
    x = as_inputs(inputs)
    gates = as_floating(gates, "gates")
    n = len(x)
    if gates.shape != (n, n) or gates.dtype != x.dtype:
        msg = (
            f"gates is {gates.shape} {gates.dtype}; expected ({n}, {n}) {x.dtype}. "
            "Pass dual_kernel(activation, inputs, derivative=1) of the same inputs."
        )
        raise ValueError(msg)
    check_finite(gates, "gates")
    k, shift = jnp.asarray(k, x.dtype), jnp.asarray(shift, x.dtype)
    for number, name in ((k, "k"), (shift, "shift")):
        check_rank(number, 0, name, "a number")
    if is_concrete(shift):
        check_positive(float(shift), "shift")
    if is_concrete(k) and not (np.isfinite(float(k)) and float(k) >= 1):
        msg = f"k is {float(k)}; expected a width of at least 1. Pass a larger k."
        raise ValueError(msg)
    return _count(gates, x, k, shift)


_STEPS = 500


@eqx.filter_jit
def _count(gates: Array, inputs: Array, k: Array, shift: Array) -> Array:
    n, d = inputs.shape
    one = jnp.eye(d, dtype=inputs.dtype)

    def resolvent(delta):
        middle = matmul(inputs, jnp.linalg.solve(one + delta, inputs.T))
        return jnp.linalg.inv(gates * middle + shift * jnp.eye(n, dtype=inputs.dtype))

    def improve(delta):
        return matmul(inputs.T, matmul(gates * resolvent(delta), inputs)) / k

    def unfinished(state):
        _, done, count = state
        return ~done & (count < _STEPS)

    def extrapolate(state):
        delta, _, count = state
        once = improve(delta)
        twice = improve(once)
        step, bend = once - delta, twice - 2 * once + delta
        size = jnp.linalg.norm(step)
        curvature = jnp.linalg.norm(bend)
        ratio = size / jnp.where(curvature > 0, curvature, 1)
        far = delta + 2 * ratio * step + ratio * ratio * bend
        far = (far + far.T) / 2
        done = size <= 1e-4 * jnp.linalg.norm(delta)
        # a mean of positive matrices is positive: no root, NaN, no extrapolation
        fair = jnp.all(jnp.isfinite(jnp.linalg.cholesky(far)))
        use = ~done & (ratio > 1) & fair
        return jnp.where(use, far, twice), done, count + 2

    start = (one, jnp.zeros((), bool), 0)
    delta, done, _ = jax.lax.while_loop(unfinished, extrapolate, start)
    count = n - shift * jnp.trace(resolvent(delta))
    count = jnp.clip(count, 0, jnp.minimum(k * d, n))
    return jnp.where(done, count, jnp.nan)


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
        ValueError: n not between d and d²/2, where the two bulks are separate, or an
            activation whose $c_0$ or $c_1$ is 0: the law then has an atom.
    """
    check_positive(n, "n")
    if not d < n < d * d / 2:
        msg = f"n is {n} and d is {d}; expected d < n < d²/2 = {d * d / 2:g}."
        raise ValueError(msg)
    coefficients = [float(derivative_coefficient(activation, r)) for r in (0, 1)]
    for r, coefficient in enumerate(coefficients):
        if coefficient == 0:
            msg = (
                f"activation is {activation.name}, whose φ' has Hermite coefficient "
                f"c_{r} = 0: part of the limit law is an atom, which has no density. "
                "Expected c_0 and c_1 other than 0, as for relu, softplus or gelu."
            )
            raise ValueError(msg)
    c0, c1 = (coefficient**2 for coefficient in coefficients)
    rest = float(gaussian_mean(activation, 2, 1)) - c0 - c1
    pairs, part = d * (d + 1) / 2 - 1, c1 * (1 - 1 / d)
    lower = bulk_density(n - d, pairs, scale=part, shift=rest, mass=(n - d) / n)
    upper = bulk_density(n, d, scale=c0, shift=rest + part, mass=d / n)
    between = (jnp.stack([lower[0][-1], upper[0][0]]), jnp.zeros(2))
    x, density = zip(lower, between, upper, strict=True)
    return jnp.concatenate(x), jnp.concatenate(density)
