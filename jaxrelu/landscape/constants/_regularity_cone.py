r"""The regularity condition at a minimiser, along a cone of directions.

$\langle\nabla f(W), W - W^*\rangle \ge \alpha\|\nabla f(W)\|^2 + \beta\|W - W^*\|^2$ at
a fixed $W^*$ cannot hold in a full neighbourhood, as the minimisers are not isolated.
With J* the Jacobian at $W^*$, it holds for directions in

$$\mathcal D_\kappa = \{\Delta: \|J^*\Delta\| \ge \kappa\|\Delta\|\}
= \{\Delta: \Delta^\top\nabla^2f(W^*)\Delta \ge \kappa^2\|\Delta\|^2\}$$

of norm at most $\rho$, see `regularity_cone`. Full rank of $W^*$ is not needed. It is
no promise to gradient descent, whose iterates leave the cone; with respect to the
nearest minimiser it is one (`project_to_minimizers`, $\kappa = \sigma_{\min}^+$ there).
Re-derived: the constants of arXiv 1710.06910 are not confirmed.
"""

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from jaxrelu._products import matmul
from jaxrelu.landscape.constants._nonlinear_dominance import (
    shallow_lipschitz,
    sign_radius,
)
from jaxrelu.landscape.constants._quadratic_conditions import RegularityCondition
from jaxrelu.landscape.constants._rates import nonzero_modes
from jaxrelu.landscape.minimizers._gauss_newton_spectrum import residual_jacobian
from jaxrelu.landscape.minimizers._matrix_products import (
    check_problem,
    layers_of,
    norm,
    product_lipschitz,
    reduced_data,
    spectral_norm,
)
from jaxrelu.landscape.minimizers._minimizer_set import (
    fitted_residual,
    residual_tolerance,
)
from jaxrelu.networks import LinearNetwork, LinearResidualNetwork, Shallow
from jaxrelu.objectives import SquaredLoss


EPSILON_LIMIT = (math.sqrt(17) - 3) / 2
r"""$(\sqrt{17}-3)/2$: where $1-\frac32\epsilon-\frac12\epsilon^2$ becomes 0."""

_HALVINGS = 60


class RegularityCone(eqx.Module):
    r"""Constants of the regularity condition for displacements of a cone and a ball.

    Attributes:
        radius: $\rho$, Frobenius norm of the displacement.
        alpha: of $\|\nabla f\|^2$.
        beta: of $\|W - W^*\|^2$; $4\alpha\beta \le 1$.
        kappa: of the cone.
        epsilon: $L_J(\rho)\rho/\kappa$.
        lipschitz: $L_J(\rho)$.
        largest: $\|J^*\|_2$.
        smallest: $\sigma_{\min}^+(J^*)$.
        is_minimizer: whether the centre's residual is 0 to rounding; the constants
            are worth nothing otherwise.
    """

    radius: Float[Array, "..."]
    alpha: Float[Array, "..."]
    beta: Float[Array, "..."]
    kappa: Float[Array, "..."]
    epsilon: Float[Array, "..."]
    lipschitz: Float[Array, "..."]
    largest: Float[Array, "..."]
    smallest: Float[Array, "..."]
    is_minimizer: Bool[Array, "..."]

    @property
    def condition(self) -> RegularityCondition:
        r"""RC($\alpha,\beta$), for rates and conversions."""
        return RegularityCondition(self.alpha, self.beta)


class _Place(NamedTuple):
    """A minimiser, κ, and the ends of the Jacobian's spectrum there."""

    objective: SquaredLoss
    network: Any
    kappa: Array
    smallest: Array
    largest: Array
    valid: Array


