"""Functions that are close, weights that are not: when is the gap bounded?"""

# %% [markdown]
# Two shallow ReLU networks can be nearly the same function while every network of the
# second function is far from the weights of the first. Measured in $W^{1,\infty}$ that
# happens in few ways, and not at all on the restricted set N* (balanced neurons, no
# direction twice, rows that end in two positive entries): there
# $\|\Phi - \Gamma\|_\infty \le 2\sqrt2\,r^{1/2}$ for some Φ with the given function.
# Every semi-norm here is exact, every distance the least over the fibre. Prints tables;
# writes figures and one self-contained page.
#
#     python examples/inverse_stability.py [--quick] [--out DIR] [--require gpu]

# %%
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import jaxrelu as jr
from jaxrelu import cli, figures
from jaxrelu.realization import (
    PATHOLOGIES,
    Pathology,
    dead_neuron_minimum,
    distance,
    extremal_pair,
    fibre_distance,
    inverse_stable,
    restricted_minimum,
    to_restricted,
    unbalanced_vector_pair,
)
from jaxrelu.report import Code, Heading, Picture, Table, Text, number


# Distances near 1e-8 of the weights are shown. (TPUs have no float64.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")

THREE_LINES = """\
from jaxrelu.realization import extremal_pair, inverse_stable

near, far = extremal_pair()
print(inverse_stable(near, far, within="N*"))  # Φ, its distance, r, bound, hypotheses
"""


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """How far apart weights must be when functions are close."""

    QUICK: ClassVar = {"indices": (1, 10, 1000), "pairs": 16}

    seed: int = 0
    """Of the random pairs."""
    indices: tuple[float, ...] = (1, 3, 10, 30, 100, 300, 1000)
    """The k of the pathologies; the table shows the last."""
    pairs: int = 300
    """Random pairs of each kind."""
    neurons: int = 3
    """Neurons of the random pairs, with three inputs."""
    beta: float = 0.5
    """β of the pairs for the theorem of one output."""


# %% [markdown]
# ## How it goes wrong
#
# Γ and functions $g_k$ with the exact semi-norm of $g_k - R(\Gamma)$, and the exact
# distance from Γ to the networks of $g_k$. Which hypothesis of the theorem is missing
# is found by `inverse_stable`.


# %%
def pathologies(config: Config) -> dict[str, list[Pathology]]:
    """All of them, for every index."""
    families = [[make(float(k)) for k in config.indices] for make in PATHOLOGIES]
    return {family[0].name: family for family in families}


def pathology_rows(
    families: Mapping[str, list[Pathology]],
) -> tuple[Table, list[dict[str, Any]]]:
    """At the largest index: what is stated beside what the library computes."""
    rows, found = [], []
    for name, family in families.items():
        p = family[-1]
        r = float(distance(p.gamma, p.target))
        search = fibre_distance(p.gamma, p.target)
        reached = min(search.value, p.distance_upper)
        answer = inverse_stable(p.gamma, p.target)
        missing = [h.name for h in answer.hypotheses if not h.met]
        found.append(
            {
                "name": name,
                "stated": p,
                "r": r,
                "search": search,
                "published bound": answer.published_bound,
                "missing": missing,
            }
        )
        rows.append(
            (
                name,
                number(r, digits=6),
                number(p.seminorm, digits=6),
                number(reached, digits=6),
                ("" if p.exact else "≥ ") + number(p.distance_lower, digits=6),
                number(answer.published_bound, digits=5),
                ", ".join(missing) or f"none, β = {number(answer.beta)}",
            )
        )
    k = next(iter(families.values()))[-1].k
    table = Table(
        columns=(
            "example",
            "semi-norm r, computed",
            "r, formula",
            "distance, computed",
            "distance, formula",
            "β + 2√r",
            "hypothesis that fails",
        ),
        rows=rows,
        caption=f"Functions close, weights far: k = {k:g}.",
    )
    return table, found


# %% [markdown]
# ## Random pairs
#
# In N* with unrelated neurons, with the same directions and other sizes, and the pair
# for which $2\sqrt2$ is attained. Beside it one output without balance, where the
# theorem asks only the small neurons of Γ to have factors of at most β.


