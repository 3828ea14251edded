"""Constants of an instance: known data, closed forms, the sphere's asymptotics."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from _cases import exact_covariance

import jaxrelu as jr
from jaxrelu import theory
from jaxrelu.activations import LeakyReLU, ReLU, Softplus, Tanh


def sphere(seed, n, d):
    """Rows uniform on the sphere, by NumPy."""
    x = np.random.default_rng(seed).standard_normal((n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("activation", "mu", "variance", "b1", "b2"),
    [
        ("relu", 0.39894228, 0.34084506, 1, math.inf),
        ("softplus", 0.20662096, 0.27151450, 1, 0.25),
        ("gelu", 0.42314219, 0.34564401, 1.128904, 0.797885),
        ("tanh", 0, 0.39429449, 1, 0.769800),
    ],
)
def test_instance_constants(activation, mu, variance, b1, b2, float64):
    act = jr.activations.activation(activation)
    x = sphere(0, 4, 6)
    case = theory.instance(act, jnp.asarray(x))
    found = [case.mu, case.variance, case.B1, case.B2]
    np.testing.assert_allclose(found, [mu, variance, b1, b2], rtol=1e-6)
    norm = np.linalg.norm(x, 2)
    square = np.linalg.eigvalsh((x @ x.T) ** 2)[0]
    lam = np.linalg.eigvalsh(exact_covariance(activation, x))[0]
    np.testing.assert_allclose(case.norm.value, norm)
    np.testing.assert_allclose(case.khatri_rao_min.value, square)
    np.testing.assert_allclose(case.covariance_min.value, lam)
    kappa = norm**3 / lam**2 if activation == "relu" else norm / square
    np.testing.assert_allclose(case.kappa, math.sqrt(6 / 4) * kappa)
    np.testing.assert_allclose(case.hermite_bound, mu**2 * square, atol=1e-9)


def test_error_of_the_smallest_eigenvalue_covers_float32():
    x = sphere(3, 30, 10).astype(np.float32)
    for act in (ReLU(), Softplus()):
        rough = theory.covariance_smallest(act, jnp.asarray(x))
        fine = np.linalg.eigvalsh(exact_covariance(act.name, x.astype(float)))[0]
        assert rough.value.dtype == jnp.float32
        assert abs(float(rough.value) - fine) <= float(rough.error) < 0.02


# ----------------------------------------------------------------------- closed forms


def test_orthonormal_rows(float64):
    x = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(6, 4)))[0].T)
    for act, value in ((ReLU(), 0.5), (Softplus(), 0.29337904)):
        np.testing.assert_allclose(theory.orthonormal_eigenvalue(act), value, atol=5e-9)
        lam = theory.covariance_smallest(act, x).value
        np.testing.assert_allclose(lam, value, atol=5e-9)


@pytest.mark.parametrize("rho", [-0.1, 0.5])
def test_equicorrelated_rows(rho, float64):
    x = jr.data.equicorrelated(10, rho)
    for act in (ReLU(), Softplus()):
        low, high = theory.equicorrelated_eigenvalues(act, 10, rho)
        sigma = np.linalg.eigvalsh(np.asarray(jr.neural_covariance(act, x)))
        np.testing.assert_allclose([low, high], sigma[[0, -1]], rtol=1e-7)
    if rho == 0.5:
        low, high = theory.equicorrelated_eigenvalues(ReLU(), 10, rho)
        np.testing.assert_allclose([low, high], [1 / 3, 2], rtol=1e-12)


def test_unit_vectors_that_do_not_exist():
    for n, rho in ((4, 2.0), (4, -0.5), (2, -1.1)):
        with pytest.raises(ValueError, match=f"rho is {rho}; expected the inner"):
            theory.equicorrelated_eigenvalues(ReLU(), n, rho)
    low, _ = theory.equicorrelated_eigenvalues(ReLU(), 4, -1 / 3)
    assert float(low) >= 0


def test_slope_kernel_table(float64):
    rho = jnp.asarray([-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(
        theory.slope_kernel(ReLU(), rho), [0, 1 / 6, 1 / 4, 1 / 3, 1 / 2], atol=1e-12
    )
    np.testing.assert_allclose(
        theory.slope_kernel(Softplus(), rho),
        [0.20662096, 0.22857167, 0.25, 0.27142833, 0.29337904],
        atol=6e-9,
    )


def test_half_circle(float64):
    lam = theory.covariance_smallest(ReLU(), jr.data.half_circle(64)).value
    np.testing.assert_allclose(lam, 0.00391096, rtol=2e-6)
    np.testing.assert_allclose(lam, theory.half_circle_relu_eigenvalue(64), rtol=2e-3)


def test_separation_bound_is_below_and_loose(float64):
    for seed in range(5):
        x = jnp.asarray(sphere(seed, 20, 3))
        delta = jr.data.separation(x)
        lam = theory.covariance_smallest(ReLU(), x).value
        assert theory.separation_eigenvalue(20, delta) < lam


def test_basis_and_bisectors(float64):
    x = jr.data.basis_and_bisectors(4)
    np.testing.assert_allclose(theory.spectral_norm(x).value, 2)
    assert theory.khatri_rao_smallest(x).value > 1e-3  # the rank limit is reached


# ------------------------------------------------------------------ sphere asymptotics


def draws(n, d):
    return [jnp.asarray(sphere(seed, n, d)) for seed in range(3)]


def covariance_of_relu(n, d):
    found = [theory.covariance_smallest(ReLU(), x).value for x in draws(n, d)]
    return np.mean(found)


@pytest.mark.parametrize(("n", "d"), [(120, 30), (160, 20)])
def test_sphere_asymptotics(n, d, float64):
    norms = np.array([theory.spectral_norm(x).value for x in draws(n, d)])
    tensors = np.array([theory.khatri_rao_smallest(x).value for x in draws(n, d)])
    norm, tensor = norms.mean(), tensors.mean()
    kappa = math.sqrt(d / n) * np.mean(norms / tensors)
    theory_says = theory.sphere_asymptotics(Softplus(), n, d)
    np.testing.assert_allclose(norm, theory_says.norm, rtol=0.1)
    slack = 0.1 if n / d**2 < 0.2 else 0.35  # the edge moves by d^(-4/3)
    np.testing.assert_allclose(tensor, theory_says.khatri_rao_min, rtol=slack)
    np.testing.assert_allclose(kappa, theory_says.kappa, rtol=slack)
    lam = covariance_of_relu(n, d)
    relu = theory.sphere_asymptotics(ReLU(), n, d)
    np.testing.assert_allclose(lam, relu.covariance_min, rtol=0.1)


def test_sphere_asymptotics_are_low_near_the_square(float64):
    lam = covariance_of_relu(40, 40)
    ratio = theory.sphere_asymptotics(ReLU(), 40, 40).covariance_min / lam
    assert 0.75 < ratio < 0.92


def test_sphere_widths_have_the_orders_of_the_corollaries(float64):
    """k of order n²/d for softplus and n⁴/d³ for ReLU, along n = 16 d."""

    def width(act, d):
        return float(theory.sphere_asymptotics(act, 16 * d, d).required_width)

    for act in (Softplus(), ReLU()):
        growth = width(act, 4_000_000) / width(act, 1_000_000)
        assert 3.9 < growth < 4.1  # both are d¹ when n / d is fixed
    small, large = (
        theory.sphere_asymptotics(act, 16 * 400, 400) for act in (Softplus(), ReLU())
    )
    assert large.required_width > 1e6 * small.required_width
    # without curvature only the bound at initialisation is left
    flat = theory.sphere_asymptotics(jr.activations.Linear(), 50, 200)
    bound = 13.04 * math.log(50) * (flat.norm / (1 - flat.norm + 1)) ** 2
    np.testing.assert_allclose(flat.required_width, bound, rtol=0.01)
    with pytest.raises(ValueError, match="at least 2"):
        theory.sphere_asymptotics(ReLU(), 1, 5)


def test_sphere_width_of_a_straight_activation(float64):
    straight = theory.sphere_asymptotics(LeakyReLU(1.0), 10, 40)
    assert float(straight.required_width) < 1e6


def test_covariance_of_long_rows(float64):
    """tanh' is a spike there: E over the plane by the trapezoidal rule in (u, v)."""
    norm, cos = 100.0, 0.2
    # four in six dimensions: the size of `test_instance_constants`
    unit = np.linalg.cholesky(cos + (1 - cos) * np.eye(4))
    rows = jnp.asarray(norm * np.pad(unit, ((0, 0), (0, 2))))
    u = np.arange(-25, 25, 0.05)
    slope = 1 / np.cosh(u) ** 2
    exponent = (u[:, None] ** 2 - 2 * cos * np.outer(u, u) + u**2) / (1 - cos**2)
    density = np.exp(-exponent / 2 / norm**2) / (2 * np.pi * (1 - cos**2) ** 0.5)
    across = slope @ density @ slope * 0.05**2  # times norm²
    own = np.sum(slope**2 * np.exp(-(u**2) / 2 / norm**2)) * 0.05 * norm
    exact = own / (2 * np.pi) ** 0.5 - cos * across
    got = theory.covariance_smallest(Tanh(), rows)
    assert abs(float(got.value) - exact) <= float(got.error) + 1e-10
    assert float(got.error) < 1e-8
