r"""Enclosures of the population loss, its gradient and its Hessian at stored weights.

The closed forms of `PopulationLoss` and `PopulationHessian`, evaluated in balls on the
host: for weights taken as exact numbers, every number comes with a proved error.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxrelu.landscape.certificates._balls import Arithmetic, Ball, arctangent
from jaxrelu.networks import Shallow


_NARROW = 1e-7


class Pairs(NamedTuple):
    r"""Neurons $w_i$ against all neurons $z$, the student's and then the teacher's.

    Attributes:
        norms: $|z|$, (n + k,).
        units: $\bar z$, (n + k, d).
        weights: $a$, then $-b$, (n + k,).
        minus: $|\bar z - \bar w|$, (r, n + k) for the first r neurons.
        plus: $|\bar z + \bar w|$.
        sine: $\sin\theta$.
        delta: $\pi - \theta$.
        same: which pairs are a neuron with itself.
    """

    norms: Ball
    units: Ball
    weights: Ball
    minus: Ball
    plus: Ball
    sine: Ball
    delta: Ball
    same: np.ndarray


def pairs_of(
    student: Shallow, teacher: Shallow, arithmetic: Arithmetic, *, every: bool
) -> Pairs:
    """Geometry of the student's neurons, or of every neuron, against every neuron."""
    inner = np.concatenate([np.asarray(student.inner), np.asarray(teacher.inner)])
    outer = np.concatenate([np.asarray(student.outer), -np.asarray(teacher.outer)])
    z = arithmetic.exact(inner)
    norms = z.norm()
    units = z / norms[:, None]
    rows = len(inner) if every else student.inner.shape[0]
    starts, ends = units[:rows, None, :], units[None, :, :]
    minus, plus = (ends - starts).norm(), (ends + starts).norm()
    same = np.eye(rows, len(inner), dtype=bool)
    nothing = arithmetic.exact(np.zeros(same.shape))
    pi = arithmetic.pi()
    pi = Ball(np.broadcast_to(pi.centre, same.shape), pi.radius, arithmetic)
    sine = (minus * plus).scaled(0.5)
    delta = arctangent(plus, minus).scaled(2.0)
    return Pairs(
        norms=norms,
        units=units,
        weights=arithmetic.exact(outer),
        minus=minus,
        plus=plus,
        sine=nothing.where(same, sine),
        delta=pi.where(same, delta),
        same=same,
    )


def loss_enclosure(
    student: Shallow, teacher: Shallow, arithmetic: Arithmetic
) -> tuple[float, float]:
    r"""F and a proved bound on its error.

    $F = \frac1{4\pi} \sum_{yz} c_y c_z |y||z| (\sin\theta + (\pi - \theta)\cos\theta)$
    over all neurons, $c = (a, -b)$.
    """
    pairs = pairs_of(student, teacher, arithmetic, every=True)
    cosine = pairs.units.matmul(pairs.units.transpose(1, 0))
    one = arithmetic.exact(np.ones(cosine.shape))
    cosine = one.where(pairs.same, cosine)
    size = pairs.weights * pairs.norms
    terms = (pairs.sine + pairs.delta * cosine) * size[:, None] * size[None, :]
    total = terms.sum() / arithmetic.pi().scaled(4.0)
    centre, radius = total.to_float64()
    return float(centre), float(radius)


def gradient_enclosure(
    student: Shallow, teacher: Shallow, arithmetic: Arithmetic
) -> Ball:
    r"""The gradient, (n, d), in float64.

    $\nabla_i F = \frac{a_i}{2\pi} \sum_z c_z (|z|\sin\theta\,\bar w_i +
    (\pi - \theta) z)$.
    """
    n = student.inner.shape[0]
    pairs = pairs_of(student, teacher, arithmetic, every=False)
    size = pairs.weights * pairs.norms
    along = pairs.sine.matmul(size)
    rest = pairs.delta.matmul(size[:, None] * pairs.units)
    total = along[:, None] * pairs.units[:n] + rest
    scale = pairs.weights[:n] / arithmetic.pi().scaled(2.0)
    return (scale[:, None] * total).in_float64()


