"""Stochastic gradient descent on a loss over data."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from jaxrelu._checks import check_size
from jaxrelu.dynamics._descent import begin, check_interval, goal_of
from jaxrelu.dynamics._engine import Goal, Move, Plan, follow
from jaxrelu.dynamics._trajectory import Trajectory
from jaxrelu.objectives import SquaredLoss


def sgd(
    objective: Any,
    network: PyTree,
    key: PRNGKeyArray,
    *,
    learning_rate: Any,
    num_steps: int,
    batch_size: int = 1,
    replace: bool = True,
    where: Callable | None = None,
    record_every: int = 1,
    recorders: Mapping[str, Any] | None = None,
    target_loss: Any = None,
) -> Trajectory:
    r"""$\theta_{t+1} = \theta_t - \eta\,\nabla\tfrac12\sum_{i\in B_t}\|f(x_i)-y_i\|^2$.

    The sum over the batch carries no factor: with the defaults a step is that of Oymak
    & Soltanolkotabi, $\theta - \eta\,(f(x_i) - y_i)\nabla f(x_i)$ with one index
    uniform on all samples, drawn with replacement; and a batch of all samples without
    replacement is gradient descent. The mean step is b/n times that of gradient
    descent, with replacement or not.

    Args:
        objective: a `SquaredLoss`; its data must be the same at every step.
        network: θ₀.
        key: PRNG key. Step t draws with ``fold_in(key, t)``; without replacement epoch
            e is the order of ``permutation(fold_in(key, e), n)``.
        learning_rate: η, as in `gradient_descent`.
        num_steps: steps, not epochs.
        batch_size: b, at most n.
        replace: draw each batch anew from all samples; or pass through the samples in
            random order, epoch by epoch. If b does not divide n, an epoch ends with its
            last whole batch and leaves out n mod b samples, other ones each time.
        where: the trained leaves.
        record_every: steps between two records of the loss over *all* samples.
        recorders: as in `gradient_descent`; they see the loss over all samples too.
        target_loss: stop at the first *record* with a loss of at most this.

    Raises:
        TypeError: another objective.
        ValueError: a batch that is larger than the data, and as `gradient_descent`.
        MemoryRefusedError: more records than there is memory for.

    Cost: forward and backward passes of b samples a step, a forward pass of all n per
    record.
    """
    if not isinstance(objective, SquaredLoss):
        msg = (
            f"objective is a {type(objective).__name__}; expected a SquaredLoss, whose "
            "data can be drawn from."
        )
        raise TypeError(msg)
    n = objective.data.n
    batch_size = check_size(batch_size, "batch_size")
    if batch_size > n:
        msg = (
            f"batch_size is {batch_size} and there are {n} samples; expected at most "
            f"{n}. gradient_descent takes all of them at every step."
        )
        raise ValueError(msg)
    num_steps = check_size(num_steps, "num_steps")
    trained, rest, rate = begin(network, learning_rate, where)
    if rate is None:
        msg = "learning_rate is None; expected a positive number."
        raise ValueError(msg)
    plan = Plan(num_steps, check_interval(record_every, num_steps), stochastic=True)
    goal = goal_of(target_loss, None, trained)
    sampling = _Sampling(int(batch_size), bool(replace))
    return _sgd(
        objective,
        trained,
        rest,
        rate,
        key,
        sampling,
        plan,
        goal,
        dict(recorders or {}),
    )


class _Sampling(eqx.Module):
    batch_size: int
    replace: bool

    def start(self, n: int) -> Int[Array, " n"] | None:
        """Room for the order of an epoch."""
        return None if self.replace else jnp.arange(n, dtype=jnp.int32)

    def draw(
        self, key: PRNGKeyArray, order: Any, step: Int[Array, ""], n: int
    ) -> tuple[Int[Array, " b"], Any]:
        """Indices of the samples of a step, and the order of its epoch."""
        b = self.batch_size
        if self.replace:
            key = jrandom.fold_in(key, step)
            return jrandom.randint(key, (b,), 0, n, jnp.int32), None
        epoch, place = jnp.divmod(step, jnp.int32(n // b))
        # the step is one number for all runs, so under vmap this stays a branch
        order = jax.lax.cond(
            place == 0,
            lambda order: jrandom.permutation(
                jrandom.fold_in(key, epoch), order.size
            ).astype(order.dtype),
            lambda order: order,
            order,
        )
        return jax.lax.dynamic_slice(order, (place * b,), (b,)), order


@eqx.filter_jit
def _sgd(
    objective: SquaredLoss,
    start: PyTree,
    rest: PyTree,
    rate: Array,
    key: PRNGKeyArray,
    sampling: _Sampling,
    plan: Plan,
    goal: Goal,
    recorders: dict[str, Any],
) -> Trajectory:
    data = objective.data

    def advance(trained, order, step):
        index, order = sampling.draw(key, order, step, data.n)
        batch = (data.inputs[index], data.targets[index])
        part = eqx.tree_at(lambda o: (o.data.inputs, o.data.targets), objective, batch)
        loss, gradient = jax.value_and_grad(
            lambda trained: part(eqx.combine(trained, rest))
        )(trained)
        return Move(loss, None, jax.tree.map(lambda g: -rate * g, gradient), order)

    return follow(
        objective,
        start,
        rest,
        advance,
        sampling.start(data.n),
        plan,
        goal=goal,
        recorders=recorders,
        rate=rate,
    )
