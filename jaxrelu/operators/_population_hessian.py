r"""The Hessian of the population loss, by the closed forms of its blocks."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrelu._checks import is_concrete
from jaxrelu._products import matmul
from jaxrelu.activations._angle import angle_pair, row_norms, sine, unit_rows
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss
from jaxrelu.operators._interface import (
    AbstractOperator,
    dense_cross_gram,
    require_matrix_bytes,
)


class PopulationHessian(AbstractOperator):
    r"""$\nabla^2 F(W)$ with respect to the inner weights, $nd \times nd$, symmetric.

    Vectors are $W$ row by row. The $d \times d$ blocks are
    $H_{ij} = a_i a_j h_2(w_i, w_j)$ and
    $H_{ii} = \tfrac12 a_i^2 I + \sum_{j \ne i} a_i a_j h_1(w_i, w_j)
    - \sum_j a_i b_j h_1(w_i, v_j)$, with $h_1, h_2$ as in
    `jaxrelu.objectives.relu_kernel`.

    Attributes:
        units: $w_i/|w_i|$, (n, d).
        outer: $a$, (n,).
        gates: $(\pi - \theta_{ij})/2\pi$ with $\frac12$ on the diagonal, (n, n).
        tangents: $\frac1{4\pi}\tan(\theta_{ij}/2)$, 0 at parallel and antiparallel
            pairs, (n, n).
        cotangents: $\frac1{4\pi}\cot(\theta_{ij}/2)$, likewise.
        own: $H_{ii} - \frac12 a_i^2 I$, (n, d, d).
        traces: $\lambda_i = \operatorname{tr}(\text{own}_i)/d$, (n,).
        zero_neurons: (n,); their diagonal blocks are NaN, F has no Hessian there.
    """

    units: Float[Array, "n d"]
    outer: Float[Array, " n"]
    gates: Float[Array, "n n"]
    tangents: Float[Array, "n n"]
    cotangents: Float[Array, "n n"]
    own: Float[Array, "n d d"]
    traces: Float[Array, " n"]
    zero_neurons: Bool[Array, " n"]

    @property
    def shape(self) -> tuple[int, int]:
        """(n d, n d)."""
        n, d = self.units.shape
        return n * d, n * d

    @property
    def dtype(self) -> jnp.dtype:
        """Floating dtype of the entries."""
        return self.units.dtype

    @property
    def gram_terms(self) -> int:
        """One row of the matrix: its Gram matrix is a product of matrices."""
        return self.shape[0]

    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        """$H u$ without the matrix: O(n² d + n d²) operations."""
        return _product(self, vector.reshape(self.units.shape)).reshape(-1)

    def rmv(self, vector: Float[Array, " rows"]) -> Float[Array, " cols"]:
        """The same as `mv`."""
        return self.mv(vector)

    def blocks(self) -> Float[Array, "n d n d"]:
        r"""$\partial^2 F / \partial W_{ia} \partial W_{jb}$ at [i, a, j, b].

        Raises:
            MemoryRefusedError: it would not fit in memory.
        """
        require_matrix_bytes(self.shape, self.dtype, "a Hessian")
        return _dense(self)

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The (nd, nd) matrix; refused with the bytes when it would not fit."""
        return self.blocks().reshape(self.shape)

    def reduced_block(self) -> Float[Array, "n n"]:
        r"""$M$: the Hessian on directions orthogonal to all neurons.

        For unit $e$ orthogonal to all $w_i$ and $v_j$, $H$ maps $c \otimes e$ to
        $(M c) \otimes e$, with $M_{ii} = \tfrac12 a_i^2 + \lambda_i$ and
        $M_{ij} = a_i a_j (\pi - \theta_{ij})/2\pi$. Every further dimension adds the
        eigenvalues of $M$ once more.
        """
        return _weights(self) * self.gates + jnp.diag(self.traces)

    def gram(self) -> Float[Array, "rows rows"]:
        """$H^2$, by forming $H$."""
        return self.cross_gram(self)

    def cogram(self) -> Float[Array, "cols cols"]:
        """$H^2$, by forming $H$."""
        return self.cross_gram(self)

    def cross_gram(
        self, other: lx.AbstractLinearOperator
    ) -> Float[Array, "rows other"]:
        """By forming both matrices."""
        return dense_cross_gram(self, other)

    def transpose(self) -> "PopulationHessian":
        """Itself."""
        return self


@lx.is_symmetric.register(PopulationHessian)
def _(operator):  # noqa: ARG001
    return True


