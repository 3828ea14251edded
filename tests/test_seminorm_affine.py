"""Semi-norms of networks with biases, on R^d and on boxes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _realization_cases import (
    NORMS,
    affine_network,
    degenerate_network,
    jacobian_norms,
)

import jaxrelu as jr
from jaxrelu.realization import (
    bounds,
    cells,
    distance,
    seminorm,
)


def test_affine_semi_norm_in_one_dimension(float64):
    """Slopes between consecutive kinks, by hand."""
    net = affine_network(9, 1, 2)
    kinks = np.sort(np.asarray(-net.biases[0] / net.weights[0][:, 0]))
    middles = np.concatenate(
        [[kinks[0] - 1], (kinks[1:] + kinks[:-1]) / 2, [kinks[-1] + 1]]
    )
    for norm in NORMS:
        expected = jacobian_norms(net, middles[:, None], norm)
        for method in ("auto", "recursion", "rational"):
            assert float(seminorm(net, norm, method)) == pytest.approx(expected.max())
        inside = expected[np.abs(middles) < 0.7]
        # the cells that the end points of the box lie in
        ends = jacobian_norms(net, np.array([[-0.7 + 1e-9], [0.7 - 1e-9]]), norm)
        box = float(seminorm(net, norm, domain=0.7))
        assert box == pytest.approx(max(inside.max(initial=0), ends.max()))


def test_affine_semi_norm_in_the_plane(float64):
    """A fine grid sees the larger cells; the cells' own points see all."""
    net = affine_network(6, 2, 2)
    grid = np.stack(np.meshgrid(*[np.linspace(-40, 40, 150)] * 2), -1).reshape(-1, 2)
    points = np.concatenate([grid, cells(net).points])
    for norm in ("max", "spectral"):
        expected = jacobian_norms(net, points, norm).max()
        for method in ("auto", "great-circle", "recursion", "rational"):
            assert float(seminorm(net, norm, method)) == pytest.approx(expected)
        between = bounds(net, norm)
        assert float(between.lower) <= expected <= float(between.upper)
    inside = grid[np.abs(grid).max(1) < 1] / 1.0
    fine = np.random.default_rng(0).uniform(-1, 1, (20000, 2))
    seen = jacobian_norms(net, np.concatenate([inside, fine]), "max").max()
    for method in ("auto", "rational", "lp", "milp"):
        assert float(seminorm(net, "max", method, domain=1.0)) == pytest.approx(seen)
    key = jax.random.key(0)
    between = bounds(net, "fro", 1.0, key=key, num_starts=8, num_steps=8)
    inside = float(seminorm(net, "fro", domain=1.0))
    assert 0.9 * inside <= float(between.lower) <= inside <= float(between.upper)


def test_a_kink_outside_the_box_does_not_count():
    net = jr.DenseNetwork(
        (jnp.ones((1, 1)), jnp.ones((1, 1))), (jnp.array([-10.0]), None)
    )
    assert float(seminorm(net)) == 1
    assert float(seminorm(net, domain=1.0)) == 0
    assert float(bounds(net, domain=1.0).lower) == 0
    assert float(seminorm(net, domain=11.0)) == 1


def test_rows_that_lie_on_the_walls(float64):
    """A constant neuron is parallel to infinity, a kink at B to a side of the box."""
    inner = jnp.array([[0.0], [0.0], [1.0], [-2.0], [1.0]])
    bias = jnp.array([-1.0, 2.0, -1.0, -2.0, 0.5])
    net = jr.DenseNetwork((inner, jnp.array([[5.0, 1.0, 3.0, 4.0, 1.0]])), (bias, None))
    for method in ("auto", "rational", "lp", "milp"):
        # slopes -8, 0, 1 and 4 between the kinks -1, -1/2 and 1
        assert float(seminorm(net, "max", method)) == pytest.approx(8)
        assert float(seminorm(net, "max", method, domain=1.0)) == pytest.approx(1)
        assert float(seminorm(net, "max", method, domain=1.1)) == pytest.approx(8)
    assert len(cells(net)) == len(cells(net, method="rational")) == 4


def test_biases_that_are_zero_change_nothing(float64):
    net = degenerate_network(3, 2, 2)
    dense = jr.DenseNetwork((net.inner, net.outer), (jnp.zeros(9), jnp.ones(2)))
    for norm in ("max", "fro"):
        assert float(seminorm(dense, norm)) == pytest.approx(float(seminorm(net, norm)))
    assert float(distance(dense, net)) <= 1e-13
