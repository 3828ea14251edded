"""Parent side of a benchmark: candidates in their own processes, in alternation.

Nothing here knows what is computed. A benchmark gives `run_cell` its candidates and
one problem; every candidate lives in its own process (`_child.py`), possibly of
another environment, and answers to one command at a time, so that exactly one of them
computes. The timed calls of all candidates alternate, round after round: noise of the
machine hits all alike. Limits on time and memory are watched from here.
"""

import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "out" / "benchmarks"
RESULTS = Path(__file__).resolve().parent / "results"
NOT_INSTALLED = "skipped: not installed, run `make bench-peers`"

_MEMORY_CALL_SECONDS = 5.0
"""Candidates slower than this are not called once more to see their memory."""

Sizes = Mapping[str, int]
"""n, d, k, ... by name."""


class Candidate(NamedTuple):
    """One way to compute something.

    Attributes:
        name: key of its rows.
        label: what the table shows.
        target: ``module:function`` in `_candidates`.
        kind: what its result holds, for the benchmark's accuracy function.
        environment: key into the interpreters given to `run_cell`.
        bytes: memory it is known to need at these sizes and item size; it is skipped
            with a word where that exceeds the limit.
    """

    name: str
    label: str
    target: str
    kind: str
    environment: str = "main"
    bytes: Callable[[Sizes, int], int] | None = None


@dataclass(frozen=True)
class Limits:
    """What one candidate may spend on one cell.

    Attributes:
        call_seconds: the longest single call, compilation included.
        steady_seconds: timed calls stop when their sum passes this...
        rounds: ...or when this many rounds are done.
        memory_bytes: resident memory of one candidate.
        device_bytes: what a candidate may declare to need where it computes.
        deadline: `time.monotonic` after which nothing new is started.
    """

    call_seconds: float = 100.0
    steady_seconds: float = 40.0
    rounds: int = 5
    memory_bytes: int = 2**63 - 1
    device_bytes: int = 2**63 - 1
    deadline: float = float("inf")


@dataclass
class Row:
    """What is known about one candidate on one problem in one dtype."""

    candidate: str
    label: str
    kind: str
    sizes: Sizes
    dtype: str
    status: str = "ok"
    first_s: float | None = None
    compile_s: float | None = None
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    peak_first_bytes: int | None = None
    meter: str | None = None
    accuracy: dict[str, float] = field(default_factory=dict)
    device: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def median_s(self) -> float | None:
        """Median of the steady calls."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def min_s(self) -> float | None:
        """Fastest steady call."""
        return min(self.seconds, default=None)

    @property
    def memory(self) -> int | None:
        """Peak of a warm call where one was measured, else of the first call."""
        return self.peak_first_bytes if self.peak_bytes is None else self.peak_bytes

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the fields and the two statistics."""
        return {**vars(self), "median_s": self.median_s, "min_s": self.min_s}


class StoppedError(Exception):
    """A candidate was stopped, or stopped itself; the message is its row's status."""


class InlineWorker:
    """A candidate in this process: for tests; memory then means nothing."""

    def __init__(self, candidate: Candidate, problem: Path, dtype: str):
        from _child import Session

        self._session = Session(candidate.target, problem, dtype, isolated=False)

    def call(self, op: str, limits: Limits, **arguments: Any) -> dict[str, Any]:  # noqa: ARG002
        """Runs one command of the protocol."""
        try:
            return getattr(self._session, op)(**arguments)
        except Exception as error:
            raise StoppedError(_describe(type(error).__name__, str(error))) from error

    def close(self) -> None:
        """Nothing to end."""


