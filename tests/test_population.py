"""The population loss and its gradient, against its definition in many digits."""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from _draws import normal
from _population_oracle import Oracle, exact, kernel, kernel_by_quadrature, loss

import jaxrelu as jr
from jaxrelu.objectives import relu_kernel


pytestmark = pytest.mark.optimised  # rounding is what they are about

ANGLES = [10.0**-p for p in (1, 2, 4, 7, 8, 9, 12, 15, 16, 17, 40, 100, 160, 300)]
ANGLES += [1.3, 0.0]


def turned(base, other, angle, backwards):
    """A vector at that angle to base (or to -base), times 0.7."""
    base, other = np.asarray(base, float), np.asarray(other, float)
    other = other - base * (base @ other) / (base @ base)
    other *= np.linalg.norm(base) / np.linalg.norm(other)
    if angle == 0:
        return (-1.0 if backwards else 1.0) * base
    sign = -1.0 if backwards else 1.0
    return 0.7 * (sign * np.cos(angle) * base + np.sin(angle) * other)


def degenerate(angle, backwards, dtype, axes):
    """Student and teacher with pairs at that angle, duplicates and multiples."""
    rng = np.random.default_rng(3)
    first, second = np.eye(3)[:2] if axes else rng.standard_normal((2, 3))
    w = np.stack([first, turned(first, second, angle, backwards), first])
    v = np.stack([2 * first, turned(w[1], second, 0.4, False)])
    if angle < 1e-20:  # tiny components survive along the axes only
        w[1] = (-first if backwards else first) + angle * second
    a, b = np.array([0.5, -1.25, 2.0]), np.array([1.5, -0.75])
    return tuple(np.asarray(x, dtype) for x in (w, a, v, b))


@functools.cache
def everything(x64):
    """F and its gradients in one compiled program."""

    def compute(w, a, v, b):
        F = jr.PopulationLoss(jr.Shallow(v, b))
        of = lambda w, a: F(jr.Shallow(w, a))
        student = jr.Shallow(w, a)
        return of(w, a), F.gradient(student), *jax.grad(of, (0, 1))(w, a)

    return jax.jit(compute)


@pytest.mark.parametrize("axes", [True, False], ids=["axes", "generic"])
@pytest.mark.parametrize("backwards", [False, True], ids=["parallel", "antiparallel"])
def test_loss_and_gradient_at_degenerate_angles(backwards, axes, dtype):
    eps = float(jnp.finfo(dtype).eps)
    for angle in ANGLES:
        w, a, v, b = degenerate(angle, backwards, dtype, axes)
        oracle = Oracle(w, a, v, b)
        got = everything(dtype == "float64")(w, a, v, b)
        assert all(x.dtype == dtype for x in got)
        mass = sum(
            np.sum(np.abs(c) * np.linalg.norm(z, axis=1)) for z, c in ((w, a), (v, b))
        )
        assert abs(float(oracle.value() - float(got[0]))) <= eps * mass**2 / 4
        true = oracle.gradient()
        for gradient in got[1:3]:
            assert np.abs(np.asarray(gradient, float) - true).max() <= 2 * eps * mass
        # outer weights: F is quadratic in them
        ends = [Oracle(w, a + s * np.eye(3, dtype=dtype)[1], v, b) for s in (1, -1)]
        slope = float((ends[0].value() - ends[1].value()) / 2)
        assert abs(float(got[3][1]) - slope) <= 2 * eps * mass * 2


def test_kernel_is_the_expectation(float64, getkey):
    w, v = normal(getkey(), (2, 3, 4))
    got = np.asarray(relu_kernel(w, v))
    with mp.workdps(40):
        for i, x in enumerate(exact(w)):
            for j, y in enumerate(exact(v)):
                assert mp.almosteq(kernel(x, y), kernel_by_quadrature(x, y), 1e-30)
                assert abs(float(float(got[i, j]) - kernel(x, y))) <= 1e-15
    x = normal(getkey(), (200_000, 4))
    products = np.maximum(x @ w.T, 0)[:, :, None] * np.maximum(x @ v.T, 0)[:, None, :]
    error = products.std(axis=0) / math.sqrt(len(x))
    assert np.all(np.abs(products.mean(axis=0) - got) < 4.5 * error)
    own = np.asarray(relu_kernel(w))
    assert np.array_equal(own, own.T)


