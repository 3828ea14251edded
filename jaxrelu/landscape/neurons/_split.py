r"""Adding a neuron, splitting one, and what a split does to the Hessian.

Safran, Yehudai and Shamir (2021), section 4, for any teacher and any outer weights. A
split puts $\alpha w_i$ and $(1 - \alpha) w_i$ in the place of $w_i$, both with the
outer weight $a_i$: the function stays the same, as $\sigma$ is positively homogeneous.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrelu._checks import as_floating, check_finite, check_rank, is_concrete
from jaxrelu._results import ErrorKind
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss
from jaxrelu.operators import PopulationHessian
from jaxrelu.operators._interface import AbstractOperator
from jaxrelu.operators._population_hessian import population_hessian
from jaxrelu.spectra._rounding import eigenvalue_rounding


def split(student: Any, i: Any, alpha: Any = 0.5) -> Any:
    r"""W with $w_i$ replaced by $\alpha w_i, (1-\alpha) w_i$, rows i and i + 1.

    The function, the loss and the rows of the gradient stay as they are, so that
    critical points stay critical. At $\alpha \in \{0, 1\}$ one of the two is a zero
    neuron, where F has one-sided derivatives only.

    Args:
        student: an array (n, d), or a `Shallow` network with a scalar output, whose
            outer weight $a_i$ both copies get.
        i: which neuron; may be traced.
        alpha: in [0, 1]; may be traced.

    Returns:
        The same kind of student with n + 1 neurons.

    Raises:
        IndexError: no such neuron.
        TypeError: i is no integer.
        ValueError: an array without two axes; alpha outside [0, 1], or not a number.
    """
    inner = _inner(student)
    check_place(inner.shape[0], i)
    _check_share(alpha)
    alpha = jnp.asarray(alpha, inner.dtype)
    rows = _halved(inner, i, alpha)
    return _rebuilt(student, rows, lambda outer: _repeated(outer, i))


def add_neuron(student: Any, neuron: Any = None, *, outer: float | Any = 1.0) -> Any:
    r"""W with one more row at the end, zero if none is given.

    A zero neuron leaves the function as it is; F is not differentiable there, and
    `new_neuron_descent` finds the direction in which it falls most.

    Args:
        student: an array (n, d), or a `Shallow` network with a scalar output.
        neuron: (d,), or None for zero.
        outer: its outer weight; one for an array.

    Raises:
        ValueError: an array without two axes; a neuron of another shape or dtype, or
            with a NaN; an outer weight that is no finite number, or not one for an
            array.
    """
    inner = _inner(student)
    d = inner.shape[1]
    if neuron is None:
        neuron = np.zeros(d, inner.dtype)
    row = as_floating(neuron, "neuron")
    if row.shape != (d,) or row.dtype != inner.dtype:
        msg = (
            f"neuron is {row.shape} {row.dtype}; expected ({d},) {inner.dtype}, a row "
            "of the student's weights."
        )
        raise ValueError(msg)
    check_finite(row, "neuron")
    if np.ndim(outer) != 0:
        msg = f"outer has shape {np.shape(outer)}; expected a number, of one neuron."
        raise ValueError(msg)
    check_finite(jnp.asarray(outer, row.dtype), "outer")
    one = is_concrete(outer) and float(outer) == 1
    if not isinstance(student, Shallow) and not one:
        msg = (
            f"outer is {outer} for an array of weights, whose outer weights are one; "
            "use Shallow(inner, outer) as the student."
        )
        raise ValueError(msg)
    weight = lambda old: _appended(old, jnp.asarray(outer, old.dtype))
    return _rebuilt(student, _appended(inner, row), weight)


@jax.jit
def _appended(rows: Array, row: Array) -> Array:
    return jnp.concatenate([rows, row[None]])


@jax.jit
def _halved(inner: Array, i: Any, alpha: Array) -> Array:
    order, share = _places(len(inner), i, alpha)
    return inner[order] * share[:, None]


@jax.jit
def _repeated(outer: Array, i: Any) -> Array:
    order, _ = _places(len(outer), i, jnp.ones((), outer.dtype))
    return outer[order]


def _inner(student: Any) -> Array:
    inner = student.inner if isinstance(student, Shallow) else student
    inner = as_floating(inner, "student")
    check_rank(inner, 2, "student", "(n, d)")
    return inner


def _rebuilt(student, rows, outer_of):
    if not isinstance(student, Shallow):
        return rows
    if student.outer.ndim != 1:
        msg = (
            f"student has outer weights {student.outer.shape}; expected "
            f"({student.width},), a scalar output."
        )
        raise ValueError(msg)
    return Shallow(rows, outer_of(student.outer), student.activation)


def check_place(n: int, i: Any) -> None:
    """Refuses an i that is no integer or, where it is concrete, none of n neurons."""
    dtype = i.dtype if hasattr(i, "dtype") else np.asarray(i).dtype
    if np.ndim(i) != 0 or dtype.kind not in "iu":
        msg = f"i is {i!r}; expected an integer, the number of a neuron. Pass int(i)."
        raise TypeError(msg)
    if is_concrete(i) and not 0 <= int(i) < n:
        msg = f"i is {int(i)}; expected a neuron from 0 to {n - 1}."
        raise IndexError(msg)


def _check_share(alpha: Any) -> None:
    if is_concrete(alpha) and not 0 <= float(alpha) <= 1:
        msg = f"alpha is {float(alpha)}; expected a number in [0, 1]."
        raise ValueError(msg)


def check_open_share(alpha: Any, dtype: Any) -> None:
    r"""Refuses an alpha for which α or 1 - α is 0 in ``dtype``: Hessians hold 1/α."""
    if not is_concrete(alpha):
        return
    share, least = np.asarray(alpha).astype(dtype), float(jnp.finfo(dtype).tiny)
    # below the least normal number XLA may put 0
    if not (0 < float(alpha) < 1 and least <= float(share) < 1):
        msg = (
            f"alpha is {float(alpha)!r}, {float(share)} in {dtype}; expected a number "
            "in (0, 1) there: at 0 and 1 a neuron is zero. Use float64 nearer the ends."
        )
        raise ValueError(msg)


def _places(n: int, i: Any, alpha: Array) -> tuple[Array, Array]:
    """Which old neuron each new one comes from, and its share of it."""
    i = jnp.asarray(i, jnp.int32)
    new = jnp.arange(n + 1, dtype=jnp.int32)
    share = jnp.where(new == i, alpha, jnp.where(new == i + 1, 1 - alpha, 1))
    return new - (new > i).astype(jnp.int32), share


def split_hessian(
    operator: AbstractOperator, i: Any, alpha: Any = 0.5
) -> PopulationHessian:
    r"""The Hessian after a split, from the one before it.

    With $H'_{ii} = H_{ii} - \tfrac12 a_i^2 I$, and row and column i of H twice, the
    $2 \times 2$ blocks of the copies are
    $$ \begin{pmatrix} \tfrac12 a_i^2 I + H'_{ii}/\alpha & \tfrac12 a_i^2 I \\
       \tfrac12 a_i^2 I & \tfrac12 a_i^2 I + H'_{ii}/(1-\alpha) \end{pmatrix} $$
    (Lemma 28 of the paper, where a = 1). That is $P^\top H P + cc^\top \otimes H'_{ii}$
    with $P$ adding up the copies and $c = (\sqrt{(1-\alpha)/\alpha},
    -\sqrt{\alpha/(1-\alpha)})$ on them. In $s = u_i + u_{i+1}$ and $t = (1-\alpha) u_i
    - \alpha u_{i+1}$ the form is $H[s, \cdot] + t^\top H'_{ii} t/\alpha(1-\alpha)$, so
    by Sylvester's law, for every α in (0, 1),
    $$ \operatorname{inertia}(\text{split}) = \operatorname{inertia}(H) +
       \operatorname{inertia}(H'_{ii}) . $$
    The direction $(u, -u)$ has the curvature $u^\top H'_{ii} u\,(1/\alpha +
    1/(1-\alpha))$. At $\alpha = \tfrac12$ these directions are an invariant subspace,
    with the eigenvalues $2 \operatorname{spec}(H'_{ii})$.

    Args:
        operator: `hessian(objective, student)` of a `PopulationLoss`, at any point
            without zero neurons, critical or not.
        i: which neuron; may be traced.
        alpha: in (0, 1); may be traced.

    Returns:
        The operator of `hessian(objective, split(student, i, alpha))`: no angle is
        computed again.

    Raises:
        IndexError: no such neuron.
        TypeError: another operator; i is no integer.
        ValueError: alpha outside (0, 1), or 0 or 1 in the operator's dtype.

    Cost: O(n(n + k)).
    """
    if not isinstance(operator, PopulationHessian):
        msg = (
            f"operator is a {type(operator).__name__}; expected a PopulationHessian, "
            "as hessian(PopulationLoss(...), student) returns."
        )
        raise TypeError(msg)
    check_place(operator.sides.shape[0], i)
    check_open_share(alpha, operator.dtype)
    return _split_hessian(operator, i, jnp.asarray(alpha, operator.dtype))


@jax.jit
def _split_hessian(
    operator: PopulationHessian, i: Any, alpha: Array
) -> PopulationHessian:
    n, m = operator.sides.shape
    order, share = _places(n, i, alpha)
    later = jnp.arange(n, m, dtype=jnp.int32)
    columns = jnp.concatenate([order, later])
    ones = jnp.ones(m - n, operator.dtype)
    scale = jnp.concatenate([share, ones])[None, :] / share[:, None]
    pair = lambda x: x[order][:, order]
    return PopulationHessian(
        units=operator.units[columns],
        gates=pair(operator.gates),
        sides=operator.sides[order][:, columns],
        squares=operator.squares[order][:, columns],
        curving=operator.curving[order][:, columns] * scale,
        long=pair(operator.long),
        short=pair(operator.short),
        traces=operator.traces[order] / share,
        zero_neurons=operator.zero_neurons[order],
    )


class SplitVerdict(eqx.Module):
    r"""What splitting each neuron does to a critical point; see `split_verdict`.

    Attributes:
        eigenvalues: of $H'_{ii}$, ascending, (n, d).
        error: of these, (n,).
        directions: u, the unit eigenvectors of the smallest, (n, d).
        traces: $\lambda_i = \operatorname{tr}(H'_{ii})/d$, the mean of a neuron's
            eigenvalues and of $u^\top H'_{ii} u$ over the sphere, (n,).
        trace_bounds: $(\sum_{j \ne i} |w_j| - (k - 1))/2\pi|w_i| \ge \lambda_i$, (n,).
            NaN unless the teacher is orthonormal and all outer weights are one.
        norms: $|w_i|$, (n,).
        norm_limits: $\sum_{b_j>0} b_j|v_j|/a_i$: the norm of neuron i is at most this
            at every critical point if all outer weights of the student are positive;
            NaN otherwise. For an orthonormal teacher their sum is kn.
        loss: F at the point.
        loss_error: of this, rounding.
        gradient_norm: $\|\nabla F\|$: the verdict is on critical points.
        teacher_neurons: k.
        orthonormal: the teacher is orthonormal and all outer weights are one.
        error_kind: what ``error`` means.
    """

    eigenvalues: Float[Array, "n d"]
    error: Float[Array, " n"]
    directions: Float[Array, "n d"]
    traces: Float[Array, " n"]
    trace_bounds: Float[Array, " n"]
    norms: Float[Array, " n"]
    norm_limits: Float[Array, " n"]
    loss: Float[Array, ""]
    loss_error: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    orthonormal: Bool[Array, ""]
    teacher_neurons: int = eqx.field(static=True)
    error_kind: ErrorKind = eqx.field(static=True)

    @property
    def num_negative(self) -> Array:
        """Negative directions that the split of each neuron adds, (n,).

        The split of a minimum has exactly these, for every α in (0, 1).
        """
        return jnp.sum(self.eigenvalues < -self.error[:, None], axis=1)

    @property
    def saddle(self) -> Bool[Array, " n"]:
        r"""Whether every split of neuron i is a saddle, α in (0, 1).

        And no local minimum at α = 0 and 1 (Theorem 16).
        """
        return self.eigenvalues[:, 0] < -self.error

    @property
    def every_split_is_saddle(self) -> Bool[Array, ""]:
        """No $H'_{ii}$ is positive semidefinite: Theorem 16's case for all neurons."""
        return jnp.all(self.saddle)

    def curvature(self, alpha: Any = 0.5) -> Float[Array, " n"]:
        r"""$\lambda_{\min}(H'_{ii})(1/\alpha + 1/(1-\alpha))$ along $(u, -u)$, (n,).

        Raises:
            ValueError: alpha outside (0, 1), or 0 or 1 in the eigenvalues' dtype.
        """
        check_open_share(alpha, self.traces.dtype)
        alpha = jnp.asarray(alpha, self.traces.dtype)
        return self.eigenvalues[:, 0] * (1 / alpha + 1 / (1 - alpha))

    @property
    def norm_sum(self) -> Float[Array, ""]:
        r"""$\sum_i |w_i|$."""
        return jnp.sum(self.norms)

    @property
    def within_norm_limits(self) -> Bool[Array, ""]:
        r"""Whether $|w_i|$ is within its limit for all i: $\sum|w_i| \le kn$ follows.

        Proposition 15 for local minima; the proof is for critical points. False where
        the limits do not apply (NaN).
        """
        slack = 1 + 16 * float(jnp.finfo(self.norms.dtype).eps)
        return jnp.all(self.norms <= self.norm_limits * slack)

    @property
    def theorem_14(self) -> Bool[Array, ""]:
        r"""The hypotheses $n \le k$, $\sum|w_i| \le k$, F > 0, orthonormal teacher.

        If the point is a local minimum, every split of the longest neuron, in
        ``longest``, is a saddle: with $|w_i| \ge \sum|w_j|/k$ the bound in
        ``trace_bounds`` is at most 0.
        """
        few = self.norms.shape[0] <= self.teacher_neurons
        return (
            self.orthonormal
            & few
            & (self.norm_sum <= self.teacher_neurons)
            & (self.loss > self.loss_error)
        )

    @property
    def longest(self) -> Array:
        """The neuron that the proof of Theorem 14 splits."""
        return jnp.argmax(self.norms)

    def __str__(self) -> str:
        lines = []
        for i, count in enumerate(self.num_negative.tolist()):
            verdict = "every split is a saddle" if count else "no negative curvature"
            lines.append(
                f"neuron {i}: |w| = {float(self.norms[i]):.6g}, λ_min(H'_ii) = "
                f"{float(self.eigenvalues[i, 0]):.6g} ± {float(self.error[i]):.0e}, "
                f"λ_i = {float(self.traces[i]):.6g}, {count} negative: {verdict}"
            )
        everywhere = "yes" if bool(self.every_split_is_saddle) else "no"
        lines.append(
            f"every neuron: {everywhere}; Σ|w_i| = {float(self.norm_sum):.8g}, "
            f"k = {self.teacher_neurons}, hypotheses of Theorem 14: "
            f"{'met' if bool(self.theorem_14) else 'not met'}; "
            f"|∇F| = {float(self.gradient_norm):.1e}"
        )
        return "\n".join(lines)


def split_verdict(objective: PopulationLoss, student: Any) -> SplitVerdict:
    r"""Does a minimum become a saddle when a neuron is split?

    At a critical point with positive semidefinite Hessian, `split_hessian` says: the
    split of neuron i has as many negative directions as $H'_{ii}$, whatever α is. So it
    is a saddle if $\lambda_{\min}(H'_{ii}) < 0$ (Lemma 29, Theorem 16) and degenerate
    with a semidefinite Hessian otherwise; $H'_{ii} w_i = 0$ always. The paper's
    Theorem 14 gives a neuron for which the former holds at every non-global minimum
    with $n \le k$ and $\sum|w_i| \le k$. Its Proposition 15, $\sum|w_i| \le kn$, comes
    from $\tfrac12 a_i^2|w_i|^2 \le a_i \sum_j a_j f(w_i, w_j) = a_i \sum_j b_j
    f(w_i, v_j) \le \tfrac12 a_i |w_i| \sum_{b_j>0} b_j|v_j|$, for positive a.

    Args:
        objective: any teacher.
        student: W, or a network; at a critical point, without zero neurons.

    Raises:
        ValueError: a student that does not fit, or has a zero neuron.

    Cost: n symmetric eigenproblems of order d.
    """
    student = objective.student(student)
    operator = population_hessian(objective, student)
    value, gradient = objective.evaluate(student), objective.gradient(student)
    return _verdict(objective, operator, student, value, gradient)


@eqx.filter_jit
def _verdict(objective, operator, student, loss, gradient) -> SplitVerdict:
    w, a = student.inner, student.outer
    v, b = objective.teacher.inner, objective.teacher.outer
    d, k = w.shape[1], v.shape[0]
    eigenvalues, vectors = jnp.linalg.eigh(operator.own_blocks())
    norms = jnp.linalg.norm(w, axis=1)
    lengths = jnp.linalg.norm(v, axis=1)
    # entries of H' are off by some roundings of the sum of their terms' sizes
    size = jnp.sum(jnp.abs(a) * norms) + jnp.sum(jnp.abs(b) * lengths)
    size = jnp.abs(a) * size / (2 * math.pi * norms)
    rounding = jax.vmap(lambda norm: eigenvalue_rounding(norm, d, 0))
    standard = objective.has_orthonormal_teacher & jnp.all(a == 1)
    bounds = (jnp.sum(norms) - norms - (k - 1)) / (2 * math.pi * norms)
    limits = jnp.sum(jnp.maximum(b, 0) * lengths) / jnp.where(a > 0, a, 1)
    return SplitVerdict(
        eigenvalues=eigenvalues,
        error=rounding(size),
        directions=vectors[:, :, 0],
        traces=operator.traces,
        trace_bounds=jnp.where(standard, bounds, jnp.nan),
        norms=norms,
        norm_limits=jnp.where(jnp.all(a > 0), limits, jnp.nan),
        loss=loss.value,
        loss_error=loss.error,
        gradient_norm=jnp.linalg.norm(gradient),
        orthonormal=standard,
        teacher_neurons=k,
        error_kind="rounding bound",
    )
