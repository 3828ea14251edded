r"""Perturbed gradient descent: the same noise for every neuron, before each step.

The algorithm of Theorem 13 of Safran, Yehudai and Shamir. Their guarantee,
$\|W_T - \tilde W\|^2 \le \delta$ with high probability, does not hold: the contraction
step of the proof leaves out the noise that is injected. For $\frac12\|w\|^2$ the stated
parameters have the stationary mean square `stationary_variance` of at least
$2\,(1-\eta)^2$, whatever $\delta$. And on the manifold of global minima nothing pulls
towards a particular $\tilde W$. So the algorithm is here, and what it does; the
guarantee is not.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxrelu._checks import check_positive, check_size, is_concrete
from jaxrelu.dynamics._descent import begin
from jaxrelu.dynamics._engine import Goal, Move, Plan, follow
from jaxrelu.dynamics._trajectory import Trajectory, evaluate


class PerturbationParameters(eqx.Module):
    r"""What Theorem 13 asks for; see `perturbation_parameters`.

    Attributes:
        learning_rate: upper bound on $\eta$, itself excluded.
        noise: $\alpha = \delta/4n$.
        num_steps: lower bound on T at that $\eta$.
    """

    learning_rate: float
    noise: float
    num_steps: float


def perturbed_gradient_descent(
    objective: Callable[[Any], Float[Array, ""]],
    network: PyTree,
    key: PRNGKeyArray,
    *,
    learning_rate: Any,
    noise: Any,
    num_steps: int,
    where: Callable | None = None,
) -> Trajectory:
    r"""$\hat w_i = w_i + \alpha\xi$ for all $i$, $W^+ = \hat W - \eta\nabla F(\hat W)$.

    One $\xi \sim N(0, I_d/d)$ per step and trained leaf, added to each of its rows.
    (The paper prints the covariance $I_d/\sqrt d$; its bounds $\frac12 < \|\xi\|^2$
    and $\|\xi\| \le 1.5$ need $I_d/d$.)

    Args:
        objective: network → scalar; a module, so that its data are traced arguments.
        network: $W_0$.
        key: PRNG key.
        learning_rate: $\eta$, a positive number or a scalar array.
        noise: $\alpha$, at least 0, a number or a scalar array; 0 is gradient descent.
        num_steps: T, at least 1.
        where: the trained leaves, at least one axis each; None takes the network's
            default.

    Returns:
        A `Trajectory` of the iterates $W_t$ (not of $\hat W_t$); its path lengths count
        the noise.

    Raises:
        ValueError: a step size that is not positive, negative noise, no steps, nothing
            to train, a scalar leaf.

    Cost: T passes forward at $W_t$, and T forward and backward at $\hat W_t$.

    Source: Theorem 13; its guarantee fails, see `stationary_variance`.
    """
    known = is_concrete(noise) and jnp.ndim(noise) == 0
    if jnp.ndim(noise) or (known and not 0 <= float(noise) < math.inf):
        msg = f"noise is {noise}; expected a finite number of at least 0."
        raise ValueError(msg)
    num_steps = check_size(num_steps, "num_steps")
    trained, rest, rate = begin(network, learning_rate, where)
    if any(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(trained)):
        msg = "a trained leaf is a scalar; expected neurons along the last axis."
        raise ValueError(msg)
    if rate is None:
        msg = "learning_rate is None; expected a positive number."
        raise ValueError(msg)
    size = jnp.asarray(noise, rate.dtype)
    return _descend(objective, trained, rest, rate, size, key, num_steps)


@eqx.filter_jit
def _descend(
    objective: Callable,
    start: PyTree,
    rest: PyTree,
    rate: Array,
    size: Array,
    key: PRNGKeyArray,
    num_steps: int,
) -> Trajectory:
    steps = jrandom.split(key, num_steps)

    def advance(trained, state, step):
        leaves, structure = jax.tree.flatten(trained)
        keys = jrandom.split(steps[step], len(leaves))
        moves = [
            jnp.broadcast_to(size * _neuron_noise(key, leaf), leaf.shape)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        noise = jax.tree.unflatten(structure, moves)
        shaken = jax.tree.map(jnp.add, trained, noise)
        _, gradient = evaluate(objective, shaken, rest)
        update = jax.tree.map(lambda move, g: move - rate * g, noise, gradient)
        loss, _ = evaluate(objective, trained, rest)
        return Move(loss, gradient, update, state)

    return follow(
        objective,
        start,
        rest,
        advance,
        None,
        Plan(num_steps, 1),
        goal=Goal(None, None),
        recorders={},
        rate=rate,
    )


def _neuron_noise(key: PRNGKeyArray, leaf: Array) -> Array:
    d = leaf.shape[-1]
    shape = (1,) * (leaf.ndim - 1) + (d,)
    return jrandom.normal(key, shape, leaf.dtype) / math.sqrt(d)


def perturbation_parameters(
    delta: float, curvature: float, smoothness: float, num_neurons: int
) -> PerturbationParameters:
    r"""The parameters that Theorem 13 states, for an accuracy $\delta$.

    $\eta < \lambda\delta^2/64L^2$, $\alpha = \delta/4n$ and
    $T > \log\delta / \log(1 - \eta\lambda\delta^2/64)$. They do not give
    $\|W_T - \tilde W\|^2 \le \delta$, see `stationary_variance`.

    Args:
        delta: $\delta$ in (0, 1).
        curvature: $\lambda$ in $g^\top\nabla^2F g \ge \lambda\|\sum_i g_i\|^2$.
        smoothness: L, a Lipschitz constant of the gradient.
        num_neurons: n.

    Raises:
        ValueError: numbers out of range.
    """
    check_positive(delta, "delta")
    check_positive(curvature, "curvature")
    check_positive(smoothness, "smoothness")
    check_positive(num_neurons, "num_neurons")
    if delta >= 1:
        msg = f"delta is {delta}; expected less than 1."
        raise ValueError(msg)
    if curvature > smoothness:
        msg = (
            f"curvature is {curvature} and smoothness {smoothness}; expected the "
            "smoothness to be at least as large."
        )
        raise ValueError(msg)
    rate = curvature * delta**2 / (64 * smoothness**2)
    steps = math.log(delta) / math.log1p(-rate * curvature * delta**2 / 64)
    return PerturbationParameters(rate, delta / (4 * num_neurons), steps)


def stationary_variance(learning_rate: Any, noise: Any) -> Float[Array, ""]:
    r"""$\lim E\|w\|^2 = (1-\eta)^2\alpha^2 / (1 - (1-\eta)^2)$ on $\frac12\|w\|^2$.

    The fixed point of $E\|w^+\|^2 = (1-\eta)^2(E\|w\|^2 + \alpha^2)$. There n = 1 and
    $\lambda = L = 1$, all of Theorem 13's conditions hold, and with its parameters this
    is $(1-\eta)^2\delta^2/(16\eta(2-\eta)) > 2(1-\eta)^2$, far above $\delta$.

    Args:
        learning_rate: $\eta$ in (0, 2).
        noise: $\alpha$.

    Raises:
        ValueError: a step size out of range.
    """
    rate = jnp.asarray(learning_rate)
    if is_concrete(rate) and not bool(((rate > 0) & (rate < 2)).all()):
        msg = f"learning_rate is {learning_rate}; expected numbers in (0, 2)."
        raise ValueError(msg)
    return ((1 - rate) * noise) ** 2 / (rate * (2 - rate))
