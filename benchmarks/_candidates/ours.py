"""jaxrelu, called the way its documentation says."""

import jax

import jaxrelu as jr
from jaxrelu.spectra import extreme, spectrum


def _network(problem, dtype):
    network = jr.Shallow(
        inner=jax.device_put(problem["inner"].astype(dtype)),
        outer=jax.device_put(problem["outer"].astype(dtype)),
        activation=jr.activations.ReLU(),
    )
    return network, jax.device_put(problem["inputs"].astype(dtype))


def _jacobian(network, inputs):
    return jr.jacobian(network, inputs, where=lambda network: network.inner)


def all_values(problem, dtype):
    """All singular values, each with its rounding bound."""
    network, inputs = _network(problem, dtype)

    def run():
        answer = spectrum(_jacobian(network, inputs))
        values, bounds = jax.block_until_ready((answer.values, answer.error))
        return {"values": values, "bounds": bounds}

    return run


def both_ends(problem, dtype):
    """Smallest and largest singular value, each with its bound."""
    network, inputs = _network(problem, dtype)

    def run():
        answer = extreme(_jacobian(network, inputs))
        smallest, largest = jax.block_until_ready((answer.smallest, answer.largest))
        return {
            "smallest": smallest.value,
            "smallest_bound": smallest.error,
            "largest": largest.value,
            "largest_bound": largest.error,
        }

    return run


def gram(problem, dtype):
    """The Gram matrix of the Jacobian, without the Jacobian."""
    network, inputs = _network(problem, dtype)

    def run():
        return {"gram": _jacobian(network, inputs).gram().block_until_ready()}

    return run


def gram_alone(problem, dtype):
    """The Gram matrix of a Jacobian at hand: no forward pass in it."""
    jacobian = _jacobian(*_network(problem, dtype))
    jax.block_until_ready(jacobian)
    return lambda: {"gram": jacobian.gram().block_until_ready()}
