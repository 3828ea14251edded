"""Results with named dimensions, as xarray data sets, in memory and on disk."""

import contextlib
import dataclasses
import importlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from jaxrelu._files import beside, replacing
from jaxrelu._results import RESULTS
from jaxrelu.dynamics import Flow, Sweep, Trajectory


_PACKAGES = ("jaxrelu", "jax", "numpy", "equinox", "optax", "diffrax")
_SUFFIXES = (".nc", ".zarr")


def to_xarray(
    result: Any,
    *,
    dims: Sequence[str] = (),
    coords: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    weights: bool = False,
) -> Any:
    """An `xarray.Dataset` of a `Sweep`, a `Trajectory`, a `Flow` or a pytree of arrays.

    Axes of runs come first and are named by the sweep or by ``dims``; then ``"record"``
    for what was recorded along a run; further axes are called after their variable
    (``"sigma_0"``). ``result`` becomes text: ``"successful"``, ``"diverged"``,
    ``"no_convergence"``. Attributes hold the versions of what computed the numbers,
    their dtype, and the configuration as JSON.

    Args:
        result: what to label.
        dims: names of leading axes, if ``result`` is no `Sweep`.
        coords: values along those axes; arrays with one axis.
        config: settings of the runs, anything that JSON can say.
        weights: also the network's arrays.

    Raises:
        ImportError: xarray is not installed (``pip install 'jaxrelu[io]'``).
        ValueError: an array with fewer axes than there are names, two results of one
            name, values along an axis that there is not.
    """
    xarray = _import("xarray")
    if isinstance(result, Sweep):
        dims, coords = result.dims, {**result.coords, **(coords or {})}
        result = result.values
    names = tuple(dims)
    coords = dict(coords or {})
    unknown = sorted({*coords} - {*names})
    if unknown or "record" in names or len(set(names)) < len(names):
        msg = (
            f"the axes are {names}, with values along {(*coords,)}; expected different "
            "names without 'record', and values along these axes."
        )
        raise ValueError(msg)
    variables = {}
    for name, own, values in _variables(result, weights):
        if name in names and name == "learning_rate":  # along an axis of step sizes
            continue
        if name in variables or name in names:
            msg = (
                f"two results, or a result and an axis, are called {name!r}; expected "
                "names of their own. Rename a recorder, a key or an axis."
            )
            raise ValueError(msg)
        host = np.asarray(values)
        if host.ndim < len(names) + len(own):
            msg = (
                f"{name} has shape {host.shape}; expected the axes "
                f"{(*names, *own)} in front. Name the axes that there are in dims."
            )
            raise ValueError(msg)
        rest = range(host.ndim - len(names) - len(own))
        axes = (*names, *own, *(f"{name}_{i}" for i in rest))
        variables[name] = (axes, host)
    labels = {
        name: np.asarray(values)
        for name, values in coords.items()
        if isinstance(values, list | tuple)
        or (eqx.is_array_like(values) and np.ndim(values) == 1)
    }
    dataset = xarray.Dataset(variables, coords=labels)
    return dataset.assign_attrs(_attributes(variables, config))


def _variables(result: Any, weights: bool) -> Iterator[tuple[str, tuple, Any]]:
    """(name, names of its own axes, values) of everything in a result."""
    if not isinstance(result, Trajectory | Flow):
        for name, values in _leaves(result, "value"):
            yield name, (), values
        return
    along = ("record",)
    for field in dataclasses.fields(result):
        values = getattr(result, field.name)
        if field.name == "records":
            for name, own in values.items():
                for called, leaf in _leaves(own, name):
                    yield called, along, leaf
        elif field.name == "result":
            yield "result", (), _words(values)
        elif field.name == "network":
            for called, leaf in _leaves(values, "network") if weights else ():
                yield called, (), leaf
        elif field.name in ("losses", "distances", "path_lengths", "steps", "times"):
            yield field.name, along, values
        elif values is not None:
            yield field.name, (), values


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    arrays = eqx.filter(tree, _is_array)
    for path, leaf in jax.tree_util.tree_flatten_with_path(arrays)[0]:
        words = jax.tree_util.keystr(path, simple=True, separator="_")
        yield f"{prefix}_{words}" if words else prefix, leaf


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray | np.generic)


