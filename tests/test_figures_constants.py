"""Figures of constants: what is drawn is what was given."""

import numpy as np
import pytest

from jaxrelu import figures


def test_bars_are_as_high_as_the_values():
    groups = {
        "one": {"found": 0.5, "asymptotic": 0.4, "theorem": 2.0},
        "two": {"found": 3.0, "asymptotic": 1.0, "theorem": None},
        "three": {"found": np.inf, "asymptotic": 1.0, "theorem": -1.0},
    }
    (ax,) = figures.plot_bounds(groups, title="bounds").axes
    tops = sorted(bar.get_y() + bar.get_height() for bar in ax.patches)
    np.testing.assert_allclose(tops, [0.4, 0.5, 1.0, 1.0, 2.0, 3.0])
    left = [bar.get_x() for bar in ax.patches]
    assert len(set(left)) == 6
    assert [label.get_text() for label in ax.get_xticklabels()] == list(groups)
    missing = [x for line in ax.lines for x in line.get_xdata()]
    assert len(missing) == 3  # one for each bar that is left out
    assert ax.get_yscale() == "log"
    with pytest.raises(ValueError, match="no positive finite value"):
        figures.plot_bounds({"one": {"found": None}})


def test_constants_against_depth():
    depth = [2, 4, 8]
    (ax,) = figures.plot_depth(
        depth,
        {"plain": [1.0, 0.1, 0.01], "residual": [1.0, 2.0, 4.0]},
        guaranteed={"plain": [0.5, 0.0, np.inf], "residual": [0.5, 1.0, 2.0]},
        spread={"plain": ([0.5, 0.05, 0.0], [2.0, 0.2, 0.02])},
    ).axes
    (band,) = ax.collections
    corners = np.concatenate([path.vertices for path in band.get_paths()])
    assert set(corners[:, 0]) == {2, 4}  # no band where its lower end is 0
    assert (corners[:, 1].min(), corners[:, 1].max()) == (0.05, 2.0)
    lines = [line for line in ax.lines if len(line.get_xdata())]
    drawn = {line.get_label(): line for line in lines}
    np.testing.assert_allclose(drawn["residual"].get_ydata(), [1, 2, 4])
    np.testing.assert_allclose(drawn["plain, guaranteed"].get_xdata(), [2])
    for name in ("plain", "residual"):
        measured, sure = drawn[name], drawn[f"{name}, guaranteed"]
        assert measured.get_color() == sure.get_color()
        assert measured.get_linestyle() == "-"
        assert sure.get_linestyle() != "-"


def test_ratio_on_a_plane():
    x, y = np.linspace(-1, 1, 9), np.linspace(0.5, 2, 7)
    gap = 0.5 * (x[None] * y[:, None]) ** 2  # zero along x = 0
    square = (x[None] * y[:, None]) ** 2 * (x[None] ** 2 + y[:, None] ** 2)
    figure = figures.plot_ratio(
        x, y, gap, square, marks={"W*": (0.0, 1.0)}, xlabel="s", ylabel="t"
    )
    assert len(figure.axes) == 2  # the colour scale
    assert "log" in figure.axes[1].get_ylabel()
    low, high = figure.axes[0].collections[0].get_clim()
    known = np.log10(gap[gap > 0] / square[gap > 0])
    assert low >= known.min() - 0.5
    assert high <= known.max() + 0.5
    for wrong in (square.T, np.zeros_like(square)):
        with pytest.raises(ValueError, match="expected"):
            figures.plot_ratio(x, y, gap, wrong, xlabel="s", ylabel="t")
