r"""Figures of measurement beside theory, drawn with Matplotlib.

Every function draws on the axes it is given, or on a new figure, and returns the
`matplotlib.figure.Figure`. None touches pyplot, the backend or `rcParams`, so nothing
depends on a display and nothing is left behind; `png` turns a figure into bytes.

What a line style means is the same everywhere:

* solid lines and markers: measured; bars and bands are the error;
* dashed: predicted, under assumptions that the caption names;
* dotted grey: guaranteed, an inequality.
"""

import io
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxrelu._checks import check_choice


_PALETTE = (  # Okabe & Ito: told apart with any colour vision
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#F0E442",
)
_INK = "#1a1a1a"
_GREY = "#6b6b6b"
_PREDICTED = ("--", "-.", (0, (6, 2, 1, 2, 1, 2)))
_GUARANTEED = (":", (0, (1, 3)), (0, (1, 1.2)))


def _matplotlib() -> Any:
    try:
        import matplotlib as mpl
        import matplotlib.figure
    except ImportError as error:
        msg = (
            "jaxrelu.figures draws with Matplotlib, which is not installed. "
            'Run: pip install "jaxrelu[plot]"'
        )
        raise ImportError(msg) from error
    return mpl


def panels(
    columns: int = 1,
    rows: int = 1,
    *,
    width: float | int = 5.2,
    height: float | int = 3.9,
) -> tuple[Any, list[Any]]:
    """A new figure and its axes, row by row.

    Args:
        columns: panels beside each other.
        rows: panels above each other.
        width: of one panel, in inches.
        height: of one panel, in inches.

    Raises:
        ImportError: Matplotlib is missing.
    """
    figure = _matplotlib().figure.Figure(
        figsize=(width * columns, height * rows), layout="constrained"
    )
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def png(figure: Any, *, dpi: float | int = 150) -> bytes:
    """The figure as a PNG file's bytes; one drawn anew gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": "jaxrelu"})
    return buffer.getvalue()


def colours(count: int, *, ordered: bool = False) -> list[Any]:
    """Colours for ``count`` series; ``ordered`` ones run from dark to light."""
    if not ordered:
        return [_PALETTE[i % len(_PALETTE)] for i in range(count)]
    shades = _matplotlib().colormaps["viridis"]
    return [shades(x) for x in np.linspace(0.05, 0.85, max(count, 2))[:count]]


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
    ax = _axes(ax)
    shades = colours(len(spectra), ordered=True)
    for shade, (name, spectrum) in zip(shades, spectra.items(), strict=True):
        values = _row(getattr(spectrum, "values", spectrum), name)
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
        _styles(_PREDICTED, predicted), (predicted or {}).items(), strict=True
    ):
        values = np.sort(_row(values, name))[::-1]
        index = np.arange(1, len(values) + 1)
        ax.plot(index, values, color=_INK, ls=style, lw=1.4, label=name)
    ax.set_yscale("log")
    ax.set_xscale(xscale)
    _levels(ax, guaranteed)
    return _finish(ax, title, r"index $i$", ylabel)


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
    ax = _axes(ax)
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
    for i, (name, (kept, size)) in enumerate(shown.items()):
        counts = np.histogram(kept, edges)[0] / (size * np.diff(edges))
        where = 10**edges if log else edges
        shade = _PALETTE[i % len(_PALETTE)]
        look = (
            {"fill": True, "alpha": 0.35, "lw": 0}
            if i == 0
            else {"fill": False, "lw": 1.6}
        )
        ax.stairs(counts, where, color=shade, label=name, **look)
    for style, (name, (x, rho)) in zip(
        _styles(_PREDICTED, laws), (laws or {}).items(), strict=True
    ):
        x, rho = _row(x, name), _row(rho, name)
        height = rho * x * math.log(10) if log else rho
        ax.plot(x, height, color=_INK, ls=style, lw=1.6, label=name)
    ax.set_xscale("log" if log else "linear")
    ax.set_ylim(bottom=0)
    unit = r"fraction of eigenvalues per decade" if log else "density"
    return _finish(ax, title, xlabel, unit)


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
    ax = _axes(ax)
    first = int(xscale == "log")
    shades = dict(
        zip(measured, colours(len(measured), ordered=len(measured) > 2), strict=True)
    )

    def draw(values: Any, name: str, **look: Any) -> None:
        values = _row(values, name)
        ax.plot(np.arange(first, len(values)), values[first:], **look)

    for name, values in measured.items():
        look = {"lw": 4, "alpha": 0.45, "solid_capstyle": "round"}
        draw(values, name, color=shades[name], label=name, **look)
    for name, values, style in _others(shades, predicted):
        shared = name in shades
        shade, label = (shades[name], None) if shared else (_INK, name)
        draw(values, name, color=shade, ls=style, lw=1.6, label=label)
    _explain_dashes(ax, shades, predicted)
    for style, (name, values) in zip(
        _styles(_GUARANTEED, guaranteed), (guaranteed or {}).items(), strict=True
    ):
        draw(values, name, color=_GREY, ls=style, lw=1.6, label=name)
    ax.set_yscale("log")
    ax.set_xscale(xscale)
    return _finish(ax, title, r"step $t$", ylabel)


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
    ax = _axes(ax)
    x = _row(x, "x")
    shades = dict(zip(measured, colours(len(measured), ordered=True), strict=True))
    for name, (values, errors) in measured.items():
        ax.errorbar(
            x,
            _row(values, name),
            _row(errors, name),
            fmt="o",
            ms=4.5,
            lw=1.4,
            capsize=2.5,
            color=shades[name],
            label=name,
            zorder=3,
        )
    for name, values, style in _others(shades, predicted):
        shared = name in shades
        shade, label = (shades[name], None) if shared else (_INK, name)
        ax.plot(x, _row(values, name), ls=style, lw=1.5, color=shade, label=label)
    _explain_dashes(ax, shades, predicted)
    ax.set_xscale("log")
    ax.set_yscale(yscale)
    _levels(ax, levels)
    return _finish(ax, title, xlabel, ylabel)


class PowerLaw(NamedTuple):
    r"""$y = c\, x^a$, fitted by least squares in logarithms.

    Attributes:
        exponent: a.
        error: one standard error of a.
        factor: c.
    """

    exponent: float
    error: float
    factor: float

    def __call__(self, x: Any) -> np.ndarray:
        r"""$c\, x^a$."""
        return self.factor * np.asarray(x, dtype=np.float64) ** self.exponent


def fit_power_law(x: Any, y: Any, errors: Any = None) -> PowerLaw:
    r"""Straight line through $(\log x_i, \log y_i)$.

    Without ``errors`` all points weigh the same and the standard error of the exponent
    comes from their scatter about the line (NaN for two points, which leave none). With
    them, point i weighs $(y_i/e_i)^2$ and the standard error is theirs, enlarged by the
    scatter where that is larger than they explain.

    Args:
        x: shape (r,), positive.
        y: shape (r,), positive.
        errors: standard errors $e_i$ of y, shape (r,), positive.

    Raises:
        ValueError: fewer than two different x, or numbers that are not positive.
    """
    x, y = _row(x, "x"), _row(y, "y")
    e = y if errors is None else _row(errors, "errors")
    same = x.shape == y.shape == e.shape
    if not same or len(np.unique(x)) < 2 or not min(x.min(), y.min(), e.min()) > 0:
        msg = (
            f"x holds {x}, y {y}, errors {errors}; expected as many positive numbers "
            "in each, and at least two different x. Drop the other points."
        )
        raise ValueError(msg)
    weight = (y / e) ** 2
    u, w = np.log(x), np.log(y)
    du = u - np.average(u, weights=weight)
    curvature = np.sum(weight * du**2)
    exponent = float(np.sum(weight * du * w) / curvature)
    intercept = float(np.average(w - exponent * u, weights=weight))
    freedom = len(u) - 2
    scatter = np.sum(weight * (w - intercept - exponent * u) ** 2)
    spread = scatter / freedom if freedom else np.nan
    if errors is not None:
        spread = np.fmax(spread, 1.0)
    return PowerLaw(exponent, float(np.sqrt(spread / curvature)), math.exp(intercept))


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
    ax = _axes(ax)
    x = _row(x, "x")
    for shade, (name, values) in zip(
        colours(len(measured)), measured.items(), strict=True
    ):
        bars = (errors or {}).get(name)
        law = fit_power_law(x, values, bars)
        spread = f" ± {law.error:.1g}" if np.isfinite(law.error) else ""
        ax.errorbar(
            x,
            _row(values, name),
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
    return _finish(ax, title, xlabel, ylabel)


def _axes(ax: Any) -> Any:
    return panels()[1][0] if ax is None else ax


def _row(values: Any, name: str) -> np.ndarray:
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or row.size == 0:
        msg = f"{name} has shape {row.shape}; expected (r,), r ≥ 1. Flatten it first."
        raise ValueError(msg)
    return row


def _styles(styles: tuple, names: Mapping[str, Any] | None) -> list[Any]:
    return [styles[i % len(styles)] for i in range(len(names or {}))]


def _others(
    shades: Mapping[str, Any], predicted: Mapping[str, Any] | None
) -> list[tuple[str, Any, Any]]:
    """Predictions with a style each; those of a measurement are plainly dashed."""
    own = [name for name in predicted or {} if name not in shades]
    styles = dict(zip(own, _styles(_PREDICTED, dict.fromkeys(own)), strict=True))
    return [(n, v, styles.get(n, "--")) for n, v in (predicted or {}).items()]


def _explain_dashes(
    ax: Any, shades: Mapping[str, Any], predicted: Mapping[str, Any] | None
) -> None:
    """One legend entry for all predictions that share their measurement's colour."""
    if any(name in shades for name in predicted or {}):
        ax.plot([], [], ls="--", lw=1.5, color=_GREY, label="predicted")


