r"""The largest entry of the Jacobian as mixed-integer linear programs (HiGHS)."""

from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from jaxrelu.realization._arrangement import Arrangement
from jaxrelu.realization._sweep import Best


SCALE = 1e5  # of the objective: HiGHS stops at an absolute gap of 1e-6
WIDTH = 1e-4
"""Cells without a point of the unit box this far from every plane are not seen."""


def milp_largest_entry(arrangement: Arrangement) -> Best:
    r"""Maximises every $\pm G_{pq}$ over $x$ in the unit box and binaries $z_H$.

    $z_H = 1$ forces $\langle n_H, x\rangle \ge w$ and $z_H = 0$ forces $\le -w$ with
    $w$ = `WIDTH` and the smallest constants that leave the other case free. Without
    required signs the opposite cell gives the other sign: md programs, else 2md.
    `gap` is what the dual bounds leave open.
    """
    normals, jumps = arrangement.normals, arrangement.jumps
    h, rank = normals.shape
    slack = np.abs(normals).sum(axis=1) + WIDTH
    lower: Any = np.concatenate([WIDTH - slack, np.full(h, -np.inf)])
    upper: Any = np.concatenate([np.full(h, np.inf), np.full(h, -WIDTH)])
    constraint = LinearConstraint(
        np.block([[normals, -np.diag(slack)], [normals, -np.diag(slack)]]),
        lower,
        upper,
    )
    low: Any = np.concatenate([-np.ones(rank), np.zeros(h)])
    high: Any = np.ones(rank + h)
    for plane, sign in arrangement.required:
        low[rank + plane] = high[rank + plane] = float(sign > 0)
    integrality = np.concatenate([np.zeros(rank), np.ones(h)])
    best, count, most = Best(-np.inf, np.zeros(0, int), 0), 0, -np.inf
    m, d = arrangement.total.shape
    for p in range(m):
        for q in range(d):
            for direction in (1, -1) if arrangement.required else (1,):
                size = float(np.abs(jumps[:, p, q]).max())
                size = size or 1.0
                weights = direction * jumps[:, p, q] / size
                cost = np.concatenate([np.zeros(rank), -SCALE * weights])
                done = milp(
                    cost,
                    constraints=constraint,
                    integrality=integrality,
                    bounds=Bounds(low, high),
                    options={"mip_rel_gap": 0.0},
                )
                count += 1
                if done.status != 0:
                    msg = (
                        f"mixed-integer program: {done.message} Cells without a "
                        f"ball of radius {WIDTH:g} in the unit box are not seen; take "
                        "method='recursion' or 'bounds'."
                    )
                    raise RuntimeError(msg)
                signs = np.where(normals @ done.x[:rank] > 0, 1, -1)
                sums = np.tensordot(signs, jumps[:, p, q], 1)
                here = (arrangement.total[p, q] + sums) / 2
                there = (arrangement.total[p, q] - sums) / 2
                candidates = [(abs(here), 1)]
                if not arrangement.required:
                    candidates.append((abs(there), -1))
                # no cell has a sum of signs times weights above this
                ceiling = -2 * float(done.mip_dual_bound) / SCALE - weights.sum()
                ceiling *= size
                total = direction * arrangement.total[p, q]
                ends = [total + ceiling]
                if not arrangement.required:
                    ends.append(ceiling - total)
                most = max(most, *(float(end) / 2 for end in ends))
                value, side = max(candidates)
                if value > best.value:
                    best = Best(float(value), signs * side, 0)
    return best._replace(visited=count, gap=max(most - best.value, 0.0))
