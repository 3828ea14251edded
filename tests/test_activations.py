"""Activation functions: values, derivatives, tails, zeros, bounds."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from jaxrelu.activations import (
    GELU,
    AbstractActivation,
    Erf,
    LeakyReLU,
    Linear,
    Quadratic,
    ReLU,
    Sigmoid,
    Softplus,
    Tanh,
    activation,
)


pytestmark = pytest.mark.optimised  # rounding is what they are about


def softplus(beta):
    return lambda z: mp.log1p(mp.exp(beta * z)) / beta


# name -> (activation, the same function in mpmath, roundings allowed)
SMOOTH = {
    "softplus": (Softplus(), softplus(1), 4),
    "softplus(5)": (Softplus(5.0), softplus(5), 48),  # 5 z is rounded: 5 |z| eps / 2
    "tanh": (Tanh(), mp.tanh, 4),
    "erf": (Erf(), lambda z: mp.erf(z / mp.sqrt(2)), 4),
    "sigmoid": (Sigmoid(), lambda z: 1 / (1 + mp.exp(-z)), 4),
    "gelu": (GELU(), lambda z: z * mp.erfc(-z / mp.sqrt(2)) / 2, 6),
    "quadratic": (Quadratic(), lambda z: z * z / 2, 2),
}
ALL = [*(case[0] for case in SMOOTH.values()), ReLU(), LeakyReLU(0.1), Linear()]
POINTS = [
    -12.5, -8.3, -3.1, -1.3, -0.5, -1e-3, -1e-8, 0.0, 1e-8, 1e-3, 0.3, 0.9, 2.9, 7, 18
]  # fmt: skip
ids = lambda act: f"{act.name}{getattr(act, 'beta', '')}"


def three(act):
    return act, act.derivative, act.second_derivative


@pytest.mark.parametrize("name", SMOOTH)
def test_values_and_derivatives_keep_relative_accuracy_in_both_tails(name, dtype):
    act, reference, roundings = SMOOTH[name]
    z = np.array(POINTS, dtype)
    noise = float(np.finfo(dtype).tiny) + 1e-150  # underflow, mpmath's differences
    eps = float(np.finfo(dtype).eps)
    # alone, and where a compiler sees all that they are made of
    alone = [f(z) for f in three(act)]
    together = jax.jit(lambda z: [f(z) for f in three(act)])(z)
    with mp.workdps(180):  # at z = 18 the slope of erf is 1e-71
        for order, both in enumerate(zip(alone, together, strict=True)):
            assert all(got.dtype == dtype for got in both)
            for point, *values in zip(z, *map(np.asarray, both), strict=True):
                exact = mp.diff(reference, mp.mpf(float(point)), order)
                error = max(abs(mp.mpf(float(value)) - exact) for value in values)
                assert error <= roundings * eps * abs(exact) + noise, (order, point)


@pytest.mark.parametrize("act", ALL, ids=ids)
def test_automatic_derivatives_are_the_stated_ones_also_at_zero(act, dtype):
    @jax.jit
    def both(z):
        automatic = [jax.vmap(jax.grad(f))(z) for f in (act, act.derivative)]
        return list(zip(automatic, (f(z) for f in three(act)[1:]), strict=True))

    for automatic, expected in both(np.array([*POINTS, -0.0], dtype)):
        assert automatic.dtype == expected.dtype == dtype
        atol = float(jnp.finfo(dtype).eps) * 1e-3
        np.testing.assert_allclose(automatic, expected, rtol=1e-6, atol=atol)


@pytest.mark.parametrize("name", SMOOTH)
def test_third_and_fourth_derivatives_by_autodiff(name, float64):
    act, reference, _ = SMOOTH[name]
    third = jax.grad(act.second_derivative)
    both = jax.jit(jax.vmap(jax.value_and_grad(third)))
    points = np.array([-2.0, 0.0, 0.7])
    with mp.workdps(40):
        exact = [[float(mp.diff(reference, z, k)) for z in points] for k in (3, 4)]
    np.testing.assert_allclose(both(points), exact, rtol=1e-12, atol=1e-13)


def test_convention_at_exact_zeros(dtype):
    points = np.array([0.0, -0.0, np.finfo(dtype).tiny], dtype)
    for act, slope in ((ReLU(), 0), (LeakyReLU(0.25), 0.25)):
        value, stated, second, automatic = jax.jit(
            lambda z: [f(z) for f in (*three(act), jax.vmap(jax.grad(act)))]  # noqa: B023
        )(points)
        assert value.tolist()[:2] == second.tolist()[:2] == [0, 0]
        assert stated.tolist() == automatic.tolist() == [slope, slope, 1]


@pytest.mark.parametrize("act", ALL, ids=ids)
def test_huge_arguments_give_the_limits(act, dtype):
    values = jax.jit(lambda z: [f(z) for f in three(act)])(
        np.array([-1e30, 1e30], dtype)
    )
    left, right = np.array(values, float).T.tolist()
    if isinstance(act, Quadratic):
        assert right[1:] == [pytest.approx(1e30, rel=1e-6), 1]
        return
    low, high = {
        "tanh": ([-1, 0], [1, 0]), "erf": ([-1, 0], [1, 0]),
        "sigmoid": ([0, 0], [1, 0]), "leaky_relu": ([-1e29, 0.1], [1e30, 1]),
        "linear": ([-1e30, 1], [1e30, 1]),
    }.get(act.name, ([0, 0], [1e30, 1]))  # fmt: skip
    assert left == pytest.approx([*low, 0], rel=1e-6)
    assert right == pytest.approx([*high, 0], rel=1e-6)


@pytest.mark.parametrize(
    ("act", "first", "second"),
    [
        (ReLU(), 1, np.inf),
        (LeakyReLU(0.1), 1, np.inf),
        (LeakyReLU(-3.0), 3, np.inf),
        (Softplus(), 1, 0.25),
        (Softplus(5.0), 1, 1.25),
        (GELU(), 1.128904, 0.797885),
        (Tanh(), 1, 0.769800),
        (Sigmoid(), 0.25, 0.096225),
        (Erf(), 0.797885, 0.483941),
        (Quadratic(), np.inf, 1),
        (Linear(), 1, 0),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_bounds_are_the_suprema(act, first, second, float64):
    assert act.derivative_bound == pytest.approx(first, abs=1e-6)
    assert act.second_derivative_bound == pytest.approx(second, abs=1e-6)
    z = np.linspace(-40, 40, 400_001)
    bounds = act.derivative_bound, act.second_derivative_bound
    slopes = jax.jit(lambda z: [f(z) for f in three(act)[1:]])(z)
    for values, bound in zip(slopes, bounds, strict=True):
        if np.isfinite(bound):
            largest = np.abs(np.asarray(values)).max()
            assert bound * (1 - 1e-7) <= largest <= bound * (1 + 1e-15)


def test_gelu_bound_to_full_precision():
    with mp.workdps(40):
        normal = lambda z: mp.erfc(-z / mp.sqrt(2)) / 2
        gelu = lambda z: z * normal(z)
        peak = mp.findroot(lambda z: mp.diff(gelu, z, 2), 1.4)
        assert abs(mp.diff(gelu, peak) - GELU().derivative_bound) < 3e-16
        assert peak == pytest.approx(2**0.5)


@pytest.mark.parametrize("make", [LeakyReLU, Softplus])
def test_parameters_can_be_traced_trained_and_of_another_precision(make, float64):
    z = np.array([-700.0, -2.0, 0.0, 0.3, 900.0])
    value = jax.jit(lambda s: make(s)(z))
    slope = jax.jit(jax.jacfwd(value))(0.3)
    numeric = (np.asarray(value(0.3 + 1e-5)) - np.asarray(value(0.3 - 1e-5))) / 2e-5
    np.testing.assert_allclose(slope, numeric, rtol=1e-8, atol=1e-8)
    act = make(jnp.asarray(0.3, jnp.float32))
    assert act(z).dtype == act.derivative(z).dtype == jnp.float64
    assert act(z.astype("float32")).dtype == jnp.float32
    many = jax.jit(jax.vmap(lambda s: make(s).derivative(z)))(np.array([0.3, 2.0]))
    np.testing.assert_allclose(many[1], make(2.0).derivative(z))
    assert len(jax.tree.leaves(act)) == 1


def test_softplus_beta_derivative_does_not_cancel(float64):
    # ∂φ/∂β = -entropy/β²; z σ - φ would be 0 here
    got = jax.jit(jax.grad(lambda beta: Softplus(beta)(60.0)))(1.0)
    with mp.workdps(60):
        exact = mp.diff(lambda beta: mp.log1p(mp.exp(beta * 60)) / beta, 1)
    assert float(got) == pytest.approx(float(exact), rel=1e-13)
    mixed = jax.jit(jax.grad(lambda z: jax.grad(lambda b: Softplus(b)(z))(1.5)))
    assert float(mixed(0.0)) == 0


@pytest.mark.parametrize("act", ALL, ids=ids)
def test_slopes_describe_the_piecewise_linear_ones(act, float64):
    if act.slopes is None:
        assert act.name not in ("relu", "leaky_relu", "linear")
        return
    z = np.array([-2.0, 3.0])
    np.testing.assert_allclose(act(z), z * np.array(act.slopes))


def test_activation_by_name_and_refusals():
    names = [
        "relu", "leaky_relu", "softplus", "tanh", "erf", "sigmoid", "gelu",
        "quadratic", "linear",
    ]  # fmt: skip
    for name in names:
        act = activation(name)
        assert isinstance(act, AbstractActivation)
        assert act.name == name
    act = Softplus(3.0)
    assert activation(act) is act
    with pytest.raises(
        ValueError, match=r"'swish'; expected one of 'relu', .*'linear'"
    ):
        activation("swish")
    with pytest.raises(TypeError, match="expected a name"):
        activation(jnp.tanh)
    for beta in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="beta is"):
            Softplus(beta)
    with pytest.raises(ValueError, match="beta is"):
        Softplus(jnp.asarray(-1.0))
    with pytest.raises(TypeError, match="z has dtype int"):
        ReLU()(np.arange(3))
