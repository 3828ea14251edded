"""The Jacobian spectrum at initialisation, and the descent that it promises."""

# %% [markdown]
# For scikit-learn's handwritten digits: the singular values of a one-hidden-layer
# network's Jacobian at random weights beside what theory says they are, then gradient
# descent beside what that spectrum says it does. Prints tables; writes figures and one
# self-contained page.
#
#     python examples/quickstart.py [--quick] [--out DIR] [--seed N] [--require gpu]
#
# The network is $f(x) = v^\top \varphi(Wx)$ on unit rows $x_i$: $W$ standard normal and
# trained, $v$ fixed, half of it $+1/\sqrt k$ and half $-1/\sqrt k$. $J$ is the
# derivative of $(f(x_1), \dots, f(x_n))$ in $W$; $E[JJ^\top] = \|v\|^2\,\Sigma(X)$, and
# $\lambda(X)$ is the smallest eigenvalue of $\Sigma(X)$.

# %%
import contextlib
import dataclasses
import io
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jrandom
import lineax as lx
import numpy as np

import jaxrelu as jr
from jaxrelu import cli, figures, theory
from jaxrelu.activations import activation, dual_kernel
from jaxrelu.report import Code, Heading, Picture, Table, Text, number
from jaxrelu.spectra import eigvalsh, spectrum


# Spectra reach over many orders of magnitude. (TPUs have no float64 decompositions.)
jax.config.update("jax_enable_x64", jax.default_backend() != "tpu")

NAMES = {"relu": "ReLU", "softplus": "softplus"}

THREE_LINES = """\
import jax, jaxrelu as jr

data = jr.data.digits()
net = jr.Shallow.init(jax.random.key(0), d=64, k=512, activation="relu")
print(jr.spectrum(jr.jacobian(net, data.inputs)))
"""


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """Jacobian spectra at initialisation, and gradient descent, beside theory."""

    QUICK: ClassVar = {
        "n": 100,
        "widths": (32, 128),
        "repeats": 2,
        "shifts": 4,
        "train_n": 20,
        "steps": 200,
        "certified": (2, 4096, 100),
    }

    seed: int = 0
    """Seed of every random number."""
    n: int = 300
    """Digits whose spectra are computed."""
    widths: tuple[int, ...] = (64, 256, 1024, 4096)
    """Hidden neurons k; the descents leave out the first."""
    repeats: int = 5
    """Networks per width where an average is shown."""
    shifts: int = 7
    """Points s at which eigenvalues are counted."""
    train_n: int = 40
    """Digits to fit by gradient descent."""
    steps: int = 2000
    """Steps of gradient descent."""
    certified: tuple[int, int, int] = (3, 16384, 300)
    """Samples, width and steps of the descent with a certificate."""


# %% [markdown]
# ## What theory says of the spectrum
#
# From certain to approximate:
#
# 1. always $\sigma_{\max}(J) \le B_1 \|v\| \|X\|$; and once $k$ passes a threshold,
#    $\sigma_{\min}(J) \ge \|v\| \sqrt{\lambda(X)/2}$ with probability $1 - 1/n$;
# 2. as $k \to \infty$ the singular values tend to those of $\|v\|\,\Sigma(X)^{1/2}$;
# 3. for finite $k$ and the data as they are: a law of Marchenko-Pastur type
#    (`theory.finite_width_count`); for infinite $k$ and random data: sums of such laws
#    (`theory.sphere_density`).


# %% [markdown]
# ## Measuring it


# %%
def init(name: str, key: jax.Array, d: int, k: int, norm: float = 1.0) -> jr.Shallow:
    """Oymak & Soltanolkotabi's initialisation."""
    return jr.Shallow.init(key, d=d, k=k, activation=name, outer_norm=norm)


def covariance_spectrum(name: str, inputs: Any) -> Any:
    """Eigenvalues of Σ(X)."""
    sigma = jr.neural_covariance(activation(name), inputs)
    return spectrum(lx.MatrixLinearOperator(sigma, lx.symmetric_tag))


