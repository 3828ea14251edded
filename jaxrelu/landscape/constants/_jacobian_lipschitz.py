r"""Lipschitz constants of the Jacobian of a network in a ball, and what they certify.

If $\|J(\theta) - J(\theta_0)\|_2 \le L_J\|\theta - \theta_0\|$ on the ball of radius
$R$, then $\sigma_{\min}(J) \ge \sigma_{\min}(J_0) - L_JR$ there (Weyl), and a squared
loss with infimum 0 satisfies PL with $\mu = (\sigma_{\min}(J_0) - L_JR)_+^2$, because
$\|\nabla f\|^2 = \|J^\top r\|^2 \ge \mu \|r\|^2 = 2\mu f$.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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


_UP = 1 + 1e-9  # covers the rounding of norms computed in float64


def jacobian_lipschitz(
    network: Any, inputs: Any, radius: float, where: Callable | None = None
) -> float | None:
    r"""$L_J$ on the Frobenius ball of a radius, or None where no formula is known.

    * Linear and residual networks, $w_k = \|M_k\|_2 + R$: $\|X\|_2\lambda_{\max}(N)$
      with $N_{jk} = \prod_{i \ne j,k} w_i$ for $j \ne k$ and 0 on the diagonal; for two
      layers $\|X\|_2$, attained.
    * One hidden layer, $|\varphi'| \le s_1$, $|\varphi''| \le s_2$:
      $s_1\|X\|_2 + (\|V\|_2 + R)s_2\|X\|_2\max_i\|x_i\|$; with only the inner weights
      trained $\|V\|_2s_2\|X\|_2\max_i\|x_i\|$, with only the outer ones 0.
    * The same with a kink: $s_2 = 0$ as long as no pre-activation can change its sign,
      $R < \min_{ij}|(XW^\top)_{ij}|/\|x_i\|$; infinite beyond.

    *Proof* for one hidden layer: $(J - J')(U, u) = \Delta V(\varphi' \circ UX^\top)
    + V(\delta\varphi' \circ UX^\top) + u\,\delta S$, whose terms are bounded by entries
    and spectral norms; the first and the third together by Cauchy-Schwarz.
    $\square$ For linear networks see `product_lipschitz`.

    Args:
        network: `LinearNetwork`, `LinearResidualNetwork` or `Shallow`.
        inputs: (n, d), rows are samples.
        radius: R, of the ball in all trained parameters.
        where: the trained leaves.

    Returns:
        the constant, rounded up, on the host.
    """
    if isinstance(network, LinearNetwork | LinearResidualNetwork):
        found = product_lipschitz(
            layers_of(network), spectral_norm(jnp.asarray(inputs)), radius
        )
        return float(found) * (1 + 64 * float(jnp.finfo(found.dtype).eps)) * _UP
    if isinstance(network, Shallow):
        spec = where_spec(network, where)
        if any(jax.tree.leaves(spec.activation)):
            return None
        matrix = np.asarray(inputs, np.float64)
        trained = (spec.inner, spec.outer)
        return _shallow(network, matrix, _norm(matrix), radius, trained)
    return None


def _norm(matrix: np.ndarray) -> float:
    return float(np.linalg.norm(matrix, 2)) * _UP


def _shallow(
    network: Shallow,
    matrix: np.ndarray,
    size: float,
    radius: float,
    trained: tuple[Any, Any],
) -> float:
    inner, outer = trained
    if not inner:
        return 0.0
    first = float(network.activation.derivative_bound)
    second = float(network.activation.second_derivative_bound)
    rows = np.linalg.norm(matrix, axis=1)
    if math.isinf(second):  # a kink: the slopes are constant until a sign changes
        away = np.abs(matrix @ np.asarray(network.inner, np.float64).T)
        there = rows > 0
        nearest = np.min(away[there] / rows[there, None], initial=math.inf)
        if radius * _UP >= nearest / _UP:
            return math.inf
        second = 0.0
    reach = _norm(np.atleast_2d(np.asarray(network.outer, np.float64)))
    reach += radius if outer else 0.0
    curved = reach * second * size * float(rows.max())
    return ((first * size if outer else 0.0) + curved) * _UP
