"""The semi-norm benchmark measures what it says: tiny sizes, and judges."""

import numpy as np
import pytest
from _benchmarks import report


def test_seminorm_report(bench, tmp_path, monkeypatch):
    module = bench("seminorm")
    cells = (
        (2, 5, ("auto", "recursion")),
        (3, 5, ("auto", "lp", "milp", "climbs")),
    )
    monkeypatch.setattr(module, "QUICK", cells)
    rows = report(module, tmp_path, "--quick")["rows"]
    assert [(r["sizes"]["d"], r["candidate"]) for r in rows] == [
        (d, name) for d, _, names in cells for name in names
    ]
    document = (tmp_path / "here.md").read_text()
    for row in rows:
        assert row["status"] == "ok", (row["candidate"], row["status"])
        assert row["label"] in document
        shortfall, stated = row["accuracy"]["shortfall"], row["accuracy"]["stated"]
        if row["candidate"] == "climbs":  # a lower bound, and how far off it can be
            assert -1e-12 <= shortfall <= stated + 1e-12
        else:
            assert abs(shortfall) < 1e-9, row["candidate"]
            assert 0 <= stated < 1e-9


def brute_force(inner, outer):
    """The largest entry of the derivative at many random points."""
    points = np.random.default_rng(0).standard_normal((200_000, inner.shape[1]))
    patterns = np.unique(points @ inner.T > 0, axis=0)
    return max(np.abs((outer * active) @ inner).max() for active in patterns)


@pytest.mark.parametrize(("d", "k"), [(2, 6), (3, 6)])
def test_references_agree_with_dense_sampling(bench, d, k):
    """Sampling finds all cells of few neurons, by no method of the library."""
    module = bench("seminorm")
    rng = np.random.default_rng([d, k])
    inner, outer = rng.standard_normal((k, d)), rng.standard_normal((2, k))
    wanted = brute_force(inner, outer)
    np.testing.assert_allclose(module.reference(inner, outer), wanted, rtol=1e-14)


def test_the_table_shows_a_wrong_answer(bench):
    module, harness = bench("seminorm"), bench("_harness")
    rows = []
    for shortfall in (1e-3, -1e-3):
        row = harness.Row("auto", "ours", "value", {"d": 2, "k": 3}, "float64")
        row.status, row.seconds = "ok", [0.5]
        row.accuracy = {"shortfall": shortfall, "stated": 0.0}
        rows.append(row)
    first, second = module.table(rows).splitlines()[-2:]
    # shortfall, stated error, digits per second
    cells = [
        [cell.strip() for cell in line.split("|")[5:8]] for line in (first, second)
    ]
    assert cells == [["1.0e-03", "0.0e+00", "6"], ["-1.0e-03", "0.0e+00", "6"]]
