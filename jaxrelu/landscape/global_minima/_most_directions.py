r"""One-point strong convexity in most directions (Theorem 10).

At a differentiable global minimum $\tilde W$ of an orthonormal teacher, let the student
neurons on the ray of $v_i$ move by $g_{ij}$, $g_i = \sum_j g_{ij}$, $g = \sum_i g_i$.
Safran, Yehudai and Shamir prove
$$ (W - \tilde W)^\top \nabla^2F(W)\,(W - \tilde W)
   \ge \tfrac14 \bigl(|g|^2 + (1 - \tfrac2\pi) \sum_i |g_i|^2\bigr)
   - O(\varepsilon^{2.5}) $$
on the orthogonal $\varepsilon$-neighbourhood, for balanced copies $\tilde w = v_i/m$
(Theorem 10), and for any with constants polynomial in $1/\min|\tilde w|$ (Remark 11).
The remainder is in fact $O(\varepsilon^3)$, also off the orthogonal neighbourhood:
with $u_{ia} = g_i \cdot v_a$, left minus right side is
$$ \frac1{2\pi} \Bigl[ \bigl(\sum_i u_{ii}\bigr)^2
   + \frac12 \sum_{i \ne a} (u_{ia} + u_{ai})^2
   + \sum_i \operatorname{dist}(g_i, \operatorname{span} V)^2 \Bigr]
   + O(|W - \tilde W|^3). $$
The first term is the slack at the minimum itself, so 0 exactly for skew $u$ (d = k).
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import (
    as_floating,
    check_finite,
    check_rank,
    check_size,
    is_concrete,
)
from jaxrelu._products import matmul
from jaxrelu.landscape.global_minima._global_minima import (
    global_minimum,
    is_global_minimum,
)
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss
from jaxrelu.operators import hessian


Scalar = Float[Array, ""]
Numbers = Float[Array, "..."]


class MostDirections(eqx.Module):
    r"""Both sides of the inequality of Theorem 10 at a point.

    Attributes:
        lhs: $(W - \tilde W)^\top \nabla^2F(W) (W - \tilde W)$.
        rhs: $\frac14 (|g|^2 + (1 - \frac2\pi) \sum_i |g_i|^2)$.
        second_order: lhs - rhs up to $O(|W - \tilde W|^3)$, at least 0.
        distance: $|W - \tilde W|$.
        sum_norm: $|g|$.
    """

    lhs: Numbers
    rhs: Numbers
    second_order: Numbers
    distance: Numbers
    sum_norm: Numbers

    @property
    def slack(self) -> Numbers:
        """Left minus right side."""
        return self.lhs - self.rhs

    @property
    def remainder(self) -> Numbers:
        r"""Slack minus its second-order part: $O(|W - \tilde W|^3)$."""
        return self.slack - self.second_order

    @property
    def curvature(self) -> Numbers:
        r"""$\text{lhs}/|W - \tilde W|^2$: the constant of one-point convexity here."""
        return self.lhs / self.distance**2

    @property
    def promised_curvature(self) -> Numbers:
        r"""$\text{rhs}/|W - \tilde W|^2$: what the theorem leaves of it, up to $O(1)$.

        Example 1 of the paper: $\frac14 - \frac1{2\pi} + |g|^2/4\sum|g_i|^2$ without
        copies (up to $O(\sqrt\varepsilon)$), m times that when m copies move together,
        and 0 when the copies' displacements cancel.
        """
        return self.rhs / self.distance**2


class ConjectureCounterexample(eqx.Module):
    r"""A point at which Theorem 10 without its remainder is false, in closed form.

    Attributes:
        minimum: $\tilde W$.
        displacement: $W - \tilde W$.
        lhs: left side.
        rhs: right side, larger.
        slack: lhs - rhs, computed without cancellation.
    """

    minimum: Float[Array, "n d"]
    displacement: Float[Array, "n d"]
    lhs: Scalar
    rhs: Scalar
    slack: Scalar


def most_directions_inequality(
    objective: PopulationLoss, minimum: Any, displacement: Any
) -> MostDirections:
    r"""Both sides of Theorem 10 at $W = \tilde W + $ ``displacement``.

    Takes the displacement, not W, because $W - \tilde W$ loses digits. Remark 11 covers
    any shares of the copies; the second-order part does not depend on them.

    Args:
        objective: an orthonormal teacher with outer weights one.
        minimum: $\tilde W$, (n, d), a differentiable global minimum.
        displacement: (n, d), nonzero.

    Raises:
        ValueError: another teacher, no such minimum, shapes that differ; a NaN, or a
            displacement that makes a neuron zero, where F has no Hessian (traced, it
            gives NaN).

    Cost: one product with the Hessian.
    """
    minimum = checked_minimum(objective, minimum)
    displacement = as_floating(displacement, "displacement")
    if displacement.shape != minimum.shape or displacement.dtype != minimum.dtype:
        msg = (
            f"displacement is {displacement.shape} {displacement.dtype}; expected "
            f"{minimum.shape} {minimum.dtype}, as the minimum."
        )
        raise ValueError(msg)
    check_finite(displacement, "displacement")
    if is_concrete(minimum) and is_concrete(displacement):
        alive = (np.asarray(minimum) + np.asarray(displacement)).any(axis=1)
        if not alive.all():
            msg = (
                f"minimum + displacement has the zero neuron {int(alive.argmin())}; "
                "expected none: F has no Hessian there. Take a shorter displacement."
            )
            raise ValueError(msg)
    return inequality(objective, minimum, displacement)


@eqx.filter_jit
def inequality(
    objective: PopulationLoss, minimum: Array, displacement: Array
) -> MostDirections:
    """The same without checks."""
    teacher = objective.teacher.inner
    H = hessian(objective, minimum + displacement)
    flat = displacement.reshape(-1)
    sums = matmul(assignment(teacher, minimum).T, displacement)
    total = jnp.sum(sums, axis=0)
    square = jnp.sum(total**2)
    u = matmul(sums, teacher.T)
    both = u + u.T
    mixed = jnp.sum(both**2) - jnp.sum(jnp.diagonal(both) ** 2)
    outside = jnp.sum((sums - matmul(u, teacher)) ** 2)
    second = (jnp.trace(u) ** 2 + mixed / 2 + outside) / (2 * math.pi)
    return MostDirections(
        lhs=jnp.sum(flat * H.mv(flat)),
        rhs=(square + (1 - 2 / math.pi) * jnp.sum(sums**2)) / 4,
        second_order=second,
        distance=jnp.sqrt(jnp.sum(flat**2)),
        sum_norm=jnp.sqrt(square),
    )


def assignment(teacher: Array, minimum: Array) -> Array:
    """Which teacher neuron each student neuron copies, as 0 and 1, (n, k)."""
    nearest = jnp.argmax(matmul(minimum, teacher.T), axis=1)
    return jax.nn.one_hot(nearest, teacher.shape[0], dtype=minimum.dtype)


def checked_minimum(objective: PopulationLoss, minimum: Any) -> Array:
    """A differentiable global minimum of an orthonormal teacher, or an error."""
    minimum = as_floating(minimum, "minimum")
    check_rank(minimum, 2, "minimum", "(n, d)")
    teacher = objective.teacher
    if not (is_concrete(teacher.inner) and is_concrete(teacher.outer)):
        return minimum
    if not objective.has_orthonormal_teacher:
        msg = (
            f"the teacher has neurons {teacher.inner.tolist()} and outer weights "
            f"{teacher.outer.tolist()}; expected orthonormal neurons and ones."
        )
        raise ValueError(msg)
    if is_concrete(minimum):
        test = is_global_minimum(objective, minimum)
        if not bool(test.differentiable):
            msg = f"minimum is {test.reason}; expected no zero neuron, and loss 0."
            raise ValueError(msg)
    return minimum


def transposed_product_bound(rows: Float[Array, "k d"]) -> tuple[Scalar, Scalar]:
    r"""$\sum_{i \ne j} u_{ij} u_{ji} \ge \sum_i u_{ii}^2 - \sum_i |u_i|^2$ (Lemma 25).

    Left minus right side is
    $\frac12 \sum_{i \ne j} (u_{ij} + u_{ji})^2 + \sum_i \sum_{a > k} u_{ia}^2$.

    Args:
        rows: $u_i$ in coordinates whose first k axes are the teacher's, (k, d).

    Returns:
        (left side, right side).

    Raises:
        ValueError: d < k.
    """
    k, d = rows.shape
    if d < k:
        msg = f"rows has shape {(k, d)}; expected d >= k."
        raise ValueError(msg)
    return _transposed_products(rows)


@jax.jit
def _transposed_products(rows: Array) -> tuple[Array, Array]:
    inside = rows[:, : len(rows)]
    diagonal = jnp.sum(jnp.diagonal(inside) ** 2)
    return jnp.sum(inside * inside.T) - diagonal, diagonal - jnp.sum(rows**2)


def conjecture_counterexample(
    t: Scalar | float,
    *,
    copies: int = 1,
    k: int = 2,
    d: int | None = None,
    dtype: Any = None,
) -> ConjectureCounterexample:
    r"""Conjecture 12, Theorem 10 without a remainder, is false: an exact example.

    All m copies of two neurons move together: $w_1 = (v_1 + t v_2)/m$,
    $w_2 = (v_2 - t v_1)/m$, the other neurons stay. It is in the orthogonal
    neighbourhood of radius $|t|/m$. With $s = |t|$
    $$ \text{lhs} - \text{rhs}
       = \frac{2s^2}\pi \Bigl(1 - \frac{1 + s}{(1 + s^2)^2}\Bigr)
       = -\frac{2s^3}\pi \frac{1 - 2s - s^3}{(1 + s^2)^2}, \qquad
       \text{rhs} = s^2 \Bigl(1 - \frac1\pi\Bigr), $$
    for every m, k and d: negative for $0 < s < 0.4534$, relative to
    $(\sum_i|g_i|^2)^{3/2}$ equal to $-1/\sqrt2\,\pi = -0.22508$ in the limit.

    Args:
        t: how far.
        copies: m, of every teacher neuron.
        k: teacher neurons, at least 2.
        d: input dimension, at least k; k if None.
        dtype: floating dtype; None takes JAX's default.

    Raises:
        ValueError: sizes out of range.
    """
    d = k if d is None else d
    for size, name in ((copies, "copies"), (k, "k"), (d, "d")):
        check_size(size, name)
    if k < 2:
        msg = f"k is {k}; expected at least 2: two teacher neurons take part."
        raise ValueError(msg)
    teacher = Shallow.orthonormal(k, d, dtype)
    dtype = teacher.inner.dtype
    minimum = global_minimum(teacher, np.repeat(np.arange(k), copies))
    return _counterexample(minimum, jnp.asarray(t, dtype), copies)


@functools.partial(jax.jit, static_argnums=2)
def _counterexample(minimum: Array, t: Array, copies: int) -> ConjectureCounterexample:
    k, d = len(minimum) // copies, minimum.shape[1]
    move = jnp.zeros((k, d), t.dtype).at[0, 1].set(t).at[1, 0].set(-t)
    s = jnp.abs(t)
    rhs = s**2 * (1 - 1 / math.pi)
    slack = -2 * s**3 / math.pi * (1 - 2 * s - s**3) / (1 + s**2) ** 2
    return ConjectureCounterexample(
        minimum=minimum,
        displacement=jnp.repeat(move, copies, axis=0) / copies,
        lhs=rhs + slack,
        rhs=rhs,
        slack=slack,
    )
