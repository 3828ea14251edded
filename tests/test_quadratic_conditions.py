"""Conditions of quadratic type: every implication on functions known in closed form."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from _draws import random_of

from jaxrelu import landscape as ls
from jaxrelu.landscape import implied


PREMISES = ("PL", "GD", "EB", "QG", "RSI", "RC", "QSC")


def ring_values(r):
    """f = (|x|² - 1)²/4 in the plane: the minimisers are a circle."""
    gap, slope, away = (r * r - 1) ** 2 / 4, r * (r * r - 1), r - 1
    return ls.LocalValues(gap, abs(slope), abs(away), slope * away)


def ring_constants(low, high, share):
    """The best constants on low ≤ |x| ≤ high, low < 1 < high, derived by hand.

    g²/2Δ = 2r², g/d = u/d² = r(r+1), 2Δ/d² = (r+1)²/2, 2(u-Δ)/d² = (r+1)(3r-1)/2:
    all increasing. L is the largest eigenvalue 3r² - 1 (the other is r² - 1).
    """
    h, top = low * (low + 1), high * (high + 1)
    alpha = share / top
    # u - αg² = d²(q - αq²), q = r(r+1) in [h, top]: concave, least at an end
    beta = jnp.minimum(h - alpha * h * h, top - alpha * top * top)
    found = {
        "PL": ls.PolyakLojasiewicz(2 * low**2),
        "GD": ls.GradientDominance(1 / (4 * low**2)),
        "EB": ls.ErrorBound(h),
        "QG": ls.QuadraticGrowth((low + 1) ** 2 / 2),
        "RSI": ls.RestrictedSecant(h),
        "RC": ls.RegularityCondition(alpha, beta),
        "QSC": ls.QuasiStrongConvexity((low + 1) * (3 * low - 1) / 2),
    }
    return found, 3 * high**2 - 1


def test_ring_constants_are_the_best(float64):
    """The premises of the next test: they hold and no better constant does."""

    @jax.jit
    def least_slacks(r, low, high):
        known, smoothness = ring_constants(low, high, 0.9)
        at, found = ring_values(r), {}
        for name, condition in known.items():
            scale = at.distance ** (1 if name == "EB" else 2)
            found[name] = jnp.min(condition.slack(at) / scale)
        return found, smoothness

    # no point on the circle itself, where every slack is 0
    found, smoothness = least_slacks(np.linspace(0.6, 1.3, 7000), 0.6, 1.3)
    assert set(found) == set(PREMISES)
    for name, tight in found.items():
        assert -1e-12 < float(tight) < 1e-6, name
    f = lambda x: (x @ x - 1) ** 2 / 4
    x = jnp.asarray(np.array([1.3, 0.0]))
    top = np.linalg.eigvalsh(jax.jit(jax.hessian(f))(x))[-1]
    np.testing.assert_allclose(top, smoothness, rtol=1e-14)
    measured = ls.local_values(f, x, jnp.asarray(np.array([1.0, 0.0])))
    for got, want in zip(
        jax.tree.leaves(measured), jax.tree.leaves(ring_values(x[0])), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-14)


def test_implications_hold_on_thousands_of_rings(dtype, getkey):
    """Minimisers that are not isolated: 3000 annuli, 64 points of each."""
    draw = random_of(getkey()).uniform
    ranges = ((0.4, 0.99), (1.01, 2.0), (0.05, 0.95))
    rings = [draw(*ends, (3000, 1)).astype(dtype) for ends in ranges]

    @jax.jit
    def least_slacks(low, high, share):
        r = low + (high - low) * jnp.linspace(0, 1, 64, dtype=dtype)[None]
        at = ring_values(r)
        known, smoothness = ring_constants(low, high, share)
        known["QSC"] = ls.QuasiStrongConvexity(jnp.maximum(known["QSC"].mu, 0))
        alpha, beta = known["RC"].alpha, jnp.maximum(known["RC"].beta, 0)
        known["RC"] = ls.RegularityCondition(alpha, beta)
        scale = jnp.maximum(at.distance**2, 1e-3)
        found = {
            f"{name} {target}": jnp.min(condition.slack(at) / scale)
            for name in PREMISES
            for target, condition in implied(known[name], smoothness).items()
        }
        return found, known["QSC"].mu, beta, known["RC"].is_possible

    found, mu, beta, possible = jax.tree.map(np.asarray, least_slacks(*rings))
    assert np.sum(mu > 0) > 1000
    assert np.sum(beta > 0) > 1000
    assert possible.all()
    assert len(found) == 32
    for names, least in found.items():
        assert least > -300 * float(jnp.finfo(dtype).eps), names


def test_strong_convexity_and_the_sharp_pair(float64, getkey):
    """Quadratics with a known spectrum, 1000 of them, at random points."""
    rng = random_of(getkey())
    m = rng.uniform(0.01, 1, 1000)
    high = m + rng.uniform(0, 5, 1000)
    spectrum = np.stack([m, rng.uniform(m, high), high], axis=1)
    x = rng.standard_normal((1000, 3))
    inner = np.sum(spectrum * x**2, axis=1)
    norms = (np.linalg.norm(rows, axis=1) for rows in (spectrum * x, x))
    at = ls.LocalValues(*map(jnp.asarray, (inner / 2, *norms, inner)))
    m, high = jnp.asarray(m), jnp.asarray(high)
    everything = implied(ls.StrongConvexity(m), high)
    assert set(everything) == {*PREMISES, "SC", "OPC"}
    for condition in everything.values():
        assert float(jnp.min(condition.slack(at))) > -1e-12
    pair = everything["RC"]
    assert bool(jnp.all(pair.is_possible))
    np.testing.assert_allclose(pair.alpha, 1 / (m + high), rtol=1e-15)
    # attained at both ends of the spectrum
    for end in (m, high):
        along = ls.LocalValues(end / 2, end, jnp.ones_like(end), end)
        np.testing.assert_allclose(pair.slack(along), 0, atol=1e-14)
    better = ls.RegularityCondition(pair.alpha, pair.beta * 1.001)
    assert float(jnp.max(better.slack(along))) < 0


def test_scaling_is_that_of_the_function(float64, getkey):
    c = 3.7
    r = jnp.linspace(0.5, 1.4, 9)
    at, (known, _) = ring_values(r), ring_constants(jnp.array(0.5), jnp.array(1.4), 0.5)
    times = ls.LocalValues(c * at.gap, c * at.gradient, at.distance, c * at.inner)
    known["OPC"] = ls.OnePointConvexity(0.3)
    known["SC"] = ls.StrongConvexity(0.3)
    for name, condition in known.items():
        power = {"PL": 2, "EB": 1, "GD": 1}.get(name, 1)
        got = condition.scaled(c).slack(times)
        np.testing.assert_allclose(
            got, c**power * condition.slack(at), rtol=1e-12, atol=1e-14
        )


def test_regularity_roots_and_conversions(float64):
    alpha, beta = 0.2, 1.1
    condition = ls.RegularityCondition(alpha, beta)
    with mpmath.workdps(40):
        s = mpmath.sqrt(1 - 4 * mpmath.mpf(alpha) * mpmath.mpf(beta))
        secant = (1 - s) / (2 * alpha)
        pl = (1 - s) ** 2 / (2 * alpha * (1 + s))
    np.testing.assert_allclose(
        ls.secant_from_regularity(condition).nu, float(secant), rtol=1e-14
    )
    np.testing.assert_allclose(
        ls.pl_from_regularity(condition).mu, float(pl), rtol=1e-14
    )
    # small αβ: (1-s)²/2α(1+s) → αβ²; the subtraction 1 - s would give 0
    tiny = ls.RegularityCondition(1e-12, 1e-6)
    np.testing.assert_allclose(ls.pl_from_regularity(tiny).mu, 1e-24, rtol=1e-12)
    a, b = ls.to_wirtinger(condition)
    np.testing.assert_allclose((a, b), (1 / beta, 1 / alpha))
    back = ls.from_wirtinger(a, b)
    np.testing.assert_allclose((back.alpha, back.beta), (alpha, beta))
    assert bool(condition.is_possible)
    assert not bool(ls.RegularityCondition(0.5, 0.51).is_possible)
    assert bool(ls.RegularityCondition(0.5, 0.5).is_possible)


def test_growth_does_not_imply_dominance(float64):
    """x² + 10 sin² x at its stationary points, found in multiprecision."""
    slope = lambda x: 2 * x + 10 * mpmath.sin(2 * x)
    stationary = jnp.array([float(mpmath.findroot(slope, x)) for x in (1.75, 2.84)])
    np.testing.assert_allclose(stationary, [1.749531909954, 2.839603898157], atol=1e-12)
    at = ls.growth_without_dominance(stationary)
    assert float(jnp.max(at.gradient)) < 1e-13
    assert bool(jnp.all(at.gap > 8))
    many = ls.growth_without_dominance(jnp.linspace(-20, 20, 4001))
    assert float(jnp.min(ls.QuadraticGrowth(2.0).slack(many))) >= 0
    # with 3 for 10 dominance holds: the constant 1/32 of Karimi, Nutini & Schmidt
    x = jnp.linspace(-20, 20, 4001)
    kns = ls.LocalValues(
        x * x + 3 * jnp.sin(x) ** 2,
        jnp.abs(2 * x + 3 * jnp.sin(2 * x)),
        jnp.abs(x),
        x * (2 * x + 3 * jnp.sin(2 * x)),
    )
    for condition in implied(ls.PolyakLojasiewicz(1 / 32), 8.0).values():
        assert float(jnp.min(condition.slack(kns))) >= 0


def test_chains_take_the_best_constant(float64):
    sources = [ls.RegularityCondition(0.02, 0.4), ls.StrongConvexity(0.3)]
    sources += [ls.RestrictedSecant(0.5), ls.QuasiStrongConvexity(0.5)]
    for source in sources:
        known = implied(source, 5.0)
        for step in known.values():  # another round finds nothing better
            for name, again in implied(step, 5.0).items():
                if name != "RC":
                    (value,), (best,) = vars(again).values(), vars(known[name]).values()
                    sign = -1 if name == "GD" else 1
                    assert sign * float(best - value) >= -1e-15
    known = implied(ls.ErrorBound(2.0), 5.0)
    assert set(known) == {"EB", "PL", "GD", "QG"}
    assert float(known["PL"].mu) == pytest.approx(0.8)
    assert float(known["EB"].c) == 2.0  # not the weaker one through PL
    assert set(implied(ls.QuadraticGrowth(1.0), 5.0)) == {"QG"}
    assert set(implied(ls.ErrorBound(2.0))) == {"EB"}
    with pytest.raises(TypeError, match="expected one of this module's conditions"):
        implied(0.5)
