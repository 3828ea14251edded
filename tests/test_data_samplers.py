"""Samplers: their laws, their geometry, and what they refuse."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxrelu._checks import check_size
from jaxrelu.data import (
    basis_and_bisectors,
    check_unit_rows,
    clustered,
    equicorrelated,
    gaussian,
    half_circle,
    orthonormal,
    separated,
    separation,
    separation_bound,
    sphere,
)
from jaxrelu.data._samplers import _around


LAW = settings(deadline=None, derandomize=True, max_examples=20)
SAMPLERS = {
    "gaussian": gaussian,
    "sphere": sphere,
    "orthonormal": orthonormal,
    "separated": lambda *args, **kw: separated(*args, delta=0.1, **kw),
    "clustered": lambda *args, **kw: clustered(
        *args, num_clusters=3, radius=0.1, delta=0.5, **kw
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_shape_dtype_and_determinism(name, dtype):
    sampler = SAMPLERS[name]
    key = jax.random.key(3)
    x = sampler(key, 3, 5)
    assert isinstance(x, jax.Array)
    assert x.shape == (3, 5)
    assert x.dtype == dtype
    np.testing.assert_array_equal(x, sampler(key, 3, 5))
    assert not np.array_equal(x, sampler(jax.random.key(4), 3, 5))
    if name != "gaussian":
        check_unit_rows(x)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("n", "d", "dtype", "error", "words"),
    [
        (0, 5, None, ValueError, "n is 0; expected at least"),
        (3, 0, None, ValueError, "d is 0; expected at least"),
        (3, 5, "int32", TypeError, "dtype is int32; expected a floating dtype"),
        (3, 5, "float64", TypeError, "float64, which JAX holds only when x64 is on"),
    ],
)
def test_common_refusals(name, n, d, dtype, error, words):
    with pytest.raises(error, match=words):
        SAMPLERS[name](jax.random.key(0), n, d, dtype=dtype)


def test_sizes_are_integers():
    # The tests' own type checks would stop a float before the sampler sees it.
    with pytest.raises(TypeError, match=r"n is 3.0 of type float; expected a Python"):
        check_size(3.0, "n")
    assert check_size(np.int64(3), "n") == 3


def test_a_narrower_dtype_than_the_default(float64):
    assert sphere(jax.random.key(0), 3, 5, dtype="float32").dtype == np.float32
    assert half_circle(3, dtype="float16").dtype == np.float16


def within(sample_mean, expected, sigma, size):
    """Whether a mean of ``size`` values of deviation ``sigma`` is within 5 errors."""
    return abs(float(sample_mean) - expected) < 5 * sigma / math.sqrt(size)


def test_gaussian_moments(getkey):
    n, d, variance = 20000, 4, 0.25
    x = np.asarray(gaussian(getkey(), n, d, variance=variance), float)
    size = n * d
    assert within(x.mean(), 0, 0.5, size)
    assert within((x**2).mean(), variance, variance * math.sqrt(2), size)
    assert within((x**4).mean(), 3 * variance**2, variance**2 * math.sqrt(96), size)
    assert within((x[:, 0] * x[:, 1]).mean(), 0, variance, n)
    with pytest.raises(ValueError, match="variance is 0; expected a positive"):
        gaussian(getkey(), 2, 2, variance=0)


def test_sphere_is_rotation_invariant(getkey):
    # Moments of <x, a> for a unit vector a that is no axis: those of one coordinate.
    n, d = 20000, 4
    x = np.asarray(sphere(getkey(), n, d), float)
    for a in (np.eye(d)[0], np.array([0.5, 0.5, -0.5, 0.5])):
        u = x @ a
        second, fourth = 1 / d, 3 / (d * (d + 2))
        eighth = 105 / (d * (d + 2) * (d + 4) * (d + 6))
        assert within(u.mean(), 0, math.sqrt(second), n)
        assert within((u**2).mean(), second, math.sqrt(fourth - second**2), n)
        assert within((u**4).mean(), fourth, math.sqrt(eighth - fourth**2), n)


@LAW
@given(seed=st.integers(0, 10**6), double=st.booleans())
def test_orthonormal_rows(seed, double):
    with jax.enable_x64(double):
        x = np.asarray(orthonormal(jax.random.key(seed), 3, 5), float)
        eps = 2.0**-52 if double else 2.0**-23
        np.testing.assert_allclose(x @ x.T, np.eye(3), atol=10 * eps)


def test_orthonormal_is_haar(getkey):
    # Without the sign fix Householder QR gives q_11 < 0 always.
    runs, d = 3000, 3
    keys = jax.random.split(getkey(), runs)
    q = np.asarray(jax.vmap(lambda key: orthonormal(key, d, d))(keys), float)
    for i, j in ((0, 0), (1, 0), (2, 2)):
        assert within(q[:, i, j].mean(), 0, math.sqrt(1 / d), runs)
        assert within((q[:, i, j] ** 4).mean(), 1 / 5, math.sqrt(1 / 9 - 1 / 25), runs)
    # Trace of a Haar orthogonal matrix: mean 0, variance 1; determinant: a fair sign.
    trace = np.trace(q, axis1=1, axis2=2)
    assert within(trace.mean(), 0, 1, runs)
    assert within((trace**2).mean(), 1, math.sqrt(2), runs)
    assert within(np.linalg.det(q).mean(), 0, 1, runs)


def test_orthonormal_needs_room(getkey):
    with pytest.raises(ValueError, match=r"n is 4 and d is 3; expected n <= d"):
        orthonormal(getkey(), 4, 3)


# ---- separated ----------------------------------------------------------------------


@LAW
@given(seed=st.integers(0, 10**6), delta=st.floats(1e-3, 0.3))
def test_separated_keeps_its_distance(seed, delta):
    x = separated(jax.random.key(seed), 10, 3, delta=delta)
    check_unit_rows(x)
    exact = np.asarray(x, float)
    distances = [
        np.linalg.norm(exact[i] - sign * exact[j])
        for i in range(10)
        for j in range(i)
        for sign in (1, -1)
    ]
    assert min(distances) >= delta
    assert separation(x) >= delta


def test_separated_refuses_the_impossible(getkey):
    # In the plane the bound is attained, so it must be the number in the message.
    words = r"delta is 0.5, but no 7 unit.*dimension 2.*0.445042 separated.*Lower delta"
    with pytest.raises(ValueError, match=words):
        separated(getkey(), 7, 2, delta=0.5)
    with pytest.raises(ValueError, match=r"0 separated"):
        separated(getkey(), 2, 1, delta=1e-3)
    with pytest.raises(ValueError, match="delta is -1; expected a positive"):
        separated(getkey(), 2, 2, delta=-1)


def test_separated_gives_up_with_the_numbers(getkey):
    words = r"\d of 10 points with separation 0.6 .* in 12 attempts; .*max_attempts"
    with pytest.raises(RuntimeError, match=words):
        separated(getkey(), 10, 3, delta=0.6, max_attempts=12)
    with pytest.raises(ValueError, match="max_attempts is 0"):
        separated(getkey(), 10, 3, delta=0.6, max_attempts=0)


def test_separated_under_vmap_marks_what_failed(getkey):
    runs, delta, attempts = 600, 0.5, 14
    keys = jax.random.split(getkey(), runs)

    @jax.vmap
    def draw(key):
        return separated(key, 10, 3, delta=delta, max_attempts=attempts)

    x = np.asarray(draw(keys), float)
    placed = np.isfinite(x).all(axis=2)
    assert np.isnan(x[~placed]).all()
    assert np.all(np.diff(placed.astype(int), axis=1) <= 0)
    count = placed.sum(axis=1)
    assert 0 < np.sum(count == 10) < runs
    whole, part = np.argmax(count == 10), np.argmax(count < 10)
    alone = separated(keys[whole], 10, 3, delta=delta, max_attempts=attempts)
    np.testing.assert_allclose(x[whole], alone, atol=1e-6)
    with pytest.raises(RuntimeError, match=f"{count[part]} of 10 points"):
        separated(keys[part], 10, 3, delta=delta, max_attempts=attempts)
    # Rejection does not see rotations: every row that was placed is uniform, those
    # that were drawn again included.
    for row in (0, 9):
        u = x[placed[:, row], row, 0]
        assert within(u.mean(), 0, math.sqrt(1 / 3), len(u))
        assert within((u**2).mean(), 1 / 3, math.sqrt(1 / 5 - 1 / 9), len(u))


@pytest.mark.parametrize("n", [2, 3, 5, 16])
def test_separation_bound_is_attained_in_the_plane(n):
    expected = 2 * math.sin(math.pi / (2 * n))
    assert separation_bound(n, 2) == pytest.approx(expected, rel=1e-12)


def test_separation_bound_known_line_systems():
    # Orthonormal bases, and equiangular tight frames, attain Welch's bound.
    assert separation_bound(5, 5) == pytest.approx(math.sqrt(2), rel=1e-15)
    golden = (1 + math.sqrt(5)) / 2
    icosahedron = np.array(
        [
            [0, 1, golden], [0, 1, -golden], [1, golden, 0],
            [1, -golden, 0], [golden, 0, 1], [golden, 0, -1],
        ]
    )  # fmt: skip
    icosahedron /= np.sqrt(1 + golden**2)
    reached = float(separation(icosahedron.astype("f4")))
    assert separation_bound(6, 3) == pytest.approx(reached, rel=1e-6)
    # Many lines in space: caps decide. Their areas are 2 pi (1 - cos), disjoint.
    n = 1000
    radius = math.acos(1 - 1 / n)
    assert separation_bound(n, 3) == pytest.approx(2 * math.sin(radius), rel=1e-12)
    assert separation_bound(1, 3) == math.inf
    assert separation_bound(2, 1) == 0


@LAW
@given(seed=st.integers(0, 10**6), n=st.integers(2, 9), d=st.integers(1, 4))
def test_no_sample_beats_the_bound(seed, n, d):
    x = np.random.default_rng(seed).normal(size=(n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    gram = np.abs(x @ x.T)[np.triu_indices(n, 1)]
    reached = math.sqrt(max(0.0, 2 - 2 * gram.max()))
    assert reached <= separation_bound(n, d) + 1e-7


# ---- clustered ----------------------------------------------------------------------


@LAW
@given(seed=st.integers(0, 10**6), radius=st.floats(0.01, 0.2))
def test_clusters_are_tight_and_apart(seed, radius):
    num_clusters, delta = 10, 0.45
    x = clustered(
        jax.random.key(seed),
        30,
        3,
        num_clusters=num_clusters,
        radius=radius,
        delta=delta,
    )
    check_unit_rows(x)
    exact = np.asarray(x, float)
    distance = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    opposite = np.linalg.norm(exact[:, None] + exact[None], axis=2)
    cluster = np.arange(30) % num_clusters
    same = cluster[:, None] == cluster[None]
    assert distance[same].max() <= 2 * radius + 1e-6
    assert distance[~same].min() >= delta - 2 * radius - 1e-6
    assert opposite[~same].min() >= delta - 2 * radius - 1e-6


def test_cluster_radii_and_directions_follow_their_law(getkey):
    n, d, radius = 6000, 4, 0.7
    centre = np.array([0.5, 0.5, -0.5, 0.5])
    centres = jnp.asarray(np.tile(centre, (n, 1)), jnp.float32)
    offset = np.asarray(_around(getkey(), centres, radius), float) - centre
    r = np.linalg.norm(offset, axis=1)
    assert r.max() <= radius + 1e-6
    uniform = (r / radius) ** (d - 1)
    assert within(uniform.mean(), 1 / 2, math.sqrt(1 / 12), n)
    assert within((uniform**2).mean(), 1 / 3, math.sqrt(1 / 5 - 1 / 9), n)
    # The tangent is uniform in the three dimensions orthogonal to the centre.
    across = offset @ np.array([0.5, -0.5, 0.5, 0.5]) / (r * np.sqrt(1 - r**2 / 4))
    assert within(across.mean(), 0, math.sqrt(1 / 3), n)
    assert within((across**2).mean(), 1 / 3, math.sqrt(1 / 5 - 1 / 9), n)


@pytest.mark.parametrize(
    ("n", "d", "options", "words"),
    [
        (5, 3, {"radius": 0.3}, r"radius is 0.3 and delta 0.5; expected delta > 2"),
        (1, 3, {}, "n is 1; expected at least 2"),
        (5, 1, {}, "d is 1; expected at least 2"),
        (5, 3, {"radius": 0}, "radius is 0; expected a positive"),
        (5, 3, {"delta": math.inf}, "delta is inf; expected a positive finite"),
        (5, 2, {"delta": 1.5}, "no 2 unit vectors in dimension 2"),
    ],
)
def test_clustered_refusals(n, d, options, words):
    options = {"num_clusters": 2, "radius": 0.1, "delta": 0.5} | options
    with pytest.raises(ValueError, match=words):
        clustered(jax.random.key(0), n, d, **options)


# ---- deterministic ------------------------------------------------------------------


def test_half_circle(dtype):
    n = 8
    x = half_circle(n)
    assert x.dtype == dtype
    check_unit_rows(x)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(separation(x), 2 * np.sin(np.pi / 16), rtol=10 * eps)
    # All lines: the frame is tight, X^T X = (n/2) I.
    gram = np.asarray(x, float).T @ np.asarray(x, float)
    np.testing.assert_allclose(gram, 4 * np.eye(2), atol=20 * eps)
    assert half_circle(1).shape == (1, 2)


@LAW
@given(n=st.integers(1, 6), position=st.floats(0, 1))
def test_equicorrelated(n, position):
    lowest = -1 / (n - 1) if n > 1 else -1.0
    rho = lowest + position * (1 - lowest)
    with jax.enable_x64(True):
        x = np.asarray(equicorrelated(n, rho))
        expected = np.where(np.eye(n, dtype=bool), 1.0, rho)
        np.testing.assert_allclose(x @ x.T, expected, atol=1e-7 if n > 1 else 1)
    if n == 1:
        np.testing.assert_allclose(x, [[1.0]])


def test_equicorrelated_dtype_and_refusals(dtype):
    assert equicorrelated(3, 0.5).dtype == dtype
    for rho in (-0.51, 1.01, math.nan):
        with pytest.raises(ValueError, match=r"expected -0.5 <= rho <= 1"):
            equicorrelated(3, rho)


def test_basis_and_bisectors(dtype):
    d = 5
    x = basis_and_bisectors(d)
    assert x.shape == (15, d)
    assert x.dtype == dtype
    check_unit_rows(x)
    exact = np.asarray(x, float)
    np.testing.assert_allclose(np.linalg.norm(exact, 2) ** 2, d, rtol=1e-6)
    squares = (exact[:, :, None] * exact[:, None, :]).reshape(15, -1)
    assert np.linalg.matrix_rank(squares, tol=1e-3) == 15
    assert basis_and_bisectors(1).shape == (1, 1)
