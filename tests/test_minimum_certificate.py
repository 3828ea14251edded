"""Certified minima: enclosures against mpmath, and points that must be refused."""

import itertools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from _draws import normal

from jaxrelu import PopulationLoss, Shallow, hessian
from jaxrelu.landscape import (
    certify_minimum,
    split,
    symmetric_minimum,
    third_derivative_bound,
)
from jaxrelu.landscape.certificates._balls import (
    FLOAT64,
    Ball,
    arctangent,
    multiprecision,
)
from jaxrelu.landscape.certificates._enclosures import (
    gradient_enclosure,
    hessian_enclosure,
    loss_enclosure,
    spectral_bound,
)


def second(k):
    objective = PopulationLoss(Shallow.orthonormal(k, dtype=jnp.float64))
    return objective, symmetric_minimum("II", k)


def true_distance(point, weights):
    """To the family's point in 30 digits, entry by entry in mpmath."""
    values = point.high_precision
    k = int(point.k)
    total = mpmath.mpf(0)
    with mpmath.workdps(30):
        for i, j in itertools.product(range(k), range(k)):
            last = (i == k - 1, j == k - 1)
            name = {
                (False, False): "a" if i == j else "b",
                (False, True): "c",
                (True, False): "r",
                (True, True): "e",
            }[last]
            gap = mpmath.mpf(float(weights[i, j])) - values[name]
            total += gap**2
        return float(mpmath.sqrt(total))


# ------------------------------------------------------------------ balls


def contains(ball, exact):
    """Whether every entry of the exact numbers is in the ball."""
    for centre, radius, x in zip(
        ball.centre.ravel(), ball.radius.ravel(), np.ravel(exact), strict=True
    ):
        if abs(mpmath.mpf(centre) - x) > mpmath.mpf(float(radius)):
            return False
    return True


@pytest.mark.parametrize("digits", [None, 30])
def test_balls_hold_what_they_say(digits):
    """Chains of operations, in twice the digits; also with members off centre."""
    rng = np.random.default_rng(7)
    arithmetic = FLOAT64 if digits is None else multiprecision(digits)
    with mpmath.workdps(80):
        for wide in (0.0, 1e-6):
            x, y = rng.standard_normal((2, 4, 5)) * 10.0 ** rng.integers(
                -6, 6, (2, 4, 5)
            )
            shift = rng.uniform(-1, 1, (2, 4, 5))
            as_mp = np.vectorize(mpmath.mpf, otypes=[object])
            radius = np.abs([x, y]) * wide
            exact = [as_mp(v) + as_mp(r * s) for v, r, s in
                     zip((x, y), radius, shift, strict=True)]  # fmt: skip
            a, b = (
                Ball(arithmetic.exact(v).centre, r * (1 + 1e-15), arithmetic)
                for v, r in zip((x, y), radius, strict=True)
            )
            p, q = exact
            root = np.vectorize(mpmath.sqrt, otypes=[object])
            angle = np.vectorize(mpmath.atan2, otypes=[object])
            cases = [
                (a + b, p + q),
                (a - b, p - q),
                (a * b, p * q),
                (a / b, p / q),
                ((a - b) * (a + b) / a, (p - q) * (p + q) / p),
                ((a * a).sqrt(), root(p * p)),
                (a.norm(), root((p * p).sum(-1))),
                (a.sum(), p.sum()),
                (a.matmul(b.transpose(1, 0)), p @ q.T),
                (arctangent((a * a).sqrt(), (b * b).sqrt()), angle(abs(p), abs(q))),
                ((a - a).sqrt(), 0 * p),
            ]
            for place, (ball, value) in enumerate(cases):
                assert contains(ball, value), place
                if wide == 0 and place not in (4, 10):
                    size = np.abs(np.asarray(ball.centre, float)).max()
                    assert ball.radius.max() < 1e-12 * max(size, 1)


