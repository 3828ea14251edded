"""The W^{1,inf} semi-norm, its bounds, the sup norm, and their derivatives."""

import itertools
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxrelu as jr
from jaxrelu.objectives import SobolevLoss
from jaxrelu.realization import (
    bounds,
    cell_jacobian,
    cells,
    distance,
    sampled_seminorm,
    seminorm,
    seminorm_value,
    smooth_seminorm,
    sobolev_norm,
    supnorm,
)
from jaxrelu.realization._norms import host_norm, jax_norm


NORMS = ("max", "fro", "spectral", "opinf", "op1")


def network(inner, outer, dtype=None):
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    inner, outer = np.asarray(inner, float), np.asarray(outer, float)
    return jr.Shallow(
        jnp.asarray(inner.astype(dtype)), jnp.asarray(outer.astype(dtype))
    )


def random_network(k, d, m, seed=0, dtype=None):
    rng = np.random.default_rng([seed, k, d, m])
    return network(rng.standard_normal((k, d)), rng.standard_normal((m, k)), dtype)


def degenerate_network(d, m, seed, dtype=None):
    """Parallel, antiparallel, repeated and coplanar rows, a zero row, a dead one."""
    rng = np.random.default_rng([seed, d, m])
    rows = rng.integers(-2, 3, (9, d)).astype(float)
    rows[0] = 1.0
    rows[1] = 2 * rows[0]
    rows[2] = -rows[0]
    rows[3] = 0
    rows[4] = rows[0] + rows[5]
    outer = rng.standard_normal((m, 9))
    outer[:, 6] = 0
    return network(rows, outer, dtype)


def affine_network(k, d, m, seed=0):
    rng = np.random.default_rng([seed, k, d, m])
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape))
    return jr.DenseNetwork((draw(k, d), draw(m, k)), (draw(k), draw(m)))


@jax.jit
def jacobians_at(net, x):
    return jax.vmap(jax.jacrev(net))(x)


def jacobian_norms(net, points, norm):
    """Norms of Df at points, by automatic differentiation of the network itself."""
    x = jnp.asarray(points, jax.tree.leaves(net)[0].dtype)
    jacobians = jacobians_at(net, x)
    return host_norm(np.asarray(jacobians, float).reshape(len(x), -1, x.shape[1]), norm)


# -------------------------------------------------------------------- the five norms


def test_norms_are_the_operator_norms(float64):
    """As Lipschitz constants: maxima over the extreme points of the unit balls."""
    g = np.random.default_rng(0).standard_normal((3, 4))
    corners = np.array(list(itertools.product((-1, 1), repeat=4))).T
    assert host_norm(g, "opinf") == pytest.approx(np.abs(g @ corners).max())
    assert host_norm(g, "op1") == pytest.approx(np.abs(g @ np.eye(4)).sum(0).max())
    assert host_norm(g, "max") == np.abs(g @ np.eye(4)).max()
    assert host_norm(g, "fro") == pytest.approx(np.sqrt(np.trace(g @ g.T)))
    top = np.sqrt(np.linalg.eigvalsh(g.T @ g)[-1])
    assert host_norm(g, "spectral") == pytest.approx(top)
    for norm in NORMS:
        assert jax_norm(jnp.asarray(g), norm) == pytest.approx(host_norm(g, norm))


# ------------------------------------------------------------- exact methods agree


def agree(net, methods, norms=NORMS):
    points = cells(net, method="lp").points
    for norm in norms:
        expected = jacobian_norms(net, points, norm).max()
        for method in methods:
            got = seminorm(net, norm, method)
            assert abs(float(got) - expected) <= 1e-10 * max(expected, 1), method
            assert float(got.error) <= 1e-11 * max(expected, 1)


@pytest.mark.parametrize("make", ["random", "degenerate"])
@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize(("d", "sweeps"), [(2, 2), (3, 1), (4, 0)])
def test_exact_methods_agree(d, sweeps, m, make, float64):
    """Against autodiff at a point of every cell that linear programs find."""
    net = random_network(7, d, m)
    if make == "degenerate":
        net = degenerate_network(d, m, 1)
    methods = ("great-circle", "angular")[:sweeps] if sweeps else ()
    agree(net, ("recursion", "rational", *methods, "auto"))
    agree(net, ("lp", "milp"), ("max",))


