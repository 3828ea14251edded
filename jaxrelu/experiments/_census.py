"""A search for critical points on disk: interrupted anywhere, it goes on from there."""

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxrelu._checks import check_choice, check_positive, check_size
from jaxrelu._results import RESULTS
from jaxrelu.experiments._cells import bar, claim, read_arrays, write_arrays
from jaxrelu.experiments._identity import digest, key_words
from jaxrelu.landscape import CriticalPoints, Runs, classify
from jaxrelu.landscape.search._critical_points import (
    SCHEMES,
    default_rate,
    problem_of,
    run_starts,
)
from jaxrelu.landscape.search._runs import outcomes
from jaxrelu.objectives import PopulationLoss


_FORMAT = 2


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
    num_starts = check_size(num_starts, "num_starts")
    chunk_size = check_size(chunk_size, "chunk_size")
    num_neurons = check_size(num_neurons, "num_neurons")
    max_steps = check_size(max_steps, "max_steps")
    check_choice(init, SCHEMES, "init")
    check_positive(tolerance, "tolerance")
    if num_starts % chunk_size:
        msg = (
            f"num_starts is {num_starts}; expected a multiple of chunk_size = "
            f"{chunk_size}, because a file holds a whole chunk."
        )
        raise ValueError(msg)
    problem = problem_of(objective, num_neurons, outer)
    if learning_rate is None:
        learning_rate = default_rate(problem)
    settings = {
        "init": init,
        "learning_rate": float(learning_rate),
        "max_steps": max_steps,
        "tolerance": float(tolerance),
    }
    config = {
        "format": _FORMAT,
        "teacher_inner": digest(problem.inner),
        "teacher_outer": digest(problem.teacher_outer),
        "student_outer": digest(problem.outer),
        "shape": [num_neurons, objective.in_size],
        "dtype": problem.inner.dtype.name,
        "key": key_words(key),
        "chunk_size": chunk_size,
        **settings,
    }
    place = Path(folder)
    owner = claim(place, config, "a census")
    chunks = range(num_starts // chunk_size)
    missing = [c for c in chunks if not _chunk_path(place, c).exists()]
    done = (len(chunks) - len(missing)) * chunk_size
    shown = bar(num_starts, done, "start", progress)
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
            _write_chunk(place, chunk, runs, owner)
            if shown is not None:
                shown.update(chunk_size)
    finally:
        if shown is not None:
            shown.close()
    runs = _joined(
        [read_arrays(_chunk_path(place, c), owner, "census") for c in chunks]
    )
    return classify(objective, runs, outer, identify)


def _chunk_path(place: Path, chunk: int) -> Path:
    return place / f"chunk-{chunk:06d}.npz"


def _write_chunk(place: Path, chunk: int, runs: Runs, config: str) -> None:
    arrays = {name: value for name, value in vars(runs).items() if name != "result"}
    arrays["diverged"] = runs.result == RESULTS.diverged
    write_arrays(_chunk_path(place, chunk), arrays, config)


def _joined(chunks: list[dict[str, np.ndarray]]) -> Runs:
    fields = {
        name: jnp.asarray(np.concatenate([chunk[name] for chunk in chunks]))
        for name in chunks[0]
    }
    diverged = fields.pop("diverged")
    converged = fields["gradient_norms"] <= fields["tolerances"]
    return Runs(**fields, result=outcomes(converged, diverged))
