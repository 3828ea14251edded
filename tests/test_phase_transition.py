"""Phase transitions: each number by brute force, and a folder that survives a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from _draws import random_of

from jaxrelu.activations import activation
from jaxrelu.data import Dataset
from jaxrelu.experiments import (
    Cell,
    Grid,
    _fitting,
    _grid,
    _phase_transition as on_disk,
    load,
    phase_transition,
    save,
)


ROOT = Path(__file__).resolve().parent.parent
CELLS = (
    Cell(4, 4, 3),
    Cell(6, 4, 3, labels="linear"),
    Cell(8, 4, 3, data="gaussian", init="xavier"),
    Cell(6, 4, 3, data="clustered", labels="clusters", outer="signs"),
    Cell(6, 4, 3, data="real", labels="shuffled", outer="gaussian"),
)
SMALL = {"trials": 3, "gd_steps": 300, "lm_steps": 200, "num_clusters": 2, "seed": 5}


def make_grid(cells=CELLS, **changes):
    inputs = np.random.default_rng(0).normal(size=(20, 3))
    targets = np.arange(20.0) - 3
    data = {"real": Dataset(jnp.asarray(inputs), jnp.asarray(targets))}
    return Grid(cells, **{**SMALL, "datasets": data, **changes})


@pytest.fixture(scope="module")
def traced():
    """What `descend` was traced for while the programs of this module were made."""
    return []


@pytest.fixture(scope="module")
def whole(traced):
    original = _fitting.descend

    def counting(act, problems, *rest):
        traced.append(problems.targets.shape)
        return original(act, problems, *rest)

    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fitting, "descend", counting)
        return phase_transition(make_grid())


def assert_same(one, two):
    np.testing.assert_allclose(one.gd_residual, two.gd_residual, rtol=1e-9)
    np.testing.assert_array_equal(one.gd_steps, two.gd_steps)
    np.testing.assert_allclose(one.lm_residual, two.lm_residual, rtol=1e-3, atol=1e-9)


def numpy_problems(grid, cell):
    """Every trial without its masked rows."""
    found = jax.tree.map(np.asarray, grid.problems(cell))
    for X, y, mask, W, v in zip(*jax.tree.leaves(found), strict=True):
        kept = mask > 0
        assert kept.sum() == cell.n
        assert not X[~kept].any()
        yield X[kept], y[kept], W, v


def softplus(z):
    return np.logaddexp(0, z)


def test_descent_is_a_loop_of_steps(float64, whole):
    """Every trial of every cell, in NumPy, step after step."""
    grid = whole.grid
    for i, cell in enumerate(grid.cells):
        for trial, (X, y, W, v) in enumerate(numpy_problems(grid, cell)):
            eta = cell.n / (y @ y * np.linalg.svd(X, compute_uv=False)[0] ** 2)
            for steps in range(grid.gd_steps + 1):
                r = softplus(X @ W.T) @ v - y
                misfit = np.linalg.norm(r) / np.linalg.norm(y)
                if misfit < grid.tolerance or steps == grid.gd_steps:
                    break
                slope = 1 / (1 + np.exp(-X @ W.T))
                W = W - eta * np.einsum("i,ij,j,id->jd", r, slope, v, X)
            assert whole.gd_steps[i, trial] == steps
            np.testing.assert_allclose(whole.gd_residual[i, trial], misfit, rtol=1e-9)
    assert whole.successes("gd").any()
    assert not whole.successes("gd").all()


def test_second_order_test_agrees_with_scipy(float64, whole):
    """MINPACK from the same start finds a fit in the same runs."""
    grid, agreed = whole.grid, 0

    def misfit(w, X, y, W, v):
        r = softplus(X @ w.reshape(W.shape).T) @ v - y
        return np.append(r, np.zeros(max(0, W.size - len(y))))  # "lm" wants n >= kd

    for i, cell in enumerate(grid.cells):
        for trial, problem in enumerate(numpy_problems(grid, cell)):
            _, y, W, _ = problem
            found = scipy.optimize.least_squares(
                misfit, W.ravel(), method="lm", args=problem
            )
            left = np.sqrt(2 * found.cost) / np.linalg.norm(y)
            fits = whole.lm_residual[i, trial] < grid.tolerance
            assert fits or left > grid.tolerance
            agreed += fits == (left < grid.tolerance)
    assert agreed >= 14  # MINPACK may run out of its own budget
    assert whole.successes("interpolation").sum() > whole.successes("gd").sum()


@pytest.mark.parametrize("name", ["softplus", "relu"])
def test_gram_is_that_of_the_jacobian(dtype, getkey, name):
    act, rng = activation(name), random_of(getkey())
    shapes = ((5, 3), (4, 3), (4,))
    X, W, v = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)
    mask = jnp.array([1, 1, 1, 1, 0], dtype)
    problem = _fitting.Problem(X * mask[:, None], mask, mask, W, v)

    @jax.jit
    def both(W):
        J = jax.jacrev(lambda w: _fitting.residual_of(act, problem, w)[0])(W)
        _, z = _fitting.residual_of(act, problem, W)
        return J, _fitting.gram_of(problem.inputs, _fitting.slopes_of(act, problem, z))

    J, gram = both(W)
    J = np.asarray(J).reshape(5, -1)
    np.testing.assert_allclose(gram, J @ J.T, atol=50 * jnp.finfo(dtype).eps)
    assert gram.dtype == dtype


def test_padding_changes_nothing(float64, whole):
    """Nor does the number of devices: without masked rows, on one."""
    act, cell, grid = activation("softplus"), CELLS[0], whole.grid
    budget = _fitting.Budget(
        jnp.asarray(grid.tolerance),
        jnp.int32(grid.gd_steps),
        jnp.int32(grid.lm_steps),
        jnp.asarray(1.0),
    )
    problems = grid.problems(cell)
    assert problems.targets.shape == (3, 32)
    cut = lambda x: np.asarray(x)[:, : cell.n] if x.shape[1] == 32 else x
    bare = jax.tree.map(cut, problems)
    found = _fitting.fit_both(act, bare, budget, tuple(jax.devices()[:1]))
    assert len(found) == 5
    for name, values in found.items():
        expected = getattr(whole, name)[0]
        np.testing.assert_allclose(values, expected, rtol=1e-4, err_msg=name)
    sizes = [_grid.padded(n) for n in (1, 32, 33, 100, 129, 200, 300, 1000)]
    assert sizes == [32, 32, 64, 128, 160, 224, 320, 1024]


def test_shapes_share_programs_and_order_does_not_matter(float64, whole, traced):
    assert traced == [(1, 32)]  # five cells, n from 4 to 8; one run on each device
    backwards = phase_transition(make_grid(CELLS[::-1]), batch_size=7)
    for name in ("gd_residual", "gd_steps"):
        values = getattr(backwards, name)[::-1]
        np.testing.assert_allclose(values, getattr(whole, name), rtol=1e-9)
    # a cell alone, with one trial; and its second trial alone
    alone, full = make_grid(CELLS[2:3], trials=1), make_grid().problems(CELLS[2])
    for trial, which in ((0, None), (1, [1])):
        found = alone.problems(CELLS[2], which)
        expected = jax.tree.map(lambda x, i=trial: x[i : i + 1], full)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert len({cell.identity for cell in CELLS}) == len(CELLS)


def test_trials_have_the_law_that_is_stated(float64):
    grid = make_grid()
    for cell in CELLS:
        found = jax.tree.map(np.asarray, grid.problems(cell))
        X, y = found.inputs[:, : cell.n], found.targets[:, : cell.n]
        if cell.data in ("sphere", "clustered"):
            np.testing.assert_allclose(np.linalg.norm(X, axis=2), 1)
        if cell.outer != "gaussian":
            norm = np.linalg.norm(found.outer, axis=1) * np.sqrt(cell.n)
            np.testing.assert_allclose(norm, np.linalg.norm(y, axis=1))
        assert len(np.unique(X[:, 0, 0])) == 3  # trials differ
    given = CELLS[-1]._replace(labels="given")
    real = jax.tree.map(np.asarray, grid.datasets["real"])
    rows = {tuple(np.round(row, 9)) for row in real.inputs}
    for X in np.asarray(found.inputs)[:, :6]:
        drawn = {tuple(np.round(row, 9)) for row in X}
        assert drawn <= rows
        assert len(drawn) == 6  # without replacement
    assert np.isin(found.targets[:, :6], real.targets).all()
    found = jax.tree.map(np.asarray, make_grid((given,)).problems(given))
    where = np.array(
        [
            [np.argmin(((real.inputs - x) ** 2).sum(1)) for x in X[:6]]
            for X in found.inputs
        ]
    )
    np.testing.assert_array_equal(found.targets[:, :6], real.targets[where])


def test_shares_curve_and_labels(float64, whole, tmp_path):
    fitted = whole.successes("gd").sum(axis=1)
    for share, count in zip(whole.shares("gd"), fitted, strict=True):
        test = scipy.stats.binomtest(int(count), 3).proportion_ci(0.95, "wilson")
        np.testing.assert_allclose([share.low, share.high], test, atol=1e-12)
    assert whole.select(data="sphere", labels="signs") == [0]
    assert whole.transition("gd").interval[0] >= 0
    assert "n=6, k=4, d=3" in str(whole)
    with pytest.raises(ValueError, match="No cell has"):
        whole.select(k=3)
    pytest.importorskip("h5netcdf")
    labelled = whole.to_xarray()
    assert labelled.sizes == {"cell": 5, "trial": 3}
    chosen = labelled.isel(cell=labelled.data.values.tolist().index("gaussian"))
    np.testing.assert_array_equal(chosen.gd_residual, whole.gd_residual[2])
    assert float(chosen.ratio) == 1.5
    np.testing.assert_allclose(labelled.gd_share, fitted / 3)
    save(labelled, tmp_path / "phase.nc")
    assert load(tmp_path / "phase.nc").equals(labelled)
    assert json.loads(labelled.attrs["grid"]) == json.loads(
        json.dumps(whole.grid.config)
    )


def test_divergence_is_reported_with_its_step(float64):
    grid = Grid((Cell(4, 4, 3, "quadratic"),), **{**SMALL, "step_scale": 500.0})
    found = phase_transition(grid)
    assert found.gd_diverged.all()
    assert (found.gd_steps < 300).all()
    assert (found.gd_steps > 0).all()
    assert not found.successes("gd").any()
    assert found.shares("gd")[0].count == 0


def test_float32_is_kept(getkey):
    cell = Cell(4, 4, 3)
    found = phase_transition(Grid((cell,), **{**SMALL, "gd_steps": 9}))
    assert found.gd_residual.dtype == np.float32
    assert found.grid.problems(cell).inputs.dtype == np.float32
    with pytest.raises(TypeError, match="x64"):
        Grid((cell,), dtype="float64")


@pytest.mark.parametrize(
    ("cells", "changes", "words"),
    [
        ((), {}, "at least one"),
        (CELLS[:1] * 2, {}, "no two alike"),
        ((Cell(4, 3, 4),), {}, "even k"),
        ((Cell(4, 2, 4, "swish"),), {}, "activation"),
        ((Cell(4, 2, 4, data="cube"),), {}, "data is 'cube'"),
        ((Cell(4, 2, 4, labels="given"),), {}, "a data set"),
        ((Cell(4, 2, 4, labels="clusters"),), {}, "clustered data"),
        ((Cell(21, 4, 3, data="real"),), {}, "n at most 20"),
        ((Cell(4, 2, 5, data="real"),), {}, "d = 3"),
        ((Cell(0, 2, 4),), {}, "n is 0"),
        (CELLS, {"gd_steps": 0}, "gd_steps is 0"),
        (CELLS, {"tolerance": 0.0}, "tolerance"),
    ],
)
def test_bad_grids_are_refused(cells, changes, words):
    with pytest.raises(ValueError, match=words):
        make_grid(cells, **changes)


def test_product():
    grid = Grid.product(k=(2, 4), d=3, ratio=(0.5, 1.0), activation=("relu", "tanh"))
    assert len(grid.cells) == 8
    assert grid.cells[0] == Cell(3, 2, 3, "relu")
    assert {cell.ratio for cell in grid.cells} == {1, 2}
    with pytest.raises(ValueError, match="exactly one"):
        Grid.product(k=2, d=3)


class Counted:
    """Remembers which cells were computed."""

    def __init__(self, monkeypatch):
        self.cells, original = [], on_disk._run

        def counting(grid, cells, *rest):
            self.cells += cells
            return original(grid, cells, *rest)

        monkeypatch.setattr(on_disk, "_run", counting)


KILLED = """
import os, signal, sys
import jax
jax.config.update("jax_enable_x64", True)
import test_phase_transition as here

