"""Gaussian moments and Hermite coefficients, against tables and mpmath."""

import functools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from jaxrelu.activations import (
    GELU,
    Erf,
    LeakyReLU,
    Linear,
    Quadratic,
    ReLU,
    Sigmoid,
    Softplus,
    Tanh,
    gaussian_mean,
    hermite_coefficients,
    mu,
    variance,
)


ROOT = 1 / math.sqrt(2 * math.pi)
# μ, E φ'², E φ, Var φ: eight digits, computed by other means
TABLE = [
    (ReLU(), 0.39894228, 0.5, 0.39894228, 0.34084506),
    (LeakyReLU(0.1), 0.35904805, 0.505, 0.35904805, 0.37608450),
    (Softplus(), 0.20662096, 0.29337904, 0.80605918, 0.27151450),
    (Softplus(5.0), 0.37572427, 0.42485515, 0.42410948, 0.32715531),
    (GELU(), 0.42314219, 0.45585087, 0.28209479, 0.34564401),
    (Tanh(), 0, 0.46440290, 0, 0.39429449),
    (Sigmoid(), 0, 0.04483624, 0.5, 0.04337904),
    (Erf(), 0, 0.36755260, 0, 1 / 3),
    (Quadratic(), 1, 1, 0.5, 0.5),
    (Linear(), 0, 1, 0, 1),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0].name)
def test_constants_of_the_table(row, dtype):
    act, *expected = row
    estimates = mu(act), gaussian_mean(act, 2, 1), gaussian_mean(act), variance(act)
    for estimate, value in zip(estimates, expected, strict=True):
        assert estimate.value.dtype == estimate.error.dtype == dtype
        slack = 6e-9 + float(estimate.error)
        assert abs(float(estimate.value) - value) <= slack, str(estimate)
        assert float(estimate.error) < 16 * float(jnp.finfo(dtype).eps)


def expectation(function, pieces):
    return mp.quad(lambda z: function(z) * mp.npdf(z), pieces)


def moment(weighted, polynomial):
    """The integral of a function times the density, and of a polynomial."""
    return mp.quad(lambda z: weighted(z) * polynomial(z), (-14, -5, 0, 5, 14))


REFERENCE = {
    "relu": (ReLU(), lambda z: max(z, 0)),
    "leaky_relu": (LeakyReLU(0.2), lambda z: z if z > 0 else z / 5),
    "erf": (Erf(), lambda z: mp.erf(z / mp.sqrt(2))),
    "quadratic": (Quadratic(), lambda z: z * z / 2),
    "softplus": (Softplus(2.0), lambda z: mp.log1p(mp.exp(2 * z)) / 2),
    "gelu": (GELU(), lambda z: z * mp.erfc(-z / mp.sqrt(2)) / 2),
}


def orthonormal(r):
    """h_r by its integer coefficients, highest first."""
    powers = np.polynomial.hermite_e.herme2poly([0] * r + [1])[::-1]
    powers = [int(power) for power in powers]
    horner = lambda z: functools.reduce(lambda total, power: total * z + power, powers)
    return lambda z: horner(z) / mp.sqrt(mp.factorial(r))


BASIS = [orthonormal(r) for r in range(8)]


@pytest.mark.parametrize("name", REFERENCE)
def test_hermite_coefficients_against_mpmath(name, float64):
    act, reference = REFERENCE[name]
    degree = 7
    with mp.workdps(25):
        weighted = functools.cache(lambda z: reference(z) * mp.npdf(z))
        exact = np.array([float(moment(weighted, hermite)) for hermite in BASIS])
    value = hermite_coefficients(act, degree)
    error = np.abs(np.asarray(value.value) - exact)
    np.testing.assert_array_less(error, np.asarray(value.error) + 3e-17)
    # E[φ' h_r] = √(r+1) E[φ h_{r+1}], so the rest is known from the values alone
    for order in (1, 2) if act.slopes is None else (1,):
        shifted = hermite_coefficients(act, degree - order, order)
        factors = [math.perm(r + order, order) ** 0.5 for r in range(8 - order)]
        np.testing.assert_allclose(
            shifted.value, exact[order:] * factors, rtol=2e-14, atol=4e-15
        )
    assert mu(act).value == pytest.approx(exact[2] * 2**0.5, rel=1e-14)


