r"""The Hessian at global minima for an orthonormal teacher: spectra in closed form.

At $W = V$ (n = k) the blocks are $H_{ii} = \frac12 I$ and
$H_{ij} = \frac14 I + \frac1{2\pi}(v_i v_j^\top + v_j v_i^\top)$ (Safran, Yehudai and
Shamir, Lemma 20). $\mathbb R^{k \times k}$ splits under $S_k$ into two trivial, three
standard, one alternating and one Young $(k-2, 2)$ representation.

Copies of a neuron, $w = \alpha v$ with shares that add up to 1, leave no curvature of
their own: $H_{ii} = \frac12 I$ and $\partial^2 F/\partial w_i \partial w_j$ depends on
directions alone. So $H = P^\top H_k P$ with $P$ adding up the copies, whatever the
shares, for every teacher.
"""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import check_size
from jaxrelu._memory import require_bytes
from jaxrelu.landscape.global_minima._global_minima import as_partition
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss
from jaxrelu.operators import hessian
from jaxrelu.spectra import DistinctSpectrum


_METHOD = "closed form by the representations of the symmetric group"


def strong_convexity_constant(k: int) -> float:
    r"""The smallest eigenvalue at a global minimum for n = k, any d.

    $\frac14 - \frac1{2\pi} = 0.0908$ for $k \ge 2$ and $\frac12$ for $k = 1$. Theorem 3
    of Safran, Yehudai and Shamir has it as a lower bound; their proof says that the
    smallest eigenvalue is strictly larger, which is wrong: it is attained, with
    multiplicity $k(k-1)/2$, for every $k \ge 2$.

    Args:
        k: neurons of student and teacher.
    """
    check_size(k, "k")
    return 0.5 if k == 1 else 0.25 - 1 / (2 * math.pi)


