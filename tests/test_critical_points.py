"""The search for critical points, against plain descent and automatic derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import pytest
from _draws import normal

from jaxrelu import RESULTS
from jaxrelu.landscape import (
    POLISHED_BY,
    census,
    classify,
    find_critical_points,
    published_counts,
    refine_critical_points,
    starting_weights,
    z_score,
)
from jaxrelu.landscape.search._first_order import (
    Problem,
    angle_and_sine,
    gradients,
    losses,
)
from jaxrelu.landscape.search._polish import newton, polish
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss


K = 8
STARTS = 40


def orthonormal(k, dtype="float64", d=None):
    return PopulationLoss(jnp.asarray(np.eye(k, d), dtype))


def one_device():
    return (jax.devices()[0],)


def seed(p, k, on=-0.7, off=0.05, cross=0.2):
    """The identity with a block of p flipped neurons."""
    w = np.eye(k)
    w[:p, :p] = off + (on - off) * np.eye(p)
    w[:p, p:] = w[p:, :p] = cross
    return w


@jax.jit
def slopes_and_hessians(objective, weights):
    """By automatic differentiation, one program for all points of a size."""

    def slope(w):
        gradient = jax.grad(objective)(w)
        return gradient, gradient

    hessians, gradients = jax.lax.map(jax.jacfwd(slope, has_aux=True), weights)
    return gradients, hessians.reshape(len(weights), weights[0].size, -1)


@eqx.filter_jit
def slope_at(objective, w, outer):
    return jax.grad(lambda inner: objective(Shallow(inner, outer)))(w)


@pytest.fixture(scope="module")
def points():
    """Distinct points of 40 starts at k = 8, found on one device."""
    with jax.enable_x64(True):
        key = jrandom.key(2018)
        yield find_critical_points(
            orthonormal(K), key, K, STARTS, devices=one_device(), throw=True
        )


# ------------------------------------------------------------------ the first order


def test_angles_agree_with_numpy(dtype, getkey):
    cosine = np.concatenate(
        [
            np.linspace(-1, 1, 4001),
            1 - np.logspace(-16, 0, 200),
            np.logspace(-16, 0, 200) - 1,
            [0.5, -0.5, 0.0],
        ]
    ).astype(dtype)
    theta, sine = jax.jit(angle_and_sine)(jnp.asarray(cosine))
    assert theta.dtype == sine.dtype == dtype
    eps = np.finfo(dtype).eps
    expected = np.arccos(cosine.astype(np.float64))
    np.testing.assert_allclose(theta, expected, rtol=4 * eps, atol=4 * eps)
    exact = np.sqrt((1 - cosine.astype(float)) * (1 + cosine.astype(float)))
    np.testing.assert_allclose(sine, exact, rtol=8 * eps)


def test_gradients_agree_with_the_objective(dtype, getkey):
    """Parallel, antiparallel, equal and teacher's neurons, general outer weights."""
    v, w = normal(getkey(), (3, 4), dtype), normal(getkey(), (5, 4), dtype)
    teacher = Shallow(jnp.asarray(v), jnp.asarray([1.0, -0.5, 2.0], dtype))
    objective = PopulationLoss(teacher)
    w[1:4] = 0.3 * w[0], -2 * w[0], v[1]
    w, outer = jnp.asarray(w), jnp.asarray([1.0, 2.0, -1.0, 0.5, 1.0], dtype)
    problem = Problem.of_loss(objective, outer)
    both = jax.jit(lambda problem, w: (gradients(problem, w), losses(problem, w)))
    found, value = (np.asarray(x)[0] for x in both(problem, np.asarray(w)[None]))
    assert found.dtype == dtype
    by_autodiff = jax.jit(jax.value_and_grad(lambda u: objective(Shallow(u, outer))))
    loss, slope = map(np.asarray, by_autodiff(w))
    scale = np.abs(slope).max()
    close = {"rtol": 0, "atol": 64 * float(jnp.finfo(dtype).eps) * max(scale, 1)}
    np.testing.assert_allclose(found, slope, **close)
    np.testing.assert_allclose(value, loss, **close)


# ---------------------------------------------------------------------- the search


