"""Stochastic Lanczos quadrature and the Marchenko-Pastur law."""

import jax
import jax.numpy as jnp
import lineax as lx
import matfree.decomp
import numpy as np
import pytest
from scipy.integrate import quad

from jaxrelu._memory import MemoryRefusedError
from jaxrelu.spectra import SpectralDensity, density, marchenko_pastur
from jaxrelu.spectra._lanczos import (
    extend_bidiagonal,
    extend_lanczos,
    start_bidiagonal,
    start_lanczos,
)


def problem(kind, dtype):
    rng = np.random.default_rng(0)
    if kind == "eigenvalues":
        matrix = rng.standard_normal((40, 40))
        matrix = (matrix + matrix.T) / 9
        operator = lx.MatrixLinearOperator(jnp.asarray(matrix, dtype), lx.symmetric_tag)
        return operator, np.linalg.eigvalsh(matrix)
    rows, cols = (30, 50) if kind == "wide" else (50, 30)
    matrix = rng.standard_normal((rows, cols)) / 7
    operator = lx.MatrixLinearOperator(jnp.asarray(matrix, dtype))
    return operator, np.linalg.svd(matrix, compute_uv=False)


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("eigenvalues", "float64"), ("wide", "float32"), ("tall", "float64")],
)
def test_means_lie_within_their_standard_errors(kind, precision, getkey):
    with jax.enable_x64(precision == "float64"):
        check_means(kind, np.dtype(precision), getkey)


def check_means(kind, dtype, getkey):
    operator, exact = problem(kind, dtype)
    found = density(operator, key=getkey(), num_samples=256, num_steps=15)
    assert found.kind == ("eigenvalues" if kind == "eigenvalues" else "singular values")
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-5)
    cases = [(found.moment(k), np.mean(exact**k)) for k in (1, 2, 4)]
    cases.append((found.expectation(jnp.exp), np.mean(np.exp(exact))))
    grid = np.quantile(exact, [0.25, 0.5, 0.75])
    width = 0.3
    bumps = np.exp(-(((exact - grid[:, None]) / width) ** 2) / 2)
    bumps = bumps.mean(axis=1) / (width * (2 * np.pi) ** 0.5)
    cases.append((found.smoothed(grid, width), bumps))
    for estimate, mean in cases:
        assert estimate.value.dtype == dtype
        error = np.asarray(estimate.error)
        assert np.all(np.abs(np.asarray(estimate.value) - mean) < 4.5 * error)
        assert np.all(error < 0.06 * np.abs(mean) + 0.02)
    steps = found.cumulative(grid)
    np.testing.assert_allclose(steps.value, [0.25, 0.5, 0.75], atol=0.08)
    ends = found.cumulative(np.array([-100.0, 100.0]))
    np.testing.assert_allclose(ends.value, [0, 1], atol=1e-5)


def test_standard_errors_are_calibrated(float64, getkey):
    """z-scores of the mean have variance 1 over independent calls."""
    operator, exact = problem("eigenvalues", float64)
    # 300 calls of one program, which the next test uses, too
    key, options = getkey(), {"num_samples": 30, "num_steps": 5}
    keys = (jax.random.fold_in(key, i) for i in range(300))
    runs = [density(operator, key=key, **options) for key in keys]
    every = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *runs)
    found = jax.vmap(lambda run: run.moment(2))(every)
    score = (np.asarray(found.value) - np.mean(exact**2)) / np.asarray(found.error)
    assert abs(score.mean()) < 0.3  # 5 sigma; a biased rule shifts it
    assert 0.8 < score.std() < 1.25


def test_moments_are_exact_up_to_the_degree_of_the_rule(float64, getkey):
    """v' A^k v for the very probe, k < 2m; degree 2m is not."""
    operator, _ = problem("eigenvalues", float64)
    key = getkey()
    found = density(operator, key=key, num_samples=30, num_steps=5)
    probe = jax.random.normal(
        jax.random.split(jax.random.split(key, 30)[0])[0], (40,), float64
    )
    probe = np.asarray(probe) / np.linalg.norm(probe)
    nodes, weights = np.asarray(found.nodes[0]), np.asarray(found.weights[0])
    for k in range(11):
        power = np.linalg.matrix_power(np.asarray(operator.matrix), k)
        gap = abs(np.sum(weights * nodes**k) - probe @ power @ probe)
        assert gap < 1e-12 if k < 10 else gap > 1e-6