def _levels(ax: Any, levels: Mapping[str, float | int] | None) -> None:
    for style, (name, value) in zip(
        _styles(_GUARANTEED, levels), (levels or {}).items(), strict=True
    ):
        ax.axhline(float(value), color=_GREY, ls=style, lw=1.4, label=name)


def _finish(ax: Any, title: str | None, xlabel: str, ylabel: str) -> Any:
    """Labels, grid and a legend below the axes, where it cannot cover data."""
    if title:
        ax.set_title(title, fontsize=11, color=_INK, loc="left", pad=8)
    ax.set_xlabel(xlabel, fontsize=10, color=_INK)
    ax.set_ylabel(ylabel, fontsize=10, color=_INK)
    ax.tick_params(labelsize=9, colors=_INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(which="major", color="#dddddd", lw=0.7)
    ax.set_axisbelow(True)
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        # what a label takes up: a TeX command is about one character wide
        longest = max(len(re.sub(r"\\[a-zA-Z]+|[\\${}_^]", "", t)) for t in labels)
        columns = 1 if len(labels) < 3 or longest > 24 else 2
        ax.legend(
            handles,
            labels,
            fontsize=8.5,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(0.0, -0.17),
            ncols=columns,
            handlelength=2.6,
            columnspacing=1.4,
            borderaxespad=0,
        )
    return ax.figure
