r"""How far the weights of one network are from those that give another's function.

$\inf\{\|\Phi - \Gamma\|_\infty : R(\Phi) = R(\Theta)\}$ over a fibre of R. In N* the
fibre is the permutations of Θ, so the infimum is a bottleneck assignment with the costs
$\max(\|a_i^\Gamma - a_j^\Theta\|_\infty, \|c_i^\Gamma - c_j^\Theta\|_\infty)$. In the
full set neurons may also be rescaled: with $\hat a = a_j^\Theta/\|a_j^\Theta\|_\infty$
and $p = \|a_j^\Theta\|_\infty c_j^\Theta$ the cost of a pair is
$\min_{\lambda>0} \max(\|\lambda\hat a - a_i\|_\infty, \|p/\lambda - c_i\|_\infty)$,
found by bisection because λ is feasible at a level in an interval; and signs may flip
(`flip_fibre`). Host code.
"""

from typing import Literal

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from jaxrelu._checks import check_choice
from jaxrelu._memory import require_bytes
from jaxrelu._results import ErrorKind
from jaxrelu.networks import Shallow
from jaxrelu.realization._arrangement import default_tolerance
from jaxrelu.realization._canonical import canonical
from jaxrelu.realization._minimal import flip_fibre
from jaxrelu.realization._neurons import (
    Neurons,
    equal_pair,
    neurons,
    shallow,
    sup,
)
from jaxrelu.realization._restricted import is_restricted, merged


Fibre = Literal["permutations", "rescalings"]


class FibreDistance(eqx.Module):
    r"""The least distance from Γ to a network with the function of Θ.

    Attributes:
        value: $\|\Phi - \Gamma\|_\infty$ for the Φ below, before Φ is rounded to
            the precision of Γ.
        error: the infimum over the fibre searched is within it.
        network: Φ, with $R(\Phi) = R(\Theta)$ up to rounding.
        error_kind: what `error` means.
        method: how the value came about.
        complete: whether the fibre searched is the whole fibre of R over $R(\Theta)$
            in the set; otherwise the value is an upper bound on that infimum.
    """

    value: float
    error: float
    network: Shallow
    error_kind: ErrorKind = eqx.field(static=True)
    method: str = eqx.field(static=True)
    complete: bool = eqx.field(static=True)

    def __float__(self) -> float:
        return float(self.value)


def parameter_distance(a: Shallow, b: Shallow) -> float:
    r"""$\|\Phi - \Gamma\|_\infty$: the largest absolute difference of two weights.

    Raises:
        ValueError: shapes differ.
    """
    first, second = neurons(a, affine=False), neurons(b, affine=False)
    if first.inner.shape != second.inner.shape:
        msg = (
            f"the networks have inner weights {first.inner.shape} and "
            f"{second.inner.shape}; expected equal shapes."
        )
        raise ValueError(msg)
    if first.outer.shape != second.outer.shape:
        msg = "the networks have different numbers of outputs."
        raise ValueError(msg)
    return float(
        max(
            np.abs(first.inner - second.inner).max(),
            np.abs(first.outer - second.outer).max(),
        )
    )


def bottleneck_assignment(
    costs: Float[np.ndarray, "k k"],
) -> tuple[float, np.ndarray]:
    r"""The perfect matching whose largest cost is least.

    Args:
        costs: cost of giving column j to row i; finite.

    Returns:
        That largest cost, and the column of each row.

    Cost: a binary search over the sorted costs with one bipartite matching (Hopcroft
    and Karp) each: $O(k^{2.5} \log k)$.
    """
    levels = np.unique(costs)
    low, high = 0, len(levels) - 1
    best = np.arange(len(costs))
    while low <= high:
        middle = (low + high) // 2
        graph = csr_array(costs <= levels[middle])
        columns = maximum_bipartite_matching(graph, perm_type="column")
        if np.all(columns >= 0):
            best, high = columns, middle - 1
        else:
            low = middle + 1
    return float(costs[np.arange(len(costs)), best].max()), np.asarray(best)


