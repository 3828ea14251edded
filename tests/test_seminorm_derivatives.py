"""The semi-norm under jit, grad and vmap; its smooth stand-in; the Sobolev loss."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _realization_cases import (
    jacobians_at,
    network,
    random_network,
)

import jaxrelu as jr
from jaxrelu.objectives import SobolevLoss
from jaxrelu.realization import (
    cell_jacobian,
    cells,
    distance,
    sampled_seminorm,
    seminorm,
    smooth_seminorm,
)


# --------------------------------------------------------------------------- under jax


def test_gradient_under_jit(dtype):
    """Finite differences of the semi-norm, cells found anew at every weight."""
    net = random_network(6, 3, 2, 3, dtype)
    other = random_network(4, 3, 2, 4, dtype)

    @jax.jit
    def value_and_grad(net):
        value = lambda net: seminorm((net, other), "fro").value
        return jax.value_and_grad(value)(net)

    value, grad = value_and_grad(net)
    assert value.dtype == dtype
    assert float(value) == pytest.approx(float(distance(net, other, "fro")), rel=1e-5)
    rng = np.random.default_rng(0)
    inner, outer = np.asarray(net.inner, float), np.asarray(net.outer, float)
    for _ in range(3):
        u, v = rng.standard_normal(inner.shape), rng.standard_normal(outer.shape)
        h = 1e-6
        with jax.enable_x64(True):
            fixed = network(other.inner, other.outer)
            values = [
                float(distance(network(inner + t * u, outer + t * v), fixed, "fro"))
                for t in (h, -h)
            ]
        slope = float(jnp.vdot(grad.inner, u.astype(dtype)))
        slope += float(jnp.vdot(grad.outer, v.astype(dtype)))
        assert slope == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-4)


def test_vmap_and_failures_as_data():
    """Each case its own cell; one with NaN is marked and the others go on."""
    nets = [random_network(5, 2, 1, seed) for seed in range(3)]
    broken = network(np.full((5, 2), np.nan), np.ones((1, 5)))
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *nets, broken)
    got = jax.jit(jax.vmap(lambda net: seminorm(net, "op1")))(stack)
    expected = [float(seminorm(net, "op1")) for net in nets]
    np.testing.assert_allclose(got.value[:3], expected, rtol=1e-6)
    assert np.isnan(got.value[3])
    failed = np.asarray(got.result != jr.RESULTS.successful)
    assert failed.tolist() == [False, False, False, True]


def test_overflow_under_jit_is_data(float64):
    net = network(1e200 * np.eye(2), [1e200, 1e200])
    got = jax.jit(seminorm)(net)
    assert np.isnan(got.value)
    assert np.isinf(got.error)
    assert bool(got.result == jr.RESULTS.not_finite)


def test_too_many_cells_under_jit_are_refused():
    net = random_network(40, 12, 1)
    with pytest.raises(Exception, match="only bounds are affordable"):
        jax.jit(lambda net: seminorm(net).value)(net).block_until_ready()
    with pytest.raises(ValueError, match="needs numbers"):
        jax.jit(lambda net: seminorm(net, method="bounds").value)(net)


def test_cell_jacobian_is_the_derivative(float64):
    net = random_network(5, 3, 2)
    found = cells(net)
    at = jax.jit(jax.vmap(lambda pattern: cell_jacobian(net, pattern)))
    expected = jacobians_at(net, jnp.asarray(found.points))
    np.testing.assert_allclose(at(jnp.asarray(found.patterns)), expected, atol=1e-13)
    with pytest.raises(ValueError, match="expected \\(5,\\)"):
        cell_jacobian(net, jnp.ones(4, bool))


SMOOTH = jax.jit(jax.value_and_grad(smooth_seminorm), static_argnums=3)


@pytest.mark.parametrize(("norm", "sign"), [("max", 1), ("max", -1), ("fro", 1)])
def test_smooth_surrogate(norm, sign, float64):
    """Between the sampled maximum and tau log N above it; gradients as differences."""
    net = random_network(6, 3, 2)
    net = network(net.inner, sign * np.asarray(net.outer))
    x = jnp.asarray(cells(net).points)
    count = 2 * len(x) * 6 if norm == "max" else len(x)
    exact = float(seminorm(net, norm))
    assert float(sampled_seminorm(net, x, norm)) == pytest.approx(exact, rel=1e-13)
    smooth = lambda net, t: float(SMOOTH(net, x, t, norm)[0])
    for temperature in (1.0, 0.1, 1e-3):
        value = smooth(net, temperature)
        assert exact <= value <= exact + temperature * np.log(count)
    assert smooth(net, 1e-3) == pytest.approx(exact, abs=1e-2)
    few = x[:3]
    assert float(sampled_seminorm(net, few, norm)) <= exact
    grad = SMOOTH(net, x, 0.5, norm)[1]
    v = np.random.default_rng(0).standard_normal(net.outer.shape)
    shifted = [network(net.inner, np.asarray(net.outer) + t * v) for t in (1e-6, -1e-6)]
    slope = (smooth(shifted[0], 0.5) - smooth(shifted[1], 0.5)) / 2e-6
    assert float(np.vdot(grad.outer, v)) == pytest.approx(slope, rel=1e-6)


# -------------------------------------------------------------------- Sobolev training


@pytest.mark.parametrize(
    ("m", "dtype"), [(None, "float32"), (2, "float64")], indirect=["dtype"]
)
def test_sobolev_loss(m, dtype):
    """By hand for a ReLU layer; zero at the network that made the data."""
    teacher = random_network(4, 3, m or 1, 1, dtype)
    student = random_network(4, 3, m or 1, 2, dtype)
    if m is None:
        pick = lambda net: jr.Shallow(net.inner, net.outer[0])
        teacher, student = pick(teacher), pick(student)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((7, 3)).astype(dtype))
    slopes = jacobians_at(teacher, x)
    loss = SobolevLoss(jr.data.Dataset(x, teacher(x)), slopes, 0.3)
    # the same numbers as the loss computes: another program rounds otherwise
    empty = jr.data.Dataset(x, jnp.zeros_like(loss.data.targets))
    outputs, jacobians = SobolevLoss(empty, jnp.zeros_like(slopes)).residual(teacher)
    own = SobolevLoss(jr.data.Dataset(x, outputs), jacobians, 0.3)
    assert own(teacher) == 0
    assert own(student) > 0
    eps = 16 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(outputs, loss.data.targets, rtol=eps, atol=eps)
    np.testing.assert_allclose(jacobians, slopes, rtol=eps, atol=eps)
    f = np.asarray(student(x) - teacher(x))
    inner, outer = np.asarray(student.inner), np.asarray(student.outer)
    active = np.asarray(x) @ inner.T > 0
    outer = outer if m else outer[None]
    df = np.einsum("pk,nk,kd->npd", outer, active, inner).reshape(slopes.shape)
    expected = 0.5 * (f**2).sum() + 0.15 * ((df - np.asarray(slopes)) ** 2).sum()
    value, grad = eqx.filter_jit(eqx.filter_value_and_grad(lambda n: loss(n)))(student)
    assert value.dtype == dtype
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert bool(jnp.all(jnp.isfinite(grad.inner)))
    assert bool(jnp.any(grad.inner != 0))
    with pytest.raises(ValueError, match="expected"):
        SobolevLoss(loss.data, slopes[:, ..., :2])
