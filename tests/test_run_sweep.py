"""Sweeps on disk: the same numbers as in memory, and nothing lost or run twice."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
import pytest

import jaxrelu as jr
from jaxrelu import dynamics
from jaxrelu.experiments import _sweeps as on_disk, load, run_sweep


pytest.importorskip("h5netcdf")

CELLS = {"k": (2, 4), "activation": ("relu", "softplus")}
ORDER = [(k, name) for k in CELLS["k"] for name in CELLS["activation"]]
RATES = {"learning_rate": (0.1, 0.2, 1e30)}


class Run(eqx.Module):
    """A few steps from a random start."""

    inputs: jax.Array

    def __call__(self, key, k, activation, learning_rate):
        targets = jnp.ones(len(self.inputs), self.inputs.dtype)
        network = jr.Shallow.init(
            key, d=3, k=k, activation=activation, dtype=self.inputs.dtype
        )
        return jr.gradient_descent(
            jr.SquaredLoss(jr.data.Dataset(self.inputs, targets)),
            network,
            learning_rate=learning_rate,
            num_steps=7,
            record_every=3,
            recorders={"residual": dynamics.ResidualNorm()},
        )


def arguments(dtype, seed=0, number=2, rates=RATES["learning_rate"]):
    inputs = jnp.asarray(np.random.default_rng(8).normal(size=(5, 3)), dtype)
    return Run(inputs), jrandom.key(seed), number, {"learning_rate": jnp.array(rates)}


class Counted:
    """Remembers which cells were computed; stops before one of them."""

    def __init__(self, monkeypatch, stop=None):
        self.cells, original = [], on_disk.sweep

        def counting(function, *rest, **more):
            cell = function.keywords["k"], function.keywords["activation"]
            if cell == stop:
                raise KeyboardInterrupt
            self.cells.append(cell)
            return original(function, *rest, **more)

        monkeypatch.setattr(on_disk, "sweep", counting)


@pytest.mark.parametrize(
    ("dtype", "names"),
    [("float32", ("softplus",)), ("float64", CELLS["activation"])],
    indirect=["dtype"],
)
def test_numbers_are_those_in_memory(tmp_path, dtype, names):
    run, key, number, grid = arguments(dtype)
    cells = {**CELLS, "activation": names}
    found = run_sweep(tmp_path, run, key, number, grid, cells=cells)
    assert dict(found.sizes) == {
        "k": 2,
        "activation": len(names),
        "seed": 2,
        "learning_rate": 3,
        "record": 4,
    }
    assert found.losses.dtype == dtype
    for k, name in itertools.product(CELLS["k"], names):
        alone = eqx.Partial(run, k=k, activation=name)  # the same program
        own = dynamics.sweep(alone, key, number, grid).values
        there = found.sel(k=k, activation=name)
        tolerance = 100 * float(jnp.finfo(dtype).eps)
        for one, two in (
            (there.losses, own.losses),
            (there.residual, own.records["residual"]),
            (there.diverged_at, own.diverged_at),
        ):
            np.testing.assert_allclose(one, two, rtol=tolerance)
    assert (found.result.sel(learning_rate=1e30) == "diverged").all()
    assert (found.result.isel(learning_rate=0) == "successful").all()


def test_goes_on_where_it_was(tmp_path, monkeypatch, float64):
    run, key, number, grid = arguments(float64)

    def again(**changes):
        given = {"folder": tmp_path / "a", "function": run, "key": key}
        given |= {"num_seeds": number, "grid": grid, "cells": CELLS}
        return run_sweep(**{**given, **changes})

    whole = again(folder=tmp_path / "whole")
    with monkeypatch.context() as patch:
        counted = Counted(patch, stop=ORDER[2])
        with pytest.raises(KeyboardInterrupt):
            again()
        assert counted.cells == ORDER[:2]
    counted = Counted(monkeypatch)
    assert again().identical(whole)
    assert counted.cells == ORDER[2:]
    assert again().identical(whole)
    assert counted.cells == ORDER[2:]
    # other settings are refused, whatever is different
    other, other_key, *_ = arguments(float64, seed=1)
    for changes, words in (
        ({"key": other_key}, "key differ"),
        ({"num_seeds": 3}, "num_seeds differ"),
        ({"grid": {"learning_rate": jnp.ones(3)}}, "grid differ"),
        ({"cells": {**CELLS, "k": (2, 6)}}, "cells differ"),
        ({"function": Run(other.inputs + 1)}, "function differ"),
    ):
        with pytest.raises(ValueError, match=words):
            again(**changes)
    # so are files that are damaged, or belong to another sweep
    path = sorted((tmp_path / "a").glob("*.nc"))[0]
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match="Delete it"):
        again()
    again(folder=tmp_path / "b", key=other_key)
    path.write_bytes((tmp_path / "b" / path.name).read_bytes())
    with pytest.raises(ValueError, match="another sweep"):
        again()
    path.unlink()
    assert again().identical(whole)
    assert load(path).attrs["dtype"] == "float64"


def test_bad_input(tmp_path, float64, monkeypatch):
    run, key, number, grid = arguments(float64)
    counted = Counted(monkeypatch)

    def call(cells, folder=tmp_path / "a", **more):
        return run_sweep(folder, run, key, number, grid, cells=cells, **more)

    with pytest.raises(ValueError, match="axes already"):
        call({"seed": (1, 2)})
    with pytest.raises(ValueError, match="no two alike"):
        call({"k": (2, 2)})
    with pytest.raises(ValueError, match="expected some"):
        call({"k": ()})
    with pytest.raises(TypeError, match="expected numbers or text"):
        call({"k": (jnp.ones(2),)})
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Nothing has been computed"):
        call(CELLS, folder=tmp_path / "file" / "b")
    assert counted.cells == []
    assert not (tmp_path / "a").exists()


def test_results_of_other_sizes_stay_in_their_files(tmp_path, float64):
    def draw(key, size):
        return jrandom.normal(key, (size,), float64)

    with pytest.raises(ValueError, match="read them one by one"):
        run_sweep(tmp_path, draw, jrandom.key(0), 2, cells={"size": (1, 2)})
    sizes = [load(path).value.shape for path in sorted(tmp_path.glob("*.nc"))]
    assert sizes == [(2, 1), (2, 2)]


def shifted(key, x, s):
    return {"v": x + s + jrandom.normal(key)}


def turned(key, x, s):
    return {"v": s - x + jrandom.normal(key)}


class Scaled(eqx.Module):
    """By a number and a word that are no arrays."""

    factor: int = eqx.field(static=True)
    kind: str

    def __call__(self, key, x):
        shift = 1 if self.kind == "up" else -1
        return {"v": self.factor * x + shift + jrandom.normal(key)}


def closed(s):
    return lambda key, x: {"v": x + s + jrandom.normal(key)}


ANOTHER = {
    "function": (functools.partial(shifted, s=1.0), functools.partial(turned, s=1.0)),
    "argument": (functools.partial(shifted, s=1.0), functools.partial(shifted, s=2.0)),
    "partial": (eqx.Partial(shifted, s=1.0), eqx.Partial(turned, s=1.0)),
    "static": (Scaled(1, "up"), Scaled(2, "up")),
    "word": (Scaled(1, "up"), Scaled(1, "down")),
    "closure": (closed(1.0), closed(2.0)),
}


@pytest.mark.parametrize("kind", ANOTHER)
def test_another_function_is_refused(kind, tmp_path, float64):
    one, other = ANOTHER[kind]
    arguments = (jrandom.key(0), 2)
    first = run_sweep(tmp_path, one, *arguments, cells={"x": (1.0,)})
    with pytest.raises(ValueError, match="function differ"):
        run_sweep(tmp_path, other, *arguments, cells={"x": (1.0,)})
    again = run_sweep(tmp_path, one, *arguments, cells={"x": (1.0,)})
    assert again.identical(first)


def test_another_structure_of_an_axis_is_refused(tmp_path, float64):
    def function(key, net, x):
        return {"v": net(jnp.ones(3)) + x + 0 * jrandom.normal(key)}

    inner, outer = jnp.ones((2, 4, 3)), jnp.ones((2, 4))

    def go(name):
        stacked = jax.vmap(lambda w, v: jr.Shallow(w, v, name))(inner, outer)
        grid = {"net": stacked}
        return run_sweep(tmp_path, function, jrandom.key(0), 1, grid, cells={"x": (1,)})

    go("relu")
    with pytest.raises(ValueError, match="grid differ"):
        go("tanh")


def test_cells_may_be_named_like_a_result(tmp_path, float64):
    """A run holds its step size, too; on half a square it shrinks by 1 - η a step."""

    def run(key, learning_rate):
        return jr.gradient_descent(
            lambda w: 0.5 * w**2,
            jrandom.normal(key),
            learning_rate=learning_rate,
            num_steps=2,
        )

    rates = np.array([0.1, 0.2])
    cells = {"learning_rate": rates}
    found = run_sweep(tmp_path, run, jrandom.key(0), 2, cells=cells)
    np.testing.assert_array_equal(found.learning_rate, rates)
    losses = found.losses.transpose("seed", "record", "learning_rate").values
    shrunk = (1 - rates) ** np.array([[0], [2], [4]])
    np.testing.assert_allclose(losses, losses[:, :1] * shrunk)


def test_a_refused_call_leaves_nothing(tmp_path, float64):
    function, key, number, grid = arguments(float64)
    ragged = {"learning_rate": {"a": jnp.ones(2), "b": jnp.ones(3)}}
    for wrong, error, words in (
        ({"num_seeds": 0}, ValueError, "num_seeds is 0"),
        ({"grid": ragged}, ValueError, "one length"),
        ({"grid": {"record": jnp.ones(2)}}, ValueError, "'record'"),
        ({"cells": {"k": "24"}}, TypeError, "expected several"),
    ):
        given = {"num_seeds": number, "grid": grid, "cells": CELLS, **wrong}
        with pytest.raises(error, match=words):
            run_sweep(tmp_path / "a", function, key, **given)
    assert not (tmp_path / "a").exists()


def test_of_two_claims_one_is_the_first(tmp_path, monkeypatch):
    """A claims the folder while B is about to write its own configuration."""
    from jaxrelu.experiments import _cells

    made = _cells.made_with
    monkeypatch.setattr(_cells, "made_with", lambda: (theirs(), made())[1])

    def theirs():
        monkeypatch.setattr(_cells, "made_with", made)
        _cells.claim(tmp_path, {"who": "A"}, "a sweep")

    with pytest.raises(ValueError, match="another configuration: who differ"):
        _cells.claim(tmp_path, {"who": "B"}, "a sweep")
    _cells.claim(tmp_path, {"who": "A"}, "a sweep")
    (tmp_path / "config.json").write_text('{"who":')
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        _cells.claim(tmp_path, {"who": "A"}, "a sweep")
