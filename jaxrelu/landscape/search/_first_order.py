r"""Many runs of gradient descent on a population loss, in one compiled loop.

The gradient of $F(W) = \tfrac12 E_x(\sum_i a_i\sigma(w_i\cdot x) -
\sum_j b_j\sigma(v_j\cdot x))^2$, $x \sim N(0, I_d)$, is
$$\nabla_i F = \frac{a_i}{2\pi} \sum_u q_u\bigl(\lVert u\rVert\sin\theta_{iu}\,\bar w_i
    + (\pi - \theta_{iu})\,u\bigr),$$
$u$ running over the student's neurons with $q = a$ and the teacher's with $q = -b$
(Safran et al. 2021, eq. (10)). It needs one cosine per pair. Off by $\delta$ at an
angle, the sine taken of that same angle, a term moves by
$\delta\sin\theta + O(\delta^2)$: what $\arccos$ loses near 0 and $\pi$, the gradient
does not.
"""

import functools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrelu._devices import Devices, over_devices
from jaxrelu._products import matmul
from jaxrelu.objectives import PopulationLoss


STATUS = ("below the tolerance", "out of steps", "diverged")
_CHUNK = 16  # steps between two looks at who has finished
_HALVINGS = 6


# asin(√z)/√z on [0, 1/4], top power first: interpolated at 15 Chebyshev nodes in 60
# digits, where the singularity at z = 1 leaves 7e-20
_ARCSINE = (
    0.0335771469474287,
    -0.026044488873720434,
    0.0247548762838696,
    0.0007093925943252462,
    0.010003606639881351,
    0.009484697869045622,
    0.01158567991890895,
    0.013961891184389839,
    0.01735294518022548,
    0.022372151536955744,
    0.030381944649750525,
    0.04464285713950677,
    0.07500000000002856,
    0.16666666666666657,
    1.0,
)


def angle_and_sine(cosine: Float[Array, "..."]) -> tuple[Array, Array]:
    r"""$\theta$ and $\sin\theta$ of one and the same angle, from $\cos\theta$.

    Without branches and library calls, so that it vectorises: with $z = (1 - |c|)/2$
    for $|c| \ge 1/2$ the half angle is $\arcsin\sqrt z$, else $\theta = \pi/2 -
    \arcsin c$.
    """
    modulus = jnp.abs(cosine)
    steep = modulus < 0.5
    z = jnp.where(steep, cosine * cosine, jnp.maximum(1 - modulus, 0) / 2)
    root, rest = jnp.sqrt(z), jnp.sqrt(1 - z)
    ratio = jnp.full_like(z, _ARCSINE[0])
    for coefficient in _ARCSINE[1:]:
        ratio = ratio * z + coefficient
    arc = root * ratio
    acute = jnp.where(steep, math.pi / 2 - arc, 2 * arc)
    theta = jnp.where(cosine < 0, math.pi - acute, acute)
    return theta, jnp.where(steep, rest, 2 * root * rest)


class Problem(eqx.Module):
    """A population loss with the student's outer weights: what a run needs."""

    inner: Float[Array, "k d"]
    teacher_outer: Float[Array, " k"]
    outer: Float[Array, " n"]

    @classmethod
    def of_loss(cls, objective: PopulationLoss, outer: Float[Array, " n"]) -> "Problem":
        """The problem of an objective and the student's outer weights."""
        return cls(objective.teacher.inner, objective.teacher.outer, outer)

    @property
    def taught(self) -> Float[Array, " k"]:
        r"""$|b_j|\,\lVert v_j\rVert$, with which $|a_i|\,\lVert w_i\rVert$ compares."""
        lengths = jnp.sqrt(jnp.sum(self.inner**2, axis=1))
        return jnp.abs(self.teacher_outer) * lengths


class _Pairs(NamedTuple):
    """Angles of students with all neurons, at many points."""

    every: Array  # (b, n + k, d)
    units: Array
    norms: Array  # (b, n + k)
    signed: Array  # (n + k,)
    cosine: Array  # (b, n, n + k), as are the angle and its sine
    theta: Array
    sine: Array


