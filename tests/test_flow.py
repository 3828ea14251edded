"""Gradient flow against the matrix exponential, and descent with small steps."""

import builtins

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from test_training import problem

import jaxrelu as jr
from jaxrelu import dynamics


def test_linear_model_is_a_matrix_exponential(dtype):
    r"""Training v alone: r(t) = exp(-t Phi Phi^T) r(0), distance and path by modes."""
    loss, network = problem(dtype)
    times = np.array([0.0, 0.3, 1.0, 4.0])
    flow = dynamics.gradient_flow(
        loss,
        network,
        jnp.asarray(times, dtype),
        where=lambda net: net.outer,
        recorders={"residual": dynamics.ResidualNorm(), "time": lambda now: now.step},
    )
    X = np.asarray(loss.data.inputs, np.float64)
    features = np.logaddexp(0, X @ np.asarray(network.inner, np.float64).T)
    v = np.asarray(network.outer, np.float64)
    start = features @ v - np.asarray(loss.data.targets, np.float64)
    values, vectors = np.linalg.eigh(features.T @ features)
    pull = vectors.T @ (features.T @ start)
    tolerance = 1e-6 if dtype == np.float64 else 3e-3

    def moved(t):
        return vectors @ (np.expm1(-values * t) / values * pull)

    for i, t in enumerate(times):
        residual = start + features @ moved(t)
        assert float(flow.losses[i]) == pytest.approx(
            0.5 * residual @ residual, rel=tolerance
        )
        assert float(flow.records["residual"][i]) == pytest.approx(
            np.linalg.norm(residual), rel=tolerance
        )
        assert float(flow.distances[i]) == pytest.approx(
            np.linalg.norm(moved(t)), rel=tolerance, abs=tolerance
        )
        fine = np.linspace(0, t, 40001)
        speed = np.linalg.norm(np.exp(-np.outer(fine, values)) * pull, axis=1)
        assert float(flow.path_lengths[i]) == pytest.approx(
            np.trapezoid(speed, fine), rel=tolerance, abs=tolerance
        )
    np.testing.assert_allclose(
        flow.network.outer, v + moved(4.0), rtol=tolerance, atol=tolerance
    )
    np.testing.assert_allclose(flow.records["time"], times, rtol=1e-6)
    assert flow.losses.dtype == dtype
    assert (np.asarray(flow.network.inner) == np.asarray(network.inner)).all()
    assert bool(flow.result == jr.RESULTS.successful)
    assert int(flow.reached) == 4


def test_population_loss_and_too_few_solver_steps(float64):
    """Against SciPy's solver; one that gives up says so and holds no NaN."""
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2))
    student = jr.Shallow(jnp.asarray([[1.0, 0.4], [-0.3, 0.8]]), jnp.ones(2))
    # an explicit solver needs about as many steps as its time is long
    flow, short = (
        dynamics.gradient_flow(F, student, jnp.asarray([1.0, end]), max_steps=1000)
        for end in (2.0, 1e9)
    )
    solved = scipy.integrate.solve_ivp(
        lambda _, w: -np.asarray(F.gradient(w.reshape(2, 2))).ravel(),
        (0.0, 2.0),
        np.asarray(student.inner).ravel(),
        t_eval=[1.0, 2.0],
        rtol=1e-10,
        atol=1e-12,
    )
    for loss, w in zip(flow.losses, solved.y.T, strict=True):
        assert float(loss) == pytest.approx(float(F(w.reshape(2, 2))), abs=1e-7)
    end = solved.y[:, -1].reshape(2, 2)
    np.testing.assert_allclose(flow.network.inner, end, rtol=0, atol=1e-6)
    assert bool(short.result == jr.RESULTS.no_convergence)
    assert int(short.reached) == 1
    assert float(short.losses[0]) == pytest.approx(float(flow.losses[0]))
    assert np.isfinite(jnp.concatenate([short.losses, short.distances])).all()
    assert np.isfinite(short.network.inner).all()


@pytest.mark.parametrize(
    "times", [[], [1.0, 1.0], [-1.0, 1.0], [0.0], [1.0, float("nan")], [[1.0]]]
)
def test_bad_times_are_refused(times, float64):
    loss, network = problem(float64)
    with pytest.raises(ValueError, match="times is"):
        dynamics.gradient_flow(loss, network, times)


def test_without_diffrax_the_extra_is_named(float64, monkeypatch):
    loss, network = problem(float64)
    real = builtins.__import__

    def absent(name, *rest, **more):
        if name == "diffrax":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"jaxrelu\[flow\]"):
        dynamics.gradient_flow(loss, network, jnp.ones(1))
