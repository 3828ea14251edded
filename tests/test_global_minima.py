"""Global minima: who they are, and their Hessian's spectrum."""

import itertools
import math

import jax
import jax.numpy as jnp
import jax.random as jrandom
import mpmath
import numpy as np
import pytest
from _draws import normal
from _population_oracle import dense_hessian

import jaxrelu as jr
from jaxrelu import landscape as ls


REFERENCE = {  # k: mu-, mu+, nu-, nu+
    3: (0.33109895480853, 0.91890104519147, 0.50727315176036, 1.2201916775153),
    4: (0.30756037206797, 1.1924396279320, 0.62587025825176, 1.5107495141158),
    5: (0.29501911724210, 1.4549808827579, 0.75465106527191, 1.7911236501876),
    6: (0.28708147424503, 1.7129185257550, 0.88966273889275, 2.0652669196586),
    8: (0.27750176125371, 2.2224982387463, 1.1712349673279, 2.6020045774073),
    10: (0.27189054870316, 2.7281094512968, 1.4623809370845, 3.1291684938345),
    12: (0.26819271686071, 3.2318072831393, 1.7595087950647, 3.6503505220381),
    15: (0.26452215160604, 3.9854778483940, 2.2124605411862, 4.4248636051923),
    20: (0.26087307990038, 5.2391269200996, 2.9792063120478, 5.7038925497901),
}
SPLIT = {  # n = k + 1: eigenvalues and multiplicities
    2: [
        (0, 2),
        (0.1196702966597, 1),
        (0.4689205650901, 1),
        (1.0310794349099, 1),
        (1.3803297033403, 1),
    ],
    3: [
        (0, 3),
        (0.0908450569081, 1),
        (0.1117480994653, 1),
        (0.1281437811623, 1),
        (0.3617844768965, 1),
        (0.4020265783195, 1),
        (0.6531904782340, 1),
        (1.2253748655259, 1),
        (1.3673124805463, 1),
        (1.6595741829421, 1),
    ],
    6: [
        (0, 6),
        (0.0908450569081, 10),
        (0.1138673615362, 4),
        (0.1441404667346, 1),
        (0.2883474897462, 4),
        (0.4091549430919, 5),
        (0.4580515526298, 1),
        (0.5414386344863, 4),
        (1.0379753027339, 1),
        (1.9549321754144, 1),
        (2.0563465142313, 4),
        (2.4506752179467, 1),
    ],
}


def loss_of(k, d=None, dtype=None):
    return jr.PopulationLoss(jr.Shallow.orthonormal(k, d, dtype))


def expanded(table):
    return np.repeat([x for x, _ in table], [m for _, m in table])


# ------------------------------------------------------------------ who they are


@pytest.mark.parametrize("dtype", ["float32"], indirect=True)
def test_members_have_loss_zero_and_are_found_out(dtype, getkey):
    teacher = jnp.asarray(normal(getkey(), (3, 4), dtype))
    F = jr.PopulationLoss(jr.Shallow(teacher, jnp.asarray([1.0, 0.5, 2.0], dtype)))
    tolerance = 100 * float(jnp.finfo(dtype).eps)
    keys = jrandom.split(getkey(), 8)

    def sampled(key):
        W = ls.sample_global_minimum(key, F.teacher, 5)
        return W, F(W), ls.is_global_minimum(F, W)

    every = jax.jit(jax.vmap(sampled))(keys)
    students, losses, tests = jax.tree.map(np.asarray, every)
    np.testing.assert_allclose(losses, 0, atol=tolerance)
    assert tests.holds.all()
    assert np.asarray(tests.differentiable).all()
    assert all(set(row.tolist()) == {0, 1, 2} for row in tests.assignment)
    for ratios, partition in zip(tests.ratios, tests.assignment, strict=True):
        sums = np.bincount(partition, weights=ratios)
        np.testing.assert_allclose(sums, 1, rtol=tolerance)
    inputs = normal(getkey(), (50, 4), dtype)
    outputs = np.maximum(inputs @ students[0].T, 0).sum(1)
    np.testing.assert_allclose(outputs, F.teacher(jnp.asarray(inputs)), atol=tolerance)


