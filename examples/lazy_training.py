"""How far training moves a wide network, its Jacobian and its activation pattern."""

# %% [markdown]
# Wide networks train lazily: weights travel a distance that does not depend on the
# width, the distance to the closest weights that fit to first order, and the Jacobian
# changes less and less. How much less is an exponent, and it is not the same for smooth
# activations and for ReLU. Prints a table; writes a figure and one self-contained page.
#
#     python examples/lazy_training.py [--quick] [--out DIR] [--require gpu]

# %%
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.random as jrandom
import numpy as np

from jaxrelu import cli, figures
from jaxrelu.experiments import LazyScaling, lazy_scaling
from jaxrelu.report import Code, Picture, Table, Text, number


# The smallest singular value goes through a Gram matrix. (TPUs have no float64.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")

EXPECTED = {"softplus": -0.5, "relu": -0.25}

THREE_LINES = """\
import jax
from jaxrelu.experiments import lazy_scaling

print(lazy_scaling(jax.random.key(0), [100, 400, 1600], activation="relu").exponent())
"""


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """What training changes, over widths."""

    QUICK: ClassVar = {"widths": (64, 2048), "n": 10, "d": 10, "seeds": 2}

    seed: int = 0
    """Seed of every random number."""
    widths: tuple[int, ...] = (100, 200, 400, 800, 1600, 3200, 6400, 12800)
    """Neurons."""
    n: int = 20
    """Samples."""
    d: int = 20
    """Input dimension."""
    seeds: int = 5
    """Runs at each width."""
    tolerance: float = 1e-3
    """Descent stops at this relative residual."""


# %%
def measured(config: Config) -> dict[str, LazyScaling]:
    """One scaling for each activation."""
    return {
        name: lazy_scaling(
            jrandom.key(config.seed),
            config.widths,
            n=config.n,
            d=config.d,
            seeds=config.seeds,
            activation=name,
            tolerance=config.tolerance,
        )
        for name in EXPECTED
    }


def width_table(found: Mapping[str, LazyScaling]) -> Table:
    """Means over seeds, width by width."""
    rows = []
    for name, scaling in found.items():
        ratio = scaling.distance / scaling.linearised_distance
        for i, k in enumerate(scaling.widths):
            rows.append(
                (
                    name,
                    str(k),
                    number(scaling.deviation[i].mean()),
                    number(scaling.flip_fraction[i].mean()),
                    number(scaling.distance[i].mean()),
                    number(ratio[i].mean(), digits=5),
                    number(scaling.path_ratio[i].mean()),
                    str(int(scaling.steps[i].max())),
                )
            )
    columns = ("φ", "k", "deviation", "flips", "distance", "over linearised")
    return Table(
        columns=(*columns, "path/distance", "steps"),
        rows=rows,
        caption="Means over seeds; the largest number of steps.",
    )


def exponent_table(found: Mapping[str, LazyScaling]) -> Table:
    """Fitted exponents beside the expected ones."""
    rows = []
    for name, scaling in found.items():
        wanted = {"deviation": EXPECTED[name], "flip_fraction": -0.5, "distance": 0.0}
        for quantity, value in wanted.items():
            law = scaling.exponent(quantity)
            fitted = number(law.exponent, law.error)
            rows.append((name, quantity.replace("_", " "), fitted, number(value)))
    return Table(
        columns=("φ", "quantity", "fitted exponent", "expected"),
        rows=rows,
        caption="Exponents of k, with the standard error of the fit.",
    )


def draw(found: Mapping[str, LazyScaling]) -> Any:
    """Deviation and flips, and the distance over the linearised one, against k."""
    figure, (left, right) = figures.panels(2)
    widths = np.asarray(next(iter(found.values())).widths, dtype=np.float64)
    means, errors = {}, {}
    for name, scaling in found.items():
        for word, values in (
            ("deviation", scaling.deviation),
            ("flips", scaling.flip_fraction),
        ):
            means[f"{word}, {name}"] = values.mean(axis=1)
            errors[f"{word}, {name}"] = standard_errors(values)
    figures.plot_scaling(
        widths,
        means,
        errors=errors,
        title="What training changes",
        xlabel=r"$k$",
        ylabel="",
        ax=left,
    )
    ratios = {}
    for name, scaling in found.items():
        ratio = scaling.distance / scaling.linearised_distance
        ratios[name] = (ratio.mean(axis=1), standard_errors(ratio))
    figures.plot_comparison(
        widths,
        ratios,
        levels={"linearised network": 1.0},
        title="Distance travelled over the linearised optimum",
        xlabel=r"$k$",
        ylabel="",
        ax=right,
    )
    return figure


def standard_errors(values: Any) -> Any:
    """Of the means over seeds."""
    return values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])


# %%
def main(config: Config) -> dict[str, Any]:
    """Runs everything; returns the numbers behind the tables."""
    config = config.sized()
    say = cli.start(config.require)
    found = measured(config)
    say(f"{len(config.widths)} widths up to {max(config.widths)}")
    tables = width_table(found), exponent_table(found)
    picture = cli.illustrate(config, {"lazy_training": draw(found)})["lazy_training"]
    where = cli.publish(
        config,
        say,
        "lazy_training",
        "Lazy training",
        story(config, tables, picture),
        lead="What training a wide network changes, and how it scales.",
    )
    return {"found": found, "page": where}


def story(config: Config, tables: tuple[Table, Table], picture: bytes) -> list[Any]:
    """The page's text, tables and figure."""
    return [
        Text(
            f"n = {config.n} points of the sphere in dimension {config.d} with random "
            "signs; f(x) = v·φ(Wx), v half plus and half minus, ‖v‖ = 1, W_{0} "
            "standard normal; descent on W to ‖r‖/‖y‖ below "
            f"{config.tolerance:g}. Deviation: ‖J(W_{{T}}) − J(W_{{0}})‖ over the "
            "smallest singular value of J(W_{0}). Flips: share of pre-activations that "
            "changed sign. Linearised distance: √(r_{0}·(J_{0}J_{0}^{⊤})^{−1}r_{0}), "
            "how far the closest weights are at which the linearised network fits."
        ),
        tables[1],
        Picture(
            picture,
            "Left: deviation and flips, means over seeds with standard errors and "
            "fitted power laws. Right: distance over the linearised distance.",
            "Scaling with the width.",
        ),
        tables[0],
        Text(
            "Seeds share their data over widths, so the errors of an exponent are "
            "those of scatter about the line, not of new data."
        ),
        Code(THREE_LINES),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
