"""Objectives and gradient descent against closed forms and a plain loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import inputs, networks

import jaxrelu as jr


def problem(dtype, name="softplus"):
    network, _ = networks(dtype)[name]
    x = inputs(dtype)
    y = jnp.asarray(np.where(np.arange(len(x)) % 2, 1.0, -1.0), dtype)
    return jr.SquaredLoss(jr.data.Dataset(x, y)), network


def test_loss_is_half_the_sum_of_squares(dtype):
    loss, network = problem(dtype)
    residual = np.asarray(network(loss.data.inputs)) - np.asarray(loss.data.targets)
    assert float(loss(network)) == pytest.approx(0.5 * (residual**2).sum(), rel=1e-6)
    np.testing.assert_allclose(loss.residual(network), residual, rtol=1e-6)


def test_gradient_is_the_jacobian_transposed_times_the_residual(float64):
    loss, network = problem(float64)
    gradient = eqx.filter_grad(loss)(network).inner
    J = jr.jacobian(network, loss.data.inputs)
    np.testing.assert_allclose(
        gradient.reshape(-1), J.rmv(loss.residual(network)), rtol=1e-12
    )


def test_descent_is_the_plain_loop(dtype):
    loss, network = problem(dtype)
    run = jr.gradient_descent(loss, network, learning_rate=0.05, num_steps=12)
    evaluate = eqx.filter_jit(eqx.filter_value_and_grad(loss))
    start, path = np.asarray(network.inner), 0.0
    W, records = start, []
    for _ in range(13):
        net = eqx.tree_at(lambda net: net.inner, network, jnp.asarray(W))
        value, slope = evaluate(net)
        records.append((float(value), np.linalg.norm(W - start), path))
        step = dtype.type(0.05) * np.asarray(slope.inner)
        W = W - step
        path += np.linalg.norm(step)
    tolerance = 1e4 * float(jnp.finfo(dtype).eps)
    recorded = np.stack([run.losses, run.distances, run.path_lengths], axis=1)
    np.testing.assert_allclose(recorded, records, rtol=tolerance, atol=tolerance)
    assert float(loss(run.network)) == pytest.approx(float(run.losses[-1]), rel=1e-6)
    assert (run.network.outer == network.outer).all()
    assert bool(run.result == jr.RESULTS.successful)


def test_linear_least_squares_contracts_mode_by_mode(float64):
    """Training the outer layer is linear: r_t = (I - eta Phi Phi^T)^t r_0 exactly."""
    loss, network = problem(float64)
    where = lambda net: net.outer
    G = np.asarray(jr.jacobian(network, loss.data.inputs, where).gram())
    eigenvalues, vectors = np.linalg.eigh(G)
    eta = 1 / eigenvalues[-1]
    run = jr.gradient_descent(
        loss, network, learning_rate=eta, num_steps=50, where=where
    )
    start = vectors.T @ np.asarray(loss.residual(network))
    for t in (0, 1, 7, 50):
        residual = (1 - eta * eigenvalues) ** t * start
        assert float(run.losses[t]) == pytest.approx(0.5 * (residual**2).sum())


def test_many_runs_at_once(float64):
    loss, network = problem(float64)
    rates = jnp.asarray([0.01, 0.05, 0.1])
    runs = eqx.filter_vmap(
        lambda rate: jr.gradient_descent(loss, network, learning_rate=rate, num_steps=5)
    )(rates)
    single = jr.gradient_descent(loss, network, learning_rate=0.05, num_steps=12)
    np.testing.assert_allclose(runs.losses[1], single.losses[:6], rtol=1e-12)


def test_divergence_is_reported_not_hidden(dtype):
    loss, network = problem(dtype, "relu")
    run = jr.gradient_descent(loss, network, learning_rate=1e30, num_steps=20)
    assert bool(run.result == jr.RESULTS.diverged)
    assert "step size" in jr.RESULTS[run.result]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_step_sizes_are_refused(rate, float64):
    loss, network = problem(float64)
    with pytest.raises(ValueError, match="learning_rate"):
        jr.gradient_descent(loss, network, learning_rate=rate, num_steps=1)


def test_no_steps_and_misfitting_targets_are_refused(float64):
    loss, network = problem(float64)
    with pytest.raises(ValueError, match="num_steps is 0"):
        jr.gradient_descent(loss, network, learning_rate=0.1, num_steps=0)
    vector, _ = networks(float64)["relu, three outputs"]
    with pytest.raises(ValueError, match=r"\(7, 3\) and the targets \(7,\)"):
        loss(vector)


def test_objectives_take_any_module(float64):
    loss, _ = problem(float64)

    class Sum(eqx.Module):
        weight: jax.Array

        def __call__(self, x):
            return self.weight * jnp.sum(x)

    weight = jnp.asarray(2.0)
    x, y = np.asarray(loss.data.inputs), np.asarray(loss.data.targets)
    expected = 2.0 * x.sum(1) - y
    np.testing.assert_allclose(loss.residual(Sum(weight)), expected, rtol=1e-14)
