r"""Names of critical points, by their symmetry and by what their neurons do.

For an orthonormal teacher with outer weights one the families of Safran et al. 2021 and
Arjevani & Field are told apart by the blocks of their isotropy group and by the limits
of their weights: in a block of size p the neurons tend to $e_i$ ("plain"), to $-e_i$
("flipped"), or to the rows of $-I + \tfrac2p 11^\top$ ("reflected").
"""

import math
from typing import Any

import numpy as np

from jaxrelu.landscape.search._symmetry import Isotropy


def merged_students(weights: Any, outer: Any, tolerance: float) -> np.ndarray:
    r"""Rows $\sum a_i w_i$ over students that are parallel and of one sign.

    Student and merged student are one function, outer weights $\pm1$ aside; a split
    neuron is one row again. Two unit rows are parallel when closer than the tolerance.
    """
    w, a = np.asarray(weights, np.float64), np.asarray(outer, np.float64)
    norms = np.linalg.norm(w, axis=1)
    units = w / np.where(norms > 0, norms, 1)[:, None]
    close = np.abs(units[:, None] - units[None]).max(axis=2) <= tolerance
    close &= np.sign(a)[:, None] == np.sign(a)[None]
    rows, left = [], list(range(len(w)))
    while left:
        same = [j for j in left if close[left[0], j]]
        rows.append((np.abs(a[same])[:, None] * w[same]).sum(axis=0))
        left = [j for j in left if j not in same]
    return np.array(rows)


def family_name(weights: Any, teacher: Any, group: Isotropy) -> str:
    r"""The family of a point of n = k neurons that is no global minimum.

    * ``"A"`` ($\Delta S_k$), ``"I"`` ($\Delta S_{k-1}$), ``"N_p"``: a reflected block
      of size k, k - 1, p and otherwise plain neurons;
    * ``"II"`` ($\Delta S_{k-1}$), ``"M_p"`` ($\Delta(S_p\times S_{k-p})$): one flipped
      neuron, a flipped block of size p, and otherwise plain neurons;
    * ``"unnamed [6, 1, 12]"``: all else, with the block sizes.

    The letters A, I, II are those of the literature as far as known; M_p, N_p are
    names of this library. Every block counts as the one of the three limits that its
    weights are closest to.

    Args:
        weights: (k, d).
        teacher: orthonormal rows, (k, d).
        group: the isotropy of the point.
    """
    sizes = group.sizes
    unnamed = f"unnamed {sorted(sizes, reverse=True)}"
    entries = np.asarray(weights, np.float64) @ np.asarray(teacher, np.float64).T
    if entries.shape[0] != entries.shape[1]:
        return unnamed
    kinds = _block_kinds(entries, group)
    if kinds is None:
        return unnamed
    odd = [i for i, kind in enumerate(kinds) if kind != "plain"]
    plain = [i for i, kind in enumerate(kinds) if kind == "plain"]
    if len(odd) != 1 or len(plain) > 1:
        return unnamed
    p, k = sizes[odd[0]], sum(sizes)
    if kinds[odd[0]] == "flipped":
        if p == k:
            return unnamed
        return "II" if p == 1 else f"M_{p}"
    return {k: "A", k - 1: "I"}.get(p, f"N_{p}")


def _block_kinds(entries: np.ndarray, group: Isotropy) -> list[str] | None:
    """What the neurons of each block do; None if they do not match its teachers."""
    free = set(range(len(entries)))
    for rows, block in zip(group.student_blocks, group.teacher_blocks, strict=True):
        if len(block) > 1 and len(rows) != len(block):
            return None
        free -= set(rows)
    kinds = []
    for rows, block in zip(group.student_blocks, group.teacher_blocks, strict=True):
        if len(block) == 1:
            j = block[0]
            i = max(free, key=lambda i: abs(entries[i, j]))
            free.remove(i)
            kinds.append("plain" if entries[i, j] > 0 else "flipped")
            continue
        part = entries[np.ix_(rows, block)]
        # in each row the teacher of its own is the entry unlike the others
        middle = np.median(part, axis=1) if len(block) > 2 else np.zeros(2)
        own = np.argmax(np.abs(part - middle[:, None]), axis=1)
        if len(set(own)) != len(block):
            return None
        on = part[np.arange(len(block)), own].mean()
        off = (part.sum() - on * len(block)) / (len(block) * (len(block) - 1))
        kinds.append(_nearest_kind(on, off, len(block)))
    return kinds


def _nearest_kind(on: float, off: float, p: int) -> str:
    limits = {"plain": (1.0, 0.0), "flipped": (-1.0, 0.0)}
    if p > 2:  # of size 2 it is a plain block with its rows exchanged
        limits["reflected"] = (-1 + 2 / p, 2 / p)
    return min(
        limits,
        key=lambda kind: math.hypot(
            on - limits[kind][0], (p - 1) ** 0.5 * (off - limits[kind][1])
        ),
    )
