"""How often descent ends where: a table with binomial errors, and published counts."""

from typing import NamedTuple

import equinox as eqx
import numpy as np

from jaxrelu._shares import Share, share
from jaxrelu.landscape.search._classification import CriticalPoints


class CensusRow(NamedTuple):
    """One row of a census.

    Attributes:
        name: of the family.
        kind: ``"minimum"``, ``"saddle"`` or ``"degenerate"``.
        isotropy: name of the isotropy group; of the first point where a family has
            several.
        share: of the runs.
        points: distinct points.
        loss: mean over the family's runs.
        smallest: mean smallest Hessian eigenvalue over its runs.
        norm_sum: largest sum of neuron norms.
    """

    name: str
    kind: str
    isotropy: str
    share: Share
    points: int
    loss: float
    smallest: float
    norm_sum: float


class Census(eqx.Module):
    """Where the runs of a search ended, family by family.

    Attributes:
        families: rows, minima first, most frequent first; unnamed points of different
            loss have rows of their own.
        failed: runs that came to no critical point.
        spurious: runs that ended at a minimum that is not global, its Hessian positive
            definite: what the published tables count.
        spurious_loss: mean loss of those (NaN if there are none).
        spurious_smallest: mean smallest eigenvalue of those.
        k: teacher neurons.
        n: student neurons.
    """

    families: tuple[CensusRow, ...] = eqx.field(static=True)
    failed: Share = eqx.field(static=True)
    spurious: Share = eqx.field(static=True)
    spurious_loss: float = eqx.field(static=True)
    spurious_smallest: float = eqx.field(static=True)
    k: int = eqx.field(static=True)
    n: int = eqx.field(static=True)

    def __str__(self) -> str:
        head = ["family", "kind", "isotropy", "runs", "share"]
        head += ["points", "loss", "λ_min"]
        rows = [
            [
                family.name,
                family.kind,
                family.isotropy,
                str(family.share.count),
                str(family.share),
                str(family.points),
                f"{family.loss:.8f}",
                f"{family.smallest:.6f}",
            ]
            for family in self.families
        ]
        if self.failed.count:
            failed = [str(self.failed.count), str(self.failed)]
            rows.append(["not converged", "", "", *failed, "", "", ""])
        return "\n".join(
            "| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]
        )


def census(points: CriticalPoints) -> Census:
    """Counts of the families among the runs of a search, with 95 % intervals.

    The intervals are those of independent runs with one probability each, every row by
    itself.
    """
    counts, kinds = np.asarray(points.counts), points.kinds
    losses, smallest = np.asarray(points.losses), np.asarray(points.smallest)
    norm_sums = np.asarray(points.norm_sums)
    total = len(points.class_of)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, (name, kind) in enumerate(zip(points.families, kinds, strict=True)):
        unnamed = f" #{i}" if "unnamed" in name else ""
        groups.setdefault((name, kind, unnamed), []).append(i)

    def mean(values: np.ndarray, members: list[int]) -> float:
        weights = counts[members]
        return float(values[members] @ weights / weights.sum())

    rows = [
        CensusRow(
            name,
            kind,
            points.isotropies[members[0]].name,
            share(int(counts[members].sum()), total),
            len(members),
            mean(losses, members),
            mean(smallest, members),
            float(norm_sums[members].max()),
        )
        for (name, kind, _), members in groups.items()
    ]
    order = ("minimum", "degenerate", "saddle")
    rows.sort(key=lambda row: (order.index(row.kind), -row.share.count, row.loss))
    spurious = [
        i
        for i, kind in enumerate(kinds)
        if kind == "minimum" and points.families[i] != "global"
    ]
    bad = int(counts[spurious].sum())
    return Census(
        tuple(rows),
        share(total - int(counts.sum()), total),
        share(bad, total),
        mean(losses, spurious) if bad else float("nan"),
        mean(smallest, spurious) if bad else float("nan"),
        points.objective.teacher.width,
        points.weights.shape[1],
    )


class PublishedCount(NamedTuple):
    """A row of the table of Safran & Shamir, ICML 2018.

    Attributes:
        k: teacher neurons, orthonormal, d = k.
        n: student neurons.
        share: of 1000 runs that ended at a spurious minimum, with 95 % interval.
        smallest: mean smallest Hessian eigenvalue of those.
        loss: mean loss of those.
    """

    k: int
    n: int
    share: Share
    smallest: float
    loss: float


_PUBLISHED = """
6 6 3 .004700 .025081; 7 7 55 .014059 .023203; 8 8 126 .021347 .021508;
9 9 218 .026792 .020415; 10 10 346 .030395 .020336; 11 11 455 .033548 .020093;
12 12 585 .035052 .021284; 13 13 730 .036845 .021681; 14 14 736 .037534 .023115;
15 15 803 .038109 .024375; 16 16 851 .037799 .026714; 17 17 897 .038555 .027491;
18 18 900 .038680 .028827; 19 19 934 .038285 .030679; 20 20 949 .037924 .032900;
8 9 1 .005945 .020561; 10 11 1 .005667 .017893; 11 12 1 .005571 .016784;
12 13 3 .005495 .015801; 13 14 15 .001524 .038445; 14 15 55 .002071 .032772;
15 16 102 .003975 .032190; 16 17 180 .005512 .030647; 17 18 233 .006347 .029834;
18 19 369 .006415 .027574; 19 20 491 .007709 .027472
"""


def published_counts() -> tuple[PublishedCount, ...]:
    r"""Spurious minima in 1000 runs each, by Safran & Shamir (ICML 2018).

    Recomputed from the result files that the authors published, not from the printed
    table: Xavier starts, gradient descent with step 0.1 halved on divergence, stopped
    when $2\pi$ times every neuron's gradient norm is below 1e-9; a run counts if its
    loss is at least 1e-3 and its Hessian was verified to be positive definite (for
    (k, n) = (15, 16) and (17, 18) one further run each was not). Averages are over the
    runs that count.
    """
    rows = [row.split() for row in _PUBLISHED.replace("\n", " ").split(";")]
    return tuple(
        PublishedCount(
            int(k), int(n), share(int(count), 1000), float(smallest), float(loss)
        )
        for k, n, count, smallest, loss in rows
    )
