"""Figures of minima: what is drawn is what was given."""

from typing import NamedTuple

import numpy as np
import pytest

from jaxrelu import figures


class Spectrum(NamedTuple):
    values: np.ndarray
    multiplicities: tuple


class Table(NamedTuple):
    names: tuple
    k: np.ndarray
    loss: np.ndarray
    smallest: np.ndarray
    is_minimum: np.ndarray


def lines(ax):
    return [line for line in ax.lines if len(line.get_xdata())]


def test_multiplicities_are_heights():
    spectra = {
        "one": Spectrum(np.array([0.5, 0.1]), (1, 45)),
        "two": Spectrum(np.array([7.0, -0.2]), (10**12, 3.5)),
    }
    (ax,) = figures.plot_multiplicities(spectra).axes
    drawn = {
        (float(x), float(y))
        for line in lines(ax)
        if line.get_marker() not in ("None", None)
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    assert drawn == {(0.5, 1.0), (0.1, 45.0), (7.0, 1e12), (-0.2, 3.5)}
    assert ax.get_yscale() == "log"
    assert ax.get_xscale() == "symlog"
    assert ax.get_xlim()[0] < -0.2 < 7.0 < ax.get_xlim()[1]
    for values, scale in (((0.5, 0.1), "linear"), ((90.0, 0.1), "log")):
        one = Spectrum(np.array(values), (1, 45))
        assert figures.plot_multiplicities({"one": one}).axes[0].get_xscale() == scale


def test_families_are_hollow_where_they_are_no_minimum():
    table = Table(
        ("A", "II"),
        np.array([5.0, 6.0, 7.0]),
        np.array([[0.3, 0.2, 0.1], [np.nan, 0.05, 0.04]]),
        np.array([[-0.1, 0.01, 0.02], [np.nan, -0.1, 0.1]]),
        np.array([[False, True, True], [False, False, True]]),
    )
    (ax,) = figures.plot_families(table, "smallest").axes
    points = {
        (float(x), float(y)): line.get_markerfacecolor() == "white"
        for line in lines(ax)
        if line.get_linestyle() == "None"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    assert points == {
        (5.0, -0.1): True,
        (6.0, 0.01): False,
        (7.0, 0.02): False,
        (6.0, -0.1): True,
        (7.0, 0.1): False,
    }
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["A", "II", "not a minimum"]


def test_weights_share_a_scale():
    figure = figures.plot_weights(
        {"I": np.eye(3), "far": 4 * np.eye(2), "third": np.ones((2, 3))}, columns=2
    )
    images = [ax.images[0] for ax in figure.axes if ax.images]
    assert len(images) == 3
    assert {image.get_clim() for image in images} == {(-4.0, 4.0)}
    np.testing.assert_array_equal(images[0].get_array(), np.eye(3))
    for wrong in ({}, {"row": np.ones(3)}):
        with pytest.raises(ValueError, match=r"expected matrices \(n, d\)"):
            figures.plot_weights(wrong)


def test_slice_marks_its_points():
    x, y = np.linspace(-1, 1, 7), np.linspace(0, 2, 5)
    values = x[None] ** 2 + y[:, None]
    figure = figures.plot_slice(
        x, y, values, marks={"minimum": (0.0, 0.0)}, xlabel="s", ylabel="t"
    )
    ax = figure.axes[0]
    (mark,) = lines(ax)
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (0.0, 0.0)
    assert len(figure.axes) == 2  # the colour scale
    figures.plot_slice(x, y, np.zeros((5, 7)), xlabel="s", ylabel="t")
    for wrong in (values.T, np.full((5, 7), np.nan)):
        with pytest.raises(ValueError, match="expected finite numbers"):
            figures.plot_slice(x, y, wrong, xlabel="s", ylabel="t")