def _pairs(problem: Problem, weights: Array) -> _Pairs:
    batch, n, d = weights.shape
    teacher = jnp.broadcast_to(problem.inner, (batch, problem.inner.shape[0], d))
    every = jnp.concatenate([weights, teacher], axis=1)
    norms = jnp.sqrt(jnp.sum(every * every, axis=2))
    units = every / jnp.maximum(norms, jnp.finfo(weights.dtype).tiny)[:, :, None]
    signed = jnp.concatenate([problem.outer, -problem.teacher_outer])
    cosine = matmul(units[:, :n], units.swapaxes(1, 2))
    return _Pairs(every, units, norms, signed, cosine, *angle_and_sine(cosine))


def gradients(
    problem: Problem, weights: Float[Array, "b n d"]
) -> Float[Array, "b n d"]:
    r"""$\nabla F$ at many points; a few roundings of its largest term.

    A zero neuron counts as one without a direction: its row is
    $\tfrac{a_i}{4}\sum_u q_u u$ and no derivative.

    Cost: 4n(n + k)d operations a point in matrix products, and about 25n(n + k) more.
    """
    pairs = _pairs(problem, weights)
    sized = pairs.signed[None] * pairs.norms
    along = jnp.sum(pairs.sine * sized[:, None, :], axis=2)
    turned = pairs.signed[None, :, None] * pairs.every
    towards = matmul(math.pi - pairs.theta, turned)
    units = pairs.units[:, : weights.shape[1]]
    scale = (problem.outer / (2 * math.pi))[None, :, None]
    return scale * (along[:, :, None] * units + towards)


def losses(problem: Problem, weights: Float[Array, "b n d"]) -> Float[Array, " b"]:
    r"""F at many points, to a few roundings of its largest term.

    The sum over all pairs is $\tfrac12(S_{ww} + 2S_{wv} + S_{vv})$ with signed outer
    weights; $S_{vv}$ is that of the teacher as its own student.
    """
    n = weights.shape[1]
    own, cross = _kernel_sums(problem, weights, n)
    as_student = Problem(problem.inner, problem.teacher_outer, problem.teacher_outer)
    k = problem.inner.shape[0]
    theirs, _ = _kernel_sums(as_student, problem.inner[None], k)
    return own / 2 + cross + theirs / 2


def _kernel_sums(problem: Problem, weights: Array, n: int) -> tuple[Array, Array]:
    pairs = _pairs(problem, weights)
    kernel = pairs.sine + (math.pi - pairs.theta) * pairs.cosine
    sized = pairs.signed[None] * pairs.norms / (2 * math.pi) ** 0.5
    terms = kernel * sized[:, :n, None] * sized[:, None, :]
    return jnp.sum(terms[:, :, :n], axis=(1, 2)), jnp.sum(terms[:, :, n:], axis=(1, 2))


class Descent(eqx.Module):
    """Where runs of gradient descent stopped.

    Attributes:
        weights: the last iterates, (s, n, d).
        gradient_norms: of those, (s,).
        steps: gradient steps taken, (s,).
        rates: the step size of each run, smaller than asked for after a divergence.
        status: index into `STATUS`.
    """

    weights: Float[Array, "s n d"]
    gradient_norms: Float[Array, " s"]
    steps: Int[Array, " s"]
    rates: Float[Array, " s"]
    status: Int[Array, " s"]


class _Slots(eqx.Module):
    """The runs being computed, each in a slot, and the results so far."""

    weights: Float[Array, "b n d"]
    index: Int[Array, " b"]
    steps: Int[Array, " b"]
    rates: Float[Array, " b"]
    next: Int[Array, ""]
    results: Descent


def _norms(gradient: Array) -> Array:
    return jnp.sqrt(jnp.sum(gradient * gradient, axis=(1, 2)))


