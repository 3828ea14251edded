"""Gradient flow, with diffrax."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxrelu._checks import check_positive, check_size, is_concrete
from jaxrelu._results import RESULTS
from jaxrelu.dynamics._trajectory import evaluate, norm, point_at, prepared
from jaxrelu.networks import where_spec


class Flow(eqx.Module):
    r"""What gradient flow recorded at the times ``times``.

    Attributes:
        network: $\theta(T)$ at the last time; of a flow that was given up, where that
            was.
        times: t, (r,).
        losses: $L(\theta(t))$, (r,). Times not reached repeat what came
            last.
        distances: $\|\theta(t) - \theta(0)\|_2$ over the trained leaves, (r,).
        path_lengths: $\int_0^t \|\nabla L(\theta(s))\|_2\,ds$, (r,).
        result: `RESULTS.successful`; `RESULTS.no_convergence` when the solver ran out
            of steps; `RESULTS.diverged` when it met something that is not finite.
        reached: how many of the times were reached.
        num_steps: steps of the solver, rejected ones included.
        records: what each recorder gave, under its name, with an axis (r,) in front.
        tolerance: what the solver kept the error of each step below, relative and
            absolute; no bound on the error of the whole.
    """

    network: PyTree
    times: Float[Array, " times"]
    losses: Float[Array, " times"]
    distances: Float[Array, " times"]
    path_lengths: Float[Array, " times"]
    result: RESULTS
    reached: Int[Array, ""]
    num_steps: Int[Array, ""]
    records: dict[str, PyTree]
    tolerance: Float[Array, ""]


def gradient_flow(
    objective: Callable[[Any], Float[Array, ""]],
    network: PyTree,
    times: Any,
    *,
    where: Callable | None = None,
    recorders: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
    solver: Any = None,
    max_steps: int = 100_000,
) -> Flow:
    r"""$\dot\theta = -\nabla L(\theta)$ from time 0, recorded at given times.

    Args:
        objective: network → scalar; a module, so that its data are traced arguments.
        network: $\theta(0)$.
        times: (r,), increasing, none below 0.
        where: the trained leaves; None takes the network's default.
        recorders: name → recorder, as in `gradient_descent`.
        tolerance: of each step, relative and absolute; None takes $10^{-4}$ in float32
            and $10^{-8}$ in float64.
        solver: of diffrax; None takes ``Tsit5()``, which is explicit: its steps stay
            below about 3 over the largest eigenvalue of the Hessian. Where that takes
            too many, ``Kvaerno5()`` is implicit, at a dense p × p Jacobian a step.
        max_steps: of the solver.

    Raises:
        ImportError: diffrax is not installed (``pip install 'jaxrelu[flow]'``).
        ValueError: times that do not increase, or none; nothing to train; a tolerance
            that is not positive.

    Cost: 6 forward and backward passes a step of the solver. Past a kink of ReLU the
    solution is only Lipschitz continuous and the solver takes small steps there.
    """
    diffrax = _diffrax()
    max_steps = check_size(max_steps, "max_steps")
    trained, rest = eqx.partition(network, where_spec(network, where))
    dtype = jax.tree.leaves(trained)[0].dtype
    if tolerance is None:
        tolerance = 1e-8 if dtype == jnp.float64 else 1e-4
    check_positive(tolerance, "tolerance")
    return _flow(
        objective,
        trained,
        rest,
        _checked_times(times, dtype),
        jnp.asarray(tolerance, dtype),
        diffrax.Tsit5() if solver is None else solver,
        max_steps,
        dict(recorders or {}),
    )


def _diffrax() -> Any:
    try:
        import diffrax
    except ImportError as error:
        msg = "gradient_flow needs diffrax: pip install 'jaxrelu[flow]'."
        raise ImportError(msg) from error
    return diffrax


def _checked_times(times: Any, dtype: Any) -> Array:
    if is_concrete(times):
        host = np.asarray(times)
        good = host.ndim == 1 and host.size > 0 and np.isfinite(host).all()
        if not good or host[0] < 0 or (np.diff(host) <= 0).any() or host[-1] == 0:
            msg = (
                f"times is {times!r}; expected a list of finite increasing numbers, "
                "none below 0 and the last one positive."
            )
            raise ValueError(msg)
    return jnp.asarray(times, dtype)


@eqx.filter_jit
def _flow(
    objective: Callable,
    start: PyTree,
    rest: PyTree,
    times: Array,
    tolerance: Array,
    solver: Any,
    max_steps: int,
    recorders: dict[str, Any],
) -> Flow:
    import diffrax

    zero = jnp.zeros((), times.dtype)
    recorders = prepared(recorders, point_at(objective, start, start, rest, zero, zero))

    def field(time, state, args):  # noqa: ARG001
        objective, rest = args
        gradient = evaluate(objective, state[0], rest)[1]
        return jax.tree.map(jnp.negative, gradient), norm(gradient)

    def record(time, state, args):
        objective, rest = args
        point = point_at(objective, state[0], start, rest, state[1], time)
        seen = {name: see(point) for name, see in recorders.items()}
        return point.loss, point.distance, point.path_length, seen

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        solver,
        t0=zero,
        t1=times[-1],
        dt0=None,
        y0=(start, zero),
        args=(objective, rest),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        saveat=diffrax.SaveAt(
            subs=[
                diffrax.SubSaveAt(t0=True, ts=times, fn=record),
                diffrax.SubSaveAt(t1=True, fn=lambda *now: now[1][0]),
            ]
        ),
        max_steps=max_steps,
        throw=False,
    )
    ys: Any = solution.ys
    ts: Any = solution.ts
    (losses, distances, lengths, seen), ends = ys
    there = jnp.isfinite(ts[0]) & jnp.isfinite(losses)
    saved = jnp.sum(jnp.cumprod(there.astype(jnp.int32)), dtype=jnp.int32)
    reached = jnp.maximum(saved - 1, 0)  # the first is the start
    index = jnp.arange(1, times.shape[0] + 1, dtype=jnp.int32)
    index = jnp.minimum(index, reached)
    out_of_steps = solution.result == diffrax.RESULTS.max_steps_reached
    success: Any = RESULTS.successful
    diverged: Any = RESULTS.diverged
    tired: Any = RESULTS.no_convergence
    failure = RESULTS.where(out_of_steps, tired, diverged)
    done = (solution.result == diffrax.RESULTS.successful) & (reached == times.shape[0])
    end = jax.tree.map(lambda x: x[0], ends)
    return Flow(
        network=eqx.combine(end, rest),
        times=times,
        losses=losses[index],
        distances=distances[index],
        path_lengths=lengths[index],
        result=RESULTS.where(done, success, failure),
        reached=reached,
        num_steps=jnp.asarray(solution.stats["num_steps"], jnp.int32),
        records=jax.tree.map(lambda x: x[index], seen),
        tolerance=tolerance,
    )
