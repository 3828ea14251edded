r"""Gradient dominance of any objective in a ball, bounded from both sides."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrelu._checks import is_concrete
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.landscape.certificates._minimum_certificate import third_derivative_bound
from jaxrelu.landscape.constants._dominance_theorem import dominance_theorem
from jaxrelu.landscape.constants._jacobian_lipschitz import jacobian_lipschitz
from jaxrelu.landscape.constants._worst_case import (
    NO_MINIMUM,
    SUCCESS,
    UNRESOLVED,
    Curvature,
    Problem,
    ascend,
    check_search,
    curvature_of,
    in_unit_ball,
    problem_of,
    starting_directions,
    trusted,
)
from jaxrelu.networks import AbstractNetwork, where_spec
from jaxrelu.objectives import PopulationLoss, SquaredLoss
from jaxrelu.operators import hessian, jacobian
from jaxrelu.spectra import certify_smallest


class Dominance(eqx.Module):
    r"""What is known of the best $\lambda$ with $f - f^* \le \lambda\|\nabla f\|^2$.

    On the Frobenius ball of `radius` around the point. $\mu = 1/(2\lambda)$ is the
    constant of the Polyak-Łojasiewicz inequality. Each number is a bound by itself;
    its ``error`` says how far off it can be as that bound.

    Attributes:
        found: **lower** bound: the ratio at `witness`, the worst point that a search
            found. It proves that point and nothing about the others.
        asymptotic: **lower** bound: $1/(2\lambda_{\min}^+)$ of the Hessian at the
            point. No neighbourhood has a smaller constant, and if the minimisers near
            the point form a manifold with the Hessian's kernel as its tangent space,
            any larger one holds in a small enough neighbourhood.
        theorem: **upper** bound of `dominance_theorem`, for a squared loss and networks
            of this kind all of whose weights train, or None.
        certified: **upper** bound $1/(2(\sigma_{\min}(J_0) - L_JR)_+^2)$ for a squared
            loss, $1/(2(\lambda_{\min}(H_0) - BR)_+)$ at a minimum of a population loss
            whose Hessian is B-Lipschitz, or None.
        witness: the network at the worst point found.
        centre: $(f - f^*)/\|\nabla f\|^2$ at the point itself; NaN at a minimiser.
        nullity: number of zero modes of the Hessian.
        radius: R.
    """

    found: Estimate
    asymptotic: Estimate
    theorem: Estimate | None
    certified: Estimate | None
    witness: Any
    centre: Float[Array, ""]
    nullity: Array
    radius: Float[Array, ""]

    @property
    def lower(self) -> Float[Array, ""]:
        r"""The larger of the lower bounds on $\lambda$, less their errors."""
        bounds = [
            jnp.where(e.result == SUCCESS, e.value - e.error, 0)
            for e in (self.found, self.asymptotic)
        ]
        return jnp.maximum(*bounds)

    @property
    def upper(self) -> Float[Array, ""]:
        r"""The smallest upper bound on $\lambda$, infinite where there is none."""
        least = jnp.full_like(self.found.value, jnp.inf)
        for estimate in (self.theorem, self.certified):
            if estimate is not None:
                value = (estimate.value + estimate.error).astype(least.dtype)
                known = (estimate.result == SUCCESS) & ~jnp.isnan(value)
                least = jnp.where(known, jnp.minimum(least, value), least)
        return least

    @property
    def mu_lower(self) -> Float[Array, ""]:
        r"""Lower bound on $\mu$: $1/(2 \cdot$ `upper`$)$, 0 where there is none."""
        return 1 / (2 * self.upper)

    @property
    def mu_upper(self) -> Float[Array, ""]:
        r"""Upper bound on $\mu$: $1/(2 \cdot$ `lower`$)$."""
        return 1 / (2 * self.lower)


def dominance(
    objective: Any,
    point: Any,
    radius: float | Float[Array, ""],
    *,
    key: PRNGKeyArray | None = None,
    where: Callable | None = None,
    minimum: float | Float[Array, ""] | None = None,
    gap: Callable | None = None,
    lipschitz: float | Callable | None = None,
    num_starts: int = 32,
    num_steps: int = 200,
    learning_rate: float = 0.05,
    tolerance: float | None = None,
) -> Dominance:
    r"""The gradient-dominance constant of an objective around a point.

    $$ \lambda(R) = \sup_{\|\theta - \theta_0\| \le R}
       \frac{f(\theta) - f^*}{\|\nabla f(\theta)\|^2} $$

    from both sides. The worst case is sought by projected ascent on the logarithm of
    the ratio, all starts at once: from ± the softest and the stiffest modes of the
    Hessian and, with a key, from `num_starts` random points of the ball. Points whose
    gap or gradient is within a thousand roundings of 0 do not count.

    $f^*$ matters as much as the gradient. For a `SquaredLoss` and linear or linear
    residual networks $f - f^*$ is computed by projection of the targets, for other
    networks with $f^* = 0$ (refused where the loss at the point is larger), for a
    `PopulationLoss` with $f^* = 0$, and for any other callable with the value at the
    point. The last two subtract; `gap` avoids that.

    Args:
        objective: a `SquaredLoss`, a `PopulationLoss`, or any callable on the point.
        point: a network, a pytree of arrays, or an array; usually a minimiser.
        radius: R, of the Frobenius ball in all trained parameters.
        key: PRNG key of the random starts; without one the search is deterministic.
        where: the trained leaves.
        minimum: $f^*$, where it is known.
        gap: $\theta \mapsto f - f^*$ on networks, instead.
        lipschitz: $L_J$ on the ball, of the Jacobian of the outputs, for `certified`;
            known for linear and shallow networks, see `jacobian_lipschitz`.
        num_starts: random starts.
        num_steps: of Adam.
        learning_rate: of Adam, in units of the radius.
        tolerance: eigenvalues below this times the largest are zero modes; by default
            1e-9, or 4p roundings where that is more.

    Returns:
        lower and upper bounds. ``result`` is ``no_minimum`` in `asymptotic` where the
        point is none, ``unresolved`` in `found` where no point counted.

    Raises:
        TypeError: an objective that cannot be called.
        ValueError: f* is not known, settings that make no sense.
        MemoryRefusedError: the dense Hessian, p × p, does not fit.

    Cost: the Hessian and its eigenvectors, $O(p^3)$; starts · steps products of the
    Hessian with a vector; a Gram matrix for `certified`.
    """
    check_search(num_starts, num_steps, learning_rate)
    problem = problem_of(objective, point, where, minimum, gap)
    curvature = curvature_of(problem, where, tolerance)
    reach = jnp.asarray(radius, curvature.largest.dtype)
    starts = starting_directions(curvature, key, num_starts)
    found, best, centre = _search(
        problem, curvature, reach, starts, num_steps, learning_rate
    )
    result = RESULTS.where(curvature.is_minimum, SUCCESS, NO_MINIMUM)
    limit = Estimate(
        1 / (2 * curvature.smallest),
        curvature.at_minimum(curvature.error / (2 * curvature.smallest**2)),
        result,
        "rounding bound",
        "1/(2 λ) for the smallest non-zero eigenvalue λ of the Hessian at the point",
    )
    return Dominance(
        found=found,
        asymptotic=limit,
        theorem=_theorem(objective, point, reach, where),
        certified=_certified(problem, reach, where, lipschitz),
        witness=problem.network(best),
        centre=centre,
        nullity=jnp.sum(~curvature.nonzero),
        radius=reach,
    )


@eqx.filter_jit
def _search(
    problem: Problem,
    curvature: Curvature,
    radius: Array,
    starts: Array,
    num_steps: int,
    learning_rate: float,
) -> tuple[Estimate, Array, Array]:
    centre = problem.centre
    size = jnp.sqrt(jnp.sum(centre**2)) + radius
    gradient_error = problem.gradient_error(curvature.largest, size)

    def parts(flat):
        gap = problem.excess(flat)
        square = jnp.sum(problem.gradient(flat) ** 2)
        counts = trusted(gap, problem.excess_error(gap))
        counts &= square > (1e3 * gradient_error) ** 2
        return gap, square, counts & jnp.isfinite(gap) & jnp.isfinite(square)

    def score(u):
        gap, square, counts = parts(centre + radius * u)
        log = lambda x: jnp.log(jnp.where(counts, x, 1))
        return jnp.where(counts, log(gap) - log(square), -jnp.inf)

    points, scores = ascend(score, in_unit_ball, starts, num_steps, learning_rate)
    best = centre + radius * points[jnp.argmax(scores)]
    # both points at once: a smaller program
    gaps, squares, both = jax.vmap(parts)(jnp.stack([best, centre]))
    gap, square, counts = gaps[0], squares[0], both[0]
    ratio = gap / square
    error = problem.excess_error(gap) / gap + 2 * gradient_error / jnp.sqrt(square)
    found = Estimate(
        jnp.where(counts, ratio, jnp.nan),
        jnp.where(counts, ratio * error, jnp.inf),
        RESULTS.where(counts, SUCCESS, UNRESOLVED),
        "rounding bound",
        f"worst of {len(starts)} ascents in the ball; a lower bound",
    )
    return found, best, jnp.where(both[1], gaps[1] / squares[1], jnp.nan)


def _theorem(
    objective: Any, point: Any, radius: Array, where: Callable | None
) -> Estimate | None:
    """`dominance_theorem`, which is for networks all of whose weights train."""
    if not isinstance(point, AbstractNetwork):
        return None
    spec = where_spec(point, where)
    trained = jax.tree.leaves(eqx.filter(point, spec))
    every = jax.tree.leaves(eqx.filter(point, eqx.is_inexact_array))
    proved = eqx.filter_jit(dominance_theorem)(objective, point, radius)
    if len(trained) != len(every) or proved is None:
        return None
    known = jnp.isfinite(proved.value)
    eps = 16 * float(jnp.finfo(radius.dtype).eps)
    return Estimate(
        proved.value,
        jnp.where(known, eps * proved.value, jnp.inf),
        RESULTS.where(known, SUCCESS, UNRESOLVED),
        "rounding bound",
        proved.method,
    )


def _certified(
    problem: Problem,
    radius: Array,
    where: Callable | None,
    lipschitz: float | Callable | None,
) -> Estimate | None:
    """PL from the smallest singular value at the centre and Lipschitz continuity."""
    network = problem.network(problem.centre)
    traced = any(not is_concrete(leaf) for leaf in jax.tree.leaves((network, radius)))
    if traced:
        return None
    loss, reach = problem.objective, float(radius)
    if isinstance(loss, PopulationLoss):
        return _strongly_convex(problem, network, reach, radius.dtype)
    if problem.kind != "residual" or not isinstance(loss, SquaredLoss):
        return None
    constant = lipschitz(reach) if callable(lipschitz) else lipschitz
    if constant is None:
        constant = jacobian_lipschitz(network, loss.data.inputs, reach, where)
    if constant is None:
        return None
    operator = jacobian(network, loss.data.inputs, where)
    rows, columns = operator.out_size(), operator.in_size()
    proved = certify_smallest(operator) if rows <= columns else None
    sigma = float(proved.lower) if proved is not None else 0.0
    least = max(sigma * (1 - 1e-12) - constant * reach * (1 + 1e-12), 0.0)
    value = jnp.asarray(1 / (2 * least**2) if least > 0 else jnp.inf, radius.dtype)
    if proved is None or sigma <= 0:
        result = UNRESOLVED
        why = "no bound: σ_min(J) is not positive"
    else:
        result = SUCCESS
        why = f"1/(2(σ_min(J) - L_J R)²), σ_min(J) ≥ {sigma:.6g}, L_J ≤ {constant:.6g}"
    return _bound(value, result, why)


def _strongly_convex(
    problem: Problem, network: Any, radius: float, dtype: Any
) -> Estimate | None:
    """At a global minimum of the population loss: convex on the ball, with μ."""
    if float(problem.excess(problem.centre)) != 0:
        return None
    mu, why = strong_convexity_in_ball(problem.objective, network, radius)
    value = jnp.asarray(1 / (2 * mu) if mu > 0 else jnp.inf, dtype)
    return _bound(value, SUCCESS if mu > 0 else UNRESOLVED, f"1/(2μ), {why}")


def _bound(value: Array, result: Any, why: str) -> Estimate:
    eps = 4 * float(jnp.finfo(value.dtype).eps)
    error = jnp.where(jnp.isfinite(value), eps * value, jnp.inf)
    return Estimate(value, error, result, "rounding bound", why)


def strong_convexity_in_ball(
    objective: PopulationLoss, network: Any, radius: float
) -> tuple[float, str]:
    r"""$\mu = \lambda_{\min}(H_0) - BR$ with $B$ of `third_derivative_bound`."""
    smallest = float(certify_smallest(hessian(objective, network)).lower)
    bend = third_derivative_bound(objective, network, radius)
    mu = max(smallest - bend * radius * (1 + 1e-12), 0.0)
    return mu, f"μ = λ_min(H) - B R, λ_min(H) ≥ {smallest:.6g}, B ≤ {bend:.6g}"
