r"""The first-order effect of one more neuron, and what it says about the origin.

With $D(u) = a \bigl(\sum_j a_j f(u, w_j) - \sum_j b_j f(u, v_j)\bigr)$, a new neuron
$tu$, $t \ge 0$, $|u| = 1$, with outer weight a changes the loss to exactly
$F + tD(u) + a^2t^2/4$. D is positively homogeneous.
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxrelu._checks import check_finite, check_size, is_concrete
from jaxrelu._products import matmul
from jaxrelu._results import RESULTS, ErrorKind
from jaxrelu.activations._angle import row_norms, unit_rows
from jaxrelu.landscape.search._first_order import angle_and_sine
from jaxrelu.objectives import PopulationLoss


_STEPS = 60
_LENGTHS = 12
_SUCCESS: Any = RESULTS.successful
_FAILURE: Any = RESULTS.no_convergence


class NewNeuronDescent(eqx.Module):
    r"""The direction in which a new neuron lowers the loss most.

    Attributes:
        value: the smallest $D(u)$ on the unit sphere that was found: at a local minimum
            of D, and an upper bound of its global minimum.
        error: of D at this u, rounding.
        direction: u, (d,).
        tangent: the norm of the gradient of D along the sphere, 0 at a minimum.
        outer: a.
        num_reached: how many of the starts ended at this value.
        num_starts: how many there were.
        result: ``RESULTS.no_convergence`` when ``tangent`` is not down to rounding.
        error_kind: what ``error`` means.
        method: how.
    """

    value: Float[Array, ""]
    error: Float[Array, ""]
    direction: Float[Array, " d"]
    tangent: Float[Array, ""]
    outer: Float[Array, ""]
    num_reached: Int[Array, ""]
    result: RESULTS
    num_starts: int = eqx.field(static=True)
    error_kind: ErrorKind = eqx.field(static=True)
    method: str = eqx.field(static=True)

    @property
    def neuron(self) -> Float[Array, " d"]:
        """The best multiple of ``direction``: $-2D/a^2$ times u, 0 if D ≥ 0."""
        return jnp.maximum(-2 * self.value / self.outer**2, 0) * self.direction

    @property
    def decrease(self) -> Float[Array, ""]:
        """By how much adding ``neuron`` lowers the loss: exactly $(D/a)^2$ if D < 0."""
        return (jnp.minimum(self.value, 0) / self.outer) ** 2


def new_neuron_descent(
    objective: PopulationLoss,
    student: Any,
    key: PRNGKeyArray,
    *,
    outer: float = 1.0,
    num_starts: int = 32,
) -> NewNeuronDescent:
    r"""$\min_{|u|=1} D(u)$: where a zero neuron, added to W, goes.

    At a minimum that is not global a negative value makes the point with the zero
    neuron no minimum, to first order. The converse does not hold: the step of length
    $-2D$ need not lead to a global minimum.

    Newton's method on the sphere, with the moduli of the eigenvalues in the place of
    the eigenvalues and a line search, from ± every neuron, ± the sums of the student's
    and the teacher's, and random directions.

    Args:
        objective: any teacher.
        student: W, or a network.
        key: for the random starts.
        outer: a, the outer weight of the new neuron, not 0.
        num_starts: random starts, in addition to the 2(n + k) + 4 others.

    Raises:
        TypeError: ``num_starts`` is no integer.
        ValueError: a student that does not fit, ``outer`` zero or not finite, negative
            ``num_starts``.

    Cost: at most 60 eigenproblems of order d, and products of 2(n + k)d² operations,
    per start.
    """
    num_starts = check_size(num_starts, "num_starts", 0)
    student = objective.student(student)
    teacher = objective.teacher
    w, v = student.inner, teacher.inner
    weight = jnp.asarray(outer, w.dtype)
    check_finite(weight, "outer")
    if is_concrete(weight) and float(weight) == 0:
        msg = (
            "outer is 0; expected a nonzero outer weight: the neuron would do nothing."
        )
        raise ValueError(msg)
    return _descent(w, student.outer, v, teacher.outer, weight, key, num_starts)


@functools.partial(jax.jit, static_argnums=6)
def _descent(
    w: Array, a: Array, v: Array, b: Array, weight: Array, key: Array, count: int
) -> NewNeuronDescent:
    rows = jnp.concatenate([w, v])
    signs = weight * jnp.concatenate([a, -b])
    special = jnp.concatenate([rows, w.sum(0)[None], v.sum(0)[None]])
    return _lowest(rows, signs, _starts(special, key, count), weight)


class OriginMaximum(eqx.Module):
    r"""Whether F has a strict local maximum at W = 0; see `origin_maximum`.

    Attributes:
        slope: m, the smallest $\sum_j b_j f(u, v_j)$ on the unit sphere that was found.
        direction: the u of it, along which F falls least.
        is_strict: whether the origin is a strict local maximum.
        proved: whether that is proved; otherwise it rests on the search for m.
        radius: $4m$: F(W) < F(0) for $0 < \sum_i a_i|w_i| <$ this.
    """

    slope: Float[Array, ""]
    direction: Float[Array, " d"]
    is_strict: Bool[Array, ""]
    proved: Bool[Array, ""]
    radius: Float[Array, ""]


def origin_maximum(
    objective: PopulationLoss, key: PRNGKeyArray, *, num_starts: int = 32
) -> OriginMaximum:
    r"""Is W = 0 a strict local maximum, for a student with positive outer weights?

    With $m = \min_{|u|=1} \sum_j b_j f(u, v_j)$ and $s = \sum_i a_i|w_i|$,
    $$ F(W) - F(0) = -\sum_i a_i \sum_j b_j f(w_i, v_j) + \tfrac12 \sum_{ij} a_i a_j
       f(w_i, w_j) \le -ms + \tfrac14 s^2 , $$
    negative for $0 < s < 4m$. For $b > 0$, $m > 0$ unless all teacher neurons have one
    direction v, where $f(-v, v) = 0$: a strict maximum for every orthonormal teacher
    with k ≥ 2. Lemma 27 of Safran, Yehudai and Shamir (2021), by which F has no local
    maxima, fails at this point; their theorems do not use it there. For k = 1 the loss
    rises along -v like $\tfrac14 |w|^2$.

    Args:
        objective: any teacher.
        key: for random starts of the search for m.
        num_starts: how many, in addition to ± the teacher's neurons and their sum.

    Raises:
        TypeError: ``num_starts`` is no integer.
        ValueError: it is negative.
    """
    num_starts = check_size(num_starts, "num_starts", 0)
    teacher = objective.teacher
    return _origin(teacher.inner, teacher.outer, key, num_starts)


@functools.partial(jax.jit, static_argnums=3)
def _origin(v: Array, b: Array, key: Array, count: int) -> OriginMaximum:
    special = jnp.concatenate([v, v.sum(0)[None]])
    starts = _starts(special, key, count)
    found = _lowest(v, b, starts, jnp.ones((), v.dtype))
    units = unit_rows(v, row_norms(v))
    spread = jnp.max(jnp.abs(units - units[:1]))
    several = spread > 64 * float(jnp.finfo(v.dtype).eps)
    positive = jnp.all(b > 0)
    slope = jnp.where(jnp.abs(found.value) <= found.error, 0, found.value)
    strict = jnp.where(positive, several, slope > 0)
    return OriginMaximum(
        slope=slope,
        direction=found.direction,
        is_strict=strict,
        proved=positive | (slope < 0),
        radius=4 * jnp.maximum(slope, 0),
    )


def _starts(special: Array, key: PRNGKeyArray, count: int) -> Array:
    random = jrandom.normal(key, (count, special.shape[1]), special.dtype)
    every = jnp.concatenate([special, -special, random])
    norms = row_norms(every)
    first = jnp.zeros_like(every).at[:, 0].set(1)
    return jnp.where(norms[:, None] > 0, unit_rows(every, norms), first)


def _values(u: Array, units: Array, size: Array) -> Array:
    """D at unit vectors; an error of the angle adds nothing to first order."""
    cos = jnp.clip(matmul(u, units.T), -1, 1)
    theta, sin = angle_and_sine(cos)
    return matmul(sin + (math.pi - theta) * cos, size)


def _derivatives(u: Array, units: Array, size: Array) -> tuple[Array, Array, Array]:
    """D at unit vectors, its gradient, and its Hessian."""
    cos = jnp.clip(matmul(u, units.T), -1, 1)
    theta, sin = angle_and_sine(cos)
    slope = matmul(sin, size)
    gradient = slope[:, None] * u + matmul((math.pi - theta) * size[None, :], units)
    apart = sin > 16 * float(jnp.finfo(u.dtype).eps) ** 0.5
    curving = jnp.where(apart, size[None, :] / jnp.where(apart, sin, 1), 0)
    across = units[None] - cos[:, :, None] * u[:, None]
    curved = matmul((curving[:, :, None] * across).mT, across)
    eye = jnp.eye(u.shape[1], dtype=u.dtype)[None]
    flat = eye - u[:, :, None] * u[:, None, :]
    hessian = curved + slope[:, None, None] * flat
    return jnp.sum(u * gradient, axis=1), gradient, hessian


def _lowest(rows: Array, signs: Array, starts: Array, outer: Array) -> NewNeuronDescent:
    count, d = starts.shape
    norms = row_norms(rows)
    units = unit_rows(rows, norms)
    size = signs * norms / (2 * math.pi)
    scale = jnp.sum(jnp.abs(signs) * norms)
    eps = float(jnp.finfo(rows.dtype).eps)
    error = scale * (eps * (4 + d**0.5 + len(rows) ** 0.5))
    lengths = 2.0 ** -jnp.arange(_LENGTHS, dtype=rows.dtype)

    def advance(state):
        u, *_, done_steps = state
        value, gradient, hessian = _derivatives(u, units, size)
        tangent = gradient - value[:, None] * u
        flat = jnp.eye(d, dtype=u.dtype)[None] - u[:, :, None] * u[:, None, :]
        curvature, axes = jnp.linalg.eigh(hessian - value[:, None, None] * flat)
        inverse = 1 / jnp.maximum(jnp.abs(curvature), 1e-6 * scale)
        along = jnp.sum(axes * tangent[:, :, None], axis=1)
        step = -jnp.sum(axes * (inverse * along)[:, None, :], axis=2)
        step = step / jnp.maximum(row_norms(step), 1)[:, None]
        moved = u[:, None] + lengths[None, :, None] * step[:, None]
        moved = moved / jnp.linalg.norm(moved, axis=-1, keepdims=True)
        tried = _values(moved.reshape(-1, d), units, size).reshape(count, -1)
        best = jnp.argmin(tried, axis=1)
        better = jnp.take_along_axis(tried, best[:, None], 1)[:, 0] <= value
        chosen = jnp.take_along_axis(moved, best[:, None, None], 1)[:, 0]
        resting = row_norms(tangent) <= error
        keep = resting | ~better
        new = jnp.where(keep[:, None], u, chosen)
        return new, u, value, row_norms(tangent), jnp.all(keep), done_steps + 1

    nothing = jnp.zeros(count, rows.dtype)
    begun = (jnp.asarray(False), jnp.asarray(0, jnp.int32))
    _, u, value, tangent, _, _ = jax.lax.while_loop(
        lambda state: ~state[4] & (state[5] < _STEPS),
        advance,
        (starts, starts, nothing, nothing, *begun),
    )
    lowest = jnp.argmin(value)
    # D hides a tangent t by falling only like t²
    done = tangent[lowest] <= 4 * jnp.sqrt(error * scale)
    return NewNeuronDescent(
        value=value[lowest],
        error=error,
        direction=u[lowest],
        tangent=tangent[lowest],
        outer=outer,
        num_reached=jnp.sum(value <= value[lowest] + 4 * error),
        result=RESULTS.where(done, _SUCCESS, _FAILURE),
        num_starts=count,
        error_kind="rounding bound",
        method=f"Newton's method on the sphere from {count} starts",
    )
