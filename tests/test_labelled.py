"""Labelled results on disk, and measured rates beside predicted ones."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import pytest
from test_training import problem

import jaxrelu as jr
from jaxrelu import dynamics, experiments, theory


@pytest.fixture(scope="module")
def swept():
    with jax.enable_x64(True):
        loss, network = problem(jnp.dtype("float64"))
        recorders = {
            "residual": dynamics.ResidualNorm(),
            "sigma": dynamics.JacobianSpectrum(),
            "inner": lambda now: now.network.inner,
        }

        def run(key, learning_rate):
            noise = 0.1 * jrandom.normal(key, network.inner.shape)
            start = eqx.tree_at(lambda net: net.inner, network, network.inner + noise)
            return jr.gradient_descent(
                loss,
                start,
                learning_rate=learning_rate,
                num_steps=12,
                record_every=5,
                recorders=recorders,
            )

        grid = {"learning_rate": jnp.asarray([0.1, 1e200])}
        yield dynamics.sweep(run, jrandom.key(0), 2, grid, devices=jax.devices()[:1])


def test_names_values_and_attributes(swept):
    found = experiments.to_xarray(
        swept, config={"d": 4, "rates": np.array([0.1])}, weights=True
    )
    assert found["losses"].dims == ("seed", "learning_rate", "record")
    assert found["sigma_smallest"].dims == found["losses"].dims
    assert found["inner"].dims == (*found["losses"].dims, "inner_0", "inner_1")
    assert found["diverged_at"].dims == ("seed", "learning_rate")
    assert found["network_inner"].sizes["network_inner_0"] == 6
    assert found.coords["learning_rate"].values.tolist() == [0.1, 1e200]
    one = found.sel(seed=1, learning_rate=0.1)
    np.testing.assert_array_equal(one["losses"], swept.values.losses[1, 0])
    np.testing.assert_array_equal(
        one["residual"], swept.values.records["residual"][1, 0]
    )
    assert found["result"].values.tolist() == [["successful", "diverged"]] * 2
    assert json.loads(found.attrs["config"]) == {"d": 4, "rates": [0.1]}
    assert json.loads(found.attrs["versions"])["jax"] == jax.__version__
    assert found.attrs["dtype"] == "float64"
    single = jax.tree.map(
        lambda x: np.asarray(x)[0, 0], eqx.filter(swept.values, eqx.is_array)
    )
    assert experiments.to_xarray(single)["losses"].dims == ("record",)
    plain = experiments.to_xarray(
        {"a": np.ones((2, 3))}, dims=("n",), coords={"n": [5, 6]}
    )
    assert plain["value_a"].dims == ("n", "value_a_0")
    with pytest.raises(ValueError, match="Name the axes that there are"):
        experiments.to_xarray(single, dims=("seed",))
    with pytest.raises(TypeError, match="config cannot be written"):
        experiments.to_xarray(single, config={"what": object()})


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_files_come_back_whole(swept, suffix, tmp_path, monkeypatch):
    if suffix == ".zarr":
        pytest.importorskip("zarr")
    dataset = experiments.to_xarray(swept)
    path = tmp_path / f"runs{suffix}"
    assert experiments.save(dataset, path) == path
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    back = experiments.load(path)
    assert back.equals(dataset)
    assert back.attrs == dataset.attrs
    with pytest.raises(FileExistsError, match="overwrite=True"):
        experiments.save(dataset, path)
    broken = dataset.assign(bad=("seed", np.array([object(), object()])))
    with pytest.raises((TypeError, ValueError)):  # cannot be written
        experiments.save(broken, path, overwrite=True)
    assert experiments.load(path).equals(dataset)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    experiments.save(dataset.isel(seed=[0]), path, overwrite=True)
    assert experiments.load(path).sizes["seed"] == 1


def test_places_that_cannot_be_written_are_refused_first(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"expected \.nc"):
        experiments.check_output(tmp_path / "runs.csv")
    with pytest.raises(FileNotFoundError, match="no folder"):
        experiments.check_output(tmp_path / "nowhere" / "runs.nc")
    with pytest.raises(ValueError, match=r"expected \.nc"):
        experiments.load(tmp_path / "runs.csv")

    def refuse(path, *rest, **more):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.touch", refuse)  # root may write anywhere
    with pytest.raises(PermissionError, match="Choose another folder"):
        experiments.check_output(tmp_path / "runs.nc")


def noisy(rng, correlation, length=80, slope=-0.03):
    noise = rng.normal(size=length)
    for i in range(1, length):
        noise[i] = correlation * noise[i - 1] + noise[i] * (1 - correlation**2) ** 0.5
    return np.exp(slope * np.arange(length) + 0.1 * noise)


@pytest.mark.parametrize(("correlation", "least"), [(0.0, 0.91), (0.7, 0.86)])
def test_intervals_hold_the_slope_as_often_as_they_say(correlation, least, float64):
    rng = np.random.default_rng(0)
    steps = np.arange(80)
    hits = []
    for _ in range(400):
        rate = experiments.empirical_rate(steps, noisy(rng, correlation), tail=1.0)
        hits.append(float(rate.low) <= -0.03 <= float(rate.high))
    assert least < np.mean(hits) < 0.99


def test_intervals_over_runs(float64):
    """Slopes that differ from run to run: Student's interval of their mean."""
    rng = np.random.default_rng(1)
    steps = 10 * np.arange(20)
    hits = []
    for _ in range(400):
        slopes = rng.normal(-0.02, 0.004, size=(5, 1))
        rate = experiments.empirical_rate(steps, np.exp(slopes * steps), level=0.9)
        hits.append(float(rate.low) <= -0.02 <= float(rate.high))
        assert float(rate.log_rate.value) == pytest.approx(slopes.mean(), rel=1e-9)
    assert abs(np.mean(hits) - 0.9) < 4 * (0.09 / 400) ** 0.5


