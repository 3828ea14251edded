"""The W^{1,inf} semi-norm by exact methods: norms, agreement, pathologies, laws."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from _realization_cases import (
    NORMS,
    degenerate_network,
    jacobian_norms,
    jacobians_at,
    network,
    random_network,
)
from hypothesis import given, settings, strategies as st

from jaxrelu.realization import (
    cells,
    distance,
    seminorm,
    supnorm,
)
from jaxrelu.realization._norms import host_norm, jax_norm


# ---------------------------------------------------------------------- the five norms


def test_norms_are_the_operator_norms(float64):
    """As Lipschitz constants: maxima over the extreme points of the unit balls."""
    g = np.random.default_rng(0).standard_normal((3, 4))
    corners = np.array(list(itertools.product((-1, 1), repeat=4))).T
    assert host_norm(g, "opinf") == pytest.approx(np.abs(g @ corners).max())
    assert host_norm(g, "op1") == pytest.approx(np.abs(g @ np.eye(4)).sum(0).max())
    assert host_norm(g, "max") == np.abs(g @ np.eye(4)).max()
    assert host_norm(g, "fro") == pytest.approx(np.sqrt(np.trace(g @ g.T)))
    top = np.sqrt(np.linalg.eigvalsh(g.T @ g)[-1])
    assert host_norm(g, "spectral") == pytest.approx(top)
    for norm in NORMS:
        assert jax_norm(jnp.asarray(g), norm) == pytest.approx(host_norm(g, norm))


# ----------------------------------------------------------------- exact methods agree


def agree(net, methods, norms=NORMS):
    points = cells(net, method="lp").points
    for norm in norms:
        expected = jacobian_norms(net, points, norm).max()
        for method in methods:
            got = seminorm(net, norm, method)
            assert abs(float(got) - expected) <= 1e-10 * max(expected, 1), method
            assert float(got.error) <= 1e-11 * max(expected, 1)


@pytest.mark.parametrize("make", ["random", "degenerate"])
@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize(("d", "sweeps"), [(2, 2), (3, 1), (4, 0)])
def test_exact_methods_agree(d, sweeps, m, make, float64):
    """Against autodiff at a point of every cell that linear programs find."""
    net = random_network(6 if d == 4 else 7, d, m)
    if make == "degenerate":
        net = degenerate_network(d, m, 1)
    methods = ("great-circle", "angular")[:sweeps] if sweeps else ()
    agree(net, ("recursion", "rational", *methods, "auto"))
    agree(net, ("lp", "milp"), ("max",))


def test_sweeps_of_padded_networks_agree(float64):
    """A plane without weight makes rank 2 rank 3: another method, the same answer."""
    for seed in range(5):
        flat = random_network(8, 2, 2, seed)
        inner = np.zeros((9, 3))
        inner[:8, :2], inner[8, 2] = flat.inner, 1.0
        padded = network(inner, np.column_stack([flat.outer, np.zeros(2)]))
        for norm in NORMS:
            angular, circles = seminorm(flat, norm), seminorm(padded, norm)
            assert "angular" in angular.method
            assert "great-circle" in circles.method
            assert float(angular) == pytest.approx(float(circles), abs=1e-12)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_sweeps_equal_integer_arithmetic(data):
    """Small integer weights: every coincidence that sweeps have to notice."""
    d, k = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 8))
    entries = st.lists(st.integers(-3, 3), min_size=k * d, max_size=k * d)
    inner = np.array(data.draw(entries), float).reshape(k, d)
    outer = st.lists(st.integers(-3, 3), min_size=2 * k, max_size=2 * k)
    net = network(inner, np.array(data.draw(outer), float).reshape(2, k))
    for norm in ("max", "opinf", "op1"):
        exact = seminorm(net, norm, "rational")
        assert exact.error_kind == "exact"
        assert float(exact.error) == 0
        # integers up to 8 * 9 * 3: no sum is rounded
        assert float(seminorm(net, norm)) == float(exact)
        assert float(seminorm(net, norm, "recursion")) == float(exact)


def test_larger_sweeps_equal_the_recursion(float64):
    for k, d in ((300, 2), (40, 3)):
        net = random_network(k, d, 2)
        for norm in ("max", "spectral"):
            expected = float(seminorm(net, norm, "recursion"))
            assert float(seminorm(net, norm)) == pytest.approx(expected, rel=1e-13)


def test_rank_is_reduced(float64):
    """Three planes in R^6: eight cells, and the upper bound is attained."""
    net = random_network(3, 6, 2)
    assert len(cells(net)) == 8
    assert "great-circle" in seminorm(net).method
    flat = network(np.asarray(net.inner) @ np.eye(6)[:, :2] @ np.eye(2, 6), net.outer)
    assert "angular" in seminorm(flat).method
    agree(flat, ("rational", "angular"), ("max",))


def test_closed_forms_of_one_and_two_neurons(float64):
    net = random_network(2, 3, 2, 5)
    a, c = np.asarray(net.inner), np.asarray(net.outer)
    one = network(a[:1], c[:, :1])
    for norm in NORMS:
        parts = [np.outer(c[:, i], a[i]) for i in (0, 1)]
        norms = [float(host_norm(g, norm)) for g in (*parts, parts[0] + parts[1])]
        assert float(seminorm(one, norm)) == pytest.approx(norms[0])
        assert float(seminorm(net, norm)) == pytest.approx(max(norms))


# ------------------------------------------------------------------------- pathologies


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_pathologies(k, float64):
    """Spot values of Berner, Elbrächter & Grohs' examples, worked out on paper."""
    exploding = network([[k, 0], [k, -1 / k**2]], [k, -k])
    assert float(seminorm(exploding)) == pytest.approx(k**2)
    assert float(supnorm(exploding, 1.0)) == pytest.approx(1 / k)
    unbalanced = network([[1, 0]], [0.0]), network([[0, 1]], [1 / k])
    assert float(distance(*unbalanced)) == pytest.approx(1 / k)
    redundant = network([[1, 0], [1, 0]], [1.0, 1]), network(np.eye(2), [2.0, 1 / k])
    assert float(distance(*redundant)) == pytest.approx(1 / k)
    a = np.array([[1, 0], [-0.5, 1], [-0.5, -1]])
    opposite = network(np.concatenate([a, -a]), [1.0] * 3 + [-1.0] * 3)
    assert float(seminorm(opposite)) == 0
    slope = network([[0, 1]], [1 / k])
    assert float(distance(slope, opposite)) == pytest.approx(1 / k)
    r = np.sqrt(2)
    b = np.array([[k, k, 1 / k], [-k, k, 1 / k], [0, -r * k, 1 / (r * k)]])
    c = k * np.array([1, 1, r])
    assert float(distance(network(b, c), network(-b, c))) == pytest.approx(3, rel=1e-9)