def descend_block(
    problem: Problem,
    runs: Descent,
    pending: Bool[Array, " s"],
    tolerance: Float[Array, ""],
    max_steps: Int[Array, ""],
    slots: int,
) -> Descent:
    r"""Plain gradient descent $W \leftarrow W - \eta\nabla F(W)$ of the pending runs.

    A run stops at its first iterate with $\lVert\nabla F\rVert \le$ ``tolerance``. Its
    slot takes the next run, so that a slow run holds up none but the last few. What a
    run does depends on no other run. A run whose weights grow to a thousand times
    those given and those of a global minimum starts again from where it was given, at
    half the step size, a few times.
    """
    count = pending.shape[0]
    total = jnp.sqrt(jnp.sum(problem.taught**2))
    size = total / jnp.min(jnp.abs(problem.outer))
    # pending runs first, the others never
    order = jnp.argsort(~pending, stable=True).astype(jnp.int32)
    waiting = jnp.sum(pending, dtype=jnp.int32)

    def fill(state: _Slots, free: Array) -> _Slots:
        place = state.next + jnp.cumsum(free, dtype=jnp.int32) - 1
        place = jnp.where(free & (place < waiting), place, count)
        found = order.at[place].get(mode="fill", fill_value=count)
        index = jnp.where(free, found, state.index)
        take = jnp.minimum(found, count - 1)

        def pick(old, new):
            shape = free.shape + (1,) * (old.ndim - 1)
            return jnp.where(free.reshape(shape), new[take], old)

        return _Slots(
            pick(state.weights, runs.weights),
            index,
            pick(state.steps, runs.steps),
            pick(state.rates, runs.rates),
            state.next + jnp.sum(free, dtype=jnp.int32),
            state.results,
        )

    def advance(state: _Slots) -> _Slots:
        def step(_, carry):
            weights, steps = carry
            gradient = gradients(problem, weights)
            active = (_norms(gradient) > tolerance) & (steps < max_steps)
            rate = jnp.where(active, state.rates, 0)[:, None, None]
            return weights - rate * gradient, steps + active.astype(jnp.int32)

        weights, steps = jax.lax.fori_loop(
            0, _CHUNK, step, (state.weights, state.steps)
        )
        norms = _norms(gradients(problem, weights))
        given = runs.weights.at[state.index].get(mode="fill", fill_value=1.0)
        largest = 1e3 * (size + _norms(given))
        wild = ~(_norms(weights) <= largest) & (state.index < count)
        halvings = jnp.log2(runs.rates.at[state.index].get(mode="clip") / state.rates)
        again = wild & (halvings < _HALVINGS - 0.5)
        status = jnp.where(norms <= tolerance, jnp.int32(0), jnp.int32(1))
        status = jnp.where(wild, jnp.int32(2), status)
        finished = (norms <= tolerance) | (steps >= max_steps) | wild
        finished &= ~again
        # idle slots carry index `count`, which is dropped
        where = jnp.where(finished, state.index, count)
        old = state.results
        results = Descent(
            old.weights.at[where].set(weights, mode="drop"),
            old.gradient_norms.at[where].set(norms, mode="drop"),
            old.steps.at[where].set(steps, mode="drop"),
            old.rates.at[where].set(state.rates, mode="drop"),
            old.status.at[where].set(status, mode="drop"),
        )
        first = runs.steps.at[state.index].get(mode="clip")
        restart = again[:, None, None]
        state = _Slots(
            jnp.where(restart, given, weights),
            state.index,
            jnp.where(again, first, steps),
            jnp.where(again, state.rates / 2, state.rates),
            state.next,
            results,
        )
        return fill(state, finished)

    empty = jnp.full((slots,), count, jnp.int32)
    state = _Slots(
        jnp.ones((slots, *runs.weights.shape[1:]), runs.weights.dtype),
        empty,
        jnp.zeros_like(empty),
        jnp.ones((slots,), runs.rates.dtype),
        jnp.zeros_like(waiting),
        runs,
    )
    state = fill(state, jnp.ones((slots,), bool))
    done = jax.lax.while_loop(
        lambda state: jnp.any(state.index < count), advance, state
    )
    return done.results


@functools.partial(jax.jit, static_argnames=("slots", "devices"))
def descend(
    problem: Problem,
    runs: Descent,
    pending: Bool[Array, " s"],
    tolerance: Float[Array, ""],
    max_steps: Int[Array, ""],
    slots: int,
    devices: Devices,
) -> Descent:
    """`descend_block` with the runs split over devices, ``slots`` at once on each."""

    def block(shared, mine):
        problem, tolerance, max_steps = shared
        runs, pending = mine
        return descend_block(problem, runs, pending, tolerance, max_steps, slots)

    shared = (problem, tolerance, max_steps)
    return over_devices(block, devices)(shared, (runs, pending))
