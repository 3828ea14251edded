"""Reports of the convergence theorems: by hand, what they say, what they refuse."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu import theory
from jaxrelu.activations import LeakyReLU


def problem(dtype, k=30, activation="softplus", inputs=None, outer=None):
    """Orthonormal rows unless given; balanced outer weights of norm 1 unless given."""
    rng = np.random.default_rng(2)
    array = lambda values: jnp.asarray(np.asarray(values, dtype))
    x = np.eye(4, 6) if inputs is None else inputs
    v = np.repeat([1, -1], k // 2) / k**0.5 if outer is None else outer
    inner = rng.standard_normal((k, x.shape[1]))
    data = jr.data.Dataset(array(x), array(rng.choice([-1, 1], len(x))))
    return jr.Shallow(array(inner), array(v), activation), data


def test_report_prints_both_sides(float64):
    report = theory.moderate_overparameterization(*problem(float64, k=250))
    text = str(report)
    assert "does not hold" in text
    assert [c.name for c in report.failures] == ["k ≥ (32 B₂ C₀)² n ‖X‖²/λ²"]
    for c in report.conditions:
        assert c.name in text
        assert f"{float(c.rhs):.6g}" in text
    assert report.margin == report.failures[0].margin < 1
    assert "margin" in str(report.failures[0])


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
        # an array, so that one program serves all slopes
        act = LeakyReLU(jnp.asarray(slope))
        leaky, _ = problem(float64, k=250, activation=act)
        rhs.append(theory.moderate_overparameterization(leaky, data).conditions[-2].rhs)
    assert rhs[0] > 10 * rhs[1] > 100 * rhs[2]
    flat, _ = problem(float64, k=250, activation=LeakyReLU(jnp.asarray(1.0)))
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
    balanced = np.repeat([1, -1], 15) / 30**0.5
    gaussian = np.random.default_rng(3).standard_normal(30) / 30**0.5
    for outer, failing in ((2 * balanced, 1), (gaussian, 2), (balanced, 0)):
        net, data = problem(float64, outer=outer)
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
        face(jr.LinearNetwork((jnp.ones((2, 6)), jnp.ones((1, 2)))), data)
    with pytest.raises(TypeError, match="Wrap the arrays"):
        face(net, data.inputs)
    several = jr.Shallow(jnp.ones((4, 6)), jnp.ones((2, 4)), "gelu")
    with pytest.raises(ValueError, match="one scalar output"):
        face(several, data)
    with pytest.raises(ValueError, match="expected one dtype"):
        face(net, data.astype("float32"))
    wide = jr.Shallow(jnp.ones((4, 5)), jnp.ones(4), "gelu")
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
    odd = jr.Shallow(jnp.ones((5, 6)), jnp.ones(5), "softplus")
    with pytest.raises(ValueError, match="even number"):
        face(odd, data)
    with pytest.raises(ValueError, match="step is 2"):
        face(net, data, step=2.0)
    with pytest.raises(ValueError, match="delta is -1"):
        face(net, data, delta=-1.0)


def test_opposite_rows(float64):
    """Harmless for λ(X), fatal for σ_min(X∗X)."""
    x = np.eye(4, 6)
    x[1] = -x[0]
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
