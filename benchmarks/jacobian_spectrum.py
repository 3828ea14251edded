"""Singular values of a Jacobian at initialisation: jaxrelu beside its peers.

python benchmarks/jacobian_spectrum.py            all sizes, about 25 minutes
python benchmarks/jacobian_spectrum.py --quick    the smallest size, under 2 minutes

See README.md in this folder for what is measured and how.
"""

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from _command import (
    DTYPES,
    Benchmark,
    Runner,
    by_cell,
    parser,
    run,
    say,
    spend,
)
from _harness import (
    Candidate,
    Row,
    Sizes,
)
from _problem import Problem, cached_problem, cached_reference, structured_gram
from _report import (
    Target,
    ratio,
    rows_table,
    summary_table,
)


SIZES = ((512, 64, 256), (1024, 128, 512), (2048, 256, 1024), (2048, 512, 2048))
LARGE = (8192, 256, 1024)
COLUMNS = ("err σ_min", "bound σ_min", "err σ_max", "err all", "err Gram")
MEMORY_CONSTANT = 8.0
"""Matrices' worth of n^2 + n(d + k) numbers that count as "of that order"."""


def _jacobian_bytes(sizes: Sizes, itemsize: int) -> int:
    return int(1.1 * sizes["n"] * sizes["d"] * sizes["k"] * itemsize)


def _batched_jacrev_bytes(sizes: Sizes, itemsize: int) -> int:
    # n cotangents of the whole (n, k) layer, then J and what the SVD overwrites.
    n, d, k = sizes["n"], sizes["d"], sizes["k"]
    return (n * n * k + 3 * n * d * k) * itemsize


CANDIDATES = (
    Candidate("ours", "jaxrelu: all values", "ours:all_values", "values"),
    Candidate("ours_ends", "jaxrelu: both ends, bounds", "ours:both_ends", "ends"),
    Candidate("ours_gram", "jaxrelu: Gram only", "ours:gram", "gram"),
    Candidate(
        "gram_formula", "Gram by the GEMM formula", "plain_jax:gram_formula", "gram"
    ),
    Candidate(
        "ours_gram_alone", "jaxrelu: Gram of a Jacobian", "ours:gram_alone", "gram"
    ),
    Candidate(
        "gram_formula_alone",
        "GEMM formula, backward pass given",
        "plain_jax:gram_formula_alone",
        "gram",
    ),
    Candidate(
        "structured_scipy",
        "formula by hand + SciPy",
        "plain_jax:structured_scipy",
        "values",
    ),
    Candidate(
        "nngeometry",
        "nngeometry + torch eigvalsh",
        "torch_peers:nngeometry",
        "values",
        "peers",
    ),
    Candidate(
        "nngeometry_gram",
        "nngeometry: Gram only",
        "torch_peers:nngeometry_gram",
        "gram",
        "peers",
    ),
    Candidate(
        "sample_gram",
        "JAX vmap(jacrev) + Gram + eigvalsh",
        "plain_jax:sample_gram",
        "values",
        bytes=_jacobian_bytes,
    ),
    Candidate(
        "torch_func",
        "torch.func NTK + eigvalsh",
        "torch_peers:torch_func",
        "values",
        "peers",
        _jacobian_bytes,
    ),
    Candidate(
        "neural_tangents",
        "neural-tangents + eigvalsh",
        "neural_tangents_peer:empirical_ntk",
        "values",
        "nt",
        _jacobian_bytes,
    ),
    Candidate(
        "jacrev_svd",
        "JAX jacrev + SVD",
        "plain_jax:jacrev_svd",
        "values",
        bytes=_batched_jacrev_bytes,
    ),
    Candidate("lapack", "floor: LAPACK of the same Gram", "plain_jax:lapack", "values"),
    Candidate(
        "jnp_eigvalsh", "floor: jnp.linalg.eigvalsh", "plain_jax:eigvalsh", "values"
    ),
    Candidate(
        "torch_eigvalsh",
        "floor: torch.linalg.eigvalsh",
        "torch_peers:eigvalsh",
        "values",
        "peers",
    ),
)
LARGE_NAMES = ("ours", "ours_ends", "lapack")
GEMMS = (
    Candidate("gemm", "jnp matmul", "plain_jax:gemm", "flop"),
    Candidate("gemm_highest", "jnp matmul, highest", "plain_jax:gemm_highest", "flop"),
    Candidate("gemm_torch", "torch.mm", "torch_peers:gemm", "flop", "peers"),
)