def test_known_points_are_found(points):
    """Losses and eigenvalues of the page; every run at one of the two minima."""
    assert points.families == ("global", "II")
    assert points.kinds == ("minimum", "minimum")
    assert [group.name for group in points.isotropies] == ["ΔS_8", "ΔS_7"]
    assert int(points.counts.sum()) == STARTS
    assert abs(float(points.losses[0])) < 1e-13
    assert abs(float(points.losses[1]) - 0.021508) < 1e-6
    assert abs(float(points.smallest[0]) - (1 / 4 - 1 / (2 * np.pi))) < 1e-12
    assert abs(float(points.smallest[1]) - 0.021347) < 1e-6
    assert (np.asarray(points.norm_sums) <= K + 1e-9).all()
    assert "II" in repr(points)


def test_points_are_critical_by_automatic_differentiation(points):
    with jax.enable_x64(True):
        found = slopes_and_hessians(points.objective, points.weights)
    gradient, hessians = map(np.asarray, found)
    norms = np.linalg.norm(gradient.reshape(len(points), -1), axis=1)
    assert norms.max() <= 1e-12
    values = np.linalg.eigvalsh(hessians)
    np.testing.assert_allclose(points.smallest, values[:, 0], atol=1e-12)
    np.testing.assert_array_equal(points.positive, (values > 1e-6).sum(axis=1))
    assert not np.asarray(points.negative).any()
    assert not np.asarray(points.zero).any()


