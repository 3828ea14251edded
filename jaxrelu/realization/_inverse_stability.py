r"""Close functions, close weights: the constructive theorem and where it holds.

Let $\Gamma$ have one output and k neurons, $g = R(\Theta)$ with k neurons,
$r = |g - R(\Gamma)|_{W^{1,\infty}}$, and assume

* C.1: $|c_i|, \|a_i\|_\infty \le \beta$ for the neurons of Γ with
  $\|c_i a_i\|_\infty \le 2r$;
* C.2: no two neurons of Γ have the same direction;
* C.3: (a) no two neurons of Γ and no two of Θ are opposite, (b) nor one of Γ and one
  of Θ, for some Θ with $R(\Theta) = g$.

Then some Φ with $R(\Phi) = g$ has $\|\Phi - \Gamma\|_\infty \le \beta + (2r)^{1/2}$.
Berner, Elbrächter & Grohs (2019) state $\beta + 2r^{1/2}$ (from memory; their text was
not at hand). On N*, for any number of outputs, some Φ in N* has
$\|\Phi - \Gamma\|_\infty \le 2\sqrt2\,r^{1/2}$, where they state $4r^{1/2}$;
$2\sqrt2$ cannot be lowered (`extremal_pair`).

*Proof.* Across a plane H the Jacobian of $g - R(\Gamma)$ jumps by
$J_H = \sum_{a_i \perp H} \pm c_i a_i^\top$ over the neurons of both networks on H, and
$\|J_H\|_{\max} \le 2r$. After merging Θ each H carries at most one neuron of each, of
equal direction $\hat a$. With $p = \|a\|_\infty c$: a neuron whose direction only one
network has satisfies $\|p\|_\infty \le 2r$, two of equal direction
$\|p' - p\|_\infty \le 2r$. Keep equal directions together, pair the others anyhow.

1. Others: those of Θ, balanced, have factors $\le (2r)^{1/2}$, those of Γ $\le \beta$.
2. Equal directions, one output, $pp' > 0$: with $\mu = |c|$, $\kappa = \|a\|_\infty$,
   $s = (\mu + \kappa)/2$ and $\Delta = |p'| - |p|$ both factors move by
   $t = (s^2 + \Delta)^{1/2} - s$, for $(\kappa + t)(\mu + t) = |p'|$, and
   $|t| \le |\Delta|^{1/2}$: for $\Delta > 0$ as $t^2 + 2st = \Delta$, for $\Delta < 0$
   as $|t| \le |\Delta|/s$ and $s^2 \ge |p| \ge |\Delta|$.
3. Equal directions, $pp' \le 0$: $|p| + |p'| \le 2r$, so the factors of Γ are
   $\le \beta$ and those of a balanced $p'$ are $\le (2r)^{1/2}$.
4. Balanced, any outputs: $u \mapsto u/\|u\|_\infty^{1/2}$ is Hölder with exponent ½ and
   constant $\sqrt2$ (attained by $1, -1$), so equal directions move by at most
   $\sqrt2\,(2r)^{1/2}$; others by at most $2(2r)^{1/2}$. ∎

Neurons with a zero factor make no jump; the proof does not need C.2 and C.3 for them,
and they are left out. With several outputs and Γ unbalanced the first statement is
false (`unbalanced_vector_pair`), and `inverse_stable` refuses it. Host code.
"""

from typing import Any, Literal

import equinox as eqx
import numpy as np

from jaxrelu._checks import check_choice, check_positive
from jaxrelu._results import Estimate
from jaxrelu.networks import Shallow
from jaxrelu.realization._arrangement import default_tolerance, group_rows
from jaxrelu.realization._canonical import canonical
from jaxrelu.realization._fibre import fibre_distance, parameter_distance
from jaxrelu.realization._minimal import flip_fibre
from jaxrelu.realization._neurons import (
    Neurons,
    equal_pair,
    pair,
    shallow,
    sup,
)
from jaxrelu.realization._restricted import (
    is_restricted,
    merged,
    same_direction_pairs,
)
from jaxrelu.realization._seminorm import distance


