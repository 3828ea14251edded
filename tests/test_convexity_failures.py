"""Exact constants along the curves on which convexity, OPSC and PL fail."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from _draws import normal

import jaxrelu as jr
from jaxrelu import landscape as ls


def loss_of(k, d=None, dtype=None):
    return jr.PopulationLoss(jr.Shallow.orthonormal(k, d, dtype))


def pair_at(F, partition, alphas, direction=None, pair=(0, 1)):
    alphas = jnp.asarray(alphas, F.teacher.inner.dtype)
    minimum = ls.global_minimum(F.teacher, partition, alphas)
    return ls.parallel_pair(F, minimum, pair, direction)


def kernel(w, v):
    """The ReLU kernel in mpmath."""
    dot = mpmath.fdot(w, v)
    norms = mpmath.sqrt(mpmath.fdot(w, w) * mpmath.fdot(v, v))
    angle = mpmath.acos(dot / norms)
    return (
        norms
        / (2 * mpmath.pi)
        * (mpmath.sin(angle) + (mpmath.pi - angle) * dot / norms)
    )


def opened_loss(one, two, opening):
    """F of an opened pair in mpmath, by the kernel of three vectors."""
    w = [(one, opening), (two, -opening), (one + two, mpmath.mpf(0))]
    sign = (1, 1, -1)
    total = sum(
        a * b * kernel(x, y)
        for a, x in zip(sign, w, strict=True)
        for b, y in zip(sign, w, strict=True)
    )
    return total / 2


# ---------------------------------------------------------------- an opened pair


def test_loss_along_the_opening_keeps_its_digits(dtype):
    F = loss_of(1, 2, dtype)
    pair = pair_at(F, [0, 0], [0.25, 0.75])
    openings = np.asarray([1e-8, 1e-3, 0.1, 0.2, 0.3, 2.0], dtype)
    many = jax.jit(jax.vmap(lambda x: ls.opened_pair(pair, x)))(openings)
    many = jax.tree.map(np.asarray, many)
    loss = functools.partial(opened_loss, mpmath.mpf(1) / 4, mpmath.mpf(3) / 4)
    for i, opening in enumerate(openings):
        with mpmath.workdps(60):
            at = mpmath.mpf(float(opening))
            step = at / 10**9
            values = [mpmath.diff(loss, at, order, h=step) for order in range(3)]
            expected = {
                "loss": values[0],
                "slope": values[1],
                "hessian_quotient": values[2] / 2,
                "gradient_quotient": values[1] / (2 * at),
            }
        found = jax.tree.map(lambda leaf, i=i: leaf[i], many)
        for name, exact in expected.items():
            estimate = getattr(found, name)
            assert estimate.value.dtype == dtype
            # one-sided differences of that step in mpmath: relative error 1e-9
            slack = 1e-8 if "quotient" in name or name == "slope" else 0
            slack = float(estimate.error) + slack * abs(float(exact))
            assert abs(float(estimate.value) - float(exact)) <= slack


@eqx.filter_jit
def measured(F, pair, opening):
    """The numbers of `opened_pair`, from loss, gradient and Hessian of the weights."""
    W = pair.opened(opening)
    g = W - pair.minimum
    size = jnp.sum(g * g)
    gradient = F.gradient(W)
    bend = g.reshape(-1) @ jr.hessian(F, W).mv(g.reshape(-1))
    return (
        F(W),
        bend / size,
        jnp.sum(gradient * g) / size,
        jnp.sum(gradient**2),
    )


CASES = {  # k, d, partition, alphas, direction, pair
    "uneven": (2, 3, [0, 1, 0], [0.7, 1.0, 0.3], None, (2, 0)),
    "outside": (2, 3, [0, 1, 0], [0.7, 1.0, 0.3], [0.0, 0.0, 1.0], (2, 0)),
    "backwards": (2, 3, [0, 1, 0], [0.7, 1.0, 0.3], [0.0, -1.0, 0.0], (2, 0)),
    "many": (
        3,
        4,
        [0, 0, 0, 1, 1, 2, 2, 2],
        [0.1, 0.4, 0.5] + [0.5] * 2 + [1 / 3] * 3,
        None,
        (0, 1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_opened_pairs(name, float64):
    k, d, partition, alphas, direction, pair = CASES[name]
    F = loss_of(k, d)
    direction = None if direction is None else jnp.asarray(direction)
    pair = pair_at(F, partition, alphas, direction, pair)
    for opening in (0.5, 0.05):
        found = ls.opened_pair(pair, opening)
        found_by = measured(F, pair, jnp.asarray(opening))
        loss, bend, slope, squared = map(float, found_by)
        assert float(found.loss.value) == pytest.approx(loss, abs=1e-15)
        assert float(found.hessian_quotient.value) == pytest.approx(bend)
        assert float(found.gradient_quotient.value) == pytest.approx(slope)
        assert float(found.squared_gradient.value) == pytest.approx(squared, rel=1e-9)
        assert float(found.dominance_ratio.value) == pytest.approx(
            squared / (2 * loss), rel=1e-8
        )


def test_published_digits_of_an_opened_pair(float64):
    pair = pair_at(loss_of(2, 3), [0, 1, 0], [0.5, 1.0, 0.5], pair=(2, 0))
    found = ls.opened_pair(pair, 0.01)
    digits = {
        "loss": (4.243792343431e-7, 1e-12),
        "hessian_quotient": (1.2729001364e-2, 1e-10),
        "gradient_quotient": (6.3653491e-3, 1e-8),
        "dominance_ratio": (1.432127e-2, 1e-6),
        "growth": (0.4244131816, 1e-9),
    }
    for name, (value, relative) in digits.items():
        assert float(getattr(found, name).value) == pytest.approx(value, rel=relative)
    squared = float(found.squared_gradient.value) / 0.01**4
    assert squared == pytest.approx(1.21553008, rel=1e-8)
    assert squared == pytest.approx(12 / np.pi**2, rel=1e-3)


def test_orders_of_loss_and_gradient(float64):
    """eps³ and eps⁴ with the stated constants; all three quotients vanish."""
    F = loss_of(3, 4)
    alphas = [0.2, 0.5, 0.3, 1.0, 1.0]
    pair = pair_at(F, [0, 0, 0, 1, 2], alphas)
    openings = np.asarray([1e-3, 1e-6, 1e-9])
    found = jax.jit(jax.vmap(lambda x: ls.opened_pair(pair, x)))(openings)
    S, D = 1 / 0.2 + 1 / 0.5, 1 / 0.2 - 1 / 0.5
    along = np.asarray(pair.minimum) @ np.asarray(pair.direction)
    along_u = int(np.sum(np.abs(along) > 0.5))
    across = 2 - along_u
    leading = (S**2 * (2 + along_u) + S**2 / 4 * across + D**2) / (4 * np.pi**2)
    c = (0.2 + 0.5) / (3 * np.pi * 0.1)
    tolerance = 30 * openings**2 + 1e-13
    for value, constant, order in (
        (found.loss, c, 3),
        (found.squared_gradient, leading, 4),
        (found.hessian_quotient, 3 * c, 1),
        (found.gradient_quotient, 1.5 * c, 1),
        (found.dominance_ratio, leading / (2 * c), 1),
    ):
        relative = np.asarray(value.value) / openings**order / constant - 1
        assert (np.abs(relative) < tolerance).all()


def test_loss_does_not_ask_for_an_orthonormal_teacher(float64, getkey):
    F = jr.PopulationLoss(normal(getkey(), (2, 3)))
    pair = pair_at(F, [0, 1, 0], [0.4, 1.0, 0.6], pair=(2, 0))
    opening = jnp.asarray(0.2)
    expected = float(measured(F, pair, opening)[0])
    with pytest.raises(ValueError, match="nor orthogonal to both"):
        ls.opened_pair(pair, opening)
    traced = jax.jit(lambda pair: ls.opened_pair(pair, opening))(pair)
    assert float(traced.loss.value) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(traced.squared_gradient.value)


# ---------------------------------------------------------------- a tilted pair


TILTS = [  # k, d, alphas, u, eps, form, smallest eigenvalue
    (1, 2, (0.5, 0.5), 1, 0.3, -0.3504329022207, -0.1752164511103),
    (1, 2, (0.5, 0.5), 1, 0.01, -0.01273112233512, -0.006365561167559),
    (3, 4, (0.3, 0.7), 3, 0.01, -0.01515609801800, -0.007591762593800),
    (3, 4, (0.3, 0.7), 1, 0.01, -0.01515609801800, -0.007599036374316),
]


@pytest.mark.parametrize(("k", "d", "alphas", "u", "tilt", "form", "least"), TILTS)
def test_negative_curvature_next_to_a_minimum(
    k, d, alphas, u, tilt, form, least, float64
):
    F = loss_of(k, d)
    partition = [0, 0, *range(1, k)]
    alphas = [*alphas, *[1.0] * (k - 1)]
    pair = pair_at(F, partition, alphas, jnp.asarray(np.eye(d)[u]))
    found = ls.tilt_curvature(pair, tilt)
    assert float(found.value) == pytest.approx(form, rel=2e-13)
    H = np.asarray(jr.hessian(F, pair.tilted(tilt)).as_matrix())
    z = np.asarray(pair.tilt_direction(tilt)).reshape(-1)
    assert float(z @ H @ z) == pytest.approx(form, rel=1e-11)
    assert float(z @ z) == pytest.approx(2)
    values = np.linalg.eigvalsh(H)
    assert values[0] == pytest.approx(least, rel=1e-11)
    assert values[0] <= form / 2 + 1e-14


def test_tilts_for_any_teacher(float64, getkey):
    F = jr.PopulationLoss(normal(getkey(), (3, 4)))
    alphas = [0.4, 1.0, 0.35, 1.0, 0.25]
    pair = pair_at(F, [2, 0, 2, 1, 2], alphas, pair=(0, 2))
    for tilt in (-0.2, 1e-3):
        z = pair.tilt_direction(tilt).reshape(-1)
        form = np.asarray(z) @ jr.hessian(F, pair.tilted(tilt)).mv(z)
        expected = float(ls.tilt_curvature(pair, tilt).value)
        assert float(form) == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- descent, the toy


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_descent_slows_to_an_inverse_cube(share, float64):
    """F^(-1/3) grows linearly in time, at the rate of the stated constant."""
    F = loss_of(1, 2)
    pair = pair_at(F, [0, 0], [share, 1 - share])
    num_steps = 4000
    run = jr.gradient_descent(
        F, pair.opened(0.05), learning_rate=1.0, num_steps=num_steps
    )
    root = np.asarray(run.losses) ** (-1 / 3)
    rate = (root[4000] - root[1000]) / 3000
    ends = np.linalg.norm(np.asarray(run.network), axis=1)
    constant = float(ls.cubic_decay_constant(*ends))
    # Steps of 1 against the flow: log(4)/3000 of the rate of 1/eps
    assert rate**-3 == pytest.approx(constant, rel=3e-3)
    assert float(ls.cubic_decay_constant(0.5, 0.5)) == pytest.approx(np.pi**2 / 6)
    assert float(ls.cubic_decay_constant(0.3, 0.7)) == pytest.approx(1.160665, rel=1e-6)
    # Not the exponential rate that any Polyak-Lojasiewicz inequality would give
    losses = np.asarray(run.losses)
    assert losses[-1] / losses[-401] > 0.7


def test_toy_valley(float64):
    value, gradient = ls.toy_valley, jax.jit(jax.grad(ls.toy_valley))
    bend = jax.jit(jax.hessian(ls.toy_valley))
    for x, y in [(1.0, 0.1), (1.0, -1e-3), (0.2, 0.3)]:
        p = jnp.asarray([x, y])
        assert float(np.linalg.det(bend(p))) == pytest.approx(-12 * x**2 * y**2)
        ratio = 0.5 * (np.asarray(gradient(p)) ** 2).sum() / value(p)
        assert float(ratio) == pytest.approx(2 * (x**2 + y**2))
    for step in (0.1, 1e-3):
        along, across = np.asarray([1 + step, 0.0]), np.asarray([1.0, step])
        assert np.abs(np.asarray(gradient(along))).max() == 0.0
        assert np.asarray(gradient(across))[1] * step == pytest.approx(2 * step**2)
        assert np.asarray(bend(across))[1, 1] == pytest.approx(2)


def test_pairs_that_are_none_are_refused(float64):
    F = loss_of(2)
    W = ls.global_minimum(F.teacher, [0, 0, 1])
    with pytest.raises(ValueError, match="rays of teachers"):
        ls.parallel_pair(F, W, (0, 2))
    with pytest.raises(ValueError, match="not a global minimum"):
        ls.parallel_pair(F, 1.1 * W)
    with pytest.raises(ValueError, match="two different"):
        ls.parallel_pair(F, W, (1, 1))
    with pytest.raises(ValueError, match="direction is 0 or parallel"):
        ls.parallel_pair(F, W, (0, 1), jnp.asarray([-2.0, 0.0]))