def test_sweeps_of_padded_networks_agree(float64):
    """A plane without weight makes rank 2 rank 3: another method, the same answer."""
    for seed in range(5):
        flat = random_network(8, 2, 2, seed)
        inner = np.zeros((9, 3))
        inner[:8, :2], inner[8, 2] = flat.inner, 1.0
        padded = network(inner, np.column_stack([flat.outer, np.zeros(2)]))
        for norm in NORMS:
            angular, circles = seminorm(flat, norm), seminorm(padded, norm)
            assert "angular" in angular.method
            assert "great-circle" in circles.method
            assert float(angular) == pytest.approx(float(circles), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_sweeps_equal_integer_arithmetic(data):
    """Small integer weights: every coincidence that sweeps have to notice."""
    d, k = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 8))
    entries = st.lists(st.integers(-3, 3), min_size=k * d, max_size=k * d)
    inner = np.array(data.draw(entries), float).reshape(k, d)
    outer = st.lists(st.integers(-3, 3), min_size=2 * k, max_size=2 * k)
    net = network(inner, np.array(data.draw(outer), float).reshape(2, k))
    for norm in ("max", "opinf", "op1"):
        exact = seminorm(net, norm, "rational")
        assert exact.error_kind == "exact"
        assert float(exact.error) == 0
        # integers up to 8 * 9 * 3: no sum is rounded
        assert float(seminorm(net, norm)) == float(exact)
        assert float(seminorm(net, norm, "recursion")) == float(exact)


def test_larger_sweeps_equal_the_recursion(float64):
    for k, d in ((300, 2), (40, 3)):
        net = random_network(k, d, 2)
        for norm in ("max", "spectral"):
            expected = float(seminorm(net, norm, "recursion"))
            assert float(seminorm(net, norm)) == pytest.approx(expected, rel=1e-13)


def test_rank_is_reduced(float64):
    """Three planes in R^6: eight cells, and the upper bound is attained."""
    net = random_network(3, 6, 2)
    assert len(cells(net)) == 8
    assert "great-circle" in seminorm(net).method
    flat = network(np.asarray(net.inner) @ np.eye(6)[:, :2] @ np.eye(2, 6), net.outer)
    assert "angular" in seminorm(flat).method
    agree(flat, ("rational", "angular"), ("max",))


def test_closed_forms_of_one_and_two_neurons(float64):
    net = random_network(2, 3, 2, 5)
    a, c = np.asarray(net.inner), np.asarray(net.outer)
    one = network(a[:1], c[:, :1])
    for norm in NORMS:
        parts = [np.outer(c[:, i], a[i]) for i in (0, 1)]
        norms = [float(host_norm(g, norm)) for g in (*parts, parts[0] + parts[1])]
        assert float(seminorm(one, norm)) == pytest.approx(norms[0])
        assert float(seminorm(net, norm)) == pytest.approx(max(norms))


# --------------------------------------------------------------------- pathologies


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_pathologies(k, float64):
    """Spot values of Berner, Elbrächter & Grohs' examples, worked out on paper."""
    exploding = network([[k, 0], [k, -1 / k**2]], [k, -k])
    assert float(seminorm(exploding)) == pytest.approx(k**2)
    assert float(supnorm(exploding, 1.0)) == pytest.approx(1 / k)
    unbalanced = network([[1, 0]], [0.0]), network([[0, 1]], [1 / k])
    assert float(distance(*unbalanced)) == pytest.approx(1 / k)
    redundant = network([[1, 0], [1, 0]], [1.0, 1]), network(np.eye(2), [2.0, 1 / k])
    assert float(distance(*redundant)) == pytest.approx(1 / k)
    a = np.array([[1, 0], [-0.5, 1], [-0.5, -1]])
    opposite = network(np.concatenate([a, -a]), [1.0] * 3 + [-1.0] * 3)
    assert float(seminorm(opposite)) == 0
    slope = network([[0, 1]], [1 / k])
    assert float(distance(slope, opposite)) == pytest.approx(1 / k)
    r = np.sqrt(2)
    b = np.array([[k, k, 1 / k], [-k, k, 1 / k], [0, -r * k, 1 / (r * k)]])
    c = k * np.array([1, 1, r])
    assert float(distance(network(b, c), network(-b, c))) == pytest.approx(3, rel=1e-9)


