"""Families of minima of the teacher-student loss, followed in k up to a million."""

# %% [markdown]
# A student $x \mapsto \sum_i \max(0, w_i \cdot x)$ with $k$ neurons learns the teacher
# $\sum_j \max(0, x_j)$ under Gaussian inputs. Besides the global minimum $W = I$ there
# are minima that are not global, and each belongs to a family: a matrix given by a
# handful of numbers, one curve in $k$. On such a curve loss, gradient, Hessian spectrum
# and the k at which a saddle becomes a minimum cost the same for $k = 6$ and
# $k = 10^6$. Prints tables; writes figures and one self-contained page.
#
#     python examples/symmetric_families.py [--quick] [--out DIR] [--require gpu]

# %%
import dataclasses
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import jaxrelu as jr
from jaxrelu import cli, figures
from jaxrelu.landscape import (
    critical_dimension,
    family_table,
    series,
    symmetric_minimum,
)
from jaxrelu.report import Code, Heading, Picture, Table, Text, estimate, number


# Differences near 1e-10 of the loss are shown. (TPUs have no float64.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")

THREE_LINES = """\
import jaxrelu as jr

point = jr.symmetric_minimum("II", k=1_000_000)
print(point.loss)
print(point.hessian_spectrum())
"""


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """Symmetric families of minima of the teacher-student loss."""

    QUICK: ClassVar = {
        "families": ("global", "II"),
        "small": (5, 7),
        "large": (100, 10**6),
        "shown": 8,
    }

    families: tuple[str, ...] = ("global", "A", "I", "II", "M_2", "M_3")
    """Families to follow."""
    small: tuple[int, int] = (4, 24)
    """First and last k of the figure of minima and saddles."""
    large: tuple[int, ...] = (30, 100, 300, 1000, 10**4, 10**5, 10**6)
    """The k at which limits are approached."""
    shown: int = 20
    """The k of heat-maps and spectra, checked against the full Hessian."""


# %% [markdown]
# ## One point, two ways
#
# The isotypic decomposition gives the spectrum from matrices of order at most five. At
# one k it is compared with all $k^2$ eigenvalues of the Hessian in closed form.


# %%
def against_full_hessian(point: Any) -> dict[str, float]:
    """Largest difference between the isotypic and the full spectrum, and ‖∇F‖."""
    k = int(point.k)
    F = jr.PopulationLoss(jr.Shallow.orthonormal(k, k))
    W = point.weights()
    full = np.sort(np.asarray(jr.spectrum(jr.hessian(F, W)).values))
    few = np.sort(np.asarray(point.hessian_spectrum().expand()))
    return {
        "spectrum": float(np.abs(full - few).max()),
        "gradient": float(jnp.linalg.norm(F.gradient(W))),
        "loss": abs(float(F(W)) - float(point.loss)),
    }


def family_rows(config: Config) -> Table:
    """Each family at one k: loss, smallest eigenvalue, and the check."""
    rows = []
    for name in config.families:
        point = symmetric_minimum(name, config.shown)
        check = against_full_hessian(point)
        turn = "–"
        if name != "global":
            turn = number(float(critical_dimension(name).k), digits=6)
        rows.append(
            (
                name,
                point.isotropy,
                estimate(point.loss),
                number(float(point.smallest_eigenvalue), digits=8),
                str(len(point.hessian_spectrum().multiplicities)),
                number(float(point.norm_sum), digits=6),
                turn,
                f"{check['spectrum']:.1e}",
                f"{check['gradient']:.1e}",
            )
        )
    return Table(
        columns=(
            "family",
            "isotropy",
            "F",
            "λ_min",
            "distinct eigenvalues",
            "Σ‖w_i‖",
            "minimum for k above",
            "full spectrum, difference",
            "‖∇F‖ in float64",
        ),
        rows=rows,
        caption=f"Families at k = {config.shown}.",
    )


# %% [markdown]
# ## A million neurons
#
# $F$ and the spectrum of type II as $k$ grows, beside its expansion in $k^{-1/2}$.


# %%
def growth_rows(config: Config) -> tuple[Table, list[dict[str, float]]]:
    """Type II at large k, timed, beside the series."""
    expansion, rows, found = series("II"), [], []
    symmetric_minimum("II", config.large[0]).hessian_spectrum()
    for k in config.large:
        start = time.perf_counter()
        point = symmetric_minimum("II", k)
        spectrum = point.hessian_spectrum()
        seconds = time.perf_counter() - start
        value, truncated = float(point.loss), expansion(float(k))
        found.append(
            {
                "k": k,
                "F": value,
                "series": float(truncated.value),
                "error": float(truncated.error),
                "seconds": seconds,
                "total": spectrum.total,
            }
        )
        rows.append(
            (
                f"{k}",
                estimate(point.loss),
                number(float(truncated.value), float(truncated.error)),
                number(float(jnp.min(spectrum.values)), digits=10),
                f"{spectrum.total}",
                str(len(spectrum.multiplicities)),
                f"{1000 * seconds:.0f} ms",
            )
        )
    table = Table(
        columns=(
            "k",
            "F",
            "series",
            "λ_min",
            "eigenvalues",
            "distinct",
            "time",
        ),
        rows=rows,
        caption="Type II from tens of neurons to a million.",
    )
    return table, found


