"""Critical points of a population loss, from random starts and from given ones."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxrelu._checks import (
    as_floating,
    check_choice,
    check_finite,
    check_positive,
    check_rank,
    check_size,
)
from jaxrelu._devices import Devices, local_devices
from jaxrelu._results import throw_if_failed
from jaxrelu.landscape.search._classification import CriticalPoints, classify
from jaxrelu.landscape.search._first_order import Problem
from jaxrelu.landscape.search._runs import (
    Runs,
    Settings,
    scale_of,
    search,
    starting_weights,
)
from jaxrelu.objectives import PopulationLoss


SCHEMES = ("xavier", "gaussian", "glorot_normal", "glorot_uniform", "he_normal")


def find_critical_points(
    objective: PopulationLoss,
    key: PRNGKeyArray,
    num_neurons: int,
    num_starts: int,
    *,
    outer: Any = None,
    init: str = "xavier",
    learning_rate: float | None = None,
    max_steps: int = 200_000,
    tolerance: float = 1e-12,
    identify: float | None = None,
    batch_size: int = 32,
    first_start: int = 0,
    devices: Devices | None = None,
    progress: Callable[[int, int], None] | None = None,
    throw: bool = False,
) -> CriticalPoints:
    r"""Critical points reached by gradient descent from random starts.

    Plain gradient descent from $w_{ia} \sim N(0, 1/d)$ with step $5/(\max(n, k, 4) \max
    a_i^2)$, as in the published experiments ($5/k$ for $n = k$ and $a = 1$), so that
    the shares of the points are those of descent. Newton's method takes over when from
    an iterate it converges by halving $\lVert\nabla F\rVert$ at least, through points
    with a positive definite Hessian, and this changes in all by less than its smallest
    eigenvalue at the end: then, as far as both ends tell, they lie in one convex basin.
    It is tried when $\lVert\nabla F\rVert$ falls below $10^{-3}$, $10^{-4}$, ... of the
    teacher's scale. With $n > k$, a run within a tenth of a global minimum, row by row
    and measured as $|a_i| w_i$ beside $|b_j| v_j$, is taken to it: descent would need
    some $\lVert\nabla F\rVert^{-1/2}$ steps. What is left goes to a critical point of
    any kind by a Levenberg-Marquardt iteration. Which of the three it was, how far it
    went, and the losses before and after stand in `Runs`.

    Runs are independent of each other and of the number of starts. On a CPU, split
    them over host devices: ``jax.config.update("jax_num_cpu_devices", cores)`` before
    anything else.

    Args:
        objective: a population loss.
        key: start i is drawn with ``jax.random.fold_in(key, i)``.
        num_neurons: n, of the student.
        num_starts: how many descents.
        outer: the student's outer weights (n,); one if None.
        init: scheme of the starts, see `jaxrelu.networks.inner_weights`.
        learning_rate: step size; None as above. A run whose weights grow a
            thousandfold starts again with half of it, six times at most.
        max_steps: of a run.
        tolerance: $\lVert\nabla F\rVert$ at which a point is critical; of the scale
            $\max|a_i|$ times the root mean square of $|b_j|\,\lVert v_j\rVert$ where
            that is below one. What rounding allows takes its place where that is more:
            in float32 always.
        identify: points this close, $|a_i| w_i$ over the largest $|b_j|\,\lVert
            v_j\rVert$, are one; None is 5e-9 (published), and 2e-3 in float32, where
            isotropy is no finer either.
        batch_size: runs computed at once on one device.
        first_start: number of the first start; at least 0.
        devices: where to run; None takes all of this process.
        progress: called with the number of runs settled and of all, from time to time.
        throw: raise if a run came to no critical point.

    Returns:
        The distinct points with counts.

    Raises:
        TypeError: another objective.
        ValueError: sizes below 1, a negative `first_start`, unknown scheme, a step size
            that is not positive.
        MemoryRefusedError: the dense Hessians of order nd would not fit.
        RuntimeError: with ``throw``.

    Cost: a step of a run 4n(n + k)d operations, some hundred to some thousand steps;
    a Newton step $(nd)^3/3$, a handful of them; $4(nd)^3/3$ for a distinct point.
    """
    runs = run_starts(
        objective,
        key,
        num_neurons,
        num_starts,
        outer=outer,
        init=init,
        learning_rate=learning_rate,
        max_steps=max_steps,
        tolerance=tolerance,
        batch_size=batch_size,
        first_start=first_start,
        devices=devices,
        progress=progress,
    )
    if throw:
        throw_if_failed(runs.result, "find_critical_points")
    return classify(objective, runs, outer, identify)


def run_starts(
    objective: PopulationLoss,
    key: PRNGKeyArray,
    num_neurons: int,
    num_starts: int,
    *,
    outer: Any = None,
    init: str = "xavier",
    learning_rate: float | None = None,
    max_steps: int = 200_000,
    tolerance: float = 1e-12,
    batch_size: int = 32,
    first_start: int = 0,
    devices: Devices | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Runs:
    """The runs of `find_critical_points`, not yet sorted by where they ended.

    Runs of several calls with different `first_start` may be joined and given to
    `classify`. Arguments and errors are those of `find_critical_points`.
    """
    problem = problem_of(objective, num_neurons, outer)
    for name, value in (("num_starts", num_starts), ("batch_size", batch_size)):
        check_size(value, name)
    check_size(first_start, "first_start", 0)
    check_choice(init, SCHEMES, "init")
    index = jnp.arange(first_start, first_start + num_starts, dtype=jnp.int32)
    shape = (num_neurons, objective.in_size)
    starts = starting_weights(key, index, shape, init, problem.inner.dtype)
    settings = _settings(
        problem, learning_rate, max_steps, tolerance, batch_size, devices, True
    )
    return search(problem, starts, index, settings, progress)


def refine_critical_points(
    objective: PopulationLoss,
    weights: Any,
    *,
    outer: Any = None,
    descend: bool = False,
    learning_rate: float | None = None,
    max_steps: int = 200_000,
    tolerance: float = 1e-12,
    identify: float | None = None,
    batch_size: int = 32,
    devices: Devices | None = None,
    throw: bool = False,
) -> CriticalPoints:
    r"""The critical points near given points; saddles as well as minima.

    A Levenberg-Marquardt iteration on $\nabla F = 0$ from each of them: it goes to
    a zero of the gradient, whatever its inertia; from far away that need not be the
    nearest, and some stop at a local minimum of $\lVert\nabla F\rVert$, with
    `RESULTS.no_convergence`. How far it was is in `Runs.moved`. With ``descend``
    gradient descent goes first, as in `find_critical_points`.

    Args:
        objective: a population loss.
        weights: (s, n, d), or one point (n, d).
        outer: as in `find_critical_points`, like the rest.
        descend: whether descent goes first.
        learning_rate: of the descent.
        max_steps: of the descent.
        tolerance: $\lVert\nabla F\rVert$ at which a point is critical, as there.
        identify: points this close are one.
        batch_size: runs at once on a device.
        devices: where to run.
        throw: raise if a run came to no critical point.

    Raises:
        ValueError: weights of another shape or with a NaN.

    Cost: $10 (nd)^3$ operations a step and point, some ten steps.
    """
    starts = as_floating(weights, "weights")
    starts = starts[None] if starts.ndim == 2 else starts
    check_rank(starts, 3, "weights", "(points, n, d)")
    check_finite(starts, "weights")
    problem = problem_of(objective, starts.shape[1], outer)
    expected = (problem.inner.shape[1], problem.inner.dtype)
    if (starts.shape[2], starts.dtype) != expected or 0 in starts.shape:
        msg = (
            f"weights are {starts.shape} {starts.dtype}; expected (points, n, "
            f"{expected[0]}) {expected[1]}, as the teacher, and at least one point."
        )
        raise ValueError(msg)
    index = jnp.arange(len(starts), dtype=jnp.int32)
    settings = _settings(
        problem, learning_rate, max_steps, tolerance, batch_size, devices, descend
    )
    runs = search(problem, starts, index, settings)
    if throw:
        throw_if_failed(runs.result, "refine_critical_points")
    return classify(objective, runs, outer, identify)


def problem_of(objective: Any, num_neurons: Any, outer: Any) -> Problem:
    """What a search works on, its input checked."""
    if not isinstance(objective, PopulationLoss):
        msg = (
            f"objective is a {type(objective).__name__}; expected a PopulationLoss: "
            "gradients and Hessians are taken in closed form."
        )
        raise TypeError(msg)
    check_size(num_neurons, "num_neurons")
    dtype = objective.teacher.inner.dtype
    if outer is None:
        return Problem.of_loss(objective, jnp.ones((num_neurons,), dtype))
    outer = as_floating(outer, "outer")
    check_finite(outer, "outer")
    if (
        outer.shape != (num_neurons,)
        or outer.dtype != dtype
        or bool((outer == 0).any())
    ):
        msg = (
            f"outer is {outer.shape} {outer.dtype}; expected ({num_neurons},) {dtype}, "
            "one nonzero weight for each neuron."
        )
        raise ValueError(msg)
    return Problem.of_loss(objective, outer)


def default_rate(problem: Problem) -> float:
    r"""$5/(\max(n, k, 4)\max a_i^2)$: the published $5/k$ for n = k and $a = 1$.

    Stable for k < 4 too; Hessians are of order $\max a_i^2$.
    """
    sizes = len(problem.outer), len(problem.inner), 4
    return 5 / max(sizes) / float(np.abs(np.asarray(problem.outer)).max()) ** 2


def _settings(
    problem: Problem,
    learning_rate: float | None,
    max_steps: int,
    tolerance: float,
    batch_size: int,
    devices: Devices | None,
    descend: bool,
) -> Settings:
    if learning_rate is None:
        learning_rate = default_rate(problem)
    check_positive(learning_rate, "learning_rate")
    check_positive(tolerance, "tolerance")
    check_size(max_steps, "max_steps")
    return Settings(
        float(learning_rate),
        max_steps,
        float(tolerance) * min(scale_of(problem), 1.0),
        batch_size,
        tuple(devices) if devices else local_devices(),
        descend,
    )
