"""Constants around minimisers: bounds beside each other, over depth, and on a plane."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrelu.figures._landscape import plot_slice
from jaxrelu.figures._style import (
    GREY,
    GUARANTEED,
    INK,
    axes_of,
    colours,
    finish,
    row_of,
)


def plot_ratio(
    x: Any,
    y: Any,
    gap: Any,
    square: Any,
    *,
    marks: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
    xlabel: str,
    ylabel: str,
    ax: Any = None,
) -> Any:
    r"""$\log_{10}$ of $(f - f^*)/\|\nabla f\|^2$ on a plane of parameters.

    Colours end at the 2 % and 98 % quantiles. At minimisers the ratio is 0/0, and
    there the smallest value shown is drawn; at other stationary points it is infinite,
    and the largest is.

    Args:
        x: abscissae, (p,).
        y: ordinates, (q,).
        gap: $f - f^*$, (q, p).
        square: $\|\nabla f\|^2$, (q, p).
        marks: name → (x, y).
        title: above the axes.
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: shapes that do not fit, or no point where the ratio is a number.
    """
    gap, square = (np.asarray(v, dtype=np.float64) for v in (gap, square))
    if gap.shape != square.shape:
        msg = f"gap has shape {gap.shape} and square {square.shape}; expected the same."
        raise ValueError(msg)
    known = (gap > 0) & (square > 0) & np.isfinite(gap) & np.isfinite(square)
    if not known.any():
        msg = "the ratio is no number anywhere; expected gap > 0 and square > 0."
        raise ValueError(msg)
    ratio = np.log10(np.where(known, gap, 1) / np.where(known, square, 1))
    ends = np.quantile(ratio[known], (0.02, 0.98))
    ratio = np.where(known, np.clip(ratio, *ends), np.where(gap > 0, ends[1], ends[0]))
    figure = plot_slice(
        x,
        y,
        ratio,
        marks=marks,
        title=title,
        xlabel=xlabel,
        ylabel=ylabel,
        label=r"$\log_{10}\,(f-f^*)/\Vert\nabla f\Vert^2$",
        ax=ax,
    )
    (figure.axes[0] if ax is None else ax).locator_params(nbins=5)  # or they collide
    return figure


def plot_depth(
    depth: Any,
    measured: Mapping[str, Any],
    *,
    guaranteed: Mapping[str, Any] | None = None,
    spread: Mapping[str, tuple[Any, Any]] | None = None,
    title: str | None = None,
    xlabel: str = r"depth $l$",
    ylabel: str = r"$\mu = 1/2\lambda$",
    ax: Any = None,
) -> Any:
    """Constants against depth: measured solid, guaranteed dotted, one colour a network.

    A guarantee with the name of a measurement takes its colour.

    Args:
        depth: (r,).
        measured: name → (r,); what is not positive and finite is left out.
        guaranteed: name → (r,); the same.
        spread: name of a measurement → its lower and upper end, (r,) each, a band;
            left out as the measurement is, and where an end is not positive.
        title: above the axes.
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: values that are not one row of numbers.
    """
    ax = axes_of(ax)
    depth = row_of(depth, "depth")
    shades = dict(zip(measured, colours(len(measured)), strict=True))
    for name, values in measured.items():
        row = row_of(values, name)
        there = np.isfinite(row) & (row > 0)
        ax.plot(
            depth[there],
            row[there],
            color=shades[name],
            marker="o",
            ms=4.5,
            lw=1.4,
            label=name,
        )
        if spread is not None and name in spread:
            low, high = (row_of(end, name) for end in spread[name])
            there &= (low > 0) & np.isfinite(high)
            ax.fill_between(
                depth,
                np.where(there, low, np.nan),
                np.where(there, high, np.nan),
                color=shades[name],
                alpha=0.2,
                lw=0,
            )
    for name, values in (guaranteed or {}).items():
        row = row_of(values, name)
        there = np.isfinite(row) & (row > 0)
        ax.plot(
            depth[there],
            row[there],
            ls=GUARANTEED[0],
            lw=1.8,
            color=shades.get(name, GREY),
            label=f"{name}, guaranteed",
        )
    ax.set_yscale("log")
    ax.locator_params(axis="x", integer=True)
    return finish(ax, title, xlabel, ylabel)


def plot_bounds(
    groups: Mapping[str, Mapping[str, float | None]],
    *,
    title: str | None = None,
    ylabel: str = r"$\lambda$",
    ax: Any = None,
) -> Any:
    """Bars side by side: for each instance what was found, is asymptotic, is proved.

    Heights are on a logarithmic axis; what is None, 0, negative or infinite is left
    out and marked by a dash on the axis.

    Args:
        groups: instance → (kind → value); the kinds in the order of the first instance.
        title: above the axes.
        ylabel: of the vertical axis.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: nothing to draw.
    """
    kinds = list(dict.fromkeys(kind for group in groups.values() for kind in group))
    heights = np.array(
        [
            [np.nan if group.get(k) is None else group[k] for k in kinds]
            for group in groups.values()
        ],
        dtype=np.float64,
    )
    shown = np.isfinite(heights) & (heights > 0)
    if not shown.any():
        msg = (
            "groups hold no positive finite value; expected {instance: {kind: value}}."
        )
        raise ValueError(msg)
    ax = axes_of(ax)
    width = 0.8 / len(kinds)
    places = np.arange(len(groups), dtype=np.float64)
    floor = heights[shown].min() / 3
    for i, (kind, shade) in enumerate(zip(kinds, colours(len(kinds)), strict=True)):
        at = places + (i - (len(kinds) - 1) / 2) * width
        there = shown[:, i]
        ax.bar(
            at[there],
            heights[there, i] - floor,
            width=0.9 * width,
            bottom=floor,
            color=shade,
            label=kind,
        )
        ax.plot(at[~there], [floor] * int((~there).sum()), ls="", marker="_", color=INK)
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)
    ax.set_xticks(places, list(groups))
    return finish(ax, title, "", ylabel)
