r"""Sets of networks in which weights are determined by the function.

For bias-free ReLU networks $\sum_i c_i\,\rho(\langle a_i, x\rangle)$:

* `"N'"`: every neuron is balanced, $\|c_i\|_\infty = \|a_i\|_\infty$, and no two
  nonzero rows have the same direction. Every function of the full set has such a
  network.
* `"N*"`: in addition the last two entries of every nonzero row are positive. No two
  rows are then opposite, and the fibre of a function is exactly the permutations of
  one network. Every network with biases embeds: two more inputs, held at 1 and -1,
  carry the biases, and one more neuron the output bias (`to_restricted`).

Zero neurons are allowed in both; the embedding needs them.
"""

from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import check_choice
from jaxrelu.networks import DenseNetwork, Shallow
from jaxrelu.realization._arrangement import default_tolerance, group_rows
from jaxrelu.realization._neurons import (
    Neurons,
    balanced,
    neurons,
    shallow,
    sup,
)


Kind = Literal["N'", "N*"]


class Membership(eqx.Module):
    """Whether a network lies in a restricted set; true or false where a bool is asked.

    Attributes:
        member: the answer.
        reasons: what fails, one sentence per cause; empty for members.
        unbalanced: neurons whose two factors differ in size.
        redundant: pairs of nonzero rows of the same direction.
        not_positive: nonzero rows whose last two entries are not both positive.
    """

    member: bool = eqx.field(static=True)
    reasons: tuple[str, ...] = eqx.field(static=True)
    unbalanced: tuple[int, ...] = eqx.field(static=True)
    redundant: tuple[tuple[int, int], ...] = eqx.field(static=True)
    not_positive: tuple[int, ...] = eqx.field(static=True)

    def __bool__(self) -> bool:
        return self.member


def same_direction_pairs(
    rows: Float[np.ndarray, "k d"], tolerance: float, opposite: bool = False
) -> tuple[tuple[int, int], ...]:
    """Pairs (i, j), i < j, of nonzero rows with equal (or opposite) direction."""
    _, group, orientation = group_rows(rows, tolerance)
    found = []
    for label in range(int(group.max(initial=-1)) + 1):
        members = np.flatnonzero(group == label)
        found += [
            (int(i), int(j))
            for at, i in enumerate(members)
            for j in members[at + 1 :]
            if (orientation[i] != orientation[j]) == opposite
        ]
    return tuple(sorted(found))


def is_restricted(
    network: Any, kind: Kind = "N*", tolerance: float | None = None
) -> Membership:
    r"""Whether a network lies in N′ or N*, and if not, why.

    Args:
        network: a ReLU network with one hidden layer and no biases.
        kind: `"N'"` or `"N*"`, see this module.
        tolerance: balance is asked up to tolerance × size, directions (scaled to
            sup-norm 1) count as equal within it; None takes 1e-13 for float64 weights
            and 5e-7 for float32. Positivity is asked exactly.

    Raises:
        TypeError, ValueError: not such a network, unknown kind.

    Cost: O(k log k + kd) on the host.
    """
    check_choice(kind, ("N'", "N*"), "kind")
    n = neurons(network, affine=False)
    tolerance = default_tolerance(n.dtype) if tolerance is None else tolerance
    a, c = sup(n.inner), sup(n.outer.T)
    unbalanced = np.flatnonzero(np.abs(a - c) > tolerance * np.maximum(a, c))
    redundant = same_direction_pairs(n.inner, tolerance)
    reasons = []
    if unbalanced.size:
        i = unbalanced[0]
        reasons.append(
            f"{unbalanced.size} neurons are not balanced; neuron {i} has "
            f"|a| = {a[i]:.6g}, |c| = {c[i]:.6g}. `balance` repairs this."
        )
    if redundant:
        i, j = redundant[0]
        reasons.append(
            f"{len(redundant)} pairs of rows have one direction, the first is "
            f"({i}, {j}). `merge` repairs this."
        )
    wrong: list[int] = []
    if kind == "N*":
        low = n.inner[:, -2:].min(axis=1)
        wrong = [int(i) for i in np.flatnonzero((a > 0) & (low <= 0))]
        if n.inner.shape[1] < 2:
            reasons.append("rows have one entry; two must be positive.")
    if wrong:
        reasons.append(
            f"{len(wrong)} nonzero rows do not end in two positive entries; row "
            f"{wrong[0]} ends in {n.inner[wrong[0], -2:]}. Embed a network with "
            "biases by `to_restricted`, or `project_restricted`."
        )
    return Membership(
        not reasons,
        tuple(reasons),
        tuple(int(i) for i in unbalanced),
        redundant,
        tuple(wrong),
    )


