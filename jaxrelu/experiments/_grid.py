r"""A grid of problems: cells, and the data and the start of every trial."""

import functools
import itertools
import json
import operator
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, SupportsIndex

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxrelu._checks import check_choice, check_positive, check_size, sized
from jaxrelu.activations import activation as activation_of
from jaxrelu.data import (
    Dataset,
    cluster_signs,
    clustered,
    gaussian,
    linear_teacher,
    random_signs,
    signs,
    sphere,
)
from jaxrelu.data._arguments import floating_dtype
from jaxrelu.experiments._fitting import Problem
from jaxrelu.experiments._identity import digest
from jaxrelu.networks._initializers import INNER, inner_weights, outer_weights


MODELS = ("sphere", "gaussian", "clustered")
LABELS = ("signs", "linear", "clusters", "given", "shuffled")
OUTER = ("balanced", "signs", "gaussian")


class Cell(NamedTuple):
    r"""One kind of problem: sizes, network, data.

    Attributes:
        n: samples.
        k: neurons.
        d: input dimension.
        activation: its name.
        data: ``"sphere"``; ``"gaussian"``, entries $N(0, 1/d)$; ``"clustered"`` (see
            `jaxrelu.data.clustered`); or the name of one of the grid's data sets, of
            which every trial takes n rows without replacement.
        labels: ``"signs"``, random ±1; ``"linear"``, the signs of a random linear
            function; ``"clusters"``, one sign per cluster; for data sets ``"given"``,
            or ``"shuffled"``, a random permutation of the given ones.
        init: scheme of W₀, see `jaxrelu.networks.inner_weights`.
        outer: ``"balanced"``, ``"signs"`` or ``"gaussian"``; see
            `jaxrelu.networks.outer_weights`. The norm is $\lVert y\rVert/\sqrt n$.
    """

    n: int
    k: int
    d: int
    activation: str = "softplus"
    data: str = "sphere"
    labels: str = "signs"
    init: str = "gaussian"
    outer: str = "balanced"

    @property
    def ratio(self) -> float:
        """$kd/n$, weights over samples."""
        return self.k * self.d / self.n

    @property
    def name(self) -> str:
        """A word for file names, different for different cells."""
        words = [self.activation, self.data, self.labels, self.init, self.outer]
        plain = "-".join("".join(c for c in w if c.isalnum()) for w in words)
        return f"{plain}-n{self.n}-k{self.k}-d{self.d}-{self.identity:08x}"

    @property
    def identity(self) -> int:
        """32 bits that depend on the cell alone: they seed its trials."""
        return zlib.crc32(json.dumps(tuple(self)).encode())


def _count(name: str, default: int) -> Any:
    return eqx.field(default=default, converter=sized(name))


