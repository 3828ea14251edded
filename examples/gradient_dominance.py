"""How strong is the pull of a minimum? Gradient dominance from both sides."""

# %% [markdown]
# Gradient dominance, $f - f^* \le \lambda\|\nabla f\|^2$, makes gradient descent
# converge linearly, by $1 - 1/2\lambda L$ per step. For deep linear networks, residual
# ones and one hidden layer of leaky ReLU minimisers are written down, and
# $\lambda$ is bounded from below by the worst point that a search finds and
# by the Hessian, and from above by theorems and certificates. Prints tables; writes
# figures and one page.
#
#     python examples/gradient_dominance.py [--quick] [--out DIR] [--require gpu]

# %%
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np

import jaxrelu as jr
from jaxrelu import cli, figures
from jaxrelu.landscape import (
    PolyakLojasiewicz,
    asymptotic_rate,
    descent_rate,
    dominance_chain,
    linear_minimizer,
    minimizer_spectrum,
    residual_minimizer,
    shallow_minimizer,
)
from jaxrelu.report import Code, Heading, Picture, Table, Text, estimate, number


# Gaps of 1e-20 are divided by squares of gradients. (TPUs have no float64.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")

THREE_LINES = """\
import jaxrelu as jr

net = jr.landscape.balanced_minimizer(data, depth=3)
report = jr.dominance(jr.SquaredLoss(data), net, radius=0.1, key=key)
print(report.found, report.asymptotic, report.theorem, report.certified)
"""


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """Gradient dominance of minimisers of linear and leaky ReLU networks."""

    QUICK: ClassVar = {
        "num_starts": 8,
        "num_steps": 100,
        "depths": (1, 8),
        "pixels": 31,
        "draws": 8,
    }

    seed: int = 0
    """Seed of the random starts."""
    radius: float = 0.05
    """Of the ball around each minimiser."""
    num_starts: int = 64
    """Random starts of each search."""
    num_steps: int = 400
    """Steps of each ascent."""
    depths: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24)
    """Depths of the comparison of plain and residual networks."""
    draws: int = 64
    """Of random weights, for each depth."""
    pixels: int = 121
    """Points along each side of the slice."""


# %% [markdown]
# ## Minimisers, written down
#
# A linear network with $f^* > 0$, a residual one that fits its data, and a leaky ReLU
# network whose features are prescribed.


# %%
def instances() -> dict[str, tuple[jr.SquaredLoss, Any, Any]]:
    """Name → (loss, global minimiser, trained leaves)."""
    X = jnp.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    data = jr.data.Dataset(X, jnp.array([[2.0, 0.0], [1.0, 1.0], [1.0, 3.0]]))
    C = jnp.array([[1.0, 1.0], [0.0, 2.0]])
    plain = linear_minimizer(data, [C])
    P = jnp.array([[1.2, 0.3], [-0.1, 0.9]])
    fitted = jr.data.Dataset(X, X @ P.T)
    changes = [jnp.array([[1.1, 0.1], [0, 0.9]]), jnp.array([[1.1, 0.2], [-0.1, 1]])]
    square = jr.data.Dataset(
        jnp.array([[2.0, 0.0], [1.0, 1.0]]), jnp.array([[1.0, 2.0], [-1.0, 1.0]])
    )
    features = jnp.array([[1.0, 0.75], [-0.5, 2.0]])
    leaky = shallow_minimizer(square, features, jr.activations.LeakyReLU(0.25))
    both = lambda net: (net.inner, net.outer)
    return {
        "linear, l = 2": (jr.SquaredLoss(data), plain, None),
        "residual, l = 3": (
            jr.SquaredLoss(fitted),
            residual_minimizer(fitted, changes),
            None,
        ),
        "leaky ReLU": (jr.SquaredLoss(square), leaky, both),
    }


