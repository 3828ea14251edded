"""Bounds of the semi-norm, what an error covers, and what is refused."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _realization_cases import (
    NORMS,
    degenerate_network,
    network,
    random_network,
)
from hypothesis import example, given, settings, strategies as st

import jaxrelu as jr
from jaxrelu.realization import (
    bounds,
    cells,
    distance,
    sampled_seminorm,
    seminorm,
    seminorm_value,
    supnorm,
)


# ------------------------------------------------------------------------------ bounds


@settings(max_examples=15, deadline=None, derandomize=True)
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
    # the thin cell is within the error, unless the question was to leave it out
    assert 999 <= float(merged.error) <= 1001
    assert float(seminorm(net, tolerance=1e-13).error) < 1e-10


@pytest.mark.parametrize("d", [2, 3])
def test_cells_just_wider_than_the_tolerance_are_seen(d, float64):
    """Rows 1.5e-13 apart are two planes, and the arc between them is a cell."""
    rows = np.zeros((3, d))
    rows[:2, :2], rows[1, 1], rows[2, 1] = 1.0, 1 + 1.5e-13, 1.0
    rows = np.concatenate([rows, np.eye(d)[2:]])
    net = network(rows, [1e3, -1e3, 1.0] + [1.0] * (d - 2))
    exact = float(seminorm(net, method="rational"))
    assert exact == pytest.approx(1e3)
    for method in ("auto", "recursion"):
        got = seminorm(net, method=method)
        assert abs(float(got) - exact) <= float(got.error) < 1e-10


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from(NORMS), st.integers(1, 3))
@example(109658, "max", 3)  # two groups at once, on the line where both planes meet
def test_errors_cover_cells_between_merged_rows(seed, norm, d):
    """Copies of rows, rescaled and rounded: integers see all cells between them."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((2, d)).astype(np.float32)
    copies = rng.integers(0, 2, 4)
    factors = (rng.uniform(0.3, 3, 4) * rng.choice([-1, 1], 4)).astype(np.float32)
    inner = np.concatenate([rows, factors[:, None] * rows[copies]])
    outer = rng.standard_normal((int(rng.integers(1, 3)), 6))
    net = network(inner, outer, np.float32)
    exact = seminorm(net, norm, "rational")
    for method in ("auto", "recursion"):
        got = seminorm(net, norm, method)
        allowed = float(got.error) + float(exact.error)
        assert abs(float(got) - float(exact)) <= allowed, got.method


def test_copies_that_add_up_cost_no_accuracy(float64):
    """Between two rows of one sign the Jacobian lies between those of the sides."""
    net = network([[1, 0], [3, 3e-14], [0, 1]], [1.0, 2.0, 1.0])
    got = seminorm(net)
    assert "1 rows parallel" in got.method
    assert float(got.error) < 1e-11
    assert abs(float(got) - 7) <= float(got.error)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e12, 1e155, 1e200])
def test_scales_do_not_matter(size, float64):
    """Both layers scaled against each other, and the outer one alone."""
    net = random_network(6, 4, 2)
    a, c = np.asarray(net.inner), np.asarray(net.outer)
    expected = float(seminorm(net))
    cases = [(network(size * a, c / size), 1.0), (network(a, size * c), size)]
    for scaled, factor in cases:
        for method in ("auto", "recursion", "rational", "lp", "milp"):
            got = float(seminorm(scaled, method=method)) / factor
            assert got == pytest.approx(expected, rel=1e-10), method
        between = bounds(scaled)
        assert float(between.lower) / factor <= expected * (1 + 1e-13)
        assert expected * (1 - 1e-13) <= float(between.upper) / factor
        assert float(between.lower) / factor >= 0.4 * expected


def test_products_that_overflow_are_refused(float64):
    net = network(1e200 * np.eye(2), [1e200, 1e200])
    for method in ("auto", "rational", "bounds"):
        with pytest.raises(ValueError, match="overflow"):
            seminorm(net, method=method)


def test_the_gap_of_mixed_integer_programs_is_in_the_error(monkeypatch, float64):
    """A program stopped early: the value is low, and the error says by how much."""
    from jaxrelu.realization import _milp

    def early(cost, **kwargs):
        found = solve(cost, **kwargs)
        # the same answer, with a bound that is not met
        found.mip_dual_bound = found.fun - 0.5 * abs(cost).max()
        return found

    net = random_network(7, 4, 1)
    solve, whole = _milp.milp, seminorm(net, method="milp")
    monkeypatch.setattr(_milp, "milp", early)
    stopped = seminorm(net, method="milp")
    assert float(stopped) == float(whole)
    assert float(whole.error) < 1e-9
    assert float(stopped.error) > 0.1

    def limited(cost, **kwargs):
        found = solve(cost, **kwargs)
        found.status, found.message = 1, "Time limit reached."
        return found

    monkeypatch.setattr(_milp, "milp", limited)
    with pytest.raises(RuntimeError, match="Time limit reached"):
        seminorm(net, method="milp")


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


# ------------------------------------------------------------------- precision, errors


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
