"""Logistic thresholds against scipy's optimiser, exact likelihoods and simulation."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings, strategies as st

from jaxrelu.experiments import fit_transition


RATIOS = np.exp(np.linspace(-1, 1, 9))
X = np.log(RATIOS)
TRIALS = np.full(9, 20)
COUNTS = np.array([0, 0, 1, 3, 12, 14, 19, 20, 20])
LOSS = scipy.stats.chi2.ppf(0.95, 1) / 2


def loglik(a, b, counts=COUNTS, trials=TRIALS):
    """By the Bernoulli mass function itself, without its binomial factor."""
    p = 1 / (1 + np.exp(-(a + b * X)))
    q = 1 / (1 + np.exp(a + b * X))
    return float(np.sum(counts * np.log(p) + (trials - counts) * np.log(q)))


@pytest.fixture(scope="module")
def by_scipy():
    """(a, b) that minimise, and the inverse Hessian by finite differences there."""
    f = lambda t: -loglik(*t)
    found = scipy.optimize.minimize(f, [0, 1], method="Nelder-Mead", tol=1e-13)
    h = 1e-4
    steps = h * np.eye(2)
    hessian = np.array(
        [
            [
                (f(found.x + u + v) - f(found.x + u - v))
                - (f(found.x - u + v) - f(found.x - u - v))
                for u in steps
            ]
            for v in steps
        ]
    )
    return found.x, np.linalg.inv(hessian / (4 * h * h)), -found.fun


def test_maximum_and_standard_errors(by_scipy):
    (a, b), covariance, _ = by_scipy
    fit = fit_transition(RATIOS, COUNTS, TRIALS)
    np.testing.assert_allclose(fit.threshold, math.exp(-a / b), rtol=1e-6)
    np.testing.assert_allclose(fit.width, 2 * math.log(9) / b, rtol=1e-6)
    gradient = math.exp(-a / b) * np.array([-1 / b, a / b**2])
    error = math.sqrt(gradient @ covariance @ gradient)
    np.testing.assert_allclose(fit.error, error, rtol=1e-4)
    width_error = 2 * math.log(9) / b**2 * math.sqrt(covariance[1, 1])
    np.testing.assert_allclose(fit.width_error, width_error, rtol=1e-4)
    np.testing.assert_allclose(fit(RATIOS), 1 / (1 + np.exp(-a - b * X)), rtol=1e-5)
    assert not fit.separated
    p = COUNTS / TRIALS
    cells = scipy.stats.binom.logpmf(COUNTS, TRIALS, p).sum()
    curve = scipy.stats.binom.logpmf(COUNTS, TRIALS, fit(RATIOS)).sum()
    np.testing.assert_allclose(fit.deviance, 2 * (cells - curve), rtol=1e-8)
    assert fit.freedom == 7


def test_intervals_are_where_the_profile_drops(by_scipy):
    _, _, best = by_scipy
    fit = fit_transition(RATIOS, COUNTS, TRIALS)
    grid = np.exp(np.linspace(-1, 4, 2001))  # slopes, by brute force
    for end in fit.interval:
        profile = max(loglik(-b * math.log(end), b) for b in grid)
        np.testing.assert_allclose(best - profile, LOSS, atol=1e-3)
    for end in fit.width_interval:
        b = 2 * math.log(9) / end
        profile = max(loglik(a, b) for a in np.linspace(-4, 4, 4001))
        np.testing.assert_allclose(best - profile, LOSS, atol=1e-3)


def test_separated_data():
    fit = fit_transition(RATIOS, np.where(RATIOS > 1.1, 20, 0), TRIALS)
    assert fit.separated
    np.testing.assert_allclose(fit.threshold, math.sqrt(RATIOS[4] * RATIOS[5]))
    np.testing.assert_allclose(fit.interval, RATIOS[4:6], rtol=1e-6)
    assert math.isnan(fit.error)
    assert fit.width == 0
    assert fit.width_interval[0] == 0
    assert 0 < fit.width_interval[1] < 0.5
    np.testing.assert_array_equal(fit(RATIOS), RATIOS > 1.1)
    # one run a cell says less: the interval is wider than the gap
    few = fit_transition(RATIOS, np.where(RATIOS > 1.1, 1, 0), np.ones(9))
    assert few.interval[0] < RATIOS[4]
    assert few.interval[1] > RATIOS[5]
    # mixed at one ratio only: the step is there
    part = fit_transition(RATIOS, [0, 0, 0, 0, 0, 14, 20, 20, 20], TRIALS)
    assert part.separated
    np.testing.assert_allclose(part.threshold, RATIOS[5])
    assert part.interval[0] < RATIOS[5] <= part.interval[1] < RATIOS[6]


def test_ratios_that_are_close_or_one():
    """A step at 1.0004, beside which any threshold down to 1 is as likely."""
    ratios, counts = np.array([0.5, 1.0, 1.0004, 2.0]), np.array([0, 0, 19, 20])
    fit = fit_transition(ratios, counts, [20] * 4)
    assert fit.separated
    assert 1 < fit.interval[0] < 1.0003
    # there the likelihood, at the best of many slopes, has lost 3.84 / 2
    u = np.log(ratios / fit.interval[0]) * np.logspace(1, 6, 100_001)[:, None]
    at = counts * scipy.special.log_expit(u) + (20 - counts) * scipy.special.log_expit(
        -u
    )
    best = 19 * math.log(0.95) + math.log(0.05)
    lost = 2 * (best - at.sum(axis=1).max())
    np.testing.assert_allclose(lost, scipy.stats.chi2.ppf(0.95, 1), rtol=1e-3)
    # a rounding apart is one ratio
    one, other = 1 / 10 * 33, 1 * 33 / 10
    assert one != other
    ratios, counts = np.array([one / 4, one / 2, one, other, 2 * one]), [0, 1, 3, 4, 5]
    apart = fit_transition(ratios, counts, [5] * 5)
    merged = fit_transition(ratios[[0, 1, 2, 4]], [0, 1, 7, 5], [5, 5, 10, 5])
    np.testing.assert_allclose(apart.threshold, merged.threshold, rtol=1e-9)
    np.testing.assert_allclose(apart.interval, merged.interval, rtol=1e-9)
    assert apart.freedom == merged.freedom == 2


def test_one_sided_and_no_transition():
    everything = fit_transition(RATIOS, TRIALS, TRIALS)
    nothing = fit_transition(RATIOS, 0 * TRIALS, TRIALS)
    assert math.isnan(everything.threshold)
    assert math.isnan(nothing.threshold)
    np.testing.assert_allclose(everything.interval, (0, RATIOS[0]), rtol=1e-6)
    np.testing.assert_allclose(nothing.interval, (RATIOS[-1], math.inf), rtol=1e-6)
    for counts in (COUNTS[::-1], np.full(9, 10)):
        fit = fit_transition(RATIOS, counts, TRIALS)
        assert math.isnan(fit.threshold)
        assert fit.interval == (0, math.inf)
        assert fit.width_interval == (0, math.inf)
        p = counts.sum() / TRIALS.sum()
        flat = scipy.stats.binom.logpmf(counts, TRIALS, p).sum()
        best = scipy.stats.binom.logpmf(counts, TRIALS, counts / TRIALS).sum()
        np.testing.assert_allclose(fit.deviance, 2 * (best - flat), atol=1e-9)
    one = fit_transition([1.0], [4], [10])
    assert math.isnan(one.threshold)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.integers(0, 6), min_size=9, max_size=9))
def test_any_counts_have_an_interval(counts):
    """In this order, and with an estimate, it lies inside."""
    fit = fit_transition(RATIOS, counts, np.full(9, 6))
    low, high = fit.interval
    assert 0 <= low <= high
    assert fit.deviance > -1e-9
    if not math.isnan(fit.threshold):
        assert low * (1 - 1e-9) <= fit.threshold <= high * (1 + 1e-9)
        assert 0 <= fit.width_interval[0] <= fit.width <= fit.width_interval[1]
    twice = fit_transition(np.tile(RATIOS, 2), counts * 2, np.full(18, 6))
    once = fit_transition(RATIOS, 2 * np.array(counts), np.full(9, 12))
    np.testing.assert_equal(tuple(twice), tuple(once))  # equal ratios are one cell


def test_intervals_cover():
    """The truth is inside in about 95 % of simulated grids: 100 of them, 3 sigma."""
    rng = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-6 * (X - 0.1)))
    hits, widths = 0, 0
    for _ in range(100):
        fit = fit_transition(RATIOS, rng.binomial(15, p), np.full(9, 15))
        hits += fit.interval[0] <= math.exp(0.1) <= fit.interval[1]
        low, high = fit.width_interval
        widths += low <= 2 * math.log(9) / 6 <= high
    allowed = 3 * math.sqrt(0.95 * 0.05 / 100)
    assert abs(hits / 100 - 0.95) < allowed
    assert abs(widths / 100 - 0.95) < allowed


@pytest.mark.parametrize(
    ("ratios", "counts", "trials", "words"),
    [
        ([], [], [], "at least one"),
        ([1, 2], [1], [2], "as many"),
        ([0.0], [1], [2], "positive"),
        ([1.0], [3], [2], "0 <= successes"),
        ([1.0], [0], [0], "trials >= 1"),
    ],
)
def test_bad_input(ratios, counts, trials, words):
    with pytest.raises(ValueError, match=words):
        fit_transition(ratios, counts, trials)
