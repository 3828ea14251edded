"""A search: random starts, rounds of descent, and polishing of what has settled."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxrelu._devices import Devices
from jaxrelu._memory import require_bytes
from jaxrelu._results import RESULTS
from jaxrelu.landscape.search._first_order import (
    Descent,
    Problem,
    descend,
    gradients,
    losses,
)
from jaxrelu.landscape.search._polish import (
    METHODS,
    gradient_floor,
    levenberg_marquardt,
    nearest_global_minimum,
    newton,
    polish,
)
from jaxrelu.networks import inner_weights


NOT_POLISHED = "not polished"
POLISHED_BY = (NOT_POLISHED, *(method.__name__ for method in METHODS))
"""What ``polished_by`` of `Runs` counts in."""

# gradient norms, over the size of the problem, at which Newton's method is tried, and
# the steps a run may have taken by then
_ROUNDS = (
    (1e-3, 2**12),
    (1e-4, 2**14),
    (1e-5, 2**16),
    (1e-6, None),
    (1e-8, None),
    (1e-10, None),
)


class Runs(eqx.Module):
    r"""What became of every start of a search.

    Attributes:
        weights: where the run ended, (s, n, d).
        losses: $F$ there, (s,).
        gradient_norms: $\lVert\nabla F\rVert$ there, (s,).
        start_losses: $F$ at the start, (s,).
        descent_losses: $F$ where descent stopped, before polishing, (s,).
        descent_norms: $\lVert\nabla F\rVert$ there, (s,).
        moved: $\lVert\cdot\rVert_F$ of the way that polishing went, (s,).
        steps: gradient steps taken, (s,).
        rates: step sizes; less than asked for where a run diverged at first, (s,).
        polished_by: index into `POLISHED_BY`, (s,).
        index: which start it is: `starting_weights(key, index, ...)`, (s,).
        tolerances: the gradient norm that was asked for, or what rounding allows, (s,).
        result: `RESULTS.successful` where the gradient norm is below that,
            `RESULTS.diverged`, or `RESULTS.no_convergence`.
    """

    weights: Float[Array, "s n d"]
    losses: Float[Array, " s"]
    gradient_norms: Float[Array, " s"]
    start_losses: Float[Array, " s"]
    descent_losses: Float[Array, " s"]
    descent_norms: Float[Array, " s"]
    moved: Float[Array, " s"]
    steps: Int[Array, " s"]
    rates: Float[Array, " s"]
    polished_by: Int[Array, " s"]
    index: Int[Array, " s"]
    tolerances: Float[Array, " s"]
    result: RESULTS

    @property
    def converged(self) -> np.ndarray:
        """Which runs ended at a critical point, (s,)."""
        return np.asarray(self.gradient_norms) <= np.asarray(self.tolerances)


@functools.partial(jax.jit, static_argnames=("shape", "scheme", "dtype"))
def starting_weights(
    key: PRNGKeyArray,
    index: Int[Array, " s"],
    shape: tuple[int, int],
    scheme: str,
    dtype: Any,
) -> Float[Array, "s n d"]:
    """Start number i is drawn with ``jax.random.fold_in(key, i)``.

    So it does not depend on how many starts there are, nor in which order they run.
    """
    draw = lambda i: inner_weights(jrandom.fold_in(key, i), *shape, scheme, dtype)
    return jax.vmap(draw)(index)


@jax.jit
def values_of(
    problem: Problem, weights: Float[Array, "s n d"]
) -> tuple[Float[Array, " s"], Float[Array, " s"]]:
    """F and the norm of its gradient at many points, a block at a time."""

    def one(w):
        gradient = gradients(problem, w[None])[0]
        return losses(problem, w[None])[0], jnp.sqrt(jnp.sum(gradient**2))

    return jax.lax.map(one, weights, batch_size=64)


@jax.jit
@jax.vmap
def outcomes(converged: Bool[Array, ""], diverged: Bool[Array, ""]) -> RESULTS:
    """A result for every run."""
    success: Any = RESULTS.successful
    other: Any = RESULTS.where(diverged, RESULTS.diverged, RESULTS.no_convergence)
    return RESULTS.where(converged, success, other)


class Settings(eqx.Module):
    """How a search is run; plain numbers, the same for all starts."""

    learning_rate: float
    max_steps: int
    tolerance: float
    batch_size: int
    devices: Devices
    descend: bool


def scale_of(problem: Problem) -> float:
    r"""$\max|a_i|$ times the root mean square of $|b_j|\,\lVert v_j\rVert$."""
    inner = np.asarray(problem.inner, np.float64)
    b, a = np.asarray(problem.teacher_outer, np.float64), np.asarray(problem.outer)
    sizes = np.sum(np.square(inner), axis=1) * np.square(b)
    return float(np.sqrt(np.mean(sizes)) * np.max(np.abs(a))) or 1.0


def search(
    problem: Problem,
    starts: Float[Array, "s n d"],
    index: Int[Array, " s"],
    settings: Settings,
    progress: Callable[[int, int], None] | None = None,
) -> Runs:
    """All starts to critical points; see `find_critical_points`."""
    state = _State(problem, np.asarray(starts), settings)
    _require_hessians(starts.shape, starts.dtype, len(settings.devices))
    rounds = _ROUNDS if settings.descend else ()
    for level, cap in rounds:
        steps = settings.max_steps
        steps = steps if cap is None else min(steps, cap)
        for chosen in state.blocks():
            state.descend(chosen, level, steps)
            state.polish(chosen, newton)
            if starts.shape[1] > problem.inner.shape[0]:
                state.polish(chosen, nearest_global_minimum)
            if progress is not None:
                progress(int((~state.pending).sum()), len(starts))
    for chosen in state.blocks():
        state.polish(chosen, levenberg_marquardt)
    if progress is not None:
        progress(len(starts), len(starts))
    return state.runs(starts, index)


class _State:
    """The runs of a search on the host, between rounds."""

    def __init__(self, problem: Problem, starts: np.ndarray, settings: Settings):
        count, dtype = len(starts), starts.dtype
        self.problem, self.settings = problem, settings
        self.scale = scale_of(problem)
        self.weights = starts.copy()
        self.before = starts.copy()
        self.norms = np.full(count, np.inf, dtype)
        self.steps = np.zeros(count, np.int32)
        self.rates = np.full(count, settings.learning_rate, dtype)
        self.status = np.zeros(count, np.int32)
        self.polished_by = np.zeros(count, np.int32)
        self.pending = np.ones(count, bool)
        devices = len(settings.devices)
        block = min(16 * settings.batch_size * devices, count)
        self.rows = -(-block // devices) * devices
        self.slots = min(settings.batch_size, self.rows // devices)

    def blocks(self) -> list[np.ndarray]:
        """Indices of pending runs, as many at a time as are computed together."""
        waiting = np.flatnonzero(self.pending)
        return [waiting[i : i + self.rows] for i in range(0, len(waiting), self.rows)]

    def _padded(self, values: np.ndarray, chosen: np.ndarray) -> Array:
        """Chosen runs dealt out to the devices in turn, filled up to a full block."""
        devices = len(self.settings.devices)
        rows = np.resize(chosen, self.rows).reshape(-1, devices).T.ravel()
        return jnp.asarray(values[rows])

    def _unpadded(self, values: Array, chosen: np.ndarray) -> np.ndarray:
        devices = len(self.settings.devices)
        host = np.asarray(values)
        dealt = host.reshape(devices, -1, *host.shape[1:]).swapaxes(0, 1)
        return dealt.reshape(host.shape)[: len(chosen)]

    def _wanted(self, chosen: np.ndarray, wanted: np.ndarray) -> Array:
        """``wanted`` for the chosen runs and False for what fills the block."""
        devices = len(self.settings.devices)
        mask = np.zeros(self.rows, bool)
        mask[: len(chosen)] = wanted
        return jnp.asarray(mask.reshape(-1, devices).T.ravel())

    def descend(self, chosen: np.ndarray, level: float, steps: int) -> None:
        """Gradient descent down to a gradient norm of ``level`` times the scale."""
        dtype = self.weights.dtype
        goal = max(level * self.scale, self.settings.tolerance)
        runs = Descent(
            self._padded(self.weights, chosen),
            self._padded(self.norms, chosen),
            self._padded(self.steps, chosen),
            self._padded(self.rates, chosen),
            self._padded(self.status, chosen),
        )
        few = len(chosen) * 4 <= self.slots * len(self.settings.devices)
        large = self.slots >= 16 and self.pending.size > self.rows
        found = descend(
            self.problem,
            runs,
            self._wanted(chosen, np.ones(len(chosen), bool)),
            jnp.asarray(goal, dtype),
            jnp.asarray(steps, jnp.int32),
            self.slots // 4 if few and large else self.slots,
            self.settings.devices,
        )
        self.weights[chosen] = self._unpadded(found.weights, chosen)
        self.before[chosen] = self.weights[chosen]
        self.norms[chosen] = self._unpadded(found.gradient_norms, chosen)
        self.steps[chosen] = self._unpadded(found.steps, chosen)
        self.rates[chosen] = self._unpadded(found.rates, chosen)
        self.status[chosen] = self._unpadded(found.status, chosen)
        self.pending[chosen[self.status[chosen] == 2]] = False

    def polish(self, chosen: np.ndarray, method: Callable) -> None:
        """One method on those of the chosen runs that are still pending."""
        wanted = self.pending[chosen]
        if not wanted.any():
            return
        goal = self.goals()
        if method is nearest_global_minimum:
            goal = np.full_like(goal, 0.1)
        platform = self.settings.devices[0].platform
        found = polish(
            self.problem,
            self._padded(self.weights, chosen),
            self._wanted(chosen, wanted),
            self._padded(goal, chosen),
            method,
            1 if platform == "cpu" else 64,
            self.settings.devices,
        )
        weights = self._unpadded(found.weights, chosen)
        norms = self._unpadded(found.gradient_norms, chosen)
        accepted = self._unpadded(found.accepted, chosen) & wanted
        if method is levenberg_marquardt:  # the last: what it reached is reported
            accepted = wanted & np.isfinite(norms)
        done = chosen[accepted]
        self.weights[done] = weights[accepted]
        self.norms[done] = norms[accepted]
        self.polished_by[done] = 1 + METHODS.index(method)
        self.pending[done] = False

    def goals(self) -> np.ndarray:
        """The gradient norm asked for, or what rounding allows, for every run."""
        with np.errstate(over="ignore", invalid="ignore"):  # diverged runs
            floor = gradient_floor(self.problem, self.weights)
        goal = np.maximum(floor, self.settings.tolerance)
        return np.where(np.isfinite(goal), goal, self.settings.tolerance).astype(
            self.weights.dtype
        )

    def runs(self, starts: Array, index: Array) -> Runs:
        """The results, with the losses."""
        problem = self.problem
        weights, before = jnp.asarray(self.weights), jnp.asarray(self.before)
        with np.errstate(over="ignore", invalid="ignore"):  # diverged runs
            moved = np.linalg.norm(self.weights - self.before, axis=(1, 2))
        norms, goals = jnp.asarray(self.norms), jnp.asarray(self.goals())
        result = outcomes(
            jnp.asarray(self.norms <= self.goals()), jnp.asarray(self.status == 2)
        )
        descent_losses, descent_norms = values_of(problem, before)
        return Runs(
            weights=weights,
            losses=values_of(problem, weights)[0],
            gradient_norms=norms,
            start_losses=values_of(problem, starts)[0],
            descent_losses=descent_losses,
            descent_norms=descent_norms,
            moved=jnp.asarray(moved),
            steps=jnp.asarray(self.steps),
            rates=jnp.asarray(self.rates),
            polished_by=jnp.asarray(self.polished_by),
            index=index,
            tolerances=goals,
            result=result,
        )


def _require_hessians(shape: tuple[int, ...], dtype: Any, devices: int) -> None:
    n, d = shape[1:]
    size = n * d
    require_bytes(
        6 * size * size * jnp.dtype(dtype).itemsize * devices,
        f"Newton's method with dense {size} x {size} {jnp.dtype(dtype).name} Hessians "
        f"on {devices} devices",
        "Pass fewer devices, or fewer neurons; symmetric_minimum follows the known "
        "families of minima to any size.",
    )