def test_theorem_two_is_exhaustive_on_a_grid(float64):
    """F = 0 exactly where the test holds, over all students with entries in a grid."""
    F = loss_of(2)
    grid = [-1.0, 0.0, 0.5, 1.0]
    students = np.asarray(list(itertools.product(grid, repeat=6))).reshape(-1, 3, 2)
    check = jax.jit(jax.vmap(lambda W: (F(W), ls.is_global_minimum(F, W))))
    losses, tests = check(students)
    zero = np.asarray(losses) < 1e-12
    np.testing.assert_array_equal(tests.holds, zero)
    # Three neurons, teacher e1, e2: an isolated pair and a zero neuron (3! ways), or
    # one of the two halved (2 * 3 ways)
    assert zero.sum() == 12
    assert np.asarray(tests.differentiable).sum() == 6


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_dependent_teachers_have_other_minima(sign, float64):
    """v1 + v2 + v3 = 0: the reflected student is the same function, beyond Thm 2."""
    angles = 2 * np.pi / 3 * np.arange(3.0)
    teacher = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    F = jr.PopulationLoss(teacher)
    test = ls.is_global_minimum(F, sign * teacher)
    assert bool(test.holds)
    assert float(F(sign * teacher)) < 1e-15
    expected = np.arange(3) if sign > 0 else -1
    assert (np.asarray(test.assignment) == expected).all()


def test_outer_weights_of_both_signs(float64, getkey):
    """sigma(x) - sigma(-x) = x: student and teacher differ neuron by neuron."""
    v, w = normal(getkey(), (2, 3))
    signs = np.asarray([1.0, -1.0, 1.0, -1.0])
    network = lambda *rows: jr.Shallow(
        jnp.asarray(np.stack(rows)), jnp.asarray(signs[: len(rows)])
    )
    F = jr.PopulationLoss(network(v, -v, w, -w))
    student = network(v + w, -v - w)
    assert bool(ls.is_global_minimum(F, student).holds)
    assert float(F(student)) < 1e-14


def test_reasons(float64):
    F = loss_of(2, 3)
    W = ls.global_minimum(F.teacher, [0, 1, 0], jnp.asarray([0.3, 1.0, 0.7]))
    np.testing.assert_allclose(W, [[0.3, 0, 0], [0, 1, 0], [0.7, 0, 0]], rtol=1e-15)
    assert "same function" in ls.is_global_minimum(F, W).reason
    W, e = np.asarray(W), np.eye(3)
    moved = ls.is_global_minimum(F, W + 1e-3 * np.outer(e[2], e[0]))
    assert not bool(moved.holds)
    assert "exceed the teacher's by 0.001" in moved.reason
    turned = ls.is_global_minimum(F, W * (1 - 2 * e[1])[:, None])
    assert "weighted sums of neurons differ by 2" in turned.reason
    off = ls.is_global_minimum(F, W + 0.1 * np.outer(e[1], e[2]))
    assert "student neuron 1" in off.reason
    assert int(off.assignment[1]) == -1
    zero = ls.is_global_minimum(F, np.concatenate([W, np.zeros((1, 3))]))
    assert bool(zero.holds)
    assert not bool(zero.differentiable)
    assert "1 neurons are zero" in zero.reason
    # F cannot tell: a distance of 1e-6 along (u, -u) is a loss below rounding
    hidden = W + 1e-6 * np.outer(e[0] - e[2], e[1])
    assert abs(float(F(hidden))) < 1e-15
    assert not bool(ls.is_global_minimum(F, hidden).holds)


