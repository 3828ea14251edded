"""Child side of a benchmark: one candidate, timed in a process of its own.

A candidate is a function ``setup(problem, dtype)`` in a module of `_candidates`. It
puts the data where they belong and returns a function without arguments that runs one
repetition *to completion* and returns a dict of arrays. Nothing here knows what is
computed. Commands come as JSON lines on stdin, answers go as JSON lines to stdout.
Needs NumPy and whatever the candidate imports, any Python from 3.9 on.
"""

import contextlib
import ctypes
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
import traceback

import numpy as np


_PACKAGES = (
    "numpy",
    "scipy",
    "jax",
    "jaxlib",
    "jaxrelu",
    "torch",
    "nngeometry",
    "curvlinops-for-pytorch",
    "neural-tangents",
)


class Session:
    """The life of one candidate: prepare, first, memory, steps, finish."""

    def __init__(self, target, problem_path, dtype, *, isolated=True):
        """Holds what to run; ``isolated=False`` shares the process (tests)."""
        self.target = target
        self.problem_path = problem_path
        self.dtype = dtype
        self.isolated = isolated
        self.result = {}

    def prepare(self):
        """Imports, creates data, and takes the memory baseline."""
        module, _, function = self.target.partition(":")
        start = time.perf_counter()
        setup = getattr(importlib.import_module("_candidates." + module), function)
        problem = dict(np.load(self.problem_path))
        with self._precision():
            self.run = setup(problem, self.dtype)
        self.compiling = _CompileClock()
        self.meter = PeakMeter()
        return {
            "prepare_s": time.perf_counter() - start,
            "versions": versions(),
            "device": device(),
        }

    def first(self):
        """The first call: compilation and all; compile time is told apart."""
        self.meter.start()
        seconds = self._timed()
        return {
            "first_s": seconds,
            "compile_s": self.compiling.seconds(),
            "peak_first_bytes": self.meter.peak(),
        }

    def memory(self):
        """One untimed call from a trimmed heap, for its peak."""
        self.result = {}
        _trim_heap()
        self.meter.start()
        self._timed()
        return {"peak_bytes": self.meter.peak(), "meter": self.meter.source}

    def step(self, repeats=1, *, warm=False):
        """``repeats`` timed calls, after an untimed one if ``warm``."""
        if warm:
            self._timed()
        return {"seconds": [self._timed() for _ in range(repeats)]}

    def finish(self, path):
        """Writes the last result as npz."""
        with self._precision():
            arrays = {
                name: np.asarray(x.cpu() if hasattr(x, "cpu") else x)
                for name, x in self.result.items()
            }
        _savez(path, arrays)
        return {}

    def _timed(self):
        self.result = {}  # the previous result must not count as memory of this one
        with self._precision():
            start = time.perf_counter()
            self.result = self.run()
            return time.perf_counter() - start

    def _precision(self):
        if self.isolated:  # JAX_ENABLE_X64 is set in the environment
            return contextlib.nullcontext()
        import jax

        return jax.enable_x64(self.dtype == "float64")


class _CompileClock:
    """Seconds in which JAX traced, lowered or compiled (nested parts counted once)."""

    def __init__(self):
        self.intervals = []
        if "jax" in sys.modules:
            monitoring = sys.modules["jax"].monitoring
            monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event, duration, **_):
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            self.intervals.append((now - duration, now))

    def seconds(self):
        total, reached = 0.0, -np.inf
        for start, end in sorted(self.intervals):
            total += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return total


class PeakMeter:
    """Peak memory above a baseline: of the device where there is one, else resident.

    ``source`` says which meter this machine offers. On Linux the kernel's high-water
    mark is reset at `start`; elsewhere ``ru_maxrss`` only ever grows.
    """

    def __init__(self):
        """Chooses the meter by what the candidate imported."""
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            self._read, self.source = self._cuda, "torch.cuda"
        elif _accelerator() is not None:
            self._read, self.source = self._memory_stats, "device.memory_stats"
        elif os.path.exists("/proc/self/clear_refs"):
            self._read, self.source = self._high_water, "VmHWM"
        else:
            self._read, self.source = self._maxrss, "ru_maxrss"

    def start(self):
        """Takes the baseline, from which `peak` counts."""
        gc.collect()
        self._baseline = self._read(reset=True)

    def peak(self):
        """Bytes above the baseline, at the highest point since `start`."""
        return max(0, self._read(reset=False) - self._baseline)

    @staticmethod
    def _cuda(reset):
        cuda = sys.modules["torch"].cuda
        if reset:
            cuda.reset_peak_memory_stats()
            return cuda.memory_allocated()
        return cuda.max_memory_allocated()

    @staticmethod
    def _memory_stats(reset):
        accelerator = _accelerator()
        stats = (accelerator and accelerator.memory_stats()) or {}
        return stats.get("bytes_in_use" if reset else "peak_bytes_in_use", 0)

    @staticmethod
    def _high_water(reset):
        if reset:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmRSS:" if reset else "VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0

    @staticmethod
    def _maxrss(reset):  # noqa: ARG004
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _savez(path, arrays):
    np.savez(path, **arrays)


def _trim_heap():
    """Gives freed pages back, so that the next call's allocations show."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _accelerator():
    jax = sys.modules.get("jax")
    if jax is None or jax.devices()[0].platform == "cpu":
        return None
    return jax.devices()[0]


def device():
    """Where the candidate computes: platform, name, and memory if it has its own."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return {"platform": "gpu", "kind": torch.cuda.get_device_name(0)}
    accelerator = _accelerator()
    if accelerator is not None:
        limit = (accelerator.memory_stats() or {}).get("bytes_limit", 0)
        return {
            "platform": accelerator.platform,
            "kind": accelerator.device_kind,
            "bytes": limit,
        }
    return {"platform": "cpu", "kind": platform.machine()}


def versions():
    """Versions of the packages that decide a timing, as installed here."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def probe():
    """Versions and device of this interpreter's JAX (for the environment record)."""
    import jax  # noqa: F401

    return {"versions": versions(), "device": device()}


def _serve(target, problem_path, dtype):
    # Candidates may print: keep the real stdout for the protocol.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session = Session(target, problem_path, dtype)
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(session, command.pop("op"))(**command)
        except BaseException as error:
            traceback.print_exc()
            answer = {"error": type(error).__name__, "message": str(error)}
        answers.write(json.dumps(answer) + "\n")
        if "error" in answer:
            return


if __name__ == "__main__":
    if sys.argv[1:] == ["--probe"]:
        print(json.dumps(probe()))
    else:
        _serve(*sys.argv[1:4])
