"""Are two networks the same function? Canonical forms of shallow ReLU networks."""

# %% [markdown]
# Every shallow ReLU network without biases is, in exactly one way,
# $f(x) = Lx + \sum_H \kappa_H |\langle n_H, x\rangle|$: a linear map and one fold per
# kink. Equal forms mean equal functions. The form tells how many neurons the function
# needs, which other networks realise it, and it can be read off from gradients alone.
# Prints tables; writes figures and one self-contained page.
#
#     python examples/canonical_form.py [--quick] [--out DIR] [--require gpu]

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
    Symmetry,
    canonical,
    canonical_exact,
    cells,
    distance,
    equal,
    extend_inputs,
    flip_fibre,
    from_restricted,
    gradient_queries,
    is_restricted,
    merge,
    minimal_network,
    minimal_width,
    num_cells,
    recover,
    to_restricted,
    with_signs,
)
from jaxrelu.report import Code, Heading, Picture, Table, Text


# Equality is asked to 1e-13 of the weights. (TPUs have no float64.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")

THREE_LINES = """\
import jaxrelu as jr

print(bool(jr.realization.equal(a, b)), jr.realization.canonical(a))
smaller = jr.realization.minimal_network(a)  # same function, fewest neurons
"""


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """Canonical forms: the function behind the weights."""

    QUICK: ClassVar = {"neurons": 6, "sizes": ((2, 6), (4, 8))}

    seed: int = 0
    """Of the random networks."""
    neurons: int = 8
    """Neurons of the network in the figure, with two inputs."""
    sizes: tuple[tuple[int, int], ...] = ((2, 20), (3, 20), (5, 30), (10, 50))
    """(d, k) of the networks recovered from gradients."""


def shallow(inner: Any, outer: Any) -> jr.Shallow:
    """A network from lists of rows and outer weights."""
    dtype = jnp.zeros(()).dtype
    return jr.Shallow(jnp.asarray(inner, dtype), jnp.asarray(outer, dtype))


def gaussian(rng: np.random.Generator, k: int, d: int) -> jr.Shallow:
    """A network with standard normal weights and one output."""
    return shallow(rng.standard_normal((k, d)), rng.standard_normal(k))


TRIANGLE = np.array([[1, 0], [-0.5, 1], [-0.5, -1]])
"""Three rows that sum to zero."""


# %% [markdown]
# ## The same function, or not
#
# Pairs of networks: symmetric copies, a copy with every row turned round (the same
# function if and only if $CA = 0$), a copy off by one bit. `equal` gives an answer up
# to a tolerance, `equal(exact=True)` a proof about the weights as stored.


# %%
def pairs_of(config: Config) -> dict[str, tuple[jr.Shallow, jr.Shallow]]:
    """Pairs, by what was done to the first network."""
    rng = np.random.default_rng(config.seed)
    net = gaussian(rng, config.neurons, 2)
    k = config.neurons
    order = jnp.asarray(rng.permutation(k))
    powers = jnp.asarray(2.0 ** rng.integers(-3, 4, k), net.inner.dtype)
    thirds = jnp.asarray(1 + rng.uniform(size=k), net.inner.dtype)
    bit = np.array(net.outer)
    bit[0] = np.nextafter(bit[0], np.inf, dtype=bit.dtype)
    half = np.array(net.outer)
    half[0] /= 2
    split = shallow(np.concatenate([net.inner, net.inner[:1]]), [*half, half[0]])
    balanced, unequal = [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]
    return {
        "permuted, scaled by powers of 2": (net, Symmetry((order,), (powers,))(net)),
        "scaled by random factors": (net, Symmetry((order,), (thirds,))(net)),
        "one neuron split in two": (net, split),
        "rows turned round, c = (1, 1, 1)": (
            shallow(TRIANGLE, balanced),
            shallow(-TRIANGLE, balanced),
        ),
        "rows turned round, c = (1, 2, 3)": (
            shallow(TRIANGLE, unequal),
            shallow(-TRIANGLE, unequal),
        ),
        "one bit of one weight": (net, jr.Shallow(net.inner, jnp.asarray(bit))),
    }


def equality_rows(config: Config) -> tuple[Table, dict[str, dict[str, Any]]]:
    """Every pair: tolerance, proof, hash, exact distance of the functions."""
    rows, found = [], {}
    for name, (a, b) in pairs_of(config).items():
        close, exact = equal(a, b), equal(a, b, exact=True)
        same_hash = hash(canonical_exact(a)) == hash(canonical_exact(b))
        # rows that equal takes as parallel are parallel here, too
        far = distance(a, b, tolerance=close.tolerance or None)
        found[name] = {
            "equal": bool(close),
            "exact": bool(exact),
            "hash": same_hash,
            "distance": float(far),
            "error": float(far.error),
        }
        yes = lambda answer: "yes" if answer else "no"
        rows.append(
            (
                name,
                yes(close),
                f"{close.defect / close.scale:.1e}",
                yes(exact),
                yes(same_hash),
                f"{float(far):.2e}",
                f"{float(far.error):.0e}",
            )
        )
    table = Table(
        columns=(
            "second network",
            "equal, with tolerance",
            "defect/scale",
            "equal, proved",
            "same hash",
            "distance of functions",
            "± rounding",
        ),
        rows=rows,
        caption="Is it the same function? For the distance, rows count as parallel "
        "up to the tolerance.",
    )
    return table, found


