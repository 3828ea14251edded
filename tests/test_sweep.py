"""Sweeps: the same numbers on any devices, and those of single runs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import pytest
from _draws import normal
from test_training import problem

import jaxrelu as jr
from jaxrelu import dynamics


class Run(eqx.Module):
    """A short training from a random start; the data are leaves of the function."""

    loss: jr.SquaredLoss

    def __call__(self, key, learning_rate):
        network = jr.Shallow.init(key, d=4, k=4, dtype=self.loss.data.dtype)
        path = jr.gradient_descent(
            self.loss,
            network,
            learning_rate=learning_rate,
            num_steps=60,
            record_every=25,
            target_loss=1.8,
        )
        return {"run": path, "draw": network.inner[0, 0], "key": key}


RATES = (0.05, 0.4, 1e20)


@pytest.fixture(scope="module")
def swept():
    """On all 8 devices, on one, and on one in 2 lanes of small batches."""
    with jax.enable_x64(True):
        loss, _ = problem(jnp.dtype("float64"))
        key = jrandom.key(5)
        grid = {"learning_rate": jnp.asarray(RATES)}
        one = jax.devices()[1:2]
        yield (
            loss,
            key,
            [
                dynamics.sweep(Run(loss), key, 3, grid),
                dynamics.sweep(Run(loss), key, 3, grid, devices=one, lanes=1),
                dynamics.sweep(
                    Run(loss), key, 3, grid, devices=one, lanes=2, batch_size=2
                ),
            ],
        )


def numbers(tree):
    arrays = eqx.filter(tree, eqx.is_array)
    data = lambda x: (
        jrandom.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    )
    return [np.asarray(data(leaf)) for leaf in jax.tree.leaves(arrays)]


@pytest.mark.slow
def test_devices_and_batches_change_nothing(swept):
    _, _, (first, *others) = swept
    for other in others:
        assert (other.values["draw"] == first.values["draw"]).all()
        for one, two in zip(numbers(first), numbers(other), strict=True):
            assert one.dtype == two.dtype
            assert one.shape == two.shape
            np.testing.assert_allclose(one, two, rtol=1e-10, atol=1e-12)


def test_runs_are_those_done_one_by_one(swept):
    loss, key, (found, *_) = swept
    assert found.dims == ("seed", "learning_rate")
    assert found.shape == (3, 3)
    assert found.values["run"].losses.shape == (3, 3, 4)
    single, together = eqx.filter_jit(Run(loss)), numbers(found.values["run"])
    for seed in range(3):
        own = jrandom.fold_in(key, seed)
        for j, rate in enumerate(RATES):
            alone = single(own, jnp.asarray(rate))["run"]
            for one, two in zip(numbers(alone), together, strict=True):
                np.testing.assert_allclose(one, two[seed, j], rtol=1e-10, atol=1e-12)
    keys = jrandom.key_data(found.values["key"])
    assert (keys[:, 0] == keys[:, 1]).all()
    assert len(np.unique(np.asarray(found.values["draw"][:, 0]))) == 3


def test_every_run_has_its_own_end(swept):
    run = swept[2][0].values["run"]
    diverged = np.asarray(run.result == jr.RESULTS.diverged)
    assert diverged[:, 2].all()
    assert not diverged[:, :2].any()
    assert (np.asarray(run.diverged_at)[:, 2] > 0).all()
    assert len(set(np.asarray(run.num_steps)[:, :2].ravel().tolist())) > 2
    assert np.isfinite(run.losses).all()


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_more_seeds_keep_the_old_ones_and_pytrees_are_axes(dtype, getkey):
    """Networks of equal shape along an axis; uneven numbers of runs over 8 devices."""
    key = getkey()
    networks = jnp.asarray(normal(getkey(), (3, 2, 2), dtype))
    data = {"X": jnp.ones((3, 5, 2), dtype), "name": "several"}

    def norm(key, inner, data):
        assert data["name"] == "several"
        return jrandom.normal(key, (), dtype) + jnp.sum(inner**2) * data["X"][0, 0]

    few = dynamics.sweep(norm, key, 2, {"inner": networks, "data": data})
    more = dynamics.sweep(norm, key, 5, {"inner": networks, "data": data})
    assert few.values.shape == (2, 3, 3)
    assert few.values.dtype == dtype
    np.testing.assert_allclose(more.values[:2], few.values, rtol=1e-6)
    draws = [jrandom.normal(jrandom.fold_in(key, i), (), dtype) for i in range(5)]
    expected = np.array(draws)[:, None] + (np.asarray(networks) ** 2).sum((1, 2))
    np.testing.assert_allclose(more.values[:, :, 1], expected, rtol=1e-5)


def test_default_lanes_are_the_cores_of_a_single_cpu():
    one = tuple(jax.devices()[:1])
    assert dynamics._sweep._lanes(None, one, 1) == 1
    assert dynamics._sweep._lanes(None, one, 10**6) >= 1
    assert dynamics._sweep._lanes(None, tuple(jax.devices()), 100) == 1


@pytest.mark.parametrize(
    ("count", "most", "size"),
    [(16, 6, 4), (16, 8, 8), (3, 8, 3), (13, 4, 2), (1, 4, 1)],
)
def test_batches_are_full_and_within_bounds(count, most, size):
    assert dynamics._sweep._even(count, most) == size


def test_batches_on_a_cpu_fit_the_arrays_of_a_step():
    def run(steps, k):
        def step(x, _):
            large = jax.jit(jnp.outer)(x, jnp.ones(k, x.dtype))
            return jnp.sum(large, 1), None

        return lambda x: jax.lax.scan(step, x, None, length=steps)[0]

    fitting = dynamics._sweep._fitting_batch
    start = jnp.zeros(64, jnp.float32)
    bytes_of_large = 64 * 80 * 4
    assert fitting(run(10, 80), start) == 160 * 1024 // bytes_of_large == 8
    assert fitting(run(10_000, 80), start) == 8
    assert fitting(run(10, 8000), start) == 4
    # what is made once, outside of the steps, may be large
    assert fitting(lambda x: run(10, 80)(jnp.tile(x, 500)[:64]), start) == 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, {}), "num_seeds is 0"),
        ((1, {"seed": np.ones(2)}), "called 'seed'"),
        ((1, {"rate": np.ones(0)}), "axis 'rate'"),
        ((1, {"rate": 1.0}), "axis 'rate'"),
        ((1, {"rate": (np.ones(2), np.ones(3))}), "Stack the values"),
    ],
)
def test_bad_grids_are_refused(arguments, words, getkey):
    with pytest.raises(ValueError, match=words):
        dynamics.sweep(lambda key, rate: rate, getkey(), *arguments)