def bounds(config: Config) -> tuple[Table, dict[str, Any]]:
    """The report of every instance."""
    rows, found = [], {}
    key = jrandom.key(config.seed)
    for name, (loss, net, where) in instances().items():
        key, sub = jrandom.split(key)
        report = jr.dominance(
            loss,
            net,
            config.radius,
            key=sub,
            where=where,
            num_starts=config.num_starts,
            num_steps=config.num_steps,
        )
        found[name] = report
        rows.append(
            (
                name,
                number(float(loss(net)), digits=6),
                str(int(report.nullity)),
                estimate(report.asymptotic),
                estimate(report.found),
                _number(report.certified),
                _number(report.theorem),
            )
        )
    table = Table(
        columns=(
            "minimiser",
            "f*",
            "zero modes",
            "asymptotic (≥)",
            "worst found (≥)",
            "certified (≤)",
            "theorem (≤)",
        ),
        rows=rows,
        caption=f"λ in the ball of radius {config.radius}, from below and from above.",
    )
    return table, found


def _number(value: Any) -> str:
    return "–" if value is None else number(float(value), digits=5)


# %% [markdown]
# ## Depth
#
# At random weights, where training starts: no minimiser is needed for the bound. Plain
# layers of $N(0, 1/d)$ entries lose the pull exponentially in depth; residual layers
# are near the identity and gain.


# %%
def depth_curves(config: Config) -> dict[str, Any]:
    """μ = 1/2λ at random weights for each depth: by T, and by the layers alone.

    Medians over the draws, and the quartiles of the first. What the precision does not
    resolve counts as 0.
    """
    data = jr.data.Dataset(jnp.eye(4), jnp.eye(4))
    loss = jr.SquaredLoss(data)
    names = ("plain", "residual")
    measured: dict[str, list[float]] = {name: [] for name in names}
    guaranteed: dict[str, list[float]] = {name: [] for name in names}
    ends: dict[str, tuple[list[float], list[float]]] = {n: ([], []) for n in names}
    keys = jrandom.split(jrandom.key(config.seed + 2), config.draws)
    for depth in config.depths:
        widths = (4,) * (depth + 1)

        def plain(key, widths=widths):
            return jr.LinearNetwork.init(key, widths, weights="xavier")

        def residual(key, depth=depth):
            return jr.LinearResidualNetwork.init(key, d=4, depth=depth)

        for name, init in (("plain", plain), ("residual", residual)):

            def pull(key, init=init):
                chain = dominance_chain(loss, init(key))
                resolved = chain.result == jr.RESULTS.successful
                return jnp.where(resolved, 0.5 / chain.lam0, 0), 0.5 / chain.lam2

            best, sure = jax.vmap(pull)(keys)  # compiled, depth 24 takes minutes
            low, middle, high = np.quantile(np.asarray(best), (0.25, 0.5, 0.75))
            measured[name].append(float(middle))
            ends[name][0].append(float(low))
            ends[name][1].append(float(high))
            guaranteed[name].append(float(jnp.median(sure)))
    return {
        "depth": config.depths,
        "measured": measured,
        "guaranteed": guaranteed,
        "quartiles": ends,
    }


# %% [markdown]
# ## Descent
#
# The factor per step of a run, against what dominance promises and what the Hessian at
# its limit says.


# %%
def descent(config: Config) -> dict[str, float]:
    """One run near the linear minimiser."""
    loss, net, _ = instances()["linear, l = 2"]
    P = jnp.linalg.lstsq(loss.data.inputs, loss.data.targets)[0]
    fitted = jr.SquaredLoss(jr.data.Dataset(loss.data.inputs, loss.data.inputs @ P))
    key = jrandom.key(config.seed + 1)
    moves = [0.02 * jrandom.normal(k, (2, 2)) for k in jrandom.split(key)]
    near = jr.LinearNetwork(
        tuple(w + move for w, move in zip(net.weights, moves, strict=True))
    )
    largest = float(jnp.max(minimizer_spectrum(fitted, net).values))
    eta = 0.5 / largest
    steps = 60
    run = jr.gradient_descent(fitted, near, learning_rate=eta, num_steps=steps)
    spectrum = minimizer_spectrum(fitted, run.network).expand()
    chain = dominance_chain(fitted, near)
    mu = 1 / (2 * chain.lam0)
    losses = np.asarray(run.losses)
    return {
        "step": eta,
        "measured": float(losses[-1] / losses[-2]),
        "asymptotic": float(asymptotic_rate(eta, spectrum)),
        "promised": float(
            descent_rate(PolyakLojasiewicz(mu), eta, largest * 1.1).factor
        ),
    }


# %% [markdown]
# ## Figures