def gaussian(key, k, dtype):
    """A network with normal weights of both layers."""
    inner, outer = np.split(normal(key, (k, 5), dtype), [4], axis=1)
    return jr.Shallow(jnp.asarray(inner), jnp.asarray(outer[:, 0]))


def test_loss_is_the_expectation(float64, getkey):
    student, teacher = gaussian(getkey(), 4, float64), gaussian(getkey(), 3, float64)
    F = jr.PopulationLoss(teacher)
    x = normal(getkey(), (200_000, 4))
    outputs = lambda net: np.maximum(x @ net.inner.T, 0) @ net.outer
    samples = (outputs(student) - outputs(teacher)) ** 2 / 2
    error = samples.std() / math.sqrt(len(x))
    assert abs(samples.mean() - float(F(student))) < 4.5 * error
    some = jax.jit(lambda net, x: net(x))(student, x[:5])
    np.testing.assert_allclose(some, outputs(student)[:5])
    ones = jr.Shallow(student.inner, jnp.asarray(np.ones(4)))
    assert F(student.inner) == F(ones)
    assert jr.PopulationLoss(teacher.inner)(teacher.inner) == 0


def test_teacher_is_a_minimum(dtype):
    k = 3
    F = jr.PopulationLoss(jr.Shallow.orthonormal(k, 4, dtype))
    W = np.asarray(F.teacher.inner)
    idle = np.concatenate([W, np.zeros_like(W[:1])])
    assert abs(float(F(idle))) <= 4 * jnp.finfo(dtype).eps
    split = np.concatenate([W[1:], W[:1] / 4, W[:1] * 3 / 4])
    assert abs(float(F(split))) <= 8 * jnp.finfo(dtype).eps
    gradient = np.asarray(F.gradient(split))
    assert np.abs(gradient).max() <= 4 * jnp.finfo(dtype).eps
    zero = k / 4 + k * (k - 1) / (4 * math.pi)
    np.testing.assert_allclose(F(np.zeros_like(split)), zero, rtol=4e-7)


def test_jit_and_vmap(dtype, getkey):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(3, 4, dtype))
    W = normal(getkey(), (6, 4, 4), dtype)
    W[0, :3], W[1, 1], W[2, 0] = F.teacher.inner, -W[1, 0], 0
    both = lambda w: (F(w), F.gradient(w), jax.grad(F)(w))
    values, gradients, traced = map(np.asarray, jax.jit(jax.vmap(both))(W))
    assert np.all(np.isfinite(gradients))
    assert np.all(np.isfinite(traced))
    eps = 32 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(traced, gradients, atol=eps)
    for w, value, gradient in zip(W, values, gradients, strict=True):
        np.testing.assert_allclose(F(w), value, atol=eps)
        np.testing.assert_allclose(F.gradient(w), gradient, atol=eps)


def test_zero_neurons(dtype, getkey):
    w, u, v = normal(getkey(), (3, 4, 4), dtype)
    a, b = normal(getkey(), (2, 4), dtype)
    v, b, w[[1, 3]], u[3] = v[:3], b[:3], 0, 0
    network = lambda w, a: jr.Shallow(jnp.asarray(w), jnp.asarray(a))
    F, student = jr.PopulationLoss(network(v, b)), network(w, a)
    assert F.zero_neurons(student).tolist() == [False, True, False, True]
    oracle, eps = Oracle(w, a, v, b), float(jnp.finfo(dtype).eps)
    assert abs(float(oracle.value()) - float(F(student))) < 50 * eps
    for gradient in (
        F.gradient(student),
        jax.jit(jax.grad(lambda w: F(jr.Shallow(w, student.outer))))(student.inner),
    ):
        assert np.all(np.isfinite(gradient))
        assert not np.asarray(gradient)[[1, 3]].any()
    for direction in (u, -u):
        slope = float(F.directional_derivative(student, direction))
        assert abs(slope - oracle.one_sided(direction)) < 100 * eps
    # at a smooth point it is the gradient's
    student = network(w + 1, a)
    smooth = float(F.directional_derivative(student, u))
    inner = np.sum(u * np.asarray(F.gradient(student)))
    assert abs(smooth - inner) < 50 * eps


