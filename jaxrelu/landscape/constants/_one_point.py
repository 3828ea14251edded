r"""One-point convexity at a point and around a reference, for any objective."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxrelu._checks import check_positive, is_concrete
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.landscape.constants._dominance import strong_convexity_in_ball
from jaxrelu.landscape.constants._worst_case import (
    NO_MINIMUM,
    SUCCESS,
    UNRESOLVED,
    Curvature,
    Problem,
    check_search,
    curvature_of,
    in_unit_ball,
    least_quotient,
    problem_of,
    starting_directions,
)
from jaxrelu.objectives import PopulationLoss


class OnePoint(eqx.Module):
    r"""What is known of one-point convexity at a reference, and a quotient at a point.

    Attributes:
        quotient: $\langle\nabla f(\theta), \theta - \theta^*\rangle /
            \|\theta - \theta^*\|^2$ at the point; NaN at the reference itself.
        found: **upper** bound on $\nu$ over the ball around the reference: the
            quotient at `witness`, the worst point found. None without a radius.
        asymptotic: **upper** bound on $\nu$, its limit as the radius falls to 0: the
            smallest eigenvalue of the Hessian at the reference; 0 with a kernel.
        certified: **lower** bound $\lambda_{\min}(H) - BR/2$ where the Hessian is known
            to be B-Lipschitz (population losses), or None.
        witness: the network at the worst point found.
        nullity: number of zero modes of the Hessian at the reference.
        is_isolated: whether there are none.
    """

    quotient: Estimate
    found: Estimate | None
    asymptotic: Estimate
    certified: Estimate | None
    witness: Any
    nullity: Array
    is_isolated: Bool[Array, ""]


def one_point_convexity(
    objective: Any,
    point: Any,
    reference: Any = None,
    *,
    radius: float | Float[Array, ""] | None = None,
    key: PRNGKeyArray | None = None,
    where: Callable | None = None,
    num_starts: int = 32,
    num_steps: int = 200,
    learning_rate: float = 0.05,
    tolerance: float | None = None,
) -> OnePoint:
    r"""The best $\nu$ in $\langle\nabla f(\theta), \Delta\rangle \ge \nu\|\Delta\|^2$.

    $\Delta = \theta - \theta^*$. The quotient at one point and, with a radius, the
    worst one in the Frobenius ball around the reference, sought as in `dominance`.
    Where minimisers are not isolated no $\nu > 0$ holds on any neighbourhood, and the
    asymptotic value is 0.

    Args:
        objective: a `SquaredLoss`, a `PopulationLoss`, or any callable on the point.
        point: θ: a network, a pytree of arrays, or an array.
        reference: θ*, of the same structure; by default the point.
        radius: R, of the ball around the reference; by default none is searched.
        key: PRNG key of the random starts; without one the search is deterministic.
        where: the trained leaves.
        num_starts: random starts.
        num_steps: of Adam.
        learning_rate: of Adam, in units of the radius.
        tolerance: of the zero modes, see `dominance`.

    Raises:
        TypeError: an objective that cannot be called.
        ValueError: point and reference of different structure; bad settings.
        MemoryRefusedError: the dense Hessian does not fit.

    Cost: as `dominance`.
    """
    check_search(num_starts, num_steps, learning_rate)
    if radius is not None and is_concrete(radius):
        check_positive(float(radius), "radius")
    reference = point if reference is None else reference
    problem = problem_of(objective, reference, where, needs_gap=False)
    there = problem_of(objective, point, where, needs_gap=False).centre
    if there.shape != problem.centre.shape:
        msg = (
            f"the point has {there.shape[0]} trained parameters and the reference "
            f"{problem.centre.shape[0]}; expected the same network with other weights."
        )
        raise ValueError(msg)
    curvature = curvature_of(problem, where, tolerance)
    smallest = jnp.where(
        curvature.has_kernel,
        jnp.minimum(curvature.eigenvalues[0], 0),
        curvature.eigenvalues[0],
    )
    smallest = jnp.where(curvature.has_kernel & curvature.is_minimum, 0, smallest)
    limit = Estimate(
        smallest,
        curvature.error,
        RESULTS.where(curvature.is_minimum, SUCCESS, NO_MINIMUM),
        "rounding bound",
        "smallest eigenvalue of the Hessian at the reference",
    )
    found, best = None, problem.centre
    if radius is not None:
        reach = jnp.asarray(radius, curvature.largest.dtype)
        starts = starting_directions(curvature, key, num_starts)
        found, best = _one_point_search(
            problem, curvature, reach, starts, num_steps, learning_rate
        )
    return OnePoint(
        quotient=_quotient(problem, curvature, there),
        found=found,
        asymptotic=limit,
        certified=_certified(problem, radius),
        witness=problem.network(best),
        nullity=jnp.sum(~curvature.nonzero),
        is_isolated=~curvature.has_kernel,
    )


@eqx.filter_jit
def _quotient(problem: Problem, curvature: Curvature, point: Array) -> Estimate:
    move = point - problem.centre
    square = jnp.sum(move * move)
    moved = square > 0
    safe = jnp.where(moved, square, 1)
    size = jnp.sqrt(jnp.sum(point**2)) + jnp.sqrt(square)
    wrong = problem.gradient_error(curvature.largest, size) / jnp.sqrt(safe)
    value = jnp.sum(problem.gradient(point) * move) / safe
    return Estimate(
        jnp.where(moved, value, jnp.nan),
        jnp.where(moved, wrong, jnp.inf),
        RESULTS.where(moved, SUCCESS, UNRESOLVED),
        "rounding bound",
        "quotient at the point",
    )


@eqx.filter_jit
def _one_point_search(
    problem: Problem,
    curvature: Curvature,
    radius: Array,
    starts: Array,
    num_steps: int,
    learning_rate: float,
) -> tuple[Estimate, Array]:
    centre = problem.centre

    def quotient(u):
        square = jnp.sum(u * u)
        safe = radius * jnp.where(square > 0, square, 1)
        return jnp.sum(problem.gradient(centre + radius * u) * u) / safe

    return least_quotient(
        quotient,
        in_unit_ball,
        problem,
        curvature,
        radius,
        starts,
        num_steps,
        learning_rate,
    )


def _certified(problem: Problem, radius: Any) -> Estimate | None:
    r"""$\langle\nabla f, \Delta\rangle$ as a mean of $\Delta^\top H\Delta$."""
    network = problem.network(problem.centre)
    leaves = jax.tree.leaves((network, problem.objective, radius))
    if radius is None or not all(is_concrete(leaf) for leaf in leaves):
        return None
    if not isinstance(problem.objective, PopulationLoss):
        return None
    if bool(jnp.any(problem.gradient(problem.centre) != 0)):
        return None  # not a minimiser to the last bit
    # half the loss of strong convexity: the mean of t over the segment
    full, _ = strong_convexity_in_ball(problem.objective, network, float(radius))
    start, why = strong_convexity_in_ball(problem.objective, network, 0.0)
    value = jnp.asarray((full + start) / 2 if full > 0 else 0.0, problem.centre.dtype)
    return Estimate(
        value,
        8 * float(jnp.finfo(value.dtype).eps) * value,
        SUCCESS if full > 0 else UNRESOLVED,
        "rounding bound",
        f"λ_min(H) - B R / 2, {why}",
    )
