r"""Points up to the symmetries of a population loss, and the symmetry of a point.

F does not change when student neurons of one outer weight are permuted, nor when $W$ is
moved by an orthogonal map that permutes the teacher's neurons (of one sign, each
measured as $|b_j| v_j$). Up to orthogonal maps a point is its table of inner products,
with the rows of W measured as $|a_i| w_i$,
$$\begin{pmatrix} W W^\top & W V^\top \\ V W^\top & V V^\top \end{pmatrix},$$
so two points are one up to symmetry if a permutation of the $n + k$ neurons, students
to students and teachers to teachers, carries one table to the other, and the symmetry
of a point is the group of permutations that fix its table. Both are questions about a
complete graph with coloured edges: vertices are told apart by what they see of the
others until nothing new comes (colour refinement); where classes remain, permutations
are tried and compared entry by entry. Integers on the host; nothing here is compiled.
"""

import math
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from jaxrelu.objectives import PopulationLoss


class Table(eqx.Module):
    """Inner products of all neurons, and which may be exchanged.

    Attributes:
        products: (n + k, n + k), students first, over the largest teacher norm squared.
        labels: (n + k,); only neurons of one label may be exchanged.
        students: n.
    """

    products: Float[np.ndarray, "v v"]
    labels: Int[np.ndarray, " v"]
    students: int = eqx.field(static=True)


def table(objective: PopulationLoss, weights: Any, outer: Any) -> Table:
    """The table of a student's inner weights (n, d) with outer weights (n,)."""
    b = np.asarray(objective.teacher.outer, np.float64)
    v = np.asarray(objective.teacher.inner, np.float64) * np.abs(b)[:, None]
    a = np.asarray(outer, np.float64)
    w = np.asarray(weights, np.float64) * np.abs(a)[:, None]
    scale = np.linalg.norm(v, axis=1).max() or 1.0
    every = np.concatenate([w, v]) / scale
    _, students = np.unique(a, return_inverse=True)
    teachers = len(students) + np.sign(b).astype(int) + 1
    return Table(every @ every.T, np.concatenate([students, teachers]), len(w))


