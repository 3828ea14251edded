r"""$|f|_{W^{1,\infty}}$: one entry point, the method chosen by size."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxrelu._checks import check_choice, check_positive
from jaxrelu._results import RESULTS, ErrorKind, Estimate
from jaxrelu.realization._arrangement import (
    EPS,
    Arrangement,
    arrange,
    num_cells,
    pattern_of,
)
from jaxrelu.realization._bounds import host_bounds, is_finite, require_finite
from jaxrelu.realization._cells import (
    MAX_CELLS,
    box_walls,
    check_tolerance,
    enumerate_cells,
    exact_arrangement,
    largest,
    require_cells,
)
from jaxrelu.realization._lp import lp_half_cells
from jaxrelu.realization._milp import WIDTH, milp_largest_entry
from jaxrelu.realization._norms import check_norm, host_norm
from jaxrelu.realization._rational import exact_jacobian, exact_norm
from jaxrelu.realization._recursion import InconsistentError
from jaxrelu.realization._sweep import Best, angular_sweep, great_circle_sweep
from jaxrelu.realization._units import (
    Leaves,
    Units,
    host_units,
    is_traced,
    leaves_of,
)
from jaxrelu.realization._value import seminorm_value


MAX_RATIONAL = 20_000  # cells that integers list within a minute
SUCCESS: Any = RESULTS.successful  # RESULTS.where is typed on its members
METHODS = (
    "auto",
    "angular",
    "great-circle",
    "recursion",
    "rational",
    "lp",
    "milp",
    "bounds",
)


class _Answer(NamedTuple):
    value: float
    error: float
    kind: ErrorKind
    method: str
    pattern: np.ndarray


def _angular(arrangement: Arrangement, norm: str) -> Best:
    if arrangement.rank == 1:
        return _recursion(arrangement, norm)
    return angular_sweep(arrangement, norm)


def _great_circle(arrangement: Arrangement, norm: str) -> Best:
    if arrangement.rank < 3:
        return _angular(arrangement, norm)
    return great_circle_sweep(arrangement, norm)


def _recursion(arrangement: Arrangement, norm: str) -> Best:
    return largest(arrangement, enumerate_cells(arrangement).signs, norm)


def _lp(arrangement: Arrangement, norm: str) -> Best:
    signs = lp_half_cells(arrangement)
    signs = np.concatenate([signs, -signs])
    for plane, sign in arrangement.required:
        signs = signs[signs[:, plane] == sign]
    return largest(arrangement, signs, norm)


def _milp(arrangement: Arrangement, norm: str) -> Best:
    if norm != "max":
        msg = f"method='milp' maximises entries; got norm={norm!r}, expected 'max'."
        raise ValueError(msg)
    return milp_largest_entry(arrangement)


HOST_METHODS: dict[str, tuple[Callable[..., Best], str]] = {
    "angular": (_angular, "angular sweep over {} cells"),
    "great-circle": (_great_circle, "great-circle sweep over {} arcs"),
    "recursion": (_recursion, "deletion and restriction, {} cells"),
    "lp": (_lp, "tree of linear programs, {} cells of inradius above 1e-6"),
    "milp": (_milp, f"{{}} mixed-integer programs, cells of width above {WIDTH:g}"),
}


def _pick(arrangement: Arrangement, max_cells: int) -> str:
    h, rank = arrangement.num_planes, arrangement.rank
    if rank == 2:
        return "angular"
    if rank == 3 and num_cells(h, 3) <= max_cells:
        return "great-circle"
    if rank == 0 or num_cells(h, rank) <= max_cells:
        return "recursion"
    return "bounds"


def _check_method(arrangement: Arrangement, method: str, max_cells: int) -> None:
    limit = {"angular": 2, "great-circle": 3}.get(method)
    if limit is not None and arrangement.rank > limit:
        msg = (
            f"method={method!r} needs normals of rank at most {limit}; these have rank "
            f"{arrangement.rank}. Take method='recursion' or 'auto'."
        )
        raise ValueError(msg)
    if method in ("great-circle", "recursion", "rational", "lp"):
        require_cells(arrangement, max_cells, f"method={method!r}")


def rounding_of(units: Units, norm: str) -> float:
    r"""Rounding of running sums of $c_i a_i^\top$ in float64, errors as independent."""
    k, d = units.inner.shape
    m = units.outer.shape[0]
    size = np.abs(units.outer) @ np.abs(units.inner)
    size = host_norm(size, "fro" if norm == "spectral" else norm)
    return float(4 * np.sqrt(2 * k + m + d + 8) * EPS * size)


def _merging(arrangement: Arrangement, units: Units, norm: str) -> float:
    r"""What cells between rows that were merged may have beyond the cells visited.

    A point of such a cell lies in a visited one by the first rows of the groups, and
    its Jacobian differs by some $c_i a_i^\top$ of the other rows.
    """
    doubt = arrangement.doubtful
    if not doubt.any():
        return 0.0
    inner, outer = np.abs(units.inner), np.abs(units.outer)
    # rows merged into two dimensions need not lie in them: where all first rows vanish,
    # those of several groups may be on either side
    if units.rows.shape[1] > 2 or arrangement.required:
        return float(host_norm(outer[:, doubt] @ inner[doubt], norm))
    most = 0.0  # in a plane one group at a time: a pair of its sides is a cell each
    for plane in np.unique(arrangement.group[doubt]):
        here = arrangement.group == plane
        size = outer[:, here] @ inner[here]
        if norm in ("max", "opinf") or len(outer) == 1:
            # row by row between the two sides, but for terms of both signs
            size = (size - np.abs(arrangement.jumps[plane])) / 2
            size = size + arrangement.parallel * (outer[:, here] @ inner[here])
        most = max(most, float(host_norm(size, norm)))
    return most


def _value_at(units: Units, pattern: np.ndarray, norm: str) -> float:
    return float(host_norm(units.outer[:, pattern] @ units.inner[pattern], norm))


def _by_rationals(
    units: Units, arrangement: Arrangement, norm: str, walls: np.ndarray | None
) -> _Answer:
    arrangement, found = exact_arrangement(units, arrangement, walls)
    best = largest(arrangement, found.signs, norm)
    rounding = rounding_of(units, norm)
    text = f"integer deletion and restriction, {len(found.signs)} cells"
    best_exact, best_pattern = None, pattern_of(arrangement, best.signs)
    if norm in ("max", "opinf", "op1"):
        # float values choose the candidates, rationals decide among them
        shape = arrangement.total.shape
        flat = arrangement.jumps.reshape(-1, shape[0] * shape[1])
        sums = (found.signs.astype(float) @ flat).reshape(-1, *shape)
        values = host_norm(arrangement.total + sums, norm) / 2
        for signs in found.signs[values >= best.value - 2 * rounding]:
            pattern = pattern_of(arrangement, signs)
            jacobian = exact_jacobian(units.inner, units.outer, pattern)
            value = exact_norm(jacobian, norm)
            assert value is not None
            if best_exact is None or value > best_exact:
                best_exact, best_pattern = value, pattern
    if best_exact is None:
        value = _value_at(units, best_pattern, norm)
        return _Answer(value, rounding, "rounding bound", text, best_pattern)
    value = float(best_exact)
    off = float(abs(best_exact - type(best_exact)(value)))
    kind = "exact" if off == 0 else "certified bound"
    return _Answer(value, off * (1 + EPS), kind, text, best_pattern)


def _host_answer(
    units: Units,
    norm: str,
    method: str,
    tolerance: float | None,
    walls: np.ndarray | None,
    max_cells: int,
) -> _Answer | None:
    """The answer of an exact method, or None when only bounds are affordable."""
    require_finite(units, norm)
    arrangement = arrange(units, tolerance, walls)
    asked = tolerance is not None
    if method == "auto":
        method = _pick(arrangement, max_cells)
        if method == "bounds":
            return None
        try:
            return _by(method, units, arrangement, norm, walls, max_cells, asked)
        except InconsistentError:
            if num_cells(arrangement.num_planes, arrangement.rank) > MAX_RATIONAL:
                raise
            method = "rational"
    return _by(method, units, arrangement, norm, walls, max_cells, asked)


def _by(
    method: str,
    units: Units,
    arrangement: Arrangement,
    norm: str,
    walls: np.ndarray | None,
    max_cells: int,
    asked: bool,
) -> _Answer:
    _check_method(arrangement, method, max_cells)
    if method == "rational":
        return _by_rationals(units, arrangement, norm, walls)
    if not arrangement.num_planes:
        nothing = np.zeros(units.inner.shape[0], bool)
        return _Answer(0.0, 0.0, "exact", "no neuron has weights", nothing)
    find, text = HOST_METHODS[method]
    best = find(arrangement, norm)
    text = text.format(best.visited)
    if arrangement.merged:
        text += (
            f"; {arrangement.merged} rows parallel to within "
            f"{arrangement.parallel:g} taken as "
            "parallel"
        )
    if arrangement.error > arrangement.coincidence / 10:
        text += f"; normals of rank {arrangement.rank} to within {arrangement.error:g}"
    pattern = pattern_of(arrangement, best.signs)
    error = rounding_of(units, norm) + best.gap
    if not asked:
        error += _merging(arrangement, units, norm)
    value = _value_at(units, pattern, norm)
    return _Answer(value, error, "rounding bound", text, pattern)


def _as_estimate(answer: _Answer, dtype: np.dtype) -> Estimate:
    value = np.asarray(answer.value).astype(dtype)
    error, kind = answer.error, answer.kind
    rounded = abs(float(value) - answer.value)
    if rounded:
        error += rounded
        kind = "certified bound" if kind == "exact" else kind
    return Estimate(
        jnp.asarray(value),
        jnp.asarray(np.asarray(error * (1 + 1e-6)).astype(dtype)),
        SUCCESS,
        kind,
        answer.method,
    )


def _walls_of(leaves: Leaves, domain: float | None) -> np.ndarray | None:
    if domain is None:
        return None
    check_positive(domain, "domain")
    # cones meet every neighbourhood of 0: without biases the box changes nothing
    return None if leaves.bias is None else box_walls(leaves.inner.shape[1], domain)


def seminorm(
    network: Any,
    norm: str = "max",
    method: str = "auto",
    domain: float | None = None,
    *,
    tolerance: float | None = None,
    max_cells: int = MAX_CELLS,
    key: PRNGKeyArray | None = None,
) -> Estimate:
    r"""$|f|_{W^{1,\infty}} = \operatorname{ess\,sup}_x \|Df(x)\|$.

    The Jacobian of a ReLU layer is constant on each cell of the arrangement of its
    kinks, $Df = G(s) = \sum_{i : \langle a_i, x\rangle > 0} c_i a_i^\top$, so the
    supremum is a maximum over cells. Which cells exist is decided on the host; kinks
    themselves are never evaluated. Under `jit`, `grad` and `vmap` an exact method runs
    as a host callback and the value is recomputed in JAX on the cell that it names:
    the gradient is the semi-norm's at almost all weights.

    Args:
        network: `Shallow`, a `DenseNetwork` with one hidden layer and biases, or a pair
            `(a, b)` for $R(a) - R(b)$.
        norm: of the Jacobian: `"max"` (largest entry, the paper's), `"fro"`,
            `"spectral"`, `"opinf"`, `"op1"`, see `jaxrelu.realization.Norm`.
        method: `"auto"` takes the first of these that applies within `max_cells`:

            * `"angular"`: normals of rank 2, $O(h \log h)$ for h distinct planes;
            * `"great-circle"`: rank 3, $O(h^2 \log h)$;
            * `"recursion"`: deletion and restriction, any rank, $O(h^r)$ (and
              `"rational"` in its place where rounding decides which cells there are);
            * `"bounds"`: midpoint and half-width between certified bounds.

            On request: `"rational"`, every sign decided in integers (exact for the
            weights as stored); `"lp"`, a tree of linear programs; `"milp"`, for
            `norm="max"` in high dimension. The last two do not see cells narrower than
            1e-6 and 1e-4.
        domain: half-width B of the box $(-B, B)^d$; None is all of $R^d$. Matters for
            networks with biases only.
        tolerance: rows whose directions differ by less after sup-norm scaling are taken
            as parallel, so cells between them are not visited: the semi-norm is
            discontinuous there. None is 1e-13 for float64 and 5e-7 for float32, what
            rescaling a neuron rounds; then `error` holds what such cells could add, and
            coincidences of three and more planes are those of the weights as stored, to
            within 1e-13. A tolerance that is given also serves for these, and is part
            of the question: those rows are parallel, `error` is rounding.
        max_cells: most cells an exact method may have to visit.
        key: with it `"bounds"` also climbs from random cells, see
            `jaxrelu.realization.bounds`.

    Returns:
        An `Estimate`. `error_kind` is `"rounding bound"` when all cells were visited
        (rounding, and cells between rows that the default tolerance merged; `method`
        counts these rows; `"lp"` and `"milp"` speak of the cells that they see, and
        the latter adds what HiGHS left open),
        `"certified bound"` for bounds, `"exact"` where rational arithmetic gave a value
        that the dtype holds.

    Raises:
        TypeError: not one hidden ReLU layer.
        ValueError: unknown norm or method, a rank too large for the method, more than
            `max_cells` cells, products of weights that overflow.
        MemoryRefusedError: cells that would not fit in memory.
    """
    check_norm(norm)
    check_choice(method, METHODS, "method")
    check_tolerance(tolerance)
    leaves = leaves_of(network)
    walls = _walls_of(leaves, domain)
    if is_traced(leaves):
        return _traced(leaves, network, norm, method, tolerance, walls, max_cells)
    units = host_units(leaves)
    answer = None
    if method != "bounds":
        answer = _host_answer(units, norm, method, tolerance, walls, max_cells)
    if answer is None:
        return host_bounds(units, norm, domain, key).estimate()
    return _as_estimate(answer, units.dtype)


def distance(
    network_a: Any, network_b: Any, norm: str = "max", **kwargs: Any
) -> Estimate:
    r"""$|R(a) - R(b)|_{W^{1,\infty}}$: the `seminorm` of the pair.

    0 exactly when the functions differ by a constant; networks without biases are then
    equal.

    Args:
        network_a: one hidden ReLU layer.
        network_b: another with the same sizes of input and output.
        norm: as in `seminorm`.
        **kwargs: further arguments of `seminorm`.
    """
    return seminorm((network_a, network_b), norm, **kwargs)


def _traced(
    leaves: Leaves,
    network: Any,
    norm: str,
    method: str,
    tolerance: float | None,
    walls: np.ndarray | None,
    max_cells: int,
) -> Estimate:
    k, d = leaves.inner.shape
    if method == "bounds":
        msg = "method='bounds' needs numbers; under jit or grad take an exact method."
        raise ValueError(msg)
    dtype = leaves.inner.dtype
    bare = [None if x is None else jax.lax.stop_gradient(x) for x in leaves]

    def on_host(*arrays: Any) -> tuple[np.ndarray, ...]:
        filled = [None if x is None else np.asarray(x) for x in arrays]
        finite = all(x is None or np.isfinite(x).all() for x in filled)
        whole = [None if x is None else x.astype(np.float64) for x in filled]
        units = Units._make([*whole, np.dtype(dtype)])
        if not (finite and is_finite(units, norm)):
            return np.zeros(k, bool), np.asarray(np.inf, dtype), np.asarray(False)
        answer = _host_answer(units, norm, method, tolerance, walls, max_cells)
        if answer is None:
            msg = (
                f"{k} neurons in dimension {d} have more than max_cells = "
                f"{max_cells:,} cells: only bounds are affordable, and they need "
                "numbers. Raise max_cells, or call seminorm outside jit and grad."
            )
            raise ValueError(msg)
        error = answer.error + 2 * (k + 8) * float(jnp.finfo(dtype).eps) * answer.value
        return answer.pattern, np.asarray(error, dtype), np.asarray(True)

    shapes = (
        jax.ShapeDtypeStruct((k,), bool),
        jax.ShapeDtypeStruct((), dtype),
        jax.ShapeDtypeStruct((), bool),
    )
    pattern, error, finite = jax.pure_callback(
        on_host, shapes, *bare, vmap_method="sequential"
    )
    value = jnp.where(finite, seminorm_value(network, pattern, norm), jnp.nan)
    result = RESULTS.where(finite, SUCCESS, RESULTS.not_finite)
    text = f"cell found on the host (method={method!r}), value recomputed on it"
    return Estimate(value, error, result, "rounding bound", text)
