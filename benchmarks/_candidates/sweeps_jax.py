"""Gradient descent from many starts in plain JAX, and its matrix products alone."""

import contextlib
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec


def _arrays(problem, dtype):
    names = ("inputs", "targets", "outer", "rate", "starts")
    put = lambda name: jax.device_put(problem[name].astype(dtype))
    return *map(put, names), int(problem["steps"])


def _loss(inner, inputs, targets, outer):
    residual = jax.nn.relu(inputs @ inner.T) @ outer - targets
    return 0.5 * jnp.sum(residual**2)


def _step(inner, inputs, targets, outer, rate):
    return inner - rate * jax.grad(_loss)(inner, inputs, targets, outer)


def vmap_scan(problem, dtype):
    """What a user writes: jax.vmap of a jax.lax.scan of steps."""
    inputs, targets, outer, rate, starts, steps = _arrays(problem, dtype)

    @jax.jit
    def compute(starts, inputs, targets, outer, rate):
        def run(inner):
            step = lambda w, _: (_step(w, inputs, targets, outer, rate), None)
            return jax.lax.scan(step, inner, None, length=steps)[0]

        return jax.vmap(run)(starts)

    data = (starts, inputs, targets, outer, rate)
    return lambda: {"inner": compute(*data).block_until_ready()}


def step_loop(problem, dtype):
    """A Python loop over a jitted step, start by start."""
    inputs, targets, outer, rate, starts, steps = _arrays(problem, dtype)
    step = jax.jit(_step)

    def compute():
        ends = []
        for inner in starts:
            for _ in range(steps):
                inner = step(inner, inputs, targets, outer, rate)
            ends.append(inner)
        return {"inner": jnp.stack(ends).block_until_ready()}

    return compute


def products(problem, dtype):
    """The floor: the two matrix products of each step and nothing else."""
    with contextlib.suppress(RuntimeError):  # a backend runs already: take its devices
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    inputs, _, _, rate, starts, steps = _arrays(problem, dtype)
    count = len(jax.local_devices())
    padded = np.resize(starts, (-(-len(starts) // count) * count, *starts.shape[1:]))

    def block(starts, inputs, rate):
        def run(inner):
            def step(w, _):
                # tiny, so that nothing overflows and nothing is left out
                return 1e-30 * rate * ((inputs @ w.T).T @ inputs), None

            return jax.lax.scan(step, inner, None, length=steps)[0]

        return jax.vmap(run)(starts)

    if count > 1:
        mesh = Mesh(np.array(jax.local_devices()), ("starts",))
        rows, whole = PartitionSpec("starts"), PartitionSpec()
        block = jax.shard_map(
            block,
            mesh=mesh,
            in_specs=(rows, whole, whole),
            out_specs=rows,
            check_vma=False,
        )
    compute = jax.jit(block)
    data = (jnp.asarray(padded), inputs, rate)
    return lambda: {"products": compute(*data).block_until_ready()}
