"""Figures of realisations: what is drawn is what was given."""

import jax
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu import figures
from jaxrelu.realization import PATHOLOGIES, cells, seminorm


def network(inner, outer, biases=None):
    inner, outer = np.asarray(inner, np.float32), np.asarray(outer, np.float32)
    if biases is None:
        return jr.Shallow(jax.device_put(inner), jax.device_put(outer))
    return jr.DenseNetwork(
        (jax.device_put(inner), jax.device_put(outer)),
        (jax.device_put(np.asarray(biases, np.float32)), None),
    )


def quivers(ax):
    return [c for c in ax.collections if type(c).__name__ == "Quiver"]


def test_cells_have_their_gradients():
    net = network([[1, 0], [-1, 2], [-1, -2]], [1, 2, -1])
    figure = figures.plot_cells(net, half_width=2.0)
    ax = figure.axes[0]
    (arrows,) = quivers(ax)
    middle, slope = np.asarray(arrows.XY), np.stack([arrows.U, arrows.V], axis=-1)
    assert len(middle) == len(cells(net).patterns)
    # the gradient by differences of the network's values
    for at, got in zip(middle, slope, strict=True):
        f = lambda x: float(net(jax.device_put(x.astype(np.float32))))
        step = 2.0**-6
        wanted = [(f(at + step * e) - f(at - step * e)) / (2 * step) for e in np.eye(2)]
        np.testing.assert_allclose(got, wanted, atol=1e-3)
    image = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(image.max(), float(seminorm(net)), rtol=1e-6)
    assert set(np.unique(image)) <= {
        np.abs(s).max() for s in np.asarray(slope, np.float64)
    }
    assert ax.get_xlim() == (-2.0, 2.0)


def test_kinks_with_biases_lie_where_they_are():
    net = network([[1, 0], [0, 0], [1, 2]], [1, 5, -1], [-0.5, 1, 0.25])
    ax = figures.plot_cells(net).axes[0]
    kinks = [line for line in ax.lines if hasattr(line, "get_xy1")]
    assert len(kinks) == 2
    for line, (row, bias) in zip(kinks, (((1, 0), -0.5), ((1, 2), 0.25)), strict=True):
        for point in (line.get_xy1(), line.get_xy2()):
            assert abs(np.dot(row, point) + bias) < 1e-12
        assert np.any(line.get_xy1() != line.get_xy2())


def test_difference_of_equal_functions_is_flat():
    net = network([[1, 0]], [1])
    ax = figures.plot_cells((net, net)).axes[0]
    assert not quivers(ax)
    assert np.abs(np.asarray(ax.images[0].get_array())).max() == 0


def test_pathologies_against_k():
    families = {f.__name__: [f(k) for k in (1.0, 10.0)] for f in PATHOLOGIES}
    figure = figures.plot_pathologies(families, title="functions")
    left, right = figure.axes
    for ax, field in ((left, "seminorm"), (right, "distance_lower")):
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        drawn = [line for line in ax.lines if len(line.get_xdata())]
        for line, family in zip(drawn, families.values(), strict=True):
            assert list(line.get_xdata()) == [1.0, 10.0]
            assert list(line.get_ydata()) == [getattr(p, field) for p in family]
    assert left.get_legend()
    assert right.get_legend() is None
    for wrong in ({}, {"none": []}):
        with pytest.raises(ValueError, match="expected pathologies by name"):
            figures.plot_pathologies(wrong)


def test_inverse_stability_shows_pairs_below_bounds():
    pairs = {"random": ([0.01, 0.1, 1.0], [0.1, 0.3, 1.5]), "extremal": ([1.0], [2.8])}
    bounds = {"4": lambda r: 4 * np.sqrt(r), "beta": lambda r: 0.5}
    (ax,) = figures.plot_inverse_stability(pairs, bounds=bounds).axes
    lines = {line.get_label(): line for line in ax.lines}
    assert set(lines) == {"random", "extremal", "4", "beta"}
    np.testing.assert_array_equal(lines["random"].get_ydata(), [0.1, 0.3, 1.5])
    assert lines["extremal"].get_markersize() > lines["random"].get_markersize()
    r, y = lines["4"].get_data()
    np.testing.assert_allclose(y, 4 * np.sqrt(r))
    assert r.min() < 0.01
    assert r.max() > 1.0
    assert (lines["beta"].get_ydata() == 0.5).all()
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    for wrong in ({}, {"x": ([1.0], [1.0, 2.0])}, {"x": ([0.0], [1.0])}):
        with pytest.raises(ValueError, match="equally long and positive"):
            figures.plot_inverse_stability(wrong)


def test_refusals():
    flat = network([[1, 0, 0]], [1])
    with pytest.raises(ValueError, match="3 inputs"):
        figures.plot_cells(flat)
    plane = network([[1, 0]], [1])
    with pytest.raises(ValueError, match="output is 1"):
        figures.plot_cells(plane, output=1)
    with pytest.raises(ValueError, match="half_width"):
        figures.plot_cells(plane, half_width=0.0)
