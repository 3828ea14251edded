r"""The part of the Hessian that the residual weighs: $\sum_i r_i \nabla^2 f(x_i)$."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._products import matmul
from jaxrelu.operators import _pairs
from jaxrelu.operators._interface import (
    AbstractSymmetricOperator,
    require_hessian_bytes,
)


@dataclasses.dataclass(frozen=True, order=True)
class Leaf:
    """A trained leaf: the weight or the bias of one level."""

    level: int
    bias: bool


class Samples(eqx.Module):
    r"""What the curvature needs of every sample, level by level.

    Attributes:
        inputs: $a_\ell$, what the weights of level ℓ multiply, (n, in).
        slopes: $\varphi'(z_\ell)$ of the hidden levels, (n, k); None if φ is absent.
        bends: $\varphi''(z_\ell) \circ \partial S / \partial a_{\ell+1}$, (n, k); None
            if φ is piecewise linear.
        deltas: $\delta_\ell = \partial S / \partial z_\ell$, (n, out); the last is r.
    """

    inputs: tuple[Float[Array, "n _"], ...]
    slopes: tuple[Float[Array, "n _"], ...] | None
    bends: tuple[Float[Array, "n _"], ...] | None
    deltas: tuple[Float[Array, "n _"], ...]


class LayeredCurvature(AbstractSymmetricOperator):
    r"""$\nabla^2 S$ of $S(\theta) = \sum_i r_i \cdot f_\theta(x_i)$ for fixed r.

    With $z_\ell = W_\ell a_\ell + b_\ell$, $a_{\ell+1} = \varphi(z_\ell)$ and
    $\delta_\ell = \partial S/\partial z_\ell$, the block of two weights
    $\ell \le \ell'$ is, in the entries $(p, q)$ and $(r, s)$,
    $$\sum_i a_{\ell q} a_{\ell' s}
      \Big[\tfrac{\partial z_{\ell'}}{\partial z_\ell}^\top G_{\ell'}\Big]_{pr}
      + 1\{\ell < \ell'\}\, \sum_i a_{\ell q}\, \delta_{\ell' r}
      \tfrac{\partial a_{\ell' s}}{\partial z_{\ell p}},$$
    $G_\ell = \mathrm{diag}(\varphi''(z_\ell) \circ W_{\ell+1}^\top\delta_{\ell+1})
      + D_\ell W_{\ell+1}^\top G_{\ell+1} W_{\ell+1} D_\ell$, $G = 0$ at the last level,
    $D_\ell = \mathrm{diag}\,\varphi'(z_\ell)$; the indices i are left out. $G$ is 0 for
    piecewise linear φ, and a bias has 1 for $a_\ell$ and no second term as $\ell'$.

    Attributes:
        weights: of all levels, (out, in) each.
        samples: see `Samples`.
        leaves: the trained ones, in the order of the parameters.
    """

    weights: tuple[Float[Array, "_ _"], ...]
    samples: Samples
    leaves: tuple[Leaf, ...] = eqx.field(static=True)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Parameters of each trained leaf."""
        shapes = [(self.weights[leaf.level].shape, leaf.bias) for leaf in self.leaves]
        return tuple(out if bias else out * fan for (out, fan), bias in shapes)

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p)."""
        p = sum(self.sizes)
        return p, p

    @property
    def dtype(self) -> jnp.dtype:
        """Floating dtype of the weights."""
        return self.weights[0].dtype

    @property
    def is_zero(self) -> bool:
        """Whether no block can differ from 0: one trained layer, no φ''."""
        levels = {leaf.level for leaf in self.leaves}
        weighty = {leaf.level for leaf in self.leaves if not leaf.bias}
        bent = self.samples.bends is not None and min(levels) < len(self.weights) - 1
        return not bent and not any(min(levels) < level for level in weighty)

    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        """One pass forward and one back; no p × p and no n × p numbers."""
        return self.product(vector, gauss_newton=False)

    @eqx.filter_jit
    def product(
        self, vector: Float[Array, " cols"], gauss_newton: bool
    ) -> Float[Array, " rows"]:
        r"""This part times a vector; with $J^\top J$ times it in the same passes."""
        if self.is_zero and not gauss_newton:
            return jnp.zeros_like(vector)
        moves = self._moves(vector)
        last, lowest = len(self.weights) - 1, min(leaf.level for leaf in self.leaves)
        at = self.samples
        hidden: list[Array | None] = [None] * (last + 1)
        z: list[Array | None] = [None] * (last + 1)
        for level in range(lowest, last + 1):
            z[level] = _sum(
                _times(at.inputs[level], _turned(moves.get(Leaf(level, False)))),
                _times(hidden[level], self.weights[level].T),
                _row(moves.get(Leaf(level, True)), at.inputs[0].shape[0]),
            )
            if level < last:
                hidden[level + 1] = _gated(self._slopes(level), z[level])
        back, found = z[last] if gauss_newton else None, {}
        for level in range(last, lowest - 1, -1):
            if Leaf(level, False) in moves:
                found[Leaf(level, False)] = _sum(
                    _times(_turned(back), at.inputs[level]),
                    _times(at.deltas[level].T, hidden[level]),
                )
            if Leaf(level, True) in moves and back is not None:
                found[Leaf(level, True)] = jnp.sum(back, axis=0)
            if level > lowest:
                carried = _sum(
                    _times(at.deltas[level], moves.get(Leaf(level, False))),
                    _times(back, self.weights[level]),
                )
                bend = None if at.bends is None else at.bends[level - 1]
                moved = None if bend is None else _gated(bend, z[level - 1])
                back = _sum(_gated(self._slopes(level - 1), carried), moved)
        pieces = zip(self.leaves, self.sizes, strict=True)
        zeros = lambda size: jnp.zeros((size,), self.dtype)
        return jnp.concatenate(
            [
                zeros(size) if found.get(leaf) is None else found[leaf].reshape(-1)
                for leaf, size in pieces
            ]
        )

    def _moves(self, vector: Array) -> dict[Leaf, Array]:
        """The pieces of a vector, each in the shape of its leaf."""
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes) - 1)]
        pieces = jnp.split(vector, ends)
        return {
            leaf: piece if leaf.bias else piece.reshape(self.weights[leaf.level].shape)
            for leaf, piece in zip(self.leaves, pieces, strict=True)
        }

    def _slopes(self, level: int) -> Array | None:
        return None if self.samples.slopes is None else self.samples.slopes[level]

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The (p, p) matrix, block by block; blocks known to be 0 cost nothing."""
        require_hessian_bytes(self.shape[0], self.dtype)
        return self.add_to(jnp.zeros(self.shape, self.dtype))

    @eqx.filter_jit
    def add_to(self, matrix: Float[Array, "rows cols"]) -> Float[Array, "rows cols"]:
        """The sum of this part and a (p, p) matrix."""
        starts = [sum(self.sizes[:i]) for i in range(len(self.sizes))]
        spans = [slice(s, s + z) for s, z in zip(starts, self.sizes, strict=True)]
        for i, one in enumerate(self.leaves):
            matrix = self._add_own(matrix, one, spans[i])
            for two, span in zip(self.leaves[i + 1 :], spans[i + 1 :], strict=True):
                low, high = sorted([(one, spans[i]), (two, span)])
                block = self._block(low[0], high[0])
                if block is not None:
                    matrix = matrix.at[low[1], high[1]].add(block)
                    matrix = matrix.at[high[1], low[1]].add(block.T)
        return matrix

    def _input(self, leaf: Leaf) -> Array:
        inputs = self.samples.inputs[leaf.level]
        return jnp.ones_like(inputs[:, :1]) if leaf.bias else inputs

    def _add_own(self, matrix: Array, leaf: Leaf, span: slice) -> Array:
        """Adds the block of one leaf with itself."""
        last, bends = len(self.weights) - 1, self.samples.bends
        if bends is None or leaf.level == last:
            return matrix
        right, out = self._input(leaf), self.weights[leaf.level].shape[0]
        if leaf.level == last - 1:  # G is diagonal: one d × d block per neuron
            q, s = np.triu_indices(right.shape[1])
            packed = _pairs.over_samples(
                lambda part: (part[0].T, part[1].T[q] * part[1].T[s]),
                (bends[leaf.level], right),
                out + len(q),
            )
            return _add_on_diagonal(matrix, packed, right.shape[1], span)
        p, r = np.triu_indices(out)
        block = _pairs.symmetric_pairs(
            lambda part: self._second(part, leaf.level)[:, p, r].T,
            self.samples,
            right,
            out,
            right.shape[1],
        )
        return matrix.at[span, span].add(block)

    def _block(self, low: Leaf, high: Leaf) -> Array | None:
        """Block of two leaves, that of the lower level first; None where it is 0."""
        last, samples = len(self.weights) - 1, self.samples
        one, two = self._input(low), self._input(high)
        sizes = (self.weights[low.level].shape[0], self.weights[high.level].shape[0])
        total = None
        if samples.bends is not None and high.level < last:

            def bent(part):
                second = self._second(part, high.level)
                if low.level < high.level:
                    through = self._through(part, low.level, high.level)
                    second = matmul(through.transpose(0, 2, 1), second)
                return second.transpose(1, 2, 0)

            total = _pairs.all_pairs(bent, samples, one, two, sizes)
        if low.level < high.level and not high.bias:
            total = _sum(total, self._crossed(one, low.level, high.level))
        return total

    def _crossed(self, one: Array, low: int, high: int) -> Array:
        r"""The second sum of the formula above, (k d, k' d')."""
        k, fan = self.weights[low].shape[0], self.weights[high].shape[1]
        delta, d = self.samples.deltas[high], one.shape[1]
        out, shape = delta.shape[1], (k * d, delta.shape[1] * fan)
        if self.samples.slopes is None:  # the same map for all samples
            fixed = jnp.eye(k, dtype=self.dtype)
            for weight in self.weights[low + 1 : high]:
                fixed = matmul(weight, fixed)
            block = fixed.T[:, None, None] * matmul(one.T, delta)[None, :, :, None]
            return block.reshape(shape)
        if high == low + 1:  # diagonal: neuron p meets column p only
            block = _pairs.over_samples(
                lambda part: (
                    part[0].T,
                    (part[1].T[:, None] * part[2].T[None]).reshape(d * out, -1),
                ),
                (self.samples.slopes[low], one, delta),
                k + d * out,
            ).reshape(k, d, out)
            spread = jnp.eye(k, dtype=self.dtype)[:, None, None]
            return (block[:, :, :, None] * spread).reshape(shape)

        def through(part):
            inner = self._through(part, low, high - 1)
            whole = part.slopes[high - 1][:, :, None] * inner
            return whole.transpose(2, 1, 0)

        block = _pairs.all_pairs(through, self.samples, one, delta, (k, fan))
        return block.reshape(k, d, fan, out).transpose(0, 1, 3, 2).reshape(shape)

    def _second(self, part: Samples, level: int) -> Array:
        r"""$G_\ell$ of a block of samples, (block, k, k)."""
        assert part.bends is not None and part.slopes is not None  # noqa: PT018
        k = part.bends[level].shape[1]
        own = part.bends[level][:, :, None] * jnp.eye(k, dtype=self.dtype)[None]
        if level == len(self.weights) - 2:
            return own
        weight, slope = self.weights[level + 1], part.slopes[level]
        inner = matmul(matmul(weight.T, self._second(part, level + 1)), weight)
        return own + slope[:, :, None] * inner * slope[:, None, :]

    def _through(self, part: Samples, low: int, high: int) -> Array:
        r"""$\partial z_{\ell'} / \partial z_\ell$ of a block, (block, k', k)."""
        assert part.slopes is not None
        total = self.weights[low + 1][None] * part.slopes[low][:, None, :]
        for level in range(low + 1, high):
            total = part.slopes[level][:, :, None] * total
            total = matmul(self.weights[level + 1], total)
        return total


def _add_on_diagonal(matrix: Array, packed: Array, d: int, span: slice) -> Array:
    """Adds one symmetric d × d block per neuron, given by its upper triangle."""
    k = packed.shape[0]
    index = jnp.arange(d, dtype=jnp.int32)
    low = jnp.minimum(index[:, None], index[None])
    high = jnp.maximum(index[:, None], index[None])
    blocks = packed[:, low * (2 * d - low - 1) // 2 + high]
    neurons = jnp.arange(k, dtype=jnp.int32)[:, None, None] * d + span.start
    rows, cols = neurons + index[None, :, None], neurons + index[None, None]
    return matrix.at[rows, cols].add(blocks, unique_indices=True)


def _sum(*terms: Array | None) -> Array | None:
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def _times(one: Array | None, two: Array | None) -> Array | None:
    return None if one is None or two is None else matmul(one, two)


def _turned(matrix: Array | None) -> Array | None:
    return None if matrix is None else matrix.T


def _row(bias: Array | None, n: int) -> Array | None:
    return None if bias is None else jnp.broadcast_to(bias[None], (n, bias.shape[0]))


def _gated(gate: Array | None, value: Array | None) -> Array | None:
    return value if gate is None or value is None else gate * value
