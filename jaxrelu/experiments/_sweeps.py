"""Sweeps whose cells differ in size, on disk: interrupted anywhere, they go on."""

import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from jaxrelu._checks import check_size
from jaxrelu.dynamics import sweep
from jaxrelu.dynamics._sweep import axis_length
from jaxrelu.experiments._cells import bar, claim
from jaxrelu.experiments._identity import identity, key_words
from jaxrelu.experiments._jobs import executor_of, is_wide, run_jobs
from jaxrelu.experiments._labelled import check_output, load, save, to_xarray


_FORMAT = 2
_PLAIN = (bool, int, float, str)


def run_sweep(
    folder: str | os.PathLike,
    function: Callable[..., PyTree],
    key: PRNGKeyArray,
    num_seeds: int,
    grid: Mapping[str, PyTree] | None = None,
    *,
    cells: Mapping[str, Iterable[Any]],
    executor: Any = "local",
    slurm: Mapping[str, Any] | None = None,
    devices: Sequence[Any] | None = None,
    batch_size: int | None = None,
    lanes: int | None = None,
    progress: bool = False,
) -> Any:
    """`jaxrelu.dynamics.sweep` for every combination of sizes, each one a file.

    What changes shapes or programs (widths, numbers of samples, activations) goes into
    ``cells``; what does not (seeds, step sizes) stays in one compiled program.

        def run(key, k, activation, learning_rate):
            net = Shallow.init(key, d=20, k=k, activation=activation)
            return gradient_descent(loss, net, learning_rate=learning_rate, ...)

        run_sweep("runs", run, key, 32, {"learning_rate": jnp.array([0.1, 0.2])},
                  cells={"k": (50, 200), "activation": ("relu", "softplus")})

    A cell is a netCDF file, written under another name, forced to disk and renamed:
    whole or not there. A kill loses the cell being computed; calling again runs those
    that are missing and no other. ``config.json`` holds key, seeds, axes, cells, and
    what the function is made of (names, arrays, settings, what it closes over), but not
    its code: after changing that, take another folder. A folder of another
    configuration is refused.

    Args:
        folder: made if it does not exist.
        function: called with a key, one value of each of ``cells``, as it is, and one
            of each axis of ``grid``, traced. What it returns has the same shapes in
            every cell; networks are left out.
        key: PRNG key; seed i runs with ``fold_in(key, i)``, in every cell.
        num_seeds: at least 1.
        grid: as in `jaxrelu.dynamics.sweep`, like all below.
        cells: name → numbers or texts, no two alike.
        executor: ``"local"``, in this process; ``"slurm"``, a job per cell through
            submitit, and this process waits; or a submitit executor. ``function`` goes
            to the jobs as cloudpickle packs it, with all it holds.
        slurm: parameters of the jobs, for submitit's ``update_parameters``.
        devices: where to run; a job takes all it finds.
        batch_size: runs at once on a device.
        lanes: dispatches under way at once on one device.
        progress: show a bar with the time left (needs tqdm).

    Returns:
        An `xarray.Dataset` with the names of ``cells``, ``"seed"`` and those of
        ``grid`` as dimensions, and ``"record"`` along each run; see `to_xarray`.

    Raises:
        ValueError: a folder of another configuration, a damaged file, names or values
            given twice, cells whose results differ in shape, devices for jobs.
        TypeError: cells that are neither numbers nor text.
        OSError: nothing can be written to the folder; before anything is computed.
        ImportError: xarray, h5netcdf or h5py is missing, or tqdm for ``progress``, or
            submitit for ``"slurm"``.

    Cost: that of the runs; a compilation a cell.
    """
    axes = dict(grid or {})
    values = {name: _several(several, name) for name, several in cells.items()}
    num_seeds = check_size(num_seeds, "num_seeds")
    _check(values, axes)
    place = Path(folder)
    jobs = executor_of(executor, place, slurm)
    if jobs is not None and devices is not None:
        msg = "devices are of this process; expected None with jobs, which find theirs."
        raise ValueError(msg)
    owner = claim(place, _config(function, key, num_seeds, axes, values), "a sweep")
    combined = [
        dict(zip(values, point, strict=True))
        for point in itertools.product(*values.values())
    ]
    paths = [place / f"{_name(cell)}.nc" for cell in combined]
    missing = [i for i, path in enumerate(paths) if not path.exists()]
    if missing:
        check_output(paths[missing[0]])
    shown = bar(len(paths), len(paths) - len(missing), "cell", progress)
    how = {"devices": devices, "batch_size": batch_size, "lanes": lanes}
    work = (function, (key, num_seeds, axes), how, owner)
    several = [(combined[i], paths[i].resolve()) for i in missing]
    try:
        if jobs is None:
            each = (_run(*work, *one) for one in several)
        else:
            each = run_jobs(jobs, _run, work, several)
        for _ in each:
            if shown is not None:
                shown.update(1)
    finally:
        if shown is not None:
            shown.close()
    found = [_read(path, owner) for path in paths]
    return _joined(found, values, owner)


