"""Where descent ends in the teacher-student landscape, proved, and the way out."""

# %% [markdown]
# A student of $k$ ReLU neurons learns a teacher of $k$ orthonormal ones under Gaussian
# inputs. The loss, its gradient and its Hessian are known in closed form, so descent
# from random weights, the critical points it ends at, a proof that a true local minimum
# is there, and what one more neuron does to it need no sample. Prints tables; writes
# figures and one self-contained page.
#
#     python examples/teacher_student_minima.py [--quick] [--out DIR] [--require gpu]

# %%
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np

import jaxrelu as jr
from jaxrelu import cli, figures, landscape
from jaxrelu.report import Heading, Picture, Table, Text, number


# A gradient of 1e-12 is asked for. (TPUs have no float64.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """Minima of the teacher-student loss: found, counted, proved, escaped."""

    QUICK: ClassVar = {"k": 7, "starts": 48, "resolution": 15, "steps": 400}

    seed: int = 0
    """Seed of every random number."""
    k: int = 8
    """Neurons of the teacher and of the student."""
    starts: int = 512
    """Descents from random weights."""
    resolution: int = 81
    """Points per side of the slice."""
    steps: int = 20000
    """Steps of gradient descent towards a split global minimum."""


# %% [markdown]
# ## Counting, and proving
#
# Each point that descent came to is polished by Newton's method and given to
# `certify_minimum`, whose answer is a proof: rounding is enclosed.


# %%
def points_table(F: Any, points: Any) -> tuple[Table, list[Any]]:
    """Every point with its certificate."""
    rows, certificates = [], []
    for i, name in enumerate(points.families):
        proof = landscape.certify_minimum(F, points.weights[i])
        certificates.append(proof)
        rows.append(
            (
                name,
                points.isotropies[i].name,
                f"{int(points.counts[i])}",
                number(float(points.losses[i]), digits=10),
                number(float(points.smallest[i]), digits=8),
                number(float(points.norm_sums[i]), digits=6),
                f"{float(points.gradient_norms[i]):.1e}",
                proof.verdict,
                f"{proof.radius:.1e}" if proof.holds else "–",
            )
        )
    columns = ("family", "isotropy", "runs", "F", "λ_min", "Σ‖w_i‖", "‖∇F‖")
    columns += ("proved", "within")
    return Table(columns, rows, "Where the descents ended."), certificates


def share_table(census: Any) -> Table:
    """Our share of spurious minima beside the published one."""
    rows = []
    for count in landscape.published_counts():
        if (count.k, count.n) == (census.k, census.n):
            rows.append(
                (
                    "published",
                    *share_cells(count.share),
                    number(count.loss, digits=5),
                    number(count.smallest, digits=5),
                )
            )
            z = landscape.z_score(census.spurious, count.share)
            rows.append(("difference, standard errors", f"{z:+.1f}", "", "", ""))
    ours = (
        "here",
        *share_cells(census.spurious),
        number(census.spurious_loss, digits=5),
        number(census.spurious_smallest, digits=5),
    )
    columns = ("runs at a minimum that is not global", "share", "95 % interval")
    return Table(
        (*columns, "mean F", "mean λ_min"), [ours, *rows], "Against published counts."
    )


def share_cells(share: Any) -> tuple[str, str]:
    """A share and its interval, in per cent."""
    low, high = 100 * share.low, 100 * share.high
    return f"{100 * share.fraction:.1f} %", f"{low:.1f} to {high:.1f} %"


# %% [markdown]
# ## One more neuron
#
# Splitting neuron i of a minimum into two on the same ray leaves the function as it is
# and adds $d$ directions; $H'_{ii}$ decides whether the minimum becomes a saddle.