class Hypothesis(eqx.Module):
    """One hypothesis of the theorem; true or false where a bool is asked.

    Attributes:
        name: which one.
        met: whether it holds.
        reason: why, or why not.
    """

    name: str = eqx.field(static=True)
    met: bool = eqx.field(static=True)
    reason: str = eqx.field(static=True)

    def __bool__(self) -> bool:
        return self.met

    def __str__(self) -> str:
        return f"{self.name}: {'met' if self.met else 'NOT met'}. {self.reason}"


class InverseStability(eqx.Module):
    r"""Weights for a function near given weights, and what the theorem promises.

    Attributes:
        network: Φ with $R(\Phi) = g$ up to rounding: the theorem's when its hypotheses
            are met, otherwise the nearest one that `fibre_distance` finds.
        distance: $\|\Phi - \Gamma\|_\infty$.
        radius: r with its error.
        beta: β of C.1; NaN within N*.
        bound: $\beta + (2r)^{1/2}$, within N* $2\sqrt2\,r^{1/2}$, at the upper end of
            r's error.
        published_bound: $\beta + 2r^{1/2}$, within N* $4r^{1/2}$, likewise.
        hypotheses: each with its reason.
    """

    network: Shallow
    distance: float
    radius: Estimate
    beta: float
    bound: float
    published_bound: float
    hypotheses: tuple[Hypothesis, ...]

    @property
    def holds(self) -> bool:
        """Whether all hypotheses are met, so that the bound is promised."""
        return all(h.met for h in self.hypotheses)

    def __str__(self) -> str:
        promise = "promised" if self.holds else "not promised"
        lines = [
            f"distance {self.distance:.6g}, bound {self.bound:.6g} ({promise}), "
            f"r = {self.radius}"
        ]
        return "\n".join(lines + [f"  {h}" for h in self.hypotheses])


def inverse_stable(
    network: Shallow,
    target: Shallow,
    *,
    within: Literal["all", "N*"] = "all",
    beta: float | None = None,
    radius: Estimate | None = None,
    tolerance: float | None = None,
    max_free_signs: int = 16,
) -> InverseStability:
    r"""Weights Φ near Γ with the function of Θ, with hypotheses and bound.

    The construction is the proof in this module. If Θ itself violates C.3, its
    representations with one neuron per kink (`flip_fibre`) are tried; no others can
    satisfy C.3. When a hypothesis fails the nearest Φ of `fibre_distance` is returned
    instead, and `holds` is False.

    Args:
        network: Γ, a ReLU network without biases.
        target: Θ, $g = R(\Theta)$, with as many inputs, outputs and neurons.
        within: `"all"`: the theorem for one output; `"N*"`: Γ, Θ and Φ in N*, any
            outputs.
        beta: β of C.1; None takes the least one that is met.
        radius: r if known, else `distance(network, target)` computes it.
        tolerance: directions, scaled to sup-norm 1, count as equal within it; None
            takes 1e-13 for float64 and 5e-7 for float32.
        max_free_signs: at most 2 to this number of sign patterns are tried.

    Raises:
        TypeError: not such networks.
        ValueError: sizes that differ, several outputs with `within="all"`, `beta` with
            `within="N*"`, too many sign patterns after C.3 failed.

    Cost: one semi-norm (`seminorm` says what it costs), O(k log k + kd), and the
    `fibre_distance` within N* or when a hypothesis fails.
    """
    check_choice(within, ("all", "N*"), "within")
    gamma, theta = equal_pair(network, target)
    if beta is not None:
        if within == "N*":
            msg = "beta has no meaning within N*: its networks are balanced."
            raise ValueError(msg)
        beta = float(beta)
        if beta != 0:
            check_positive(beta, "beta")
    if within == "all" and len(gamma.outer) > 1:
        msg = (
            f"the networks have {len(gamma.outer)} outputs; the theorem holds for one "
            "only (`unbalanced_vector_pair` is a counterexample). Bring both into N* "
            'by `to_restricted` and ask with within="N*".'
        )
        raise ValueError(msg)
    if tolerance is None:
        tolerance = max(default_tolerance(n.dtype) for n in (gamma, theta))
    r = distance(network, target, tolerance=tolerance) if radius is None else radius
    high = float(r.value) + float(r.error)
    if within == "N*":
        return _within_restricted(network, target, r, high, tolerance)
    size, mass = sup(gamma.inner), np.abs(gamma.outer[0])
    small = size * mass <= 2 * high
    least = float(np.maximum(size, mass)[small].max(initial=0.0))
    clean = merged(theta, tolerance)
    hypotheses = (
        _c1(least, beta, int(small.sum()), high),
        _c2(gamma, tolerance),
        *_c3(gamma, clean, tolerance),
    )
    if not hypotheses[3] or not hypotheses[4]:
        other = _other_signs(gamma, target, tolerance, max_free_signs)
        if other is not None:
            clean = other
            hypotheses = (*hypotheses[:3], *_c3(gamma, clean, tolerance)[1:])
    beta = least if beta is None else beta
    if all(hypotheses):
        found = _constructed(gamma, clean, tolerance)
    else:
        found = fibre_distance(network, target, max_free_signs=max_free_signs).network
    return InverseStability(
        found,
        parameter_distance(found, network),
        r,
        beta,
        float(beta + np.sqrt(2 * high)),
        float(beta + 2 * np.sqrt(high)),
        hypotheses,
    )