def spectra_at_init(config: Config, name: str, inputs: Any, key: Any) -> dict[str, Any]:
    """Spectra of several widths, and the theory's numbers for them."""
    limit = covariance_spectrum(name, inputs)
    found = {"limit": limit, "spectra": {}, "lemmas": {}}
    for k in config.widths:
        net = init(name, key, inputs.shape[1], k)
        found["spectra"][k] = spectrum(jr.jacobian(net, inputs))
        lemma = theory.initial_jacobian(net, inputs, limit.values[-1])
        found["lemmas"][k] = lemma
    return found | {"upper": float(theory.jacobian_norm_bound(net, inputs))}


def finite_width(config: Config, name: str, inputs: Any, key: Any) -> dict[str, Any]:
    """How far networks of finite width are from the infinite one, and the law's say."""
    values = np.asarray(covariance_spectrum(name, inputs).values)
    low, high = np.log10(values[[-1, 0]])
    shifts = np.logspace(low - 0.5, high - 0.5, config.shifts)
    gates = dual_kernel(activation(name), inputs, derivative=1)
    sigma = gates * (inputs @ inputs.T)
    base, size = counted(values, shifts), float(jnp.linalg.norm(sigma))
    found = {"shifts": shifts, "counts": {}, "laws": {}, "distances": {}}
    for k in config.widths:
        counts, distances = [], []
        for sub in jrandom.split(jrandom.fold_in(key, k), config.repeats):
            gram = jr.gram(jr.jacobian(init(name, sub, inputs.shape[1], k), inputs))
            counts.append(counted(eigvalsh(gram), shifts) / base)
            distances.append(float(jnp.linalg.norm(gram - sigma)) / size)
        found["counts"][k] = mean_and_error(counts)
        found["distances"][k] = mean_and_error(distances)
        law = [theory.finite_width_count(gates, inputs, k, s) for s in shifts]
        found["laws"][k] = np.array(law) / base
    return found


def counted(values: Any, shifts: np.ndarray) -> np.ndarray:
    """`theory.smoothed_count` of host arrays."""
    values = jnp.asarray(values)
    return np.asarray(theory.smoothed_count(values, jnp.asarray(shifts, values.dtype)))


