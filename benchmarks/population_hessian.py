"""Hessians of the population and the empirical loss: jaxrelu beside its peers.

python benchmarks/population_hessian.py            all cells, about 40 minutes
python benchmarks/population_hessian.py --quick    small sizes, under 3 minutes

See README.md in this folder for what is measured and how.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
    Sizes,
)
from _hessian_problem import (
    POINTS,
    Problem,
    cached,
    empirical_hessian,
    empirical_problem,
    numpy_gradient,
    numpy_hessian,
    population_problem,
    sampled_entries,
)
from _problem import make_problem
from _report import (
    Target,
    ratio,
    rows_table,
    seconds,
    summary_table,
)


PARTS = ("population", "product", "empirical", "census", "symmetric")
SIZES = (8, 16, 32, 64, 128)
WIDTHS = (16, 32, 64)
DEGENERATE = 8
"""Size of the cells at special points, where every entry checked costs 60 digits."""

COLUMNS = {
    "population": ("err H",),
    "product": ("err Hu",),
    "empirical": ("err H",),
    "census": ("starts / s", "reached", "worst ‖∇F‖"),
    "symmetric": ("eigenvalues", "stated error"),
}
TITLES = {
    "population": "Population loss, dense Hessian",
    "product": "Population loss, Hessian times a vector",
    "empirical": "Empirical loss, dense Hessian",
    "census": "Critical points from many starts",
    "symmetric": "Spectrum of the Hessian at the type II minimum, by symmetry",
}
BASELINE = {
    "population": "ours",
    "product": "ours_product",
    "empirical": "ours_empirical",
    "census": "ours_census",
    "symmetric": "ours_type_two",
}


def _matrices(count: float) -> Callable[[Sizes, int], int]:
    """Memory of a candidate that holds so many matrices of the Hessian's size."""

    def needed(sizes: Sizes, itemsize: int) -> int:
        return int(count * (sizes["k"] * sizes["d"]) ** 2 * itemsize)

    return needed


# The counts of the autodiff candidates were measured at k = 32 and 64.
CANDIDATES = {
    "population": (
        Candidate(
            "ours",
            "jaxrelu under jit",
            "hessians_ours:population",
            "H",
            bytes=_matrices(3),
        ),
        Candidate(
            "ours_population_eager",
            "jaxrelu, eager",
            "hessians_ours:population_eager",
            "H",
            bytes=_matrices(3),
        ),
        Candidate(
            "jax_hessian",
            "jax.hessian, double where",
            "hessians_jax:population",
            "H",
            bytes=_matrices(25),
        ),
        Candidate(
            "torch_hessian",
            "torch.func.hessian, double where",
            "hessians_torch:population",
            "H",
            "peers",
            _matrices(25),
        ),
        Candidate(
            "write",
            "floor: writing the bytes",
            "hessians_jax:write",
            "bytes",
            bytes=_matrices(1),
        ),
    ),
    "product": (
        Candidate("ours_product", "jaxrelu", "hessians_ours:population_product", "Hu"),
        Candidate(
            "jax_product",
            "jax.jvp of jax.grad, double where",
            "hessians_jax:population_product",
            "Hu",
        ),
        Candidate(
            "torch_product",
            "torch.func.jvp of grad, double where",
            "hessians_torch:population_product",
            "Hu",
            "peers",
        ),
    ),
    "empirical": (
        Candidate(
            "ours_empirical", "jaxrelu under jit", "hessians_ours:empirical", "H"
        ),
        Candidate("ours_eager", "jaxrelu, eager", "hessians_ours:empirical_eager", "H"),
        Candidate("jax_empirical", "jax.hessian", "hessians_jax:empirical", "H"),
        Candidate(
            "torch_empirical",
            "torch.func.hessian",
            "hessians_torch:empirical",
            "H",
            "peers",
        ),
        Candidate(
            "curvlinops",
            "curvlinops operator @ I",
            "hessians_torch:curvlinops",
            "H",
            "peers",
        ),
        Candidate(
            "write_empirical", "floor: writing the bytes", "hessians_jax:write", "bytes"
        ),
    ),
    "census": (
        Candidate(
            "ours_census", "find_critical_points", "hessians_ours:census", "points"
        ),
        Candidate(
            "descent_loop",
            "loop of jitted gradient descent",
            "hessians_jax:descent_loop",
            "points",
        ),
    ),
    "symmetric": (
        Candidate(
            "ours_type_two",
            "symmetric_minimum(II).hessian_spectrum",
            "hessians_ours:type_two",
            "spectrum",
        ),
    ),
}
ALL = tuple(candidate for part in CANDIDATES.values() for candidate in part)


class Cell(NamedTuple):
    """One problem for all candidates of a part.

    Attributes:
        part: one of `PARTS`.
        problem: its npz.
        sizes: for the rows; holds the point of a population cell.
        accuracy: errors of a result, by its kind.
        dtypes: in which it is measured.
    """

    part: str
    problem: Path
    sizes: dict[str, Any]
    accuracy: Callable[[str, dict[str, np.ndarray]], dict[str, float]]
    dtypes: Sequence[str]


