"""Cells of central and affine arrangements, counted and listed independently."""

import itertools
import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import linprog

import jaxrelu as jr
from jaxrelu.realization import cells, num_cells
from jaxrelu.realization._arrangement import exactly_parallel, group_rows
from jaxrelu.realization._rational import (
    group_integer_rows,
    integer_half_cells,
    integer_row,
)


def network(rows, dtype=jnp.float32):
    rows = jnp.asarray(np.array(rows), dtype)
    return jr.Shallow(rows, jnp.ones(rows.shape[0], dtype))


def feasible(rows):
    """Whether some x has <r, x> >= 1 for every row: an open cone is not empty."""
    count, dimension = rows.shape
    done = linprog(
        np.zeros(dimension),
        A_ub=-rows,
        b_ub=-np.ones(count),
        bounds=[(None, None)] * dimension,
        method="highs",
    )
    return done.status == 0


def brute_force(rows):
    """All patterns of all 2^k signs, each decided by its own linear program."""
    rows = np.asarray(rows, float)
    alive = (rows != 0).any(axis=1)
    found = set()
    for signs in itertools.product((1, -1), repeat=int(alive.sum())):
        if feasible(rows[alive] * np.array(signs)[:, None]):
            pattern = np.zeros(len(rows), bool)
            pattern[alive] = np.array(signs) > 0
            found.add(tuple(pattern.tolist()))
    return found


def as_set(found):
    assert len(set(map(tuple, found.patterns.tolist()))) == len(found)
    return set(map(tuple, found.patterns.tolist()))


def braid(n):
    """The planes x_i = x_j: n! cells, one for each order of the coordinates."""
    pairs = itertools.combinations(range(n), 2)
    return [[(q == i) - (q == j) for q in range(n)] for i, j in pairs]


def type_b(n):
    """Coordinate planes and x_i = ±x_j: 2^n n! cells."""
    mirrored = [[abs(x) for x in row] for row in braid(n)]
    return [*np.eye(n, dtype=int).tolist(), *braid(n), *mirrored]


# ---------------------------------------------------------------------------- counts


@pytest.mark.parametrize("d", [1, 2, 3, 4])
@pytest.mark.parametrize("h", [1, 2, 4, 6])
def test_number_of_cells_in_general_position(h, d):
    """Schläfli's count against linear programs over all 2^h sign vectors."""
    rows = np.random.default_rng(h * 10 + d).standard_normal((h, d))
    if d == 1:
        rows, h = rows[:1], 1
    assert num_cells(h, d) == len(brute_force(rows))


def test_number_of_cells_at_the_ends():
    assert num_cells(0, 3) == 1
    assert num_cells(7, 9) == 2**7
    # the recursion behind it: inserting a plane splits what it meets
    for h, d in itertools.product(range(1, 9), range(2, 6)):
        assert num_cells(h + 1, d) == num_cells(h, d) + num_cells(h, d - 1)
    with pytest.raises(ValueError, match="expected h >= 0 and d >= 1"):
        num_cells(3, 0)


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (np.eye(5).tolist(), 2**5),
        (braid(3), math.factorial(3)),
        (braid(4), math.factorial(4)),
        (braid(5), math.factorial(5)),
        (type_b(3), 2**3 * math.factorial(3)),
        (type_b(4), 2**4 * math.factorial(4)),
        ([[1, 0], [0, 1], [1, 1], [2, 2], [-1, 0], [0, 0]], 6),
        ([[0, 0, 0]], 1),
        ([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, -1, 0], [0, 0, 1]], 16),
    ],
    ids=["axes", "A2", "A3", "A4", "B3", "B4", "parallel", "none", "near pencil"],
)
@pytest.mark.parametrize("method", ["recursion", "rational"])
def test_counts_of_degenerate_arrangements(rows, count, method):
    """Reflection arrangements have as many cells as their group has elements."""
    assert len(cells(network(rows), method=method)) == count


def test_counts_by_linear_programs():
    for rows, count in ((braid(4), 24), (type_b(3), 48), ([[0, 0]], 1)):
        assert len(cells(network(rows), method="lp")) == count


# ------------------------------------------------------------------- lists of patterns


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_every_method_lists_the_same_cells(data):
    """Small integer rows: parallel, opposite, coplanar, repeated, zero."""
    d = data.draw(st.integers(1, 4))
    entry = st.integers(-2, 2)
    rows = data.draw(st.lists(st.lists(entry, min_size=d, max_size=d), min_size=1))
    rows = rows[:6]
    expected = brute_force(rows)
    for method in ("recursion", "rational", "lp"):
        assert as_set(cells(network(rows), method=method)) == expected


@pytest.mark.parametrize("method", ["recursion", "rational", "lp"])
@pytest.mark.parametrize(("k", "d"), [(9, 2), (8, 3), (7, 4), (4, 6)])
def test_points_lie_in_their_cells(k, d, method, dtype):
    net = network(np.random.default_rng(k).standard_normal((k, d)), dtype)
    found = cells(net, method=method)
    assert len(found) == num_cells(k, d)
    z = found.points @ np.asarray(net.inner, float).T
    np.testing.assert_array_equal(z > 0, found.patterns)
    assert np.abs(z).min() > 1e-9