# %% [markdown]
# ## How many neurons does it need?
#
# With h kinks: h, h + 1 or h + 2 for one output. `minimal_network` returns one of
# least width; `flip_fibre` all with one neuron per kink.


# %%
def width_rows() -> tuple[Table, list[dict[str, Any]]]:
    """Worked examples: neurons given, kinks, neurons needed, representations."""
    examples = {
        "x_{1}": shallow([[1, 0], [-1, 0]], [1, -1]),
        "3ρ(x_{1}) + ρ(−x_{1})": shallow([[1, 0], [-1, 0]], [3, 1]),
        "|x_{1}| + x_{2}": shallow([[1, 0], [-1, 0], [0, 1], [0, -1]], [1, 1, 1, -1]),
        "|x_{1}| + |x_{2}| + x_{1} + 2x_{2}": shallow(
            [[1, 0], [0, 1], [0, -1]], [2, 3, -1]
        ),
        "triangle, c = (1, 1, 1)": shallow(TRIANGLE, [1, 1, 1]),
        "triangle, c = (1, 2, 3)": shallow(TRIANGLE, [1, 2, 3]),
        "triangle and its opposite": shallow(
            np.concatenate([TRIANGLE, -TRIANGLE]), [1, 1, 1, -1, -1, -1]
        ),
    }
    rows, found = [], []
    for name, net in examples.items():
        form = canonical(net)
        least = minimal_width(form)
        small, flips = minimal_network(form), flip_fibre(form)
        copies = [with_signs(form, signs) for signs in flips]
        found.append(
            {
                "name": name,
                "given": net.width,
                "kinks": len(form.normals),
                "width": least.width,
                "flips": len(flips),
                "same": bool(equal(net, small)) and all(equal(net, x) for x in copies),
            }
        )
        rows.append(
            (
                name,
                f"{net.width}",
                f"{len(form.normals)}",
                f"{least.width}",
                f"{len(flips)}",
                "yes" if found[-1]["same"] else "no",
            )
        )
    return Table(
        columns=(
            "function",
            "neurons given",
            "kinks h",
            "neurons needed",
            "networks of width h",
            "all the same function",
        ),
        rows=rows,
        caption="Least width, and representations up to permutation and rescaling. "
        "The zero function gets one neuron as a network.",
    ), found


# %% [markdown]
# ## Into the restricted set
#
# A network with biases becomes one in N* with two more inputs, fed with 1 and -1, and
# one more neuron. Merging joins neurons of one direction.


# %%
def embedding(config: Config) -> tuple[Table, dict[str, Any]]:
    """A network with biases and its image in N*, compared on random points."""
    rng = np.random.default_rng(config.seed + 1)
    k, d = config.neurons, 2
    dtype = jnp.zeros(()).dtype
    inner, outer = rng.standard_normal((k, d)), rng.standard_normal(k)
    biases = rng.standard_normal(k) / 2
    net = jr.DenseNetwork(
        (jnp.asarray(inner, dtype), jnp.asarray(outer, dtype)),
        (jnp.asarray(biases, dtype), jnp.asarray(0.25, dtype)),
    )
    inside = to_restricted(net)
    back = from_restricted(inside)
    x = jnp.asarray(rng.uniform(-1, 1, (1000, d)), dtype)
    twice = shallow([[1, 2], [2, 4], [0, 1]], [1, -0.5, 3])
    joined = merge(twice)
    found = {
        "network": net,
        "inside": inside,
        "member": bool(is_restricted(inside)),
        "difference": float(jnp.abs(net(x) - inside(extend_inputs(x))).max()),
        "back": bool(equal(net, back)),
        "merged": bool(equal(twice, joined)),
        "left": int(jnp.sum(jnp.any(joined.inner != 0, axis=1))),
        "unmerged": is_restricted(twice, "N'").reasons,
    }
    return Table(
        columns=("step", "before", "after", "check"),
        rows=[
            (
                "biases to N*",
                f"{k} neurons, {d} inputs",
                f"{inside.width} neurons, {inside.in_size} inputs",
                f"largest difference on 1000 points {found['difference']:.1e}",
            ),
            (
                "back from N*",
                f"{inside.width} neurons",
                f"{back.weights[0].shape[0]} neurons with biases",
                "equal" if found["back"] else "not equal",
            ),
            (
                "merge",
                "3 neurons, two of one direction",
                f"{found['left']} nonzero neuron, a pair cancelled",
                "equal" if found["merged"] else "not equal",
            ),
        ],
        caption="Transformations that keep the function.",
    ), found


