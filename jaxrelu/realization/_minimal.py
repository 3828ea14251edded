r"""How few neurons a function needs, and the signs that are free.

A function with kinks $H_1, \dots, H_h$ and linear part $L$ (`canonical`) needs a neuron
on each kink. A single neuron on $H$ is $2\kappa_H\rho(\varepsilon t) =
\kappa_H|t| + \varepsilon\kappa_H t$ with $t = \langle n_H, x\rangle$ and
$\varepsilon = \pm 1$, two on $\pm n_H$ make any linear part $u\,n_H^\top$, and a linear
map of rank one without a kink takes two, $u\rho(\langle v,x\rangle) -
u\rho(-\langle v,x\rangle)$. So with $S$ the kinks that carry two neurons the width is
$$ h + \min_{S,\varepsilon} \Big(|S| + 2\operatorname{rank}\big((L - \sum_{H\notin S}
   \varepsilon_H \kappa_H n_H^\top) \bmod \operatorname{span}\{n_H : H \in S\}\big)
   \Big), $$
for a scalar output $h$, $h+1$ or $h+2$, as Dereich & Kassing 2021 state it for affine
networks. With biases the constant is free (the output bias) and only the part of $L$
and $n_H$ that multiplies $x$ counts. Host code, floating point with the form's
tolerance.
"""

import itertools
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from scipy.linalg import qr

from jaxrelu.networks import DenseNetwork, Shallow
from jaxrelu.realization._canonical import CanonicalForm, canonical
from jaxrelu.realization._neurons import balanced, shallow


class MinimalWidth(eqx.Module):
    """The least number of hidden neurons, and a way to reach it.

    Attributes:
        width: neurons needed.
        signs: ε per kink, 0 for a kink that carries two neurons, (h,).
        rank: of the linear map that is made without kinks, by two neurons each.
    """

    signs: Int[np.ndarray, " h"]
    width: int = eqx.field(static=True)
    rank: int = eqx.field(static=True)


def _as_form(f: Any) -> CanonicalForm:
    return f if isinstance(f, CanonicalForm) else canonical(f)


def _visible(form: CanonicalForm) -> tuple[np.ndarray, np.ndarray]:
    """The columns of L and of the normals that multiply the input itself."""
    d = form.linear.shape[1] - form.affine
    return form.linear[:, :d], form.normals[:, :d]


def _patterns(count: int, limit: int) -> np.ndarray:
    if count > limit:
        msg = (
            f"2^{count} sign patterns would have to be tried; expected at most "
            f"2^{limit}. Raise max_free_signs if you can wait."
        )
        raise ValueError(msg)
    bits = np.arange(2**count)[:, None] >> np.arange(count)
    return 1.0 - 2.0 * (bits & 1)


def _solve_signs(
    vectors: np.ndarray, target: np.ndarray, tolerance: float, limit: int
) -> np.ndarray:
    r"""All $\varepsilon \in \{\pm1\}^h$ with $\sum_j \varepsilon_j v_j$ = target.

    As many signs as the vectors have rank follow from the others by linear algebra.
    """
    h = len(vectors)
    scale = np.abs(vectors).sum() + np.abs(target).sum()
    if h == 0 or scale == 0:
        return np.ones((int(scale == 0), h), int)
    factors: Any = qr(vectors.T, mode="economic", pivoting=True)
    r, order = factors[1:]
    diagonal = np.abs(np.diag(r))
    rank = int(np.sum(diagonal > max(tolerance, 1e-12) * diagonal[0]))
    basis, free = order[:rank], order[rank:]
    tried = _patterns(len(free), limit)
    left = target[None] - tried @ vectors[free]
    solved = left @ np.linalg.pinv(vectors[basis])
    signs = np.empty((len(tried), h))
    signs[:, free] = tried
    signs[:, basis] = np.where(solved < 0, -1.0, 1.0)
    defect = np.abs(signs @ vectors - target).max(axis=1)
    good = signs[defect <= tolerance * scale].astype(int)
    return good[np.lexsort(good.T[::-1])] if len(good) else good


def flip_fibre(f: Any, max_free_signs: int = 20) -> Int[np.ndarray, "count h"]:
    r"""Representations with exactly one neuron per kink, up to their symmetries.

    Those are the $\varepsilon \in \{\pm1\}^h$ with $\sum_H \varepsilon_H \kappa_H
    n_H^\top = L$: the neuron on $H$ is $2\kappa_H\rho(\varepsilon_H\langle n_H, x
    \rangle)$. All other networks of that width are permutations and rescalings of
    these. No row when the function needs more than h neurons.

    Args:
        f: a network or its canonical form.
        max_free_signs: at most 2 to this number of patterns are tried.

    Raises:
        ValueError: too many patterns.

    Cost: $2^{h-\rho}$ patterns, ρ the rank of $\{\kappa_H n_H^\top\}$: one pattern
    when these are independent.
    """
    form = _as_form(f)
    linear, normals = _visible(form)
    vectors = (form.kinks[:, :, None] * normals[:, None, :]).reshape(
        len(normals), linear.size
    )
    return _solve_signs(vectors, linear.ravel(), form.tolerance, max_free_signs)


def _off_span(normals: np.ndarray, rows: list[int]) -> np.ndarray:
    """Orthogonal projection that removes the span of some normals."""
    identity = np.eye(normals.shape[1])
    if not rows:
        return identity
    _, s, vt = np.linalg.svd(normals[rows], full_matrices=False)
    q = vt[s > 1e-10 * s.max()] if s.max() > 0 else vt[:0]
    return identity - q.T @ q


