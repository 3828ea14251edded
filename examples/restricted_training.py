"""Training seen as functions: slopes that stay, and descent inside N*."""

# %% [markdown]
# Descent moves weights; its aim is a function. Two experiments on the difference. The
# first is that of the authors' notebook: a network of two neurons comes near to the
# zero function everywhere while its slope stays large, measured exactly along the way.
# The second trains the same functions freely and inside the restricted set N*
# (balanced neurons, no direction twice, rows that end in two positive entries), where
# close functions have close weights. Prints tables; writes a figure and a page.
#
#     python examples/restricted_training.py [--quick] [--out DIR] [--require gpu]

# %%
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrelu as jr
from jaxrelu import cli, figures
from jaxrelu.realization import (
    RestrictedCoordinates,
    extend_inputs,
    is_restricted,
    keep_restricted,
    seminorm,
    supnorm,
    to_restricted,
)
from jaxrelu.report import Code, Heading, Picture, Table, Text, number


# Networks are compared to 1e-12. (TPUs have no float64.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")

THREE_LINES = """\
from jaxrelu.realization import extend_inputs, is_restricted, to_restricted

inside = to_restricted(network)  # one hidden layer, biases: the same function, in N*
print(is_restricted(inside), inside(extend_inputs(x)) - network(x))
"""


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """What descent on weights does to functions."""

    QUICK: ClassVar = {"runs": 8, "starts": 4, "steps": 400, "width": 4}

    seed: int = 0
    """Of batches and starts."""
    runs: int = 24
    """Runs of the authors' notebook."""
    starts: int = 24
    """Trainings, each in three ways."""
    steps: int = 4000
    """Steps of a training."""
    width: int = 8
    """Neurons of the trained networks."""


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
def main(config: Config) -> dict[str, Any]:
    """Runs everything; returns the numbers behind the tables."""
    config = config.sized()
    say = cli.start(config.require)
    notebook, fitted = notebook_rows(config)
    say(f"{config.runs} runs of the notebook")
    training, runs = training_rows(config)
    say(f"{3 * config.starts} trainings")
    curves = {
        name: np.median(values, axis=0) for name, values in runs["losses"].items()
    }
    figure = figures.plot_trajectory(
        curves, title="Median over the starts", ylabel="mean squared error"
    )
    figure.axes[0].set_xlabel("step")
    name = "restricted_training"
    picture = cli.illustrate(config, {name: figure})[name]
    where = cli.publish(
        config,
        say,
        name,
        "Training, seen as functions",
        story(notebook, training, runs, picture),
        lead="Exact norms of what descent on weights does to a function.",
    )
    return {"notebook": fitted, "training": runs, "page": where}


def story(
    notebook: Table, training: Table, runs: Mapping[str, Any], picture: bytes
) -> list[Any]:
    """The page's text, tables and figure."""
    return [
        Heading("The authors' notebook"),
        Text(
            "A network with two neurons is fitted to 0 on points. The function comes "
            "near to 0 everywhere; its largest slope hardly moves, and the sup norm "
            "does not see that."
        ),
        notebook,
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
        training,
        Picture(
            picture,
            "The same functions to start with, three ways to train; at each step the "
            "median over the starts.",
            "Training losses against steps.",
        ),
        Heading("In three lines of Python"),
        Code(THREE_LINES),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
