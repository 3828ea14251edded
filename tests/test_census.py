"""The census: intervals, published counts, and a folder that survives a kill."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import pytest
import scipy.stats

from jaxrelu.experiments import _census as on_disk, run_census
from jaxrelu.landscape import (
    census,
    find_critical_points,
    published_counts,
    share,
    z_score,
)
from jaxrelu.objectives import PopulationLoss


ROOT = Path(__file__).resolve().parent.parent
# on eight devices a chunk fills up to as many rows as the whole: one program
K, CHUNK, STARTS = 2, 2, 8


@pytest.mark.parametrize("count", [0, 1, 3, 126, 949, 999, 1000])
def test_intervals_agree_with_scipy(count):
    found = share(count, 1000)
    test = scipy.stats.binomtest(count, 1000)
    expected = test.proportion_ci(confidence_level=0.95, method="wilson")
    np.testing.assert_allclose(
        [found.low, found.high], [expected.low, expected.high], atol=1e-12
    )
    assert found.fraction == count / 1000


def test_z_score_agrees_with_a_chi_square_test():
    one, two = share(30, 200), share(126, 1000)
    table = [[30, 170], [126, 874]]
    expected = scipy.stats.chi2_contingency(table, correction=False).statistic
    assert abs(z_score(one, two) ** 2 - expected) < 1e-10
    assert z_score(one, two) > 0
    assert z_score(share(0, 5), share(0, 9)) == 0
    with pytest.raises(ValueError, match="expected 0 <= count"):
        share(3, 2)


def test_published_counts_are_complete():
    rows = {(row.k, row.n): row for row in published_counts()}
    assert {(k, k) for k in range(6, 21)} <= set(rows)
    assert len(rows) == 26
    assert str(rows[20, 20].share).startswith("94.9 %")
    # a share that grows with k, as the paper says
    square = [rows[k, k].share.fraction for k in range(6, 21)]
    assert square == sorted(square)
    # the two that a single point determines: type II at k = 6, and n = k + 1 = 9
    assert rows[6, 6].loss == 0.025081
    assert rows[8, 9].smallest == 0.005945


class Counted:
    """`run_starts` that remembers which starts it ran, and may be cut short."""

    def __init__(self, monkeypatch):
        self.first, self.left = [], None
        original = on_disk.run_starts

        def counting(*args, **kwargs):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left = None if self.left is None else self.left - 1
            self.first.append(kwargs["first_start"])
            return original(*args, **kwargs)

        monkeypatch.setattr(on_disk, "run_starts", counting)


def arguments(seed=0):
    return PopulationLoss(jnp.eye(K, dtype="float64")), jrandom.key(seed), K


@pytest.fixture(scope="module")
def whole():
    """The same starts in memory."""
    with jax.enable_x64(True):
        yield find_critical_points(*arguments(), STARTS)


def assert_same(one, two):
    for name in ("weights", "losses", "steps", "index", "gradient_norms"):
        a, b = getattr(one.runs, name), getattr(two.runs, name)
        np.testing.assert_allclose(a, b, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(one.class_of, two.class_of)


def test_interrupted_census_is_the_uninterrupted(tmp_path, monkeypatch, float64, whole):
    counted = Counted(monkeypatch)
    counted.left = 2
    with pytest.raises(KeyboardInterrupt):
        run_census(tmp_path, *arguments(), STARTS, chunk_size=CHUNK)
    assert counted.first == [0, 2]
    # what a kill in the middle of a write leaves
    stray = tmp_path / ".chunk-000002.npz.1.tmp"
    stray.write_bytes(b"half a file")
    counted.left, counted.first = None, []
    points = run_census(tmp_path, *arguments(), STARTS, chunk_size=CHUNK)
    assert counted.first == [4, 6]
    assert_same(points, whole)
    # one file lost: it alone is run again
    (tmp_path / "chunk-000001.npz").unlink()
    counted.first = []
    points = run_census(tmp_path, *arguments(), STARTS, chunk_size=CHUNK)
    assert counted.first == [2]
    assert_same(points, whole)
    # all there: nothing is run; more starts: only those
    counted.first = []
    run_census(tmp_path, *arguments(), STARTS, chunk_size=CHUNK)
    assert counted.first == []
    more = run_census(tmp_path, *arguments(), STARTS + CHUNK, chunk_size=CHUNK)
    assert counted.first == [8]
    np.testing.assert_array_equal(more.runs.index, np.arange(STARTS + CHUNK))


def test_another_configuration_is_refused(tmp_path, monkeypatch, float64):
    counted = Counted(monkeypatch)
    run_census(tmp_path, *arguments(), CHUNK, chunk_size=CHUNK)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["shape"] == [K, K]
    assert config["dtype"] == "float64"
    assert config["made_with"]["jax"] == jax.__version__
    counted.first = []
    with pytest.raises(ValueError, match=r"another configuration: key differ"):
        run_census(tmp_path, *arguments(1), CHUNK, chunk_size=CHUNK)
    with pytest.raises(ValueError, match="learning_rate"):
        run_census(tmp_path, *arguments(), CHUNK, chunk_size=CHUNK, learning_rate=0.1)
    _, key, k = arguments()
    other = PopulationLoss(2 * jnp.eye(K, dtype="float64"))
    with pytest.raises(ValueError, match="teacher_inner"):
        run_census(tmp_path, other, key, k, CHUNK, chunk_size=CHUNK)
    with pytest.raises(ValueError, match="multiple of chunk_size"):
        run_census(tmp_path, *arguments(), 3, chunk_size=CHUNK)
    path = tmp_path / "chunk-000000.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="Delete it"):
        run_census(tmp_path, *arguments(), CHUNK, chunk_size=CHUNK)
    assert counted.first == []


def test_progress_bar(tmp_path, capsys, float64):
    pytest.importorskip("tqdm")
    run_census(tmp_path, *arguments(), CHUNK, chunk_size=CHUNK, progress=True)
    out = capsys.readouterr()
    assert out.out == ""
    assert "2/2" in out.err


def test_table_of_a_search(whole):
    table = census(whole)
    assert [row.name for row in table.families] == ["global"]
    assert table.families[0].share.count == STARTS
    assert table.spurious.count == 0
    assert np.isnan(table.spurious_loss)
    assert (table.k, table.n) == (K, K)


KILLED = """
import os, signal, sys
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_num_cpu_devices", 8)
import jax.numpy as jnp
from jaxrelu.experiments import _census as on_disk
from jaxrelu.objectives import PopulationLoss

replace, written = os.replace, []

def replace_or_die(source, target):
    written.append(target)
    if len(written) == 3:  # two chunks, then in the middle of the third
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

on_disk.os.replace = replace_or_die
objective = PopulationLoss(jnp.eye(2, dtype="float64"))
on_disk.run_census(sys.argv[1], objective, jax.random.key(0), 2, 8, chunk_size=2)
"""


@pytest.mark.slow
@pytest.mark.multiprocess
def test_census_survives_a_kill(tmp_path, monkeypatch, float64, whole):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    names = sorted(path.name for path in tmp_path.glob("chunk-*"))
    assert names == ["chunk-000000.npz", "chunk-000001.npz"]
    assert len(list(tmp_path.glob(".chunk-000002*"))) == 1
    counted = Counted(monkeypatch)
    points = run_census(tmp_path, *arguments(), STARTS, chunk_size=CHUNK)
    assert counted.first == [4, 6]
    assert_same(points, whole)