class Accuracy:
    """Relative errors of a result against the float64 reference of its problem."""

    def __init__(self, problem: Problem, reference: np.ndarray):
        self._problem = problem
        self._reference = reference

    def __call__(self, kind: str, result: dict[str, np.ndarray]) -> dict[str, float]:
        """Errors by column name; for both ends also error over bound."""
        if kind == "flop":
            return {"flop": float(result["flop"])}
        if kind == "gram":
            exact = structured_gram(self._problem)
            error = np.linalg.norm(result["gram"].astype(np.float64) - exact)
            return {"err Gram": float(error / np.linalg.norm(exact))}
        low, high = self._reference[0], self._reference[-1]
        if kind == "ends":
            errors = [
                abs(float(result[name]) - exact)
                for name, exact in (("smallest", low), ("largest", high))
            ]
            bounds = [
                float(result[f"{name}_bound"]) for name in ("smallest", "largest")
            ]
            return {
                "err σ_min": errors[0] / low,
                "err σ_max": errors[1] / high,
                "bound σ_min": bounds[0] / low,
                "bound σ_max": bounds[1] / high,
                "error / bound": max(
                    e / b if b else np.inf for e, b in zip(errors, bounds, strict=True)
                ),
            }
        order = np.argsort(result["values"])
        difference = np.abs(result["values"][order] - self._reference)
        error = difference / self._reference
        errors = {
            "err σ_min": float(error[0]),
            "err σ_max": float(error[-1]),
            "err all": float(error.max()),
        }
        if "bounds" in result:
            bounds = result["bounds"][order]
            errors["bound σ_min"] = float(bounds[0] / low)
            errors["error / bound"] = float((difference / bounds).max())
        return errors


def spectrum_targets(rows: Sequence[Row], platform: str) -> list[Target]:
    """Every promise of the project about these timings, met or not."""
    table = {(row.candidate, *row.sizes.values(), row.dtype): row for row in rows}

    def time_of(name: str, *cell) -> float | None:
        row = table.get((name, *cell))
        return row.median_s if row is not None and row.status == "ok" else None

    sizes = sorted({tuple(r.sizes.values()) for r in rows if r.candidate == "ours"})
    cells = [(*size, dtype) for size in sizes for dtype in DTYPES]
    cells = [cell for cell in cells if ("ours", *cell) in table]
    targets = []

    def compare(name: str, one: str, two: str, cell, wanted: float, *, at_most: bool):
        a, b = time_of(one, *cell), time_of(two, *cell)
        got = ratio(a, b) if at_most else ratio(b, a)
        where = f"({cell[0]}, {cell[1]}, {cell[2]}) {cell[3]}"
        targets.append(Target(f"{name}, {where}", got, wanted, at_most))

    ahead: dict[tuple, float] = dict(zip(SIZES, (10.0, 20.0, 45.0, 130.0), strict=True))
    for cell in cells:
        n, size = cell[0], cell[:3]
        if size != LARGE:
            floor = "lapack" if platform == "cpu" else "jnp_eigvalsh"
            compare("all values / LAPACK", "ours", floor, cell, 1.15, at_most=True)
            wanted = 1.3 if size == SIZES[-1] else 1.0
            compare(
                "nngeometry / ours", "ours", "nngeometry", cell, wanted, at_most=False
            )
        if size in ahead:
            wanted = ahead[size]
            compare(
                "per-sample JAX / ours",
                "ours",
                "sample_gram",
                cell,
                wanted,
                at_most=False,
            )
        if n in (2048, 8192):
            wanted = 0.5 if n == 2048 else 0.2
            compare("both ends / all", "ours_ends", "ours", cell, wanted, at_most=True)
        if size in SIZES[-2:] and cell[3] == "float32":
            pair = ("ours_gram_alone", "gram_formula_alone")
            compare("GEMM formula / our Gram", *pair, cell, 3.0, at_most=False)
    targets += _memory_targets(rows)
    targets += _bound_targets(rows)
    if platform != "cpu":
        targets += _rate_targets(rows)
    return targets


def _memory_targets(rows: Sequence[Row]) -> list[Target]:
    targets = []
    for name in ("ours", "ours_ends"):
        for dtype in DTYPES:
            counts = {}
            for row in rows:
                if (row.candidate, row.dtype, row.status) == (name, dtype, "ok"):
                    n, d, k = row.sizes.values()
                    numbers = (n * n + n * (d + k)) * np.dtype(dtype).itemsize
                    if n >= 1024 and row.memory is not None:
                        counts[n, d, k] = row.memory / numbers
            label = "all values" if name == "ours" else "both ends"
            targets.append(
                Target(
                    f"peak memory of {label} / (n² + n(d+k)) numbers, {dtype}",
                    max(counts.values(), default=None),
                    MEMORY_CONSTANT,
                    at_most=True,
                    note="worst of " + ", ".join(f"{c:.1f}" for c in counts.values())
                    if counts
                    else "",
                )
            )
    return targets


