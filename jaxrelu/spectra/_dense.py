"""Every eigenvalue or singular value of an operator, with rounding bounds."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from jaxrelu._checks import as_floating, check_choice, check_rank, is_concrete
from jaxrelu._memory import MemoryRefusedError, require_bytes
from jaxrelu._results import RESULTS, ErrorKind, throw_if_failed
from jaxrelu.operators._interface import AbstractOperator, gram
from jaxrelu.spectra import _host
from jaxrelu.spectra._rounding import (
    eigenvalue_rounding,
    gram_terms,
    gram_underflow,
    root,
    singular_value_rounding,
    structured,
)


Kind = Literal["eigenvalues", "singular values"]


SUCCESS: Any = RESULTS.successful  # RESULTS.where is typed on its members


class Spectrum(eqx.Module):
    r"""All eigenvalues or singular values of an operator.

    Attributes:
        values: descending; $r = \min(\text{rows}, \text{cols})$ of them.
        error: how far each value can be off, by rounding.
        tolerance: below it a value cannot be told from 0; `rank` counts those above.
        result: ``RESULTS.unresolved`` when some value cannot be told from 0.
        left: left singular vectors or eigenvectors as columns, when asked for.
        right: right singular vectors as columns, when the method has them.
        error_kind: ``"rounding bound"``.
        method: how the values were computed.
        kind: ``"eigenvalues"`` (signed, of a symmetric operator) or
            ``"singular values"``.
        shape: of the operator.
        dtype: of the operator.
    """

    values: Float[Array, " r"]
    error: Float[Array, " r"]
    tolerance: Float[Array, ""]
    result: RESULTS
    left: Float[Array, "rows r"] | None
    right: Float[Array, "cols r"] | None
    error_kind: ErrorKind = eqx.field(static=True)
    method: str = eqx.field(static=True)
    kind: Kind = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)
    dtype: str = eqx.field(static=True)

    def rank(self, tolerance: float | None = None) -> Int[Array, "..."]:
        """Number of values whose modulus exceeds ``tolerance`` (default: the field)."""
        return _beyond(self.values, self.tolerance, tolerance)

    def inertia(
        self, tolerance: float | None = None
    ) -> tuple[Int[Array, "..."], Int[Array, "..."], Int[Array, "..."]]:
        """Numbers of negative, zero and positive eigenvalues.

        A value counts as zero if its modulus is at most ``tolerance`` (default: the
        field). NaN counts as none of the three.

        Raises:
            ValueError: the values are singular values.
        """
        if self.kind != "eigenvalues":
            msg = (
                "inertia counts signs of eigenvalues and these are singular values; "
                "tag a symmetric operator: "
                "lx.TaggedLinearOperator(operator, lx.symmetric_tag)."
            )
            raise ValueError(msg)
        return _signs(self.values, self.tolerance, tolerance)

    def __repr__(self) -> str:
        if not is_concrete(self.values) or self.values.ndim != 1:
            return eqx.tree_pformat(self)
        rows, cols = self.shape
        values, error = np.asarray(self.values), np.asarray(self.error)
        text = (
            f"{len(values)} {self.kind} of a {rows} x {cols} {self.dtype} operator: "
            f"{values[0]:.6g} ± {error[0]:.1e} to {values[-1]:.6g} ± {error[-1]:.1e} "
            f"({self.error_kind}; {self.method})"
        )
        if bool(self.result != RESULTS.successful):
            text += f". {RESULTS[self.result]}"
        return f"<Spectrum: {text}>"

    __str__ = __repr__


def eigvalsh(matrix: Float[ArrayLike, "n n"]) -> Float[Array, " n"]:
    r"""Eigenvalues of a real symmetric matrix, ascending; no vectors are computed.

    A concrete matrix on the CPU goes to LAPACK directly ($4n^3/3$ operations). Under
    `jit` or `vmap`, and on other devices, it is `jax.numpy.linalg.eigvalsh`, which
    computes the vectors too and drops them.

    Args:
        matrix: only one triangle is read, either of them.

    Returns:
        The eigenvalues, in the matrix's precision; NaN if the input is not finite.

    Raises:
        ValueError: not a square matrix.
        TypeError: not floating.
    """
    matrix = as_floating(matrix, "matrix")
    check_rank(matrix, 2, "matrix", "(n, n)")
    if matrix.shape[0] != matrix.shape[1]:
        msg = f"matrix has shape {matrix.shape}; expected a square matrix."
        raise ValueError(msg)
    if not _host.on_host(matrix):
        return jnp.linalg.eigvalsh(matrix, symmetrize_input=False)
    host = np.asarray(matrix)
    if not _host.all_finite(host):
        return jnp.full(matrix.shape[:1], jnp.nan, matrix.dtype)
    return jnp.asarray(_host.eigvalsh(host))


def spectrum(
    operator: lx.AbstractLinearOperator | ArrayLike,
    *,
    method: str = "auto",
    vectors: bool = False,
    throw: bool = False,
) -> Spectrum:
    r"""All singular values of $A$, or signed eigenvalues if $A$ is tagged symmetric.

    Methods, with $r = \min(\text{rows}, \text{cols})$:

    - ``"gram"``: eigenvalues of the smaller of $A A^\top$ and $A^\top A$, which an
      operator of ours forms from its factors, never writing $A$ out. $4r^3/3$
      operations beside the Gram matrix. Squares the condition number: singular values
      below about $\sqrt{\varepsilon}\,\sigma_{\max}$ are lost, and the bound says so.
    - ``"float64"``: the same with the operator's numbers converted to float64 first
      (they are exact there), whether or not x64 is enabled. Not under `jit`.
    - ``"svd"``: singular values of $A$ written out, rows times cols numbers.
    - ``"symmetric"``: eigenvalues of a symmetric operator written out.
    - ``"auto"``: ``"symmetric"`` if the operator is tagged so, else ``"gram"``; when a
      float32 Gram matrix leaves a value unresolved, ``"float64"`` follows by itself
      where it can (concrete numbers, not on a TPU, an operator whose leaves convert).
      The answer is then for the matrix as stored, entries rounded to float32 included.
      ``"svd"`` follows where the Gram matrix of concrete numbers overflows.

    Under `jit` and `vmap` the methods but ``"float64"`` work and failures are data.

    Args:
        operator: any lineax operator with flat vectors, or a matrix.
        method: as above.
        vectors: compute vectors too: eigenvectors (``left``); the Gram routes have the
            singular vectors of the short side only (the other side's are
            $A^\top u/\sigma$), ``"svd"`` both.
        throw: raise on the host if a value is unresolved.

    Returns:
        Values with a rounding bound each.

    Raises:
        MemoryRefusedError: with the bytes needed, before anything is allocated.
        RuntimeError: with ``throw``, if the result is not successful.
    """
    operator = as_operator(operator)
    choices = ("auto", "gram", "float64", "svd", "symmetric")
    check_choice(method, choices, "method")
    symmetric = bool(lx.is_symmetric(operator))
    if method == "symmetric" and not symmetric:
        msg = (
            "method is 'symmetric' but the operator carries no symmetric tag; wrap it: "
            "lx.TaggedLinearOperator(operator, lx.symmetric_tag)."
        )
        raise ValueError(msg)
    symmetric = symmetric and method != "gram"
    dtype = dtype_of(operator)

    def by_eigenvalues(op):
        return _by_eigenvalues(op, vectors, symmetric, dtype)

    if method == "svd":
        answer = _by_svd(operator, vectors)
    elif method == "float64":
        answer = in_float64(operator, by_eigenvalues)
    else:
        answer = by_eigenvalues(operator)
        squared = method == "auto" and not symmetric
        if squared and may_escalate(operator, answer.result):
            # else the float32 answer stands, and says that it is unresolved
            with contextlib.suppress(MemoryRefusedError, TypeError):
                answer = in_float64(operator, by_eigenvalues)
        if squared and overflowed(operator, answer.values):
            with contextlib.suppress(MemoryRefusedError):
                answer = _by_svd(operator, vectors)
    if throw:
        throw_if_failed(answer.result, "spectrum")
    return answer


def as_operator(operator: Any) -> lx.AbstractLinearOperator:
    """A lineax operator on flat float32 or float64 vectors, or a clear refusal."""
    if not isinstance(operator, lx.AbstractLinearOperator):
        matrix = as_floating(operator, "operator")
        check_rank(matrix, 2, "operator", "(rows, cols)")
        operator = lx.MatrixLinearOperator(matrix)
    sides = [operator.in_structure()]
    if not isinstance(operator, AbstractOperator):  # ours: flat, one dtype
        sides.append(operator.out_structure())
    for side in sides:
        flat = isinstance(side, jax.ShapeDtypeStruct) and len(side.shape) == 1
        if not flat or side.dtype not in (jnp.float32, jnp.float64):
            msg = (
                f"the operator acts on {side}; expected flat float32 or float64 "
                "vectors. Ravel the pytree first (jax.flatten_util.ravel_pytree)."
            )
            raise TypeError(msg)
    if min(shape_of(operator)) == 0:
        msg = f"the operator has shape {shape_of(operator)}; expected no empty side."
        raise ValueError(msg)
    return operator


def shape_of(operator: lx.AbstractLinearOperator) -> tuple[int, int]:
    """(rows, cols)."""
    if isinstance(operator, AbstractOperator):
        return operator.shape
    return operator.out_size(), operator.in_size()


def dtype_of(operator: lx.AbstractLinearOperator) -> jnp.dtype:
    """Dtype of the operator's vectors."""
    if isinstance(operator, AbstractOperator):
        return operator.dtype
    return jnp.dtype(operator.in_structure().dtype)


