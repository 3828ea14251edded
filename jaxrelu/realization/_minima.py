r"""Local minima of weights and local minima of functions.

A map R is $(s, \alpha)$ inverse stable on Ω if for all Γ in Ω, g in R(Ω) some Φ in Ω
with $R(\Phi) = g$ has $\|\Phi - \Gamma\|_\infty \le s\,\|g - R(\Gamma)\|^\alpha$. Then

* a local minimum of $L \circ R$ on Ω, best within the sup-norm radius ρ, is a local
  minimum of L on R(Ω), best within $(\rho/s)^{1/\alpha}$: a better g that near would
  have a better Φ within ρ (`realization_radius`);
* if R(Ω) is an η-net of a convex set K on which L is convex and c-Lipschitz, such a
  minimum is almost optimal (`almost_optimality_gap`).

On N* $s = 2\sqrt2$, $\alpha = ½$ (`_inverse_stability`). The second statement is a
quantitative form of what Berner, Elbrächter & Grohs (2019) state asymptotically; their
exact hypotheses were not at hand, the proof is in the docstring. Pure JAX functions.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import check_positive
from jaxrelu.networks import Shallow


SHARP = 2 * 2**0.5
"""The constant s of inverse stability on N* with exponent ½; 4 is the published one."""


def realization_radius(
    parameter_radius: Any, constant: Any = SHARP, exponent: Any = 0.5
) -> Float[Array, "..."]:
    r"""$(\rho/s)^{1/\alpha}$: radius in $W^{1,\infty}$ that a parameter radius gives.

    With the defaults $\rho^2/8$; with `constant=4`, the published one, $\rho^2/16$.

    Args:
        parameter_radius: ρ, in the largest absolute entry.
        constant: s.
        exponent: α.
    """
    ratio = jnp.asarray(parameter_radius, float) / constant
    return ratio ** (1 / exponent)


def parameter_radius(
    realization_radius: Any, constant: Any = SHARP, exponent: Any = 0.5
) -> Float[Array, "..."]:
    r"""$s r^\alpha$: the parameter radius that a realisation radius r asks for."""
    return constant * jnp.asarray(realization_radius, float) ** exponent


def almost_optimality_gap(
    fineness: Any, radius: Any, separation: Any, lipschitz: Any = 1.0
) -> Float[Array, "..."]:
    r"""Bound on $L(g^*) - L(f)$ for a local minimum $g^*$ over an η-net G of K.

    K convex, every point of K within η of G ⊂ K, L convex and c-Lipschitz on K, $g^*$
    best in G within the radius $r' > \eta$: then for every f in K
    $$ L(g^*) \le L(f) + c\,\eta\,\max\{1, \|f - g^*\|/(r' - \eta)\}. $$
    *Proof.* Let $f_\lambda = (1-\lambda)g^* + \lambda f$ with
    $\lambda = \min\{1, (r' - \eta)/\|f - g^*\|\}$ and g in G within η of $f_\lambda$.
    Then $\|g - g^*\| \le r'$, so
    $L(g^*) \le L(g) \le (1-\lambda)L(g^*) + \lambda L(f) + c\eta$; divide by λ. ∎

    Args:
        fineness: η.
        radius: r′.
        separation: $\|f - g^*\|$.
        lipschitz: c.

    Returns:
        The bound; infinite where $r' \le \eta$ and nothing is promised. The arguments
        broadcast.
    """
    eta, r = jnp.asarray(fineness, float), jnp.asarray(radius, float)
    gap = jnp.asarray(separation, float)
    room = r - eta
    ratio = gap / jnp.where(room > 0, room, 1)
    bound = lipschitz * eta * jnp.maximum(1, ratio)
    return jnp.where(room > 0, bound, jnp.inf)


class LocalMinimum(eqx.Module):
    r"""A parameter-local minimum of a squared-error sum, with what is known of it.

    Attributes:
        network: Γ*.
        inputs: $x_j$, (n, d).
        targets: $y_j$, (n,).
        loss: $\sum_j (R(\Gamma^*)(x_j) - y_j)^2$ (no factor ½).
        infimum: of the loss over the set.
        parameter_radius: no network of the set within it is better.
        realization_radius: no function of the set within it in $W^{1,\infty}$ is
            better, and beyond it some are; 0 if Γ* is no local minimum as a function.
        guaranteed_radius: $\rho^2/8$ from inverse stability on N*; 0 outside N*.
        published_radius: $\rho^2/16$, with the published constant 4; 0 outside N*.
    """

    network: Shallow
    inputs: Float[Array, "n d"]
    targets: Float[Array, " n"]
    loss: float
    infimum: float
    parameter_radius: float
    realization_radius: float
    guaranteed_radius: float
    published_radius: float

    def objective(self, network: Shallow) -> Float[Array, ""]:
        """The squared-error sum of a network on the data."""
        return jnp.sum((network(self.inputs) - self.targets) ** 2)


def dead_neuron_minimum(size: float = 1.0, dtype: Any = None) -> LocalMinimum:
    r"""A parameter-local minimum that is no local minimum as a function.

    $\Gamma^* = ((r_0, 0), 0)$, one datum x = (-1, 1), y = 1. Within $r_0/2$ the neuron
    is dead, the loss is 1; but $t\rho(x_2)$ is at distance t from 0 and has the loss
    $(1 - t)^2$.

    Args:
        size: $r_0$, positive.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: size not positive.
    """
    check_positive(size, "size")
    dtype = jnp.zeros((), dtype if dtype is not None else float).dtype
    return LocalMinimum(
        Shallow(jnp.asarray([[size, 0]], dtype), jnp.zeros((1,), dtype)),
        jnp.asarray([[-1, 1]], dtype),
        jnp.ones((1,), dtype),
        1.0,
        0.0,
        size / 2,
        0.0,
        0.0,
        0.0,
    )


def restricted_minimum(delta: float = 0.1, dtype: Any = None) -> LocalMinimum:
    r"""A local minimum in N* that is one as a function, too, and not global.

    One neuron in the plane, data $x = (1, -1), y = 1$ and $x = (-1, 1), y = 2$,
    $\Gamma^* = ((a, \delta), a)$ with $a = (\delta + (\delta^2 + 4)^{1/2})/2$, so that
    the first datum is fitted and the second sees 0: loss 4, while fitting the second
    gives 1, the infimum. The second datum stays dead within $(a - \delta)/2$ in the
    weights. As a function Γ* is best within exactly $a^2 = 1 + \delta a$: a better
    function has another direction, so where only Γ* is active the derivatives differ by
    $\|c\,a\|_\infty = a^2$, and better functions come as close as one likes to that.

    Args:
        delta: positive.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: delta not positive.
    """
    check_positive(delta, "delta")
    dtype = jnp.zeros((), dtype if dtype is not None else float).dtype
    a = (delta + float(np.sqrt(delta**2 + 4))) / 2
    radius = (a - delta) / 2
    return LocalMinimum(
        Shallow(jnp.asarray([[a, delta]], dtype), jnp.asarray([a], dtype)),
        jnp.asarray([[1, -1], [-1, 1]], dtype),
        jnp.asarray([1, 2], dtype),
        4.0,
        1.0,
        radius,
        a**2,
        radius**2 / 8,
        radius**2 / 16,
    )