def test_adding_a_zero_neuron_to_the_spurious_minimum(float64):
    """Along a direction of slope D the best step from a zero neuron lowers F by D²."""
    F = jr.PopulationLoss(jr.Shallow.orthonormal(3, 4))
    W = 0.1 * np.asarray([[-3.0, 1, 0, 2], [0, 2, -1, 1], [1, 1, 1, -2], [0, 0, 0, 0]])
    u = np.outer([0.0, 0, 0, 1], [1.0, 0, 0, 0])
    slope = float(F.directional_derivative(W, u))
    moved = W - 2 * slope * u  # exactly quadratic from a zero neuron on
    fall = float(F(moved)) - float(F(W))
    np.testing.assert_allclose(fall, -(slope**2), rtol=1e-14)


def test_scaling(dtype, getkey):
    F = jr.PopulationLoss(jnp.asarray(normal(getkey(), (3, 4), dtype) / 2))
    W = normal(getkey(), (4, 4), dtype)
    A, B, C = map(float, F.overlaps(W))
    best = np.asarray(F.optimal_scale(W))
    eps = float(jnp.finfo(dtype).eps)
    for t in (0.25, 1.0, float(best), 3.0):
        value = F(np.asarray(t, dtype) * W)
        np.testing.assert_allclose(value, t * t * A / 2 - t * B + C / 2, atol=400 * eps)
    slope = np.sum(np.asarray(F.gradient(best * W)) * W)
    assert abs(slope) < 200 * eps
    A, B, C = F.overlaps(best * W)
    np.testing.assert_allclose(A, B, rtol=20 * eps)
    assert F.optimal_scale(np.zeros((4, 4), dtype)) == 1
    against = jr.Shallow(jnp.asarray(W), jnp.asarray(-np.ones(4), dtype))
    assert F.optimal_scale(against) == 0


def test_critical_points_balance(float64):
    """One neuron, k teachers: by symmetry t(1, ..., 1) is critical at the best t."""
    F = jr.PopulationLoss(jr.Shallow.orthonormal(3, 4))
    w = np.outer([1.0, 0, 0, 0], [1.0, 1, 1, 0])  # and three that are idle
    w = float(F.optimal_scale(w)) * w
    assert np.abs(np.asarray(F.gradient(w))).max() < 1e-15
    A, B, C = map(float, F.overlaps(w))
    np.testing.assert_allclose(A, B, rtol=1e-15)
    np.testing.assert_allclose(F(w), (C - A) / 2, rtol=1e-15)


def test_evaluate_bounds_the_error(dtype, getkey):
    for scale in (1e3, 1e-3, 1e-6):
        teacher = gaussian(getkey(), 3, dtype)
        shift = dtype.type(scale) * normal(getkey(), (4, 4), dtype)
        inner = np.asarray(teacher.inner)[[0, 1, 2, 0]]
        outer = np.asarray(teacher.outer)[[0, 1, 2, 0]]
        outer = outer * np.asarray([0.25, 1, 1, 0.75], dtype)
        student = jr.Shallow(jnp.asarray(inner + shift), jnp.asarray(outer))
        F = jr.PopulationLoss(teacher)
        got = F.evaluate(student)
        arrays = student.inner, student.outer, teacher.inner, teacher.outer
        true = Oracle(*arrays).value()
        assert got.error_kind == "rounding bound"
        error = float(got.error)
        assert float(got.value) == float(F(student))
        assert abs(float(true - float(got.value))) <= error
        assert error < 1e3 * jnp.finfo(dtype).eps * (1 + scale**2) * 100
        fine = F.evaluate(student, digits=40)
        error = float(fine.error)
        assert abs(float(true - float(fine.value))) <= error
        assert error <= 2 * jnp.finfo(dtype).eps * abs(float(true))
        assert bool(fine.result == jr.RESULTS.successful)


def test_losses_below_rounding(float64):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(3, 4))
    C = float(F.overlaps(F.teacher)[2])
    V, t = np.asarray(F.teacher.inner), 1 + 2.0**-40
    got = F.evaluate(t * V)
    assert bool(got.result == jr.RESULTS.unresolved)
    fine = F.evaluate(t * V, digits=50)
    np.testing.assert_allclose(fine.value, C / 2 * 2.0**-80, rtol=1e-14)
    assert float(fine.error) < 1e-15 * float(fine.value)
    assert F.evaluate(F.teacher).value == 0
    vmapped = jax.jit(jax.vmap(F.evaluate))(np.stack([V, 2 * V]))
    assert (vmapped.result == jr.RESULTS.successful).tolist() == [False, True]
    with pytest.raises(ValueError, match="at least 16"):
        F.evaluate(F.teacher, digits=3)
    with pytest.raises(ValueError, match="Call evaluate outside jit"):
        jax.jit(lambda w: F.evaluate(w, digits=30))(F.teacher.inner)


