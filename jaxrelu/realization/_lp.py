"""Cells by linear programs: an independent check of the recursion, and of one cell."""

import numpy as np
from scipy.optimize import linprog

from jaxrelu.realization._arrangement import Arrangement


MARGIN = 1e-6
"""Inradius below which a cell is not told from an empty one: HiGHS works to 1e-7."""


def interior_point(rows: np.ndarray) -> tuple[np.ndarray, float]:
    r"""The x in the unit box with the largest $t \le \min_i \langle r_i, x\rangle$."""
    count, dimension = rows.shape
    done = linprog(
        np.append(np.zeros(dimension), -1.0),
        A_ub=np.column_stack([-rows, np.ones(count)]),
        b_ub=np.zeros(count),
        bounds=[(-1.0, 1.0)] * dimension + [(0.0, 1.0)],
        method="highs",
    )
    if done.status != 0:
        msg = f"linear program: {done.message}"
        raise RuntimeError(msg)
    return done.x[:-1], float(done.x[-1])


def lp_half_cells(arrangement: Arrangement) -> np.ndarray:
    """Signs (p, h) of the cells with first sign +: a tree of prefixes.

    One linear program per prefix and sign, about 2h per cell; memory O(h).
    """
    normals = arrangement.normals
    h = normals.shape[0]
    found: list[list[int]] = []
    stack = [[1]]
    while stack:
        prefix = stack.pop()
        size = len(prefix)
        if size == h:
            found.append(prefix)
            continue
        for sign in (1, -1):
            signs = [*prefix, sign]
            rows = normals[: size + 1] * np.array(signs)[:, None]
            if interior_point(rows)[1] > MARGIN:
                stack.append(signs)
    return np.array(found, np.int8).reshape(-1, h)