def _largest(error: np.ndarray, scale: float) -> float:
    """The largest entry over the scale; infinite if there is a NaN."""
    worst = float(np.abs(error).max()) / scale
    return worst if np.isfinite(worst) else float("inf")


class PopulationAccuracy:
    """Error of sampled entries, relative to the largest of the Hessian's entries."""

    def __init__(self, index: np.ndarray, values: np.ndarray):
        self._index, self._values = index, values

    def __call__(self, kind: str, result: dict[str, np.ndarray]) -> dict[str, float]:
        """``err H``, or the bytes of the floor."""
        if kind == "bytes":
            return {"bytes": float(result["bytes"])}
        hessian = result["hessian"]
        size = round(hessian.shape[0] ** 0.5)
        i, a, j, b = self._index.T
        found = hessian[i * size + a, j * size + b].astype(np.float64)
        scale = max(1.0, float(np.abs(self._values).max()))
        return {"err H": _largest(found - self._values, scale)}


class MatrixAccuracy:
    """Error of a whole matrix or product, relative to the largest entry."""

    def __init__(self, exact: np.ndarray):
        self._exact = exact

    def __call__(self, kind: str, result: dict[str, np.ndarray]) -> dict[str, float]:
        """``err H`` or ``err Hu``, or the bytes of the floor."""
        if kind == "bytes":
            return {"bytes": float(result["bytes"])}
        name, column = {"H": ("hessian", "err H"), "Hu": ("product", "err Hu")}[kind]
        scale = float(np.abs(self._exact).max())
        return {column: _largest(result[name] - self._exact, scale)}


def census_accuracy(kind: str, result: dict[str, np.ndarray]) -> dict[str, float]:
    """Starts, the share of them that came to a critical point, the worst gradient."""
    del kind
    weights = result["weights"].astype(np.float64)
    teacher = np.eye(weights.shape[2])
    norms = [np.linalg.norm(numpy_gradient(w, teacher)) for w in weights]
    starts = float(result["starts"])
    return {
        "starts": starts,
        "reached": float(result["reached"]) / starts,
        "worst ‖∇F‖": float(max(norms, default=float("nan"))),
    }


def spectrum_accuracy(kind: str, result: dict[str, np.ndarray]) -> dict[str, float]:
    """How many eigenvalues there are, and the error that the result states."""
    del kind
    scale = float(np.abs(result["values"]).max())
    return {
        "eigenvalues": float(result["total"]),
        "stated error": float(result["error"].max()) / scale,
    }


def cells_of(options: argparse.Namespace) -> Iterator[Cell]:
    """All cells of the chosen parts."""
    folder: Path = options.cache
    if "population" in options.parts:
        special = [(DEGENERATE, point) for point in POINTS[1:]]
        plain = [(size, POINTS[0]) for size in options.sizes]
        for size, point in [*special, *plain]:
            problem = cached(
                folder / f"population-{size}-{point}.npz",
                lambda size=size, point=point: population_problem(size, point),
            )
            entries = cached(
                folder / f"population-{size}-{point}-entries.npz",
                lambda problem=problem: dict(
                    zip(
                        ("index", "values"),
                        sampled_entries(_load(problem)),
                        strict=True,
                    )
                ),
            )
            sizes = {"k": size, "d": size, "point": point}
            judge = PopulationAccuracy(**_load(entries))
            yield Cell("population", problem, sizes, judge, options.dtypes)
    if "product" in options.parts:
        for size in options.sizes:
            problem = cached(
                folder / f"population-{size}-generic.npz",
                lambda size=size: population_problem(size, "generic"),
            )
            if size <= 64:
                judge = MatrixAccuracy(_reference_product(_load(problem)))
            else:
                judge = _unjudged
            yield Cell(
                "product", problem, {"k": size, "d": size}, judge, options.dtypes
            )
    if "empirical" in options.parts:
        n, d = options.samples
        for width in options.widths:
            problem = cached(
                folder / f"empirical-{n}-{d}-{width}.npz",
                lambda width=width: empirical_problem(make_problem(n, d, width)),
            )
            judge = MatrixAccuracy(empirical_hessian(_load(problem)))
            sizes = {"n": n, "d": d, "k": width}
            yield Cell("empirical", problem, sizes, judge, options.dtypes)
    if "census" in options.parts:
        neurons, starts = options.census
        problem = cached(
            folder / f"census-{neurons}-{starts}.npz",
            lambda: {
                "teacher": np.eye(neurons),
                "neurons": np.array(neurons),
                "starts": np.array(starts),
            },
        )
        sizes = {"k": neurons, "starts": starts}
        yield Cell("census", problem, sizes, census_accuracy, ("float64",))
    if "symmetric" in options.parts:
        for size in options.symmetric:
            problem = cached(
                folder / f"symmetric-{size}.npz",
                lambda size=size: {"k": np.array(size)},
            )
            yield Cell(
                "symmetric", problem, {"k": size}, spectrum_accuracy, ("float64",)
            )


