"""What the scripts share: options, the turn of a cell, the report as it grows."""

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from _report import (
    Target,
    environment,
    hardware_name,
    is_busy,
    settings,
    targets_table,
    write,
)


DTYPES = ("float32", "float64")
PEERS = {
    "peers": (".venv-peers", "JAXRELU_BENCH_PEERS"),
    "nt": (".venv-nt", "JAXRELU_BENCH_NT"),
}
_START = time.monotonic()


def say(line: str) -> None:
    """One line with the time since the start."""
    print(f"[{time.monotonic() - _START:6.1f} s] {line}", flush=True)


class Benchmark(NamedTuple):
    """What tells one script from another.

    Attributes:
        name: of the script.
        title: of the report.
        stem: what the report's file name begins with.
        candidates: all of them.
        targets: promises about the rows, given the platform.
        sections: of the report, after the targets.
    """

    name: str
    title: str
    stem: str
    candidates: Sequence[Candidate]
    targets: Callable[[Sequence[Row], str], list[Target]]
    sections: Callable[[Sequence[Row]], list[tuple[str, str]]]


def parser(
    description: str | None, *, minutes: float, **peers: str
) -> argparse.ArgumentParser:
    """The options of every script; ``peers`` names the Pythons with what is in them."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--quick", action="store_true", help="small sizes, little time")
    add("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    add("--only", nargs="+", metavar="NAME", help="these candidates only")
    add("--rounds", type=int, help="rounds of alternating timed calls (default: 5)")
    add("--steady-seconds", type=float, help="timed calls of one candidate in one cell")
    add("--call-seconds", type=float, help="longest single call, compilation included")
    add("--memory-gb", type=float, help="per candidate; default 80 %% of what is free")
    add(
        "--max-minutes", type=float, default=minutes, help="then nothing new is started"
    )
    add("--pause", type=float, default=0.1, help="seconds between turns")
    for name, inside in peers.items():
        add(f"--{name}-python", help=f"Python with {inside}")
    add("--in-process", action="store_true", help="no child processes (debugging)")
    add("--output", type=Path, default=RESULTS, help="folder of the report")
    add("--stem", help="file name of the report; default: the hardware's name")
    add("--cache", type=Path, default=CACHE, help="folder of problems and references")
    return made


def spend(
    options: argparse.Namespace,
    *,
    quick: tuple[float, float],
    full: tuple[float, float],
    quick_rounds: int = 5,
) -> None:
    """Fills in the rounds, and the seconds of a cell and of a call, not given."""
    steady, call = quick if options.quick else full
    options.rounds = options.rounds or (quick_rounds if options.quick else 5)
    options.steady_seconds = options.steady_seconds or steady
    options.call_seconds = options.call_seconds or call


class Runner:
    """Runs cells within the limits of the command line."""

    def __init__(
        self, options: argparse.Namespace, interpreters: dict, device: dict[str, Any]
    ):
        memory = int(1e9 * (options.memory_gb or 0.8e-9 * available_memory()))
        self.options = options
        self.device = device
        self._interpreters = interpreters
        self._limits = Limits(
            call_seconds=options.call_seconds,
            steady_seconds=options.steady_seconds,
            rounds=options.rounds,
            memory_bytes=memory,
            device_bytes=int(0.9 * device.get("bytes", 0)) or memory,
            deadline=time.monotonic() + 60 * options.max_minutes,
        )

    def chosen(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that ``--only`` leaves."""
        only = self.options.only
        return [c for c in candidates if only is None or c.name in only]

    def cell(
        self,
        candidates: Sequence[Candidate],
        problem: Path,
        sizes: dict[str, Any],
        dtype: str,
        accuracy: Callable[[str, dict[str, np.ndarray]], dict[str, float]],
    ) -> list[Row]:
        """The rows of one problem in one precision."""
        label = ", ".join(f"{name} = {size}" for name, size in sizes.items())
        say(f"--- {label}, {dtype}")
        return run_cell(
            self.chosen(candidates),
            problem,
            sizes,
            dtype,
            interpreters=self._interpreters,
            limits=self._limits,
            accuracy=accuracy,
            say=say,
            pause=self.options.pause,
        )


def by_cell(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each problem and precision, with a heading."""
    for cell in dict.fromkeys((*row.sizes.items(), row.dtype) for row in rows):
        found = [row for row in rows if (*row.sizes.items(), row.dtype) == cell]
        label = ", ".join(f"{name} = {size}" for name, size in cell[:-1])
        yield f"{label}, {cell[-1]}", found


def run(
    benchmark: Benchmark,
    options: argparse.Namespace,
    measure: Callable[[Runner], Iterator[tuple[list[Row], str]]],
) -> int:
    """Measures, prints, writes the report after every cell; returns the exit status.

    ``measure`` yields the rows of a cell and how to print them. A Python without
    jaxrelu measures nothing.
    """
    missing = [
        name for name in ("jax", "jaxrelu") if not importlib.util.find_spec(name)
    ]
    if missing:
        say(
            f"no {missing[0]} in {sys.executable}: use `make bench` or .venv/bin/python"
        )
        return 1
    interpreters = {"main": "inline" if options.in_process else sys.executable}
    for name, (folder, variable) in PEERS.items():
        if hasattr(options, f"{name}_python"):
            given = getattr(options, f"{name}_python")
            interpreters[name] = find_interpreter(folder, variable, given)
    record = environment(interpreters)
    if is_busy(record):
        load = record["load_at_start"]
        say(f"warning: load average {load}: this machine is busy, times will be off")
    rows: list[Row] = []
    paths: tuple[Path, ...] = ()
    for found, text in measure(Runner(options, interpreters, record["device"])):
        print(f"\n{text}\n", flush=True)
        rows += found
        paths = _write(benchmark, options, record, rows)
    targets = benchmark.targets(rows, record["device"]["platform"])
    if targets:
        print(targets_table(targets))
    say("wrote " + " and ".join(str(path) for path in paths))
    return 0


def _write(
    benchmark: Benchmark,
    options: argparse.Namespace,
    record: dict[str, Any],
    rows: Sequence[Row],
) -> tuple[Path, Path]:
    environments = {c.name: c.environment for c in benchmark.candidates}
    versions = {environments[r.candidate]: r.versions for r in rows if r.versions}
    record = {**record, "versions": {**record["versions"], **versions}}
    record["load_at_end"] = round(os.getloadavg()[0], 2)
    targets = benchmark.targets(rows, record["device"]["platform"])
    stem = benchmark.stem + hardware_name(record) + "-quick" * options.quick
    return write(
        options.output,
        options.stem or stem,
        benchmark.title,
        record,
        [("Targets", targets_table(targets))] * bool(targets)
        + benchmark.sections(rows),
        {
            "benchmark": benchmark.name,
            "settings": settings(options),
            "rows": [row.as_dict() for row in rows],
            "targets": [{**t._asdict(), "met": t.met} for t in targets],
        },
    )
