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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrelu as jr
from jaxrelu import cli, figures
from jaxrelu.realization import (
    PATHOLOGIES,
    Pathology,
    RestrictedCoordinates,
    dead_neuron_minimum,
    distance,
    extend_inputs,
    extremal_pair,
    fibre_distance,
    inverse_stable,
    is_restricted,
    keep_restricted,
    restricted_minimum,
    seminorm,
    supnorm,
    to_restricted,
    unbalanced_vector_pair,
)
from jaxrelu.report import (
    Code,
    Heading,
    Picture,
    Table,
    Text,
    number,
    page,
    provenance,
    write,
)


# Distances near 1e-8 of the weights are shown. (TPUs have no float64.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")

THREE_LINES = """\
from jaxrelu.realization import extremal_pair, inverse_stable

near, far = extremal_pair()
print(inverse_stable(near, far, within="N*"))  # Φ, its distance, r, bound, hypotheses
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """How far apart weights must be when functions are close."""

    quick: bool = False
    """Few pairs and steps: seconds instead of minutes."""
    out: Path = Path("out")
    """Folder for the figures and the page."""
    require: Literal["cpu", "gpu", "tpu"] | None = None
    """Stop unless JAX runs on this platform."""
    seed: int = 0
    """Of random pairs and starts."""
    indices: tuple[float, ...] = (1, 3, 10, 30, 100, 300, 1000)
    """The k of the pathologies; the table shows the last."""
    pairs: int = 300
    """Random pairs of each kind."""
    neurons: int = 3
    """Neurons of the random pairs, with three inputs."""
    beta: float = 0.5
    """β of the pairs for the theorem of one output."""
    runs: int = 24
    """Runs of the authors' notebook."""
    starts: int = 24
    """Trainings, each in three ways."""
    steps: int = 4000
    """Steps of a training."""
    width: int = 8
    """Neurons of the trained networks."""

    def sized(self) -> "Config":
        """The configuration with ``quick`` carried out."""
        few = {"indices": (1, 10, 1000), "pairs": 16}
        few |= {"runs": 8, "starts": 4, "steps": 400, "width": 4}
        return dataclasses.replace(self, **few) if self.quick else self


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
# ## The authors' notebook
#
# A step of height 1, $\rho(x) - \rho(x - 1)$, is fitted to the zero function:
# mean squared error of batches of 10 points in $(-10, 10)$, momentum 0.9, learning rate
# 0.001. The values they printed are of one run (juliusberner/nn_inverse_stability). The
# function goes to 0, its slope does not: the kinks move together.

# %%
NOTEBOOK = {30: (0.078, 0.746), 180: (0.019, 0.343), 480: (0.003, 0.132)}
"""Step → loss and largest error, as the notebook printed them."""


def notebook_rows(config: Config) -> tuple[Table, dict[str, Any]]:
    """Losses, exact sup norms and semi-norms of several runs beside the printed one."""
    grid = jnp.linspace(-10, 10, 2001)[:, None]
    steps = (0, *NOTEBOOK)
    start = jr.DenseNetwork(
        (jnp.ones((2, 1)), jnp.array([1.0, -1.0])),
        (jnp.array([0.0, -1.0]), jnp.array(0.0)),
    )
    optimiser = optax.sgd(1e-3, momentum=0.9)

    def loss(net: jr.DenseNetwork, x: Any) -> Any:
        return jnp.mean(net(x) ** 2)

    def step(carry: Any, key: Any) -> tuple[Any, Any]:
        net, state = carry
        x = jax.random.uniform(key, (10, 1), minval=-10, maxval=10)
        change, state = optimiser.update(eqx.filter_grad(loss)(net, x), state)
        return (eqx.apply_updates(net, change), state), net

    @jax.jit
    @jax.vmap
    def run(key: Any) -> Any:
        state = optimiser.init(eqx.filter(start, eqx.is_inexact_array))
        keys = jax.random.split(key, steps[-1] + 1)
        path = jax.lax.scan(step, (start, state), keys)[1]
        return jax.tree.map(lambda leaf: leaf[jnp.array(steps)], path)

    paths = run(jax.random.split(jax.random.key(config.seed), config.runs))
    found = {"loss": [], "sup": [], "semi": []}
    rows = []
    for j, at in enumerate(steps):
        nets = [
            jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], paths)
            for i in range(config.runs)
        ]
        found["loss"].append([float(loss(net, grid)) for net in nets])
        found["sup"].append([float(supnorm(net, 10.0)) for net in nets])
        found["semi"].append([float(seminorm(net, domain=10.0)) for net in nets])
        printed = NOTEBOOK.get(at)
        rows.append(
            (
                f"{at}",
                *(
                    f"{number(np.min(values[-1]))} … {number(np.max(values[-1]))}"
                    for values in found.values()
                ),
                "" if printed is None else f"{printed[0]:.3f}, {printed[1]:.3f}",
            )
        )
    return Table(
        columns=("step", "loss", "sup norm", "semi-norm", "printed: loss, error"),
        rows=rows,
        caption=f"A step of height 1 fitted to 0: {config.runs} runs, least … largest; "
        "norms on (−10, 10) exact, the loss on a grid.",
    ), {name: np.array(values) for name, values in found.items()}


