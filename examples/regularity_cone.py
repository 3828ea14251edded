"""The regularity condition along a cone: how wide, how far, and where it fails."""

# %% [markdown]
# $\langle\nabla f, W - W^*\rangle \ge \alpha\|\nabla f\|^2 + \beta\|W - W^*\|^2$ cannot
# hold all around a minimiser that is not isolated. It does for directions within an
# angle of the complement of the Hessian's kernel. The largest $\beta$ is bounded from
# above by the worst point found and from below by a theorem; along the kernel it is not
# positive, and gradient descent leaves the cone. Prints tables; writes figures and one
# page.
#
#     python examples/regularity_cone.py [--quick] [--out DIR] [--require gpu]

# %%
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np

import jaxrelu as jr
from jaxrelu import cli, figures
from jaxrelu.landscape import linear_minimizer
from jaxrelu.report import Code, Heading, Picture, Table, Text, estimate, number


# Quotients of small displacements are shown. (TPUs have no float64.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")

THREE_LINES = """\
import jaxrelu as jr

report = jr.regularity(loss, net, radius=0.02, angle=0.5, key=key)
print(report.alpha, report.found, report.asymptotic, report.theorem)
print(jr.one_point_convexity(loss, net, radius=0.02, key=key).found)
"""


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """Regularity condition of a linear network along a cone of directions."""

    QUICK: ClassVar = {
        "num_starts": 8,
        "num_steps": 100,
        "degrees": (0, 45, 80),
        "radii": (0.003, 0.03),
    }

    seed: int = 0
    """Seed of the random starts."""
    share: float = 0.25
    """α as a part of the sharp 1/(m + M)."""
    degrees: tuple[float, ...] = (0, 15, 30, 45, 60, 70, 80)
    """Opening angles."""
    radii: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)
    """Radii of the ball."""
    num_starts: int = 64
    """Random starts of each search."""
    num_steps: int = 400
    """Steps of each ascent."""


# %% [markdown]
# ## The instance
#
# Two layers, three samples, $f^* = 5/3$; the minimisers near it are a manifold of
# dimension four.


# %%
def instance() -> tuple[jr.SquaredLoss, jr.LinearNetwork]:
    """A loss and one of its global minimisers."""
    X = jnp.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    data = jr.data.Dataset(X, jnp.array([[2.0, 0.0], [1.0, 1.0], [1.0, 3.0]]))
    return jr.SquaredLoss(data), linear_minimizer(
        data, [jnp.array([[1.0, 1.0], [0.0, 2.0]])]
    )


def sweep(config: Config) -> tuple[Table, list[Any]]:
    """Every angle and radius."""
    loss, net = instance()
    key = jrandom.key(config.seed)
    search = {"num_starts": config.num_starts, "num_steps": config.num_steps}
    sharp = float(jr.regularity(loss, net, 0.01, key=key, **search).alpha)
    rows, reports = [], []
    for degrees in config.degrees:
        for radius in config.radii:
            key, sub = jrandom.split(key)
            report = jr.regularity(
                loss,
                net,
                radius,
                alpha=config.share * sharp,
                angle=math.radians(degrees),
                key=sub,
                **search,
            )
            reports.append((degrees, radius, report))
            proved = float(report.lower)
            rows.append(
                (
                    f"{degrees:g}°",
                    f"{radius:g}",
                    number(float(report.alpha), digits=5),
                    number(proved, digits=5) if proved > 0 else "–",
                    estimate(report.found),
                    estimate(report.asymptotic),
                    "yes" if bool(report.condition.is_possible) else "no",
                )
            )
    table = Table(
        columns=(
            "angle",
            "radius",
            "α",
            "theorem (≤ β)",
            "worst found (≥ β)",
            "asymptotic",
            "4αβ ≤ 1",
        ),
        rows=rows,
        caption="β along cones of directions around (ker H)⊥.",
    )
    return table, reports


# %% [markdown]
# ## Along the kernel, and where descent goes
#
# In a full ball the quotient of one-point convexity is negative somewhere. A run from a
# perturbed minimiser ends at another one.


