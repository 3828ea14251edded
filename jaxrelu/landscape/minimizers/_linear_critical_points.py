r"""All critical points of two-layer linear networks; a spurious minimum with ReLU.

$f(A_1, A_2) = \tfrac12\|X A_1^\top A_2^\top - Y\|^2$, rows are samples, any widths
$(d, k, m)$ and data. With $P^* = (X^+Y)^\top$, $\Sigma = Y^\top XX^+Y$ and
$\Pi = A_2A_2^+$, $(A_1, A_2)$ is critical if and only if

$$A_1 = A_2^+P^* + L - A_2^+A_2LX^+X \text{ for some } L, \quad \Pi\Sigma = \Sigma\Pi,
\quad (I - \Pi)Y^\top XL^\top(I - A_2^+A_2) = 0.$$

Then $f = \tfrac12(\|Y\|^2 - \operatorname{tr}\Pi\Sigma)$. *Proof.* The gradient in
$A_1$ vanishes iff $A_1$ solves the normal equations: the form of $A_1$, so that
$A_2A_1X^\top = \Pi P^*X^\top$. Inserted in that of $A_2$ it leaves
$(I-\Pi)Y^\top XA_1^\top = 0$, which the projector $A_2^+A_2$ splits in the other two.
$\square$ The form is recalled from arXiv 1710.11205 and re-derived.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrelu._products import matmul
from jaxrelu.data import Dataset
from jaxrelu.landscape.minimizers._linear_minimizers import least_squares_map
from jaxrelu.landscape.minimizers._matrix_products import (
    ReducedData,
    check_square,
    norm,
    reduced_data,
    singular_values,
    spectral_norm,
)
from jaxrelu.networks import LinearNetwork, Shallow
from jaxrelu.objectives import SquaredLoss
from jaxrelu.spectra import DistinctSpectrum


class ShallowLevels(eqx.Module):
    r"""The values that a two-layer linear network takes at its critical points.

    Attributes:
        values: $\tfrac12(\|Y\|^2 - \sum_{i\in I}\lambda_i)$, ascending, (s,).
        subsets: the I of each, 0-based indices of the descending eigenvalues of Σ.
        eigenvalues: $\lambda_i$ of Σ, descending, (m,).
    """

    values: Float[Array, " s"]
    subsets: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    eigenvalues: Float[Array, " m"]


def shallow_levels(data: Dataset, width: int) -> ShallowLevels:
    r"""Values at the critical points, in ascending order: the first is the global one.

    For eigenvalues that coincide the eigenspaces may be mixed; the values stay the
    same.

    Args:
        data: inputs (n, d), targets (n, m).
        width: k, hidden neurons.

    Raises:
        ValueError: more than 100 000 subsets of at most k of the m outputs.
    """
    reduced = reduced_data(data)
    m = data.targets.shape[1]
    top = min(width, m)
    count = sum(math.comb(m, size) for size in range(top + 1))
    if count > 100_000:
        msg = (
            f"{count:,} subsets of at most {top} of {m} outputs; expected at most "
            "100,000. Use shallow_critical_point for the one you need."
        )
        raise ValueError(msg)
    eigenvalues, _ = _principal(reduced)
    subsets = [
        each
        for size in range(top + 1)
        for each in itertools.combinations(range(m), size)
    ]
    square = jnp.sum(data.targets**2)
    table = jnp.zeros((len(subsets), m), eigenvalues.dtype)
    rows = [i for i, each in enumerate(subsets) for _ in each]
    cols = [j for each in subsets for j in each]
    table = table.at[jnp.asarray(rows, int), jnp.asarray(cols, int)].set(1)
    values = (square - matmul(table, eigenvalues)) / 2
    order = [int(i) for i in jnp.argsort(values)]
    ordered = tuple(subsets[i] for i in order)
    return ShallowLevels(values[jnp.asarray(order)], ordered, eigenvalues)


def _principal(reduced: ReducedData) -> tuple[Array, Array]:
    r"""Eigenvalues of Σ, descending, and its eigenvectors as columns."""
    values, right = jnp.linalg.svd(reduced.targets, full_matrices=True)[1:]
    missing = right.shape[0] - values.shape[0]
    return jnp.pad(values**2, (0, missing)), right.T


def shallow_critical_point(
    data: Dataset,
    subset: Sequence[int],
    mixing: Float[Array, "k k"],
    free: Float[Array, "k d"] | None = None,
) -> LinearNetwork:
    r"""The critical point of the eigenvectors in a subset: $A_2 = U_I[I\;0]C$.

    Global if the subset holds the largest eigenvalues, as many as fit; a saddle else
    (or a value of the same level), see `escape_direction`.

    Args:
        data: inputs (n, d), targets (n, m).
        subset: I, at most k different indices below m.
        mixing: C, invertible; its order is the hidden width k.
        free: L; its part that violates the third condition is taken out.

    Raises:
        ValueError: a subset that does not fit, C singular, L of a wrong shape.
    """
    reduced = reduced_data(data)
    row, basis = _subset(reduced, subset, mixing)
    second = matmul(basis, row)
    best = least_squares_map(data)
    back = jnp.linalg.pinv(row)
    first = matmul(back, matmul(basis.T, best))
    if free is not None:
        first = first + _free_part(reduced, free, row, back, basis)
    return LinearNetwork((first, second))


def _subset(
    reduced: ReducedData, subset: Sequence[int], mixing: Array
) -> tuple[Array, Array]:
    m, width = reduced.targets.shape[1], mixing.shape[0]
    check_square(mixing, width, "mixing")
    chosen = list(subset)
    fits = len(set(chosen)) == len(chosen) <= width
    if not (fits and all(0 <= i < m for i in chosen)):
        msg = (
            f"subset is {tuple(subset)}; expected at most {width} different indices "
            f"from 0 to {m - 1}."
        )
        raise ValueError(msg)
    _, vectors = _principal(reduced)
    return mixing[: len(chosen)], vectors[:, jnp.asarray(chosen, int)]


def _free_part(
    reduced: ReducedData, free: Array, row: Array, back: Array, basis: Array
) -> Array:
    shape = (row.shape[1], reduced.right.shape[1])
    if free.shape != shape:
        msg = f"free has shape {free.shape}; expected {shape}."
        raise ValueError(msg)
    cross = matmul(reduced.targets.T, reduced.root)
    cross = cross - matmul(basis, matmul(basis.T, cross))
    off = free - matmul(back, matmul(row, free))
    eps = 16 * max(cross.shape) * float(jnp.finfo(free.dtype).eps)
    out = jnp.linalg.pinv(cross, rtol=eps)
    free = free - matmul(off, matmul(out, cross))
    right = jnp.where(reduced.kept[:, None], reduced.right, 0)
    return free - matmul(back, matmul(row, matmul(matmul(free, right.T), right)))


class CriticalPointCheck(eqx.Module):
    r"""The three conditions at a two-layer linear network, and its value.

    Attributes:
        gradient: $\|\nabla f\|$.
        form: $\|A_2^+A_2A_1X^+X - A_2^+P^*\|$: how far $A_1$ is from its form.
        commutator: $\|\Pi\Sigma - \Sigma\Pi\|$.
        coupling: $\|(I-\Pi)Y^\top XA_1^\top(I - A_2^+A_2)\|$.
        value: $\tfrac12(\|Y\|^2 - \operatorname{tr}\Pi\Sigma)$; f at a critical point.
        excess: value minus the global minimum,
            $\tfrac12(\sum_{i\le k}\lambda_i - \operatorname{tr}\Pi\Sigma)$.
        is_critical: gradient within rounding of 0.
        is_global: critical, and excess within rounding of 0.
    """

    gradient: Float[Array, ""]
    form: Float[Array, ""]
    commutator: Float[Array, ""]
    coupling: Float[Array, ""]
    value: Float[Array, ""]
    excess: Float[Array, ""]
    is_critical: Bool[Array, ""]
    is_global: Bool[Array, ""]


def check_critical_point(
    objective: SquaredLoss, network: LinearNetwork, tolerance: float | None = None
) -> CriticalPointCheck:
    r"""Whether a two-layer linear network is a critical point, and a global minimum.

    Args:
        objective: a `SquaredLoss`.
        network: two layers, any widths.
        tolerance: relative, of gradient and excess; 1e3 ε by default.

    Raises:
        ValueError: not two layers.
    """
    if len(network.weights) != 2:
        msg = f"the network has {len(network.weights)} layers; expected 2."
        raise ValueError(msg)
    return _check(objective, network, tolerance)


@eqx.filter_jit
def _check(
    objective: SquaredLoss, network: LinearNetwork, tolerance: float | None
) -> CriticalPointCheck:
    data, (first, second) = objective.data, network.weights
    reduced = reduced_data(data)
    eps = float(jnp.finfo(first.dtype).eps)
    tolerance = 1e3 * eps if tolerance is None else tolerance
    slopes = jax.grad(objective)(network)
    gradient = jnp.sqrt(sum(jnp.sum(w**2) for w in slopes.weights))
    back = jnp.linalg.pinv(second, rtol=16 * max(second.shape) * eps)
    onto_columns = matmul(second, back)
    onto_rows = matmul(back, second)
    sigma = matmul(reduced.targets.T, reduced.targets)
    best = least_squares_map(data)
    right = jnp.where(reduced.kept[:, None], reduced.right, 0)
    seen = matmul(matmul(matmul(onto_rows, first), right.T), right)
    cross = matmul(matmul(reduced.targets.T, reduced.root), first.T)
    coupled = cross - matmul(onto_columns, cross)
    coupled = coupled - matmul(coupled, onto_rows)
    explained = jnp.trace(matmul(onto_columns, sigma))
    eigenvalues, _ = _principal(reduced)
    top = jnp.sum(eigenvalues[: first.shape[0]])
    excess = (top - explained) / 2
    fit = spectral_norm(first) * spectral_norm(second) * reduced.largest
    # the size that weights of P* have keeps the test meaningful at the origin
    weight = norm(first) + norm(second) + jnp.sqrt(spectral_norm(best))
    size = (fit + norm(data.targets)) * reduced.largest * weight
    critical = gradient <= tolerance * size
    return CriticalPointCheck(
        gradient=gradient,
        form=norm(seen - matmul(back, best)),
        commutator=norm(matmul(onto_columns, sigma) - matmul(sigma, onto_columns)),
        coupling=norm(coupled),
        value=(jnp.sum(data.targets**2) - explained) / 2,
        excess=excess,
        is_critical=critical,
        is_global=critical & (excess <= tolerance * top),
    )


def escape_direction(
    data: Dataset, subset: Sequence[int], mixing: Float[Array, "k k"]
) -> tuple[LinearNetwork, Float[Array, ""]]:
    r"""A unit direction of descent at `shallow_critical_point`, and its curvature.

    With j the best eigenvector left out: if a hidden direction v is idle
    ($|I| < k$, $A_2v = 0$), $\dot A_2 = u_jv^\top$, $\dot A_1 = vu_j^\top P^*$ and the
    second derivative is $-2\lambda_j$; otherwise $u_j$ replaces the worst $u_i$,
    $\dot A_2 = u_je_i^\top C$, $\dot A_1 = C^{-1}e_iu_j^\top P^*$, and it is
    $-(\lambda_j - \lambda_i)$. Both over $\|\dot A\|^2$. Negative wherever the subset
    is not of the largest eigenvalues: every critical point that is no global minimum is
    a strict saddle (of those with L = 0 this shows it).

    Args:
        data: inputs (n, d), targets (n, m).
        subset: I; must leave an index out.
        mixing: C.

    Returns:
        the direction, in the shape of a network, and the curvature: the second
        derivative of f along it.

    Raises:
        ValueError: no index is left out.
    """
    reduced = reduced_data(data)
    row, _ = _subset(reduced, subset, mixing)
    others = [j for j in range(data.targets.shape[1]) if j not in set(subset)]
    if not others:
        msg = f"subset is {tuple(subset)}, all there is: a global minimum."
        raise ValueError(msg)
    eigenvalues, vectors = _principal(reduced)
    new = vectors[:, others[0]]
    pull = matmul(new, least_squares_map(data))
    back = jnp.linalg.pinv(row)
    if len(subset) < mixing.shape[0]:
        null = jnp.linalg.svd(row, full_matrices=True)[2][-1]
        first, second = jnp.outer(null, pull), jnp.outer(new, null)
        bend = -2 * eigenvalues[others[0]]
    else:
        worst = max(range(len(subset)), key=lambda i: subset[i])
        first, second = jnp.outer(back[:, worst], pull), jnp.outer(new, row[worst])
        bend = eigenvalues[subset[worst]] - eigenvalues[others[0]]
    size = norm(first) ** 2 + norm(second) ** 2
    scale = jnp.sqrt(size)
    return LinearNetwork((first / scale, second / scale)), bend / size


def origin_spectrum(data: Dataset, width: int) -> DistinctSpectrum:
    r"""The Hessian at $W = 0$ of two layers: $\pm\sigma_i(Y^\top X)$, k times each.

    A strict saddle unless $Y^\top X = 0$. With three layers or more the Hessian at 0
    is zero.

    Args:
        data: inputs (n, d), targets (n, m).
        width: k.
    """
    reduced = reduced_data(data)
    values = singular_values(matmul(reduced.targets.T, reduced.root))
    count = values.shape[0]
    flat = width * abs(data.inputs.shape[1] - data.targets.shape[1])
    middle = jnp.zeros((1 if flat else 0,), values.dtype)
    eps = float(jnp.finfo(values.dtype).eps)
    error = jnp.full((count,), 64 * eps, values.dtype) * values[0]
    return DistinctSpectrum(
        jnp.concatenate([values, middle, -values[::-1]]),
        jnp.concatenate([error, middle, error]),
        (width,) * count + ((flat,) if flat else ()) + (width,) * count,
        ("ascent",) * count + (("flat",) if flat else ()) + ("descent",) * count,
        method="singular values of Y^T X",
        error_kind="rounding bound",
    )


def spurious_relu_minimum(
    dtype: Any = None,
) -> tuple[SquaredLoss, Shallow, Shallow]:
    r"""The smallest ReLU network with a spurious local minimum.

    One neuron, inputs 1, -1, targets 1, 2: $(w, v) = (1, 1)$ has loss 2 and is a local
    minimum, as $f = 2 + \tfrac12(wv - 1)^2$ for $w > 0$; $(-1, 2)$ has the global value
    ½ ($f \ge \tfrac12$ because one of the two outputs is 0).

    Args:
        dtype: floating dtype; None takes JAX's default.

    Returns:
        the objective, the local minimum, a global one.
    """
    dtype = jnp.zeros((), dtype if dtype is not None else float).dtype
    column = lambda *x: jnp.asarray(x, dtype)[:, None]
    data = Dataset(column(1, -1), jnp.asarray((1, 2), dtype))
    nets = [Shallow(column(w), jnp.asarray((v,), dtype)) for w, v in ((1, 1), (-1, 2))]
    return SquaredLoss(data), nets[0], nets[1]