def test_runs_end_where_plain_descent_ends(points):
    """The same starts by a loop of steps with the objective's own gradient."""
    runs, objective = points.runs, points.objective
    count = 10
    chosen = np.concatenate(
        [np.flatnonzero(points.class_of == c)[: count // 2] for c in (0, 1)]
    )
    with jax.enable_x64(True):
        key = jrandom.key(2018)
        index = jnp.arange(STARTS, dtype=jnp.int32)
        starts = starting_weights(key, index, (K, K), "xavier", jnp.dtype("float64"))
        starts = np.asarray(starts)[chosen]
        problem = Problem.of_loss(objective, points.outer)

        @jax.jit
        def descend(weights):
            def step(w, _):
                gradient = gradients(problem, w)
                return w - 5 / K * gradient, jnp.linalg.norm(gradient, axis=(1, 2))

            return jax.lax.scan(step, weights, length=4000)

        ends, norms = descend(starts)
    assert float(norms[-1].max()) < 1e-9
    np.testing.assert_allclose(ends, runs.weights[chosen], atol=1e-7)
    # a run stopped at the first iterate below one of the levels
    for i, steps in enumerate(np.asarray(runs.steps)[chosen]):
        levels = np.array([1e-3, 1e-4, 1e-5])
        below = np.asarray(norms)[steps, i]
        before = np.asarray(norms)[steps - 1, i]
        assert ((below <= levels * 1.0001) & (before > levels)).any()


def test_newton_is_refused_where_the_hessian_changes_too_much(points, float64, getkey):
    """Accepted if and only if it changes by less than the smallest eigenvalue."""
    count = 6
    sizes = np.resize([1e-3, 3e-3, 1e-2, 2e-2, 3e-2, 4e-2], STARTS)
    starts = np.eye(K)[None] + sizes[:, None, None] * normal(getkey(), (K, K))[None]
    found = polish(  # the program of the search: as many rows, the first ones wanted
        Problem.of_loss(points.objective, points.outer),
        jnp.asarray(starts),
        jnp.asarray(np.arange(STARTS) < count),
        jnp.asarray(np.full(STARTS, 1e-12)),
        newton,
        1,
        one_device(),
    )
    accepted, norms, ends = map(
        np.asarray, (found.accepted, found.gradient_norms, found.weights)
    )
    assert not accepted[count:].any()
    np.testing.assert_array_equal(ends[count:], starts[count:])
    accepted, starts, ends = accepted[:count], starts[:count], ends[:count]
    two = starts.reshape(-1, 2, K, K)  # as many at a time as there are points
    every = [slopes_and_hessians(points.objective, jnp.asarray(w))[1] for w in two]
    at_start = np.concatenate(every)
    identity = jnp.asarray(np.stack([np.eye(K)] * 2))
    at_end = np.asarray(slopes_and_hessians(points.objective, identity)[1])[0]
    change = np.linalg.norm(at_start - at_end[None], axis=(1, 2))
    smallest = np.linalg.eigvalsh(at_end)[0]
    np.testing.assert_array_equal(accepted, change < smallest)
    assert (norms[:count] < 1e-12).all()
    assert 0 < accepted.sum() < count
    np.testing.assert_allclose(ends[accepted] - np.eye(K), 0, atol=1e-11)
    np.testing.assert_array_equal(ends[~accepted], starts[~accepted])


def test_what_polishing_did_is_reported(points):
    runs = points.runs
    assert set(np.asarray(runs.polished_by)) == {POLISHED_BY.index("newton")}
    assert (np.asarray(runs.losses) <= np.asarray(runs.descent_losses) + 1e-14).all()
    assert (np.asarray(runs.start_losses) > np.asarray(runs.descent_losses)).all()
    assert (np.asarray(runs.descent_norms) > 1e-9).all()
    assert (np.asarray(runs.gradient_norms) <= np.asarray(runs.tolerances)).all()
    moved = np.asarray(runs.moved)
    assert ((moved > 0) & (moved < 0.1)).all()


def test_census_agrees_with_the_published_count(points):
    table = census(points)
    published = {(row.k, row.n): row for row in published_counts()}[8, 8]
    assert abs(z_score(table.spurious, published.share)) < 4
    assert abs(table.spurious_loss - published.loss) < 1e-6
    assert abs(table.spurious_smallest - published.smallest) < 1e-6
    assert table.failed.count == 0
    assert {row.name for row in table.families} == {"global", "II"}
    assert str(table).count("\n") == 3


def test_devices_and_batches_change_nothing(points):
    """Eight devices and another batch size: the same ends for the same starts."""
    with jax.enable_x64(True):
        again = find_critical_points(
            points.objective,
            jrandom.key(2018),
            K,
            STARTS,  # as many as before: one program draws them
            first_start=8,
            batch_size=3,
        )
    np.testing.assert_array_equal(again.runs.index, np.arange(8, 8 + STARTS))
    ends, steps = np.asarray(points.runs.weights), np.asarray(points.runs.steps)
    found, count = np.asarray(again.runs.weights), np.asarray(again.runs.steps)
    np.testing.assert_allclose(found[:-8], ends[8:], atol=1e-11)
    np.testing.assert_array_equal(count[:-8], steps[8:])


def test_symmetric_images_are_one_point(points, getkey):
    """Ends permuted by neurons and by teachers fall into the same classes."""
    rng = np.random.default_rng(5)
    moved = np.asarray(points.runs.weights).copy()
    for w in moved:
        p = rng.permutation(K)
        w[:] = w[p][:, np.roll(p, 3)]
    with jax.enable_x64(True):
        runs = eqx.tree_at(lambda r: r.weights, points.runs, jnp.asarray(moved))
        again = classify(points.objective, runs)
    np.testing.assert_array_equal(again.class_of, points.class_of)


@pytest.mark.slow
def test_single_precision_is_honest():
    """Tolerances are a few roundings, and reached."""
    points = find_critical_points(
        orthonormal(K, "float32"), jrandom.key(3), K, 24, devices=one_device()
    )
    assert points.weights.dtype == jnp.float32
    assert set(points.families) <= {"global", "II"}
    assert points.runs.converged.all()
    assert float(points.runs.tolerances.max()) < 2e-6
    assert (np.abs(points.losses) < 3e-6).any()
    eigenvalue = float(points.smallest[0])
    assert abs(eigenvalue - 0.0908450569) < float(points.smallest_error[0])


# ------------------------------------------------------------------ from given points


def test_families_that_change_their_kind(float64):
    """M_2 at k = 8 is a minimum with the known eigenvalue, at k = 7 a saddle."""
    seeds = jnp.asarray(np.stack([seed(2, 8), seed(1, 8)]))
    points = refine_critical_points(orthonormal(8), seeds, devices=one_device())
    assert points.families == ("II", "M_2")
    assert points.kinds == ("minimum", "minimum")
    assert abs(float(points.smallest[1]) - 0.003343409124) < 1e-11
    assert points.isotropies[1].name == "Δ(S_6×S_2)"
    methods = {POLISHED_BY[i] for i in np.asarray(points.runs.polished_by)}
    assert methods == {"levenberg_marquardt"}
    seeds = jnp.asarray(np.stack([seed(2, 7), seed(1, 7)]))
    points = refine_critical_points(orthonormal(7), seeds, devices=one_device())
    assert points.families == ("II", "M_2")
    assert points.kinds == ("minimum", "saddle")
    np.testing.assert_array_equal(points.negative, [0, 4])
    assert abs(float(points.losses[0]) - 0.023203) < 1e-6
    assert abs(float(points.smallest[0]) - 0.014059) < 1e-6
    assert (np.asarray(points.runs.moved) > 0.1).all()


@pytest.mark.slow
def test_one_neuron_more(points, float64):
    """Split points keep their name; descent from one ends at the published minimum.

    Published at n = 9, k = 8: loss 0.0205607918, smallest eigenvalue 0.0059446.
    """
    w = np.asarray(points.weights)[1]
    flipped = int(np.argmin(np.linalg.norm(w, axis=1)))
    rest, w = np.delete(w, flipped, axis=0), w[flipped]
    split = np.concatenate([rest, [0.3 * w, 0.7 * w]])
    identity = 0.9 * np.eye(8)[[0, *range(8)]]
    both = jnp.asarray(np.stack([split, identity]))
    ends = refine_critical_points(orthonormal(8), both, devices=one_device())
    assert ends.families == ("global", "split II")
    assert ends.kinds == ("minimum", "saddle")
    assert int(ends.negative[1]) == 7
    assert float(ends.runs.moved[0]) == 0
    # apart along the direction of largest descent: towards a teacher and from another
    aside = np.zeros(8)
    aside[np.argmin(w)], aside[np.argmax(w)] = 0.2, -0.2
    split = np.concatenate([rest, [w / 2 + aside, w / 2 - aside]])
    both = jnp.asarray(np.stack([split, identity]))
    ends = refine_critical_points(
        orthonormal(8), both, descend=True, devices=one_device()
    )
    assert ends.families == ("global", "unnamed [7, 1]")
    assert ends.kinds == ("minimum", "minimum")
    assert abs(float(ends.losses[1]) - 0.0205607918) < 1e-10
    assert abs(float(ends.smallest[1]) - 0.0059446) < 1e-7
    # the global minimum is degenerate, of nullity (n - k) d
    assert int(ends.zero[0]) == 8
    methods = [POLISHED_BY[i] for i in np.asarray(ends.runs.polished_by)]
    assert methods == ["newton", "nearest_global_minimum"]
    assert float(ends.losses[0]) < 1e-14


def test_general_teachers(float64, getkey):
    """Unequal norms and angles, negative outer weights, more inputs than neurons."""
    teacher = Shallow(
        jnp.asarray([[1.0, 0.2, 0.0], [0.0, 1.5, 0.0]]), jnp.asarray([1.0, -0.5])
    )
    outer = jnp.asarray([1.0, -1.0])
    objective = PopulationLoss(teacher)
    points = find_critical_points(
        objective, getkey(), 2, 8, outer=outer, learning_rate=0.5, devices=one_device()
    )
    assert points.runs.converged.all()
    assert points.families[0] == "global"
    product = points.outer[:, None] * points.weights[0]
    expected = teacher.outer[:, None] * teacher.inner
    np.testing.assert_allclose(product, expected, atol=1e-11)
    for w in np.asarray(points.weights):
        assert np.abs(slope_at(objective, w, outer)).max() < 1e-12


def test_every_global_minimum_is_called_so(points, float64):
    """A vanishing neuron, a dependent teacher turned around, a repeated teacher."""
    dependent = np.eye(K)
    dependent[:3, :3] -= 1 / 3  # these rows add up to 0
    turned = dependent * np.where(np.arange(K) < 3, -1, 1)[:, None]
    vanishing = np.eye(K)
    vanishing[-1] *= -1e-13
    without = np.eye(K)[[0, 0, 1, 2, 3, 4, 5, 6]]  # of rank 7
    without[:2] /= 2
    repeated = np.eye(K)[[0, 0, 1, 2, 3, 4, 5, 6]]
    shared = np.eye(K)[[0, 1, 1, 2, 3, 4, 5, 6]]
    shared[:3] *= np.array([2, 0.25, 0.75])[:, None]
    cases = [
        (dependent, turned),
        (without, vanishing),
        (repeated, shared),
    ]
    for teacher, student in cases:
        objective = PopulationLoss(jnp.asarray(teacher))
        weights = jnp.asarray(student)
        assert abs(float(objective(weights))) < 1e-13
        where = lambda r: (r.weights, r.losses, r.gradient_norms)
        one = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[:1]), points.runs)
        values = (student[None], [objective(weights)], np.full(1, 1e-13))
        values = tuple(jnp.asarray(np.asarray(x)) for x in values)
        found = classify(objective, eqx.tree_at(where, one, values))
        assert found.families == ("global",)
        assert found.kinds == ("minimum",)