def population_hessian(objective: PopulationLoss, student: Any) -> PopulationHessian:
    """`hessian` of a population loss; see `PopulationHessian`.

    Raises:
        TypeError: a student that is neither a `Shallow` network nor an array.
        ValueError: a student that does not fit the teacher, or has a zero neuron.
    """
    student = objective.student(student)
    if is_concrete(student.inner):
        zero = np.flatnonzero(~np.asarray(student.inner).any(axis=1))
        if zero.size:
            msg = (
                f"student neuron {zero[0]} is zero, where F is not differentiable; "
                "expected nonzero rows. Drop it, or see "
                "PopulationLoss.directional_derivative."
            )
            raise ValueError(msg)
    return _build(objective.teacher, student)


@eqx.filter_jit
def _build(teacher: Shallow, student: Shallow) -> PopulationHessian:
    w, a = student.inner, student.outer
    n, d = w.shape
    norms = row_norms(w)
    units = unit_rows(w, norms)
    theta, delta = angle_pair(True, w, w)
    proper = sine(theta, delta) > 0
    own, traces = jnp.zeros((n, d, d), w.dtype), jnp.zeros((n,), w.dtype)
    for same, z, c in ((True, w, a), (False, teacher.inner, -teacher.outer)):
        to, rest = (theta, delta) if same else angle_pair(False, w, z)
        sin = sine(to, rest)
        size = row_norms(z)
        weight = sin * (c * size)[None, :] * (a / (2 * math.pi * norms))[:, None]
        ends = unit_rows(z, size)[None, :, :]
        near = jnp.where(to < rest, 1, -1).astype(w.dtype)[:, :, None]
        gap = ends - near * units[:, None, :]
        across = (
            gap
            + near * jnp.sum(gap**2, axis=2, keepdims=True) / 2 * (units[:, None, :])
        )
        ratio = jnp.where(sin > 0, weight / jnp.where(sin > 0, sin, 1) ** 2, 0)
        total = jnp.sum(weight, axis=1)
        flat = jnp.eye(d, dtype=w.dtype) - units[:, :, None] * units[:, None, :]
        own = own + total[:, None, None] * flat
        own = own + matmul((ratio[:, :, None] * across).mT, across)
        traces = traces + total
    half = jnp.where(proper, theta, 1) / 2
    tan = jnp.where(theta < delta, jnp.tan(half), 1 / jnp.tan(delta / 2))
    tan = jnp.where(proper, tan, 1)
    return PopulationHessian(
        units=units,
        outer=a,
        gates=delta / (2 * math.pi),
        tangents=jnp.where(proper, tan / (4 * math.pi), 0),
        cotangents=jnp.where(proper, 1 / (4 * math.pi * tan), 0),
        own=own,
        traces=traces,
        zero_neurons=~jnp.any(w != 0, axis=1),
    )


def _weights(hessian: PopulationHessian) -> Array:
    return hessian.outer[:, None] * hessian.outer[None, :]


@eqx.filter_jit
def _dense(hessian: PopulationHessian) -> Array:
    units = hessian.units
    n, d = units.shape
    weights = _weights(hessian)
    left, right = units[:, :, None, None], units[None, None, :, :]
    far, near = units[:, None, None, :], units.T[None, :, :, None]
    pair = lambda x: (weights * x)[:, None, :, None]
    eye = jnp.eye(d, dtype=units.dtype)[None, :, None, :]
    entries = pair(hessian.tangents) * (left + near) * (far + right)
    entries = entries - pair(hessian.cotangents) * (left - near) * (far - right)
    entries = entries + pair(hessian.gates) * eye
    same = jnp.eye(n, dtype=bool)[:, None, :, None]
    return entries + jnp.where(same, hessian.own[:, :, None, :], 0)


@eqx.filter_jit
def _product(hessian: PopulationHessian, u: Array) -> Array:
    units = hessian.units
    plus = units[:, None, :] + units[None, :, :]
    minus = units[:, None, :] - units[None, :, :]
    weights = _weights(hessian)
    along = weights * hessian.tangents * jnp.sum(plus * u[None], axis=2)
    across = weights * hessian.cotangents * jnp.sum(minus * u[None], axis=2)
    total = jnp.sum(along[:, :, None] * plus - across[:, :, None] * minus, axis=1)
    total = total + matmul(weights * hessian.gates, u)
    return total + matmul(hessian.own, u[:, :, None])[:, :, 0]
