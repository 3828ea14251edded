"""Figures of phase transitions: what is drawn is what was given."""

import numpy as np
import pytest

from jaxrelu import figures
from jaxrelu.experiments import fit_transition
from jaxrelu.landscape import share


RATIOS = np.array([0.5, 0.8, 1.0, 1.25, 2.0])


def test_shares_bars_curve_and_line():
    counts = [0, 2, 5, 9, 10]
    shares = [share(c, 10) for c in counts]
    curve = fit_transition(RATIOS, counts, np.full(5, 10))
    (ax,) = figures.plot_transition(
        {"gd": RATIOS, "none": RATIOS},
        {"gd": shares, "none": [share(0, 10)] * 5},
        {"gd": curve, "none": fit_transition(RATIOS, np.zeros(5), np.full(5, 10))},
        title="t",
    ).axes
    assert ax.get_xscale() == "log"
    first = ax.containers[0]
    np.testing.assert_allclose(first.lines[0].get_ydata(), np.array(counts) / 10)
    np.testing.assert_allclose(first.lines[0].get_xdata(), RATIOS, rtol=0.01)
    aside = first.lines[0].get_xdata() / ax.containers[1].lines[0].get_xdata()
    np.testing.assert_allclose(aside, 1 / 1.015)
    (bars,) = first.lines[2]
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(ends[:, 0], [one.low for one in shares], atol=1e-12)
    np.testing.assert_allclose(ends[:, 1], [one.high for one in shares], atol=1e-12)
    dashed = [x for x in ax.lines if x.get_linestyle() == "--" and len(x.get_xdata())]
    assert len(dashed) == 1  # no curve where no run succeeded
    np.testing.assert_allclose(dashed[0].get_ydata(), curve(dashed[0].get_xdata()))
    (line,) = [x for x in ax.lines if x.get_linestyle() == ":"]
    assert set(line.get_xdata()) == {1}
    (bar,) = [x for x in ax.lines if x.get_linewidth() == 4]
    np.testing.assert_allclose(bar.get_xdata(), curve.interval)
    assert len(figures.png(ax.figure)) > 1000


def test_cells_and_the_line_between():
    values = np.array([[1.0, 0.2, np.nan], [1.0, 0.9, 0.1]])
    figure = figures.plot_success([10, 20, 40], [20, 40], values)
    ax = figure.axes[0]
    rows = [np.asarray(mesh.get_array()).ravel() for mesh in ax.collections]
    np.testing.assert_array_equal(rows[0], [1.0, 0.2])
    np.testing.assert_array_equal(rows[1], values[1])
    # halfway in logarithms between neighbours, whatever other rows hold
    borders = [mesh.get_coordinates()[0, :, 0] for mesh in ax.collections]
    root = 2**0.5
    np.testing.assert_allclose(borders[0], [10 / root, 10 * root, 20 * root])
    np.testing.assert_allclose(borders[1], [10 / root, 10 * root, 20 * root, 40 * root])
    for line in ax.lines:
        np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
    assert ax.get_xlim()[0] < 10
    assert ax.get_ylim()[1] > 40
    assert len(figures.png(figure)) > 1000
    one = figures.plot_success([10], [20], [[0.5]])
    assert one.axes[0].get_xlim() == (8, 12.5)
    sparse = figures.plot_success([10, 20, 40], [9], [[0.0, np.nan, 1.0]])
    (mesh,) = sparse.axes[0].collections
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [5, 20, 80])
    # labels do not run into each other
    many = figures.plot_success(range(1, 101), [5], np.zeros((1, 100)))
    ticks = many.axes[0].get_xticks()
    assert 5 < len(ticks) < 20
    assert set(ticks) <= set(range(1, 101))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected equal"):
        figures.plot_transition({"a": RATIOS}, {"b": [share(1, 2)]})
    with pytest.raises(ValueError, match="as many of each"):
        figures.plot_transition({"a": RATIOS}, {"a": [share(1, 2)]})
    with pytest.raises(ValueError, match="increasing"):
        figures.plot_success([2, 1], [1], [[0.1, 0.2]])
    with pytest.raises(ValueError, match="every fraction is NaN"):
        figures.plot_success([1, 2], [1], [[np.nan, np.nan]])