# %%
def draw(
    config: Config, found: Mapping[str, Any], curves: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures by name."""
    bars = {
        name: {
            "asymptotic": float(report.asymptotic),
            "worst found": float(report.found),
            "certified": _float(report.certified),
            "theorem": _float(report.theorem),
        }
        for name, report in found.items()
    }
    return {
        "dominance_bounds": figures.plot_bounds(
            bars, title="Bounds on λ from below and above"
        ),
        "dominance_depth": figures.plot_depth(
            curves["depth"],
            curves["measured"],
            guaranteed=curves["guaranteed"],
            spread=curves["quartiles"],
            title="Pull at random weights against depth",
        ),
        "dominance_slice": slice_of(config),
    }


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def slice_of(config: Config) -> Any:
    """Two diagonal factors diag(1, a), diag(1, b), target diag(1, 0)."""
    target = jnp.diag(jnp.array([1.0, 0.0]))
    loss = jr.SquaredLoss(jr.data.Dataset(jnp.eye(2), target))
    net = lambda a, b: jr.LinearNetwork(
        (jnp.diag(jnp.stack([1, a])), jnp.diag(jnp.stack([1, b])))
    )

    def point(a, b):
        value, gradient = jax.value_and_grad(lambda n: loss(n))(net(a, b))
        return value, sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))

    axis = jnp.linspace(-1.0, 1.0, config.pixels)
    grid = jax.vmap(jax.vmap(point, (0, None)), (None, 0))
    gap, square = jax.jit(grid)(axis, axis)
    marks = {"two singular factors": (0.0, 0.0), "one singular factor": (0.0, 0.6)}
    return figures.plot_ratio(
        axis,
        axis,
        gap,
        square,
        marks=marks,
        title="The ratio near singular factors",
        xlabel="a",
        ylabel="b",
    )


# %% [markdown]
# ## All of it


# %%
def main(config: Config) -> dict[str, Any]:
    """Runs everything; returns the numbers behind the tables."""
    config = config.sized()
    say = cli.start(config.require)
    table, found = bounds(config)
    say(f"{len(found)} minimisers from both sides")
    curves = depth_curves(config)
    say(f"depths up to {max(config.depths)}")
    run = descent(config)
    say("one run of gradient descent")
    pictures = cli.illustrate(config, draw(config, found, curves))
    say("figures")
    rates = Table(
        columns=("step", "factor of the run", "asymptotic", "promised by λ0"),
        rows=[tuple(number(value, digits=6) for value in run.values())],
        caption="Factor of the gap per step, after 60 steps.",
    )
    where = cli.publish(
        config,
        say,
        "gradient_dominance",
        "Gradient dominance from both sides",
        story(config.draws, table, rates, pictures),
        lead="Linear, residual and leaky ReLU networks at global minimisers.",
    )
    return {"reports": found, "curves": curves, "run": run, "page": where}


def story(
    draws: int, table: Table, rates: Table, pictures: Mapping[str, bytes]
) -> list[Any]:
    """The page's text, tables and figures."""
    return [
        Text(
            "The best λ in f − f* ≤ λ‖∇f‖² on a ball is at least what the worst point "
            "found says and at least 1/2λ_{min} of the Hessian; theorems and "
            "certificates bound it from above. The gap f − f* is computed by "
            "projection, without a subtraction."
        ),
        table,
        Picture(
            pictures["dominance_bounds"],
            "Lower and upper bounds of each instance.",
            "Bars: asymptotic value, worst found, certified, theorem.",
        ),
        Heading("Depth"),
        Picture(
            pictures["dominance_depth"],
            f"{draws} draws of weights for each depth, d = 4, X = I. Plain: entries "
            "N(0, 1/d). Residual: entries of deviation 1/(l√d). Solid: the median of "
            "1/2λ0 with the best constant for all targets at these weights, as far as "
            "the precision resolves it; band: its quartiles; dotted: the median of "
            "what the singular values of the layers alone guarantee.",
            "Constants against depth.",
        ),
        Heading("Where it fails"),
        Picture(
            pictures["dominance_slice"],
            "Factors diag(1, a), diag(1, b), target diag(1, 0): the ratio is "
            "1/(2(a^{2} + b^{2})). One singular factor does no harm, two do.",
            "The ratio on a plane.",
        ),
        Heading("Descent"),
        rates,
        Heading("In three lines of Python"),
        Code(THREE_LINES),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