def test_a_network_is_at_distance_zero_from_its_copies(float64):
    net = random_network(6, 3, 2)
    scale = np.array([0.5, 3.0, 1e3, 1e-3, 7.0, 1.0])
    order = np.array([3, 1, 5, 0, 2, 4])
    inner = np.asarray(net.inner) * scale[:, None]
    outer = np.asarray(net.outer) / scale
    copy = network(inner[order], outer[:, order])
    got = distance(net, copy)
    assert float(got) <= 1e-13
    assert float(got) <= float(got.error)


# ---------------------------------------------------------------------- properties


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.integers(2, 4))
def test_semi_norm_properties(seed, norm, d):
    """Homogeneity, the triangle inequality, invariance; G(s) + G(-s) = T."""
    rng = np.random.default_rng(seed)
    f, g = random_network(5, d, 2, seed), random_network(4, d, 2, seed + 1)
    if seed % 3 == 0:
        f = degenerate_network(d, 2, seed)
    k = f.inner.shape[0]
    semi = lambda net: float(seminorm(net, norm))
    size, close = semi(f), {"rel": 1e-5}
    factor = rng.uniform(-3, 3)
    assert semi(network(f.inner, factor * f.outer)) == pytest.approx(
        abs(factor) * size, **close
    )
    both = semi((f, network(g.inner, -g.outer)))
    assert both <= (size + semi(g)) * (1 + 1e-5)
    assert semi((f, g)) >= abs(size - semi(g)) - 1e-5 * size
    order, scale = rng.permutation(k), 2.0 ** rng.integers(-3, 4, k)
    moved = network(
        (np.asarray(f.inner) * scale[:, None])[order],
        (np.asarray(f.outer) / scale)[:, order],
    )
    assert semi(moved) == pytest.approx(size, **close)


def test_opposite_jacobians_add_up(float64):
    net = degenerate_network(3, 2, 0)
    total = np.asarray(net.outer) @ np.asarray(net.inner)
    x = cells(net).points
    both = jacobians_at(net, jnp.asarray(x)) + jacobians_at(net, jnp.asarray(-x))
    np.testing.assert_allclose(both, np.broadcast_to(total, both.shape), atol=1e-12)


# -------------------------------------------------------------------------- bounds


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.integers(1, 4))
def test_bounds_enclose(seed, norm, d):
    rng = np.random.default_rng(seed)
    net = random_network(int(rng.integers(1, 9)), d, 2, seed)
    if seed % 2:
        net = degenerate_network(d, 2, seed)
    between = bounds(net, norm)
    exact = seminorm(net, norm, "rational")
    assert float(between.lower) <= float(exact) <= float(between.upper)
    middle = seminorm(net, norm, "bounds")
    assert middle.error_kind == "certified bound"
    assert abs(float(middle) - float(exact)) <= float(middle.error)
    if between.pattern is not None:
        at = float(seminorm_value(net, jnp.asarray(between.pattern), norm))
        assert at == pytest.approx(float(between.lower), rel=1e-5)


def test_climbs_are_lower_bounds_and_climb(float64):
    """Of cells that exist; better than the cheap bound, and here the best."""
    net = random_network(12, 4, 2)
    for norm in ("max", "spectral"):
        exact = float(seminorm(net, norm))
        cheap = float(bounds(net, norm).lower)
        key = jax.random.key(1)
        climbed = bounds(net, norm, key=key, num_starts=16, num_steps=16)
        assert "great circles" in climbed.lower_method
        assert cheap < float(climbed.lower) <= exact
        assert float(climbed.lower) >= 0.999 * exact
        again = bounds(net, norm, key=key, num_starts=16, num_steps=16)
        assert float(again.lower) == float(climbed.lower)


def test_upper_bound_is_attained_by_independent_normals(float64):
    """All sign vectors occur: one linear program proves the value, rounding apart."""
    net = random_network(6, 20, 3)
    between = bounds(net)
    assert "attained" in between.upper_method
    assert float(between.upper) - float(between.lower) < 1e-11
    assert float(seminorm(net, method="milp")) == pytest.approx(float(between.upper))
    positive, negative = np.zeros((3, 20)), np.zeros((3, 20))
    for i in range(6):
        g = np.outer(np.asarray(net.outer)[:, i], np.asarray(net.inner)[i])
        positive, negative = positive + np.maximum(g, 0), negative + np.maximum(-g, 0)
    expected = max(positive.max(), negative.max())
    assert float(between.upper) == pytest.approx(expected)


