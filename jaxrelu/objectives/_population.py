r"""The population loss of a student against a ReLU teacher on Gaussian inputs."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrelu._checks import as_floating, check_finite, check_rank, is_concrete
from jaxrelu._products import matmul
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.activations import ReLU
from jaxrelu.activations._angle import angle_pair, row_norms, sine, unit_rows
from jaxrelu.networks import Shallow
from jaxrelu.objectives._digits import digits_loss, digits_rounding
from jaxrelu.objectives._relu_kernel import relu_kernel


class PopulationLoss(eqx.Module):
    r"""Expected squared error of a ReLU student, in closed form for $x \sim N(0, I_d)$.

    $$ F(W) = \tfrac12 E_x \Bigl(\sum_{i \le n} a_i \sigma(w_i \cdot x)
       - \sum_{j \le k} b_j \sigma(v_j \cdot x)\Bigr)^2
       = \tfrac12 A - B + \tfrac12 C, $$
    $A = \sum a_i a_j f(w_i, w_j)$, $B = \sum a_i b_j f(w_i, v_j)$ and
    $C = \sum b_i b_j f(v_i, v_j)$ with the `relu_kernel` $f$. A student is a `Shallow`
    ReLU network with a scalar output, or an array $W$ of shape (n, d), which stands for
    outer weights $a = 1$. Derivatives are with respect to $W$.

    F is twice continuously differentiable where no $w_i$ is 0, at parallel and
    antiparallel neurons too, and `jax.grad`, `jax.hessian`, `jax.jvp` and `jax.vmap`
    give the right numbers there. The third derivative does not exist at parallel
    neurons, and what `jax` returns for it there means nothing. The formulas are those
    of Safran, Yehudai and Shamir (2021), with the factor $\tfrac12$ that their
    equations (1) and (2) leave out and their gradient and Hessian have, and with
    general $a$, $b$.

    Near a global minimum F is a small difference of sums of size $\tfrac14
    (\sum |a_i||w_i| + \sum |b_j||v_j|)^2$; `evaluate` says how small a value can be
    trusted, and computes smaller ones.

    Attributes:
        teacher: k neurons $v_j$ with outer weights $b_j$; an array means $b = 1$.

    Raises:
        TypeError: a teacher that is neither a `Shallow` network nor an array.
        ValueError: another activation, several outputs, a zero or infinite neuron.
    """

    teacher: Shallow

    def __init__(self, teacher: Shallow | Any):
        self.teacher = as_shallow(teacher, "teacher")
        inner = self.teacher.inner
        if is_concrete(inner):
            zero = np.flatnonzero(~np.asarray(inner).any(axis=1))
            if zero.size:
                msg = (
                    f"teacher neuron {zero[0]} is zero; expected nonzero rows. Drop "
                    "it: it adds nothing to the teacher's output."
                )
                raise ValueError(msg)

    @property
    def in_size(self) -> int:
        """Input dimension d."""
        return self.teacher.in_size

    @property
    def has_orthonormal_teacher(self) -> Bool[Array, ""]:
        r"""Whether $VV^\top = I$ up to $64\epsilon$ in every entry, and $b = 1$."""
        return _is_orthonormal(*_arrays(self.teacher))

    def student(self, student: Any) -> Shallow:
        """The student as a network, checked against the teacher."""
        student = as_shallow(student, "student")
        inner, expected = student.inner, self.teacher.inner
        if inner.shape[1] != expected.shape[1] or inner.dtype != expected.dtype:
            msg = (
                f"the student's inner weights are {inner.shape} {inner.dtype} and the "
                f"teacher's {expected.shape} {expected.dtype}; expected the same d and "
                "dtype. Embed one of them in the larger space or convert it."
            )
            raise ValueError(msg)
        return student

    def __call__(self, student: Any) -> Float[Array, ""]:
        """F; 2(n² + nk + k²)d operations."""
        student = self.student(student)
        return _loss(*_arrays(student), *_arrays(self.teacher))

    def evaluate(self, student: Any, *, digits: int | None = None) -> Estimate:
        r"""F with its rounding error, in more digits if asked for.

        The error is $2 \epsilon (4 + \sqrt d + \sqrt{n + k})\, \tfrac14
        (\sum |a_i||w_i| + \sum |b_j||v_j|)^2$ with the working precision $\epsilon$:
        about $10^{-15}$ for a teacher and student of norm 1 in float64, so smaller
        values say `RESULTS.unresolved`.

        Args:
            student: W, or a network.
            digits: None for the dtype's own precision. Otherwise the sum is computed
                by mpmath with that many decimal digits on the host, for the weights as
                they are stored; 60 digits resolve F down to $10^{-50}$. Needs mpmath,
                about 50 µs per pair of neurons, and concrete numbers.

        Raises:
            ValueError: digits below 16, or traced weights with ``digits``.
        """
        student = self.student(student)
        arrays = (*_arrays(student), *_arrays(self.teacher))
        error = _rounding(*arrays)
        if digits is None:
            value, method = _loss(*arrays), "sum of closed forms"
        else:
            value = jnp.asarray(
                digits_loss(*arrays, digits=digits), student.inner.dtype
            )
            error = digits_rounding(error, value, digits)
            method = f"sum of closed forms in {digits} digits"
        lost = (error >= jnp.abs(value)) & (error > 0)
        result = RESULTS.where(
            lost,
            RESULTS.unresolved,  # pyright: ignore[reportArgumentType]
            RESULTS.successful,  # pyright: ignore[reportArgumentType]
        )
        return Estimate(value, error, result, "rounding bound", method)

    def overlaps(self, student: Any) -> tuple[Float[Array, ""], ...]:
        r"""$(A, B, C)$ of $F(tW) = \tfrac12 t^2 A - tB + \tfrac12 C$, $t \ge 0$.

        At every critical point $A = B$, and $F = \tfrac12 (C - A)$ there.
        """
        return _overlaps(*_arrays(self.student(student)), *_arrays(self.teacher))

    def optimal_scale(self, student: Any) -> Float[Array, ""]:
        r"""The $t \ge 0$ that minimises $F(tW)$: $\max(B/A, 0)$, 1 if the student is 0.

        It is 1 at every critical point.
        """
        a, b, _ = self.overlaps(student)
        return jnp.where(a > 0, jnp.maximum(b / jnp.where(a > 0, a, 1), 0), 1)

    def gradient(self, student: Any) -> Float[Array, "n d"]:
        r"""$\nabla_{w_i} F = a_i (\sum_j a_j g(w_i, w_j) - \sum_j b_j g(w_i, v_j))$.

        At a zero neuron F is not differentiable and its row is given as 0; see
        `directional_derivative`. O(n(n + k)d) operations.
        """
        student = self.student(student)
        return _gradient(*_arrays(student), *_arrays(self.teacher))

    def directional_derivative(self, student: Any, direction: Any) -> Float[Array, ""]:
        r"""$\lim_{t \downarrow 0} (F(W + tU) - F(W))/t$, at zero neurons too.

        A neuron $w_i \ne 0$ adds $\nabla_i F \cdot u_i$; a zero neuron adds
        $a_i (\sum_j a_j f(u_i, w_j) - \sum_j b_j f(u_i, v_j))$.

        Args:
            student: W, or a network; its inner weights move.
            direction: U, (n, d).

        Raises:
            ValueError: a direction of another shape or dtype.
        """
        student = self.student(student)
        direction = as_floating(direction, "direction")
        if direction.shape != student.inner.shape or direction.dtype != (
            student.inner.dtype
        ):
            msg = (
                f"direction is {direction.shape} {direction.dtype}; expected "
                f"{student.inner.shape} {student.inner.dtype}, as the inner weights."
            )
            raise ValueError(msg)
        return _directional(*_arrays(student), *_arrays(self.teacher), direction)

    def zero_neurons(self, student: Any) -> Bool[Array, " n"]:
        """Which rows are zero: there F is not differentiable."""
        return ~jnp.any(self.student(student).inner != 0, axis=1)


def as_shallow(network: Any, name: str) -> Shallow:
    """A ReLU network with a scalar output; an array gets outer weights one."""
    if not isinstance(network, Shallow):
        if isinstance(network, eqx.Module):
            msg = (
                f"{name} is a {type(network).__name__}; expected a Shallow ReLU "
                "network or an array of inner weights, one neuron per row."
            )
            raise TypeError(msg)
        inner = as_floating(network, name)
        check_rank(inner, 2, name, "(neurons, d)")
        # NumPy: nothing to compile for every size
        ones = jnp.asarray(np.ones(inner.shape[:1]), inner.dtype)
        network = Shallow(inner, ones)
    if not isinstance(network.activation, ReLU):
        msg = (
            f"{name} has activation {network.activation.name!r}; expected 'relu': the "
            "closed forms are those of ReLU."
        )
        raise ValueError(msg)  # noqa: TRY004
    if network.outer.ndim != 1:
        msg = (
            f"{name} has outer weights {network.outer.shape}; expected "
            f"({network.width},), a scalar output. Sum the losses of single outputs."
        )
        raise ValueError(msg)
    check_finite(network.inner, f"{name}.inner")
    check_finite(network.outer, f"{name}.outer")
    return network


def _arrays(network: Shallow) -> tuple[Array, Array]:
    return network.inner, network.outer


@jax.jit
def _is_orthonormal(v: Array, b: Array) -> Array:
    gap = jnp.abs(matmul(v, v.T) - jnp.eye(len(v), dtype=v.dtype))
    return jnp.all(gap <= 64 * jnp.finfo(v.dtype).eps) & jnp.all(b == 1)


@jax.jit
def _loss(w: Array, a: Array, v: Array, b: Array) -> Array:
    cross = relu_kernel(w, v)
    # rows first: near the teacher what is left of them is small
    students = matmul(relu_kernel(w), a) - matmul(cross, b)
    teachers = matmul(relu_kernel(v), b) - matmul(a, cross)
    return (jnp.dot(a, students) + jnp.dot(b, teachers)) / 2


@jax.jit
def _overlaps(w: Array, a: Array, v: Array, b: Array) -> tuple[Array, Array, Array]:
    form = lambda x, c, y, e: jnp.sum(c[:, None] * relu_kernel(x, y) * e[None, :])
    return form(w, a, None, a), form(w, a, v, b), form(v, b, None, b)


@jax.jit
def _rounding(w: Array, a: Array, v: Array, b: Array) -> Array:
    size = jnp.sum(jnp.abs(a) * row_norms(w)) + jnp.sum(jnp.abs(b) * row_norms(v))
    terms = 4 + w.shape[1] ** 0.5 + (len(w) + len(v)) ** 0.5
    return size * size * (terms * float(jnp.finfo(w.dtype).eps) / 2)


@jax.jit
def _gradient(w: Array, a: Array, v: Array, b: Array) -> Array:
    norms = row_norms(w)
    along, rest = jnp.zeros_like(norms), jnp.zeros_like(w)
    for same, z, c in ((True, w, a), (False, v, -b)):
        theta, complement = angle_pair(same, w, z)
        along = along + matmul(sine(theta, complement), c * row_norms(z))
        rest = rest + matmul(complement, c[:, None] * z)
    total = along[:, None] * unit_rows(w, norms) + rest
    scale = jnp.where(norms > 0, a / (2 * math.pi), 0)
    return scale[:, None] * total


@jax.jit
def _directional(w: Array, a: Array, v: Array, b: Array, direction: Array) -> Array:
    smooth = jnp.sum(_gradient(w, a, v, b) * direction)
    zero = ~jnp.any(w != 0, axis=1)
    rise = matmul(relu_kernel(direction, w), a) - matmul(relu_kernel(direction, v), b)
    return smooth + jnp.sum(jnp.where(zero, a * rise, 0))
