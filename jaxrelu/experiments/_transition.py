r"""Where success sets in: a logistic curve in $\log(kd/n)$, with its uncertainty."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special, stats


_CRITICAL = float(stats.chi2.ppf(0.95, 1)) / 2  # of a log-likelihood, 95 %
_TEN_TO_NINETY = 2 * math.log(9)  # of the logistic function
_FARTHEST = 60.0  # log ratios beyond this are infinite
_STEEPEST = 1e9
_EQUAL = 1e-9  # log ratios this close are one


class Transition(NamedTuple):
    r"""$P(\text{success}) = \sigma(b(\log\rho - \log\rho^*))$ with $\rho = kd/n$.

    Attributes:
        threshold: $\rho^*$, where the probability is one half; NaN if all runs or none
            succeeded, or if success does not grow with $\rho$.
        error: its standard error, by Fisher information and the delta method; NaN
            where the data are separated and there is none.
        interval: 95 % interval of $\rho^*$, by profile likelihood; an end may be 0 or
            infinite.
        width: of the transition, $2\log 9/b$: the distance in $\log\rho$ from
            probability 0.1 to 0.9; 0 for separated data.
        width_error: standard error; NaN for separated data.
        width_interval: 95 % interval, by profile likelihood; the upper end is infinite
            where a flat curve is not excluded.
        separated: whether the best curve is a step. Then every $\rho^*$ between the
            ratios on its two sides is as likely, and `threshold` is their geometric
            mean; or the step is at a ratio where some runs succeeded.
        deviance: twice the log-likelihood that a probability of its own for every
            ratio gains over the curve; about χ² with as many degrees of freedom as
            `freedom` says, if the curve is right and counts are large.
        freedom: different ratios less two.
    """

    threshold: float
    error: float
    interval: tuple[float, float]
    width: float
    width_error: float
    width_interval: tuple[float, float]
    separated: bool
    deviance: float
    freedom: int

    def __call__(self, ratio: Any) -> np.ndarray:
        r"""The fitted probability at $\rho$ = ``ratio``."""
        u = np.log(np.asarray(ratio, dtype=np.float64)) - math.log(self.threshold)
        if self.width == 0:
            return np.heaviside(u, 0.5)
        return special.expit(_TEN_TO_NINETY / self.width * u)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.threshold:.4g} [{low:.4g}, {high:.4g}]"


def fit_transition(ratios: Any, successes: Any, trials: Any) -> Transition:
    r"""Logistic regression of success on $\log(kd/n)$.

    Maximum likelihood with $b \ge 0$; where success does not grow with the ratio there
    is no transition, and nothing is said of one. Intervals are those of the profile
    likelihood: the values from which twice the log-likelihood loses no more than 3.84.
    They need no large counts to exist, hold for separated data, where the slope is
    infinite and Fisher's information says nothing, and have an infinite end where the
    data exclude nothing on that side. Their coverage is 95 % for large counts.

    Args:
        ratios: $kd/n$ of each cell, positive, (c,).
        successes: runs that succeeded, (c,).
        trials: runs, (c,).

    Raises:
        ValueError: shapes that differ, no cells, ratios that are not positive, counts
            that are not 0 ≤ successes ≤ trials.
    """
    x, s, t = _checked(ratios, successes, trials)
    failed, succeeded = x[s < t], x[s > 0]
    saturated = float(np.sum(special.xlogy(s, s / t) + special.xlogy(t - s, 1 - s / t)))
    freedom = len(x) - 2
    if not len(failed) or not len(succeeded):
        return _one_sided(x, s, t, freedom, bool(len(succeeded)))
    mean = s.sum() / t.sum()
    if x @ (s - t * mean) <= 1e-12 * np.abs(x) @ t:
        flat = _loglik(np.full_like(x, special.logit(mean)), s, t)
        return _nothing((0.0, math.inf), 2 * (saturated - flat), freedom)
    if failed.max() <= succeeded.min():
        low, high = failed.max(), succeeded.min()
        middle, best, slope = (low + high) / 2, saturated, math.inf
    else:
        low, high = x.min(), x.max()
        middle, slope, best = _maximum(x, s, t)
    separated = math.isinf(slope)
    error = width_error = math.nan
    if not separated:
        error, width_error = _fisher(x, t, middle, slope)
        low = high = middle
    floor = best - _CRITICAL
    profile = lambda at: _over_slopes(x - at, s, t)
    step = min(1e-3, float(np.min(np.diff(x))) / 16)
    interval = (
        _end(profile, low, -1, floor, step),
        _end(profile, high, 1, floor, step),
    )
    flattest, steepest = _slopes(x, s, t, slope, floor)
    return Transition(
        math.exp(middle),
        math.exp(middle) * error,
        (math.exp(interval[0]), _exp(interval[1])),
        _TEN_TO_NINETY / slope,
        width_error,
        (_TEN_TO_NINETY / steepest, _TEN_TO_NINETY / max(flattest, 1e-300)),
        separated,
        2 * (saturated - best),
        freedom,
    )


def _checked(ratios: Any, successes: Any, trials: Any) -> tuple[np.ndarray, ...]:
    """Logarithms of ρ, successes, trials; cells of equal ratio are put together."""
    rho, s, t = (np.asarray(v, np.float64) for v in (ratios, successes, trials))
    fits = rho.ndim == 1 and rho.shape == s.shape == t.shape and rho.size > 0
    if not fits or not (np.isfinite(rho) & (rho > 0)).all():
        msg = (
            f"ratios {rho}, successes {s}, trials {t}; expected as many of each, at "
            "least one, and positive ratios."
        )
        raise ValueError(msg)
    if not ((s >= 0) & (s <= t) & (t >= 1)).all():
        msg = f"successes {s} of {t}; expected 0 <= successes <= trials, trials >= 1."
        raise ValueError(msg)
    order = np.argsort(rho)
    logs, s, t = np.log(rho[order]), s[order], t[order]
    new = np.append(True, np.diff(logs) > _EQUAL)
    where = np.cumsum(new) - 1
    return logs[new], np.bincount(where, s), np.bincount(where, t)


def _root(f: Callable[[float], float], a: float, b: float) -> float:
    return float(optimize.brentq(f, a, b, xtol=1e-12))  # pyright: ignore[reportArgumentType]


def _loglik(eta: np.ndarray, s: np.ndarray, t: np.ndarray) -> float:
    return float(np.sum(s * special.log_expit(eta) + (t - s) * special.log_expit(-eta)))


def _maximum(x: np.ndarray, s: np.ndarray, t: np.ndarray) -> tuple[float, float, float]:
    """Threshold, slope and log-likelihood of the best curve, by Newton's method."""
    centre, scale = np.average(x, weights=t), max(float(np.ptp(x)), 1e-12)
    design = np.stack([np.ones_like(x), (x - centre) / scale], axis=1)
    theta, value = np.zeros(2), -math.inf
    for _ in range(200):
        eta = design @ theta
        p = special.expit(eta)
        gradient = design.T @ (s - t * p)
        information = (design.T * (t * p * (1 - p))) @ design
        step = np.linalg.lstsq(information, gradient, rcond=1e-12)[0]
        size = 1.0
        value = _loglik(eta, s, t)
        while size > 1e-10 and _loglik(design @ (theta + size * step), s, t) < value:
            size /= 2
        theta = theta + size * step
        if np.abs(step).max() < 1e-12 * (1 + np.abs(theta).max()):
            break
    slope = theta[1] / scale
    threshold = centre - theta[0] / slope if slope else math.inf
    return float(threshold), float(slope), _loglik(design @ theta, s, t)


