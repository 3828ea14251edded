"""Both precisions, eight virtual devices, keys that depend on the test alone."""

import gc
import importlib
import os
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import jax
import pytest


jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


COMPILED = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
HASTY = "jax_disable_most_optimizations"


def pytest_configure(config):
    """One folder of compiled programs for all the processes of a run, then removed.

    Workers, and the processes that tests start, find it through the environment.
    LLVM's optimisations are left out: most tests compile for longer than they run.
    """
    settings = dict(COMPILED)
    if HASTY.upper() not in os.environ:
        settings[HASTY] = True
    if "PYTEST_XDIST_WORKER" in os.environ:
        settings["jax_compilation_cache_dir"] = os.environ["JAX_COMPILATION_CACHE_DIR"]
    else:
        folder = tempfile.mkdtemp(prefix="jaxrelu-compiled-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        settings["jax_compilation_cache_dir"] = folder
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


def pytest_collection_modifyitems(items):
    """Files with slow tests first, then those with most: none is left for the end.

    `make test` keeps this order among the workers, each of which takes whole files.
    """
    tests = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (-slow[item.path], -tests[item.path], item.path))


def pytest_collection_finish():
    """What was imported stays to the end: no collection need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Runs the test in both precisions, float32 with x64 off as a user has it."""
    with jax.enable_x64(request.param == "float64"):
        yield jax.numpy.dtype(request.param)


@pytest.fixture
def float64():
    """Runs the test with x64 enabled."""
    with jax.enable_x64(True):
        yield jax.numpy.dtype("float64")


@pytest.fixture
def getkey(request):
    """Fresh keys, the same in every session: seeded by the test's own name."""
    key = jax.random.key(zlib.crc32(request.node.nodeid.encode()))

    def fresh():
        nonlocal key
        key, sub = jax.random.split(key)
        return sub

    return fresh


@pytest.fixture
def bench(monkeypatch):
    """Imports a module of the benchmarks folder, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    # before each call that it times; a session of tests has a heap of many objects
    monkeypatch.setattr(gc, "collect", lambda: 0)
    yield importlib.import_module
    for name in list(sys.modules):
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(BENCHMARKS)):
            monkeypatch.delitem(sys.modules, name)


@pytest.fixture(autouse=True, scope="module")
def _compilation(request):
    """Optimised for a module that asks; programs of one are of no use to another."""
    hasty = jax.config.read(HASTY)
    if request.node.get_closest_marker("optimised"):
        jax.config.update(HASTY, False)
    yield
    jax.config.update(HASTY, hasty)
    jax.clear_caches()
    gc.collect()
