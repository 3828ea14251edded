r"""The population loss of a student against a ReLU teacher on Gaussian inputs."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrelu._checks import as_floating, check_finite, check_rank, is_concrete
from jaxrelu._products import matmul
from jaxrelu.activations import ReLU
from jaxrelu.activations._angle import angle_pair, row_norms, sine, unit_rows
from jaxrelu.networks import Shallow
from jaxrelu.objectives._relu_kernel import relu_kernel


class PopulationLoss(eqx.Module):
    r"""$F(W) = \tfrac12 E_x (\sum_i a_i \sigma(w_i \cdot x)
    - \sum_j b_j \sigma(v_j \cdot x))^2$ with $x \sim N(0, I_d)$, in closed form.

    $F = \tfrac12 \sum a_i a_j f(w_i, w_j) - \sum a_i b_j f(w_i, v_j)
    + \tfrac12 \sum b_i b_j f(v_i, v_j)$ with $f$ the `relu_kernel`. A student is a
    `Shallow` ReLU network with a scalar output, or an array $W$ of shape (n, d), which
    stands for outer weights $a = 1$.

    Attributes:
        teacher: k neurons $v_j$ with outer weights $b_j$.

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
        """F; O((n + k)² d) operations."""
        return _loss(self.teacher, self.student(student))

    def gradient(self, student: Any) -> Float[Array, "n d"]:
        r"""$\nabla_{w_i} F = a_i (\sum_j a_j g(w_i, w_j) - \sum_j b_j g(w_i, v_j))$.

        At a zero neuron F is not differentiable and its row is given as 0; see
        `directional_derivative`. O(n(n + k)d) operations.
        """
        return _gradient(self.teacher, self.student(student))

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
        return _directional(self.teacher, student, direction)

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
        network = Shallow(inner, jnp.ones(inner.shape[:1], inner.dtype))
    if not isinstance(network.activation, ReLU):
        msg = (
            f"{name} has activation {network.activation.name!r}; expected 'relu': the "
            "closed forms are those of ReLU."
        )
        raise ValueError(msg)
    if network.outer.ndim != 1:
        msg = (
            f"{name} has outer weights {network.outer.shape}; expected "
            f"({network.width},), a scalar output. Sum the losses of single outputs."
        )
        raise ValueError(msg)
    check_finite(network.inner, f"{name}.inner")
    check_finite(network.outer, f"{name}.outer")
    return network


@eqx.filter_jit
def _loss(teacher: Shallow, student: Shallow) -> Array:
    a, b = student.outer, teacher.outer
    own = a @ relu_kernel(student.inner) @ a
    cross = a @ relu_kernel(student.inner, teacher.inner) @ b
    return own / 2 - cross + b @ relu_kernel(teacher.inner) @ b / 2


@eqx.filter_jit
def _gradient(teacher: Shallow, student: Shallow) -> Array:
    w, a = student.inner, student.outer
    norms = row_norms(w)
    along = jnp.zeros_like(norms)
    rest = jnp.zeros_like(w)
    for same, z, c in ((True, w, a), (False, teacher.inner, -teacher.outer)):
        theta, complement = angle_pair(same, w, z)
        along = along + sine(theta, complement) @ (c * row_norms(z))
        rest = rest + matmul(complement, c[:, None] * z)
    total = along[:, None] * unit_rows(w, norms) + rest
    scale = jnp.where(norms > 0, a / (2 * math.pi), 0)
    return scale[:, None] * total


@eqx.filter_jit
def _directional(teacher: Shallow, student: Shallow, direction: Array) -> Array:
    smooth = jnp.sum(_gradient(teacher, student) * direction)
    zero = ~jnp.any(student.inner != 0, axis=1)
    own = relu_kernel(direction, student.inner) @ student.outer
    cross = relu_kernel(direction, teacher.inner) @ teacher.outer
    return smooth + jnp.sum(jnp.where(zero, student.outer * (own - cross), 0))
