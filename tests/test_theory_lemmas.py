"""Bounds against brute force: never violated, and reached."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import exact_covariance
from scipy import special, stats

import jaxrelu as jr
from jaxrelu import theory
from jaxrelu.activations import GELU, LeakyReLU, ReLU, Softplus


SMOOTH = ("softplus", "gelu", "tanh")


def network(inner, outer, activation):
    return jr.Shallow(jnp.asarray(inner), jnp.asarray(outer), activation)


def dense_jacobian(net, x):
    """(n, kd), by reverse mode through the network's call."""

    def outputs(inner):
        return eqx.tree_at(lambda n: n.inner, net, inner)(x)

    return jax.jacrev(outputs)(net.inner).reshape(x.shape[0], -1)


def rows(rng, n, d, batch=()):
    x = rng.standard_normal((*batch, n, d))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# ------------------------------------------------------------ norms and Lipschitz


@pytest.mark.parametrize(
    ("activation", "shape"),
    [*((name, (1, 1, 2)) for name in SMOOTH), ("gelu", (3, 4, 3))],
    ids=str,
)
def test_norm_and_lipschitz_bounds_hold_and_are_reached(activation, shape, float64):
    n, k, d = shape
    batch, rng = 300, np.random.default_rng(7)
    x = rows(rng, n, d, (batch,)) * rng.uniform(0.5, 2, (batch, n, 1))
    scale = 10 ** rng.uniform(-2, 1.5, (batch, 1, 1))
    first = rng.standard_normal((batch, k, d)) * scale
    move = rng.standard_normal((batch, k, d)) * 10 ** rng.uniform(-3, 1, (batch, 1, 1))
    v = rng.standard_normal((batch, k))
    u = rng.standard_normal((batch, n))

    @jax.jit
    @jax.vmap
    def ratios(x, first, move, v, u):
        one = network(first, v, activation)
        two = network(first + move, v, activation)
        J, K = dense_jacobian(one, x), dense_jacobian(two, x)
        gradient = (J.T @ (u / jnp.linalg.norm(u))).reshape(move.shape)
        return jnp.stack(
            [
                jnp.linalg.norm(J, 2) / theory.jacobian_norm_bound(one, x),
                jnp.linalg.norm(K - J, 2)
                / jnp.linalg.norm(move, 2)
                / theory.jacobian_lipschitz_bound(one, x),
                jnp.linalg.norm(J, axis=1).max() / theory.row_norm_bound(one, x),
                jnp.linalg.norm(gradient, axis=1).max()
                / theory.gradient_row_bound(one, x),
            ]
        )

    found = np.asarray(ratios(x, first, move, v, u)).max(axis=0)
    assert (found <= 1 + 1e-9).all()
    if shape == (1, 1, 2):
        # the spectral norm of a rank-one move along x, and φ'' near its maximum
        assert (found > 0.9).all(), found


def test_bounds_keep_dtype_and_trace(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rows(rng, 3, 4).astype(dtype))
    inner, outer = rng.standard_normal((6, 4)), np.repeat([1, -1], 3) / 6**0.5
    net = network(inner.astype(dtype), outer.astype(dtype), "gelu")

    def bounds(net, x):
        return [
            theory.jacobian_norm_bound(net, x),
            theory.jacobian_lipschitz_bound(net, x),
            theory.row_norm_bound(net, x),
            theory.gradient_row_bound(net, x),
            theory.initial_output_bound(net, x)[0],
            theory.initial_jacobian(net, x, 0.1).sigma_min,
            theory.flip_radius(net, x, 2),
            theory.flip_radii(net, x)[1],
            theory.hermite_lower_bound(net.activation, x),
        ]

    for eager, traced in zip(
        bounds(net, x), eqx.filter_jit(bounds)(net, x), strict=True
    ):
        assert eager.dtype == traced.dtype == dtype
        np.testing.assert_allclose(eager, traced, rtol=100 * jnp.finfo(dtype).eps)


def test_lipschitz_bound_is_infinite_for_a_kink(float64):
    net = network(np.ones((4, 3)), np.ones(4), "relu")
    assert math.isinf(theory.jacobian_lipschitz_bound(net, jnp.eye(3)))


def test_schur_bounds_hold_and_are_reached(float64):
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, m = (b @ b.T for b in rng.standard_normal((2, 5, 7)))
        low, high = theory.schur_bounds(jnp.asarray(a), jnp.asarray(m))
        values = np.linalg.eigvalsh(a * m)
        assert low <= values[0] * (1 + 1e-9)
        assert values[-1] <= high * (1 + 1e-9)
    low, high = theory.schur_bounds(jnp.asarray(a), jnp.ones((5, 5)))
    np.testing.assert_allclose([low, high], np.linalg.eigvalsh(a)[[0, -1]], rtol=1e-9)


