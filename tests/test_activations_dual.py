"""Rounding of dual kernels: degenerate angles, extreme norms, errors that cover."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from _draws import normal
from _kernels import scalar_kernel, with_gradient

from jaxrelu._results import RESULTS
from jaxrelu.activations import (
    GELU,
    Erf,
    ReLU,
    Sigmoid,
    Softplus,
    Tanh,
    angle,
    dual_kernel,
    dual_kernel_estimate,
    dual_of_angle,
)


pytestmark = pytest.mark.optimised  # rounding is what they are about

PI = np.pi
DEGENERATE = {
    "parallel": 0.0, "1e-12": 1e-12, "1e-8": 1e-8, "1e-4": 1e-4, "generic": 1.3,
    "bulk": 0.3, "pi-1e-4": PI - 1e-4, "pi-1e-8": PI - 1e-8, "antiparallel": PI,
}  # fmt: skip


def pair(theta, norm, getkey, dtype):
    """x and y of length 5 at (nearly) that angle; exactly parallel at 0 and π."""
    x, z = normal(getkey(), (2, 5))
    z -= x * (x @ z) / (x @ x)
    z *= np.linalg.norm(x) / np.linalg.norm(z)
    x = x.astype(dtype)
    if theta in (0.0, PI):
        return x, (x if theta == 0 else -x) * np.asarray(norm, dtype)
    return x, (norm * (np.cos(theta) * x + np.sin(theta) * z)).astype(dtype)


def exact_geometry(x, y):
    x, y = (mp.matrix([mp.mpf(float(t)) for t in v]) for v in (x, y))
    p, q = mp.norm(x), mp.norm(y)
    u, v = x / p, y / q
    minus, plus = mp.norm(u - v), mp.norm(u + v)
    return p, q, u, v, 2 * mp.atan2(minus, plus), 2 * mp.atan2(plus, minus)


def exact_relu(x, y):
    """Kernels, gradient and Hessian blocks, by hand (Safran & Shamir's formulas)."""
    p, q, u, v, theta, delta = exact_geometry(x, y)
    s, c = mp.sin(theta), mp.cos(theta)
    if s < mp.mpf(10) ** -40:
        s, n, m = mp.mpf(0), 0 * u, 0 * u
    else:
        n, m = (v - c * u) / s, (u - c * v) / s
    eye = mp.eye(len(u))
    values = [
        p * q * (s + delta * c),
        delta,
        q * (s * u + delta * v),
        q / p * s * (n * n.T + eye - u * u.T),
        delta * eye + s * (n * m.T + u * v.T),
    ]
    return [np.array(mp.matrix([v]).tolist(), float) / (2 * PI) for v in values[:2]] + [
        np.array((v / (2 * mp.pi)).tolist(), float) for v in values[2:]
    ]


@functools.cache
def relu_derivatives(x64):
    slopes = with_gradient(functools.partial(scalar_kernel, ReLU(), 0))

    @jax.jit
    def everything(x, y):
        gate = scalar_kernel(ReLU(), 1, x, y)
        blocks, (value, gradient) = jax.jacfwd(slopes, (0, 1), has_aux=True)(x, y)
        reverse = jax.jacrev(slopes, 1, has_aux=True)(x, y)[0]
        return value, gate, gradient, *blocks, reverse, angle(x, y)

    return everything


@pytest.mark.parametrize("theta", DEGENERATE.values(), ids=DEGENERATE)
def test_relu_kernels_gradient_and_hessian_at_degenerate_angles(theta, dtype, getkey):
    eps = float(jnp.finfo(dtype).eps)
    for norm in (1, 2, 0.5):
        x, y = pair(theta, norm, getkey, dtype)
        with mp.workdps(60):
            value, gate, gradient, block, mixed = exact_relu(x, y)
            p, q, *_, exact_angle, _ = (t for t in exact_geometry(x, y))
            p, q, exact_angle = float(p), float(q), float(exact_angle)
        got = relu_derivatives(dtype == "float64")(x, y)
        assert all(part.dtype == dtype for part in got)
        exact = [value, gate, gradient, block, mixed, mixed, exact_angle]
        scales = [p * q, 1, q, q / p, 1, 1, 4]
        for part, true, scale in zip(got, exact, scales, strict=True):
            error = np.abs(np.asarray(part, float).ravel() - np.ravel(true)).max()
            assert error <= 3 * eps * scale
        if theta == PI:
            assert abs(got[0]) <= (8 * eps) ** 3  # it vanishes like (π - θ)³


def test_relu_angle_form_keeps_relative_accuracy_next_to_pi(dtype):
    for gap in (0.0, 1e-8, 1e-4, 1e-2, 0.9, 1.1, 2.0, 3.1):
        theta = np.asarray(PI - gap, dtype)
        with mp.workdps(50):
            delta = mp.pi - mp.mpf(float(theta))
            exact = (mp.sin(delta) - delta * mp.cos(delta)) / (2 * mp.pi)
            error = abs(mp.mpf(float(dual_of_angle(ReLU(), theta))) / exact - 1)
            assert error <= 8 * float(jnp.finfo(dtype).eps)


def test_series_error_is_honest_when_the_norms_are_too_large(float64):
    # tanh and six rows of two here and below: the same programs
    x = np.array([[2, 0], [8, 0], [0, 0.7], [6, 6], [-8, 1], [0.3, -0.4]])
    estimate = dual_kernel_estimate(Tanh(), x, x + 0, derivative=1)
    better = dual_kernel(Tanh(), x, x + 0, derivative=1, order=400)
    assert (np.abs(better - estimate.value) <= estimate.error).all()
    assert estimate.error[1, 1] > 1e-6
    assert estimate.error[2, 2] < 1e-8
    assert estimate.error_kind == "quadrature estimate"


def spike(slope, p):
    """E f(pg)² by the trapezoidal rule in log |g|, which sees every scale."""
    g = np.exp(2e-3 * np.arange(-30000, 2000))
    return 4e-3 * np.sum(slope(p * g) ** 2 * g * np.exp(-g * g / 2)) / np.sqrt(2 * PI)


def test_series_errors_cover_parallel_rows_of_any_norm(dtype):
    norms = [3.0, 30.0, 100.0, 1e4, 1e8, 1e14]
    x = np.array([[p, 0] for p in norms], dtype)
    sech = lambda z: 1 / np.cosh(np.minimum(z, 300))
    exact = np.array([spike(lambda z: sech(z) ** 2, p) for p in norms])
    # two matrices: a series, far from converged; one: its diagonal is none
    got = dual_kernel_estimate(Tanh(), x, x + 0, derivative=1)
    value, error = np.diagonal(got.value), np.diagonal(got.error)
    assert (np.abs(value - exact) <= error).all()
    assert (error[1:4] <= exact[1:4]).all()
    assert got.result == RESULTS.unresolved  # the last spike is between all nodes
    got = dual_kernel_estimate(Tanh(), x, derivative=1)
    value, error = np.diagonal(got.value), np.diagonal(got.error)
    assert (np.abs(value - exact) <= error).all()
    assert (error[:4] <= 400 * float(jnp.finfo(dtype).eps) * exact[:4]).all()


def test_sigmoid_series_errors_cover_large_norms(float64):
    logistic = lambda z: 1 / (1 + np.exp(-z))
    for p in (30.0, 1e4):  # E σ² = 1/4 + E tanh(pg/2)²/4
        exact = 0.25 + spike(lambda z: logistic(z) - 0.5, p)
        x = np.array([[p, 0]])
        got = dual_kernel_estimate(Sigmoid(), x, x + 0)
        assert abs(float(got.value[0, 0]) - exact) <= float(got.error[0, 0])


def test_orthogonal_and_oblique_rows_of_large_norm_are_exact(float64):
    """By the density at 0: the spike of tanh' is 1/100 wide in both directions."""
    t = np.array([0, np.arccos(0.6), 0.4, 1.3, 1.9, 2.5])
    x = 100 * np.stack([np.cos(t), np.sin(t)], axis=1)
    got = dual_kernel_estimate(Tanh(), x, derivative=1)
    # (u, v) has density 1/(2π · 100² · 0.8) near 0, where sech² has integral 2;
    # the next term is the density's curvature, -π²/12 · 2/(100 · 0.8)²
    leading = 4 / (2 * PI * 100**2 * 0.8)
    assert float(got.value[0, 1]) == pytest.approx(leading, rel=1e-3)
    assert float(got.error[0, 1]) < 1e-9 * leading
    assert got.result == RESULTS.successful


def test_smooth_closed_forms_at_norms_whose_powers_overflow(dtype):
    eps = float(jnp.finfo(dtype).eps)
    norms = [3e8, 1e18, 1e30] if dtype == "float32" else [1e10, 1e78, 1e155]
    shape = np.array([[1, 0], [0.6, 0.8], [-1, 0]])
    x = np.concatenate([p * shape for p in norms] + [np.zeros((1, 2))]).astype(dtype)
    cos = np.tile([[1, 0.6, -1], [0.6, 1, -0.6], [-1, -0.6, 1]], (3, 3))
    theta = np.arccos(cos)
    erf = np.asarray(dual_kernel(Erf(), x))
    # asin(C/((1 + A)(1 + B))^½) at rows neither parallel nor antiparallel
    oblique = np.abs(cos) < 1
    np.testing.assert_allclose(
        erf[:9, :9][oblique], 2 / PI * np.arcsin(cos[oblique]), atol=8 * eps
    )
    np.testing.assert_allclose(
        erf[:9, :9], 2 / PI * np.arcsin(cos), atol=2e-8 + 8 * eps
    )
    assert not erf[9].any()
    assert not erf[:, 9].any()
    bells = np.asarray(dual_kernel(Erf(), x, derivative=1), float)
    for i, p in enumerate(norms):
        block = bells[3 * i : 3 * i + 3, 3 * i : 3 * i + 3]
        parallel = 2 / PI / np.sqrt(2) / p  # 2/(π (1 + 2 p²)^½)
        np.testing.assert_allclose(np.diagonal(block), parallel, rtol=8 * eps)
        np.testing.assert_allclose(block[0, 2], parallel, rtol=8 * eps)
    assert np.array_equal(bells, bells.T)
    slopes = dual_kernel_estimate(GELU(), x, derivative=1)
    # E[Φ(u)Φ(v)] tends to the gate, and cos θ/(2π sin θ) (1/A + 1/B + ...) to 0
    gap = np.abs(np.asarray(slopes.value)[:9, :9] - (PI - theta) / (2 * PI))
    assert (gap <= slopes.error[:9, :9])[oblique].all()
    assert (slopes.error <= 1e3 * eps).all()
    assert slopes.result == RESULTS.successful
    form = jax.jit(jax.value_and_grad(functools.partial(dual_of_angle, Erf())))
    for p in np.asarray(norms, dtype):
        value, slope = form(np.asarray(1.0, dtype), p, p)
        assert float(value) == pytest.approx(1 - 2 / PI, rel=8 * eps)
        assert float(slope) == pytest.approx(-2 / PI, rel=8 * eps)
    value = np.asarray(dual_kernel(GELU(), x), float)[3:6, 3:6] / norms[1] ** 2
    ramp = np.sin(theta) + (PI - theta) * cos
    np.testing.assert_allclose(value, ramp[3:6, 3:6] / (2 * PI), atol=8 * eps)


def test_kernels_that_overflow_are_infinite_and_say_so(dtype):
    norm = 1e30 if dtype == "float32" else 1e160
    x = np.array([[norm, 0], [0.6 * norm, 0.8 * norm]], dtype)
    for act in (ReLU(), Softplus()):
        got = dual_kernel_estimate(act, x, order=16)
        assert np.isposinf(got.value).all(), act
        assert got.result == RESULTS.not_finite
    np.testing.assert_array_equal(np.diagonal(dual_kernel(ReLU(), x, -x)), 0)


def test_rounding_bound_covers_float32(getkey):
    with jax.enable_x64(True):
        x = normal(getkey(), (6, 40))
        x[3] = x[2] + 1e-3
        x = x.astype("float32")
        exact = np.asarray(dual_kernel(GELU(), x.astype(float)))
    with jax.enable_x64(False):
        estimate = dual_kernel_estimate(GELU(), x)
        assert estimate.error_kind == "rounding bound"
        assert (np.abs(estimate.value - exact) <= estimate.error).all()
        assert (estimate.error <= 1e-3 * np.abs(exact).max()).all()
