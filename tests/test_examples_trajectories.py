"""The examples of training run, and what they show is so."""

import shutil

import equinox as eqx
import jax
import numpy as np
import pytest
from _examples import load, page_of

from jaxrelu import experiments


phase, lazy = load("phase_transition"), load("lazy_training")


@pytest.mark.slow
def test_phase_transition(tmp_path):
    with jax.enable_x64(True):
        found = phase.main(phase.Config(quick=True, out=tmp_path))
        again = experiments.phase_transition(
            found["random"].grid, tmp_path / "cells" / "random"
        )
    random, real = found["random"], found["real"]
    np.testing.assert_array_equal(again.gd_residual, random.gd_residual)
    labelled = experiments.load(tmp_path / "random.nc")
    np.testing.assert_array_equal(labelled.gd_residual, random.gd_residual)
    # softplus: all fit far above kd = n, none does below; descent is not ahead
    softplus = random.select(activation="softplus")
    shares = [random.shares("interpolation")[i].fraction for i in softplus]
    ratios = [random.grid.cells[i].ratio for i in softplus]
    assert shares[np.argmax(ratios)] == 1
    assert shares[np.argmin(ratios)] == 0
    for result in (random, real):
        slow = result.successes("interpolation") & ~result.successes("gd")
        assert slow.any()
        assert not result.gd_diverged.any()
    assert {cell.data for cell in real.grid.cells} == {"digits", "breast cancer"}
    assert {cell.labels for cell in real.grid.cells} == {"given", "shuffled"}
    # one run of five that fits at the largest kd/n shows no threshold there, four do
    for fitted, shown in ((1, f"> {max(ratios):.3g}"), (4, f"{max(ratios):.3g}")):
        residual = np.ones_like(random.gd_residual)
        residual[softplus[np.argmax(ratios)], :fitted] = 0
        altered = eqx.tree_at(lambda result: result.gd_residual, random, residual)
        rows = phase.threshold_table(altered, "").rows
        assert [row[1] for row in rows if row[0].startswith("softplus")] == [shown]
    for name in ("random.nc", "real.nc"):
        (tmp_path / name).unlink()
    shutil.rmtree(tmp_path / "cells")
    names = ("softplus", "relu", "real", "map")
    page = page_of(
        tmp_path, "phase_transition", [f"transition_{name}" for name in names]
    )
    assert "no figure of a paper is reproduced" in page


@pytest.mark.slow
def test_lazy_training(tmp_path):
    with jax.enable_x64(True):
        found = lazy.main(lazy.Config(quick=True, out=tmp_path))["found"]
    page_of(tmp_path, "lazy_training", ["lazy_training"])
    for name, scaling in found.items():
        law = scaling.exponent("deviation")
        assert abs(law.exponent - lazy.EXPECTED[name]) < 0.1
        assert abs(scaling.exponent("flip_fraction").exponent + 0.5) < 0.1