def _bound_targets(rows: Sequence[Row]) -> list[Target]:
    targets = []
    for name, label in (("ours", "all values"), ("ours_ends", "both ends")):
        found = [
            row.accuracy["error / bound"]
            for row in rows
            if row.candidate == name and "error / bound" in row.accuracy
        ]
        worst = max(found, default=None)
        title = f"{label}: error / stated bound, worst"
        targets.append(Target(title, worst, 1.0, at_most=True))
    return targets


def _rate_targets(rows: Sequence[Row]) -> list[Target]:
    targets = []
    for row in rows:
        if (
            row.candidate != "ours_gram"
            or row.median_s is None
            or row.sizes["n"] < 2048
        ):
            continue
        n, d, k = row.sizes.values()
        rate = 2.0 * n * n * (d + k) / row.median_s
        peak = max(
            (_rate(r) for r in rows if r.candidate == "gemm" and r.dtype == row.dtype),
            default=None,
        )
        targets.append(
            Target(
                f"Gram / GEMM rate, ({n}, {d}, {k}) {row.dtype}",
                ratio(rate, peak),
                0.7,
                at_most=False,
                note=f"{rate / 1e9:.4g} GFLOP/s",
            )
        )
    return targets


def _rate(row: Row) -> float:
    if row.median_s is None or "flop" not in row.accuracy:
        return 0.0
    return row.accuracy["flop"] / row.median_s


def measure(runner: Runner) -> Iterator[tuple[list[Row], str]]:
    """All cells: the machine's rates, the sizes, and the large one."""
    options = runner.options
    side = options.gemm or (2048 if runner.device["platform"] == "cpu" else 8192)
    sized: list[tuple[tuple[Candidate, ...], tuple[int, int, int]]]
    sized = [(GEMMS, (side, 1, 2))]
    sized += [(CANDIDATES, size) for size in options.sizes]
    if options.large:
        large = tuple(c for c in CANDIDATES if c.name in LARGE_NAMES)
        sized.append((large, LARGE))
    for every, (n, d, k) in sized:
        candidates = runner.chosen(every)
        problem_path = cached_problem(options.cache, n, d, k)
        accuracy = Accuracy(dict(np.load(problem_path)), np.ones(1))
        if candidates and candidates[0].kind != "flop":
            say(f"reference for n={n}, d={d}, k={k} (kept for the next run)")
            values, method = cached_reference(options.cache, problem_path)
            accuracy = Accuracy(dict(np.load(problem_path)), values)
            condition = values[-1] / values[0]
            say(f"reference: {method}; condition number {condition:.3g}")
        sizes = {"n": n, "d": d, "k": k}
        for dtype in options.dtypes:
            found = runner.cell(candidates, problem_path, sizes, dtype, accuracy)
            yield found, _cell_table(found)


def _cell_table(rows: Sequence[Row]) -> str:
    if rows and rows[0].kind == "flop":
        return "\n".join(
            f"- {row.label}, {row.dtype}: {_rate(row) / 1e9:.4g} GFLOP/s"
            if row.status == "ok"
            else f"- {row.label}, {row.dtype}: {row.status}"
            for row in rows
        )
    return rows_table(rows, COLUMNS)


def _sections(rows: Sequence[Row]) -> list[tuple[str, str]]:
    spectra = [row for row in rows if row.kind != "flop"]
    sections = [("Steady time", summary_table(spectra, "ours"))]
    for heading, found in by_cell(rows):
        if found[0].kind == "flop":
            n, dtype = found[0].sizes["n"], found[0].dtype
            heading = f"Rate of matrix products, {n} × {n}, {dtype}"
        sections.append((heading, _cell_table(found)))
    return sections


def _size(text: str) -> tuple[int, int, int]:
    n, d, k = (int(part) for part in text.split(","))
    return n, d, k


BENCHMARK = Benchmark(
    "jacobian_spectrum",
    "Jacobian spectrum at initialisation",
    "",
    (*CANDIDATES, *GEMMS),
    spectrum_targets,
    _sections,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes the report; returns the exit status."""
    made = parser(
        __doc__,
        minutes=35.0,
        peers="torch and nngeometry",
        nt="neural-tangents and its old JAX",
    )
    add = made.add_argument
    add("--sizes", nargs="+", type=_size, metavar="N,D,K", help="other sizes")
    add("--no-large", dest="large", action="store_false", help="without n = 8192")
    add("--gemm", type=int, metavar="N", help="side of the products that give the rate")
    options = made.parse_args(arguments)
    options.large = options.large and not (options.quick or options.sizes)
    options.sizes = options.sizes or (SIZES[:1] if options.quick else SIZES)
    spend(options, quick=(5.0, 20.0), full=(30.0, 100.0))
    return run(BENCHMARK, options, measure)


if __name__ == "__main__":
    sys.exit(main())