def _words(result: Any) -> np.ndarray:
    words = np.asarray(result == RESULTS.successful)
    found = np.full(words.shape, "failed", dtype="<U14")
    for name in ("successful", "diverged", "no_convergence"):
        found[np.asarray(result == getattr(RESULTS, name))] = name
    return found


def _attributes(variables: dict, config: Mapping[str, Any] | None) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    floats = {
        values.dtype.name
        for _, values in variables.values()
        if values.dtype.kind == "f"
    }
    try:
        settings = json.dumps(config or {}, sort_keys=True, default=_plain)
    except TypeError as error:
        msg = f"config cannot be written as JSON ({error}); pass numbers and text."
        raise TypeError(msg) from error
    return {
        "versions": json.dumps(versions),
        "dtype": ", ".join(sorted(floats)),
        "config": settings,
    }


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    msg = f"{type(value).__name__} is no number, text, list or dict"
    raise TypeError(msg)


def check_output(path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """The path, if a result can be written there; call it before computing.

    Raises:
        ValueError: neither ``.nc`` nor ``.zarr``.
        ImportError: what writes that format is not installed.
        FileExistsError: there is something, and ``overwrite`` is not set.
        FileNotFoundError: no such folder.
        PermissionError: the folder cannot be written to.
    """
    place = Path(path)
    if place.suffix not in _SUFFIXES:
        msg = (
            f"{place} ends in {place.suffix!r}; expected .nc (netCDF-4) or .zarr, "
            "which choose the format."
        )
        raise ValueError(msg)
    _import("xarray")
    for name in ("h5netcdf", "h5py") if place.suffix == ".nc" else ("zarr",):
        _import(name)
    if place.exists() and not overwrite:
        msg = f"{place} exists; pass overwrite=True, or choose another name."
        raise FileExistsError(msg)
    folder = place.parent
    if not folder.is_dir():
        msg = f"{place}: there is no folder {folder}. Make it first."
        raise FileNotFoundError(msg)
    probe = beside(place, "probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        msg = (
            f"{folder} cannot be written to ({error.strerror}). Choose another folder."
        )
        raise PermissionError(msg) from error
    return place


def save(dataset: Any, path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Writes a data set as netCDF-4 (``.nc``) or zarr (``.zarr``), whole or not at all.

    It is written under another name, and renamed. (Replacing a zarr *folder* takes two
    renames: a kill between them leaves the old one beside it as ``.NAME.*.old``.)

    Args:
        dataset: from `to_xarray`.
        path: the suffix chooses the format.
        overwrite: replace what is there.

    Raises:
        OSError: as `check_output`, which is called first.
        ValueError: another suffix.
        ImportError: xarray, h5netcdf and h5py, or zarr, are not installed.
    """
    place = check_output(path, overwrite=overwrite)
    with replacing(place) as temporary:
        if place.suffix == ".nc":
            dataset.to_netcdf(temporary, engine="h5netcdf")
        else:
            dataset.to_zarr(temporary, zarr_format=2, consolidated=False)
    return place


def load(path: str | os.PathLike) -> Any:
    """Reads what `save` wrote, all of it into memory; the file is closed again.

    Raises:
        ValueError: another suffix.
        FileNotFoundError: there is nothing.
    """
    place = Path(path)
    xarray = _import("xarray")
    if place.suffix == ".nc":
        with xarray.open_dataset(place, engine="h5netcdf") as dataset:
            return dataset.load()
    if place.suffix == ".zarr":
        with xarray.open_zarr(place, consolidated=False) as dataset:
            return dataset.load()
    msg = f"{place} ends in {place.suffix!r}; expected .nc or .zarr."
    raise ValueError(msg)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        how = "pip install zarr" if name == "zarr" else "pip install 'jaxrelu[io]'"
        msg = f"labelled results need {name}: {how}."
        raise ImportError(msg) from error