def balance(network: Shallow) -> Shallow:
    r"""The same function with $\|a_i\|_\infty = \|c_i\|_\infty$.

    $(a_i, c_i) \to (t_i a_i, c_i/t_i)$, $t_i = (\|c_i\|_\infty/\|a_i\|_\infty)^{1/2}$;
    a neuron with a zero factor becomes zero in both.

    Works under `jit`, `vmap` and `grad` (where both factors are nonzero). Valid for
    activations with one kink at 0, such as ReLU.

    Args:
        network: a `Shallow` network.

    Cost: 2k(d + m) operations.
    """
    if network.activation.slopes is None:
        msg = (
            f"the activation is {network.activation.name!r}; rescaling neurons keeps "
            "the function only for those with one kink at 0, such as 'relu'."
        )
        raise ValueError(msg)
    outer = network.outer if network.outer.ndim == 2 else network.outer[None]
    a = jnp.max(jnp.abs(network.inner), axis=1)
    c = jnp.max(jnp.abs(outer), axis=0)
    alive = (a > 0) & (c > 0)
    root = jnp.sqrt(jnp.where(alive, c, 1)) / jnp.sqrt(jnp.where(alive, a, 1))
    inner = jnp.where(alive, root, 0)[:, None] * network.inner
    balanced = jnp.where(alive, 1 / root, 0)[None] * outer
    outer = balanced if network.outer.ndim == 2 else balanced[0]
    return eqx.tree_at(lambda n: (n.inner, n.outer), network, (inner, outer))


def merged(n: Neurons, tolerance: float) -> Neurons:
    """Neurons of one direction added into the first of them, the others set to 0."""
    alive = (sup(n.inner) > 0) & (sup(n.outer.T) > 0)
    inner = np.where(alive[:, None], n.inner, 0.0)
    outer = np.where(alive[None], n.outer, 0.0)
    size = sup(inner)
    _, group, orientation = group_rows(inner, tolerance)
    kept_inner, kept_outer = np.zeros_like(inner), np.zeros_like(outer)
    for label, side in {(g, o) for g, o in zip(group, orientation, strict=True)}:
        if label < 0:
            continue
        members = np.flatnonzero((group == label) & (orientation == side))
        first = members[0]
        total = outer[:, members] @ (size[members] / size[first])
        mass = np.abs(outer[:, members]) @ (size[members] / size[first])
        if np.abs(total).max() > tolerance * mass.max():
            kept_inner[first], kept_outer[:, first] = inner[first], total
    return Neurons(kept_inner, kept_outer, n.affine, n.scalar, n.dtype)


def merge(network: Shallow, tolerance: float | None = None) -> Shallow:
    r"""The same function with no direction twice.

    $(a_i, c_i), (a_j, c_j) \to (a_i, c_i + c_j\|a_j\|_\infty/\|a_i\|_\infty), (0, 0)$
    for rows of equal direction; neurons that cancel or have a zero factor become zero.
    Neurons are counted as before: k does not change. Rows that are equal up to the
    tolerance only move by as much, relative to their size.

    Args:
        network: a ReLU network without biases.
        tolerance: of equal directions, None as in `is_restricted`.

    Raises:
        TypeError, ValueError: not such a network.

    Cost: O(k log k + kd) on the host.
    """
    n = neurons(network, affine=False)
    tolerance = default_tolerance(n.dtype) if tolerance is None else tolerance
    result = merged(n, tolerance)
    return shallow(result.inner, result.outer, result)