def test_nearly_parallel_rows_do_not_break_the_bounds(float64):
    """Two rows 1e-14 apart with opposite weights: a thin cell with a large gradient.

    Exact methods merge them, and say so; the rational one and the bounds do not.
    """
    net = network([[1, 0], [1, 1e-14], [0, 1]], [1e3, -1e3, 1.0])
    merged = seminorm(net)
    assert float(merged) == pytest.approx(1.0)
    assert "1 rows parallel to within 1e-13" in merged.method
    exact = seminorm(net, method="rational")
    assert float(exact) == pytest.approx(1e3)
    assert float(bounds(net).upper) >= 1e3
    assert float(seminorm(net, tolerance=1e-15)) == pytest.approx(1e3)


def test_too_many_cells_give_bounds_that_say_so():
    net = random_network(40, 12, 1)
    got = seminorm(net, "fro")
    assert got.error_kind == "certified bound"
    assert "between bounds" in got.method
    x = jnp.asarray(np.random.default_rng(0).standard_normal((99, 12)), jnp.float32)
    seen = float(sampled_seminorm(net, x, "fro"))
    assert seen <= float(got) + float(got.error)
    with pytest.raises(ValueError, match="method='bounds'"):
        seminorm(net, method="recursion")
    with pytest.raises(ValueError, match="rank at most 3"):
        seminorm(net, method="great-circle")
    with pytest.raises(ValueError, match="max_cells = 5"):
        seminorm(random_network(5, 3, 1), method="recursion", max_cells=5)


def test_doubtful_signs_are_decided_in_integers(monkeypatch, float64):
    """When the recursion cannot tell the cells, "auto" says that integers did."""
    from jaxrelu.realization import _cells, _recursion

    def doubtful(*args):
        raise _recursion.InconsistentError(_recursion.INCONSISTENT)

    net = random_network(6, 4, 2)
    expected = float(seminorm(net))
    monkeypatch.setattr(_cells, "half_cells", doubtful)
    got = seminorm(net)
    assert "integer" in got.method
    assert float(got) == pytest.approx(expected, rel=1e-13)
    with pytest.raises(RuntimeError, match="method='rational'"):
        seminorm(net, method="recursion")


# ----------------------------------------------------------------- precision, errors


def test_error_covers_the_exact_value(dtype):
    """The stored weights' rational value lies within the stated error."""
    for seed in range(4):
        net = random_network(9, 3, 2, seed, dtype)
        got = seminorm(net, "opinf")
        assert got.value.dtype == dtype
        a = [[Fraction(float(x)) for x in row] for row in np.asarray(net.inner)]
        c = [[Fraction(float(x)) for x in row] for row in np.asarray(net.outer)]
        largest = Fraction(0)
        for pattern in cells(net, method="rational").patterns:
            rows = [
                sum(
                    abs(sum(c[p][i] * a[i][q] for i in np.flatnonzero(pattern)))
                    for q in range(3)
                )
                for p in range(2)
            ]
            largest = max(largest, *rows)
        assert abs(Fraction(float(got)) - largest) <= Fraction(float(got.error))
        exact = seminorm(net, "opinf", "rational")
        assert abs(Fraction(float(exact)) - largest) <= Fraction(float(exact.error))


def test_bad_input_is_refused():
    net = random_network(3, 2, 1)
    with pytest.raises(ValueError, match="norm"):
        seminorm(net, "nuclear")
    with pytest.raises(ValueError, match="method"):
        seminorm(net, method="guess")
    with pytest.raises(ValueError, match="expected 'max'"):
        seminorm(net, "fro", "milp")
    with pytest.raises(ValueError, match="same sizes"):
        distance(net, random_network(3, 3, 1))
    with pytest.raises(ValueError, match="expected one, or a pair"):
        seminorm((net, net, net))
    with pytest.raises(ValueError, match="NaN"):
        seminorm(network([[np.nan]], [1.0]))
    with pytest.raises(TypeError, match="expected relu"):
        seminorm(jr.Shallow(net.inner, net.outer, "softplus"))


def test_a_network_without_weights_has_norm_zero(dtype):
    net = network(np.zeros((2, 3)), [1.0, 2.0], dtype)
    got = seminorm(net)
    assert float(got) == 0
    assert got.error_kind == "exact"
    assert float(supnorm(net, 1.0)) == 0
    assert float(bounds(net).upper) == 0


# ------------------------------------------------------------------------ under jax


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


