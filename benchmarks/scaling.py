"""How the time of a Jacobian spectrum and of its Gram grows with n, k and d.

python benchmarks/scaling.py        about 6 minutes on two cores; writes results/

One size varies, the others stay at ``--base``. The exponent is the slope of a least
squares line through log time against log size over the largest sizes (``--fit`` of
them), given with its standard error.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _command import DTYPES
from _harness import CACHE, RESULTS, Limits, Row, available_memory, run_cell
from _problem import cached_problem
from _report import (
    environment,
    hardware_name,
    is_busy,
    markdown,
    seconds,
    settings,
    write,
)
from jacobian_spectrum import CANDIDATES


NAMES = {"ours": "all singular values", "ours_gram": "Gram"}
AXES = {
    "n": (256, 512, 1024, 2048, 4096),
    "k": (512, 1024, 2048, 4096, 8192, 16384),
    "d": (128, 256, 512, 1024, 2048, 4096),
}
BASE = {"n": 1024, "d": 128, "k": 512}


class Fit(NamedTuple):
    """Time = exp(intercept) * size ** exponent, over ``points`` sizes."""

    exponent: float
    standard_error: float
    intercept: float
    points: int


def fit_exponent(sizes: Sequence[float], times: Sequence[float]) -> Fit:
    """Least squares of log time on log size; the error from the residuals.

    Raises:
        ValueError: fewer than three points leave no residual to judge by.
    """
    if len(sizes) < 3:
        msg = f"{len(sizes)} points; expected at least 3. Measure more sizes."
        raise ValueError(msg)
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(times, float))
    centred = x - x.mean()
    spread = centred @ centred
    exponent = centred @ y / spread
    residual = y - y.mean() - exponent * centred
    error = np.sqrt(residual @ residual / (len(x) - 2) / spread)
    intercept = y.mean() - exponent * x.mean()
    return Fit(float(exponent), float(error), float(intercept), len(x))


def measure(options: argparse.Namespace, python: str) -> dict[str, list[Row]]:
    """Rows of every axis, one cell per size and dtype."""
    candidates = [c for c in CANDIDATES if c.name in NAMES]
    limits = Limits(
        rounds=options.rounds,
        steady_seconds=options.steady_seconds,
        memory_bytes=int(0.8 * available_memory()),
    )
    start = time.monotonic()
    found: dict[str, list[Row]] = {}
    for axis in AXES:
        found[axis] = []
        for size in getattr(options, axis):
            sizes = {**options.base, axis: size}
            problem = cached_problem(options.cache, **sizes)
            for dtype in options.dtypes:
                rows = run_cell(
                    candidates,
                    problem,
                    sizes,
                    dtype,
                    interpreters={"main": python},
                    limits=limits,
                    accuracy=lambda kind, result: {},  # noqa: ARG005
                    say=lambda line: None,  # noqa: ARG005
                    pause=options.pause,
                )
                found[axis] += rows
                words = ", ".join(
                    f"{NAMES[row.candidate]} "
                    + (seconds(row.median_s) if row.status == "ok" else row.status)
                    for row in rows
                )
                elapsed = time.monotonic() - start
                print(f"[{elapsed:6.1f} s] {sizes} {dtype}: {words}", flush=True)
    return found


def fits_of(
    found: dict[str, list[Row]], points: int
) -> dict[tuple[str, str, str], tuple[list[int], list[float], Fit | None]]:
    """By (axis, candidate, dtype): sizes, median times, and the fit if there is one."""
    answer = {}
    for axis, rows in found.items():
        for name, dtype in dict.fromkeys((row.candidate, row.dtype) for row in rows):
            line = sorted(
                (row.sizes[axis], row.median_s)
                for row in rows
                if (row.candidate, row.dtype) == (name, dtype) and row.median_s
            )
            sizes = [size for size, _ in line]
            times = [t for _, t in line]
            last = slice(max(0, len(sizes) - points), None)
            enough = len(sizes[last]) >= 3
            fit = fit_exponent(sizes[last], times[last]) if enough else None
            answer[axis, name, dtype] = sizes, times, fit
    return answer


def draw(fits: dict, base: dict[str, int], path: Path) -> None:
    """Time against each size, log-log, with the fitted lines."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        1, 3, figsize=(12, 4), sharey=True, layout="constrained"
    )
    for panel, axis in zip(panels, AXES, strict=True):
        for (where, name, dtype), (sizes, times, fit) in fits.items():
            if where != axis or not sizes:
                continue
            color = {"ours": "tab:blue", "ours_gram": "tab:orange"}[name]
            single = dtype == "float32"
            label = f"{NAMES[name]}, {dtype}"
            if fit is not None:
                label += f": {fit.exponent:.2f} ± {fit.standard_error:.2f}"
                x = np.array(sizes[-fit.points :], float)
                y = np.exp(fit.intercept) * x**fit.exponent
                panel.plot(x, y, color=color, linestyle="-" if single else "--")
            marker, face = ("o", color) if single else ("s", "none")
            panel.plot(
                sizes, times, marker, color=color, markerfacecolor=face, label=label
            )
        fixed = ", ".join(f"{key} = {x}" for key, x in base.items() if key != axis)
        panel.set(xscale="log", yscale="log", xlabel=axis, title=fixed)
        ticks = sorted(
            {n for (at, *_), (xs, *_) in fits.items() if at == axis for n in xs}
        )
        panel.set_xticks(ticks, labels=[str(tick) for tick in ticks])
        panel.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        panel.grid(visible=True, which="both", alpha=0.2)
        panel.legend(fontsize=7, title="fitted exponent", title_fontsize=7)
    panels[0].set_ylabel("time [s]")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    for axis, sizes in AXES.items():
        add(f"--{axis}", type=int, nargs="+", default=list(sizes))
    add("--base", type=int, nargs=3, metavar=("N", "D", "K"), default=None)
    add("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    add(
        "--fit",
        type=int,
        default=4,
        help="largest sizes that the exponent is fitted to",
    )
    add("--rounds", type=int, default=5)
    add("--steady-seconds", type=float, default=15.0)
    add("--pause", type=float, default=0.1, help="seconds between turns")
    add("--in-process", action="store_true", help="no child processes (debugging)")
    add("--output", type=Path, default=RESULTS, help="folder of the report")
    add("--stem", help="file name of the report; default: the hardware's name")
    add("--cache", type=Path, default=CACHE, help="folder of the problems")
    options = parser.parse_args(arguments)
    options.base = dict(zip("ndk", options.base, strict=True)) if options.base else BASE
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, fits, draws, writes; returns the exit status."""
    options = parse(arguments)
    python = "inline" if options.in_process else sys.executable
    record = environment({"main": python})
    if is_busy(record):
        print(f"warning: load average {record['load_at_start']}: times will be off")
    found = measure(options, python)
    fits = fits_of(found, options.fit)
    stem = options.stem or f"scaling-{hardware_name(record)}"
    draw(fits, options.base, options.output / f"{stem}.png")
    exponents = markdown(
        ["time of", "dtype", "against", "exponent", "standard error", "sizes fitted"],
        [
            [
                NAMES[name],
                dtype,
                axis,
                f"{fit.exponent:.3f}" if fit else "–",
                f"{fit.standard_error:.3f}" if fit else "–",
                ", ".join(str(size) for size in sizes[-fit.points :]) if fit else "–",
            ]
            for (axis, name, dtype), (sizes, _, fit) in fits.items()
        ],
    )
    print(exponents)
    base = ", ".join(f"{key} = {size}" for key, size in options.base.items())
    sections = [
        ("Fitted exponents", f"Sizes that do not vary: {base}.\n\n{exponents}"),
        ("Figure", f"![time against n, k, d]({stem}.png)"),
        *((f"Against {axis}", _times(rows, axis)) for axis, rows in found.items()),
    ]
    payload = {
        "benchmark": "scaling",
        "settings": settings(options),
        "fits": [
            {"axis": axis, "candidate": name, "dtype": dtype, **fit._asdict()}
            for (axis, name, dtype), (_, _, fit) in fits.items()
            if fit is not None
        ],
        "rows": [row.as_dict() for rows in found.values() for row in rows],
    }
    title = "Scaling of the Jacobian spectrum"
    paths = write(options.output, stem, title, record, sections, payload)
    print("wrote " + " and ".join(str(path) for path in paths))
    return 0


def _times(rows: Sequence[Row], axis: str) -> str:
    return markdown(
        [axis, "dtype", "time of", "median", "min", "calls"],
        [
            [
                str(row.sizes[axis]),
                row.dtype,
                NAMES[row.candidate],
                seconds(row.median_s) if row.status == "ok" else row.status,
                seconds(row.min_s),
                str(len(row.seconds)),
            ]
            for row in rows
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