# %% [markdown]
# ## Read off from gradients
#
# Someone answers with the gradient at points we choose. Kinks are found on one random
# great circle, each from its jump of rank one; random points check the result.


# %%
def recovery_rows(config: Config) -> tuple[Table, list[dict[str, Any]]]:
    """Random networks and what gradients tell of them."""
    rng = np.random.default_rng(config.seed + 2)
    rows, found = [], []
    for d, k in config.sizes:
        net = gaussian(rng, k, d)
        answer = recover(gradient_queries(net), d, key=jax.random.key(config.seed))
        # two neurons per kink: no search for signs
        copy = with_signs(answer.form, np.zeros(len(answer.form.normals), int))
        same = equal(net, copy, tolerance=10 * answer.form.tolerance)
        found.append(
            {
                "d": d,
                "k": k,
                "kinks": len(answer.form.normals),
                "mismatch": answer.mismatch,
                "queries": answer.queries,
                "equal": bool(same),
                "defect": same.defect / same.scale,
            }
        )
        rows.append(
            (
                f"{d}",
                f"{k}",
                f"{answer.queries}",
                f"{len(answer.form.normals)}",
                f"{answer.mismatch / answer.scale:.1e}",
                "yes" if found[-1]["equal"] else "no",
            )
        )
    return Table(
        columns=("d", "k", "gradients asked", "kinks found", "mismatch", "recovered"),
        rows=rows,
        caption="Networks recovered from gradients; the mismatch is at points that the "
        "recovery did not use, relative to the largest entry seen.",
    ), found


# %% [markdown]
# ## Figures


# %%
def draw(config: Config, biased: jr.DenseNetwork) -> dict[str, Any]:
    """Cells of a network, of one with biases; of two networks and their difference."""
    pairs = pairs_of(config)
    net = pairs["one bit of one weight"][0]
    plane, (left, right) = figures.panels(2)
    count = len(cells(net))
    figures.plot_cells(net, title=f"No biases: {count} cells", ax=left)
    figures.plot_cells(biased, title="With biases", ax=right)
    a, b = pairs["rows turned round, c = (1, 2, 3)"]
    flip, axes = figures.panels(3, width=4.4)
    figures.plot_cells(a, title="c = (1, 2, 3)", ax=axes[0])
    figures.plot_cells(b, title="rows turned round", ax=axes[1])
    figures.plot_cells((a, b), title="difference: linear", ax=axes[2])
    return {"canonical_cells": plane, "canonical_flip": flip}


# %% [markdown]
# ## All of it


# %%
def main(config: Config) -> dict[str, Any]:
    """Runs everything; returns the numbers behind the tables."""
    config = config.sized()
    say = cli.start(config.require)
    equality, same = equality_rows(config)
    widths, needed = width_rows()
    say(f"{len(same)} pairs, {len(needed)} widths")
    moved, embedded = embedding(config)
    recovered, answers = recovery_rows(config)
    say(f"{len(answers)} networks recovered from gradients")
    pictures = cli.illustrate(config, draw(config, embedded["network"]))
    tables = (equality, widths, moved, recovered)
    where = cli.publish(
        config,
        say,
        "canonical_form",
        "The function behind the weights",
        story(config, tables, pictures),
        lead="Canonical forms of shallow ReLU networks.",
    )
    return {
        "equality": same,
        "widths": needed,
        "embedding": embedded,
        "recovery": answers,
        "cells": len(cells(pairs_of(config)["one bit of one weight"][0])),
        "expected cells": num_cells(config.neurons, 2),
        "page": where,
    }


def story(
    config: Config, tables: tuple[Table, ...], pictures: Mapping[str, bytes]
) -> list[Any]:
    """The page's text, tables and figures."""
    equality, widths, moved, recovered = tables
    return [
        Text(
            "A shallow ReLU network without biases is f(x) = Lx + Σ_{H} "
            "κ_{H}|⟨n_{H}, x⟩| in exactly one way. Equal forms mean equal functions, "
            "however the neurons are ordered, scaled, split or turned round."
        ),
        equality,
        Picture(
            pictures["canonical_cells"],
            f"Cells of {config.neurons} neurons and the gradient on each. Without "
            "biases the kinks are lines through 0 and h of them make 2h cells.",
            "Cells and gradients of two networks.",
        ),
        Picture(
            pictures["canonical_flip"],
            "Turning every row round changes the function by the linear map −CA: one "
            "gradient everywhere in the right panel. With c = (1, 1, 1) it is zero.",
            "A network, the one with rows turned round, their difference.",
        ),
        Heading("How many neurons?"),
        widths,
        Heading("The same function elsewhere"),
        moved,
        Heading("From gradients alone"),
        recovered,
        Heading("In three lines of Python"),
        Code(THREE_LINES),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
