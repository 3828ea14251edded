r"""Global minima of the population loss: which students equal the teacher.

With $\sigma(t) = (t + |t|)/2$, a sum $\sum_l c_l \sigma(z_l \cdot x)$ is half the
linear function $\sum_l c_l z_l \cdot x$ plus half of $\sum_L m_L |\bar z_L \cdot x|$
over lines $L$ through 0, with $m_L = \sum_{z_l \in L} c_l |z_l|$. The functions
$|\bar z_L \cdot x|$ of different lines and the linear ones are linearly independent,
and two continuous functions that differ somewhere have positive distance in $L^2$ of a
Gaussian (Safran, Yehudai and Shamir, Lemma 19). So $F = 0$ exactly if every $m_L$ and
the linear part of student minus teacher vanish, for every teacher and all outer
weights.

For positive outer weights and linearly independent teacher neurons that is their
Theorem 2: each student neuron lies on the ray of one teacher neuron (or is 0), and on
each ray the ratios add up to 1. Theorem 2 is stated for orthonormal teachers. It fails
for dependent ones: where $v_1 + v_2 + v_3 = 0$, the student $-v_1, -v_2, -v_3$ is the
same function.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxrelu._checks import as_floating, check_rank, is_concrete
from jaxrelu._products import matmul
from jaxrelu.activations._angle import angle_pair, row_norms
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss


class GlobalMinimumTest(eqx.Module):
    r"""Whether a student computes the teacher's function, and what is in the way.

    Attributes:
        holds: both defects are within the tolerance.
        kink_masses: $\sum c_l |z_l|$ over the line of each neuron, students (n) before
            teachers (k), teachers counted negative. 0 at a global minimum.
        linear_part: $\sum_i a_i w_i - \sum_j b_j v_j$, (d,). 0 at a global minimum.
        tolerance: on the modulus of both, in the unit of the weights.
        assignment: the teacher neuron on whose ray each student neuron lies, (n,);
            -1 for none, and for a zero neuron.
        ratios: $\alpha_i = a_i |w_i| / (b_j |v_j|)$ with j the assigned one, else 0.
        zero_neurons: (n,); F is differentiable where none is zero.
    """

    holds: Bool[Array, ""]
    kink_masses: Float[Array, " both"]
    linear_part: Float[Array, " d"]
    tolerance: Float[Array, ""]
    assignment: Int[Array, " n"]
    ratios: Float[Array, " n"]
    zero_neurons: Bool[Array, " n"]

    @property
    def differentiable(self) -> Bool[Array, "..."]:
        """A global minimum at which F is differentiable: no neuron is zero."""
        return _differentiable(self.holds, self.zero_neurons)

    @property
    def reason(self) -> str:
        """The verdict in words. Needs concrete numbers."""
        if not is_concrete(self.holds) or jnp.ndim(self.holds):
            msg = "a reason is given for one concrete student; index into the batch."
            raise ValueError(msg)
        limit = float(self.tolerance)
        if bool(self.holds):
            zero = int(np.sum(np.asarray(self.zero_neurons)))
            return "a global minimum: student and teacher are the same function" + (
                f"; not differentiable, {zero} neurons are zero" if zero else ""
            )
        masses = np.asarray(self.kink_masses)
        worst = int(np.argmax(np.abs(masses)))
        n = self.zero_neurons.shape[0]
        if not abs(masses[worst]) <= limit:
            who = f"student neuron {worst}" if worst < n else f"teacher {worst - n}"
            return (
                f"not a global minimum: on the line of {who} the norms of the student "
                f"exceed the teacher's by {masses[worst]:.3g} (tolerance {limit:.1e})"
            )
        size = float(np.linalg.norm(np.asarray(self.linear_part)))
        return (
            f"not a global minimum: the weighted sums of neurons differ by {size:.3g} "
            f"(tolerance {limit:.1e}); some neuron points against its teacher"
        )


def is_global_minimum(
    objective: PopulationLoss, student: Any, *, tolerance: float | None = None
) -> GlobalMinimumTest:
    r"""Whether $F(W) = 0$, decided by the weights instead of the loss.

    F itself cannot decide: it is quadratic in the distance, and cubic along some
    directions, so rounding hides distances below $\varepsilon^{1/3}$. A student with
    fewer neurons than a linearly independent teacher never reaches 0, and what its
    smallest loss is, is not asked here.

    Args:
        objective: any teacher, any outer weights.
        student: W of shape (n, d), or a network.
        tolerance: relative to $\sum_l |c_l||z_l|$ for the defects, and in radians for
            what counts as one line; None takes 64 units of roundoff.

    Returns:
        A `GlobalMinimumTest`; O((n + k)² d) operations.

    Source: Theorem 2 and Lemma 19 of Safran, Yehudai and Shamir, generalised above.
    """
    network = objective.student(student)
    epsilon = float(jnp.finfo(network.inner.dtype).eps)
    limit = 64 * epsilon if tolerance is None else tolerance
    limit = jnp.asarray(limit, network.inner.dtype)
    return same_function(objective.teacher, network, limit)


@jax.jit
def _differentiable(holds: Array, zero_neurons: Array) -> Array:
    return holds & ~jnp.any(zero_neurons, axis=-1)


@eqx.filter_jit
def same_function(
    teacher: Shallow, student: Shallow, tolerance: Array
) -> GlobalMinimumTest:
    """`is_global_minimum` without checks; ``tolerance`` may be traced."""
    n = student.width
    rows = jnp.concatenate([student.inner, teacher.inner])
    outer = jnp.concatenate([student.outer, -teacher.outer])
    norms = row_norms(rows)
    theta, complement = angle_pair(True, rows, rows)
    same_line = (jnp.minimum(theta, complement) <= tolerance).astype(rows.dtype)
    masses = matmul(same_line, outer * norms)
    masses = jnp.where(norms > 0, masses, 0)
    linear = matmul(outer, rows)
    scale = tolerance * jnp.sum(jnp.abs(outer) * norms)
    defect = jnp.maximum(jnp.max(jnp.abs(masses)), jnp.linalg.norm(linear))
    nearest = jnp.argmin(theta[:n, n:], axis=1)
    zero = norms[:n] == 0
    aligned = (jnp.min(theta[:n, n:], axis=1) <= tolerance) & ~zero
    ratios = (outer * norms)[:n] / (-outer * norms)[n:][nearest]
    return GlobalMinimumTest(
        holds=defect <= scale,
        kink_masses=masses,
        linear_part=linear,
        tolerance=scale,
        assignment=jnp.where(aligned, nearest, -1),
        ratios=jnp.where(aligned, ratios, 0),
        zero_neurons=zero,
    )


def global_minimum(
    teacher: Any, partition: Any, alphas: Any = None
) -> Float[Array, "n d"]:
    r"""A student that is the teacher: $w_i = \alpha_i b_j v_j$, $j$ = ``partition[i]``.

    The student's outer weights are one. n = k gives the k! isolated minima of
    permutations; n > k gives a manifold of dimension n - k for each partition.

    Args:
        teacher: a network, or an array (k, d), with positive outer weights.
        partition: the teacher neuron that each student neuron copies, (n,) integers,
            each of 0, ..., k - 1 at least once.
        alphas: shares of each neuron, (n,), at least 0, of sum 1 for each teacher
            neuron; None shares equally. A share of 0 makes a zero neuron.

    Raises:
        ValueError: an unused teacher neuron, shares that are negative or do not add
            up to 1 within rounding, negative outer weights.

    Source: Theorem 2 of Safran, Yehudai and Shamir, any teacher.
    """
    teacher = PopulationLoss(teacher).teacher
    k = teacher.width
    partition = as_partition(partition, k)
    if alphas is None:
        alphas = _equal_shares(partition, k, teacher.inner.dtype)
    alphas = as_floating(alphas, "alphas").astype(teacher.inner.dtype)
    check_rank(alphas, 1, "alphas", "(n,)")
    if alphas.shape != partition.shape:
        msg = f"alphas has {alphas.size} entries and partition {partition.size}."
        raise ValueError(msg)
    _check_shares(teacher, partition, alphas)
    return _copies(teacher, partition, alphas)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _equal_shares(partition: Array, k: int, dtype: Any) -> Array:
    counts = jnp.zeros((k,), dtype).at[partition].add(1)
    return 1 / counts[partition]


@eqx.filter_jit
def _copies(teacher: Shallow, partition: Array, alphas: Array) -> Array:
    rows = (teacher.outer[:, None] * teacher.inner)[partition]
    return alphas[:, None] * rows


def as_partition(partition: Any, k: int) -> Int[Array, " n"]:
    """A checked partition: integers from 0 to k - 1, each of them used."""
    partition = jnp.asarray(partition)
    if partition.ndim != 1 or not jnp.issubdtype(partition.dtype, jnp.integer):
        msg = (
            f"partition has shape {partition.shape}, {partition.dtype}; expected (n,) "
            "integers: the teacher neuron of each student neuron."
        )
        raise ValueError(msg)
    if is_concrete(partition):
        found = np.unique(np.asarray(partition))
        if not np.array_equal(found, np.arange(k)):
            msg = (
                f"partition uses {found.tolist()}; expected each of 0 to {k - 1} at "
                "least once: a teacher neuron without a copy leaves a positive loss."
            )
            raise ValueError(msg)
    return partition


def _check_shares(teacher: Shallow, partition: Array, alphas: Array) -> None:
    if is_concrete(teacher.outer) and not (np.asarray(teacher.outer) > 0).all():
        msg = (
            "the teacher has outer weights that are not positive; expected positive "
            "ones, because the student's are one."
        )
        raise ValueError(msg)
    if not (is_concrete(alphas) and is_concrete(partition)):
        return
    shares, where = np.asarray(alphas), np.asarray(partition)
    sums = np.bincount(where, weights=shares)
    slack = 16 * len(shares) * float(jnp.finfo(alphas.dtype).eps)
    if not (shares >= 0).all() or not (np.abs(sums - 1) <= slack).all():
        msg = (
            f"alphas are {shares.tolist()}, their sums for each teacher neuron "
            f"{sums.tolist()}; expected numbers of at least 0 with sums 1."
        )
        raise ValueError(msg)


def sample_global_minimum(
    key: PRNGKeyArray, teacher: Any, num_neurons: int
) -> Float[Array, "n d"]:
    r"""A random member of the set of Theorem 2, differentiable almost surely.

    Every teacher neuron gets one student neuron, the n - k others go to independent
    uniform ones, in random order (all minima for n = k equally likely; for n > k the
    partition is not uniform). The shares on each ray are uniform on the simplex.

    Args:
        key: PRNG key.
        teacher: a network, or an array (k, d), with positive outer weights.
        num_neurons: n, at least k.

    Raises:
        ValueError: fewer neurons than the teacher has.
    """
    teacher = PopulationLoss(teacher).teacher
    k = teacher.width
    if num_neurons < k:
        msg = f"num_neurons is {num_neurons}; expected at least k = {k}."
        raise ValueError(msg)
    return _sample(key, teacher, num_neurons)


@eqx.filter_jit
def _sample(key: PRNGKeyArray, teacher: Shallow, num_neurons: int) -> Array:
    k = teacher.width
    spread, order, share = jrandom.split(key, 3)
    extra = jrandom.randint(spread, (num_neurons - k,), 0, k)
    partition = jrandom.permutation(order, jnp.concatenate([jnp.arange(k), extra]))
    parts = jrandom.exponential(share, (num_neurons,), teacher.inner.dtype)
    sums = jax.ops.segment_sum(parts, partition, num_segments=k)
    return _copies(teacher, partition, parts / sums[partition])
