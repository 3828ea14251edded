"""Measurements over one axis: beside predictions, and as power laws."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrelu._checks import check_choice
from jaxrelu._power_law import PowerLaw as PowerLaw, fit_power_law as fit_power_law
from jaxrelu.figures._style import (
    INK,
    axes_of,
    colours,
    draw_levels,
    explain_dashes,
    finish,
    others,
    row_of,
)


def plot_comparison(
    x: Any,
    measured: Mapping[str, tuple[Any, Any]],
    *,
    predicted: Mapping[str, Any] | None = None,
    levels: Mapping[str, float | int] | None = None,
    title: str | None = None,
    xlabel: str,
    ylabel: str,
    yscale: str = "linear",
    ax: Any = None,
) -> Any:
    """Measured points with error bars over one axis, and predictions as lines.

    A prediction with the name of a measurement is drawn in its colour and shares its
    legend entry; any other one is black and has its own.

    Args:
        x: shape (r,), positive; the axis is logarithmic.
        measured: name → (values, errors), shape (r,) each.
        predicted: name → values of shape (r,), dashed.
        levels: name → one number, a dotted horizontal line with its name beside it.
        title: above the axes.
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        yscale: ``"linear"`` or ``"log"``.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: unknown ``yscale``, or values that are not one row of numbers.
    """
    check_choice(yscale, ("linear", "log"), "yscale")
    ax = axes_of(ax)
    x = row_of(x, "x")
    shades = dict(zip(measured, colours(len(measured), ordered=True), strict=True))
    for name, (values, errors) in measured.items():
        ax.errorbar(
            x,
            row_of(values, name),
            row_of(errors, name),
            fmt="o",
            ms=4.5,
            lw=1.4,
            capsize=2.5,
            color=shades[name],
            label=name,
            zorder=3,
        )
    for name, values, style in others(shades, predicted):
        shared = name in shades
        shade, label = (shades[name], None) if shared else (INK, name)
        ax.plot(x, row_of(values, name), ls=style, lw=1.5, color=shade, label=label)
    explain_dashes(ax, shades, predicted)
    ax.set_xscale("log")
    ax.set_yscale(yscale)
    draw_levels(ax, levels)
    return finish(ax, title, xlabel, ylabel)


def plot_scaling(
    x: Any,
    measured: Mapping[str, Any],
    *,
    errors: Mapping[str, Any] | None = None,
    title: str | None = None,
    xlabel: str,
    ylabel: str,
    ax: Any = None,
) -> Any:
    """Power laws on doubly logarithmic axes; the legend states the fitted exponents.

    Args:
        x: shape (r,), positive.
        measured: name → values of shape (r,), positive.
        errors: name → standard errors of shape (r,), drawn as bars and fitted with.
        title: above the axes.
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: as `fit_power_law`.
    """
    ax = axes_of(ax)
    x = row_of(x, "x")
    for shade, (name, values) in zip(
        colours(len(measured)), measured.items(), strict=True
    ):
        bars = (errors or {}).get(name)
        law = fit_power_law(x, values, bars)
        spread = f" ± {law.error:.1g}" if np.isfinite(law.error) else ""
        ax.errorbar(
            x,
            row_of(values, name),
            bars,
            fmt="o",
            ms=5,
            lw=1.4,
            capsize=2.5,
            color=shade,
            label=f"{name}: exponent ${law.exponent:.2f}${spread}",
        )
        ax.plot(x, law(x), color=shade, lw=1.4, alpha=0.7)
    ax.set_xscale("log")
    ax.set_yscale("log")
    return finish(ax, title, xlabel, ylabel)
