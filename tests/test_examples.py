"""The examples run, and what they claim is so."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxrelu as jr
from jaxrelu.activations import activation, dual_kernel


EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load(name):
    """The example as a module; the precision that it asks for is taken back."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    before = jax.config.jax_enable_x64
    try:
        spec.loader.exec_module(module)
    finally:
        jax.config.update("jax_enable_x64", before)
    return module


quickstart = load("quickstart")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    with jax.enable_x64(True):
        found = quickstart.main(quickstart.Config(quick=True, out=out))
    return found, out


@pytest.mark.slow
def test_quickstart_writes_one_self_contained_page(demo):
    _, out = demo
    assert {p.name for p in out.iterdir()} == {
        *("spectrum.png", "width.png", "bulk.png", "descent.png"),
        "quickstart.html",
    }
    page = (out / "quickstart.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "src=" not in page.replace('src="data:', "")
    assert "http" not in page
    for said in ("float64", "jax.random.key(0)", f"jax {jax.__version__}", "repeats"):
        assert said in page
    # the three lines ran, and printed the spectrum of all 1797 digits
    assert "1797 singular values of a 1797 x 32768 float64 operator" in page


@pytest.mark.slow
def test_quickstart_spectra_obey_the_theory(demo):
    found, _ = demo
    for part in found["spectra"].values():
        limit = np.sqrt(np.asarray(part["limit"].values))
        for spectrum in part["spectra"].values():
            values = np.asarray(spectrum.values)
            assert values[0] <= part["upper"]
            assert np.all(np.asarray(spectrum.error) < values)
            np.testing.assert_allclose(values[0], limit[0], rtol=0.2)
    # softplus is near its limit at these widths, ReLU is not
    for name, near in (("softplus", True), ("relu", False)):
        part = found["spectra"][name]
        smallest = float(np.asarray(part["spectra"][128].values)[-1])
        ratio = smallest / float(np.asarray(part["limit"].values)[-1]) ** 0.5
        assert (ratio > 0.9) is near


@pytest.mark.slow
def test_quickstart_guarantee_is_kept(demo):
    found, _ = demo
    run, bound = found["certified_run"], found["certified_bound"]
    assert bool(found["certificate"].holds)
    assert np.all(run["measured"] <= bound * (1 + 1e-12))
    assert bound[-1] < 1
    # and the prediction is far better than the guarantee
    np.testing.assert_allclose(run["measured"], run["predicted"], rtol=0.1)


@pytest.mark.slow
def test_quickstart_predictions_are_near(demo):
    found, _ = demo
    run = found["runs"]["softplus", 128]
    np.testing.assert_allclose(run["measured"], run["predicted"], rtol=0.15)
    assert np.all(run["predicted"] <= run["slowest"] * (1 + 1e-12))
    for part in found["widths"].values():
        for k, (mean, _) in part["counts"].items():
            # at large s a handful of eigenvalues decide, and they fluctuate
            np.testing.assert_allclose(part["laws"][k][:2], mean[:2], atol=0.06)


def test_quickstart_refuses_another_platform(tmp_path, capsys):
    config = quickstart.Config(quick=True, out=tmp_path, require="tpu")
    with pytest.raises(SystemExit, match="--require asked for 'tpu'"):
        quickstart.main(config)
    assert "cpu" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------- the laws it compares with


def mean_and_mass(law):
    x, density = law
    return np.trapezoid(x * density, x), np.trapezoid(density, x)


@pytest.mark.parametrize(("samples", "features"), [(100, 400), (400, 100)])
def test_bulk_has_the_moments_of_its_matrix(samples, features):
    law = quickstart.bulk(samples, features, scale=2.0, shift=1.0, mass=0.3)
    mean, mass = mean_and_mass(law)
    np.testing.assert_allclose(mass, 0.3, rtol=1e-3)
    # trace Z Zᵀ / features = samples, shared by the eigenvalues that are not 0
    each = samples / min(samples, features)
    np.testing.assert_allclose(mean / mass, 1 + 2 * each, rtol=1e-3)


@pytest.mark.parametrize("name", ["relu", "softplus"])
def test_sphere_law_is_that_of_the_sphere(name, float64, getkey):
    n, d = 300, 64
    law = quickstart.sphere_law(name, n, d)
    points = jr.data.sphere(getkey(), n, d)
    values = np.linalg.eigvalsh(jr.neural_covariance(activation(name), points))
    mean, mass = mean_and_mass(law)
    np.testing.assert_allclose(mass, 1, rtol=2e-3)
    np.testing.assert_allclose(mean, values.mean(), rtol=0.03)
    x, density = law
    steps = np.diff(x) * (density[1:] + density[:-1]) / 2
    law_count = np.concatenate([[0], np.cumsum(steps)])
    counted = np.searchsorted(values, x) / n
    assert np.max(np.abs(law_count - counted)) < 0.03


def test_finite_width_count_reduces_to_marchenko_pastur(float64):
    """One input dimension: the scalar equation, solved by bisection."""
    rng = np.random.default_rng(0)
    n, k, shift = 20, 10.0, 0.3
    root = rng.standard_normal((n, n)) / n**0.5
    population = root @ root.T
    found = quickstart.finite_width_count(
        jnp.asarray(population), jnp.ones((n, 1)), jnp.asarray(k), jnp.asarray(shift)
    )
    values = np.linalg.eigvalsh(population)

    def gap(delta):
        return delta - np.sum(values / (values / (1 + delta) + shift)) / k

    delta = scipy.optimize.brentq(gap, 0, 1e4, xtol=1e-13)
    expected = n - shift * np.sum(1 / (values / (1 + delta) + shift))
    np.testing.assert_allclose(found, expected, rtol=3e-4)


def test_finite_width_count_agrees_with_random_networks(float64, getkey):
    n, d, k = 80, 16, 32
    points = jr.data.sphere(getkey(), n, d)
    gates = dual_kernel(activation("softplus"), points, derivative=1)
    limit = np.linalg.eigvalsh(gates * (points @ points.T))
    shift = float(limit[n // 4])
    counts = []
    for _ in range(20):
        net = quickstart.init("softplus", getkey(), d, k)
        values = np.linalg.eigvalsh(jr.gram(jr.jacobian(net, points)))
        counts.append(quickstart.smoothed_count(values, [shift])[0])
    law = quickstart.finite_width_count(
        gates, points, jnp.asarray(float(k)), jnp.asarray(shift)
    )
    error = np.std(counts, ddof=1) / 20**0.5
    infinite = quickstart.smoothed_count(limit, [shift])[0]
    assert abs(np.mean(counts) - float(law)) < 4 * error + 0.02 * (infinite - law)
    assert infinite - np.mean(counts) > 10 * error  # there is something to predict
