"""The benchmarks measure what they say: tiny sizes, and judges that can say no."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from _benchmarks import report


def dense_jacobian(problem):
    """One row per sample, entry (a, j) = v_a 1[w_a x > 0] x_j, by explicit loops."""
    inputs, inner, outer = (problem[key] for key in ("inputs", "inner", "outer"))
    blocks = [
        np.array([v * x if w @ x > 0 else 0 * x for x in inputs])
        for w, v in zip(inner, outer, strict=True)
    ]
    return np.concatenate(blocks, axis=1)


def test_problem(bench):
    problem = bench("_problem").make_problem(12, 5, 6)
    inputs, inner, outer = (problem[key] for key in ("inputs", "inner", "outer"))
    assert inputs.shape == (12, 5)
    assert inner.shape == (6, 5)
    np.testing.assert_allclose(np.linalg.norm(inputs, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(
        outer, np.array([1, 1, 1, -1, -1, -1]) / 6**0.5, rtol=1e-7
    )
    for x in (inputs, inner, outer):
        np.testing.assert_array_equal(x, x.astype(np.float32))
    problem = bench("_problem").make_problem(4000, 3, 500)
    inputs, inner = problem["inputs"], problem["inner"]
    angle = np.abs(inputs @ inner.T) / np.linalg.norm(inner, axis=1)
    assert angle.min() >= 32 * np.finfo(np.float32).eps  # 8 breaches at the first draw
    single = inputs.astype(np.float32) @ inner.astype(np.float32).T
    np.testing.assert_array_equal(single > 0, inputs @ inner.T > 0)


@pytest.mark.parametrize("sizes", [(10, 6, 8), (9, 3, 40), (40, 16, 50)])
def test_references_are_the_singular_values_of_the_jacobian(bench, sizes):
    module = bench("_problem")
    problem = module.make_problem(*sizes)
    exact = np.linalg.svd(dense_jacobian(problem), compute_uv=False)[::-1]
    assert exact[0] > 1e-2
    np.testing.assert_allclose(module.qr_values(problem), exact, rtol=1e-12)
    np.testing.assert_allclose(module.gram_values(problem), exact, rtol=1e-10)


def run_spectrum(bench, tmp_path, *arguments):
    return report(
        bench("jacobian_spectrum"),
        tmp_path,
        *("--peers-python", "/nowhere", "--nt-python", "/nowhere"),
        *("--gemm", "8", *arguments),
    )


def test_jacobian_spectrum_report(bench, tmp_path, capsys):
    names = ["ours", "ours_ends", "ours_gram", "sample_gram", "lapack", "torch_func"]
    written = run_spectrum(
        bench,
        tmp_path,
        *("--sizes", "24,6,8", "--dtypes", "float64"),
        *("--only", *names, "gemm"),
    )
    rows = {row["candidate"]: row for row in written["rows"]}
    assert set(rows) == {*names, "gemm"}
    skipped = rows.pop("torch_func")
    assert skipped["status"] == "skipped: not installed, run `make bench-peers`"
    for name, row in rows.items():
        assert row["status"] == "ok", (name, row["status"])
        assert 0 < row["min_s"] <= row["median_s"]
        assert row["first_s"] >= row["compile_s"] >= 0
        assert row["versions"]["jax"]
    for name in ("ours", "ours_ends", "sample_gram", "lapack"):
        assert rows[name]["accuracy"]["err σ_min"] < 1e-11
        assert rows[name]["accuracy"]["err σ_max"] < 1e-13
    assert rows["ours_gram"]["accuracy"]["err Gram"] < 1e-14
    environment = written["environment"]
    assert {"cpu", "cores", "date", "revision", "versions"} <= set(environment)
    targets = {target["name"]: target for target in written["targets"]}
    peer = targets["nngeometry / ours, (24, 6, 8) float64"]
    assert peer["met"] is None
    document = (tmp_path / "here.md").read_text()
    for row in written["rows"]:
        assert row["label"] in document
    assert "make bench-peers" in document
    assert "wrote" in capsys.readouterr().out


def test_accuracy_sees_a_wrong_answer(bench):
    module = bench("jacobian_spectrum")
    problem = bench("_problem").make_problem(12, 5, 6)
    exact = np.linalg.svd(dense_jacobian(problem), compute_uv=False)[::-1]
    judge = module.Accuracy(problem, exact)
    wrong = exact.copy()
    wrong[3] *= 1.001
    bounds = np.full(12, 1e-6)
    answer = judge("values", {"values": wrong[::-1], "bounds": bounds})
    assert answer["err σ_min"] < 1e-15
    assert answer["err all"] == pytest.approx(1e-3)
    assert answer["error / bound"] == pytest.approx(1e3 * exact[3])
    dense = dense_jacobian(problem)
    assert judge("gram", {"gram": dense @ dense.T})["err Gram"] < 1e-15
    assert judge("gram", {"gram": 1.1 * dense @ dense.T})["err Gram"] > 0.09
    ends = {"smallest": 1.5 * exact[0], "smallest_bound": 0.1 * exact[0]}
    ends |= {"largest": exact[-1], "largest_bound": exact[-1]}
    assert judge("ends", ends)["err σ_min"] == pytest.approx(0.5)
    assert judge("ends", ends)["error / bound"] == pytest.approx(5)


def made_row(bench, name, size, dtype="float32", *, seconds=1.0, **more):
    sizes = dict(zip("ndk", size, strict=True))
    row = bench("_harness").Row(name, name, "values", sizes, dtype, **more)
    row.seconds = [seconds]
    return row


def verdicts(bench, rows, platform="cpu"):
    targets = bench("jacobian_spectrum").spectrum_targets(rows, platform)
    return {target.name: target for target in targets}


def test_targets(bench):
    size = (2048, 512, 2048)
    numbers = 4 * (2048**2 + 2048 * (512 + 2048))
    rows = [
        made_row(bench, "ours", size, seconds=1.1, peak_bytes=9 * numbers),
        made_row(bench, "ours_ends", size, seconds=0.5, peak_bytes=3 * numbers),
        made_row(bench, "ours_gram_alone", size, seconds=0.1),
        made_row(bench, "gram_formula_alone", size, seconds=0.25),
        made_row(bench, "lapack", size, seconds=1.0),
        made_row(bench, "nngeometry", size, seconds=1.32),
        made_row(bench, "sample_gram", size, seconds=143.1, status="stopped: a call"),
    ]
    found = verdicts(bench, rows)
    at = "(2048, 512, 2048) float32"
    expected = {
        f"all values / LAPACK, {at}": (1.1, True),
        f"nngeometry / ours, {at}": (1.2, False),  # 1.3 is wanted at the largest size
        f"per-sample JAX / ours, {at}": (None, None),  # it was stopped
        f"both ends / all, {at}": (0.5 / 1.1, True),
        f"GEMM formula / our Gram, {at}": (2.5, False),
        "peak memory of all values / (n² + n(d+k)) numbers, float32": (9.0, False),
        "peak memory of both ends / (n² + n(d+k)) numbers, float32": (3.0, True),
        "peak memory of both ends / (n² + n(d+k)) numbers, float64": (None, None),
    }
    for name, (got, met) in expected.items():
        assert found[name].got == (got if got is None else pytest.approx(got)), name
        assert found[name].met is met, name
        word = {True: "met", False: "NOT met", None: "not measured"}[met]
        assert found[name].verdict == word


def test_rate_target_on_an_accelerator(bench):
    size = (2048, 512, 2048)
    gemm = made_row(bench, "gemm", (8192, 1, 2), seconds=1.0)
    gemm.accuracy = {"flop": 1e12}
    flop = 2 * 2048**2 * (512 + 2048)
    gram = made_row(bench, "ours_gram", size, seconds=flop / 0.6e12)
    name = "Gram / GEMM rate, (2048, 512, 2048) float32"
    assert name not in verdicts(bench, [gram, gemm])
    target = verdicts(bench, [gram, gemm], "gpu")[name]
    assert target.got == pytest.approx(0.6)
    assert target.met is False


def test_time_in_the_compiler_is_counted_once(bench):
    clock = bench("_child")._CompileClock()
    clock.intervals = [(1.0, 4.0), (2.0, 3.0), (3.5, 5.0), (7.0, 8.0)]
    assert clock.seconds() == 5.0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peak_is_seen_after_the_memory_is_freed(bench):
    meter = bench("_child").PeakMeter()
    meter.start()
    np.ones(2**23).sum()  # 64 MiB, freed at once
    assert 60e6 < meter.peak() < 90e6
    meter.start()
    assert meter.peak() < 20e6


CANDIDATE = """
import os
import time

