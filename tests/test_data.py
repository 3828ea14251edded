"""Dataset, unit rows, separation, and the refusal of bad inputs."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxrelu.data import (
    Dataset,
    check_no_parallel_rows,
    check_unit_rows,
    cluster_signs,
    linear_teacher,
    random_signs,
    separation,
    signs,
    unit_rows,
)


LAW = settings(deadline=None, derandomize=True, max_examples=30)


def small(dtype, n=4, d=3, seed=0):
    rng = np.random.default_rng(seed)
    return Dataset(
        rng.normal(size=(n, d)).astype(dtype),
        np.arange(1, n + 1, dtype=dtype),
        name="small",
    )


def test_fields_sizes_and_repr(dtype):
    data = small(dtype)
    assert (data.n, data.d, data.dtype, data.name) == (4, 3, dtype, "small")
    assert not data.normalised
    assert isinstance(data.inputs, jax.Array)
    assert repr(data) == f"Dataset('small', inputs (4, 3), targets (4,), {dtype})"
    assert repr(data.normalise()).endswith("unit rows)")
    # A pytree whose leaves were replaced must still print.
    assert "None" in repr(jax.tree.map(lambda _: None, data))


def test_two_dimensional_targets(dtype):
    data = Dataset(jnp.ones((4, 3)), jnp.ones((4, 2)))
    assert data.targets.shape == (4, 2)
    assert data.name == "data"


good = np.ones((3, 2), np.float32)
labels = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("inputs", "targets", "error", "words"),
    [
        (good[0], labels, ValueError, r"inputs has shape \(2,\).*\(n, d\)"),
        (good, labels[0], ValueError, r"targets has shape \(\).*\(n, m\).*Reshape"),
        (good, np.ones((3, 1, 1), "f4"), ValueError, r"targets has shape \(3, 1, 1\)"),
        (good, labels[:2], ValueError, r"\(3, 2\).*\(2,\).*same number.*transpose"),
        (good[:0], labels[:0], ValueError, r"inputs has shape \(0, 2\).*one row"),
        (good[:, :0], labels, ValueError, r"inputs has shape \(3, 0\)"),
        (good, np.ones((3, 0), "f4"), ValueError, r"targets has shape \(3, 0\)"),
        (good.astype(int), labels, TypeError, r"inputs has dtype int64.*astype"),
        (good, labels.astype(bool), TypeError, r"targets has dtype bool.*astype"),
        (good, ["a", "b", "c"], TypeError, r"targets has dtype <U1"),
        (good, labels.astype("f2"), TypeError, r"float32.*float16.*one dtype.*astype"),
        (good * np.nan, labels, ValueError, r"inputs holds 6 NaN.*\(0, 0\)"),
        (good, [1.0, np.inf, 1.0], ValueError, r"targets holds 1 NaN.*\(1,\).*Drop"),
    ],
)
def test_refusals(inputs, targets, error, words):
    with pytest.raises(error, match=words):
        Dataset(inputs, targets)


def test_normalised_is_verified(dtype):
    data = small(dtype)
    with pytest.raises(ValueError, match=r"4 rows.*not of unit length, at 0, 1, 2, 3"):
        Dataset(data.inputs, data.targets, normalised=True)
    unit = data.normalise()
    assert Dataset(unit.inputs, unit.targets, normalised=True).normalised


def test_value_checks_wait_for_values_and_shape_checks_do_not():
    build = jax.vmap(lambda x, y: Dataset(x, y, normalised=True))
    batch = build(jnp.full((5, 3, 2), jnp.nan), jnp.ones((5, 3)))
    assert batch.inputs.shape == (5, 3, 2)
    assert jax.vmap(lambda data: data.subset(2).inputs)(batch).shape == (5, 2, 2)
    with pytest.raises(ValueError, match="same number of rows"):
        jax.jit(Dataset)(jnp.ones((3, 2)), jnp.ones(4))


def test_subset(dtype):
    data = small(dtype).normalise()
    first = data.subset(2)
    np.testing.assert_array_equal(first.inputs, data.inputs[:2])
    assert first.normalised
    assert first.name == "small"
    picked = data.subset([3, -4, 3])
    np.testing.assert_array_equal(picked.targets, [4, 1, 4])
    np.testing.assert_array_equal(picked.inputs, np.asarray(data.inputs)[[3, 0, 3]])
    masked = data.subset(data.targets > 2.5)
    np.testing.assert_array_equal(masked.targets, [3, 4])
    traced = jax.jit(lambda data, rows: data.subset(rows).targets)
    np.testing.assert_array_equal(traced(data, jnp.array([2, 0])), [3, 1])


@pytest.mark.parametrize(
    ("which", "error", "words"),
    [
        (5, IndexError, r"5 samples.*at most 4"),
        (0, ValueError, r"which is 0.*at least 1"),
        (2.0, TypeError, r"which is 2.0 of type float.*int"),
        ([], ValueError, "which is empty"),
        ([0, 4, -5], IndexError, r"which holds 4, -5; expected indices from 0 to 3"),
        ([0.5], TypeError, r"dtype float64.*integers or booleans"),
        ([[0]], ValueError, r"shape \(1, 1\)"),
        ([True], ValueError, r"mask of shape \(1,\); expected \(4,\)"),
        ([False] * 4, ValueError, r"inputs has shape \(0, 3\)"),
    ],
)
def test_subset_refusals(which, error, words):
    with pytest.raises(error, match=words):
        small("float32").subset(which)


def test_drop_duplicates_keeps_the_first_in_order():
    inputs = jnp.array([[3.0, 1.0], [2.0, 2.0], [3.0, 1.0], [0.0, 1.0], [2.0, 2.0]])
    kept = Dataset(inputs, jnp.arange(5.0)).drop_duplicates()
    np.testing.assert_array_equal(kept.targets, [0, 1, 3])
    np.testing.assert_array_equal(kept.inputs, np.asarray(inputs)[[0, 1, 3]])


def test_with_and_shuffled_targets(getkey):
    data = small("float32", n=50)
    other = data.with_targets(-data.targets)
    np.testing.assert_array_equal(other.targets, -np.asarray(data.targets))
    assert other.inputs is data.inputs
    with pytest.raises(ValueError, match="same number of rows"):
        data.with_targets(data.targets[:3])
    rows = jnp.stack([data.targets, 2 * data.targets], axis=1)
    shuffled = data.with_targets(rows).shuffle_targets(getkey())
    assert shuffled.dtype == data.dtype
    np.testing.assert_array_equal(shuffled.inputs, data.inputs)
    assert not np.array_equal(shuffled.targets, rows)
    np.testing.assert_array_equal(np.sort(shuffled.targets[:, 0]), data.targets)
    np.testing.assert_array_equal(shuffled.targets[:, 1], 2 * shuffled.targets[:, 0])


def test_astype_keeps_numbers_and_forgets_unit_rows_when_finer(float64):
    data = small(float64, n=6, d=5).normalise()
    single = data.astype("float32")
    assert single.dtype == np.float32
    assert single.normalised
    double = single.astype("float64")
    np.testing.assert_array_equal(double.inputs, np.asarray(single.inputs, float))
    assert not double.normalised
    with pytest.raises(TypeError, match=r"dtype is int32; expected a floating dtype"):
        data.astype("int32")


def test_float64_needs_x64():
    with pytest.raises(
        TypeError, match=r"float64, which JAX holds only when x64 is on"
    ):
        small("float32").astype("float64")


# ---- unit rows ----------------------------------------------------------------------


@LAW
@given(
    seed=st.integers(0, 10**6),
    exponent=st.integers(-37, 38),
    double=st.booleans(),
)
def test_unit_rows_at_every_scale(seed, exponent, double):
    with jax.enable_x64(double):
        dtype = np.float64 if double else np.float32
        rng = np.random.default_rng(seed)
        # Largest entries between 10^exponent / 2 and 10^exponent.
        rows = rng.uniform(-1, 1, size=(3, 5))
        rows[:, 0] = rng.choice([-1, 1], 3) * rng.uniform(0.5, 1, 3)
        rows = (rows * (0.9 * float(f"1e{exponent}"))).astype(dtype)
        unit = unit_rows(rows)
        assert unit.dtype == dtype
        exact = rows.astype(np.longdouble)
        exact /= np.sqrt(np.sum(exact**2, axis=1, keepdims=True))
        error = np.abs(np.asarray(unit, np.longdouble) - exact)
        assert error.max() <= 4 * np.finfo(dtype).eps
        check_unit_rows(unit)


def test_unit_rows_survive_huge_and_tiny_rows_together():
    rows = np.array([[1e30, -1e30], [1e-30, 1e-30], [3e38, 0], [3e-38, 0]], "f4")
    root = 0.5**0.5
    expected = [[root, -root], [root, root], [1, 0], [1, 0]]
    np.testing.assert_allclose(unit_rows(rows), expected, rtol=3e-7)


def test_unit_rows_derivative_is_the_projection(float64):
    x = jnp.array([[3.0, -4.0, 12.0]])
    jacobian = jax.jacobian(unit_rows)(x)[0, :, 0, :]
    u = np.array([3.0, -4.0, 12.0]) / 13
    np.testing.assert_allclose(jacobian, (np.eye(3) - np.outer(u, u)) / 13, atol=1e-15)


def test_zero_rows_are_refused_with_their_indices(dtype):
    x = np.ones((9, 2), dtype)
    x[[1, 4, 5, 6, 7, 8]] = 0
    x[4, 0] = np.finfo(dtype).tiny / 4  # subnormal
    with pytest.raises(ValueError, match=r"6 zero rows, at 1, 4, 5, 6, 7 and 1 more"):
        unit_rows(x)
    with pytest.raises(ValueError, match=r"zero rows.*Drop"):
        Dataset(x, np.ones(9, dtype)).normalise()
    assert np.isnan(jax.jit(unit_rows)(x)[1]).all()


def test_unit_rows_other_refusals():
    with pytest.raises(TypeError, match="inputs has dtype int64"):
        unit_rows(np.ones((2, 2), int))
    with pytest.raises(ValueError, match=r"\(2,\); expected 2 axes"):
        unit_rows(np.ones(2, "f4"))
    with pytest.raises(ValueError, match="NaN"):
        unit_rows(np.full((2, 2), np.nan, "f4"))


def test_check_unit_rows(dtype):
    eps = float(jnp.finfo(dtype).eps)
    x = np.eye(4, dtype=dtype)
    check_unit_rows(x)
    x[2, 2] = 1 + 40 * eps
    with pytest.raises(
        ValueError, match=r"1 rows.*at 2; row 2 has length 1.*normalise"
    ):
        check_unit_rows(x)
    check_unit_rows(x, tolerance=41 * eps)
    x[2, 2] = np.nan
    with pytest.raises(ValueError, match="length nan"):
        check_unit_rows(x)
    jax.jit(check_unit_rows)(jnp.asarray(x))  # values unknown: nothing to check


# ---- separation and parallel rows ---------------------------------------------------


def brute_separation(x):
    x = np.asarray(x, np.longdouble)
    return min(
        np.sqrt(np.sum((x[i] - sign * x[j]) ** 2))
        for i in range(len(x))
        for j in range(i)
        for sign in (1, -1)
    )


@LAW
@given(seed=st.integers(0, 10**6), gap=st.sampled_from([1.0, 1e-2, 1e-5]))
def test_separation_against_brute_force(seed, gap):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 3))
    x[4] = -x[1] + gap * rng.normal(size=3)
    x = x.astype(np.float32)
    # Relative accuracy, however small the gap: no Gram matrix in between.
    np.testing.assert_allclose(separation(x), brute_separation(x), rtol=1e-6)


def test_separation_in_several_blocks_and_under_vmap():
    x = np.random.default_rng(0).normal(size=(2, 32, 4100)).astype(np.float32)
    assert 2**22 // (32 * 4100) < 32
    expected = [float(brute_separation(x[0])), float(brute_separation(x[1]))]
    np.testing.assert_allclose(jax.vmap(separation)(x), expected, rtol=1e-6)


def test_separation_at_any_scale(dtype):
    """In exact rational arithmetic; the last pair is close beside rows of size 1."""
    rng, info = np.random.default_rng(6), jnp.finfo(dtype)
    rows = rng.standard_normal((5, 3)) / 4
    small = np.concatenate([rows[:3], 2.0 ** (info.minexp // 2 - 8) * rows[3:]])
    tiny = 2.0 ** (info.minexp + 40) * rows[1:2]
    zero = np.concatenate([rows[[0, 2, 3]], tiny, 0 * rows[:1]])
    scales = (info.minexp + 30, info.minexp // 2, 0, info.maxexp // 2, info.maxexp - 2)
    cases = [np.ldexp(rows, scale) for scale in scales] + [small, zero]
    for case in cases:
        x = jnp.asarray(case, dtype)
        exact = [[Fraction(float(entry)) for entry in row] for row in np.asarray(x)]
        squares = [
            sum((a - sign * b) ** 2 for a, b in zip(one, two, strict=True))
            for one, two in itertools.combinations(exact, 2)
            for sign in (1, -1)
        ]
        with mpmath.workdps(40):
            least = min(squares)
            delta = mpmath.sqrt(mpmath.mpf(least.numerator) / least.denominator)
            found = mpmath.mpf(float(separation(x)))
            assert abs(found - delta) <= 8 * float(info.eps) * delta


def test_separation_of_one_row_and_refusals():
    assert separation(np.ones((1, 3), "f4")) == np.inf
    with pytest.raises(TypeError, match="dtype int64"):
        separation(np.ones((2, 3), int))
    with pytest.raises(ValueError, match="expected 2 axes"):
        separation(np.ones(3, "f4"))
    with pytest.raises(ValueError, match="NaN"):
        separation(np.full((2, 3), np.nan, "f4"))


def test_parallel_rows_are_listed(dtype):
    x = np.random.default_rng(1).normal(size=(7, 3)).astype(dtype)
    check_no_parallel_rows(x)
    x[5] = -3 * x[2]
    x[6] = 1e-12 * x[2]
    words = r"3 pairs.*the first \(2, 5\), \(2, 6\), \(5, 6\); .*drop_duplicates"
    with pytest.raises(ValueError, match=words):
        check_no_parallel_rows(x)
    with pytest.raises(ValueError, match=r"21 pairs.*\(0, 5\); expected"):
        check_no_parallel_rows(np.ones((7, 3), dtype))
    jax.jit(check_no_parallel_rows)(jnp.asarray(x))


@pytest.mark.parametrize("d", [2, 3000])
def test_rounding_of_scaled_copies_counts_as_parallel(d):
    rng = np.random.default_rng(d)
    x = rng.normal(size=(20, d)).astype(np.float32)
    copies = x * rng.uniform(-9, 9, size=(20, 1)).astype(np.float32)
    with pytest.raises(ValueError, match="20 pairs"):
        check_no_parallel_rows(np.concatenate([x, copies]))


def test_nearly_parallel_rows_are_told_apart(dtype):
    eps = float(jnp.finfo(dtype).eps)
    tilt = 100 * eps
    x = np.array([[1, 0], [1, tilt]], dtype)
    check_no_parallel_rows(x)
    with pytest.raises(ValueError, match=r"1 pairs.*\(0, 1\)"):
        check_no_parallel_rows(x, tolerance=2 * tilt)
    with pytest.raises(ValueError, match="zero rows, at 1"):
        check_no_parallel_rows(np.array([[1, 0], [0, 0]], dtype))


# ---- labels -------------------------------------------------------------------------


def test_signs(dtype):
    values = np.array([-1.0, 0.0, 2.0], dtype)
    assert signs(values).dtype == dtype
    np.testing.assert_array_equal(signs(values), [-1, -1, 1])
    np.testing.assert_array_equal(signs(values, -0.5), [-1, 1, 1])
    np.testing.assert_array_equal(signs(np.array([0, 3, 5]), 3), [-1, -1, 1])
    np.testing.assert_array_equal(signs(np.array([0, 3, 5]) == 3), [-1, 1, -1])
    assert signs([True]).dtype == dtype
    assert signs(values, dtype="float16").dtype == np.float16
    with pytest.raises(ValueError, match="values holds 1 NaN"):
        signs(np.array([np.nan], dtype))


def test_random_signs(dtype, getkey):
    y = random_signs(getkey(), 4000)
    assert y.dtype == dtype
    assert set(np.unique(y)) == {-1.0, 1.0}
    assert abs(float(y.mean())) < 5 / 4000**0.5  # five standard errors


def test_linear_teacher(dtype, getkey):
    key = getkey()
    teacher = linear_teacher(key, jnp.eye(3, dtype=dtype))  # its weights
    np.testing.assert_allclose(jnp.linalg.norm(teacher), 1, rtol=1e-6)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(dtype)
    y = linear_teacher(key, x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, x @ np.asarray(teacher), atol=1e-6)


def test_cluster_signs(dtype):
    y = cluster_signs(7, 3)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, [1, -1, 1, 1, -1, 1, 1])