class ProcessWorker:
    """A candidate in a process of its own, watched for time and memory."""

    def __init__(self, candidate: Candidate, problem: Path, dtype: str, python: str):
        script = Path(__file__).with_name("_child.py")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, str(script), candidate.target, str(problem), dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=child_environment(python, dtype),
            bufsize=0,
        )

    def call(self, op: str, limits: Limits, **arguments: Any) -> dict[str, Any]:
        """Runs one command; ends the process when it breaks a limit.

        Raises:
            StoppedError: over time, over memory, died, or raised.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: PT018
        deadline = time.monotonic() + limits.call_seconds
        try:
            stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        except BrokenPipeError:
            raise StoppedError(self._last_words()) from None
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([stdout], [], [], 0.1)
            if ready:
                part = os.read(stdout.fileno(), 65536)
                if not part:
                    raise StoppedError(self._last_words())
                answer += part
            elif resident_bytes(self._process.pid) > limits.memory_bytes:
                self.close()
                reason = f"stopped: over {limits.memory_bytes / 1e9:.1f} GB of memory"
                raise StoppedError(reason)
            elif time.monotonic() > deadline:
                self.close()
                reason = f"stopped: a call took over {limits.call_seconds:.0f} s"
                raise StoppedError(reason)
        decoded = json.loads(answer)
        if "error" in decoded:
            raise StoppedError(_describe(decoded["error"], decoded["message"]))
        return decoded

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        return f"failed: exit status {code}{last}"


def _describe(kind: str, message: str) -> str:
    if kind == "ModuleNotFoundError":
        return f"{NOT_INSTALLED} ({message})"
    first = message.strip().splitlines()[0] if message.strip() else ""
    return f"failed: {kind}: {first[:160]}"


def child_environment(python: str, dtype: str) -> dict[str, str]:
    """Environment variables of a child: precision, and no preallocated device."""
    environment = dict(os.environ)
    environment["JAX_ENABLE_X64"] = "1" if dtype == "float64" else "0"
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if python != sys.executable:  # another environment's packages must not leak in
        environment.pop("PYTHONPATH", None)
    return environment


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def run_cell(
    candidates: list[Candidate],
    problem: Path,
    sizes: Sizes,
    dtype: str,
    *,
    interpreters: Mapping[str, str | None],
    limits: Limits,
    accuracy: Callable[[str, dict[str, np.ndarray]], dict[str, float]],
    say: Callable[[str], None],
    pause: float = 0.1,
) -> list[Row]:
    """Times all candidates on one problem, their steady calls in alternation.

    Args:
        candidates: what to compare.
        problem: npz that every candidate loads.
        sizes: of that problem, for the rows and for the candidates' own estimates.
        dtype: ``"float32"`` or ``"float64"``.
        interpreters: Python of each environment; None where it is not installed. The
            string ``"inline"`` runs the candidate in this process.
        limits: per candidate.
        accuracy: errors of a result, by the candidate's kind.
        say: progress, one line at a time.
        pause: seconds between turns, in which spinning thread pools fall asleep.
    """
    rows: list[Row] = []
    live: list[tuple[Row, InlineWorker | ProcessWorker]] = []
    try:
        for candidate in candidates:
            row = Row(candidate.name, candidate.label, candidate.kind, sizes, dtype)
            rows.append(row)
            python = interpreters.get(candidate.environment)
            row.status = _refusal(candidate, sizes, dtype, python, limits)
            if row.status == "ok":
                assert python is not None
                worker = (
                    InlineWorker(candidate, problem, dtype)
                    if python == "inline"
                    else ProcessWorker(candidate, problem, dtype, python)
                )
                live.append((row, worker))
                _open(row, worker, limits)
            first = f"first call {row.first_s:.3f} s" if row.first_s else row.status
            say(f"{candidate.label}: {first}")
        for number in range(limits.rounds):
            for row, worker in live:
                if row.status == "ok" and sum(row.seconds) < limits.steady_seconds:
                    time.sleep(pause)
                    _turn(row, worker, limits)
            say(f"round {number + 1} of {limits.rounds}")
        for row, worker in live:
            if row.status == "ok":
                _finish(row, worker, limits, accuracy)
    finally:
        for _, worker in live:
            worker.close()
    return rows


def _refusal(
    candidate: Candidate,
    sizes: Sizes,
    dtype: str,
    python: str | None,
    limits: Limits,
) -> str:
    if python is None:
        return NOT_INSTALLED
    if time.monotonic() > limits.deadline:
        return "skipped: the time for the whole run is up"
    if candidate.bytes is not None:
        needed = candidate.bytes(sizes, np.dtype(dtype).itemsize)
        if needed > limits.device_bytes:
            allowed = limits.device_bytes / 1e9
            return f"skipped: needs {needed / 1e9:.1f} GB, {allowed:.1f} GB allowed"
    return "ok"


def _open(row: Row, worker: InlineWorker | ProcessWorker, limits: Limits) -> None:
    try:
        answer = worker.call("prepare", limits)
        row.versions, row.device = answer["versions"], answer["device"]
        answer = worker.call("first", limits)
        row.first_s, row.compile_s = answer["first_s"], answer["compile_s"]
        row.peak_first_bytes = answer["peak_first_bytes"]
        if answer["first_s"] - answer["compile_s"] < _MEMORY_CALL_SECONDS:
            answer = worker.call("memory", limits)
            row.peak_bytes, row.meter = answer["peak_bytes"], answer["meter"]
    except StoppedError as stopped:
        row.status = str(stopped)


def _turn(row: Row, worker: InlineWorker | ProcessWorker, limits: Limits) -> None:
    # After a pause a short call pays for cold caches and sleeping threads: it gets an
    # untimed call before its timed ones, and more of these.
    assert row.first_s is not None and row.compile_s is not None  # noqa: PT018
    once = row.min_s or max(1e-4, row.first_s - row.compile_s)
    repeats = int(np.clip(0.3 / once, 1, 5))
    try:
        answer = worker.call("step", limits, repeats=repeats, warm=once < 1.0)
        row.seconds += answer["seconds"]
    except StoppedError as stopped:
        row.status = str(stopped)


def _finish(
    row: Row,
    worker: InlineWorker | ProcessWorker,
    limits: Limits,
    accuracy: Callable[[str, dict[str, np.ndarray]], dict[str, float]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.npz"
        try:
            worker.call("finish", limits, path=str(path))
            row.accuracy = accuracy(row.kind, dict(np.load(path)))
        except StoppedError as stopped:
            row.status = str(stopped)


def find_interpreter(folder: str, variable: str, given: str | None) -> str | None:
    """Python of another environment: as given, by variable, or under the checkout."""
    choice = given or os.environ.get(variable) or str(ROOT / folder / "bin" / "python")
    return choice if Path(choice).exists() else None


def available_memory() -> int:
    """Bytes of host memory that can be had without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
