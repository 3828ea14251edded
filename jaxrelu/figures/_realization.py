"""Functions against weights: cells and gradients, pathologies, inverse stability."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrelu._checks import check_positive
from jaxrelu.figures._style import (
    GREY,
    GUARANTEED,
    INK,
    axes_of,
    colours,
    finish,
    panels,
    row_of,
    styles_of,
)
from jaxrelu.realization._units import units_of


_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot_cells(
    network: Any,
    *,
    half_width: float = 1.0,
    output: int = 0,
    resolution: int = 240,
    title: str | None = None,
    ax: Any = None,
) -> Any:
    r"""Cells of a network of two inputs, coloured by $\|\nabla f\|_\infty$; arrows.

    Lines are the kinks, exact. Colours and arrows are the gradient, which is constant
    on each cell; one arrow at the middle of each cell that at least 1 % of the
    pixels see. A cell thinner than a pixel is not seen.

    Args:
        network: one hidden ReLU layer with two inputs, with or without biases, or a
            pair `(a, b)` for the difference $R(a) - R(b)$.
        half_width: B of the square $(-B, B)^2$.
        output: which output.
        resolution: pixels per side.
        title: above the axes.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        TypeError: not such a network.
        ValueError: other than two inputs, no such output, a square of no size.
    """
    units = units_of(network)
    check_positive(half_width, "half_width")
    if units.inner.shape[1] != 2 or not 0 <= output < len(units.outer):
        msg = (
            f"the network has {units.inner.shape[1]} inputs and {len(units.outer)} "
            f"outputs, output is {output}; expected 2 inputs and an output it has."
        )
        raise ValueError(msg)
    ax = axes_of(ax)
    bias = np.zeros(len(units.inner)) if units.bias is None else units.bias
    at = half_width * ((2 * np.arange(resolution) + 1) / resolution - 1)
    x = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)
    active = x @ units.inner.T + bias > 0
    gradients = (active * units.outer[output]) @ units.inner
    size = np.abs(gradients).max(axis=1, initial=0).reshape(resolution, resolution)
    image = ax.imshow(
        size,
        origin="lower",
        extent=(-half_width, half_width) * 2,
        cmap="YlGnBu",
        vmin=0,
        vmax=max(1.4 * float(size.max()), 1e-300),  # arrows stay readable
        interpolation="nearest",
    )
    for (a, b), c in zip(units.inner, bias, strict=True):
        if a or b:  # the foot of the perpendicular, and along the line from there
            foot = -c * np.array([a, b]) / (a**2 + b**2)
            ax.axline(foot, foot + np.array([-b, a]), color=GREY, lw=0.9)
    _arrows(ax, x, active, gradients, half_width)
    ax.set_xlim(-half_width, half_width)
    ax.set_ylim(-half_width, half_width)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, shrink=0.85)
    bar.ax.set_ylim(0, max(float(size.max()), 1e-300))
    bar.set_label(r"$\|\nabla f\|_\infty$", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    ax.locator_params(nbins=5)
    figure = finish(ax, title, r"$x_1$", r"$x_2$")
    ax.grid(visible=False)
    return figure


def _arrows(
    ax: Any, x: np.ndarray, active: np.ndarray, gradients: np.ndarray, width: float
) -> None:
    """One arrow per visible cell; the longest takes up 15 % of the side."""
    packed = np.packbits(active, axis=1)
    _, first, label, count = np.unique(
        packed, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    label = np.reshape(label, -1)
    middle = np.stack(
        [np.bincount(label, x[:, q]) / count for q in range(2)], axis=-1
    )  # cells are convex
    seen = count >= 0.01 * len(x)
    slope = gradients[first]
    longest = float(np.linalg.norm(slope[seen], axis=1).max(initial=0))
    if longest == 0:
        return
    ax.quiver(
        *middle[seen].T,
        *slope[seen].T,
        color=INK,
        angles="xy",
        scale_units="xy",
        scale=longest / (0.3 * width),
        width=0.006,
        pivot="middle",
    )


def plot_pathologies(
    families: Mapping[str, Sequence[Any]], *, title: str | None = None
) -> Any:
    r"""How far apart functions and weights are, against the index of the example.

    Left the semi-norm of $g_k - R(\Gamma)$, right the distance to the nearest weights
    with the function $g_k$; a bar where only bounds of it are known.

    Args:
        families: name → `jaxrelu.realization.Pathology` for several k.
        title: of the left panel.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: nothing to draw.
    """
    if not families or not all(families.values()):
        msg = f"families hold {dict(families)}; expected pathologies by name."
        raise ValueError(msg)
    figure, (left, right) = panels(2)
    for i, (shade, (name, family)) in enumerate(
        zip(colours(len(families)), families.items(), strict=True)
    ):
        k = row_of([p.k for p in family], name)
        # curves that coincide stay visible: hollow marks of different sizes
        look: dict[str, Any] = {
            "color": shade,
            "lw": 1.3,
            "marker": _MARKERS[i % len(_MARKERS)],
            "ms": 4 + 1.6 * (len(families) - i),
            "mfc": "none",
            "label": name,
        }
        left.plot(k, [p.seminorm for p in family], **look)
        low = np.array([p.distance_lower for p in family])
        right.plot(k, low, **look)
        high = np.array([p.distance_upper for p in family])
        known = np.isfinite(high)
        right.vlines(k[known], low[known], high[known], color=shade, lw=1.3)
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_yscale("log")
    finish(left, title, r"$k$", r"$|g_k - R(\Gamma)|_{W^{1,\infty}}$")
    finish(right, None, r"$k$", r"$\inf\,\|\Phi - \Gamma\|_\infty$")
    right.get_legend().remove()
    return figure


def plot_inverse_stability(
    pairs: Mapping[str, tuple[Any, Any]],
    *,
    bounds: Mapping[str, Callable[[Any], Any]] | None = None,
    title: str | None = None,
    ylabel: str = r"distance of the weights",
    ax: Any = None,
) -> Any:
    r"""Distance of the weights against r, the distance of the functions, log-log.

    Bounds are dotted: guaranteed.

    Args:
        pairs: name → (r, distance), equally long; both positive.
        bounds: name → function of r, for example `lambda r: 4 * r**0.5`.
        title: above the axes.
        ylabel: of the vertical axis.
        ax: axes to draw on; None makes a figure.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: nothing to draw, lengths that differ, numbers that are not positive.
    """
    found = {n: (row_of(r, n), row_of(d, n)) for n, (r, d) in pairs.items()}
    bad = [n for n, (r, d) in found.items() if len(r) != len(d) or not len(r)]
    bad += [n for n, (r, d) in found.items() if not (r > 0).all() or not (d > 0).all()]
    if bad or not found:
        msg = (
            f"pairs {bad or 'hold nothing'}: expected by name (r, distance), equally "
            "long and positive; leave out pairs of equal functions."
        )
        raise ValueError(msg)
    ax = axes_of(ax)
    for i, (shade, (name, (r, d))) in enumerate(
        zip(colours(len(found)), found.items(), strict=True)
    ):
        few = len(r) < 3
        ax.plot(
            r,
            d,
            ls="",
            marker=_MARKERS[i % len(_MARKERS)],
            ms=8 if few else 4,
            color=shade,
            alpha=1.0 if few else 0.65,
            mec="white" if not few else INK,
            mew=0.4,
            label=name,
        )
    every = np.concatenate([r for r, _ in found.values()])
    r = np.geomspace(every.min() / 1.3, every.max() * 1.3, 60)
    for style, (name, bound) in zip(
        styles_of(GUARANTEED, bounds), (bounds or {}).items(), strict=True
    ):
        values = np.broadcast_to(np.asarray(bound(r), np.float64), r.shape)
        ax.plot(r, values, color=GREY, ls=style, lw=1.5, label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    return finish(ax, title, r"$r = |g - R(\Gamma)|_{W^{1,\infty}}$", ylabel)