def _run(
    function: Callable,
    runs: tuple,
    how: dict[str, Any],
    owner: str,
    cell: dict[str, Any],
    path: Path,
) -> None:
    """One cell into its file; nothing if another process has been faster."""
    if path.exists():
        return
    found = sweep(eqx.Partial(function, **cell), *runs, **how)
    config = {"cell": cell, "owner": owner}
    save(to_xarray(found, config=config), path, overwrite=True)


def _several(values: Any, name: str) -> list:
    """The values of cells; NumPy's numbers as Python's, which JSON knows."""
    if isinstance(values, str):
        msg = f"cells[{name!r}] is {values!r}; expected several. Pass ({values!r},)."
        raise TypeError(msg)
    return [v.item() if isinstance(v, np.generic) else v for v in values]


def _check(values: dict[str, list], axes: dict[str, PyTree]) -> None:
    twice = sorted(set(values) & {*axes, "seed", "record"})
    if twice:
        msg = f"cells holds {twice}, which are axes already. Choose other names."
        raise ValueError(msg)
    for name, axis in axes.items():
        axis_length(axis, name)
    if "record" in axes:
        msg = "the grid has an axis 'record', which runs have. Choose another name."
        raise ValueError(msg)
    for name, several in values.items():
        if not all(isinstance(value, _PLAIN) for value in several):
            msg = (
                f"cells[{name!r}] is {several}; expected numbers or text, which name a "
                "file. Make what they stand for inside the function."
            )
            raise TypeError(msg)
        if not several or len(set(several)) < len(several):
            msg = f"cells[{name!r}] is {several}; expected some, and no two alike."
            raise ValueError(msg)


def _config(
    function: Any,
    key: PRNGKeyArray,
    num_seeds: int,
    axes: dict[str, PyTree],
    values: dict[str, list],
) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "function": identity(function),
        "key": key_words(key),
        "num_seeds": num_seeds,
        "grid": {name: identity(axis) for name, axis in axes.items()},
        "cells": values,
        "float64": is_wide(),
    }


def _name(cell: dict[str, Any]) -> str:
    words = "-".join(f"{name}{value}" for name, value in sorted(cell.items()))
    plain = "".join(c for c in words if c.isascii() and (c.isalnum() or c in "-."))
    text = json.dumps(cell, sort_keys=True)
    return f"{plain[:100]}-{zlib.crc32(text.encode()):08x}"


def _read(path: Path, owner: str) -> Any:
    try:
        found = load(path)
        there = json.loads(found.attrs["config"])["owner"]
    except Exception as error:
        msg = f"{path} cannot be read ({error}). Delete it: it will be run again."
        raise ValueError(msg) from error
    if there != owner:
        msg = f"{path} belongs to another sweep. Delete it: it will be run again."
        raise ValueError(msg)
    return found


def _joined(found: list[Any], values: dict[str, list], owner: str) -> Any:
    import xarray

    sizes = {tuple(sorted(one.sizes.items())) for one in found}
    if len(sizes) > 1:
        msg = (
            f"results have the sizes {sorted(sizes)}; expected the same in every cell. "
            "The files are there; read them one by one with jaxrelu.experiments.load."
        )
        raise ValueError(msg)
    names = {tuple(sorted(map(str, one.data_vars))) for one in found}
    if len(names) > 1:
        msg = (
            f"results have the names {sorted(names)}; expected the same in every cell."
        )
        raise ValueError(msg)
    # a step size, say, that is a cell's own name
    found = [one.drop_vars(values, errors="ignore") for one in found]
    for name, several in reversed(values.items()):
        along = xarray.DataArray(several, dims=name, name=name)
        count = len(several)
        found = [
            xarray.concat(found[i : i + count], along, combine_attrs="drop_conflicts")
            for i in range(0, len(found), count)
        ]
    return found[0].assign_attrs(config=json.dumps({"cells": values, "owner": owner}))
