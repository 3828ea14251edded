"""Theorem 10: its inequality, its second-order identity, what breaks without error."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jrandom
import mpmath
import numpy as np
import pytest
from _draws import normal

import jaxrelu as jr
from jaxrelu import landscape as ls
from jaxrelu.landscape.global_minima._direction_search import rounding_of_sides
from jaxrelu.landscape.global_minima._most_directions import inequality


def loss_of(k, d=None, dtype=None):
    return jr.PopulationLoss(jr.Shallow.orthonormal(k, d, dtype))


def balanced(F, copies):
    return ls.global_minimum(F.teacher, np.repeat(np.arange(F.teacher.width), copies))


def curvature(k, W, direction):
    """Second derivative of the loss along a direction, in 40 digits by mpmath."""
    teacher = np.eye(*(k, W.shape[1]))
    signs = [1] * len(W) + [-1] * k
    pairs = list(itertools.combinations(range(len(signs)), 2))
    exact = np.vectorize(mpmath.mpf, otypes=[object])

    def loss(t):
        rows = [*(start + t * move), *exact(teacher)]
        norms = [mpmath.sqrt(mpmath.fdot(x, x)) for x in rows]
        total = sum(norm**2 for norm in norms) / 4
        for i, j in pairs:
            size = signs[i] * signs[j] * norms[i] * norms[j]
            angle = mpmath.acos(mpmath.fdot(rows[i], rows[j]) / (norms[i] * norms[j]))
            value = mpmath.sin(angle) + (mpmath.pi - angle) * mpmath.cos(angle)
            total += size * value / (2 * mpmath.pi)
        return total

    with mpmath.workdps(40):
        start, move = exact(np.asarray(W)), exact(np.asarray(direction))
        return float(mpmath.diff(loss, 0, 2))


def reference(W, displacement, k, copies):
    """Left and right side by mpmath and sums over loops."""
    d = W.shape[1]
    W, displacement = np.asarray(W), np.asarray(displacement)
    lhs = curvature(k, W + displacement, displacement)
    sums = displacement.reshape(k, copies, d).sum(1)
    rhs = 0.25 * (sum(sums) @ sum(sums) + (1 - 2 / np.pi) * (sums**2).sum())
    return lhs, rhs, sums


def second_order(sums, k):
    """The identity of the page, term by term."""
    u = sums[:, :k]
    total = np.trace(u) ** 2
    for i, a in itertools.permutations(range(k), 2):
        total += 0.5 * (u[i, a] + u[a, i]) ** 2
    total += (sums[:, k:] ** 2).sum()
    return total / (2 * np.pi)


# ------------------------------------------------------------ the inequality itself


@pytest.mark.parametrize(("k", "d", "copies"), [(3, 4, 2), (3, 3, 1)])
def test_both_sides_and_the_identity(k, d, copies, float64, getkey):
    F = loss_of(k, d)
    minimum = balanced(F, copies)
    direction = normal(getkey(), minimum.shape)
    scales = np.asarray([1e-1, 1e-2, 1e-3, 1e-4])
    each = [ls.most_directions_inequality(F, minimum, t * direction) for t in scales]
    for i, t in enumerate(scales[:2]):
        lhs, rhs, sums = reference(minimum, t * direction, k, copies)
        assert float(each[i].lhs) == pytest.approx(float(lhs), rel=1e-11)
        assert float(each[i].rhs) == pytest.approx(float(rhs), rel=1e-12)
        expected = second_order(np.asarray(sums), k)
        assert float(each[i].second_order) == pytest.approx(expected, rel=1e-12)
    # third order, not 2.5: the remainder over the cube of the distance settles
    distances = np.array([float(found.distance) for found in each])
    order = np.array([float(found.remainder) for found in each]) / distances**3
    assert (np.abs(order - order[3])[1:3] < 2 * distances[1:3]).all()
    assert 1e-3 < abs(order[3]) < 1


def test_second_order_does_not_depend_on_the_shares(float64, getkey):
    """Remark 11, and a rotated teacher in the order of its rotation."""
    rotation, _ = np.linalg.qr(normal(getkey(), (4, 4)))
    F = jr.PopulationLoss(rotation[:3])
    partition = [2, 0, 1, 0, 2, 0]
    displacement = 1e-5 * normal(getkey(), (6, 4))
    found = []
    for alphas in ([0.3, 0.2, 1.0, 0.5, 0.7, 0.3], [0.5, 0.6, 1.0, 0.3, 0.5, 0.1]):
        minimum = ls.global_minimum(F.teacher, partition, jnp.asarray(alphas))
        found.append(ls.most_directions_inequality(F, minimum, displacement))
    assert float(found[0].second_order) == float(found[1].second_order)
    sums = np.zeros((3, 4))
    np.add.at(sums, partition, displacement @ rotation.T)
    assert float(found[0].second_order) == pytest.approx(second_order(sums, 3))
    for one in found:
        assert abs(float(one.remainder) / float(one.second_order)) < 1e-2


def test_skew_sums_are_the_only_equality(float64, getkey):
    F = loss_of(3)
    minimum = balanced(F, 2)
    skew = normal(getkey(), (3, 3))
    skew = 1e-4 * (skew - skew.T)
    move = np.repeat(skew, 2, axis=0) / 2
    found = ls.most_directions_inequality(F, minimum, move)
    assert float(found.second_order) < 1e-20
    assert abs(float(found.slack)) < 3 * float(found.distance) ** 3
    move[0, 0] += 1e-4
    off = ls.most_directions_inequality(F, minimum, move)
    assert float(off.second_order) == pytest.approx(1e-8 / (2 * np.pi))


def test_example_one(float64, getkey):
    """Constants of one-point convexity: single, together (m times), cancelling (0)."""
    F, key = loss_of(3), getkey()
    single = 1e-6 * normal(key, (3, 3))
    one = ls.most_directions_inequality(F, balanced(F, 1), single)
    total = single.sum(0)
    stated = 0.25 - 1 / (2 * np.pi)
    stated += total @ total / (4 * (single**2).sum())
    assert float(one.promised_curvature) == pytest.approx(stated, rel=1e-12)
    assert float(one.curvature) >= stated - 1e-5
    minimum = balanced(F, 2)
    together = ls.most_directions_inequality(F, minimum, np.repeat(single, 2, axis=0))
    assert float(together.promised_curvature) == pytest.approx(2 * stated, rel=1e-12)
    assert float(together.curvature) == pytest.approx(2 * float(one.curvature), 1e-4)
    move = ls.sample_displacement(key, F, minimum, 1e-6, cancelling=True)
    sums = np.asarray(move).reshape(3, 2, 3).sum(1)
    np.testing.assert_allclose(sums, 0, atol=1e-21)
    cancel = ls.most_directions_inequality(F, minimum, move)
    assert abs(float(cancel.promised_curvature)) < 1e-15
    assert abs(float(cancel.curvature)) < 1e-5


def test_lemma_25(dtype, getkey):
    for k, d in ((2, 2), (3, 5)):
        rows = normal(getkey(), (k, d), dtype)
        lhs, rhs = ls.transposed_product_bound(jnp.asarray(rows))
        u = np.asarray(rows, np.float64)
        pairs = list(itertools.permutations(range(k), 2))
        left = sum(u[i, j] * u[j, i] for i, j in pairs)
        right = sum(u[i, i] ** 2 for i in range(k)) - (u**2).sum()
        assert float(lhs) == pytest.approx(left, rel=1e-5)
        assert float(rhs) == pytest.approx(right, rel=1e-5)
        slack = 0.5 * sum((u[i, j] + u[j, i]) ** 2 for i, j in pairs)
        slack += (u[:, k:] ** 2).sum()
        assert float(lhs) - float(rhs) == pytest.approx(slack, rel=1e-5)
    skew = jnp.asarray([[1.0, 2.0], [-2.0, 3.0]], dtype)
    assert np.subtract(*ls.transposed_product_bound(skew)) == 0.0


# ------------------------------------------------------------------ Conjecture 12


@pytest.mark.parametrize("copies", [1, 2])
def test_published_digits_of_the_counterexample(copies, float64):
    F = loss_of(2)
    example = ls.conjecture_counterexample(0.1, copies=copies)
    found = ls.most_directions_inequality(F, example.minimum, example.displacement)
    for value in (example, found):
        assert float(value.lhs) == pytest.approx(0.006318264535748902, rel=1e-12)
        assert float(value.rhs) == pytest.approx(0.006816901138162095, rel=1e-13)
    near = ls.Neighbourhood(example.minimum, 0.1 / copies, orthogonal=True)
    moved = np.asarray(example.minimum) + np.asarray(example.displacement)
    assert bool(near.contains(jnp.asarray(moved)))


def test_counterexample_in_closed_form(float64):
    """Second derivative of the loss along the line, in 40 digits, for both signs."""

    def loss(t):
        gamma = mpmath.atan(t)
        half = mpmath.mpf(1) / 2 + 1 / (2 * mpmath.pi)
        cross = t + mpmath.pi - gamma + 1 + t * gamma
        return (1 + t**2) * half + half - cross / mpmath.pi

    for t in (0.1, -0.3, 1e-6):
        example = ls.conjecture_counterexample(t)
        with mpmath.workdps(40):
            s = mpmath.mpf(abs(t))
            lhs = s**2 * mpmath.diff(loss, s, 2)
            slack = lhs - s**2 * (1 - 1 / mpmath.pi)
        assert float(example.slack) == pytest.approx(float(slack), rel=1e-9)
        assert float(example.slack) < 0
    size = np.sum(np.asarray(example.displacement) ** 2) ** 1.5
    assert float(example.slack) / size == pytest.approx(-0.22508, rel=1e-4)
    F = loss_of(2)
    start, move = np.asarray(example.minimum), np.asarray(example.displacement)
    line = lambda t: F(start + (t / 1e-6) * move)
    assert float(line(0.2)) == pytest.approx(float(loss(0.2)), rel=1e-14)
    for t, sign in ((0.4533, -1), (0.4535, 1)):
        assert np.sign(float(ls.conjecture_counterexample(t).slack)) == sign


def test_counterexample_embeds(float64):
    F = loss_of(3, 4)
    example = ls.conjecture_counterexample(-0.1, copies=2, k=3, d=4)
    found = ls.most_directions_inequality(F, example.minimum, example.displacement)
    assert float(found.slack) == pytest.approx(float(example.slack), rel=1e-12)
    with pytest.raises(ValueError, match="k is 1"):
        ls.conjecture_counterexample(0.1, k=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("copies", "least", "orthogonal"), [(1, -0.2255, True), (2, -0.69, False)]
)
def test_search_finds_violations(copies, least, orthogonal, float64, getkey):
    F = loss_of(2)
    minimum = balanced(F, copies)
    near = ls.Neighbourhood(minimum, 0.01, orthogonal=orthogonal)
    worst = ls.worst_direction(
        F, minimum, 0.01, getkey(), orthogonal=orthogonal, num_starts=6, num_steps=150
    )
    assert bool(worst.violated)
    moved = np.asarray(minimum) + np.asarray(worst.displacement)
    assert bool(near.contains(jnp.asarray(moved)))
    assert float(worst.inequality.distance) == pytest.approx(0.01)
    assert float(worst.margin) == pytest.approx(float(worst.inequality.slack), rel=1e-9)
    checked, rhs, _ = reference(minimum, worst.displacement, 2, copies)
    assert float(checked) - rhs == pytest.approx(float(worst.margin), rel=1e-6)
    ratio = float(worst.margin) / 0.01**3
    assert ratio == pytest.approx(least, rel=0.05)
    assert (np.asarray(worst.margins) >= np.asarray(worst.margin)).all()
    # the family of the counterexample is among what was searched
    example = ls.conjecture_counterexample(0.01 * np.sqrt(copies / 2), copies=copies)
    assert float(worst.margin) < 0.98 * float(example.slack)


def test_weaker_inequalities_survive_the_search(float64, getkey):
    """0.9 of the right side at radius 0.01, and condition (4) of Thm 13."""
    F = loss_of(2)
    minimum = balanced(F, 2)
    settings = {"num_starts": 6, "num_steps": 150}
    weak = ls.worst_direction(F, minimum, 0.01, getkey(), fraction=0.9, **settings)
    assert not bool(weak.violated)
    four = ls.worst_direction(
        F, minimum, 0.01, getkey(), fraction=0.0, coefficient=0.05, **settings
    )
    assert not bool(four.violated)
    # but at radius 0.1 half of the right side is too much
    half = ls.worst_direction(F, minimum, 0.1, getkey(), fraction=0.5, **settings)
    assert bool(half.violated)


def test_rounding_is_no_violation(float64, getkey):
    """In single precision, against double: cancelling directions, small and large."""
    F = loss_of(2)
    minimum = np.asarray([[0.3, 0], [0.7, 0], [0, 0.9], [0, 0.1]], np.float32)
    minimum[1], minimum[3] = 1 - minimum[0], 1 - minimum[2]
    minimum *= np.asarray(F.teacher.inner, np.float32)[[0, 0, 1, 1]]
    minimum = jnp.asarray(minimum)
    half = normal(getkey(), (30, 2, 2), np.float32)
    moves = np.stack([half, -half], axis=2).reshape(30, 4, 2)
    moves *= np.logspace(-6, -2, 30, dtype=np.float32)[:, None, None]

    @jax.jit
    def both(moves):
        def one(move):
            slacks = [
                inequality(loss_of(2, dtype=t), minimum.astype(t), move.astype(t)).slack
                for t in (jnp.float32, jnp.float64)
            ]
            noise = rounding_of_sides(loss_of(2, dtype=jnp.float32), minimum, move)
            return *slacks, noise

        return jax.vmap(one)(moves)

    single, double, noise = map(np.asarray, both(moves))
    assert (np.abs(single - double) <= noise).all()
    # the sides alone do not tell: they cancel within the left one
    assert (np.abs(single - double) > 2e-6 * np.abs(double)).any()


# ------------------------------------------------------------------ Table 1


def test_table_one(float64, getkey):
    """One row of it: Gaussian displacements, and adversarial ones."""
    k, copies, gaussian, adversarial = 5, 2, 0.84, 2.27e-4
    F = loss_of(k)
    minimum = balanced(F, copies)
    found = ls.slack_statistic(F, minimum, getkey(), num_samples=400)
    assert found.expected == pytest.approx(copies * k**2 / (2 * np.pi))
    assert found.mean.error_kind == "standard error"
    assert abs(float(found.mean.value) - found.expected) < 4 * float(found.mean.error)
    # minima over samples vary by a factor: ours must be of that size
    assert gaussian / 2.5 < float(found.smallest) < 4 * gaussian
    bad = ls.slack_statistic(F, minimum, getkey(), num_samples=400, cancelling=True)
    assert adversarial / 2.5 < float(bad.smallest) < 4 * adversarial
    assert np.max(bad.values) < 0.1


def test_slack_without_the_table(float64, getkey):
    """d > k: the mean is m k d / 2 pi, by the identity alone in exact arithmetic."""
    k, d, copies = 2, 4, 3
    F = loss_of(k, d)
    found = ls.slack_statistic(F, balanced(F, copies), getkey(), num_samples=400)
    assert found.expected == pytest.approx(copies * k * d / (2 * np.pi))
    assert abs(float(found.mean.value) - found.expected) < 4 * float(found.mean.error)
    sums = np.sqrt(copies) * np.random.default_rng(0).normal(size=(5000, k, d))
    values = [second_order(s, k) for s in sums]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - found.expected) < 4 * error


# ------------------------------------------------------------------ neighbourhoods


@pytest.mark.parametrize(
    ("dtype", "orthogonal"), [("float32", True), ("float64", False)], indirect=["dtype"]
)
def test_neighbourhoods(orthogonal, dtype, getkey):
    minimum = jnp.asarray(normal(getkey(), (3, 3), dtype))
    near = ls.Neighbourhood(minimum, 0.1, orthogonal=orthogonal)

    @jax.jit
    def sampled(near, keys, outside):
        samples = jax.vmap(lambda key: near.sample(key))(keys)
        both = jnp.stack([outside, samples[0]])
        nearest = jax.vmap(lambda W: near.project(W))(both)
        others = jnp.stack([nearest[0], outside, 1.01 * near.minimum])
        candidates = jnp.concatenate([samples, others])
        return samples, nearest, jax.vmap(lambda W: near.contains(W))(candidates)

    keys = jrandom.split(getkey(), 3000)
    outside = np.asarray(minimum) + dtype.type(0.3) * normal(getkey(), (3, 3), dtype)
    samples, (nearest, same), inside = map(np.asarray, sampled(near, keys, outside))
    assert samples.dtype == dtype
    # the samples, and the projection
    assert inside[:-2].all()
    assert not bool(inside[-2])
    # moving along a neuron is not orthogonal
    assert bool(inside[-1]) is not orthogonal
    move = np.asarray(samples, np.float64) - np.asarray(minimum, np.float64)
    sizes = np.linalg.norm(move, axis=2)
    # uniform in a ball of dimension p: E r = R p / (p + 1)
    p = 2 if orthogonal else 3
    error = sizes.std() / np.sqrt(sizes.size)
    assert abs(sizes.mean() - 0.1 * p / (p + 1)) < 4 * error
    assert np.abs(move.mean(0)).max() < 0.01
    if orthogonal:
        assert np.abs((move * np.asarray(minimum)).sum(2)).max() < 1e-5
    # the projection is nearer than thousands of members, and fixes members
    distance = np.linalg.norm(np.asarray(nearest) - np.asarray(outside))
    others = np.linalg.norm(np.asarray(samples) - np.asarray(outside), axis=(1, 2))
    assert distance <= others.min()
    np.testing.assert_allclose(same, samples[0], atol=1e-6)


def test_bad_input_is_refused(float64):
    F = jr.PopulationLoss(jnp.asarray([[1.0, 0.0], [0.6, 0.8]]))
    W = F.teacher.inner
    with pytest.raises(ValueError, match="orthonormal"):
        ls.most_directions_inequality(F, W, W)
    F = loss_of(2)
    with pytest.raises(ValueError, match="displacement is"):
        ls.most_directions_inequality(F, np.eye(2), np.ones((1, 2)))
    for wrong in (np.ones((3, 2)), 2 * np.eye(2), np.eye(3, 2)):
        with pytest.raises(ValueError, match="minimum is"):
            ls.most_directions_inequality(F, wrong, wrong)
        with pytest.raises(ValueError, match="minimum is"):
            ls.slack_statistic(F, wrong, jrandom.key(0))
        with pytest.raises(ValueError, match="minimum is"):
            ls.worst_direction(F, wrong, 0.1, jrandom.key(0))
    for radius in (-0.1, 0.0, 1.0):
        with pytest.raises(ValueError, match="radius is"):
            ls.worst_direction(F, np.eye(2), radius, jrandom.key(0))
    with pytest.raises(ValueError, match="num_samples is 1"):
        ls.slack_statistic(F, np.eye(2), jrandom.key(0), num_samples=1)
    with pytest.raises(ValueError, match="deviation"):
        ls.slack_statistic(F, np.eye(2), jrandom.key(0), deviation=0.0)
    with pytest.raises(ValueError, match="d is 1"):
        ls.Neighbourhood(jnp.ones((1, 1)), 0.1)
    for radius in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="radius is"):
            ls.Neighbourhood(jnp.eye(2), radius)
    with pytest.raises(ValueError, match="the zero neuron 0"):
        ls.most_directions_inequality(F, np.eye(2), -np.eye(2))
    with pytest.raises(ValueError, match="NaN"):
        ls.most_directions_inequality(F, np.eye(2), np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="d >= k"):
        ls.transposed_product_bound(jnp.ones((3, 2)))