def _within_restricted(
    network: Shallow, target: Shallow, r: Estimate, high: float, tolerance: float
) -> InverseStability:
    hypotheses = []
    for name, net in (("Γ in N*", network), ("Θ in N*", target)):
        inside = is_restricted(net, "N*", tolerance)
        reason = " ".join(inside.reasons) or "Balanced, no direction twice, positive."
        hypotheses.append(Hypothesis(name, bool(inside), reason))
    fibre = "permutations" if all(hypotheses) else "rescalings"
    found = fibre_distance(network, target, fibre).network
    return InverseStability(
        found,
        parameter_distance(found, network),
        r,
        float("nan"),
        float(2 * np.sqrt(2 * high)),
        float(4 * np.sqrt(high)),
        tuple(hypotheses),
    )


def _c1(least: float, beta: float | None, count: int, r: float) -> Hypothesis:
    small = f"{count} neurons have |c a| <= 2r = {2 * r:.6g}"
    if beta is None:
        reason = f"{small}; beta = {least:.6g} is the least that bounds their factors."
        return Hypothesis("C.1", True, reason)
    word = "not above" if least <= beta else "above"
    reason = f"{small}; their largest factor {least:.6g} is {word} beta = {beta:.6g}."
    return Hypothesis("C.1", least <= beta, reason)


def _alive(n: Neurons) -> np.ndarray:
    return (sup(n.inner) > 0) & (sup(n.outer.T) > 0)


def _rows(n: Neurons) -> np.ndarray:
    """Rows of the neurons that do something, zeros for the others."""
    return np.where(_alive(n)[:, None], n.inner, 0.0)


def _none(name: str, found: Any, what: str) -> Hypothesis:
    if not found:
        return Hypothesis(name, True, f"No {what}.")
    reason = f"{len(found)} {what}, the first: {found[0]}."
    return Hypothesis(name, False, reason)


def _c2(gamma: Neurons, tolerance: float) -> Hypothesis:
    pairs = same_direction_pairs(_rows(gamma), tolerance)
    return _none("C.2", pairs, "pairs of neurons of Γ have one direction")


def _c3(gamma: Neurons, theta: Neurons, tolerance: float) -> tuple[Hypothesis, ...]:
    one, two = _rows(gamma), _rows(theta)
    across = [
        (i, j - len(one))
        for i, j in same_direction_pairs(np.concatenate([one, two]), tolerance, True)
        if i < len(one) <= j
    ]
    return (
        _none(
            "C.3(a) for Γ",
            same_direction_pairs(one, tolerance, True),
            "pairs of neurons of Γ are opposite",
        ),
        _none(
            "C.3(a) for Θ",
            same_direction_pairs(two, tolerance, True),
            "pairs of neurons of Θ are opposite",
        ),
        _none("C.3(b)", across, "neurons of Γ are opposite to one of Θ"),
    )