def mean_and_error(draws: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the first axis, and its standard error."""
    draws = np.asarray(draws)
    return draws.mean(axis=0), draws.std(axis=0, ddof=1) / len(draws) ** 0.5


def explained(found: Mapping[str, Any]) -> float:
    """Share of the narrowest networks' deficit that the law predicts.

    Over the s at which the deficit is more than three standard errors.
    """
    k = min(found["laws"])
    mean, error = found["counts"][k]
    clear = 1 - mean > 3 * error
    if not clear.any():
        return float("nan")
    return float(np.sum((1 - found["laws"][k])[clear]) / np.sum((1 - mean)[clear]))


# %% [markdown]
# ## Descending
#
# If $J$ stayed what it is at $W_0$, the residual would be
# $r_t = (I - \eta J_0 J_0^\top)^t r_0$: each component of $r_0$ along an eigenvector of
# $J_0 J_0^\top$ decays geometrically at its own rate, the slowest one at
# $1 - \eta\sigma_{\min}^2$.


# %%
def linearised(start: Any, residual: Any, eta: float, steps: int) -> np.ndarray:
    r"""$\|(I - \eta J_0J_0^\top)^t r_0\| / \|r_0\|$ for t = 0, …, steps."""
    weights = np.asarray(start.left).T @ np.asarray(residual)
    rates = np.abs(1 - eta * np.asarray(start.values) ** 2)
    powers = rates[:, None] ** np.arange(steps + 1)[None]
    return np.sqrt(((weights[:, None] * powers) ** 2).sum(axis=0) / (weights @ weights))


def descend(
    data: jr.data.Dataset, net: jr.Shallow, steps: int, eta: float | None = None
) -> dict[str, Any]:
    """One run beside what J at its start predicts; η = 1/σ_max² unless given."""
    loss = jr.SquaredLoss(data)
    start = spectrum(jr.jacobian(net, data.inputs), vectors=True)
    eta = 1 / float(start.values[0]) ** 2 if eta is None else eta
    residual = loss.residual(net)
    run = jr.gradient_descent(loss, net, learning_rate=eta, num_steps=steps)
    slowest = 1 - eta * float(start.values[-1]) ** 2
    end = jr.jacobian(run.network, data.inputs)
    step = -eta * end.rmv(loss.residual(run.network)).reshape(net.inner.shape)
    moved = jr.Shallow(run.network.inner + step, net.outer, net.activation)
    return {
        "eta": eta,
        "measured": np.sqrt(2 * np.asarray(run.losses)) / np.linalg.norm(residual),
        "predicted": linearised(start, residual, eta, steps),
        "slowest": slowest ** np.arange(steps + 1),
        "start": start,
        "end": spectrum(end),
        "flips": int(theory.flips(run.network, moved, data.inputs).sum()),
    }


def decay(curve: np.ndarray) -> float:
    """Decrease of the logarithm per 1000 steps, over the last quarter of a curve."""
    last = len(curve) // 4
    return 1000 * float(np.log(curve[-last - 1] / curve[-1])) / last


def far_apart(data: jr.data.Dataset, count: int) -> jr.data.Dataset:
    """``count`` samples, each chosen to be the least parallel to those before it."""
    inputs = np.asarray(data.inputs)
    chosen = [0]
    while len(chosen) < count:
        chosen.append(int(np.argmin(np.abs(inputs @ inputs[chosen].T).max(axis=1))))
    return data.subset(np.array(chosen))


# %% [markdown]
# ## Telling it


# %%
def spectrum_table(found: Mapping[str, Any]) -> Table:
    """Both ends of every spectrum beside what theory says."""
    rows = []
    for name, part in found.items():
        top, bottom = np.sqrt(np.asarray(part["limit"].values)[[0, -1]])
        for k, measured in part["spectra"].items():
            values, error, lemma = measured.values, measured.error, part["lemmas"][k]
            margin = lemma.effective_width / lemma.required_width
            rows.append(
                (
                    NAMES[name],
                    f"{k}",
                    number(values[0], error[0]),
                    number(top),
                    number(part["upper"]),
                    number(values[-1], error[-1]),
                    number(bottom),
                    number(lemma.sigma_min),
                    number(margin, digits=2),
                )
            )
    columns = (
        *("φ", "k", "σ_{max}", "k = ∞", "at most"),
        *("σ_{min}", "k = ∞", "at least", "margin"),
    )
    caption = (
        "Ends of the Jacobian's spectrum at initialisation, ± the rounding bound. "
        "**k = ∞**: √λ_{max}(Σ(X)) and √λ(X), limits. **at most**: B_{1}‖v‖‖X‖, a "
        "guarantee. **at least**: ‖v‖√(λ(X)/2), guaranteed with probability 1 − 1/n "
        "where **margin** (k over the width the lemma asks for) reaches 1. Method: "
        f"{measured.method}."
    )
    return Table(columns, rows, caption)


def descent_table(runs: Mapping[tuple[str, int], Any], reports: Any) -> Table:
    """Every run beside its predictions."""
    rows = []
    for (name, k), run in runs.items():
        ends = (float(run["start"].values[-1]), float(run["end"].values[-1]))
        shown = (
            *(run["eta"], run["measured"][-1], run["predicted"][-1]),
            *(decay(run["measured"]), decay(run["predicted"])),
            *(-1000 * np.log1p(-run["eta"] * sigma**2) for sigma in ends),
        )
        rows.append(
            (
                NAMES[name],
                f"{k}",
                *(number(x, digits=3) for x in shown),
                f"{run['flips']}" if name == "relu" else "–",
                number(reports[name, k].margin, digits=2),
            )
        )
    columns = (
        *("φ", "k", "η = 1/σ_{max}^{2}", "‖r_{T}‖/‖r_{0}‖", "by J_{0}"),
        *("decay", "by J_{0}", "by σ_{min}(J_{0})", "by σ_{min}(J_{T})", "flips"),
        "margin",
    )
    caption = (
        "Gradient descent on the real labels. **by J_{0}**: a prediction, exact if the "
        "Jacobian stayed what it is at the start. **decay**: decrease of ln‖r_{t}‖ per "
        "1000 steps over the last quarter of the run; **by σ_{min}**: that of the "
        "slowest component alone. **flips**: ReLUs that switch in one step at the end, "
        "over all samples. **margin**: of the weakest condition of the certificate; "
        "below 1 convergence is not guaranteed for this network."
    )
    return Table(columns, rows, caption)


def condition_table(verdict: theory.Report) -> Table:
    """What the certificate needed."""
    rows = [
        (
            c.name.replace("σ_min", "σ_{min}"),
            number(c.lhs),
            c.relation,
            number(c.rhs),
            number(c.margin, digits=3),
        )
        for c in verdict.conditions
    ]
    caption = f"{verdict.title}: {'holds' if verdict.holds else 'does not hold'}."
    return Table(("condition", "left", "", "right", "margin"), rows, caption)


def spectrum_figure(found: Mapping[str, Any]) -> Any:
    """Singular values of every width beside the limit and the bounds."""
    figure, axes = figures.panels(len(found), width=5)
    for ax, (name, part) in zip(axes, found.items(), strict=True):
        lower = float(next(iter(part["lemmas"].values())).sigma_min)
        figures.plot_spectrum(
            {f"$k = {k}$": measured for k, measured in part["spectra"].items()},
            predicted={r"$k = \infty$": np.sqrt(np.asarray(part["limit"].values))},
            guaranteed={
                r"upper bound $B_1\|v\|\|X\|$": part["upper"],
                r"lower bound $\|v\|\sqrt{\lambda(X)/2}$": lower,
            },
            title=NAMES[name],
            ax=ax,
        )
    return figure


def width_figure(found: Mapping[str, Any]) -> Any:
    """Finite width against the law, and the rate at which it goes away."""
    figure, axes = figures.panels(len(found) + 1, width=3.9)
    for ax, (name, part) in zip(axes, found.items(), strict=False):
        figures.plot_comparison(
            part["shifts"],
            {f"$k = {k}$": both for k, both in part["counts"].items()},
            predicted={f"$k = {k}$": law for k, law in part["laws"].items()},
            title=NAMES[name],
            xlabel="$s$",
            ylabel=r"$N_k(s) \,/\, N_\infty(s)$",
            ax=ax,
        )
    away = {
        NAMES[name]: np.array(list(part["distances"].values())).T
        for name, part in found.items()
    }
    figures.plot_scaling(
        list(next(iter(found.values()))["distances"]),
        {name: both[0] for name, both in away.items()},
        errors={name: both[1] for name, both in away.items()},
        title="distance from infinite width",
        xlabel="width $k$",
        ylabel=r"$\|JJ^\top - \Sigma\|_F \,/\, \|\Sigma\|_F$",
        ax=axes[-1],
    )
    return figure


def bulk_figure(inputs: Any, sphere: Any) -> Any:
    """Marchenko-Pastur laws, on data where they hold and on data where they do not."""
    n, d = inputs.shape
    sets = {"uniform on the sphere": sphere, "digits": inputs}
    figure, axes = figures.panels(len(NAMES) + 1, width=3.9)
    tiny = n * float(jnp.finfo(inputs.dtype).eps) * n  # rounding of the zeros
    gram = {name: np.array(eigvalsh(x.T @ x)) for name, x in sets.items()}
    figures.plot_density(
        {name: np.where(values > tiny, values, 0) for name, values in gram.items()},
        laws={
            "Marchenko-Pastur": theory.bulk_density(
                n, d, scale=1.0, shift=0.0, mass=1.0
            )
        },
        title=r"$X^\top X$",
        bins=40,
        ax=axes[0],
    )
    for ax, name in zip(axes[1:], NAMES, strict=True):
        figures.plot_density(
            {label: covariance_spectrum(name, x).values for label, x in sets.items()},
            laws={
                "two Marchenko-Pastur bulks": theory.sphere_density(
                    activation(name), n, d
                )
            },
            title=rf"$\Sigma(X)$, {NAMES[name]}",
            bins=50,
            ax=ax,
        )
    return figure


def descent_figure(
    runs: Mapping[tuple[str, int], Any], verdict: Any, sure: Any, bound: Any
) -> Any:
    """Residuals beside their predictions; last the run with a certificate."""
    figure, axes = figures.panels(len(NAMES) + 1, width=3.9)
    for ax, name in zip(axes, NAMES, strict=False):
        own = {f"$k = {k}$": run for (n, k), run in runs.items() if n == name}
        last = list(own)[-1]
        slowest = rf"$(1 - \eta\sigma_{{\min}}^2)^t$, {last}"
        figures.plot_trajectory(
            {label: run["measured"] for label, run in own.items()},
            predicted={label: run["predicted"] for label, run in own.items()}
            | {slowest: own[last]["slowest"]},
            title=NAMES[name],
            ax=ax,
        )
    promise = "guaranteed" if verdict.holds else "not guaranteed"
    figures.plot_trajectory(
        {"measured": sure["measured"]},
        predicted={"measured": sure["predicted"]},
        guaranteed={rf"{promise}: $(1 - \eta\alpha^2/2)^{{t/2}}$": bound},
        title=f"softplus, margin {float(verdict.margin):.2f}",
        ax=axes[-1],
    )
    return figure


# %% [markdown]
# ## All of it


# %%
def main(config: Config) -> dict[str, Any]:
    """Runs everything; returns the numbers behind the tables."""
    config = config.sized()
    say = cli.start(config.require)
    key = jrandom.key(config.seed)
    pick, weights, draws, points = jrandom.split(key, 4)
    everything = jr.data.digits()
    data = everything.subset(jrandom.permutation(pick, everything.n)[: config.n])
    inputs, d = data.inputs, data.d
    say(f"{data!r}")

    spectra, widths = {}, {}
    for name in NAMES:
        spectra[name] = spectra_at_init(config, name, inputs, weights)
        say(f"{NAMES[name]}: spectra at initialisation, {len(config.widths)} widths")
        widths[name] = finite_width(config, name, inputs, draws)
        say(f"{NAMES[name]}: {config.repeats} networks per width against the law")

    few, runs, reports = data.subset(config.train_n), {}, {}
    for name in NAMES:
        for k in config.widths[1:]:
            net = init(name, weights, d, k)
            runs[name, k] = descend(few, net, config.steps)
            reports[name, k] = theory.certify_convergence(net, few)
            say(f"{NAMES[name]}, k = {k}: {config.steps} steps of gradient descent")

    samples, k, steps = config.certified
    easy, net = far_apart(everything, samples), init("softplus", weights, d, k, 5.0)
    verdict = theory.certify_convergence(net, easy)
    sure = descend(easy, net, steps, float(jnp.asarray(verdict.prediction.step_size)))
    bound = verdict.prediction.residual_bound(jnp.arange(steps + 1))
    bound = np.asarray(bound) / float(verdict.prediction.initial_residual)
    say(f"softplus, k = {k}: {steps} steps with a certificate")

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(THREE_LINES, {})
    sphere = jr.data.sphere(points, config.n, d)
    drawn = {
        "spectrum": spectrum_figure(spectra),
        "width": width_figure(widths),
        "bulk": bulk_figure(inputs, sphere),
        "descent": descent_figure(runs, verdict, sure, bound),
    }
    pictures = cli.illustrate(config, drawn)
    say("figures")

    tables = {
        "spectrum": spectrum_table(spectra),
        "descent": descent_table(runs, reports),
        "certificate": condition_table(verdict),
    }
    share = {name: explained(part) for name, part in widths.items()}
    where = cli.publish(
        config,
        say,
        "quickstart",
        "The Jacobian spectrum at initialisation, and the descent that it promises",
        story(config, tables, pictures, share, verdict, printed.getvalue()),
        lead=f"{config.n} handwritten digits of 8 × 8 pixels, labels even or odd.",
        data=repr(data),
        key=f"jax.random.key({config.seed})",
    )
    return {
        "spectra": spectra,
        "widths": widths,
        "runs": runs,
        "certificate": verdict,
        "certified_run": sure,
        "certified_bound": bound,
        "page": where,
    }


def story(
    config: Config,
    tables: Mapping[str, Table],
    pictures: Mapping[str, bytes],
    share: Mapping[str, float],
    verdict: theory.Report,
    printed: str,
) -> list[Any]:
    """The page's text, tables and figures."""
    samples, k, _ = config.certified
    shares = " and ".join(f"{100 * x:.0f} % ({NAMES[n]})" for n, x in share.items())
    certified = (
        "the inequalities of the convergence theorem hold for this very network, and "
        "with η = 1/(2β^{2}) no residual can lie above the dotted line of the last "
        "panel. The guarantee is far from tight."
        if verdict.holds
        else "and yet an inequality of the convergence theorem fails for this network "
        "(another seed or a larger width may do): nothing is guaranteed."
    )
    return [
        Text(
            "The network is f(x) = v^{⊤}φ(Wx) on unit vectors x. W has k rows, is "
            "standard normal at the start and is trained; v is fixed, half of it 1/√k "
            "and half −1/√k. J is the derivative of all outputs with respect to W. The "
            "mean of JJ^{⊤} over the random W is ‖v‖^{2}Σ(X), and λ(X) is the smallest "
            "eigenvalue of Σ(X). In the figures solid lines and points are measured, "
            "dashed ones predicted under assumptions, dotted ones guaranteed."
        ),
        Heading("The spectrum beside its limit and its bounds"),
        tables["spectrum"],
        Picture(
            pictures["spectrum"],
            "All singular values of J in descending order. Bands are rounding bounds, "
            "too thin to see where the numbers are good. The lower bound is promised "
            "only to networks much wider than these (margin ≥ 1). Softplus reaches its "
            "limit at small width; ReLU, whose derivative jumps, needs more neurons.",
            "Singular values against index for several widths, two panels.",
        ),
        Heading("What finite width costs"),
        Text(
            "JJ^{⊤} is a mean of k independent matrices, one per neuron, so at finite "
            "k it has a law of Marchenko–Pastur type around Σ(X). The two are compared "
            "through N(s) = Σ_{i} λ_{i}/(λ_{i} + s), a soft count of the eigenvalues "
            f"above s. For k = {min(config.widths)} the law accounts for {shares} of "
            "what is missing from the infinite network. It assumes that what one "
            "neuron sees averages out over the inputs. The digits share a direction, "
            "which switches a ReLU neuron on or off for most of them at once; there "
            "the law falls short."
        ),
        Picture(
            pictures["width"],
            "Left and middle: N(s) at width k over N(s) at infinite width; points are "
            f"means over {config.repeats} networks with standard errors, dashed lines "
            "the law. Right: distance of JJ^{⊤} from its mean, with fitted exponents; "
            "independent neurons give −1/2.",
            "Counts of eigenvalues against s, and a power law in the width.",
        ),
        Heading("Marchenko–Pastur, where it holds and where it does not"),
        Text(
            "For points uniform on the sphere X^{⊤}X follows the Marchenko–Pastur law "
            "and Σ(X) has two such bulks, from the linear and the quadratic part of "
            "its kernel. The digits have the same n and d and no bulk at all: their "
            "eigenvalues spread over orders of magnitude, and λ(X) has to be computed "
            "from the data."
        ),
        Picture(
            pictures["bulk"],
            "Eigenvalues of X^{⊤}X and of Σ(X), the limit of infinite width. Dashed: "
            "limiting laws for the sphere, with no fitted number.",
            "Histograms of eigenvalues for sphere data and digits, three panels.",
        ),
        Heading("Gradient descent at the rate the spectrum promises"),
        Text(
            f"{config.train_n} of the digits, η = 1/σ_{{max}}(J_{{0}})^{{2}}. If J "
            "stayed what it is at the start, the residual would be exactly "
            "(I − ηJ_{0}J_{0}^{⊤})^{t}r_{0}. It does move, the less the wider the "
            "network, and less for softplus than for ReLU. ReLU lags behind even the "
            "rate of σ_{min}(J_{T}): some of its neurons sit on the kink of a sample "
            "and switch at every step, so that no single Jacobian describes a step. "
            "The convergence theorem asks for more than these networks have where the "
            "margin is below 1, and then nothing is guaranteed."
        ),
        tables["descent"],
        Picture(
            pictures["descent"],
            "Left and middle: residuals (wide, pale) and what the Jacobian at the "
            "start predicts (dashed, same colour). Right: a small case with a "
            "certificate.",
            "Residual norm against step, three panels.",
        ),
        Heading("With a certificate"),
        Text(f"{samples} digits far apart, softplus, k = {k}, ‖v‖ = 5: {certified}"),
        tables["certificate"],
        Heading("The same thing in three lines of Python"),
        Code(THREE_LINES),
        Text("prints (run with this page):"),
        Code(printed),
    ]


if __name__ == "__main__":
    cli.run(main, Config)
