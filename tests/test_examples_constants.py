"""The examples of the constants around minimisers run, and what they show is so."""

import math

import numpy as np
import pytest
from _examples import load, page_of


dominance, cone = load("gradient_dominance"), load("regularity_cone")


@pytest.mark.slow
def test_dominance_is_bounded_from_both_sides(tmp_path, float64):
    found = dominance.main(dominance.Config(quick=True, out=tmp_path))
    names = ("dominance_bounds", "dominance_depth", "dominance_slice")
    page_of(tmp_path, "gradient_dominance", names)
    assert len(found["reports"]) == 3
    for report in found["reports"].values():
        assert 0 < float(report.lower) < float(report.upper) < math.inf
        assert float(report.upper) < 2 * float(report.lower)
    curves = found["curves"]
    plain, residual = (curves["measured"][name] for name in ("plain", "residual"))
    assert plain[-1] < 1e-2 * plain[0]
    assert residual[-1] > 0.5 * residual[0]
    for name, sure in curves["guaranteed"].items():
        assert (np.array(sure) <= np.array(curves["measured"][name]) + 1e-12).all()
    run = found["run"]
    np.testing.assert_allclose(run["measured"], run["asymptotic"], rtol=1e-3)
    assert run["measured"] < run["promised"] < 1


@pytest.mark.slow
def test_regularity_holds_in_the_cone_only(tmp_path, float64):
    found = cone.main(cone.Config(quick=True, out=tmp_path))
    page_of(tmp_path, "regularity_cone", ("regularity_cone",))
    proved = 0
    for degrees, radius, report in found["reports"]:
        assert bool(report.condition.is_possible)
        assert float(report.lower) <= float(report.found)
        proved += float(report.lower) > 0
        if radius < 0.01 and degrees < 60:
            np.testing.assert_allclose(
                float(report.found), float(report.asymptotic), rtol=0.03
            )
    assert proved >= 2
    failed = found["failed"]
    assert failed["quotient"] < 0
    assert failed["nullity"] == 4
    assert failed["end"] > 0.1 * failed["start"]
    assert abs(failed["gap"]) < 1e-12
