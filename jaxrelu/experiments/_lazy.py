r"""The lazy regime: how far training moves the weights, and the Jacobian, by width."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxrelu._checks import check_choice, check_positive, check_size
from jaxrelu._devices import Devices, local_devices, over_devices
from jaxrelu._memory import require_bytes
from jaxrelu._power_law import PowerLaw, fit_power_law
from jaxrelu.activations import AbstractActivation, activation as activation_of
from jaxrelu.data import Dataset, random_signs, sphere
from jaxrelu.data._arguments import floating_dtype
from jaxrelu.experiments._fitting import (
    Problem,
    descend,
    gram_of,
    residual_of,
    slopes_of,
    step_size,
)
from jaxrelu.networks import inner_weights, outer_weights


_MEASURED = (
    "deviation",
    "flip_fraction",
    "distance",
    "linearised_distance",
    "path_ratio",
    "residual",
    "smallest",
)


class LazyScaling(eqx.Module):
    r"""What training by descent changed, for every width and seed.

    Attributes:
        widths: k, (w,).
        deviation: $\lVert J(W_T)-J(W_0)\rVert/\sigma_{\min}(J(W_0))$, spectral norms,
            (w, s).
        flip_fraction: share of the nk pre-activations that changed sign, (w, s).
        distance: $\lVert W_T - W_0\rVert_F$, (w, s).
        linearised_distance: $\sqrt{r_0^\top(J_0J_0^\top)^{-1}r_0}$, how far the closest
            weights are at which the linearised network fits, (w, s); infinite where
            $J(W_0)$ has no full row rank, as far as the precision tells.
        path_ratio: length of the path over `distance`, at least 1, (w, s).
        residual: $\lVert r_T\rVert/\lVert y\rVert$, (w, s).
        smallest: $\sigma_{\min}(J(W_0))$, (w, s); 0 where it cannot be told from 0.
        steps: of descent, (w, s).
        tolerance: of the residual.
        activation: name.
    """

    widths: Int[np.ndarray, " w"]
    deviation: Float[np.ndarray, "w s"]
    flip_fraction: Float[np.ndarray, "w s"]
    distance: Float[np.ndarray, "w s"]
    linearised_distance: Float[np.ndarray, "w s"]
    path_ratio: Float[np.ndarray, "w s"]
    residual: Float[np.ndarray, "w s"]
    smallest: Float[np.ndarray, "w s"]
    steps: Int[np.ndarray, "w s"]
    tolerance: float = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    @property
    def converged(self) -> np.ndarray:
        """Which runs fitted the data within their budget, (w, s)."""
        return self.residual < self.tolerance

    def exponent(self, quantity: str = "deviation") -> PowerLaw:
        r"""The exponent a in quantity $\propto k^a$, from all converged runs.

        A straight line through logarithms of all runs; the standard error is that of
        independent scatter about it.

        Raises:
            ValueError: another quantity, or fewer than two widths with converged runs
                at which it is positive.
        """
        check_choice(quantity, _MEASURED, "quantity")
        values = getattr(self, quantity)
        widths = np.broadcast_to(self.widths[:, None], values.shape)
        used = self.converged & (values > 0)
        if len(np.unique(widths[used])) < 2:
            msg = (
                f"{quantity} is positive for converged runs at "
                f"{len(np.unique(widths[used]))} widths; expected at least two. Raise "
                "max_steps, or pass more widths."
            )
            raise ValueError(msg)
        return fit_power_law(widths[used], values[used])


def lazy_scaling(
    key: PRNGKeyArray,
    widths: Sequence[int],
    *,
    n: int = 20,
    d: int = 20,
    seeds: int = 3,
    activation: AbstractActivation | str = "softplus",
    data: Dataset | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 100_000,
    dtype: Any = None,
    devices: Devices | None = None,
) -> LazyScaling:
    r"""Trains $v^\top\varphi(Wx)$ at several widths and measures what moved.

    Unit rows $x_i$ uniform on the sphere and $y = \pm 1$ at random, drawn once a seed
    and the same for all widths; v half $+$, half $-\lVert y\rVert/\sqrt{kn}$; $W_0$
    standard normal; descent on W with $\eta = n/(\lVert y\rVert^2\lVert X\rVert^2)$
    until $\lVert r\rVert/\lVert y\rVert$ is below ``tolerance``. The Jacobian never
    exists: $J J^\top = XX^\top\circ DD^\top$ with $D_{il} = v_l\varphi'(w_l\cdot x_i)$,
    and $J_T - J_0$ has the factor $D_T - D_0$.

    Expected where training is lazy: a deviation $\propto k^{-1/2}$ for smooth φ, and
    $\propto k^{-1/4}$ for ReLU, of whose signs a share $\propto k^{-1/2}$ flips; a
    distance that does not depend on k and approaches `linearised_distance`.

    Args:
        key: PRNG key; seed number s uses ``fold_in(key, s)``.
        widths: k, even.
        n: samples.
        d: input dimension.
        seeds: runs at each width.
        activation: φ.
        data: instead of random ones; then n and d are its own.
        tolerance: of the relative residual.
        max_steps: of descent.
        dtype: floating; None takes JAX's default. float64 is advised: a Gram matrix
            squares the condition number.
        devices: among which runs are split; None: all of this process.

    Raises:
        ValueError: sizes below 1, an odd width, targets that are not (n,).
        MemoryRefusedError: a width that does not fit.

    Cost: $4nkd$ operations a step and run, and $n^2(k+d) + n^3$ for the measurement.
    """
    act = activation_of(activation)
    dtype = floating_dtype(dtype if data is None or dtype else data.dtype)
    check_positive(tolerance, "tolerance")
    check_size(max_steps, "max_steps")
    seeds = check_size(seeds, "seeds")
    widths = [check_size(k, "width") for k in widths]
    if not widths or any(k % 2 for k in widths):
        msg = f"widths are {widths}; expected even numbers, at least one."
        raise ValueError(msg)
    if data is not None and data.targets.ndim != 1:
        msg = f"the targets have shape {data.targets.shape}; expected (n,)."
        raise ValueError(msg)
    if data is not None and not np.any(np.asarray(data.targets)):
        msg = "the targets are all 0, and residuals are relative to their norm."
        raise ValueError(msg)
    n, d = (n, d) if data is None else (data.n, data.d)
    n, d = check_size(n, "n"), check_size(d, "d")
    devices = local_devices() if devices is None else devices
    devices = devices[: max(1, min(len(devices), seeds))]
    rows = -(-seeds // len(devices)) * len(devices)
    index = np.minimum(np.arange(rows), seeds - 1)
    keys = jax.vmap(lambda s: jrandom.fold_in(key, s))(jnp.asarray(index))
    for k in widths:
        numbers = rows * (6 * n * k + 4 * k * d + 4 * n * n)
        require_bytes(
            numbers * dtype.itemsize, f"{rows} runs with k = {k}", "Lower k or seeds."
        )
    if data is None:
        drawn = _data(keys, n, d, dtype)
    else:
        inputs, targets = (
            jnp.asarray(np.broadcast_to(x, (rows, *np.shape(x))), dtype)
            for x in (data.inputs, data.targets)
        )
        drawn = inputs, targets
    found = []
    for k in widths:
        problems = _start(keys, drawn, k)
        if len(devices) > 1:  # from the host: no program is made to cut them
            problems = jax.tree.map(np.asarray, problems)
        limits = (jnp.asarray(tolerance, dtype), jnp.asarray(max_steps, jnp.int32))
        found.append(_train(act, problems, limits, devices))
    fields = {
        name: np.stack([np.asarray(one[name])[:seeds] for one in found])
        for name in found[0]
    }
    return LazyScaling(
        np.array(widths), **fields, tolerance=float(tolerance), activation=act.name
    )


# Seeds are drawn one after the other (`jax.lax.map`): the bits are those of `jax.vmap`,
# whose programs take twice as long to compile.


@eqx.filter_jit
def _data(keys: Any, n: int, d: int, dtype: Any) -> tuple[Array, Array]:
    """Inputs and labels of every seed, the same for all widths."""

    def one(key):
        for_inputs, for_labels, _ = jrandom.split(key, 3)
        inputs = sphere(for_inputs, n, d, dtype=dtype)
        return inputs, random_signs(for_labels, n, dtype=dtype)

    return jax.lax.map(one, keys)


@eqx.filter_jit
def _start(keys: Any, data: tuple[Array, Array], k: int) -> Problem:
    """The problems of every seed at one width."""

    def one(both):
        key, inputs, targets = both
        (n, d), dtype = inputs.shape, inputs.dtype
        for_inner = jrandom.split(key, 3)[2]
        inner = inner_weights(for_inner, k, d, "gaussian", dtype)
        outer = outer_weights(for_inner, k, None, "balanced", 1.0, dtype)
        norm = jnp.linalg.norm(targets) / n**0.5
        return Problem(inputs, targets, jnp.ones((n,), dtype), inner, norm * outer)

    return jax.lax.map(one, (keys, *data))


@eqx.filter_jit
def _train(
    act: AbstractActivation, problems: Problem, limits: Any, devices: Devices
) -> dict[str, Array]:
    def rows(shared, block):
        act, limits = shared
        end = descend(act, block, jax.vmap(step_size)(block), *limits)
        measured = jax.vmap(lambda p, w: measure(act, p, w))(block, end.inner)
        way = measured["distance"]
        none = way == 0  # no step was needed
        ratio = jnp.where(none, 1, end.path / jnp.where(none, 1, way))
        run = {"path_ratio": ratio, "residual": end.residual, "steps": end.steps}
        return {**measured, **run}

    return over_devices(rows, devices)((act, limits), problems)


def measure(
    act: AbstractActivation, problem: Problem, inner: Float[Array, "k d"]
) -> dict[str, Float[Array, ""]]:
    """What changed between the problem's start and ``inner``."""
    r, z = residual_of(act, problem, problem.inner)
    moved, z_now = inner - problem.inner, residual_of(act, problem, inner)[1]
    before = slopes_of(act, problem, z)
    change = slopes_of(act, problem, z_now) - before
    gram = gram_of(problem.inputs, before)
    values, vectors = jnp.linalg.eigh(gram)
    # what is below this is rounding, and no weights fit the linearised problem
    floor = 4 * len(gram) * jnp.finfo(gram.dtype).eps * values[-1]
    resolved = values[0] > floor
    smallest = jnp.where(resolved, jnp.sqrt(jnp.maximum(values[0], 0)), 0)
    safe = jnp.where(resolved, values, 1)
    reach = jnp.sqrt(jnp.sum((vectors.T @ r) ** 2 / safe))
    largest = jnp.linalg.eigvalsh(gram_of(problem.inputs, change))[-1]
    return {
        "deviation": jnp.sqrt(jnp.maximum(largest, 0)) / smallest,
        "flip_fraction": jnp.mean(((z > 0) != (z_now > 0)).astype(z.dtype)),
        "distance": jnp.sqrt(jnp.sum(moved**2)),
        "linearised_distance": jnp.where(resolved, reach, jnp.inf),
        "smallest": smallest,
    }