def regularity_cone(
    objective: SquaredLoss,
    network: Any,
    *,
    kappa: float | Float[Array, ""] | None = None,
    angle: float = math.pi / 3,
    epsilon: float = 0.25,
    gamma: float = 0.5,
) -> RegularityCone:
    r"""Radius, α and β for the cone of a κ at a global minimiser.

    **Theorem.** Let $\epsilon < (\sqrt{17}-3)/2$, $0 < \gamma < 1$,
    $L_J(\rho)\rho \le \epsilon\kappa$. For $\Delta \in \mathcal D_\kappa$,
    $\|\Delta\| \le \rho$, RC holds at $W^* + \Delta$ with
    $c = 1 - \tfrac32\epsilon - \tfrac12\epsilon^2$ and

    $$\alpha = \frac{\gamma c}{\|J^*\|_2^2(1+\epsilon)^2(1+\epsilon/2)^2}, \qquad
    \beta = (1-\gamma)c\,\kappa^2.$$

    *Proof.* With $a = \|J^*\Delta\|$, the residual is $J^*\Delta + R$,
    $\|R\| \le \tfrac12L_J\|\Delta\|^2 \le \tfrac\epsilon2a$, and
    $J(W)\Delta = J^*\Delta + Q$, $\|Q\| \le \epsilon a$. So $\langle\nabla f,
    \Delta\rangle = \langle r, J(W)\Delta\rangle \ge ca^2$, and $\|\nabla f\| \le
    \|J^*\|_2(1+\epsilon)(1+\epsilon/2)a$ as $L_J\rho \le \epsilon\kappa \le
    \epsilon\|J^*\|_2$. Split $ca^2$ in parts γ and 1 − γ. $\square$

    Args:
        objective: a `SquaredLoss`.
        network: a global minimiser: linear or residual, or `Shallow` of loss 0 away
            from kinks; all weights move.
        kappa: κ in $(0, \|J^*\|_2]$; by default $\sigma_{\min}^+(J^*)\cos$ `angle`,
            which takes in all directions within that angle of the normal space.
        angle: below π/2.
        epsilon: ε.
        gamma: γ.

    Raises:
        ValueError: ε, γ or the angle out of range.
        TypeError: a network without a known $L_J$.
    """
    _check_open(epsilon, EPSILON_LIMIT, "epsilon")
    _check_open(gamma, 1.0, "gamma")
    place = _place(objective, network, kappa, angle)
    dtype = place.kappa.dtype
    return _cone(place, jnp.asarray(epsilon, dtype), jnp.asarray(gamma, dtype))


@eqx.filter_jit
def _cone(place: _Place, epsilon: Array, gamma: Array) -> RegularityCone:
    """`regularity_cone`; ε and γ are traced, so that others compile nothing."""
    asked = jnp.minimum(place.kappa, place.largest)

    def lipschitz(radius: Array) -> Array:
        return _lipschitz(place.objective, place.network, radius)

    limit = _limit(place.objective, place.network)
    none = jnp.zeros_like(asked)
    flat = lipschitz(none)
    high = jnp.where(flat > 0, epsilon * asked / jnp.where(flat > 0, flat, 1), jnp.inf)
    high = jnp.minimum(high, limit)

    def fits(radius: Array) -> Array:
        bound = lipschitz(jnp.where(jnp.isfinite(radius), radius, 0))
        grown = jnp.where(bound > 0, bound * radius, 0)
        return grown <= epsilon * asked

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = low + (high - low) / 2
        good = fits(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    finite = jnp.where(jnp.isfinite(high), high, 0)
    low, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (none, finite))
    radius = jnp.where(fits(high), high, low)
    alpha, beta = cone_pair(epsilon, gamma, place.largest, asked)
    bound = lipschitz(jnp.where(jnp.isfinite(radius), radius, 0))
    ends = (place.largest, place.smallest, place.valid)
    return RegularityCone(radius, alpha, beta, asked, epsilon, bound, *ends)


def regularity_on_ball(
    objective: SquaredLoss,
    network: Any,
    radius: float | Float[Array, ""],
    *,
    kappa: float | Float[Array, ""] | None = None,
    angle: float = math.pi / 3,
    gamma: float = 0.5,
) -> RegularityCone:
    r"""The same theorem for a given radius: $\epsilon = L_J(\rho)\rho/\kappa$ follows.

    α = β = 0 where ε is too large: nothing is proved for so large a ball.

    Args:
        objective: a `SquaredLoss`.
        network: a global minimiser, as in `regularity_cone`.
        radius: ρ.
        kappa: κ; see there.
        angle: see there.
        gamma: γ.
    """
    _check_open(gamma, 1.0, "gamma")
    place = _place(objective, network, kappa, angle)
    dtype = place.kappa.dtype
    return _on_ball(place, jnp.asarray(radius, dtype), jnp.asarray(gamma, dtype))


