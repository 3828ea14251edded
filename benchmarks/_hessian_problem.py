"""Problems of the Hessian benchmark, and their answers computed slowly elsewhere."""

from pathlib import Path

import mpmath
import numpy as np


Problem = dict[str, np.ndarray]

POINTS = ("generic", "minimum", "parallel")
_SAMPLED = 24
_DIGITS = 110


def population_problem(size: int, point: str, seed: int = 0) -> Problem:
    """Student W and teacher V = I, both (size, size), and a direction U.

    Args:
        size: n = k = d.
        point: ``"generic"``, Gaussian rows of norm about 1; ``"minimum"``, W = V;
            ``"parallel"``, the second neuron twice the first, the third a multiple of
            the teacher's first, the others generic.
        seed: of the generator.

    All numbers are representable in float32, so that both precisions see the same.
    """
    rng = np.random.default_rng([seed, size, POINTS.index(point)])
    single = lambda x: x.astype(np.float32).astype(np.float64)
    inner = single(rng.standard_normal((size, size)) / size**0.5)
    teacher = np.eye(size)
    if point == "minimum":
        inner = teacher.copy()
    if point == "parallel":
        inner[1] = 2 * inner[0]
        inner[2] = 0.75 * teacher[0]
    direction = single(rng.standard_normal((size, size)))
    return {"inner": inner, "teacher": teacher, "direction": direction}


def _kernel(w: mpmath.matrix, v: mpmath.matrix) -> mpmath.mpf:
    """E[relu(w.x) relu(v.x)] for Gaussian x."""
    dot = mpmath.fdot(w, v)
    size = mpmath.sqrt(mpmath.fdot(w, w) * mpmath.fdot(v, v))
    angle = mpmath.acos(max(-1, min(1, dot / size)))
    return (size * mpmath.sin(angle) + (mpmath.pi - angle) * dot) / (2 * mpmath.pi)


def sampled_entries(problem: Problem, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Some entries of the population Hessian: their indices, and values to 18 digits.

    Second differences of the loss itself with step 1e-20 in arithmetic of 110 digits:
    no formula of a derivative enters. The loss is twice differentiable with a third
    derivative that jumps, so the differences are off by about the step. Half of the
    entries are in diagonal blocks, where a row of pairs enters; the first neurons,
    which are the special ones, are among them.

    Returns:
        (m, 4) indices i, a, j, b of the entry of W[i, a] and W[j, b], and (m,) values.
    """
    inner, teacher = problem["inner"], problem["teacher"]
    n, d = inner.shape
    rng = np.random.default_rng([seed, n, d])
    index = np.stack([rng.integers(0, (n, d, n, d)) for _ in range(_SAMPLED)])
    index[: _SAMPLED // 2, 2] = index[: _SAMPLED // 2, 0]
    index[:3, 0] = index[:3, 2] = [0, 1 % n, 2 % n]
    index[-3:, 0], index[-3:, 2] = [0, 0, 1 % n], [1 % n, 2 % n, 0]
    with mpmath.workdps(_DIGITS):
        students = [[mpmath.mpf(x) for x in row] for row in inner.tolist()]
        teachers = [[mpmath.mpf(x) for x in row] for row in teacher.tolist()]
        values = [_entry(students, teachers, *map(int, row)) for row in index]
    return index, np.array(values)


def _entry(students: list, teachers: list, i: int, a: int, j: int, b: int) -> float:
    step = mpmath.mpf(10) ** -20

    def part(s: int, t: int) -> mpmath.mpf:
        """The terms of the loss in which neurons i and j stand together."""
        moved = {i: list(students[i]), j: list(students[j])}
        moved[i][a] += s * step
        moved[j][b] += t * step
        if i != j:
            return _kernel(moved[i], moved[j])
        total = _kernel(moved[i], moved[i]) / 2
        total += mpmath.fsum(
            _kernel(moved[i], other) for l, other in enumerate(students) if l != i
        )
        return total - mpmath.fsum(_kernel(moved[i], other) for other in teachers)

    difference = part(1, 1) - part(1, -1) - part(-1, 1) + part(-1, -1)
    return float(difference / (4 * step**2))


def numpy_hessian(problem: Problem) -> np.ndarray:
    r"""The matrix (nd, nd) at a generic W, pair by pair in NumPy.

    The published blocks of Safran, Yehudai and Shamir (2021): with unit vectors
    $\bar w, \bar v$, angle θ and $n_{v,w}$ the normalised part of $\bar v$ orthogonal
    to w, $h_1 = \frac{|v| \sin\theta}{2\pi|w|}(I - \bar w\bar w^\top + n_{v,w}
    n_{v,w}^\top)$ and $h_2 = \frac1{2\pi}((\pi - \theta) I + n_{w,v}\bar v^\top +
    n_{v,w}\bar w^\top)$.
    """
    inner, teacher = problem["inner"], problem["teacher"]
    n, d = inner.shape
    hessian = np.zeros((n, d, n, d))
    unit = lambda x: x / np.linalg.norm(x)

    def pair(w, v):
        u, z = unit(w), unit(v)
        angle = np.arccos(np.clip(u @ z, -1, 1))
        first, second = unit(z - (u @ z) * u), unit(u - (u @ z) * z)
        scale = np.linalg.norm(v) * np.sin(angle) / np.linalg.norm(w)
        h1 = scale * (np.eye(d) - np.outer(u, u) + np.outer(first, first))
        h2 = (np.pi - angle) * np.eye(d) + np.outer(second, z) + np.outer(first, u)
        return h1 / (2 * np.pi), h2 / (2 * np.pi)

    for i in range(n):
        hessian[i, :, i] += np.eye(d) / 2
        for j in range(n):
            if j != i:
                h1, h2 = pair(inner[i], inner[j])
                hessian[i, :, i] += h1
                hessian[i, :, j] = h2
        for target in teacher:
            hessian[i, :, i] -= pair(inner[i], target)[0]
    return hessian.reshape(n * d, n * d)


def numpy_gradient(weights: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Gradient of the population loss at W (n, d), outer weights 1."""
    norms = np.linalg.norm(weights, axis=1)
    gradient = np.zeros_like(weights)
    for sign, others in ((1.0, weights), (-1.0, teacher)):
        sizes = np.linalg.norm(others, axis=1)
        cosine = np.clip(weights @ others.T / np.outer(norms, sizes), -1, 1)
        angle = np.arccos(cosine)
        along = (np.sin(angle) * sizes).sum(axis=1) / norms
        gradient += sign * (along[:, None] * weights + (np.pi - angle) @ others)
    return gradient / (2 * np.pi)


def empirical_problem(base: Problem, seed: int = 0) -> Problem:
    """The network and inputs of `_problem`, with Gaussian targets and a direction."""
    rng = np.random.default_rng([seed, *base["inner"].shape, len(base["inputs"])])
    single = lambda x: x.astype(np.float32).astype(np.float64)
    targets = single(rng.standard_normal(len(base["inputs"])))
    return {**base, "targets": targets}


def empirical_hessian(problem: Problem) -> np.ndarray:
    r"""$J^\top J$ from explicit rows; ReLU has no further part almost everywhere."""
    inputs, inner, outer = (problem[key] for key in ("inputs", "inner", "outer"))
    factor = (inputs @ inner.T > 0) * outer
    jacobian = (factor[:, :, None] * inputs[:, None, :]).reshape(len(inputs), -1)
    return jacobian.T @ jacobian


def cached(path: Path, make) -> Path:
    """The npz at `path`, made by ``make()`` on the first call."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **make())
        partial.replace(path)
    return path
