r"""Search for the worst point of a ball, and the curvature at its centre.

What `dominance`, `regularity` and `one_point_convexity` share: the objective as a
function of one vector, with the gap $f - f^*$ free of cancellation where its type
allows; the Hessian at the centre with its zero modes; and projected ascent from many
starts at once, which keeps the best point of every path.
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxrelu._checks import as_floating, check_positive, is_concrete
from jaxrelu._memory import require_bytes
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.data import Dataset
from jaxrelu.landscape.constants._rates import nonzero_modes
from jaxrelu.landscape.minimizers._matrix_products import (
    is_wide,
    layers_of,
    reduced_data,
)
from jaxrelu.networks import LinearNetwork, LinearResidualNetwork, where_spec
from jaxrelu.objectives import PopulationLoss, SquaredLoss
from jaxrelu.operators import hessian


GapKind = Literal["given", "residual", "subtraction"]

_TRUSTED = 1e3  # a point counts when its gap is this many rounding errors
_NUM_MODES = 4  # directions of least curvature from which the ascent starts

SUCCESS: Any = RESULTS.successful
UNRESOLVED: Any = RESULTS.unresolved
NO_MINIMUM: Any = RESULTS.no_minimum


class Problem(eqx.Module):
    r"""An objective as a function of the trained parameters, one vector.

    Attributes:
        objective: as given, or the reduced squared loss of a linear network.
        trained: the trained leaves at the centre.
        rest: what is not trained.
        gap: the user's $f - f^*$, or None.
        minimum: $f^*$.
        scale: size of what is subtracted: of the residual's terms (``"residual"``), or
            of f itself.
        kind: how the gap is computed.
    """

    objective: Any
    trained: Any
    rest: Any
    gap: Any
    minimum: Float[Array, ""]
    scale: Float[Array, ""]
    kind: GapKind = eqx.field(static=True)

    @property
    def centre(self) -> Float[Array, " p"]:
        """The trained parameters at the point, in the order of `ravel_pytree`."""
        return ravel_pytree(self.trained)[0]

    def network(self, flat: Float[Array, " p"]) -> Any:
        """The network with these parameters."""
        return eqx.combine(ravel_pytree(self.trained)[1](flat), self.rest)

    def value(self, flat: Float[Array, " p"]) -> Float[Array, ""]:
        """The objective."""
        return self.objective(self.network(flat))

    def excess(self, flat: Float[Array, " p"]) -> Float[Array, ""]:
        r"""$f - f^*$."""
        if self.gap is not None:
            return self.gap(self.network(flat))
        return self.value(flat) - self.minimum

    def gradient(self, flat: Float[Array, " p"]) -> Float[Array, " p"]:
        r"""$\nabla f$."""
        return jax.grad(self.value)(flat)

    def excess_error(self, excess: Float[Array, ""]) -> Float[Array, ""]:
        """Rounding error of `excess`: 8 roundings of the largest terms."""
        eps = 8 * float(jnp.finfo(excess.dtype).eps)
        if self.kind == "residual":
            return eps * self.scale * jnp.sqrt(2 * jnp.abs(excess))
        if self.kind == "given":
            return eps * jnp.abs(excess)
        return eps * (self.scale + jnp.abs(excess))

    def gradient_error(
        self, curvature: Float[Array, ""], size: Float[Array, ""]
    ) -> Float[Array, ""]:
        r"""Rounding error of the gradient's norm: $\|H\|$ times the argument's."""
        eps = 8 * float(jnp.finfo(size.dtype).eps)
        if self.kind == "residual":
            return eps * jnp.sqrt(curvature) * self.scale
        return eps * curvature * size


def problem_of(
    objective: Any,
    point: Any,
    where: Callable | None,
    minimum: Any = None,
    gap: Callable | None = None,
    *,
    needs_gap: bool = True,
) -> Problem:
    """Checks, flattens, and finds the gap that loses no digits.

    Raises:
        TypeError: an objective that cannot be called; a point that is not floating.
        ValueError: both `minimum` and `gap`; no parameters; several dtypes; f* unknown.
    """
    if not callable(objective):
        msg = (
            f"objective is a {type(objective).__name__}; expected a callable from a "
            "network or an array to a scalar, SquaredLoss(data) for example."
        )
        raise TypeError(msg)
    if minimum is not None and gap is not None:
        msg = "`minimum` and `gap` were both given; expected one of them at most."
        raise ValueError(msg)
    if not isinstance(point, eqx.Module | tuple | list | dict):
        point = as_floating(point, "point")
    trained, rest = eqx.partition(point, where_spec(point, where))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(trained)}
    if len(dtypes) != 1:
        names = ", ".join(sorted(str(dtype) for dtype in dtypes))
        msg = f"the trained leaves are {names}; expected one dtype. Convert them first."
        raise ValueError(msg)
    (dtype,) = dtypes
    kind: GapKind = "subtraction"
    if gap is not None:
        return _given(objective, trained, rest, gap, dtype)
    zero = jnp.zeros((), dtype)
    if isinstance(objective, SquaredLoss) and minimum is None:
        linear = isinstance(point, LinearNetwork | LinearResidualNetwork)
        if linear and (needs_gap or is_wide(layers_of(point))):
            objective = reduced_loss(objective, point)
        minimum, kind = zero, "residual"
    scale = _size(objective, point, dtype)
    if minimum is None:
        minimum = zero if isinstance(objective, PopulationLoss) else objective(point)
    minimum = jnp.asarray(minimum, dtype)
    found = Problem(objective, trained, rest, None, minimum, scale, kind)
    if needs_gap and not isinstance(point, LinearNetwork | LinearResidualNetwork):
        _check_minimum(found)
    return found


def _given(objective: Any, trained: Any, rest: Any, gap: Any, dtype: Any) -> Problem:
    zero = jnp.zeros((), dtype)
    return Problem(objective, trained, rest, gap, zero, zero, "given")


def _size(objective: Any, point: Any, dtype: Any) -> Float[Array, ""]:
    if isinstance(objective, SquaredLoss):
        targets = objective.data.targets
        outputs = objective.residual(point) + targets
        return jnp.sqrt(jnp.sum(targets**2)) + jnp.sqrt(jnp.sum(outputs**2))
    if isinstance(objective, PopulationLoss):
        # its own rounding bound, in units of those of `excess_error`
        error = objective.evaluate(point).error
        return error / (8 * float(jnp.finfo(dtype).eps))
    return jnp.abs(jnp.asarray(objective(point), dtype))


def _check_minimum(problem: Problem) -> None:
    """Refuses f* = 0, taken by default, where the point says otherwise."""
    excess = problem.excess(problem.centre)
    if problem.kind != "residual" or not is_concrete(excess):
        return
    eps = float(jnp.finfo(excess.dtype).eps)
    if float(excess) > eps * float(problem.scale) ** 2:
        msg = (
            f"the squared loss at the point is {float(excess):.3g}; its minimum is not "
            "known for this network, and 0 does not fit. Expected a point of loss 0, "
            "`minimum=` (f*) or `gap=` (a callable for f - f*)."
        )
        raise ValueError(msg)


def reduced_loss(
    loss: SquaredLoss, network: LinearNetwork | LinearResidualNetwork
) -> SquaredLoss:
    r"""The squared loss without what no linear map can fit: $f - f^*$ exactly.

    With $X = USV^\top$ (rows are samples), $f - f^* = \tfrac12\|X(P - P^*)^\top\|^2 =
    \tfrac12\|SV^\top P^\top - U^\top Y\|^2$: the loss on the inputs $SV^\top$ and
    targets $U^\top Y$, in at most d rows, for every network whose hidden layers are at
    least as wide as its input or its output. Directions of singular value below
    $\epsilon \max(n, d)$ of the largest are none.

    Raises:
        ValueError: a narrower layer: then $f^*$ is larger; inputs that are all zero.
    """
    if not is_wide(layers_of(network)):
        msg = (
            "a layer is narrower than both the input and the output: f* is not the "
            "least-squares value. Pass minimum= or gap=."
        )
        raise ValueError(msg)
    reduced = reduced_data(loss.data)
    root, targets = reduced.root, reduced.targets
    if is_concrete(reduced.kept):
        keep = np.flatnonzero(np.asarray(reduced.kept))
        if not keep.size:
            msg = (
                "the inputs are all zero: the loss is constant and every point is a "
                "minimiser; expected a nonzero row."
            )
            raise ValueError(msg)
        root, targets = root[keep], targets[keep]
    return SquaredLoss(Dataset(root, targets))


class Curvature(eqx.Module):
    r"""The Hessian at the centre.

    Attributes:
        eigenvalues: ascending.
        eigenvectors: columns.
        nonzero: which eigenvalues are none of the zero modes.
        smallest: $m$, the smallest positive non-zero one.
        largest: $M$.
        is_minimum: no eigenvalue is negative beyond the tolerance, and the gradient
            vanishes to the square root of the rounding.
        error: of an eigenvalue, by rounding.
    """

    eigenvalues: Float[Array, " p"]
    eigenvectors: Float[Array, "p p"]
    nonzero: Bool[Array, " p"]
    smallest: Float[Array, ""]
    largest: Float[Array, ""]
    is_minimum: Bool[Array, ""]
    error: Float[Array, ""]

    @property
    def has_kernel(self) -> Bool[Array, ""]:
        """Whether there are zero modes."""
        return ~jnp.all(self.nonzero)

    def at_minimum(self, error: Array) -> Array:
        """The error of what the Hessian says at a minimum, infinite elsewhere."""
        return jnp.where(self.is_minimum, error, jnp.inf)


def curvature_of(
    problem: Problem, where: Callable | None, tolerance: float | None
) -> Curvature:
    """All eigenvalues and eigenvectors of the Hessian at the centre.

    Raises:
        MemoryRefusedError: the dense Hessian does not fit.
    """
    centre = problem.centre
    size = centre.shape[0]
    require_bytes(
        4 * size * size * centre.dtype.itemsize,
        f"the dense Hessian of {size} parameters with its eigenvectors",
        "Train fewer leaves with where=, or use jaxrelu.extreme on hessian(...).",
    )
    network = problem.network(centre)
    if isinstance(problem.objective, SquaredLoss):
        matrix = hessian(problem.objective, network, where).as_matrix()
    elif isinstance(problem.objective, PopulationLoss) and where is None:
        matrix = hessian(problem.objective, network).as_matrix()
    else:
        matrix = _dense_hessian(problem, centre)
    return _decompose(problem, matrix, centre, tolerance)


@eqx.filter_jit
def _dense_hessian(problem: Problem, centre: Array) -> Float[Array, "p p"]:
    return jax.hessian(problem.value)(centre)


@eqx.filter_jit
def _decompose(problem, matrix, centre, tolerance) -> Curvature:
    gradient = problem.gradient(centre)
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    largest = jnp.max(jnp.abs(values))
    nonzero = nonzero_modes(values, tolerance)
    positive = nonzero & (values > 0)
    smallest = jnp.min(jnp.where(positive, values, jnp.inf))
    eps = float(jnp.finfo(values.dtype).eps)
    size = 1 + jnp.sqrt(jnp.sum(centre**2))
    still = jnp.sqrt(jnp.sum(gradient**2)) <= eps**0.5 * largest * size
    is_minimum = still & ~jnp.any(nonzero & (values < 0)) & jnp.any(positive)
    error = eps * len(values) ** 0.5 * largest
    return Curvature(values, vectors, nonzero, smallest, largest, is_minimum, error)


@eqx.filter_jit
def starting_directions(
    curvature: Curvature,
    key: PRNGKeyArray | None,
    num_starts: int,
    tilt: Array | None = None,
) -> Float[Array, "starts p"]:
    r"""Displacements: ± the softest modes, and random ones with a key.

    With ``tilt``, $\tan\phi$, the modes also at the angle $\phi$ towards a zero mode.
    """
    values = jnp.where(curvature.nonzero, curvature.eigenvalues, jnp.inf)
    count = min(_NUM_MODES, values.shape[0])
    soft = curvature.eigenvectors[:, jnp.argsort(values)[:count]].T
    stiff = curvature.eigenvectors[:, -1:].T
    modes = jnp.concatenate([soft, stiff])
    if tilt is not None:
        flat = (~curvature.nonzero).astype(values.dtype)
        aside = curvature.eigenvectors[:, jnp.argmax(flat)] * jnp.max(flat)
        modes = jnp.concatenate([modes, modes + tilt * aside[None]])
    starts = jnp.concatenate([0.7 * modes, -0.7 * modes])
    if key is None or num_starts == 0:
        return starts
    one, two = jrandom.split(key)
    move = jrandom.normal(one, (num_starts, values.shape[0]), values.dtype)
    norms = jnp.sqrt(jnp.sum(move**2, axis=1, keepdims=True))
    length = jrandom.uniform(two, (num_starts, 1), values.dtype, 0.05, 1.0)
    return jnp.concatenate([starts, length * move / norms])


def in_unit_ball(u: Float[Array, " p"]) -> Float[Array, " p"]:
    """The nearest point of the unit ball."""
    square = jnp.sum(u * u)
    return u / jnp.sqrt(jnp.maximum(square, 1))


def ascend(
    score: Callable[[Array], Array],
    project: Callable[[Array], Array],
    starts: Float[Array, "starts p"],
    num_steps: int,
    learning_rate: float,
) -> tuple[Float[Array, "starts p"], Float[Array, " starts"]]:
    r"""Projected ascent by Adam with a decaying step; the best point of each path.

    Args:
        score: what to maximise; $-\infty$ where a point does not count.
        project: onto the feasible set.
        starts: one row each.
        num_steps: of Adam.
        learning_rate: at the start; it falls to 0 along a cosine.

    Returns:
        the best point and the best score of each start.
    """
    rate = optax.cosine_decay_schedule(learning_rate, num_steps)
    optimiser = optax.adam(rate)

    def step(carry, _):
        u, state, best, most = carry
        value, slope = jax.value_and_grad(score)(u)
        better = value > most
        best, most = jnp.where(better, u, best), jnp.where(better, value, most)
        slope = jnp.where(jnp.isfinite(slope), -slope, 0)
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in int32
            update, state = optimiser.update(slope, state)
        move = jnp.asarray(update, u.dtype)
        return (project(u + move), state, best, most), None

    def climb(u):
        u = project(u)
        first = (u, optimiser.init(u), u, jnp.asarray(-jnp.inf, u.dtype))
        # one turn more to see the last point: the score is compiled once
        (_, _, best, most), _ = jax.lax.scan(step, first, length=num_steps + 1)
        return best, most

    return jax.vmap(climb)(starts)


def check_search(num_starts: int, num_steps: int, learning_rate: float) -> None:
    """Raises `ValueError` for settings of the search that make no sense."""
    if num_starts < 0:
        msg = f"num_starts is {num_starts}; expected 0 or more."
        raise ValueError(msg)
    check_positive(num_steps, "num_steps")
    check_positive(learning_rate, "learning_rate")


def trusted(value: Array, error: Array) -> Array:
    """Whether a value exceeds its rounding error by far."""
    return value > _TRUSTED * error


def smallest_move(problem: Problem, curvature: Curvature, radius: Array) -> Array:
    """Below this a quotient is mostly rounding; in units of the radius."""
    centre = problem.centre
    size = jnp.sqrt(jnp.sum(centre**2)) + radius
    wrong = problem.gradient_error(curvature.largest, size)
    share = max(1e-6, float(jnp.finfo(centre.dtype).eps) ** 0.5)
    return wrong / (share * curvature.largest * radius)


def least_quotient(
    quotient: Callable[[Array], Array],
    project: Callable[[Array], Array],
    problem: Problem,
    curvature: Curvature,
    radius: Array,
    starts: Float[Array, "starts p"],
    num_steps: int,
    learning_rate: float,
) -> tuple[Estimate, Float[Array, " p"]]:
    """The least quotient that `ascend` finds in the ball, and the parameters there.

    Args:
        quotient: of a displacement in units of the radius.
        project: onto the feasible displacements.
        problem: the objective and the centre.
        curvature: at the centre.
        radius: of the ball.
        starts: one row each.
        num_steps: of Adam.
        learning_rate: of Adam.
    """
    least = smallest_move(problem, curvature, radius)

    def score(u):
        counts = jnp.sum(u * u) > least**2
        return jnp.where(counts, -quotient(u), -jnp.inf)

    points, scores = ascend(score, project, starts, num_steps, learning_rate)
    best, most = points[jnp.argmax(scores)], jnp.max(scores)
    counts = jnp.isfinite(most)
    away = jnp.sqrt(jnp.maximum(jnp.sum(best * best), least**2))
    share = max(1e-6, float(jnp.finfo(best.dtype).eps) ** 0.5)
    error = 2 * share * curvature.largest * least / jnp.where(away > 0, away, 1)
    found = Estimate(
        jnp.where(counts, -most, jnp.nan),
        jnp.where(counts, error, jnp.inf),
        RESULTS.where(counts, SUCCESS, UNRESOLVED),
        "rounding bound",
        f"worst of {len(starts)} ascents in the ball; an upper bound",
    )
    return found, problem.centre + radius * best
