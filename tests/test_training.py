"""Training runs against plain NumPy loops; stopping, divergence, refusals."""

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import optax
import pytest
from _draws import normal

import jaxrelu as jr
from jaxrelu import dynamics


def problem(dtype, n=7, d=4, k=6):
    generator = np.random.default_rng(3)
    X = generator.normal(size=(n, d)) / 2
    y = np.where(np.arange(n) % 2, 1.0, -1.0)
    W, v = generator.normal(size=(k, d)), generator.normal(size=k) / k**0.5
    data = jr.data.Dataset(jnp.asarray(X, dtype), jnp.asarray(y, dtype))
    network = jr.Shallow(jnp.asarray(W, dtype), jnp.asarray(v, dtype), "softplus")
    return jr.SquaredLoss(data), network


def as_numpy(loss, network):
    parts = (loss.data.inputs, loss.data.targets, network.inner, network.outer)
    return [np.asarray(part, np.float64) for part in parts]


def numpy_gradient(X, y, W, v, rows=slice(None)):
    """Loss and gradient of half the squared residuals, by hand."""
    z = X[rows] @ W.T
    r = np.log1p(np.exp(z)) @ v - y[rows]
    slope = 1 / (1 + np.exp(-z))
    return 0.5 * r @ r, ((r[:, None] * slope) * v).T @ X[rows]


def numpy_descent(loss, network, rate, choose, steps):
    """(losses over all data, W) of a loop that takes the rows ``choose(t)``."""
    X, y, W, v = as_numpy(loss, network)
    losses = [numpy_gradient(X, y, W, v)[0]]
    for t in range(steps):
        W = W - rate * numpy_gradient(X, y, W, v, choose(t))[1]
        losses.append(numpy_gradient(X, y, W, v)[0])
    return np.array(losses), W


@pytest.mark.parametrize(
    ("every", "dtype"),
    [(1, "float64"), (3, "float32"), (50, "float32")],
    indirect=["dtype"],
)
def test_records_are_those_of_the_loop(every, dtype):
    """Every k steps and the last one, whether or not k divides the number of steps."""
    loss, network = problem(dtype)
    run = jr.gradient_descent(
        loss, network, learning_rate=0.1, num_steps=47, record_every=every
    )
    losses, W = numpy_descent(loss, network, 0.1, lambda t: slice(None), 47)
    expected = sorted({*range(0, 47, every), 47})
    assert run.steps.tolist() == expected
    tolerance = 1e4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(run.losses, losses[expected], rtol=tolerance)
    np.testing.assert_allclose(run.network.inner, W, rtol=tolerance, atol=tolerance)
    assert run.losses.dtype == run.path_lengths.dtype == dtype
    assert (int(run.num_steps), int(run.diverged_at)) == (47, -1)


@pytest.mark.parametrize("every", [1, 5, 80])
def test_runs_stop_where_the_loop_says(every, float64):
    """At the first loss below the target; what follows repeats; no run waits."""
    loss, network = problem(float64)
    rates = jnp.asarray([0.02, 0.1, 0.3])
    goal = 3.0

    @eqx.filter_jit
    def runs(target):
        return jax.vmap(
            lambda rate: jr.gradient_descent(
                loss,
                network,
                learning_rate=rate,
                num_steps=200,
                record_every=every,
                target_loss=target,
            )
        )(rates)

    found, far = runs(jnp.asarray(goal)), runs(jnp.asarray(1e-9))
    host = jax.tree.map(np.asarray, eqx.filter(found, eqx.is_array))
    X, y, _, v = as_numpy(loss, network)
    for i, rate in enumerate(rates.tolist()):
        losses, _ = numpy_descent(loss, network, rate, lambda t: slice(None), 200)
        stop = int(np.argmax(losses <= goal))
        assert losses[stop] <= goal
        assert stop > 3
        assert host.num_steps[i] == stop
        expected = np.minimum(sorted({*range(0, 200, every), 200}), stop)
        assert host.steps[i].tolist() == expected.tolist()
        np.testing.assert_allclose(host.losses[i], losses[expected], rtol=1e-10)
        end = numpy_gradient(X, y, host.network.inner[i], v)[0]
        assert end == pytest.approx(losses[stop])
    assert bool((found.result == jr.RESULTS.successful).all())
    assert bool((far.result == jr.RESULTS.no_convergence).all())
    assert far.num_steps.tolist() == [200, 200, 200]