def _load(path: Path) -> Problem:
    return dict(np.load(path))


def _reference_product(problem: Problem) -> np.ndarray:
    return numpy_hessian(problem) @ problem["direction"].reshape(-1)


def _unjudged(kind: str, result: dict[str, np.ndarray]) -> dict[str, float]:
    del kind, result
    return {}


def hessian_targets(rows: Sequence[Row], platform: str = "cpu") -> list[Target]:
    """Every promise of the project about these numbers, met or not."""
    del platform
    table = {(row.candidate, *row.sizes.values(), row.dtype): row for row in rows}

    def time_of(name: str, *cell) -> float | None:
        row = table.get((name, *cell))
        return row.median_s if row is not None and row.status == "ok" else None

    targets = []
    cell = (32, 32, "generic", "float64")
    got = ratio(time_of("jax_hessian", *cell), time_of("ours", *cell))
    name = "population Hessian: jax.hessian / ours, k = 32 float64"
    targets.append(Target(name, got, 100.0, at_most=False))
    cell = (64, 64, "generic", "float64")
    got = ratio(time_of("ours", *cell), time_of("write", *cell))
    name = "population Hessian: ours / writing the bytes, k = 64 float64"
    targets.append(Target(name, got, 2.0, at_most=True))
    for point in POINTS:
        row = table.get(("ours", DEGENERATE, DEGENERATE, point, "float64"))
        error = row.accuracy.get("err H") if row is not None else None
        name = (
            f"population Hessian: error at the {point} point, k = {DEGENERATE} float64"
        )
        targets.append(Target(name, error, 1e-15, at_most=True))
    for row in rows:
        if row.candidate == "ours_empirical":
            cell = (*row.sizes.values(), row.dtype)
            got = ratio(time_of("jax_empirical", *cell), row.median_s)
            n, d, k = row.sizes.values()
            name = f"empirical Hessian: jax.hessian / ours, ({n}, {d}, {k}) {row.dtype}"
            targets.append(Target(name, got, 40.0, at_most=False))
    name = "type II spectrum at k = 1000000, seconds"
    got = time_of("ours_type_two", 10**6, "float64")
    targets.append(Target(name, got, 1.0, at_most=True))
    return targets


def measure(runner: Runner) -> Iterator[tuple[list[Row], str]]:
    """One cell and dtype after the other."""
    for cell in cells_of(runner.options):
        candidates = runner.chosen(CANDIDATES[cell.part])
        for dtype in cell.dtypes if candidates else ():
            found = runner.cell(
                candidates, cell.problem, cell.sizes, dtype, cell.accuracy
            )
            for row in found:
                if row.median_s and "starts" in row.accuracy:
                    row.accuracy["starts / s"] = row.accuracy["starts"] / row.median_s
            yield found, rows_table(found, COLUMNS[cell.part])


_PART = {c.name: part for part, found in CANDIDATES.items() for c in found}


def _sections(rows: Sequence[Row]) -> list[tuple[str, str]]:
    sections = []
    for part in PARTS:
        mine = [row for row in rows if _PART[row.candidate] == part]
        if not mine:
            continue
        body = [summary_table(mine, BASELINE[part])]
        for heading, found in by_cell(mine):
            body += [f"### {heading}", rows_table(found, COLUMNS[part])]
            floor = [r.median_s for r in found if r.kind == "bytes"]
            if floor and floor[0]:
                body.append(f"Writing the bytes alone takes {seconds(floor[0])}.")
        sections.append((TITLES[part], "\n\n".join(body)))
    return sections


BENCHMARK = Benchmark(
    "population_hessian",
    "Hessians of the population and the empirical loss",
    "hessian-",
    ALL,
    hessian_targets,
    _sections,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes the report; returns the exit status."""
    made = parser(__doc__, minutes=45.0, peers="torch and curvlinops")
    add = made.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--sizes", nargs="+", type=int, metavar="K", help="n = k = d, population loss")
    add("--widths", nargs="+", type=int, metavar="K", help="of the empirical loss")
    add("--samples", nargs=2, type=int, metavar=("N", "D"), default=[512, 16])
    add("--census", nargs=2, type=int, metavar=("K", "STARTS"), help="of the search")
    add("--symmetric", nargs="+", type=int, metavar="K", default=[10**6])
    options = made.parse_args(arguments)
    options.sizes = options.sizes or (SIZES[:2] if options.quick else SIZES)
    options.widths = options.widths or (WIDTHS[:1] if options.quick else WIDTHS)
    options.census = options.census or ([6, 8] if options.quick else [20, 64])
    spend(options, quick=(3.0, 60.0), full=(30.0, 300.0))
    return run(BENCHMARK, options, measure)


if __name__ == "__main__":
    sys.exit(main())
