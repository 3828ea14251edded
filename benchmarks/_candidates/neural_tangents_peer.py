# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
"""neural-tangents 0.6.5, in the environment with the old JAX that it needs."""

import sys
import types

import jax
import jax.numpy as jnp


# The package's __init__ imports TensorFlow through this part, which nothing here uses.
sys.modules["neural_tangents.experimental"] = types.ModuleType("experimental")

import neural_tangents as nt  # noqa: E402


def empirical_ntk(problem, dtype):
    """empirical_ntk_fn by structured derivatives (its fastest), jnp eigvalsh.

    ``vmap_axes=0`` says that samples do not interact; without it the library is three
    times slower. For a network with one output its four implementations differ little,
    except NTK_VECTOR_PRODUCTS, which is several times slower.
    """
    inner, outer, inputs = (
        jax.device_put(problem[name].astype(dtype))
        for name in ("inner", "outer", "inputs")
    )

    def compute(inner, outer, inputs):
        def network(inner, x):
            return (jax.nn.relu(x @ inner.T) @ outer)[:, None]

        kernel = nt.empirical_ntk_fn(
            network,
            trace_axes=(-1,),
            vmap_axes=0,
            implementation=nt.NtkImplementation.STRUCTURED_DERIVATIVES,
        )
        gram = kernel(inputs, None, inner)
        return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram), 0.0))

    compiled = jax.jit(compute)
    return lambda: {"values": compiled(inner, outer, inputs).block_until_ready()}
