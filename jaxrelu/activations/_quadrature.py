r"""Integrals against the standard normal density, and orthonormal Hermite polynomials.

Composite Gauss-Legendre rules rather than one Gauss-Hermite rule: panels end at 0,
so that a kink there costs nothing, they can shrink towards 0, where steep smooth
activations bend, and no weight underflows at high order (Gauss-Hermite weights do
from order 370 on). All numbers are float64, computed on the host and cached.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np


# p(z)^{1/2} at the end is 1e-17: with |h_r(z) p(z)^{1/2}| < 1, what lies outside is
# below rounding for every degree.
REACH = 13.0
"""Where the last panel ends."""
HALVINGS = 26
"""Of the panels next to 0, where nothing is known of the integrand."""


@functools.cache
def nodes(
    points: int, degree: int, halvings: int = HALVINGS
) -> tuple[np.ndarray, np.ndarray]:
    r"""Nodes $z$ and weights $w$ with $\int f \approx \sum_k w_k f(z_k)$.

    A panel away from 0 is as long as its distance from 0 or shorter, so that poles on
    the imaginary axis, however close, leave an error below $6^{-2\,\text{points}}$;
    only those closer than `innermost` spoil the two panels next to 0.

    Args:
        points: Gauss-Legendre nodes per panel.
        degree: highest Hermite polynomial in the integrand; fixes the panel width.
        halvings: how often the panels next to 0 are halved.

    Returns:
        z and w, read-only.
    """
    edges = _edges(degree)
    edges = np.concatenate(
        [[0.0], edges[1] * 0.5 ** np.arange(halvings, 0, -1), edges[1:]]
    )
    edges = np.concatenate([-edges[:0:-1], edges])
    x, w = np.polynomial.legendre.leggauss(points)
    half = np.diff(edges)[:, None] / 2
    z = (half * x + edges[:-1, None] + half).ravel()
    w = (half * w).ravel()
    z.setflags(write=False)
    w.setflags(write=False)
    return z, w


def _edges(degree: int) -> np.ndarray:
    width = min(0.5, 4 / math.sqrt(degree + 1))
    return np.linspace(0, REACH, math.ceil(REACH / width) + 1)


def innermost(degree: int, halvings: int = HALVINGS) -> float:
    """Length of the two panels next to 0."""
    return float(_edges(degree)[1]) * 0.5**halvings


def root_density(z: np.ndarray) -> np.ndarray:
    r"""$p(z)^{1/2}$ with the standard normal density $p$."""
    return np.exp(-z * z / 4) / (2 * math.pi) ** 0.25


def hermite_functions(
    z: np.ndarray, degree: int, block: int = 256
) -> Iterator[np.ndarray]:
    r"""Blocks of rows $h_r(z)\, p(z)^{1/2}$, $r = 0, \dots,$ ``degree``.

    $h_r = He_r/\sqrt{r!}$ is orthonormal under the standard normal law:
    $h_{r+1} = (z h_r - \sqrt{r}\, h_{r-1})/\sqrt{r+1}$. Multiplied by $p^{1/2}$ every
    row is bounded by 1, so no degree overflows.
    """
    last, current = np.zeros_like(z), root_density(z)
    for start in range(0, degree + 1, block):
        rows = []
        for r in range(start, min(start + block, degree + 1)):
            rows.append(current)
            last, current = (
                current,
                (z * current - math.sqrt(r) * last) / math.sqrt(r + 1),
            )
        yield np.stack(rows)


@functools.cache
def projection(points: int, degree: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Nodes $z$ and the matrix that turns $f(z)$ into $E[f(g) h_r(g)]$.

    For $f$ smooth but at 0. Returns z of shape (N,) and the matrix, (N, degree + 1).
    """
    z, w = nodes(points, degree)
    rows = np.concatenate(list(hermite_functions(z, degree)))
    matrix = (rows * (w * root_density(z))).T.copy()
    matrix.setflags(write=False)
    return z, matrix
