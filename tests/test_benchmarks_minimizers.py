"""The benchmark of spectra at minimisers: tiny sizes, a judge that can say no."""

import numpy as np
import pytest
from _benchmarks import report


def test_report(bench, tmp_path):
    written = report(
        bench("minimizer_spectra"),
        tmp_path,
        *("--sizes", "3", "--depths", "2", "--dtypes", "float64"),
    )
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


def test_reference_and_judge(bench):
    """The explicit rows against second differences of the loss; wrong answers show."""
    problems, module = (
        bench("_minimizer_problem"),
        bench("minimizer_spectra"),
    )
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
