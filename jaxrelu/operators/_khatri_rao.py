r"""Jacobian blocks known by two thin factors.

The rows of every block are indexed by (sample i, output o), sample first. A weight leaf
of shape (k, d) is flattened row by row, so a block has kd columns.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float

from jaxrelu._products import matmul
from jaxrelu.operators import _pairs
from jaxrelu.operators._interface import (
    AbstractOperator,
    dense_cross_gram,
    require_matrix_bytes,
    underflow_weight,
)
from jaxrelu.operators._patterns import gated_products
from jaxrelu.operators._underflow import largest_modulus


_LARGE = 1024  # rows from which the upper half of a Gram matrix is worth not computing


def _check_factors(left: Array, right: Array) -> None:
    if left.dtype != right.dtype:
        msg = f"the factors are {left.dtype} and {right.dtype}; expected one dtype."
        raise ValueError(msg)


class KhatriRao(AbstractOperator):
    r"""Row-wise Kronecker product: row $(i, o)$ is $\Delta_{io} \otimes a_i$.

    Attributes:
        left: Δ, (n, m, k), or (n, k) for one output.
        right: A, (n, d).

    Its Gram matrix is $(\Delta \Delta^\top) \circ (A A^\top)$: 2n²m²k + 2n²d operations
    and n²m² numbers, where the matrix itself has nmkd.
    """

    left: Float[Array, "n m k"]
    right: Float[Array, "n d"]

    def __init__(self, left: Float[Array, "..."], right: Float[Array, "n d"]):
        self.left = left if left.ndim == 3 else left[:, None, :]
        self.right = right

    def __check_init__(self):
        if self.left.ndim != 3 or self.left.shape[0] != self.right.shape[0]:
            msg = (
                f"factors have shapes {self.left.shape} and {self.right.shape}; "
                "expected (n, m, k) or (n, k), and (n, d), with one n."
            )
            raise ValueError(msg)
        _check_factors(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        """(n m, k d)."""
        n, m, k = self.left.shape
        return n * m, k * self.right.shape[1]

    @property
    def dtype(self) -> jnp.dtype:
        """Floating dtype of the factors."""
        return self.right.dtype

    @property
    def gram_terms(self) -> int:
        """K + d: one product of each factor."""
        return self.left.shape[2] + self.right.shape[1]

    @eqx.filter_jit
    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        r"""Entry $(i, o)$ is $\Delta_{io}^\top U a_i$; 2nk(d + m) operations."""
        weights = vector.reshape(self.left.shape[2], self.right.shape[1])
        moved = matmul(self.right, weights.T)
        return jnp.sum(self.left * moved[:, None, :], axis=-1).reshape(-1)

    @eqx.filter_jit
    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        r"""$\sum_{io} r_{io}\, \Delta_{io} a_i^\top$; 2nk(d + m) operations."""
        residual = vector.reshape(self.left.shape[:2])
        weighted = jnp.sum(self.left * residual[:, :, None], axis=1)
        return matmul(weighted.T, self.right).reshape(-1)

    def gram(self) -> Float[Array, "rows rows"]:
        r"""$(\Delta\Delta^\top) \circ (AA^\top)$."""
        rows = self.shape[0]
        require_matrix_bytes(
            (rows, 3 * rows), self.dtype, "a Gram matrix and its parts"
        )
        return _hadamard_gram(self.left, self.left, self.right, self.right)

    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        """Hadamard form with another Khatri-Rao operator; dense otherwise."""
        if isinstance(other, GatedKhatriRao):
            other = other.ungated()
        if isinstance(other, KhatriRao) and _same_split(self, other):
            return _hadamard_gram(self.left, other.left, self.right, other.right)
        return dense_cross_gram(self, other)

    def cogram(self) -> Float[Array, "cols cols"]:
        r"""$J^\top J$ by pairs, without J: n(kd)²/2 + nmk²/2 operations."""
        cols = self.shape[1]
        require_matrix_bytes((cols, 2 * cols), self.dtype, "a p × p matrix")
        return _cogram(self.left, self.right)

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The (nm, kd) matrix."""
        require_matrix_bytes(self.shape, self.dtype, "a Jacobian")
        return _rows(self.left, self.right)


