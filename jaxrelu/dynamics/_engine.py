r"""The loop under every method: steps, records, and runs that end at their own time.

All runs of a batch are at the same step, so the step number stays one number under
`jax.vmap`. A run that has converged or diverged is frozen by a mask. If a tolerance is
given, segments of about 32 steps are skipped once no run of the batch is left.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from jaxrelu._memory import require_bytes
from jaxrelu._results import RESULTS
from jaxrelu.dynamics._trajectory import (
    Point,
    Trajectory,
    norm,
    point_at,
    prepared,
)


_SEGMENT = 32  # steps between two looks at whether anybody is still running
_RUNNING, _CONVERGED, _DIVERGED = 0, 1, 2


class Move(NamedTuple):
    """One step of a method, not taken yet.

    Attributes:
        loss: where it starts; of the batch for a stochastic method.
        gradient: that of ``loss``; None if it is not the objective's.
        update: the displacement.
        state: of the method, after the step.
    """

    loss: Array
    gradient: PyTree
    update: PyTree
    state: PyTree


class Goal(eqx.Module):
    """When a run may stop; None never stops it."""

    target_loss: Float[Array, ""] | None
    gradient_tolerance: Float[Array, ""] | None

    @property
    def exists(self) -> bool:
        """Whether there is any."""
        return self.target_loss is not None or self.gradient_tolerance is not None

    def met(self, loss: Array, gradient: PyTree) -> Array:
        """Whether a point with this loss and gradient is good enough."""
        found = jnp.zeros(jnp.shape(loss), bool)
        if self.target_loss is not None:
            found |= loss <= self.target_loss
        if self.gradient_tolerance is not None:
            found |= norm(gradient) <= self.gradient_tolerance
        return found


class Plan(eqx.Module):
    """How long a run is and how often it is recorded; all static."""

    num_steps: int
    record_every: int
    stochastic: bool = False

    @property
    def intervals(self) -> int:
        """Records before the last one."""
        return -(-self.num_steps // self.record_every)


class _Carry(eqx.Module):
    trained: PyTree
    state: PyTree
    path: Array
    count: Int[Array, ""]
    before: tuple[PyTree, Array]  # the iterate and the path one step earlier
    status: Int[Array, ""]
    failed: Int[Array, ""]
    last: PyTree  # the latest record


def _choose(flag: Array, one: PyTree, two: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), one, two)


def follow(
    objective: Any,
    start: PyTree,
    rest: PyTree,
    advance: Callable[[PyTree, PyTree, Array], Move],
    state: PyTree,
    plan: Plan,
    *,
    goal: Goal,
    recorders: dict[str, Any],
    rate: Array | None,
) -> Trajectory:
    """Takes the steps of ``advance(trained, state, step)`` and records on the way."""
    dtype = jax.tree.leaves(start)[0].dtype
    zero = jnp.zeros((), dtype)
    origin = point_at(objective, start, start, rest, zero, jnp.int32(0))
    recorders = prepared(recorders, origin)

    def records_of(point: Point) -> dict[str, Any]:
        return {
            "losses": point.loss,
            "distances": point.distance,
            "path_lengths": point.path_length,
            "steps": point.step,
            "records": {name: see(point) for name, see in recorders.items()},
        }

    shapes = eqx.filter_eval_shape(records_of, origin)
    _require(shapes, plan)
    carry = _Carry(
        trained=start,
        state=state,
        path=zero,
        count=jnp.int32(0),
        before=(start, zero),
        status=jnp.int32(0),
        failed=jnp.int32(-1),
        last=jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),
    )

    def record(carry: _Carry, first: Array, check: bool) -> _Carry:
        point = point_at(objective, carry.trained, start, rest, carry.path, carry.count)
        values = records_of(point)
        finite = jnp.isfinite(point.loss) & jnp.isfinite(values["distances"])
        running = carry.status == _RUNNING
        carry = _failing(carry, running & ~finite, revert=True)
        if check:
            met = running & finite & goal.met(point.loss, point.gradient)
            status = jnp.where(met, _CONVERGED, carry.status)
            carry = eqx.tree_at(lambda c: c.status, carry, status)
        last = _choose(finite | first, values, carry.last)
        return eqx.tree_at(lambda c: c.last, carry, last)

    def step(carry: _Carry, t: Array, inside: Array | None) -> _Carry:
        move = advance(carry.trained, carry.state, t)
        size = norm(move.update)
        running = carry.status == _RUNNING
        if inside is not None:
            running &= inside
        sound = jnp.isfinite(move.loss)
        finite = sound & jnp.isfinite(size)
        goes = running & finite
        if goal.exists and not plan.stochastic:
            met = goes & goal.met(move.loss, move.gradient)
            goes &= ~met
            status = jnp.where(met, _CONVERGED, carry.status)
            carry = eqx.tree_at(lambda c: c.status, carry, status)
        moved = _Carry(
            trained=optax.apply_updates(carry.trained, move.update),
            state=move.state,
            path=carry.path + size,
            count=carry.count + 1,
            before=(carry.trained, carry.path),
            status=carry.status,
            failed=carry.failed,
            last=None,
        )
        still = eqx.tree_at(lambda c: c.last, carry, None)
        new = _choose(goes, moved, still)
        new = _failing(new, running & ~sound, revert=True)
        new = _failing(new, running & sound & ~finite, revert=False)
        return eqx.tree_at(
            lambda c: c.last, new, carry.last, is_leaf=lambda x: x is None
        )

    carry, kept = _loop(carry, plan, goal.exists, record, step)
    carry = record(carry, jnp.asarray(False), goal.exists)
    kept = jax.tree.map(
        lambda many, one: jnp.concatenate([many, one[None]]), kept, carry.last
    )
    return Trajectory(
        network=eqx.combine(carry.trained, rest),
        result=_result(carry.status, goal.exists),
        learning_rate=rate,
        num_steps=carry.count,
        diverged_at=carry.failed,
        **kept,
    )


def _failing(carry: _Carry, flag: Array, *, revert: bool) -> _Carry:
    """Marks a run as diverged where ``flag``; back to the iterate before if asked."""
    if revert:  # the iterate reached is the one that is not finite
        first = carry.count == 0
        failed, count = carry.count, jnp.where(first, carry.count, carry.count - 1)
        trained, path = _choose(flag, carry.before, (carry.trained, carry.path))
    else:
        failed, count = carry.count + 1, carry.count
        trained, path = carry.trained, carry.path
    return _Carry(
        trained=trained,
        state=carry.state,
        path=path,
        count=jnp.where(flag, count, carry.count),
        before=carry.before,
        status=jnp.where(flag, _DIVERGED, carry.status),
        failed=jnp.where(flag, failed, carry.failed),
        last=carry.last,
    )


def _loop(
    carry: _Carry, plan: Plan, stops: bool, record: Callable, step: Callable
) -> tuple[_Carry, PyTree]:
    """All but the last record, stacked; segments are skipped if ``stops``."""
    every, total, count = plan.record_every, plan.num_steps, plan.intervals
    group, pieces = 1, 1
    if stops:
        group = -(-count // -(-count // -(-_SEGMENT // every)))
        pieces = -(-every // _SEGMENT)
    segments = -(-count // group)
    length = -(-every // pieces)
    padded = segments * group * every > total or pieces * length > every

    def interval(carry: _Carry, number: Array) -> tuple[_Carry, PyTree]:
        first = number * every
        carry = record(carry, number == 0, stops and plan.stochastic)
        kept = carry.last

        def piece(carry, index):
            def one(q, carry):
                place = index * length + q
                inside = (place < every) & (first + place < total) if padded else None
                return step(carry, first + place, inside)

            def several(carry):
                if length == 1:
                    return one(jnp.int32(0), carry)
                body = lambda carry, q: (one(q, carry), None)
                return jax.lax.scan(body, carry, jnp.arange(length, dtype=jnp.int32))[0]

            return _while_running(carry, several, pieces > 1), None

        if pieces == 1:
            return piece(carry, jnp.int32(0))[0], kept
        steps = jnp.arange(pieces, dtype=jnp.int32)
        return jax.lax.scan(piece, carry, steps)[0], kept

    def segment(carry: _Carry, number: Array) -> tuple[_Carry, PyTree]:
        numbers = number * group + jnp.arange(group, dtype=jnp.int32)
        if group == 1:
            carry, kept = interval(carry, numbers[0])
            return carry, jax.tree.map(lambda x: x[None], kept)
        # what a skipped segment would record is what was recorded last, or, right
        # after the run has stopped, the state it stopped in: that is recorded first
        carry = record(carry, number == 0, False)
        kept = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (group, *x.shape)), carry.last
        )

        def body(both):
            return jax.lax.scan(interval, both[0], numbers)

        return _while_running((carry, kept), body, True)

    numbers = jnp.arange(segments, dtype=jnp.int32)
    carry, kept = jax.lax.scan(segment, carry, numbers)
    kept = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], kept)
    return carry, kept


def _while_running(carry: Any, body: Callable, guarded: bool) -> Any:
    """``body(carry)``, or ``carry`` if no run of the batch is left.

    A loop of at most one turn: under `jax.vmap` a `jax.lax.cond` would do both.
    """
    if not guarded:
        return body(carry)

    def status_of(carry):
        return (carry if isinstance(carry, _Carry) else carry[0]).status

    return jax.lax.while_loop(
        lambda both: both[0] & (status_of(both[1]) == _RUNNING),
        lambda both: (jnp.asarray(False), body(both[1])),
        (jnp.asarray(True), carry),
    )[1]


def _result(status: Array, wanted: bool) -> RESULTS:
    rest: Any = RESULTS.no_convergence if wanted else RESULTS.successful
    success: Any = RESULTS.successful
    diverged: Any = RESULTS.diverged
    done = RESULTS.where(status == _CONVERGED, success, rest)
    return RESULTS.where(status == _DIVERGED, diverged, done)


def _require(shapes: PyTree, plan: Plan) -> None:
    each = sum(s.size * s.dtype.itemsize for s in jax.tree.leaves(shapes))
    count = plan.intervals + 1
    require_bytes(
        2 * count * each,
        f"{count:,} records of {each:,} bytes (twice, while they are collected)",
        "Pass a larger record_every.",
    )