# ---------------------------------------------------------------------- flips


def test_order_statistic():
    u = jnp.asarray([[3.0, -1.0, 2.0], [0.0, -5.0, 4.0]])
    np.testing.assert_array_equal(theory.order_statistic(u, 1), [1, 0])
    np.testing.assert_array_equal(theory.order_statistic(u, 2), [2, 4])
    for m in (0, 4):
        with pytest.raises(ValueError, match="expected 1 to 3"):
            theory.order_statistic(u, m)


def cheapest(inner, row, s, excess):
    """Moves inner just far enough along row to flip its s closest bits."""
    z = inner @ row / (row @ row)
    chosen = np.argsort(np.abs(z))[:s]
    move = np.zeros_like(inner)
    move[chosen] = -np.outer(z[chosen], row) * (1 + excess)
    return move


@pytest.mark.parametrize("lengths", ["unit", "any"])
def test_flip_radii_are_exact(lengths, float64):
    rng = np.random.default_rng(2)
    n, k, d = 3, 12, 4
    for _ in range(40):
        x = rows(rng, n, d)
        if lengths == "any":
            x *= rng.uniform(0.3, 3, (n, 1))
        inner = rng.standard_normal((k, d))
        net = network(inner, np.ones(k), "relu")
        radii = np.asarray(theory.flip_radii(net, jnp.asarray(x)))
        for s in (1, 4, k):
            moves = [cheapest(inner, row, s, 1e-6) for row in x]
            norms = [np.linalg.norm(move) for move in moves]
            best = int(np.argmin(norms))
            np.testing.assert_allclose(norms[best], radii[s - 1], rtol=2e-6)
            moved = network(inner + moves[best], np.ones(k), "relu")
            assert theory.flips(net, moved, jnp.asarray(x))[best] >= s
        # no perturbation of a given size, random or aimed, flips more
        for radius in (0.2, 1.0):
            allowed = int(theory.max_flips(jnp.asarray(radii), radius))
            toward = cheapest(inner, x[0], k // 2, 0.1)
            for move in (rng.standard_normal((k, d)), toward):
                moved = inner + move * (radius / np.linalg.norm(move))
                moved = network(moved, np.ones(k), "relu")
                assert theory.flips(net, moved, jnp.asarray(x)).max() <= allowed


def test_flip_radius_allows_fewer_than_twice_m(float64):
    rng = np.random.default_rng(3)
    n, k, d, m = 2, 60, 3, 8
    worst = 0
    for _ in range(100):
        x, inner = rows(rng, n, d), rng.standard_normal((k, d))
        net = network(inner, np.ones(k), "relu")
        radius = float(theory.flip_radius(net, jnp.asarray(x), m))
        i = int(np.argmin(np.sort(np.abs(x @ inner.T), axis=1)[:, m - 1]))
        for s in range(m, 2 * m + 1):  # the most that fits into the radius
            move = cheapest(inner, x[i], s, 1e-9)
            if np.linalg.norm(move) > radius:
                break
            moved = network(inner + move, np.ones(k), "relu")
            worst = max(worst, int(theory.flips(net, moved, jnp.asarray(x)).max()))
        radii = theory.flip_radii(net, jnp.asarray(x))
        assert theory.max_flips(radii, radius) < 2 * m
    assert m < worst < 2 * m


@pytest.mark.parametrize("activation", [ReLU(), LeakyReLU(0.3)], ids=["relu", "leaky"])
def test_flip_deviation_holds_and_is_reached(activation, float64):
    rng = np.random.default_rng(4)
    n, k, d = 2, 9, 3
    x, inner, v, move = [], [], [], []
    for _ in range(200):
        x.append(rows(rng, n, d))
        x[-1][1] = x[-1][0] + 0.05 * rng.uniform() * x[-1][1]
        inner.append(rng.standard_normal((k, d)))
        v.append(rng.choice([-1.0, 1.0], k))
        move.append(cheapest(inner[-1], x[-1][0], rng.integers(1, k), 0.05))

    @jax.jit
    @jax.vmap
    def ratios(x, inner, v, move):
        one, two = network(inner, v, activation), network(inner + move, v, activation)
        gap = dense_jacobian(two, x) - dense_jacobian(one, x)
        count = theory.flips(one, two, x).max()
        return jnp.linalg.norm(gap, 2) / theory.flip_deviation_bound(one, x, count)

    largest = ratios(*map(jnp.asarray, (x, inner, v, move))).max()
    assert 0.9 < largest <= 1 + 1e-9


def test_flip_deviation_needs_a_kink(float64):
    net = network(np.ones((2, 3)), np.ones(2), "gelu")
    with pytest.raises(ValueError, match="not piecewise linear"):
        theory.flip_deviation_bound(net, jnp.eye(3), 1)


def test_flip_probability_by_the_binomial_law():
    """|u|_(m) < t exactly when at least m of k entries lie below t."""
    tightest = 0.0
    for k in (50, 400, 5000):
        for m in (1, 2, 5, 10, 20):
            below = 2 * stats.norm.cdf(m / (2 * k)) - 1
            exact = stats.binom.sf(m - 1, k, below)
            bound = theory.flip_failure_probability(1, m)
            assert exact <= bound
            tightest = max(tightest, math.log(exact) / math.log(bound))
            assert theory.flip_failure_probability(3, m) == min(1, 3 * bound)
    assert tightest < 9  # the exponent is not absurdly small


# ------------------------------------------------------ Jacobian at initialisation


@pytest.mark.parametrize(
    ("activation", "expected", "chernoff"),
    [
        ("relu", {40: 0.81, 640: 0.98}, 2066),
        ("softplus", {10: 0.61, 160: 0.95}, 19288),
    ],
)
def test_smallest_singular_value_at_initialisation(
    activation, expected, chernoff, float64
):
    """Minimum over draws relative to ‖v‖√λ, n = 50, d = 20."""
    rng = np.random.default_rng(1)
    x = rows(rng, 50, 20)
    lam = np.linalg.eigvalsh(exact_covariance(activation, x))[0]
    slope = {"relu": lambda z: z > 0, "softplus": special.expit}[activation]
    for k, ratio in expected.items():
        z = x @ rng.standard_normal((50, 20, k))
        slopes = slope(z).astype(float)
        grams = slopes @ slopes.mT / k * (x @ x.T)  # JJ', ‖v‖ = 1
        smallest = np.sqrt(np.linalg.eigvalsh(grams)[:, 0]).min()
        np.testing.assert_allclose(smallest / np.sqrt(lam), ratio, atol=0.08)
    net = network(np.ones((100, 20)), np.repeat([1, -1], 50) / 10, activation)
    x = jnp.asarray(x)
    start = theory.initial_jacobian(net, x, lam)
    np.testing.assert_allclose(start.required_width, chernoff, rtol=0.25)
    np.testing.assert_allclose(start.effective_width, 100, rtol=1e-12)


def test_initial_jacobian_failures_are_rarer_than_promised(float64):
    """Orthonormal rows and ReLU: JJ' is diagonal, active fractions are binomial."""
    n, k = 2, 40
    net = network(np.ones((k, 2)), np.repeat([1, -1], 20) / k**0.5, "relu")
    for t in (0.3, 0.5, 0.8):
        bound = theory.initial_jacobian(net, jnp.eye(2), 0.5, fraction=t)
        np.testing.assert_allclose(bound.sigma_min, math.sqrt((1 - t) / 2))
        single = stats.binom.cdf(math.floor((1 - t) * k / 2), k, 0.5)
        assert 1 - (1 - single) ** n <= bound.failure_probability
        chernoff = n * (math.exp(-t) / (1 - t) ** (1 - t)) ** (k / 2)
        np.testing.assert_allclose(bound.failure_probability, chernoff, rtol=1e-12)
    for t in (0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match=f"fraction is {t}; expected"):
            theory.initial_jacobian(net, jnp.eye(2), 0.5, fraction=t)
    # at the required width the failure probability is 1/n
    wide = theory.initial_jacobian(net, jnp.eye(2), 0.5).required_width
    np.testing.assert_allclose(2 * (math.exp(-0.5) / 0.5**0.5) ** (wide / 2), 0.5)
    np.testing.assert_allclose(wide, 13.04 * math.log(2) / 0.5, rtol=1e-3)


# --------------------------------------------------------------- Hermite lower bound


# of one size: the programs of one test serve the others
TWELVE = rows(np.random.default_rng(5), 12, 6)


@pytest.mark.parametrize("activation", ["relu", "softplus", "tanh"])
def test_hermite_bounds_lie_below(activation, float64):
    act, x = jr.activations.activation(activation), jnp.asarray(TWELVE)
    lam = theory.covariance_smallest(act, x)
    sigma = exact_covariance(activation, TWELVE)
    np.testing.assert_allclose(lam.value, np.linalg.eigvalsh(sigma)[0], rtol=1e-9)
    squares = np.asarray(jr.activations.hermite_coefficients(act, 3, 1).value) ** 2
    for order, square in enumerate(squares):
        term = square * (TWELVE @ TWELVE.T) ** (order + 1)
        assert np.linalg.eigvalsh(sigma - term)[0] > -1e-12
        bound = theory.hermite_lower_bound(act, x, order)
        assert bound <= lam.value + lam.error
        smallest = max(0.0, np.linalg.eigvalsh(term)[0])
        np.testing.assert_allclose(bound, smallest, atol=1e-12)


def test_hermite_bound_is_an_equality_for_the_quadratic(float64):
    act = jr.activations.Quadratic()
    x = jnp.asarray(TWELVE)
    expected = np.linalg.eigvalsh((TWELVE @ TWELVE.T) ** 2)[0]
    np.testing.assert_allclose(theory.hermite_lower_bound(act, x), expected, rtol=1e-9)
    np.testing.assert_allclose(
        theory.covariance_smallest(act, x).value, expected, rtol=1e-9
    )


def test_hermite_bound_of_order_one_is_empty_for_even_slopes(float64):
    x = jnp.asarray(TWELVE[:4])
    for name in ("tanh", "sigmoid", "erf"):
        act = jr.activations.activation(name)
        assert theory.hermite_lower_bound(act, x) == 0
        assert theory.hermite_lower_bound(act, x, 0) > 0
        assert theory.hermite_lower_bound(act, x, 2) > 0


def test_covariance_stays_positive_beyond_the_rank_limit(float64):
    x = jnp.asarray(rows(np.random.default_rng(0), 60, 8))
    assert theory.khatri_rao_smallest(x).value == 0
    assert theory.hermite_lower_bound(ReLU(), x) == 0
    lam = theory.covariance_smallest(ReLU(), x)
    np.testing.assert_allclose(lam.value, 0.058, rtol=0.25)


def test_khatri_rao_smallest_is_a_singular_value(float64):
    x = TWELVE
    for power in (1, 2, 3):
        tall = x
        for _ in range(power - 1):
            tall = (tall[:, :, None] * x[:, None, :]).reshape(12, -1)
        sigma = np.linalg.svd(tall, compute_uv=False)
        expected = sigma[-1] ** 2 if tall.shape[1] >= 12 else 0.0
        found = theory.khatri_rao_smallest(jnp.asarray(x), power)
        assert abs(float(found.value) - expected) <= float(found.error) + 1e-13
    assert found.value > 1e-4


# -------------------------------------------------------------------- initial misfit


@pytest.mark.parametrize(
    ("activation", "expected"), [("relu", 0.5838), ("softplus", 0.5211)]
)
def test_initial_outputs(activation, expected, float64):
    n, d, draws = 40, 10, 400
    rng = np.random.default_rng(0)
    x, outer = jnp.asarray(rows(rng, n, d)), np.repeat([1, -1], 25) / 50**0.5

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def norms(inner, x):
        return jnp.linalg.norm(network(inner, outer, activation)(x))

    found = np.asarray(norms(rng.standard_normal((draws, 50, d)), x))
    rms = np.sqrt(np.mean(found**2) / n)
    net = network(np.ones((50, d)), outer, activation)
    predicted = theory.initial_output_rms(net.activation, net.outer)
    np.testing.assert_allclose(predicted, expected, atol=5e-5)
    np.testing.assert_allclose(rms, predicted, rtol=0.06)  # 3 σ of 400 draws
    for delta in (0.1, 0.3):
        bound, failure = theory.initial_output_bound(net, x, delta)
        assert 0.1 < failure < 1
        assert np.mean(found > np.asarray(bound)) <= failure
    np.testing.assert_allclose(bound, (expected + 0.3) * math.sqrt(n), rtol=1e-3)
    norm = np.linalg.norm(np.asarray(x), 2)
    np.testing.assert_allclose(failure, np.exp(-0.09 * n / (2 * norm**2)), rtol=1e-9)


def test_variance_is_below_the_squared_slope(float64):
    """Gaussian Poincaré, which turns the standard deviation into B₁."""
    for act in (ReLU(), LeakyReLU(0.1), Softplus(5.0), GELU()):
        variance = jr.activations.variance(act).value
        assert variance < act.derivative_bound**2


def test_lemmas_refuse_several_outputs(float64):
    network = jr.Shallow(jnp.ones((4, 3)), jnp.ones((9, 4)), "softplus")
    x = jnp.eye(3)
    for lemma in (
        jr.theory.jacobian_norm_bound,
        jr.theory.jacobian_lipschitz_bound,
        jr.theory.gradient_row_bound,
        jr.theory.row_norm_bound,
    ):
        with pytest.raises(ValueError, match="one scalar output"):
            lemma(network, x)
    with pytest.raises(ValueError, match="one scalar output"):
        jr.theory.initial_jacobian(network, x, 0.1)
