r"""Fitting $v^\top\varphi(Wx)$ to data, many at once: descent, and a second-order test.

Only W trains. Rows with mask 0 are no samples: they let problems with different n share
one program, and change nothing else.

`descend` is `jaxrelu.gradient_descent` for this one model, without records. It has a
loop of its own because budget and tolerance are numbers here, so that one program
serves every grid; because that program compiles sooner, and there is one for each
shape; and because a run ends as diverged where its residual has grown 10⁸-fold, long
before it overflows.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrelu._devices import Devices, over_devices
from jaxrelu._products import matmul
from jaxrelu.activations import AbstractActivation


_STEPS_PER_TEST = 16  # between looks at whether all runs have stopped
_BEYOND = 1e8  # a residual this many times the targets has diverged
_FIRST_DAMPING = 1e-3  # of Levenberg and Marquardt's, over the largest diagonal entry


class Problem(eqx.Module):
    """Data, start and outer weights of one run, or of a batch.

    Attributes:
        inputs: X, one sample a row; rows with mask 0 are zero.
        targets: y.
        mask: 1 for a sample, 0 for none.
        inner: W₀.
        outer: v.
    """

    inputs: Float[Array, "*b n d"]
    targets: Float[Array, "*b n"]
    mask: Float[Array, "*b n"]
    inner: Float[Array, "*b k d"]
    outer: Float[Array, "*b k"]


class Descended(NamedTuple):
    r"""Where gradient descent came to.

    Attributes:
        inner: W.
        residual: $\lVert r\rVert/\lVert y\rVert$ there.
        steps: taken.
        diverged: whether the residual grew beyond all bounds, or was not finite.
        path: $\sum_t\lVert W_{t+1}-W_t\rVert_F$.
    """

    inner: Float[Array, "*b k d"]
    residual: Float[Array, "*b"]
    steps: Int[Array, "*b"]
    diverged: Bool[Array, "*b"]
    path: Float[Array, "*b"]


def residual_of(
    act: AbstractActivation, problem: Problem, inner: Float[Array, "k d"]
) -> tuple[Float[Array, " n"], Float[Array, "n k"]]:
    r"""$r = \varphi(XW^\top)v - y$, and the pre-activations $XW^\top$."""
    z = matmul(problem.inputs, inner.T)
    return problem.mask * (matmul(act(z), problem.outer) - problem.targets), z


def slopes_of(
    act: AbstractActivation, problem: Problem, z: Float[Array, "n k"]
) -> Float[Array, "n k"]:
    r"""$D_{il} = v_l\varphi'(z_{il})$: row i of the Jacobian is $D_i\otimes x_i$."""
    return act.derivative(z) * problem.outer[None]


def gram_of(inputs: Float[Array, "n d"], slopes: Float[Array, "n k"]) -> Array:
    r"""$JJ^\top = XX^\top \circ DD^\top$; $2n^2(k+d)$ operations."""
    return matmul(inputs, inputs.T) * matmul(slopes, slopes.T)


def step_size(problem: Problem) -> Float[Array, ""]:
    r"""$\eta = n/(\lVert y\rVert^2\lVert X\rVert^2)$, with the spectral norm of X."""
    n = jnp.sum(problem.mask)
    norm = jnp.linalg.norm(problem.inputs, 2)
    return n / (jnp.sum(problem.targets**2) * norm**2)


def descend(
    act: AbstractActivation,
    problems: Problem,
    rates: Float[Array, " b"],
    tolerance: Float[Array, ""],
    max_steps: Int[Array, ""],
) -> Descended:
    """Gradient descent for a batch, every run until it has fitted or diverged."""
    sizes = jax.vmap(jnp.linalg.norm)(problems.targets)

    def look(problem, inner):
        r, z = residual_of(act, problem, inner)
        return r, z, jnp.linalg.norm(r)

    def is_going(misfit):
        return (misfit >= tolerance) & (misfit <= _BEYOND)

    def step(_, state):
        def one(problem, rate, size, inner, _, steps, path):
            r, z, norm = look(problem, inner)
            going = is_going(norm / size) & (steps < max_steps)
            moved = matmul((r[:, None] * slopes_of(act, problem, z)).T, problem.inputs)
            moved = jnp.where(going, rate * moved, 0)
            length = jnp.sqrt(jnp.sum(moved**2))
            return (
                inner - moved,
                norm / size,
                steps + going.astype(steps.dtype),
                path + length,
            )

        return jax.vmap(one)(problems, rates, sizes, *state)

    def unfinished(state):
        _, misfit, steps, _ = state
        return jnp.any(is_going(misfit) & (steps < max_steps))

    def advance(state):
        return jax.lax.fori_loop(0, _STEPS_PER_TEST, step, state)

    zeros = jnp.zeros_like(sizes)
    misfit_at = lambda inner: jax.vmap(lambda p, w: look(p, w)[2])(problems, inner)
    first = misfit_at(problems.inner) / sizes
    start = (problems.inner, first, zeros.astype(jnp.int32), zeros)
    inner, _, steps, path = jax.lax.while_loop(unfinished, advance, start)
    misfit = misfit_at(inner) / sizes
    return Descended(inner, misfit, steps, ~(misfit <= _BEYOND), path)