def test_balls_without_room_are_infinite():
    one = FLOAT64.exact(np.ones(1))
    around_zero = Ball(np.asarray([0.5]), 0.6, FLOAT64)
    with np.errstate(all="ignore"):
        assert np.isinf((one / around_zero).radius).all()
    pi = FLOAT64.pi()
    assert contains(pi, np.asarray([mpmath.pi]))


# ------------------------------------------------------------------ enclosures


def exact_loss(rows, outer):
    """F from arccos, in the digits at hand; outer holds a and then -b."""
    total = mpmath.mpf(0)
    norms = [mpmath.sqrt(mpmath.fdot(r, r)) for r in rows]
    for (x, p, a), (y, q, b) in itertools.product(
        zip(rows, norms, outer, strict=True), repeat=2
    ):
        cos = max(min(mpmath.fdot(x, y) / (p * q), 1), -1)
        theta = mpmath.acos(cos)
        value = mpmath.sin(theta) + (mpmath.pi - theta) * cos
        total += a * b * p * q * value / (4 * mpmath.pi)
    return total


RULES = ("newton", "sphere")
CASES = {
    "general": ([[0.3, -1.2], [0.9, 0.4]], [[1.0, 0.5], [-0.7, 0.2]]),
    "narrow": ([[0.3, -1.2], [0.3, -1.2 + 1e-5]], [[-0.3, 1.2 + 1e-6], [0.2, 1.0]]),
    "near the limit": ([[1.0, 0.0], [0.5, 1e-9]], [[-1.0, 1e-8], [1.0, 1e-10]]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("digits", [None, 40])
def test_enclosures_hold_loss_gradient_and_hessian(case, digits, float64):
    """By central differences in 100 digits."""
    w, v = (np.asarray(x) for x in CASES[case])
    a, b = np.asarray([1.5, -0.5]), np.asarray([0.7, 1.1])
    student = Shallow(jnp.asarray(w), jnp.asarray(a))
    teacher = Shallow(jnp.asarray(v), jnp.asarray(b))
    arithmetic = FLOAT64 if digits is None else multiprecision(digits)
    with mpmath.workdps(100):
        outer = [mpmath.mpf(x) for x in [*a.tolist(), *(-b).tolist()]]
        start = [mpmath.mpf(x) for x in w.ravel().tolist()]
        rest = [[mpmath.mpf(x) for x in row] for row in v.tolist()]
        h = mpmath.mpf(10) ** -22

        def loss(*moves):
            x = list(start)
            for place, step in moves:
                x[place] += step
            return exact_loss([x[:2], x[2:], *rest], outer)

        value, error = loss_enclosure(student, teacher, arithmetic)
        assert abs(mpmath.mpf(value) - loss()) <= error < 1e-12
        gradient = gradient_enclosure(student, teacher, arithmetic)
        exact = [(loss((i, h)) - loss((i, -h))) / (2 * h) for i in range(4)]
        assert contains(gradient.widened(1e-30), exact)
        assert gradient.radius.max() < (1e-13 if digits is None else 1e-15)
        full, block = hessian_enclosure(student, teacher, FLOAT64)
        exact = [
            sum(
                s * t * loss((i, s * h), (j, t * h))
                for s, t in itertools.product((1, -1), repeat=2)
            )
            / (4 * h * h)
            for i, j in itertools.product(range(4), range(4))
        ]
        assert contains(full.widened(1e-12), exact)
        slack = 1e-6 if case == "near the limit" else 1e-8
        assert full.radius.max() < slack
    # the block M of further dimensions: a third coordinate
    embed = lambda x: jnp.asarray(np.pad(x, ((0, 0), (0, 1))))
    wide = hessian(
        PopulationLoss(Shallow(embed(v), jnp.asarray(b))),
        Shallow(embed(w), jnp.asarray(a)),
    ).as_matrix()
    gap = np.abs(np.asarray(wide)[2::3, 2::3] - block.centre)
    assert (gap <= block.radius + 1e-14).all()


def test_spectral_bound_of_radii():
    radius = np.random.default_rng(1).uniform(0, 1, (6, 6))
    largest = max(
        np.linalg.norm(np.tril(r) + np.tril(r, -1).T, 2) for r in (radius, -radius)
    )
    assert spectral_bound(radius) >= largest


# ------------------------------------------------------------------ third derivatives


def test_third_derivative_bound_by_differences_of_hessians(getkey, float64):
    """In random and in adversarial directions, for outer weights of both signs."""
    h = 1e-5
    v, w = (jnp.asarray(normal(getkey(), (n, 3))) for n in (3, 2))
    objective = PopulationLoss(Shallow(v, jnp.asarray([1.0, -0.5, 2.0])))
    outer = jnp.asarray([1.5, -0.7])

    def change(direction):
        matrix = lambda t: hessian(
            objective, Shallow(w + t * direction, outer)
        ).as_matrix()
        return (matrix(h) - matrix(-h)) / (2 * h)

    def ascend(direction):
        """Power iteration of a symmetric trilinear form."""

        def step(_, u):
            values, vectors = jnp.linalg.eigh(change(u))
            place = jnp.argmax(jnp.abs(values))
            return vectors[:, place].reshape(u.shape)

        u = jax.lax.fori_loop(0, 12, step, direction)
        return jnp.abs(jnp.linalg.eigvalsh(change(u))).max()

    starts = normal(getkey(), (20, 2, 3))
    starts = starts / np.linalg.norm(starts, axis=(1, 2), keepdims=True)
    largest = float(np.max(jax.jit(lambda s: jax.lax.map(ascend, s))(starts)))
    bound = third_derivative_bound(objective, Shallow(w, outer))
    assert largest <= bound < 12 * largest
    assert third_derivative_bound(objective, Shallow(w, outer), 0.1) > bound
    assert third_derivative_bound(objective, Shallow(w, outer), 9.0) == math.inf


def test_third_derivative_of_one_pair_is_sharp(float64):
    """3√3/4π is attained at 60 degrees; 1/π, as in the 2018 program, is exceeded."""
    w = np.asarray([[2.0, 0.0]])
    v = np.asarray([[0.5, math.sqrt(0.75)]]) * 3
    objective = PopulationLoss(v)
    # parts √3/2 across, towards v, and 1/2 along w
    u = np.asarray([[0.5, math.sqrt(0.75)]])
    h = 1e-4
    losses = [float(objective(w + j * h * u * 100)) for j in (-2, -1, 1, 2)]
    step = 100 * h
    third = (losses[3] - 2 * losses[2] + 2 * losses[1] - losses[0]) / (2 * step**3)
    mine = 3 * math.sqrt(3) / (4 * math.pi) * 3 / 4
    assert abs(third) == pytest.approx(mine, rel=1e-3)
    assert abs(third) > 3 / (math.pi * 4) * 1.2
    own = third_derivative_bound(objective, w) - 3 / (2 * math.pi)
    assert own == pytest.approx(mine, rel=1e-8)


def test_mixed_third_derivative_of_one_pair():
    """1/π|w|, with all three vectors across w towards v."""
    theta, length = mpmath.mpf("0.8"), mpmath.mpf(2)

    def kernel(t, s):
        x = (length, t)
        y = (3 * mpmath.cos(theta), 3 * mpmath.sin(theta) + s)
        p, q = (mpmath.sqrt(mpmath.fdot(z, z)) for z in (x, y))
        cos = mpmath.fdot(x, y) / (p * q)
        angle = mpmath.acos(cos)
        value = mpmath.sin(angle) + (mpmath.pi - angle) * cos
        return p * q * value / (2 * mpmath.pi)

    with mpmath.workdps(40):
        third = mpmath.diff(kernel, (0, 0), (2, 1))
    # what is left of the bound for two neurons without the part of f_www
    objective = PopulationLoss(jnp.asarray([[1.0, 0.0]]))
    w = jnp.asarray([[2.0, 0.0], [0.0, 2.0]])
    own = 3 * math.sqrt(3) / (16 * math.pi) * 3
    mixed = third_derivative_bound(objective, w) - own
    assert float(third) == pytest.approx(1 / (2 * math.pi), rel=1e-12)
    assert mixed == pytest.approx(3 * math.sqrt(2) * float(third), rel=1e-6)


def published_bound(objective, w, radius):
    """B of the 2018 program, for outer weights one."""
    norms = np.linalg.norm(w, axis=1)
    high, low = norms.max() + radius, norms.min() - radius
    longest = np.linalg.norm(objective.teacher.inner, axis=1).max()
    n, k = len(w), objective.teacher.width
    pairs = math.sqrt(2) * (n - 1) * (high + low)
    return n * (pairs + k * longest) / (math.pi * low**2)


# ------------------------------------------------------------------ certificates


@pytest.mark.parametrize(
    ("k", "smallest", "loss"),
    [(6, 0.0047003, 0.0250806), (8, 0.0213463, 0.0215080)],
)
def test_published_minima(k, smallest, loss, getkey, float64):
    """λ_min and loss as in the tables of 2018, and the true minimum within r."""
    objective, point = second(k)
    w = np.asarray(point.weights(jnp.float64))
    noise = normal(getkey(), w.shape)
    noise = noise / np.linalg.norm(noise)
    for digits, size in ((None, 0.0), (40, 0.0), (None, 1e-9), (40, 1e-6)):
        start = w + size * noise
        certificate = certify_minimum(objective, start, digits=digits)
        assert certificate.holds
        assert certificate.reason == ""
        assert certificate.verdict == "spurious"
        assert certificate.every_dimension
        distance = true_distance(point, start)
        assert distance <= certificate.radius < certificate.isolation_radius
        assert certificate.radius < 1.01 * distance + (
            1e-10 if digits is None else 1e-13
        )
        exact = float(point.loss.value)
        low, high = certificate.loss
        assert low <= exact <= high
        assert low > 0
        assert high - low < 1e-8
        assert exact == pytest.approx(loss, abs=1e-6)
        values = np.linalg.eigvalsh(np.asarray(hessian(objective, start).as_matrix()))
        assert certificate.lambda_min <= values[0] + 1e-15
        assert certificate.lambda_min == pytest.approx(smallest, abs=2e-5)
        slope = np.linalg.norm(np.asarray(objective.gradient(start)))
        assert certificate.gradient_norm >= slope - (1e-15 if digits else 0)
        mine = certificate.third_derivative
        assert mine < published_bound(objective, np.asarray(start), 0) / 4
    assert "spurious" in str(certificate)
    # the rule of 2018 from closer by
    start = w + 1e-9 * noise
    other = certify_minimum(objective, start, rule="sphere")
    assert other.verdict == "spurious"
    assert true_distance(point, start) <= other.radius
    far = [certify_minimum(objective, w + 1e-5 * noise, rule=r) for r in RULES]
    assert [c.holds for c in far] == [True, k == 8]
    assert true_distance(point, w + 1e-5 * noise) <= far[0].radius < 1.1e-5


def test_the_only_critical_point_in_its_ball(getkey, float64):
    """The Hessian stays positive definite within the isolation radius."""
    objective, point = second(6)
    w = np.asarray(point.weights(jnp.float64))
    certificate = certify_minimum(objective, w)
    directions = normal(getkey(), (30, *w.shape))
    norms = np.linalg.norm(directions, axis=(1, 2), keepdims=True)
    ends = w[None] + directions / norms * certificate.isolation_radius
    matrices = [np.asarray(hessian(objective, x).as_matrix()) for x in ends]
    values = np.linalg.eigvalsh(matrices)[:, 0]
    assert (values > 0).all()
    moved = certificate.lambda_min - values
    lipschitz = certificate.third_derivative * certificate.isolation_radius
    assert (np.abs(moved) <= lipschitz).all()


def test_single_precision_weights_are_exact_numbers():
    """With x64 off: a radius for the stored point, computed in float64."""
    objective = PopulationLoss(Shallow.orthonormal(8, dtype=jnp.float32))
    with jax.enable_x64(True):
        point = symmetric_minimum("II", 8)
    w = point.weights(jnp.float32)
    assert w.dtype == jnp.float32
    certificate = certify_minimum(objective, w)
    distance = true_distance(point, np.asarray(w, float))
    assert 1e-8 < distance <= certificate.radius < 2 * distance
    assert certificate.verdict == "spurious"


def test_global_minima(getkey, float64):
    """W = V up to order and outer weights, from a point next to it."""
    draw = lambda *shape: normal(getkey(), shape)
    outer, weights = jnp.asarray([2.0, -1.0, 0.5]), np.asarray([0.5, 1.5, -1.0])
    cases = [(PopulationLoss(Shallow.orthonormal(4, 5)), np.ones(4), [2, 0, 3, 1])]
    teacher = Shallow(jnp.asarray(draw(3, 4)), outer)
    cases += [(PopulationLoss(teacher), weights, [2, 0, 1])]
    for objective, a, order in cases:
        v, b = (
            np.asarray(x) for x in (objective.teacher.inner, objective.teacher.outer)
        )
        exact = (b[order] / a)[:, None] * v[order]
        noise = draw(*exact.shape)
        start = exact + 1e-9 * noise / np.linalg.norm(noise)
        student = Shallow(jnp.asarray(start), jnp.asarray(a))
        certificate = certify_minimum(objective, student)
        assert certificate.holds
        assert certificate.verdict == "global"
        distance = np.linalg.norm(start - exact)
        assert distance <= certificate.radius < 1.1 * distance
        assert certificate.loss == (0.0, 0.0)


def test_fewer_neurons_than_the_teacher_are_undecided(float64):
    """One neuron for an orthonormal pair: a minimum, and zero is out of reach."""
    objective = PopulationLoss(Shallow.orthonormal(2))
    cos = math.cos(math.pi / 4)
    theta = math.pi / 4
    length = 2 * (math.sin(theta) + (math.pi - theta) * cos) / math.pi
    w = jnp.asarray([[cos, cos]]) * length
    certificate = certify_minimum(objective, w)
    assert certificate.holds
    assert certificate.verdict == "undecided"
    assert certificate.loss[0] > 0


# ------------------------------------------------------------------ refusals


def test_what_is_no_minimum_is_refused(getkey, float64):
    objective, point = second(6)
    w = np.asarray(point.weights(jnp.float64))
    noise = normal(getkey(), w.shape)
    refused = {
        "split": split(w, 0),
        "far": w + 1e-2 * noise,
        "not critical": w + 2e-3 * noise / np.linalg.norm(noise),
        "zero neuron": w * (np.arange(6) != 2)[:, None],
        "global, n > k": split(np.eye(6), 0),
    }
    for (name, weights), rule in itertools.product(refused.items(), RULES):
        certificate = certify_minimum(objective, weights, rule=rule)
        assert not certificate.holds, name
        assert certificate.radius == math.inf
        assert certificate.reason
        assert certificate.verdict == "nothing proved"
        assert certificate.isolation_radius == 0
        assert not certificate.every_dimension
        assert "NOT MET" in str(certificate)
        assert certificate.loss == (0.0, math.inf)


def test_a_saddle_of_the_family_is_refused(float64):
    """Type II at k = 5: critical to rounding, with negative curvature."""
    objective = PopulationLoss(Shallow.orthonormal(5))
    w = symmetric_minimum("II", 5).weights(jnp.float64)
    certificate = certify_minimum(objective, w, digits=40)
    assert certificate.gradient_norm < 1e-14
    assert certificate.lambda_min < 0
    assert not certificate.holds
    assert "positive definite" in certificate.reason


def test_bad_input(float64):
    objective = PopulationLoss(Shallow.orthonormal(3))
    with pytest.raises(ValueError, match="digits is 10"):
        certify_minimum(objective, jnp.eye(3), digits=10)
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda w: certify_minimum(objective, w).radius)(jnp.eye(3))
    with pytest.raises(ValueError, match="same d and"):
        certify_minimum(objective, jnp.eye(4))
    for radius in (-1.0, math.nan):
        with pytest.raises(ValueError, match="at least 0"):
            third_derivative_bound(objective, jnp.eye(3), radius)
