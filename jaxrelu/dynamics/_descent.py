"""Gradient descent as one compiled scan."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from jaxrelu._checks import check_positive, is_concrete
from jaxrelu._results import RESULTS
from jaxrelu.networks import where_spec


class Trajectory(eqx.Module):
    r"""What a run of gradient descent recorded.

    Attributes:
        network: the last iterate.
        losses: $L(\theta_0), \dots, L(\theta_T)$, (T + 1,).
        distances: $\|\theta_t - \theta_0\|_2$ over the trained leaves, (T + 1,).
        path_lengths: $\sum_{s < t} \|\theta_{s+1} - \theta_s\|_2$, (T + 1,).
        result: `RESULTS.successful`, or `RESULTS.diverged` when a loss or an iterate
            stopped being finite.
        learning_rate: the step size.
    """

    network: PyTree
    losses: Float[Array, " steps"]
    distances: Float[Array, " steps"]
    path_lengths: Float[Array, " steps"]
    result: RESULTS
    learning_rate: Float[Array, ""]


def gradient_descent(
    objective: Callable[[Any], Float[Array, ""]],
    network: PyTree,
    *,
    learning_rate: Any,
    num_steps: int,
    where: Callable | None = None,
) -> Trajectory:
    r"""$\theta_{t+1} = \theta_t - \eta \nabla L(\theta_t)$, recorded at every step.

    Args:
        objective: network → scalar; a module, so that its data are traced arguments.
        network: θ₀.
        learning_rate: η, a positive number or a scalar array (then it is traced, and
            `jax.vmap` over it or over networks gives many runs at once).
        num_steps: T, at least 1.
        where: the trained leaves; None takes the network's default.

    Raises:
        ValueError: a step size that is not positive and finite, no steps, nothing to
            train.

    Cost: T forward and backward passes; the memory of one, and 3T numbers.
    """
    trained, rest, rate = begin(network, learning_rate, num_steps, where)
    return _descend(objective, trained, rest, rate, num_steps)


def begin(
    network: PyTree, learning_rate: Any, num_steps: int, where: Callable | None
) -> tuple[PyTree, PyTree, Array]:
    """Checked arguments: the trained leaves, the others, the step size."""
    if num_steps < 1:
        msg = f"num_steps is {num_steps}; expected at least 1."
        raise ValueError(msg)
    if is_concrete(learning_rate) and jnp.ndim(learning_rate) == 0:
        check_positive(float(learning_rate), "learning_rate")
    trained, rest = eqx.partition(network, where_spec(network, where))
    dtype = jax.tree.leaves(trained)[0].dtype
    return trained, rest, jnp.asarray(learning_rate, dtype)


@eqx.filter_jit
def _descend(
    objective: Callable, start: PyTree, rest: PyTree, rate: Array, num_steps: int
) -> Trajectory:
    optimiser = optax.sgd(rate)

    def loss_of(trained):
        return objective(eqx.combine(trained, rest))

    def advance(trained, state, _):
        loss, gradient = jax.value_and_grad(loss_of)(trained)
        update, state = optimiser.update(gradient, state)
        return loss, update, state

    draws = jnp.arange(num_steps)
    state = optimiser.init(start)
    return record(loss_of, advance, start, state, draws, rest, rate)


def record(
    loss_of: Callable,
    advance: Callable,
    start: PyTree,
    state: PyTree,
    draws: PyTree,
    rest: PyTree,
    rate: Array,
) -> Trajectory:
    """Scans ``advance`` and records losses, distances and path lengths.

    ``advance(trained, state, draw)`` gives the loss at ``trained``, the displacement
    and the next state; one draw for each step.
    """

    def step(carry, draw):
        trained, state, path = carry
        loss, update, state = advance(trained, state, draw)
        moved = optax.apply_updates(trained, update)
        now = (loss, _distance(trained, start), path)
        return (moved, state, path + optax.tree.norm(update)), now

    first = (start, state, jnp.zeros_like(rate))
    (end, _, path), records = jax.lax.scan(step, first, draws)
    last = (loss_of(end), _distance(end, start), path)
    losses, distances, lengths = jax.tree.map(
        lambda many, one: jnp.append(many, one), records, last
    )
    finite = jnp.isfinite(losses).all() & jnp.isfinite(distances).all()
    result = RESULTS.where(
        finite,
        RESULTS.successful,  # pyright: ignore[reportArgumentType]
        RESULTS.diverged,  # pyright: ignore[reportArgumentType]
    )
    return Trajectory(
        eqx.combine(end, rest),
        losses,
        distances,
        lengths,
        result,
        rate,
    )


def _distance(one: PyTree, two: PyTree) -> Array:
    return optax.tree.norm(jax.tree.map(jnp.subtract, one, two))
