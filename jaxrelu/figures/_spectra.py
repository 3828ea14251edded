"""Spectra, densities and trajectories."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrelu._checks import check_choice
from jaxrelu.figures._style import (
    GREY,
    GUARANTEED,
    INK,
    PREDICTED,
    axes_of,
    colours,
    draw_levels,
    explain_dashes,
    finish,
    others,
    row_of,
    styles_of,
)


def plot_spectrum(
    spectra: Mapping[str, Any],
    *,
    predicted: Mapping[str, Any] | None = None,
    guaranteed: Mapping[str, float | int] | None = None,
    title: str | None = None,
    ylabel: str = r"singular value $\sigma_i$",
    xscale: str = "linear",
    ax: Any = None,
) -> Any:
    r"""Sorted values of several spectra against their index, logarithmic in the value.

    A band shows ``values ± error``; where the error reaches the value, which then
    cannot be told from 0, the line breaks off into crosses.

    Args:
        spectra: name → anything with ``values`` and ``error`` of shape (r,) (a
            `jaxrelu.Spectrum`), or an array (then without a band).
        predicted: name → values of shape (r,), dashed.
        guaranteed: name → one number, a dotted horizontal line with its name beside it.
        title: above the axes.
        ylabel: of the value axis.
        xscale: ``"linear"`` or ``"log"``.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: unknown ``xscale``, or values that are not one row of numbers.
    """
    check_choice(xscale, ("linear", "log"), "xscale")
    ax = axes_of(ax)
    shades = colours(len(spectra), ordered=True)
    for shade, (name, spectrum) in zip(shades, spectra.items(), strict=True):
        values = row_of(getattr(spectrum, "values", spectrum), name)
        error = np.broadcast_to(getattr(spectrum, "error", 0.0), values.shape)
        order = np.argsort(-values)
        values, error = values[order], error[order]
        index = np.arange(1, len(values) + 1)
        known = values > error
        ax.plot(index[known], values[known], color=shade, lw=1.8, label=name)
        band = (index[known], (values - error)[known], (values + error)[known])
        ax.fill_between(*band, color=shade, alpha=0.25, lw=0)
        lost = ~known & (values > 0)
        ax.plot(index[lost], values[lost], "x", color=shade, ms=3, alpha=0.6)
    for style, (name, values) in zip(
        styles_of(PREDICTED, predicted), (predicted or {}).items(), strict=True
    ):
        values = np.sort(row_of(values, name))[::-1]
        index = np.arange(1, len(values) + 1)
        ax.plot(index, values, color=INK, ls=style, lw=1.4, label=name)
    ax.set_yscale("log")
    ax.set_xscale(xscale)
    draw_levels(ax, guaranteed)
    return finish(ax, title, r"index $i$", ylabel)


def plot_density(
    samples: Mapping[str, Any],
    *,
    laws: Mapping[str, tuple[Any, Any]] | None = None,
    title: str | None = None,
    xlabel: str = r"eigenvalue $\lambda$",
    log: bool = True,
    bins: int = 60,
    ax: Any = None,
) -> Any:
    r"""Histograms of eigenvalues, and the densities that a law predicts for them.

    With ``log`` the axis is $\log_{10}\lambda$ and so is the measure: areas under
    histogram and law are fractions of the eigenvalues, and a law $\rho(\lambda)$ is
    drawn as $\lambda \rho(\lambda) \ln 10$.

    Args:
        samples: name → eigenvalues of any shape. The first is filled, the others are
            outlines.
        laws: name → (λ, ρ(λ)), both of shape (r,), dashed; ρ integrates to the
            fraction of eigenvalues that it describes.
        title: above the axes.
        xlabel: of the eigenvalue axis.
        log: logarithmic eigenvalue axis; then values that are not positive are left
            out, and the legend says how many.
        bins: cells of the common histogram.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: no sample has a value to show.
    """
    ax = axes_of(ax)
    shown = {}
    for name, values in samples.items():
        values = np.ravel(np.asarray(values, dtype=np.float64))
        kept = values[values > 0] if log else values
        left_out = f" ({values.size - kept.size} values ≤ 0 left out)"
        shown[name + (left_out if kept.size < values.size else "")] = (
            np.log10(kept) if log else kept,
            values.size,
        )
    everything = np.concatenate([kept for kept, _ in shown.values()] or [np.zeros(0)])
    if everything.size == 0:
        msg = (
            f"samples hold no {'positive ' if log else ''}values; expected at least "
            "one. Pass log=False for values that are 0 or negative."
        )
        raise ValueError(msg)
    edges = np.histogram_bin_edges(everything, bins)
    shades = colours(len(shown))
    for i, (name, (kept, size)) in enumerate(shown.items()):
        counts = np.histogram(kept, edges)[0] / (size * np.diff(edges))
        where = 10**edges if log else edges
        shade = shades[i]
        look = (
            {"fill": True, "alpha": 0.35, "lw": 0}
            if i == 0
            else {"fill": False, "lw": 1.6}
        )
        ax.stairs(counts, where, color=shade, label=name, **look)
    for style, (name, (x, rho)) in zip(
        styles_of(PREDICTED, laws), (laws or {}).items(), strict=True
    ):
        x, rho = row_of(x, name), row_of(rho, name)
        height = rho * x * math.log(10) if log else rho
        ax.plot(x, height, color=INK, ls=style, lw=1.6, label=name)
    ax.set_xscale("log" if log else "linear")
    ax.set_ylim(bottom=0)
    unit = r"fraction of eigenvalues per decade" if log else "density"
    return finish(ax, title, xlabel, unit)


def plot_trajectory(
    measured: Mapping[str, Any],
    *,
    predicted: Mapping[str, Any] | None = None,
    guaranteed: Mapping[str, Any] | None = None,
    title: str | None = None,
    ylabel: str = r"residual $\|r_t\|_2 / \|r_0\|_2$",
    xscale: str = "linear",
    ax: Any = None,
) -> Any:
    """Quantities along a run, step by step, logarithmic in the quantity.

    A prediction with the name of a measurement is drawn in its colour and shares its
    legend entry; any other one is black and has its own.

    Args:
        measured: name → values at steps 0, 1, …, solid.
        predicted: the same, dashed.
        guaranteed: the same, dotted: bounds.
        title: above the axes.
        ylabel: of the value axis.
        xscale: ``"linear"`` or ``"log"``; the latter leaves out step 0.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: unknown ``xscale``, or values that are not one row of numbers.
    """
    check_choice(xscale, ("linear", "log"), "xscale")
    ax = axes_of(ax)
    first = int(xscale == "log")
    shades = dict(
        zip(measured, colours(len(measured), ordered=len(measured) > 2), strict=True)
    )

    def draw(values: Any, name: str, **look: Any) -> None:
        values = row_of(values, name)
        ax.plot(np.arange(first, len(values)), values[first:], **look)

    for name, values in measured.items():
        look = {"lw": 4, "alpha": 0.45, "solid_capstyle": "round"}
        draw(values, name, color=shades[name], label=name, **look)
    for name, values, style in others(shades, predicted):
        shared = name in shades
        shade, label = (shades[name], None) if shared else (INK, name)
        draw(values, name, color=shade, ls=style, lw=1.6, label=label)
    explain_dashes(ax, shades, predicted)
    for style, (name, values) in zip(
        styles_of(GUARANTEED, guaranteed), (guaranteed or {}).items(), strict=True
    ):
        draw(values, name, color=GREY, ls=style, lw=1.6, label=name)
    ax.set_yscale("log")
    ax.set_xscale(xscale)
    return finish(ax, title, r"step $t$", ylabel)