def test_gradient_tolerance(float64):
    loss, network = problem(float64)
    run = jr.gradient_descent(
        loss, network, learning_rate=0.2, num_steps=400, gradient_tolerance=0.3
    )
    X, y, W, v = as_numpy(loss, run.network)
    assert np.linalg.norm(numpy_gradient(X, y, W, v)[1]) <= 0.3
    stop = int(run.num_steps)
    assert 0 < stop < 400
    _, before = numpy_descent(loss, network, 0.2, lambda t: slice(None), stop - 1)
    assert np.linalg.norm(numpy_gradient(X, y, before, v)[1]) > 0.3


class Quartic(eqx.Module):
    """Sum of fourth powers, times a scale: descent with a large step explodes."""

    scale: jax.Array

    def __call__(self, weights):
        return self.scale * jnp.sum(weights**4)


@pytest.mark.parametrize(
    ("target", "every", "dtype"),
    [(None, 1, "float32"), (1e-9, 7, "float64")],
    indirect=["dtype"],
)
def test_divergence_has_a_step_and_no_nan(target, every, dtype):
    """The same step whether it is found at a record or between two."""
    rates = [0.1, 0.6, 4.0, 1e30]
    runs = jax.vmap(
        lambda rate: jr.gradient_descent(
            Quartic(jnp.ones((), dtype)),
            jnp.ones(3, dtype),
            learning_rate=rate,
            num_steps=40,
            record_every=every,
            target_loss=target,
        )
    )(jnp.asarray(rates, dtype))
    for leaf in jax.tree.leaves(eqx.filter(runs, eqx.is_inexact_array)):
        assert np.isfinite(leaf).all()
    diverged = np.asarray(runs.result == jr.RESULTS.diverged)
    steps, num_steps, diverged_at, losses, ends = map(
        np.asarray,
        (runs.steps, runs.num_steps, runs.diverged_at, runs.losses, runs.network),
    )
    for i, rate in enumerate(rates):
        w, first = np.ones(3, dtype), -1
        with np.errstate(over="ignore", invalid="ignore"):
            for t in range(40):
                step = dtype.type(rate) * 4 * w**3
                if not np.isfinite((w**4).sum() + (step**2).sum()):
                    first = t + bool(np.isfinite((w**4).sum()))
                    break
                w = w - step
        assert diverged_at[i] == first
        assert bool(diverged[i]) == (first >= 0)
        if first >= 0:
            assert num_steps[i] == first - 1
            assert steps[i].max() == first - 1
            end = float((ends[i] ** 4).sum())
            assert float(losses[i, -1]) == pytest.approx(end, rel=1e-5)
    assert diverged_at[1] > 2


def test_a_start_that_is_not_finite_is_reported(float64):
    run = jr.gradient_descent(
        Quartic(jnp.asarray(jnp.inf)), jnp.ones(2), learning_rate=0.1, num_steps=3
    )
    assert int(run.diverged_at) == int(run.num_steps) == 0
    assert bool(run.result == jr.RESULTS.diverged)