def is_traced(operator: lx.AbstractLinearOperator) -> bool:
    """Whether some number in the operator is a tracer."""
    return not all(is_concrete(leaf) for leaf in jax.tree.leaves(operator))


def short_gram(operator: lx.AbstractLinearOperator) -> Float[Array, "r r"]:
    r"""The smaller of $A A^\top$ and $A^\top A$, refused if it would not fit."""
    rows, cols = shape_of(operator)
    require_gram_bytes(operator)
    with jax.default_matmul_precision("highest"):  # no TF32: it would be the error
        return gram(operator if rows <= cols else operator.transpose())


def require_gram_bytes(operator: lx.AbstractLinearOperator) -> None:
    """Refuses the Gram matrix, LAPACK's copy, and what is written out to form it."""
    (rows, cols), dtype = shape_of(operator), dtype_of(operator)
    r = min(rows, cols)
    count = 2 * r * r
    if structured(operator) is None:
        count += rows * cols
    require_bytes(
        count * dtype.itemsize,
        f"The {r} x {r} {dtype.name} Gram matrix of a {rows} x {cols} "
        "operator, with a copy to work on,",
        "Use extreme(operator, method='matrix-free') for both ends, or "
        "density(operator) for the distribution; both need products only.",
    )


def dense_symmetric(operator: lx.AbstractLinearOperator) -> Float[Array, "n n"]:
    """A symmetric operator written out, refused if it would not fit."""
    n = operator.in_size()
    require_bytes(
        2 * n * n * dtype_of(operator).itemsize,
        f"The {n} x {n} {dtype_of(operator).name} matrix, with a copy to work on,",
        "Use extreme(operator, method='matrix-free') for both ends, or "
        "density(operator) for the distribution; both need products only.",
    )
    return operator.as_matrix()


