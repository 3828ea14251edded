"""Dual kernels: independent values, derivatives at degenerate angles."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from _draws import normal
from hypothesis import given, settings, strategies as st

from jaxrelu._results import RESULTS
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
    angle,
    angles,
    dual_kernel,
    dual_kernel_estimate,
    dual_of_angle,
)


pytestmark = pytest.mark.optimised  # rounding is what they are about

PI = np.pi
ALL = [
    ReLU(), LeakyReLU(0.2), Softplus(), Softplus(2.0), Tanh(), Erf(), Sigmoid(), GELU(),
    Quadratic(), Linear(),
]  # fmt: skip
ids = lambda act: f"{act.name}{getattr(act, 'beta', '')}"
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


def scalar_kernel(act, derivative, x, y):
    return dual_kernel(act, x[None], y[None], derivative=derivative, order=100)[0, 0]


@functools.cache
def relu_derivatives(x64):
    kernel = functools.partial(scalar_kernel, ReLU(), 0)
    gate = functools.partial(scalar_kernel, ReLU(), 1)
    gradient = jax.grad(kernel)
    return jax.jit(
        lambda x, y: (
            kernel(x, y),
            gate(x, y),
            gradient(x, y),
            jax.jacfwd(gradient)(x, y),
            jax.jacfwd(gradient, 1)(x, y),
            jax.jacrev(gradient, 1)(x, y),
            angle(x, y),
        )
    )


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


# ------------------------------------------- smooth activations, two dimensions

GRID, WEIGHT = np.polynomial.hermite_e.hermegauss(90)
WEIGHTS = np.outer(WEIGHT, WEIGHT).ravel() / (2 * PI)
PLANE = np.stack([np.repeat(GRID, 90), np.tile(GRID, 90)], axis=1)


@pytest.mark.parametrize("act", [Softplus(), Erf(), GELU(), Quadratic()], ids=ids)
def test_smooth_kernels_and_derivatives_by_two_dimensional_quadrature(act, float64):
    first = functools.partial(scalar_kernel, act, 0)
    slope = functools.partial(scalar_kernel, act, 1)

    @jax.jit
    def everything(x, y):
        mixed = jax.jacrev(jax.grad(first), 1)(x, y)
        return (first(x, y), slope(x, y), jax.grad(first)(x, y), jax.grad(slope)(x, y),
                jax.hessian(first)(x, y), mixed)  # fmt: skip

    @jax.jit
    def parts(z):
        return act(z), act.derivative(z), act.second_derivative(z)

    x = np.array([0.6, -0.5])
    for y in (x, -x, 1.5 * x, x + 1e-9, np.array([0.2, 0.7])):
        u, v = PLANE @ x, PLANE @ y
        f, df, ddf = (np.asarray(part) for part in parts(u))
        g, dg = (np.asarray(part) for part in parts(v)[:2])
        expect = lambda h: WEIGHTS @ h
        tensor = (PLANE[:, :, None] * PLANE[:, None, :]).reshape(-1, 4)
        # differentiate under the integral sign
        exact = [
            expect(f * g),
            expect(df * dg),
            expect((df * g)[:, None] * PLANE),
            expect((ddf * dg)[:, None] * PLANE),
            expect((ddf * g)[:, None] * tensor),
            expect((df * dg)[:, None] * tensor),
        ]
        for got, true in zip(everything(x, y), exact, strict=True):
            np.testing.assert_allclose(np.ravel(got), np.ravel(true), atol=2e-13)


def circle_average(function, theta):
    """(1/2π) ∫ f(cos t) f(cos(t - θ)) dt with the breaks of a kinked f."""
    breaks = sorted(
        {0.0, 2 * PI}
        | {t % (2 * PI) for t in (PI / 2, 3 * PI / 2, theta + PI / 2, theta - PI / 2)}
    )
    return mp.quad(
        lambda t: function(mp.cos(t)) * function(mp.cos(t - theta)), breaks
    ) / (2 * mp.pi)


@pytest.mark.parametrize("theta", [0.0, 1e-3, 0.9, 2.8, PI])
def test_leaky_kernels_by_an_integral_over_the_circle(theta, float64):
    act = LeakyReLU(0.2)
    value = circle_average(lambda z: z if z > 0 else z / 5, theta)
    slope = circle_average(lambda z: 1 if z > 0 else mp.mpf(1) / 5, theta)
    got = dual_of_angle(act, theta, 1.5, 0.4)  # E r² = 2 in the plane
    assert float(got) == pytest.approx(float(2 * value) * 0.6, rel=1e-13)
    got = dual_of_angle(act, theta, 1.5, 0.4, derivative=1)
    assert float(got) == pytest.approx(float(slope), rel=1e-13)


# ------------------------------------------------------------- tables of the paper


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (ReLU(), [0, 1 / 6, 1 / 4, 1 / 3, 1 / 2]),
        (Softplus(), [0.20662096, 0.22857167, 0.25, 0.27142833, 0.29337904]),
        (GELU(), [0.04414913, 0.15773276, 0.25, 0.34226724, 0.45585087]),
        (Erf(), [2 / PI / np.sqrt(4 - rho**2) for rho in (-1, -0.5, 0, 0.5, 1)]),
        (Quadratic(), [-1, -0.5, 0, 0.5, 1]),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_covariance_table_of_the_paper(act, expected, dtype):
    cosines = np.array([-1, -0.5, 0, 0.5, 1])
    rows = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(dtype)
    got = dual_kernel(act, rows, rows[-1:], derivative=1)[:, 0]
    assert got.dtype == dtype
    np.testing.assert_allclose(
        got, expected, atol=5e-9 + 3 * float(jnp.finfo(dtype).eps)
    )
    got = dual_of_angle(act, np.arccos(cosines).astype(dtype), derivative=1)
    np.testing.assert_allclose(
        got, expected, atol=5e-9 + 3 * float(jnp.finfo(dtype).eps)
    )


def test_smallest_eigenvalues_known_in_closed_form(float64):
    covariance = jax.jit(
        lambda x: jnp.linalg.eigvalsh(dual_kernel(ReLU(), x, derivative=1) * (x @ x.T))
    )
    t = np.arange(64) * PI / 64
    half_circle = covariance(np.stack([np.cos(t), np.sin(t)], axis=1))
    assert float(half_circle[0]) == pytest.approx(0.00391096, abs=5e-9)
    rows = np.linalg.cholesky(0.5 + 0.5 * np.eye(10))
    equal = covariance(rows)
    np.testing.assert_allclose(equal, [1 / 3] * 9 + [2], rtol=1e-12)


@pytest.mark.parametrize("act", ALL, ids=ids)
def test_kernels_against_monte_carlo(act, float64):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(5, 3))
    x = np.concatenate([x, 2 * x[:1], -x[1:2], np.zeros((1, 3))]) / 2
    w = rng.normal(size=(100_000, 3))

    @jax.jit
    def both(x, z):
        kernels = [dual_kernel(act, x, derivative=r, order=128) for r in (0, 1)]
        return tuple(zip(kernels, (act(z), act.derivative(z)), strict=True))

    for kernel, features in both(x, w @ x.T):
        features = np.asarray(features)
        second = features.T @ features / len(w)
        spread = (features**2).T @ features**2 / len(w) - second**2
        sigma = np.sqrt(np.maximum(spread, 0) / len(w))
        assert (np.abs(kernel - second) <= 5 * sigma + 1e-9).all()


def test_population_hessian_at_the_teacher_with_a_split_neuron(float64):
    # F(W) = ½ E(Σ relu(w·x) - Σ relu(v·x))²; here v₁ is split into two halves.
    # At zero residual the blocks are E[φ'(w_i x) φ'(w_j x) x xᵀ].
    teacher = np.eye(2)
    student = np.array([[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]])

    signs = jnp.asarray([1.0, 1.0, 1.0, -1.0, -1.0])

    def loss(w):
        kernel = dual_kernel(ReLU(), jnp.concatenate([w, teacher]))
        return signs @ kernel @ signs / 2

    across = np.eye(2) / 4 + (1 - np.eye(2)) / (2 * PI)
    half = np.eye(2) / 2
    expected = np.block(
        [[half, half, across], [half, half, across], [across, across, half]]
    )
    everything = jax.jit(lambda w: (loss(w), jax.grad(loss)(w), jax.hessian(loss)(w)))
    value, gradient, hessian = everything(student)
    assert abs(float(value)) < 1e-15
    np.testing.assert_allclose(gradient, 0, atol=1e-15)
    np.testing.assert_allclose(hessian.reshape(6, 6), expected, atol=1e-15)


# -------------------------------------------------------------- zero rows, angles


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.lists(st.floats(-3, 3, width=32), min_size=6, max_size=6), st.floats(0.1, 8))
def test_laws_of_the_kernels(numbers, scale):
    with jax.enable_x64(True):
        x = jnp.asarray(numbers).reshape(3, 2)
        turn = jnp.asarray([[0.6, -0.8], [0.8, 0.6]])
        for act in (ReLU(), GELU()):
            kernel = dual_kernel(act, x)
            assert jnp.linalg.eigvalsh(kernel)[0] >= -1e-12
            np.testing.assert_allclose(dual_kernel(act, x @ turn), kernel, atol=1e-12)
        homogeneous = dual_kernel(ReLU(), scale * x)
        np.testing.assert_allclose(
            homogeneous, scale**2 * dual_kernel(ReLU(), x), rtol=1e-9, atol=1e-12
        )


def test_zero_rows_follow_the_convention_for_the_derivative(dtype):
    x = np.array([[0, 0], [1, 2], [-1, 1]], dtype)

    @jax.jit
    def everything(slope):
        act = LeakyReLU(slope)
        total = lambda x: jnp.sum(dual_kernel(act, x))
        value, gates = dual_kernel(act, x), dual_kernel(act, x, derivative=1)
        return value, gates, jax.grad(total)(x), jax.hessian(total)(x)

    for slope in (0.0, 0.25):
        value, gates, gradient, hessian = everything(jnp.asarray(slope, dtype))
        np.testing.assert_array_equal(value[0], 0)
        # φ'(0) = slope against E φ' = (1 + slope)/2, and against itself
        half = slope * (1 + slope) / 2
        np.testing.assert_allclose(gates[0], [slope**2, half, half], rtol=1e-6)
        np.testing.assert_allclose(gradient[0], 2 * half * x.sum(0), rtol=1e-5)
        assert np.isfinite(hessian).all()
    np.testing.assert_array_equal(dual_kernel(ReLU(), x, derivative=1)[0], 0)
    kernel = dual_kernel(Tanh(), x, derivative=1, order=64)
    assert float(kernel[0, 0]) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("act", [LeakyReLU(0.3), Softplus()], ids=ids)
def test_angle_form_is_smooth_and_agrees_with_vectors(act, float64):
    def of_vectors(theta, p, q):
        x = jnp.stack([p, jnp.zeros_like(p)])
        y = q * jnp.stack([jnp.cos(theta), jnp.sin(theta)])
        return scalar_kernel(act, 0, x, y)

    form = lambda theta, p, q: dual_of_angle(act, theta, p, q, order=100)
    all_of = lambda f: jax.jit(jax.value_and_grad(f, (0, 1, 2)))
    for theta in (0.7, 2.9):
        got, expected = (all_of(f)(theta, 1.2, 0.7) for f in (form, of_vectors))
        np.testing.assert_allclose(
            jax.tree.leaves(got), jax.tree.leaves(expected), rtol=1e-12
        )
    ends = jax.jit(jax.vmap(jax.grad(jax.grad(form)), (0, None, None)))(
        jnp.asarray([0.0, PI]), 1.0, 1.0
    )
    # d²K/dθ² at 0 is -K'(1) as a function of cos θ, that is -E φ'²; at π it is +h(-1)
    slopes = dual_of_angle(act, jnp.asarray([0.0, PI]), derivative=1)
    np.testing.assert_allclose(ends, slopes * jnp.asarray([-1.0, 1.0]), rtol=1e-12)


def test_relu_angle_form_keeps_relative_accuracy_next_to_pi(dtype):
    for gap in (0.0, 1e-8, 1e-4, 1e-2, 0.9, 1.1, 2.0, 3.1):
        theta = np.asarray(PI - gap, dtype)
        with mp.workdps(50):
            delta = mp.pi - mp.mpf(float(theta))
            exact = (mp.sin(delta) - delta * mp.cos(delta)) / (2 * mp.pi)
            error = abs(mp.mpf(float(dual_of_angle(ReLU(), theta))) / exact - 1)
            assert error <= 8 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("make", [LeakyReLU, Softplus])
@pytest.mark.parametrize("derivative", [0, 1])
def test_kernels_are_differentiable_in_the_parameter(make, derivative, float64):
    x = np.array([[1.0, 0.2], [0.3, -0.8]])
    kernel = lambda s: dual_kernel(make(s), x, derivative=derivative)
    both = jax.jit(lambda s: (kernel(s), jax.jacfwd(kernel)(s)))
    value, slope = both(0.7)
    numeric = (both(0.7 + 1e-5)[0] - both(0.7 - 1e-5)[0]) / 2e-5
    np.testing.assert_allclose(slope, numeric, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(value, kernel(0.7))


def test_series_error_is_honest_when_the_norms_are_too_large(float64):
    x = np.array([[2.0, 0.0], [6.0, 0.0], [0.0, 0.7]])
    estimate = dual_kernel_estimate(Tanh(), x, x + 0, derivative=1, order=120)
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
    x = 100 * np.array([[1, 0], [0.6, 0.8]])
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
    form = functools.partial(dual_of_angle, Erf())
    for p in norms:
        value, slope = jax.value_and_grad(form)(np.asarray(1.0, dtype), p, p)
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


def test_kernels_map_over_batches(float64, getkey):
    batch = normal(getkey(), (3, 4, 2)) / 2
    batch[1, 2] = -batch[1, 0]

    mapped = jax.vmap(functools.partial(dual_kernel, ReLU()))(batch)
    one = dual_kernel(ReLU(), batch[1])
    np.testing.assert_allclose(mapped[1], one, rtol=1e-12, atol=1e-15)
    assert mapped[1, 2, 0] == 0


def test_refusals():
    x = np.ones((2, 3), "float32")
    with pytest.raises(ValueError, match="derivative is '2'"):
        dual_kernel(ReLU(), x, derivative=2)
    with pytest.raises(TypeError, match="inputs_a has dtype int"):
        dual_kernel(ReLU(), jnp.ones((2, 3), int))
    with pytest.raises(ValueError, match="expected rows of one length"):
        angles(jnp.asarray(x), jnp.ones((2, 4), "float32"))
    with pytest.raises(ValueError, match="at least one row"):
        angles(jnp.ones((0, 3), "float32"))
    with pytest.raises(ValueError, match="order is 1"):
        dual_of_angle(Tanh(), 0.3, order=1)