def indices(key, n, batch, replace, steps):
    """The sampling that `sgd` documents, outside of any loop."""
    if replace:
        draw = lambda t: jrandom.randint(
            jrandom.fold_in(key, t), (batch,), 0, n, jnp.int32
        )
        return [np.asarray(draw(t)) for t in range(steps)]
    epochs = [
        np.asarray(jrandom.permutation(jrandom.fold_in(key, e), n))
        for e in range(-(-steps // (n // batch)))
    ]
    each = n // batch
    return [
        epochs[t // each][(t % each) * batch : (t % each + 1) * batch]
        for t in range(steps)
    ]


@pytest.mark.parametrize(
    ("batch", "replace", "dtype"),
    [
        (1, True, "float64"),
        (3, True, "float32"),
        (3, False, "float64"),
    ],
    indirect=["dtype"],
)
def test_sgd_is_the_plain_loop(batch, replace, dtype, getkey):
    loss, network = problem(dtype)
    key = getkey()
    run = dynamics.sgd(
        loss,
        network,
        key,
        learning_rate=0.1,
        num_steps=11,
        batch_size=batch,
        replace=replace,
        record_every=4,
    )
    rows = indices(key, 7, batch, replace, 11)
    losses, W = numpy_descent(loss, network, 0.1, lambda t: rows[t], 11)
    tolerance = 1e4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(run.losses, losses[[0, 4, 8, 11]], rtol=tolerance)
    np.testing.assert_allclose(run.network.inner, W, rtol=tolerance, atol=tolerance)
    assert run.network.inner.dtype == dtype
    if not replace:  # each epoch shows 2 batches of 3 different samples
        for first, second in zip(rows[::2], rows[1::2], strict=False):
            assert len({*first.tolist(), *second.tolist()}) == 6


def test_sgd_draws_uniformly_and_its_mean_step_is_the_gradient(float64, getkey):
    """The paper's sampling: n times the mean step of one sample is that of descent."""
    loss, network = problem(float64)
    step = jax.vmap(
        lambda key: (
            dynamics.sgd(
                loss, network, key, learning_rate=1.0, num_steps=1
            ).network.inner
        )
    )
    ends = np.asarray(step(jrandom.split(getkey(), 3000)))
    moves = ends - np.asarray(network.inner)
    X, y, W, v = as_numpy(loss, network)
    each = np.stack([-numpy_gradient(X, y, W, v, slice(i, i + 1))[1] for i in range(7)])
    which = np.argmin(((moves[:, None] - each) ** 2).sum((2, 3)), axis=1)
    np.testing.assert_allclose(moves, each[which], atol=1e-12)
    counts = np.bincount(which, minlength=7)
    chi_square = ((counts - 3000 / 7) ** 2 / (3000 / 7)).sum()
    assert chi_square < 22.5  # 6 degrees of freedom, probability 0.001
    np.testing.assert_allclose(each.sum(0), -numpy_gradient(X, y, W, v)[1], atol=1e-12)


def test_a_whole_batch_is_gradient_descent(float64, getkey):
    loss, network = problem(float64)
    arguments = {"learning_rate": 0.1, "num_steps": 40, "record_every": 40}
    whole = dynamics.sgd(
        loss,
        network,
        getkey(),
        batch_size=7,
        replace=False,
        target_loss=9.0,
        **arguments,
    )
    assert int(whole.num_steps) == 0  # the first record is already good enough
    whole = dynamics.sgd(
        loss,
        network,
        getkey(),
        batch_size=7,
        replace=False,
        target_loss=1e-9,
        **arguments,
    )
    assert int(whole.num_steps) == 40
    _, plain = numpy_descent(loss, network, 0.1, lambda t: slice(None), 40)
    np.testing.assert_allclose(whole.network.inner, plain, rtol=1e-10)


def test_any_optimiser(float64):
    """Momentum by hand; L-BFGS, which asks for the loss, solves a linear problem."""
    loss, network = problem(float64)
    momentum = lambda rate: optax.sgd(rate, momentum=0.9)
    run = dynamics.train(loss, network, momentum, learning_rate=0.05, num_steps=9)
    X, y, W, v = as_numpy(loss, network)
    speed = 0.0
    for _ in range(9):
        speed = 0.9 * speed + numpy_gradient(X, y, W, v)[1]
        W = W - 0.05 * speed
    np.testing.assert_allclose(run.network.inner, W, rtol=1e-10)
    outer = dynamics.train(
        loss,
        network,
        optax.lbfgs(),
        num_steps=60,
        where=lambda net: net.outer,
        gradient_tolerance=1e-8,
    )
    features = np.logaddexp(0, X @ np.asarray(network.inner).T)
    best = np.linalg.lstsq(features, y, rcond=None)
    assert float(outer.losses[-1]) == pytest.approx(0.5 * best[1][0], rel=1e-9)
    assert bool(outer.result == jr.RESULTS.successful)
    assert outer.learning_rate is None
    assert int(outer.num_steps) < 60


def test_one_program_for_all_tolerances_and_step_sizes(float64):
    loss, network = problem(float64)

    @chex.assert_max_traces(n=1)
    def squared(residual):
        return 0.5 * (residual**2).sum()

    class Counted(eqx.Module):
        loss: jr.SquaredLoss

        def __call__(self, net):
            return squared(self.loss.residual(net))

    for rate, target in ((0.1, 1.0), (0.2, 0.5), (0.3, 2.0)):
        dynamics.train(
            Counted(loss),
            network,
            optax.adam,
            learning_rate=rate,
            num_steps=40,
            record_every=40,
            target_loss=target,
        )


def test_the_step_size_can_be_differentiated(float64):
    loss, network = problem(float64)

    def end(rate):
        run = jr.gradient_descent(loss, network, learning_rate=rate, num_steps=5)
        return run.losses[-1] + run.path_lengths[-1]

    both = jax.jit(jax.value_and_grad(end))
    (_, slope), (high, _), (low, _) = map(both, (0.1, 0.1 + 1e-5, 0.1 - 1e-5))
    difference = (float(high) - float(low)) / 2e-5
    assert float(slope) == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"num_steps": 0}, ValueError, "num_steps is 0"),
        ({"record_every": 0}, ValueError, "record_every is 0"),
        ({"batch_size": 8}, ValueError, "batch_size is 8 and there are 7"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"target_loss": -1.0}, ValueError, "target_loss is -1"),
        ({"target_loss": float("nan")}, ValueError, "target_loss is nan"),
        ({"target_loss": np.zeros(2)}, ValueError, "shape .2,.; expected one number"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate is 0"),
        ({"learning_rate": np.ones(2)}, ValueError, "shape"),
    ],
)
def test_bad_input(arguments, error, words, float64, getkey):
    loss, network = problem(float64)
    with pytest.raises(error, match=words):
        dynamics.sgd(
            loss,
            network,
            getkey(),
            **{"learning_rate": 0.1, "num_steps": 1, **arguments},
        )


