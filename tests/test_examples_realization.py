"""The examples of realisations run, and what they show is so."""

import jax
import numpy as np
import pytest
from _examples import load, page_of


stability, forms = load("inverse_stability"), load("canonical_form")
training = load("restricted_training")


@pytest.mark.slow
def test_close_functions_and_far_weights(tmp_path):
    with jax.enable_x64(True):
        found = stability.main(stability.Config(quick=True, out=tmp_path))
    names = ("stability_pathologies", "stability_distance")
    page_of(tmp_path, "inverse_stability", names)
    missing = {row["name"]: row["missing"] for row in found["pathologies"]}
    assert missing == {
        "exploding gradient": [],
        "complete unbalancedness": [],
        "unbalancedness": [],
        "redundant directions": ["C.2"],
        "opposite vectors": ["C.3(a) for Γ"],
        "opposite networks": ["C.3(b)"],
    }
    for row in found["pathologies"]:
        p, search = row["stated"], row["search"]
        np.testing.assert_allclose(row["r"], p.seminorm, rtol=1e-9)
        assert search.value >= p.distance_lower * (1 - 1e-9)
        assert p.exact
        if search.complete:
            np.testing.assert_allclose(search.value, p.distance_upper, rtol=1e-6)
        # what breaks the promise is one of the hypotheses
        if row["missing"]:
            assert p.distance_lower > 0.49
    assert sum(row["search"].complete for row in found["pathologies"]) >= 4
    # the distances do not go down although the functions meet
    assert found["pathologies"][3]["r"] < 0.01
    for kind, results in found["inside"].items():
        for answer in results:
            assert answer.holds, str(answer)
            assert answer.distance <= answer.bound < answer.published_bound
        assert len(results) == (1 if kind == "extremal pair" else 16)
    extremal = found["inside"]["extremal pair"][0]
    np.testing.assert_allclose(extremal.distance, 2 * 2**0.5, rtol=1e-12)
    np.testing.assert_allclose(float(extremal.radius), 1, rtol=1e-12)
    for answer in found["single"]:
        assert answer.holds, str(answer)
        assert answer.distance <= answer.bound < answer.published_bound
    for row in found["vectors"]:
        assert (row["distance"] > row["bound"]) == (row["mu"] < 1)
    dead, inside = found["minima"]
    assert (dead.realization_radius, dead.guaranteed_radius) == (0, 0)
    assert 0 < inside.published_radius < inside.guaranteed_radius
    assert inside.guaranteed_radius < inside.realization_radius


@pytest.mark.slow
def test_training_seen_as_functions(tmp_path):
    with jax.enable_x64(True):
        found = training.main(training.Config(quick=True, out=tmp_path))
    page_of(tmp_path, "restricted_training", ("restricted_training",))
    fitted = found["notebook"]
    for j, (loss, error) in enumerate(training.NOTEBOOK.values(), start=1):
        # the printed run is one like ours
        low, high = fitted["loss"][j].min(), fitted["loss"][j].max()
        assert low / 1.2 - 5e-4 <= loss <= 1.2 * high + 5e-4
        low, high = fitted["sup"][j].min(), fitted["sup"][j].max()
        assert low / 1.1 <= error <= 1.1 * high
    np.testing.assert_allclose(fitted["sup"][0], 1, rtol=1e-12)
    np.testing.assert_allclose(fitted["semi"][0], 1, rtol=1e-12)
    # near to 0 as a function, not in its slope
    assert np.all(fitted["sup"][-1] < 0.2)
    assert np.all(fitted["semi"][-1] > 0.7)
    runs = found["training"]
    assert runs["gap"] < 1e-12
    first = [values[:, 0] for values in runs["losses"].values()]
    for other in first[1:]:  # the same functions at the start
        np.testing.assert_allclose(other, first[0], rtol=1e-9)
    for name, values in runs["losses"].items():
        assert all(runs["members"][name])
        assert np.all(values[:, -1] < 0.6 * values[:, 0])


@pytest.mark.slow
def test_forms_tell_functions_apart(tmp_path):
    with jax.enable_x64(True):
        found = forms.main(forms.Config(quick=True, out=tmp_path))
    page_of(tmp_path, "canonical_form", ("canonical_cells", "canonical_flip"))
    answers = {
        name: (row["equal"], row["exact"], row["hash"])
        for name, row in found["equality"].items()
    }
    assert answers == {
        "permuted, scaled by powers of 2": (True, True, True),
        "scaled by random factors": (True, False, False),
        "one neuron split in two": (True, True, True),
        "rows turned round, c = (1, 1, 1)": (True, True, True),
        "rows turned round, c = (1, 2, 3)": (False, False, False),
        "one bit of one weight": (True, False, False),
    }
    for row in found["equality"].values():
        assert (row["distance"] <= 1e-12) == row["equal"]
    turned = found["equality"]["rows turned round, c = (1, 2, 3)"]
    assert turned["distance"] == 1.5  # largest entry of CA, by hand (-1.5, -1)
    widths = [(r["kinks"], r["width"], r["flips"]) for r in found["widths"]]
    triangle = [(3, 3, 2), (3, 3, 1), (0, 0, 1)]
    assert widths == [(0, 2, 0), (1, 2, 0), (1, 3, 0), (2, 3, 0), *triangle]
    assert all(row["same"] for row in found["widths"])
    moved = found["embedding"]
    assert moved["member"]
    assert moved["back"]
    assert moved["merged"]
    assert moved["left"] == 1
    assert moved["difference"] < 1e-13
    assert "direction" in " ".join(moved["unmerged"])
    for row in found["recovery"]:
        assert row["kinks"] == row["k"]
        assert row["equal"]
        assert row["defect"] < 1e-12
    assert found["cells"] == found["expected cells"] == 12
