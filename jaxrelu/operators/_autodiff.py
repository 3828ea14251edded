"""First and second derivatives of anything, by automatic differentiation."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from jaxrelu._products import matmul
from jaxrelu.operators._interface import (
    AbstractOperator,
    AbstractSymmetricOperator,
    dense_cross_gram,
    require_hessian_bytes,
    require_matrix_bytes,
)


class AutodiffJacobian(AbstractOperator):
    r"""$\partial f(x_i) / \partial \theta$ over all samples, for any callable module.

    Each row block depends on one sample only, so rows are built per sample: n backward
    passes of one sample, not n backward passes of the batch.

    Attributes:
        trained: the leaves θ, other leaves None.
        rest: the other leaves.
        inputs: (n, ...), one sample per entry of the first axis.
        block: samples per block in `gram`, which holds block × p numbers at a time.
    """

    trained: PyTree
    rest: PyTree
    inputs: Float[Array, "n ..."]
    block: int = eqx.field(static=True, default=64)

    def _outputs(self) -> Callable:
        def outputs(trained, sample):
            return jnp.ravel(eqx.combine(trained, self.rest)(sample))

        return outputs

    @property
    def out_size_per_sample(self) -> int:
        """Outputs m."""
        shape = jax.eval_shape(self._outputs(), self.trained, self.inputs[0])
        return shape.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(n m, p)."""
        p = sum(leaf.size for leaf in jax.tree.leaves(self.trained))
        return self.inputs.shape[0] * self.out_size_per_sample, p

    @property
    def dtype(self) -> jnp.dtype:
        """Floating dtype of the trained leaves."""
        return jax.tree.leaves(self.trained)[0].dtype

    @property
    def gram_terms(self) -> int:
        """p: rows are multiplied as they are."""
        return self.shape[1]

    @eqx.filter_jit
    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        """One forward-mode pass."""
        _, unravel = ravel_pytree(self.trained)

        def batch(trained):
            return jax.vmap(lambda x: self._outputs()(trained, x))(self.inputs)

        return jax.jvp(batch, (self.trained,), (unravel(vector),))[1].reshape(-1)

    @eqx.filter_jit
    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        """One reverse-mode pass."""

        def batch(trained):
            return jax.vmap(lambda x: self._outputs()(trained, x))(self.inputs)

        out, pullback = jax.vjp(batch, self.trained)
        return ravel_pytree(pullback(vector.reshape(out.shape))[0])[0]

    def _rows(self, samples: Array) -> Array:
        jac = jax.vmap(lambda x: jax.jacrev(self._outputs())(self.trained, x))(samples)
        flat = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(jac)]
        stacked = jnp.concatenate(flat, axis=-1)
        return stacked.reshape(-1, stacked.shape[-1])

    @eqx.filter_jit
    def gram(self) -> Float[Array, "rows rows"]:
        """Row block by row block: block × p numbers at a time beside the result."""
        rows, _ = self.shape
        require_matrix_bytes((rows, rows), self.dtype, "a Gram matrix")
        n = self.inputs.shape[0]
        block = min(self.block, n)
        pad = -n % block
        padded = jnp.concatenate([self.inputs, self.inputs[:pad]])

        def against_all(samples):
            return jax.vmap(self.mv)(self._rows(samples))

        tiles = jax.lax.map(
            against_all, padded.reshape(-1, block, *self.inputs.shape[1:])
        )
        return tiles.reshape(-1, rows)[:rows]

    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        """Both matrices are formed."""
        return dense_cross_gram(self, other)

    @eqx.filter_jit
    def cogram(self) -> Float[Array, "cols cols"]:
        r"""$J^\top J$; forms J."""
        cols = self.shape[1]
        require_matrix_bytes((cols, cols), self.dtype, "a p × p matrix")
        dense = self.as_matrix()
        return matmul(dense.T, dense)

    @eqx.filter_jit
    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The (nm, p) matrix, by one reverse pass per output and sample."""
        require_matrix_bytes(self.shape, self.dtype, "a Jacobian")
        return self._rows(self.inputs)


class AutodiffCurvature(AbstractSymmetricOperator):
    r"""$\sum_i r_i \nabla^2 f(x_i)$ for any callable module, forward over reverse.

    Attributes:
        trained: the leaves θ, other leaves None.
        rest: the other leaves.
        inputs: (n, ...), one sample per entry of the first axis.
        residual: r, (n, ...).
        block: columns computed at once by `as_matrix`.
    """

    trained: PyTree
    rest: PyTree
    inputs: Float[Array, "n ..."]
    residual: Float[Array, "n ..."]
    block: int = eqx.field(static=True, default=64)

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p)."""
        p = sum(leaf.size for leaf in jax.tree.leaves(self.trained))
        return p, p

    @property
    def dtype(self) -> jnp.dtype:
        """Floating dtype of the trained leaves."""
        return jax.tree.leaves(self.trained)[0].dtype

    @property
    def is_zero(self) -> bool:
        """False: nothing is known of the module."""
        return False

    @eqx.filter_jit
    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        """One forward-mode pass through one reverse-mode pass."""
        _, unravel = ravel_pytree(self.trained)

        def weighted(trained):
            network = eqx.combine(trained, self.rest)
            outputs = jax.vmap(network)(self.inputs)
            return jnp.sum(self.residual * outputs)

        moved = jax.jvp(jax.grad(weighted), (self.trained,), (unravel(vector),))[1]
        return ravel_pytree(moved)[0]

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The (p, p) matrix, `block` columns at a time: p products."""
        require_hessian_bytes(self.shape[0], self.dtype)
        return self._columns()

    @eqx.filter_jit
    def _columns(self) -> Array:
        p = self.shape[0]
        block = min(self.block, p)
        starts = jnp.arange(0, p, block, dtype=jnp.int32)
        within = jnp.arange(block, dtype=jnp.int32)

        def rows(start):
            units = jax.nn.one_hot(start + within, p, dtype=self.dtype)
            return jax.vmap(self.mv)(units)

        return jax.lax.map(rows, starts).reshape(-1, p)[:p]

    def add_to(self, matrix: Float[Array, "rows cols"]) -> Float[Array, "rows cols"]:
        """The sum of this part and a (p, p) matrix."""
        return matrix + self.as_matrix()
