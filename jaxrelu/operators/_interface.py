"""What every operator of the algebra can do, and how lineax sees it."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from jaxrelu._memory import require_bytes
from jaxrelu._products import matmul
from jaxrelu.operators._underflow import underflow_weight as underflow_weight


class AbstractOperator(lx.AbstractLinearOperator):
    r"""A real matrix $A$ of shape (rows, cols) that acts on flat vectors.

    Subclasses know $A$ through thin factors and supply products with it. All vectors
    are one-dimensional; those of a Jacobian are ordered as
    `jax.flatten_util.ravel_pytree` orders the trained leaves.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""

    @property
    @abc.abstractmethod
    def dtype(self) -> jnp.dtype:
        """Floating dtype of the entries."""

    @property
    @abc.abstractmethod
    def gram_terms(self) -> int:
        """Rounded products summed in one entry of `gram`: the size of its error."""

    @abc.abstractmethod
    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        """$A u$."""

    @abc.abstractmethod
    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        r"""$A^\top r$."""

    @abc.abstractmethod
    def gram(self) -> Float[Array, "rows rows"]:
        r"""$A A^\top$, without forming $A$ where the structure allows."""

    @abc.abstractmethod
    def cogram(self) -> Float[Array, "cols cols"]:
        r"""$A^\top A$."""

    @abc.abstractmethod
    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        r"""$A B^\top$ with another operator on the same space.

        With the Jacobians of one network at two sets of inputs this is the kernel
        between the sets.
        """

    @abc.abstractmethod
    def as_matrix(self) -> Float[Array, "rows cols"]:
        """$A$ itself; refused with the bytes when it would not fit."""

    def transpose(self) -> "AbstractOperator":
        r"""$A^\top$ as an operator; its `gram` is this one's `cogram`."""
        return self.operator if isinstance(self, Transpose) else Transpose(self)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of the vectors `mv` takes."""
        return jax.ShapeDtypeStruct((self.shape[1],), self.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of the vectors `mv` returns."""
        return jax.ShapeDtypeStruct((self.shape[0],), self.dtype)


class AbstractSymmetricOperator(AbstractOperator):
    """A symmetric $A$: only `mv` and `as_matrix` are its own."""

    @property
    def gram_terms(self) -> int:
        """The order of the matrix, which is formed."""
        return self.shape[0]

    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        """As `mv`."""
        return self.mv(vector)

    def gram(self) -> Float[Array, "rows rows"]:
        """$A^2$; $A$ is formed."""
        dense = self.as_matrix()
        return matmul(dense, dense)

    def cogram(self) -> Float[Array, "cols cols"]:
        """As `gram`."""
        return self.gram()

    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        """Both matrices are formed."""
        return dense_cross_gram(self, other)


class Transpose(AbstractOperator):
    r"""$A^\top$ for a structured $A$; no numbers are moved."""

    operator: AbstractOperator

    @property
    def shape(self) -> tuple[int, int]:
        """(cols, rows) of the wrapped operator."""
        rows, cols = self.operator.shape
        return cols, rows

    @property
    def dtype(self) -> jnp.dtype:
        """That of the wrapped operator."""
        return self.operator.dtype

    @property
    def gram_terms(self) -> int:
        """The rows of the wrapped operator: its `cogram` is a product of matrices."""
        return self.operator.shape[0]

    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        """The wrapped operator's `rmv`."""
        return self.operator.rmv(vector)

    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        """The wrapped operator's `mv`."""
        return self.operator.mv(vector)

    def gram(self) -> Float[Array, "rows rows"]:
        """The wrapped operator's `cogram`."""
        return self.operator.cogram()

    def cogram(self) -> Float[Array, "cols cols"]:
        """The wrapped operator's `gram`."""
        return self.operator.gram()

    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        """Both matrices are formed."""
        return dense_cross_gram(self, other)

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The wrapped operator's `as_matrix`, transposed."""
        return self.operator.as_matrix().T


@underflow_weight.register
def _(operator: Transpose):
    return underflow_weight(operator.operator)