def test_relu_energies_of_the_paper(dtype):
    energy = np.square(hermite_coefficients(ReLU(), 5, 1).value)
    expected = [1 / 4, 1 / (2 * np.pi), 0, 1 / (12 * np.pi), 0, 3 / (80 * np.pi)]
    np.testing.assert_allclose(energy, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("act", "degree", "missing"),
    [(Softplus(), 1500, 1e-13), (GELU(), 900, 1e-13), (Erf(), 1500, 1e-13),
     (Tanh(), 1500, 1e-13), (ReLU(), 2000, 1e-4), (Quadratic(), 40, 1e-14)],
    ids=lambda value: getattr(value, "name", ""),
)  # fmt: skip
def test_high_degrees_do_not_overflow_and_obey_parseval(act, degree, missing, float64):
    c = np.asarray(hermite_coefficients(act, degree).value)
    assert np.isfinite(c).all()
    total = float(gaussian_mean(act, 2).value)
    assert -1e-13 <= total - np.sum(c**2) <= missing
    if isinstance(act, ReLU):  # c_r² ~ (2/π)^{1/2} r^{-5/2}/2π, tail 2/3 r c_r² / 2
        assert total - np.sum(c**2) == pytest.approx(degree * c[-1] ** 2 / 3, rel=1e-2)


SLOPE = {
    "leaky_relu": lambda z: 1 if z > 0 else mp.mpf(1) / 5,
    "quadratic": lambda z: z,
    "erf": lambda z: 2 * mp.npdf(z),
}


@pytest.mark.parametrize("name", SLOPE)
@pytest.mark.parametrize("order", [0, 1])
def test_closed_powers_equal_direct_integrals(name, order, float64):
    act, reference = REFERENCE[name]
    function = SLOPE[name] if order else reference
    for power in (1, 2, 3, 4):
        with mp.workdps(20):
            exact = float(expectation(lambda z: function(z) ** power, (-14, 0, 14)))  # noqa: B023
        got = gaussian_mean(act, power, order)
        assert float(got.value) == pytest.approx(exact, rel=1e-14, abs=1e-15)


def test_error_covers_the_truth_for_steep_softplus(dtype):
    # μ = E[β σ'(βg)], and the moments of the logistic density σ' are π²/3, 7π⁴/15, ...
    for beta in (300.0, 1e4, 1e7):
        t = (math.pi / beta) ** 2
        exact = ROOT * (1 - t / 6 + 7 * t**2 / 120 - 31 * t**3 / 1008)
        got = mu(Softplus(beta))
        assert abs(float(got.value) - exact) <= float(got.error)
        assert float(got.error) < 16 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("beta", [1e10, 1e12, 1e100])
def test_bend_of_any_steepness_is_seen(beta, dtype):
    """φ'' tends to an atom of mass 1; E φ''² to β ∫ (σ')² p(0) = β p(0)/6."""
    soft = Softplus(beta)
    bend = gaussian_mean(soft, 1, 2)
    assert abs(float(bend.value) - ROOT) <= float(bend.error)
    assert float(bend.error) < 16 * float(jnp.finfo(dtype).eps)
    got = hermite_coefficients(soft, 2, 2)
    exact = [ROOT, 0, -ROOT / math.sqrt(2)]
    assert (np.abs(np.asarray(got.value, float) - exact) <= got.error).all()
    if beta * beta < float(jnp.finfo(dtype).max):
        square = gaussian_mean(soft, 2, 2)
        assert float(square.value) == pytest.approx(beta * ROOT / 6, rel=1e-6)


def test_traced_steepness_beyond_all_nodes_is_said(float64):
    error = jax.jit(lambda beta: gaussian_mean(Softplus(beta), 1, 2).error)
    assert float(error(1e12)) < 1e-13
    assert float(error(1e100)) == math.inf


def test_mean_slope_keeps_relative_accuracy_where_slopes_cancel(float64):
    slope = -1 + 1e-12
    got = hermite_coefficients(LeakyReLU(slope), 2, 1)
    exact = (Fraction(slope) + 1) / 2
    assert abs(Fraction(float(got.value[0])) - exact) <= Fraction(float(got.error[0]))