@eqx.filter_jit
def _on_ball(place: _Place, radius: Array, gamma: Array) -> RegularityCone:
    """`regularity_on_ball`."""
    kappa = jnp.minimum(place.kappa, place.largest)
    bound = _lipschitz(place.objective, place.network, radius)
    epsilon = jnp.where(radius > 0, bound * radius, 0) / kappa
    proved = epsilon < EPSILON_LIMIT
    safe = jnp.where(proved, epsilon, 0)
    alpha, beta = cone_pair(safe, gamma, place.largest, kappa)
    pair = (jnp.where(proved, alpha, 0), jnp.where(proved, beta, 0))
    ends = (place.largest, place.smallest, place.valid)
    return RegularityCone(radius, *pair, kappa, epsilon, bound, *ends)


def sharp_regularity(
    objective: SquaredLoss, network: Any, angle: float = 0.0
) -> RegularityCondition:
    r"""Small displacements: $\alpha = 1/(m+M)$, $\beta = mM\cos^2\theta/(m+M)$.

    m and M are the smallest non-zero and the largest eigenvalue of the Hessian. For
    every $\alpha' < \alpha$, $\beta' < \beta$ RC holds close enough to $W^*$ within
    the angle θ of the normal space; for θ = 0 no pair with the same α and a larger β
    does, if both extremes are reached: at h = m and h = M, $h = \alpha h^2 + \beta$.
    """
    smallest, largest, _ = _curvatures(objective, network)
    low, high = smallest**2, largest**2
    return RegularityCondition(
        1 / (low + high), low * high * math.cos(angle) ** 2 / (low + high)
    )


def cone_ratio(
    objective: SquaredLoss, network: Any, displacement: Any
) -> Float[Array, ""]:
    r"""$\|J^*\Delta\|/\|\Delta\|$: Δ is in $\mathcal D_\kappa$ iff this is at least κ.

    Args:
        objective: a `SquaredLoss`.
        network: the minimiser.
        displacement: Δ, as a pytree of the weights' shapes or flat in their order.
    """
    flat = ravel_pytree(displacement)[0]
    return norm(residual_jacobian(objective, network).mv(flat)) / norm(flat)


def sample_cone(
    key: PRNGKeyArray,
    objective: SquaredLoss,
    network: Any,
    count: int,
    angle: float = math.pi / 3,
) -> Float[Array, "count p"]:
    r"""Random unit directions at exactly the given angle to the normal space.

    $\cos\theta\,u + \sin\theta\,v$ with u and v uniform in the unit spheres of the
    range of $J^{*\top}$ and of the kernel; they lie in $\mathcal D_\kappa$ for $\kappa
    = \sigma_{\min}^+\cos\theta$. If there is no kernel, v is left out.
    """
    matrix = residual_jacobian(objective, network).as_matrix()
    share = jnp.asarray([math.cos(angle), math.sin(angle)], matrix.dtype)
    return _directions(matrix, key, count, share)


@functools.partial(jax.jit, static_argnums=2)
def _directions(matrix: Array, key: PRNGKeyArray, count: int, share: Array) -> Array:
    values, right = jnp.linalg.svd(matrix, full_matrices=True)[1:]
    real = (
        jnp.zeros(right.shape[0], bool)
        .at[: values.shape[0]]
        .set(nonzero_modes(values**2))
    )
    draws = jrandom.normal(key, (count, right.shape[0]), matrix.dtype)
    normal = matmul(jnp.where(real, draws, 0), right)
    kernel = matmul(jnp.where(real, 0, draws), right)
    unit = lambda v: (
        v
        / jnp.maximum(
            jnp.sqrt(jnp.sum(v**2, axis=1, keepdims=True)), jnp.finfo(v.dtype).tiny
        )
    )
    return share[0] * unit(normal) + share[1] * unit(kernel)