def test_bad_objectives_and_optimisers(float64, getkey):
    loss, network = problem(float64)
    with pytest.raises(TypeError, match="expected a SquaredLoss"):
        dynamics.sgd(
            Quartic(jnp.ones(())), network, getkey(), learning_rate=0.1, num_steps=1
        )
    with pytest.raises(TypeError, match="has its own"):
        dynamics.train(loss, network, optax.adam(0.1), learning_rate=0.1, num_steps=1)
    with pytest.raises(TypeError, match="learning_rate is missing"):
        dynamics.train(loss, network, optax.adam, num_steps=1)
    with pytest.raises(TypeError, match=r"expected an optax.GradientTransformation"):
        dynamics.train(loss, network, "adam", num_steps=1)


def test_records_that_do_not_fit_are_refused(float64, monkeypatch):
    loss, network = problem(float64)
    monkeypatch.setenv("JAXRELU_MEMORY_LIMIT", "10000")
    with pytest.raises(jr.MemoryRefusedError, match="larger record_every"):
        jr.gradient_descent(loss, network, learning_rate=0.1, num_steps=1001)


def test_objectives_and_networks_of_others(float64, getkey):
    """A plain function; a network with a function among its leaves."""
    points = normal(getkey(), (4, 3), float64)
    mlp = eqx.filter_jit(eqx.nn.MLP)(3, "scalar", 5, 1, key=getkey(), dtype=float64)

    def loss(network):
        return 0.5 * jnp.sum(jax.vmap(network)(points) ** 2)

    run = jr.gradient_descent(
        loss, mlp, learning_rate=0.01, num_steps=3, record_every=2
    )
    trained, rest = eqx.partition(mlp, eqx.is_inexact_array)
    slope = jax.jit(jax.value_and_grad(lambda w: loss(eqx.combine(w, rest))))
    for _ in range(3):
        by_hand = lambda w, g: np.asarray(w) - 0.01 * np.asarray(g)
        trained = jax.tree.map(by_hand, trained, slope(trained)[1])
    np.testing.assert_array_equal(run.steps, [0, 2, 3])
    np.testing.assert_allclose(run.losses[-1], slope(trained)[0])
