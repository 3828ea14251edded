"""The Hessian benchmark measures what it says: tiny sizes, judges that can say no."""

import numpy as np
import pytest
from _benchmarks import report


def run(bench, tmp_path, *arguments):
    module = bench("population_hessian")
    return report(module, tmp_path, "--peers-python", "/nowhere", *arguments)


@pytest.mark.slow
def test_population_hessian_report(bench, tmp_path, monkeypatch):
    module = bench("population_hessian")
    monkeypatch.setattr(module, "DEGENERATE", 3)
    written = run(
        bench,
        tmp_path,
        *("--sizes", "3", "--widths", "4", "--samples", "12", "5"),
        *("--symmetric", "1000", "--dtypes", "float64"),
        *("--parts", "population", "product", "empirical", "symmetric"),
    )
    rows = written["rows"]
    for row in rows:
        peer = row["candidate"].startswith(("torch", "curvlinops"))
        word = "skipped: not installed, run `make bench-peers`" if peer else "ok"
        assert row["status"] == word, (row["candidate"], row["status"])
    worst = {
        column: max(r["accuracy"].get(column, 0) for r in rows if r["status"] == "ok")
        for column in ("err H", "err Hu", "stated error")
    }
    assert 0 < worst["err H"] < 1e-14
    assert 0 < worst["err Hu"] < 1e-14
    assert worst["stated error"] < 1e-12
    found = {row["candidate"]: row for row in rows}
    searches = {candidate.name for candidate in module.CANDIDATES["census"]}
    assert set(found) | searches == {candidate.name for candidate in module.ALL}
    assert found["ours_type_two"]["accuracy"]["eigenvalues"] == 1000**2
    targets = {target["name"]: target for target in written["targets"]}
    for point in ("generic", "minimum", "parallel"):
        target = targets[
            f"population Hessian: error at the {point} point, k = 3 float64"
        ]
        assert target["met"]
    assert targets["type II spectrum at k = 1000000, seconds"]["met"] is None
    document = (tmp_path / "here.md").read_text()
    for row in rows:
        assert row["label"] in document
    assert "Writing the bytes alone takes" in document


@pytest.mark.slow
def test_census_report(bench, tmp_path):
    written = run(
        bench,
        tmp_path,
        "--parts",
        "census",
        "--census",
        "2",
        "2",
        "--dtypes",
        "float64",
    )
    found = {row["candidate"]: row for row in written["rows"]}
    assert set(found) == {"ours_census", "descent_loop"}
    for row in found.values():
        assert row["status"] == "ok", row["status"]
        assert row["accuracy"]["reached"] == 1
        assert row["accuracy"]["starts / s"] > 0
    assert found["ours_census"]["accuracy"]["worst ‖∇F‖"] < 1e-11
    assert found["descent_loop"]["accuracy"]["worst ‖∇F‖"] < 1e-8


def by_hand(w, v):
    """The loss at d = 2 by quadrature over the angle; the radius is exact."""
    angles = (np.arange(100_000) + 0.5) * (2 * np.pi / 100_000)
    x = np.stack([np.cos(angles), np.sin(angles)])
    difference = np.maximum(w @ x, 0).sum(axis=0) - np.maximum(v @ x, 0).sum(axis=0)
    return 0.5 * 2 * np.mean(difference**2)  # E[radius^2] = 2


@pytest.mark.parametrize("point", ["generic", "minimum", "parallel"])
def test_references_agree_with_quadrature(bench, point):
    """Second differences of the loss by another integral, entry by entry."""
    module = bench("_hessian_problem")
    problem = module.population_problem(3, point)
    # the plane spanned by the first two coordinates: cut the third off
    small = {name: problem[name][:, :2] for name in ("inner", "teacher", "direction")}
    small["teacher"] = small["teacher"][:2]
    if point != "parallel":
        small["inner"] = small["inner"][:2]
    index, values = module.sampled_entries(small)
    step = 1e-3
    for (i, a, j, b), value in zip(index, values, strict=True):

        def moved(s, t, i=i, a=a, j=j, b=b):
            w = small["inner"].copy()
            w[i, a] += s * step
            w[j, b] += t * step
            return by_hand(w, small["teacher"])

        difference = moved(1, 1) - moved(1, -1) - moved(-1, 1) + moved(-1, -1)
        assert difference / (4 * step**2) == pytest.approx(value, abs=3e-3)