log, run, replace = open(sys.argv[2], "a"), here.on_disk._run, os.replace

def logged(grid, cells, *rest):
    log.write("".join(cell.name + chr(10) for cell in cells))
    log.flush()
    return run(grid, cells, *rest)

def replace_or_die(source, target):
    if str(here.CELLS[2].name) in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

here.on_disk._run = logged
os.replace = replace_or_die
here.phase_transition(here.make_grid(), sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.multiprocess
def test_survives_a_kill(tmp_path, monkeypatch, float64, whole):
    """In the middle of writing the third cell: two files stay, three are run after."""
    place, log = tmp_path / "cells", tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(place), str(log)],
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert log.read_text().split() == [cell.name for cell in CELLS[:3]]
    names = {path.name for path in place.glob("*.npz")}
    assert names == {f"{cell.name}.npz" for cell in CELLS[:2]}
    stamps = {name: (place / name).stat().st_mtime_ns for name in names}
    counted = Counted(monkeypatch)
    assert_same(phase_transition(make_grid(), place), whole)
    assert counted.cells == list(CELLS[2:])
    assert {n: (place / n).stat().st_mtime_ns for n in names} == stamps
    counted.cells = []
    assert_same(phase_transition(make_grid(), place), whole)
    assert counted.cells == []


