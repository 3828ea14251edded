"""Figures show the numbers they are given, and touch nothing global."""

import sys

import equinox as eqx
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
import scipy.optimize

from jaxrelu import figures


class Measured(eqx.Module):
    values: object
    error: object


def lines(ax):
    """Label → (x, y) of the lines that have a label of their own."""
    return {
        line.get_label(): np.asarray(line.get_xydata())
        for line in ax.lines
        if not line.get_label().startswith("_")
    }


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_spectrum_is_sorted_and_has_its_error_band():
    values, error = np.array([1.0, 4.0, 2.0]), np.array([0.1, 0.3, 0.2])
    figure = figures.plot_spectrum(
        {"a": Measured(jnp.asarray(values), jnp.asarray(error))},
        predicted={"limit": [1.5, 3.0, 2.0]},
        guaranteed={"bound": 5.0},
        title="T",
    )
    ax = figure.axes[0]
    drawn = lines(ax)
    np.testing.assert_allclose(drawn["a"], [[1, 4], [2, 2], [3, 1]], rtol=1e-6)
    np.testing.assert_allclose(drawn["limit"], [[1, 3], [2, 2], [3, 1.5]])
    assert set(drawn["bound"][:, 1]) == {5.0}
    band = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(band[:, 1].max(), 4.3, rtol=1e-6)
    np.testing.assert_allclose(band[:, 1].min(), 0.9, rtol=1e-6)
    assert ax.get_yscale() == "log"
    assert ax.get_title(loc="left") == "T"
    assert legend(ax) == ["a", "limit", "bound"]


def test_values_below_their_error_become_crosses():
    spectrum = Measured(np.array([3.0, 1.0, 0.01]), np.array([0.1, 0.1, 0.1]))
    ax = figures.plot_spectrum({"a": spectrum}).axes[0]
    crosses = [line for line in ax.lines if line.get_marker() == "x"]
    np.testing.assert_allclose(crosses[0].get_xydata(), [[3, 0.01]])
    assert len(lines(ax)["a"]) == 2


@pytest.mark.parametrize("log", [True, False])
def test_density_areas_are_fractions_of_the_eigenvalues(log):
    rng = np.random.default_rng(0)
    sample = rng.uniform(1, 3, 1000)
    x = np.linspace(1, 3, 500)
    ax = figures.plot_density(
        {"uniform": sample}, laws={"law": (x, np.full(500, 0.5))}, log=log
    ).axes[0]
    stairs = ax.patches[0].get_data()
    edges = np.log10(stairs.edges) if log else stairs.edges
    np.testing.assert_allclose(np.sum(stairs.values * np.diff(edges)), 1.0)
    curve = lines(ax)["law"]
    position = np.log10(curve[:, 0]) if log else curve[:, 0]
    np.testing.assert_allclose(np.trapezoid(curve[:, 1], position), 1.0, rtol=1e-4)
    # and cell by cell the law is what the sample does, to 5 standard deviations
    middle = (edges[1:] + edges[:-1]) / 2
    there = np.interp(middle, position, curve[:, 1])
    spread = np.sqrt(there / (1000 * np.diff(edges)))
    assert np.all(np.abs(stairs.values - there) < 5 * spread + 0.05 * there)


def test_density_says_what_it_leaves_out():
    ax = figures.plot_density({"a": [1.0, 2.0, 0.0, -1.0]}).axes[0]
    assert legend(ax) == ["a (2 values ≤ 0 left out)"]
    stairs = ax.patches[0].get_data()
    area = np.sum(stairs.values * np.diff(np.log10(stairs.edges)))
    np.testing.assert_allclose(area, 0.5)
    with pytest.raises(ValueError, match="log=False"):
        figures.plot_density({"a": [0.0, -1.0]})


@pytest.mark.parametrize("xscale", ["linear", "log"])
def test_trajectory_steps_and_styles(xscale):
    ax = figures.plot_trajectory(
        {"run": [8.0, 4.0, 2.0]},
        predicted={"run": [8.0, 5.0, 3.0], "other": [8.0, 6.0, 4.0]},
        guaranteed={"bound": [8.0, 7.0, 6.0]},
        xscale=xscale,
    ).axes[0]
    first = int(xscale == "log")
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["run"][:, 0], np.arange(first, 3))
    np.testing.assert_array_equal(drawn["run"][:, 1], [8, 4, 2][first:])
    assert legend(ax) == ["run", "other", "predicted", "bound"]
    named = {line.get_label(): line for line in ax.lines}
    shared = next(line for line in ax.lines if line.get_ydata()[-1:] == [3.0])
    assert shared.get_color() == named["run"].get_color()
    assert named["run"].get_linestyle() == "-"
    assert shared.get_linestyle() == named["other"].get_linestyle() == "--"
    assert named["bound"].get_linestyle() == ":"