@pytest.mark.parametrize(("norm", "sign"), [("max", 1), ("max", -1), ("fro", 1)])
def test_smooth_surrogate(norm, sign, float64):
    """Between the sampled maximum and tau log N above it; gradients as differences."""
    net = random_network(6, 3, 2)
    net = network(net.inner, sign * net.outer)
    x = jnp.asarray(cells(net).points)
    count = 2 * len(x) * 6 if norm == "max" else len(x)
    exact = float(seminorm(net, norm))
    assert float(sampled_seminorm(net, x, norm)) == pytest.approx(exact, rel=1e-13)
    smooth = jax.jit(lambda net, t: smooth_seminorm(net, x, t, norm))
    for temperature in (1.0, 0.1, 1e-3):
        value = float(smooth(net, temperature))
        assert exact <= value <= exact + temperature * np.log(count)
    assert float(smooth(net, 1e-3)) == pytest.approx(exact, abs=1e-2)
    few = x[:3]
    assert float(sampled_seminorm(net, few, norm)) <= exact
    grad = jax.grad(lambda net: smooth_seminorm(net, x, 0.5, norm))(net)
    v = np.random.default_rng(0).standard_normal(net.outer.shape)
    shifted = [network(net.inner, np.asarray(net.outer) + t * v) for t in (1e-6, -1e-6)]
    slope = (float(smooth(shifted[0], 0.5)) - float(smooth(shifted[1], 0.5))) / 2e-6
    assert float(np.vdot(grad.outer, v)) == pytest.approx(slope, rel=1e-6)


# ------------------------------------------------------------------ affine networks


def test_affine_semi_norm_in_one_dimension(float64):
    """Slopes between consecutive kinks, by hand."""
    net = affine_network(9, 1, 2)
    kinks = np.sort(np.asarray(-net.biases[0] / net.weights[0][:, 0]))
    middles = np.concatenate(
        [[kinks[0] - 1], (kinks[1:] + kinks[:-1]) / 2, [kinks[-1] + 1]]
    )
    for norm in NORMS:
        expected = jacobian_norms(net, middles[:, None], norm)
        for method in ("auto", "recursion", "rational"):
            assert float(seminorm(net, norm, method)) == pytest.approx(expected.max())
        inside = expected[np.abs(middles) < 0.7]
        # the cells that the end points of the box lie in
        ends = jacobian_norms(net, np.array([[-0.7 + 1e-9], [0.7 - 1e-9]]), norm)
        box = float(seminorm(net, norm, domain=0.7))
        assert box == pytest.approx(max(inside.max(initial=0), ends.max()))


def test_affine_semi_norm_in_the_plane(float64):
    """A fine grid sees the larger cells; the cells' own points see all."""
    net = affine_network(6, 2, 2)
    grid = np.stack(np.meshgrid(*[np.linspace(-40, 40, 150)] * 2), -1).reshape(-1, 2)
    points = np.concatenate([grid, cells(net).points])
    for norm in ("max", "spectral"):
        expected = jacobian_norms(net, points, norm).max()
        for method in ("auto", "great-circle", "recursion", "rational"):
            assert float(seminorm(net, norm, method)) == pytest.approx(expected)
        between = bounds(net, norm)
        assert float(between.lower) <= expected <= float(between.upper)
    inside = grid[np.abs(grid).max(1) < 1] / 1.0
    fine = np.random.default_rng(0).uniform(-1, 1, (20000, 2))
    seen = jacobian_norms(net, np.concatenate([inside, fine]), "max").max()
    for method in ("auto", "rational", "lp", "milp"):
        assert float(seminorm(net, "max", method, domain=1.0)) == pytest.approx(seen)
    key = jax.random.key(0)
    between = bounds(net, "fro", 1.0, key=key, num_starts=8, num_steps=8)
    inside = float(seminorm(net, "fro", domain=1.0))
    assert 0.9 * inside <= float(between.lower) <= inside <= float(between.upper)


def test_a_kink_outside_the_box_does_not_count():
    net = jr.DenseNetwork(
        (jnp.ones((1, 1)), jnp.ones((1, 1))), (jnp.array([-10.0]), None)
    )
    assert float(seminorm(net)) == 1
    assert float(seminorm(net, domain=1.0)) == 0
    assert float(bounds(net, domain=1.0).lower) == 0
    assert float(seminorm(net, domain=11.0)) == 1


