"""The exact W^{1,inf} semi-norm beside linear programs and dense sampling.

python benchmarks/seminorm.py            all cells, some minutes
python benchmarks/seminorm.py --quick    small sizes, about a minute

"shortfall" is 1 - value / reference. The reference is found without the library: for
d = 2 from the middle of every gap between kinks, for d = 3 from the four cells around
the line in which two kinks meet, for every two of them; in higher dimension from exact
integer arithmetic (the library's own method="rational").
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _harness import (
    CACHE,
    RESULTS,
    Candidate,
    Limits,
    Row,
    available_memory,
    run_cell,
)
from _report import (
    environment,
    hardware_name,
    is_busy,
    markdown,
    number,
    seconds,
    settings,
    write,
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes the report; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes, one round")
    add("--rounds", type=int, default=5)
    add("--pause", type=float, default=0.1, help="seconds between turns")
    add("--in-process", action="store_true", help="no child processes (debugging)")
    add("--output", type=Path, default=RESULTS, help="folder of the report")
    add("--stem", help="file name of the report; default: the hardware's name")
    add("--cache", type=Path, default=CACHE, help="folder of the problems")
    options = parser.parse_args(arguments)
    python = "inline" if options.in_process else sys.executable
    record = environment({"main": python})
    if is_busy(record):
        print(f"warning: load average {record['load_at_start']}: times will be off")
    limits = Limits(
        rounds=1 if options.quick else options.rounds,
        steady_seconds=60.0,
        call_seconds=300.0,
        memory_bytes=int(0.8 * available_memory()),
    )
    rows: list[Row] = []
    start = time.monotonic()
    for d, k, names in QUICK if options.quick else CELLS:
        path = problem(options.cache, d, k)
        truth = float(np.load(path)["reference"])

        def accuracy(
            kind: str,  # noqa: ARG001
            result: dict[str, np.ndarray],
            truth: float = truth,
        ) -> dict[str, float]:
            value, error = float(result["value"]), float(result["error"])
            return {"shortfall": 1 - value / truth, "stated": error / truth}

        rows += run_cell(
            [c for c in CANDIDATES if c.name in names],
            path,
            {"d": d, "k": k},
            "float64",
            interpreters={"main": python},
            limits=limits,
            accuracy=accuracy,
            say=lambda line: None,  # noqa: ARG005
            pause=options.pause,
        )
        elapsed = time.monotonic() - start
        print(f"[{elapsed:6.1f} s] d = {d}, k = {k} done", flush=True)
    text = table(rows)
    print(text)
    payload = {
        "benchmark": "seminorm",
        "settings": settings(options),
        "rows": [row.as_dict() for row in rows],
    }
    stem = options.stem or f"seminorm-{hardware_name(record)}"
    title = "The W^{1,inf} semi-norm"
    sections = [("Time and accuracy", text)]
    paths = write(options.output, stem, title, record, sections, payload)
    print("wrote " + " and ".join(str(path) for path in paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
