"""Conditions and meta-theorems: bounds, against descents of linear models."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu import theory
from jaxrelu.theory import Condition


# ------------------------------------------------------------------------ conditions


def condition(lhs, relation, rhs):
    return Condition(jnp.asarray(lhs), jnp.asarray(rhs), "a vs b", relation)


@pytest.mark.parametrize(
    ("lhs", "relation", "rhs", "met", "margin"),
    [
        (3.0, ">=", 2.0, True, 1.5),
        (2.0, ">=", 4.0, False, 0.5),
        (2.0, ">=", 2.0, True, 1.0),
        (2.0, ">", 2.0, False, 1.0),
        (1.0, ">", 0.0, True, math.inf),
        (0.0, ">", 0.0, False, 1.0),
        (1.0, "<=", 4.0, True, 4.0),
        (4.0, "<=", 1.0, False, 0.25),
        (4.0, "<", 4.0, False, 1.0),
        (7.0, ">=", math.inf, False, 0.0),
    ],
)
def test_condition(lhs, relation, rhs, met, margin):
    c = condition(lhs, relation, rhs)
    assert bool(c.met) is met
    assert float(c.margin) == margin


def test_nan_meets_nothing():
    for relation in (">=", ">", "<=", "<"):
        assert not condition(math.nan, relation, 1.0).met


# ----------------------------------------------------------------------- meta-theorems


def descend(matrix, target, eta, steps):
    """Gradient descent on ‖Aθ - y‖²/2 from 0: residual norms, path, distances."""
    theta = np.zeros(matrix.shape[1])
    residuals, path, distances = [], [0.0], [0.0]
    for _ in range(steps):
        r = matrix @ theta - target
        residuals.append(np.linalg.norm(r))
        move = eta * matrix.T @ r
        theta = theta - move
        path.append(path[-1] + np.linalg.norm(move))
        distances.append(np.linalg.norm(theta))
    residuals.append(np.linalg.norm(matrix @ theta - target))
    return np.array(residuals), np.array(path), np.array(distances)


@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("contraction", [0.3, 0.5, 1.0])
def test_gradient_descent_bounds_on_linear_models(sharp, contraction, float64):
    rng = np.random.default_rng(0)
    for _ in range(10):
        A, y = rng.standard_normal((4, 9)), rng.standard_normal(4)
        sigma = np.linalg.svd(A, compute_uv=False)
        report = theory.gradient_descent_bounds(
            sigma[-1],
            sigma[0],
            np.linalg.norm(y),
            lipschitz=0.0,
            contraction=contraction,
            sharp=sharp,
        )
        assert report.holds
        p = report.prediction
        np.testing.assert_allclose(p.step_size, contraction / sigma[0] ** 2)
        r, path, distance = descend(A, y, float(p.step_size), 400)
        t = np.arange(401)
        assert (r <= p.residual_bound(t) + 1e-13).all()
        assert (np.diff(p.lyapunov(jnp.asarray(r), jnp.asarray(path))) < 1e-12).all()
        assert path[-1] <= p.path_length
        assert distance[-1] <= p.radius
        assert np.linalg.norm(np.linalg.pinv(A) @ y) >= p.min_distance
        closest = np.linalg.norm(np.linalg.pinv(A) @ y)
        worst = report.constants["path / distance to closest optimum, at most"]
        assert path[-1] <= worst * closest


def test_gradient_descent_bounds_are_reached(float64):
    """All singular values equal and a small step: distance and rate are sharp."""
    A = 2 * np.linalg.qr(np.random.default_rng(1).standard_normal((6, 3)))[0].T
    y = np.array([1.0, -2.0, 0.5])
    report = theory.gradient_descent_bounds(
        2.0, 2.0, np.linalg.norm(y), lipschitz=0.0, contraction=1.0, step_size=1e-3
    )
    r, path, distance = descend(A, y, 1e-3, 4000)
    p = report.prediction
    assert path[-1] > 0.99 * p.path_length
    assert distance[-1] > 0.99 * p.radius
    assert abs(distance[-1] / p.min_distance - 1) < 1e-3
    # ‖r‖² shrinks by (1 - ηα²)², promised 1 - ηα²: half of the exponent
    np.testing.assert_allclose(
        2 * math.log(r[100] / r[0]) / 100, 2 * float(p.log_rate), rtol=0.01
    )
    flow = theory.gradient_flow_bounds(2.0, 2.0, np.linalg.norm(y)).prediction
    np.testing.assert_allclose(r[-1], flow.residual_bound(4.0), rtol=0.05)
    np.testing.assert_allclose(path[-1], flow.path_length, rtol=0.01)


def test_general_form_contains_the_first_theorem(float64):
    """λ = 1/2, η = 1/(2β²): R = 4‖r₀‖/α and the squared rate 1 - ηα²/2."""
    alpha, beta, r0, bend = 0.5, 2.0, 3.0, 0.01
    report = theory.gradient_descent_bounds(
        alpha, beta, r0, lipschitz=bend, step_size=1 / (2 * beta**2)
    )
    assert report.holds
    p = report.prediction
    np.testing.assert_allclose(p.radius, 4 * r0 / alpha)
    np.testing.assert_allclose(p.squared_rate, 1 - alpha**2 / (4 * beta**2))
    np.testing.assert_allclose(p.rate**2, p.squared_rate)
    np.testing.assert_allclose(p.slope, alpha / 4)
    np.testing.assert_allclose(p.min_distance, r0 / beta)
    steps = p.steps_to(0.1)
    assert p.residual_bound(steps) <= 0.1 * r0 < p.residual_bound(steps - 1)


def test_step_limits_of_the_second_assumption(float64):
    alpha, beta, r0, bend, lam = 0.5, 2.0, 3.0, 0.4, 0.7
    for sharp, limit in (
        (False, 2 * 0.3 * alpha**2 / (beta**2 * bend * r0)),
        (True, 2 * 0.3 / (bend * r0)),
    ):
        report = theory.gradient_descent_bounds(
            alpha, beta, r0, lipschitz=bend, contraction=lam, sharp=sharp
        )
        expected = min(lam / beta**2, limit)
        np.testing.assert_allclose(report.prediction.step_size, expected)
        over = theory.gradient_descent_bounds(
            alpha,
            beta,
            r0,
            lipschitz=bend,
            contraction=lam,
            sharp=sharp,
            step_size=expected * 1.01,
        )
        assert not over.holds


@pytest.mark.parametrize("lam", [0.2, 0.5, 0.9])
def test_sharp_deviation_condition_makes_every_step_contract(lam, float64):
    """One step r₊ = (I - η J̄ Jᵀ) r with the worst J̄ that the condition allows."""
    rng, violated = np.random.default_rng(2), False
    for _ in range(100):
        n, p = 3, 5
        U, s, V = np.linalg.svd(rng.standard_normal((n, p)), full_matrices=False)
        J = U * np.sort(s)[::-1] @ V
        alpha, r = s.min(), rng.standard_normal(n)
        if rng.uniform() < 0.5:
            r = U[:, -1]
        g = J.T @ r
        aimed = np.outer(r, g) / np.linalg.norm(r) / np.linalg.norm(g)
        for size, must in (((1 - lam) * alpha, True), (1.2 * alpha, False)):
            mean = J - size * aimed
            beta = max(s.max(), np.linalg.norm(mean, 2))
            eta = lam / beta**2
            after = np.linalg.norm(r - eta * mean @ g) ** 2
            allowed = (1 - lam * eta * alpha**2) * np.linalg.norm(r) ** 2
            if must:
                assert after <= allowed * (1 + 1e-12)
                report = theory.gradient_descent_bounds(
                    alpha,
                    beta,
                    1.0,
                    deviation=size * (1 - 1e-12),
                    contraction=lam,
                    sharp=True,
                )
                assert report.holds
            violated |= (not must) and after > np.linalg.norm(r) ** 2
    assert violated  # beyond the threshold a step can go up


def test_first_deviation_condition(float64):
    alpha, beta = 0.5, 2.0
    for factor, holds in ((0.99, True), (1.01, False)):
        report = theory.gradient_descent_bounds(
            alpha, beta, 1.0, deviation=factor * 0.5 * alpha**2 / beta
        )
        assert bool(report.holds) is holds
    for arguments in ({}, {"lipschitz": 1.0, "deviation": 1.0}):
        with pytest.raises(ValueError, match="one of lipschitz"):
            theory.gradient_descent_bounds(alpha, beta, 1.0, **arguments)
    with pytest.raises(ValueError, match=r"contraction is 1\.5"):
        theory.gradient_descent_bounds(alpha, beta, 1.0, lipschitz=0.0, contraction=1.5)


def test_polyak_lojasiewicz_bounds(float64):
    rng = np.random.default_rng(3)
    for _ in range(10):
        A, y = rng.standard_normal((3, 5)), rng.standard_normal(3)
        s = np.linalg.svd(A, compute_uv=False)
        report = theory.polyak_lojasiewicz_bounds(s[-1] ** 2, s[0] ** 2, y @ y / 2)
        assert report.holds
        r, path, _ = descend(A, y, float(report.prediction.step_size), 200)
        assert (r <= report.prediction.residual_bound(np.arange(201)) + 1e-12).all()
        assert path[-1] <= report.prediction.path_length
    np.testing.assert_allclose(
        report.prediction.radius, 2 * np.linalg.norm(y) / s[-1], rtol=1e-12
    )
    assert not theory.polyak_lojasiewicz_bounds(1.0, 2.0, 1.0, step_size=0.6).holds


STATEMENTS = {
    "descent": lambda eta, bound: theory.gradient_descent_bounds(
        1.0, 2.0, 1.0, lipschitz=bound, step_size=eta
    ),
    "deviation": lambda eta, bound: theory.gradient_descent_bounds(
        1.0, 2.0, 1.0, deviation=bound, step_size=eta, sharp=True
    ),
    "sgd": lambda eta, bound: theory.sgd_bounds(
        1.0, 2.0, 1.0, 1.0, lipschitz=bound, n=3, p=9, step_size=eta
    ),
    "inequality": lambda eta, bound: theory.polyak_lojasiewicz_bounds(
        1.0, 2.0, bound, step_size=eta
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_nothing_is_promised_for_negative_steps_and_constants(name, float64):
    """r = θ with J = 1: a step of -5 multiplies the residual by 6."""
    state = STATEMENTS[name]
    assert state(1e-3, 0.1).holds
    for eta in (-5.0, -1e-3, 0.0):
        report = state(eta, 0.1)
        assert not report.holds
        assert [c.name for c in report.failures] == ["η > 0"]
        assert report.margin <= 1
    with pytest.raises(ValueError, match=r"is -1\.0; expected a number of at least 0"):
        state(1e-3, -1.0)
    traced = jax.vmap(lambda bound: state(1e-3, bound).holds)
    np.testing.assert_array_equal(traced(jnp.asarray([0.1, -1.0])), [True, False])


def test_sgd_bounds_arithmetic(float64):
    alpha, beta, row, r0, bend, n, p, nu = 0.3, 1.7, 0.9, 2.0, 0.05, 7, 40, 6.0
    report = theory.sgd_bounds(alpha, beta, row, r0, lipschitz=bend, n=n, p=p, nu=nu)
    eta = alpha**2 / (nu * beta**2 * row**2 + nu * beta * row * bend * r0)
    assert report.holds
    np.testing.assert_allclose(report.prediction.step_size, eta)
    np.testing.assert_allclose(
        report.prediction.squared_rate, 1 - eta * alpha**2 / (2 * n)
    )
    np.testing.assert_allclose(report.prediction.radius, nu * r0 / alpha)
    np.testing.assert_allclose(
        report.prediction.probability, 1 - 4 / nu * (beta / alpha) ** (1 / p)
    )
    few = theory.sgd_bounds(alpha, beta, row, r0, lipschitz=bend, n=n, p=p, nu=2.0)
    assert [c.name for c in few.failures] == ["ν ≥ 3"]
    with pytest.raises(ValueError, match="no Lyapunov function"):
        report.prediction.lyapunov(jnp.ones(2), jnp.ones(2))


def test_rates_of_zero(float64):
    once = theory.polyak_lojasiewicz_bounds(1.0, 1.0, 0.5).prediction
    assert float(once.squared_rate) == 0
    assert float(once.residual_bound(0)) == float(once.initial_residual)
    assert float(once.residual_bound(1)) == 0
    assert once.steps_to(0.1) == once.steps_to(0.0) == 1
    half = theory.polyak_lojasiewicz_bounds(0.5, 1.0, 0.5).prediction
    assert half.steps_to(0.0) == np.inf
    with pytest.raises(ValueError, match="fraction is -1"):
        half.steps_to(-1.0)
