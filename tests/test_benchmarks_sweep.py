"""The sweep benchmark runs on tiny sizes, and its judge can say no."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest


BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Imports a module of the benchmarks folder, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in list(sys.modules):
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(BENCHMARKS)):
            monkeypatch.delitem(sys.modules, name)


def test_report(load, tmp_path):
    module = load("sweep")
    status = module.main(
        [
            *("--in-process", "--rounds", "1", "--pause", "0", "--stem", "here"),
            *("--steady-seconds", "0.01", "--peers-python", "/nowhere"),
            *("--output", str(tmp_path), "--cache", str(tmp_path / "cache")),
            *("--sizes", "12,3,4", "--starts", "5", "--work", "15000"),
            *("--dtypes", "float64"),
        ]
    )
    assert status == 0
    written = json.loads((tmp_path / "here.json").read_text())
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


def test_the_judge_sees_a_wrong_step_size(load):
    module = load("sweep")
    problem = module.sweep_problem(12, 3, 4, 2, 5)
    judge = module.Accuracy(problem)
    right = np.stack([module.numpy_descent(problem, i) for i in range(2)])
    assert judge("inner", {"inner": right}) == {"err W": 0.0}
    problem["rate"] = problem["rate"] * 1.1
    wrong = np.stack([module.numpy_descent(problem, i) for i in range(2)])
    assert judge("inner", {"inner": wrong})["err W"] > 1e-3
    assert judge("inner", {"inner": wrong * np.nan})["err W"] == np.inf


def test_a_python_without_jaxrelu_measures_nothing(load, tmp_path, monkeypatch, capsys):
    module = load("sweep")
    find = importlib.util.find_spec
    absent = lambda name: None if name == "jaxrelu" else find(name)
    monkeypatch.setattr(importlib.util, "find_spec", absent)
    assert module.main(["--quick", "--output", str(tmp_path / "out")]) == 1
    assert "no jaxrelu in" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