def may_escalate(operator: lx.AbstractLinearOperator, result: RESULTS) -> bool:
    """Whether a float32 answer is unresolved and float64 is to be had."""
    if dtype_of(operator) != jnp.float32 or is_traced(operator):
        return False
    return bool(result != RESULTS.successful) and jax.default_backend() != "tpu"


def overflowed(operator: lx.AbstractLinearOperator, values: Array) -> bool:
    """Whether concrete values are no numbers, as those of too large a Gram matrix."""
    return not is_traced(operator) and not np.isfinite(np.asarray(values)).all()


def in_float64(operator: lx.AbstractLinearOperator, compute: Callable) -> Any:
    """``compute(wide)`` under x64, ``wide`` the operator converted to float64.

    Raises:
        ValueError: inside `jit`, where the precision is fixed.
        TypeError: an operator that stays in float32 though its arrays do not.
    """
    if is_traced(operator):
        msg = (
            "method='float64' got traced numbers; inside jit or vmap the precision is "
            "fixed. Call it outside, or convert the inputs under jax.enable_x64(True)."
        )
        raise ValueError(msg)
    with jax.enable_x64(True):
        wide = jax.tree.map(_widen, operator)
        sides = (wide.in_structure(), wide.out_structure())
        if any(side.dtype != jnp.float64 for side in sides):
            msg = (
                f"{type(operator).__name__} keeps its float32 structure when its "
                "arrays are converted; build it in float64, or use method='svd'."
            )
            raise TypeError(msg)
        return compute(wide)


def _widen(leaf: Any) -> Any:
    return leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf


