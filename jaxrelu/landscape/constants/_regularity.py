r"""The regularity condition around a point along a cone, for any objective."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrelu._checks import is_concrete
from jaxrelu._products import matmul
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.landscape.constants._jacobian_lipschitz import jacobian_lipschitz
from jaxrelu.landscape.constants._quadratic_conditions import RegularityCondition
from jaxrelu.landscape.constants._regularity_cone import EPSILON_LIMIT, cone_pair
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
from jaxrelu.objectives import SquaredLoss


class Regularity(eqx.Module):
    r"""What is known of the best $\beta$ in the regularity condition, for one $\alpha$.

    $\langle\nabla f(\theta), \Delta\rangle \ge \alpha\|\nabla f(\theta)\|^2 +
    \beta\|\Delta\|^2$ for $\Delta = \theta - \theta^*$ in the cone of directions within
    `angle` of the orthogonal complement of the Hessian's kernel, $\|\Delta\| \le R$.

    Attributes:
        alpha: α.
        found: **upper** bound on β: the quotient at `witness`, the worst point found.
        asymptotic: **upper** bound on β, its limit as the radius falls to 0:
            $\cos^2\theta \min(m - \alpha m^2, M - \alpha M^2)$ with the extreme
            non-zero eigenvalues m, M of the Hessian (without the cosine if negative).
        theorem: **lower** bound on β, or None: see `regularity`.
        witness: the network at the worst point found.
        angle: θ, in radians.
        radius: R.
        nullity: number of zero modes of the Hessian.
    """

    alpha: Float[Array, ""]
    found: Estimate
    asymptotic: Estimate
    theorem: Estimate | None
    witness: Any
    angle: Float[Array, ""]
    radius: Float[Array, ""]
    nullity: Array

    @property
    def upper(self) -> Float[Array, ""]:
        """The smaller of the upper bounds on β, plus their errors."""
        bounds = [
            jnp.where(e.result == SUCCESS, e.value + e.error, jnp.inf)
            for e in (self.found, self.asymptotic)
        ]
        return jnp.minimum(*bounds)

    @property
    def lower(self) -> Float[Array, ""]:
        r"""The lower bound on β, $-\infty$ where there is none."""
        if self.theorem is None:
            return jnp.full_like(self.alpha, -jnp.inf)
        known = self.theorem.result == SUCCESS
        return jnp.where(known, self.theorem.value - self.theorem.error, -jnp.inf)

    @property
    def condition(self) -> RegularityCondition:
        r"""RC(α, β) as found: it holds at every point that was tried."""
        return RegularityCondition(self.alpha, self.found.value)


def regularity(
    objective: Any,
    point: Any,
    radius: float | Float[Array, ""],
    *,
    alpha: float | Float[Array, ""] | None = None,
    angle: float = 0.0,
    key: PRNGKeyArray | None = None,
    where: Callable | None = None,
    lipschitz: float | Callable | None = None,
    num_starts: int = 32,
    num_steps: int = 200,
    learning_rate: float = 0.05,
    tolerance: float | None = None,
) -> Regularity:
    r"""The regularity condition at a minimiser, along a cone of directions.

    Where minimisers are not isolated no $\beta > 0$ holds in all directions: along the
    kernel of the Hessian the left side is $o(\|\Delta\|^2)$. So displacements are those
    within `angle` of $(\ker H)^\perp$; all of them where there is no kernel. By default
    $\alpha = 1/(m+M)$, whose best asymptotic $\beta$ is $mM/(m+M)$, the sharp pair.

    `theorem`, for a `SquaredLoss` at zero loss (for linear networks at any minimiser),
    is that of `regularity_cone` with $\kappa = \sqrt m\cos\theta$ and
    $\epsilon = L_JR/\kappa$: where γ gives the α that is asked for, if it is below 1,
    $\beta = (1-\gamma)c\kappa^2$. Rounding is estimated, not enclosed.

    A condition at one fixed minimiser inside a cone promises nothing for gradient
    descent, whose iterates leave the cone.

    Args:
        objective: a `SquaredLoss`, a `PopulationLoss`, or any callable on the point.
        point: the minimiser: a network, a pytree of arrays, or an array.
        radius: R, of the Frobenius ball in all trained parameters.
        alpha: α; $1/(m+M)$ by default.
        angle: θ in $[0, \pi/2)$.
        key: PRNG key of the random starts; without one the search is deterministic.
        where: the trained leaves.
        lipschitz: $L_J$ on the ball, see `jacobian_lipschitz`.
        num_starts: random starts.
        num_steps: of Adam.
        learning_rate: of Adam, in units of the radius.
        tolerance: of the zero modes, see `dominance`.

    Raises:
        TypeError: an objective that cannot be called.
        ValueError: an angle that is none, settings that make no sense.
        MemoryRefusedError: the dense Hessian does not fit.

    Cost: as `dominance`.
    """
    check_search(num_starts, num_steps, learning_rate)
    if not 0 <= angle < math.pi / 2:
        msg = f"angle is {angle}; expected radians in [0, π/2)."
        raise ValueError(msg)
    problem = problem_of(objective, point, where, needs_gap=False)
    curvature = curvature_of(problem, where, tolerance)
    low, high = curvature.smallest, curvature.largest
    share = 1 / (low + high) if alpha is None else jnp.asarray(alpha, low.dtype)
    reach = jnp.asarray(radius, low.dtype)
    width = jnp.asarray(math.tan(angle), low.dtype)
    starts = starting_directions(curvature, key, num_starts, width)
    found, best = _regularity_search(
        problem, curvature, reach, share, width, starts, num_steps, learning_rate
    )
    ends = jnp.minimum(low - share * low**2, high - share * high**2)
    spread = jnp.where(
        curvature.has_kernel & (ends > 0), jnp.cos(jnp.arctan(width)) ** 2, 1
    )
    limit = Estimate(
        spread * ends,
        curvature.at_minimum(2 * curvature.error * (1 + 2 * share * high)),
        RESULTS.where(curvature.is_minimum, SUCCESS, NO_MINIMUM),
        "rounding bound",
        "extreme non-zero eigenvalues of the Hessian at the point",
    )
    kappa = jnp.sqrt(low) * jnp.where(curvature.has_kernel, math.cos(angle), 1)
    theorem = _cone_theorem(problem, curvature, reach, share, kappa, where, lipschitz)
    return Regularity(
        alpha=share,
        found=found,
        asymptotic=limit,
        theorem=theorem,
        witness=problem.network(best),
        angle=jnp.asarray(angle, low.dtype),
        radius=reach,
        nullity=jnp.sum(~curvature.nonzero),
    )


@eqx.filter_jit
def _regularity_search(
    problem: Problem,
    curvature: Curvature,
    radius: Array,
    share: Array,
    width: Array,
    starts: Array,
    num_steps: int,
    learning_rate: float,
) -> tuple[Estimate, Array]:
    centre = problem.centre
    kernel = curvature.eigenvectors * (~curvature.nonzero).astype(centre.dtype)[None]

    def project(u):
        flat = matmul(kernel, matmul(kernel.T, u))
        rest = u - flat
        norm = lambda x: jnp.sqrt(jnp.maximum(jnp.sum(x * x), 1e-30))
        scale = jnp.minimum(1, width * norm(rest) / norm(flat))
        return in_unit_ball(rest + scale * flat)

    def quotient(u):
        move = radius * u
        gradient = problem.gradient(centre + move)
        square = jnp.sum(u * u)
        safe = radius**2 * jnp.where(square > 0, square, 1)
        return (jnp.sum(gradient * move) - share * jnp.sum(gradient**2)) / safe

    return least_quotient(
        quotient,
        project,
        problem,
        curvature,
        radius,
        starts,
        num_steps,
        learning_rate,
    )


def _cone_theorem(
    problem: Problem,
    curvature: Curvature,
    radius: Array,
    share: Array,
    kappa: Array,
    where: Callable | None,
    lipschitz: float | Callable | None,
) -> Estimate | None:
    network = problem.network(problem.centre)
    traced = any(not is_concrete(leaf) for leaf in jax.tree.leaves((network, radius)))
    loss = problem.objective
    if traced or problem.kind != "residual" or not isinstance(loss, SquaredLoss):
        return None
    if not bool(curvature.is_minimum):  # a Hessian of 0 has no cone
        return None
    eps = float(jnp.finfo(radius.dtype).eps)
    residual = float(jnp.sqrt(2 * problem.excess(problem.centre)))
    if residual > 64 * eps * float(problem.scale):
        return None
    constant = lipschitz(float(radius)) if callable(lipschitz) else lipschitz
    if constant is None:
        constant = jacobian_lipschitz(network, loss.data.inputs, float(radius), where)
    if constant is None:
        return None
    close = float(kappa)
    slack = constant * float(radius) / close
    largest = math.sqrt(float(curvature.largest))
    beta, proved = -math.inf, False
    if slack < EPSILON_LIMIT:
        most_alpha, _ = cone_pair(slack, 1.0, largest, close)  # γ = 1
        _, most_beta = cone_pair(slack, 0.0, largest, close)
        proved = float(share) < most_alpha
        beta = (1 - float(share) / most_alpha) * most_beta if proved else beta
    return Estimate(
        jnp.asarray(beta, radius.dtype),
        jnp.asarray(8 * float(curvature.error), radius.dtype),
        SUCCESS if proved else UNRESOLVED,
        "rounding bound",
        f"cone theorem with κ = {close:.6g}, ε = L_J R/κ = {slack:.4g}",
    )
