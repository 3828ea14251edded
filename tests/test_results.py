"""Results: what they carry, and how a failure reaches the host."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from jaxrelu import RESULTS, Estimate
from jaxrelu._results import throw_if_failed


def codes(failures):
    def one(failed):
        return RESULTS.where(failed, RESULTS.unresolved, RESULTS.successful)

    return jax.vmap(one)(jnp.asarray(failures))


def test_success_passes():
    throw_if_failed(RESULTS.successful, "spectrum")
    throw_if_failed(codes([False, False]), "spectrum")


def test_a_failure_is_named():
    with pytest.raises(RuntimeError, match=r"^spectrum: The iterates grew"):
        throw_if_failed(RESULTS.diverged, "spectrum")


def test_failures_in_a_batch_are_counted():
    with pytest.raises(RuntimeError, match=r"^spectrum \(2 of 3 cases\): The error"):
        throw_if_failed(codes([False, True, True]), "spectrum")


def test_traced_failures_stay_data():
    @jax.jit
    def compute(failed):
        result = RESULTS.where(failed, RESULTS.unresolved, RESULTS.successful)
        throw_if_failed(result, "spectrum")
        return result

    assert bool(compute(True) == RESULTS.unresolved)


def test_estimate_prints_value_error_and_kind(dtype):
    value = jnp.asarray(1.5, dtype)
    error = jnp.asarray(0.25, dtype)
    result = RESULTS.successful
    estimate = Estimate(value, error, result, "standard error", "a mean")
    assert float(estimate) == 1.5
    assert str(estimate) == "1.5 ± 2.5e-01 (standard error; a mean)"
    assert eqx.tree_equal(jax.tree.map(lambda leaf: leaf, estimate), estimate)


def test_unknown_error_kind_is_refused():
    # a TypeError where the run-time type checks see the argument first
    with pytest.raises((ValueError, TypeError), match="about right"):
        Estimate(jnp.ones(()), jnp.ones(()), RESULTS.successful, "about right", "")
