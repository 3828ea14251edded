"""When can a network of kd weights fit n labels, and when does descent find the fit?"""

# %% [markdown]
# $f(x) = v^\top\varphi(Wx)$ with $k$ neurons in dimension $d$ is trained on $n$
# samples, $W$ only, from random weights. Two questions are asked of every run: does
# gradient descent fit the labels within its budget, and do weights that fit exist at
# all, as far as Levenberg-Marquardt can tell? Between the two lies the region where
# descent is slow. The protocol is stated on the page; it is ours, and no figure of a
# paper is reproduced. Prints tables; writes figures, the trials as netCDF, and one
# self-contained page.
#
#     python examples/phase_transition.py [--quick] [--out DIR] [--require gpu]
#
# A run that is killed goes on where it was: cells are files in DIR/cells.

# %%
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

import jaxrelu as jr
from jaxrelu import cli, figures
from jaxrelu.experiments import Grid, PhaseTransition, phase_transition, save
from jaxrelu.report import Code, Heading, Picture, Table, Text


# Near n = kd the Jacobian is nearly singular. (TPUs have no float64.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")

TESTS: Mapping[str, Any] = {"descent": "gd", "interpolation": "interpolation"}

THREE_LINES = """\
from jaxrelu.experiments import Grid, phase_transition

grid = Grid.product(k=(8, 16), d=10, ratio=(0.5, 0.75, 1.0, 1.25), trials=20)
print(phase_transition(grid, "cells", progress=True).transition("gd", k=8))
"""


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """Success of training against kd/n, on random and real data."""

    QUICK: ClassVar = {
        "k": (4,),
        "d": 6,
        "ratio": (0.3, 0.6, 0.9, 1.3),
        "real": (0.3, 0.5),
        "trials": 5,
        "gd_steps": 1000,
        "lm_steps": 60,
        "batch_size": 40,
    }

    seed: int = 0
    """Seed of every random number."""
    activations: tuple[str, ...] = ("softplus", "relu")
    """Activations on random data."""
    k: tuple[int, ...] = (4, 8, 16)
    """Neurons on random data."""
    d: int = 10
    """Input dimension of random data."""
    ratio: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25)
    """n/(kd)."""
    real: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9, 1.0, 1.15)
    """n/(kd) on real data."""
    trials: int = 20
    """Runs in a cell."""
    gd_steps: int = 30_000
    """Budget of gradient descent."""
    lm_steps: int = 300
    """Budget of Levenberg-Marquardt."""
    batch_size: int = 20
    """Runs computed at once; more on an accelerator."""


# %% [markdown]
# ## Two grids
#
# Random points of the sphere with random signs, and real data with their own labels and
# with the same labels in random order.


# %%
def random_grid(config: Config) -> Grid:
    """Sphere data, random signs."""
    return Grid.product(
        k=config.k,
        d=config.d,
        ratio=config.ratio,
        activation=config.activations,
        trials=config.trials,
        seed=config.seed,
        gd_steps=config.gd_steps,
        lm_steps=config.lm_steps,
    )


def real_grid(config: Config) -> Grid:
    """Digits and breast cancer, given and shuffled labels; 2 d and 4 d weights."""
    data = {"digits": jr.data.digits(), "breast cancer": jr.data.breast_cancer()}
    settings = {
        "ratio": config.real,
        "labels": ("given", "shuffled"),
        "trials": config.trials,
        "seed": config.seed,
        "gd_steps": config.gd_steps,
        "lm_steps": config.lm_steps,
        "datasets": data,
    }
    parts = [
        Grid.product(k=k, d=data[name].d, data=name, **settings)
        for name, k in (("digits", 2), ("breast cancer", 4))
    ]
    return dataclasses.replace(parts[0], cells=parts[0].cells + parts[1].cells)


# %% [markdown]
# ## Thresholds
#
# A logistic curve in $\log(kd/n)$ is fitted to each series; its threshold is where half
# of the runs succeed.


# %%
def series(result: PhaseTransition) -> dict[str, dict[str, Any]]:
    """The result's series by name: the entries that cells of one series share."""
    found: dict[str, dict[str, Any]] = {}
    for cell in result.grid.cells:
        entries = cell._asdict()
        del entries["n"]
        if cell.data in result.grid.datasets:
            name = f"{cell.data}, {cell.labels} labels"
        else:
            name = f"{cell.activation}, k = {cell.k}"
        found.setdefault(name, entries)
    return found


def not_reached(
    result: PhaseTransition, test: Any, entries: dict[str, Any]
) -> float | None:
    """The largest kd/n of a series if fewer than half of its runs succeeded there."""
    chosen = np.array(result.select(**entries))
    ratios = np.array([result.grid.cells[i].ratio for i in chosen])
    last = chosen[ratios == ratios.max()]
    half = result.successes(test)[last].mean() >= 0.5
    return None if half else float(ratios.max())


def threshold_table(result: PhaseTransition, caption: str) -> Table:
    """Each series: thresholds of both tests with 95 % intervals, and widths."""
    rows = []
    for name, entries in series(result).items():
        row = [name]
        for test in TESTS.values():
            fit = result.transition(test, **entries)
            low, high = (f"{end:.3g}" for end in fit.interval)
            value = f"{fit.threshold:.3g}" if np.isfinite(fit.threshold) else "–"
            most = not_reached(result, test, entries)
            if most is not None and fit.threshold > 0.999 * most:
                value = f"> {most:.3g}"  # the curve says more, the data do not
            width = f"{fit.width:.2g}" if np.isfinite(fit.width) else "–"
            row += [value, f"[{low}, {high}]", width]
            row.append(f"{fit.deviance:.1f} / {fit.freedom}")
        rows.append(tuple(row))
    columns = ["series"]
    for test in TESTS:
        columns += [f"{test}: kd/n", "95 %", "width", "deviance"]
    return Table(columns=tuple(columns), rows=rows, caption=caption)


