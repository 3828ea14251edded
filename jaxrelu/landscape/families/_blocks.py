r"""Loss, gradient and Hessian on block matrices, at a cost that k does not enter.

Split the k neurons, and with them the k teacher directions $v_j = e_j$, into blocks of
sizes $p_1 + \dots + p_m = k$. The matrices fixed by $\Delta(S_{p_1} \times \dots \times
S_{p_m})$ have one number per block on the diagonal, $W_{ii} = \text{diag}_a$, and one
per ordered pair of blocks off it, $W_{ij} = \text{cross}_{ab}$ for $i \neq j$,
$i \in a$, $j \in b$. Sums over neurons become sums over orbits with the orbit's size as
a factor, so everything here is a smooth function of real sizes and costs $O(m^3)$.

The arithmetic is that of a context of mpmath: `mpmath.fp` (float64) or one of its
multiprecision contexts.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


Number = Any  # of an mpmath context


class BlockMatrix(NamedTuple):
    """A matrix with one number per block and per ordered pair of blocks."""

    diag: list[Number]
    cross: list[list[Number]]


Entry = tuple[int, int, bool]
"""Row block, column block, and whether it is the diagonal."""


def zeros(m: int) -> BlockMatrix:
    """The zero matrix of m blocks."""
    return BlockMatrix([0] * m, [[0] * m for _ in range(m)])


def entries(sizes: Sequence[Number]) -> list[Entry]:
    """The free numbers of a block matrix, diagonals first in each row block."""
    found = []
    for a, size in enumerate(sizes):
        found.append((a, a, True))
        if size != 1:
            found.append((a, a, False))
        found += [(a, b, False) for b in range(len(sizes)) if b != a]
    return found


def flatten(sizes: Sequence[Number], matrix: BlockMatrix) -> list[Number]:
    """The numbers of a block matrix in the order of `entries`."""
    return [
        matrix.diag[a] if diagonal else matrix.cross[a][b]
        for a, b, diagonal in entries(sizes)
    ]


def assemble(sizes: Sequence[Number], values: Sequence[Number]) -> BlockMatrix:
    """The block matrix with ``values`` at `entries`."""
    matrix = zeros(len(sizes))
    for (a, b, diagonal), value in zip(entries(sizes), values, strict=True):
        if diagonal:
            matrix.diag[a] = value
        else:
            matrix.cross[a][b] = value
    return matrix


def inner(sizes: Sequence[Number], x: BlockMatrix, y: BlockMatrix) -> Number:
    r"""$\operatorname{tr} X^\top Y$."""
    total = 0
    for a, p in enumerate(sizes):
        total += p * x.diag[a] * y.diag[a]
        for b, q in enumerate(sizes):
            total += p * (q - (a == b)) * x.cross[a][b] * y.cross[a][b]
    return total


class _Orbit(NamedTuple):
    """Rows j of one orbit under the stabiliser of a row i of block a."""

    block: int
    same_block: bool
    size: Number


def _orbits(sizes: Sequence[Number], a: int) -> Iterator[_Orbit]:
    """The rows other than i, for i in block a."""
    for b, size in enumerate(sizes):
        if b != a:
            yield _Orbit(b, False, size)
        elif size != 1:
            yield _Orbit(a, True, size - 1)


def _self_dot(sizes, x, y, a) -> Number:
    """Row i of x times row i of y, i in block a."""
    total = x.diag[a] * y.diag[a]
    for c, size in enumerate(sizes):
        total += (size - (c == a)) * x.cross[a][c] * y.cross[a][c]
    return total


def _dot(sizes, x, a, y, orbit) -> Number:
    """Row i of x times row j of y, i in block a and j in the orbit."""
    b = orbit.block
    if orbit.same_block:
        total = x.diag[a] * y.cross[a][a] + x.cross[a][a] * y.diag[a]
        total += (sizes[a] - 2) * x.cross[a][a] * y.cross[a][a]
    else:
        total = x.diag[a] * y.cross[b][a] + x.cross[a][b] * y.diag[b]
        total += (sizes[a] - 1) * x.cross[a][a] * y.cross[b][a]
        total += (sizes[b] - 1) * x.cross[a][b] * y.cross[b][b]
    for c, size in enumerate(sizes):
        if c not in (a, b):
            total += size * x.cross[a][c] * y.cross[b][c]
    return total


def _row(x, a) -> list[Number]:
    """Row i in block a: the entry at i, then the one at each block."""
    return [x.diag[a], *x.cross[a]]


def _orbit_sum(x, a, orbit) -> list[Number]:
    """Sum of the rows of an orbit, laid out as `_row` of block a."""
    b = orbit.block
    row = [orbit.size * value for value in x.cross[b]]
    row[b] = x.diag[b] + (orbit.size - 1) * x.cross[b][b]
    return [orbit.size * x.cross[b][a], *row]


def _teacher_sum(m, orbit) -> list[Number]:
    row = [0] * (m + 1)
    row[orbit.block + 1] = 1
    return row


class _Pair(NamedTuple):
    """A row i of block a against an orbit of neurons or of teacher directions."""

    orbit: Any  # None: the teacher of the row's own index
    times: Number  # vectors in the orbit
    norm: Number
    cos: Number
    sin: Number
    angle: Number
    total: list[Number]  # sum of the orbit's vectors


class Geometry(NamedTuple):
    """A point with its norms and angles; `geometry` makes it."""

    ctx: Any
    sizes: tuple[Number, ...]
    weights: BlockMatrix
    norms: list[Number]
    neurons: list[list[_Pair]]
    teachers: list[list[_Pair]]
    laplacians: list[Number]  # `scaled_laplacian` of every block


def geometry(ctx: Any, sizes: Sequence[Number], weights: BlockMatrix) -> Geometry:
    """Norms and angles of a point; sines without cancellation where they are small.

    Raises:
        ZeroDivisionError: a neuron is zero.
    """
    m = len(sizes)
    norms = [ctx.sqrt(_self_dot(sizes, weights, weights, a)) for a in range(m)]
    neurons, teachers = [], []
    for a in range(m):
        row = []
        for orbit in _orbits(sizes, a):
            norm = norms[orbit.block]
            cos = _dot(sizes, weights, a, weights, orbit) / (norms[a] * norm)
            total = _orbit_sum(weights, a, orbit)
            row.append(_pair(ctx, orbit, norm, cos, total))
        neurons.append(row)
        rest = BlockMatrix([0] * m, weights.cross)
        sin = ctx.sqrt(_self_dot(sizes, rest, rest, a)) / norms[a]
        cos = weights.diag[a] / norms[a]
        own = [1] + [0] * m
        row = [_Pair(None, 1, 1, cos, sin, ctx.atan2(sin, cos), own)]
        for orbit in _orbits(sizes, a):
            cos = weights.cross[a][orbit.block] / norms[a]
            row.append(_pair(ctx, orbit, 1, cos, _teacher_sum(m, orbit)))
        teachers.append(row)
    point = Geometry(ctx, tuple(sizes), weights, norms, neurons, teachers, [])
    # once, for all products with the Hessian at this point
    return point._replace(laplacians=[scaled_laplacian(point, a) for a in range(m)])


def _pair(ctx, orbit, norm, cos, total) -> _Pair:
    cos = min(max(cos, -1), 1)
    sin = ctx.sqrt((1 - cos) * (1 + cos))
    return _Pair(orbit, orbit.size, norm, cos, sin, ctx.atan2(sin, cos), total)


def scaled_laplacian(point: Geometry, a: int) -> Number:
    r"""$\lambda_i$: how far $H_{ii}$ is from $\frac12 I$ orthogonally to all vectors.

    $\frac{1}{2\pi\|w_i\|} (\sum_{j \neq i} \|w_j\| \sin\theta_{ij} -
    \sum_j \sin\theta_{i,v_j})$ for i in block a; it is the trace of
    $H_{ii} - \frac12 I$ over d.
    """
    total = sum(q.times * q.norm * q.sin for q in point.neurons[a])
    total -= sum(q.times * q.sin for q in point.teachers[a])
    return total / (2 * point.ctx.pi * point.norms[a])


def loss(point: Geometry) -> Number:
    r"""$F(W)$ of the k x k problem with $v_j = e_j$, the factor ½ included."""
    ctx, sizes = point.ctx, point.sizes
    k, half = sum(sizes), ctx.mpf(1) / 2
    total = k / ctx.mpf(4) + k * (k - 1) / (4 * ctx.pi)
    for a, size in enumerate(sizes):
        norm = point.norms[a]
        total += size * norm**2 / 4
        for sign, pairs in ((half, point.neurons[a]), (-1, point.teachers[a])):
            for q in pairs:
                kernel = q.sin + (ctx.pi - q.angle) * q.cos
                total += sign * size * q.times * norm * q.norm * kernel / (2 * ctx.pi)
    return total


def loss_of_critical(point: Geometry) -> Number:
    r"""$\frac12 (\sum f(v,v) - \sum f(w,w))$, which $F$ equals at critical points.

    There $F(tW)$ is stationary at $t = 1$, so $\sum f(w_i, w_j) = \sum f(w_i, v_j)$.
    """
    ctx, sizes = point.ctx, point.sizes
    k = sum(sizes)
    total = k / ctx.mpf(4) + k * (k - 1) / (4 * ctx.pi)
    for a, size in enumerate(sizes):
        total -= size * point.norms[a] ** 2 / 4
        for q in point.neurons[a]:
            kernel = q.sin + (ctx.pi - q.angle) * q.cos
            factor = size * q.times * point.norms[a] * q.norm / (4 * ctx.pi)
            total -= factor * kernel
    return total


def gradient(point: Geometry) -> BlockMatrix:
    r"""$\nabla F$, which is a block matrix too."""
    ctx, m = point.ctx, len(point.sizes)
    rows = []
    for a in range(m):
        along = ctx.mpf(1) / 2 + point.laplacians[a]
        row = [along * value for value in _row(point.weights, a)]
        for sign, pairs in ((1, point.neurons[a]), (-1, point.teachers[a])):
            for q in pairs:
                factor = sign * (ctx.pi - q.angle) / (2 * ctx.pi)
                row = [x + factor * y for x, y in zip(row, q.total, strict=True)]
        rows.append(row)
    return BlockMatrix([row[0] for row in rows], [row[1:] for row in rows])


def hessian_product(point: Geometry, u: BlockMatrix) -> BlockMatrix:
    r"""$\nabla^2 F[U]$ for a block matrix U.

    Row i is $H_{ii} u_i + \sum_{j \neq i} H_{ij} u_j$ with the second derivatives of
    the kernel $f$; terms whose sine vanishes have the limit 0.
    """
    m = len(point.sizes)
    dots = [_self_dot(point.sizes, point.weights, u, a) for a in range(m)]
    rows = [_hessian_row(point, u, a, dots) for a in range(m)]
    return BlockMatrix([row[0] for row in rows], [row[1:] for row in rows])


def _hessian_row(
    point: Geometry, u: BlockMatrix, a: int, dots: list[Number]
) -> list[Number]:
    r"""Row i in block a; ``dots`` are $w_i \cdot u_i$ by block."""
    ctx, sizes, w = point.ctx, point.sizes, point.weights
    norm = point.norms[a]
    own_w, own_u = _row(w, a), _row(u, a)
    own = dots[a] / norm  # unit w_i times u_i
    curvature = 2 * ctx.pi * point.laplacians[a]
    on_u, on_w = curvature + ctx.pi, -curvature * own / norm
    rest: list[tuple[Number, list[Number]]] = []
    products = [(1, q, _dot(sizes, u, a, w, q.orbit)) for q in point.neurons[a]]
    for q in point.teachers[a]:
        b = None if q.orbit is None else q.orbit.block
        products.append((-1, q, u.diag[a] if b is None else u.cross[a][b]))
    for sign, q, product in products:
        if q.sin == 0:
            continue
        # sin |w_j| / |w_i| n (n . u_i), n = (unit w_j - cos unit w_i) / sin
        across = (product / q.norm - q.cos * own) / q.sin
        rest.append((sign * across / norm, q.total))
        on_w -= sign * across * q.times * q.cos * q.norm / norm**2
    for q in point.neurons[a]:
        rest.append((ctx.pi - q.angle, _orbit_sum(u, a, q.orbit)))
        if q.sin == 0:
            continue
        b = q.orbit.block
        along = dots[b] / q.norm / q.sin
        across = _dot(sizes, w, a, u, q.orbit) / norm / q.sin
        on_w += q.times * (along - q.cos * across) / norm
        rest.append(((across - q.cos * along) / q.norm, q.total))
    row = [on_u * x + on_w * y for x, y in zip(own_u, own_w, strict=True)]
    for factor, vector in rest:
        row = [x + factor * y for x, y in zip(row, vector, strict=True)]
    return [x / (2 * ctx.pi) for x in row]
