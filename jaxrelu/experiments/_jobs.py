"""Cells as jobs of a cluster, through submitit."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np


def executor_of(
    executor: Any, place: str | os.PathLike | None, slurm: Mapping[str, Any] | None
) -> Any:
    """What submits the jobs; None for ``"local"``, which needs no jobs.

    Raises:
        ValueError: an unknown executor, or no folder for the jobs to leave results in.
        ImportError: ``"slurm"`` without submitit.
    """
    if isinstance(executor, str) and executor == "local":
        return None
    if place is None:
        msg = (
            f"executor is {executor!r} and out None; expected a folder, where the jobs "
            "leave their results. Pass out=, on a disk that all machines see."
        )
        raise ValueError(msg)
    if not isinstance(executor, str):
        return executor
    if executor != "slurm":
        msg = f"executor is {executor!r}; expected 'local', 'slurm', or a submitit one."
        raise ValueError(msg)
    try:
        import submitit
    except ImportError as error:
        msg = 'executor="slurm" needs submitit. Run: pip install "jaxrelu[slurm]"'
        raise ImportError(msg) from error
    jobs = submitit.AutoExecutor(folder=Path(place) / "jobs", cluster="slurm")
    jobs.update_parameters(name="jaxrelu", **(slurm or {}))
    return jobs


def run_jobs(
    jobs: Any, function: Callable[..., None], shared: tuple, several: Sequence[tuple]
) -> Iterator[None]:
    """``function(*shared, *each)`` as a job for each of ``several``; waits in order."""
    if not several:
        return
    import cloudpickle  # submitit needs it too

    # bytes: read before x64 is switched on, float64 would become float32
    packed = cloudpickle.dumps((function, shared))
    with jobs.batch():
        waiting = [jobs.submit(_opened, packed, is_wide(), *each) for each in several]
    for job in waiting:
        yield job.result()


def _opened(packed: bytes, wide: bool, *each: Any) -> None:
    import cloudpickle

    with jax.enable_x64(wide):
        function, shared = cloudpickle.loads(packed)
        function(*shared, *each)


def is_wide() -> bool:
    """Whether x64 is on."""
    return bool(jax.dtypes.canonicalize_dtype(np.float64) == np.float64)
