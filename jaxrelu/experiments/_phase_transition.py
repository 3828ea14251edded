r"""Success of training over a grid of sizes, cell by cell, here or on a cluster."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrelu._checks import check_size
from jaxrelu._devices import Devices, local_devices
from jaxrelu._memory import require_bytes
from jaxrelu.activations import activation as activation_of
from jaxrelu.experiments._cells import bar, claim, read_arrays, write_arrays
from jaxrelu.experiments._fitting import Budget, fit_both
from jaxrelu.experiments._grid import Cell, Grid, padded
from jaxrelu.experiments._jobs import executor_of, run_jobs
from jaxrelu.experiments._phase_result import PhaseTransition


_FORMAT = 1
_WHAT = "phase transition"


def phase_transition(
    grid: Grid,
    out: str | os.PathLike | None = None,
    *,
    executor: Any = "local",
    slurm: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    devices: Devices | None = None,
    progress: bool = False,
) -> PhaseTransition:
    r"""Trains every trial of every cell by descent, and tests whether a fit exists.

    $f(x) = v^\top\varphi(Wx)$ with W alone trained on $\frac12\lVert f(X)-y\rVert^2$
    from a random start. Gradient descent with $\eta = n/(\lVert y\rVert^2\lVert X
    \rVert^2)$ has a budget of steps; beside it, from the same start, runs
    Levenberg-Marquardt, which needs few steps where the Jacobian is ill-conditioned.
    So "no weights were found that fit" and "descent is slow" are told apart. A method
    succeeds when $\lVert r\rVert/\lVert y\rVert$ falls below the grid's tolerance.

    With ``out`` each cell is a file there, written under another name, forced to disk
    and renamed: whole or not there. A kill loses at most the cells being computed (one,
    unless ``batch_size`` puts several together); calling again runs those that are
    missing and no other. Several processes may fill one folder: what one has finished
    the others leave out; what they compute at the same time comes out the same.
    ``config.json`` holds the grid; another grid is refused.

    Every trial's randomness comes from (seed, cell, trial) alone: cells may run in any
    order, on any machine, beside any others. Cells with equal k, d, activation and
    `padded` n share one compiled program.

    Args:
        grid: what to run.
        out: folder for the cells' files, made if it does not exist; None keeps all in
            memory.
        executor: ``"local"``, in this process; ``"slurm"``, a job per cell through
            submitit, and this process waits; or a submitit executor.
        slurm: parameters of the jobs, for submitit's ``update_parameters``, for example
            ``{"slurm_partition": "gpu", "timeout_min": 60, "gpus_per_node": 1}``.
        batch_size: runs computed at once; None: the trials of one cell. More put cells
            of equal shape together, which an accelerator wants.
        devices: among which runs are split; None: all of this process.
        progress: show a bar with the time left (needs tqdm).

    Returns:
        All trials; `PhaseTransition.transition` fits the curve, its ``to_xarray``
        gives labelled arrays for `jaxrelu.experiments.save`.

    Raises:
        ValueError: a folder of another grid, a damaged file, a cluster without ``out``.
        OSError: nothing can be written to ``out``; before anything is computed.
        ImportError: ``progress`` without tqdm, ``"slurm"`` without submitit.
        MemoryRefusedError: a batch that does not fit.

    Cost of a trial: $4nkd$ operations a step of descent; $2n^2(k+d) + n^3/3$ a step of
    Levenberg-Marquardt. Memory: about $4nk + 4kd + 3n^2$ numbers for each run at once.
    """
    if batch_size is not None:
        check_size(batch_size, "batch_size")
    place = None if out is None else Path(out)
    jobs = executor_of(executor, place, slurm)
    owner, missing = "", list(grid.cells)
    if place is not None:
        owner = claim(place, {"format": _FORMAT, **grid.config}, f"a {_WHAT}")
        missing = [cell for cell in missing if not _path(place, cell).exists()]
    done = len(grid.cells) - len(missing)
    shown = bar(len(grid.cells), done, "cell", progress)
    found: dict[Cell, dict[str, np.ndarray]] = {}
    try:
        if jobs is not None and place is not None:
            batches = _submitted(jobs, grid, missing, place, owner)
        else:
            places = devices or local_devices()
            batches = _computed(grid, missing, batch_size, places, place)
        for cell, arrays in batches:
            if place is None:
                found[cell] = arrays
            elif arrays:
                write_arrays(_path(place, cell), arrays, owner)
            if shown is not None:
                shown.update(1)
    finally:
        if shown is not None:
            shown.close()
    if place is not None:
        found = {c: read_arrays(_path(place, c), owner, _WHAT) for c in grid.cells}
    fields = {
        name: np.stack([found[cell][name] for cell in grid.cells])
        for name in found[grid.cells[0]]
    }
    return PhaseTransition(grid, **fields)


def _path(place: Path, cell: Cell) -> Path:
    return place / f"{cell.name}.npz"


def _computed(
    grid: Grid,
    cells: list[Cell],
    batch_size: int | None,
    devices: Devices,
    place: Path | None,
) -> Iterator[tuple[Cell, dict[str, np.ndarray]]]:
    """Cells and their arrays, those that share a program after each other.

    No arrays for a cell that another process has put into ``place`` meanwhile.
    """
    batch_size = grid.trials if batch_size is None else batch_size
    at_once = max(1, batch_size // grid.trials)
    groups: dict[tuple, list[Cell]] = {}
    for cell in cells:
        program = (padded(cell.n), cell.k, cell.d, cell.activation)
        groups.setdefault(program, []).append(cell)
    for group in groups.values():
        for i in range(0, len(group), at_once):
            together = group[i : i + at_once]
            if place is not None:
                there = [cell for cell in together if _path(place, cell).exists()]
                yield from ((cell, {}) for cell in there)
                together = [cell for cell in together if cell not in there]
            if not together:
                continue
            arrays = _run(grid, together, at_once * grid.trials, batch_size, devices)
            for j, cell in enumerate(together):
                rows = slice(j * grid.trials, (j + 1) * grid.trials)
                yield cell, {name: value[rows] for name, value in arrays.items()}


def _run(
    grid: Grid, cells: list[Cell], runs: int, batch_size: int, devices: Devices
) -> dict[str, np.ndarray]:
    """All trials of a few cells of one shape, in calls of one size."""
    first = cells[0]
    size = -(-min(runs, batch_size) // len(devices)) * len(devices)
    _require(first, size, np.dtype(grid.dtype))
    parts = [jax.tree.map(np.asarray, grid.problems(cell)) for cell in cells]
    problems = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
    total = len(problems.targets)
    budget = Budget(
        jnp.asarray(grid.tolerance, grid.dtype),
        jnp.asarray(grid.gd_steps, jnp.int32),
        jnp.asarray(grid.lm_steps, jnp.int32),
        jnp.asarray(grid.step_scale, grid.dtype),
    )
    act, found = activation_of(first.activation), []
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        # as NumPy: rows go to their devices with no program for cutting them
        block = jax.tree.map(lambda x, rows=rows: x[rows], problems)
        ends = fit_both(act, block, budget, devices)
        keep = min(size, total - start)
        found.append({name: np.asarray(x)[:keep] for name, x in ends.items()})
    return {name: np.concatenate([f[name] for f in found]) for name in found[0]}


def _require(cell: Cell, size: int, dtype: np.dtype) -> None:
    n = padded(cell.n)
    numbers = 4 * n * cell.k + 4 * cell.k * cell.d + 3 * n * n
    require_bytes(
        size * numbers * dtype.itemsize,
        f"{size} runs of {cell}",
        "Lower batch_size, or n, k and d.",
    )


def _submitted(
    jobs: Any, grid: Grid, cells: list[Cell], place: Path, owner: str
) -> Iterator[tuple[Cell, dict[str, np.ndarray]]]:
    """One job a cell; they write the files."""
    several = [(cell, place.resolve()) for cell in cells]
    for cell, _ in zip(
        cells, run_jobs(jobs, _job, (grid, owner), several), strict=True
    ):
        yield cell, {}


def _job(grid: Grid, owner: str, cell: Cell, place: Path) -> None:
    """One cell on another machine; nothing if an earlier job has done it."""
    path = _path(place, cell)
    if not path.exists():
        ((_, arrays),) = _computed(grid, [cell], None, local_devices(), None)
        write_arrays(path, arrays, owner)
