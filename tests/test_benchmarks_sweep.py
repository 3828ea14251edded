"""The sweep benchmark runs on tiny sizes, and its judge can say no."""

import importlib.util

import numpy as np
import pytest
from _benchmarks import report


def test_report(bench, tmp_path):
    module = bench("sweep")
    written = report(
        module,
        tmp_path,
        *("--peers-python", "/nowhere", "--dtypes", "float64"),
        *("--sizes", "12,3,4", "--starts", "5", "--work", "15000"),
    )
    rows = {row["candidate"]: row for row in written["rows"]}
    assert set(rows) == {candidate.name for candidate in module.CANDIDATES}
    assert rows.pop("torch")["status"].startswith("skipped: not installed")
    for name, row in rows.items():
        assert row["status"] == "ok", (name, row["status"])
        assert row["sizes"] == {"n": 12, "d": 3, "k": 4, "starts": 5, "steps": 5}
        speed = row["accuracy"]["starts × steps / s"]
        assert speed == pytest.approx(25 / row["median_s"])
        if name != "products":
            assert row["accuracy"]["err W"] < 1e-12
    assert len(written["targets"]) == 4
    assert "loop of jitted steps" in (tmp_path / "here.md").read_text()


def test_the_judge_sees_a_wrong_step_size(bench):
    module = bench("sweep")
    problem = module.sweep_problem(12, 3, 4, 2, 5)
    judge = module.Accuracy(problem)
    right = np.stack([module.numpy_descent(problem, i) for i in range(2)])
    assert judge("inner", {"inner": right}) == {"err W": 0.0}
    problem["rate"] = problem["rate"] * 1.1
    wrong = np.stack([module.numpy_descent(problem, i) for i in range(2)])
    assert judge("inner", {"inner": wrong})["err W"] > 1e-3
    assert judge("inner", {"inner": wrong * np.nan})["err W"] == np.inf


def test_a_python_without_jaxrelu_measures_nothing(
    bench, tmp_path, monkeypatch, capsys
):
    module = bench("sweep")
    find = importlib.util.find_spec
    absent = lambda name: None if name == "jaxrelu" else find(name)
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert module.main(["--quick", "--output", str(tmp_path / "out")]) == 1
    assert "no jaxrelu in" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