def _fisher(
    x: np.ndarray, t: np.ndarray, middle: float, slope: float
) -> tuple[float, float]:
    """Standard errors of the threshold (in log ρ) and of the width."""
    p = special.expit(slope * (x - middle))
    by = np.stack([np.full_like(x, -slope), x - middle], axis=1)  # of the logit
    information = (by.T * (t * p * (1 - p))) @ by
    if np.linalg.matrix_rank(information) < 2:
        return math.nan, math.nan
    variance = np.diagonal(np.linalg.inv(information))
    return float(variance[0] ** 0.5), float(
        _TEN_TO_NINETY / slope**2 * variance[1] ** 0.5
    )


def _over_slopes(u: np.ndarray, s: np.ndarray, t: np.ndarray) -> float:
    """The log-likelihood at one threshold, at its best slope: concave, one root."""
    score = lambda b: float(u @ (s - t * special.expit(b * u)))
    if score(0.0) <= 0:
        return _loglik(0 * u, s, t)
    if score(_STEEPEST) >= 0:
        return _loglik(_STEEPEST * u, s, t)
    return _loglik(_root(score, 0.0, _STEEPEST) * u, s, t)


def _over_thresholds(b: float, x: np.ndarray, s: np.ndarray, t: np.ndarray) -> float:
    """The log-likelihood at one slope, at its best intercept."""
    score = lambda a: float(np.sum(s - t * special.expit(a + b * x)))
    reach = 40 + abs(b) * float(np.abs(x).max())
    return _loglik(_root(score, -reach, reach) + b * x, s, t)


