"""Dual kernels as integrals: quadrature, sampling, tables, laws, derivatives."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from _draws import normal
from _kernels import scalar_kernel, with_gradient
from hypothesis import given, settings, strategies as st

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
    angles,
    dual_kernel,
    dual_of_angle,
)


PI = np.pi
ALL = [
    ReLU(), LeakyReLU(0.2), Softplus(), Softplus(2.0), Tanh(), Erf(), Sigmoid(), GELU(),
    Quadratic(), Linear(),
]  # fmt: skip
ids = lambda act: f"{act.name}{getattr(act, 'beta', '')}"

# ------------------------------------------- smooth activations, two dimensions

GRID, WEIGHT = np.polynomial.hermite_e.hermegauss(90)
WEIGHTS = np.outer(WEIGHT, WEIGHT).ravel() / (2 * PI)
PLANE = np.stack([np.repeat(GRID, 90), np.tile(GRID, 90)], axis=1)


# Both orders of second derivatives for the rules that GELU and erf share
@pytest.mark.parametrize(
    ("act", "again"),
    [(Softplus(), jax.jacfwd), (Erf(), jax.jacrev), (GELU(), jax.jacfwd),
     (Quadratic(), jax.jacrev)],
    ids=lambda value: ids(value) if hasattr(value, "slopes") else "",
)  # fmt: skip
def test_smooth_kernels_and_derivatives_by_two_dimensional_quadrature(
    act, again, float64
):
    first = with_gradient(functools.partial(scalar_kernel, act, 0))
    slope = jax.value_and_grad(functools.partial(scalar_kernel, act, 1))

    @jax.jit
    def everything(x, y):
        blocks, (value, gradient) = again(first, (0, 1), has_aux=True)(x, y)
        gate, tilt = slope(x, y)
        return value, gate, gradient, tilt, *blocks

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

    def both(w):
        value, gradient = jax.value_and_grad(loss)(w)
        return gradient, (value, gradient)

    hessian, (value, gradient) = jax.jit(jax.jacfwd(both, has_aux=True))(student)
    assert abs(float(value)) < 1e-15
    np.testing.assert_allclose(gradient, 0, atol=1e-15)
    np.testing.assert_allclose(hessian.reshape(6, 6), expected, atol=1e-15)


# -------------------------------------------------------------- zero rows, angles


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.lists(st.floats(-3, 3, width=32), min_size=6, max_size=6), st.floats(0.1, 8))
def test_laws_of_the_kernels(numbers, scale):
    with jax.enable_x64(True):
        x = np.array(numbers).reshape(3, 2)
        turn = np.array([[0.6, -0.8], [0.8, 0.6]])
        for act in (ReLU(), GELU()):
            kernel = dual_kernel(act, x)
            assert np.linalg.eigvalsh(kernel)[0] >= -1e-12
            np.testing.assert_allclose(dual_kernel(act, x @ turn), kernel, atol=1e-12)
        homogeneous = dual_kernel(ReLU(), scale * x)
        np.testing.assert_allclose(
            homogeneous, scale**2 * np.asarray(dual_kernel(ReLU(), x)), 1e-9, 1e-12
        )


def test_zero_rows_follow_the_convention_for_the_derivative(dtype):
    x = np.array([[0, 0], [1, 2], [-1, 1]], dtype)

    @jax.jit
    def everything(slope):
        act = LeakyReLU(slope)

        def total(x):
            value = dual_kernel(act, x)
            return jnp.sum(value), value

        def both(x):
            gradient, value = jax.grad(total, has_aux=True)(x)
            return gradient, (value, gradient)

        hessian, (value, gradient) = jax.jacfwd(both, has_aux=True)(x)
        return value, dual_kernel(act, x, derivative=1), gradient, hessian

    for slope in (0.0, 0.25):
        value, gates, gradient, hessian = everything(np.asarray(slope, dtype))
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
    all_of = [jax.jit(jax.value_and_grad(f, (0, 1, 2))) for f in (form, of_vectors)]
    for theta in (0.7, 2.9):
        got, expected = (f(theta, 1.2, 0.7) for f in all_of)
        np.testing.assert_allclose(
            jax.tree.leaves(got), jax.tree.leaves(expected), rtol=1e-12
        )
    ends = jax.jit(jax.vmap(jax.grad(jax.grad(form)), (0, None, None)))(
        np.array([0.0, PI]), 1.0, 1.0
    )
    # d²K/dθ² at 0 is -K'(1) as a function of cos θ, that is -E φ'²; at π it is +h(-1)
    slopes = np.asarray(dual_of_angle(act, np.array([0.0, PI]), derivative=1))
    np.testing.assert_allclose(ends, slopes * [-1.0, 1.0], rtol=1e-12)


@pytest.mark.parametrize("make", [LeakyReLU, Softplus])
def test_kernels_are_differentiable_in_the_parameter(make, float64):
    x = np.array([[1.0, 0.2], [0.3, -0.8]])

    def kernels(s):
        value = [dual_kernel(make(s), x, derivative=r) for r in (0, 1)]
        return value, value

    both = jax.jit(jax.jacfwd(kernels, has_aux=True))
    slopes, values = both(0.7)
    ahead, behind = both(0.7 + 1e-5)[1], both(0.7 - 1e-5)[1]
    fixed = jax.jit(lambda: kernels(0.7)[1])()
    for r in (0, 1):
        numeric = (np.asarray(ahead[r]) - np.asarray(behind[r])) / 2e-5
        np.testing.assert_allclose(slopes[r], numeric, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(values[r], fixed[r])


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
