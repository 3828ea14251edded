r"""The gap without subtraction, whether a network is a minimiser, the nearest one.

For linear and residual networks $f - f^* = \tfrac12\|X(P-P^*)^\top\|^2$. For a network
with hidden layers $f^* = 0$, and the gap the loss, once some network of its widths
interpolates: n independent inputs, at least n neurons in each hidden layer, and an
injective activation onto the line (leaky ReLU of positive slope).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from jaxrelu._checks import is_concrete
from jaxrelu._memory import require_bytes
from jaxrelu._products import matmul
from jaxrelu._results import RESULTS, throw_if_failed
from jaxrelu.activations import AbstractActivation
from jaxrelu.landscape.minimizers._matrix_products import (
    ReducedData,
    check_problem,
    layers_of,
    norm,
    reduced_data,
    reduced_residual,
    spectral_norm,
)
from jaxrelu.landscape.minimizers._nonlinear_minimizers import OutputActivated
from jaxrelu.networks import (
    DenseNetwork,
    LinearNetwork,
    LinearResidualNetwork,
    Shallow,
)
from jaxrelu.objectives import SquaredLoss


class MinimizerCheck(eqx.Module):
    r"""How far a network is from the global minimum.

    Attributes:
        gap: $f - f^*$, by the projection identity, not by a subtraction.
        minimum: $f^*$.
        tolerance: of $\sqrt{2\,gap}$: what rounding of the residual can make of 0.
        is_minimizer: whether $\sqrt{2\,gap}$ is at most the tolerance.
    """

    gap: Float[Array, "..."]
    minimum: Float[Array, "..."]
    tolerance: Float[Array, "..."]
    is_minimizer: Bool[Array, "..."]


def minimum_value(objective: SquaredLoss, network: Any) -> Float[Array, ""]:
    r"""$f^*$ over all networks of the widths and activation of this one.

    Args:
        objective: a `SquaredLoss`.
        network: linear, linear residual, or one whose widths interpolate; only its
            shape counts.

    Raises:
        TypeError, ValueError: no formula is known, see the module.
    """
    if _is_product(network):
        check_problem(objective, network)
        return _linear_minimum(objective, reduced_data(objective.data))
    check_interpolates(objective, network)
    return jnp.zeros((), objective.data.inputs.dtype)


def minimum_gap(objective: SquaredLoss, network: Any) -> Float[Array, ""]:
    r"""$f - f^*$ of this network, without cancellation; differentiable.

    Raises:
        TypeError, ValueError: no formula is known, see `minimum_value`.
    """
    residual = fitted_residual(objective, network)
    return jnp.sum(residual * residual) / 2


def fitted_residual(objective: SquaredLoss, network: Any) -> Float[Array, "..."]:
    r"""The residual without what no network of this kind can fit.

    Half its square is the gap. $RP^\top - U^\top Y$ for linear and residual networks,
    $f(X) - Y$ for the others.
    """
    if _is_product(network):
        layers = check_problem(objective, network)
        return reduced_residual(reduced_data(objective.data), layers)
    check_interpolates(objective, network)
    return objective.residual(network)


def check_minimizer(objective: SquaredLoss, network: Any) -> MinimizerCheck:
    r"""Whether this network is a global minimiser, to the rounding of its residual.

    The tolerance is $8l\epsilon\,(\|X\|\prod_k\|M_k\|_2 + \|Y\|)$, a multiple of the
    rounding of the residual's largest terms; with a bound on $\varphi'$ for each hidden
    layer of a nonlinear network.

    Raises:
        TypeError, ValueError: no formula is known, see `minimum_value`.
    """
    gap = minimum_gap(objective, network)
    tolerance = residual_tolerance(objective, network)
    minimum = minimum_value(objective, network)
    return MinimizerCheck(gap, minimum, tolerance, jnp.sqrt(2 * gap) <= tolerance)


def residual_tolerance(objective: SquaredLoss, network: Any) -> Float[Array, ""]:
    """What rounding can make of a residual that is 0: see `check_minimizer`."""
    data = objective.data
    eps = float(jnp.finfo(data.inputs.dtype).eps)
    if _is_product(network):
        layers, slope = layers_of(network), 1.0
    else:
        last = 1.0
        if isinstance(network, OutputActivated):
            last, network = network.activation.derivative_bound, network.network
        layers, activation = chain_of(network)
        slope = activation.derivative_bound ** (len(layers) - 1) * last
    size = norm(data.inputs) * slope
    for layer in layers:
        size = size * spectral_norm(jnp.atleast_2d(layer))
    return 8 * len(layers) * eps * (size + norm(data.targets))


def chain_of(network: Any) -> tuple[tuple[Array, ...], AbstractActivation]:
    """Weights and activation of a plain network with hidden layers.

    Raises:
        TypeError: another network, or biases.
    """
    if isinstance(network, Shallow):
        return (network.inner, network.outer), network.activation
    plain = isinstance(network, DenseNetwork)
    if plain and all(bias is None for bias in network.biases):
        return network.weights, network.activation
    msg = (
        f"the network is a {type(network).__name__}{' with biases' * plain}; expected "
        "a LinearNetwork, LinearResidualNetwork, Shallow, or DenseNetwork without "
        "biases."
    )
    raise TypeError(msg)


def check_interpolates(objective: SquaredLoss, network: Any) -> None:
    r"""Refuses a network for which $f^* = 0$ is not known.

    Raises:
        TypeError: an objective that is not a `SquaredLoss`; an unknown network.
        ValueError: fewer neurons than samples, dependent inputs, an activation that
            does not reach every value exactly once.
    """
    if not isinstance(objective, SquaredLoss):
        msg = f"objective is a {type(objective).__name__}; expected a SquaredLoss."
        raise TypeError(msg)
    if isinstance(network, OutputActivated):
        _check_bijective(network.activation)
        network = network.network
    weights, activation = chain_of(network)
    _check_bijective(activation)
    inputs = objective.data.inputs
    n = inputs.shape[0]
    widths = [inputs.shape[1], *(weight.shape[0] for weight in weights[:-1])]
    if min(widths) < n:
        msg = (
            f"input and hidden widths are {widths} for {n} samples; expected at least "
            f"{n} each. f* = 0 is not known then."
        )
        raise ValueError(msg)
    if is_concrete(inputs):
        values = np.linalg.svd(np.asarray(inputs), compute_uv=False)
        if not values[-1] > max(inputs.shape) * np.finfo(values.dtype).eps * values[0]:
            msg = (
                f"the {n} inputs are linearly dependent (smallest singular value "
                f"{values[-1]:.3g}); f* = 0 is not known then. Drop rows."
            )
            raise ValueError(msg)


def _check_bijective(activation: AbstractActivation) -> None:
    slopes = activation.slopes
    if slopes is None or any(is_concrete(s) and not float(s) > 0 for s in slopes):
        msg = (
            f"{activation.name} is not known to take every real value once; expected "
            "leaky ReLU of positive slope, or linear. f* = 0 is not known then."
        )
        raise ValueError(msg)


def _is_product(network: Any) -> bool:
    return isinstance(network, LinearNetwork | LinearResidualNetwork)


def _linear_minimum(objective: SquaredLoss, reduced: ReducedData) -> Array:
    data = objective.data
    fit = matmul(reduced.left, reduced.targets)
    return jnp.sum((data.targets - fit) ** 2) / 2


class Projection(eqx.Module):
    r"""A minimiser next to a network.

    Attributes:
        network: the minimiser.
        distance: from the given network, Frobenius norm over all weights.
        gap: left at the minimiser.
        obliqueness: $\|J^+J\Delta - \Delta\|/\|\Delta\|$ with the displacement
            $\Delta$: 0 where it is normal to the set, the first-order condition of
            the nearest point.
        result: `RESULTS.no_convergence` if the steps did not settle.
        num_steps: taken.
    """

    network: Any
    distance: Float[Array, ""]
    gap: Float[Array, ""]
    obliqueness: Float[Array, ""]
    result: RESULTS
    num_steps: Array


def project_to_minimizers(
    objective: SquaredLoss,
    network: Any,
    *,
    max_steps: int = 100,
    throw: bool = False,
) -> Projection:
    r"""The nearest global minimiser, from a network that is close to one.

    With $g(\theta)$ the `fitted_residual` and J its Jacobian, each step projects the
    given $\theta_0$ onto the linearised set: $\theta \leftarrow \theta_0 -
    J^+(g + J(\theta_0 - \theta))$. A fixed point has $g = 0$ and $\theta_0 - \theta$
    normal to the set. Convergence is linear, the faster the closer; which of several
    stationary points it is, is not certified.

    Args:
        objective: a `SquaredLoss`.
        network: near the set; all its weights move.
        max_steps: at most.
        throw: raise on the host if the steps did not settle.

    Raises:
        MemoryRefusedError: the dense Jacobian does not fit.
        RuntimeError: with ``throw``.

    Cost: a least squares problem of nm equations in p unknowns per step.
    """
    fitted_residual(objective, network)
    weights = all_weights(network)
    flat, _ = ravel_pytree(weights)
    rows = objective.data.targets.size
    require_bytes(
        4 * rows * flat.size * flat.dtype.itemsize,
        f"the Jacobian of shape ({rows}, {flat.size}) with its decomposition",
        "Use fewer samples: for linear networks n can be reduced to d.",
    )
    found = _project(objective, network, max_steps)
    if throw:
        throw_if_failed(found.result, "project_to_minimizers")
    return found


def all_weights(network: Any) -> Any:
    """The weights of all layers: what this chapter's conditions are about."""
    if isinstance(network, OutputActivated):
        return all_weights(network.network)
    if isinstance(network, Shallow):
        return (network.inner, network.outer)
    return network.weights


