"""Recovery of shallow networks from gradient queries."""

import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu._results import RESULTS
from jaxrelu.realization import (
    canonical,
    equal,
    gradient_queries,
    minimal_network,
    recover,
)


def numpy_gradient(inner, outer, count=None):
    """Df by the definition, in numpy; counts what it is asked."""
    outer = np.atleast_2d(outer)

    def gradient(x):
        active = np.asarray(x, np.float64) @ inner.T > 0
        if count is not None:
            count.append(len(active))
        return jnp.asarray(np.einsum("nk,mk,kd->nmd", active, outer, inner), x.dtype)

    return gradient


@pytest.mark.parametrize("seed", range(8))
def test_networks_are_recovered(seed, float64):
    """Opposite and collinear pairs included; one and two outputs."""
    rng = np.random.default_rng(seed)
    k, d, m = int(rng.integers(3, 25)), int(rng.integers(2, 6)), 1 + seed % 2
    inner, outer = rng.normal(size=(k, d)), rng.normal(size=(m, k))
    inner[1], inner[2] = -inner[0], 3 * inner[0]
    found = recover(
        numpy_gradient(inner, outer), d, key=jrandom.key(seed), m=None if m == 1 else m
    )
    wanted = canonical(
        jr.Shallow(jnp.asarray(inner), jnp.asarray(outer if m > 1 else outer[0]))
    )
    assert found.result == RESULTS.successful
    assert found.form.normals.shape == (k - 2, d)
    np.testing.assert_allclose(found.form.normals, wanted.normals, atol=1e-9)
    np.testing.assert_allclose(found.form.kinks, wanted.kinks, atol=1e-9)
    np.testing.assert_allclose(found.form.linear, wanted.linear, atol=1e-9)
    x = rng.normal(size=(50, d))
    value = np.maximum(x @ inner.T, 0) @ outer.T
    np.testing.assert_allclose(
        found.form(x), value if m > 1 else value[:, 0], atol=1e-8
    )


def test_recovered_networks_run(dtype):
    rng = np.random.default_rng(0)
    inner, outer = jnp.asarray(rng.normal(size=(5, 3)), dtype), rng.normal(size=5)
    network = jr.Shallow(inner, jnp.asarray(outer, dtype))
    found = recover(gradient_queries(network), 3, key=jrandom.key(0))
    again = minimal_network(found.form)
    assert again.inner.dtype == dtype
    assert equal(again, network, tolerance=1e-7 if dtype == "float64" else 1e-3)


def test_cancelling_jumps_are_found(float64):
    """Three jumps that sum to 0: both ends of the circle have one derivative."""
    inner = np.array([[1, 0], [-0.5, 1], [-0.5, -1.0]])
    for seed in range(5):
        found = recover(
            numpy_gradient(inner, np.ones(3)), 2, key=jrandom.key(seed), grid=8
        )
        assert len(found.form.normals) == 3


def test_linear_and_zero_functions_have_no_kinks(float64):
    inner = np.array([[1.0, 2], [-1, -2]])
    found = recover(numpy_gradient(inner, [1, -1]), 2, key=jrandom.key(0))
    assert len(found.form.normals) == 0
    np.testing.assert_allclose(found.form.linear, [[1, 2]])
    found = recover(numpy_gradient(inner, [0, 0]), 2, key=jrandom.key(0))
    np.testing.assert_array_equal(found.form.linear, 0)


def test_queries_are_counted(float64):
    rng, count = np.random.default_rng(0), []
    inner, outer = rng.normal(size=(10, 3)), rng.normal(size=10)
    found = recover(numpy_gradient(inner, outer, count), 3, key=jrandom.key(0))
    assert found.queries <= sum(count)
    assert 64 + 256 < found.queries < 64 + 256 + 200


def test_the_check_notices_what_was_missed(float64):
    """A kink hidden from the circle's grid, and none of the halvings allowed."""
    rng = np.random.default_rng(0)
    inner, outer = rng.normal(size=(12, 3)), rng.normal(size=12)
    gradient = numpy_gradient(inner, outer)
    settings = {"key": jrandom.key(0), "grid": 2, "max_depth": 1}
    missed = recover(gradient, 3, **settings, throw=False)
    assert missed.result == RESULTS.no_convergence
    assert missed.mismatch > 1e-3
    with pytest.raises(RuntimeError, match="mismatch"):
        recover(gradient, 3, **settings)
    with pytest.raises(ValueError, match="at least 2"):
        recover(gradient, 1, key=jrandom.key(0))
