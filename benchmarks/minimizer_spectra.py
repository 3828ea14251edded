"""Hessian spectra at global minimisers: through T, and by dense Hessians.

python benchmarks/minimizer_spectra.py            d = 8..32, l = 2..5
python benchmarks/minimizer_spectra.py --quick    d = 8, l = 2, 3

See README.md in this folder for how time and memory are taken.
"""

import sys
from collections.abc import Iterator, Sequence

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
    Sizes,
)
from _hessian_problem import cached
from _minimizer_problem import minimizer_problem, numpy_spectrum
from _report import (
    Target,
    ratio,
    rows_table,
    summary_table,
)


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


def spectra_targets(rows: Sequence[Row], platform: str = "cpu") -> list[Target]:
    """T beside the dense Hessian, and its error."""
    del platform
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


def measure(runner: Runner) -> Iterator[tuple[list[Row], str]]:
    """One cell and dtype after the other."""
    options = runner.options
    for size in options.sizes:
        for depth in options.depths:
            problem = cached(
                options.cache / f"minimizer-{size}-{depth}.npz",
                lambda size=size, depth=depth: minimizer_problem(size, depth),
            )
            judge = SpectrumAccuracy(numpy_spectrum(dict(np.load(problem))))
            sizes = {"d": size, "l": depth}
            for dtype in options.dtypes:
                found = runner.cell(CANDIDATES, problem, sizes, dtype, judge)
                yield found, rows_table(found, COLUMNS)


def _sections(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return [
        ("All cells", summary_table(rows, "ours")),
        ("Each row", rows_table(rows, COLUMNS)),
    ]


BENCHMARK = Benchmark(
    "minimizer_spectra",
    "Hessian spectra at global minimisers of linear networks",
    "minimizers-",
    CANDIDATES,
    spectra_targets,
    _sections,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes the report; returns the exit status."""
    made = parser(__doc__, minutes=45.0)
    add = made.add_argument
    add("--sizes", nargs="+", type=int, metavar="D", help="dimension of the layers")
    add("--depths", nargs="+", type=int, metavar="L", help="number of layers")
    options = made.parse_args(arguments)
    options.sizes = options.sizes or (SIZES[:1] if options.quick else SIZES)
    options.depths = options.depths or (DEPTHS[:2] if options.quick else DEPTHS)
    spend(options, quick=(2.0, 60.0), full=(20.0, 300.0))
    return run(BENCHMARK, options, measure)


if __name__ == "__main__":
    sys.exit(main())