def test_powers_beyond_float64_are_refused():
    for act, power in ((ReLU(), 400), (ReLU(), 310), (Quadratic(), 200)):
        with pytest.raises(ValueError, match=f"power is {power}.*smaller power"):
            gaussian_mean(act, power)
    assert float(gaussian_mean(Quadratic(), 200, 2).value) == 1


@pytest.mark.parametrize("power", [30, 90, 150, 200, 250])
def test_error_covers_what_lies_beyond_the_last_node(power, float64):
    smooth = lambda z: z + mp.log1p(mp.exp(-50 * z)) / 50 if z > -1 else mp.mpf(0)
    with mp.workdps(20):
        weighted = lambda z: smooth(z) ** power * mp.exp(-z * z / 2)
        cuts = (-1, 0, 5, 10, 13, 15, 20, 25, 45)
        exact = float(mp.quad(weighted, cuts) / mp.sqrt(2 * mp.pi))
    got = jax.jit(lambda: gaussian_mean(Softplus(50.0), power))()
    assert abs(float(got.value) - exact) <= float(got.error)
    traced = jax.jit(lambda beta: gaussian_mean(Softplus(beta), power).error)(50.0)
    assert (float(traced) < math.inf) == (float(got.error) < math.inf) == (power < 160)
    # a bounded activation has next to nothing there
    assert float(gaussian_mean(Tanh(), power).error) < 1e-10


def test_float32_results_are_rounded_float64_ones():
    with jax.enable_x64(True):
        exact = np.asarray(hermite_coefficients(Softplus(), 30, 1).value)
    with jax.enable_x64(False):
        assert jax.jit(lambda: mu(Softplus()).value)() == np.float32(exact[1])
        got = hermite_coefficients(Softplus(), 30, 1).value
    np.testing.assert_array_equal(got, exact.astype("float32"))


def test_traced_parameters_are_differentiable(dtype):
    tolerance = 200 * float(jnp.finfo(dtype).eps)
    soft = lambda beta: hermite_coefficients(Softplus(beta), 4, 1).value
    leaky = lambda slope: hermite_coefficients(LeakyReLU(slope), 4).value
    second = lambda slope: variance(LeakyReLU(slope)).value
    np.testing.assert_allclose(jax.jit(soft)(2.0), soft(2.0), atol=tolerance)
    slopes, values = jax.jit(
        jax.jacfwd(lambda slope: 2 * (leaky(slope),), has_aux=True)
    )(0.2)
    np.testing.assert_allclose(values, leaky(0.2), atol=tolerance)
    # ∂/∂β c_r(σ(β·)) = E[z σ'(βz) h_r], whose r = 0 term vanishes by symmetry
    slope = jax.jit(jax.jacfwd(soft))(2.0)
    numeric = (np.asarray(soft(2.0 + 1e-2)) - np.asarray(soft(2.0 - 1e-2))) / 2e-2
    np.testing.assert_allclose(slope, numeric, atol=2e-5)
    assert abs(float(slope[0])) <= tolerance
    # φ = s z + (1 - s) relu(z)
    expected = [-ROOT, 0.5, -ROOT / 2**0.5, 0, ROOT / 24**0.5]
    np.testing.assert_allclose(slopes, expected, atol=tolerance)
    # Var = (1 + s²)/2 - (1 - s)²/2π
    expected = 0.2 + 2 * 0.8 * ROOT**2
    assert float(jax.jit(jax.grad(second))(0.2)) == pytest.approx(expected, rel=1e-6)


def test_refusals():
    for act in (ReLU(), LeakyReLU(0.1)):
        with pytest.raises(ValueError, match=r"atom at 0.*`mu`"):
            gaussian_mean(act, derivative=2)
        with pytest.raises(ValueError, match="atom at 0"):
            hermite_coefficients(act, 3, 2)
    assert float(gaussian_mean(Linear(), derivative=2).value) == 0
    with pytest.raises(ValueError, match="derivative is '3'"):
        gaussian_mean(Tanh(), derivative=3)
    with pytest.raises(ValueError, match="at least"):
        gaussian_mean(Tanh(), 0)
    with pytest.raises(ValueError, match="at least"):
        hermite_coefficients(Tanh(), -1)