def test_folders(tmp_path, monkeypatch, float64, capsys):
    counted, cells = Counted(monkeypatch), CELLS[:2]
    grid = make_grid(cells)
    pytest.importorskip("tqdm")
    phase_transition(grid, tmp_path / "a", progress=True)
    assert "2/2" in capsys.readouterr().err
    lost = tmp_path / "a" / f"{cells[1].name}.npz"
    lost.unlink()
    counted.cells = []
    phase_transition(grid, tmp_path / "a")
    assert counted.cells == [cells[1]]
    counted.cells = []
    others = (
        ({"seed": 6}, "seed differ"),
        ({"cells": CELLS[:1]}, "cells differ"),
        ({"gd_steps": 301}, "gd_steps"),
        ({"datasets": {}}, "datasets"),
    )
    for changes, words in others:
        other = make_grid(**{"cells": cells, **changes})
        with pytest.raises(ValueError, match=words):
            phase_transition(other, tmp_path / "a")
    lost.write_bytes(lost.read_bytes()[:50])
    with pytest.raises(ValueError, match="Delete it"):
        phase_transition(grid, tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Nothing has been computed"):
        phase_transition(grid, tmp_path / "file" / "b")
    assert counted.cells == []
    monkeypatch.setenv("JAXRELU_MEMORY_LIMIT", "1000")
    with pytest.raises(MemoryError, match="batch_size"):
        phase_transition(grid)
    with pytest.raises(ValueError, match="on a disk that all machines see"):
        phase_transition(grid, executor="slurm")
    with pytest.raises(ValueError, match="expected 'local'"):
        phase_transition(grid, tmp_path / "c", executor="cloud")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"jaxrelu\[slurm\]"):
        phase_transition(grid, tmp_path / "c", executor="slurm")


