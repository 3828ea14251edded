"""The sup norm on a box and the full W^{1,inf} norm."""

import jax.numpy as jnp
import numpy as np
import pytest
from _realization_cases import (
    affine_network,
    degenerate_network,
    network,
    random_network,
)

import jaxrelu as jr
from jaxrelu.realization import (
    seminorm,
    sobolev_norm,
    supnorm,
)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_sup_norm(d, biased, float64):
    """Vertices against linear programs on every cell, and against sampling."""
    net = affine_network(5, d, 2) if biased else random_network(5, d, 2)
    by_vertices = supnorm(net, 1.5, method="vertices")
    by_programs = supnorm(net, 1.5, method="lp")
    assert float(by_vertices) == pytest.approx(float(by_programs), rel=1e-9)
    assert float(by_vertices.error) < 1e-9
    x = np.random.default_rng(0).uniform(-1.5, 1.5, (4000, d))
    seen = np.abs(np.asarray(net(jnp.asarray(x)))).max()
    assert 0.9 * float(by_vertices) < seen <= float(by_vertices) * (1 + 1e-12)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_sup_norm_between_corners(turn, float64):
    """relu(-x_2) - |x_1| / 2, turned: largest in the middle of one side."""
    inner = np.array([[1, 0], [-1, 0], [0, -1]]) @ np.linalg.matrix_power(
        np.array([[0, 1], [-1, 0]]), turn
    )
    net = network(inner, [-0.5, -0.5, 1.0])
    assert float(supnorm(net, 3.0)) == pytest.approx(3, rel=1e-13)
    dense = jr.DenseNetwork((net.inner, net.outer), (jnp.zeros(3), jnp.array(0.25)))
    assert float(supnorm(dense, 3.0)) == pytest.approx(3.25, rel=1e-13)


def test_sup_norm_of_degenerate_networks(float64):
    for d in (2, 3):
        net = degenerate_network(d, 2, 3)
        by_vertices, by_programs = supnorm(net, 2.0), supnorm(net, 2.0, method="lp")
        assert float(by_vertices) == pytest.approx(float(by_programs), rel=1e-9)


def test_sup_norm_is_at_most_dB_times_the_semi_norm(float64):
    for d, half_width in ((2, 0.5), (3, 2.0)):
        net = random_network(6, d, 2)
        limit = d * half_width * float(seminorm(net))
        assert float(supnorm(net, half_width)) <= limit
        sharp = network(np.ones((1, d)), [1.0])
        limit = d * half_width * float(seminorm(sharp))
        assert float(supnorm(sharp, half_width)) == pytest.approx(limit)


def test_full_norm(float64):
    net = random_network(6, 2, 1)
    small, large = sobolev_norm(net, 0.5), sobolev_norm(net, 50.0)
    assert float(small) == float(seminorm(net))
    assert float(large) == float(supnorm(net, 50.0)) > float(small)
    assert small.error_kind == "rounding bound"


def test_merged_rows_are_in_the_error_of_the_sup_norm():
    """A ridge 3e-7 wide: what single precision takes as one row costs its height."""
    net = network([[1, 1], [1, 1 + 3e-7]], [1e6, -1e6], np.float32)
    inner = np.asarray(net.inner, float)
    corner = np.array([-1.0, -1.0]), np.array([1.0, 1.0]), np.array([-1.0, 1.0])
    values = [1e6 * np.maximum(inner @ x, 0) @ [1, -1] for x in corner]
    expected = np.abs(values).max()
    for method in ("vertices", "lp"):
        got = supnorm(net, 1.0, method=method)
        assert abs(float(got) - expected) <= float(got.error) < 10


def test_sup_norm_refusals():
    net = random_network(60, 8, 1)
    with pytest.raises(ValueError, match="candidate vertices"):
        supnorm(net, 1.0, method="vertices")
    with pytest.raises(ValueError, match="linear programs"):
        supnorm(net, 1.0)
    with pytest.raises(ValueError, match="half_width"):
        supnorm(net, 0.0)
