r"""Staying inside N* while training: projection, coordinates, penalty.

`keep_restricted` follows any optax optimiser and puts every iterate back;
`RestrictedCoordinates` are free parameters whose network always lies in N*;
`restriction_penalty` is a term for the loss. All of it is JAX: jit, vmap, grad.
That no two rows have one direction is not enforced by the first two (it fails on a set
of measure zero; `merge` repairs it), the penalty has a term for it.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrelu.networks import Shallow
from jaxrelu.realization._restricted import balance


def project_restricted(network: Shallow, floor: float = 1e-3) -> Shallow:
    r"""Back into N* after a step that may have left it.

    The last two entries of row i (of k) are raised to at least
    $(1 + i/k) \cdot$ `floor` $\cdot \|a_i\|_\infty$, then the neurons are balanced.
    Balancing keeps the function, raising does not; a network in N* with entries above
    twice the floor is not changed. The floors differ so that rows that are raised do
    not meet in one direction. Pure: works under `jit`, `vmap` and `grad`.

    Args:
        network: a `Shallow` ReLU network with at least two inputs.
        floor: positive and below ½.

    Raises:
        ValueError: one input, or a floor outside (0, ½).

    Cost: O(k(d + m)).
    """
    if network.in_size < 2:
        msg = "the network has one input; N* needs two positive entries in each row."
        raise ValueError(msg)
    if not 0 < floor < 0.5:
        msg = f"floor is {floor}; expected a number in (0, 0.5)."
        raise ValueError(msg)
    size = jnp.max(jnp.abs(network.inner), axis=1, keepdims=True)
    rise = 1 + jnp.arange(network.width, dtype=size.dtype) / network.width
    ends = jnp.maximum(network.inner[:, -2:], floor * rise[:, None] * size)
    inner = jnp.concatenate([network.inner[:, :-2], ends], axis=1)
    return balance(eqx.tree_at(lambda n: n.inner, network, inner))


def keep_restricted(floor: float = 1e-3) -> optax.GradientTransformation:
    r"""An optax transformation after which every iterate lies in N*.

    Put it last: `optax.chain(optax.adam(1e-2), keep_restricted())`. It replaces the
    update u by `project_restricted(θ + u) - θ`; parameters are a `Shallow` network
    and must be handed to `update`. No state.

    Args:
        floor: as in `project_restricted`.
    """

    def init(params: Any) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if not isinstance(params, Shallow):
            msg = (
                f"params are {type(params).__name__}; expected the Shallow network "
                "itself: optimiser.update(updates, state, params=network)."
            )
            raise TypeError(msg)
        moved = eqx.apply_updates(params, updates)
        inside = project_restricted(moved, floor)
        change = jax.tree.map(
            lambda new, old: new - old,
            eqx.filter(inside, eqx.is_inexact_array),
            eqx.filter(params, eqx.is_inexact_array),
        )
        return change, state

    return optax.GradientTransformation(init, update)


class RestrictedCoordinates(eqx.Module):
    r"""Free parameters of the networks in N* without zero neurons.

    Row i is $e^{s_i}\,u_i/\|u_i\|_\infty$ with
    $u_i = (\text{free}_i, \operatorname{softplus}(\text{ends}_i))$, column i is
    $e^{s_i}\,w_i/\|w_i\|_\infty$: balanced and positive whatever the parameters are.
    Train it as any Equinox module and call `network()` inside the loss.

    Attributes:
        free: first d - 2 entries of the rows, (k, d - 2).
        ends: the last two, before softplus, (k, 2).
        direction: w, (m, k).
        log_size: s, (k,).
        scalar: whether the network has no output axis.
    """

    free: Float[Array, "k e"]
    ends: Float[Array, "k 2"]
    direction: Float[Array, "m k"]
    log_size: Float[Array, " k"]
    scalar: bool = eqx.field(static=True)

    @classmethod
    def of(cls, network: Shallow) -> "RestrictedCoordinates":
        """Coordinates of a network in N* whose neurons are all nonzero.

        Its `network()` is the given one up to rounding. Rows that do not end in two
        positive entries give NaN; check with `is_restricted` first.
        """
        outer = network.outer if network.outer.ndim == 2 else network.outer[None]
        size = jnp.max(jnp.abs(network.inner), axis=1)
        unit = network.inner / size[:, None]
        ends = unit[:, -2:]
        # softplus(t) = y  at  t = y + log(1 - exp(-y))
        raw = ends + jnp.log(-jnp.expm1(-ends))
        return cls(unit[:, :-2], raw, outer, jnp.log(size), network.outer.ndim == 1)

    def network(self) -> Shallow:
        """The network with these coordinates, a member of N*."""
        rows = jnp.concatenate([self.free, jax.nn.softplus(self.ends)], axis=1)
        rows = rows / jnp.max(jnp.abs(rows), axis=1, keepdims=True)
        columns = self.direction / jnp.max(
            jnp.abs(self.direction), axis=0, keepdims=True
        )
        size = jnp.exp(self.log_size)
        outer = size[None] * columns
        return Shallow(size[:, None] * rows, outer[0] if self.scalar else outer)


def restriction_penalty(network: Shallow, margin: float = 1e-2) -> Float[Array, ""]:
    r"""How far a network is from N* with some room, as a term for a loss.

    With $\hat a_i = a_i/\|a_i\|_\infty$ and $(t)_+ = \max(t, 0)$,
    $$ \sum_i (\|a_i\|_\infty - \|c_i\|_\infty)^2
     + \sum_i \sum_{q \in \{d-1, d\}} (\text{margin} - \hat a_{iq})_+^2
     + \sum_{i<j} (\text{margin} - \|\hat a_i - \hat a_j\|_\infty)_+^2 , $$
    the last two over nonzero rows. It is 0 exactly for the networks of N* whose rows
    end in entries of at least margin · size and whose directions are at least `margin`
    apart. Ours; the paper's own penalties, if it has any, were not seen.

    Args:
        network: a `Shallow` ReLU network with at least two inputs.
        margin: positive.

    Cost: O(k²d) operations, and that many numbers.
    """
    outer = network.outer if network.outer.ndim == 2 else network.outer[None]
    a = jnp.max(jnp.abs(network.inner), axis=1)
    c = jnp.max(jnp.abs(outer), axis=0)
    alive = a > 0
    unit = network.inner / jnp.where(alive, a, 1)[:, None]
    short = jnp.maximum(margin - unit[:, -2:], 0) ** 2
    gaps = jnp.max(jnp.abs(unit[:, None] - unit[None]), axis=2)
    both = jnp.triu(alive[:, None] & alive[None], 1)
    close = jnp.where(both, jnp.maximum(margin - gaps, 0) ** 2, 0)
    return (
        jnp.sum((a - c) ** 2)
        + jnp.sum(jnp.where(alive[:, None], short, 0))
        + jnp.sum(close)
    )
