r"""The Hessian of the population loss, by the closed forms of its blocks."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrelu._checks import is_concrete
from jaxrelu._memory import require_bytes
from jaxrelu._products import matmul
from jaxrelu.activations._angle import chord_pair, row_norms, unit_rows
from jaxrelu.objectives import PopulationLoss
from jaxrelu.operators._interface import AbstractSymmetricOperator


_BLOCK = 2**20  # numbers at once in a product


class PopulationHessian(AbstractSymmetricOperator):
    r"""$\nabla^2 F(W)$ with respect to the inner weights, $nd \times nd$, symmetric.

    Vectors are $W$ row by row. The $d \times d$ blocks are
    $H_{ij} = a_i a_j h_2(w_i, w_j)$ for $i \ne j$ and
    $H_{ii} = \tfrac12 a_i^2 I + H'_{ii}$, $H'_{ii} = \sum_z a_i c_z h_1(w_i, z)$, where
    $z$ runs over the other neurons: the student's with $c = a$, the teacher's with
    $c = -b$. With $\bar w = w/|w|$, $s = 1$ if $\theta < \pi/2$ and $-1$ otherwise,
    $\phi = \min(\theta, \pi - \theta)$, and the short and the long diagonal
    $q = \bar z - s \bar w$ and $p = \bar z + s \bar w$,
    $$ 2\pi h_2 = (\pi - \theta) I + \tfrac{s}2 \bigl(\tan\tfrac\phi2\, p p^\top
       - \cot\tfrac\phi2\, q q^\top\bigr), \qquad
       2\pi h_1 = \frac{|z|}{|w|} \sin\theta \Bigl(I - \bar w \bar w^\top
       + \frac{r r^\top}{\sin^2\theta}\Bigr),\quad
       r = q + \tfrac{s}2 |q|^2 \bar w . $$
    Written this way nothing cancels, and at parallel and antiparallel neurons
    ($\phi = 0$) the limits $h_1 = 0$ and $h_2 = I/2$ or $0$ come out; entries are off
    by a few roundings of $a_i \sum_z |c_z||z|/|w_i|$ and of $a_i a_j$.

    Attributes:
        units: $\bar w_i$ and then $\bar v_j$, (n + k, d).
        gates: $a_i a_j (\pi - \theta_{ij})/2\pi$, with $\tfrac12 a_i^2$ on the
            diagonal, (n, n).
        sides: $s$, (n, n + k).
        squares: $|q|^2 = 4 \sin^2(\phi/2)$, (n, n + k).
        curving: $a_i c_z |z| / (2\pi |w_i| \sin\theta)$, 0 where $\phi = 0$,
            (n, n + k).
        long: $a_i a_j \tfrac{s}{4\pi} \tan(\phi/2)$, (n, n).
        short: $a_i a_j \tfrac{s}{4\pi} \cot(\phi/2)$, 0 where $\phi = 0$, (n, n).
        traces: $\lambda_i = \operatorname{tr}(H'_{ii})/d
            = \sum_z a_i c_z |z| \sin\theta / 2\pi |w_i|$, (n,).
        zero_neurons: (n,). F has no Hessian there: NaN in their diagonal blocks.
    """

    units: Float[Array, "m d"]
    gates: Float[Array, "n n"]
    sides: Float[Array, "n m"]
    squares: Float[Array, "n m"]
    curving: Float[Array, "n m"]
    long: Float[Array, "n n"]
    short: Float[Array, "n n"]
    traces: Float[Array, " n"]
    zero_neurons: Bool[Array, " n"]

    @property
    def shape(self) -> tuple[int, int]:
        """(n d, n d)."""
        size = self.gates.shape[-1] * self.units.shape[-1]
        return size, size

    @property
    def dtype(self) -> jnp.dtype:
        """Floating dtype of the entries."""
        return self.units.dtype

    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        """$H u$ without the matrix: O(n(n + k)d) operations, O(n(n + k)) numbers."""
        rows = vector.reshape(len(self.traces), -1)
        return _product(self, rows).reshape(-1)

    def own_blocks(self) -> Float[Array, "n d d"]:
        r"""$H'_{ii} = H_{ii} - \tfrac12 a_i^2 I$, what a neuron's split sees.

        $H'_{ii} w_i = 0$ and $\operatorname{tr} H'_{ii} = d \lambda_i$. Cost:
        2n(n + k)d² operations.

        Raises:
            MemoryRefusedError: it would not fit in memory.
        """
        self._require_bytes(0, "The diagonal blocks of a Hessian")
        return _own_blocks(self)

    def blocks(self) -> Float[Array, "n d n d"]:
        r"""$\partial^2 F / \partial W_{ia} \partial W_{jb}$ at [i, a, j, b].

        One pass over the result, after O(n(n + k)d²) operations for the diagonal.

        Raises:
            MemoryRefusedError: it would not fit in memory.
        """
        self._require_bytes(self.shape[0] ** 2, "A Hessian")
        return _dense(self)

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """`blocks` as an (nd, nd) matrix, at the same cost."""
        if not is_concrete(self.units):
            self._require_bytes(self.shape[0] ** 2, "A Hessian")
            return _dense_within(self)
        return _matrix(self.blocks())

    def _require_bytes(self, numbers: int, what: str) -> None:
        n, m = self.sides.shape
        d = self.units.shape[1]
        needed = (numbers + 2 * n * m * d + n * d * d) * self.dtype.itemsize
        require_bytes(
            needed,
            f"{what} of order {self.shape[0]} in {self.dtype.name}",
            "Use mv, or extreme(operator, method='matrix-free') for both ends.",
        )

    def reduced_block(self) -> Float[Array, "n n"]:
        r"""$M$: the Hessian on directions orthogonal to all neurons.

        For $e$ orthogonal to all $w_i$ and $v_j$, $H$ maps $c \otimes e$ to
        $(M c) \otimes e$, with $M_{ii} = \tfrac12 a_i^2 + \lambda_i$ and
        $M_{ij} = a_i a_j (\pi - \theta_{ij})/2\pi$. Every dimension beyond the span of
        the neurons adds the eigenvalues of $M$ once more.
        """
        return _reduced(self.gates, self.traces)


def population_hessian(objective: PopulationLoss, student: Any) -> PopulationHessian:
    """`hessian` of a population loss; see `PopulationHessian`.

    Raises:
        TypeError: a student that is neither a `Shallow` network nor an array.
        ValueError: a student that does not fit the teacher, or has a zero neuron.

    Cost: 2n(n + k)d operations and O(n(n + k)) numbers.
    """
    student = objective.student(student)
    if is_concrete(student.inner):
        zero = np.flatnonzero(~np.asarray(student.inner).any(axis=-1))
        if zero.size:
            msg = (
                f"student neuron {zero[0]} is zero, where F is not differentiable; "
                "expected nonzero rows. Drop it, or use "
                "PopulationLoss.directional_derivative."
            )
            raise ValueError(msg)
    teacher = objective.teacher
    parts = _parts(student.inner, student.outer, teacher.inner, teacher.outer)
    return PopulationHessian(*parts)


@jax.jit
def _parts(w: Array, a: Array, v: Array, b: Array) -> tuple[Array, ...]:
    n = len(w)
    rows, weights = jnp.concatenate([w, v]), jnp.concatenate([a, -b])
    norms = row_norms(rows)
    minus, plus = chord_pair(False, w, rows)
    sides = jnp.where(minus < plus, 1, -1).astype(w.dtype)
    low, high = jnp.minimum(minus, plus), jnp.maximum(minus, plus)  # |q|, |p|
    # the terms that this drops are smaller than any rounding
    apart = low > jnp.sqrt(jnp.finfo(w.dtype).tiny)
    apart &= ~jnp.eye(n, len(rows), dtype=bool)
    low = jnp.where(apart, low, 0)
    narrow = 2 * jnp.arctan2(low, high)
    delta = jnp.where(sides > 0, math.pi - narrow, narrow)
    sin = jnp.sin(narrow)  # low * high / 2 is off by a rounding at orthogonal neurons
    zero_neurons = norms[:n] == 0
    inverse = a / (2 * math.pi * jnp.where(zero_neurons, jnp.nan, norms[:n]))
    scale = inverse[:, None] * (weights * norms)[None, :]
    pairs = a[:, None] * a[None, :]
    signed = pairs * sides[:, :n] / (4 * math.pi)
    short = jnp.where(apart, high / jnp.where(apart, low, 1), 0)
    return (
        unit_rows(rows, norms),
        pairs * delta[:, :n] / (2 * math.pi),
        sides,
        low**2,
        jnp.where(apart, scale / jnp.where(apart, sin, 1), 0),
        signed * (low / high)[:, :n],
        signed * short[:, :n],
        jnp.sum(scale * sin, axis=1),
        zero_neurons,
    )


@jax.jit
def _reduced(gates: Array, traces: Array) -> Array:
    return gates + jnp.diag(traces)


@jax.jit
def _own_blocks(hessian: PopulationHessian) -> Array:
    d = hessian.units.shape[1]
    ends, starts = hessian.units[None, :, :], hessian.units[: len(hessian.gates)]
    sides, half = hessian.sides[:, :, None], hessian.squares[:, :, None] / 2
    short = ends - sides * starts[:, None, :]
    across = short + sides * half * starts[:, None, :]
    curved = jnp.matmul(
        (hessian.curving[:, :, None] * across).mT,
        across,
        precision=jax.lax.Precision.HIGHEST,
    )
    flat = (
        jnp.eye(d, dtype=starts.dtype)[None] - starts[:, :, None] * starts[:, None, :]
    )
    return curved + hessian.traces[:, None, None] * flat


@jax.jit
def _dense(hessian: PopulationHessian) -> Array:
    n, d = len(hessian.gates), hessian.units.shape[1]
    units = hessian.units[:n]
    columns, third = units.T[:, :, None], units[None, :, :]
    eye = jnp.eye(d, dtype=bool)[:, None, :]

    def blocks(unit, side, long, short, gates, own, at):
        """H's blocks [a, j, b] of one neuron."""
        side, long, short, gates = (
            x[None, :, None] for x in (side, long, short, gates)
        )
        one, two = unit[:, None, None], unit[None, None, :]
        entries = long * (columns + side * one) * (third + side * two)
        entries -= short * (columns - side * one) * (third - side * two)
        entries += jnp.where(eye, gates, 0)
        return entries + jnp.where(at[None, :, None], own[:, None, :], 0)

    # one loop over the result, no array of its size beside it
    pairs = (hessian.sides[:, :n], hessian.long, hessian.short, hessian.gates)
    here = jnp.eye(n, dtype=bool)
    return jax.vmap(blocks)(units, *pairs, _own_blocks(hessian), here)


@jax.jit
def _dense_within(hessian: PopulationHessian) -> Array:
    """`_dense` as a matrix, for programs.

    The branch is there for its border: XLA would fuse the loop with the reshaping
    behind it into one that divides for every entry (twice the time, measured).
    """
    n, d = len(hessian.gates), hessian.units.shape[1]
    always = jax.lax.optimization_barrier(jnp.array(True))

    def never(hessian):
        return jnp.zeros((n, d, n, d), hessian.units.dtype)

    return jax.lax.cond(always, _dense, never, hessian).reshape(n * d, n * d)


@functools.partial(jax.jit, donate_argnums=0)
def _matrix(blocks: Array) -> Array:
    """The same buffer with two axes."""
    n, d = blocks.shape[:2]
    return blocks.reshape(n * d, n * d)


@jax.jit
def _product(hessian: PopulationHessian, u: Array) -> Array:
    n, m = hessian.sides.shape
    ends, starts = hessian.units, hessian.units[:n]
    own = jnp.sum(starts * u, axis=1)

    def row(start, side, square, curving, short, mine):
        """What q and r add to one neuron's row."""
        # subtracted entry by entry: the coefficients of q grow like 1/θ
        q = ends - side[:, None] * start[None, :]
        shift = side * square / 2
        reach = curving * (matmul(q, mine) + shift * jnp.sum(start * mine))
        pull = short * jnp.sum(q[:n] * u, axis=1)
        return matmul(reach.at[:n].add(-pull), q) + jnp.sum(shift * reach) * start

    rows = (starts, hessian.sides, hessian.squares, hessian.curving, hessian.short, u)
    size = max(_BLOCK // (m * ends.shape[1]), 1)
    if size < n:
        total = jax.lax.map(lambda parts: row(*parts), rows, batch_size=size)
    else:
        total = jax.vmap(row)(*rows)
    # p by products: its coefficients are bounded
    side = hessian.sides[:, :n]
    push = hessian.long * (own[None, :] + side * matmul(starts, u.T))
    along = jnp.sum(side * push, axis=1) - hessian.traces * own
    total = total + matmul(push, starts) + along[:, None] * starts
    return total + matmul(hessian.gates, u) + hessian.traces[:, None] * u
