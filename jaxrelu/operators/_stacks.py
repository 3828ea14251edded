"""Operators side by side, on top of each other, and on a diagonal."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from jaxrelu._products import matmul
from jaxrelu.operators._interface import (
    AbstractOperator,
    cross_gram,
    dense_cross_gram,
    require_matrix_bytes,
    underflow_weight,
)
from jaxrelu.operators._khatri_rao import cross_cogram


def _split(vector: Array, sizes: Sequence[int]) -> list[Array]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return jnp.split(vector, ends)


def _check_parts(parts: tuple, axis: int, name: str) -> None:
    if not parts:
        msg = f"{name} needs at least one operator; got none."
        raise ValueError(msg)
    sizes = {part.shape[axis] for part in parts}
    if len(sizes) > 1:
        shapes = [part.shape for part in parts]
        msg = (
            f"{name} got operators of shapes {shapes}; expected "
            f"one number of {'rows' if axis == 0 else 'columns'}."
        )
        raise ValueError(msg)


class HStack(AbstractOperator):
    r"""$[A_1, \dots, A_r]$: the Jacobian with respect to several leaves.

    Its Gram matrix is the sum of the parts' Gram matrices.
    """

    parts: tuple[AbstractOperator, ...]

    def __check_init__(self):
        _check_parts(self.parts, 0, "HStack")

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, sum of the parts' columns)."""
        return self.parts[0].shape[0], sum(part.shape[1] for part in self.parts)

    @property
    def dtype(self) -> jnp.dtype:
        """That of the parts."""
        return self.parts[0].dtype

    @property
    def gram_terms(self) -> int:
        """The largest of the parts', and one more for every part added."""
        return max(part.gram_terms for part in self.parts) + len(self.parts)

    @eqx.filter_jit
    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        r"""$\sum_j A_j u_j$."""
        pieces = _split(vector, [part.shape[1] for part in self.parts])
        return _sum([part.mv(u) for part, u in zip(self.parts, pieces, strict=True)])

    @eqx.filter_jit
    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        r"""The parts' $A_j^\top r$, one after the other."""
        return jnp.concatenate([part.rmv(vector) for part in self.parts])

    def gram(self) -> Float[Array, "rows rows"]:
        r"""$\sum_j A_j A_j^\top$."""
        return _sum([part.gram() for part in self.parts])

    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        """Sum of the parts' cross Grams when `other` splits the same way."""
        if isinstance(other, HStack) and [p.shape[1] for p in self.parts] == [
            p.shape[1] for p in other.parts
        ]:
            pairs = zip(self.parts, other.parts, strict=True)
            return _sum([cross_gram(one, two) for one, two in pairs])
        return dense_cross_gram(self, other)

    def cogram(self) -> Float[Array, "cols cols"]:
        r"""Blocks $A_i^\top A_j$ through the parts' factors; else A is formed."""
        cols = self.shape[1]
        require_matrix_bytes((cols, 2 * cols), self.dtype, "a p × p matrix")
        count = len(self.parts)
        blocks = {}
        for i, one in enumerate(self.parts):
            blocks[i, i] = one.cogram()
            for j in range(i + 1, count):
                block = cross_cogram(one, self.parts[j])
                if block is None:
                    dense = self.as_matrix()
                    return matmul(dense.T, dense)
                blocks[i, j], blocks[j, i] = block, block.T
        return jnp.block([[blocks[i, j] for j in range(count)] for i in range(count)])

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The parts' matrices side by side."""
        require_matrix_bytes(self.shape, self.dtype, "a Jacobian")
        return jnp.concatenate([part.as_matrix() for part in self.parts], axis=1)