# %% [markdown]
# ## Figures


# %%
def draw(config: Config) -> Mapping[str, Any]:
    """All figures by name."""
    points = {name: symmetric_minimum(name, config.shown) for name in config.families}
    sizes = range(config.small[0], config.small[1] + 1)
    near = family_table(config.families, tuple(sizes))
    far = family_table(config.families, config.large)
    pair, (left, right) = figures.panels(2)
    figures.plot_families(near, "loss", title="Loss of the families", ax=left)
    figures.plot_families(
        near, "smallest", title="Smallest Hessian eigenvalue", ax=right
    )
    limits, (left, right) = figures.panels(2)
    figures.plot_families(far, "loss", title="Loss, to a million neurons", ax=left)
    left.set_yscale("symlog", linthresh=1e-7)
    left.set_ylim(-1e-8, 1)
    figures.plot_families(far, "smallest", title="Its curvature", ax=right)
    spectra = {name: point.hessian_spectrum() for name, point in points.items()}
    million = symmetric_minimum("II", max(config.large)).hessian_spectrum()
    stems, (left, right) = figures.panels(2)
    figures.plot_multiplicities(
        spectra, title=f"Hessian spectra, k = {config.shown}", ax=left
    )
    figures.plot_multiplicities(
        {"II": million}, title=f"Type II, k = {max(config.large)}", ax=right
    )
    return {
        "families": pair,
        "families_large": limits,
        "families_spectra": stems,
        "families_weights": figures.plot_weights(
            {name: point.weights() for name, point in points.items()}
        ),
    }


# %% [markdown]
# ## All of it


# %%
def main(config: Config) -> dict[str, Any]:
    """Runs everything; returns the numbers behind the tables."""
    config = config.sized()
    say = cli.start(config.require)
    families = family_rows(config)
    say(f"{len(config.families)} families at k = {config.shown}")
    growth, found = growth_rows(config)
    say(f"type II at {len(config.large)} sizes up to {max(config.large)}")
    pictures = cli.illustrate(config, draw(config))
    say("figures")
    where = cli.publish(
        config,
        say,
        "symmetric_families",
        "Families of minima of the teacher-student loss",
        story(config, families, growth, pictures),
        lead="Sum of ReLU neurons against an orthonormal teacher, Gaussian inputs.",
    )
    return {"growth": found, "families": families, "page": where}


def story(
    config: Config, families: Table, growth: Table, pictures: Mapping[str, bytes]
) -> list[Any]:
    """The page's text, tables and figures."""
    return [
        Text(
            "F(W) = ½E(Σ_{i} max(0, w_{i}·x) − Σ_{j} max(0, x_{j}))^{2} with x "
            "standard normal. Every critical point shown is invariant under a group "
            "that permutes neurons and coordinates together; its weights are a few "
            "numbers, solved for in multiprecision arithmetic, and the Hessian "
            "splits into blocks of order at most six. The last two columns of the "
            "table compare that with the full Hessian and gradient in float64."
        ),
        families,
        Picture(
            pictures["families_weights"],
            f"Weights at k = {config.shown}, rows are neurons. A negates the "
            "identity and spreads the rest; type II turns one neuron round.",
            "Heat-maps of weight matrices.",
        ),
        Picture(
            pictures["families"],
            "Left: the loss of each family. Right: the smallest eigenvalue of its "
            "Hessian. Filled marks are minima, hollow ones saddles.",
            "Loss and smallest eigenvalue against k.",
        ),
        Heading("The Hessian, every eigenvalue with its multiplicity"),
        Picture(
            pictures["families_spectra"],
            "Stems are as high as the multiplicity. Right: all of the "
            f"{max(config.large) ** 2:.0e} eigenvalues of type II.",
            "Eigenvalues and multiplicities.",
        ),
        Heading("As k grows"),
        Text(
            "Type II loses its loss like (½ − 2/π^{2})/k: more neurons make this "
            "minimum better, though never global. A and I keep about ½ − 1/π. The "
            "error given for the series is its last term, an estimate and no bound."
        ),
        growth,
        Picture(
            pictures["families_large"],
            "The families up to a million neurons.",
            "Loss and smallest eigenvalue against k, logarithmic.",
        ),
        Heading("In three lines of Python"),
        Code(THREE_LINES),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
