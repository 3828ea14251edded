"""Promises kept: runs of gradient descent, SGD and least squares against reports."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxrelu as jr
from jaxrelu import theory


def made(n, d, k, activation="softplus", seed=0, scale=1.0, inputs=None, dtype=float):
    """A network of the paper's setting and a problem, drawn by NumPy.

    Many tests share the sizes 4, 6, 1000: the programs of one serve all.
    """
    rng = np.random.default_rng(seed)
    array = lambda values: jnp.asarray(np.asarray(values, dtype))
    x = rng.standard_normal((n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    data = jr.data.Dataset(
        array(x if inputs is None else inputs), array(rng.choice([-1, 1], n))
    )
    outer = scale * np.repeat([1, -1], k // 2) / k**0.5
    inner = rng.standard_normal((k, d))
    return jr.Shallow(array(inner), array(outer), activation), data


def run(net, data, report, steps):
    """A run with the promised step size; checks every promise, returns residuals."""
    p = report.prediction
    path = jr.gradient_descent(
        jr.SquaredLoss(data), net, learning_rate=p.step_size, num_steps=steps
    )
    r = np.sqrt(2 * np.asarray(path.losses))
    t, tiny = np.arange(steps + 1), 1e-12 * r[0]
    np.testing.assert_allclose(r[0], p.initial_residual, rtol=1e-9)
    assert (r <= np.asarray(p.residual_bound(t)) + tiny).all()
    distances, lengths = np.asarray(path.distances), np.asarray(path.path_lengths)
    assert (r + p.slope * distances <= r[0] + tiny).all()
    assert (np.diff(p.lyapunov(jnp.asarray(r), path.path_lengths)) <= tiny).all()
    assert lengths[-1] <= p.path_length
    assert distances.max() <= p.radius
    # ‖r‖ + β‖θ - θ₀‖ ≥ ‖r₀‖ with β = ‖r₀‖ / min_distance
    assert (r + r[0] / p.min_distance * distances >= r[0] - tiny).all()
    return r, path


@pytest.mark.slow
def test_smooth_theorem_at_its_own_width(float64):
    """Two rows with inner product 0.1, k at the bound (about 2e4): 80 steps."""
    x = np.array([[1, 0], [0.1, 0.99**0.5]])
    net, data = made(2, 2, 2, inputs=x)
    width = theory.moderate_overparameterization(net, data).constants["required width"]
    assert 1e4 < width < 3e4
    net, data = made(2, 2, int(width), inputs=x)
    report = theory.moderate_overparameterization(net, data)
    assert report.holds
    assert 1 <= report.margin < 1.01
    # one neuron pair less, and the report would no longer hold
    assert report.conditions[-1].rhs > int(width) - 2
    r, path = run(net, data, report, 80)
    assert r[0] <= report.constants["bound on ‖r₀‖"]
    # the theorem is far from tight: it promised about 0.8, and a path of 60
    assert r[-1] < 1e-3 * r[0]
    assert 1.5 < path.path_lengths[-1] < 0.2 * report.prediction.path_length
    certificate = theory.certify_convergence(net, data)
    assert certificate.holds
    assert certificate.margin > report.margin


def test_smooth_theorem_on_orthonormal_data(float64):
    """Orthonormal rows need a few 1e4 neurons; tanh has μ = 0 and still works."""
    net, data = made(2, 2, 2, "tanh", inputs=np.eye(2))
    width = theory.moderate_overparameterization(net, data).constants["required width"]
    net, data = made(2, 2, int(width), "tanh", inputs=np.eye(2), seed=1)
    report = theory.moderate_overparameterization(net, data)
    assert report.holds
    r, _ = run(net, data, report, 100)
    assert r[-1] < 1e-6 * r[0]


# ------------------------------------------------------------------------ certificates


def certificate_by_hand(net, data, bend_bound):
    """σ_min(J₀)² / (16 ℓ ‖r₀‖) of GELU, in float64, from the dense Jacobian."""
    x, y, w, v = (
        np.asarray(part, float)
        for part in (data.inputs, data.targets, net.inner, net.outer)
    )
    z = x @ w.T
    slope = stats.norm.cdf(z) + z * stats.norm.pdf(z)
    J = ((slope * v)[:, :, None] * x[:, None, :]).reshape(data.n, -1)
    sigma = np.linalg.svd(J, compute_uv=False)[-1]
    ell = bend_bound * np.abs(v).max() * np.linalg.norm(x, 2)
    return sigma**2 / (16 * ell * np.linalg.norm((z * stats.norm.cdf(z)) @ v - y))


def test_certificate_margin(dtype):
    net, data = made(6, 9, 60, "gelu", dtype=dtype)
    report = theory.certify_convergence(net, data)
    assert report.margin.dtype == report.prediction.step_size.dtype == dtype
    margin = certificate_by_hand(net, data, np.sqrt(2 / np.pi))
    np.testing.assert_allclose(
        report.margin, margin, rtol=2e-3 if dtype.itemsize == 4 else 1e-9
    )
    assert not report.holds
    assert [c.name for c in report.failures] == ["σ_min(J₀)² ≥ 16 ℓ‖r₀‖"]
    assert "does not hold" in str(report)
    flow = theory.certify_convergence(net, data, rule="flow")
    np.testing.assert_allclose(flow.margin, 4 * report.margin, rtol=1e-5)
    np.testing.assert_allclose(
        flow.margin, report.constants["margin, flow rule"], rtol=1e-5
    )


@pytest.mark.slow
def test_certificate_reference_values(float64):
    """n = 10, d = 50, k = 8000: 0.74; k = 16000: 1.27; v scaled by 5: 1.66."""
    margins = np.array(
        [
            [
                float(
                    theory.certify_convergence(*made(10, 50, k, seed=s, scale=c)).margin
                )
                for s in range(6)
            ]
            for k, c in ((8000, 1.0), (16000, 1.0), (8000, 5.0))
        ]
    )
    means, spread = margins.mean(axis=1), margins.std(axis=1)
    np.testing.assert_allclose(means[1] / means[0], 2**0.5, rtol=0.1)  # like √k
    for mean, std, reference in zip(means, spread, (0.74, 1.27, 1.66), strict=True):
        assert abs(mean - reference) < 3 * std + 0.1 * reference
    assert means[2] > means[0]  # scaling v helps


@pytest.mark.parametrize("rule", ["standard", "sharp"])
def test_certified_runs_keep_every_promise(rule, float64):
    x = np.asarray(made(4, 6, 1000, seed=5)[1].inputs) * [[1.0], [0.7], [1.3], [1]]
    held = 0
    for seed in range(3):
        net, data = made(4, 6, 1000, seed=seed, scale=4.0, inputs=x)
        # targets near the outputs: smaller residuals are certified at this width
        for shift in (0.02, 0.2, 4.0):
            near = data.with_targets(net(data.inputs) + shift * data.targets)
            report = theory.certify_convergence(net, near, rule=rule)
            if not report.holds:
                continue
            held += 1
            _, path = run(net, near, report, 200)
            J = jr.jacobian(path.network, data.inputs).as_matrix()
            sigma = np.linalg.svd(np.asarray(J), compute_uv=False)
            assert report.constants["α"] <= sigma[-1]
            assert sigma[0] <= report.constants["β"]
    assert held >= 3
    assert held < 9  # some cases lie beyond the certificate


def test_sharp_rule_certifies_more_and_promises_more(float64):
    net, data = made(4, 6, 1000, scale=4.0)
    data = data.with_targets(net(data.inputs) + 0.3 * data.targets)
    reports = {
        rule: theory.certify_convergence(net, data, rule=rule)
        for rule in ("standard", "sharp", "flow")
    }
    standard, sharp, flow = reports.values()
    assert standard.margin < sharp.margin < flow.margin
    assert 16 / 5.6 < sharp.margin / standard.margin < 16 / 5.3
    assert sharp.prediction.log_rate < standard.prediction.log_rate
    assert sharp.prediction.radius < standard.prediction.radius


def test_flow_rule_against_small_steps(float64):
    net, data = made(4, 6, 1000, scale=4.0)
    data = data.with_targets(net(data.inputs) + 0.1 * data.targets)
    report = theory.certify_convergence(net, data, rule="flow")
    assert report.holds
    p = report.prediction
    assert p.step_size is None
    eta = 4e-3
    path = jr.gradient_descent(
        jr.SquaredLoss(data), net, learning_rate=eta, num_steps=200
    )
    r = np.sqrt(2 * np.asarray(path.losses))
    assert (r <= p.residual_bound(eta * np.arange(201)) * 1.01).all()
    assert r[-1] < 0.5 * r[0]
    assert path.path_lengths[-1] <= p.path_length * 1.01
    assert p.steps_to(0.5) == pytest.approx(
        np.log(2) / float(report.constants["α"]) ** 2
    )


def provable_by_hand(net, data, rise):
    """Whether some number m of flips proves convergence, all tried one by one."""
    x, v = np.asarray(data.inputs), np.asarray(net.outer)
    squares = np.sort((x @ np.asarray(net.inner).T) ** 2, axis=1)  # unit rows
    costs = np.sqrt(np.cumsum(squares, axis=1).min(axis=0))
    flips = lambda radius: int((costs <= radius).sum())
    z = x @ np.asarray(net.inner).T
    J = (((z > 0) * v)[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    sigma = np.linalg.svd(J, compute_uv=False)[-1]
    r0 = np.linalg.norm(np.maximum(z, 0) @ v - np.asarray(data.targets))
    c = rise * np.abs(v).max() * np.linalg.norm(x, 2)
    for m in range(len(v) + 1):
        alpha = sigma - c * m**0.5
        if alpha <= 0:
            return False
        radius = 4 * r0 / alpha
        if flips(radius) <= m and c * flips(2**0.5 * radius) ** 0.5 <= alpha / 2:
            return True
    return False


def test_flips_rule_tries_every_number_of_flips(float64):
    """Just below and above the largest residual that any m can prove."""
    net, data = made(4, 6, 1000, "relu")
    shifts = np.geomspace(1e-4, 3e-2, 13)
    verdicts = []
    for shift in shifts:
        near = data.with_targets(net(data.inputs) + shift * data.targets)
        holds = bool(theory.certify_convergence(net, near).holds)
        assert holds is provable_by_hand(net, near, 1.0)
        verdicts.append(holds)
    assert 2 < sum(verdicts) < 11


@pytest.mark.parametrize("activation", ["relu", jr.activations.LeakyReLU(0.2)], ids=str)
def test_flips_rule(activation, float64):
    """Certified near an interpolant, and then every promise is kept."""
    held = []
    for seed in range(2):
        net, data = made(4, 6, 1000, activation, seed=seed)
        for shift in (1e-5, 1e-3, 3e-3, 1.0):
            near = data.with_targets(net(data.inputs) + shift * data.targets)
            report = theory.certify_convergence(net, near)
            held.append((shift, bool(report.holds)))
            reach = report.conditions[2].lhs
            np.testing.assert_allclose(reach, report.prediction.radius, rtol=1e-12)
            if not report.holds:
                continue
            _, path = run(net, near, report, 40)
            flipped = theory.flips(net, path.network, data.inputs).max()
            assert int(flipped) <= float(report.constants["flips per sample, m"])
            J = jr.jacobian(path.network, data.inputs).as_matrix()
            # without flips β is ‖J‖ and its error: the SVD of J is too rough for that
            J = np.asarray(J, np.longdouble)
            sigma = np.sqrt(np.linalg.eigvalsh((J @ J.T).astype(float)))
            assert report.constants["α"] <= sigma[0]
            assert sigma[-1] <= report.constants["β"]
    assert all(ok for shift, ok in held if shift <= 1e-5)
    assert not any(ok for shift, ok in held if shift == 1.0)
    assert report.margin < 1


def test_what_is_never_certified(float64):
    net, data = made(4, 6, 1000)
    # two equal samples with different targets
    x = np.array(data.inputs)
    x[1] = x[0]
    clash = jr.data.Dataset(jnp.asarray(x), jnp.asarray([1.0, -1, 1, 1]))
    assert not theory.certify_convergence(net, clash).holds
    # more samples than parameters, though the least singular value of J is not 0
    small, many = made(9, 4, 2, "gelu")
    many = many.with_targets(small(many.inputs) + 1e-9)
    report = theory.certify_convergence(small, many)
    sigma = report.constants["σ_min(J₀)"].value
    assert sigma**2 > 100 * 16 * report.constants["ℓ"] * report.constants["‖r₀‖"]
    assert not report.holds
    # no outer weights, no gradient
    dead = eqx.tree_at(lambda n: n.outer, net, jnp.zeros(1000))
    for rule in ("standard", "sharp", "flow"):
        assert not theory.certify_convergence(dead, data, rule=rule).holds
    for act, rule in (("relu", "sharp"), ("softplus", "flips")):
        with pytest.raises(ValueError, match="expected '"):
            theory.certify_convergence(made(4, 6, 1000, act)[0], data, rule=rule)


def test_certificate_of_a_linear_model_is_free(float64):
    net, data = made(4, 6, 1000, "linear")
    report = theory.certify_convergence(net, data)
    assert report.holds
    assert jnp.isinf(report.margin)
    run(net, data, report, 200)


# -------------------------------------------------------------------------------- SGD


@eqx.filter_jit
def sgd(net, data, key, eta, steps):
    """Residual norms and distances of one-sample steps."""
    start = net.inner

    def step(inner, key):
        i = jax.random.randint(key, (), 0, data.n)

        def output(inner):
            return eqx.tree_at(lambda n: n.inner, net, inner)(data.inputs[i])

        value, slope = jax.value_and_grad(output)(inner)
        inner = inner - eta * (value - data.targets[i]) * slope
        after = eqx.tree_at(lambda n: n.inner, net, inner)(data.inputs)
        record = jnp.linalg.norm(after - data.targets), jnp.linalg.norm(inner - start)
        return inner, record

    return jax.lax.scan(step, start, jax.random.split(key, steps))[1]


def test_sgd_stays_in_the_ball_and_converges_in_mean(float64):
    """Measured constants in Theorem 3.1(b) of S1, then a step 40 times as long."""
    net, data = made(6, 10, 100)
    certificate = theory.certify_convergence(net, data).constants
    alpha = certificate["σ_min(J₀)"].value / 2
    report = theory.sgd_bounds(
        alpha,
        certificate["β"],
        theory.row_norm_bound(net, data.inputs),
        certificate["‖r₀‖"],
        lipschitz=certificate["ℓ"],
        n=6,
        p=1000,
        nu=6.0,
    )
    assert report.holds
    p = report.prediction
    steps, keys = 2000, jax.random.split(jax.random.key(9), 8)
    both = eqx.filter_vmap(sgd, in_axes=(None, None, 0, None, None))
    for longer in (1, 40):
        r, distance = both(net, data, keys, longer * p.step_size, steps)
        assert distance.max() < p.radius
        squares = np.sqrt(np.mean(np.square(r), axis=0))
        bound = np.asarray(p.residual_bound(np.arange(1, steps + 1)))
        assert (squares <= bound).all()
    assert (r[:, -1] < 0.5 * p.initial_residual).all()


def test_sgd_theorem_at_its_own_width(float64):
    net, data = made(2, 2, 2, inputs=np.eye(2))
    width = theory.stochastic_gradient_descent(net, data, nu=5.0).constants[
        "required width"
    ]
    net, data = made(2, 2, int(width), inputs=np.eye(2), seed=3)
    report = theory.stochastic_gradient_descent(net, data, nu=5.0)
    assert report.holds
    p = report.prediction
    r, distance = sgd(net, data, jax.random.key(0), p.step_size, 500)
    assert (r <= p.residual_bound(jnp.arange(1, 501))).all()
    assert distance.max() < p.radius
    assert r[-1] < 0.95**0.5 * r[0]


# -------------------------------------------------------------------- random features


def features_by_hand(net, data):
    """relu(XWᵀ), by NumPy."""
    return np.maximum(np.asarray(data.inputs) @ np.asarray(net.inner).T, 0)


def test_random_features_run_reaches_the_closest_interpolant(float64):
    net, data = made(6, 10, 40, "relu")
    report = theory.random_features(net, data)
    assert report.holds
    p = report.prediction
    path = jr.gradient_descent(
        jr.SquaredLoss(data),
        net,
        learning_rate=p.step_size,
        num_steps=3000,
        where=lambda n: n.outer,
    )
    r = np.sqrt(2 * np.asarray(path.losses))
    assert (r <= np.asarray(p.residual_bound(np.arange(3001))) + 1e-12).all()
    phi = features_by_hand(net, data)
    gap = np.asarray(data.targets) - phi @ np.asarray(net.outer)
    closest = np.asarray(net.outer) + np.linalg.pinv(phi) @ gap
    np.testing.assert_allclose(path.network.outer, closest, atol=1e-6)
    assert path.distances.max() <= p.radius
    assert path.path_lengths[-1] <= p.path_length
    assert p.min_distance <= path.distances[-1]
    sigma = np.linalg.svd(phi, compute_uv=False)
    np.testing.assert_allclose(p.rate, 1 - sigma[-1] ** 2 / sigma[0] ** 2, rtol=1e-9)
    # with the residual along the worst direction the rate is reached
    worst = np.linalg.svd(phi)[0][:, -1]
    data = data.with_targets(jnp.asarray(phi @ np.asarray(net.outer) + worst))
    report = theory.random_features(net, data).prediction
    path = jr.gradient_descent(
        jr.SquaredLoss(data),
        net,
        learning_rate=report.step_size,
        num_steps=3000,
        where=lambda n: n.outer,
    )
    r = np.sqrt(2 * float(path.losses[50]))
    assert 0.999 < r / report.residual_bound(50) < 1 + 1e-9


def test_random_features_need_as_many_neurons_as_samples(float64):
    for k, rank in ((4, 4), (6, 6)):
        net, data = made(6, 10, k, "relu", seed=4)
        report = theory.random_features(net, data)
        phi = features_by_hand(net, data)
        assert np.linalg.matrix_rank(phi) == rank
        assert bool(report.holds) is (k >= 6)
        assert bool(report.prediction.rate < 1) is (k >= 6)


@pytest.mark.parametrize(
    ("multiple", "low", "high"), [(2, 0.26, 0.29), (5, 0.64, 0.69), (20, 0.91, 0.94)]
)
def test_random_features_singular_values(multiple, low, high, float64):
    """Mean of σ_min²/(kλ~) for ReLU, n = 40, d = 20."""
    found = []
    for seed in range(6):
        net, data = made(40, 20, 40 * multiple, "relu", seed=seed)
        report = theory.random_features(net, data)
        found.append(float(report.constants["σ_min²(Φ)/(kλ~)"]))
    assert low - 0.05 < np.mean(found) < high + 0.05


def test_feature_covariance(float64):
    x = made(6, 10, 40)[1].inputs
    theta = np.arccos(np.clip(np.asarray(x) @ np.asarray(x).T, -1, 1))
    kernel = (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / (2 * np.pi)
    relu = jr.activations.ReLU()
    found = theory.feature_covariance_smallest(relu, x)
    np.testing.assert_allclose(found.value, np.linalg.eigvalsh(kernel)[0], atol=1e-8)
    square = theory.khatri_rao_smallest(x).value
    for act in (relu, jr.activations.GELU()):
        mu = jr.activations.mu(act).value
        assert theory.feature_covariance_smallest(act, x).value >= mu**2 / 2 * square


def test_a_draw_beyond_the_misfit_bound_is_named(float64):
    net, data = made(2, 2, 2)
    far = eqx.tree_at(lambda net: net.inner, net, 40 * net.inner)
    words = "‖r₀‖ ≤ C₀‖y‖ for this draw of W₀"
    for case, promised in ((net, True), (far, False)):
        residual = jnp.linalg.norm(jr.SquaredLoss(data).residual(case))
        for report in (
            theory.moderate_overparameterization(case, data),
            theory.stochastic_gradient_descent(case, data),
        ):
            (condition,) = [c for c in report.conditions if c.name == words]
            assert bool(condition.met) is promised
            np.testing.assert_allclose(condition.lhs, residual, rtol=1e-12)