# %%
def split_table(verdict: Any) -> Table:
    """The test of every neuron."""
    rows = [
        (
            f"{i}",
            number(float(verdict.norms[i]), digits=5),
            number(float(verdict.eigenvalues[i, 0]), float(verdict.error[i])),
            f"{int(verdict.num_negative[i])}",
            number(float(verdict.traces[i]), digits=4),
            "saddle" if bool(verdict.saddle[i]) else "undecided",
        )
        for i in range(len(verdict.norms))
    ]
    columns = ("neuron", "‖w_i‖", "λ_min(H'_ii)", "negative directions", "λ_i")
    return Table((*columns, "its split is a"), rows, "Splitting a neuron of type II.")


def escapes(F: Any, W: Any) -> tuple[Table, list[Any]]:
    """Where the ways down from a split of either kind of neuron lead."""
    rows, ways = [], []
    for kind, i in (("regular", 0), ("turned round", len(W) - 1)):
        way = landscape.escape(F, W, i)
        starts = jnp.stack(way.students)
        ends = landscape.refine_critical_points(F, starts, descend=True)
        ways.append(way)
        for sign, where in zip("+-", np.asarray(ends.class_of), strict=True):
            there = where >= 0
            rows.append(
                (
                    kind,
                    f"{sign}(u, -u)",
                    number(float(way.curvature), digits=5),
                    number(float(way.decreases["+-".index(sign)]), digits=4),
                    ends.families[where] if there else "–",
                    ends.kinds[where] if there else "–",
                    number(float(ends.losses[where]), digits=8) if there else "–",
                )
            )
    columns = ("neuron split", "way", "curvature", "fall on that line", "leads to")
    return Table((*columns, "kind", "F"), rows, "Descent from the split."), ways


def plane(F: Any, W: Any, i: int, way: Any, resolution: int) -> dict[str, Any]:
    """F over the plane of (u, -u) and (u, u) at the split of neuron i."""
    middle = landscape.split(W, i)
    u = way.direction
    apart = jnp.zeros_like(middle).at[i].set(u).at[i + 1].set(-u)
    along = jnp.abs(apart) * jnp.sign(u)[None, :]
    reach = 1.3 * float(jnp.max(jnp.abs(way.steps)))
    t = np.linspace(-reach, reach, resolution)
    s = np.linspace(-reach / 2, reach / 2, resolution)

    @jax.jit
    def values(F, middle, apart, along, t, s):
        at = jax.vmap(
            lambda a: jax.vmap(lambda b: F(middle + b * apart + a * along))(t)
        )
        return at(s)

    found = values(F, middle, apart, along, jnp.asarray(t), jnp.asarray(s))
    return {"t": t, "s": s, "F": np.asarray(found), "steps": np.asarray(way.steps)}


# %% [markdown]
# ## Slower than any exponential
#
# With $n > k$ every global minimum has neurons on one ray, and the loss grows only with
# the cube of the distance there. Descent obeys $F\,t^3 \to 8/(27c^2)$.


# %%
def cubic_run(k: int, steps: int, rate: float = 1.0) -> dict[str, np.ndarray]:
    """Gradient descent into a split global minimum, beside the law."""
    teacher = jr.Shallow.orthonormal(k, k)
    F = jr.PopulationLoss(teacher)
    W = landscape.split(teacher.inner, 0)
    start = W.at[0, 1].add(0.05).at[1, 1].add(-0.05)
    student = jr.Shallow(start, jnp.ones(k + 1, start.dtype))
    run = jr.gradient_descent(F, student, learning_rate=rate, num_steps=steps)
    norms = jnp.linalg.norm(run.network.inner[:2], axis=1)
    limit = float(landscape.cubic_decay_constant(norms[0], norms[1]))
    time = rate * np.arange(steps + 1)
    with np.errstate(divide="ignore"):
        law = limit / time**3
    law[0] = law[1]
    return {
        "losses": np.asarray(run.losses),
        "law": law,
        "ratio": float(run.losses[-1]) * time[-1] ** 3 / limit,
    }


# %% [markdown]
# ## All of it


