"""LAPACK and BLAS on the host, for concrete arrays that live on the CPU.

XLA's CPU backend computes eigenvectors when asked for eigenvalues and is several times
slower than LAPACK at Cholesky factors and triangular solves. Every call here goes
through scipy: numpy carries a BLAS with its own threads, and the two pools disturb each
other. A symmetric C-ordered array is its own Fortran-ordered transpose, so nothing is
copied but what LAPACK overwrites.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import scipy.linalg as sl

from jaxrelu._checks import is_concrete


def on_host(x: Any) -> bool:
    """Whether ``x`` holds numbers now, on a CPU."""
    if not isinstance(x, jax.Array):
        return isinstance(x, np.ndarray)
    return is_concrete(x) and all(d.platform == "cpu" for d in x.devices())


def all_finite(matrix: np.ndarray) -> bool:
    """Whether no entry is NaN or infinite (one pass when all is well)."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(matrix.sum()) or np.isfinite(matrix).all())


def eigvalsh(matrix: np.ndarray) -> np.ndarray:
    """All eigenvalues of a symmetric matrix, ascending; no vectors are computed.

    Cost: $4n^3/3$. The triangle is the one OpenBLAS reduces faster in that precision.
    """
    lower = matrix.dtype == np.float64
    return sl.eigvalsh(matrix.T, lower=lower, driver="evd", check_finite=False)


def svdvals(matrix: np.ndarray) -> np.ndarray:
    """All singular values, descending, of a matrix taken in its cheaper orientation."""
    return np.asarray(sl.svdvals(matrix.T, check_finite=False))


def cholesky(matrix: np.ndarray, shift: float) -> np.ndarray | None:
    r"""Lower Cholesky factor of $A - sI$ (upper half untouched), None if it breaks."""
    work = np.array(matrix.T, order="F")
    diagonal = np.einsum("ii->i", work)
    diagonal -= work.dtype.type(shift)
    (potrf,) = sl.get_lapack_funcs(("potrf",), (work,))
    factor, info = potrf(work, lower=1, clean=0, overwrite_a=1)
    # LAPACK reports no failure when a NaN appears
    whole = info == 0 and np.isfinite(np.diagonal(factor)).all()
    return factor if whole else None


def symmetric_product(matrix: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """$v -> A v$ for a symmetric matrix, reading one triangle."""
    (symv,) = sl.get_blas_funcs(("symv",), (matrix,))
    return lambda v: symv(1.0, matrix.T, v, lower=1)


def inverse_product(factor: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    r"""$v -> (L L^\top)^{-1} v$.

    Vectors, not blocks: OpenBLAS solves with one right-hand side eight times faster
    than with four.
    """
    (trsv,) = sl.get_blas_funcs(("trsv",), (factor,))
    return lambda v: trsv(factor, trsv(factor, v, lower=1), lower=1, trans=1)


def lanczos_ends(
    product: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    *,
    tolerance: float,
    max_steps: int,
) -> tuple[float, float, float, float, int]:
    """Extreme Ritz values of a symmetric product; see `_lanczos.lanczos_ends`."""
    n = start.shape[0]
    max_steps = min(max_steps, n)
    basis = np.empty((n, max_steps), start.dtype, order="F")
    gemv, nrm2, dot = sl.get_blas_funcs(("gemv", "nrm2", "dot"), (basis,))
    diagonal, off = np.zeros(max_steps), np.zeros(max_steps)
    eps, tiny = np.finfo(basis.dtype).eps, np.finfo(basis.dtype).tiny

    def project_out(w, known):
        for _ in range(2):
            w = w - gemv(1.0, known, gemv(1.0, known, w, trans=1))
        return w

    q = start / nrm2(start)
    ends, scale = (0.0, 0.0, 0.0, 0.0), 0.0
    for k in range(max_steps):
        basis[:, k] = q
        known = basis[:, : k + 1]
        w = product(q)
        diagonal[k] = dot(q, w)
        w = w - basis.dtype.type(diagonal[k]) * q
        if k > 0:
            w -= basis.dtype.type(off[k - 1]) * basis[:, k - 1]
        w = project_out(w, known)
        off[k] = nrm2(w)
        scale = max(scale, abs(diagonal[k]), off[k])
        if off[k] <= 4 * eps * scale:  # invariant subspace
            off[k], w = 0.0, project_out(np.roll(basis[:, 0], k + 1), known)
        q = w / max(nrm2(w), tiny)
        if (k + 1) % 8 == 0 or k + 1 == max_steps:
            ends = _ritz_ends(diagonal[: k + 1], off[: k + 1])
            low, _, high, high_residual = ends
            floor, spread = eps * max(abs(low), abs(high)), 0.01 * (high - low)
            done = high_residual <= max(min(tolerance * abs(high), spread), floor)
            if done:
                return *ends, k + 1
    return *ends, max_steps


def _ritz_ends(
    diagonal: np.ndarray, off: np.ndarray
) -> tuple[float, float, float, float]:
    values, vectors = sl.eigh_tridiagonal(diagonal, off[:-1], check_finite=False)
    last = np.abs(off[-1] * vectors[-1])
    return float(values[0]), float(last[0]), float(values[-1]), float(last[-1])