def test_bad_partitions_are_refused(float64):
    teacher = jr.Shallow.orthonormal(2)
    with pytest.raises(ValueError, match="partition uses"):
        ls.global_minimum(teacher, [0, 0])
    with pytest.raises(ValueError, match="alphas are"):
        ls.global_minimum(teacher, [0, 1, 1], jnp.asarray([1.0, 0.5, 0.6]))
    with pytest.raises(ValueError, match="alphas are"):
        ls.global_minimum(teacher, [0, 1, 1], jnp.asarray([1.0, 1.5, -0.5]))
    with pytest.raises(ValueError, match="num_neurons is 1"):
        ls.sample_global_minimum(jrandom.key(0), teacher, 1)
    with pytest.raises(ValueError, match="outer weights that are not positive"):
        ls.global_minimum(jr.Shallow(jnp.eye(2), -jnp.ones(2)), [0, 1])
    with pytest.raises(ValueError, match="d is 2 and k is 3"):
        ls.global_minimum_spectrum(3, 2)
    with pytest.raises(ValueError, match=r"counts\[1\] is 0"):
        ls.split_minimum_spectrum((1, 0))


# --------------------------------------------------------------------- spectra


SIZES = [("float64", *s) for s in ((1, 1), (1, 3), (2, 2), (3, 5), (5, 5))]
SIZES += [("float32", *s) for s in ((1, 3), (3, 5))]


