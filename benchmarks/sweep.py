"""Gradient descent from many starts at once: jaxrelu beside its peers.

python benchmarks/sweep.py            all cells, about 20 minutes
python benchmarks/sweep.py --quick    32 starts of the first size, under 3 minutes

A cell is a number of starts and a size (n, d, k). What is reported is start-steps per
second: starts times steps over the median time of a call. See README.md in this folder
for how calls are timed.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from _harness import (
    CACHE,
    RESULTS,
    Candidate,
    Limits,
    Row,
    available_memory,
    find_interpreter,
    run_cell,
)
from _problem import make_problem
from _report import (
    Target,
    environment,
    hardware_name,
    is_busy,
    ratio,
    rows_table,
    settings,
    summary_table,
    targets_table,
    write,
)


DTYPES = ("float32", "float64")
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


def measure(options: argparse.Namespace, interpreters: dict) -> Iterator[list[Row]]:
    """One cell and dtype after the other."""
    candidates = [c for c in CANDIDATES if not options.only or c.name in options.only]
    memory = int(1e9 * (options.memory_gb or 0.8e-9 * available_memory()))
    limits = Limits(
        call_seconds=options.call_seconds,
        steady_seconds=options.steady_seconds,
        rounds=options.rounds,
        memory_bytes=memory,
        device_bytes=memory,
        deadline=time.monotonic() + 60 * options.max_minutes,
    )
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
                _say(f"--- {sizes}, {dtype}")
                found = run_cell(
                    candidates,
                    path,
                    sizes,
                    dtype,
                    interpreters=interpreters,
                    limits=limits,
                    accuracy=judge,
                    say=_say,
                    pause=options.pause,
                )
                for row in found:
                    if row.median_s:
                        speed = starts * steps / row.median_s
                        row.accuracy["starts × steps / s"] = speed
                        row.accuracy["GFLOP/s"] = 4e-9 * n * d * k * speed
                print("\n" + rows_table(found, COLUMNS) + "\n", flush=True)
                yield found


def sweep_targets(rows: Sequence[Row]) -> list[Target]:
    """Every promise of the project about these numbers, met or not."""
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


_START = time.monotonic()


def _say(line: str) -> None:
    print(f"[{time.monotonic() - _START:6.1f} s] {line}", flush=True)


def _triple(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(","))
    if len(sizes) != 3:
        msg = f"{text!r} is not n,d,k"
        raise argparse.ArgumentTypeError(msg)
    return sizes


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``--quick`` narrows the cells and the spending."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="32 starts of the first size only")
    add("--sizes", nargs="+", type=_triple, metavar="N,D,K", help="of the problem")
    add("--starts", nargs="+", type=int, metavar="S", help="trainings at once")
    add("--work", type=float, default=WORK, help="operations of a call")
    add("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    add("--only", nargs="+", metavar="NAME", help="these candidates only")
    add("--rounds", type=int, default=5, help="rounds of alternating timed calls")
    add("--steady-seconds", type=float, help="timed calls of one candidate in one cell")
    add("--call-seconds", type=float, help="longest single call, compilation included")
    add("--memory-gb", type=float, help="per candidate; default 80 %% of what is free")
    add("--max-minutes", type=float, default=45.0, help="then nothing new is started")
    add("--pause", type=float, default=0.1, help="seconds between turns")
    add("--peers-python", help="Python with torch")
    add("--in-process", action="store_true", help="no child processes (debugging)")
    add("--output", type=Path, default=RESULTS, help="folder of the report")
    add("--stem", help="file name of the report; default: the hardware's name")
    add("--cache", type=Path, default=CACHE, help="folder of the problems")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.sizes = options.sizes or (SIZES[:1] if quick else SIZES)
    options.starts = options.starts or (STARTS[:1] if quick else STARTS)
    options.steady_seconds = options.steady_seconds or (5.0 if quick else 30.0)
    options.call_seconds = options.call_seconds or (60.0 if quick else 300.0)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes the report; returns the exit status."""
    options = parse(arguments)
    interpreters = {
        "main": "inline" if options.in_process else sys.executable,
        "peers": find_interpreter(
            ".venv-peers", "JAXRELU_BENCH_PEERS", options.peers_python
        ),
    }
    record = environment(interpreters)
    if is_busy(record):
        load = record["load_at_start"]
        _say(f"warning: load average {load}: this machine is busy, times will be off")
    rows: list[Row] = []
    paths: tuple[Path, ...] = ()
    for found in measure(options, interpreters):
        rows += found
        paths = _write(options, record, rows)  # a run that is cut short leaves these
    print(targets_table(sweep_targets(rows)))
    _say("wrote " + " and ".join(str(path) for path in paths))
    return 0


def _write(
    options: argparse.Namespace, record: dict, rows: Sequence[Row]
) -> tuple[Path, Path]:
    environments = {c.name: c.environment for c in CANDIDATES}
    versions = {environments[r.candidate]: r.versions for r in rows if r.versions}
    record = {**record, "versions": {**record["versions"], **versions}}
    record["load_at_end"] = round(os.getloadavg()[0], 2)
    targets = sweep_targets(rows)
    stem = f"sweep-{hardware_name(record)}" + "-quick" * options.quick
    body = [summary_table(rows, "ours")]
    for cell in dict.fromkeys((*r.sizes.items(), r.dtype) for r in rows):
        found = [r for r in rows if (*r.sizes.items(), r.dtype) == cell]
        label = ", ".join(f"{name} = {size}" for name, size in cell[:-1])
        body += [f"### {label}, {cell[-1]}", rows_table(found, COLUMNS)]
    return write(
        options.output,
        options.stem or stem,
        "Gradient descent from many starts",
        record,
        [("Targets", targets_table(targets)), ("Sweeps", "\n\n".join(body))],
        {
            "benchmark": "sweep",
            "settings": settings(options),
            "rows": [row.as_dict() for row in rows],
            "targets": [{**t._asdict(), "met": t.met} for t in targets],
        },
    )


if __name__ == "__main__":
    sys.exit(main())
