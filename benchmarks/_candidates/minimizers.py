"""Spectra of the Hessian at global minimisers of linear networks."""

import jax
import jax.numpy as jnp

import jaxrelu as jr


def _problem(problem, dtype):
    put = lambda name: jax.device_put(problem[name].astype(dtype))
    loss = jr.SquaredLoss(jr.data.Dataset(put("inputs"), put("targets")))
    return loss, jr.LinearNetwork(tuple(put("layers")))


def through_t(problem, dtype):
    """jaxrelu: the d² × d² matrix T by factors, its eigenvalues, the zeros counted."""
    loss, network = _problem(problem, dtype)

    def run():
        found = jr.landscape.minimizer_spectrum(loss, network)
        return {"values": found.values[: problem["inputs"].shape[1] ** 2]}

    return run


def dense_hessian(problem, dtype):
    """jax.hessian of the loss over all layers, then eigh of the ld² × ld² matrix."""
    loss, network = _problem(problem, dtype)
    layers = jnp.stack(network.weights)
    inputs, targets = loss.data.inputs, loss.data.targets

    def value(layers, inputs, targets):
        outputs = inputs
        for layer in layers:
            outputs = outputs @ layer.T
        return 0.5 * jnp.sum((outputs - targets) ** 2)

    @jax.jit
    def spectrum(layers, inputs, targets):
        dense = jax.hessian(value)(layers, inputs, targets)
        return jnp.linalg.eigh(dense.reshape(layers.size, layers.size))[0]

    size = inputs.shape[1] ** 2

    def run():
        return {"values": spectrum(layers, inputs, targets)[-size:].block_until_ready()}

    return run


def gauss_newton(problem, dtype):
    """jax.jacrev of the outputs, then eigh of JᵀJ of order ld²."""
    loss, network = _problem(problem, dtype)
    layers, inputs = jnp.stack(network.weights), loss.data.inputs

    def outputs(layers, inputs):
        for layer in layers:
            inputs = inputs @ layer.T
        return inputs

    @jax.jit
    def spectrum(layers, inputs):
        rows = jax.jacrev(outputs)(layers, inputs).reshape(-1, layers.size)
        return jnp.linalg.eigh(rows.T @ rows)[0]

    size = inputs.shape[1] ** 2

    def run():
        return {"values": spectrum(layers, inputs)[-size:].block_until_ready()}

    return run