def test_one_mode_decays_at_its_own_rate(float64):
    """A single sample, v trained: L_t = (1 - eta |phi|^2)^(2t) L_0 exactly."""
    loss, network = problem(float64)
    x, y = np.asarray(loss.data.inputs)[:1], np.asarray(loss.data.targets)[:1]
    alone = jr.SquaredLoss(jr.data.Dataset(jnp.asarray(x), jnp.asarray(y)))
    features = np.logaddexp(0, x[0] @ np.asarray(network.inner).T)
    run = jr.gradient_descent(
        alone,
        network,
        learning_rate=0.02,
        num_steps=40,
        where=lambda net: net.outer,
        record_every=2,
    )
    rate = experiments.empirical_rate(run.steps, run.losses)
    exact = 2 * np.log(1 - 0.02 * features @ features)
    assert float(rate.log_rate.value) == pytest.approx(exact, rel=1e-9)
    assert float(rate.high - rate.low) < 1e-8
    assert float(rate.squared_rate) == pytest.approx(np.exp(exact), rel=1e-9)
    assert (rate.first_step, rate.last_step) == (20, 40)
    # the meta-theorem for a linear model: alpha = beta = |phi|
    size = float(np.linalg.norm(features))
    report = theory.gradient_descent_bounds(
        size, size, (2 * float(run.losses[0])) ** 0.5, lipschitz=0.0, step_size=0.02
    )
    overlay = experiments.beside_prediction(report, run)
    assert overlay.within == {"residuals": True, "radius": True, "path length": True}
    assert float(overlay.rate.log_rate.value) < float(overlay.log_rate)
    np.testing.assert_allclose(
        overlay.residual_bounds,
        overlay.residuals[0] * (1 - 0.02 * size**2 / 2) ** (np.asarray(run.steps) / 2),
        rtol=1e-10,
    )
    assert "the conditions are met" in str(overlay)
    assert "95% interval" in str(overlay)
    worse = eqx.tree_at(lambda r: r.losses, run, 4 * run.losses)
    assert not experiments.beside_prediction(report, worse).within["residuals"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([0, 1, 2, 3], [1.0, 0.5, 0.2, 0.1]), "records in the tail"),
        ((range(9), [1.0] * 8 + [0.0]), "not all positive"),
        ((range(9), [[1.0] * 8]), "expected"),
        (([range(9), range(1, 10)], [[1.0] * 9] * 2), "different steps"),
    ],
)
def test_what_has_no_rate_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        experiments.empirical_rate(np.asarray(arguments[0]), np.asarray(arguments[1]))
    with pytest.raises(ValueError, match="tail is 0"):
        experiments.empirical_rate(np.arange(9), np.ones(9), tail=0.0)


def test_two_results_of_one_name_are_refused(float64):
    loss, network = problem(float64)
    run = jr.gradient_descent(
        loss,
        network,
        learning_rate=0.1,
        num_steps=2,
        recorders={"losses": dynamics.GradientNorm()},
    )
    with pytest.raises(ValueError, match="'losses'"):
        experiments.to_xarray(run)
    twice = {"a_b": np.ones(2), "a": {"b": np.zeros(2)}}
    with pytest.raises(ValueError, match="'value_a_b'"):
        experiments.to_xarray(twice)
    for dims, coords in ((("record",), {}), (("x",), {"y": [1.0, 2.0]})):
        with pytest.raises(ValueError, match="different names"):
            experiments.to_xarray({"a": np.ones(2)}, dims=dims, coords=coords)
    found = experiments.to_xarray({"a": np.ones(2)}, dims=("x",), coords={"x": [3, 4]})
    np.testing.assert_array_equal(found.x, [3, 4])


def test_a_run_that_diverged_kept_nothing(float64):
    loss, network = problem(float64)
    run = jr.gradient_descent(
        loss, network, learning_rate=1e200, num_steps=10, record_every=10
    )
    assert int(run.diverged_at) > 0
    start = (2 * float(run.losses[0])) ** 0.5
    report = theory.gradient_descent_bounds(1.0, 2.0, start, lipschitz=0.0)
    assert not any(experiments.beside_prediction(report, run).within.values())


def test_losses_may_be_integers(float64):
    rate = experiments.empirical_rate(np.arange(9), 2 ** np.arange(8, -1, -1), tail=1.0)
    assert float(rate.log_rate.value) == pytest.approx(-np.log(2), rel=1e-12)
