r"""The Hessian at a block matrix, split into the representations of its symmetry group.

$\mathbb R^{k \times k}$ is a representation of $S_{p_1} \times \dots \times S_{p_m}$
acting on rows and columns together. By Schur's lemma the Hessian acts on each isotypic
component as a small matrix: one per block for the standard representation, one for the
trivial one, one for each pair of blocks, and numbers for the exterior square
($\wedge^2$, dimension $(p-1)(p-2)/2$) and for $Y = (p-2, 2)$, dimension $p(p-3)/2$.
Nothing here costs more for a larger k.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxrelu.landscape.families._blocks import (
    BlockMatrix,
    Geometry,
    Number,
    assemble,
    entries,
    geometry,
    hessian_product,
    inner,
    zeros,
)


class Component(NamedTuple):
    """One isotypic component: a symmetric matrix whose eigenvalues all occur so often.

    label: the representation; matrix: rows of numbers; multiplicity: its dimension.
    """

    label: str
    matrix: list[list[Number]]
    multiplicity: Number


def components(point: Geometry, outside: Number = 0) -> list[Component]:
    """All isotypic components of the Hessian, those of dimension 0 left out.

    Args:
        point: a block matrix with its angles.
        outside: $d - k$, the number of input directions orthogonal to the teacher.
    """
    m = len(point.sizes)
    found = [trivial(point)]
    for a in range(m):
        found += [standard(point, a), *alternating_and_young(point, a)]
        found += [standard_pair(point, a, b) for b in range(a + 1, m)]
    if outside:
        found += orthogonal(point, outside)
    return [c for c in found if c.multiplicity > 0 and c.matrix]


def _name(point: Geometry, a: int) -> str:
    """The suffix that tells block a from the others where there are several."""
    several = sum(size != 1 for size in point.sizes) > 1
    return f"_{a + 1}" if several else ""


def trivial(point: Geometry) -> Component:
    """The fixed matrices themselves, in the basis of `entries`, normalised."""
    sizes = point.sizes
    basis = []
    for i in range(len(entries(sizes))):
        values = [0] * len(entries(sizes))
        values[i] = 1
        basis.append(assemble(sizes, values))
    return Component("trivial", _compressed(point, basis), 1)


def _compressed(point: Geometry, basis: list[BlockMatrix]) -> list[list[Number]]:
    """The Hessian in an orthogonal basis of an invariant space, normalised."""
    ctx, sizes = point.ctx, point.sizes
    norms = [ctx.sqrt(inner(sizes, x, x)) for x in basis]
    images = [hessian_product(point, x) for x in basis]
    return [
        [inner(sizes, x, y) / (r * s) for y, s in zip(images, norms, strict=True)]
        for x, r in zip(basis, norms, strict=True)
    ]


def standard(point: Geometry, a: int) -> Component:
    r"""The standard representation of block a, dimension $p - 1$.

    A vector of it that is fixed by a subgroup $S_{p-1}$ is $u = (1, -1/(p-1), \dots)$,
    so the matrices made of u are block matrices once block a is cut into one index and
    the others: $u_i \delta_{ij}$, $u_i \pm u_j$ inside the block, and $u_i$ in rows or
    columns against each other block. They are an orthogonal basis; $u_i + u_j$ vanishes
    when $p = 2$.
    """
    size, label = point.sizes[a], "standard" + _name(point, a)
    if size == 1:
        return Component(label, [], 0)
    fine = _cut(point, a)
    u = (1, -1 / point.ctx.mpf(size - 1))
    return Component(label, _compressed(fine, _standard_basis(fine, a, u)), size - 1)


def _standard_basis(fine: Geometry, a: int, u: Sequence[Number]) -> list[BlockMatrix]:
    m, inside = len(fine.sizes), (a, a + 1)
    diagonal, plus, minus = zeros(m), zeros(m), zeros(m)
    for i in (0, 1):
        diagonal.diag[a + i] = u[i]
        for j in (0, 1):
            plus.cross[a + i][a + j] = u[i] + u[j]
            minus.cross[a + i][a + j] = u[i] - u[j]
    plus.cross[a][a] = 0  # a block of one index has no entry off its diagonal
    basis = [diagonal, minus]
    if fine.sizes[a + 1] != 1:
        basis.append(plus)
    for b in range(m):
        if b not in inside:
            rows, columns = zeros(m), zeros(m)
            for i in (0, 1):
                rows.cross[a + i][b] = columns.cross[b][a + i] = u[i]
            basis += [rows, columns]
    return basis


def _cut(point: Geometry, a: int) -> Geometry:
    """The same point with block a cut into its first index and the others."""
    sizes, w = point.sizes, point.weights
    origin = [b for b in range(len(sizes)) for _ in range(2 if b == a else 1)]
    new = [*sizes[:a], 1, sizes[a] - 1, *sizes[a + 1 :]]
    diag = [w.diag[b] for b in origin]
    cross = [[w.cross[b][c] for c in origin] for b in origin]
    for i, size in enumerate(new):
        if size == 1:
            cross[i][i] = 0
    return geometry(point.ctx, new, BlockMatrix(diag, cross))


def _within(point: Geometry, a: int, b: int) -> tuple[Any, Any]:
    """Angles between two neurons, and a neuron and another teacher, of blocks a, b."""
    neuron = [q for q in point.neurons[a] if q.orbit.block == b]
    teacher = [q for q in point.teachers[a] if q.orbit and q.orbit.block == b]
    return neuron[0], teacher[0]


def alternating_and_young(point: Geometry, a: int) -> list[Component]:
    r"""$\wedge^2$ and Y of block a, one number each.

    For U on the block with zero diagonal, row and column sums, antisymmetric or
    symmetric, and with $\theta$ between two neurons of the block, $\theta_o$ between a
    neuron and another teacher of it,

    $$\lambda_{\wedge^2} = \frac{\theta}{2\pi} + \lambda_i
        - \frac{1}{2\pi\|w\|\sin\theta_o}, \qquad
      \lambda_Y = \lambda_{\wedge^2}
        + \frac{(\text{diag} - \text{cross})^2}{\pi \|w\|^2 \sin\theta}.$$
    """
    p, name = point.sizes[a], _name(point, a)
    if p == 1:
        return []
    q, teacher = _within(point, a, a)
    norm, pi = point.norms[a], point.ctx.pi
    low = q.angle / (2 * pi) + point.laplacians[a]
    low -= 1 / (2 * pi * norm * teacher.sin)
    gap = point.weights.diag[a] - point.weights.cross[a][a]
    high = low + gap**2 / (pi * norm**2 * q.sin)
    return [
        Component("alternating" + name, [[low]], _half((p - 1) * (p - 2))),
        Component("Young" + name, [[high]], _half(p * (p - 3))),
    ]


def _half(x: Number) -> Number:
    return x // 2 if isinstance(x, int) else x / 2


def standard_pair(point: Geometry, a: int, b: int) -> Component:
    r"""$\text{std}_a \otimes \text{std}_b$, a 2 x 2 matrix.

    With $x \perp 1$ on block a and $y \perp 1$ on block b, the basis is $x y^\top$ on
    (a, b) and $y x^\top$ on (b, a); $g = \text{diag} - \text{cross}$ of each block.
    """
    sizes, pi = point.sizes, point.ctx.pi
    label = f"standard{_name(point, a)} x standard{_name(point, b)}"
    if sizes[a] == 1 or sizes[b] == 1:
        return Component(label, [], 0)
    pair, _ = _within(point, a, b)
    gap = [point.weights.diag[c] - point.weights.cross[c][c] for c in (a, b)]
    both = 2 * pi * point.norms[a] * point.norms[b] * pair.sin
    corner = []
    for c, other, g in ((a, b, gap[1]), (b, a, gap[0])):
        alike, _ = _within(point, c, c)
        _, teacher = _within(point, c, other)
        value = alike.angle / (2 * pi) + point.laplacians[c] + g**2 / both
        corner.append(value - 1 / (2 * pi * point.norms[c] * teacher.sin))
    off = gap[0] * gap[1] / both
    matrix = [[corner[0], off], [off, corner[1]]]
    return Component(label, matrix, (sizes[a] - 1) * (sizes[b] - 1))


def orthogonal(point: Geometry, outside: Number) -> list[Component]:
    r"""Directions orthogonal to teacher and student, `outside` of them per neuron.

    The block is $M_{ii} = \frac12 + \lambda_i$, $M_{ij} = (\pi - \theta_{ij})/(2\pi)$,
    the same for every such direction; it splits into the trivial representation and
    one standard one per block, where it is $\lambda_i + \theta/(2\pi)$.
    """
    ctx, sizes, m = point.ctx, point.sizes, len(point.sizes)
    small = [[0] * m for _ in range(m)]
    found = []
    for a, size in enumerate(sizes):
        small[a][a] = ctx.mpf(1) / 2 + point.laplacians[a]
        for q in point.neurons[a]:
            b, overlap = q.orbit.block, (ctx.pi - q.angle) / (2 * ctx.pi)
            if q.orbit.same_block:
                small[a][a] += q.orbit.size * overlap
                value = point.laplacians[a] + q.angle / (2 * ctx.pi)
                label = f"outside: standard{_name(point, a)}"
                found.append(Component(label, [[value]], (size - 1) * outside))
            else:
                small[a][b] = ctx.sqrt(size * sizes[b]) * overlap
    return [Component("outside: trivial", small, outside), *found]
