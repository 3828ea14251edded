r"""Recovering a shallow ReLU network from values of its gradient.

On a half circle $\cos(t)\,x_0 + \sin(t)\,v$ from u to -u the derivative of
$f(x) = Lx + \sum_H \kappa_H|\langle n_H, x\rangle|$ is constant except where a plane
is crossed, each once if the circle is generic; there it jumps by the rank one matrix
$$ J = \pm 2\kappa_H n_H^\top, $$
with the sign of $\langle n_H, x\rangle$ after the crossing, which gives $n_H$ and
$\kappa_H$; and $L = \tfrac12(Df(u) + Df(-u))$. A piece of the circle with different
derivatives at its ends is tried as one jump: the normal that the difference has
predicts where the jump is, and queries on both sides of that place confirm it; if they
do not, the piece is halved. Equal derivatives at both ends could hide jumps that
cancel, so the circle starts with a grid, and the result is checked at random points.
(Rolnick & Kording 2020 recover deeper networks from the same observation; of their
paper only the abstract was at hand.)
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from jaxrelu._results import RESULTS, throw_if_failed
from jaxrelu.networks import Shallow
from jaxrelu.realization._canonical import CanonicalForm


Gradient = Callable[[Array], Array]


class Recovery(eqx.Module):
    r"""What gradient queries told of a network.

    Attributes:
        form: canonical form of the function. `with_signs(form, signs)` is a network of
            it whatever the signs, two neurons per kink for zeros;
            `minimal_network(form)` is one of least width and refuses when too many
            signs would have to be tried.
        queries: gradients asked for.
        mismatch: largest entry of $Df - D\hat f$ over the random points of the check,
            which the recovery did not use.
        scale: largest entry of Df seen.
        result: `RESULTS.successful`, or `RESULTS.no_convergence` when the check found
            more than the tolerance.
    """

    form: CanonicalForm
    queries: int
    mismatch: float
    scale: float
    result: RESULTS


@eqx.filter_jit
def _jacobians(network: Shallow, x: Array) -> Array:
    return jax.vmap(jax.jacrev(network))(x)


def gradient_queries(network: Shallow) -> Gradient:
    """The gradient of a network as a function of points (n, d): (n, d) or (n, m, d)."""
    return lambda x: _jacobians(network, x)


class _Circle:
    """Derivatives at angles of a half circle; counts queries, asks in few sizes."""

    def __init__(self, gradient: Gradient, x0: np.ndarray, v: np.ndarray, dtype: Any):
        self.gradient, self.x0, self.v, self.dtype = gradient, x0, v, dtype
        self.count = 0

    def at_points(self, x: np.ndarray) -> np.ndarray:
        n = len(x)
        self.count += n
        size = max(64, 1 << (n - 1).bit_length())
        padded = np.concatenate([x, np.tile(x[:1], (size - n, 1))])
        values = self.gradient(jnp.asarray(padded, self.dtype))
        return np.asarray(values, np.float64)[:n].reshape(n, -1, x.shape[1])

    def __call__(self, t: np.ndarray) -> np.ndarray:
        return self.at_points(
            np.cos(t)[:, None] * self.x0 + np.sin(t)[:, None] * self.v
        )

    def as_jump(
        self, low: np.ndarray, high: np.ndarray, jump: np.ndarray, close: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Each jump as weight and normal, the angle that predicts, and if it fits."""
        size = np.abs(jump).max(axis=2)
        rows = jump[np.arange(len(jump)), size.argmax(axis=1)]
        normals = rows / np.abs(rows).max(axis=1, keepdims=True)
        weights = np.einsum("nmd,nd->nm", jump, normals)
        weights = weights / np.sum(normals**2, axis=1, keepdims=True)
        rank_one = weights[:, :, None] * normals[:, None, :]
        fits = np.abs(jump - rank_one).max(axis=(1, 2)) <= close
        angle = np.arctan2(-normals @ self.x0, normals @ self.v)
        angle = low + np.mod(angle - low, np.pi)
        speed = -np.sin(angle) * (normals @ self.x0) + np.cos(angle) * (
            normals @ self.v
        )
        # the sign after the crossing is that of the speed
        weights = weights * np.where(speed > 0, 0.5, -0.5)[:, None]
        return normals, weights, angle, fits & (angle < high)


