r"""Gradient dominance on a ball, proved, for the networks that have a theorem.

Two bounds on $\mu = 1/(2\lambda)$, of which the larger is taken: singular values of the
layers (and features) lowered by the radius, and
$(\sigma_{\min}(J_0) - L_J(\delta)\delta)_+^2$, which tends to the best possible value
as the ball shrinks. Rounding of the formulas is not enclosed, except that of
$\lambda_{\min}(JJ^\top)$.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrelu.landscape.constants._gradient_dominance import layer_products
from jaxrelu.landscape.constants._nonlinear_dominance import (
    feature_mu,
    shallow_lipschitz,
    sign_radius,
)
from jaxrelu.landscape.minimizers._gauss_newton_spectrum import (
    residual_jacobian,
    smallest_normal_eigenvalue,
)
from jaxrelu.landscape.minimizers._matrix_products import (
    check_problem,
    half_inverse,
    is_wide,
    layers_of,
    product_lipschitz,
    reduced_data,
    spectral_norm,
)
from jaxrelu.landscape.minimizers._minimizer_set import fitted_residual
from jaxrelu.landscape.minimizers._nonlinear_minimizers import OutputActivated
from jaxrelu.networks import (
    DenseNetwork,
    LinearNetwork,
    LinearResidualNetwork,
    Shallow,
)
from jaxrelu.objectives import SquaredLoss


class TheoremCondition(eqx.Module):
    r"""One inequality, left > right, that a theorem needs.

    Attributes:
        left: its left side.
        right: its right side.
        name: the inequality in words and symbols.
    """

    left: Float[Array, "..."]
    right: Float[Array, "..."]
    name: str = eqx.field(static=True)

    @property
    def met(self) -> Bool[Array, "..."]:
        """Whether it holds; False when a side is NaN."""
        return self.left > self.right


class DominanceTheorem(eqx.Module):
    r"""$f - f^* \le \lambda\|\nabla f\|^2$ on a ball, proved.

    Attributes:
        value: $\lambda$; infinite if nothing is proved for this radius.
        by_layers: $\lambda$ by singular values of the layers lowered by the radius.
        by_jacobian: $\lambda$ by $\sigma_{\min}(J_0) - L_J(\delta)\delta$; infinite
            where no $L_J$ is known.
        radius: δ, Frobenius, of all weights together.
        conditions: at least one must be met for `value` to be finite.
        method: where it comes from, in words.
    """

    value: Float[Array, "..."]
    by_layers: Float[Array, "..."]
    by_jacobian: Float[Array, "..."]
    radius: Float[Array, "..."]
    conditions: tuple[TheoremCondition, ...]
    method: str = eqx.field(static=True)

    @property
    def mu(self) -> Float[Array, "..."]:
        r"""$1/(2\lambda)$."""
        return 0.5 / self.value


class BallConstants(eqx.Module):
    r"""What holds for the residual's Jacobian on a ball around a network.

    Attributes:
        residual: norm at the centre of the part that can be fitted.
        smallest: $\sigma_{\min}(J_0)$, on the directions that X has.
        largest: $\|J_0\|_2$.
        lipschitz: $L_J$ on the ball, infinite if none is known.
        layers_mu: $\mu$ by singular values of layers or features.
        limit: no sign of a pre-activation changes within this radius; infinite without
            kinks.
    """

    residual: Float[Array, ""]
    smallest: Float[Array, ""]
    largest: Float[Array, ""]
    lipschitz: Float[Array, ""]
    layers_mu: Float[Array, ""]
    limit: Float[Array, ""]

    def jacobian_mu(self, radius: Float[Array, ""]) -> Float[Array, ""]:
        r"""$(\sigma_{\min}(J_0) - L_J\delta)_+^2$."""
        known = jnp.isfinite(self.lipschitz)
        loss = jnp.where(known, self.lipschitz, 0) * radius
        low = jnp.maximum(self.smallest - loss, 0) ** 2
        return jnp.where(known, low, 0)


def has_theorem(objective: Any, network: Any) -> bool:
    """Whether `dominance_theorem` knows this objective and network."""
    if not isinstance(objective, SquaredLoss):
        return False
    if isinstance(network, LinearNetwork | LinearResidualNetwork):
        return is_wide(layers_of(network))
    if isinstance(network, OutputActivated):
        return has_theorem(objective, network.network)
    if isinstance(network, DenseNetwork):
        return all(bias is None for bias in network.biases)
    return isinstance(network, Shallow)


def ball_constants(
    objective: SquaredLoss, network: Any, radius: Float[Array, ""]
) -> BallConstants:
    """The constants for one radius."""
    operator = residual_jacobian(objective, network)
    gram = operator.gram()
    inputs = objective.data.inputs
    free = jnp.asarray(jnp.inf, inputs.dtype)
    if isinstance(network, LinearNetwork | LinearResidualNetwork):
        layers = check_problem(objective, network)
        reduced = reduced_data(objective.data)
        low, error = smallest_normal_eigenvalue(reduced, gram)
        lipschitz = product_lipschitz(layers, reduced.largest, radius)
        each = layer_products(layers, radius)
        mu = reduced.smallest**2 * jnp.sum(each**2)
        residual, limit = fitted_residual(objective, network), free
    else:
        values = jnp.linalg.eigvalsh(gram)
        eps = float(jnp.finfo(values.dtype).eps)
        low, error = values[0], eps * (4 + 2 * gram.shape[0] ** 0.5) * values[-1]
        lipschitz, limit = free, free
        if isinstance(network, Shallow):
            lipschitz = shallow_lipschitz(network, inputs, radius)
            limit = sign_radius(network, inputs)
        mu = feature_mu(objective, network, radius)
        residual = objective.residual(network)
    return BallConstants(
        residual=jnp.sqrt(jnp.sum(residual**2)),
        smallest=jnp.sqrt(jnp.maximum(low - error, 0)),
        largest=jnp.sqrt(spectral_norm(gram)),
        lipschitz=lipschitz,
        layers_mu=mu,
        limit=limit,
    )


def dominance_theorem(
    objective: Any, network: Any, radius: float | Float[Array, ""]
) -> DominanceTheorem | None:
    r"""$\lambda$ for all weights in a Frobenius ball, or None if there is no theorem.

    For a `SquaredLoss` of a `LinearNetwork` or `LinearResidualNetwork` whose hidden
    layers are no narrower than both ends, of a `Shallow`, of a `DenseNetwork` without
    biases, and of `OutputActivated` ones; all weights move. The centre need not be a
    minimiser. For networks with hidden activations it bounds f, so $f - f^*$, too.

    Args:
        objective: any.
        network: any.
        radius: δ ≥ 0, Frobenius norm over all weights together.
    """
    if not has_theorem(objective, network):
        return None
    radius = jnp.asarray(radius, objective.data.inputs.dtype)
    at = ball_constants(objective, network, radius)
    jacobian_mu = at.jacobian_mu(radius)
    loss = jnp.where(jnp.isfinite(at.lipschitz), at.lipschitz * radius, jnp.inf)
    product = isinstance(network, LinearNetwork | LinearResidualNetwork)
    kind = "layers" if product else "features and weights"
    zero = jnp.zeros_like(radius)
    return DominanceTheorem(
        value=half_inverse(jnp.maximum(at.layers_mu, jacobian_mu)),
        by_layers=half_inverse(at.layers_mu),
        by_jacobian=half_inverse(jacobian_mu),
        radius=radius,
        conditions=(
            TheoremCondition(
                at.layers_mu, zero, f"singular values of the {kind} beyond the radius"
            ),
            TheoremCondition(at.smallest, loss, "sigma_min(J) > L_J radius"),
        ),
        method=(
            f"the larger mu of: singular values of the {kind} lowered by the radius; "
            "sigma_min(J) lowered by L_J times the radius (re-derived, proved)"
        ),
    )
