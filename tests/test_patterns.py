"""Bit-exactness of the pattern products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxrelu as jr
from jaxrelu.operators import GatedKhatriRao, _patterns, common_ones


def counts(one, two):
    """Python integers, no floating point."""
    return np.array([[int(np.count_nonzero(p & q)) for q in two] for p in one])


@pytest.mark.parametrize("method", ["auto", "popcount", "int8", "bfloat16"])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([(1, 1, 1), (5, 31, 3), (17, 32, 2), (16, 33, 40)]),
    density=st.floats(0, 1),
)
def test_counts_are_exact_integers(method, seed, shape, density):
    n, k, q = shape
    rng = np.random.default_rng(seed)
    one, two = rng.random((n, k)) < density, rng.random((q, k)) < density
    result = common_ones(jnp.asarray(one), jnp.asarray(two), method=method)
    assert result.dtype == jnp.int32
    np.testing.assert_array_equal(result, counts(one, two))


def test_counts_beyond_the_range_of_narrow_accumulators():
    # 70 000 common ones: neither int8 nor bfloat16 nor int16 sums hold that
    pattern = np.ones((3, 70_001), bool)
    pattern[1, 0] = False
    pattern = jnp.asarray(pattern)
    for method in ("popcount", "int8", "bfloat16"):
        result = np.asarray(common_ones(pattern, method=method))
        assert result[0, 0] == 70_001
        assert result[0, 1] == result[1, 1] == 70_000


def test_counts_under_vmap():
    patterns = jnp.asarray(np.random.default_rng(0).random((3, 9, 40)) < 0.5)
    for method in ("popcount", "int8", "auto"):
        count = functools.partial(common_ones, method=method)
        batched = jax.jit(jax.vmap(count))(patterns)
        for pattern, result in zip(patterns, batched, strict=True):
            bits = np.asarray(pattern)
            np.testing.assert_array_equal(result, counts(bits, bits))


def test_gram_of_bits_is_exact_when_its_parts_are(dtype):
    """Dyadic |v| and integer inputs: J J^T in both precisions is exact to the bit."""
    rng = np.random.default_rng(0)
    gates = jnp.asarray(rng.random((20, 64)) < 0.5)
    outer = jnp.asarray(np.where(np.arange(64) % 2, 0.125, -0.125), dtype)
    right = jnp.asarray(rng.integers(-9, 9, (20, 5)), dtype)
    operator = GatedKhatriRao(gates, outer, (0.0, 1.0), right)
    exact = counts(np.asarray(gates), np.asarray(gates)) / 64.0
    products = np.asarray(right, np.float64) @ np.asarray(right, np.float64).T
    np.testing.assert_array_equal(operator.gram(), exact * products)


@pytest.mark.parametrize(
    "slopes", [(0.0, 1.0), (0.1, 1.0), (-1.0, 1.0), (2.0, 2.0), (1e6, 1.0)]
)
def test_slopes_other_than_zero_and_one(slopes, dtype):
    rng = np.random.default_rng(1)
    gates = jnp.asarray(rng.random((6, 50)) < 0.3)
    if dtype == "float32" and slopes[0]:  # arrays, so that one program serves all
        slopes = tuple(jnp.asarray(slope, dtype) for slope in slopes)
    outer, right = np.full(50, 0.3, dtype), np.eye(6, 3, dtype=dtype) + 1
    operator = GatedKhatriRao(gates, jnp.asarray(outer), slopes, jnp.asarray(right))
    dense = np.asarray(operator.as_matrix(), np.float64)
    scale = 64 * float(jnp.finfo(dtype).eps) * (dense @ dense.T).max()
    np.testing.assert_allclose(operator.gram(), dense @ dense.T, rtol=0, atol=scale)


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="expected one of"):
        common_ones(jnp.ones((2, 3), bool), method="fp4")


def test_near_kinks_count_what_rounding_decides(dtype):
    inner = jnp.asarray([[1.0, -1.0], [1.0, 2.0]], dtype)
    network = jr.Shallow(inner, jnp.ones(2, dtype))
    x = jnp.asarray([[1.0, 1.0], [0.5, 0.3], [0.1, 0.1 * (1 + 2e-8)]], dtype)
    report = jr.near_kinks(network, x)
    assert report.total == 6
    assert int(report.exact_zeros) == (2 if dtype == jnp.float32 else 1)
    assert int(report.count) == (2 if dtype == jnp.float32 else 1)
    assert int(jr.near_kinks(network, x[1:2]).count) == 0


@pytest.mark.parametrize("n", [1024, 1031])
def test_large_grams_assembled_from_halves(n):
    rng = np.random.default_rng(2)
    gates = rng.random((n, 40)) < 0.5
    right = rng.integers(-9, 9, (n, 3)).astype("float32")
    operator = GatedKhatriRao(
        jnp.asarray(gates), jnp.full((40,), 0.5), (0.0, 1.0), jnp.asarray(right)
    )
    exact = (gates.astype(int) @ gates.astype(int).T) * (right @ right.T) / 4
    np.testing.assert_array_equal(operator.gram(), exact)


@pytest.mark.parametrize("low", [10.3, -2.3, 100.3, 1e6 + 0.1])
def test_steep_leaks_keep_their_rounding_promise(low, dtype):
    rng = np.random.default_rng(4)
    gates = rng.random((12, 60)) < np.linspace(0.5, 1, 12)[:, None]
    outer = jnp.asarray(np.full(60, 0.7, dtype))
    right = jnp.asarray(rng.standard_normal((12, 5)).astype(dtype))
    # arrays, so that one program serves all
    slopes = (jnp.asarray(low, dtype), jnp.asarray(1.0, dtype))
    operator = GatedKhatriRao(jnp.asarray(gates), outer, slopes, right)
    slope = float(slopes[0])
    left = np.where(gates, 1.0, slope) * float(outer[0])
    wide = np.asarray(right, np.longdouble)
    exact = (left.astype(np.longdouble) @ left.T) * (wide @ wide.T)
    bound = operator.gram_terms * float(jnp.finfo(dtype).eps)
    norms = np.sqrt(np.diagonal(exact))
    error = np.abs(np.asarray(operator.gram(), np.longdouble) - exact)
    assert (error <= bound * norms[:, None] * norms[None, :]).all()


@pytest.mark.parametrize(
    ("says", "has"),
    [
        ("flags : fpu amx_tile amx_int8 avx", True),
        ("flags : fpu avx", False),
        (None, False),
    ],
)
def test_the_unit_that_the_cpu_says_it_has(monkeypatch, says, has):
    class File:
        def __init__(self, path):
            assert path == "/proc/cpuinfo"

        def read_text(self):
            if says is None:
                raise FileNotFoundError
            return says

    monkeypatch.setattr(_patterns, "Path", File)
    assert _patterns._cpu_multiplies_int8.__wrapped__() is has
    monkeypatch.setattr(_patterns, "_cpu_multiplies_int8", lambda: has)
    bits = np.random.default_rng(0).random((6, 50)) < 0.5
    jaxpr = str(jax.make_jaxpr(lambda bits: common_ones(bits))(bits))
    assert ("population_count" not in jaxpr) is has
    np.testing.assert_array_equal(common_ones(jnp.asarray(bits)), counts(bits, bits))
