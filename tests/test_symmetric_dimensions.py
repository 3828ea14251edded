"""Families over k: verdicts, tables, critical dimensions, expansions, bad input."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from jaxrelu import MemoryRefusedError
from jaxrelu.landscape import (
    critical_dimension,
    family_table,
    series,
    symmetric_critical_point,
    symmetric_minimum,
)
from jaxrelu.landscape.families._blocks import loss


FIRST_MINIMUM = {
    "A": 6,
    "I": 7,
    "II": 6,
    "M_2": 8,
    "M_3": 10,
    "M_4": 11,
    "M_5": 13,
    "M_6": 15,
    "M_7": 16,
}


# ---------------------------------------------------------------------- closed spectra


def test_global_minimum_for_all_k(float64):
    """Closed forms of the notes, multiplicities k = 3..20 and extra dimensions."""
    for k, extra in [(3, 0), (5, 2), (9, 0), (20, 1), (10**6, 3)]:
        spectrum = symmetric_minimum("global", k, k + extra).hessian_spectrum()
        pi, root, d = np.pi, np.sqrt, k + extra
        low, high = 1 / 4 - 1 / (2 * pi), 1 / 4 + 1 / (2 * pi)
        mean = k + 2, (k + 2) * pi + 2 * k
        gap = root(k**2 - 16 * (pi - 1) / pi**2)
        wide = root(pi**2 * k**2 - 4 * (pi - 1) * (k - 2) ** 2)
        expected = [(low, k * (k - 1) // 2), (high, k * (k - 3) // 2)]
        expected += [((mean[0] + s * gap) / 8, k - 1) for s in (-1, 1)]
        expected += [((mean[1] + s * wide) / (8 * pi), 1) for s in (-1, 1)]
        expected += [(1 / 4, (k - 1) * extra), ((k + 1) / 4, extra)]
        assert spectrum.total == k * d
        for value, times in expected:
            near = np.abs(np.asarray(spectrum.values) - value) < 1e-14 * k
            found = sum(
                m for m, x in zip(spectrum.multiplicities, near, strict=True) if x
            )
            assert found == times, (k, value)


def test_global_minimum_of_two_neurons(float64):
    """Where the square has no component Y, and the standard one only two copies."""
    values = symmetric_minimum("global", 2).hessian_spectrum().expand()
    low = 1 / 4 - 1 / (2 * np.pi)
    np.testing.assert_allclose(values, [1 - low, 1 / 2 + low, 1 / 2 - low, low], 1e-14)


def test_second_type_at_a_million(float64):
    """Multiplicities are exact; the trace is that of the diagonal blocks, summed."""
    k = 10**6
    point = symmetric_minimum("II", k)
    spectrum = point.hessian_spectrum()
    assert spectrum.total == k**2
    assert spectrum.inertia() == (0, 0, k**2)
    assert len(spectrum.labels) == 12
    times = dict(zip(spectrum.labels, spectrum.multiplicities, strict=True))
    assert times["alternating"] == (k - 2) * (k - 3) // 2
    assert times["Young"] == (k - 1) * (k - 4) // 2
    with pytest.raises(MemoryRefusedError, match="bytes"):
        point.weights()
    with mpmath.workdps(50):
        a, b, c, e, r = point.numbers
        n = k - 1
        norm = mpmath.sqrt(a**2 + (n - 1) * b**2 + c**2)
        last = mpmath.sqrt(n * r**2 + e**2)
        dots = 2 * a * b + (n - 2) * b**2 + c**2, a * r + (n - 1) * b * r + c * e

        def sine(cos):
            return mpmath.sqrt(1 - cos**2)

        inside, outside = sine(dots[0] / norm**2), sine(dots[1] / (norm * last))
        first = (n - 1) * norm * inside + last * outside
        first -= sine(a / norm) + (n - 1) * sine(b / norm) + sine(c / norm)
        final = n * norm * outside - n * sine(r / last) - sine(e / last)
        trace = mpmath.mpf(k) ** 2 / 2
        trace += k * (n * first / norm + final / last) / (2 * mpmath.pi)
    terms = zip(spectrum.values, spectrum.multiplicities, strict=True)
    total = sum(float(v) * m for v, m in terms)
    assert total == pytest.approx(float(trace), rel=1e-14)


@pytest.mark.parametrize(
    ("name", "k", "digits"),
    [("II", 10**7, 5), ("II", 10**12, 1), ("A", 10**20, 1), ("global", 10**30, 30)],
)
def test_inertia_where_k_outweighs_the_digits(name, k, digits, dtype):
    """The least eigenvalue, about 0.09 at any k, beside others of k/4.

    To 1 part in k it is that of the identity, 1/4 - 1/2π; and 50 digits more leave
    every eigenvalue within its error, of which rounding to a float is most.
    """
    del dtype  # JAX's default; the multiprecision numbers are the same
    point = symmetric_minimum(name, k, digits=digits)
    assert point.is_local_minimum
    assert point.inertia == (0, 0, k**2)
    least = point.smallest_eigenvalue
    assert float(least.error) < 1e-5
    assert abs(float(least.value) - (1 / 4 - 1 / (2 * np.pi))) < 1e-3
    exact = symmetric_minimum(name, k, digits=digits + 50)
    bound = mpmath.mpf(10) ** -(digits + 5)
    for part, finer in zip(point.isotypic(), exact.isotypic(), strict=True):
        with mpmath.workdps(300):
            pairs = zip(part.values, finer.values, strict=True)
            assert all(abs(x - y) <= bound for x, y in pairs)


def test_closed_form_of_the_exterior_square(float64):
    """The notes' formula for isotropy ΔS_k, at type A, with angles of its own."""
    k = 9
    point = symmetric_minimum("A", k)
    own, other = (float(x) for x in point.numbers)
    norm = np.sqrt(own**2 + (k - 1) * other**2)
    theta = np.arccos((2 * own * other + (k - 2) * other**2) / norm**2)
    to_own, to_other = np.arccos(own / norm), np.arccos(other / norm)
    rest = np.sin(to_own) + (k - 1) * np.sin(to_other) + 1 / np.sin(to_other)
    low = (theta + (k - 1) * np.sin(theta) - rest / norm) / (2 * np.pi)
    high = low + (own - other) ** 2 / (np.pi * norm**2 * np.sin(theta))
    found = dict(zip(*_labels_and_values(point), strict=True))
    assert found["alternating"] == pytest.approx(low, abs=1e-14)
    assert found["Young"] == pytest.approx(high, abs=1e-14)


