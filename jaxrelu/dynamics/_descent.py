"""Gradient descent, and any optimiser of optax, as one compiled loop."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from jaxrelu._checks import check_positive, check_size, is_concrete
from jaxrelu.dynamics._engine import Goal, Move, Plan, follow
from jaxrelu.dynamics._trajectory import Trajectory, evaluate
from jaxrelu.networks import where_spec


def gradient_descent(
    objective: Callable[[Any], Float[Array, ""]],
    network: PyTree,
    *,
    learning_rate: Any,
    num_steps: int,
    where: Callable | None = None,
    record_every: int = 1,
    recorders: Mapping[str, Any] | None = None,
    target_loss: Any = None,
    gradient_tolerance: Any = None,
) -> Trajectory:
    r"""$\theta_{t+1} = \theta_t - \eta \nabla L(\theta_t)$.

    Args:
        objective: network → scalar; a module, so that its data are traced arguments.
        network: θ₀.
        learning_rate: η, a positive number or a scalar array (then it is traced, and
            `jax.vmap` over it or over networks gives many runs at once; `sweep` also
            splits them over devices).
        num_steps: T, at least 1; at most so many if there is a tolerance.
        where: the trained leaves; None takes the network's default.
        record_every: steps between two records; the last iterate is always recorded.
        recorders: name → recorder, see `jaxrelu.dynamics.ResidualNorm` and its like:
            any function of a `Point` that gives arrays of fixed shape.
        target_loss: stop at the first iterate with $L(\theta_t) \le$ this.
        gradient_tolerance: stop at the first with $\|\nabla L(\theta_t)\|_2 \le$ this.

    Raises:
        ValueError: a step size that is not positive and finite, no steps, nothing to
            train, tolerances that are negative or not finite.
        MemoryRefusedError: more records than there is memory for.

    Cost: T forward and backward passes and a forward pass per record (none if every
    step is recorded); the memory of one pass, and 4 numbers per record. Differentiable
    in reverse unless a tolerance is given.
    """
    return train(
        objective,
        network,
        optax.sgd,
        learning_rate=learning_rate,
        num_steps=num_steps,
        where=where,
        record_every=record_every,
        recorders=recorders,
        target_loss=target_loss,
        gradient_tolerance=gradient_tolerance,
    )


def train(
    objective: Callable[[Any], Float[Array, ""]],
    network: PyTree,
    optimiser: Any,
    *,
    num_steps: int,
    learning_rate: Any = None,
    where: Callable | None = None,
    record_every: int = 1,
    recorders: Mapping[str, Any] | None = None,
    target_loss: Any = None,
    gradient_tolerance: Any = None,
) -> Trajectory:
    r"""Full-batch training with an optimiser of optax.

    `train(loss, net, optax.adam, learning_rate=1e-3, num_steps=1000)`: an optimiser
    that is made from its step size takes it as a traced number, so another one, or a
    `jax.vmap` over many, compiles nothing. An `optax.GradientTransformation` given
    whole (`optax.adam(1e-3)`) compiles anew for each object. Optimisers that look along
    a line (`optax.lbfgs`) get the loss they need.

    Args:
        objective: network → scalar; a module, so that its data are traced arguments.
        network: θ₀.
        optimiser: an `optax.GradientTransformation`, or a function of the step size
            that returns one.
        num_steps: see `gradient_descent`, like all below.
        learning_rate: for an optimiser that is made from it.
        where: the trained leaves.
        record_every: steps between two records.
        recorders: name → recorder.
        target_loss: stop at this loss.
        gradient_tolerance: stop at this gradient norm.

    Raises:
        TypeError: a step size for an optimiser that has its own, or none for one that
            is made from it.
        ValueError: as `gradient_descent`.
        MemoryRefusedError: more records than there is memory for.

    Cost: that of `gradient_descent` and of the optimiser's own work.
    """
    _check_optimiser(optimiser, learning_rate)
    num_steps = check_size(num_steps, "num_steps")
    trained, rest, rate = begin(network, learning_rate, where)
    plan = Plan(num_steps, check_interval(record_every, num_steps))
    goal = goal_of(target_loss, gradient_tolerance, trained)
    return _train(
        objective, trained, rest, rate, optimiser, plan, goal, dict(recorders or {})
    )


def _check_optimiser(optimiser: Any, learning_rate: Any) -> None:
    whole = isinstance(optimiser, optax.GradientTransformation)
    if not whole and not callable(optimiser):
        msg = (
            f"optimiser is {optimiser!r}; expected an optax.GradientTransformation, or "
            "a function of the step size that returns one, such as optax.adam."
        )
        raise TypeError(msg)
    if whole and learning_rate is not None:
        msg = (
            "learning_rate was given to an optimiser that has its own; leave it out, "
            "or pass the function that makes the optimiser, such as optax.adam."
        )
        raise TypeError(msg)
    if not whole and learning_rate is None:
        msg = "learning_rate is missing; the optimiser is made from it."
        raise TypeError(msg)


def begin(
    network: PyTree, learning_rate: Any, where: Callable | None
) -> tuple[PyTree, PyTree, Array | None]:
    """Checked arguments: the trained leaves, the others, the step size."""
    trained, rest = eqx.partition(network, where_spec(network, where))
    return trained, rest, _rate(learning_rate, trained)


def _rate(learning_rate: Any, trained: PyTree) -> Array | None:
    if learning_rate is None:
        return None
    if is_concrete(learning_rate) and jnp.ndim(learning_rate) == 0:
        check_positive(float(learning_rate), "learning_rate")
    rate = jnp.asarray(learning_rate, jax.tree.leaves(trained)[0].dtype)
    if rate.ndim:
        msg = (
            f"learning_rate has shape {rate.shape}; expected a number. Use jax.vmap or "
            "jaxrelu.dynamics.sweep for many step sizes."
        )
        raise ValueError(msg)
    return rate


def check_interval(record_every: int, num_steps: int) -> int:
    """At most the number of steps."""
    return min(check_size(record_every, "record_every"), num_steps)


def goal_of(target_loss: Any, gradient_tolerance: Any, trained: PyTree) -> Goal:
    """Tolerances as traced numbers, so that another one compiles nothing."""
    dtype = jax.tree.leaves(trained)[0].dtype

    def number(value, name):
        if value is None:
            return None
        if jnp.ndim(value):
            msg = (
                f"{name} has shape {jnp.shape(value)}; expected one number. For "
                "several, vmap over them."
            )
            raise ValueError(msg)
        if is_concrete(value) and not 0 <= float(value) < math.inf:
            msg = f"{name} is {value}; expected a finite number of at least 0."
            raise ValueError(msg)
        return jnp.asarray(value, dtype)

    return Goal(
        number(target_loss, "target_loss"),
        number(gradient_tolerance, "gradient_tolerance"),
    )


@eqx.filter_jit
def _train(
    objective: Callable,
    start: PyTree,
    rest: PyTree,
    rate: Array | None,
    optimiser: Any,
    plan: Plan,
    goal: Goal,
    recorders: dict[str, Any],
) -> Trajectory:
    made = optimiser if rate is None else optimiser(rate)
    made = optax.with_extra_args_support(made)

    def loss_of(trained):
        return objective(eqx.combine(trained, rest))

    def advance(trained, state, step):  # noqa: ARG001
        loss, gradient = evaluate(objective, trained, rest)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integers
            update, state = made.update(
                gradient, state, trained, value=loss, grad=gradient, value_fn=loss_of
            )
        return Move(loss, gradient, update, state)

    return follow(
        objective,
        start,
        rest,
        advance,
        made.init(start),
        plan,
        goal=goal,
        recorders=recorders,
        rate=rate,
    )
