"""Phase transitions: success against kd/n with error bars, and over two sizes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrelu.figures._style import (
    GREY,
    INK,
    axes_of,
    colours,
    finish,
    row_of,
)


_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def plot_transition(
    ratios: Mapping[str, Any],
    shares: Mapping[str, Sequence[Any]],
    curves: Mapping[str, Any] | None = None,
    *,
    title: str | None = None,
    xlabel: str = r"$kd/n$",
    ylabel: str = "share of runs that fit",
    ax: Any = None,
) -> Any:
    """Shares against kd/n with their intervals, fitted curves, and the line kd = n.

    A curve is drawn dashed in the colour of its shares, and its threshold, where it has
    one, as a bar of the length of its interval at one half. Marks are moved aside, by
    1.5 % from one name to the next, so that equal ratios do not hide each other.

    Args:
        ratios: name → kd/n of each cell, (c,), positive.
        shares: the same names → a `jaxrelu.landscape.Share` for each cell.
        curves: some of the names → `jaxrelu.experiments.Transition`.
        title: above the axes.
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: as many ratios as shares were expected, for the same names.
    """
    if set(ratios) != set(shares) or not ratios:
        msg = f"ratios of {sorted(ratios)}, shares of {sorted(shares)}; expected equal."
        raise ValueError(msg)
    rows = {name: row_of(values, name) for name, values in ratios.items()}
    for name, row in rows.items():
        if len(row) != len(shares[name]) or not (row > 0).all():
            msg = (
                f"{name} has ratios {row} and {len(shares[name])} shares; expected as "
                "many of each, and positive ratios."
            )
            raise ValueError(msg)
    ax = axes_of(ax)
    every = np.concatenate(list(rows.values()))
    fine = np.geomspace(every.min(), every.max(), 300)
    for i, (shade, (name, row)) in enumerate(
        zip(colours(len(rows)), rows.items(), strict=True)
    ):
        middle = np.array([one.fraction for one in shares[name]])
        low = np.array([one.low for one in shares[name]])
        high = np.array([one.high for one in shares[name]])
        ax.errorbar(
            row * 1.015 ** (i - (len(rows) - 1) / 2),
            middle,
            yerr=[np.maximum(middle - low, 0), np.maximum(high - middle, 0)],
            ls="",
            marker=_MARKERS[i % len(_MARKERS)],
            ms=5,
            color=shade,
            elinewidth=1,
            capsize=2,
            label=name,
        )
        curve = (curves or {}).get(name)
        if curve is not None and np.isfinite(curve.threshold):
            ax.plot(fine, curve(fine), ls="--", lw=1.4, color=shade)
            left, right = np.clip(curve.interval, fine[0], fine[-1])
            ax.plot([left, right], [0.5, 0.5], lw=4, alpha=0.4, color=shade)
    if curves:
        ax.plot([], [], ls="--", lw=1.4, color=GREY, label="logistic fit")
    ax.axvline(1, color=GREY, ls=":", lw=1.4, label=r"$kd = n$")
    ax.set_xscale("log")
    low, high = min(fine[0], 1), max(fine[-1], 1)
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= t <= high]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set_ylim(-0.04, 1.04)
    return finish(ax, title, xlabel, ylabel)


def plot_success(
    samples: Any,
    weights: Any,
    fractions: Any,
    *,
    title: str | None = None,
    xlabel: str = r"samples $n$",
    ylabel: str = r"weights $kd$",
    ax: Any = None,
) -> Any:
    """Share of runs that fit over n and kd, as coloured cells, and the line n = kd.

    The axes are logarithmic. NaN stands for sizes that were not run: in each row a cell
    reaches halfway to the next ones in that row that were, so that rows may have
    different n.

    Args:
        samples: n, increasing, (p,).
        weights: kd, increasing, (q,).
        fractions: (q, p), from 0 to 1.
        title: above the axes.
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: shapes that do not fit, sizes that are not increasing, no numbers.
    """
    n, kd = row_of(samples, "samples"), row_of(weights, "weights")
    shade = np.asarray(fractions, dtype=np.float64)
    ordered = all((np.diff(row) > 0).all() and row[0] > 0 for row in (n, kd))
    if shade.shape != (len(kd), len(n)) or not ordered:
        msg = (
            f"fractions have shape {shade.shape}, samples are {n} and weights {kd}; "
            f"expected ({len(kd)}, {len(n)}), and increasing positive sizes."
        )
        raise ValueError(msg)
    ax = axes_of(ax)
    across, up = _edges(n), _edges(kd)
    image = None
    for i, row in enumerate(shade):
        there = np.isfinite(row)
        if there.any():
            image = ax.pcolormesh(
                _edges(n[there]),
                up[i : i + 2],
                row[None, there],
                cmap="viridis",
                vmin=0,
                vmax=1,
            )
    if image is None:
        msg = "every fraction is NaN; expected some numbers to draw."
        raise ValueError(msg)
    ends = np.array([max(across[0], up[0]), min(across[-1], up[-1])])
    ax.plot(ends, ends, color="white", lw=3.2)
    ax.plot(ends, ends, color=INK, ls=":", lw=1.6, label=r"$n = kd$")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(across[[0, -1]])
    ax.set_ylim(up[[0, -1]])
    for axis, values, ends in ((ax.xaxis, n, across), (ax.yaxis, kd, up)):
        labelled = _apart(values, 0.08 * math.log(ends[-1] / ends[0]))
        axis.set_ticks(labelled, [f"{v:g}" for v in labelled])
    ax.minorticks_off()
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02)
    bar.set_label("share of runs that fit", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure = finish(ax, title, xlabel, ylabel)
    ax.grid(visible=False)
    return figure


def _apart(values: np.ndarray, least: float) -> list[float]:
    """Those of the values whose logarithms are far enough apart for labels."""
    kept = [float(values[0])]
    for value in values[1:]:
        if math.log(value / kept[-1]) >= least:
            kept.append(float(value))
    return kept


def _edges(values: np.ndarray) -> np.ndarray:
    """Borders between cells, halfway in logarithms."""
    if len(values) == 1:
        return values[0] * np.array([0.8, 1.25])
    middle = np.sqrt(values[1:] * values[:-1])
    first, last = values[0] ** 2 / middle[0], values[-1] ** 2 / middle[-1]
    return np.concatenate([[first], middle, [last]])
