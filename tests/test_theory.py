"""Reports: arithmetic, meta-theorems, refusals, closed forms for known data."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu import theory
from jaxrelu.activations import LeakyReLU, ReLU, Softplus
from jaxrelu.theory import Condition


def problem(dtype, k=30, activation="softplus", inputs=None, **kwargs):
    x = jnp.eye(4, 6, dtype=dtype) if inputs is None else inputs
    y = jr.data.random_signs(jax.random.key(1), x.shape[0], dtype=dtype)
    net = jr.Shallow.init(
        jax.random.key(2),
        d=x.shape[1],
        k=k,
        activation=activation,
        dtype=dtype,
        **kwargs,
    )
    return net, jr.data.Dataset(x, y)


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


def test_report_prints_both_sides(float64):
    report = theory.moderate_overparameterization(*problem(float64, k=80))
    text = str(report)
    assert "does not hold" in text
    assert [c.name for c in report.failures] == ["k ≥ (32 B₂ C₀)² n ‖X‖²/λ²"]
    for c in report.conditions:
        assert c.name in text
        assert f"{float(c.rhs):.6g}" in text
    assert report.margin == report.failures[0].margin < 1
    assert "margin" in str(report.failures[0])


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
    for _ in range(20):
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
    for _ in range(300):
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
    for _ in range(20):
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


# -------------------------------------------------------------------------- constants


@pytest.mark.parametrize(
    ("activation", "mu", "variance", "b1", "b2"),
    [
        ("relu", 0.39894228, 0.34084506, 1, math.inf),
        ("softplus", 0.20662096, 0.27151450, 1, 0.25),
        ("gelu", 0.42314219, 0.34564401, 1.128904, 0.797885),
        ("tanh", 0, 0.39429449, 1, 0.769800),
    ],
)
def test_instance_constants(activation, mu, variance, b1, b2, float64):
    act = jr.activations.activation(activation)
    x = np.asarray(jr.data.sphere(jax.random.key(0), 4, 6))
    case = theory.instance(act, jnp.asarray(x))
    found = [case.mu, case.variance, case.B1, case.B2]
    np.testing.assert_allclose(found, [mu, variance, b1, b2], rtol=1e-6)
    norm = np.linalg.norm(x, 2)
    square = np.linalg.eigvalsh((x @ x.T) ** 2)[0]
    lam = np.linalg.eigvalsh(np.asarray(jr.neural_covariance(act, x)))[0]
    np.testing.assert_allclose(case.norm.value, norm)
    np.testing.assert_allclose(case.khatri_rao_min.value, square)
    np.testing.assert_allclose(case.covariance_min.value, lam)
    kappa = norm**3 / lam**2 if activation == "relu" else norm / square
    np.testing.assert_allclose(case.kappa, math.sqrt(6 / 4) * kappa)
    np.testing.assert_allclose(case.hermite_bound, mu**2 * square, atol=1e-9)


def test_error_of_the_smallest_eigenvalue_covers_float32():
    x = np.asarray(jr.data.sphere(jax.random.key(3), 30, 10), np.float32)
    for act in (ReLU(), Softplus()):
        rough = theory.covariance_smallest(act, jnp.asarray(x))
        with jax.enable_x64(True):
            fine = theory.covariance_smallest(act, jnp.asarray(x, float)).value
            fine = float(fine)
        assert rough.value.dtype == jnp.float32
        assert abs(float(rough.value) - fine) <= float(rough.error) < 0.02


# ----------------------------------------------------------------------- closed forms


def test_orthonormal_rows(float64):
    x = jr.data.orthonormal(jax.random.key(0), 4, 6)
    for act, value in ((ReLU(), 0.5), (Softplus(), 0.29337904)):
        np.testing.assert_allclose(theory.orthonormal_eigenvalue(act), value, atol=5e-9)
        lam = theory.covariance_smallest(act, x).value
        np.testing.assert_allclose(lam, value, atol=5e-9)


@pytest.mark.parametrize("rho", [-0.1, 0.5])
def test_equicorrelated_rows(rho, float64):
    x = jr.data.equicorrelated(10, rho)
    for act in (ReLU(), Softplus()):
        low, high = theory.equicorrelated_eigenvalues(act, 10, rho)
        sigma = np.linalg.eigvalsh(np.asarray(jr.neural_covariance(act, x)))
        np.testing.assert_allclose([low, high], sigma[[0, -1]], rtol=1e-7)
    if rho == 0.5:
        low, high = theory.equicorrelated_eigenvalues(ReLU(), 10, rho)
        np.testing.assert_allclose([low, high], [1 / 3, 2], rtol=1e-12)


def test_slope_kernel_table(float64):
    rho = jnp.asarray([-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(
        theory.slope_kernel(ReLU(), rho), [0, 1 / 6, 1 / 4, 1 / 3, 1 / 2], atol=1e-12
    )
    np.testing.assert_allclose(
        theory.slope_kernel(Softplus(), rho),
        [0.20662096, 0.22857167, 0.25, 0.27142833, 0.29337904],
        atol=6e-9,
    )


def test_half_circle(float64):
    lam = theory.covariance_smallest(ReLU(), jr.data.half_circle(64)).value
    np.testing.assert_allclose(lam, 0.00391096, rtol=2e-6)
    np.testing.assert_allclose(lam, theory.half_circle_relu_eigenvalue(64), rtol=2e-3)


def test_separation_bound_is_below_and_loose(float64):
    for seed in range(5):
        x = jr.data.sphere(jax.random.key(seed), 20, 3)
        delta = jr.data.separation(x)
        lam = theory.covariance_smallest(ReLU(), x).value
        assert theory.separation_eigenvalue(20, delta) < lam


def test_basis_and_bisectors(float64):
    x = jr.data.basis_and_bisectors(4)
    np.testing.assert_allclose(theory.spectral_norm(x).value, 2)
    assert theory.khatri_rao_smallest(x).value > 1e-3  # the rank limit is reached


# ------------------------------------------------------------------ sphere asymptotics


def measured(activation, n, d, draws=3):
    act = jr.activations.activation(activation)
    cases = [
        theory.instance(act, jr.data.sphere(jax.random.key(seed), n, d))
        for seed in range(draws)
    ]
    mean = lambda pick: np.mean([float(pick(c)) for c in cases])
    return (
        mean(lambda c: c.norm),
        mean(lambda c: c.khatri_rao_min),
        mean(lambda c: c.covariance_min),
        mean(lambda c: c.kappa),
    )


@pytest.mark.parametrize(("n", "d"), [(120, 30), (160, 20)])
def test_sphere_asymptotics(n, d, float64):
    norm, tensor, _, kappa = measured("softplus", n, d)
    theory_says = theory.sphere_asymptotics(Softplus(), n, d)
    np.testing.assert_allclose(norm, theory_says.norm, rtol=0.1)
    slack = 0.1 if n / d**2 < 0.2 else 0.35  # the edge moves by d^(-4/3)
    np.testing.assert_allclose(tensor, theory_says.khatri_rao_min, rtol=slack)
    np.testing.assert_allclose(kappa, theory_says.kappa, rtol=slack)
    *_, lam, _ = measured("relu", n, d)
    relu = theory.sphere_asymptotics(ReLU(), n, d)
    np.testing.assert_allclose(lam, relu.covariance_min, rtol=0.1)


def test_sphere_asymptotics_are_low_near_the_square(float64):
    *_, lam, _ = measured("relu", 40, 40)
    ratio = theory.sphere_asymptotics(ReLU(), 40, 40).covariance_min / lam
    assert 0.75 < ratio < 0.92


def test_sphere_widths_have_the_orders_of_the_corollaries(float64):
    """k of order n²/d for softplus and n⁴/d³ for ReLU, along n = 16 d."""

    def width(act, d):
        return float(theory.sphere_asymptotics(act, 16 * d, d).required_width)

    for act in (Softplus(), ReLU()):
        growth = width(act, 4_000_000) / width(act, 1_000_000)
        assert 3.9 < growth < 4.1  # both are d¹ when n / d is fixed
    small, large = (
        theory.sphere_asymptotics(act, 16 * 400, 400) for act in (Softplus(), ReLU())
    )
    assert large.required_width > 1e6 * small.required_width
    # without curvature only the bound at initialisation is left
    flat = theory.sphere_asymptotics(jr.activations.Linear(), 50, 200)
    bound = 13.04 * math.log(50) * (flat.norm / (1 - flat.norm + 1)) ** 2
    np.testing.assert_allclose(flat.required_width, bound, rtol=0.01)
    with pytest.raises(ValueError, match="at least 2"):
        theory.sphere_asymptotics(ReLU(), 1, 5)


# ---------------------------------------------------------------------------- the face


def test_required_width_of_the_reference_instance(float64):
    """n = 5, d = 100: ‖X‖ = 1.199 and λ = 0.2027 gave k = 100750, δ = 1."""
    from jaxrelu.theory._gradient_descent import smooth_width

    width = smooth_width(jnp.asarray(1.0), jnp.asarray(0.25), 5, 1.199, 0.2027, 1.0)
    np.testing.assert_allclose(width, 100750, rtol=1e-3)
    width = smooth_width(jnp.asarray(1.0), jnp.asarray(0.25), 10, 1.248, 0.1878, 1.0)
    np.testing.assert_allclose(width, 254596, rtol=1e-3)


def test_smooth_report_by_hand(dtype):
    net, data = problem(dtype, k=30)
    report = theory.moderate_overparameterization(net, data, delta=0.5, step=0.8)
    n, norm, lam, y = 4, 1.0, 0.29337904, 2.0
    c0 = 1 + 1.5 * 1.0
    rtol = 2e-4 if dtype == jnp.float32 else 1e-7
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol)
    chernoff, width = report.conditions[-2:]
    assert chernoff.rhs.dtype == dtype
    close(chernoff.rhs, 4 / (1 - math.log(2)) * math.log(n) * norm**2 / lam)
    close(width.rhs, (32 * 0.25 * c0) ** 2 * n * norm**2 / lam**2)
    close(chernoff.lhs, 30)
    p = report.prediction
    close(p.step_size, 0.8 * n / (2 * y**2 * norm**2))
    close(1 - p.squared_rate, 0.8 * lam / (32 * norm**2))
    r0 = np.linalg.norm(np.asarray(net(data.inputs) - data.targets))
    close(p.initial_residual, r0)
    alpha = y * math.sqrt(lam / (8 * n))
    close(p.slope, (0.5 - 0.2) * alpha)
    close(p.min_distance, r0 / (y * norm / math.sqrt(n)))
    failure = n * math.exp(-(1 - math.log(2)) / 2 * 30 * lam)
    close(p.probability, max(0, 1 - failure - math.exp(-0.25 * n / 2)))
    assert p.residual_bound(10).dtype == dtype
    assert [c.name for c in report.failures] == [chernoff.name, width.name]
    full = theory.moderate_overparameterization(net, data).prediction
    close(full.slope, y * math.sqrt(lam / (128 * n)))


def test_kinked_report_by_hand(float64):
    net, data = problem(float64, k=250, activation="relu")
    report = theory.moderate_overparameterization(net, data)
    n, lam = 4, 0.5
    width, reach = report.conditions[-2:]
    np.testing.assert_allclose(width.rhs, 2e8 * 9 * n / lam**4, rtol=1e-3)
    assert width.rhs >= 2e8 * 9 * n / lam**4
    np.testing.assert_allclose(reach.lhs, 15 * math.sqrt(2 * n / lam))
    assert reach.rhs == math.floor(250 * lam / 100) ** 1.5 / 500
    p = report.prediction
    alpha = 0.8 * 2 * math.sqrt(lam / (2 * n))
    np.testing.assert_allclose(p.step_size, n / (2 * 4))
    np.testing.assert_allclose(1 - p.squared_rate, p.step_size * alpha**2 / 2)
    np.testing.assert_allclose(p.radius, 4 * p.initial_residual / alpha)
    # leaky slopes: a smaller jump asks for less, a slope of 1 for no curvature at all
    rhs = []
    for slope in (0.0, 0.5, 0.9):
        leaky, _ = problem(float64, k=250, activation=LeakyReLU(slope))
        rhs.append(theory.moderate_overparameterization(leaky, data).conditions[-2].rhs)
    assert rhs[0] > 10 * rhs[1] > 100 * rhs[2]
    flat, _ = problem(float64, k=250, activation=LeakyReLU(1.0))
    assert theory.moderate_overparameterization(flat, data).holds


def test_explicit_kinked_proof_holds_with_its_integers(float64):
    """At the required width: R fits into the flip radius and ε ≤ α₀/5, with floors."""
    from jaxrelu.theory._gradient_descent import kinked_width

    for n, norm, lam, delta in ((2, 1.0, 0.5, 1.0), (50, 2.6, 0.08, 2.0)):
        k = float(kinked_width(1.0, 1.0, n, norm, lam, delta))
        m = math.floor(k * lam / (100 * norm**2))
        alpha0 = math.sqrt(lam / (2 * n))  # in units of ‖y‖
        reach = 5 * (2 + delta) / alpha0
        assert reach <= m**1.5 / (2 * k) <= 1.001 * reach
        epsilon = math.sqrt(2 * m) * norm / math.sqrt(k * n)
        assert epsilon <= alpha0 / 5 <= 1.001 * epsilon


def test_hermite_route_is_empty_for_even_slopes(float64):
    net, data = problem(float64, activation="tanh")
    empty = theory.moderate_overparameterization(net, data, eigenvalue="hermite")
    assert not empty.holds
    assert any("take eigenvalue='exact'" in c.name for c in empty.failures)
    exact = theory.moderate_overparameterization(net, data)
    assert exact.conditions[-1].margin > 0
    net, data = problem(float64)
    rhs = [
        theory.moderate_overparameterization(net, data, eigenvalue=e).conditions[-1].rhs
        for e in ("exact", "hermite")
    ]
    assert rhs[0] < rhs[1] < math.inf


def test_outer_weights_of_another_norm_are_a_failed_condition(float64):
    for kwargs, failing in (
        ({"outer_norm": 2.0}, 1),
        ({"outer": "gaussian"}, 2),
        ({}, 0),
    ):
        net, data = problem(float64, **kwargs)
        report = theory.moderate_overparameterization(net, data)
        about_v = [c for c in report.failures if "v_l" in c.name]
        assert len(about_v) == failing


def test_recalled_forms_are_constants_only(float64):
    """The paper's unnamed c is never compared with."""
    for activation in ("softplus", "relu"):
        net, data = problem(float64, activation=activation)
        report = theory.moderate_overparameterization(net, data)
        assert any(name.startswith("recalled form") for name in report.constants)
        assert not any("recalled" in c.name for c in report.conditions)
        assert "recalled" in report.method


