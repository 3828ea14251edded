"""A search for critical points on disk: interrupted anywhere, it goes on from there."""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxrelu._results import RESULTS
from jaxrelu.landscape import CriticalPoints, Runs, classify
from jaxrelu.landscape._critical_points import (
    check_count,
    default_rate,
    problem_of,
    run_starts,
)
from jaxrelu.landscape._runs import outcomes
from jaxrelu.objectives import PopulationLoss


_CONFIG = "config.json"
_FORMAT = 1


def run_census(
    folder: str | os.PathLike,
    objective: PopulationLoss,
    key: PRNGKeyArray,
    num_neurons: int,
    num_starts: int,
    *,
    chunk_size: int = 256,
    outer: Any = None,
    init: str = "xavier",
    learning_rate: float | None = None,
    max_steps: int = 200_000,
    tolerance: float = 1e-12,
    identify: float | None = None,
    batch_size: int = 32,
    devices: tuple[Any, ...] | None = None,
    progress: bool = False,
) -> CriticalPoints:
    """`find_critical_points` in chunks, each a file; what is there is not run again.

    Chunk c holds starts ``c * chunk_size`` to ``(c + 1) * chunk_size``, number i drawn
    with ``jax.random.fold_in(key, i)``: results depend on no interruption and no order.
    A chunk is written under another name, forced to disk, and renamed, so a file is
    whole or not there; a kill loses at most the chunk being computed. Calling again
    with more starts adds to what there is, with the same number reads it only.

    ``config.json`` says what was run: teacher, key, sizes, settings, and versions and
    devices of the first call. A folder of another configuration is refused.

    Args:
        folder: made if it does not exist.
        objective: as in `jaxrelu.landscape.find_critical_points`, like all below.
        key: PRNG key.
        num_neurons: n, of the student.
        num_starts: a multiple of ``chunk_size``.
        chunk_size: starts in a file.
        outer: the student's outer weights.
        init: scheme of the starts.
        learning_rate: step size.
        max_steps: of a run.
        tolerance: gradient norm of a critical point.
        identify: points this close are one.
        batch_size: runs computed at once on a device; changes speed, not results.
        devices: where to run; likewise.
        progress: show a bar (needs tqdm).

    Returns:
        The points of all starts; `jaxrelu.landscape.census` makes a table of them.

    Raises:
        ValueError: a folder of another configuration, a damaged file, a number of
            starts that is no multiple of the chunk size.
        ImportError: ``progress`` without tqdm.

    Cost: that of `find_critical_points`; a chunk takes 8 n d bytes a start on disk.
    """
    check_count(num_starts, "num_starts")
    check_count(chunk_size, "chunk_size")
    if num_starts % chunk_size:
        msg = (
            f"num_starts is {num_starts}; expected a multiple of chunk_size = "
            f"{chunk_size}, because a file holds a whole chunk."
        )
        raise ValueError(msg)
    problem = problem_of(objective, num_neurons, outer)
    if learning_rate is None:
        learning_rate = default_rate(num_neurons, problem.inner.shape[0])
    settings = {
        "init": init,
        "learning_rate": float(learning_rate),
        "max_steps": int(max_steps),
        "tolerance": float(tolerance),
    }
    config = {
        "format": _FORMAT,
        "teacher_inner": _digest(problem.inner),
        "teacher_outer": _digest(problem.teacher_outer),
        "student_outer": _digest(problem.outer),
        "shape": [num_neurons, objective.in_size],
        "dtype": problem.inner.dtype.name,
        "key": _key_data(key),
        "chunk_size": chunk_size,
        **settings,
    }
    place = Path(folder)
    digest = _claim(place, config)
    chunks = range(num_starts // chunk_size)
    missing = [c for c in chunks if not _chunk_path(place, c).exists()]
    bar = _bar(num_starts, (len(chunks) - len(missing)) * chunk_size, progress)
    try:
        for chunk in missing:
            runs = run_starts(
                objective,
                key,
                num_neurons,
                chunk_size,
                outer=outer,
                batch_size=batch_size,
                first_start=chunk * chunk_size,
                devices=devices,
                **settings,
            )
            _write_chunk(place, chunk, runs, digest)
            if bar is not None:
                bar.update(chunk_size)
    finally:
        if bar is not None:
            bar.close()
    runs = _joined([_read_chunk(place, c, digest) for c in chunks])
    return classify(objective, runs, outer, identify)


def _digest(values: Any) -> str:
    host = np.ascontiguousarray(values)
    return f"{host.shape} sha256:{hashlib.sha256(host.tobytes()).hexdigest()}"


def _key_data(key: PRNGKeyArray) -> list[int]:
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = jrandom.key_data(key) if typed else key
    return [int(word) for word in np.asarray(data).ravel()]


def _claim(place: Path, config: dict[str, Any]) -> str:
    """Writes the configuration or compares it with the one there; its digest."""
    place.mkdir(parents=True, exist_ok=True)
    path = place / _CONFIG
    if not path.exists():
        made_with = {
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "device": str(jnp.zeros(()).devices().pop().device_kind),
        }
        text = json.dumps({**config, "made_with": made_with}, indent=1)
        _write(path, lambda file: file.write(text.encode()))
    there = json.loads(path.read_text())
    there.pop("made_with", None)
    different = sorted(
        name for name in {*there, *config} if there.get(name) != config.get(name)
    )
    if different:
        name = different[0]
        msg = (
            f"{place} holds a census of another configuration: {', '.join(different)} "
            f"differ ({name} is {config.get(name)!r}, there {there.get(name)!r}). "
            "Choose another folder, or the settings in its config.json."
        )
        raise ValueError(msg)
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _chunk_path(place: Path, chunk: int) -> Path:
    return place / f"chunk-{chunk:06d}.npz"


def _write(path: Path, fill: Any) -> None:
    """A file that is whole or not there, whenever the process ends."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_chunk(place: Path, chunk: int, runs: Runs, digest: str) -> None:
    fields = {name: value for name, value in vars(runs).items() if name != "result"}
    arrays: Any = {name: np.asarray(value) for name, value in fields.items()}
    arrays["diverged"] = np.asarray(runs.result == RESULTS.diverged)
    arrays["config"] = np.array(digest)
    _write(_chunk_path(place, chunk), lambda file: np.savez(file, **arrays))


def _read_chunk(place: Path, chunk: int, digest: str) -> dict[str, np.ndarray]:
    path = _chunk_path(place, chunk)
    try:
        with open(path, "rb") as whole, np.load(whole, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:
        msg = f"{path} cannot be read ({error}). Delete it: it will be run again."
        raise ValueError(msg) from error
    if str(arrays.pop("config")) != digest:
        msg = f"{path} belongs to another census. Delete it: it will be run again."
        raise ValueError(msg)
    return arrays


def _joined(chunks: list[dict[str, np.ndarray]]) -> Runs:
    fields = {
        name: jnp.asarray(np.concatenate([chunk[name] for chunk in chunks]))
        for name in chunks[0]
    }
    diverged = fields.pop("diverged")
    converged = fields["gradient_norms"] <= fields["tolerances"]
    return Runs(**fields, result=outcomes(converged, diverged))


def _bar(total: int, done: int, wanted: bool) -> Any:
    if not wanted:
        return None
    try:
        from tqdm import tqdm
    except ImportError as error:
        msg = "progress=True needs tqdm; pip install tqdm, or pass progress=False."
        raise ImportError(msg) from error
    return tqdm(total=total, initial=done, unit="start")
