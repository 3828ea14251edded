"""The common problem: one network, one data set, and its spectrum computed slowly."""

from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg


Problem = dict[str, np.ndarray]

_MARGIN = 32 * float(np.finfo(np.float32).eps)
_QR_WORK_LIMIT = 1e13
"""Multiplications (p n^2) above which the reference falls back to the Gram matrix."""


def make_problem(n: int, d: int, k: int, seed: int = 0) -> Problem:
    r"""Inputs X (n, d), inner weights W (k, d) and outer weights v (k,), NumPy only.

    Rows of X are uniform on the unit sphere, W is standard Gaussian, v is half
    $+1/\sqrt{k}$, half $-1/\sqrt{k}$; the network is $f(x) = v^\top \max(Wx, 0)$.

    All numbers are representable in float32, so that both precisions see the same
    problem, and neurons with a pre-activation within rounding of 0 are drawn anew, so
    that every candidate sees the same activation pattern: a flipped bit is a
    different problem, not an error.
    """
    rng = np.random.default_rng([seed, n, d, k])
    inputs = rng.standard_normal((n, d))
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    inputs = inputs.astype(np.float32).astype(np.float64)
    inner = np.empty((k, d))
    redraw = np.arange(k)
    while redraw.size:
        fresh = rng.standard_normal((redraw.size, d)).astype(np.float32)
        inner[redraw] = fresh
        scale = np.linalg.norm(inner[redraw], axis=1)
        close = np.abs(inner[redraw] @ inputs.T).min(axis=1) < _MARGIN * scale
        redraw = redraw[close]
    sign = np.where(np.arange(k) < k // 2, 1.0, -1.0)
    outer = (sign / np.sqrt(k)).astype(np.float32).astype(np.float64)
    return {"inputs": inputs, "inner": inner, "outer": outer}


def structured_gram(problem: Problem) -> np.ndarray:
    r"""$J J^\top = (X X^\top) \circ (A A^\top)$, $A_{ia} = v_a 1[w_a^\top x_i > 0]$."""
    inputs = problem["inputs"]
    factor = _outer_factor(problem)
    return (inputs @ inputs.T) * (factor @ factor.T)


def _outer_factor(problem: Problem) -> np.ndarray:
    active = problem["inputs"] @ problem["inner"].T > 0
    return active * problem["outer"]


def qr_values(problem: Problem) -> np.ndarray:
    r"""Singular values of J by QR of its explicit columns, block by block, then SVD.

    Neither the Gram matrix nor the Khatri-Rao formula enters, and the condition number
    is not squared: every value is right to a modest multiple of
    $\epsilon \sigma_{\max}$. Cost $2 n^2 k d$ flops, memory $O(n^2)$.
    """
    inputs = problem["inputs"]
    n, d = inputs.shape
    factor = _outer_factor(problem)
    k = factor.shape[1]
    width = max(1, -(-4 * n // d))
    triangle = np.zeros((0, n))
    for start in range(0, k, width):
        part = factor[:, start : start + width]
        block = (part[:, :, None] * inputs[:, None, :]).reshape(n, -1)
        triangle = np.linalg.qr(np.concatenate([triangle, block.T]), mode="r")
    return np.linalg.svd(triangle, compute_uv=False)[::-1]


def gram_values(problem: Problem) -> np.ndarray:
    r"""Singular values from the float64 Gram matrix; errors $\epsilon\kappa^2$."""
    gram = structured_gram(problem)
    squares = scipy.linalg.eigvalsh(gram, overwrite_a=True, driver="evd")
    return np.sqrt(np.maximum(squares, 0.0))


def cached_problem(folder: Path, n: int, d: int, k: int) -> Path:
    """The npz of `make_problem`, written on the first call."""
    path = folder / f"problem-{n}-{d}-{k}.npz"
    if not path.exists():
        _save(path, make_problem(n, d, k))
    return path


def cached_reference(folder: Path, problem_path: Path) -> tuple[np.ndarray, str]:
    """Ascending float64 singular values and how they were computed, kept as npz."""
    path = folder / problem_path.name.replace("problem", "reference")
    if not path.exists():
        problem = dict(np.load(problem_path))
        n, d = problem["inputs"].shape
        if n**2 * d * len(problem["outer"]) <= _QR_WORK_LIMIT:
            values, method = qr_values(problem), "block QR of J, then SVD"
        else:
            values, method = gram_values(problem), "float64 Gram, LAPACK"
        _save(path, {"values": values, "method": np.array(method)})
    stored = np.load(path)
    return stored["values"], str(stored["method"])


def _save(path: Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    partial.replace(path)
