"""What a search found: distinct critical points, told apart and named."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrelu._checks import check_positive
from jaxrelu._results import ErrorKind
from jaxrelu.landscape.global_minima._global_minima import same_function
from jaxrelu.landscape.search._first_order import Problem
from jaxrelu.landscape.search._names import (
    family_name,
    merged_students,
)
from jaxrelu.landscape.search._runs import Runs, scale_of
from jaxrelu.landscape.search._symmetry import (
    Isotropy,
    Table,
    isotropy,
    matching,
    table,
)
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss
from jaxrelu.operators import hessian
from jaxrelu.spectra import Spectrum, spectrum


class CriticalPoints(eqx.Module):
    r"""The distinct critical points that a search came to, by increasing loss.

    Two runs came to one point if their ends differ by a symmetry of the objective;
    all global minima count as one point.

    Attributes:
        weights: a representative each, as found, (p, n, d).
        losses: $F$, (p,).
        gradient_norms: $\lVert\nabla F\rVert$ at the representative, (p,).
        negative: Hessian eigenvalues below ``-zero_tolerances``, (p,).
        zero: those within, (p,).
        positive: those above, (p,).
        zero_tolerances: rounding of the eigenvalues, and $4\alpha^2\sqrt{\lVert\nabla
            F\rVert/\alpha s}$ with $\alpha = \max|a_i|$ and s the root mean square of
            $|b_j|\,\lVert v_j\rVert$: along flat directions F grows as
            $\alpha^3|\epsilon|^3/s$, a point with that gradient may be
            $\sqrt{s\lVert\nabla F\rVert/\alpha^3}$ off, and its eigenvalues, which are
            of order $\alpha^2$ whatever the size of the weights, by $\alpha^3/s$ times
            that, (p,).
        smallest: $\lambda_{\min}$ of the Hessian at the representative, (p,).
        smallest_error: of that, by rounding, (p,).
        norm_sums: $\sum_i \lVert w_i\rVert$, (p,).
        counts: how many runs came here, (p,).
        isotropies: the symmetry of each point.
        families: its name, see `family_name`; ``"global"``, and ``"split II"`` for a
            point whose parallel neurons merge to that of another family.
        runs: every start and where it ended.
        class_of: the point each run came to; -1 for a run that came to none, (s,).
        objective: the objective.
        outer: the student's outer weights, (n,).
        error_kind: ``"rounding bound"``.
        method: how they were found.
    """

    weights: Float[Array, "p n d"]
    losses: Float[Array, " p"]
    gradient_norms: Float[Array, " p"]
    negative: Int[Array, " p"]
    zero: Int[Array, " p"]
    positive: Int[Array, " p"]
    zero_tolerances: Float[Array, " p"]
    smallest: Float[Array, " p"]
    smallest_error: Float[Array, " p"]
    norm_sums: Float[Array, " p"]
    counts: Int[Array, " p"]
    runs: Runs
    class_of: Int[Array, " s"]
    objective: PopulationLoss
    outer: Float[Array, " n"]
    isotropies: tuple[Isotropy, ...] = eqx.field(static=True)
    families: tuple[str, ...] = eqx.field(static=True)
    error_kind: ErrorKind = eqx.field(static=True)
    method: str = eqx.field(static=True)

    @property
    def kinds(self) -> tuple[str, ...]:
        """``"minimum"``, ``"saddle"`` or ``"degenerate"`` for each point.

        A global minimum is a minimum whatever its Hessian; another point is one if all
        eigenvalues are positive, a saddle if one is negative, and undecided otherwise.
        """
        kinds = []
        for i, family in enumerate(self.families):
            if family == "global":
                kinds.append("minimum")
            elif self.negative[i] > 0:
                kinds.append("saddle")
            else:
                kinds.append("degenerate" if self.zero[i] > 0 else "minimum")
        return tuple(kinds)

    def student(self, point: int) -> Shallow:
        """Point number ``point`` as a network."""
        return Shallow(self.weights[point], self.outer)

    def spectrum(self, point: int) -> Spectrum:
        """All Hessian eigenvalues at a point; 4(nd)³/3 operations."""
        return spectrum(hessian(self.objective, self.student(point)))

    def __len__(self) -> int:
        return len(self.families)

    def __repr__(self) -> str:
        failed = int(np.sum(np.asarray(self.class_of) < 0))
        lines = [
            f"<CriticalPoints: {len(self)} from {len(self.class_of)} starts"
            + (f", {failed} of which came to none" if failed else "")
        ]
        for i, kind in enumerate(self.kinds):
            lines.append(
                f"  {int(self.counts[i]):6d} {self.families[i]:16s} {kind:10s} "
                f"{self.isotropies[i].name:14s} F = {float(self.losses[i]):.10f}, "
                f"λ_min = {float(self.smallest[i]):.7f}"
            )
        return "\n".join(lines) + ">"

    __str__ = __repr__


def classify(
    objective: PopulationLoss,
    runs: Runs,
    outer: Any = None,
    identify: float | None = None,
) -> CriticalPoints:
    r"""Runs sorted by the point they came to, up to symmetry, and the points named.

    Args:
        objective: what was searched.
        runs: from one search, or from several of the same sizes joined.
        outer: the student's outer weights, (n,); one if None.
        identify: as in `find_critical_points`.

    Cost: for every run a comparison with the points of its loss, $(n + k)^2
    \log(n + k)$ on the host; for every point the eigenvalues of its Hessian.
    """
    if identify is None:
        identify = 5e-9 if runs.weights.dtype == jnp.float64 else 2e-3
    check_positive(identify, "identify")
    if outer is None:
        outer = jnp.ones(runs.weights.shape[1:2], runs.weights.dtype)
    classes, class_of = _classes(objective, runs, outer, identify)
    orthonormal = bool(objective.has_orthonormal_teacher)
    norms = np.asarray(runs.gradient_norms)
    points, names, groups = [], [], []
    for is_global, members in classes:
        best = int(members[np.argmin(norms[members])])
        weights = np.asarray(runs.weights)[best]
        group = isotropy(table(objective, weights, outer), identify)
        name = "global" if is_global else None
        if name is None:
            name = _name(objective, weights, outer, group, orthonormal, identify)
        points.append(_described(objective, runs, best, outer, len(members)))
        names.append(name)
        groups.append(group)
    if not points:
        points = [_described(objective, runs, 0, outer, 0)]
    count = len(names)
    stacked = jax.tree.map(lambda *all: jnp.asarray(np.stack(all)[:count]), *points)
    return CriticalPoints(
        **stacked,
        runs=runs,
        class_of=jnp.asarray(class_of, jnp.int32),
        objective=objective,
        outer=outer,
        isotropies=tuple(groups),
        families=tuple(names),
        error_kind="rounding bound",
        method="gradient descent and Newton's method; eigenvalues of dense Hessians",
    )


def _classes(
    objective: PopulationLoss, runs: Runs, outer: Array, identify: float
) -> tuple[list[tuple[bool, np.ndarray]], np.ndarray]:
    """(is global, its runs) for every point by increasing loss, and their inverse."""
    losses, converged = np.asarray(runs.losses), runs.converged
    weights, norms = np.asarray(runs.weights), np.asarray(runs.gradient_norms)
    size = _teacher_size(objective) ** 2
    scale = scale_of(Problem.of_loss(objective, outer))
    everywhere: list[int] = []
    kinds: list[tuple[Table, float, list[int]]] = []
    for i in np.argsort(losses, kind="stable"):
        if not converged[i]:
            continue
        near = max(identify, 4 * (float(norms[i]) / scale) ** 0.5)
        if losses[i] < 1e-3 * size and _is_global(objective, weights[i], outer, near):
            everywhere.append(int(i))
            continue
        point = table(objective, weights[i], outer)
        for other, loss, members in reversed(kinds):
            if losses[i] - loss > identify * size:
                continue
            if matching(other, point, identify) is not None:
                members.append(int(i))
                break
        else:
            kinds.append((point, float(losses[i]), [int(i)]))
    found = [(True, np.array(everywhere))] if everywhere else []
    found += [(False, np.array(members)) for _, _, members in kinds]
    class_of = np.full(len(losses), -1)
    for number, (_, members) in enumerate(found):
        class_of[members] = number
    return found, class_of


def _is_global(
    objective: PopulationLoss, weights: np.ndarray, outer: Array, near: float
) -> bool:
    """Whether student and teacher are one function, with rows up to ``near`` off."""
    student = Shallow(jnp.asarray(weights), outer)
    angle = jnp.asarray(4 * near, weights.dtype)
    test = same_function(objective.teacher, student, angle)
    masses, linear = np.asarray(test.kink_masses), np.asarray(test.linear_part)
    limit = 4 * near * float(_teacher_norms(objective).max())
    return bool(
        np.abs(masses).max() <= limit
        and np.linalg.norm(linear) <= limit * len(masses) ** 0.5
    )


def _name(
    objective: PopulationLoss,
    weights: np.ndarray,
    outer: Array,
    group: Isotropy,
    orthonormal: bool,
    identify: float,
) -> str:
    teacher = objective.teacher.inner
    if not orthonormal or (np.asarray(outer) != 1).any():
        return f"unnamed {sorted(group.sizes, reverse=True)}"
    merged = merged_students(weights, outer, identify)
    if len(merged) == len(weights):
        return family_name(weights, teacher, group)
    plain = table(objective, merged, np.ones(len(merged)))
    return "split " + family_name(merged, teacher, isotropy(plain, identify))


def _described(
    objective: PopulationLoss, runs: Runs, best: int, outer: Array, count: int
) -> dict[str, Any]:
    """The numbers of one point."""
    weights = np.asarray(runs.weights)[best]
    norm = np.asarray(runs.gradient_norms)[best]
    student = Shallow(jnp.asarray(weights), outer)
    found = spectrum(hessian(objective, student))
    values = np.asarray(found.values)
    part = float(norm) / scale_of(Problem.of_loss(objective, outer))
    size = float(np.abs(np.asarray(outer, np.float64)).max())
    tolerance = max(float(found.tolerance), 4 * size**2 * part**0.5)
    return {
        "weights": weights,
        "losses": np.asarray(runs.losses)[best],
        "gradient_norms": norm,
        "negative": np.int32((values < -tolerance).sum()),
        "zero": np.int32((np.abs(values) <= tolerance).sum()),
        "positive": np.int32((values > tolerance).sum()),
        "zero_tolerances": weights.dtype.type(tolerance),
        "smallest": values[-1],
        "smallest_error": np.asarray(found.error)[-1],
        "norm_sums": np.linalg.norm(weights, axis=1).sum(),
        "counts": np.int32(count),
    }


def _teacher_size(objective: PopulationLoss) -> float:
    r"""$(\sum_j b_j^2 \lVert v_j\rVert^2)^{1/2}$."""
    return float(np.linalg.norm(_teacher_norms(objective)))


def _teacher_norms(objective: PopulationLoss) -> np.ndarray:
    r"""$|b_j| \lVert v_j\rVert$, (k,)."""
    outer = np.asarray(objective.teacher.outer, np.float64)
    inner = np.asarray(objective.teacher.inner, np.float64)
    return np.abs(outer) * np.linalg.norm(inner, axis=1)
