r"""Measured rates of convergence, and what a theorem promises beside them."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Bool, Float

from jaxrelu._results import RESULTS, Estimate
from jaxrelu.dynamics import Trajectory
from jaxrelu.theory import Report


class EmpiricalRate(eqx.Module):
    r"""A slope of $\log L$ per step, with a confidence interval.

    Attributes:
        log_rate: $\log q$ in $L_t \approx C q^t$ (squared residuals, as in
            `jaxrelu.theory` predictions); its error is a standard error.
        low: lower end of the interval.
        high: upper end.
        level: what share of such intervals would hold the slope, if errors are as
            `empirical_rate` says.
        first_step: where the fit begins.
        last_step: where it ends.
    """

    log_rate: Estimate
    low: Float[Array, ""]
    high: Float[Array, ""]
    level: float = eqx.field(static=True)
    first_step: int = eqx.field(static=True)
    last_step: int = eqx.field(static=True)

    @property
    def squared_rate(self) -> Float[Array, ""]:
        """$q$: what the loss is multiplied by per step."""
        return jnp.exp(self.log_rate.value)


def empirical_rate(
    steps: Any, losses: Any, *, tail: float = 0.5, level: float = 0.95
) -> EmpiricalRate:
    r"""$\log q$ in $L_t \approx C q^t$ over the last part of one run or of several.

    The slope of a least-squares line through $\log L_t$. **Several runs** (a leading
    axis): one slope each; mean, standard error and Student interval over the runs, for
    the mean slope of runs like these. **One run**: neighbours along a run err alike, so
    the variance of the slope comes from the $q = 0.4 m^{2/3}$ slowest waves in the
    residuals of the m records, and the interval is Student's with q degrees of freedom
    (after Lazarus, Lewis, Stock & Watson, HAR inference, J. Bus. Econ. Stat. 36, 2018;
    with waves orthogonal to the line it is exact for independent normal errors). It
    says how well a line is determined, not that the decay is exponential: for gradient
    descent $\log L$ is convex in t as soon as one mode dominates after another, and a
    later tail gives a slower rate.

    Args:
        steps: t of the records, (r,) or (s, r).
        losses: $L_t > 0$, (r,) or (s, r).
        tail: the share of the recorded time, at the end, that is fitted, in (0, 1].
        level: of the interval, in (0, 1).

    Raises:
        ValueError: fewer than 4 records in the tail, losses in it that are not positive
            and finite, numbers out of range, records of different steps.
    """
    for name, value, most in (
        ("tail", tail, 1.0),
        ("level", level, math.nextafter(1, 0)),
    ):
        if not 0 < value <= most:
            msg = f"{name} is {value}; expected a number between 0 and 1."
            raise ValueError(msg)
    t = np.asarray(steps, np.float64)
    values = np.asarray(losses, np.float64)
    fit = values.ndim in (1, 2) and t.shape in (values.shape, values.shape[-1:])
    if not fit or not values.size or not np.isfinite(t).all():
        msg = (
            f"losses have shape {values.shape} and steps {t.shape}; expected (r,) for "
            "one run, (s, r) for several."
        )
        raise ValueError(msg)
    if t.ndim == 2 and (t != t[0]).any():
        msg = "the runs were recorded at different steps; fit them one by one."
        raise ValueError(msg)
    t = t[0] if t.ndim == 2 else t
    fitted = (t >= t[-1] - tail * (t[-1] - t[0])) & np.append(np.diff(t) > 0, True)
    t, values = t[fitted], np.atleast_2d(values)[:, fitted]
    if t.size < 4:
        msg = (
            f"{t.size} records in the tail; expected at least 4. Record more often, or "
            "take a larger tail. (A run that stopped early repeats its last record.)"
        )
        raise ValueError(msg)
    if not (np.isfinite(values).all() and (values > 0).all()):
        msg = "losses in the tail are not all positive and finite; they have no log."
        raise ValueError(msg)
    logs = np.log(values)
    centred = t - t.mean()
    slopes = logs @ centred / (centred @ centred)
    if len(slopes) > 1:
        error = slopes.std(ddof=1) / len(slopes) ** 0.5
        freedom, method = len(slopes) - 1, f"mean over {len(slopes)} runs"
    else:
        residual = logs[0] - logs[0].mean() - slopes[0] * centred
        error, freedom = _serial_error(t, residual)
        method = f"line through {t.size} records, serially dependent errors"
    reach = float(scipy.stats.t.ppf((1 + level) / 2, freedom)) * error
    slope = slopes.mean()
    dtype = jnp.asarray(losses).dtype
    dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.zeros(()).dtype
    return EmpiricalRate(
        log_rate=Estimate(
            value=jnp.asarray(slope, dtype),
            error=jnp.asarray(error, dtype),
            result=RESULTS.successful,  # pyright: ignore[reportArgumentType]
            error_kind="standard error",
            method=f"slope of log loss: {method}",
        ),
        low=jnp.asarray(slope - reach, dtype),
        high=jnp.asarray(slope + reach, dtype),
        level=level,
        first_step=int(t[0]),
        last_step=int(t[-1]),
    )


def _serial_error(t: np.ndarray, residual: np.ndarray) -> tuple[float, int]:
    """Standard error of a slope whose errors are serially dependent, and its degrees.

    The spectrum at frequency 0 is the mean square along q slow waves that are made
    orthogonal to the line, so that fitting it takes nothing from them.
    """
    m = t.size
    q = int(np.clip(0.4 * m ** (2 / 3), 2, m - 2))
    place = (np.arange(m) + 0.5) / m
    waves = np.cos(np.pi * np.outer(place, np.arange(2, q + 2)))
    centred = t - t.mean()
    basis = np.linalg.qr(np.column_stack([np.ones(m), centred, waves]))[0][:, 2:]
    return float(np.sqrt(np.mean((basis.T @ residual) ** 2) / (centred @ centred))), q


class Overlay(eqx.Module):
    r"""A run beside what a theorem predicts for it.

    Attributes:
        steps: t of the records, (r,).
        residuals: $\|r_t\| = \sqrt{2L_t}$, measured, (r,).
        residual_bounds: what is predicted, (r,).
        distances: $\|\theta_t - \theta_0\|$, measured, (r,).
        radius: predicted to hold them all.
        path_length: of the whole run, measured.
        path_bound: predicted; None if none is claimed.
        step_size: of the run; None if its optimiser was given whole.
        predicted_step: at which the prediction is made; None for gradient flow.
        log_rate: predicted $\log q$ for squared residuals.
        rate: measured, over the tail; None where it cannot be.
        holds: whether every condition of the theorem is met. If not, nothing below is
            promised.
        diverged: whether the run ended so; then it kept no prediction.
    """

    steps: Array
    residuals: Float[Array, " r"]
    residual_bounds: Float[Array, " r"]
    distances: Float[Array, " r"]
    radius: Float[Array, ""]
    path_length: Float[Array, ""]
    path_bound: Float[Array, ""] | None
    step_size: Float[Array, ""] | None
    predicted_step: Float[Array, ""] | None
    log_rate: Float[Array, ""]
    rate: EmpiricalRate | None
    holds: Bool[Array, ""]
    diverged: Bool[Array, ""]

    @property
    def within(self) -> dict[str, bool]:
        """Which predictions the run kept, up to rounding of its own precision."""
        slack = 1 + 64 * float(jnp.finfo(self.residuals.dtype).eps)
        kept = {
            "residuals": bool((self.residuals <= slack * self.residual_bounds).all()),
            "radius": bool(self.distances.max() <= slack * self.radius),
        }
        if self.path_bound is not None:
            kept["path length"] = bool(self.path_length <= slack * self.path_bound)
        return dict.fromkeys(kept, False) if bool(self.diverged) else kept

    def __str__(self) -> str:
        lines = ["", f"{'':<22} {'measured':>12} {'predicted':>12}"]

        def line(name, measured, predicted):
            cells = [
                "-" if x is None else f"{float(x):.6g}" for x in (measured, predicted)
            ]
            lines.append(f"{name:<22} {cells[0]:>12} {cells[1]:>12}")

        line("step size", self.step_size, self.predicted_step)
        rate = self.rate
        slope = None if rate is None else -jnp.expm1(rate.log_rate.value)
        line("1 - squared rate", slope, -jnp.expm1(self.log_rate))
        if rate is not None:
            ends = -jnp.expm1(rate.high), -jnp.expm1(rate.low)
            lines.append(
                f"  {100 * rate.level:g}% interval {float(ends[0]):.6g} to "
                f"{float(ends[1]):.6g}, steps {rate.first_step} to {rate.last_step}"
            )
        line("last residual", self.residuals[-1], self.residual_bounds[-1])
        line("distance", self.distances.max(), self.radius)
        line("path length", self.path_length, self.path_bound)
        promised = "the conditions are met" if bool(self.holds) else "NOT promised"
        lines[0] = f"a run beside its prediction ({promised})"
        return "\n".join(lines)


def beside_prediction(
    report: Report,
    trajectory: Trajectory,
    *,
    tail: float = 0.5,
    level: float = 0.95,
) -> Overlay:
    r"""Rate, radius, path and step size that a report predicts, beside one run.

    Args:
        report: from `jaxrelu.theory`; its prediction counts steps.
        trajectory: one run on a `SquaredLoss`.
        tail: see `empirical_rate`.
        level: of the interval of the measured rate.

    Raises:
        ValueError: several runs at once, or a prediction in time (gradient flow).
    """
    if trajectory.losses.ndim != 1:
        msg = (
            f"the trajectory's losses have shape {trajectory.losses.shape}; expected "
            "one run. Take one out, or vmap over the rest."
        )
        raise ValueError(msg)
    promise = report.prediction
    if promise.step_size is None:
        msg = "the report predicts gradient flow, whose time is no number of steps."
        raise ValueError(msg)
    try:
        rate = empirical_rate(
            trajectory.steps, trajectory.losses, tail=tail, level=level
        )
    except ValueError:  # too short, or already at zero
        rate = None
    dtype = trajectory.losses.dtype
    bounds = promise.residual_bound(trajectory.steps)
    return Overlay(
        steps=trajectory.steps,
        residuals=jnp.sqrt(2 * trajectory.losses),
        residual_bounds=jnp.asarray(bounds, dtype),
        distances=trajectory.distances,
        radius=promise.radius,
        path_length=trajectory.path_lengths[-1],
        path_bound=promise.path_length,
        step_size=trajectory.learning_rate,
        predicted_step=promise.step_size,
        log_rate=promise.log_rate,
        rate=rate,
        holds=report.holds,
        diverged=trajectory.diverged_at >= 0,
    )
