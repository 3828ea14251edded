"""Splitting and adding neurons: against autodiff, differences and brute force."""

import jax
import jax.numpy as jnp
import jax.random as jrandom
import mpmath
import numpy as np
import pytest
import scipy.optimize
from _draws import normal

from jaxrelu import RESULTS, PopulationLoss, Shallow, hessian
from jaxrelu.landscape import (
    add_neuron,
    certify_minimum,
    escape,
    new_neuron_descent,
    origin_maximum,
    split,
    split_hessian,
    split_verdict,
    symmetric_minimum,
)


def general(getkey, dtype, n=3, k=2, d=4):
    """A teacher and a student with outer weights of both signs."""
    draw = lambda *shape: jnp.asarray(normal(getkey(), shape, dtype))
    outer = np.asarray([1.5, -0.7, 0.4, 2.0], dtype)
    teacher = Shallow(draw(k, d), jnp.asarray(outer[1 : k + 1]))
    return PopulationLoss(teacher), Shallow(draw(n, d), jnp.asarray(outer[:n]))


def second(k, dtype=jnp.float64):
    """Type II: the published spurious minima."""
    objective = PopulationLoss(Shallow.orthonormal(k, dtype=dtype))
    return objective, symmetric_minimum("II", k).weights(dtype)


def kernel(c):
    """f of unit vectors, from the cosine, in numpy."""
    theta = np.arccos(np.clip(c, -1, 1))
    return (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / (2 * np.pi)


def loss_by_numpy(objective, inner, outer=None):
    """F of many students (..., n, d) at once."""
    teacher, inner = objective.teacher, np.asarray(inner, float)
    outer = np.ones(inner.shape[-2]) if outer is None else np.asarray(outer, float)
    signs = np.concatenate([outer, -np.asarray(teacher.outer, float)])
    v = np.asarray(teacher.inner, float)
    v = np.broadcast_to(v, (*inner.shape[:-2], *v.shape))
    rows = np.concatenate([inner, v], axis=-2)
    norms = np.linalg.norm(rows, axis=-1)
    units = rows / np.where(norms > 0, norms, 1)[..., None]
    values = kernel(units @ units.swapaxes(-1, -2))
    sizes = signs * norms
    return np.einsum("...i,...ij,...j->...", sizes, values, sizes) / 2


def inertia(values, zero=1e-9):
    return int((values < -zero).sum()), int((values > zero).sum())


# ------------------------------------------------------------------ split and add


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_split_keeps_the_function(getkey, dtype):
    objective, student = general(getkey, dtype)
    x = jnp.asarray(normal(getkey(), (50, 4), dtype))
    eps = float(jnp.finfo(dtype).eps)
    gradient = np.asarray(objective.gradient(student))
    for i in range(3):
        halves = split(student, i, 0.3)
        assert halves.inner.dtype == dtype
        np.testing.assert_allclose(halves(x), student(x), rtol=0, atol=40 * eps)
        rows = objective.gradient(halves)
        expected = np.insert(gradient, i, gradient[i], axis=0)
        np.testing.assert_allclose(rows, expected, rtol=0, atol=60 * eps)


def test_split_of_an_array_at_the_ends_and_traced(float64):
    w = np.arange(6.0).reshape(3, 2) + 1
    whole = split(w, 1, 1.0)
    np.testing.assert_array_equal(whole, [w[0], w[1], 0 * w[1], w[2]])
    every = jax.jit(jax.vmap(lambda i, alpha: split(w, i, alpha)))
    i, alpha = np.arange(3), np.asarray([0.25, 0.5, 0.75])
    stacked = np.asarray(every(i, alpha))
    for j in range(3):
        np.testing.assert_array_equal(stacked[j], split(w, j, float(alpha[j])))


def test_add_neuron(getkey, dtype):
    _, student = general(getkey, dtype)
    more = add_neuron(student, outer=-2.0)
    assert np.asarray(more.outer)[-1] == -2
    assert not np.asarray(more.inner)[-1].any()
    x = jnp.asarray(normal(getkey(), (50, 4), dtype))
    np.testing.assert_array_equal(more(x), student(x))
    row = np.ones(4, dtype)
    added = add_neuron(student.inner, jnp.asarray(row))
    np.testing.assert_array_equal(added, np.concatenate([student.inner, row[None]]))


def test_bad_input(float64):
    objective, w = second(6)
    operator = hessian(objective, w)
    with pytest.raises(IndexError, match="from 0 to 5"):
        split(w, 6)
    with pytest.raises(ValueError, match=r"alpha is 1\.5"):
        split(w, 0, 1.5)
    for wrong in (w[0], w[None]):
        for change in (lambda x: split(x, 0), add_neuron):
            with pytest.raises(ValueError, match="expected 2 axes"):
                change(wrong)
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        split_hessian(operator, 0, 1.0)
    with pytest.raises(IndexError):
        escape(objective, w, -1)
    with pytest.raises(ValueError, match="direction"):
        escape(objective, w, 0, direction=jnp.zeros(6))
    with pytest.raises(ValueError, match=r"expected \(6,\)"):
        add_neuron(w, jnp.ones(5))
    with pytest.raises(ValueError, match="use Shallow"):
        add_neuron(w, outer=2.0)
    with pytest.raises(ValueError, match="outer is 0"):
        new_neuron_descent(objective, w, jrandom.key(0), outer=0.0)
    with pytest.raises(ValueError, match="is zero"):
        split_verdict(objective, w.at[2].set(0))
    for wrong in (1.5, True, jnp.asarray(1.0), np.arange(2)):
        for use in (
            lambda i: split(w, i),
            lambda i: split_hessian(operator, i),
            lambda i: jax.jit(lambda j: split(w, j))(i),
        ):
            with pytest.raises(TypeError, match="expected an integer"):
                use(wrong)
    with pytest.raises(TypeError, match="expected an integer"):
        escape.__wrapped__(objective, w, 1.7)
    with pytest.raises(ValueError, match="num_starts is -1"):
        new_neuron_descent(objective, w, jrandom.key(0), num_starts=-1)
    with pytest.raises(ValueError, match="num_starts is -1"):
        origin_maximum(objective, jrandom.key(0), num_starts=-1)
    with pytest.raises(TypeError, match=r"num_starts is 2\.5"):
        new_neuron_descent.__wrapped__(objective, w, jrandom.key(0), num_starts=2.5)
    with pytest.raises(ValueError, match="NaN"):
        add_neuron(w, jnp.full(6, jnp.nan))
    with pytest.raises(ValueError, match="a number, of one neuron"):
        add_neuron(w, outer=jnp.ones(2))
    one = add_neuron(w, outer=jnp.asarray(1.0))
    np.testing.assert_array_equal(one, np.concatenate([w, np.zeros((1, 6))]))


def test_shares_that_vanish_in_their_dtype(dtype):
    """Refused where α or 1 - α is 0 in the dtype; finite and right next to it."""
    w = np.eye(3).astype(dtype) * np.asarray([1.0, -0.9, 0.5], dtype)
    objective = PopulationLoss(jnp.asarray(np.eye(3, dtype=dtype)))
    operator = hessian(objective, jnp.asarray(w))
    eps = float(jnp.finfo(dtype).eps)
    lost = [1 - 1e-9, 1e-50, 1e-40] if dtype == np.float32 else [5e-324, 1e-310]
    for alpha in lost:
        with pytest.raises(ValueError, match=f"in {np.dtype(dtype).name}; expected"):
            split_hessian(operator, 1, alpha)
        with pytest.raises(ValueError, match="at 0 and 1 a neuron is zero"):
            escape(objective, jnp.asarray(w), 1, alpha)
    own = np.asarray(operator.as_matrix(), np.float64)[3:6, 3:6] - np.eye(3) / 2
    for alpha in (1 - eps, 1e-30):
        dense = np.asarray(split_hessian(operator, 1, alpha).as_matrix(), np.float64)
        assert np.isfinite(dense).all()
        for start, share in ((3, alpha), (6, 1 - alpha)):
            found = dense[start : start + 3, start : start + 3]
            expected = np.eye(3) / 2 + own / share
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=64 * eps * scale)


