r"""Directions at a global minimum: at random, cancelling, and the worst one found.

A Gaussian displacement of every neuron with standard deviation $\varsigma$ has the mean
slack $\varsigma^2 mkd/2\pi$ in Theorem 10 (balanced copies or not: $m = n/k$), by the
second-order identity. Displacements whose copies cancel, $g_i = 0$, have slack of third
order.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxrelu._checks import check_positive, is_concrete
from jaxrelu._products import matmul
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.activations._angle import row_norms
from jaxrelu.landscape.global_minima._most_directions import (
    MostDirections,
    assignment,
    checked_minimum,
    inequality,
)
from jaxrelu.landscape.global_minima._neighbourhoods import Neighbourhood
from jaxrelu.objectives import PopulationLoss


_BATCH = 16  # samples at once: the product with a Hessian holds n² d numbers


class SlackStatistic(eqx.Module):
    r"""Slack of Theorem 10 over random displacements, in units of $\varsigma^2$.

    Attributes:
        values: $(\text{lhs} - \text{rhs})/\varsigma^2$ of each sample.
        mean: with its standard error.
        expected: $mkd/2\pi$ for Gaussian displacements and 0 for cancelling ones, the
            mean up to $O(\varsigma)$.
    """

    values: Float[Array, " samples"]
    mean: Estimate
    expected: float = eqx.field(static=True)

    @property
    def smallest(self) -> Float[Array, ""]:
        """The smallest value: what Table 1 of the paper prints."""
        return jnp.min(self.values)


class WorstDirection(eqx.Module):
    r"""The displacement of smallest margin that a search found.

    No lower bound: the search proves what it found and nothing about the rest.

    Attributes:
        displacement: $W - \tilde W$, of norm `radius`.
        inequality: Theorem 10 there.
        margin: lhs - fraction · rhs - coefficient · |g|².
        margins: the best of each start.
        violated: whether the margin is negative beyond the rounding of its two sides.
    """

    displacement: Float[Array, "n d"]
    inequality: MostDirections
    margin: Float[Array, ""]
    margins: Float[Array, " starts"]
    violated: Bool[Array, ""]


def sample_displacement(
    key: PRNGKeyArray,
    objective: PopulationLoss,
    minimum: Float[Array, "n d"],
    deviation: Float[Array, ""] | float = 1.0,
    *,
    cancelling: bool = False,
) -> Float[Array, "n d"]:
    r"""Gaussian entries; or cancelling ones, $g_i = \sum_j g_{ij} = 0$ for every i.

    The paper's adversarial displacements are the Gaussian ones with $g_{i1}$ replaced
    by $-\sum_{j \ge 2} g_{ij}$.

    Args:
        key: PRNG key.
        objective: the teacher.
        minimum: $\tilde W$, (n, d).
        deviation: standard deviation of each entry.
        cancelling: whether the copies of each teacher neuron cancel.
    """
    move = deviation * jrandom.normal(key, minimum.shape, minimum.dtype)
    if not cancelling:
        return move
    copies = assignment(objective.teacher.inner, minimum)
    first = jnp.argmax(copies, axis=0)
    return move.at[first].add(-matmul(copies.T, move))


def slack_statistic(
    objective: PopulationLoss,
    minimum: Any,
    key: PRNGKeyArray,
    *,
    deviation: float = 1e-5,
    num_samples: int = 1000,
    cancelling: bool = False,
) -> SlackStatistic:
    r"""Table 1: slack of Theorem 10 over random displacements.

    The paper prints "curvature (LHS)" for variance $10^{-5}$; its numbers agree with
    the smallest (lhs - rhs)$/\varsigma^2$ for standard deviation $10^{-5}$.

    Args:
        objective: an orthonormal teacher.
        minimum: a differentiable global minimum, (n, d).
        key: PRNG key.
        deviation: $\varsigma$.
        num_samples: how many.
        cancelling: see `sample_displacement`.

    Raises:
        ValueError: a teacher that is not orthonormal, another point, fewer than two
            samples, $\varsigma \le 0$.

    float64 is needed for the default deviation: the weights must hold it.
    """
    minimum = checked_minimum(objective, minimum)
    check_positive(deviation, "deviation")
    if num_samples < 2:
        msg = f"num_samples is {num_samples}; expected at least 2, for an error."
        raise ValueError(msg)
    keys = jrandom.split(key, num_samples)
    scale = jnp.asarray(deviation, minimum.dtype)
    values = _slacks(objective, minimum, keys, scale, jnp.asarray(cancelling))
    spread = jnp.std(values, ddof=1) / math.sqrt(num_samples)
    mean = Estimate(
        jnp.mean(values),
        spread,
        RESULTS.successful,  # pyright: ignore[reportArgumentType]
        "standard error",
        f"{num_samples} Gaussian displacements",
    )
    n, d = minimum.shape
    return SlackStatistic(values, mean, 0.0 if cancelling else n * d / (2 * math.pi))


@eqx.filter_jit
def _slacks(
    objective: PopulationLoss,
    minimum: Array,
    keys: Array,
    scale: Array,
    cancelling: Array,
) -> Array:
    def one(key):
        move = sample_displacement(key, objective, minimum, scale)
        without = sample_displacement(key, objective, minimum, scale, cancelling=True)
        move = jnp.where(cancelling, without, move)
        return inequality(objective, minimum, move).slack / scale**2

    return jax.lax.map(one, keys, batch_size=_BATCH)


def worst_direction(
    objective: PopulationLoss,
    minimum: Any,
    radius: float | Float[Array, ""],
    key: PRNGKeyArray,
    *,
    fraction: float = 1.0,
    coefficient: float = 0.0,
    orthogonal: bool = False,
    num_starts: int = 32,
    num_steps: int = 300,
    learning_rate: float = 0.03,
) -> WorstDirection:
    r"""Adversarial search: displacements of one norm that minimise a margin.

    Minimises lhs - fraction · rhs - coefficient · |g|² over $|W - \tilde W| =$ radius
    (so inside $U_\varepsilon$) by Adam on the sphere from Gaussian starts, all starts
    at once, and keeps the best point of each path. ``fraction=1`` is Conjecture 12;
    ``fraction=0, coefficient=λ`` is condition (4) of Theorem 13.

    Args:
        objective: an orthonormal teacher.
        minimum: a differentiable global minimum, (n, d).
        radius: $\varepsilon$, smaller than the norm of every neuron.
        key: PRNG key.
        fraction: of the right side.
        coefficient: of $|g|^2$.
        orthogonal: search $U^\perp_\varepsilon$ only.
        num_starts: independent starts.
        num_steps: of Adam.
        learning_rate: of Adam, relative to the radius.

    Raises:
        ValueError: a teacher that is not orthonormal, another point, counts that are
            not positive, a radius out of range.

    Cost: starts · steps · a few products with the Hessian.
    """
    minimum = checked_minimum(objective, minimum)
    check_positive(num_starts, "num_starts")
    check_positive(num_steps, "num_steps")
    check_positive(learning_rate, "learning_rate")
    if is_concrete(radius) and is_concrete(minimum):
        shortest = float(jnp.min(row_norms(minimum)))
        if not 0 < float(radius) < shortest:
            msg = (
                f"radius is {float(radius)}; expected a positive number less than "
                f"{shortest}, the norm of the shortest neuron."
            )
            raise ValueError(msg)
    near = Neighbourhood(minimum, radius, orthogonal=orthogonal)
    weights = jnp.asarray([fraction, coefficient], minimum.dtype)
    keys = jrandom.split(key, num_starts)
    rate = jnp.asarray(learning_rate, minimum.dtype)
    return _search(objective, near, weights, keys, rate, num_steps)


@eqx.filter_jit
def _search(
    objective: PopulationLoss,
    near: Neighbourhood,
    weights: Array,
    keys: Array,
    rate: Array,
    num_steps: int,
) -> WorstDirection:
    minimum = near.minimum
    optimiser = optax.adam(rate)

    def on_sphere(x):
        x = near.tangent(x)
        return x / jnp.sqrt(jnp.sum(x * x))

    def evaluate(x):
        return inequality(objective, minimum, near.radius * on_sphere(x))

    def margin(found):
        return found.lhs - weights[0] * found.rhs - weights[1] * found.sum_norm**2

    # in units of radius³, the order of what is searched for
    scaled = lambda x: margin(evaluate(x)) / near.radius**3

    def step(carry, _):
        x, state, best, least = carry
        value, gradient = jax.value_and_grad(scaled)(x)
        better = value < least
        best, least = jnp.where(better, x, best), jnp.where(better, value, least)
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in int32
            update, state = optimiser.update(gradient, state)
        return (on_sphere(x + update), state, best, least), None

    def descend(key):
        x = on_sphere(jrandom.normal(key, minimum.shape, minimum.dtype))
        start = (x, optimiser.init(x), x, jnp.asarray(jnp.inf, x.dtype))
        (_, _, best, _), _ = jax.lax.scan(step, start, length=num_steps)
        found = evaluate(best)
        return best, found, margin(found)

    points, every, margins = jax.vmap(descend)(keys)
    winner = jnp.argmin(margins)
    found = jax.tree.map(lambda leaf: leaf[winner], every)
    displacement = near.radius * on_sphere(points[winner])
    rounding = rounding_of_sides(objective, minimum, displacement)
    return WorstDirection(
        displacement=displacement,
        inequality=found,
        margin=margins[winner],
        margins=margins,
        violated=margins[winner] < -rounding,
    )


def rounding_of_sides(objective: PopulationLoss, minimum: Array, move: Array) -> Array:
    r"""Rounding of both sides of Theorem 10 at $W = \tilde W$ + ``move``.

    From the entries of $H_{ij}$ and $H_{ii}$ and from the weights themselves:
    16 units of roundoff times
    $(\sum|g_{ij}|)^2 + \sum |g_{ij}|^2 k/\pi|\tilde w_{ij}|$.
    """
    sizes, norms = row_norms(move), row_norms(minimum)
    mass = objective.teacher.width / math.pi
    total = jnp.sum(sizes) ** 2 + jnp.sum(sizes**2 * mass / norms)
    return 16 * float(jnp.finfo(move.dtype).eps) * total