def rounded_to(
    dtype: jnp.dtype, value: Float[Array, "..."], error: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """``value`` in ``dtype``, the error enlarged by that rounding and underflow."""
    if value.dtype == dtype:
        return value, error
    eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
    error = (error + jnp.abs(value) * (eps / 2)) * (1 + 2 * eps) + 2 * tiny
    return value.astype(dtype), error.astype(dtype)


def unresolved(value: Float[Array, "..."], error: Float[Array, "..."]) -> RESULTS:
    """Whether a value cannot be told from 0, or is not a number at all."""
    lost = (error >= jnp.abs(value)) & (error > 0)
    result = RESULTS.where(~jnp.any(lost), SUCCESS, RESULTS.unresolved)
    return RESULTS.where(jnp.all(jnp.isfinite(value)), result, RESULTS.not_finite)


def _by_eigenvalues(
    operator: lx.AbstractLinearOperator,
    vectors: bool,
    symmetric: bool,
    dtype: jnp.dtype,
) -> Spectrum:
    rows, cols = shape = shape_of(operator)
    matrix = dense_symmetric(operator) if symmetric else short_gram(operator)
    n, found = matrix.shape[0], None
    if vectors:
        values, found = jnp.linalg.eigh(matrix)
        found = found[:, ::-1].astype(dtype)
    else:
        values = eigvalsh(matrix)
    terms = None if symmetric else gram_terms(operator)
    underflow = None if symmetric else gram_underflow(operator, n)
    values, error, tolerance, result = _bounded(values, underflow, terms, dtype)
    precision = jnp.dtype(matrix.dtype).name
    if symmetric:
        method = f"eigenvalues of the {n} x {n} matrix in {precision}"
    else:
        method = f"eigenvalues of the {n} x {n} Gram matrix in {precision}"
    return Spectrum(
        values=values,
        error=error,
        tolerance=tolerance,
        result=result,
        left=found if rows <= cols or symmetric else None,
        right=None if rows <= cols or symmetric else found,
        error_kind="rounding bound",
        method=method,
        kind="eigenvalues" if symmetric else "singular values",
        shape=shape,
        dtype=dtype.name,
    )


@functools.partial(jax.jit, static_argnames=("terms", "dtype"))
def _bounded(
    values: Array, underflow: Any, terms: int | None, dtype: jnp.dtype
) -> tuple:
    """Ascending eigenvalues made descending values with their bounds, in one program.

    Of a Gram matrix with `terms` products per entry the roots; None: as they are.
    """
    values = values[::-1]
    norm = jnp.maximum(jnp.abs(values[0]), jnp.abs(values[-1]))
    tolerance = eigenvalue_rounding(norm, len(values), terms or 0, underflow)
    error = jnp.full(values.shape, tolerance)
    if terms is not None:
        values, error = root(values, error)
        tolerance = jnp.sqrt(tolerance)
    _, tolerance = rounded_to(dtype, jnp.zeros_like(tolerance), tolerance)
    values, error = rounded_to(dtype, values, error)
    return values, error, tolerance, unresolved(values, error)


@jax.jit
def _beyond(values: Array, own: Array, tolerance: Any) -> Array:
    """Number of values of modulus above a tolerance, `own` if it is None."""
    bound = own[..., None] if tolerance is None else tolerance
    return jnp.sum(jnp.abs(values) > bound, axis=-1)


@jax.jit
def _signs(values: Array, own: Array, tolerance: Any) -> tuple[Array, Array, Array]:
    """Numbers of values below, within and above a tolerance, `own` if it is None."""
    bound = own[..., None] if tolerance is None else tolerance
    negative = jnp.sum(values < -bound, axis=-1)
    zero = jnp.sum(jnp.abs(values) <= bound, axis=-1)
    return negative, zero, jnp.sum(values > bound, axis=-1)


def _by_svd(operator: lx.AbstractLinearOperator, vectors: bool) -> Spectrum:
    rows, cols = shape = shape_of(operator)
    dtype = dtype_of(operator)
    require_bytes(
        2 * rows * cols * dtype.itemsize,
        f"The {rows} x {cols} {dtype.name} matrix written out, with a copy to work on,",
        "Use method='gram' or method='float64', which need the short side squared.",
    )
    matrix = operator.as_matrix()
    left = right = None
    if vectors:
        left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
        right = right.T
    elif _host.on_host(matrix):
        host = np.asarray(matrix)
        if _host.all_finite(host):
            values = jnp.asarray(_host.svdvals(host))
        else:
            values = jnp.full((min(shape),), jnp.nan, dtype)
    else:
        values = jnp.linalg.svd(matrix, compute_uv=False, full_matrices=False)
    tolerance = singular_value_rounding(values[0], operator)
    error = jnp.full(values.shape, tolerance)
    return Spectrum(
        values=values,
        error=error,
        tolerance=tolerance,
        result=unresolved(values, error),
        left=left,
        right=right,
        error_kind="rounding bound",
        method=f"singular values of the matrix in {dtype.name}",
        kind="singular values",
        shape=shape,
        dtype=dtype.name,
    )
