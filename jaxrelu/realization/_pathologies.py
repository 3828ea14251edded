r"""Networks close as functions and far apart as weights: the pathologies.

Each constructor returns Γ and a network Θ of $g_k$ with numbers that can be checked:
the semi-norm of $g_k - R(\Gamma)$, and $\inf\{\|\Phi - \Gamma\|_\infty : R(\Phi) =
g_k\}$ over all networks of the same architecture. The examples are those of Berner,
Elbrächter & Grohs (2019), known to us from memory, their text was not at hand; the
numbers were derived anew and are tested here against the exact semi-norm and
`fibre_distance`.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import check_positive
from jaxrelu.networks import Shallow
from jaxrelu.realization._arrangement import default_tolerance
from jaxrelu.realization._neurons import sup
from jaxrelu.realization._restricted import same_direction_pairs


class Pathology(eqx.Module):
    r"""One pair (Γ, g_k) with what is known of it.

    Attributes:
        gamma: Γ.
        target: Θ, $g_k = R(\Theta)$.
        nearest: a Φ with $R(\Phi) = g_k$ at `distance_upper`, None if none is known.
        seminorm: $|g_k - R(\Gamma)|_{W^{1,\infty}}$.
        distance_lower: lower bound on $\inf\|\Phi - \Gamma\|_\infty$.
        distance_upper: upper bound on it, infinite if none is known; equal to the
            lower one where the infimum is known.
        supremum: $\sup |g_k - R(\Gamma)|$ on $(-1, 1)^d$ where it matters, else None.
        k: the index.
        name: what the example is called.
        provenance: where it comes from and what was checked.
    """

    gamma: Shallow
    target: Shallow
    nearest: Shallow | None
    seminorm: float
    distance_lower: float
    distance_upper: float
    supremum: float | None
    k: float
    name: str = eqx.field(static=True)
    provenance: str = eqx.field(static=True)

    @property
    def exact(self) -> bool:
        """Whether the distance is known, not only bounded."""
        return self.distance_lower == self.distance_upper


DERIVED = "example recalled; all numbers derived, and checked by exact computation"


def _shallow(inner: Any, outer: Any, dtype: Any) -> Shallow:
    dtype = jnp.zeros((), dtype if dtype is not None else float).dtype
    return Shallow(jnp.asarray(inner, dtype), jnp.asarray(outer, dtype))


def exploding_gradient(k: float, dtype: Any = None) -> Pathology:
    r"""Small in the uniform norm, far in the weights (their Example 2.1).

    $\Gamma = 0$ with two neurons in the plane,
    $g_k(x) = k\rho(k x_1) - k\rho(k x_1 - x_2/k^2)$. On $(-1, 1)^2$
    $\|g_k\|_\infty = 1/k$, but $|g_k|_{W^{1,\infty}} = k^2$, and the distance is
    exactly k: both neurons have products $k^2$, signs cannot flip because the rows are
    independent, and a product p keeps $\max(\|a\|_\infty, |c|) \ge |p|^{1/2}$.

    Args:
        k: at least 1.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: k below 1.
    """
    _at_least_one(k)
    target = _shallow([[k, 0], [k, -1 / k**2]], [k, -k], dtype)
    gamma = _shallow(np.zeros((2, 2)), np.zeros(2), dtype)
    return Pathology(
        gamma, target, target, k**2, k, k, 1 / k, k, "exploding gradient", DERIVED
    )


def complete_unbalancedness(k: float, r: float = 1.0, dtype: Any = None) -> Pathology:
    r"""A dead neuron with a large row (their Example 2.2).

    $\Gamma = ((r, 0), 0)$, $g_k = \rho(x_2)/k$: semi-norm 1/k, distance
    $\max(r, k^{-1/2})$, since every Φ is $((0, \lambda), 1/(k\lambda))$.

    Args:
        k: positive.
        r: positive.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: k or r not positive.
    """
    check_positive(k, "k")
    check_positive(r, "r")
    root = k**-0.5
    nearest = _shallow([[0, root]], [root], dtype)
    value = max(r, root)
    return Pathology(
        _shallow([[r, 0]], [0], dtype),
        _shallow([[0, 1]], [1 / k], dtype),
        nearest,
        1 / k,
        value,
        value,
        None,
        k,
        "complete unbalancedness",
        DERIVED,
    )


def unbalancedness(k: float, dtype: Any = None) -> Pathology:
    r"""Unbalanced without a dead neuron (their Example A.1).

    $\Gamma_k = ((k, 0), 1/k^2)$, $g_k = \rho(x_2)/k$: semi-norm 1/k, distance k. For
    each single k weights are stable, but not uniformly in k.

    Args:
        k: at least 1.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: k below 1.
    """
    _at_least_one(k)
    # any (0, lam), 1/(k lam) with lam <= k and |1/(k lam) - 1/k^2| <= k
    return Pathology(
        _shallow([[k, 0]], [1 / k**2], dtype),
        _shallow([[0, 1]], [1 / k], dtype),
        _shallow([[0, 1]], [1 / k], dtype),
        1 / k,
        k,
        k,
        None,
        k,
        "unbalancedness",
        DERIVED,
    )


def redundant_directions(k: float, dtype: Any = None) -> Pathology:
    r"""Two neurons of one direction (their Example 2.3).

    $\Gamma$ has the row (1, 0) twice with weights (1, 1),
    $g_k = 2\rho(x_1) + \rho(x_2)/k$: semi-norm 1/k, distance 1, because one neuron of
    Φ must lie on $\pm(0, 1)$ and so moves its first entry by 1.

    Args:
        k: at least 1.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: k below 1.
    """
    _at_least_one(k)
    return Pathology(
        _shallow([[1, 0], [1, 0]], [1, 1], dtype),
        _shallow([[1, 0], [0, 1]], [2, 1 / k], dtype),
        _shallow([[1, 0], [0, 1]], [2, 1 / k], dtype),
        1 / k,
        1.0,
        1.0,
        None,
        k,
        "redundant directions",
        DERIVED,
    )


def distance_to_line(
    rows: Float[np.ndarray, "k d"], v: Float[np.ndarray, " d"]
) -> Float[np.ndarray, " k"]:
    r"""$\min_t \|a_i - t v\|_\infty$ for each row.

    A convex piecewise linear function of t, least where two of the 2d lines
    $\pm(a_{iq} - t v_q)$ meet: all meeting points are tried.

    Cost: $O(k d^3)$.
    """
    slopes = np.concatenate([v, -v])
    best = np.full(len(rows), np.inf)
    for i, row in enumerate(rows):
        levels = np.concatenate([row, -row])
        rise = slopes[:, None] - slopes[None]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = ((levels[:, None] - levels[None]) / rise)[rise != 0]
        best[i] = np.abs(row[None] - t[:, None] * v[None]).max(axis=1).min()
    return best


def opposite_vectors(
    k: float,
    directions: Float[Array, "m d"] | Float[np.ndarray, "m d"] | None = None,
    v: Float[Array, " d"] | Float[np.ndarray, " d"] | None = None,
    dtype: Any = None,
) -> Pathology:
    r"""Opposite rows that cancel (their Example 2.4).

    Rows $a_1, \dots, a_m, -a_1, \dots, -a_m$ with weights 1 and -1, $\sum_i a_i = 0$:
    $R(\Gamma) = 0$. $g_k = \rho(\langle v, x\rangle)/k$ with v independent of each
    $a_i$: semi-norm $\|v\|_\infty/k$, and the distance is at least
    $C = \min_i \min_t \|a_i - tv\|_\infty > 0$ for all k, because some neuron of Φ lies
    on ±v. Without arguments $a = (1,0), (-½,1), (-½,-1)$, $v = (0,1)$: then the
    distance is exactly $C = ½$, reached by the rows
    $(½,0), (0,s), (-½,-1), (-½,0), (0,-1), (½,1)$ with weights
    $1, s, 1, -1, -1, -1$, $s^2 = 1 + 1/k$.

    Args:
        k: at least 1.
        directions: $a_i$, pairwise not parallel, summing to 0; given together with v.
        v: a direction parallel to none of them.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: k below 1, only one of `directions` and `v`, directions that do not
            sum to 0, or that are parallel to each other or to v.
    """
    _at_least_one(k)
    if (directions is None) != (v is None):
        msg = "got one of directions and v; expected both or neither."
        raise ValueError(msg)
    if directions is None or v is None:
        rows = np.array([[1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]])
        s = float(np.sqrt(1 + 1 / k))
        nearest = _shallow(
            [[0.5, 0], [0, s], [-0.5, -1], [-0.5, 0], [0, -1], [0.5, 1]],
            [1, s, 1, -1, -1, -1],
            dtype,
        )
        return _opposite(k, rows, np.array([0.0, 1.0]), nearest, dtype)
    rows, v = np.asarray(directions, np.float64), np.asarray(v, np.float64)
    if np.abs(rows.sum(axis=0)).max() > 1e-6 * np.abs(rows).max():
        msg = f"the directions sum to {rows.sum(axis=0)}; expected 0."
        raise ValueError(msg)
    lines = np.concatenate([rows, v[None]])
    tolerance = default_tolerance("float64")
    parallel = same_direction_pairs(lines, tolerance)
    parallel += same_direction_pairs(lines, tolerance, opposite=True)
    if parallel or not sup(lines).all():
        msg = (
            f"rows {parallel} of (directions, v) are parallel or a row is 0; expected "
            "pairwise independent rows."
        )
        raise ValueError(msg)
    return _opposite(k, rows, v, None, dtype)


def _opposite(
    k: float, rows: np.ndarray, v: np.ndarray, nearest: Shallow | None, dtype: Any
) -> Pathology:
    m = len(rows)
    ones = np.concatenate([np.ones(m), -np.ones(m)])
    inner = np.concatenate([rows, -rows])
    target, weights = np.zeros_like(inner), np.zeros(2 * m)
    target[0], weights[0] = v, 1 / k
    lower = float(distance_to_line(rows, v).min())
    return Pathology(
        _shallow(inner, ones, dtype),
        _shallow(target, weights, dtype),
        nearest,
        float(np.abs(v).max()) / k,
        lower,
        float("inf") if nearest is None else lower,
        None,
        k,
        "opposite vectors",
        DERIVED,
    )


def opposite_networks(k: float, dtype: Any = None) -> Pathology:
    r"""All rows turned round (their Example 2.5).

    $a_1 = (k, k, 1/k)$, $a_2 = (-k, k, 1/k)$, $a_3 = (0, -\sqrt2k, 1/(\sqrt2k))$,
    $c = k(1, 1, \sqrt2)$, $\Theta = (a, c)$ and $\Gamma = (-a, c)$: the difference is
    the linear map $3x_3$, semi-norm 3, and the distance is $\sqrt2\,k$ (from memory
    the paper has the lower bound k). Γ and Θ are balanced, and the rows are
    independent, so the fibre is permutations and rescalings only.

    Args:
        k: at least 1.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: k below 1.
    """
    _at_least_one(k)
    s = float(np.sqrt(2))
    a = np.array([[k, k, 1 / k], [-k, k, 1 / k], [0, -s * k, 1 / (s * k)]])
    c = k * np.array([1, 1, s])
    value = s * k
    t = np.array([s - 1, 2 - s, 1 / s])  # of a_1, a_3, a_2: reaches the distance
    order = [0, 2, 1]
    return Pathology(
        _shallow(-a, c, dtype),
        _shallow(a, c, dtype),
        _shallow(t[:, None] * a[order], c[order] / t, dtype),
        3.0,
        value,
        value,
        None,
        k,
        "opposite networks",
        DERIVED,
    )


def _at_least_one(k: float) -> None:
    if not (np.isfinite(k) and k >= 1):
        msg = f"k is {k}; expected a finite number of at least 1."
        raise ValueError(msg)


PATHOLOGIES = (
    exploding_gradient,
    complete_unbalancedness,
    unbalancedness,
    redundant_directions,
    opposite_vectors,
    opposite_networks,
)
"""All of them; each takes k first and returns a `Pathology`."""