def extend_inputs(x: Float[Array, "*batch d"]) -> Float[Array, "*batch e"]:
    r"""$x \mapsto (x, 1, -1)$, where an embedded network takes its biases from."""
    ones = jnp.ones_like(x[..., :1])
    return jnp.concatenate([x, ones, -ones], axis=-1)


def to_restricted(
    network: Shallow | DenseNetwork,
    *,
    shift: float = 1.0,
    tolerance: float | None = None,
) -> Shallow:
    r"""The same function by a network in a restricted set.

    A `Shallow` network is merged and balanced: a member of N′ with d inputs and k
    neurons. A `DenseNetwork` with one hidden layer, biases $b$ and output bias $e$ goes
    to a member Γ of N* with d + 2 inputs and k + 1 neurons,
    $R(\Gamma)(x, 1, -1) = f(x)$: row i is $(a_i, b_i + \delta_i, \delta_i)$ if
    $b_i \ge 0$ and $(a_i, \delta_i, \delta_i - b_i)$ otherwise, neurons with $a_i = 0$
    join the output bias, which becomes the neuron $(0, \dots, 0, 2, 1)$; then merge
    and balance. $\delta_i$ = `shift` · $\|a_i\|_\infty$, so that the result does not
    depend on how neurons were scaled. Other values of δ give the same function of x
    and another one of all d + 2 inputs.

    Args:
        network: a ReLU network with one hidden layer.
        shift: positive.
        tolerance: of equal directions, None as in `is_restricted`.

    Raises:
        TypeError, ValueError: not such a network, shift not positive.

    Cost: O(k log k + kd) on the host.
    """
    if isinstance(network, Shallow):
        n = neurons(network)
        tolerance = default_tolerance(n.dtype) if tolerance is None else tolerance
        n = merged(n, tolerance)
        return shallow(*balanced(n.inner, n.outer), n)
    if not shift > 0:
        msg = f"shift is {shift}; expected a positive number."
        raise ValueError(msg)
    n = neurons(network)
    if n.affine:
        rows, b = n.inner[:, :-1], n.inner[:, -1]
    else:
        rows, b = n.inner, np.zeros(len(n.inner))
    constant = sup(rows) == 0
    e = n.outer[:, constant] @ np.maximum(b[constant], 0)
    hidden = network.weights[0].shape[0]
    rows, b, outer = rows[:hidden], b[:hidden], n.outer[:, :hidden]
    delta = shift * sup(rows)
    ends = np.stack([delta + np.maximum(b, 0), delta + np.maximum(-b, 0)], axis=1)
    inner = np.concatenate([rows, ends], axis=1)
    inner[sup(rows) == 0] = 0
    last = np.zeros((1, inner.shape[1]))
    last[0, -2:] = 2, 1
    full = Neurons(
        np.concatenate([inner, last]),
        np.column_stack([outer, e]),
        False,
        n.scalar,
        n.dtype,
    )
    tolerance = default_tolerance(n.dtype) if tolerance is None else tolerance
    full = merged(full, tolerance)
    return shallow(*balanced(full.inner, full.outer), full)


def from_restricted(network: Shallow) -> DenseNetwork:
    r"""The network with biases that $x \mapsto R(\Gamma)(x, 1, -1)$ is.

    Weights are the first d entries of each row, biases $p_i - q_i$ with p, q the last
    two: all that the slice sees.

    Raises:
        ValueError: fewer than three inputs.
    """
    if network.in_size < 3:
        msg = f"the network has {network.in_size} inputs; expected at least 3."
        raise ValueError(msg)
    inner = network.inner
    bias = inner[:, -2] - inner[:, -1]
    return DenseNetwork(
        (inner[:, :-2], network.outer), (bias, None), network.activation
    )
