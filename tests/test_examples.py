"""The examples run, and what they claim is so."""

import jax
import numpy as np
import pytest
from _examples import load, page_of


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
    page = page_of(out, "quickstart", ("spectrum", "width", "bulk", "descent"))
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