def kernel_failure(
    objective: SquaredLoss,
    network: LinearNetwork,
    direction: Float[Array, "h h"],
    t: float | Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    r"""Why there is no RC along the kernel: gap, inner product and $\|\Delta\|^2$.

    Two layers, $\Delta = t(KW_1, -W_2K)$, in the kernel of the Hessian:

    $$f - f^* = \tfrac12\|\Delta_2\Delta_1X^\top\|^2, \qquad
    \langle\nabla f, \Delta\rangle = 2\|\Delta_2\Delta_1X^\top\|^2 = O(t^4),$$

    while $\|\Delta\|^2$ is $O(t^2)$: for every β > 0 RC fails for small t.

    Args:
        objective: a `SquaredLoss`.
        network: a minimiser of two layers.
        direction: K, square of the hidden width.
        t: length.

    Raises:
        ValueError: not two layers, or K of a wrong shape.
    """
    layers = check_problem(objective, network)
    width = layers[0].shape[0]
    if len(layers) != 2 or direction.shape != (width, width):
        msg = (
            f"got {len(layers)} layers and a direction of shape {direction.shape}; "
            f"expected 2 layers and ({width}, {width})."
        )
        raise ValueError(msg)
    first = t * matmul(direction, layers[0])
    second = -t * matmul(layers[1], direction)
    root = reduced_data(objective.data).root
    square = jnp.sum(matmul(matmul(second, first), root.T) ** 2)
    return square / 2, 2 * square, jnp.sum(first**2) + jnp.sum(second**2)


def _curvatures(objective: SquaredLoss, network: Any) -> tuple[Array, Array, Array]:
    _check_network(network)
    values = jnp.linalg.eigvalsh(residual_jacobian(objective, network).gram())
    real = nonzero_modes(values)
    smallest = jnp.sqrt(jnp.min(jnp.where(real, values, jnp.inf)))
    if isinstance(network, Shallow):
        residual = objective.residual(network)
    else:
        residual = fitted_residual(objective, network)
    valid = norm(residual) <= residual_tolerance(objective, network)
    return smallest, jnp.sqrt(values[-1]), valid


def _check_network(network: Any) -> None:
    if not isinstance(network, LinearNetwork | LinearResidualNetwork | Shallow):
        msg = (
            f"the network is a {type(network).__name__}; expected a LinearNetwork, a "
            "LinearResidualNetwork or a Shallow: no Lipschitz constant of the "
            "Jacobian is known for others."
        )
        raise TypeError(msg)


def _lipschitz(objective: SquaredLoss, network: Any, radius: Array) -> Array:
    inputs = objective.data.inputs
    if isinstance(network, Shallow):
        return shallow_lipschitz(network, inputs, radius)
    return product_lipschitz(layers_of(network), spectral_norm(inputs), radius)


def _limit(objective: SquaredLoss, network: Any) -> Array:
    if isinstance(network, Shallow):
        return sign_radius(network, objective.data.inputs)
    return jnp.asarray(jnp.inf, objective.data.inputs.dtype)


def _place(objective: SquaredLoss, network: Any, kappa: Any, angle: float) -> _Place:
    smallest, largest, valid = _curvatures(objective, network)
    if kappa is not None:
        kappa = jnp.asarray(kappa, smallest.dtype)
    elif 0 <= angle < math.pi / 2:
        kappa = smallest * math.cos(angle)
    else:
        msg = f"angle is {angle}; expected at least 0 and below pi/2."
        raise ValueError(msg)
    return _Place(objective, network, kappa, smallest, largest, valid)


def cone_pair(epsilon: Any, gamma: Any, largest: Any, kappa: Any) -> tuple[Any, Any]:
    """α and β of the theorem in `regularity_cone`."""
    left = 1 - 1.5 * epsilon - 0.5 * epsilon**2
    alpha = gamma * left / (largest * (1 + epsilon) * (1 + epsilon / 2)) ** 2
    return alpha, (1 - gamma) * left * kappa**2


def _check_open(value: float, limit: float, name: str) -> None:
    if not 0 < value < limit:
        msg = f"{name} is {value}; expected strictly between 0 and {limit:.6g}."
        raise ValueError(msg)