def test_comparison_has_error_bars():
    x = [1.0, 10.0]
    ax = figures.plot_comparison(
        x,
        {"a": ([2.0, 3.0], [0.5, 0.25])},
        predicted={"a": [2.1, 3.1]},
        levels={"one": 1.0},
        xlabel="x",
        ylabel="y",
    ).axes[0]
    container = ax.containers[0]
    segments = container.lines[2][0].get_segments()
    ends = [sorted(segment[:, 1]) for segment in segments]
    np.testing.assert_allclose(ends, [[1.5, 2.5], [2.75, 3.25]])
    assert sorted(legend(ax)) == ["a", "one", "predicted"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")


def test_power_law_is_recovered_exactly():
    x = np.array([1.0, 2.0, 5.0, 9.0])
    law = figures.fit_power_law(x, 3 * x**-1.5)
    np.testing.assert_allclose([law.exponent, law.factor], [-1.5, 3], rtol=1e-12)
    assert law.error < 1e-10
    np.testing.assert_allclose(law(x), 3 * x**-1.5)


@pytest.mark.parametrize("scatter", [0.02, 0.5])
@pytest.mark.parametrize("weighted", [True, False])
def test_power_law_agrees_with_scipy(weighted, scatter):
    rng = np.random.default_rng(1)
    x = np.logspace(0, 2, 8)
    y = 2 * x**0.7 * np.exp(scatter * rng.standard_normal(8))
    errors = 0.1 * y * rng.uniform(0.5, 2, 8) if weighted else None
    law = figures.fit_power_law(x, y, errors)
    best, covariance = scipy.optimize.curve_fit(
        lambda u, a, b: a * u + b,
        np.log(x),
        np.log(y),
        sigma=None if errors is None else errors / y,
        absolute_sigma=weighted and scatter < 0.1,  # then the errors explain it
    )
    np.testing.assert_allclose(law.exponent, best[0], rtol=1e-6)
    np.testing.assert_allclose(law.factor, np.exp(best[1]), rtol=1e-6)
    np.testing.assert_allclose(law.error, covariance[0, 0] ** 0.5, rtol=1e-6)


def test_two_points_have_no_scatter():
    law = figures.fit_power_law([1.0, 10.0], [1.0, 100.0])
    np.testing.assert_allclose(law.exponent, 2.0)
    assert np.isnan(law.error)
    assert figures.fit_power_law([1, 10], [1, 100], [0.1, 10]).error > 0


@pytest.mark.parametrize(
    ("x", "y"), [([1.0], [1.0]), ([2, 2], [1, 3]), ([1, 2], [1, -1]), ([1, 2], [1])]
)
def test_power_law_refuses(x, y):
    with pytest.raises(ValueError, match="expected as many positive"):
        figures.fit_power_law(x, y)


def test_scaling_states_the_exponent():
    x = np.array([1.0, 2.0, 4.0])
    errors = {"t": 0.1 * x**2}
    ax = figures.plot_scaling(
        x, {"t": x**2}, errors=errors, xlabel="n", ylabel="s"
    ).axes[0]
    assert legend(ax) == ["t: exponent $2.00$ ± 0.1"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


@pytest.mark.parametrize("bad", [[[1.0]], [], 3.0])
def test_wrong_shapes_are_refused(bad):
    with pytest.raises(ValueError, match=r"expected \(r,\)"):
        figures.plot_trajectory({"run": bad})
    with pytest.raises(ValueError, match=r"expected \(r,\)"):
        figures.plot_spectrum({"a": bad})


def test_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="xscale is 'sqrt'"):
        figures.plot_spectrum({"a": [1.0]}, xscale="sqrt")


def test_panels_share_a_figure():
    figure, axes = figures.panels(2, 3)
    assert len(axes) == 6
    assert figures.plot_trajectory({"a": [1.0, 0.5]}, ax=axes[3]) is figure


def test_colours_are_distinct():
    for count in (1, 4, 7):
        for ordered in (False, True):
            found = figures.colours(count, ordered=ordered)
            assert len({mpl.colors.to_hex(c) for c in found}) == count


def test_legend_covers_no_data():
    figure = figures.plot_trajectory({f"run {i}": [1.0, 0.5] for i in range(6)})
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())


def test_nothing_global_changes(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    names = mpl.rcParams.keys() - {"backend"}  # reading that one imports pyplot
    before = {name: mpl.rcParams[name] for name in names}
    drawn = [figures.png(figures.plot_trajectory({"a": [1.0, 0.5]})) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(b"\x89PNG\r\n")
    assert {name: mpl.rcParams[name] for name in names} == before


def test_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"jaxrelu\[plot\]"):
        figures.panels()