def _coded(tables: list[Table], tolerance: float) -> list[np.ndarray]:
    """Products as integers: values are equal if no gap above tolerance is between."""
    values = np.concatenate([t.products.ravel() for t in tables])
    order = np.argsort(values)
    codes = np.empty(len(values), np.int64)
    codes[order] = np.concatenate([[0], np.cumsum(np.diff(values[order]) > tolerance)])
    shapes = [t.products.shape for t in tables]
    parts = np.split(codes, np.cumsum([math.prod(s) for s in shapes])[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _refined(codes: list[np.ndarray], colours: list[np.ndarray]) -> list[np.ndarray]:
    """Colours split by the multisets of (edge, neighbour) seen, until they are stable.

    Over several graphs at once: equal colours mean the same in all of them.
    """
    known = np.unique(np.concatenate(colours))
    colours = [np.searchsorted(known, c) for c in colours]
    while True:
        size = len(known)
        seen = [
            np.column_stack(
                [c, np.diag(code), np.sort(code * size + c[None, :], axis=1)]
            )
            for code, c in zip(codes, colours, strict=True)
        ]
        known, inverse = np.unique(np.concatenate(seen), axis=0, return_inverse=True)
        if len(known) == size:
            return colours
        sizes = np.cumsum([len(c) for c in colours])[:-1]
        colours = np.split(inverse.ravel(), sizes)


def _carries(a: np.ndarray, b: np.ndarray, image: np.ndarray) -> bool:
    return bool(np.array_equal(a, b[np.ix_(image, image)]))


def _guess(
    a: np.ndarray,
    b: np.ndarray,
    colours: list[np.ndarray],
    students: int,
    first: str,
) -> np.ndarray | None:
    """One side matched colour by colour in any order, the other by assignment.

    Right whenever every order within the classes is as good as any other, as for
    products of symmetric groups.
    """
    size = len(a)
    sides = [np.arange(students), np.arange(students, size)]
    if first == "teachers":
        sides.reverse()
    one, two = sides
    image = np.empty(size, int)
    ordered = [one[np.argsort(c[one], kind="stable")] for c in colours]
    image[ordered[0]] = ordered[1]
    wrong = (a[one][:, two][:, :, None] != b[image[one]][:, two][:, None, :]).sum(0)
    wrong = wrong + size * (colours[0][two][:, None] != colours[1][two][None, :])
    rows, cols = linear_sum_assignment(wrong)
    image[two[rows]] = two[cols]
    return image if _carries(a, b, image) else None


def _carrying(
    a: np.ndarray, b: np.ndarray, colours: list[np.ndarray], students: int
) -> np.ndarray | None:
    """A permutation that carries ``a`` to ``b`` and respects colours, or None."""
    colours = _refined([a, b], colours)
    if not np.array_equal(np.sort(colours[0]), np.sort(colours[1])):
        return None
    cells, sizes = np.unique(colours[0], return_counts=True)
    if sizes.max() == 1:
        image = np.argsort(colours[1])[colours[0]]
        return image if _carries(a, b, image) else None
    for first in ("students", "teachers"):
        image = _guess(a, b, colours, students, first)
        if image is not None:
            return image
    cell = cells[sizes > 1][np.argmin(sizes[sizes > 1])]
    vertex = int(np.flatnonzero(colours[0] == cell)[0])
    for other in np.flatnonzero(colours[1] == cell):
        marked = [c.copy() for c in colours]
        marked[0][vertex] = marked[1][other] = len(cells)
        image = _carrying(a, b, marked, students)
        if image is not None:
            return image
    return None


def matching(one: Table, two: Table, tolerance: float) -> np.ndarray | None:
    """The permutation of neurons that carries one table to another, or None.

    Args:
        one: a table.
        two: another of the same teacher.
        tolerance: how far apart two weights may be, over the largest teacher norm.

    Returns:
        ``image`` with ``two.products[image[i], image[j]] = one.products[i, j]`` up to
        the tolerance; students come first.
    """
    if one.products.shape != two.products.shape or one.students != two.students:
        return None
    # an inner product moves by the tolerance times both norms
    norms = np.sqrt(np.diag(one.products))
    far = 2 * tolerance * max(1.0, float(norms.max())) + 1e-14
    if np.abs(np.sort(norms) - np.sort(np.sqrt(np.diag(two.products)))).max() > far:
        return None
    a, b = _coded([one, two], far)
    return _carrying(a, b, [one.labels, two.labels], one.students)


class Isotropy(eqx.Module):
    r"""The permutations of student and teacher neurons that fix a point.

    Attributes:
        name: ``"ΔS_5"``, ``"Δ(S_6×S_2)"``, ...: acting on students and teachers at
            once; blocks of size 1 are left out. ``"S_2 (students)"`` permutes equal
            student neurons, ``"S_2 (teachers)"`` teacher neurons alone; ``"trivial"``.
        order: of the group.
        teacher_blocks: classes of teacher neurons any two of which may be exchanged,
            largest first.
        student_blocks: for each of those, the students that its exchanges move.
    """

    name: str = eqx.field(static=True)
    order: int = eqx.field(static=True)
    teacher_blocks: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    student_blocks: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the teacher blocks."""
        return tuple(len(block) for block in self.teacher_blocks)


def isotropy(point: Table, tolerance: float) -> Isotropy:
    r"""The isotropy group of a point, from its exchanges of two neurons.

    Exchanges of two teachers (with the move of students that goes with it) generate a
    product of symmetric groups, as do exchanges of equal students. Whatever else there
    is permutes the blocks and is counted in the order; the name then says so.

    Cost: a few refinements, $(n + k)^2 \log(n + k)$ each, for every teacher and block.
    """
    norms = np.sqrt(np.diag(point.products))
    far = 2 * tolerance * max(1.0, float(norms.max())) + 1e-14
    (code,) = _coded([point], far)
    n, size = point.students, len(code)
    (colours,) = _refined([code], [point.labels])
    # every teacher marked: what is left is where the students go
    marks = np.where(np.arange(size) >= n, size + np.arange(size), colours)

    def image_of(source: list[int], target: list[int]) -> np.ndarray | None:
        """An automorphism taking the listed vertices to others in order."""
        pair = [marks.copy(), marks.copy()]
        pair[1][target] = pair[0][source]
        return _carrying(code, code, pair, n)

    blocks: list[list[int]] = []
    moved: list[set[int]] = []
    for teacher in range(n, size):
        for block, rows in zip(blocks, moved, strict=True):
            if colours[block[0]] != colours[teacher]:
                continue
            image = image_of([teacher, block[0]], [block[0], teacher])
            if image is not None:
                block.append(teacher)
                rows.update(i for i in range(n) if image[i] != i)
                break
        else:
            blocks.append([teacher])
            moved.append(set())
    by_size = sorted(range(len(blocks)), key=lambda i: (-len(blocks[i]), blocks[i]))
    blocks, moved = [blocks[i] for i in by_size], [moved[i] for i in by_size]
    equal = _equal_students(code, point.labels, n)
    order = math.prod(math.factorial(len(b)) for b in blocks)
    order *= math.prod(math.factorial(c) for c in equal)
    further = _block_permutations(code, colours, blocks, n)
    name = _group_name(blocks, moved, equal)
    if further > 1:
        name += f" (index {further} in a group of order {order * further})"
    return Isotropy(
        name,
        order * further,
        tuple(tuple(j - n for j in block) for block in blocks),
        tuple(tuple(sorted(rows)) for rows in moved),
    )


def _equal_students(code: np.ndarray, labels: np.ndarray, n: int) -> list[int]:
    """Sizes of classes of students that may be exchanged alone."""
    left, sizes = list(range(n)), []
    while left:
        first, rest, size = left[0], [], 1
        for other in left[1:]:
            image = np.arange(len(code))
            image[[first, other]] = other, first
            if labels[first] == labels[other] and _carries(code, code, image):
                size += 1
            else:
                rest.append(other)
        left = rest
        sizes.append(size)
    return sizes


def _block_permutations(
    code: np.ndarray, colours: np.ndarray, blocks: list[list[int]], n: int
) -> int:
    """Order of the group of permutations of blocks, by orbits and stabilisers."""
    order, size = 1, len(code)
    fixed = colours.copy()
    for block in blocks:
        orbit = 0
        for other in blocks:
            if len(block) != len(other) or (fixed[block] != fixed[other]).any():
                continue
            pair = [fixed.copy(), fixed.copy()]
            names = size * (n + 2) + np.arange(len(block))
            pair[0][block], pair[1][other] = names, names
            orbit += block == other or _carrying(code, code, pair, n) is not None
        order *= orbit
        fixed[block] = size + np.asarray(block)
    return order


def _group_name(
    blocks: list[list[int]], moved: list[set[int]], equal: list[int]
) -> str:
    both = [len(b) for b, rows in zip(blocks, moved, strict=True) if rows]
    alone = [len(b) for b, rows in zip(blocks, moved, strict=True) if not rows]
    parts = []
    if len(both) == 1:
        parts.append(f"ΔS_{both[0]}")
    elif both:
        parts.append("Δ(" + "×".join(f"S_{p}" for p in both) + ")")
    parts += [f"S_{p} (teachers)" for p in alone if p > 1]
    parts += [f"S_{p} (students)" for p in sorted(equal, reverse=True) if p > 1]
    return " × ".join(parts) or "trivial"
