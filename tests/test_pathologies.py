"""The pathologies: semi-norms and distances against exact computations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu.realization import (
    PATHOLOGIES,
    complete_unbalancedness,
    distance,
    equal,
    exploding_gradient,
    fibre_distance,
    inverse_stable,
    is_restricted,
    opposite_networks,
    opposite_vectors,
    parameter_distance,
    redundant_directions,
    supnorm,
    unbalancedness,
)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


KS = (1.0, 3.0, 10.0, 1000.0)


@pytest.mark.parametrize("make", PATHOLOGIES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("k", KS)
def test_seminorm_and_nearest_network(make, k):
    """Semi-norms by the exact sweep; Φ realises g_k at the stated distance."""
    example = make(k)
    found = float(distance(example.target, example.gamma).value)
    np.testing.assert_allclose(found, example.seminorm, rtol=1e-9)
    assert example.distance_lower <= example.distance_upper
    assert example.exact
    assert equal(example.nearest, example.target)
    reached = parameter_distance(example.nearest, example.gamma)
    np.testing.assert_allclose(reached, example.distance_upper, rtol=1e-12)


@pytest.mark.parametrize(
    "make",
    [exploding_gradient, complete_unbalancedness, unbalancedness, opposite_networks],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("k", KS)
def test_distances_are_infima_over_the_whole_fibre(make, k):
    example = make(k)
    found = fibre_distance(example.gamma, example.target)
    assert found.complete
    np.testing.assert_allclose(found.value, example.distance_lower, rtol=1e-12)


def test_table_written_out():
    """(seminorm, distance) as the page of the paper has them."""
    for k in KS:
        rows = {
            "exploding gradient": (k**2, k),
            "complete unbalancedness": (1 / k, max(1, k**-0.5)),
            "unbalancedness": (1 / k, k),
            "redundant directions": (1 / k, 1),
            "opposite vectors": (1 / k, 0.5),
            "opposite networks": (3, np.sqrt(2) * k),
        }
        for make in PATHOLOGIES:
            example = make(k)
            semi, far = rows.pop(example.name)
            np.testing.assert_allclose(example.seminorm, semi, rtol=1e-14)
            np.testing.assert_allclose(example.distance_lower, far, rtol=1e-14)
        assert not rows


@pytest.mark.parametrize("k", [1.0, 2.0, 10.0])
def test_exploding_gradient_is_small_in_the_uniform_norm(k):
    example = exploding_gradient(k)
    np.testing.assert_allclose(
        float(supnorm(example.target, 1.0).value), 1 / k, rtol=1e-9
    )
    ticks = np.linspace(-1, 1, 201)
    x = np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2)
    seen = np.abs(np.asarray(example.target(jnp.asarray(x)))).max()
    assert seen <= example.supremum * (1 + 1e-9)
    np.testing.assert_allclose(seen, example.supremum, rtol=1e-9)


@pytest.mark.parametrize("r", [0.01, 0.5, 7.0])
def test_complete_unbalancedness_for_any_row(r):
    for k in KS:
        example = complete_unbalancedness(k, r)
        assert example.distance_lower == max(r, k**-0.5)
        found = fibre_distance(example.gamma, example.target)
        np.testing.assert_allclose(found.value, example.distance_lower, rtol=1e-12)


def test_redundant_directions_cannot_be_closer():
    """Some neuron of Φ lies on the plane of (0, 1): its first entry is 0."""
    example = redundant_directions(100.0)
    found = fibre_distance(example.gamma, example.target)
    assert found.complete
    np.testing.assert_allclose(found.value, 1, rtol=1e-12)


def test_opposite_vectors_bound_by_a_grid():
    """min_i min_t |a_i - t v| for other directions, by brute force over t."""
    rng = np.random.default_rng(0)
    for d in (2, 3):
        rows = rng.normal(size=(4, d))
        rows[-1] -= rows.sum(axis=0)
        v = rng.normal(size=d)
        example = opposite_vectors(5.0, rows, v)
        assert not example.exact
        assert example.nearest is None
        t = np.linspace(-20, 20, 400_001)
        best = min(np.abs(a - t[:, None] * v).max(axis=1).min() for a in rows)
        np.testing.assert_allclose(example.distance_lower, best, atol=2e-4)
        assert example.distance_lower <= best * (1 + 1e-12)
        x = jnp.asarray(rng.normal(size=(50, d)))
        np.testing.assert_allclose(example.gamma(x), 0, atol=1e-13)
        r = float(distance(example.target, example.gamma).value)
        np.testing.assert_allclose(r, np.abs(v).max() / 5, rtol=1e-9)


def test_bounds_are_not_promised_and_not_kept():
    """Every pathology escapes the theorem by a hypothesis that fails."""
    for make, failing in (
        (complete_unbalancedness, None),
        (unbalancedness, None),
        (redundant_directions, "C.2"),
        (opposite_vectors, "C.3(a) for Γ"),
        (opposite_networks, "C.3(b)"),
    ):
        example = make(100.0)
        r = example.seminorm
        found = inverse_stable(
            example.gamma, example.target, beta=np.sqrt(2 * r), max_free_signs=8
        )
        names = [h.name for h in found.hypotheses if not h]
        assert not found.holds
        assert (failing or "C.1") in names
        assert example.distance_lower > np.sqrt(2 * r) + 2 * np.sqrt(r)
        assert example.distance_lower <= found.distance * (1 + 1e-12)


def test_balance_alone_does_not_help():
    example = opposite_networks(10.0)
    assert is_restricted(example.gamma, "N'")
    assert is_restricted(example.target, "N'")
    assert not is_restricted(example.gamma, "N*")


def test_precision_is_kept(dtype):
    for make in PATHOLOGIES:
        example = make(3.0, dtype=dtype)
        nets = (example.gamma, example.target, example.nearest)
        for leaf in itertools.chain(*map(jax.tree.leaves, nets)):
            assert leaf.dtype == dtype
        found = float(distance(example.target, example.gamma).value)
        np.testing.assert_allclose(found, example.seminorm, rtol=1e-5)


def test_refusals():
    for make in (exploding_gradient, unbalancedness, opposite_networks):
        with pytest.raises(ValueError, match="at least 1"):
            make(0.5)
    with pytest.raises(ValueError, match="positive"):
        complete_unbalancedness(2.0, 0.0)
    with pytest.raises(ValueError, match="both or neither"):
        opposite_vectors(2.0, v=np.array([0.0, 1]))
    with pytest.raises(ValueError, match="expected 0"):
        opposite_vectors(2.0, np.eye(2), np.array([1.0, 1]))
    with pytest.raises(ValueError, match="independent"):
        opposite_vectors(2.0, np.array([[1.0, 2], [-1, -2]]), np.array([1.0, 1]))
    assert isinstance(opposite_vectors(2.0).gamma, jr.Shallow)
