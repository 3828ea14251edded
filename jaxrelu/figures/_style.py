"""What every figure has in common: palette, axes, legend, bytes."""

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxrelu._checks import row_of as row_of


_PALETTE = (  # Okabe & Ito: told apart with any colour vision
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#F0E442",
)
INK = "#1a1a1a"
GREY = "#6b6b6b"
PREDICTED = ("--", "-.", (0, (6, 2, 1, 2, 1, 2)))
GUARANTEED = (":", (0, (1, 3)), (0, (1, 1.2)))


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


def axes_of(ax: Any) -> Any:
    return panels()[1][0] if ax is None else ax


def styles_of(styles: tuple, names: Mapping[str, Any] | None) -> list[Any]:
    return [styles[i % len(styles)] for i in range(len(names or {}))]


def others(
    shades: Mapping[str, Any], predicted: Mapping[str, Any] | None
) -> list[tuple[str, Any, Any]]:
    """Predictions with a style each; those of a measurement are plainly dashed."""
    own = [name for name in predicted or {} if name not in shades]
    styles = dict(zip(own, styles_of(PREDICTED, dict.fromkeys(own)), strict=True))
    return [(n, v, styles.get(n, "--")) for n, v in (predicted or {}).items()]


def explain_dashes(
    ax: Any, shades: Mapping[str, Any], predicted: Mapping[str, Any] | None
) -> None:
    """One legend entry for all predictions that share their measurement's colour."""
    if any(name in shades for name in predicted or {}):
        ax.plot([], [], ls="--", lw=1.5, color=GREY, label="predicted")


def draw_levels(ax: Any, levels: Mapping[str, float | int] | None) -> None:
    for style, (name, value) in zip(
        styles_of(GUARANTEED, levels), (levels or {}).items(), strict=True
    ):
        ax.axhline(float(value), color=GREY, ls=style, lw=1.4, label=name)


def finish(ax: Any, title: str | None, xlabel: str, ylabel: str) -> Any:
    """Labels, grid and a legend below the axes, where it cannot cover data."""
    if title:
        ax.set_title(title, fontsize=11, color=INK, loc="left", pad=8)
    ax.set_xlabel(xlabel, fontsize=10, color=INK)
    ax.set_ylabel(ylabel, fontsize=10, color=INK)
    ax.tick_params(labelsize=9, colors=INK)
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