# %%
def restricted_pairs(config: Config) -> dict[str, list[Any]]:
    """Results of `inverse_stable` within N*, by kind of pair."""
    rng = np.random.default_rng(config.seed)
    k, d = config.neurons, 3

    def member(inner: np.ndarray, outer: np.ndarray) -> jr.Shallow:
        return to_restricted(jr.Shallow(jnp.asarray(inner), jnp.asarray(outer)))

    kinds: dict[str, list[Any]] = {"unrelated": [], "same directions": []}
    for i in range(config.pairs):
        for kind, results in kinds.items():
            m = 1 + i % 2
            inner = rng.standard_normal((k, d))
            inner[:, -2:] = np.abs(inner[:, -2:]) + 1e-3
            outer = rng.standard_normal((m, k))
            size = 10 ** rng.uniform(-5, 0)
            if kind == "unrelated":
                other = rng.standard_normal((k, d))
                other[:, -2:] = np.abs(other[:, -2:]) + 1e-3
                outer, change = size * outer, size * rng.standard_normal((m, k))
            else:
                other, change = inner, outer + size * rng.standard_normal((m, k))
            pair = member(inner, outer), member(other, change)
            results.append(inverse_stable(*pair, within="N*"))
    kinds["extremal pair"] = [inverse_stable(*extremal_pair(), within="N*")]
    return kinds


def one_output_pairs(config: Config) -> list[Any]:
    """Unbalanced Γ whose only small neuron has factors of at most β."""
    rng = np.random.default_rng(config.seed + 1)
    k, d, beta, results = config.neurons, 3, config.beta, []
    for _ in range(config.pairs):
        gamma = rng.standard_normal((k, d))
        gamma[:, -1] = np.abs(gamma[:, -1]) + 0.1
        balance = 10 ** rng.uniform(-1, 1, k)
        products = rng.choice([-1.0, 1.0], k) * rng.uniform(2, 4, k)
        gamma /= np.abs(gamma).max(axis=1, keepdims=True)
        theta = gamma.copy()
        theta[-1, 0] += 1 + rng.uniform()
        size = 10 ** rng.uniform(-6, -1)
        other = products + size * rng.uniform(-1, 1, k)
        other[-1] = size * rng.uniform(-1, 1)
        weights = products / balance
        balance[-1], weights[-1] = beta, 0.0
        pair = (
            jr.Shallow(jnp.asarray(balance[:, None] * gamma), jnp.asarray(weights)),
            jr.Shallow(jnp.asarray(theta), jnp.asarray(other)),
        )
        results.append(inverse_stable(*pair, beta=beta))
    return results


def vector_rows() -> tuple[Table, list[dict[str, float]]]:
    """One neuron, two outputs, no balance: the theorem of one output fails."""
    rows, found = [], []
    for mu in (1.0, 0.1, 0.01, 0.001):
        pair = unbalanced_vector_pair(mu)
        r = float(distance(*pair))
        far = fibre_distance(*pair).value
        found.append({"mu": mu, "r": r, "distance": far, "bound": 2 * r**0.5})
        rows.append(
            (
                number(mu),
                number(r),
                number(far, digits=5),
                number(2 * r**0.5, digits=5),
                "no" if far > 2 * r**0.5 else "yes",
            )
        )
    return Table(
        columns=("μ", "r", "distance, exact", "β + 2√r, β = 0", "kept"),
        rows=rows,
        caption="Two outputs: Γ = (μ(1, ½, ½), (1/μ, 0)), Θ = ((1, ½, ½), (1, 0.1)).",
    ), found


# %% [markdown]
# ## Local minima
#
# A local minimum among weights is one among functions where weights are stable. Without
# a restriction it need not be.


# %%
def minima_rows() -> tuple[Table, list[Any]]:
    """The dead neuron, and the minimum in N*."""
    rows, found = [], [dead_neuron_minimum(), restricted_minimum(0.1)]
    for name, example in zip(("dead neuron", "in N*"), found, strict=True):
        rows.append(
            (
                name,
                number(example.loss),
                number(example.infimum),
                number(example.parameter_radius, digits=6),
                number(example.published_radius, digits=6),
                number(example.guaranteed_radius, digits=6),
                number(example.realization_radius, digits=6),
            )
        )
    return Table(
        columns=(
            "local minimum",
            "loss",
            "infimum",
            "ρ among weights",
            "ρ²/16",
            "ρ²/8",
            "radius among functions",
        ),
        rows=rows,
        caption="Within ρ no weights are better; ρ²/8 follows on N* for functions.",
    ), found


# %% [markdown]
# ## All of it


# %%
def series(results: list[Any]) -> tuple[list[float], list[float]]:
    """(r, distance) of results, without pairs of equal functions."""
    kept = [x for x in results if float(x.radius) > 0 and x.distance > 0]
    return [float(x.radius) for x in kept], [x.distance for x in kept]