def test_a_network_is_at_distance_zero_from_its_copies(float64):
    net = random_network(6, 3, 2)
    scale = np.array([0.5, 3.0, 1e3, 1e-3, 7.0, 1.0])
    order = np.array([3, 1, 5, 0, 2, 4])
    inner = np.asarray(net.inner) * scale[:, None]
    outer = np.asarray(net.outer) / scale
    copy = network(inner[order], outer[:, order])
    got = distance(net, copy)
    assert float(got) <= 1e-13
    assert float(got) <= float(got.error)


# -------------------------------------------------------------------------- properties


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.integers(2, 4))
def test_semi_norm_properties(seed, norm, d):
    """Homogeneity, the triangle inequality, invariance; G(s) + G(-s) = T."""
    rng = np.random.default_rng(seed)
    f, g = random_network(5, d, 2, seed), random_network(4, d, 2, seed + 1)
    if seed % 3 == 0:
        f = degenerate_network(d, 2, seed)
    k = f.inner.shape[0]
    semi = lambda net: float(seminorm(net, norm))
    size, close = semi(f), {"rel": 1e-5}
    factor = rng.uniform(-3, 3)
    assert semi(network(f.inner, factor * f.outer)) == pytest.approx(
        abs(factor) * size, **close
    )
    both = semi((f, network(g.inner, -g.outer)))
    assert both <= (size + semi(g)) * (1 + 1e-5)
    assert semi((f, g)) >= abs(size - semi(g)) - 1e-5 * size
    order, scale = rng.permutation(k), 2.0 ** rng.integers(-3, 4, k)
    moved = network(
        (np.asarray(f.inner) * scale[:, None])[order],
        (np.asarray(f.outer) / scale)[:, order],
    )
    assert semi(moved) == pytest.approx(size, **close)


def test_opposite_jacobians_add_up(float64):
    net = degenerate_network(3, 2, 0)
    total = np.asarray(net.outer) @ np.asarray(net.inner)
    x = cells(net).points
    both = jacobians_at(net, jnp.asarray(x)) + jacobians_at(net, jnp.asarray(-x))
    np.testing.assert_allclose(both, np.broadcast_to(total, both.shape), atol=1e-12)