def test_third_derivatives_where_they_exist(float64, getkey):
    F = jr.PopulationLoss(jnp.asarray([[1.0, 0.5]]))
    w, u = jnp.asarray([[-0.4, 0.9]]), jnp.asarray([[0.3, -0.2]])
    along = lambda t: jax.grad(F)(w + t * u)
    slope = lambda t: jax.jvp(along, (t,), (1.0,))[1]
    third = np.asarray(jax.jit(lambda t: jax.jvp(slope, (t,), (1.0,))[1])(0.0))
    h = mp.mpf(10) ** -15
    with mp.workdps(100):
        rows, step, v = exact(w), exact(u), exact(F.teacher.inner)

        def value(t, c, s):
            x = [r + t * e for r, e in zip(rows[0], step[0], strict=True)]
            x[c] += s
            return loss([x], [mp.mpf(1)], v, [mp.mpf(1)])

        for c in range(2):
            slope = lambda t, c=c: (value(t, c, h) - value(t, c, -h)) / (2 * h)
            true = (slope(h) - 2 * slope(0) + slope(-h)) / h**2
            assert abs(third[0, c] - float(true)) < 1e-13


def test_orthonormal_teacher(dtype):
    net = jr.Shallow.orthonormal(2, 3, dtype)
    x = jnp.asarray([[-1.0, 2.0, 5.0], [1.5, 0.5, -3.0]], dtype)
    assert net(x).tolist() == [2.0, 2.0]
    assert net.inner.dtype == net.outer.dtype == dtype
    assert jr.Shallow.orthonormal(4).inner.shape == (4, 4)
    with pytest.raises(ValueError, match="expected d >= k"):
        jr.Shallow.orthonormal(4, 3)


def test_bad_input_is_refused():
    eye = np.eye(3)
    F = jr.PopulationLoss(eye)
    with pytest.raises(ValueError, match="teacher neuron 1 is zero"):
        jr.PopulationLoss(eye * np.array([[1], [0], [1]]))
    with pytest.raises(ValueError, match="NaN"):
        jr.PopulationLoss(np.diag([1, np.nan, 1]))
    inner = jnp.asarray(eye)
    with pytest.raises(ValueError, match="activation 'tanh'"):
        jr.PopulationLoss(jr.Shallow(inner, inner[0], "tanh"))
    with pytest.raises(ValueError, match="a scalar output"):
        jr.PopulationLoss(jr.Shallow(inner, inner))
    with pytest.raises(TypeError, match="expected a Shallow"):
        jr.PopulationLoss(jr.LinearNetwork((inner,)))
    with pytest.raises(TypeError, match="floating"):
        F(np.eye(3, dtype=int))
    with pytest.raises(ValueError, match="expected 2 axes"):
        F(np.ones(3))
    with pytest.raises(ValueError, match="expected the same d"):
        F(np.eye(4))
    with pytest.raises(ValueError, match="none 0"):
        F(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="NaN"):
        F.gradient(np.diag([np.inf, 1, 1]))
    with pytest.raises(ValueError, match="as the inner weights"):
        F.directional_derivative(eye, np.ones((2, 3)))


def test_orthonormal_teachers_are_known(getkey, dtype):
    rotation, _ = np.linalg.qr(normal(getkey(), (5, 5), dtype))
    network = lambda w, a=(1, 1, 1): jr.Shallow(jnp.asarray(w), jnp.asarray(a, dtype))
    longer = rotation[:3] * np.array([[1.001], [1], [1]], dtype)
    teacher = network(rotation[:3])
    known = jax.jit(lambda loss: loss.has_orthonormal_teacher)
    others = [
        network(longer),
        network(rotation[[0, 1, 0]]),
        network(rotation[:3], (1, 1, 2)),
    ]
    assert known(jr.PopulationLoss(teacher))
    assert not any(known(jr.PopulationLoss(other)) for other in others)
