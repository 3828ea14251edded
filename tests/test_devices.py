"""Rows of the data over a mesh of virtual devices: same numbers as on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import inputs, networks
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxrelu as jr


@pytest.fixture
def mesh():
    assert jax.device_count() == 8
    return jax.make_mesh((8,), ("samples",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("name", ["relu", "softplus", "tanh, three outputs"])
def test_jacobian_of_sharded_rows(name, mesh, dtype):
    network, where = networks(dtype)[name]
    x = inputs(dtype, n=32)
    rows = NamedSharding(mesh, PartitionSpec("samples"))
    sharded = jax.device_put(x, rows)
    one, many = jr.jacobian(network, x, where), jr.jacobian(network, sharded, where)
    tolerance = 256 * float(jnp.finfo(dtype).eps)
    gram = many.gram()
    assert len(gram.sharding.device_set) == 8
    np.testing.assert_allclose(gram, one.gram(), rtol=tolerance, atol=tolerance)
    r = jnp.ones(one.shape[0], dtype)
    np.testing.assert_allclose(
        many.rmv(r), one.rmv(r), rtol=tolerance, atol=50 * tolerance
    )


def test_descent_on_sharded_rows(mesh, float64):
    network, _ = networks(float64)["softplus"]
    x = inputs(float64, n=32)
    data = jr.data.Dataset(x, jnp.sign(x[:, 0]))
    rows = NamedSharding(mesh, PartitionSpec("samples"))
    sharded = jax.device_put(data, rows)

    def losses(data):
        loss = jr.SquaredLoss(data)
        return jr.gradient_descent(
            loss, network, learning_rate=0.02, num_steps=5
        ).losses

    np.testing.assert_allclose(losses(sharded), losses(data), rtol=1e-12)