# ---------------------------------------------------------------- units of the weights


@pytest.mark.parametrize(
    ("inner", "teacher", "student"),
    [(1e-6, 1, 1), (1e6, 1, 1), (1, 1, 1e-4), (1, 1e7, 1e7), (1, 1e-8, 1e-8)],
)
def test_units_change_nothing(points, float64, inner, teacher, student):
    """Weights times t and outer weights times c: eigenvalues c² times as large."""
    weights = np.asarray(points.weights) * (inner * teacher / student)
    objective = PopulationLoss(
        Shallow(jnp.asarray(inner * np.eye(K)), jnp.asarray(np.full(K, float(teacher))))
    )
    near = jnp.asarray(weights * (1 + 1e-3))
    outer = jnp.asarray(np.full(K, float(student)))
    found = refine_critical_points(
        objective,
        near,
        outer=outer,
        tolerance=1e-15,
        devices=one_device(),
    )
    assert found.runs.converged.all()
    assert found.kinds == ("minimum", "minimum")
    assert [group.name for group in found.isotropies] == ["ΔS_8", "ΔS_7"]
    unit = float(student) ** 2
    assert (np.asarray(found.zero_tolerances) < 1e-6 * unit).all()
    expected = [1 / 4 - 1 / (2 * np.pi), 0.0213465892]
    np.testing.assert_allclose(np.asarray(found.smallest) / unit, expected, atol=1e-9)


