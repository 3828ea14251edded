r"""From a point: does gradient descent provably converge, how fast, how near.

On balls of many radii R around the network, $\mu_R$ of `dominance_theorem` and

$$L_R = \min\bigl(\|X\|_2^2\textstyle\sum_k\prod_{j\ne k}w_j^2,\;
(\|J_0\|_2 + L_J(R)R)^2\bigr) + L_J(R)\sqrt{2\Delta_0}, \quad w_j = \|M_j\|_2 + R,$$

a bound on the Hessian where $f \le f(W_0)$: it is $J^\top J$ and the second derivative
of the residual, weighted by the part of the residual that can be fitted, of norm at
most $\sqrt{2\Delta_0}$. Then `certify_local_convergence` decides. A network with a kink
is smooth in the ball where no sign changes, and only such balls count.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrelu.landscape.constants._dominance_theorem import ball_constants, has_theorem
from jaxrelu.landscape.constants._rates import certify_local_convergence
from jaxrelu.landscape.minimizers._matrix_products import (
    layers_of,
    products_of_others,
    reduced_data,
    spectral_norm,
)
from jaxrelu.networks import LinearNetwork, LinearResidualNetwork, Shallow
from jaxrelu.objectives import SquaredLoss


class LocalCertificate(eqx.Module):
    r"""What is proved of gradient descent started at a network.

    Attributes:
        certified: whether it converges to a global minimiser; then all iterates stay
            within `radius`, $\Delta_k \le$ `factor`$^k\Delta_0$, and
            $\|W_k - W_\infty\| \le$ `length` · `factor`$^{k/2}$.
        radius: R, of the ball that was best, or nearest to a certificate.
        length: bound on the length of the path, the distance to the limit included.
        margin: radius / length: at least 1 if certified.
        factor: of the gap per step; infinite for a step that is not allowed.
        step: η.
        gap: $\Delta_0 = f(W_0) - f^*$.
        mu: $\mu_R$, the constant of Polyak and Łojasiewicz on the ball.
        smoothness: $L_R$.
    """

    certified: Bool[Array, ""]
    radius: Float[Array, ""]
    length: Float[Array, ""]
    margin: Float[Array, ""]
    factor: Float[Array, ""]
    step: Float[Array, ""]
    gap: Float[Array, ""]
    mu: Float[Array, ""]
    smoothness: Float[Array, ""]


def local_certificate(
    objective: Any,
    network: Any,
    *,
    step: float | Float[Array, ""] | None = None,
    num_radii: int = 128,
) -> LocalCertificate:
    r"""Whether gradient descent from this network provably finds a global minimiser.

    For linear and residual networks with hidden layers no narrower than both ends, and
    for a `Shallow`, smooth or with a kink; all weights train. With hidden activations
    the certificate proves that the loss tends to 0, hence $f^* = 0$. Rounding of the
    formulas is not enclosed.

    Args:
        objective: a `SquaredLoss`.
        network: $W_0$.
        step: η; $1/L_R$ for each ball by default.
        num_radii: balls tried, radii in geometric progression.

    Raises:
        TypeError: a network or objective without such a theorem.

    Cost: $O((md)^3)$ once and $O(l^3)$ per radius, or a few products of the size of the
    data for a shallow network.
    """
    kinds = LinearNetwork | LinearResidualNetwork | Shallow
    if not (isinstance(network, kinds) and has_theorem(objective, network)):
        msg = (
            f"no certificate for a {type(network).__name__} and a "
            f"{type(objective).__name__}; expected a SquaredLoss and a LinearNetwork, "
            "LinearResidualNetwork (no narrow layers) or Shallow."
        )
        raise TypeError(msg)
    if step is not None:  # an array: a number would be compiled in
        step = jnp.asarray(step, objective.data.inputs.dtype)
    return _certify(objective, network, step, num_radii)


@eqx.filter_jit
def _certify(
    objective: SquaredLoss, network: Any, step: Any, num_radii: int
) -> LocalCertificate:
    dtype = objective.data.inputs.dtype
    layers = _layers(network)
    scale = jnp.max(jnp.stack([spectral_norm(layer) for layer in layers]))
    span = jnp.logspace(-6, 0.5, num_radii, dtype=dtype)
    radii = scale * span

    def at(radius: Array) -> tuple[Array, Array, Array]:
        here = ball_constants(objective, network, radius)
        mu = jnp.maximum(here.layers_mu, here.jacobian_mu(radius))
        inside = radius < here.limit
        top = (here.largest + here.lipschitz * radius) ** 2
        if not isinstance(network, Shallow):
            norms = jnp.stack([spectral_norm(layer) for layer in layers]) + radius
            size = reduced_data(objective.data).largest
            by_layers = size**2 * jnp.sum(products_of_others(norms) ** 2)
            top = jnp.minimum(top, by_layers)
        smooth = top + here.lipschitz * here.residual
        return jnp.where(inside, mu, 0), smooth, here.residual**2 / 2

    mu, smooth, gaps = jax.vmap(at)(radii)
    finite = jnp.isfinite(smooth)
    mu, smooth = jnp.where(finite, mu, 0), jnp.where(finite, smooth, 1)
    if step is not None:
        step = jnp.broadcast_to(jnp.asarray(step, dtype), radii.shape)
    tried = certify_local_convergence(gaps, mu, smooth, radii, step)
    # among certified balls the fastest, otherwise the one nearest to a certificate
    worth = jnp.where(tried.certified, 2 - tried.factor, -1 / (1 + tried.margin))
    best = jnp.argmax(jnp.where(jnp.isnan(worth), -jnp.inf, worth))
    return LocalCertificate(
        certified=tried.certified[best],
        radius=radii[best],
        length=tried.length[best],
        margin=tried.margin[best],
        factor=tried.factor[best],
        step=tried.step[best],
        gap=gaps[best],
        mu=mu[best],
        smoothness=smooth[best],
    )


def _layers(network: Any) -> tuple[Array, ...]:
    if isinstance(network, Shallow):
        return network.inner, jnp.atleast_2d(network.outer)
    return layers_of(network)
