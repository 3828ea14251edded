"""Hessian spectra at global minimisers: through T, and by dense Hessians.

python benchmarks/minimizer_spectra.py            d = 8..32, l = 2..5
python benchmarks/minimizer_spectra.py --quick    d = 8, l = 2, 3

See README.md in this folder for how time and memory are taken.
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
    Sizes,
    available_memory,
    run_cell,
)
from _hessian_problem import cached
from _minimizer_problem import minimizer_problem, numpy_spectrum
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
SIZES = (8, 16, 32)
DEPTHS = (2, 3, 4, 5)
COLUMNS = ("err λ", "err λ_min")


def _dense(count: int):
    """Memory of a candidate that holds so many dense Hessians."""

    def needed(sizes: Sizes, itemsize: int) -> int:
        return int(count * (sizes["l"] * sizes["d"] ** 2) ** 2 * itemsize)

    return needed


CANDIDATES = (
    Candidate("ours", "jaxrelu, T", "minimizers:through_t", "spectrum"),
    Candidate(
        "dense",
        "jax.hessian + eigh",
        "minimizers:dense_hessian",
        "spectrum",
        bytes=_dense(8),
    ),
    Candidate(
        "gauss_newton",
        "jax.jacrev, JᵀJ + eigh",
        "minimizers:gauss_newton",
        "spectrum",
        bytes=_dense(6),
    ),
)


class SpectrumAccuracy:
    """Errors of the non-zero eigenvalues: over the largest, and of the smallest."""

    def __init__(self, exact: np.ndarray):
        self._exact = np.sort(exact)

    def __call__(self, kind: str, result: dict[str, np.ndarray]) -> dict[str, float]:
        """``err λ`` and ``err λ_min``; infinite for a spectrum that is not one."""
        del kind
        values = np.sort(np.asarray(result["values"], np.float64))
        wrong = values.shape != self._exact.shape or not np.isfinite(values).all()
        if wrong:
            return dict.fromkeys(COLUMNS, float("inf"))
        error = np.abs(values - self._exact)
        return {
            "err λ": float(error.max() / self._exact[-1]),
            "err λ_min": float(error[0] / self._exact[0]),
        }


def spectra_targets(rows: Sequence[Row]) -> list[Target]:
    """T beside the dense Hessian, and its error."""
    table = {(row.candidate, *row.sizes.values(), row.dtype): row for row in rows}
    targets = []
    for row in rows:
        if row.candidate != "ours" or row.status != "ok":
            continue
        d, depth = row.sizes.values()
        cell = f"d = {d}, l = {depth} {row.dtype}"
        other = table.get(("dense", d, depth, row.dtype))
        theirs = other.median_s if other is not None and other.status == "ok" else None
        got = ratio(theirs, row.median_s)
        targets.append(
            Target(f"jax.hessian + eigh / ours, {cell}", got, 1.0, at_most=False)
        )
        limit = 1e-5 if row.dtype == "float32" else 1e-13
        error = row.accuracy.get("err λ")
        targets.append(Target(f"error of ours, {cell}", error, limit, at_most=True))
    return targets


def measure(options: argparse.Namespace) -> Iterator[list[Row]]:
    """One cell and dtype after the other."""
    memory = int(0.8 * available_memory())
    limits = Limits(
        call_seconds=options.call_seconds,
        steady_seconds=options.steady_seconds,
        rounds=options.rounds,
        memory_bytes=memory,
        device_bytes=memory,
        deadline=time.monotonic() + 60 * options.max_minutes,
    )
    main_python = "inline" if options.in_process else sys.executable
    for size in options.sizes:
        for depth in options.depths:
            problem = cached(
                options.cache / f"minimizer-{size}-{depth}.npz",
                lambda size=size, depth=depth: minimizer_problem(size, depth),
            )
            judge = SpectrumAccuracy(numpy_spectrum(dict(np.load(problem))))
            for dtype in options.dtypes:
                _say(f"--- d = {size}, l = {depth}, {dtype}")
                found = run_cell(
                    list(CANDIDATES),
                    problem,
                    {"d": size, "l": depth},
                    dtype,
                    interpreters={"main": main_python},
                    limits=limits,
                    accuracy=judge,
                    say=_say,
                    pause=options.pause,
                )
                print("\n" + rows_table(found, COLUMNS) + "\n", flush=True)
                yield found


_START = time.monotonic()


def _say(line: str) -> None:
    print(f"[{time.monotonic() - _START:6.1f} s] {line}", flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``--quick`` narrows the sizes and the spending."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes only")
    add("--sizes", nargs="+", type=int, metavar="D", help="dimension of the layers")
    add("--depths", nargs="+", type=int, metavar="L", help="number of layers")
    add("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    add("--rounds", type=int, default=5, help="rounds of alternating timed calls")
    add("--steady-seconds", type=float, help="timed calls of one candidate in one cell")
    add("--call-seconds", type=float, help="longest single call, compilation included")
    add("--max-minutes", type=float, default=45.0, help="then nothing new is started")
    add("--pause", type=float, default=0.1, help="seconds between turns")
    add("--in-process", action="store_true", help="no child processes (debugging)")
    add("--output", type=Path, default=RESULTS, help="folder of the report")
    add("--stem", help="file name of the report; default: the hardware's name")
    add("--cache", type=Path, default=CACHE, help="folder of problems")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.sizes = options.sizes or (SIZES[:1] if quick else SIZES)
    options.depths = options.depths or (DEPTHS[:2] if quick else DEPTHS)
    options.steady_seconds = options.steady_seconds or (2.0 if quick else 20.0)
    options.call_seconds = options.call_seconds or (60.0 if quick else 300.0)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes the report; returns the exit status."""
    options = parse(arguments)
    record = environment({"main": "inline" if options.in_process else sys.executable})
    if is_busy(record):
        load = record["load_at_start"]
        _say(f"warning: load average {load}: this machine is busy, times will be off")
    rows: list[Row] = []
    paths: tuple[Path, ...] = ()
    for found in measure(options):
        rows += found
        paths = _write(options, record, rows)  # a run that is cut short leaves these
    print(targets_table(spectra_targets(rows)))
    _say("wrote " + " and ".join(str(path) for path in paths))
    return 0


def _write(
    options: argparse.Namespace, record: dict, rows: Sequence[Row]
) -> tuple[Path, Path]:
    found = [row.versions for row in rows if row.versions]
    versions = {"main": found[-1]} if found else {}
    record = {**record, "versions": {**record["versions"], **versions}}
    record["load_at_end"] = round(os.getloadavg()[0], 2)
    targets = spectra_targets(rows)
    stem = f"minimizers-{hardware_name(record)}" + "-quick" * options.quick
    return write(
        options.output,
        options.stem or stem,
        "Hessian spectra at global minimisers of linear networks",
        record,
        [
            ("Targets", targets_table(targets)),
            ("All cells", summary_table(rows, "ours")),
            ("Each row", rows_table(rows, COLUMNS)),
        ],
        {
            "benchmark": "minimizer_spectra",
            "settings": settings(options),
            "rows": [row.as_dict() for row in rows],
            "targets": [{**t._asdict(), "met": t.met} for t in targets],
        },
    )


if __name__ == "__main__":
    sys.exit(main())
