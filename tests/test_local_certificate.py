"""Certificates of convergence against the runs that they speak of."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _draws import normal
from _minimizer_cases import deficient, lin2, nl2
from jax.flatten_util import ravel_pytree

import jaxrelu as jr
from jaxrelu import landscape as ls


def flatten(network):
    trained, rest = eqx.partition(network, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(trained)
    return flat, lambda w: eqx.combine(unravel(w), rest)


@pytest.mark.parametrize("instance", [lin2, nl2])
def test_certified_runs_do_what_was_promised(float64, getkey, instance):
    """200 starts at distances of 1e-3 to 1: stay, contract, end near enough."""
    loss, network = instance(float64)
    flat, build = flatten(network)
    count, num_steps = 200, 150
    size = np.logspace(-3, 0, count)[:, None]
    starts = np.asarray(flat) + size * normal(getkey(), (count, flat.size)) / 3

    def run(start):
        proof = ls.local_certificate(loss, build(start))
        gap = lambda w: ls.minimum_gap(loss, build(w))

        def step(w, _):
            after = w - proof.step * jax.grad(gap)(w)
            return after, (gap(after), jnp.linalg.norm(after - start))

        last, (gaps, away) = jax.lax.scan(step, start, length=num_steps)
        top = jnp.linalg.norm(jax.hessian(gap)(start), 2)
        return proof, gaps, away, jnp.linalg.norm(last - start), top

    proof, gaps, away, total, top = jax.jit(jax.vmap(run))(starts)
    sure = np.asarray(proof.certified)
    assert 20 < sure.sum() < 190
    np.testing.assert_array_equal(sure, np.asarray(proof.margin) >= 1)
    factor, gap = np.asarray(proof.factor), np.asarray(proof.gap)
    power = factor[:, None] ** np.arange(1, num_steps + 1) * gap[:, None]
    assert (np.asarray(gaps) <= power * (1 + 1e-9) + 1e-28)[sure].all()
    assert (np.asarray(away).max(1) <= np.asarray(proof.length))[sure].all()
    assert (np.asarray(proof.length) <= np.asarray(proof.radius))[sure].all()
    assert (np.asarray(top) <= np.asarray(proof.smoothness))[sure].all()
    np.testing.assert_allclose(
        factor[sure], 1 - np.asarray(proof.mu / proof.smoothness)[sure], rtol=1e-12
    )
    assert (np.asarray(total)[sure] > 0.02 * np.asarray(proof.length)[sure]).any()
    # the closer, the surer
    assert sure[:20].all()
    if instance is nl2:
        near = float(ls.sign_radius(network, loss.data.inputs))
        assert (np.asarray(proof.radius)[sure] < 2 * near).all()


def regular(dtype):
    """Near a minimiser with regular layers."""
    eye, targets = (jnp.asarray(np.eye(2) + x, dtype) for x in (0, 0.01))
    loss = jr.SquaredLoss(jr.data.Dataset(eye, targets))
    return loss, jr.LinearNetwork((eye, eye))


def test_points_without_a_certificate(dtype):
    """The saddle at 0, a minimiser with two singular layers, regular ones."""
    loss, network = deficient(dtype)
    for scale, added in ((0, 0), (1, 1e-3)):
        weights = (
            scale * np.asarray(w) + added * np.eye(2, dtype=dtype)
            for w in network.weights
        )
        point = jr.LinearNetwork(tuple(jnp.asarray(w, dtype) for w in weights))
        proof = ls.local_certificate(loss, point)
        assert not bool(proof.certified)
        assert proof.radius.dtype == dtype
    loss, easy = regular(dtype)
    assert bool(ls.local_certificate(loss, easy).certified)


def test_a_step_that_is_too_long_is_not_certified(float64):
    loss, easy = regular(float64)
    long = ls.local_certificate(loss, easy, step=2.0)
    assert not bool(long.certified)
    short = ls.local_certificate(loss, easy, step=0.1)
    assert bool(short.certified)
    assert float(short.step) == pytest.approx(0.1)


def test_certificates_of_other_networks_are_refused(float64):
    loss, network = lin2(float64)
    deep = jr.DenseNetwork((jnp.eye(2), jnp.eye(2)), None)
    narrow = jr.LinearNetwork((jnp.ones((1, 2)), jnp.ones((2, 1))))
    for refused in (deep, narrow):
        with pytest.raises(TypeError, match="no certificate"):
            ls.local_certificate(loss, refused)
    with pytest.raises(TypeError, match="no certificate"):
        ls.local_certificate(lambda n: 0.0, network)
