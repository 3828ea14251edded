"""Perturbed gradient descent against a plain loop and its stationary law."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import pytest
from _draws import normal

import jaxrelu as jr
from jaxrelu import dynamics


class Bowl(eqx.Module):
    """Half the square of all weights."""

    scale: jax.Array

    def __call__(self, weights):
        return 0.5 * self.scale * jnp.sum(weights**2)


class Quartic(eqx.Module):
    """A quarter of all fourth powers: the gradient is the cube."""

    def __call__(self, weights):
        return jnp.sum(weights**4) / 4


def test_is_the_plain_loop(dtype, getkey):
    """The same noise in every row, the gradient at the shaken point, the records."""
    W = normal(getkey(), (3, 3), dtype)
    key, T, rate, noise = getkey(), 6, 0.1, 0.05
    run = dynamics.perturbed_gradient_descent(
        Quartic(), jnp.asarray(W), key, learning_rate=rate, noise=noise, num_steps=T
    )
    loss = lambda W: float((W.astype(float) ** 4).sum() / 4)
    start, path, records = W, 0.0, []
    draw = jax.jit(lambda key: jrandom.normal(jrandom.split(key, 1)[0], (1, 3), dtype))
    for sub in jrandom.split(key, T):
        records.append((loss(W), np.linalg.norm(W - start), path))
        xi = np.asarray(draw(sub)) / dtype.type(np.sqrt(3.0))
        shaken = W + dtype.type(noise) * xi
        moved = shaken - dtype.type(rate) * shaken**3
        path += float(np.linalg.norm(moved - W))
        W = moved
    records.append((loss(W), np.linalg.norm(W - start), path))
    recorded = np.stack([run.losses, run.distances, run.path_lengths], axis=1)
    tolerance = 1e4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(recorded, records, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(run.network, W, rtol=tolerance, atol=tolerance)
    assert run.network.dtype == dtype
    assert bool(run.result == jr.RESULTS.successful)


def test_without_noise_it_is_gradient_descent(float64, getkey):
    """On the population loss, by its own closed gradient; the outer weights stay."""
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2))
    W = normal(getkey(), (2, 2))
    student = jr.Shallow(jnp.asarray(W), jnp.asarray(np.ones(2)))
    still = dynamics.perturbed_gradient_descent(
        F, student, getkey(), noise=0.0, learning_rate=0.4, num_steps=20
    )
    losses = [float(F(W))]
    for _ in range(20):
        W = W - 0.4 * np.asarray(F.gradient(W))
        losses.append(float(F(W)))
    np.testing.assert_allclose(still.losses, losses, rtol=1e-12)
    np.testing.assert_allclose(still.network.inner, W, rtol=1e-12)
    assert (np.asarray(still.network.outer) == 1).all()


def test_covariance_of_the_noise(float64, getkey):
    """One step on a flat objective: equal rows, mean square one, isotropic."""
    keys = jrandom.split(getkey(), 4000)

    def jump(key):
        return dynamics.perturbed_gradient_descent(
            Bowl(jnp.zeros(())),
            jnp.zeros((3, 4)),
            key,
            learning_rate=1.0,
            noise=2.0,
            num_steps=1,
        ).network

    jumps = np.asarray(jax.vmap(jump)(keys)) / 2
    assert (jumps == jumps[:, :1]).all()
    covariance = np.cov(jumps[:, 0].T, bias=True)
    standard_error = np.sqrt(2 / len(keys)) / 4
    np.testing.assert_allclose(covariance, np.eye(4) / 4, atol=5 * standard_error)
    square = (jumps[:, 0] ** 2).sum(1)
    assert abs(square.mean() - 1) < 5 * np.sqrt(2 / 4 / len(keys))


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0, None, None))
def in_a_bowl(start, key, rate, noise):
    return dynamics.perturbed_gradient_descent(
        Bowl(jnp.ones(())), start, key, learning_rate=rate, noise=noise, num_steps=400
    ).losses


def in_the_bowl(getkey, deviation, rate, noise):
    """Twice the losses of 250 runs of 400 steps on ½|w|², 20 coordinates each."""
    starts = deviation * normal(getkey(), (250, 1, 20))
    keys = jrandom.split(getkey(), 250)
    return 2 * np.asarray(in_a_bowl(starts, keys, rate, noise))


@pytest.mark.parametrize("delta", [0.5, 0.2])
def test_stated_parameters_do_not_keep_the_promise(delta, float64, getkey):
    """E6: on ½|w|² the stationary mean square is 2, not at most delta."""
    parameters = dynamics.perturbation_parameters(delta, 1.0, 1.0, 1)
    assert parameters.learning_rate == delta**2 / 64
    assert parameters.noise == delta / 4
    rate = 0.999 * parameters.learning_rate
    predicted = float(dynamics.stationary_variance(rate, parameters.noise))
    exact = (1 - rate) ** 2 * parameters.noise**2 / (1 - (1 - rate) ** 2)
    assert predicted == pytest.approx(exact, rel=1e-12)
    assert predicted > 2 * (1 - rate) ** 2 > delta

    # as good as stationary: start from the law itself, one coordinate in 20
    scale = np.sqrt(predicted / 20)
    square = in_the_bowl(getkey, scale, rate, parameters.noise)[:, -1]
    error = square.std() / np.sqrt(len(square))
    assert abs(square.mean() - predicted) < 4 * error
    assert error < 0.1
    assert square.mean() > 1.7 > delta


def test_variance_grows_from_zero(float64, getkey):
    """From w = 0 the exact recursion, not only its fixed point."""
    rate, noise = 0.05, 0.3
    square = in_the_bowl(getkey, 0.0, rate, noise)[:, :31]
    kept = (1 - rate) ** 2
    limit = float(dynamics.stationary_variance(rate, noise))
    expected = limit * (1 - kept ** np.arange(31))
    error = square.std(0) / np.sqrt(len(square))
    assert (np.abs(square.mean(0) - expected) <= 5 * error).all()


def test_parameters_of_theorem_13():
    found = dynamics.perturbation_parameters(0.5, 0.1, 2.0, 6)
    assert found.learning_rate == pytest.approx(0.1 * 0.25 / 256)
    assert found.noise == pytest.approx(0.5 / 24)
    contraction = 1 - found.learning_rate * 0.1 * 0.25 / 64
    assert found.num_steps == pytest.approx(np.log(0.5) / np.log(contraction), rel=1e-6)
    for bad in ((0.0, 1.0, 1.0, 1), (1.0, 1.0, 1.0, 1), (0.5, -1.0, 1.0, 1)):
        with pytest.raises(ValueError, match="expected"):
            dynamics.perturbation_parameters(*bad)


def test_bad_noise_is_refused(float64):
    with pytest.raises(ValueError, match=r"noise is -0\.1"):
        dynamics.perturbed_gradient_descent(
            Bowl(jnp.ones(())),
            jnp.ones((1, 2)),
            jrandom.key(0),
            learning_rate=0.1,
            noise=-0.1,
            num_steps=1,
        )
    with pytest.raises(ValueError, match="scalar"):
        dynamics.perturbed_gradient_descent(
            Bowl(jnp.ones(())),
            jnp.ones(()),
            jrandom.key(0),
            learning_rate=0.1,
            noise=0.1,
            num_steps=1,
        )