def test_recurrences_agree_with_matfree():
    with jax.enable_x64(False):
        rng = np.random.default_rng(1)
        matrix = jnp.asarray(rng.standard_normal((20, 12)), jnp.float32)
        start = jnp.asarray(rng.standard_normal(12), jnp.float32)
        spare = jnp.asarray(rng.standard_normal(20), jnp.float32)

        @jax.jit
        def run(matrix, start, spare):
            products = lambda v: matrix @ v, lambda u: matrix.T @ u
            square = lambda v: products[1](products[0](v))
            mine = extend_lanczos(start_lanczos(start, 6), square, 6)
            pair = start_bidiagonal(start, spare, 6)
            pair = extend_bidiagonal(pair, *products, 6)
            with (
                jax.numpy_dtype_promotion("standard"),
                jax.numpy_rank_promotion("allow"),
            ):
                lanczos = matfree.decomp.tridiag_sym(6, materialize=False)
                golub = matfree.decomp.bidiag(6, materialize=False)
                theirs = lanczos(square, start), golub(products[0], start)
            return (mine, pair), [(x.J_small[0], x.J_small[1]) for x in theirs]

        for mine, (diagonal, off) in zip(*run(matrix, start, spare), strict=True):
            np.testing.assert_allclose(mine.diagonal, diagonal, rtol=1e-4)
            np.testing.assert_allclose(mine.off[:-1], off, rtol=1e-4)


def test_degenerate_spectra(getkey):
    """The Krylov space is exhausted at once; all mass stays where it is."""
    for matrix, value in ((np.eye(8, 5), 1.0), (np.zeros((8, 5)), 0.0)):
        found = density(jnp.asarray(matrix, "f4"), key=getkey(), num_samples=4)
        for estimate in (found.moment(1), found.moment(2)):
            np.testing.assert_allclose(estimate.value, value, atol=1e-5)
            assert float(estimate.error) < 1e-5


def test_refusals(monkeypatch, dtype, getkey):
    matrix = jnp.ones((4, 3), dtype)
    with pytest.raises(ValueError, match="at least 2"):
        density(matrix, key=getkey(), num_samples=1)
    rules = jnp.ones((2, 3), dtype)
    found = SpectralDensity(rules, rules / 3, "singular values", (4, 3), dtype.name)
    with pytest.raises(ValueError, match="width"):
        found.smoothed(jnp.ones(1, dtype), 0.0)
    monkeypatch.setenv("JAXRELU_MEMORY_LIMIT", "10")
    with pytest.raises(MemoryRefusedError, match="Lanczos vectors"):
        density(matrix, key=getkey())


@jax.jit
def density_at(law, x):
    return law.density(x)


@jax.jit
def cdf_at(law, x):
    return law.cdf(x)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.99, 1.0, 1.5, 4.0])
@pytest.mark.parametrize("variance", [1.0, 2.5])
def test_marchenko_pastur_against_quadrature(ratio, variance, float64):
    law = marchenko_pastur(ratio, variance)
    low, high = (float(edge) for edge in law.edges)

    def mass(function, top):
        """Integral over [low, top], square-root ends removed by x = low + t^2."""
        inner = lambda t: 2 * t * function(float(low + t**2))
        return quad(inner, 0, (top - low) ** 0.5, limit=400)[0]

    pdf = lambda x: float(density_at(law, np.asarray(x)))
    assert abs(mass(pdf, high) + float(law.atom) - 1) < 1e-6
    first = mass(lambda x: x * pdf(x), high)
    second = mass(lambda x: x**2 * pdf(x), high)
    assert abs(first - variance) < 1e-6
    assert abs(second - variance**2 * (1 + ratio)) < 1e-5
    for fraction in (0.1, 0.6):
        x = low + fraction * (high - low)
        below = float(law.atom) + mass(pdf, x)
        assert abs(float(cdf_at(law, np.asarray(x))) - below) < 1e-6
    grid = np.array([-1.0, low - 1e-9 if ratio != 1 else -1e-9, high, high + 5])
    atom = float(law.atom) if ratio > 1 else 0.0
    inside = atom if ratio != 1 else 0.0
    np.testing.assert_allclose(cdf_at(law, grid), [0, inside, 1, 1], atol=1e-7)
    np.testing.assert_allclose(density_at(law, np.array([low - 1, high + 1])), 0)


@pytest.mark.parametrize(("rows", "cols"), [(200, 500), (500, 200)])
def test_marchenko_pastur_against_simulation(rows, cols, float64):
    noise = 2 * np.random.default_rng(0).standard_normal((rows, cols))
    values = np.zeros(rows)  # the others than these are 0
    values[: min(rows, cols)] = np.linalg.svd(noise, compute_uv=False) ** 2 / cols
    law = marchenko_pastur(rows / cols, 4.0)
    grid = np.linspace(0.05, float(law.edges[1]) * 1.05, 60)
    empirical = (values[:, None] <= grid).mean(axis=0)
    np.testing.assert_allclose(cdf_at(law, grid), empirical, atol=0.01)


def test_marchenko_pastur_refuses(dtype):
    for bad in ((0.0, 1.0), (0.5, -1.0)):
        with pytest.raises(ValueError, match="positive"):
            marchenko_pastur(*bad)
    assert marchenko_pastur(0.5).cdf(jnp.asarray(1.0, dtype)).dtype == dtype