# %% [markdown]
# ## Figures


# %%
def curves(result: PhaseTransition, which: list[str], test: str, ax: Any, title: str):
    """One panel: shares with error bars and fitted curves."""
    chosen = {name: series(result)[name] for name in which}
    cells = {name: result.select(**entries) for name, entries in chosen.items()}
    shares = result.shares(TESTS[test])
    figures.plot_transition(
        {n: [result.grid.cells[i].ratio for i in ids] for n, ids in cells.items()},
        {n: [shares[i] for i in ids] for n, ids in cells.items()},
        {n: result.transition(TESTS[test], **e) for n, e in chosen.items()},
        title=title,
        ax=ax,
    )


def draw(random: PhaseTransition, real: PhaseTransition) -> dict[str, Any]:
    """All figures by name."""
    activations = sorted({cell.activation for cell in random.grid.cells})
    found = {}
    for name in activations:
        which = [s for s in series(random) if s.startswith(name)]
        found[f"transition_{name}"], panels = figures.panels(2)
        for ax, test in zip(panels, TESTS, strict=True):
            curves(random, which, test, ax, f"{name}: {test}")
    found["transition_real"], panels = figures.panels(2)
    for ax, test in zip(panels, TESTS, strict=True):
        curves(real, list(series(real)), test, ax, f"Real data: {test}")
    found["transition_map"], panels = figures.panels(2)
    for ax, test in zip(panels, TESTS, strict=True):
        heat_map(random, activations[-1], test, ax)
    return found


def heat_map(result: PhaseTransition, name: str, test: str, ax: Any) -> None:
    """Share over n and kd, in each row over the n that were run."""
    ids = result.select(activation=name)
    cells, shares = result.grid.cells, result.shares(TESTS[test])
    n = sorted({cells[i].n for i in ids})
    kd = sorted({cells[i].k * cells[i].d for i in ids})
    values = np.full((len(kd), len(n)), np.nan)
    for i in ids:
        at = kd.index(cells[i].k * cells[i].d), n.index(cells[i].n)
        values[at] = shares[i].fraction
    figures.plot_success(n, kd, values, title=f"{name}: {test}", ax=ax)


# %% [markdown]
# ## All of it


# %%
def main(config: Config) -> dict[str, Any]:
    """Runs everything; returns the results behind the tables."""
    config = config.sized()
    say = cli.start(config.require)
    results = {}
    for name, grid in (("random", random_grid(config)), ("real", real_grid(config))):
        results[name] = phase_transition(
            grid,
            config.out / "cells" / name,
            batch_size=config.batch_size,
            progress=not config.quick,
        )
        save(results[name].to_xarray(), config.out / f"{name}.nc", overwrite=True)
        say(f"{name} data: {len(grid.cells)} cells of {grid.trials} runs")
    tables = {
        "random": threshold_table(results["random"], "Random signs on the sphere."),
        "real": threshold_table(results["real"], "Real data, softplus."),
    }
    drawn = draw(results["random"], results["real"])
    pictures = cli.illustrate(config, drawn)
    where = cli.publish(
        config,
        say,
        "phase_transition",
        "Phase transitions near n = kd",
        story(config, tables, pictures),
        lead="Which shares of runs fit n labels with kd weights, and how.",
    )
    return {**results, "tables": tables, "page": where}


def story(
    config: Config, tables: Mapping[str, Table], pictures: Mapping[str, bytes]
) -> list[Any]:
    """The page's text, tables and figures."""
    bars = "Bars: Wilson's 95 % intervals. Dashed: logistic fits. Dotted: kd = n."
    return [
        Text(
            "Protocol: unit inputs, f(x) = v·φ(Wx), v half plus and half minus with "
            "‖v‖ = ‖y‖/√n, W_{0} standard normal, W alone trained on ½‖f(X) − y‖^{2}. "
            "Gradient descent takes steps η = n/(‖y‖^{2}‖X‖^{2}), at most "
            f"{config.gd_steps}; Levenberg-Marquardt at most {config.lm_steps}. A run "
            "succeeds when ‖r‖/‖y‖ < 0.01. Interpolation counts the runs that either "
            "method fitted: what is above descent there is slowness, what fails "
            "there was fitted by neither, which is no proof that it cannot be. The "
            "rank of the Jacobian is at most min(n, kd). This protocol is our own; "
            "no figure of a paper is reproduced."
        ),
        tables["random"],
        *[
            Picture(png, f"{name.split('_')[1]}. {bars}", "Success against kd/n.")
            for name, png in pictures.items()
            if name not in ("transition_real", "transition_map")
        ],
        Picture(
            pictures["transition_map"],
            "The same over n and kd. Left descent, right interpolation.",
            "Heat-map of success.",
        ),
        Heading("Real data"),
        Text(
            "Handwritten digits (parity, d = 64, k = 2) and breast cancer (d = 30, "
            "k = 4), n rows without replacement, with their own labels and with the "
            "same labels in random order."
        ),
        tables["real"],
        Picture(pictures["transition_real"], bars, "Success on real data."),
        Text(
            "Thresholds: kd/n at which half of the runs succeed, with profile "
            "likelihood intervals; the width is the distance in log(kd/n) from 10 % "
            "to 90 %, and 0 where the data are separated. A dash: all runs or none "
            "succeeded, or success does not grow with kd/n. >: beyond the "
            "largest kd/n that was run. Deviance is beside its "
            "degrees of freedom: where it is far larger, as for ReLU, whose shares "
            "stay below one, the curve is not logistic and intervals are too narrow."
        ),
        Heading("In three lines of Python"),
        Code(THREE_LINES),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
