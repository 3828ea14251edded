r"""Lipschitz constants of the Jacobian of a network in a ball, and what they certify.

If $\|J(\theta) - J(\theta_0)\|_2 \le L_J\|\theta - \theta_0\|$ on the ball of radius
$R$, then $\sigma_{\min}(J) \ge \sigma_{\min}(J_0) - L_JR$ there (Weyl), and a squared
loss with infimum 0 satisfies PL with $\mu = (\sigma_{\min}(J_0) - L_JR)_+^2$, because
$\|\nabla f\|^2 = \|J^\top r\|^2 \ge \mu \|r\|^2 = 2\mu f$.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrelu.landscape.constants._nonlinear_dominance import shallow_lipschitz
from jaxrelu.landscape.minimizers._matrix_products import (
    layers_of,
    product_lipschitz,
    spectral_norm,
)
from jaxrelu.networks import (
    LinearNetwork,
    LinearResidualNetwork,
    Shallow,
    where_spec,
)


def jacobian_lipschitz(
    network: Any, inputs: Any, radius: float, where: Callable | None = None
) -> float | None:
    r"""$L_J$ on the Frobenius ball of a radius, or None where no formula is known.

    * Linear and residual networks, $w_k = \|M_k\|_2 + R$: $\|X\|_2\lambda_{\max}(N)$
      with $N_{jk} = \prod_{i \ne j,k} w_i$ for $j \ne k$ and 0 on the diagonal; for two
      layers $\|X\|_2$, attained.
    * One hidden layer: `shallow_lipschitz`, for the layers that train.

    For linear networks the proof is in `product_lipschitz`.

    Args:
        network: `LinearNetwork`, `LinearResidualNetwork` or `Shallow`.
        inputs: (n, d), rows are samples.
        radius: R, of the ball in all trained parameters.
        where: the trained leaves.

    Returns:
        the constant on the host, enlarged by 64 roundings and $10^{-9}$ of itself.
        That covers the rounding of norms of small matrices; it encloses nothing.
    """
    inputs = jnp.asarray(inputs)
    grown = 1 + 64 * float(jnp.finfo(inputs.dtype).eps) + 1e-9
    if isinstance(network, LinearNetwork | LinearResidualNetwork):
        found = product_lipschitz(layers_of(network), spectral_norm(inputs), radius)
        return float(found) * grown
    if isinstance(network, Shallow):
        spec = where_spec(network, where)
        if any(jax.tree.leaves(spec.activation)):
            return None
        found = shallow_lipschitz(
            network, inputs, radius * grown, inner=spec.inner, outer=spec.outer
        )
        return float(found) * grown
    return None