FACES = (
    theory.moderate_overparameterization,
    theory.stochastic_gradient_descent,
)
ANY = (*FACES, theory.certify_convergence, theory.random_features)


@pytest.mark.parametrize("face", ANY, ids=lambda f: f.__name__)
def test_refusals(face, float64):
    net, data = problem(float64)
    with pytest.raises(TypeError, match=r"Use jaxrelu\.Shallow"):
        face(jr.LinearNetwork.init(jax.random.key(0), (6, 2, 1)), data)
    with pytest.raises(TypeError, match="Wrap the arrays"):
        face(net, data.inputs)
    several = jr.Shallow.init(jax.random.key(0), d=6, k=4, m=2, activation="gelu")
    with pytest.raises(ValueError, match="one scalar output"):
        face(several, data)
    with pytest.raises(ValueError, match="expected one dtype"):
        face(net, data.astype("float32"))
    wide = jr.Shallow.init(jax.random.key(0), d=5, k=4, activation="gelu")
    with pytest.raises(ValueError, match=r"expected \(n, 5\)"):
        face(wide, data)


@pytest.mark.parametrize("face", FACES, ids=lambda f: f.__name__)
def test_refusals_of_the_setting(face, float64):
    net, data = problem(float64)
    long = jr.data.Dataset(2 * data.inputs, data.targets)
    with pytest.raises(ValueError, match="normalise"):
        face(net, long)
    twice = jr.data.Dataset(data.inputs[jnp.array([0, 1, 0, 2])], data.targets)
    with pytest.raises(ValueError, match="drop_duplicates"):
        face(net, twice)
    with pytest.raises(ValueError, match="targets are 0"):
        face(net, data.with_targets(jnp.zeros(4)))
    odd = jr.Shallow.init(
        jax.random.key(0), d=6, k=5, outer="signs", activation="softplus"
    )
    with pytest.raises(ValueError, match="even number"):
        face(odd, data)
    with pytest.raises(ValueError, match="step is 2"):
        face(net, data, step=2.0)
    with pytest.raises(ValueError, match="delta is -1"):
        face(net, data, delta=-1.0)