def gram(operator: lx.AbstractLinearOperator) -> Float[Array, "rows rows"]:
    r"""$A A^\top$ of any lineax operator, through its structure where it has one.

    Rules: the operators of this room; scalar multiples, negation and tags; a product
    with a diagonal on the left, $D A A^\top D$. Anything else is formed first: a sum,
    too, because $AA^\top + BB^\top + AB^\top + BA^\top$ cancels when $A \approx -B$.

    Cost: that of the operator's own rule; for an operator without one, $A$ is formed.
    """
    match operator:
        case AbstractOperator():
            return operator.gram()
        case lx.MulLinearOperator():
            return operator.scalar * _kept(operator.scalar * gram(operator.operator))
        case lx.DivLinearOperator():
            return _kept(gram(operator.operator) / operator.scalar) / operator.scalar
        case lx.NegLinearOperator() | lx.TaggedLinearOperator():
            return gram(operator.operator)
        case lx.ComposedLinearOperator(operator1=lx.DiagonalLinearOperator()):
            rows = lx.diagonal(operator.operator1)
            return rows[:, None] * gram(operator.operator2) * rows[None, :]
    dense = operator.as_matrix()
    return matmul(dense, dense.T)


def _kept(matrix: Array) -> Array:
    """As it is: XLA would multiply constants first, and their square underflows."""
    return jax.lax.optimization_barrier(matrix)


def cross_gram(
    one: lx.AbstractLinearOperator, two: lx.AbstractLinearOperator
) -> Float[Array, "rows other"]:
    r"""$A B^\top$ of two operators that act on the same space."""
    if one.in_size() != two.in_size():
        msg = (
            f"the operators act on vectors of length {one.in_size()} and "
            f"{two.in_size()}; expected the same space."
        )
        raise ValueError(msg)
    if isinstance(one, AbstractOperator):
        return one.cross_gram(two)
    if isinstance(two, AbstractOperator):
        return two.cross_gram(one).T
    return dense_cross_gram(one, two)


def dense_cross_gram(
    one: lx.AbstractLinearOperator, two: lx.AbstractLinearOperator
) -> Float[Array, "rows other"]:
    r"""$A B^\top$ by forming both matrices, which must fit in memory."""
    return matmul(one.as_matrix(), two.as_matrix().T)


def matmat(
    operator: lx.AbstractLinearOperator, block: Float[Array, "cols b"]
) -> Float[Array, "rows b"]:
    """$A V$ for a block of columns $V$."""
    return jax.vmap(operator.mv, in_axes=1, out_axes=1)(block)


def require_matrix_bytes(shape: tuple[int, int], dtype: Any, what: str) -> None:
    """Refuses a dense (rows, cols) matrix that would not fit in memory."""
    needed = shape[0] * shape[1] * jnp.dtype(dtype).itemsize
    require_bytes(
        needed,
        f"{what} of shape {shape}, {jnp.dtype(dtype).name},",
        "Use mv, rmv or gram instead of the matrix.",
    )


def require_hessian_bytes(p: int, dtype: Any, copies: int = 2) -> None:
    """Refuses a (p, p) matrix and its parts when they would not fit in memory."""
    dtype = jnp.dtype(dtype)
    require_bytes(
        copies * p * p * dtype.itemsize,
        f"a Hessian of shape ({p}, {p}), {dtype.name}, and {copies - 1} more for its "
        "parts",
        'Use its product mv, `extreme(H, method="matrix-free")` or `density(H)`, '
        "which need a few vectors.",
    )


# lineax asks these of every operator. A structured operator of ours promises no
# structure that lineax could exploit, but for the symmetric ones: tags are added by
# lx.TaggedLinearOperator.
for _predicate in (
    lx.is_symmetric,
    lx.is_diagonal,
    lx.is_tridiagonal,
    lx.is_lower_triangular,
    lx.is_upper_triangular,
    lx.is_positive_semidefinite,
    lx.is_negative_semidefinite,
    lx.has_unit_diagonal,
):
    _predicate.register(AbstractOperator)(lambda operator: False)  # noqa: ARG005


@lx.is_symmetric.register(AbstractSymmetricOperator)
def _(operator):  # noqa: ARG001
    return True


@lx.linearise.register(AbstractOperator)
def _(operator):
    return operator


@lx.conj.register(AbstractOperator)
def _(operator):
    return operator


@lx.materialise.register(AbstractOperator)
def _(operator):
    return lx.MatrixLinearOperator(operator.as_matrix())


@lx.diagonal.register(AbstractOperator)
def _(operator):
    return jnp.diagonal(operator.as_matrix())