# %%
def main(config: Config) -> dict[str, Any]:
    """Runs everything; returns the numbers behind the tables."""
    config = config.sized()
    say = cli.start(config.require)
    k = config.k
    F = jr.PopulationLoss(jr.Shallow.orthonormal(k, k))
    key = jrandom.key(config.seed)
    points = jr.find_critical_points(F, key, k, config.starts)
    say(f"{config.starts} descents, {len(points.families)} points")
    census = landscape.census(points)
    where, certificates = points_table(F, points)
    say("certificates")
    spurious = jr.symmetric_minimum("II", k)
    W = spurious.weights()
    verdict = landscape.split_verdict(F, W)
    ways, found = escapes(F, W)
    say("splits, and where they lead")
    cut = plane(F, W, 0, found[0], config.resolution)
    cubic = cubic_run(3, config.steps)
    say(f"{config.steps} steps into a split global minimum")

    tables = {
        "points": where,
        "shares": share_table(census),
        "split": split_table(verdict),
        "escapes": ways,
    }
    print(f"\n{census}\n")
    pictures = cli.illustrate(config, draw(points, cut, cubic))
    target = cli.publish(
        config,
        say,
        "teacher_student_minima",
        "Minima of the teacher-student loss: found, counted, proved, escaped",
        story(tables, pictures, cubic),
        lead=f"k = {k} orthonormal teacher neurons, Gaussian inputs, no sampling.",
    )
    return {
        "points": points,
        "census": census,
        "certificates": certificates,
        "verdict": verdict,
        "cubic": cubic,
        "page": target,
    }


def draw(
    points: Any, cut: Mapping[str, Any], cubic: Mapping[str, Any]
) -> dict[str, Any]:
    """All figures by name."""
    shown = {}
    for i, name in enumerate(points.families):
        label = f"{name}, F = {max(float(points.losses[i]), 0.0):.4f}"
        shown.setdefault(label, points.weights[i])
    first = dict(list(shown.items())[:6])
    pair, (left, right) = figures.panels(2, width=5.6)
    marks = {
        "type II, a neuron split": (0.0, 0.0),
        "lowest on this line, +": (float(cut["steps"][0]), 0.0),
        "lowest on this line, -": (-float(cut["steps"][1]), 0.0),
    }
    figures.plot_slice(
        cut["t"],
        cut["s"],
        cut["F"],
        marks=marks,
        title="A minimum, its neuron split: a saddle",
        xlabel=r"$t$ along $(u, -u)$",
        ylabel=r"$s$ along $(u, u)$",
        ax=left,
    )
    figures.plot_trajectory(
        {"gradient descent": cubic["losses"]},
        predicted={"8/(27 c² t³)": cubic["law"]},
        title="Into a split global minimum",
        ylabel=r"$F$",
        xscale="log",
        ax=right,
    )
    return {"minima_weights": figures.plot_weights(first), "minima_split": pair}


def story(
    tables: Mapping[str, Table],
    pictures: Mapping[str, bytes],
    cubic: Mapping[str, Any],
) -> list[Any]:
    """The page's text, tables and figures."""
    return [
        Text(
            "F(W) = ½E(Σ_{i} max(0, w_{i}·x) − Σ_{j} max(0, v_{j}·x))^{2}. Descents "
            "start at N(0, 1/k) and take steps of 5/k, as in the published "
            "experiments. Ends that differ by a permutation are one point."
        ),
        tables["points"],
        tables["shares"],
        Picture(
            pictures["minima_weights"],
            "The points found, up to six. Rows are neurons, as descent left them; "
            "their order, and that of the coordinates, is a matter of symmetry.",
            "Heat-maps of weight matrices.",
        ),
        Heading("One more neuron"),
        Text(
            "Every neuron of the type II minimum fails its test: splitting any of "
            "them turns the minimum into a saddle."
        ),
        tables["split"],
        tables["escapes"],
        Picture(
            pictures["minima_split"],
            "Left: F on a plane through type II with its first neuron split. Right: "
            "gradient descent into a global minimum with two neurons on one ray "
            f"(k = 3, n = 4); F t³ over its limit is {cubic['ratio']:.4f} at the end.",
            "A saddle of the loss; loss against step on logarithmic axes.",
        ),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