def test_no_sampled_pattern_is_missing():
    rng = np.random.default_rng(9)
    net, x = network(rng.standard_normal((9, 4))), rng.standard_normal((2000, 4))
    z = x @ np.asarray(net.inner, float).T
    seen = {tuple(row) for row in (z > 0).tolist()}
    listed = as_set(cells(net))
    assert seen <= listed
    assert len(seen) > len(listed) / 2


def test_larger_arrangements_agree():
    """Six random and four coplanar normals in R^5, against integers."""
    rng = np.random.default_rng(5)
    rows = rng.integers(-9, 10, (11, 5)).astype(float)
    rows[3] = rows[0] + rows[1]
    rows[4] = rows[0] - 2 * rows[1]
    rows[5] = -3 * rows[2]
    rows[6, :4] = 0
    net = network(rows)
    assert as_set(cells(net)) == as_set(cells(net, method="rational"))


def test_opposite_cells_come_in_pairs():
    listed = as_set(cells(network(np.random.default_rng(3).standard_normal((6, 3)))))
    assert {tuple(not on for on in pattern) for pattern in listed} == listed


def test_cells_of_a_network_with_biases():
    """Affine lines in general position: 1 + h + h(h-1)/2 cells, points inside."""
    rows = np.random.default_rng(4).standard_normal((6, 3)).astype(np.float32)
    inner, bias = jnp.asarray(rows[:, :2]), jnp.asarray(rows[:, 2])
    net = jr.DenseNetwork((inner, jnp.ones((1, 6))), (bias, None))
    for method in ("recursion", "rational"):
        found = cells(net, method=method)
        assert len(found) == 1 + 6 + 15
        z = found.points @ np.asarray(inner, float).T + np.asarray(bias, float)
        np.testing.assert_array_equal(z > 0, found.patterns)


# ------------------------------------------------------------------- parallel rows


def test_parallel_to_within_the_tolerance():
    """Angles 1e-7 and 1e-11 apart, for a tolerance of 1e-9."""
    base = np.array([0.3, -1.0])
    far = base + np.array([1e-7, 0.0])
    near = -4 * (base + np.array([1e-11, 0.0]))
    rows = np.stack([base, far, near, np.zeros(2), 2 * far])
    first, group, orientation = group_rows(rows, 1e-9)
    assert first.tolist() == [0, 1]
    assert group.tolist() == [0, 1, 0, -1, 1]
    assert orientation.tolist() == [1, 1, -1, 1, 1]
    assert exactly_parallel(base, -2 * base)
    assert not exactly_parallel(base, near)


def test_grouping_many_rows():
    """Repeated, rescaled and flipped rows among random ones, in shuffled order."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((200, 3))
    scale = rng.choice([-4.0, -0.5, 1.0, 3.0], 600)
    label = rng.permutation(np.repeat(np.arange(200), 3))
    first, group, orientation = group_rows(scale[:, None] * rows[label], 1e-9)
    assert len(first) == 200
    for g in range(200):
        members = np.flatnonzero(group == g)
        assert len(set(label[members])) == 1
        np.testing.assert_array_equal(
            orientation[members], np.sign(scale[members] * scale[first[g]])
        )


def test_integer_rows_are_those_of_the_floats():
    assert integer_row([0.5, -0.75]) == (2, -3)
    assert integer_row([Fraction(1, 3), 2]) == (1, 6)
    planes, group, orientation = group_integer_rows([(2, -4), (0, 0), (-3, 6), (1, 0)])
    assert planes == [(1, -2), (1, 0)]
    assert group == [0, -1, 0, 1]
    assert orientation == [1, 1, -1, 1]


def test_integer_cells_hold_their_points():
    rows = [integer_row(r) for r in type_b(3)]
    for signs, point in integer_half_cells(rows).items():
        for sign, row in zip(signs, rows, strict=True):
            assert sign * sum(a * x for a, x in zip(row, point, strict=True)) > 0


# ------------------------------------------------------------------------- refusals


def test_too_many_cells_are_refused_with_the_number():
    net = network(np.random.default_rng(0).standard_normal((60, 10)))
    with pytest.raises(ValueError, match=f"{num_cells(60, 10):,} cells"):
        cells(net)


def test_memory_is_asked_for(monkeypatch):
    monkeypatch.setenv("JAXRELU_MEMORY_LIMIT", "1000")
    net = network(np.random.default_rng(0).standard_normal((12, 4)))
    with pytest.raises(jr.MemoryRefusedError, match="bounds"):
        cells(net)


def test_bad_networks_are_refused():
    with pytest.raises(TypeError, match="expected relu"):
        cells(jr.Shallow(jnp.ones((2, 2)), jnp.ones(2), "tanh"))
    with pytest.raises(TypeError, match="one hidden layer"):
        cells(jr.DenseNetwork((jnp.ones((2, 2)),) * 3))
    with pytest.raises(ValueError, match="NaN"):
        cells(network([[np.nan, 1.0]]))
    with pytest.raises(ValueError, match="tolerance"):
        cells(network([[1.0, 1.0]]), tolerance=-1.0)