class VStack(AbstractOperator):
    r"""$A_1$ on top of $A_2$ …: one network at several sets of inputs."""

    parts: tuple[AbstractOperator, ...]

    def __check_init__(self):
        _check_parts(self.parts, 1, "VStack")

    @property
    def shape(self) -> tuple[int, int]:
        """(sum of the parts' rows, cols)."""
        return sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]

    @property
    def dtype(self) -> jnp.dtype:
        """That of the parts."""
        return self.parts[0].dtype

    @property
    def gram_terms(self) -> int:
        """The number of columns: blocks between unlike parts are dense products."""
        return self.shape[1]

    @eqx.filter_jit
    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        r"""The parts' $A_j u$, one after the other."""
        return jnp.concatenate([part.mv(vector) for part in self.parts])

    @eqx.filter_jit
    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        r"""$\sum_j A_j^\top r_j$."""
        pieces = _split(vector, [part.shape[0] for part in self.parts])
        return _sum([part.rmv(r) for part, r in zip(self.parts, pieces, strict=True)])

    def gram(self) -> Float[Array, "rows rows"]:
        r"""Blocks $A_i A_j^\top$; those above the diagonal are computed once."""
        count = len(self.parts)
        blocks = {}
        for i, one in enumerate(self.parts):
            blocks[i, i] = one.gram()
            for j in range(i + 1, count):
                blocks[i, j] = cross_gram(one, self.parts[j])
                blocks[j, i] = blocks[i, j].T
        return jnp.block([[blocks[i, j] for j in range(count)] for i in range(count)])

    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        """The parts' cross Grams on top of each other."""
        return jnp.concatenate([cross_gram(part, other) for part in self.parts])

    def cogram(self) -> Float[Array, "cols cols"]:
        r"""$\sum_j A_j^\top A_j$."""
        return _sum([part.cogram() for part in self.parts])

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The parts' matrices on top of each other."""
        require_matrix_bytes(self.shape, self.dtype, "a Jacobian")
        return jnp.concatenate([part.as_matrix() for part in self.parts])


class BlockDiagonal(AbstractOperator):
    r"""$\mathrm{diag}(A_1, \dots, A_r)$."""

    parts: tuple[AbstractOperator, ...]

    def __check_init__(self):
        if not self.parts:
            msg = "BlockDiagonal needs at least one operator; got none."
            raise ValueError(msg)

    @property
    def shape(self) -> tuple[int, int]:
        """(sum of rows, sum of columns)."""
        rows, cols = zip(*(part.shape for part in self.parts), strict=True)
        return sum(rows), sum(cols)

    @property
    def dtype(self) -> jnp.dtype:
        """That of the parts."""
        return self.parts[0].dtype

    @property
    def gram_terms(self) -> int:
        """The largest of the parts'."""
        return max(part.gram_terms for part in self.parts)

    @eqx.filter_jit
    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        """Each part on its own piece."""
        pieces = _split(vector, [part.shape[1] for part in self.parts])
        pairs = zip(self.parts, pieces, strict=True)
        return jnp.concatenate([part.mv(piece) for part, piece in pairs])

    @eqx.filter_jit
    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        """Each part's transpose on its own piece."""
        pieces = _split(vector, [part.shape[0] for part in self.parts])
        pairs = zip(self.parts, pieces, strict=True)
        return jnp.concatenate([part.rmv(piece) for part, piece in pairs])

    def gram(self) -> Float[Array, "rows rows"]:
        """The parts' Gram matrices on the diagonal."""
        return _on_diagonal([part.gram() for part in self.parts])

    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        """Both matrices are formed."""
        return dense_cross_gram(self, other)

    def cogram(self) -> Float[Array, "cols cols"]:
        """The parts' cogram matrices on the diagonal."""
        return _on_diagonal([part.cogram() for part in self.parts])

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The parts' matrices on the diagonal."""
        require_matrix_bytes(self.shape, self.dtype, "a block diagonal matrix")
        return _on_diagonal([part.as_matrix() for part in self.parts])


@underflow_weight.register(HStack)
@underflow_weight.register(VStack)
@underflow_weight.register(BlockDiagonal)
def _(operator):
    return sum(underflow_weight(part) for part in operator.parts)


def _sum(terms: list[Array]) -> Array:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _on_diagonal(blocks: list[Array]) -> Array:
    rows = sum(block.shape[0] for block in blocks)
    cols = sum(block.shape[1] for block in blocks)
    out = jnp.zeros((rows, cols), blocks[0].dtype)
    row = col = 0
    for block in blocks:
        out = out.at[row : row + block.shape[0], col : col + block.shape[1]].set(block)
        row, col = row + block.shape[0], col + block.shape[1]
    return out