def _labels_and_values(point):
    spectrum = point.hessian_spectrum()
    return spectrum.labels, [float(v) for v in spectrum.values]


# -------------------------------------------------------------------- verdicts, tables


def test_where_the_families_are_minima():
    """The column of the notes, one k below it and one at it; global: all k."""
    for name, k in FIRST_MINIMUM.items():
        assert not symmetric_minimum(name, k - 1, digits=12).is_local_minimum, name
        assert symmetric_minimum(name, k, digits=12).is_local_minimum, name
    assert symmetric_minimum("global", 2 + 1).is_local_minimum
    window = [symmetric_minimum("N_6", k, digits=12) for k in (8, 17, 18)]
    assert [point.is_local_minimum for point in window] == [True, True, False]


def test_table(float64):
    table = family_table(["II", "A", "M_2", "N_6"], [4, 8, 12.5, 100])
    assert table.loss.shape == (4, 4)
    assert jnp.isnan(table.loss).tolist()[3] == [True, False, False, False]
    assert float(table.k[2]) == 12.5
    at_minima = np.asarray(table.norm_sum)[np.asarray(table.is_minimum)]
    sizes = np.broadcast_to(np.asarray(table.k), (4, 4))[np.asarray(table.is_minimum)]
    assert len(at_minima) >= 10
    assert (at_minima <= sizes).all()
    assert not table.is_minimum[:, 0].any()
    assert (np.asarray(table.smallest)[:3, 1:] > 0).all()


def test_loss_two_ways():
    """Critical points have equal sums of kernels, so F = ½(Σf(v,v) - Σf(w,w))."""
    for name, k in [("A", 30), ("II", 10**12), ("M_3", 17.5), ("N_4", 10**9)]:
        estimate = symmetric_minimum(name, k).loss
        assert 0 < float(estimate) < 0.2
        eps = jnp.finfo(estimate.value.dtype).eps
        assert float(estimate.error) <= eps * float(estimate)


def test_two_families_meet_at_small_k():
    """M_p at k = p + 2 and II at k = 3 are A with two columns exchanged."""
    for name, k in [("II", 3), ("M_2", 4), ("M_5", 7)]:
        one = symmetric_minimum("A", k).weights()
        other = np.asarray(symmetric_minimum(name, k).weights())
        np.testing.assert_allclose(np.sort(other.ravel()), np.sort(one.ravel()), 1e-6)


def test_a_family_that_turns_back_is_not_mistaken_for_another():
    """Past the folds only M_30 or N_100 is left, which long steps would land on."""
    assert float(symmetric_minimum("N_30", 100).loss) > 0.1
    for name, k in (("N_30", 300), ("M_100", 150)):
        with pytest.raises(RuntimeError, match="followed"):
            symmetric_minimum(name, k)
    near = [float(symmetric_minimum("M_34", k).loss) for k in (36, 37, 38)]
    assert near[0] == pytest.approx(float(symmetric_minimum("A", 36).loss), abs=1e-3)
    assert near == sorted(near)


# ------------------------------------------------------------------ critical dimensions


