r"""Residual minimisers near 0: every layer close to the identity.

Written down on the host in float64, then rounded to the precision of the data.
"""

import jax.numpy as jnp
import numpy as np
import scipy.linalg as sla
from jaxtyping import Float

from jaxrelu._checks import is_concrete
from jaxrelu.data import Dataset
from jaxrelu.landscape.minimizers._linear_minimizers import square_target
from jaxrelu.networks import LinearResidualNetwork


def root_minimizer(data: Dataset, depth: int) -> LinearResidualNetwork:
    r"""$W_k = R - I$ for all k with the principal root $R = (P^*)^{1/l}$.

    $\|W_k\| = O(1/l)$. The root is real when no eigenvalue of $P^*$ is on the closed
    negative axis; `polar_minimizer` needs only $\det P^* > 0$.

    Args:
        data: inputs (n, d), targets (n, d); concrete numbers.
        depth: l ≥ 1.

    Raises:
        ValueError: no real root of this kind, traced data, or depth below 1.
    """
    target = _host_target(data, depth)
    values = np.linalg.eigvals(target)
    size = np.abs(values).max()
    on_axis = (np.abs(values.imag) <= 1e-12 * size) & (values.real <= 1e-12 * size)
    if on_axis.any():
        msg = (
            f"P* has the eigenvalue {values[on_axis][0].real:.3g} on the closed "
            "negative axis and so no principal root. Use polar_minimizer if "
            "det P* > 0, or residual_minimizer."
        )
        raise ValueError(msg)
    root = np.real(sla.expm(np.asarray(sla.logm(target)) / depth))
    return _network(data, [root] * depth)


def polar_minimizer(data: Dataset, depth: int) -> LinearResidualNetwork:
    r"""Roots of the two polar factors: $P^* = QS$, $\det Q = 1$, S positive definite.

    The first $l_2$ factors are $S^{1/l_2}$, the last $l_1 = l - l_2$ are $Q^{1/l_1}$:
    $\|Q^{1/l_1} - I\|_2 = 2\sin(\theta/2l_1)$ with the largest angle $\theta \le \pi$
    of Q, and $\|S^{1/l_2} - I\|_2 \le e^{\gamma/l_2} - 1$,
    $\gamma = \max|\log\sigma_i(P^*)|$. The split with the smallest $\max_k\|W_k\|_2$
    is taken. So $\det P^* > 0$ is enough for minimisers within $O(1/l)$ of 0 (Hardt &
    Ma prove the same; their constant is recalled, and not used).

    Args:
        data: inputs (n, d), targets (n, d); concrete numbers.
        depth: l ≥ 1.

    Raises:
        ValueError: det P* ≤ 0, traced data, or depth below 1.
    """
    target = _host_target(data, depth)
    values = np.linalg.svd(target, compute_uv=False)
    singular = values[-1] <= len(values) * np.finfo(float).eps * values[0]
    if singular or np.linalg.det(target) < 0:
        why = "0" if singular else f"{np.linalg.det(target):.3g}"
        msg = (
            f"det P* is {why}; expected a positive determinant: that of a product of "
            "factors near the identity. Use residual_minimizer."
        )
        raise ValueError(msg)
    if depth == 1:
        return _network(data, [target])
    rotation, stretch = sla.polar(target)
    angles, basis, blocks = _rotation_planes(rotation)
    widest = np.abs(angles).max(initial=0)
    logs = np.log(values)

    def size(turns: int) -> float:
        turn = 2 * np.sin(widest / (2 * turns)) if turns else 0.0
        rest = depth - turns
        grow = np.abs(np.expm1(logs / rest)).max() if rest else 0.0
        return max(turn, grow)

    few = 0 if widest < 1e-13 else 1
    most = depth if np.abs(logs).max() < 1e-13 else depth - 1
    turns = min(range(few, most + 1), key=size)
    factors = []
    if depth > turns:
        power, vectors = np.linalg.eigh((stretch + stretch.T) / 2)
        root = (vectors * power ** (1 / (depth - turns))) @ vectors.T
        factors += [root] * (depth - turns)
    if turns:
        middle = np.eye(len(target))
        for angle, (i, j) in zip(angles / turns, blocks, strict=True):
            cos, sin = np.cos(angle), np.sin(angle)
            middle[np.ix_((i, j), (i, j))] = [[cos, -sin], [sin, cos]]
        factors += [basis @ middle @ basis.T] * turns
    return _network(data, factors)


def _rotation_planes(
    rotation: Float[np.ndarray, "d d"],
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Angles, an orthonormal basis, and the pairs of its columns that turn."""
    form, basis = sla.schur(rotation, output="real")[:2]
    angles, blocks, flipped = [], [], []
    i = 0
    while i < len(form):
        if i + 1 < len(form) and abs(form[i + 1, i]) > 1e-14:
            angles.append(np.arctan2(form[i + 1, i], form[i, i]))
            blocks.append((i, i + 1))
            i += 2
            continue
        if form[i, i] < 0:
            flipped.append(i)
        i += 1
    # det = 1: eigenvalues -1 come in pairs, each a half turn
    for pair in zip(flipped[::2], flipped[1::2], strict=True):
        angles.append(np.pi)
        blocks.append(pair)
    return np.asarray(angles), basis, blocks


def _host_target(data: Dataset, depth: int) -> np.ndarray:
    if depth < 1:
        msg = f"depth is {depth}; expected at least 1 layer."
        raise ValueError(msg)
    target = square_target(data)
    if not is_concrete(target):
        msg = (
            "the data are traced; roots of matrices are taken on the host. Build the "
            "network outside of jit and vmap and pass it in."
        )
        raise ValueError(msg)
    return np.asarray(target, np.float64)


def _network(data: Dataset, factors: list[np.ndarray]) -> LinearResidualNetwork:
    eye = np.eye(data.d)
    dtype = data.inputs.dtype
    return LinearResidualNetwork(tuple(jnp.asarray(m - eye, dtype) for m in factors))
