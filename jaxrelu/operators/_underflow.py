r"""What underflow can do to products and Gram matrices formed from factors.

Numbers below the smallest normal one, $\tau$, may be taken for 0, whether they come in
or come out. In a factor of size $10^{-160}$ all of $\Delta\Delta^\top$ is lost, and
where the other factor is of size $10^{150}$ so is a matrix of ordinary size: the error
is $\tau$ times the square of the other factor.
"""

import functools
from typing import Any

import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array

from jaxrelu._checks import is_concrete


@functools.singledispatch
def underflow_weight(operator: lx.AbstractLinearOperator) -> Any:  # noqa: ARG001
    r"""A number $w \ge 1$ that bounds the effect of underflow.

    An entry of the Gram matrix of an operator with $t$ columns is off by at most
    $16\,t\,\tau w^2$ through underflow, a product with a unit vector by at most
    $8\,rt\,\tau w$ in norm, $r$ the number of rows; for the transpose, $r$ and $t$
    exchanged.

    With factors whose entries are at most $L$ and $R$: $w = (1 + L)(1 + R)$. *Proof.*
    An entry of $\Delta\Delta^\top$ is a sum of $k$ products, each off by at most
    $\tau(1 + 2L)$: by $\tau$ if it underflows, by $\tau L$ for each argument that
    does. So with $AA^\top$ and $R$; the product of both entries is off by
    $k d\,[\tau(1+2L)(R^2 + \tau(1+2R)) + L^2\tau(1+2R)] + \tau \le 5\,kd\,\tau w^2$.
    The other ways to a Gram matrix, by pairs and from the matrix written out, give
    terms of the same kind, below $8\,t\,\tau w^2$; rounding at most doubles them.
    $\square$

    Slopes apart from $\Delta$ are a third factor, $1 + |s|$. $c A$ has
    $|c|(w + 1) + 1$, because its Gram matrix is multiplied by $c$ twice. Matrices
    written out have $w = 1$, as has any operator that registers nothing here.

    Cost: one pass over the factors; nothing is compiled for numbers on a CPU.
    """
    return 1.0


@underflow_weight.register(lx.NegLinearOperator)
@underflow_weight.register(lx.TaggedLinearOperator)
def _(operator):
    return underflow_weight(operator.operator)


@underflow_weight.register
def _(operator: lx.MulLinearOperator):
    return _multiple(operator.scalar, operator.operator)


@underflow_weight.register
def _(operator: lx.DivLinearOperator):
    return _multiple(1 / operator.scalar, operator.operator)


@underflow_weight.register
def _(operator: lx.ComposedLinearOperator):
    if not isinstance(operator.operator1, lx.DiagonalLinearOperator):
        return 1.0
    return _multiple(lx.diagonal(operator.operator1), operator.operator2)


def _multiple(factor: Array, operator: lx.AbstractLinearOperator) -> Any:
    return largest_modulus(factor) * (underflow_weight(operator) + 1) + 1


def largest_modulus(numbers: Any) -> Any:
    """The largest modulus: a Python number where that costs no transfer."""
    if isinstance(numbers, Array):
        on_host = is_concrete(numbers) and all(
            device.platform == "cpu" for device in numbers.devices()
        )
        if not on_host:
            return jnp.max(jnp.abs(numbers), initial=0)
    numbers = np.asarray(numbers)
    return float(max(numbers.max(initial=0), -numbers.min(initial=0)))
