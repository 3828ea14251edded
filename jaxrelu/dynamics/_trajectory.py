"""What a run leaves behind, and what a recorder sees on the way."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from jaxrelu._results import RESULTS


class Trajectory(eqx.Module):
    r"""What a run of training recorded, r times, at the steps ``steps``.

    Attributes:
        network: the last iterate; of a diverged run the last one with a finite loss.
        losses: $L(\theta_t)$, (r,).
        distances: $\|\theta_t - \theta_0\|_2$ over the trained leaves, (r,).
        path_lengths: $\sum_{s < t} \|\theta_{s+1} - \theta_s\|_2$, (r,).
        result: `RESULTS.successful`; `RESULTS.diverged` when a loss or an iterate
            stopped being finite; `RESULTS.no_convergence` when a tolerance was given
            and not reached.
        learning_rate: the step size; None for an optimiser that was given whole.
        steps: t of each record, (r,). A run that stopped early repeats its last record.
        num_steps: t of ``network``.
        diverged_at: t of the first iterate that was not finite (or whose loss was not);
            -1 for all other runs.
        records: what each recorder gave, under its name, with an axis (r,) in front.
    """

    network: PyTree
    losses: Float[Array, " steps"]
    distances: Float[Array, " steps"]
    path_lengths: Float[Array, " steps"]
    result: RESULTS
    learning_rate: Float[Array, ""] | None
    steps: Int[Array, " steps"]
    num_steps: Int[Array, ""]
    diverged_at: Int[Array, ""]
    records: dict[str, PyTree]


class Point(eqx.Module):
    r"""Where a run is: what a recorder is called with.

    Attributes:
        objective: L.
        trained: the trained leaves of $\theta_t$, None in the place of the others.
        start: the same of $\theta_0$.
        rest: the leaves that do not train.
        loss: $L(\theta_t)$.
        gradient: $\nabla L(\theta_t)$ in the structure of ``trained``; costs nothing
            unless used.
        path_length: $\sum_{s<t}\|\theta_{s+1}-\theta_s\|$.
        step: t; for gradient flow the time.
    """

    objective: Any
    trained: PyTree
    start: PyTree
    rest: PyTree
    loss: Float[Array, ""]
    gradient: PyTree
    path_length: Float[Array, ""]
    step: Array

    @property
    def network(self) -> Any:
        r"""$\theta_t$, whole."""
        return eqx.combine(self.trained, self.rest)

    @property
    def start_network(self) -> Any:
        r"""$\theta_0$, whole."""
        return eqx.combine(self.start, self.rest)

    @property
    def where(self) -> Callable:
        """Picks the trained leaves, for `jaxrelu.jacobian` and its like."""
        marks = jax.tree.leaves(
            jax.tree.map(lambda _, leaf: leaf is not None, self.network, self.trained)
        )

        def pick(tree):
            pairs = zip(jax.tree.leaves(tree), marks, strict=True)
            return [leaf for leaf, mark in pairs if mark]

        return pick

    @property
    def residual(self) -> Float[Array, "..."]:
        r"""$f_{\theta_t}(X) - y$, of an objective that has one.

        Raises:
            TypeError: the objective has no ``residual``.
        """
        if not hasattr(self.objective, "residual"):
            msg = (
                f"the objective is a {type(self.objective).__name__}, which has no "
                "residual; expected a SquaredLoss or another objective over data."
            )
            raise TypeError(msg)
        return self.objective.residual(self.network)

    @property
    def displacement(self) -> PyTree:
        r"""$\theta_t - \theta_0$, leaf by leaf."""
        return jax.tree.map(jnp.subtract, self.trained, self.start)

    @property
    def distance(self) -> Float[Array, ""]:
        r"""$\|\theta_t - \theta_0\|_2$ over the trained leaves."""
        return norm(self.displacement)


def norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm over all leaves, with derivative 0 where it is 0."""
    square = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))
    square = jnp.asarray(square)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


@eqx.filter_jit
def evaluate(objective: Any, trained: PyTree, rest: PyTree) -> tuple[Array, PyTree]:
    """Loss and gradient; a jitted function of its own, so that it is traced once."""
    return jax.value_and_grad(lambda trained: objective(eqx.combine(trained, rest)))(
        trained
    )


def point_at(
    objective: Any,
    trained: PyTree,
    start: PyTree,
    rest: PyTree,
    path_length: Array,
    step: Array,
) -> Point:
    """A `Point` with its loss and gradient."""
    loss, gradient = evaluate(objective, trained, rest)
    return Point(objective, trained, start, rest, loss, gradient, path_length, step)


def prepared(recorders: dict[str, Any], start: Point) -> dict[str, Any]:
    """Recorders that want to see the start first have seen it."""
    return {
        name: recorder.prepare(start) if hasattr(recorder, "prepare") else recorder
        for name, recorder in recorders.items()
    }