# %% [markdown]
# ## Training inside N*
#
# A network with biases goes to N* without changing the function. Then it is trained
# from there: freely, inside N* by a projection after each step, and inside N* by free
# coordinates. The same data, optimiser and number of steps.


# %%
def start_networks(config: Config) -> tuple[jr.DenseNetwork, jr.Shallow]:
    """Networks with biases, and the same functions in N*, with a leading axis."""
    d, k = 2, config.width

    rng = np.random.default_rng(config.seed + 2)

    def one() -> jr.DenseNetwork:
        inner, outer = rng.standard_normal((k, d)), rng.standard_normal(k)
        biases = jnp.asarray(rng.standard_normal(k) / 2), jnp.asarray(0.1)
        weights = jnp.asarray(inner / d**0.5), jnp.asarray(outer / k**0.5)
        return jr.DenseNetwork(weights, biases)

    free = [one() for _ in range(config.starts)]
    inside = [to_restricted(network) for network in free]
    stack = lambda nets: jax.tree.map(lambda *x: jnp.stack(x), *nets)
    return stack(free), stack(inside)


def trained(
    starts: Any, predict: Callable[..., Any], x: Any, y: Any, steps: int, last: Any
) -> tuple[Any, Any]:
    """All starts at once by descent with momentum: parameters, losses by step."""
    optimiser = optax.chain(optax.sgd(0.03, momentum=0.9), *last)

    def loss(params: Any) -> Any:
        return jnp.mean((predict(params, x) - y) ** 2)

    @eqx.filter_jit
    @eqx.filter_vmap
    def run(params: Any) -> tuple[Any, Any]:
        arrays, rest = eqx.partition(params, eqx.is_inexact_array)

        def step(carry: Any, _: None) -> tuple[Any, Any]:
            arrays, state = carry
            whole = eqx.combine(arrays, rest)
            value, slope = eqx.filter_value_and_grad(loss)(whole)
            change, state = optimiser.update(slope, state, whole)
            arrays = eqx.filter(eqx.apply_updates(whole, change), eqx.is_inexact_array)
            return (arrays, state), value

        state = optimiser.init(arrays)
        (arrays, _), values = jax.lax.scan(step, (arrays, state), length=steps)
        whole = eqx.combine(arrays, rest)
        return whole, jnp.append(values, loss(whole))

    return run(starts)