# %%
def failures(config: Config) -> dict[str, float]:
    """One-point convexity in the ball, and the end of a run."""
    loss, net = instance()
    key, one, two = jrandom.split(jrandom.key(config.seed + 1), 3)
    ball = jr.one_point_convexity(
        loss,
        net,
        radius=0.1,
        key=key,
        num_starts=config.num_starts,
        num_steps=config.num_steps,
    )
    near = jr.LinearNetwork(
        (
            net.weights[0] + 0.05 * jrandom.normal(one, (2, 2)),
            net.weights[1] + 0.05 * jrandom.normal(two, (2, 2)),
        )
    )
    run = jr.gradient_descent(loss, near, learning_rate=0.02, num_steps=2000)
    distance = lambda a: math.sqrt(
        sum(
            float(jnp.sum((x - y) ** 2))
            for x, y in zip(a.weights, net.weights, strict=True)
        )
    )
    assert ball.found is not None  # a radius was given
    return {
        "quotient": float(ball.found),
        "nullity": int(ball.nullity),
        "start": distance(near),
        "end": distance(run.network),
        "gap": float(run.losses[-1]) - 5 / 3,
    }


# %% [markdown]
# ## Figures


# %%
def draw(config: Config, reports: list[Any]) -> dict[str, Any]:
    """All figures by name."""
    figure, (left, right) = figures.panels(2)
    chosen = [(d, r) for d, radius, r in reports if radius == min(config.radii)]
    figures.plot_bounds(
        {
            f"{d:g}°": {
                "theorem": float(r.lower),
                "worst found": float(r.found),
                "asymptotic": float(r.asymptotic),
            }
            for d, r in chosen
        },
        title=f"β by angle, radius {min(config.radii):g}",
        ylabel="β",
        ax=left,
    )
    at = [(radius, r) for d, radius, r in reports if d == config.degrees[0]]
    figures.plot_comparison(
        [radius for radius, _ in at],
        {
            "worst found": (
                [float(r.found) for _, r in at],
                [float(r.found.error) for _, r in at],
            )
        },
        predicted={
            "asymptotic": [float(r.asymptotic) for _, r in at],
            # a line ends where the theorem promises nothing
            "theorem": [max(float(r.lower), 0) or math.nan for _, r in at],
        },
        levels={},
        title=f"β by radius, angle {config.degrees[0]:g}°",
        xlabel="radius",
        ylabel="β",
        ax=right,
    )
    return {"regularity_cone": figure}


# %% [markdown]
# ## All of it


# %%
def main(config: Config) -> dict[str, Any]:
    """Runs everything; returns the numbers behind the tables."""
    config = config.sized()
    say = cli.start(config.require)
    table, reports = sweep(config)
    say(f"{len(reports)} cones")
    failed = failures(config)
    say("a full ball, and a run")
    pictures = cli.illustrate(config, draw(config, reports))
    say("figures")
    where_it_fails = Table(
        columns=(
            "zero modes",
            "least ⟨∇f, Δ⟩/‖Δ‖² in the ball",
            "‖W_0 − W*‖",
            "‖W_∞ − W*‖",
        ),
        rows=[
            (
                str(failed["nullity"]),
                *(number(failed[k], digits=6) for k in ("quotient", "start", "end")),
            )
        ],
        caption="Without the cone: a ball of radius 0.1, and a run.",
    )
    where = cli.publish(
        config,
        say,
        "regularity_cone",
        "The regularity condition along a cone",
        story(table, where_it_fails, pictures),
        lead="A linear network of two layers at a global minimiser.",
    )
    worst = np.array([float(r.found) for _, _, r in reports])
    return {"reports": reports, "failed": failed, "worst": worst, "page": where}


def story(table: Table, fails: Table, pictures: Mapping[str, bytes]) -> list[Any]:
    """The page's text, tables and figures."""
    return [
        Text(
            "⟨∇f, Δ⟩ ≥ α‖∇f‖² + β‖Δ‖² for Δ = W − W* within an angle of the complement "
            "of the Hessian's kernel. For small radii the best β tends to "
            "cos²(angle)·min(m − αm², M − αM²) with the extreme non-zero eigenvalues "
            "m, M of the Hessian. The theorem holds up to a radius that shrinks as the "
            "cone opens; a dash says that it promises nothing there."
        ),
        table,
        Picture(
            pictures["regularity_cone"],
            "Left: β by opening angle. Right: β by radius; the theorem is a lower "
            "bound, the worst point found an upper one.",
            "Bounds on β.",
        ),
        Heading("Without the cone"),
        Text(
            "Along the kernel the minimisers go on, so no β > 0 holds in a ball, and a "
            "run of gradient descent ends at another minimiser: the condition at a "
            "fixed minimiser promises nothing about it."
        ),
        fails,
        Heading("In three lines of Python"),
        Code(THREE_LINES),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
