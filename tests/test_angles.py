"""Angles and chords: exact arithmetic, degenerate and extreme vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _draws import normal

from jaxrelu.activations import Erf, ReLU, _angle, angle, angles, dual_kernel


pytestmark = pytest.mark.optimised  # rounding is what they are about

PI = np.pi


def test_angles_across_blocks_and_chunks(dtype, getkey, monkeypatch):
    monkeypatch.setattr(_angle, "_MANY", 0)  # by products
    monkeypatch.setattr(_angle, "_CHUNK", 1)  # 64 pairs at once
    x = normal(getkey(), (300, 6)).astype(dtype)
    x[270] = 0
    for i in range(0, 200, 2):  # nearly parallel pairs, in one block and across
        x[299 - i] = (
            (-1) ** (i // 2) * 3 * x[i] * (1 + (i % 7) * float(jnp.finfo(dtype).eps))
        )
        x[299 - i, 0] += 10.0 ** -(i % 17) * x[i, 0]
    x[7] = x[6]
    x[8] = -x[6]
    x[270] = 0
    long = x.astype(np.longdouble)
    norms = np.sqrt((long**2).sum(1, keepdims=True))
    unit = np.divide(long, norms, out=np.zeros_like(long), where=norms > 0)
    minus = np.sqrt(((unit[:, None] - unit[None]) ** 2).sum(-1))
    plus = np.sqrt(((unit[:, None] + unit[None]) ** 2).sum(-1))
    exact = 2 * np.arctan2(minus, plus)
    exact[270] = exact[:, 270] = PI / 2
    got = np.asarray(angles(x))
    error = np.abs(np.asarray(got, np.longdouble) - exact)
    assert error.max() <= 10 * float(jnp.finfo(dtype).eps)
    near = np.abs(np.cos(exact.astype(float))) > 0.98
    assert near.sum() > 400
    assert error[near].max() <= 3 * float(jnp.finfo(dtype).eps)
    if dtype == "float64":  # two matrices, in either precision: the chords below
        np.testing.assert_allclose(angles(x, x + 0), got, atol=1e-15)
    assert got[6, 7] == 0
    assert got[6, 8] == np.asarray(PI, dtype)
    assert (np.diagonal(got)[:270] == 0).all()


def test_rows_are_parallel_to_themselves_within_any_program(dtype):
    """The slope of erf falls like 1/angle at long rows: a rounding would be seen."""
    shape = np.asarray([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    x = np.concatenate([3e8 * shape, np.zeros((1, 2))]).astype(dtype)
    together = lambda x: (dual_kernel(Erf(), x, derivative=1), angles(x))
    kernel, theta = jax.jit(together)(x)
    np.testing.assert_array_equal(np.diagonal(theta)[:3], 0)
    exact = 2 / np.pi / np.sqrt(1 + 2 * np.sum(x.astype(float) ** 2, axis=1))
    np.testing.assert_allclose(np.diagonal(kernel), exact, rtol=1e-6)


def test_angles_of_vectors_next_to_overflow(dtype):
    """The inverse of their length is subnormal, or the length is no number at all."""
    info = jnp.finfo(dtype)
    sizes = np.asarray([0.25, 0.3, 0.99]) * float(info.max)
    flat = jnp.asarray(sizes[:, None] * [1.0, 0.0], dtype)
    steep = jnp.asarray(sizes[:, None] * [1.0, -1.0], dtype)
    tolerance = 4 * float(info.eps)
    np.testing.assert_allclose(angles(flat), np.zeros((3, 3)), atol=tolerance)
    np.testing.assert_allclose(angles(flat, steep), np.pi / 4, tolerance)
    np.testing.assert_allclose(angles(steep, -flat), 3 * np.pi / 4, tolerance)


def test_angle_derivative_and_its_convention_at_parallel_vectors(float64):
    x, y = np.array([3.0, 4.0]), np.array([0.0, 2.0])
    # in the plane the angle moves by 1/|x| per unit of motion across x
    slope = jax.jit(jax.grad(angle))
    np.testing.assert_allclose(slope(x, y), [4 / 25, -3 / 25], rtol=1e-14)

    @jax.jit
    @jax.value_and_grad
    def gate(x):
        return dual_kernel(ReLU(), x[None], y[None], derivative=1)[0, 0]

    for z in (y, 2 * y, -y, 0 * y):
        np.testing.assert_array_equal(slope(z, y), 0)
        np.testing.assert_array_equal(gate(z)[1], 0)
    step = np.array([1e-6, 0])  # the mean of the one-sided slopes is indeed 0
    ahead, behind = (float(gate(y + s * step)[0]) for s in (1, -1))
    assert ahead == pytest.approx(behind, abs=1e-16)
    assert 0.5 - ahead == pytest.approx(5e-7 / (2 * PI), rel=1e-8)


def test_huge_and_tiny_rows(dtype):
    x = np.array([[3e25, 4e25], [3e-25, 4e-25], [-3.0, -4.0]], dtype)
    np.testing.assert_allclose(
        angles(x), [[0, 0, PI], [0, 0, PI], [PI, PI, 0]], atol=1e-6
    )


def test_chords_and_their_slopes(dtype, getkey, monkeypatch):
    """Against complex steps through the definition; 0 where rows are parallel."""
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    x[1] = 2 * y[3]
    dx, dy = rng.normal(size=x.shape), rng.normal(size=y.shape)
    step = 1e-40j

    def lengths(x, y):
        u, v = (r / np.sqrt((r * r).sum(1, keepdims=True)) for r in (x, y))
        sums = [((u[:, None] - s * v[None]) ** 2).sum(-1) for s in (1, -1)]
        return np.sqrt(np.array(sums, complex))

    exact, there = lengths(x, y), lengths(x + step * dx, y + step * dy)
    slopes = there.imag / abs(step)
    given = [r.astype(dtype) for r in (x, y, dx, dy)]
    eps = float(jnp.finfo(dtype).eps)
    parallel = np.zeros((3, 5), bool)
    parallel[1, 3] = True
    sizes = ((_angle._FEW, _angle._MANY), (0, _angle._MANY), (0, 0))
    for few, many in sizes:  # all differences, by columns, by a product with chunks
        monkeypatch.setattr(_angle, "_FEW", few)
        monkeypatch.setattr(_angle, "_MANY", many)
        got, rates = jax.jit(
            lambda x, y, dx, dy: jax.jvp(
                lambda x, y: _angle.chord_pair(False, x, y), (x, y), (dx, dy)
            )
        )(*given)
        np.testing.assert_allclose(got, exact.real, rtol=20 * eps, atol=4 * eps)
        rates = np.asarray(rates)
        assert not rates[:, parallel].any()
        bound = 200 * eps * np.abs(slopes[:, ~parallel]).max()
        assert np.abs(rates - slopes)[:, ~parallel].max() < bound