def test_critical_dimension_of_the_first_type():
    """Three equations of our own for δ, β and k: gradient and exterior square."""
    found = critical_dimension("A")
    assert found.label == "alternating"
    assert found.increasing

    def equations(own, other, k):
        norm = mpmath.sqrt(own**2 + (k - 1) * other**2)
        dot = 2 * own * other + (k - 2) * other**2
        theta = mpmath.acos(dot / norm**2)
        to_own, to_other = mpmath.acos(own / norm), mpmath.acos(other / norm)
        along = (k - 1) * mpmath.sin(theta) + mpmath.pi
        teacher = mpmath.sin(to_own) + (k - 1) * mpmath.sin(to_other)
        along -= teacher / norm
        share = mpmath.pi - theta
        return [
            along * own + (k - 1) * share * other - (mpmath.pi - to_own),
            along * other + share * (own + (k - 2) * other) - (mpmath.pi - to_other),
            theta
            + (k - 1) * mpmath.sin(theta)
            - (teacher + 1 / mpmath.sin(to_other)) / norm,
        ]

    with mpmath.workdps(30):
        root = mpmath.findroot(equations, (-0.65, 0.345, 5.8))
        assert abs(root[2] - found.number) < 1e-19
    error = float(found.k.error)
    assert abs(float(found.k) - float(root[2])) <= error


def test_critical_dimension_of_the_second_type():
    """Between 5 and 6; the sign of the smallest standard eigenvalue changes there."""
    found = critical_dimension("II", digits=12)
    assert (float(found.k), 7) > (5, 6)
    assert found.label == "standard"
    signs = []
    for shift in (-1e-9, 1e-9):
        point = symmetric_minimum("II", found.number + shift)
        values = [v for part in point.isotypic() for v in part.values]
        signs.append(sum(v < 0 for v in values))
    assert signs == [1, 0]


def test_a_family_without_change_is_refused():
    with pytest.raises(ValueError, match="does not change inertia"):
        critical_dimension("A", low=7, high=9)
    with pytest.raises(ValueError, match="global"):
        critical_dimension("global")
    unchecked = critical_dimension.__wrapped__
    with pytest.raises(TypeError, match=r"low is 4\.5"):
        unchecked("II", low=4.5, high=9)
    with pytest.raises(TypeError, match=r"high is 9\.0"):
        unchecked("II", high=9.0)
    with pytest.raises(ValueError, match="low is 0"):
        critical_dimension("II", low=0)
    with pytest.raises(ValueError, match=r"low is 9 and high 8"):
        critical_dimension("II", low=9, high=8)
    with pytest.raises(ValueError, match="digits is 0"):
        critical_dimension("II", digits=0)


# -------------------------------------------------------------------------- expansions


def fitted(name, quantities, count=16):
    """Coefficients of k^(-j/2) by elimination at k = 40², 45², ..., in 60 digits."""
    roots = [40 + 5 * i for i in range(count)]
    points = [symmetric_minimum(name, m * m, digits=60) for m in roots]
    with mpmath.workdps(100):
        powers = mpmath.matrix(
            [[mpmath.mpf(m) ** -j for j in range(count)] for m in roots]
        )
        found = {}
        for quantity in quantities:
            values = mpmath.matrix([reading(point, quantity) for point in points])
            found[quantity] = list(mpmath.lu_solve(powers, values))
    return found


def reading(point, quantity):
    if quantity == "loss":
        return mpmath.mp.make_mpf(loss(point.geometry())._mpf_)
    if quantity in point.names:
        return point.high_precision[quantity]
    (part,) = [q for q in point.isotypic() if q.label == quantity]
    return mpmath.mp.make_mpf(part.values[0]._mpf_)


@pytest.mark.parametrize("name", ["A", "I", "II", "M_3"])
def test_expansions_against_an_elimination(name):
    quantities = ["loss"]
    if name != "M_3":
        quantities += [*symmetric_minimum(name, 8).names, "alternating", "Young"]
    for quantity, coefficients in fitted(name, quantities).items():
        expansion = series(name, quantity)
        for j in range(expansion.next_power):
            allowed = 1e-18 * 100.0**j  # each order costs two digits and more
            gap = abs(expansion.coefficient(j) - coefficients[j])
            assert gap < allowed, (quantity, j, float(gap))


