"""Laws of Marchenko-Pastur type against scalar equations and random draws."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from _draws import normal

import jaxrelu as jr
from jaxrelu import theory
from jaxrelu.activations import (
    Erf,
    LeakyReLU,
    Linear,
    Quadratic,
    Tanh,
    activation,
    dual_kernel,
)


def sphere(key, n, d):
    x = normal(key, (n, d))
    return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))


def mean_and_mass(law):
    x, density = map(np.asarray, law)
    return np.trapezoid(x * density, x), np.trapezoid(density, x)


@pytest.mark.parametrize(("samples", "features"), [(100, 400), (400, 100)])
def test_bulk_has_the_moments_of_its_matrix(samples, features):
    law = theory.bulk_density(samples, features, scale=2.0, shift=1.0, mass=0.3)
    mean, mass = mean_and_mass(law)
    np.testing.assert_allclose(mass, 0.3, rtol=1e-3)
    # trace Z Zᵀ / features = samples, shared by the eigenvalues that are not 0
    each = samples / min(samples, features)
    np.testing.assert_allclose(mean / mass, 1 + 2 * each, rtol=1e-3)


@pytest.mark.parametrize("name", ["relu", "softplus"])
def test_sphere_law_is_that_of_the_sphere(name, float64, getkey):
    n, d = 300, 64
    law = theory.sphere_density(activation(name), n, d)
    points = sphere(getkey(), n, d)
    values = np.linalg.eigvalsh(jr.neural_covariance(activation(name), points))
    mean, mass = mean_and_mass(law)
    np.testing.assert_allclose(mass, 1, rtol=2e-3)
    np.testing.assert_allclose(mean, values.mean(), rtol=0.03)
    x, density = map(np.asarray, law)
    steps = np.diff(x) * (density[1:] + density[:-1]) / 2
    law_count = np.concatenate([[0], np.cumsum(steps)])
    counted = np.searchsorted(values, x) / n
    assert np.max(np.abs(law_count - counted)) < 0.03


def test_finite_width_count_reduces_to_marchenko_pastur(float64):
    """One input dimension: the scalar equation, solved by bisection."""
    rng = np.random.default_rng(0)
    n, k, shift = 20, 10.0, 0.3
    root = rng.standard_normal((n, n)) / n**0.5
    population = root @ root.T
    found = theory.finite_width_count(
        jnp.asarray(population), jnp.ones((n, 1)), jnp.asarray(k), jnp.asarray(shift)
    )
    values = np.linalg.eigvalsh(population)

    def gap(delta):
        return delta - np.sum(values / (values / (1 + delta) + shift)) / k

    delta = scipy.optimize.brentq(gap, 0, 1e4, xtol=1e-13)
    expected = n - shift * np.sum(1 / (values / (1 + delta) + shift))
    np.testing.assert_allclose(found, expected, rtol=3e-4)


def test_finite_width_count_agrees_with_random_networks(float64, getkey):
    n, d, k = 80, 16, 32
    points = sphere(getkey(), n, d)
    gates = dual_kernel(activation("softplus"), points, derivative=1)
    limit = np.linalg.eigvalsh(np.asarray(gates) * np.asarray(points @ points.T))
    shift = float(limit[n // 4])

    def soft_count(values):
        found = theory.smoothed_count(jnp.asarray(values), jnp.asarray([shift]))
        return np.asarray(found)[0]

    counts, outer = [], jnp.asarray(np.repeat([1, -1], k // 2) / k**0.5)
    for _ in range(60):
        net = jr.Shallow(jnp.asarray(normal(getkey(), (k, d))), outer, "softplus")
        counts.append(soft_count(np.linalg.eigvalsh(jr.gram(jr.jacobian(net, points)))))
    law = theory.finite_width_count(
        gates, points, jnp.asarray(float(k)), jnp.asarray(shift)
    )
    error = np.std(counts, ddof=1) / 60**0.5
    infinite = soft_count(limit)
    law = float(law)
    assert abs(np.mean(counts) - law) < 4 * error + 0.02 * (infinite - law)
    assert infinite - np.mean(counts) > 10 * error  # there is something to predict


@pytest.mark.parametrize(("n", "d"), [(10, 20), (300, 10)])
def test_sphere_density_needs_separate_bulks(n, d):
    with pytest.raises(ValueError, match="expected d < n < d²/2"):
        theory.sphere_density(activation("relu"), n, d)


def test_finite_width_count_converges_where_plain_iteration_crawls(float64):
    """n slightly above kd and a tiny shift: by the same equation, 3000 plain steps."""
    rng = np.random.default_rng(0)
    n, d, k, shift = 40, 2, 19, 1e-6
    x = rng.standard_normal((n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    gates = np.asarray(dual_kernel(activation("relu"), jnp.asarray(x), derivative=1))

    def resolvent(delta):
        middle = x @ np.linalg.solve(np.eye(d) + delta, x.T)
        return np.linalg.inv(gates * middle + shift * np.eye(n))

    delta = np.eye(d)
    for step in range(3000):
        last, delta = delta, x.T @ ((gates * resolvent(delta)) @ x) / k
        if step == 100:  # the plain iteration is still under way
            assert np.linalg.norm(delta - last) > 1e-4 * np.linalg.norm(last)
    exact = n - shift * np.trace(resolvent(delta))
    found = theory.finite_width_count(jnp.asarray(gates), jnp.asarray(x), k, shift)
    assert float(found) == pytest.approx(exact, rel=3e-4)
    assert float(found) <= k * d


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gates": jnp.eye(4)}, r"gates is \(4, 4\).*expected \(3, 3\)"),
        ({"gates": jnp.full((3, 3), jnp.nan)}, "gates holds 9 NaN"),
        ({"k": 0.5}, "k is 0.5; expected a width of at least 1"),
        ({"shift": 0.0}, "shift is 0.0; expected a positive"),
        ({"shift": float("nan")}, "shift is nan; expected a positive"),
    ],
)
def test_finite_width_count_refuses(changes, words):
    given = {"gates": jnp.eye(3), "inputs": jnp.eye(3), "k": 2, "shift": 0.1}
    with pytest.raises(ValueError, match=words):
        theory.finite_width_count(**(given | changes))


@pytest.mark.parametrize(
    ("act", "r"),
    [(Tanh(), 1), (Erf(), 1), (Quadratic(), 0), (Linear(), 1), (LeakyReLU(-1.0), 0)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_sphere_density_refuses_laws_with_atoms(act, r, dtype):
    with pytest.raises(ValueError, match=f"activation is {act.name}.*c_{r} = 0.*atom"):
        theory.sphere_density(act, 30, 10)