def hessian_enclosure(
    student: Shallow, teacher: Shallow, arithmetic: Arithmetic
) -> tuple[Ball, Ball]:
    r"""The Hessian, (n d, n d), and the block M of further dimensions, (n, n).

    With $P = \bar z + \bar w$, $Q = \bar z - \bar w$ and
    $r = \bar z - \cos\theta\,\bar w$:
    $$ 2\pi h_1 = \tfrac{|z|}{|w|} \bigl(\sin\theta (I - \bar w\bar w^\top)
       + r r^\top/\sin\theta\bigr), \qquad
       2\pi h_2 = (\pi - \theta) I + \tfrac{|Q|}{2|P|} P P^\top
       - \tfrac{|P|}{2|Q|} Q Q^\top . $$
    For pairs with $\sin\theta < 10^{-7}$ the terms with $r$, $P$ and $Q$ are left out,
    and the radius holds their norms: $\sin\theta\,|z|/2\pi|w|$ in $h_1$ and
    $\sin\theta/2\pi$ in $h_2$.
    """
    n, d = student.inner.shape
    pairs = pairs_of(student, teacher, arithmetic, every=False)
    constant = arithmetic.exact
    narrow = pairs.sine.magnitude < _NARROW
    one = constant(np.ones(narrow.shape))
    pi2 = arithmetic.pi().scaled(2.0)
    starts, ends = pairs.units[:n], pairs.units
    scale = pairs.weights[:n, None] * pairs.weights[None, :]
    scale = scale * (pairs.norms[None, :] / pairs.norms[:n, None]) / pi2
    sine = scale * pairs.sine
    traces = sine.sum(1)
    cosine = starts.matmul(ends.transpose(1, 0))
    across = ends[None, :, :] - cosine[:, :, None] * starts[:, None, :]
    curving = scale / one.where(narrow, pairs.sine)
    curving = constant(np.zeros(narrow.shape)).where(narrow, curving)
    left = (curving[:, :, None] * across).transpose(0, 2, 1)
    lost = np.where(narrow, sine.upper, 0.0).sum(1)
    eye = constant(np.eye(d))
    flat = eye[None] - starts[:, :, None] * starts[:, None, :]
    curved = left.matmul(across).widened(2 * lost[:, None, None])
    own = curved + traces[:, None, None] * flat
    half = (pairs.weights[:n] * pairs.weights[:n]).scaled(0.5)
    own = own + half[:, None, None] * eye[None]

    products = pairs.weights[:n, None] * pairs.weights[None, :n] / pi2
    first = pairs.delta[:, :n] * products
    near, inner_one = narrow[:, :n], one[:, :n]
    ratio = inner_one.where(near, pairs.minus[:, :n]) / inner_one.where(
        near, pairs.plus[:, :n]
    )
    inverse = inner_one.where(near, pairs.plus[:, :n]) / inner_one.where(
        near, pairs.minus[:, :n]
    )
    nothing = constant(np.zeros(near.shape))
    long = nothing.where(near, (products * ratio).scaled(0.5))
    short = nothing.where(near, (products * inverse).scaled(0.5))
    a, b = starts[None, :, :], starts[:, None, :]
    p, q = a + b, a - b
    outer = lambda c, x: (c[:, :, None] * x)[:, :, :, None] * x[:, :, None, :]
    cross = outer(long, p) - outer(short, q)
    missing = np.where(near, pairs.sine[:, :n].upper * products.upper * 2, 0.0)
    cross = cross.widened(missing[:, :, None, None])
    cross = cross + first[:, :, None, None] * eye[None, None]
    same = np.eye(n, dtype=bool)
    whole = Ball(
        np.where(same[:, :, None, None], own.centre[:, None], cross.centre),
        np.where(same[:, :, None, None], own.radius[:, None], cross.radius),
        arithmetic,
    )
    matrix = whole.transpose(0, 2, 1, 3)
    full = Ball(
        matrix.centre.reshape(n * d, n * d),
        matrix.radius.reshape(n * d, n * d),
        arithmetic,
    )
    diagonal = (half + traces)[:, None]
    spread = Ball(
        np.broadcast_to(diagonal.centre, (n, n)),
        np.broadcast_to(diagonal.radius, (n, n)),
        arithmetic,
    )
    return full, spread.where(same, first)


def spectral_bound(radius: Float[np.ndarray, "n n"]) -> float:
    """The norm of any matrix with entries within ``radius``, by its row sums."""
    size = radius.shape[0]
    largest = np.maximum(radius, radius.T).sum(1).max()
    return float(largest * (1 + 4 * size * 2.0**-53))