def test_published_blocks_and_the_gradient_agree_with_the_differences(bench):
    module = bench("_hessian_problem")
    problem = module.population_problem(4, "generic")
    index, values = module.sampled_entries(problem)
    i, a, j, b = index.T
    dense = module.numpy_hessian(problem)
    np.testing.assert_allclose(dense[i * 4 + a, j * 4 + b], values, rtol=0, atol=1e-14)
    step, u = 1e-5, problem["direction"]
    gradient = lambda w: module.numpy_gradient(w, problem["teacher"]).reshape(-1)
    plus, minus = (gradient(problem["inner"] + s * u) for s in (step, -step))
    product = dense @ u.reshape(-1)
    np.testing.assert_allclose((plus - minus) / (2 * step), product, atol=1e-8)


def test_the_judges_see_a_wrong_answer(bench):
    module = bench("population_hessian")
    index = np.array([[0, 0, 0, 0], [1, 0, 0, 1]])
    exact = np.eye(4)
    judge = module.PopulationAccuracy(index, np.array([1.0, 0.0]))
    assert judge("H", {"hessian": exact}) == {"err H": 0.0}
    wrong = exact.copy()
    wrong[2, 1] = 1e-3
    assert judge("H", {"hessian": wrong})["err H"] == pytest.approx(1e-3)
    wrong[2, 1] = np.nan
    assert judge("H", {"hessian": wrong})["err H"] == np.inf
    matrix = module.MatrixAccuracy(2 * exact)
    assert matrix("H", {"hessian": exact})["err H"] == pytest.approx(0.5)
    weights = np.stack([np.eye(3), 2 * np.eye(3)])
    census = module.census_accuracy(
        "points", {"weights": weights, "reached": np.array(1), "starts": np.array(2)}
    )
    assert census["reached"] == 0.5
    assert census["worst ‖∇F‖"] > 0.5
    single = module.census_accuracy(
        "points",
        {"weights": weights[:1], "reached": np.array(1), "starts": np.array(1)},
    )
    assert single["worst ‖∇F‖"] < 1e-15


def test_targets(bench):
    module, harness = bench("population_hessian"), bench("_harness")

    def row(name, seconds, dtype="float64", accuracy=None, status="ok", **sizes):
        made = harness.Row(name, name, "H", sizes, dtype, status=status)
        made.seconds, made.accuracy = [seconds], accuracy or {}
        return made

    def generic(k, point="generic"):
        return {"k": k, "d": k, "point": point}

    rows = [
        row("ours", 0.001, **generic(32)),
        row("jax_hessian", 0.25, **generic(32)),
        row("ours", 0.1, **generic(64)),
        row("write", 0.04, **generic(64)),
        row("ours", 0.1, accuracy={"err H": 2e-15}, **generic(8, "parallel")),
        row("ours_empirical", 0.001, n=512, d=16, k=16),
        row("jax_empirical", 0.039, n=512, d=16, k=16),
        row("ours_empirical", 0.001, "float32", n=512, d=16, k=16),
        row(
            "jax_empirical", 9.0, "float32", status="stopped: a call", n=512, d=16, k=16
        ),
        row("ours_type_two", 0.5, k=10**6),
    ]
    found = {target.name: target for target in module.hessian_targets(rows)}
    expected = {
        "population Hessian: jax.hessian / ours, k = 32 float64": (250.0, True),
        "population Hessian: ours / writing the bytes, k = 64 float64": (2.5, False),
        "population Hessian: error at the generic point, k = 8 float64": (None, None),
        "population Hessian: error at the parallel point, k = 8 float64": (
            2e-15,
            False,
        ),
        "empirical Hessian: jax.hessian / ours, (512, 16, 16) float64": (39.0, False),
        "empirical Hessian: jax.hessian / ours, (512, 16, 16) float32": (None, None),
        "type II spectrum at k = 1000000, seconds": (0.5, True),
    }
    for name, (got, met) in expected.items():
        assert found[name].got == (got if got is None else pytest.approx(got)), name
        assert found[name].met is met, name