def draw(
    config: Config,
    families: Mapping[str, list[Pathology]],
    inside: Mapping[str, list[Any]],
    single: list[Any],
) -> dict[str, Any]:
    """All figures by name."""
    scatter, (left, right) = figures.panels(2)
    figures.plot_inverse_stability(
        {name: series(results) for name, results in inside.items()},
        bounds={
            r"published, $4\,r^{1/2}$": lambda r: 4 * r**0.5,
            r"attained, $2\sqrt{2}\,r^{1/2}$": lambda r: (8 * r) ** 0.5,
        },
        title="Within N*",
        ax=left,
    )
    beta = config.beta
    figures.plot_inverse_stability(
        {"one output, unbalanced": series(single)},
        bounds={
            r"published, $\beta + 2\,r^{1/2}$": lambda r: beta + 2 * r**0.5,
            r"proved here, $\beta + (2r)^{1/2}$": lambda r: beta + (2 * r) ** 0.5,
        },
        title=f"One output, small neurons within β = {beta:g}",
        ax=right,
    )
    right.set_yscale("linear")
    return {
        "stability_pathologies": figures.plot_pathologies(
            families, title="Left the functions, right the weights"
        ),
        "stability_distance": scatter,
    }


def main(config: Config) -> dict[str, Any]:
    """Runs everything; returns the numbers behind the tables."""
    config = config.sized()
    say = cli.start(config.require)
    families = pathologies(config)
    bad, stated = pathology_rows(families)
    say(f"{len(families)} pathologies")
    inside, single = restricted_pairs(config), one_output_pairs(config)
    vectors, broken = vector_rows()
    say(f"{sum(map(len, inside.values())) + len(single)} pairs")
    minima, examples = minima_rows()
    pictures = cli.illustrate(config, draw(config, families, inside, single))
    tables = {"bad": bad, "vectors": vectors, "minima": minima}
    where = cli.publish(
        config,
        say,
        "inverse_stability",
        "Close functions, close weights?",
        story(config, tables, inside, pictures),
        lead="Shallow ReLU networks, exact distances of functions and of weights.",
    )
    return {
        "pathologies": stated,
        "inside": inside,
        "single": single,
        "vectors": broken,
        "minima": examples,
        "page": where,
    }


def story(
    config: Config,
    tables: Mapping[str, Table],
    inside: Mapping[str, list[Any]],
    pictures: Mapping[str, bytes],
) -> list[Any]:
    """The page's text, tables and figures."""
    extremal = inside["extremal pair"][0]
    worst = max(
        x.distance / float(x.radius) ** 0.5
        for name in ("unrelated", "same directions")
        for x in inside[name]
        if float(x.radius) > 0
    )
    return [
        Text(
            "Γ is a network, g a function of the same architecture, "
            "r = |g − R(Γ)|_{W^{1,∞}} the largest difference of partial derivatives. "
            "How near to Γ is there a network of g? Largest entry of the change of "
            "the weights, over the whole fibre of g."
        ),
        Heading("How it goes wrong"),
        tables["bad"],
        Picture(
            pictures["stability_pathologies"],
            "Four semi-norms fall while no distance does. The exploding gradient is "
            "close in the uniform norm only. Of the opposite networks the semi-norm "
            "stays at 3 and the distance grows.",
            "Semi-norms and distances against k.",
        ),
        Heading("Where it cannot"),
        Text(
            "In N* the distance is at most 2√2·√r, for any number of outputs. The "
            f"extremal pair reaches {number(extremal.distance, digits=10)} at "
            f"r = {number(float(extremal.radius), digits=10)}; the largest ratio "
            f"distance/√r among {2 * config.pairs} random pairs is {number(worst)}."
        ),
        Picture(
            pictures["stability_distance"],
            "Dotted: guaranteed. Left: pairs in N*, least distance over permutations. "
            "Right: one output, Γ unbalanced but for one idle neuron with factors β; "
            "distance of the network that the proof constructs.",
            "Distances of weights against distances of functions.",
        ),
        Text(
            "One output is essential where Γ is not balanced: with two the bound "
            "breaks, in N* it does not."
        ),
        tables["vectors"],
        Heading("Local minima"),
        Text(
            "The dead neuron: no weights within ρ are better, yet functions as close "
            "as one likes are. In N* a local minimum of the weights is one of the "
            "functions."
        ),
        tables["minima"],
        Heading("In three lines of Python"),
        Code(THREE_LINES),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
