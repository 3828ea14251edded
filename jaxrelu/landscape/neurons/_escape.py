r"""Down from the saddle that a split makes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import as_floating
from jaxrelu._results import RESULTS
from jaxrelu.landscape.neurons._split import check_open_share, check_place, split
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss
from jaxrelu.operators._population_hessian import population_hessian


_POINTS = 48
_ROUNDS = 4
_SUCCESS: Any = RESULTS.successful
_LOST: Any = RESULTS.unresolved


class Escape(eqx.Module):
    r"""Both ways down from a split along $\pm(u, -u)$; see `escape`.

    Attributes:
        students: the best points for + and -, with n + 1 neurons.
        steps: t of both, (2,).
        decreases: by how much F falls to each of them, (2,), at least 0.
        error: of the decreases: rounding of two losses.
        direction: u, (d,).
        curvature: $u^\top H'_{ii} u\,(1/\alpha + 1/(1-\alpha))$: F changes by half of
            this times $t^2$, to second order.
        result: ``RESULTS.unresolved`` if no decrease is larger than its error.
    """

    students: tuple[Any, Any]
    steps: Float[Array, "2"]
    decreases: Float[Array, "2"]
    error: Float[Array, ""]
    direction: Float[Array, " d"]
    curvature: Float[Array, ""]
    result: RESULTS

    @property
    def student(self) -> Any:
        """The lower one of the two points."""
        first = bool(self.decreases[0] >= self.decreases[1])
        return self.students[0] if first else self.students[1]

    @property
    def decrease(self) -> Float[Array, ""]:
        """The larger decrease."""
        return jnp.max(self.decreases)


def escape(
    objective: PopulationLoss,
    student: Any,
    i: int,
    alpha: float = 0.5,
    direction: Any = None,
) -> Escape:
    r"""Split neuron i and follow $(u, -u)$ down to the lowest point on that line.

    $w_i$ becomes $\alpha w_i + tu$ and $(1-\alpha) w_i - tu$. The line search evaluates
    F at lengths up to $10(|w_i| + 1)$ in geometric steps, then closer and closer to the
    best one; it is not a descent to a critical point, which is left to
    `gradient_descent` or `find_critical_points`, from ``student`` or from both of
    ``students``: the two ways may end at different minima.

    Args:
        objective: any teacher.
        student: W, or a network.
        i: which neuron.
        alpha: in (0, 1).
        direction: u, (d,), scaled to a unit vector; None for the eigenvector of the
            smallest eigenvalue of $H'_{ii}$.

    Raises:
        IndexError: no such neuron.
        TypeError: i is no integer.
        ValueError: alpha outside (0, 1), or 0 or 1 in the weights' dtype; a direction
            of another shape, or zero.

    Cost: some four hundred evaluations of F.
    """
    network = objective.student(student)
    n, d = network.inner.shape
    check_place(n, i)
    check_open_share(alpha, network.inner.dtype)
    own = population_hessian(objective, network).own_blocks()
    place, share = jnp.asarray(i, jnp.int32), jnp.asarray(alpha, own.dtype)
    if direction is None:
        direction = _softest(own, place)
    else:
        direction = as_floating(direction, "direction")
        if (
            direction.shape != (d,)
            or direction.dtype != own.dtype
            or not np.any(direction)
        ):
            msg = (
                f"direction is {direction.shape} {direction.dtype}; expected a nonzero "
                f"vector ({d},) of {own.dtype}."
            )
            raise ValueError(msg)
    found = _escape(objective, network, own, place, share, direction)
    if isinstance(student, Shallow):
        return found
    points = tuple(point.inner for point in found.students)
    return eqx.tree_at(lambda way: way.students, found, points)


@jax.jit
def _softest(blocks: Array, i: Array) -> Array:
    """The eigenvector of a block's smallest eigenvalue."""
    return jnp.linalg.eigh(blocks[i])[1][:, 0]


@eqx.filter_jit
def _escape(objective, network, blocks, i, alpha, direction):
    """`escape` of a network."""
    own = blocks[i]
    u = direction / jnp.linalg.norm(direction)
    start = split(network, i, alpha)
    move = jnp.zeros_like(start.inner).at[i].set(u).at[i + 1].set(-u)
    reach = 10 * (jnp.linalg.norm(network.inner[i]) + 1)
    steps, losses = _line_search(objective, start, move, reach)
    before = objective.evaluate(start)
    decreases = jnp.maximum(before.value - losses, 0)
    steps = jnp.where(decreases > 0, steps, 0)
    points = [start.inner + steps[0] * move, start.inner - steps[1] * move]
    points = [Shallow(p, start.outer, start.activation) for p in points]
    error = 2 * before.error
    return Escape(
        students=(points[0], points[1]),
        steps=steps,
        decreases=decreases,
        error=error,
        direction=u,
        curvature=jnp.dot(u, own @ u) * (1 / alpha + 1 / (1 - alpha)),
        result=RESULTS.where(jnp.max(decreases) > error, _SUCCESS, _LOST),
    )


def _line_search(objective, start, move, reach):
    """The best step for both signs, and the loss there."""

    def loss(t):
        moved = start.inner + t * move
        return objective(Shallow(moved, start.outer, start.activation))

    exponents = jnp.linspace(-9, 0, _POINTS, dtype=move.dtype)  # e^-9 reach to reach
    place = jnp.linspace(0, 1, _POINTS, dtype=move.dtype)

    def one_way(sign):
        def narrow(_, state):
            low, tried, _, _ = state
            losses = jax.lax.map(lambda t: loss(sign * t), tried)
            best = jnp.argmin(losses)
            left = jnp.where(best > 0, tried[jnp.maximum(best - 1, 0)], low)
            right = tried[jnp.minimum(best + 1, _POINTS - 1)]
            return left, left + (right - left) * place, tried[best], losses[best]

        zero = jnp.zeros((), move.dtype)
        state = (zero, reach * jnp.exp(exponents), zero, zero)
        *_, step, least = jax.lax.fori_loop(0, _ROUNDS + 1, narrow, state)
        return step, least

    signs = jnp.asarray([1, -1], move.dtype)
    return jax.lax.map(one_way, signs)
