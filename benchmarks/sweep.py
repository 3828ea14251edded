"""Gradient descent from many starts at once: jaxrelu beside its peers.

python benchmarks/sweep.py            all cells, about 20 minutes
python benchmarks/sweep.py --quick    32 starts of the first size, under 3 minutes

A cell is a number of starts and a size (n, d, k). What is reported is start-steps per
second: starts times steps over the median time of a call. See README.md in this folder
for how calls are timed.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from _command import (
    Benchmark,
    Runner,
    by_cell,
    parser,
    run,
    spend,
)
from _harness import (
    Candidate,
    Row,
)
from _problem import make_problem
from _report import (
    Target,
    ratio,
    rows_table,
    summary_table,
)


SIZES = ((100, 20, 50), (500, 50, 200))
STARTS = (32, 1024)
WORK = 1.3e10
"""Operations in the products of one call; sets the number of steps."""

COLUMNS = ("starts × steps / s", "GFLOP/s", "err W")
CANDIDATES = (
    Candidate("ours", "jaxrelu, host devices", "sweeps_ours:devices", "inner"),
    Candidate("ours_lanes", "jaxrelu, one device", "sweeps_ours:lanes", "inner"),
    Candidate("vmap_scan", "jax.vmap of lax.scan", "sweeps_jax:vmap_scan", "inner"),
    Candidate("step_loop", "loop of jitted steps", "sweeps_jax:step_loop", "inner"),
    Candidate("torch", "torch loop", "sweeps_torch:module_loop", "inner", "peers"),
    Candidate("products", "floor: the products", "sweeps_jax:products", "products"),
)


def sweep_problem(n: int, d: int, k: int, starts: int, steps: int) -> dict:
    """Data, outer weights, a stable step size and standard Gaussian starts."""
    problem = make_problem(n, d, k)
    rng = np.random.default_rng([n, d, k, starts])
    norm = np.linalg.norm(problem["inputs"], 2)
    return {
        "inputs": problem["inputs"],
        "outer": problem["outer"],
        "targets": np.where(rng.random(n) < 0.5, -1.0, 1.0),
        "starts": rng.standard_normal((starts, k, d)).astype(np.float32).astype(float),
        "rate": np.array(float(np.float32(0.5 / norm**2))),
        "steps": np.array(steps),
    }


def numpy_descent(problem: dict, start: int) -> np.ndarray:
    """The last iterate of one start, by hand in float64."""
    X, y, v = problem["inputs"], problem["targets"], problem["outer"]
    W, rate = problem["starts"][start], float(problem["rate"])
    for _ in range(int(problem["steps"])):
        z = X @ W.T
        residual = np.maximum(z, 0) @ v - y
        W = W - rate * ((residual[:, None] * (z > 0)) * v).T @ X
    return W


class Accuracy:
    """Distance of some last iterates from the loop in float64, relative to the way.

    Where rounding flips an activation on the way the two part; in float32 this is no
    error of a candidate, so the median over the starts compared is taken.
    """

    def __init__(self, problem: dict, count: int = 5):
        self._problem = problem
        self._ends = [
            numpy_descent(problem, i) for i in range(min(count, len(problem["starts"])))
        ]

    def __call__(self, kind: str, result: dict[str, np.ndarray]) -> dict[str, float]:
        """``err W``; nothing for the floor."""
        if kind != "inner":
            return {}
        errors = []
        for i, end in enumerate(self._ends):
            way = np.linalg.norm(end - self._problem["starts"][i])
            errors.append(float(np.linalg.norm(result["inner"][i] - end) / way))
        worst = float(np.median(errors))
        return {"err W": worst if np.isfinite(worst) else float("inf")}


def steps_of(n: int, d: int, k: int, starts: int, work: float) -> int:
    """Steps of a cell: the same work everywhere, at least 2."""
    return max(2, round(work / (4 * n * d * k * starts)))


def measure(runner: Runner) -> Iterator[tuple[list[Row], str]]:
    """One cell and dtype after the other."""
    options = runner.options
    options.cache.mkdir(parents=True, exist_ok=True)
    for n, d, k in options.sizes:
        for starts in options.starts:
            steps = steps_of(n, d, k, starts, options.work)
            problem = sweep_problem(n, d, k, starts, steps)
            path = options.cache / f"sweep-{n}-{d}-{k}-{starts}-{steps}.npz"
            np.savez(path, **problem)
            judge = Accuracy(problem)
            sizes = {"n": n, "d": d, "k": k, "starts": starts, "steps": steps}
            for dtype in options.dtypes:
                found = runner.cell(CANDIDATES, path, sizes, dtype, judge)
                for row in found:
                    if row.median_s:
                        speed = starts * steps / row.median_s
                        row.accuracy["starts × steps / s"] = speed
                        row.accuracy["GFLOP/s"] = 4e-9 * n * d * k * speed
                yield found, rows_table(found, COLUMNS)


def sweep_targets(rows: Sequence[Row], platform: str = "cpu") -> list[Target]:
    """Every promise of the project about these numbers, met or not."""
    del platform
    table = {(row.candidate, *row.sizes.values(), row.dtype): row for row in rows}
    cells = list(dict.fromkeys((*r.sizes.values(), r.dtype) for r in rows))

    def time_of(name: str, cell: tuple) -> float | None:
        row = table.get((name, *cell))
        return row.median_s if row is not None and row.status == "ok" else None

    small = min((cell[0] for cell in cells), default=0)
    targets = []
    for cell in cells:
        n, d, k, starts, _, dtype = cell
        label = f"({n}, {d}, {k}), {starts} starts, {dtype}"
        ours = time_of("ours", cell)
        peers = [("step_loop", "loop of jitted steps", 5.0)]
        peers += [("vmap_scan", "vmap of scan", 2.2)]
        peers += [("torch", "torch loop", 28.0)] * (n == small)
        for name, words, wanted in peers:
            got = ratio(time_of(name, cell), ours)
            targets.append(Target(f"{words} / ours, {label}", got, wanted, False))
        if n > small or len({cell[0] for cell in cells}) == 1:
            got = ratio(time_of("products", cell), ours)
            targets.append(Target(f"share of the floor, {label}", got, 0.5, False))
    return targets


def _triple(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if len(sizes) != 3:
        msg = f"{text!r} is not n,d,k"
        raise argparse.ArgumentTypeError(msg)
    return sizes


def _sections(rows: Sequence[Row]) -> list[tuple[str, str]]:
    body = [summary_table(rows, "ours")]
    for heading, found in by_cell(rows):
        body += [f"### {heading}", rows_table(found, COLUMNS)]
    return [("Sweeps", "\n\n".join(body))]


BENCHMARK = Benchmark(
    "sweep",
    "Gradient descent from many starts",
    "sweep-",
    CANDIDATES,
    sweep_targets,
    _sections,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes the report; returns the exit status."""
    made = parser(__doc__, minutes=45.0, peers="torch")
    add = made.add_argument
    add("--sizes", nargs="+", type=_triple, metavar="N,D,K", help="of the problem")
    add("--starts", nargs="+", type=int, metavar="S", help="trainings at once")
    add("--work", type=float, default=WORK, help="operations of a call")
    options = made.parse_args(arguments)
    options.sizes = options.sizes or (SIZES[:1] if options.quick else SIZES)
    options.starts = options.starts or (STARTS[:1] if options.quick else STARTS)
    spend(options, quick=(5.0, 60.0), full=(30.0, 300.0))
    return run(BENCHMARK, options, measure)


if __name__ == "__main__":
    sys.exit(main())
