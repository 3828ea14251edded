"""The lazy regime: measurements by autodiff, a linear model, and the exponents."""

import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import pytest
from _draws import random_of

from jaxrelu.activations import activation
from jaxrelu.data import Dataset
from jaxrelu.experiments import _fitting, _lazy, lazy_scaling


@pytest.fixture(scope="module")
def relu():
    with jax.enable_x64(True):
        return lazy_scaling(
            jrandom.key(3), [64, 4096], n=8, d=8, seeds=4, activation="relu"
        )


@pytest.fixture(scope="module")
def softplus():
    with jax.enable_x64(True):
        return lazy_scaling(jrandom.key(3), [64, 4096], n=8, d=8, seeds=4)


@pytest.mark.slow
def test_exponents(relu, softplus):
    """Deviation k^(-1/4) for ReLU, k^(-1/2) for softplus; flips k^(-1/2)."""
    for found, rate in ((relu, -0.25), (softplus, -0.5)):
        assert found.converged.all()
        law = found.exponent("deviation")
        assert abs(law.exponent - rate) < 0.1
        assert law.error < 0.08
        assert abs(found.exponent("distance").exponent) < 0.05
    assert abs(relu.exponent("flip_fraction").exponent + 0.5) < 0.1


@pytest.mark.slow
def test_distance_is_that_of_the_linearised_optimum(relu, softplus):
    for found in (relu, softplus):
        ratio = found.distance / found.linearised_distance
        errors = np.abs(ratio - 1).max(axis=1)
        assert errors[-1] < 0.01
        assert errors[0] < 0.2
        assert (found.path_ratio >= 1).all()
        assert (found.path_ratio < 1.5).all()


def test_measurement_by_autodiff(dtype, getkey):
    act, rng = activation("softplus"), random_of(getkey())
    shapes = ((4, 3), (4,), (6, 3), (6,), (6, 3))
    X, y, W, v, step = (
        jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes
    )
    problem = _fitting.Problem(X, y, jnp.ones((4,), dtype), W, v)
    found = jax.jit(_lazy.measure)(act, problem, W + step)

    def f(w):
        return jnp.log1p(jnp.exp(X @ w.T)) @ v

    jacobians = lambda *at: [jax.jacrev(f)(w) for w in at]
    J0, J1 = (np.asarray(J).reshape(4, -1) for J in jax.jit(jacobians)(W, W + step))
    smallest = np.linalg.svd(J0)[1][-1]
    deviation = np.linalg.norm(J1 - J0, 2) / smallest
    X, y, W, v, step = (np.asarray(a) for a in (X, y, W, v, step))
    r = np.log1p(np.exp(X @ W.T)) @ v - y
    closest = np.linalg.lstsq(J0, r, rcond=None)[0]
    flips = np.mean((X @ W.T > 0) != (X @ (W + step).T > 0))
    tolerance = {"rtol": 2e3 * float(jnp.finfo(dtype).eps)}
    np.testing.assert_allclose(found["smallest"], smallest, **tolerance)
    np.testing.assert_allclose(found["deviation"], deviation, **tolerance)
    np.testing.assert_allclose(found["flip_fraction"], flips, **tolerance)
    np.testing.assert_allclose(found["distance"], np.linalg.norm(step), **tolerance)
    linear = found["linearised_distance"]
    np.testing.assert_allclose(linear, np.linalg.norm(closest), **tolerance)
    assert 0 < flips < 1
    assert linear.dtype == dtype


def test_linear_networks_do_not_leave_their_linearisation(float64):
    """A constant Jacobian: no deviation, and the closest interpolant is reached."""
    rng = np.random.default_rng(0)
    data = Dataset(jnp.asarray(rng.normal(size=(3, 6))), jnp.array([1.0, -2.0, 0.5]))
    found = lazy_scaling(
        jrandom.key(0), [8], data=data, activation="linear", tolerance=1e-9, seeds=2
    )
    assert found.converged.all()
    np.testing.assert_array_equal(found.deviation, 0)
    np.testing.assert_allclose(found.distance, found.linearised_distance, rtol=1e-7)
    assert found.activation == "linear"
    with pytest.raises(ValueError, match="at 0 widths"):
        found.exponent("deviation")
    with pytest.raises(ValueError, match="quantity is 'speed'"):
        found.exponent("speed")


@pytest.mark.parametrize(
    ("widths", "changes", "words"),
    [
        ([], {}, "at least one"),
        ([3], {}, "even"),
        ([0], {}, "width is 0"),
        ([2], {"seeds": 0}, "seeds is 0"),
        ([2], {"max_steps": 0}, "max_steps is 0"),
        ([2], {"tolerance": 0.0}, "tolerance"),
    ],
)
def test_bad_input(widths, changes, words):
    with pytest.raises(ValueError, match=words):
        lazy_scaling(jrandom.key(0), widths, **changes)


def test_memory_is_asked_for_first(monkeypatch):
    monkeypatch.setenv("JAXRELU_MEMORY_LIMIT", "1000")
    with pytest.raises(MemoryError, match="Lower k or seeds"):
        lazy_scaling(jrandom.key(0), [64])


def test_where_no_weights_fit_the_linearised_problem(float64):
    """30 samples and 8 weights; and a tolerance that asks for no step."""
    key = jax.random.key(0)
    found = lazy_scaling(key, [4], n=30, d=2, seeds=2, max_steps=20)
    assert np.isinf(found.linearised_distance).all()
    assert (found.smallest == 0).all()
    found = lazy_scaling(key, [4], n=30, d=2, seeds=2, max_steps=20, tolerance=100.0)
    assert (found.steps == 0).all()
    np.testing.assert_array_equal(found.path_ratio, 1)