def training_rows(config: Config) -> tuple[Table, dict[str, Any]]:
    """Losses of the three trainings, and whether they end in N*."""
    free, inside = start_networks(config)
    points = np.random.default_rng(config.seed + 3).uniform(-1, 1, (64, 2))
    x, y = jnp.asarray(points), jnp.asarray(np.sin(3 * points[:, 0]) * points[:, 1])
    coordinates = eqx.filter_vmap(RestrictedCoordinates.of)(inside)
    ways = {
        "all weights, biases": (free, lambda net, x: net(x), ()),
        "N*, projected": (
            inside,
            lambda net, x: net(extend_inputs(x)),
            (keep_restricted(),),
        ),
        "N*, coordinates": (
            coordinates,
            lambda net, x: net.network()(extend_inputs(x)),
            (),
        ),
    }
    losses, ends, rows = {}, {}, []
    for name, (starts, predict, last) in ways.items():
        final, values = trained(starts, predict, x, y, config.steps, last)
        losses[name] = np.asarray(values)
        ends[name] = [
            jax.tree.map(lambda leaf, i=i: leaf[i], final) for i in range(config.starts)
        ]
    free_ends = ends["all weights, biases"]
    moved = [to_restricted(net) for net in free_ends]
    gap = max(
        float(jnp.abs(a(x) - b(extend_inputs(x))).max())
        for a, b in zip(free_ends, moved, strict=True)
    )
    members = {
        "all weights, biases": [bool(is_restricted(net)) for net in moved],
        "N*, projected": [bool(is_restricted(net)) for net in ends["N*, projected"]],
        "N*, coordinates": [
            bool(is_restricted(net.network())) for net in ends["N*, coordinates"]
        ],
    }
    for name, values in losses.items():
        last = np.sort(values[:, -1])
        word = "moved there" if name == "all weights, biases" else "stayed there"
        rows.append(
            (
                name,
                number(np.median(values[:, 0])),
                number(last[0]),
                number(np.median(last)),
                number(last[-1]),
                f"{sum(members[name])} of {config.starts} {word}",
            )
        )
    table = Table(
        columns=("trained", "first loss, median", "least", "median", "largest", "N*"),
        rows=rows,
        caption=f"Mean squared error after {config.steps} steps of descent with "
        f"momentum, {config.starts} starts, {config.width} neurons.",
    )
    return table, {"losses": losses, "gap": gap, "members": members}


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
    losses: Mapping[str, Any],
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
    curves = {name: np.median(values, axis=0) for name, values in losses.items()}
    training = figures.plot_trajectory(
        curves, title="Median over the starts", ylabel="mean squared error"
    )
    training.axes[0].set_xlabel("step")
    return {
        "stability_pathologies": figures.plot_pathologies(
            families, title="Left the functions, right the weights"
        ),
        "stability_distance": scatter,
        "stability_training": training,
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
    notebook, fitted = notebook_rows(config)
    training, runs = training_rows(config)
    say(f"{3 * config.starts} trainings")
    drawn = draw(config, families, inside, single, runs["losses"])
    pictures = {name: figures.png(figure) for name, figure in drawn.items()}
    for name, png in pictures.items():
        write(config.out / f"{name}.png", png)
    tables = {"bad": bad, "vectors": vectors, "minima": minima}
    tables |= {"notebook": notebook, "training": training}
    for table in tables.values():
        print(f"\n{table.text()}\n")
    where = write(
        config.out / "inverse_stability.html",
        page(
            "Close functions, close weights?",
            story(config, tables, inside, runs, pictures),
            lead="Shallow ReLU networks, exact distances of functions and of weights.",
            record=provenance(time=f"{say.seconds():.1f} s"),
        ),
    )
    say(f"wrote {where} and {len(pictures)} figures")
    return {
        "pathologies": stated,
        "inside": inside,
        "single": single,
        "vectors": broken,
        "minima": examples,
        "notebook": fitted,
        "training": runs,
        "page": where,
    }


def story(
    config: Config,
    tables: Mapping[str, Table],
    inside: Mapping[str, list[Any]],
    runs: Mapping[str, Any],
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
        Heading("The authors' notebook"),
        Text(
            "A network with two neurons is fitted to 0 on points. The function comes "
            "near to 0 everywhere; its largest slope hardly moves, and the sup norm "
            "does not see that."
        ),
        tables["notebook"],
        Heading("Training inside N*"),
        Text(
            "No function is lost: the trained networks with biases, moved to N*, "
            f"differ there by at most {runs['gap']:.1e} on the data. Where descent "
            "ends does differ, since it moves in other coordinates. Median loss: "
            + "; ".join(
                f"{name} {number(np.median(values[:, -1]))}"
                for name, values in runs["losses"].items()
            )
            + "."
        ),
        tables["training"],
        Picture(
            pictures["stability_training"],
            "The same functions to start with, three ways to train; at each step the "
            "median over the starts.",
            "Training losses against steps.",
        ),
        Heading("In three lines of Python"),
        Code(THREE_LINES),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