import numpy as np


def fine(problem, dtype):
    print("a library that talks")
    return lambda: {"values": problem["x"].astype(dtype)}


def slow(problem, dtype):
    return lambda: time.sleep(30)


def hungry(problem, dtype):
    def run():
        x = np.ones(2**25)
        time.sleep(30)
        return x
    return run


def broken(problem, dtype):
    raise ValueError("no such thing")


def dying(problem, dtype):
    return lambda: os._exit(3)


def absent(problem, dtype):
    import a_package_that_nobody_has
"""


@pytest.mark.multiprocess
def test_limits_and_failures_become_words(bench, tmp_path, monkeypatch):
    """Real child processes: whatever a candidate does, the others are measured."""
    harness = bench("_harness")
    folder = tmp_path / "_candidates"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "odd.py").write_text(CANDIDATE)
    child = Path(harness.__file__).with_name("_child.py")
    (tmp_path / "_child.py").write_text(child.read_text())
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "_harness.py"))
    problem = tmp_path / "problem.npz"
    np.savez(problem, x=np.arange(3.0))

    def run(candidates, **limits):
        return harness.run_cell(
            candidates,
            problem,
            {"n": 3},
            "float32",
            interpreters={"main": sys.executable, "peers": None},
            limits=harness.Limits(rounds=2, device_bytes=10**9, **limits),
            accuracy=lambda kind, result: {"sum": float(result["values"].sum())},
            say=lambda line: None,
            pause=0,
        )

    slow = run(
        [harness.Candidate("slow", "slow", "odd:slow", "values")], call_seconds=1
    )
    assert slow[0].status == "stopped: a call took over 1 s"
    names = ("hungry", "broken", "dying", "absent", "fine")
    candidates = [
        harness.Candidate(n, n, f"odd:{n}", "values", bytes=lambda s, i: 5 * 10**8)
        for n in names
    ]
    candidates.append(
        harness.Candidate(
            "big", "big", "odd:fine", "values", bytes=lambda s, i: 2 * 10**9
        )
    )
    candidates.append(harness.Candidate("peer", "peer", "odd:fine", "values", "peers"))
    rows = run(candidates, call_seconds=60, memory_bytes=200_000_000)
    status = {row.candidate: row.status for row in rows}
    assert status["hungry"] == "stopped: over 0.2 GB of memory"
    assert status["broken"] == "failed: ValueError: no such thing"
    assert status["dying"].startswith("failed: exit status 3")
    assert status["absent"].startswith("skipped: not installed")
    assert status["big"] == "skipped: needs 2.0 GB, 1.0 GB allowed"
    assert status["peer"] == "skipped: not installed, run `make bench-peers`"
    fine = rows[names.index("fine")]
    assert fine.status == "ok"
    assert fine.accuracy == {"sum": 3.0}
    assert len(fine.seconds) == 10


def test_exponent_and_its_error(bench):
    scaling = bench("scaling")
    sizes = [256, 512, 1024, 2048]
    fit = scaling.fit_exponent(sizes, [3e-9 * n**2.5 for n in sizes])
    assert fit.exponent == pytest.approx(2.5)
    assert fit.standard_error < 1e-12
    assert math.exp(fit.intercept) == pytest.approx(3e-9)
    noise = np.array([1.02, 0.99, 0.97, 1.04])
    fit = scaling.fit_exponent(sizes, noise * [n**2.5 for n in sizes])
    (slope, _), covariance = np.polyfit(np.log(sizes), np.log(noise), 1, cov="unscaled")
    residual = np.log(noise) - np.polyval(
        np.polyfit(np.log(sizes), np.log(noise), 1), np.log(sizes)
    )
    error = (covariance[0, 0] * (residual @ residual) / 2) ** 0.5
    assert fit.exponent == pytest.approx(2.5 + slope)
    assert fit.standard_error == pytest.approx(error)
    with pytest.raises(ValueError, match="at least 3"):
        scaling.fit_exponent(sizes[:2], [1.0, 2.0])


def test_scaling_report(bench, tmp_path, capsys):
    written = report(
        bench("scaling"),
        tmp_path,
        *("--dtypes", "float64", "--base", "16", "4", "8"),
        *("--n", "16", "24", "32", "--k", "8", "--d", "4"),
    )
    fitted = {(fit["axis"], fit["candidate"]) for fit in written["fits"]}
    assert fitted == {("n", "ours"), ("n", "ours_gram")}
    assert all(row["status"] == "ok" for row in written["rows"])
    assert (tmp_path / "here.png").read_bytes().startswith(b"\x89PNG")
    document = (tmp_path / "here.md").read_text()
    assert "Fitted exponents" in document
    assert "here.png" in document
    assert "wrote" in capsys.readouterr().out
