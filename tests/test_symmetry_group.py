"""Symmetry up to permutations, against all of them tried one by one."""

import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.landscape.search._names import family_name, merged_students
from jaxrelu.landscape.search._symmetry import isotropy, matching, table
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss


TOLERANCE = 5e-9


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rng(request):
    """Of numpy: what is tested runs on the host."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


def orthonormal(k):
    return PopulationLoss(jnp.asarray(np.eye(k)))


def brute_force_order(w, tolerance=1e-7):
    """Pairs of permutations (rows, columns) that fix w, by trying all of them."""
    n, k = w.shape
    rows = [list(p) for p in itertools.permutations(range(n))]
    return sum(
        bool(np.abs(w[p][:, list(q)] - w).max() <= tolerance)
        for p in rows
        for q in itertools.permutations(range(k))
    )


def brute_force_same(w, u, tolerance=1e-7):
    n, k = w.shape
    return any(
        np.abs(w[list(p)][:, list(q)] - u).max() <= tolerance
        for p in itertools.permutations(range(n))
        for q in itertools.permutations(range(k))
    )


def two_blocks(p, k, a, b, c, d, e, f):
    """The general point of Δ(S_p × S_{k-p})."""
    w = np.zeros((k, k))
    w[:p, :p] = b + (a - b) * np.eye(p)
    w[p:, p:] = d + (c - d) * np.eye(k - p)
    w[:p, p:], w[p:, :p] = e, f
    return w


def circulant(*row):
    return np.array([np.roll(row, i) for i in range(len(row))])


EXAMPLES = {
    "identity": (np.eye(4), "ΔS_4", (4,)),
    "type II": (two_blocks(3, 4, 0.9, -0.1, -0.7, 0, 0.3, 0.2), "ΔS_3", (3, 1)),
    "two pairs": (two_blocks(2, 4, -0.7, 0.1, 1, 0, 0.2, 0.3), "Δ(S_2×S_2)", (2, 2)),
    "k = 5": (two_blocks(2, 5, -0.7, 0.1, 1, 0, 0.2, 0.3), "Δ(S_3×S_2)", (3, 2)),
    "blocks alike": (
        two_blocks(2, 4, 1, 0.1, 1, 0.1, 0.2, 0.2),
        "Δ(S_2×S_2) (index 2 in a group of order 8)",
        (2, 2),
    ),
    "cyclic": (
        circulant(1.0, 0.3, 0.1),
        "trivial (index 3 in a group of order 3)",
        (1, 1, 1),
    ),
    "all equal": (np.full((3, 3), 0.3), "S_3 (teachers) × S_3 (students)", (3,)),
    "split": (np.eye(3)[[0, 1, 2, 2]] * [[1], [1], [0.5], [0.5]], None, (2, 1)),
    "narrow": (np.full((1, 4), 0.5), "S_4 (teachers)", (4,)),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_isotropy_of_known_points(name, rng):
    w, expected, sizes = EXAMPLES[name]
    n, k = w.shape
    objective = orthonormal(k)
    shuffled = w[rng.permutation(n)][:, rng.permutation(k)]
    group = isotropy(table(objective, shuffled, np.ones(n)), TOLERANCE)
    assert group.order == brute_force_order(w)
    assert group.sizes == sizes
    if expected is None:
        expected = "ΔS_2 × S_2 (students)"
    assert group.name == expected


def test_isotropy_of_random_points_with_repeated_entries(rng):
    """Entries from a small set make all kinds of groups, products or not."""
    orders = set()
    for n, k in ((2, 3), (3, 3), (4, 3), (3, 4), (4, 4)):
        for _ in range(12):
            w = rng.integers(0, 2, (n, k)) / 4 + 0.1
            group = isotropy(table(orthonormal(k), w, np.ones(n)), TOLERANCE)
            assert group.order == brute_force_order(w), w
            orders.add(group.order)
    assert len(orders) > 3


def test_matching_agrees_with_brute_force(rng):
    same = 0
    for n, k in ((3, 3), (4, 3), (3, 4), (4, 4)):
        objective = orthonormal(k)
        points = [rng.integers(0, 2, (n, k)) / 2 + 0.2 for _ in range(5)]
        points += [w[rng.permutation(n)][:, rng.permutation(k)] for w in points]
        for w, u in itertools.combinations(points, 2):
            one, two = (table(objective, x, np.ones(n)) for x in (w, u))
            image = matching(one, two, TOLERANCE)
            assert (image is not None) == brute_force_same(w, u)
            same += image is not None
            if image is not None:
                assert (image[:n] < n).all()
                moved = two.products[np.ix_(image, image)]
                np.testing.assert_allclose(moved, one.products, atol=1e-7)
    assert same >= 20


def test_search_where_refinement_sees_nothing(rng):
    """Neurons and teachers in a ring of 12, or in two of 6: all look alike at first."""
    k, objective = 6, orthonormal(6)
    ring = np.eye(k) + np.roll(np.eye(k), 1, axis=1) + 0.1
    half = np.eye(3) + np.roll(np.eye(3), 1, axis=1) + 0.1
    rings = np.block([[half, np.full((3, 3), 0.1)], [np.full((3, 3), 0.1), half]])
    shuffle = lambda w: w[rng.permutation(k)][:, rng.permutation(k)]
    one, two, other = (
        table(objective, w, np.ones(k)) for w in (ring, shuffle(ring), shuffle(rings))
    )
    image = matching(one, two, TOLERANCE)
    assert image is not None
    moved = two.products[np.ix_(image, image)]
    np.testing.assert_allclose(moved, one.products, atol=1e-12)
    assert matching(one, other, TOLERANCE) is None
    # the dihedral group of the ring that keeps neurons neurons
    assert isotropy(two, TOLERANCE).order == 12
    assert isotropy(two, TOLERANCE).sizes == (1,) * 6
    # all exchanges within each ring of 6, and of the two rings
    assert isotropy(other, TOLERANCE).order == 6 * 6 * 2
    assert isotropy(other, TOLERANCE).sizes == (3, 3)


@pytest.mark.parametrize("k", [6, 20])
@pytest.mark.parametrize("noise", [2e-9, 1e-7])
def test_matching_is_as_fine_as_the_tolerance(rng, k, noise):
    """2e-9 is within the published 5e-9, 1e-7 is not."""
    objective = orthonormal(k)
    for p in (1, 3):
        w = two_blocks(p, k, -0.7, 0.1, 0.95, -0.01, 0.2, 0.15)
        u = w[rng.permutation(k)][:, rng.permutation(k)]
        u = u + noise * rng.choice([-1, 1], (k, k))
        one, two = (table(objective, x, np.ones(k)) for x in (w, u))
        assert (matching(one, two, TOLERANCE) is not None) == (noise < TOLERANCE)


def test_generic_points_match_their_images_only(rng):
    k = 12
    objective = orthonormal(k)
    w = rng.normal(size=(k, k))
    u = w[rng.permutation(k)][:, rng.permutation(k)]
    one = table(objective, w, np.ones(k))
    assert matching(one, table(objective, u, np.ones(k)), TOLERANCE) is not None
    transposed = table(objective, w.T, np.ones(k))
    assert matching(one, transposed, TOLERANCE) is None
    assert isotropy(one, TOLERANCE).name == "trivial"
    assert isotropy(one, TOLERANCE).order == 1


def test_only_symmetries_of_the_teacher_count(rng):
    """Unequal norms, outer weights, angles: each leaves fewer exchanges."""
    k = 4
    w = rng.normal(size=(k, k))
    swapped = w[:, [1, 0, 2, 3]]

    def same(inner, outer, x, y, a=None):
        objective = PopulationLoss(Shallow(jnp.asarray(inner), jnp.asarray(outer)))
        a = np.ones(k) if a is None else a
        one, two = (table(objective, z, a) for z in (x, y))
        return matching(one, two, TOLERANCE) is not None

    ones = np.ones(k)
    assert same(np.eye(k), ones, w, swapped)
    assert not same(np.diag([1.0, 2, 1, 1]), ones, w, swapped)
    assert not same(np.eye(k), np.array([1.0, -1, 1, 1]), w, swapped)
    # b_j |v_j| counts: the same function
    weights = np.array([1.0, 0.5, 1, 1])
    assert same(np.diag([1.0, 2, 1, 1]), weights, w, swapped)
    skew = np.eye(k)
    skew[1, 2] = 0.5
    assert not same(skew, ones, w, swapped)
    # students of different outer weights stay where they are
    a = np.array([1.0, 1, 1, -1])
    assert same(np.eye(k), ones, w, w[[1, 0, 2, 3]], a)
    assert not same(np.eye(k), ones, w, w[[3, 1, 2, 0]], a)


def test_rotations_that_fix_the_teacher_are_symmetries(rng):
    k, d = 3, 5
    objective = PopulationLoss(jnp.asarray(np.eye(k, d)))
    w = rng.normal(size=(k, d))
    turn, _ = np.linalg.qr(rng.normal(size=(2, 2)))
    u = np.concatenate([w[:, :k], w[:, k:] @ turn], axis=1)[[2, 0, 1]][
        :, [1, 0, 2, 3, 4]
    ]
    assert abs(float(objective(jnp.asarray(w)) - objective(jnp.asarray(u)))) < 1e-13
    one, two = (table(objective, x, np.ones(k)) for x in (w, u))
    assert matching(one, two, TOLERANCE) is not None


@pytest.mark.parametrize(
    ("w", "name"),
    [
        (two_blocks(1, 7, -0.7, 0, 0.97, -0.02, 0.3, 0.2), "II"),
        (two_blocks(2, 9, -0.7, 0.05, 0.97, -0.02, 0.25, 0.2), "M_2"),
        (two_blocks(4, 12, -0.7, 0.05, 0.97, -0.02, 0.15, 0.2), "M_4"),
        (two_blocks(6, 12, -0.7, 0.3, 0.97, -0.02, 0.05, 0.02), "N_6"),
        (two_blocks(6, 7, -0.7, 0.3, 0.97, 0, 0.05, 0.02), "I"),
        (0.25 - np.eye(8), "A"),
        (two_blocks(3, 7, 1.0, 0.02, 0.97, -0.02, 0.05, 0.02), "unnamed [4, 3]"),
        (np.diag([1.0, 1, 1, 0.5, 0.5, 0.2]), "unnamed [3, 2, 1]"),
    ],
)
def test_families_are_told_by_their_blocks(rng, w, name):
    k = len(w)
    w = w[rng.permutation(k)][:, rng.permutation(k)]
    group = isotropy(table(orthonormal(k), w, np.ones(k)), TOLERANCE)
    assert family_name(w, np.eye(k), group) == name


def test_parallel_students_merge():
    w = np.array([[1.0, 0, 0], [0, 2.0, 0], [3.0, 0, 0], [-1.0, 0, 0], [0.5, 0, 0]])
    outer = np.array([1.0, 1, 2, 1, -1])
    merged = merged_students(w, outer, 1e-9)
    expected = [[7.0, 0, 0], [0, 2.0, 0], [-1.0, 0, 0], [0.5, 0, 0]]
    np.testing.assert_array_equal(merged, expected)
