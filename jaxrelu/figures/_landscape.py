"""Minima: spectra with multiplicities, families over k, weights, slices of a loss."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrelu.figures._style import (
    GREY,
    INK,
    axes_of,
    colours,
    finish,
    panels,
    row_of,
)


_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


def plot_multiplicities(
    spectra: Mapping[str, Any],
    *,
    title: str | None = None,
    xlabel: str = r"eigenvalue of $\nabla^2 F$",
    ax: Any = None,
) -> Any:
    """Distinct eigenvalues as stems, as high as their multiplicity, one row of colours.

    The heights are on a logarithmic axis. So are the eigenvalues where all are positive
    and reach over more than a decade; otherwise a vertical line marks 0, and the axis
    is logarithmic beyond ±1 where some are large.

    Args:
        spectra: name → `DistinctSpectrum`, or anything with `values` and
            `multiplicities`.
        title: above the axes.
        xlabel: of the horizontal axis.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
    """
    ax = axes_of(ax)
    everything = []
    for i, (shade, (name, spectrum)) in enumerate(
        zip(colours(len(spectra)), spectra.items(), strict=True)
    ):
        values = row_of(spectrum.values, name)
        heights = np.array([float(m) for m in spectrum.multiplicities])
        everything.append(values)
        ax.vlines(values, 0.7, heights, color=shade, lw=1.2, alpha=0.6)
        ax.plot(
            values,
            heights,
            ls="",
            marker=_MARKERS[i % len(_MARKERS)],
            ms=5.5,
            color=shade,
            label=name,
        )
    every = np.concatenate(everything or [np.ones(1)])
    low, high = float(every.min()), float(every.max())
    ax.set_yscale("log")
    ax.set_ylim(bottom=0.7)
    if low > 0 and high > 10 * low:
        ax.set_xscale("log")
    else:
        ax.axvline(0, color=GREY, lw=1)
    if low <= 0 and max(high, -low) > 4:
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(1.5 * min(low, -0.5), 1.5 * max(high, 0.5))
    return finish(ax, title, xlabel, "multiplicity")


def plot_families(
    table: Any,
    quantity: str = "loss",
    *,
    title: str | None = None,
    ylabel: str | None = None,
    ax: Any = None,
) -> Any:
    r"""One number of every family against k; filled where the point is a minimum.

    Args:
        table: a `jaxrelu.landscape.FamilyTable`.
        quantity: one of its array fields, ``"loss"`` or ``"smallest"``.
        title: above the axes.
        ylabel: of the vertical axis.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
    """
    ax = axes_of(ax)
    k, rows = np.asarray(table.k), np.asarray(getattr(table, quantity))
    minimum = np.asarray(table.is_minimum)
    words = {"loss": r"$F$", "smallest": r"$\lambda_{\min}(\nabla^2 F)$"}
    for i, (shade, name) in enumerate(
        zip(colours(len(table.names)), table.names, strict=True)
    ):
        marker = _MARKERS[i % len(_MARKERS)]
        there = np.isfinite(rows[i])
        ax.plot(k[there], rows[i][there], color=shade, lw=1.2, alpha=0.7)
        for mask, face in ((minimum[i], shade), (~minimum[i], "white")):
            ax.plot(
                k[there & mask],
                rows[i][there & mask],
                ls="",
                marker=marker,
                ms=5,
                mfc=face,
                mec=shade,
            )
        ax.plot([], [], color=shade, marker=marker, ms=5, lw=1.2, label=name)
    ax.plot(
        [], [], ls="", marker="o", ms=5, mfc="white", mec=GREY, label="not a minimum"
    )
    if quantity != "loss":
        ax.axhline(0, color=GREY, lw=1)
    if k.size and k.max() > 30 * k.min():
        ax.set_xscale("log")
    else:
        ax.locator_params(axis="x", integer=True)
    return finish(ax, title, r"$k$", ylabel or words.get(quantity, quantity))


def plot_weights(
    weights: Mapping[str, Any], *, columns: int = 3, limit: float | None = None
) -> Any:
    """Heat-maps of weight matrices, neurons as rows, on one colour scale.

    Args:
        weights: name → (n, d).
        columns: panels beside each other.
        limit: the colours end at ± this; None takes the largest entry.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: no matrix, or something that is none.
    """
    matrices = {name: np.asarray(w, dtype=np.float64) for name, w in weights.items()}
    wrong = {name: w.shape for name, w in matrices.items() if w.ndim != 2}
    if not matrices or wrong:
        msg = f"weights hold {wrong or 'nothing'}; expected matrices (n, d) by name."
        raise ValueError(msg)
    if limit is None:
        limit = max(float(np.abs(w).max()) for w in matrices.values())
    columns = min(columns, len(matrices))
    rows = -(-len(matrices) // columns)
    figure, every = panels(columns, rows, width=3.1, height=3.0)
    image = None
    for ax, (name, matrix) in zip(every, matrices.items(), strict=False):
        image = ax.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_title(name, fontsize=10, color=INK, loc="left")
        ax.tick_params(labelsize=8, colors=INK)
        ax.set_xticks(range(0, matrix.shape[1], max(1, matrix.shape[1] // 5)))
        ax.set_yticks(range(0, matrix.shape[0], max(1, matrix.shape[0] // 5)))
    for ax in every[len(matrices) :]:
        ax.set_axis_off()
    figure.colorbar(image, ax=every, shrink=0.7, pad=0.02).ax.tick_params(labelsize=8)
    return figure


def plot_slice(
    x: Any,
    y: Any,
    values: Any,
    *,
    marks: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
    xlabel: str,
    ylabel: str,
    label: str = r"$F$",
    levels: int = 21,
    ax: Any = None,
) -> Any:
    """A function on a plane of weights: filled contours, and the points of interest.

    Args:
        x: abscissae, (p,).
        y: ordinates, (q,).
        values: (q, p).
        marks: name → (x, y).
        title: above the axes.
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        label: of the colour scale.
        levels: number of contours, spaced by quantiles.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: shapes that do not fit, or values that are not finite.
    """
    ax = axes_of(ax)
    x, y = row_of(x, "x"), row_of(y, "y")
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (len(y), len(x)) or not np.isfinite(values).all():
        msg = (
            f"values have shape {values.shape}; expected finite numbers "
            f"({len(y)}, {len(x)})."
        )
        raise ValueError(msg)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, levels)))
    if len(edges) < 3:
        edges = np.linspace(values.min(), values.min() + max(np.ptp(values), 1e-12), 3)
    filled = ax.contourf(x, y, values, levels=edges, cmap="viridis", extend="both")
    ax.contour(x, y, values, levels=edges, colors="white", linewidths=0.4, alpha=0.6)
    bar = ax.figure.colorbar(filled, ax=ax, pad=0.02, format="%.3g")
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    for i, (name, (a, b)) in enumerate((marks or {}).items()):
        ax.plot(
            a,
            b,
            ls="",
            marker=_MARKERS[i % len(_MARKERS)],
            ms=8,
            mfc="white",
            mec=INK,
            label=name,
        )
    return finish(ax, title, xlabel, ylabel)