def _plain(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Sizes as Python's integers, which JSON knows."""
    return tuple(
        cell._replace(
            n=check_size(cell.n, "n"),
            k=check_size(cell.k, "k"),
            d=check_size(cell.d, "d"),
        )
        for cell in cells
    )


def _number(default: float) -> Any:
    return eqx.field(default=default, converter=float)


class Grid(eqx.Module):
    r"""Cells, and how each of their trials is run.

    Attributes:
        cells: no two alike.
        trials: runs in a cell.
        seed: of every random number.
        tolerance: $\lVert r\rVert/\lVert y\rVert$ below which the data are fitted.
        gd_steps: budget of gradient descent.
        lm_steps: budget of Levenberg-Marquardt.
        step_scale: descent's step over $n/(\lVert y\rVert^2\lVert X\rVert^2)$.
        datasets: real data by name, targets (N,).
        num_clusters: of clustered data.
        radius: of their clusters.
        delta: least separation of their centres.
        dtype: floating; None takes JAX's default. float64 is advised.

    Raises:
        ValueError: no cells, or equal ones; unknown names; an odd k with balanced outer
            weights; a data set with another d, or fewer than n rows; labels that do not
            belong to the data; numbers that are not positive.
    """

    cells: tuple[Cell, ...] = eqx.field(converter=_plain)
    trials: int = _count("trials", 10)
    seed: int = eqx.field(default=0, converter=operator.index)
    tolerance: float = _number(1e-2)
    gd_steps: int = _count("gd_steps", 30_000)
    lm_steps: int = _count("lm_steps", 300)
    step_scale: float = _number(1.0)
    datasets: Mapping[str, Dataset] = eqx.field(default_factory=dict)
    num_clusters: int = _count("num_clusters", 4)
    radius: float = _number(0.1)
    delta: float = _number(0.5)
    dtype: Any = eqx.field(default=None, converter=floating_dtype)

    def __check_init__(self):
        for name in ("tolerance", "step_scale", "radius", "delta"):
            check_positive(getattr(self, name), name)
        if not self.cells or len(set(self.cells)) < len(self.cells):
            msg = (
                f"cells holds {len(self.cells)} cells, {len(set(self.cells))} of them "
                "different; expected at least one, and no two alike."
            )
            raise ValueError(msg)
        for cell in self.cells:
            _check_cell(cell, self.datasets)

    @classmethod
    def product(
        cls,
        *,
        k: Iterable[SupportsIndex] | SupportsIndex,
        d: Iterable[SupportsIndex] | SupportsIndex,
        n: Iterable[SupportsIndex] | SupportsIndex | None = None,
        ratio: Iterable[float] | float | None = None,
        activation: Iterable[str] | str = "softplus",
        data: Iterable[str] | str = "sphere",
        labels: Iterable[str] | str = "signs",
        init: Iterable[str] | str = "gaussian",
        outer: Iterable[str] | str = "balanced",
        **settings: Any,
    ) -> "Grid":
        """Every combination; the other settings are those of `Grid`.

        Args:
            k: neurons, one number or several, like everything below.
            d: input dimensions.
            n: samples; exactly one of ``n`` and ``ratio``.
            ratio: n/(kd), from which n is rounded; equal cells are merged.
            activation: names.
            data: names.
            labels: names.
            init: schemes.
            outer: schemes.
            **settings: ``trials``, ``seed``, and the other fields.

        Raises:
            ValueError: both or neither of ``n`` and ``ratio``, or what `Grid` refuses.
        """
        if (n is None) == (ratio is None):
            msg = "Both or neither of n and ratio are given; expected exactly one."
            raise ValueError(msg)
        words = [_several(w) for w in (activation, data, labels, init, outer)]
        widths, sizes = _sizes(k, "k"), _sizes(d, "d")
        ratios = None if ratio is None else tuple(map(float, _several(ratio)))
        for one in ratios or ():
            check_positive(one, "ratio")
        counts = _sizes(n, "n") if ratios is None else ()
        cells = {}
        for width, size in itertools.product(widths, sizes):
            several = counts if ratios is None else _counts(ratios, width * size)
            for rest in itertools.product(*words):
                cells |= {Cell(m, width, size, *rest): None for m in several}
        return cls(tuple(cells), **settings)

    @property
    def config(self) -> dict[str, Any]:
        """Everything the results depend on, as JSON holds it."""
        named = ("trials", "seed", "tolerance", "gd_steps", "lm_steps", "step_scale")
        named += ("num_clusters", "radius", "delta")
        return {
            **{name: getattr(self, name) for name in named},
            "dtype": np.dtype(self.dtype).name,
            "cells": [list(cell) for cell in self.cells],
            "datasets": {
                name: [digest(data.inputs), digest(data.targets)]
                for name, data in self.datasets.items()
            },
        }

    def trial_key(self, cell: Cell, trial: Any) -> PRNGKeyArray:
        """The key of one trial: from the seed, the cell itself, and the number.

        So it does not depend on what else is in the grid, nor on any order.
        """
        return _trial_key(jrandom.key(self.seed), cell.identity, trial)

    def problems(self, cell: Cell, trials: Any = None) -> Problem:
        """Data and start of the given trials of a cell (all of them by default).

        Returns:
            A batch, n rounded up to `padded`: the rows beyond n are masked.
        """
        trials = np.asarray(np.arange(self.trials) if trials is None else trials)
        keys = _keys(jrandom.key(self.seed), np.uint32(cell.identity), trials)
        given = None
        if cell.data in self.datasets:
            of = self.datasets[cell.data]
            given = (of.inputs.astype(self.dtype), of.targets.astype(self.dtype))
        clusters = (min(self.num_clusters, cell.n), self.radius, self.delta)
        rows, dtype = padded(cell.n), np.dtype(self.dtype)
        inputs = _inputs(keys[:, 0], given, (cell.data, rows, cell.d), clusters, dtype)
        kind = (cell.labels, clusters[0])
        targets = _labels(keys[:, 0], keys[:, 1], inputs, given, kind)
        inner = _inner(keys[:, 2], cell.k, cell.d, cell.init, dtype)
        outer = _outer(keys[:, 3], cell.k, cell.outer, dtype)
        mask = (np.arange(rows) < cell.n).astype(dtype)
        found = _masked(inputs, targets, inner, outer, jnp.asarray(mask))
        if not bool(jnp.isfinite(found.inputs).all()):
            msg = (
                f"The centres of {cell} were not found: delta = {self.delta} is too "
                "much for random placement. Lower delta or num_clusters."
            )
            raise ValueError(msg)
        if not bool(jnp.any(found.targets, axis=1).all()):
            msg = (
                f"A trial of {cell} has labels that are all 0, and misfits are "
                "relative to their norm. Use labels such as ±1."
            )
            raise ValueError(msg)
        return found


def padded(n: int) -> int:
    """The next multiple of 32, or of an eighth of the next power of two if larger.

    Cells whose n round to the same number share a compiled program; from 128 on that
    is at most a quarter more samples, and below a step costs its overhead anyway.
    """
    unit = max(32, 1 << max(n.bit_length() - 3, 0))
    return -(-n // unit) * unit


def _several(values: Any) -> tuple:
    one = isinstance(values, str) or not isinstance(values, Iterable)
    return (values,) if one else tuple(values)


def _sizes(values: Any, name: str) -> tuple[int, ...]:
    return tuple(check_size(value, name) for value in _several(values))


def _counts(ratios: Iterable[float], weights: int) -> list[int]:
    return [max(1, round(ratio * weights)) for ratio in ratios]


def _check_cell(cell: Cell, datasets: Mapping[str, Dataset]) -> None:
    activation_of(cell.activation)
    check_choice(cell.init, INNER, "init")
    check_choice(cell.outer, OUTER, "outer")
    check_choice(cell.labels, LABELS, "labels")
    check_choice(cell.data, (*MODELS, *datasets), "data")
    problem = None
    if cell.outer == "balanced" and cell.k % 2:
        problem = "an even k for balanced outer weights"
    elif cell.data == "clustered" and cell.d < 2:
        problem = "d at least 2 for clustered data"
    elif cell.labels == "clusters" and cell.data != "clustered":
        problem = "clustered data for labels='clusters'"
    elif cell.labels in ("given", "shuffled") and cell.data in MODELS:
        problem = f"a data set for labels={cell.labels!r}"
    elif cell.data in datasets:
        data = datasets[cell.data]
        if data.targets.ndim != 1:
            problem = f"targets (N,) in {cell.data}, not {data.targets.shape}"
        elif data.d != cell.d or data.n < cell.n:
            problem = f"d = {data.d} and n at most {data.n}, as {cell.data} has"
    if problem is not None:
        msg = f"{cell} is refused: expected {problem}."
        raise ValueError(msg)


def _trial_key(key, identity, trial):
    return jrandom.fold_in(jrandom.fold_in(key, identity), trial)


# Trials are drawn one after the other below (`jax.lax.map`): the bits are those of
# `jax.vmap`, whose programs take twice as long to compile.


@jax.jit
def _keys(key, identity, trials):
    """Four keys for each trial."""
    one = lambda trial: jrandom.split(_trial_key(key, identity, trial), 4)
    return jax.lax.map(one, trials)


@eqx.filter_jit
def _inputs(keys, given, kind, clusters, dtype):
    """Inputs of a model, or rows of a data set without replacement."""
    name, n, d = kind
    number, radius, delta = clusters

    def draw(key):
        if given is not None:
            return given[0][_chosen(key, given, n)]
        if name == "sphere":
            return sphere(key, n, d, dtype=dtype)
        if name == "gaussian":
            return gaussian(key, n, d, variance=1 / d, dtype=dtype)
        sizes = {"num_clusters": number, "radius": radius, "delta": delta}
        return clustered(key, n, d, **sizes, dtype=dtype)

    return jax.lax.map(draw, keys)


def _chosen(key, given, n):
    order = jrandom.permutation(key, given[0].shape[0])
    return jnp.resize(order, (n,))  # what lies beyond the set is masked


@eqx.filter_jit
def _labels(input_keys, keys, inputs, given, kind):
    """Labels; the given ones belong to the rows that the inputs' keys chose."""
    name, number = kind
    n, dtype = inputs.shape[1], inputs.dtype

    def draw(trial):
        input_key, key, x = trial
        if name == "signs":
            return random_signs(key, n, dtype=dtype)
        if name == "linear":
            return signs(linear_teacher(key, x))
        if name == "clusters":
            return cluster_signs(n, number, dtype=dtype)
        chosen = _chosen(input_key, given, n)
        if name == "shuffled":
            return jrandom.permutation(key, given[1])[chosen]
        return given[1][chosen]

    return jax.lax.map(draw, (input_keys, keys, inputs))


@eqx.filter_jit
def _inner(keys, k, d, scheme, dtype):
    return jax.lax.map(lambda key: inner_weights(key, k, d, scheme, dtype), keys)


@eqx.filter_jit
def _outer(keys, k, scheme, dtype):
    one = lambda key: outer_weights(key, k, None, scheme, 1.0, dtype)
    return jax.lax.map(one, keys)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, None))
def _masked(inputs, targets, inner, outer, mask):
    targets = mask * targets
    norm = jnp.linalg.norm(targets) / jnp.sqrt(jnp.sum(mask))
    return Problem(mask[:, None] * inputs, targets, mask, inner, norm * outer)