# ------------------------------------------------------------------ the Hessian


def test_split_hessian_is_that_of_automatic_differentiation(getkey, float64):
    objective, student = general(getkey, float64)
    operator = hessian(objective, student)

    @jax.jit
    def by_differentiation(network):
        loss = lambda inner: objective(Shallow(inner, network.outer))
        size = network.inner.size
        return jax.hessian(loss)(network.inner).reshape(size, size)

    made = jax.jit(lambda i, alpha: split_hessian(operator, i, alpha).as_matrix())
    for i, alpha in ((0, 0.3), (1, 0.5), (2, 0.9)):
        dense = made(i, alpha)
        expected = by_differentiation(split(student, i, alpha))
        scale = float(jnp.abs(expected).max())
        atol = 100 * float(jnp.finfo(float64).eps) * scale
        np.testing.assert_allclose(dense, expected, rtol=0, atol=atol)


def test_inertia_adds_up_for_every_share(getkey, float64):
    """At points that are not critical, too, with zero eigenvalues only along w_i."""
    objective, student = general(getkey, float64)
    operator = hessian(objective, student)
    whole = np.linalg.eigvalsh(np.asarray(operator.as_matrix()))
    own = np.asarray(operator.own_blocks())
    shares = (0.01, 0.5, 0.8)
    matrices = jax.jit(
        jax.vmap(
            lambda i, alpha: split_hessian(operator, i, alpha).as_matrix(),
        )
    )(np.repeat(np.arange(3), 3), np.asarray(shares * 3))
    seen = set()
    for place, matrix in enumerate(np.asarray(matrices)):
        part = inertia(np.linalg.eigvalsh(own[place // 3]))
        seen.add(part)
        expected = tuple(np.add(inertia(whole), part))
        assert inertia(np.linalg.eigvalsh(matrix)) == expected
    assert len(seen) > 1
    # the formula with Kronecker products
    c = np.sqrt([0.7 / 0.3, 0.3 / 0.7]) * [1, -1]
    p = np.zeros((3, 4))
    p[[0, 1, 1, 2], [0, 1, 2, 3]] = 1
    e = np.array([0, *c, 0])
    lifted = np.kron(p, np.eye(4))
    made = lifted.T @ np.asarray(operator.as_matrix()) @ lifted
    made += np.kron(np.outer(e, e), own[1])
    np.testing.assert_allclose(
        split_hessian(operator, 1, 0.3).as_matrix(), made, rtol=0, atol=1e-14
    )


def test_antisymmetric_sector_of_an_even_split(float64):
    objective, w = second(6)
    operator = hessian(objective, w)
    own = np.asarray(operator.own_blocks())[5]
    matrix = np.asarray(hessian(objective, split(w, 5)).as_matrix())
    sector = np.zeros((42, 6))
    sector[30:36], sector[36:] = np.eye(6), -np.eye(6)
    image = matrix @ sector
    np.testing.assert_allclose(image[30:36], 2 * own, rtol=0, atol=1e-14)
    np.testing.assert_allclose(image[36:], -2 * own, rtol=0, atol=1e-14)
    np.testing.assert_allclose(image[:30], 0, rtol=0, atol=1e-14)
    # exactly d - 1 negative directions, at every share
    for alpha in (0.5, 0.05):
        values = np.linalg.eigvalsh(split_hessian(operator, 5, alpha).as_matrix())
        assert inertia(values) == (5, 36)


# ------------------------------------------------------------------ the verdict


def test_verdict_at_a_spurious_minimum(float64):
    objective, w = second(6)
    verdict = split_verdict(objective, w)
    np.testing.assert_array_equal(verdict.num_negative, 5)
    assert bool(verdict.every_split_is_saddle)
    assert bool(verdict.theorem_14)
    assert 5.9 < float(verdict.norm_sum) < 6
    assert bool(verdict.within_norm_limits)
    assert float(np.sum(verdict.norm_limits)) == 36
    bounds = np.asarray(verdict.trace_bounds)
    assert (np.asarray(verdict.traces) <= bounds).all()
    assert bounds[int(verdict.longest)] < 0
    means = np.asarray(verdict.eigenvalues).mean(1)
    np.testing.assert_allclose(verdict.traces, means, rtol=0, atol=1e-15)
    text = str(verdict)
    assert text.count("every split is a saddle") == 6
    assert "Theorem 14: met" in text
    # the curvature along (u, -u), by second differences of F
    alpha, t = 0.3, 1e-3
    start = split(w, 5, alpha)
    u, start = np.asarray(verdict.directions)[5], np.asarray(start)
    move = np.zeros_like(start)
    move[5:7] = u, -u
    low, middle, high = (float(objective(start + s * t * move)) for s in (-1, 0, 1))
    difference = (low - 2 * middle + high) / t**2
    curvature = float(np.asarray(verdict.curvature(alpha))[5])
    assert difference == pytest.approx(curvature, abs=2e-2 * abs(curvature))
    assert curvature < -0.3
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"expected a number in \(0, 1\)"):
            verdict.curvature(share)


def test_verdict_where_a_split_is_no_saddle(dtype):
    """At the global minimum H' vanishes, and no hypothesis of Theorem 14 on F holds."""
    objective = PopulationLoss(Shallow.orthonormal(6, dtype=dtype))
    verdict = split_verdict(objective, objective.teacher)
    assert not np.asarray(verdict.saddle).any()
    assert not bool(verdict.theorem_14)
    assert verdict.eigenvalues.dtype == dtype
    assert "no negative curvature" in str(verdict)
    assert bool(verdict.within_norm_limits)
    far = split_verdict(objective, np.asarray(7 * np.eye(6), dtype))
    assert bool(far.orthonormal)
    assert not bool(far.within_norm_limits)


def test_limits_do_not_apply_to_other_teachers(getkey, float64):
    objective, student = general(getkey, float64)
    verdict = split_verdict(objective, student)
    assert np.isnan(verdict.trace_bounds).all()
    assert np.isnan(verdict.norm_limits).all()
    assert not bool(verdict.theorem_14)
    assert not bool(verdict.within_norm_limits)


# ------------------------------------------------------------------ first order


def test_descent_of_a_zero_neuron(getkey, float64):
    objective, w = second(6)
    expected = -0.036042781817
    found = new_neuron_descent(objective, w, getkey(), num_starts=16)
    assert found.result == RESULTS.successful
    assert float(found.value) == pytest.approx(expected, abs=1e-12)
    assert float(found.error) < 1e-12
    assert int(found.num_reached) > 10
    fall = float(objective(w)) - float(objective(add_neuron(w, found.neuron)))
    assert fall == pytest.approx(float(found.decrease), abs=1e-13)
    assert float(found.decrease) == pytest.approx(expected**2, abs=1e-13)
    zero = add_neuron(w)
    direction = np.zeros_like(zero)
    direction[-1] = found.direction
    slope = objective.directional_derivative(zero, direction)
    assert float(slope) == pytest.approx(expected, abs=1e-12)


def test_descent_of_a_zero_neuron_by_brute_force(getkey, float64):
    """In the plane, with weights of both signs and a negative new one."""
    objective, student = general(getkey, float64, n=3, k=2, d=2)
    angle = np.linspace(0, 2 * np.pi, 200_001)
    u = np.stack([np.cos(angle), np.sin(angle)], 1)
    rows = np.concatenate([student.inner, objective.teacher.inner]).astype(float)
    signs = [np.asarray(student.outer), -np.asarray(objective.teacher.outer)]
    signs = np.concatenate(signs).astype(float)
    norms = np.linalg.norm(rows, axis=1)
    slopes = kernel(u @ (rows / norms[:, None]).T) @ (signs * norms)
    for outer in (0.5, -2.0):
        found = new_neuron_descent(objective, student, getkey(), outer=outer)
        lowest = (outer * slopes).min()
        tolerance = 1e-8 + 4 * float(found.error)
        assert float(found.value) == pytest.approx(lowest, abs=tolerance)
        more = add_neuron(student, found.neuron, outer=outer)
        before, after = (
            loss_by_numpy(objective, s.inner, s.outer) for s in (student, more)
        )
        assert before - after == pytest.approx(float(found.decrease), abs=1e-13)


def test_origin_is_a_strict_local_maximum(getkey, float64):
    objective = PopulationLoss(Shallow.orthonormal(2))
    found = origin_maximum(objective, getkey())
    assert bool(found.is_strict)
    assert bool(found.proved)
    angle = np.linspace(0, 2 * np.pi, 100_001)
    slopes = kernel(np.cos(angle)) + kernel(np.sin(angle))
    assert float(found.slope) == pytest.approx(slopes.min(), abs=1e-9)
    students = normal(getkey(), (500, 3, 2))
    sums = np.linalg.norm(students, axis=2).sum(1)[:, None, None]
    shares = np.random.default_rng(1).uniform(1e-3, 1, (500, 1, 1))
    radius = float(found.radius)
    near = students / sums * radius * shares
    # the worst direction, all the way, and beyond
    worst = np.stack([np.asarray(found.direction) * radius * 0.999 / 3] * 3)
    near = np.concatenate([near, [worst, worst * 1.002, np.zeros((3, 2))]])
    *losses, last, beyond, origin = loss_by_numpy(objective, near)
    assert (np.asarray([*losses, last]) < origin).all()
    assert beyond > origin


def test_origin_with_one_teacher_direction(getkey):
    """k = 1: along -v the loss rises like |w|²/4. In single precision."""
    dtype = jnp.dtype("float32")
    v = np.asarray([[1.0, 2.0, 2.0]], dtype)
    alone = PopulationLoss(jnp.asarray(np.concatenate([v, 2 * v])))
    found = origin_maximum(alone, getkey(), num_starts=4)
    assert not bool(found.is_strict)
    assert bool(found.proved)
    assert found.slope.dtype == dtype
    assert float(found.slope) == 0
    rise = float(alone(np.float32(-0.1) * v)) - float(alone(0 * v))
    atol = 400 * float(jnp.finfo(dtype).eps)
    assert rise == pytest.approx(0.25 * 0.09, abs=atol)


# ------------------------------------------------------------------ the way down


def descended(objective, start, tolerance):
    """A quasi-Newton descent, and Newton's method from where it ends."""
    shape = start.shape

    def function(x):
        w = x.reshape(shape)
        return float(objective(w)), np.asarray(objective.gradient(w)).ravel()

    options = {"maxiter": 500, "gtol": tolerance, "ftol": 0.0, "maxcor": 30}
    x = scipy.optimize.minimize(
        function, np.asarray(start).ravel(), jac=True, method="L-BFGS-B",
        options=options,
    ).x  # fmt: skip
    for _ in range(6):
        dense = np.asarray(hessian(objective, x.reshape(shape)).as_matrix())
        x = x - np.linalg.solve(dense, function(x)[1])
    return jnp.asarray(x.reshape(shape)), np.linalg.eigvalsh(dense)[0]


@pytest.mark.parametrize(
    ("k", "tolerance", "smallest", "loss"),
    [(6, 1e-3, -0.0059965599, None), (8, 1e-6, 0.0059446, 0.0205607918)],
)
def test_split_of_the_flipped_neuron(k, tolerance, smallest, loss, float64):
    """The published numbers of n = k + 1: a saddle at k = 6, a minimum at k = 8."""
    objective, w = second(k)
    way = escape(objective, w, k - 1)
    assert way.result == RESULTS.successful
    assert float(way.curvature) < 0
    for point, fall in zip(way.students, np.asarray(way.decreases), strict=True):
        assert float(fall) > 1e-4
        drop = float(objective(w)) - float(objective(point))
        assert drop == pytest.approx(float(fall), abs=1e-14)
    end, lowest = descended(objective, way.student, tolerance)
    assert np.linalg.norm(np.asarray(objective.gradient(end))) < 1e-13
    assert lowest == pytest.approx(smallest, abs=1e-7)
    certificate = certify_minimum(objective, end)
    assert certificate.holds == (k == 8)
    if loss is not None:
        low, high = certificate.loss
        assert low - 5e-11 <= loss <= high + 5e-11
        assert certificate.verdict == "spurious"


def test_split_of_a_regular_neuron_leads_to_the_global_minimum(float64):
    objective, w = second(6)
    outer = jnp.asarray(np.ones(6))
    way = escape(objective, Shallow(w, outer), 0, 0.3)
    assert isinstance(way.student, Shallow)
    start = np.asarray(way.student.inner)

    def function(x):
        w = x.reshape(7, 6)
        return float(objective(w)), np.asarray(objective.gradient(w)).ravel()

    end = scipy.optimize.minimize(
        function, start.ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": 400, "ftol": 0.0, "gtol": 1e-9},
    )  # fmt: skip
    assert end.fun < 1e-7  # a cubic tail


def test_escape_finds_the_lowest_point_of_the_line(getkey, float64):
    objective, w = second(6)
    direction = normal(getkey(), 6)
    way = escape(objective, w, 2, 0.4, direction)
    unit = direction / np.linalg.norm(direction)
    start = np.asarray(split(w, 2, 0.4))
    move = np.zeros_like(start)
    move[2:4] = unit, -unit
    grid = np.linspace(-3, 3, 6001)[:, None, None]
    lowest = loss_by_numpy(objective, start + grid * move).min()
    best = float(objective(w)) - float(way.decrease)
    assert best <= lowest + 1e-14
    assert best >= lowest - 1e-6
    own = np.asarray(hessian(objective, w).own_blocks())[2]
    exact = float(unit @ own @ unit) * (1 / 0.4 + 1 / 0.6)
    assert float(way.curvature) == pytest.approx(exact, abs=1e-12)


def test_kernel_of_this_file_is_right():
    """By mpmath's quadrature of the plane in polar coordinates."""
    theta = mpmath.mpf(1)
    radial = 2 / (2 * mpmath.pi)
    angular = mpmath.quad(
        lambda t: mpmath.cos(t) * mpmath.cos(t - theta),
        [theta - mpmath.pi / 2, mpmath.pi / 2],
    )
    assert kernel(np.cos(1.0)) == pytest.approx(float(radial * angular), abs=1e-14)
