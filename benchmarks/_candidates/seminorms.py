"""Ways to the W^{1,inf} semi-norm of a shallow ReLU network, largest entry."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxrelu as jr
from jaxrelu.realization import bounds, sampled_seminorm, seminorm


def _network(problem, dtype):
    return jr.Shallow(
        inner=jnp.asarray(problem["inner"].astype(dtype)),
        outer=jnp.asarray(problem["outer"].astype(dtype)),
    )


def _exact(problem, dtype, method):
    network = _network(problem, dtype)

    def run():
        answer = jax.block_until_ready(seminorm(network, method=method))
        return {"value": answer.value, "error": answer.error}

    return run


def auto(problem, dtype):
    """The entry point as it is called without options."""
    return _exact(problem, dtype, "auto")


def recursion(problem, dtype):
    """Deletion and restriction."""
    return _exact(problem, dtype, "recursion")


def linear_programs(problem, dtype):
    """The baseline: a tree of linear programs, one per prefix and sign."""
    return _exact(problem, dtype, "lp")


def integer_programs(problem, dtype):
    """One mixed-integer program per entry."""
    return _exact(problem, dtype, "milp")


def climbs(problem, dtype):
    """Certified bounds with random climbs; the lower one."""
    network = _network(problem, dtype)

    def run():
        found = bounds(network, key=jax.random.key(0))
        return {"value": found.lower, "error": found.upper - found.lower}

    return run


def sampling(problem, dtype):
    """The largest Jacobian at a million random inputs, under jit."""
    network = _network(problem, dtype)
    count = max(1, 2**20 // 1024)

    @jax.jit
    def run_compiled(network, key):
        def block(best, key):
            x = jax.random.normal(key, (1024, network.in_size), network.inner.dtype)
            return jnp.maximum(best, sampled_seminorm(network, x)), None

        start = jnp.zeros((), network.inner.dtype)
        return jax.lax.scan(block, start, jax.random.split(key, count))[0]

    def run():
        value = run_compiled(network, jax.random.key(0)).block_until_ready()
        return {"value": value, "error": np.asarray(np.nan)}

    return run