class GatedKhatriRao(AbstractOperator):
    r"""One-output Khatri-Rao block whose left factor is a pattern of bits.

    Row i is $\Delta_i \otimes a_i$ with $\Delta_{il} = v_l\, s(P_{il})$, where $P$ are
    the activation bits, $s(0), s(1)$ the two slopes of a piecewise linear activation
    and all $|v_l| = |v|$ are equal. Then $\Delta\Delta^\top = |v|^2 \sum_l s s$ is a
    polynomial in integer counts, which `common_ones` computes exactly whatever the
    dtype, several times faster than the float product: in the Gram matrix only the
    product $AA^\top$ and a handful of operations on the counts are rounded.

    Attributes:
        gates: P, (n, k).
        outer: v, (k,), entries of equal magnitude (the caller's promise).
        slopes: $(s(0), s(1))$.
        right: A, (n, d).
    """

    gates: Bool[Array, "n k"]
    outer: Float[Array, " k"]
    slopes: tuple[Any, Any]
    right: Float[Array, "n d"]

    @property
    def shape(self) -> tuple[int, int]:
        """(n, k d)."""
        return self.gates.shape[0], self.gates.shape[1] * self.right.shape[1]

    @property
    def dtype(self) -> jnp.dtype:
        """Floating dtype of inputs and outer weights."""
        return self.right.dtype

    def ungated(self) -> KhatriRao:
        """The same operator with its left factor written out."""
        low, high = (jnp.asarray(slope, self.dtype) for slope in self.slopes)
        return KhatriRao(
            jnp.where(self.gates, high, low) * self.outer[None, :], self.right
        )

    @property
    def gram_terms(self) -> int:
        """D + 8: the counts are exact, eight operations follow."""
        return self.right.shape[1] + 8

    @eqx.filter_jit
    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        """As `KhatriRao.mv`; the left factor is expanded inside the fused product."""
        return self.ungated().mv(vector)

    @eqx.filter_jit
    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        """As `KhatriRao.rmv`."""
        return self.ungated().rmv(vector)

    def gram(self) -> Float[Array, "rows rows"]:
        r"""$|v|^2 \left(\sum_l s s\right) \circ (AA^\top)$, counts exact."""
        rows = self.shape[0]
        require_matrix_bytes(
            (rows, 3 * rows), self.dtype, "a Gram matrix and its parts"
        )
        return _gated_gram(self)

    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        """Hadamard form with the pattern of the same neurons at other inputs."""
        return self.ungated().cross_gram(other)

    def cogram(self) -> Float[Array, "cols cols"]:
        r"""$J^\top J$ by pairs, without J; see `KhatriRao.cogram`."""
        cols = self.shape[1]
        require_matrix_bytes((cols, 2 * cols), self.dtype, "a p × p matrix")
        return _gated_cogram(self)

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The (n, kd) matrix."""
        return self.ungated().as_matrix()


class Kronecker(AbstractOperator):
    r"""$J = B \otimes A$ with sample-first rows: row $(i, o)$ is $B_o \otimes a_i$.

    The block of a leaf whose backprop does not depend on the sample: the last layer of
    any network, every layer of a linear one.

    Attributes:
        left: B, (m, k).
        right: A, (n, d).
    """

    left: Float[Array, "m k"]
    right: Float[Array, "n d"]

    def __check_init__(self):
        _check_factors(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        """(n m, k d)."""
        m, k = self.left.shape
        n, d = self.right.shape
        return n * m, k * d

    @property
    def dtype(self) -> jnp.dtype:
        """Floating dtype of the factors."""
        return self.right.dtype

    @property
    def gram_terms(self) -> int:
        """K + d: one product of each factor."""
        return self.left.shape[1] + self.right.shape[1]

    @eqx.filter_jit
    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        r"""$A U^\top B^\top$, sample first."""
        weights = vector.reshape(self.left.shape[1], self.right.shape[1])
        return (matmul(matmul(self.right, weights.T), self.left.T)).reshape(-1)

    @eqx.filter_jit
    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        r"""$B^\top R^\top A$ with R the residual, (n, m)."""
        residual = vector.reshape(self.right.shape[0], self.left.shape[0])
        return matmul(matmul(self.left.T, residual.T), self.right).reshape(-1)

    def gram(self) -> Float[Array, "rows rows"]:
        r"""$(AA^\top) \otimes (BB^\top)$."""
        rows = self.shape[0]
        require_matrix_bytes((rows, rows), self.dtype, "a Gram matrix")
        return _kron_gram(self.right, self.right, self.left, self.left)

    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        """Kronecker form with another Kronecker operator; dense otherwise."""
        if isinstance(other, Kronecker) and self.left.shape[1] == other.left.shape[1]:
            return _kron_gram(self.right, other.right, self.left, other.left)
        return dense_cross_gram(self, other)

    def cogram(self) -> Float[Array, "cols cols"]:
        r"""$(B^\top B) \otimes (A^\top A)$."""
        cols = self.shape[1]
        require_matrix_bytes((cols, cols), self.dtype, "a p × p matrix")
        return _kron_gram(self.left.T, self.left.T, self.right.T, self.right.T)

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The (nm, kd) matrix."""
        require_matrix_bytes(self.shape, self.dtype, "a Jacobian")
        n, m = self.right.shape[0], self.left.shape[0]
        left = jnp.broadcast_to(self.left[None], (n, *self.left.shape))
        return _rows(left, self.right).reshape(n * m, -1)