def test_single_precision_in_other_units():
    """The least eigenvalue is known to 5e-8; float32 knows the point to 1e-6."""
    w = np.float32(1e6) * seed(1, K, on=-0.8).astype(np.float32)
    objective = PopulationLoss(jnp.asarray(np.float32(1e6) * np.eye(K, dtype="f4")))
    found = refine_critical_points(objective, jnp.asarray(w), devices=one_device())
    assert found.weights.dtype == jnp.float32
    assert found.runs.converged.all()
    assert found.kinds == ("minimum",)
    assert float(found.zero_tolerances[0]) < 5e-3
    assert abs(float(found.smallest[0]) - 0.02134659) < 1e-3


@pytest.mark.parametrize("size", [2.0, 5.0, 1e3])
def test_far_starts_are_moved(float64, getkey, size):
    """Where the gradient outweighs the Hessian; most of them to a zero of it.

    The others stop at a local minimum of the gradient's norm, and say so.
    """
    objective = orthonormal(2, d=3)
    converged = 0
    for draw in size * normal(getkey(), (2, 8, 2, 3)):
        points = refine_critical_points(
            objective, jnp.asarray(draw), devices=one_device()
        )
        runs = points.runs
        converged += int(runs.converged.sum())
        assert float(runs.gradient_norms.max()) < 0.05
        assert float(runs.moved.min()) > size / 2
        for w in np.asarray(points.weights):
            slope = slope_at(objective, w, points.outer)
            assert np.abs(slope).max() < 1e-12
    assert converged >= 8