def coupling_spectrum(k: int, dtype: Any = None) -> DistinctSpectrum:
    r"""Spectrum of $A$ with blocks $v_i v_j^\top + v_j v_i^\top$ ($i \ne j$), 0 else.

    The second matrix in the proof of Theorem 3: with $u_{ij} = u_i \cdot v_j$,
    $(Au)_{ij} = u_{ji}$ off the diagonal and $(Au)_{ii} = \sum_{j \ne i} u_{jj}$. Its
    eigenvalues are $k - 1$ (once; the paper has $k$), $1$ ($k(k-1)/2$ times, on the
    symmetric $u$ with zero diagonal) and $-1$ ($(k+2)(k-1)/2$ times), for d = k.

    Args:
        k: neurons, at least 2.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: k < 2.
    """
    check_size(k, "k")
    if k == 1:
        msg = "k is 1; expected at least 2: one neuron is not coupled to another."
        raise ValueError(msg)
    entries = [
        (k - 1, 1, "trivial"),
        (1, k * (k - 1) // 2, "symmetric, diagonal 0"),
        (-1, (k + 2) * (k - 1) // 2, "skew; diagonal of trace 0"),
    ]
    values = jnp.asarray([e[0] for e in entries], _dtype(dtype))
    return DistinctSpectrum(
        values,
        jnp.zeros_like(values),
        tuple(e[1] for e in entries),
        tuple(e[2] for e in entries),
        "integers",
        "exact",
    )


def global_minimum_spectrum(
    k: int, d: int | None = None, dtype: Any = None
) -> DistinctSpectrum:
    r"""Spectrum of $\nabla^2 F$ at the global minima for n = k, orthonormal teacher.

    | eigenvalue | multiplicity |
    | --- | --- |
    | $\frac14 - \frac1{2\pi}$ | $k(k-1)/2$ (alternating, and one standard) |
    | $\frac14 + \frac1{2\pi}$ | $k(k-3)/2$ (Young) |
    | $\mu_\pm = (k + 2 \pm \sqrt{k^2 - 16(\pi-1)/\pi^2})/8$ | $k - 1$ each |
    | $\nu_\pm = ((k+2)\pi + 2k \pm \sqrt{\pi^2k^2 - 4(\pi-1)(k-2)^2})/8\pi$ | 1 each |
    | $\frac14$ | $(k-1)(d-k)$ |
    | $(k+1)/4$ | $d - k$ |

    For k = 2 the multiplicity $-1$ of the second line cancels $\mu_-$, and for k = 1
    it cancels $\nu_-$. For large k exactly $k + 1$ eigenvalues of the $k^2$ in the span
    of the teacher grow, linearly; the others tend to constants.

    Args:
        k: neurons of student and teacher.
        d: input dimension, at least k; k if None.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: d < k.

    Cost: O(1) in k and d.
    """
    d = k if d is None else d
    _check_dimensions(k, d)
    return _distinct(_entries(k, d), dtype, _METHOD)


def split_minimum_spectrum(
    counts: Sequence[int], d: int | None = None, dtype: Any = None
) -> DistinctSpectrum:
    r"""Spectrum at a differentiable global minimum with n > k, orthonormal teacher.

    Teacher neuron $j$ has ``counts[j]`` copies, in any shares: the Hessian is
    $P^\top H_k P$, positive semidefinite with nullity exactly $(n-k)d$. The other
    eigenvalues are those of $C^{1/2} H_k C^{1/2}$ with $C$ the counts; equal counts
    $m$ give $m$ times `global_minimum_spectrum`.

    Only $n - k$ null directions are the flat manifold of global minima. Along the
    $(n-k)(d-1)$ others, $(u, -u)$ with $u \perp v$, the loss grows cubically; see
    `cubic_growth_constant`.

    Args:
        counts: copies of each of the k teacher neurons, at least 1 each.
        d: input dimension, at least k; k if None.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: a count below 1, or d < k.
        MemoryRefusedError: unequal counts need a $k^2 \times k^2$ matrix.

    Cost: O(1) for equal counts, $O(k^6)$ otherwise; d and n do not enter.
    """
    k, n = len(counts), sum(counts)
    d = k if d is None else d
    check_size(k, "k")
    for j, m in enumerate(counts):
        check_size(m, f"counts[{j}]")
    _check_dimensions(k, d)
    null = [(0.0, (n - k) * d, "copies against each other")]
    if len(set(counts)) == 1:
        grown = [(counts[0] * v, times, name) for v, times, name in _entries(k, d)]
        return _distinct(grown + null, dtype, _METHOD)
    require_bytes(
        3 * 8 * k**4,
        f"a matrix of shape {(k**2, k**2)}, float64,",
        "Take equal counts, which have a closed form.",
    )
    weight = np.sqrt(np.asarray(counts, np.float64))
    eye = np.eye(k)
    swap = np.einsum("ib,ja->iajb", eye, eye) + np.einsum("ia,jb->iajb", eye, eye)
    inside = 0.25 * np.einsum("ij,ab->iajb", 1 - eye, eye)
    inside += np.einsum("ij,iajb->iajb", (1 - eye) / (2 * np.pi), swap)
    inside += 0.5 * np.einsum("ij,ab->iajb", eye, eye)
    inside *= weight[:, None, None, None] * weight[None, None, :, None]
    outside = (0.25 + 0.25 * eye) * weight[:, None] * weight[None, :]
    found = [
        (float(x), 1, "in the span of the teacher")
        for x in np.linalg.eigvalsh(inside.reshape(k * k, k * k))
    ]
    found += [(float(x), d - k, "outside") for x in np.linalg.eigvalsh(outside)]
    rounding = (4 + k) * max(x for x, _, _ in found)
    return _distinct(found + null, dtype, "eigenvalues of a reduced matrix", rounding)


def pulled_back_hessian(
    objective: PopulationLoss, partition: Any
) -> Float[Array, "nd nd"]:
    r"""$P^\top H_k P$: the Hessian at every differentiable global minimum.

    The blocks are those at the student $w_j = b_j v_j$ with rows and columns repeated
    as in ``partition``; the shares $\alpha$ of the copies do not enter. Proved above
    for any teacher with positive outer weights.

    Args:
        objective: the teacher.
        partition: the teacher neuron of each student neuron, (n,).

    Raises:
        ValueError: a partition that leaves a teacher neuron out.
        MemoryRefusedError: it would not fit in memory.
    """
    teacher = objective.teacher
    partition = as_partition(partition, teacher.width)
    n, d = partition.size, teacher.in_size
    dtype = teacher.inner.dtype
    require_bytes(
        (n * d) ** 2 * dtype.itemsize,
        f"a Hessian of shape {(n * d, n * d)}, {dtype},",
        "Use split_minimum_spectrum, or products with hessian(objective, student).",
    )
    return _pull_back(teacher, partition)


@eqx.filter_jit
def _pull_back(teacher: Shallow, partition: Array) -> Array:
    student = teacher.outer[:, None] * teacher.inner
    k, d = student.shape
    blocks = hessian(PopulationLoss(teacher), student).as_matrix()
    blocks = blocks.reshape(k, d, k, d)[partition][:, :, partition]
    return blocks.reshape(partition.size * d, partition.size * d)


def _entries(k: int, d: int) -> list[tuple[float, int, str]]:
    """(eigenvalue, multiplicity, label) at n = k; multiplicities may be 0."""
    pi = math.pi
    outside = [
        (0.25, (k - 1) * (d - k), "outside: standard"),
        ((k + 1) / 4, d - k, "outside: trivial"),
    ]
    if k == 1:
        return [(0.5, 1, "trivial"), *outside]
    low, high = 0.25 - 1 / (2 * pi), 0.25 + 1 / (2 * pi)
    # the smaller root of each quadratic by the product of both: no cancellation
    mu = (k + 2 + math.sqrt(k * k - 16 * (pi - 1) / pi**2)) / 8
    mu_low = ((k + 1) / 16 + (pi - 1) / (4 * pi**2)) / mu
    one, two = 0.5 + (k - 1) / (2 * pi), k / 4 + 1 / (2 * pi)
    nu = (one + two + math.sqrt((one - two) ** 2 + (k - 1) / 4)) / 2
    nu_low = (one * two - (k - 1) / 16) / nu
    return [
        (low, (k - 1) * (k - 2) // 2, "alternating"),
        (low, k - 1, "standard"),
        (high, k * (k - 3) // 2 if k > 2 else 0, "Young"),
        (mu_low, k - 1 if k > 2 else 0, "standard"),
        (mu, k - 1, "standard"),
        (nu_low, 1, "trivial"),
        (nu, 1, "trivial"),
        *outside,
    ]


def _distinct(
    entries: list[tuple[float, int, str]],
    dtype: Any,
    method: str,
    rounding: float = 0.0,
) -> DistinctSpectrum:
    """Python numbers, off by 8 roundings or ``rounding`` units, in a dtype."""
    entries = sorted((e for e in entries if e[1]), key=lambda e: -e[0])
    values = np.array([e[0] for e in entries])
    error = np.maximum(8 * np.abs(values), np.where(values != 0, rounding, 0))
    dtype = _dtype(dtype)
    error = error * np.finfo(np.float64).eps + np.abs(values) * jnp.finfo(dtype).eps / 2
    return DistinctSpectrum(
        jnp.asarray(values, dtype),
        jnp.asarray(error, dtype),
        tuple(e[1] for e in entries),
        tuple(e[2] for e in entries),
        method,
        "rounding bound",
    )


def _dtype(dtype: Any) -> Any:
    return jnp.zeros((), float if dtype is None else dtype).dtype


def _check_dimensions(k: int, d: int) -> None:
    check_size(k, "k")
    check_size(d, "d")
    if d < k:
        msg = f"d is {d} and k is {k}; expected d >= k: the teacher is orthonormal."
        raise ValueError(msg)