@underflow_weight.register(KhatriRao)
@underflow_weight.register(Kronecker)
def _(operator):
    return (1 + largest_modulus(operator.left)) * (1 + largest_modulus(operator.right))


@underflow_weight.register
def _(operator: GatedKhatriRao):
    slopes = sum(largest_modulus(slope) for slope in operator.slopes)
    left = (1 + largest_modulus(operator.outer)) * (1 + slopes)
    return left * (1 + largest_modulus(operator.right))


def cross_cogram(one: AbstractOperator, two: AbstractOperator) -> Array | None:
    r"""$A^\top B$ of blocks over the same samples; None unless both have factors."""
    kinds = (KhatriRao, GatedKhatriRao, Kronecker)
    if not (isinstance(one, kinds) and isinstance(two, kinds)):
        return None
    if isinstance(one, Kronecker) and isinstance(two, Kronecker):
        return _kron_gram(one.left.T, two.left.T, one.right.T, two.right.T)
    return _cross_cogram(*_factors(one), *_factors(two))


def _factors(operator: KhatriRao | GatedKhatriRao | Kronecker) -> tuple[Array, Array]:
    if isinstance(operator, GatedKhatriRao):
        operator = operator.ungated()
    left = operator.left
    if left.ndim == 2:
        left = jnp.broadcast_to(left[None], (operator.right.shape[0], *left.shape))
    return left, operator.right


def _same_split(one: KhatriRao, two: KhatriRao) -> bool:
    return (
        one.left.shape[2] == two.left.shape[2]
        and one.right.shape[1] == two.right.shape[1]
    )


@eqx.filter_jit
def _hadamard_gram(left: Array, left2: Array, right: Array, right2: Array) -> Array:
    (n, m, k), (q, m2, _) = left.shape, left2.shape
    inner = matmul(left.reshape(n * m, k), left2.reshape(q * m2, k).T)
    outer = matmul(right, right2.T)
    return (inner.reshape(n, m, q, m2) * outer[:, None, :, None]).reshape(n * m, q * m2)


@eqx.filter_jit
def _gated_gram(operator: GatedKhatriRao) -> Array:
    gates, right, dtype = operator.gates, operator.right, operator.dtype

    def block(rows: slice, cols: slice) -> Array:
        products = gated_products(gates[rows], gates[cols], operator.slopes, dtype)
        return operator.outer[0] ** 2 * products * matmul(right[rows], right[cols].T)

    # float64 halves lose to their assembly what they save in products (measured)
    halve = dtype == jnp.float32 and len(gates) >= _LARGE
    return _by_halves(block, 0, len(gates), 2 if halve else 0)


def _by_halves(
    block: Callable[[slice, slice], Array], low: int, high: int, levels: int
) -> Array:
    """A symmetric matrix from the blocks on and below its diagonal."""
    if levels == 0:
        return block(slice(low, high), slice(low, high))
    middle = (low + high) // 2
    first = _by_halves(block, low, middle, levels - 1)
    second = _by_halves(block, middle, high, levels - 1)
    below = block(slice(middle, high), slice(low, middle))
    top = jnp.concatenate([first, below.T], axis=1)
    return jnp.concatenate([top, jnp.concatenate([below, second], axis=1)])


@eqx.filter_jit
def _kron_gram(slow: Array, slow2: Array, fast: Array, fast2: Array) -> Array:
    return jnp.kron(matmul(slow, slow2.T), matmul(fast, fast2.T))


@eqx.filter_jit
def _rows(left: Array, right: Array) -> Array:
    n, m, _ = left.shape
    return (left[:, :, :, None] * right[:, None, None, :]).reshape(n * m, -1)


@eqx.filter_jit
def _gated_cogram(operator: GatedKhatriRao) -> Array:
    whole = operator.ungated()
    return _pairs.cogram(whole.left, whole.right)


_cogram = eqx.filter_jit(_pairs.cogram)
_cross_cogram = eqx.filter_jit(_pairs.cross_cogram)
