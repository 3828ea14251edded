r"""Random inputs. Every sampler returns an array of shape (n, d), rows as samples.

Targets are chosen separately: ``Dataset(sphere(key, n, d), random_signs(key2, n))``.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import special

from jaxrelu._checks import check_positive, check_size, is_concrete
from jaxrelu.data._arguments import floating_dtype
from jaxrelu.data._geometry import closest_squared, unit_rows


def gaussian(
    key: PRNGKeyArray, n: int, d: int, *, variance: float | int = 1.0, dtype: Any = None
) -> Float[Array, "n d"]:
    r"""Independent rows $x_i \sim N(0, s I_d)$ with $s$ = ``variance``.

    The default is the standard Gaussian, $\mathbb{E}\lVert x_i\rVert^2 = d$;
    ``variance=1/d`` gives $\mathbb{E}\lVert x_i\rVert^2 = 1$.

    Args:
        key: source of randomness.
        n: number of samples.
        d: input dimension.
        variance: of each entry.
        dtype: floating dtype; default the current default float.
    """
    check_positive(variance, "variance")
    shape = (check_size(n, "n"), check_size(d, "d"))
    return jax.random.normal(key, shape, floating_dtype(dtype)) * math.sqrt(variance)


def sphere(
    key: PRNGKeyArray, n: int, d: int, *, dtype: Any = None
) -> Float[Array, "n d"]:
    r"""Independent rows, uniform on the unit sphere $\mathbb{S}^{d-1}$.

    Args:
        key: source of randomness.
        n: number of samples.
        d: input dimension.
        dtype: floating dtype; default the current default float.
    """
    return unit_rows(gaussian(key, n, d, dtype=dtype))


def orthonormal(
    key: PRNGKeyArray, n: int, d: int, *, dtype: Any = None
) -> Float[Array, "n d"]:
    r"""Orthonormal rows, $X X^\top = I_n$, uniform (Haar) among all such matrices.

    $X = (Q\,\mathrm{sign}(\mathrm{diag} R))^\top$ where $QR$ is a (d, n) Gaussian;
    without the signs the law would depend on LAPACK's conventions (Mezzadri 2007).

    Args:
        key: source of randomness.
        n: number of samples, at most ``d``.
        d: input dimension.
        dtype: floating dtype; default the current default float.

    Returns:
        Shape (n, d). Cost $O(n^2 d)$.

    Raises:
        ValueError: n > d.
    """
    n, d = check_size(n, "n"), check_size(d, "d")
    if n > d:
        msg = (
            f"n is {n} and d is {d}; expected n <= d, because no {n} vectors of "
            f"dimension {d} are orthonormal. Lower n, or use data.separated."
        )
        raise ValueError(msg)
    return _haar(gaussian(key, d, n, dtype=dtype))


@jax.jit
def _haar(columns):
    q, r = jnp.linalg.qr(columns)
    return (q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0).astype(q.dtype)[None]).T


def separation_bound(n: int, d: int) -> float:
    r"""No n unit vectors in $\mathbb{R}^d$ have a larger `separation` than this.

    The smaller of two bounds on $\delta$, with $c = 1 - \delta^2/2$ the largest
    $|\langle x_i, x_j\rangle|$ that a separation of $\delta$ allows:

    * volume: the $2n$ caps of angular radius $\arcsin(\delta/2)$ around $\pm x_i$ are
      disjoint, so the regularised incomplete beta function obeys
      $I_{\delta^2/4}(\tfrac{d-1}{2}, \tfrac12) \le 1/n$;
    * Welch: $c^2 \ge \frac{n-d}{d(n-1)}$ for $n > d$, and $c \ge 0$ always.

    Both are attained for $d = 2$, by `half_circle`.

    Args:
        n: number of unit vectors.
        d: their dimension.

    Returns:
        The bound; infinity for n = 1 and 0 for n > d = 1.
    """
    n, d = check_size(n, "n"), check_size(d, "d")
    if n == 1:
        return math.inf
    if d == 1:
        return 0.0
    volume = 2 * math.sqrt(special.betaincinv((d - 1) / 2, 0.5, 1 / n))
    coherence = math.sqrt(max(0, n - d) / (d * (n - 1)))
    return min(volume, math.sqrt(2 * (1 - coherence)))


def separated(
    key: PRNGKeyArray,
    n: int,
    d: int,
    *,
    delta: float | int,
    max_attempts: int | None = None,
    dtype: Any = None,
) -> Float[Array, "n d"]:
    r"""Unit rows with $\lVert x_i - x_j\rVert, \lVert x_i + x_j\rVert \ge \delta$.

    Dart throwing: uniform points of the sphere are accepted one after another when
    they keep the distance to those already there. Random placement gets stuck well
    before `separation_bound`, in the plane for example near three quarters of the
    possible n. The separation reached is ``separation(X)``.

    Args:
        key: source of randomness; the same key gives the same rows.
        n: number of samples.
        d: input dimension.
        delta: least separation, positive.
        max_attempts: points tried in all; default 100 n.
        dtype: floating dtype; default the current default float.

    Returns:
        Shape (n, d). Cost $O(nd)$ per attempt. Under tracing, where nothing can be
        raised, rows that found no place are NaN.

    Raises:
        ValueError: ``delta`` is above `separation_bound`, so that no such rows exist.
        RuntimeError: the attempts were used up.
    """
    n, d = check_size(n, "n"), check_size(d, "d")
    check_positive(delta, "delta")
    bound = separation_bound(n, d)
    if delta > bound:
        msg = (
            f"delta is {delta:.6g}, but no {n} unit vectors in dimension {d} are more "
            f"than {bound:.6g} separated; expected delta below that. Lower delta or n, "
            "or raise d."
        )
        raise ValueError(msg)
    attempts = (
        100 * n if max_attempts is None else check_size(max_attempts, "max_attempts")
    )
    first, later = jax.random.split(key)
    candidates = sphere(first, n, d, dtype=dtype)
    rows, placed = _throw_darts(later, candidates, delta, attempts)
    if is_concrete(placed) and int(placed) < n:
        msg = (
            f"{int(placed)} of {n} points with separation {delta:.6g} in dimension {d} "
            f"were placed in {attempts} attempts; the separation is at most "
            f"{bound:.6g} in theory, and less by random placement. Lower delta or n, "
            "raise d, or raise max_attempts."
        )
        raise RuntimeError(msg)
    return rows


@jax.jit
def _throw_darts(key, rows, delta, attempts):
    """The first candidate for each row is given; NaN from the row without place on."""
    n, d = rows.shape
    slots = jnp.arange(n, dtype=jnp.int32)
    # Rounding of a sum of d squares must not bring a pair below delta.
    margin = 1 + 8 * math.sqrt(d) * float(jnp.finfo(rows.dtype).eps)
    least = jnp.asarray(delta, rows.dtype) * margin

    def unfinished(state):
        _, placed, attempt = state
        return (placed < n) & (attempt < attempts)

    def throw(state):
        rows, placed, attempt = state
        candidate = rows[placed]
        distance = jnp.sqrt(closest_squared(rows, candidate))
        fits = jnp.all((distance >= least) | (slots >= placed))
        fresh = sphere(jax.random.fold_in(key, attempt), 1, d, dtype=rows.dtype)[0]
        rows = rows.at[placed].set(jnp.where(fits, candidate, fresh))
        return rows, placed + fits.astype(jnp.int32), attempt + 1

    start = (rows, jnp.int32(0), jnp.int32(0))
    rows, placed, _ = jax.lax.while_loop(unfinished, throw, start)
    return jnp.where((slots < placed)[:, None], rows, jnp.nan), placed


def clustered(
    key: PRNGKeyArray,
    n: int,
    d: int,
    *,
    num_clusters: int,
    radius: float | int,
    delta: float | int,
    dtype: Any = None,
) -> Float[Array, "n d"]:
    r"""Unit rows within ``radius`` of $K$ separated centres on the sphere.

    The centres $c_1, \dots, c_K$ are `separated` by ``delta``; sample $i$ is
    $x_i = (1 - r^2/2)\, c + r\sqrt{1 - r^2/4}\; t$ with $c$ the centre of cluster
    $i \bmod K$, $t$ a uniform unit tangent at $c$ and
    $\Pr(r \le s) = (s/\epsilon)^{d-1}$, so that $\lVert x_i - c\rVert = r \le
    \epsilon$ = ``radius``. Labels constant on clusters: `cluster_signs`. This is the
    clusterable data of Li, Soltanolkotabi & Oymak (2020).

    Args:
        key: source of randomness.
        n: number of samples, at least ``num_clusters``.
        d: input dimension, at least 2.
        num_clusters: number of clusters $K$.
        radius: largest distance from a sample to its centre.
        delta: least separation of the centres; above twice the radius, so that
            clusters do not touch.
        dtype: floating dtype; default the current default float.

    Returns:
        Shape (n, d). Cost $O(nd)$ and that of the centres.

    Raises:
        ValueError: clusters that touch, more clusters than samples, or centres that
            cannot exist (see `separated`).
        RuntimeError: the centres were not found.
    """
    num_clusters = check_size(num_clusters, "num_clusters")
    n, d = check_size(n, "n", num_clusters), check_size(d, "d", 2)
    check_positive(radius, "radius")
    check_positive(delta, "delta")
    if delta <= 2 * radius:
        msg = (
            f"radius is {radius} and delta {delta}; expected delta > 2 * radius, so "
            "that clusters do not touch. Lower radius or raise delta."
        )
        raise ValueError(msg)
    for_centres, for_points = jax.random.split(key)
    centres = separated(for_centres, num_clusters, d, delta=delta, dtype=dtype)
    return _around(for_points, centres[np.arange(n) % num_clusters], radius)


@jax.jit
def _around(key, centres, radius):
    """One random unit vector within ``radius`` of each centre."""
    n, d = centres.shape
    for_tangents, for_radii = jax.random.split(key)
    step = jax.random.normal(for_tangents, (n, d), centres.dtype)
    along = jnp.sum(step * centres, axis=1, keepdims=True)
    tangents = unit_rows(step - along * centres)
    uniform = jax.random.uniform(for_radii, (n, 1), centres.dtype)
    r = jnp.asarray(radius, centres.dtype) * uniform ** (1 / (d - 1))
    return (1 - r**2 / 2) * centres + r * jnp.sqrt(1 - r**2 / 4) * tangents
