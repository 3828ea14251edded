"""The exact W^{1,inf} semi-norm beside linear programs and dense sampling.

python benchmarks/seminorm.py            all cells, some minutes
python benchmarks/seminorm.py --quick    small sizes, about a minute

"shortfall" is 1 - value / reference. The reference is found without the library: for
d = 2 from the middle of every gap between kinks, for d = 3 from the four cells around
the line in which two kinks meet, for every two of them; in higher dimension from exact
integer arithmetic (the library's own method="rational").
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from _command import (
    Benchmark,
    Runner,
    parser,
    run,
    spend,
)
from _harness import (
    Candidate,
    Row,
)
from _report import (
    markdown,
    number,
    seconds,
)


CANDIDATES = [
    Candidate("auto", "jaxrelu", "seminorms:auto", "value"),
    Candidate("recursion", "deletion-restriction", "seminorms:recursion", "value"),
    Candidate("lp", "tree of linear programs", "seminorms:linear_programs", "value"),
    Candidate("milp", "mixed-integer programs", "seminorms:integer_programs", "value"),
    Candidate("climbs", "certified bounds, climbs", "seminorms:climbs", "value"),
    Candidate("sampling", "2^20 random inputs", "seminorms:sampling", "value"),
]
# (d, k, candidates): those left out would take hours or gigabytes
CELLS = (
    (2, 10_000, ("auto", "climbs", "sampling")),
    (3, 400, ("auto", "recursion", "climbs", "sampling")),
    (3, 40, ("auto", "recursion", "lp", "milp", "climbs", "sampling")),
    (4, 16, ("auto", "lp", "milp", "climbs", "sampling")),
    (5, 24, ("auto", "milp", "climbs", "sampling")),
)
QUICK = (
    (2, 200, ("auto", "recursion", "climbs", "sampling")),
    (3, 12, ("auto", "recursion", "lp", "milp", "climbs", "sampling")),
    (4, 8, ("auto", "lp", "milp", "climbs", "sampling")),
)


def at_points(inner: np.ndarray, outer: np.ndarray, points: np.ndarray) -> float:
    """Largest entry of the Jacobian at points off the kinks."""
    weights = (outer[:, None, :] * inner.T[None]).reshape(-1, inner.shape[0]).T
    best = 0.0
    for block in np.array_split(points, max(1, points.size * len(inner) // 2**26)):
        active = (block @ inner.T > 0).astype(float)
        best = max(best, float(np.abs(active @ weights).max(initial=0)))
    return best


def reference(inner: np.ndarray, outer: np.ndarray) -> float:
    """The semi-norm, by a way that shares nothing with the timed ones (d <= 3)."""
    d = inner.shape[1]
    if d == 2:
        kinks = np.sort(np.mod(np.arctan2(inner[:, 1], inner[:, 0]), np.pi)) + np.pi / 2
        middle = (kinks + np.append(kinks[1:], kinks[0] + np.pi)) / 2
        points = np.column_stack([np.cos(middle), np.sin(middle)])
        return at_points(inner, outer, np.concatenate([points, -points]))
    if d == 3:
        i, j = np.triu_indices(len(inner), 1)
        unit = inner / np.linalg.norm(inner, axis=1, keepdims=True)
        line = np.cross(unit[i], unit[j])
        line /= np.linalg.norm(line, axis=1, keepdims=True)
        around = [
            line + 1e-7 * (p * np.cross(unit[i], line) + q * np.cross(unit[j], line))
            for p in (1, -1)
            for q in (1, -1)
        ]
        points = np.concatenate(around)
        return at_points(inner, outer, np.concatenate([points, -points]))
    import jax

    import jaxrelu as jr

    with jax.enable_x64(True):
        network = jr.Shallow(jax.numpy.asarray(inner), jax.numpy.asarray(outer))
        return float(jr.realization.seminorm(network, method="rational"))


def problem(folder: Path, d: int, k: int) -> Path:
    """Gaussian weights, two outputs, with the reference, as npz."""
    path = folder / f"seminorm-{d}-{k}.npz"
    if not path.exists():
        rng = np.random.default_rng([d, k])
        inner, outer = rng.standard_normal((k, d)), rng.standard_normal((2, k))
        folder.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(".new.npz")
        np.savez(made, inner=inner, outer=outer, reference=reference(inner, outer))
        made.replace(path)
    return path


def table(rows: Sequence[Row]) -> str:
    """Time, distance from the truth, and both in one: digits per second."""
    lines = []
    for row in rows:
        shortfall = row.accuracy.get("shortfall")
        digits = None
        if shortfall is not None and row.median_s:
            digits = -np.log10(max(abs(shortfall), 1e-16)) / row.median_s
        lines.append(
            [
                str(row.sizes["d"]),
                str(row.sizes["k"]),
                row.label,
                seconds(row.median_s) if row.status == "ok" else row.status,
                number(shortfall),
                number(row.accuracy.get("stated")),
                number(digits, ".3g"),
            ]
        )
    header = ["d", "k", "method", "median", "shortfall", "stated error", "digits / s"]
    return markdown(header, lines)


def measure(runner: Runner) -> Iterator[tuple[list[Row], str]]:
    """One cell after the other, in float64."""
    for d, k, names in QUICK if runner.options.quick else CELLS:
        path = problem(runner.options.cache, d, k)
        truth = float(np.load(path)["reference"])

        def accuracy(
            kind: str,  # noqa: ARG001
            result: dict[str, np.ndarray],
            truth: float = truth,
        ) -> dict[str, float]:
            value, error = float(result["value"]), float(result["error"])
            return {"shortfall": 1 - value / truth, "stated": error / truth}

        candidates = [c for c in CANDIDATES if c.name in names]
        found = runner.cell(candidates, path, {"d": d, "k": k}, "float64", accuracy)
        yield found, table(found)


BENCHMARK = Benchmark(
    "seminorm",
    "The W^{1,inf} semi-norm",
    "seminorm-",
    CANDIDATES,
    lambda rows, platform: [],  # noqa: ARG005
    lambda rows: [("Time and accuracy", table(rows))],
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the report; returns the exit status."""
    options = parser(__doc__, minutes=45.0).parse_args(arguments)
    spend(options, quick=(60.0, 300.0), full=(60.0, 300.0), quick_rounds=1)
    return run(BENCHMARK, options, measure)


if __name__ == "__main__":
    sys.exit(main())
