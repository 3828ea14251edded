"""What compiles, compiles once: data and step sizes are traced, never baked in."""

import chex
import equinox as eqx
import jax
import pytest
from _cases import inputs, networks

import jaxrelu as jr


@pytest.fixture(autouse=True)
def _fresh_counter():
    chex.clear_trace_counter()


def test_descent_compiles_once_for_all_data_and_step_sizes(float64):
    network, _ = networks(float64)["softplus"]

    @chex.assert_max_traces(n=2)  # in the body of the scan, and for the last loss
    def squared(residual):
        return 0.5 * (residual**2).sum()

    class Counted(eqx.Module):
        loss: jr.SquaredLoss

        def __call__(self, net):
            return squared(self.loss.residual(net))

    for seed, rate in ((0, 0.1), (1, 0.2), (2, 0.05)):
        x = inputs(float64, seed=seed)
        loss = Counted(jr.SquaredLoss(jr.data.Dataset(x, x[:, 0])))
        jr.gradient_descent(loss, network, learning_rate=rate, num_steps=3)


def test_factors_compile_once_for_all_weights_and_inputs(float64):
    @chex.assert_max_traces(n=1)
    def slope(z):
        return jax.nn.sigmoid(z)

    class Counted(jr.activations.AbstractActivation):
        @property
        def name(self):
            return "counted"

        def __call__(self, z):
            return jax.nn.softplus(z)

        def derivative(self, z):
            return slope(z)

        def second_derivative(self, z):
            raise NotImplementedError

        @property
        def derivative_bound(self):
            return 1.0

        @property
        def second_derivative_bound(self):
            return 0.25

        @property
        def slopes(self):
            return None

    activation = Counted()
    for seed in range(3):
        network = jr.Shallow.init(
            jax.random.key(seed), d=4, k=6, activation=activation, dtype=float64
        )
        J = jr.jacobian(network, inputs(float64, seed=seed))
        chex.assert_tree_all_finite(J.gram())


def test_the_counter_does_count(float64):
    traced = chex.assert_max_traces(lambda x: x.sum(), n=1)
    total = jax.jit(traced)
    total(inputs(float64))
    with pytest.raises(AssertionError, match="traced"):
        total(inputs(float64, n=3))