def _interval(
    centre: np.ndarray, radius: np.ndarray, level: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    spread = level[..., None] * radius
    return (centre - spread).max(axis=-1), (centre + spread).min(axis=-1)


def _ratios(
    target: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For |s target - weights| ≤ t: s within t·radius of centre; t at least floor."""
    zero = target == 0
    safe = np.where(zero, 1.0, target)
    centre = weights[:, None, :] / safe[None]
    floor = np.where(zero[None], np.abs(weights[:, None, :]), 0.0).max(axis=-1)
    radius = np.broadcast_to(1 / np.abs(safe), centre.shape)
    # coordinates where the target is 0 say nothing of s
    centre = np.where(zero[None], 0.0, centre)
    radius = np.where(zero[None], np.inf, radius)
    return centre, radius, floor


def pair_costs(
    inner: Float[np.ndarray, "k d"],
    outer: Float[np.ndarray, "m k"],
    directions: Float[np.ndarray, "h d"],
    products: Float[np.ndarray, "m h"],
) -> tuple[Float[np.ndarray, "k h"], Float[np.ndarray, "k h"]]:
    r"""What it costs to give neuron j, freely rescaled, to neuron i.

    $\min_{\lambda>0} \max(\|\lambda\hat a_j - a_i\|_\infty,
    \|p_j/\lambda - c_i\|_\infty)$.

    Args:
        inner: $a_i$.
        outer: $c_i$ in columns.
        directions: $\hat a_j$, sup-norm 1.
        products: $p_j$ in columns, none 0.

    Returns:
        The costs within 1e-15 of their size from above, and λ where they are attained.

    Cost: 60 steps of kh(d + m) operations.
    """
    k, h = len(inner), len(directions)
    size = 8 * 4 * k * h * (inner.shape[1] + len(outer))
    require_bytes(
        size,
        f"costs of {k} x {h} pairs of neurons",
        "Leave neurons that are equal out of both networks.",
    )
    one = _ratios(directions, inner)
    two = _ratios(products.T, outer.T)
    root = np.sqrt(sup(products.T))[None]
    high = np.maximum(sup(inner), sup(outer.T))[:, None] + root
    low = np.maximum(one[2], two[2])

    def feasible(level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b = _interval(one[0], one[1], level)
        c, d = _interval(two[0], two[1], level)
        with np.errstate(divide="ignore"):
            bottom = np.maximum(a, np.where(d > 0, 1 / d, np.inf))
            top = np.minimum(b, np.where(c > 0, 1 / c, np.inf))
        bottom = np.maximum(bottom, 0)
        return (bottom <= top) & (top > 0) & (d > 0), np.where(
            np.isfinite(top), (bottom + top) / 2, bottom + 1
        )

    for _ in range(60):
        middle = (low + high) / 2
        good, _ = feasible(middle)
        high, low = np.where(good, middle, high), np.where(good, low, middle)
    return high, feasible(high)[1]


def _rescaled(
    gamma: Neurons, directions: np.ndarray, products: np.ndarray
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Best permutation and rescaling of neurons (â, p); zero neurons fill up."""
    k, h = len(gamma.inner), len(directions)
    costs, scales = pair_costs(gamma.inner, gamma.outer, directions, products)
    idle = np.minimum(sup(gamma.inner), sup(gamma.outer.T))
    full = np.concatenate([costs, np.tile(idle[:, None], (1, k - h))], axis=1)
    value, columns = bottleneck_assignment(full)
    inner, outer = gamma.inner.copy(), gamma.outer.copy()
    for i, j in enumerate(columns):
        if j < h:
            inner[i] = scales[i, j] * directions[j]
            outer[:, i] = products[:, j] / scales[i, j]
        elif sup(inner[i : i + 1])[0] <= sup(outer[:, i][None])[0]:
            inner[i] = 0
        else:
            outer[:, i] = 0
    reached = max(np.abs(inner - gamma.inner).max(), np.abs(outer - gamma.outer).max())
    return value, float(reached), inner, outer


def fibre_distance(
    network: Shallow,
    target: Shallow,
    fibre: Fibre = "rescalings",
    *,
    max_free_signs: int = 16,
) -> FibreDistance:
    r"""$\min \|\Phi - \Gamma\|_\infty$ over the Φ with the function of the target.

    Args:
        network: Γ, a ReLU network without biases.
        target: Θ, with as many inputs, outputs and neurons.
        fibre: `"permutations"` searches the fibre in N*; both networks must lie in it.
            `"rescalings"` searches the permutations and positive rescalings of Θ
            (merged) and of all its representations with one neuron per kink
            (`flip_fibre`). That is the whole fibre when the target needs all k neurons
            for its kinks; with neurons to spare there are more representations, and
            `complete` says so.
        max_free_signs: at most 2 to this number of sign patterns are tried.

    Raises:
        TypeError, ValueError: not such networks, sizes that differ, `"permutations"`
            with a network outside N* (with the reason), too many sign patterns.

    Cost: k² pair costs and a bottleneck assignment, $O(k^2(d + m) + k^{2.5}\log k)$,
    times the number of flips.
    """
    check_choice(fibre, ("permutations", "rescalings"), "fibre")
    gamma, theta = equal_pair(network, target)
    if fibre == "permutations":
        return _permuted(network, target, gamma, theta)
    tolerance = max(default_tolerance(n.dtype) for n in (gamma, theta))
    clean = merged(theta, tolerance)
    alive = sup(clean.inner) > 0
    size = sup(clean.inner)[alive]
    ways = [(clean.inner[alive] / size[:, None], clean.outer[:, alive] * size)]
    form = canonical(target, tolerance)
    h, k = len(form.normals), len(gamma.inner)
    if h <= k:
        for signs in flip_fibre(form, max_free_signs):
            ways.append((signs[:, None] * form.normals, 2 * form.kinks.T))
    found = [_rescaled(gamma, *way) for way in ways]
    value, reached, inner, outer = min(found, key=lambda item: item[1])
    low = min(item[0] for item in found)
    top = max(np.abs(gamma.inner).max(), np.abs(gamma.outer).max(), value)
    error = reached - low * (1 - 2.0**-50) + 8 * np.finfo(float).eps * top
    return FibreDistance(
        reached,
        float(max(error, 0.0)),
        shallow(inner, outer, gamma),
        "rounding bound",
        f"bisection and bottleneck assignment over {len(ways)} representations",
        h == k,
    )


def _permuted(
    network: Shallow, target: Shallow, gamma: Neurons, theta: Neurons
) -> FibreDistance:
    for name, net in (("network", network), ("target", target)):
        inside = is_restricted(net, "N*")
        if not inside:
            msg = (
                f"the {name} is not in N*: {' '.join(inside.reasons)} There the fibre "
                'is more than the permutations; ask with fibre="rescalings".'
            )
            raise ValueError(msg)
    k = len(gamma.inner)
    require_bytes(
        32 * k * k,
        f"costs of {k} x {k} pairs of neurons",
        "Compare fewer neurons: equal ones can be left out of both networks.",
    )
    one, two = (np.concatenate([n.inner, n.outer.T], axis=1) for n in (gamma, theta))
    costs = np.zeros((k, k))
    for left, right in zip(one.T, two.T, strict=True):
        np.maximum(costs, np.abs(left[:, None] - right[None]), out=costs)
    value, columns = bottleneck_assignment(costs)
    return FibreDistance(
        value,
        float(np.finfo(float).eps * value),
        shallow(theta.inner[columns], theta.outer[:, columns], theta),
        "rounding bound",
        "bottleneck assignment over the permutations",
        True,
    )
