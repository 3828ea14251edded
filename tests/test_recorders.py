"""Recorders against direct computation at the iterates they saw."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_training import as_numpy, numpy_gradient, problem

import jaxrelu as jr
from jaxrelu import dynamics


EVERY, STEPS, RATE = 4, 10, 0.2


class Iterate(eqx.Module):
    """The trained leaves themselves: what the other recorders are checked on."""

    def __call__(self, now):
        return now.network.inner


RECORDERS = {
    "iterate": Iterate(),
    "residual": dynamics.ResidualNorm(),
    "gradient": dynamics.GradientNorm(),
    "neuron": dynamics.NeuronDistance(),
    "pl": dynamics.PolyakLojasiewicz(minimum=0.1),
    "flips": dynamics.ActivationFlips(),
    "jacobian": dynamics.JacobianSpectrum(),
    "aligned": dynamics.ResidualAlignment(rank=2),
    "follows": dynamics.ResidualAlignment(rank=2, follow=True),
    "sharpness": dynamics.Sharpness(tolerance=1e-6),
    "own": lambda now: {"twice": 2 * now.step, "start": now.start_network.outer},
}


@pytest.fixture(scope="module", params=["float32", "float64"])
def recorded(request):
    with jax.enable_x64(request.param == "float64"):
        dtype = jnp.dtype(request.param)
        loss, network = problem(dtype)
        run = jr.gradient_descent(
            loss,
            network,
            learning_rate=RATE,
            num_steps=STEPS,
            record_every=EVERY,
            recorders=RECORDERS,
        )
        yield loss, network, run, 2e4 * float(jnp.finfo(dtype).eps)


def numpy_jacobian(X, W, v):
    slope = 1 / (1 + np.exp(-X @ W.T))
    return (slope[:, :, None] * v[:, None] * X[:, None, :]).reshape(len(X), -1)


def top_space(J, rank):
    return np.linalg.eigh(J @ J.T)[1][:, -rank:]


def numpy_hessian(X, y, W, v):
    """Gauss-Newton part and the curvature of softplus, neuron by neuron."""
    slope = 1 / (1 + np.exp(-X @ W.T))
    r = np.log1p(np.exp(X @ W.T)) @ v - y
    J = numpy_jacobian(X, W, v)
    H = J.T @ J
    k, d = W.shape
    for l in range(k):
        weight = r * v[l] * slope[:, l] * (1 - slope[:, l])
        H[l * d : (l + 1) * d, l * d : (l + 1) * d] += (X.T * weight) @ X
    return H


def test_everything_is_what_it_says(recorded):
    loss, network, run, tolerance = recorded
    X, y, W0, v = as_numpy(loss, network)
    seen = run.records
    assert run.steps.tolist() == [0, 4, 8, 10]
    J0 = numpy_jacobian(X, W0, v)
    space = top_space(J0, 2)
    expected = []
    for W in np.asarray(seen["iterate"], np.float64):
        value, gradient = numpy_gradient(X, y, W, v)
        r = np.logaddexp(0, X @ W.T) @ v - y
        J = numpy_jacobian(X, W, v)
        sigma = np.linalg.svd(J, compute_uv=False)
        now = top_space(J, 2)
        flips = (X @ W.T > 0) != (X @ W0.T > 0)
        expected.append(
            {
                "losses": value,
                "distances": np.linalg.norm(W - W0),
                "residual": np.linalg.norm(r),
                "gradient": np.linalg.norm(gradient),
                "neuron": np.linalg.norm(W - W0, axis=1).max(),
                "pl": (gradient**2).sum() / 2 / (value - 0.1),
                "fraction": flips.mean(),
                "most": flips.sum(1).max(),
                "largest": sigma[0],
                "aligned": ((space.T @ r) ** 2).sum() / (r @ r),
                "follows": ((now.T @ r) ** 2).sum() / (r @ r),
                "sharpness": np.linalg.eigvalsh(numpy_hessian(X, y, W, v))[-1],
            }
        )
        expected[-1]["smallest"] = sigma[-1]
    table = {name: np.array([row[name] for row in expected]) for name in expected[0]}
    found = {
        "losses": run.losses,
        "distances": run.distances,
        "residual": seen["residual"],
        "gradient": seen["gradient"],
        "neuron": seen["neuron"],
        "pl": seen["pl"],
        "fraction": seen["flips"].fraction,
        "most": seen["flips"].most,
        "largest": seen["jacobian"].largest,
        "aligned": seen["aligned"],
        "follows": seen["follows"],
        "sharpness": seen["sharpness"].value,
    }
    for name, values in found.items():
        np.testing.assert_allclose(
            values, table[name], rtol=tolerance, atol=tolerance, err_msg=name
        )
    off = np.abs(np.asarray(seen["jacobian"].smallest) - table["smallest"])
    assert (off <= np.asarray(seen["jacobian"].error)).all()
    assert table["most"].max() > 0
    assert (np.asarray(seen["sharpness"].error) < 1e-4).all()
    assert seen["own"]["twice"].tolist() == [0, 8, 16, 20]
    assert (np.asarray(seen["own"]["start"]) == np.asarray(network.outer)).all()
    assert seen["jacobian"].smallest.dtype == run.losses.dtype


def test_norms_have_derivatives_from_the_start(float64):
    """Also at the first record, where nothing has moved: by rate and start at once."""
    loss, network = problem(float64)
    recorders = {
        "neuron": dynamics.NeuronDistance(),
        "residual": dynamics.ResidualNorm(),
        "gradient": dynamics.GradientNorm(),
    }

    def total(rate):
        inner = network.inner * (rate / RATE)
        start = eqx.tree_at(lambda net: net.inner, network, inner)
        run = jr.gradient_descent(
            loss, start, learning_rate=rate, num_steps=4, recorders=recorders
        )
        return sum(jnp.sum(seen) for seen in run.records.values())

    both, h = jax.jit(jax.value_and_grad(total)), 1e-6
    low, high = (float(both(rate)[0]) for rate in (RATE - h, RATE + h))
    slope = (high - low) / (2 * h)
    assert float(both(RATE)[1]) == pytest.approx(slope, rel=1e-7)


def test_sharpness_of_a_population_loss(float64, getkey):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2, 3))
    student = jr.Shallow(jax.random.normal(getkey(), (2, 3)), jnp.ones(2))
    run = jr.gradient_descent(
        F,
        student,
        learning_rate=0.1,
        num_steps=1,
        recorders={"sharpness": dynamics.Sharpness()},
    )
    exact = np.linalg.eigvalsh(jr.hessian(F, run.network).as_matrix())[-1]
    assert float(run.records["sharpness"].value[-1]) == pytest.approx(exact, rel=1e-6)


def test_recorders_refuse_what_they_cannot_see(float64):
    F = jr.PopulationLoss(jr.Shallow.orthonormal(2, 3))
    arguments = {"learning_rate": 0.1, "num_steps": 1}
    for recorder, words in (
        (dynamics.ResidualNorm(), "no residual"),
        (dynamics.ActivationFlips(), "has no data"),
        (dynamics.JacobianSpectrum(), "has no data"),
        (dynamics.ResidualAlignment(), "has no data"),
    ):
        with pytest.raises(TypeError, match=words):
            jr.gradient_descent(F, F.teacher, recorders={"bad": recorder}, **arguments)
    loss, network = problem(float64)
    with pytest.raises(ValueError, match="rank is 8 and there are 7 outputs"):
        jr.gradient_descent(
            loss, network, recorders={"bad": dynamics.ResidualAlignment(8)}, **arguments
        )
    with pytest.raises(ValueError, match="rank is 0"):
        dynamics.ResidualAlignment(0)