@eqx.filter_jit
def _project(objective: SquaredLoss, network: Any, max_steps: int) -> Projection:
    start, unravel = ravel_pytree(all_weights(network))

    def with_weights(flat: Array) -> Any:
        return eqx.tree_at(all_weights, network, unravel(flat))

    def residual(flat: Array) -> Array:
        return fitted_residual(objective, with_weights(flat)).reshape(-1)

    eps = float(jnp.finfo(start.dtype).eps)
    size = 1 + norm(start)

    def linear(flat: Array) -> tuple[Array, Callable]:
        matrix = jax.jacfwd(residual)(flat)
        left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
        real = values > 16 * max(matrix.shape) * eps * values[0]
        inverse = jnp.where(real, 1 / jnp.where(real, values, 1), 0)
        solve = lambda b: matmul(right.T, inverse * matmul(left.T, b))
        return matrix, solve

    def step(carry):
        flat, _, count = carry
        matrix, solve = linear(flat)
        after = start - solve(residual(flat) + matmul(matrix, start - flat))
        return after, norm(after - flat), count + 1

    def going(carry):
        _, move, count = carry
        return (move > 16 * eps * size) & (count < max_steps)

    first = (start, jnp.asarray(jnp.inf, start.dtype), jnp.zeros((), jnp.int32))
    flat, move, count = jax.lax.while_loop(going, step, first)
    away = start - flat
    matrix, solve = linear(flat)
    oblique = norm(solve(matmul(matrix, away)) - away)
    distance = norm(away)
    settled = move <= 16 * eps * size
    successful: Any = RESULTS.successful
    return Projection(
        network=with_weights(flat),
        distance=distance,
        gap=jnp.sum(residual(flat) ** 2) / 2,
        obliqueness=oblique / jnp.where(distance > 0, distance, 1),
        result=RESULTS.where(settled, successful, RESULTS.no_convergence),
        num_steps=count,
    )