def _other_signs(
    gamma: Neurons, target: Shallow, tolerance: float, limit: int
) -> Neurons | None:
    """Another representation of g, one neuron per kink, that satisfies C.3."""
    form = canonical(target, tolerance)
    h, (k, d) = len(form.normals), gamma.inner.shape
    if h > k:
        return None
    for signs in flip_fibre(form, limit):
        inner, outer = np.zeros((k, d)), np.zeros((len(gamma.outer), k))
        inner[:h], outer[:, :h] = signs[:, None] * form.normals, 2 * form.kinks.T
        theta = Neurons(inner, outer, False, gamma.scalar, gamma.dtype)
        if all(_c3(gamma, theta, tolerance)[1:]):
            return theta
    return None


def _constructed(gamma: Neurons, theta: Neurons, tolerance: float) -> Shallow:
    k = len(gamma.inner)
    _, group, _ = group_rows(np.concatenate([_rows(gamma), _rows(theta)]), tolerance)
    partner = {g: j for j, g in enumerate(group[k:]) if g >= 0}
    inner, outer = np.zeros_like(gamma.inner), np.zeros_like(gamma.outer)
    kappa, mu = sup(gamma.inner), gamma.outer[0]
    size = sup(theta.inner)
    free = []
    for i in range(k):
        j = partner.pop(group[i], None) if group[i] >= 0 else None
        if j is None:
            free.append(i)
            continue
        direction, p = theta.inner[j] / size[j], theta.outer[0, j] * size[j]
        a, c = _nearest_factors(kappa[i], mu[i], p)
        inner[i], outer[0, i] = a * direction, c
    for i, j in zip(free, partner.values(), strict=False):
        p = theta.outer[0, j] * size[j]
        root = np.sqrt(abs(p))
        inner[i], outer[0, i] = root * theta.inner[j] / size[j], np.sign(p) * root
    return shallow(inner, outer, gamma)


def _nearest_factors(kappa: float, mu: float, p: float) -> tuple[float, float]:
    """Factors (a, c), a > 0, a c = p, near (kappa, mu): steps 2 and 3 of the proof."""
    if mu * p <= 0:
        root = np.sqrt(abs(p))
        return root, np.sign(p) * root
    s, change = (abs(mu) + kappa) / 2, abs(p) - abs(mu) * kappa
    ratio = change / s  # s**2 may overflow
    t = ratio / (1 + np.sqrt(max(1 + ratio / s, 0.0)))
    a, c = kappa + t, abs(mu) + t
    # the larger one keeps its value, the product is exact
    a, c = (a, abs(p) / a) if a >= c else (abs(p) / c, c)
    return a, np.sign(p) * c


def direction_radius(network: Shallow, target: Shallow) -> float:
    r"""How close two functions must be for their networks to have the same directions.

    $\rho = \tfrac12 \min_i \|c_i\|_\infty\|a_i\|_\infty$ over the nonzero neurons
    of both. If both lie in N* and $|R(\Theta) - R(\Gamma)|_{W^{1,\infty}} < \rho$,
    then the sets of their directions are equal: a direction of one network only would
    be a jump of at most 2r, hence a product of at most 2r. So closeness in
    $W^{1,\infty}$ compares magnitudes on equal directions; turning a row, however
    little, is a jump in this norm.

    Args:
        network: Γ.
        target: Θ, with inputs and outputs of the same sizes.

    Returns:
        ρ, infinite if there is no nonzero neuron.

    Raises:
        TypeError, ValueError: not such networks, sizes that differ.
    """
    both = pair(network, target, affine=False)
    products = np.concatenate([sup(n.inner) * sup(n.outer.T) for n in both])
    return float(products[products > 0].min(initial=np.inf) / 2)
