"""The benchmark of spectra at minimisers: tiny sizes, a judge that can say no."""

import importlib
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
    status = load("minimizer_spectra").main(
        [
            *("--in-process", "--rounds", "1", "--pause", "0", "--stem", "here"),
            *("--steady-seconds", "0.01", "--sizes", "3", "--depths", "2"),
            *("--dtypes", "float64", "--output", str(tmp_path)),
            *("--cache", str(tmp_path / "cache")),
        ]
    )
    assert status == 0
    written = json.loads((tmp_path / "here.json").read_text())
    assert {row["candidate"] for row in written["rows"]} == {
        "ours",
        "dense",
        "gauss_newton",
    }
    for row in written["rows"]:
        assert row["status"] == "ok", row["status"]
        assert row["accuracy"]["err λ"] < 1e-13
        assert row["accuracy"]["err λ_min"] < 1e-11
    error = next(t for t in written["targets"] if t["name"].startswith("error"))
    assert error["met"]
    document = (tmp_path / "here.md").read_text()
    for row in written["rows"]:
        assert row["label"] in document


def test_reference_and_judge(load):
    """The explicit rows against second differences of the loss; wrong answers show."""
    problems, module = load("_minimizer_problem"), load("minimizer_spectra")
    problem = problems.minimizer_problem(2, 3)
    exact = problems.numpy_spectrum(problem)

    def value(flat):
        outputs = problem["inputs"]
        for layer in flat.reshape(3, 2, 2):
            outputs = outputs @ layer.T
        return 0.5 * np.sum((outputs - problem["targets"]) ** 2)

    start, step, eye = problem["layers"].ravel(), 1e-3, np.eye(12)
    dense = np.zeros((12, 12))
    for i in range(12):
        for j in range(12):
            for s in (1, -1):
                for t in (1, -1):
                    dense[i, j] += (
                        s * t * value(start + step * (s * eye[i] + t * eye[j]))
                    )
    values = np.linalg.eigvalsh(dense / (4 * step**2))
    np.testing.assert_allclose(values[-4:], exact, rtol=1e-4)
    np.testing.assert_allclose(values[:-4], 0, atol=1e-4)
    judge = module.SpectrumAccuracy(exact)
    assert judge("spectrum", {"values": exact[::-1]})["err λ"] == 0
    wrong = exact * np.array([1.5, 1, 1, 1])
    assert judge("spectrum", {"values": wrong})["err λ_min"] == pytest.approx(0.5)
    assert judge("spectrum", {"values": exact[1:]})["err λ"] == np.inf
    assert judge("spectrum", {"values": exact * np.nan})["err λ"] == np.inf