def test_what_another_process_has_done_is_not_run(tmp_path, monkeypatch, float64):
    """The second cell's file comes while the first is computed; also for a job."""
    grid = make_grid(CELLS[:2])
    phase_transition(grid, tmp_path / "other")
    (tmp_path / "mine").mkdir()
    counted, run = Counted(monkeypatch), on_disk._run

    def meanwhile(*arguments):
        found = run(*arguments)
        name = f"{CELLS[1].name}.npz"
        shutil.copy(tmp_path / "other" / name, tmp_path / "mine" / name)
        return found

    monkeypatch.setattr(on_disk, "_run", meanwhile)
    found = phase_transition(grid, tmp_path / "mine")
    assert counted.cells == [CELLS[0]]
    assert_same(found, phase_transition(grid, tmp_path / "other"))
    on_disk._job(grid, "", CELLS[1], tmp_path / "mine")
    assert counted.cells == [CELLS[0]]


@pytest.mark.slow
@pytest.mark.multiprocess
def test_jobs_of_submitit(tmp_path, float64, whole, monkeypatch):
    """Its local executor: a cell in a process of its own, float64 data too."""
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(jax.device_count()))
    cells = CELLS[4:]
    executor = submitit.LocalExecutor(folder=tmp_path / "jobs")
    found = phase_transition(make_grid(cells), tmp_path / "cells", executor=executor)
    np.testing.assert_allclose(found.gd_residual, whole.gd_residual[4:], rtol=1e-9)
    again = phase_transition(make_grid(cells), tmp_path / "cells", executor=executor)
    np.testing.assert_array_equal(found.lm_residual, again.lm_residual)


def test_any_iterables_and_numbers_make_cells():
    sizes = {"k": np.array([4, 8]), "d": 4}
    once = Grid.product(**sizes, n=map(int, (5, 6)), tolerance=np.float32(0.5))
    assert [cell[:2] for cell in once.cells] == [(5, 4), (6, 4), (5, 8), (6, 8)]
    assert once.cells[0].name == Grid.product(k=4, d=4, n=5).cells[0].name
    assert json.dumps(once.config)
    halves = Grid.product(**sizes, ratio=(r for r in (0.5, 1.0)))
    assert [cell.n for cell in halves.cells] == [8, 16, 16, 32]
    assert Grid.product(k=4, d=4, ratio=0.5).cells[0].n == 8
    with pytest.raises(ValueError, match="ratio is -1"):
        Grid.product(k=4, d=4, ratio=(0.5, -1.0))


def test_labels_that_are_all_zero_are_refused(float64):
    inputs = np.random.default_rng(0).normal(size=(20, 3))
    zeros = {"real": Dataset(jnp.asarray(inputs), jnp.asarray(np.zeros(20)))}
    grid = make_grid((CELLS[4]._replace(labels="given"),), datasets=zeros)
    with pytest.raises(ValueError, match="labels that are all 0"):
        phase_transition(grid)
