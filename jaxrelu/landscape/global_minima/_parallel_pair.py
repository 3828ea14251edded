r"""Two copies of a neuron at a global minimum, and the curves that start there.

At a global minimum with n > k, two student neurons $w_1 = \alpha_1 \bar v$ and
$w_2 = \alpha_2 \bar v$ share a teacher's ray. Two curves leave it, with a unit vector
$u \perp v$: both neurons tilt, $w_i = \alpha_i(\bar v + \varepsilon u)$, or they open,
$w_1 = \alpha_1 \bar v + \varepsilon u$, $w_2 = \alpha_2 \bar v - \varepsilon u$.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import as_floating, check_finite, check_rank, is_concrete
from jaxrelu.landscape.global_minima._global_minima import is_global_minimum
from jaxrelu.objectives import PopulationLoss


class ParallelPair(eqx.Module):
    r"""Two parallel neurons of a global minimum and a direction orthogonal to them.

    Attributes:
        minimum: $\tilde W$, (n, d).
        ray: $\bar v$, the unit vector of both neurons.
        direction: $u$, a unit vector orthogonal to it.
        alphas: $(\alpha_1, \alpha_2)$, the norms of the two neurons.
        pair: their indices.
    """

    minimum: Float[Array, "n d"]
    ray: Float[Array, " d"]
    direction: Float[Array, " d"]
    alphas: Float[Array, "2"]
    pair: tuple[int, int] = eqx.field(static=True)

    def opened(self, opening: Float[Array, ""] | float) -> Float[Array, "n d"]:
        r"""$w_1 + \varepsilon u$, $w_2 - \varepsilon u$, the others unchanged.

        In the orthogonal neighbourhood of radius $|\varepsilon|$.
        """
        first, second = self.pair
        move = jnp.asarray(opening, self.minimum.dtype) * self.direction
        return self.minimum.at[first].add(move).at[second].add(-move)

    def tilted(self, tilt: Float[Array, ""] | float) -> Float[Array, "n d"]:
        r"""$\alpha_i(\bar v + \varepsilon u)$ for both neurons, others unchanged."""
        move = jnp.asarray(tilt, self.minimum.dtype) * self.direction
        moved = self.alphas[:, None] * (self.ray + move)[None, :]
        return self.minimum.at[jnp.asarray(self.pair)].set(moved)

    def tilt_direction(self, tilt: Float[Array, ""] | float) -> Float[Array, "n d"]:
        r"""$(z, -z, 0, \dots)$, $z$ the unit part of $v$ orthogonal to $w_1$."""
        tilt = jnp.asarray(tilt, self.minimum.dtype)
        z = (tilt * self.ray - self.direction) / jnp.sqrt(1 + tilt**2)
        first, second = self.pair
        return jnp.zeros_like(self.minimum).at[first].set(z).at[second].set(-z)


def parallel_pair(
    objective: PopulationLoss,
    minimum: Any,
    pair: tuple[int, int] = (0, 1),
    direction: Any = None,
) -> ParallelPair:
    r"""The pair (i, j) of neurons at a global minimum, both on one teacher's ray.

    Args:
        objective: the teacher.
        minimum: $\tilde W$, (n, d), a global minimum with outer weights one.
        pair: two different neurons.
        direction: $u$, (d,): its part orthogonal to the ray is taken and normalised.
            None takes the part of the coordinate axis least aligned with the ray.

    Raises:
        ValueError: not a global minimum, neurons that are zero or not on one ray, a
            direction parallel to the ray, d = 1.
    """
    minimum = as_floating(minimum, "minimum")
    check_rank(minimum, 2, "minimum", "(n, d)")
    _check_pair(objective, minimum, pair)
    if direction is not None:
        direction = as_floating(direction, "direction").astype(minimum.dtype)
        check_rank(direction, 1, "direction", "(d,)")
        check_finite(direction, "direction")
    built, parallel = _build(minimum, direction, pair)
    if is_concrete(parallel) and bool(parallel):
        msg = "direction is 0 or parallel to the two neurons; expected another one."
        raise ValueError(msg)
    return built


@eqx.filter_jit
def _build(
    minimum: Array, direction: Array | None, pair: tuple[int, int]
) -> tuple[ParallelPair, Array]:
    rows = minimum[jnp.asarray(pair)]
    alphas = jnp.sqrt(jnp.sum(rows * rows, axis=1))
    ray = rows[0] / alphas[0]
    if direction is None:
        axis = jnp.argmin(jnp.abs(ray))
        direction = jnp.zeros_like(ray).at[axis].set(1)
    before = jnp.linalg.norm(direction)
    for _ in range(2):  # twice: orthogonal to rounding
        direction = direction - jnp.sum(direction * ray) * ray
    size = jnp.linalg.norm(direction)
    parallel = ~(size > 8 * jnp.finfo(direction.dtype).eps * before)
    return ParallelPair(minimum, ray, direction / size, alphas, pair), parallel


def _check_pair(
    objective: PopulationLoss, minimum: Array, pair: tuple[int, int]
) -> None:
    n, d = minimum.shape
    if len(set(pair)) != 2 or not all(0 <= i < n for i in pair) or d < 2:
        msg = (
            f"pair is {pair} and minimum has shape {(n, d)}; expected two different "
            f"neurons of 0 to {n - 1} and d >= 2."
        )
        raise ValueError(msg)
    if not (is_concrete(minimum) and is_concrete(objective.teacher.inner)):
        return
    test = is_global_minimum(objective, minimum)
    if not bool(test.holds):
        raise ValueError(test.reason)
    where = np.asarray(test.assignment)[list(pair)]
    if where[0] != where[1] or where[0] < 0:
        msg = (
            f"neurons {pair} lie on the rays of teachers {where.tolist()}; expected "
            "the same one (-1 is none, or a zero neuron)."
        )
        raise ValueError(msg)