def test_only_near_runs_are_taken_to_a_global_minimum(float64):
    """A saddle a third of the teacher away, the outer weights from 1 to 30."""
    saddle = np.array([[0.42276996] * 2, [0.42276996] * 2, [0.22276996] * 2])
    aside = 1e-4 * np.eye(3, 2)

    def from_near(weights, a):
        return refine_critical_points(
            orthonormal(2),
            jnp.asarray(weights / a),
            outer=jnp.asarray(np.full(3, a)),
            descend=True,
            learning_rate=0.3 / a**2,
            max_steps=1,
            devices=one_device(),
        )

    for a in (1.0, 3.0, 30.0):
        points = from_near(saddle + aside, a)
        assert points.kinds == ("saddle",)
        assert float(points.losses[0]) > 0.01
        assert float(points.runs.moved[0]) * a < 1e-2
    # and those near are, whatever the outer weights
    near = np.array([[0.5, 0.01], [0.5, -0.01], [0.0, 1.0]])
    points = from_near(near, a)
    assert points.families == ("global",)
    methods = [POLISHED_BY[i] for i in np.asarray(points.runs.polished_by)]
    assert methods == ["nearest_global_minimum"]
    expected = np.array([[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(np.asarray(points.weights)[0] * a, expected, atol=1e-4)


@pytest.mark.parametrize("a", [1e-4, 100.0])
def test_default_rates_suit_the_outer_weights(float64, a):
    """The same number of steps, and the same points, as with outer weights one."""
    key, ends = jrandom.key(2), []
    for outer in (1.0, a):
        objective = orthonormal(2, d=3)
        index = jnp.arange(8, dtype=jnp.int32)
        starts = starting_weights(key, index, (2, 3), "xavier", jnp.dtype("float64"))
        ends.append(
            refine_critical_points(
                objective,
                starts / outer,
                outer=jnp.asarray(np.full(2, outer)),
                descend=True,
                devices=one_device(),
            )
        )
    one, other = ends
    assert other.runs.converged.all()
    np.testing.assert_array_equal(one.class_of, other.class_of)
    np.testing.assert_allclose(other.runs.steps, one.runs.steps, atol=1)
    ends = np.asarray(other.runs.weights) * a
    np.testing.assert_allclose(ends, one.runs.weights, atol=1e-6)


# -------------------------------------------------------------------- what goes wrong


def test_too_large_a_step_is_halved(float64):
    seen = []
    points = find_critical_points(
        orthonormal(2, d=3),
        jrandom.key(0),
        2,
        8,
        learning_rate=20.0,
        devices=one_device(),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == sorted(seen)
    assert seen[-1] == (8, 8)
    assert points.runs.converged.all()
    assert (np.asarray(points.runs.rates) < 20).all()


def test_divergence_is_data(float64):
    objective, key = orthonormal(2, d=3), jrandom.key(0)
    points = find_critical_points(
        objective, key, 2, 8, learning_rate=1e6, devices=one_device()
    )
    assert bool((points.runs.result == RESULTS.diverged).all())
    assert (np.asarray(points.class_of) == -1).all()
    assert len(points) == 0
    assert census(points).failed.count == 8
    with pytest.raises(RuntimeError, match="8 of 8"):
        find_critical_points(
            objective, key, 2, 8, learning_rate=1e6, throw=True, devices=one_device()
        )


def test_bad_input_is_refused(float64, getkey):
    objective = orthonormal(2, d=3)
    key = getkey()
    with pytest.raises(TypeError, match="PopulationLoss"):
        find_critical_points.__wrapped__(jnp.sum, key, 2, 4)
    with pytest.raises(ValueError, match="num_neurons is 0"):
        find_critical_points(objective, key, 0, 4)
    with pytest.raises(ValueError, match="num_starts is -1"):
        find_critical_points(objective, key, 2, -1)
    with pytest.raises(ValueError, match="init is 'zeros'"):
        find_critical_points(objective, key, 2, 4, init="zeros")
    with pytest.raises(ValueError, match="first_start is -1"):
        find_critical_points(objective, key, 2, 4, first_start=-1)
    with pytest.raises(ValueError, match="learning_rate is 0"):
        find_critical_points(objective, key, 2, 8, learning_rate=0.0)
    with pytest.raises(ValueError, match="one nonzero weight"):
        find_critical_points(objective, key, 2, 4, outer=jnp.asarray([1.0, 0.0]))
    with pytest.raises(ValueError, match="as the teacher"):
        refine_critical_points(objective, jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="NaN"):
        refine_critical_points(objective, jnp.full((2, 3), jnp.nan))
