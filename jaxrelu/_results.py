"""What every answer carries: a value, how far off it can be, and how it was got."""

from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import is_concrete


ErrorKind = Literal[
    "certified bound",
    "residual bound",
    "rounding bound",
    "quadrature estimate",
    "standard error",
    "truncation estimate",
    "exact",
]
"""What the number in an ``error`` field means.

* ``"certified bound"``: the true value is within ``error``, rounding included.
* ``"residual bound"``: a value of the exact spectrum (of the matrix as stored) lies
  within ``error``, by a computed residual; rounding of the residual is not included.
* ``"rounding bound"``: accumulated rounding, ``c(n) eps ||A||`` with ``c`` growing like
  a square root, as independent rounding errors do; nothing else was approximated.
* ``"quadrature estimate"``: difference of two quadrature orders.
* ``"standard error"``: one standard deviation of a Monte Carlo mean.
* ``"truncation estimate"``: the last term kept of an expansion, as a guess of the rest.
* ``"exact"``: integer or rational arithmetic; ``error`` is 0.
"""


class RESULTS(lx.RESULTS):  # pyright: ignore[reportGeneralTypeIssues]
    """Outcome of a computation; the values are the messages a user reads."""

    unresolved = (
        "The error bound is as large as the value: the working precision cannot "
        "resolve it. Use float64 (jax.enable_x64), or method='svd', which does not "
        "square the condition number."
    )
    not_finite = (
        "The matrix, or one formed from it, holds NaN or infinite entries. If its own "
        "entries are finite its Gram matrix overflows: use method='svd', which squares "
        "nothing."
    )
    no_convergence = "The iteration stopped before it reached its tolerance."
    diverged = "The iterates grew beyond all bounds: the step size is too large."
    no_minimum = (
        "The point is no minimiser: its gradient does not vanish, or its Hessian has "
        "a negative eigenvalue."
    )


class Estimate(eqx.Module):
    """One number (or array) together with how far off it can be.

    Attributes:
        value: the estimate.
        error: non-negative, same shape as ``value``; what it means is ``error_kind``.
        error_kind: one of `ErrorKind`.
        method: how the value was computed, in words.
        result: a member of `RESULTS`; under ``vmap`` failures stay data here.
    """

    value: Float[Array, "..."]
    error: Float[Array, "..."]
    result: RESULTS
    error_kind: ErrorKind = eqx.field(static=True)
    method: str = eqx.field(static=True)

    def __check_init__(self):
        if self.error_kind not in get_args(ErrorKind):
            msg = f"error_kind is {self.error_kind!r}; expected {get_args(ErrorKind)}."
            raise ValueError(msg)

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        if np.ndim(self.value) == 0:
            number = f"{float(self.value):.10g} ± {float(self.error):.1e}"
        else:
            number = f"{self.value} ± {self.error}"
        return f"{number} ({self.error_kind}; {self.method})"


def throw_if_failed(result: Any, what: str) -> None:
    """Raises `RuntimeError` on the host when ``result`` holds a failure.

    Does nothing for traced results: failures under ``jit``/``vmap`` stay data.
    """
    failed = result != RESULTS.successful
    if not is_concrete(failed):
        return
    where = np.flatnonzero(np.asarray(failed))
    if where.size:
        first = jax.tree.map(lambda code: jnp.ravel(code)[where[0]], result)
        count = f" ({where.size} of {np.size(failed)} cases)" if np.ndim(failed) else ""
        msg = f"{what}{count}: {RESULTS[first]}"
        raise RuntimeError(msg)
