r"""Elementary functions that keep relative accuracy in the tails, to every derivative.

Each carries its own derivative rule in terms of functions of this file, so that
automatic differentiation of any order stays exact, at 0 and far out.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array


@jax.custom_jvp
def logistic(t: Array) -> Array:
    r"""$\sigma(t) = 1/(1 + e^{-t})$; relative accuracy for $t \to -\infty$ too."""
    small = jnp.exp(-jnp.abs(t))
    return jnp.where(t < 0, small, jnp.ones_like(t)) / (1 + small)


logistic.defjvps(lambda dt, out, t: out * logistic(-t) * dt)


@jax.custom_jvp
def entropy(t: Array) -> Array:
    r"""$-\sigma \log \sigma - (1-\sigma) \log(1-\sigma)$ at $\sigma = \sigma(t)$."""
    t = jnp.abs(t)
    return t * logistic(-t) + jnp.log1p(jnp.exp(-t))


entropy.defjvps(lambda dt, out, t: -t * logistic(t) * logistic(-t) * dt)  # noqa: ARG005


@jax.custom_jvp
def square_sech(z: Array) -> Array:
    r"""$\operatorname{sech}^2 z = 4 \sigma(2z) \sigma(-2z)$."""
    return 4 * logistic(2 * z) * logistic(-2 * z)


square_sech.defjvps(lambda dz, out, z: -2 * jnp.tanh(z) * out * dz)


@jax.custom_jvp
def density(z: Array) -> Array:
    r"""Standard normal density $p(z) = e^{-z^2/2}/\sqrt{2\pi}$.

    $z$ is split into a head whose square is exact and a small rest; squaring $z$
    itself would cost a relative error of $z^2 \epsilon / 2$.
    """
    z = jnp.clip(z, -40, 40)  # p(40) = 0 in float64
    info = jnp.finfo(z.dtype)
    head = jax.lax.reduce_precision(z, info.nexp, info.nmant // 2 - 1)
    rest = (z - head) * (z + head)
    # not two exponentials: a compiler makes them one, of the sum
    small = 1 + jnp.expm1(-rest / 2)
    return jnp.exp(-head * head / 2) * small / math.sqrt(2 * math.pi)


density.defjvps(lambda dz, out, z: -z * out * dz)


# Chebyshev coefficients in s = (t - 4)/(t + 4) of (1 + t) M(t), where
# M(t) = Φ(-t)/p(t) is Mills' ratio; computed with 60 digits, truncated below 3e-17.
_MILLS = (
    1.1670525350882472, -0.1610195767134654, -0.028002821825452974,
    0.03167452189239266, -0.012103231162345369, 0.0027056129762167095,
    -0.00029931636202703166, -1.716686526879361e-05, 1.0178489264109868e-05,
    -4.894829570004192e-07, -2.844006500151048e-07, 3.0766283713811506e-08,
    9.180378674469537e-09, -1.2756102213808737e-09, -3.660279376104134e-10,
    4.5926359348595205e-11, 1.7189314687646526e-11, -1.2726833698700693e-12,
    -8.668081913316188e-13, 1.1061557204136741e-15, 4.2750210770103334e-14,
    3.790937692263904e-15, -1.8474103010592332e-15, -4.0419094130708177e-16,
    5.340854385017358e-17,
)  # fmt: skip


def _mills(t: Array) -> Array:
    """Mills' ratio for t >= 0, by Clenshaw's recurrence."""
    s = (t - 4) / (t + 4)
    last, before = jnp.zeros_like(t), jnp.zeros_like(t)
    for coefficient in _MILLS[:0:-1]:
        last, before = 2 * s * last - before + coefficient, last
    return (s * last - before + _MILLS[0]) / (1 + t)


def mills_gap(t: Array) -> Array:
    r"""$M(t) - t$ for $t \ge 0$, with Mills' ratio $M(t) = \Phi(-t)/p(t)$."""
    return _mills(t) - t


@jax.custom_jvp
def normal_cdf(z: Array) -> Array:
    r"""$\Phi(z)$, with relative accuracy for $z \to -\infty$."""
    tail = density(z) * _mills(jnp.abs(z))
    return jnp.where(z < 0, tail, 1 - tail)


normal_cdf.defjvps(lambda dz, out, z: density(z) * dz)  # noqa: ARG005