def test_coefficients_of_the_notes():
    known = [
        ("II", "a", 5, "-3.01347740987720212585"),
        ("II", "a", 6, "-19.0414229201649556847"),
        ("II", "b", 6, "1.098451084330258576671"),
        ("II", "c", 5, "2.356454545577404673744"),
        ("II", "r", 5, "-2.333216082567854616"),
        ("II", "e", 3, "-1.699431681277607221638"),
        ("II", "loss", 4, "-1.377146800743810352"),
        ("II", "loss", 5, "0.878215052526014463"),
        ("I", "a", 5, "4.441690968097839923"),
        ("I", "e", 3, "-4.798751223026083866"),
    ]
    for name, quantity, j, text in known:
        digits = len(text.split(".")[1])
        with mpmath.workdps(30):
            gap = abs(series(name, quantity).coefficient(j) - mpmath.mpf(text))
            assert gap <= 0.51 * mpmath.mpf(10) ** -digits, (name, quantity, j)
    form = series("II", "e").closed_form(3)
    assert form == "(64/3 π^-3 - 256 π^-4)/(π - 2)"
    assert series("II").closed_form(2) == "1/2 - 2 π^-2"


def test_truncated_expansions_and_their_errors(float64):
    sizes = [100, 2500, 10**6]
    for name in ("A", "I", "II"):
        truth = np.array([float(symmetric_minimum(name, k).loss) for k in sizes])
        estimate = series(name)(jnp.array(sizes, float))
        gap = np.abs(np.asarray(estimate.value) - truth)
        assert (gap <= np.asarray(estimate.error)).all()
        assert (np.asarray(estimate.error) < 1e-2 * truth).all()
        assert estimate.error_kind == "truncation estimate"


def test_expansions_are_transformable(dtype):
    expansion = series("II")
    k = jnp.array([50.0, 400.0], dtype)
    value = expansion(k).value
    assert value.dtype == dtype
    compiled = jax.jit(lambda x: expansion(x).value)(k)
    np.testing.assert_allclose(compiled, value, rtol=1e-6)
    slope = jax.grad(lambda x: expansion(x).value)(k[1])
    ahead, behind = (float(expansion(float(k[1]) + s).value) for s in (4.0, -4.0))
    assert float(slope) == pytest.approx((ahead - behind) / 8, rel=1e-3)


# --------------------------------------------------------------- precision, bad input


def test_weights_and_numbers(dtype):
    point = symmetric_minimum("II", 6, 8)
    weights = point.weights()
    assert weights.dtype == dtype
    assert weights.shape == (6, 8)
    assert point.weights("float32").dtype == jnp.float32
    a, b, c, e, r = point.parameters.values()
    expected = np.full((6, 8), b)
    expected[:5, 5], expected[5, :5], expected[:, 6:] = c, r, 0
    np.fill_diagonal(expected, [a] * 5 + [e])
    np.testing.assert_array_equal(weights, expected.astype(dtype))
    assert point.hessian_spectrum().values.dtype == dtype
    assert point.isotropy == "ΔS_5"
    assert "II" in repr(point)


def test_more_digits_agree():
    few, many = (symmetric_minimum("M", 9, p=2, digits=n) for n in (15, 60))
    for name, value in few.parameters.items():
        assert value == float(many.high_precision[name])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": "B", "k": 6}, "name is 'B'"),
        ({"name": "M", "k": 6}, "p is None"),
        ({"name": "M", "k": 6, "p": 1}, "M_1 is II"),
        ({"name": "II", "k": 6, "p": 2}, "no block"),
        ({"name": "N_6", "k": 7}, "starts at k = 8"),
        ({"name": "A", "k": float("nan")}, "finite"),
        ({"name": "A", "k": 6, "d": 5}, "expected d >= k"),
        ({"name": "A", "k": 6, "digits": 0}, "digits"),
    ],
)
def test_bad_input(arguments, match):
    with pytest.raises(ValueError, match=match):
        symmetric_minimum(**arguments)


def test_bad_input_of_other_kinds():
    with pytest.raises(TypeError, match="expected a number"):
        symmetric_minimum("II", "7")
    with pytest.raises(TypeError, match="expected a number"):
        symmetric_minimum("A", "six")
    with pytest.raises(ValueError, match="expected 5"):
        symmetric_critical_point((4, 1), [1.0, 0.0])
    for sizes, error in (((4, 0), ValueError), ((), ValueError), ((True,), TypeError)):
        with pytest.raises(error, match="sizes is"):
            symmetric_critical_point(sizes, [1.0, 0.0])
    with pytest.raises(RuntimeError, match="no critical point"):
        symmetric_critical_point((4, 1), [0.0] * 5)
    with pytest.raises(RuntimeError, match="a neuron became zero"):
        symmetric_critical_point((4, 1), [0.0] * 5)
    with pytest.raises(ValueError, match="finite numbers"):
        symmetric_critical_point((3,), [0.5, float("nan")])
    with pytest.raises(ValueError, match="to write W out"):
        symmetric_minimum("II", 6.5).weights()
    with pytest.raises(ValueError, match="sizes"):
        symmetric_minimum("M_2", 4.5).hessian_spectrum()
    with pytest.raises(ValueError, match="quantity"):
        series("A", "gamma")
    with pytest.raises(ValueError, match="0 <= j"):
        series("A").coefficient(40)