def test_opposite_rows(float64):
    """Harmless for λ(X), fatal for σ_min(X∗X)."""
    x = jnp.asarray([[1.0, 0], [-1, 0], [0, 1]])
    net, data = problem(float64, inputs=x)
    report = theory.moderate_overparameterization(net, data)
    assert report.constants["λ(X)"].value > 0.05
    with pytest.raises(ValueError, match="parallel rows"):
        theory.moderate_overparameterization(net, data, eigenvalue="hermite")


def test_sgd_report_by_hand(float64):
    net, data = problem(float64, k=30)
    nu, n, lam, y = 5.0, 4, 0.29337904, 2.0
    report = theory.stochastic_gradient_descent(net, data, nu=nu, step=0.5)
    p = report.prediction
    np.testing.assert_allclose(
        report.conditions[-1].rhs, (8 * nu * 0.25 * 3) ** 2 * n / lam**2, rtol=1e-7
    )
    eta = 0.5 * lam * n / (8 * (nu + 1) * y**2)
    np.testing.assert_allclose(p.step_size, eta, rtol=1e-7)
    np.testing.assert_allclose(
        1 - p.squared_rate, 0.5 * lam**2 / (128 * (nu + 1) * n), rtol=1e-6
    )
    event = 1 - 4 / nu * (math.sqrt(8 / lam)) ** (1 / 180)
    np.testing.assert_allclose(
        report.constants["P(E) at least, given W₀"], event, rtol=1e-7
    )
    assert p.probability <= max(event, 0)
    kinked, _ = problem(float64, activation="relu")
    with pytest.raises(ValueError, match="derivative jumps"):
        theory.stochastic_gradient_descent(kinked, data)


def test_rates_of_zero(float64):
    once = jr.theory.polyak_lojasiewicz_bounds(1.0, 1.0, 0.5).prediction
    assert float(once.squared_rate) == 0
    assert float(once.residual_bound(0)) == float(once.initial_residual)
    assert float(once.residual_bound(1)) == 0
    assert once.steps_to(0.1) == 1


def test_sharp_rule_with_no_outer_weights(float64):
    network = jr.Shallow(jnp.ones((4, 3)), jnp.zeros(4), "softplus")
    data = jr.data.Dataset(jnp.eye(3), jnp.ones(3))
    for rule in ("standard", "sharp", "flow"):
        assert not jr.certify_convergence(network, data, rule=rule).holds


def test_sphere_width_of_a_straight_activation(float64):
    straight = jr.theory.sphere_asymptotics(LeakyReLU(1.0), 10, 40)
    assert float(straight.required_width) < 1e6