def test_rows_that_lie_on_the_walls(float64):
    """A constant neuron is parallel to infinity, a kink at B to a side of the box."""
    inner = jnp.array([[0.0], [0.0], [1.0], [-2.0], [1.0]])
    bias = jnp.array([-1.0, 2.0, -1.0, -2.0, 0.5])
    net = jr.DenseNetwork((inner, jnp.array([[5.0, 1.0, 3.0, 4.0, 1.0]])), (bias, None))
    for method in ("auto", "rational", "lp", "milp"):
        # slopes -8, 0, 1 and 4 between the kinks -1, -1/2 and 1
        assert float(seminorm(net, "max", method)) == pytest.approx(8)
        assert float(seminorm(net, "max", method, domain=1.0)) == pytest.approx(1)
        assert float(seminorm(net, "max", method, domain=1.1)) == pytest.approx(8)
    assert len(cells(net)) == len(cells(net, method="rational")) == 4


def test_biases_that_are_zero_change_nothing(float64):
    net = degenerate_network(3, 2, 2)
    dense = jr.DenseNetwork((net.inner, net.outer), (jnp.zeros(9), jnp.ones(2)))
    for norm in ("max", "fro"):
        assert float(seminorm(dense, norm)) == pytest.approx(float(seminorm(net, norm)))
    assert float(distance(dense, net)) <= 1e-13


# ------------------------------------------------------------------------- sup norm


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("biased", [False, True])
def test_sup_norm(d, biased, float64):
    """Vertices against linear programs on every cell, and against sampling."""
    net = affine_network(5, d, 2) if biased else random_network(5, d, 2)
    by_vertices = supnorm(net, 1.5, method="vertices")
    by_programs = supnorm(net, 1.5, method="lp")
    assert float(by_vertices) == pytest.approx(float(by_programs), rel=1e-9)
    assert float(by_vertices.error) < 1e-9
    x = np.random.default_rng(0).uniform(-1.5, 1.5, (4000, d))
    seen = np.abs(np.asarray(net(jnp.asarray(x)))).max()
    assert 0.9 * float(by_vertices) < seen <= float(by_vertices) * (1 + 1e-12)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_sup_norm_between_corners(turn, float64):
    """relu(-x_2) - |x_1| / 2, turned: largest in the middle of one side."""
    inner = np.array([[1, 0], [-1, 0], [0, -1]]) @ np.linalg.matrix_power(
        np.array([[0, 1], [-1, 0]]), turn
    )
    net = network(inner, [-0.5, -0.5, 1.0])
    assert float(supnorm(net, 3.0)) == pytest.approx(3, rel=1e-13)
    dense = jr.DenseNetwork((net.inner, net.outer), (jnp.zeros(3), jnp.array(0.25)))
    assert float(supnorm(dense, 3.0)) == pytest.approx(3.25, rel=1e-13)


def test_sup_norm_of_degenerate_networks(float64):
    for d in (2, 3):
        net = degenerate_network(d, 2, 3)
        by_vertices, by_programs = supnorm(net, 2.0), supnorm(net, 2.0, method="lp")
        assert float(by_vertices) == pytest.approx(float(by_programs), rel=1e-9)


def test_sup_norm_is_at_most_dB_times_the_semi_norm(float64):
    for d, half_width in ((2, 0.5), (3, 2.0)):
        net = random_network(6, d, 2)
        limit = d * half_width * float(seminorm(net))
        assert float(supnorm(net, half_width)) <= limit
        sharp = network(np.ones((1, d)), [1.0])
        limit = d * half_width * float(seminorm(sharp))
        assert float(supnorm(sharp, half_width)) == pytest.approx(limit)


def test_full_norm(float64):
    net = random_network(6, 2, 1)
    small, large = sobolev_norm(net, 0.5), sobolev_norm(net, 50.0)
    assert float(small) == float(seminorm(net))
    assert float(large) == float(supnorm(net, 50.0)) > float(small)
    assert small.error_kind == "rounding bound"


def test_sup_norm_refusals():
    net = random_network(60, 8, 1)
    with pytest.raises(ValueError, match="candidate vertices"):
        supnorm(net, 1.0, method="vertices")
    with pytest.raises(ValueError, match="linear programs"):
        supnorm(net, 1.0)
    with pytest.raises(ValueError, match="half_width"):
        supnorm(net, 0.0)


# -------------------------------------------------------------------- Sobolev training


@pytest.mark.parametrize("m", [None, 2])
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
    assert loss(teacher) == 0
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