@pytest.mark.parametrize(("dtype", "k", "d"), SIZES, indirect=["dtype"])
def test_spectrum_is_that_of_the_hessian(k, d, dtype):
    exact = ls.global_minimum_spectrum(k, d, dtype)
    assert exact.values.dtype == dtype
    assert exact.total == k * d
    values = np.linalg.eigvalsh(dense_hessian(np.eye(k, d)))[::-1]
    tolerance = 100 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(exact.expand(), values, atol=tolerance)
    smallest = ls.strong_convexity_constant(k)
    assert float(exact.minimum) == pytest.approx(min(smallest, values[-1]), rel=1e-6)
    times = sum(
        m
        for x, m in zip(np.asarray(exact.values), exact.multiplicities, strict=True)
        if abs(float(x) - smallest) < 1e-6
    )
    assert times == (k * (k - 1) // 2 if k > 1 else d)


@pytest.mark.parametrize("k", REFERENCE)
def test_published_digits(k, float64):
    spectrum = ls.global_minimum_spectrum(k)
    values = np.asarray(spectrum.values)
    pairs = zip(values, spectrum.multiplicities, spectrum.labels, strict=True)
    found = {}
    for value, times, label in pairs:
        found.setdefault((label, times), []).append(float(value))
    low, standard = found["standard", k - 1][-1], found["standard", k - 1][:2]
    trivial = found["trivial", 1]
    assert low == pytest.approx(0.09084505690810466, rel=1e-15)
    mine = (standard[1], standard[0], trivial[1], trivial[0])
    np.testing.assert_allclose(mine, REFERENCE[k], rtol=1e-13)


def test_large_sizes_cost_nothing_and_keep_their_digits(float64):
    k, d = 10**6, 10**9
    spectrum = ls.global_minimum_spectrum(k, d)
    assert spectrum.total == k * d
    with mpmath.workdps(50):
        pi = mpmath.pi
        mu = [
            (k + 2 + s * mpmath.sqrt(k**2 - 16 * (pi - 1) / pi**2)) / 8 for s in (1, -1)
        ]
        root = mpmath.sqrt(pi**2 * k**2 - 4 * (pi - 1) * (k - 2) ** 2)
        nu = [((k + 2) * pi + 2 * k + s * root) / (8 * pi) for s in (1, -1)]
        low, high = mpmath.mpf(1) / 4 - 1 / (2 * pi), mpmath.mpf(1) / 4 + 1 / (2 * pi)
        exact = [*mu, *nu, low, low, high, mpmath.mpf(1) / 4, mpmath.mpf(k + 1) / 4]
        exact = sorted(exact, reverse=True)
        values, error = np.asarray(spectrum.values), np.asarray(spectrum.error)
        off = [abs(float(x) - y) for x, y in zip(values, exact, strict=True)]
    assert all(a <= float(b) for a, b in zip(off, error, strict=True))
    assert (error < 1e-14 * values).all()


def test_coupling_matrix(float64):
    """Brute force, with the eigenvector statement of the correction."""
    for k in (2, 3, 5):
        A = np.zeros((k, k, k, k))
        for i, j in itertools.permutations(range(k), 2):
            A[i, i, j, j] += 1
            A[i, j, j, i] += 1
        spectrum = ls.coupling_spectrum(k)
        values = np.linalg.eigvalsh(A.reshape(k * k, k * k))[::-1]
        np.testing.assert_allclose(spectrum.expand(), values, atol=1e-13)
        assert spectrum.error_kind == "exact"
        if k > 2:
            assert spectrum.multiplicities[-1] == (k + 2) * (k - 1) // 2
    with pytest.raises(ValueError, match="k is 1"):
        ls.coupling_spectrum(1)


@pytest.mark.parametrize("k", SPLIT)
def test_one_split_neuron(k, float64):
    """n = k + 1: the page's digits, from the reduced matrix and from the Hessian."""
    expected = expanded(SPLIT[k])[::-1]
    counts = (2, *[1] * (k - 1))
    spectrum = ls.split_minimum_spectrum(counts)
    np.testing.assert_allclose(spectrum.expand(), expected, atol=1e-12)
    assert spectrum.inertia() == (0, k, k * k)
    partition = np.asarray([0, *range(k)])
    F = loss_of(k)
    pulled = np.asarray(ls.pulled_back_hessian(F, partition))
    for share in (0.5, 0.1, 0.93):
        alphas = np.asarray([share, 1 - share, *[1.0] * (k - 1)])
        W = ls.global_minimum(F.teacher, partition, alphas)
        H = dense_hessian(np.asarray(W), np.eye(k))
        np.testing.assert_allclose(np.linalg.eigvalsh(H)[::-1], expected, atol=1e-12)
        np.testing.assert_allclose(H, pulled, atol=1e-14)


@pytest.mark.parametrize(("counts", "d"), [((2, 2, 2), 4), ((3, 1, 2), 5), ((4,), 2)])
def test_many_copies(counts, d, float64, getkey):
    k, n = len(counts), sum(counts)
    F = loss_of(k, d)
    partition = np.repeat(np.arange(k), counts)
    parts = np.random.default_rng(n).uniform(0.2, 1, n)
    parts = parts / np.bincount(partition, weights=parts)[partition]
    H = dense_hessian(
        np.asarray(ls.global_minimum(F.teacher, partition, parts)), np.eye(k, d)
    )
    spectrum = ls.split_minimum_spectrum(counts, d)
    values = np.linalg.eigvalsh(H)[::-1]
    np.testing.assert_allclose(spectrum.expand(), values, atol=1e-13)
    assert spectrum.inertia() == (0, (n - k) * d, k * d)
    if len(set(counts)) == 1:
        single = ls.global_minimum_spectrum(k, d)
        some, base = np.asarray(spectrum.expand()), np.asarray(single.expand())
        np.testing.assert_allclose(some[: k * d], counts[0] * base, rtol=1e-14)


def test_pull_back_for_any_teacher(float64, getkey):
    """Not orthonormal, outer weights not one: shares do not enter there either."""
    v, b = normal(getkey(), (3, 4)), np.asarray([1.0, 0.4, 2.0])
    teacher = jr.Shallow(jnp.asarray(v), jnp.asarray(b))
    F = jr.PopulationLoss(teacher)
    partition = np.asarray([2, 0, 1, 0, 2])
    pulled = np.asarray(ls.pulled_back_hessian(F, partition))
    for share in (0.5, 0.15):
        alphas = np.asarray([share, share, 1.0, 1 - share, 1 - share])
        W = ls.global_minimum(teacher, partition, alphas)
        H = dense_hessian(np.asarray(W), b[:, None] * v)
        np.testing.assert_allclose(H, pulled, atol=1e-14)
    P = np.kron(np.eye(3)[partition].T, np.eye(4))
    Hk = dense_hessian(b[:, None] * v, b[:, None] * v)
    np.testing.assert_allclose(pulled, P.T @ Hk @ P, atol=1e-14)
    values = np.linalg.eigvalsh(pulled)
    assert (np.abs(values[:8]) < 1e-13).all()
    assert float(values[8]) > 1e-3


def test_constant_of_strong_convexity():
    assert ls.strong_convexity_constant(7) == 0.25 - 1 / (2 * math.pi)
    assert ls.strong_convexity_constant(1) == 0.5