def minimal_width(f: Any, max_free_signs: int = 20) -> MinimalWidth:
    r"""The least number of ReLU neurons that give the function exactly.

    The formula of this module, minimised by trying S in order of $|S| + 2\,$rank; for
    a scalar output at most h + 1 sets are tried.

    Args:
        f: a network or its canonical form.
        max_free_signs: at most 2 to this number of sign patterns are tried per set.

    Raises:
        ValueError: too many patterns. Deciding whether signs exist contains the subset
            sum problem, so there is no fast way in general.

    Cost: scalar output $(h + 1)\,2^{h-\rho}$ patterns, ρ as in `flip_fibre`; for m
    outputs up to $\binom{h}{|S|} 2^h$ with $|S| \le 2\min(m, d)$.
    """
    form = _as_form(f)
    linear, normals = _visible(form)
    h, (m, d) = len(normals), linear.shape
    scale = np.abs(linear).sum() + np.abs(form.kinks).sum()
    for extra in itertools.count():
        for rank in range(extra // 2, -1, -1):
            doubled = extra - 2 * rank
            if doubled > h:
                continue
            if rank >= min(m, d) and not doubled:
                return MinimalWidth(np.ones(h, int), h + extra, rank)
            for chosen in itertools.combinations(range(h), doubled):
                others = [j for j in range(h) if j not in chosen]
                away = _off_span(normals, list(chosen))
                vectors = (
                    form.kinks[others, :, None] * (normals[others] @ away)[:, None, :]
                )
                target = linear @ away
                signs = _first_signs(
                    vectors, target, rank, form.tolerance, scale, max_free_signs
                )
                if signs is not None:
                    full = np.zeros(h, int)
                    full[others] = signs
                    left = np.tensordot(signs, vectors, 1)
                    found = _rank(target - left, form.tolerance * scale)
                    return MinimalWidth(full, h + doubled + 2 * found, found)
    raise AssertionError  # the loop above ends: all rank, none doubled


def _rank(matrix: np.ndarray, threshold: float) -> int:
    values = np.linalg.svd(matrix, compute_uv=False)
    return int(np.sum(values > threshold * math.sqrt(max(matrix.shape))))


def _first_signs(
    vectors: np.ndarray,
    target: np.ndarray,
    rank: int,
    tolerance: float,
    scale: float,
    limit: int,
) -> np.ndarray | None:
    h = len(vectors)
    if rank == 0:
        found = _solve_signs(
            vectors.reshape(h, target.size), target.ravel(), tolerance, limit
        )
        return found[0] if len(found) else None
    for signs in _patterns(h, limit):
        left = target - np.tensordot(signs, vectors, 1)
        if _rank(left, tolerance * scale) <= rank:
            return signs.astype(int)
    return None


def minimal_network(f: Any, max_free_signs: int = 20) -> Shallow | DenseNetwork:
    r"""A network of least width for the function, balanced.

    Each neuron has $\|a_i\|_\infty = \|c_i\|_\infty$. The zero function gets one zero
    neuron.

    Args:
        f: a network or its canonical form.
        max_free_signs: as in `minimal_width`.

    Returns:
        A `Shallow` network; a `DenseNetwork` if the function is that of a network with
        biases.

    Raises:
        ValueError: as `minimal_width`.
    """
    form = _as_form(f)
    return with_signs(form, minimal_width(form, max_free_signs).signs)


def with_signs(f: Any, signs: Int[np.ndarray, " h"]) -> Shallow | DenseNetwork:
    r"""One neuron $2\kappa_H\rho(\varepsilon_H\langle n_H, x\rangle)$ on each kink H.

    A sign 0 puts two neurons on H. What of L is left is made by pairs without a kink,
    two neurons per rank.

    Args:
        f: a network or its canonical form.
        signs: per kink -1, 1, or 0; for example a row of `flip_fibre`.

    Raises:
        ValueError: not one sign per kink.
    """
    form = _as_form(f)
    h, m = form.kinks.shape
    if np.shape(signs) != (h,) or not np.isin(signs, (-1, 0, 1)).all():
        msg = f"signs are {signs}; expected {h} of -1, 0, 1, one per kink."
        raise ValueError(msg)
    linear, visible = _visible(form)
    single, double = np.flatnonzero(signs), np.flatnonzero(np.asarray(signs) == 0)
    used = (form.kinks[single] * signs[single, None]).T @ visible[single]
    left = linear - used
    turn = left @ np.linalg.pinv(visible[double]) if len(double) else np.zeros((m, 0))
    left = left - turn @ visible[double]
    u, s, vt = np.linalg.svd(left, full_matrices=False)
    scale = np.abs(linear).sum() + np.abs(form.kinks).sum()
    rank = _rank(left, form.tolerance * scale)
    ends = np.zeros((rank, form.linear.shape[1]))
    ends[:, : vt.shape[1]] = vt[:rank]
    n, kappa = form.normals, form.kinks
    inner = [signs[single, None] * n[single], n[double], -n[double], ends, -ends]
    weights = u[:, :rank] * s[:rank]
    outer = [
        2 * kappa[single].T,
        kappa[double].T + turn,
        kappa[double].T - turn,
        weights,
        -weights,
    ]
    rows, columns = np.concatenate(inner), np.concatenate(outer, axis=1)
    if not len(rows):
        rows, columns = np.zeros((1, form.linear.shape[1])), np.zeros((m, 1))
    rows, columns = balanced(rows, columns)
    if not form.affine:
        return shallow(rows, columns, form)
    made = columns @ rows / 2
    constant = form.linear[:, -1] - made[:, -1]
    dense = shallow(rows[:, :-1], columns, form)
    bias = jnp.asarray(constant[0] if form.scalar else constant, form.dtype)
    hidden = jnp.asarray(rows[:, -1], form.dtype)
    return DenseNetwork((dense.inner, dense.outer), (hidden, bias))
