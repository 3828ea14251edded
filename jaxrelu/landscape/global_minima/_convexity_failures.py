r"""What fails at over-parameterised global minima, with exact constants.

Where a teacher neuron has two copies, F is not convex in any neighbourhood, not
one-point strongly convex and satisfies no Polyak-Łojasiewicz inequality, not even on
orthogonal neighbourhoods (Theorems 4, 7 and 9 of Safran, Yehudai and Shamir). Along the
curves of `ParallelPair` everything is elementary. With $\alpha = \alpha_1 + \alpha_2$,
$t_i = \varepsilon/\alpha_i$, $\gamma_i = \operatorname{atan} t_i$ and
$\theta = \gamma_1 + \gamma_2$ the opened pair has
$$ F = \frac1{2\pi} \sum_i \alpha_i^2 \bigl((1 + t_i^2)\gamma_i - t_i\bigr), \qquad
   F' = \frac{\varepsilon\theta}{\pi}, \qquad
   F'' = \frac1\pi \Bigl(\theta + \sum_i \frac{t_i}{1 + t_i^2}\Bigr), $$
because $w_1 + w_2$ does not move: F is half the mean square of
$\sigma(w_1 x) + \sigma(w_2 x) - \sigma((w_1 + w_2)x)$, for every teacher.
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import is_concrete
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.landscape.global_minima._parallel_pair import ParallelPair


Scalar = Float[Array, ""]

_TERMS = np.arange(1, 27)
_SIGNS = np.where(_TERMS % 2, 1.0, -1.0)
_EXCESS = 2 * _SIGNS / ((2 * _TERMS - 1) * (2 * _TERMS + 1))
_DEFECT = _SIGNS / (2 * _TERMS + 1)


class OpenedPair(eqx.Module):
    r"""The loss along an opened pair, and what it does to the usual inequalities.

    Attributes:
        loss: $F(\varepsilon) = c\,\varepsilon^3 + O(\varepsilon^5)$.
        slope: $F'(\varepsilon)$.
        hessian_quotient: $g^\top \nabla^2F\, g / |g|^2 = F''/2$ with
            $g = W - \tilde W$, about $3c\,\varepsilon$: the largest $\lambda$ for
            one-point strong convexity in its second-order version.
        gradient_quotient: $\langle \nabla F, g\rangle/|g|^2 = \theta/2\pi$, exactly:
            the same for the first-order version.
        squared_gradient: $|\nabla F|^2 = O(\varepsilon^4)$.
        dominance_ratio: $|\nabla F|^2/2F = \Theta(\varepsilon)$: the largest $\lambda$
            in the Polyak-Łojasiewicz inequality
            $\frac12|\nabla F|^2 \ge \lambda F$.
        growth: $c = \alpha/(3\pi\alpha_1\alpha_2)$.
    """

    loss: Estimate
    slope: Estimate
    hessian_quotient: Estimate
    gradient_quotient: Estimate
    squared_gradient: Estimate
    dominance_ratio: Estimate
    growth: Estimate


def cubic_growth_constant(alpha_1: Any, alpha_2: Any) -> Float[Array, "..."]:
    r"""$c = (\alpha_1 + \alpha_2)/(3\pi\alpha_1\alpha_2)$, the cubic term of the loss.

    $F = c|\varepsilon|^3 + O(|\varepsilon|^5)$ along $(u, -u)$ from a pair of parallel
    neurons of norms $\alpha_1, \alpha_2$, for every unit $u$ orthogonal to them and
    every teacher. So F is not three times differentiable there.

    Args:
        alpha_1: norm of the first neuron.
        alpha_2: norm of the second.
    """
    one, two = jnp.asarray(alpha_1), jnp.asarray(alpha_2)
    return (1 / one + 1 / two) / (3 * math.pi)


def cubic_decay_constant(alpha_1: Any, alpha_2: Any) -> Float[Array, "..."]:
    r"""$\lim F t^3 = 8/(27c^2)$ under gradient flow into an opened pair.

    $2\dot\varepsilon = -F'(\varepsilon) = -3c\varepsilon^2 + \dots$, hence
    $\varepsilon \approx 2/(3ct)$: no exponential rate. Gradient descent has the same
    limit with $t = \eta \cdot$ steps. For $\alpha_i = \frac12$ it is $\pi^2/6$.

    Args:
        alpha_1: norm of the first neuron in the limit.
        alpha_2: norm of the second.
    """
    return 8 / (27 * cubic_growth_constant(alpha_1, alpha_2) ** 2)


def tilt_curvature(pair: ParallelPair, tilt: Scalar | float) -> Estimate:
    r"""$(z, -z)^\top \nabla^2F\, (z, -z)$ at the tilted pair: negative, for every tilt.

    $$ -\frac{|\varepsilon|}{\pi(1 + \varepsilon^2)}
       \frac{(\alpha_1 + \alpha_2)^2}{\alpha_1\alpha_2} $$
    with $z$ as in `ParallelPair.tilt_direction`; the Rayleigh quotient is half of it,
    and the smallest eigenvalue is at most that. Hence no neighbourhood of the minimum
    in which F is convex (Theorem 4). The paper's formula
    $-(1+\varepsilon)\frac{\sin\theta}\pi \dots$ has a factor $1 + \varepsilon$ too many
    and the norms at the minimum in place of those at the point; both agree to first
    order.

    Args:
        pair: see `parallel_pair`.
        tilt: $\varepsilon$.
    """
    return _tilt_curvature(pair, jnp.asarray(tilt, pair.minimum.dtype))


@eqx.filter_jit
def _tilt_curvature(pair: ParallelPair, tilt: Array) -> Estimate:
    size = jnp.abs(tilt)
    one, two = pair.alphas
    value = -size / (math.pi * (1 + size**2)) * (one + two) ** 2 / (one * two)
    return _estimate(value, "closed form along a tilted pair")


def opened_pair(pair: ParallelPair, opening: Scalar | float) -> OpenedPair:
    r"""Loss, quotients and Polyak-Łojasiewicz ratio at an opened pair, exactly.

    With $r_i = \alpha_i\gamma_i$ and $N_v, N_u, N_\perp$ the numbers of other student
    neurons on the line of the pair, on that of $u$, and orthogonal to both,
    $$ 4\pi^2 |\nabla F|^2
       = (2 + N_u) \bigl((r_1 - r_2)^2 + \varepsilon^2\theta^2\bigr)
       + N_v \bigl((2\varepsilon - r_1 - r_2)^2
       + \varepsilon^2(\gamma_1 - \gamma_2)^2\bigr)
       + N_\perp (|w_1| + |w_2| - \alpha)^2, $$
    which is
    $\varepsilon^4 [S^2(2 + N_u) + \frac14 S^2 N_\perp
    + (\alpha_1^{-1} - \alpha_2^{-1})^2 N_v]$ to leading order with
    $S = \alpha_1^{-1} + \alpha_2^{-1}$. The paper's $F = \Omega(\varepsilon)$ and
    $|\nabla F|^2 = O(\varepsilon^2)$ are not the true orders, which are
    $\varepsilon^3$ and $\varepsilon^4$; its conclusion stands.

    Args:
        pair: see `parallel_pair`.
        opening: $\varepsilon$; the values depend on its modulus.

    Raises:
        ValueError: a neuron that is none of the three, for which the gradient has no
            such form (NaN in place of the gradient when values are traced).

    Relative accuracy of a few roundings at every $\varepsilon$, unlike F computed from
    the weights.
    """
    found, covered = _opened(pair, jnp.asarray(opening, pair.minimum.dtype))
    if is_concrete(covered) and not bool(jnp.all(covered)):
        msg = (
            "some neuron is neither on the line of the pair, nor on that of the "
            "direction, nor orthogonal to both; expected that of all. For an "
            "orthonormal teacher take another teacher neuron as the direction."
        )
        raise ValueError(msg)
    return found


@eqx.filter_jit
def _opened(pair: ParallelPair, opening: Array) -> tuple[OpenedPair, Array]:
    size = jnp.abs(opening)
    ratio = size / pair.alphas
    gamma = jnp.arctan(ratio)
    theta = jnp.sum(gamma)
    loss = jnp.sum(pair.alphas**2 * _excess(ratio)) / (2 * math.pi)
    slope = size * theta / math.pi
    bend = (theta + jnp.sum(ratio / (1 + ratio**2))) / math.pi
    gradient, covered = _squared_gradient(pair, size, ratio, gamma)
    counted = "closed form along an opened pair"
    growth = cubic_growth_constant(pair.alphas[0], pair.alphas[1])
    dominance = gradient / (2 * jnp.where(loss > 0, loss, 1))
    values = (loss, slope, bend / 2, theta / (2 * math.pi), gradient, dominance, growth)
    return OpenedPair(*(_estimate(value, counted) for value in values)), covered


def toy_valley(point: Float[Array, "2"]) -> Scalar:
    r"""$x^2y^2$: minima that form a cross, the paper's toy example (App. B.3).

    Its Hessian has determinant $-12x^2y^2 < 0$ off the axes: convex near no minimum.
    From the minimum $(1, 0)$, points $(1 + \varepsilon, 0)$ have gradient 0: not
    one-point strongly convex; on orthogonal neighbourhoods, points $(1, \varepsilon)$,
    it is, with $\lambda = 2$. The ratio $\frac12|\nabla f|^2/f = 2(x^2 + y^2)$ shows
    that the Polyak-Łojasiewicz inequality fails near the origin and nowhere else (the
    paper says that it fails).

    Args:
        point: (x, y).
    """
    return (point[0] * point[1]) ** 2


def _squared_gradient(
    pair: ParallelPair, size: Array, ratio: Array, gamma: Array
) -> tuple[Array, Array]:
    (on_ray, on_direction, across), covered = _counts(pair)
    defect = _defect(ratio)
    opposite = (size * (defect[1] - defect[0])) ** 2 + (size * jnp.sum(gamma)) ** 2
    difference = jnp.arctan((ratio[0] - ratio[1]) / (1 + ratio[0] * ratio[1]))
    along = (size * jnp.sum(defect)) ** 2 + (size * difference) ** 2
    longer = jnp.sqrt(pair.alphas**2 + size**2) + pair.alphas
    lengthening = jnp.sum(size**2 / longer) ** 2
    total = (2 + on_direction) * opposite + on_ray * along + across * lengthening
    return jnp.where(covered, total, jnp.nan) / (4 * math.pi**2), covered


def _counts(pair: ParallelPair) -> tuple[list[Array], Array]:
    """Other neurons: on the line of the pair, on that of u, orthogonal to both."""
    norms = jnp.linalg.norm(pair.minimum, axis=1)
    units = pair.minimum / jnp.where(norms > 0, norms, 1)[:, None]
    v = jnp.sum(units * pair.ray[None, :], axis=1)
    u = jnp.sum(units * pair.direction[None, :], axis=1)
    small = 64 * jnp.finfo(v.dtype).eps
    other = jnp.ones(norms.shape, bool).at[jnp.asarray(pair.pair)].set(False)
    other &= norms > 0
    on_ray = other & (jnp.abs(jnp.abs(v) - 1) <= small)
    on_direction = other & (jnp.abs(jnp.abs(u) - 1) <= small)
    across = other & (jnp.abs(v) <= small) & (jnp.abs(u) <= small)
    covered = jnp.all(on_ray | on_direction | across | ~other)
    kinds = (on_ray, on_direction, across)
    return [jnp.sum(x, dtype=v.dtype) for x in kinds], covered


def _excess(t: Array) -> Array:
    """(1 + t²) atan t - t for t ≥ 0."""
    small = jnp.minimum(t, 0.5)
    series = small * _power_series(_EXCESS, small**2)
    large = jnp.maximum(t, 0.5)
    return jnp.where(t < 0.5, series, (1 + large**2) * jnp.arctan(large) - large)


def _defect(t: Array) -> Array:
    """1 - atan(t)/t for t ≥ 0."""
    series = _power_series(_DEFECT, jnp.minimum(t, 0.5) ** 2)
    large = jnp.maximum(t, 0.5)
    return jnp.where(t < 0.5, series, 1 - jnp.arctan(large) / large)


def _power_series(coefficients: np.ndarray, x: Array) -> Array:
    """Sum of coefficients[m] x^(m + 1)."""
    total = jnp.zeros_like(x)
    for c in coefficients[::-1]:
        total = (total + float(c)) * x
    return total


def _estimate(value: Array, method: str) -> Estimate:
    error = 32 * float(jnp.finfo(value.dtype).eps) * jnp.abs(value)
    done = RESULTS.successful
    return Estimate(value, error, done, "rounding bound", method)  # pyright: ignore[reportArgumentType]