def _jumps(
    circle: _Circle, angles: np.ndarray, values: np.ndarray, close: float, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Normals and kinks of all planes that the pieces between the angles cross."""
    low, high, before, after = angles[:-1], angles[1:], values[:-1], values[1:]
    d, m = values.shape[2], values.shape[1]
    found = [(np.zeros((0, d)), np.zeros((0, m)))]
    for _ in range(depth):
        jump = after - before
        size = np.abs(jump).max(axis=(1, 2))
        keep = size > close
        low, high, before, after, jump, size = (
            x[keep] for x in (low, high, before, after, jump, size)
        )
        if not len(low):
            break
        normals, weights, angle, fits = circle.as_jump(low, high, jump, close)
        room = np.minimum(4 * close / size, (high - low) / 8)
        middle = (low + high) / 2
        left, right, centre = np.split(
            circle(np.concatenate([angle - room, angle + room, middle])), 3
        )
        fits &= np.abs(left - before).max(axis=(1, 2)) <= close
        fits &= np.abs(right - after).max(axis=(1, 2)) <= close
        found.append((normals[fits], weights[fits]))
        rest = ~fits
        low, high = (
            np.concatenate([low[rest], middle[rest]]),
            np.concatenate([middle[rest], high[rest]]),
        )
        before, after = (
            np.concatenate([before[rest], centre[rest]]),
            np.concatenate([centre[rest], after[rest]]),
        )
    normals, kinks = (np.concatenate(x) for x in zip(*found, strict=True))
    return normals, kinks


def recover(
    gradient: Gradient,
    d: int,
    *,
    key: PRNGKeyArray,
    m: int | None = None,
    grid: int = 64,
    max_depth: int = 60,
    checks: int = 256,
    tolerance: float | None = None,
    throw: bool = True,
) -> Recovery:
    r"""The canonical form of a bias-free shallow ReLU network from its gradient.

    Host code around batched queries; every level of the bisection is one call of
    `gradient`.

    Args:
        gradient: points (n, d) → gradients (n, d), or Jacobians (n, m, d); for a
            network `gradient_queries(network)`.
        d: input dimension.
        key: PRNG key; the circle, the grid and the check are random.
        m: outputs; None for a scalar output.
        grid: queries on the circle before any bisection.
        max_depth: of the bisection.
        checks: random points of the final check.
        tolerance: gradients count as equal within tolerance × (largest entry seen);
            None takes 1e-9 in float64 and 1e-5 in float32.
        throw: raise when the check fails; otherwise `result` says so.

    Raises:
        ValueError: fewer than 2 inputs, a grid below 2, no checks.
        RuntimeError: the check failed and `throw` is True. Take a finer grid or another
            key.

    Cost: about grid + checks + 3 (h + number of halvings) queries for h planes.
    """
    if d < 2 or grid < 2 or checks < 1:
        msg = f"d is {d}, grid {grid}, checks {checks}; expected at least 2, 2, 1."
        raise ValueError(msg)
    dtype = jnp.zeros(()).dtype
    if tolerance is None:
        tolerance = 1e-9 if dtype == np.float64 else 1e-5
    one, two, three, four = jrandom.split(key, 4)
    x0, v = (np.asarray(jrandom.normal(k, (d,)), np.float64) for k in (one, two))
    circle = _Circle(gradient, x0, v, dtype)
    steps = np.asarray(jrandom.uniform(three, (grid,)), np.float64)
    angles = np.pi * (np.arange(grid) + steps) / grid
    angles = np.append(angles, angles[0] + np.pi)
    values = circle(angles)
    scale = float(np.abs(values).max())
    close = tolerance * scale
    normals, kinks = _jumps(circle, angles, values, close, max_depth)
    leading = np.argmax(np.abs(normals) > tolerance, axis=1)
    normals = normals * np.sign(normals[np.arange(len(normals)), leading])[:, None]
    normals = normals + 0.0  # no negative zeros
    order = np.lexsort(normals.T[::-1])
    linear = (values[0] + values[-1]) / 2
    form = CanonicalForm(
        linear, normals[order], kinks[order], tolerance, False, m is None, dtype.name
    )
    points = np.asarray(jrandom.normal(four, (checks, d)), np.float64)
    signs = np.sign(points @ form.normals.T)
    said = np.einsum("nh,hm,hd->nmd", signs, form.kinks, form.normals) + linear[None]
    mismatch = float(np.abs(circle.at_points(points) - said).max())
    good = mismatch <= (len(normals) + 1) * close
    result: Any = RESULTS.successful if good else RESULTS.no_convergence
    if throw:
        throw_if_failed(result, f"recovery, mismatch {mismatch:.2e}")
    return Recovery(form, circle.count, mismatch, scale, result)
