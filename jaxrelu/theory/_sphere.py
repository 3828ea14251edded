r"""What the constants are for data whose geometry is known.

Closed forms for deterministic data, and asymptotics for rows iid uniform on the unit
sphere, $d \le n \lesssim d^2$. With $h(\rho) = E[\varphi'(u)\varphi'(v)]$ at
correlation ρ, $\Sigma(X)_{ij} = \rho_{ij}h(\rho_{ij})$ and $h(0) = c_0^2$, $h(1) =
E\varphi'^2$.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxrelu._checks import check_positive, check_size, is_concrete
from jaxrelu.activations import AbstractActivation, dual_of_angle, mu
from jaxrelu.theory._conditions import Scalar
from jaxrelu.theory._gradient_descent import (
    even_ceil,
    kinked_width,
    smooth_width,
)
from jaxrelu.theory._instance import bend_bound, jumps, kink
from jaxrelu.theory._lemmas import CHERNOFF


def slope_kernel(activation: AbstractActivation, rho: Any) -> Any:
    r"""$h(\rho)$ for unit vectors of inner product ρ.

    Args:
        activation: φ.
        rho: any shape, in [-1, 1].
    """
    if not isinstance(rho, jax.Array):
        rho = jnp.asarray(rho, float)
    return dual_of_angle(activation, jnp.arccos(rho), derivative=1)


def orthonormal_eigenvalue(activation: AbstractActivation) -> Scalar:
    r"""$\Sigma(X) = E[\varphi'(g)^2]\, I$ for orthonormal rows; 1/2 for ReLU."""
    return slope_kernel(activation, 1.0)


def equicorrelated_eigenvalues(
    activation: AbstractActivation, n: int, rho: float
) -> tuple[Scalar, Scalar]:
    r"""Extreme eigenvalues of $\Sigma(X)$ when $\langle x_i, x_j\rangle = \rho$.

    $h(1) - \rho h(\rho)$, n - 1 times, and $h(1) + (n-1)\rho h(\rho)$.

    Args:
        activation: φ.
        n: number of samples.
        rho: ρ; $\rho \ge -1/(n-1)$.

    Returns:
        (smallest, largest).

    Raises:
        ValueError: ρ is not the inner product of n unit vectors.
    """
    check_size(n, "n")
    least = -1 / (n - 1) if n > 2 else -1.0
    # -1/(n-1) as the caller rounded it
    if is_concrete(rho) and not least - 1e-6 <= float(rho) <= 1:
        msg = (
            f"rho is {float(rho)}; expected the inner product of {n} unit vectors, a "
            f"number in [{least:.6g}, 1]."
        )
        raise ValueError(msg)
    one, cross = slope_kernel(activation, 1.0), rho * slope_kernel(activation, rho)
    bulk, top = one - cross, one + (n - 1) * cross
    if n == 1:
        return top, top
    return jnp.minimum(bulk, top), jnp.maximum(bulk, top)


def half_circle_relu_eigenvalue(n: int) -> float:
    r"""$\delta/(4\pi)$, $\delta = 2\sin\frac{\pi}{2n}$: the limit of $\lambda(X)$.

    For ReLU on `jaxrelu.data.half_circle`; the relative error vanishes as n grows.
    Found numerically.
    """
    return 2 * math.sin(math.pi / (2 * n)) / (4 * math.pi)


def separation_eigenvalue(n: int, separation: Any) -> Any:
    r"""$\delta/(100n^2)$, which is said to be at most $\lambda(X)$ for ReLU.

    δ is `jaxrelu.data.separation`. Recalled; the constant is unconfirmed, and far from
    tight in every case tried. Never used as a condition.
    """
    return separation / (100 * n**2)


class SphereAsymptotics(eqx.Module):
    r"""Constants of n rows iid uniform on the sphere of $\mathbb{R}^d$, n and d large.

    Derived here by random matrix heuristics, to be compared with measurements. With
    $N = d(d+1)/2 - 1$:

    * $\|X\| \approx 1 + \sqrt{n/d}$;
    * $\sigma_{\min}^2(X*X) \approx (1-\frac1d)(1-\sqrt{n/N})_+^2$;
    * $\kappa(X) \approx (1+\sqrt{d/n})/((1-\frac1d)(1-\sqrt{n/N})^2)$, smooth φ;
    * $\lambda(X) \approx c_0^2(1-\sqrt{n/d})_+^2 + \mu_\varphi^2\sigma_{\min}^2(X*X)
      + h(1) - c_0^2 - \mu_\varphi^2$, the sum of the parts' smallest eigenvalues; about
      10 % low at $n = 2d$ and 20 % at $n = d$ for ReLU, accurate for $n \ge 4d$.

    Attributes:
        norm: $\|X\|$.
        khatri_rao_min: $\sigma_{\min}^2(X * X)$.
        covariance_min: $\lambda(X)$.
        kappa: $\kappa(X)$, of the kind that goes with φ.
        required_width: k of `moderate_overparameterization` with these constants:
            of order $n^2/d$ for smooth φ, $n^4/d^3$ for ReLU.
    """

    norm: Scalar
    khatri_rao_min: Scalar
    covariance_min: Scalar
    kappa: Scalar
    required_width: Scalar


def sphere_asymptotics(
    activation: AbstractActivation, n: int, d: int, *, delta: float = 1.0
) -> SphereAsymptotics:
    r"""The asymptotic constants; see `SphereAsymptotics`.

    The paper's corollaries for such data, as recalled, are $\sqrt{kd} \ge Cn$
    (softplus) and $\sqrt{kd} \ge Cn^2/d$ (ReLU) with rates $1 - c\,d/n$; C and c are
    unconfirmed, the orders agree with the fields here.

    Args:
        activation: φ.
        n: number of samples.
        d: input dimension.
        delta: δ of `moderate_overparameterization`.

    Raises:
        ValueError: n or d below 2, δ not positive.
    """
    if min(n, d) < 2:
        msg = f"n is {n} and d is {d}; expected at least 2 of each."
        raise ValueError(msg)
    check_positive(delta, "delta")
    ratio = n / (d * (d + 1) / 2 - 1)
    tensor = jnp.asarray((1 - 1 / d) * max(0.0, 1 - ratio**0.5) ** 2, float)
    norm = jnp.asarray(1 + (n / d) ** 0.5, float)
    flat = slope_kernel(activation, 0.0)
    curved = mu(activation).value ** 2
    lam = flat * max(0.0, 1 - (n / d) ** 0.5) ** 2 + curved * tensor
    lam = lam + slope_kernel(activation, 1.0) - flat - curved
    slope = jnp.asarray(activation.derivative_bound, float)
    if jumps(activation):
        rise = kink(activation)
        kappa = (d / n) ** 0.5 * norm**3 / lam**2
        width = kinked_width(slope, rise, n, norm, lam, delta)
    else:
        kappa = (d / n) ** 0.5 * norm / tensor
        bend = jnp.asarray(bend_bound(activation), float)
        width = smooth_width(slope, bend, n, norm, lam, delta)
    chernoff = 2 * math.log(n) / CHERNOFF * (slope * norm) ** 2 / lam
    return SphereAsymptotics(
        norm=norm,
        khatri_rao_min=tensor,
        covariance_min=lam,
        kappa=kappa,
        required_width=even_ceil(jnp.maximum(width, chernoff)),
    )