class _Damped(NamedTuple):
    inner: Array
    damping: Array
    growth: Array
    steps: Array
    misfit: Array


def interpolate(
    act: AbstractActivation,
    problem: Problem,
    tolerance: Float[Array, ""],
    max_steps: Int[Array, ""],
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    r"""Levenberg-Marquardt in the space of samples, for one run.

    $W \leftarrow W - J^\top s$ with $(JJ^\top + \lambda I)s = r$, by Cholesky. The
    linear model leaves the residual $\lambda s$; $\lambda$ follows Nielsen's rule from
    the decrease over the predicted one, and a step that does not decrease is not taken.

    Returns:
        $\lVert r\rVert/\lVert y\rVert$ at the end, and steps tried.

    Cost: $2n^2(k+d) + n^3/3 + 4nkd$ operations a step.
    """
    size = jnp.linalg.norm(problem.targets)
    eye = jnp.eye(problem.targets.shape[0], dtype=size.dtype)

    def at(inner):
        r, z = residual_of(act, problem, inner)
        return r, slopes_of(act, problem, z)

    def unfinished(state):
        return (state.misfit >= tolerance * size) & (state.steps < max_steps)

    def step(state):
        r, slopes = at(state.inner)
        gram = gram_of(problem.inputs, slopes)
        factor = jnp.linalg.cholesky(gram + state.damping * eye)
        s = jax.scipy.linalg.cho_solve((factor, True), r)
        moved = state.inner - matmul((s[:, None] * slopes).T, problem.inputs)
        misfit = jnp.linalg.norm(residual_of(act, problem, moved)[0])
        left = state.damping * jnp.linalg.norm(s)
        gain = (state.misfit**2 - misfit**2) / (state.misfit**2 - left**2)
        good = (gain > 0) & (misfit < state.misfit)
        less = state.damping * jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
        pick = lambda new, old: jnp.where(good, new, old)
        return _Damped(
            pick(moved, state.inner),
            jnp.clip(pick(less, state.damping * state.growth), floor, ceiling),
            pick(jnp.full_like(size, 2), jnp.minimum(2 * state.growth, 2.0**20)),
            state.steps + 1,
            pick(misfit, state.misfit),
        )

    r, slopes = at(problem.inner)
    top = jnp.max(jnp.diagonal(gram_of(problem.inputs, slopes)))
    top = jnp.where(top > 0, top, 1.0)
    floor, ceiling = jnp.finfo(size.dtype).eps * top, top / jnp.finfo(size.dtype).eps
    two, none = jnp.full_like(size, 2), jnp.int32(0)
    start = _Damped(problem.inner, _FIRST_DAMPING * top, two, none, jnp.linalg.norm(r))
    end = jax.lax.while_loop(unfinished, step, start)
    return end.misfit / size, end.steps


class Budget(eqx.Module):
    r"""When runs stop, and how long their steps are.

    Attributes:
        tolerance: $\lVert r\rVert/\lVert y\rVert$ of a fit.
        gd_steps: most steps of gradient descent.
        lm_steps: most steps of Levenberg-Marquardt.
        step_scale: descent's step over `step_size`.
    """

    tolerance: Float[Array, ""]
    gd_steps: Int[Array, ""]
    lm_steps: Int[Array, ""]
    step_scale: Float[Array, ""]


@eqx.filter_jit
def fit_both(
    act: AbstractActivation, problems: Problem, budget: Budget, devices: Devices
) -> dict[str, Any]:
    """Both methods from the same starts; runs are split over devices."""

    def rows(shared, block):
        act, budget = shared
        rates = budget.step_scale * jax.vmap(step_size)(block)
        end = descend(act, block, rates, budget.tolerance, budget.gd_steps)
        misfit, steps = jax.vmap(
            lambda p: interpolate(act, p, budget.tolerance, budget.lm_steps)
        )(block)
        return {
            "gd_residual": end.residual,
            "gd_steps": end.steps,
            "gd_diverged": end.diverged,
            "lm_residual": misfit,
            "lm_steps": steps,
        }

    return over_devices(rows, devices)((act, budget), problems)