def _end(
    profile: Callable[[float], float], start: float, way: int, floor: float, step: float
) -> float:
    """Where a profile that holds at ``start`` falls below ``floor``; ±∞ if nowhere.

    A step at a ratio where some runs succeeded holds beside it.
    """
    inside = start
    if profile(start) < floor:
        inside += way * 1e-3 * step
        if profile(inside) < floor:
            return start
    while abs(inside - start) < _FARTHEST:
        outside = start + way * step
        if profile(outside) < floor:
            gap = lambda at: profile(at) - floor
            if gap(inside) <= 0:
                return inside
            return _root(gap, inside, outside)
        inside, step = outside, 1.5 * step
    return way * math.inf


def _slopes(
    x: np.ndarray, s: np.ndarray, t: np.ndarray, slope: float, floor: float
) -> tuple[float, float]:
    """The interval of the slope, cut off at 0: a flat curve has infinite width."""
    if len(x) < 2:
        return 0.0, math.inf
    profile = lambda b: _over_thresholds(b, x, s, t) - floor
    scale = 1 / float(np.min(np.diff(x)))
    top = slope if math.isfinite(slope) else scale
    while math.isinf(slope) and profile(top) <= 0:
        top *= 2
    bottom = 0.0
    if profile(0.0) < 0 < top:
        bottom = _root(profile, 0.0, top)
    if math.isinf(slope):
        return bottom, math.inf
    outside = max(abs(top), scale)
    while profile(outside) > 0 and outside < 1e4 * scale:
        outside *= 2
    if profile(outside) > 0:
        return bottom, math.inf
    return bottom, _root(profile, top, outside)


def _one_sided(
    x: np.ndarray, s: np.ndarray, t: np.ndarray, freedom: int, all_succeeded: bool
) -> Transition:
    """All runs did the same: the threshold is bounded from one side."""
    edge, way = (x.min(), 1) if all_succeeded else (x.max(), -1)
    profile = lambda at: _over_slopes(x - at, s, t)
    end = _end(profile, float(edge), way, -_CRITICAL, 1e-3)
    interval = (0.0, _exp(end)) if all_succeeded else (math.exp(end), math.inf)
    return _nothing(interval, 0.0, freedom)


def _nothing(
    interval: tuple[float, float], deviance: float, freedom: int
) -> Transition:
    nan = math.nan
    whole = (0.0, math.inf)
    return Transition(
        nan, nan, interval, nan, nan, whole, False, float(deviance), freedom
    )


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
