r"""Pairs of networks that show what inverse stability cannot be improved to."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrelu._checks import check_positive
from jaxrelu.networks import Shallow


def extremal_pair(dtype: Any = None) -> tuple[Shallow, Shallow]:
    r"""Γ, Θ in N*, d = k = 3, at distance exactly $2\sqrt2$ with $r = 1$.

    So $2\sqrt2$ in $\|\Phi - \Gamma\|_\infty \le 2\sqrt2\,r^{1/2}$ cannot be lowered
    for $d, k \ge 3$, and 4 is not the best constant. The first entry of the gradient
    of the difference runs through 0, -1, 1, -1, 1, -1, 0 as the six kinks are crossed
    in angular order, so five of the six jumps are as large as 2r.

    Args:
        dtype: floating dtype; None takes JAX's default. $\sqrt2$ is rounded to it.
    """
    dtype = jnp.zeros((), dtype if dtype is not None else float).dtype
    s = float(np.sqrt(2))
    gamma = [
        [1, 1 / 64, 1 / 64],
        [s, s / 32, s / 32],
        [s, 3 * s / 64, 3 * s / 64],
    ]
    theta = [
        [-s, 3 * s / 64, 3 * s / 64],
        [-s, s / 32, s / 32],
        [-1, 1 / 64, 1 / 64],
    ]
    return (
        Shallow(jnp.asarray(gamma, dtype), jnp.asarray([[1, -s, s]], dtype)),
        Shallow(jnp.asarray(theta, dtype), jnp.asarray([[-s, s, -1]], dtype)),
    )


def unbalanced_vector_pair(mu: float, dtype: Any = None) -> tuple[Shallow, Shallow]:
    r"""Γ, Θ with two outputs and one neuron that break the one-output theorem.

    $\Gamma = (\mu(1, ½, ½), (1/\mu, 0))$ and $\Theta = ((1, ½, ½), (1, 1/10))$:
    $r = 1/10$, C.1 is void with β = 0, yet every Φ with the function of Θ is at a
    distance of about $1/(11\mu)$ for small μ.

    Args:
        mu: positive.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: μ not positive.
    """
    check_positive(mu, "mu")
    dtype = jnp.zeros((), dtype if dtype is not None else float).dtype
    row = np.array([[1.0, 0.5, 0.5]])
    return (
        Shallow(jnp.asarray(mu * row, dtype), jnp.asarray([[1 / mu], [0.0]], dtype)),
        Shallow(jnp.asarray(row, dtype), jnp.asarray([[1.0], [0.1]], dtype)),
    )
