"""Gradient descent from many starts with jaxrelu."""

import contextlib
import os

import equinox as eqx
import jax

import jaxrelu as jr
from jaxrelu import dynamics


class _Start(eqx.Module):
    """One training; starts and data are leaves, so nothing is closed over."""

    loss: jr.SquaredLoss
    outer: jax.Array
    rate: jax.Array
    steps: int = eqx.field(static=True)

    def __call__(self, key, inner):  # noqa: ARG002
        run = jr.gradient_descent(
            self.loss,
            jr.Shallow(inner, self.outer),
            learning_rate=self.rate,
            num_steps=self.steps,
            record_every=self.steps,
        )
        return run.network.inner


def _sweep(problem, dtype, lanes):
    put = lambda name: jax.device_put(problem[name].astype(dtype))
    loss = jr.SquaredLoss(jr.data.Dataset(put("inputs"), put("targets")))
    start = _Start(loss, put("outer"), put("rate"), int(problem["steps"]))
    grid, key = {"inner": put("starts")}, jax.random.key(0)

    def compute():
        found = dynamics.sweep(start, key, 1, grid, lanes=lanes)
        return {"inner": found.values[0].block_until_ready()}

    return compute


def devices(problem, dtype):
    """Starts split over as many host devices as there are cores."""
    with contextlib.suppress(RuntimeError):  # a backend runs already: take its devices
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    return _sweep(problem, dtype, 1)


def lanes(problem, dtype):
    """The defaults: one device, as many dispatches at once as there are cores."""
    return _sweep(problem, dtype, None)
