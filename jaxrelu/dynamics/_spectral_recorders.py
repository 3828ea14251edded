"""Recorders of spectra on the way: the Jacobian's, the Hessian's largest eigenvalue."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxrelu._checks import sized
from jaxrelu._products import matmul
from jaxrelu.dynamics._trajectory import Point, evaluate, norm
from jaxrelu.operators import AbstractOperator, jacobian
from jaxrelu.spectra._lanczos import lanczos_ends
from jaxrelu.spectra._rounding import (
    eigenvalue_rounding,
    gram_terms,
    gram_underflow,
    root,
)


def _jacobian(point: Point) -> AbstractOperator:
    objective = point.objective
    if not hasattr(objective, "data"):
        msg = (
            f"the objective is a {type(objective).__name__}, which has no data; "
            "expected a SquaredLoss: the Jacobian is that of the outputs on its inputs."
        )
        raise TypeError(msg)
    return jacobian(point.network, objective.data.inputs, point.where)


class SingularValues(eqx.Module):
    r"""The ends of the spectrum of $J(\theta_t)$.

    Attributes:
        smallest: $\sqrt{\lambda_{\min}(JJ^\top)}$: 0 up to rounding if there are more
            outputs than trained parameters.
        largest: $\|J\|$.
        error: of ``smallest``, by the rounding of $JJ^\top$ and of its eigenvalues: a
            rounding bound. Where it is as large as the value, float64 is needed.
    """

    smallest: Float[Array, ""]
    largest: Float[Array, ""]
    error: Float[Array, ""]


class JacobianSpectrum(eqx.Module):
    r"""`SingularValues` of the Jacobian on the objective's inputs.

    All eigenvalues of the Gram matrix, inside the compiled loop: $O((nm)^3)$ a record.
    """

    def __call__(self, now: Point) -> SingularValues:
        """The two ends."""
        J = _jacobian(now)
        values = jnp.linalg.eigvalsh(J.gram())
        n = values.shape[0]
        underflow = gram_underflow(J, n)
        rounding = eigenvalue_rounding(values[-1], n, gram_terms(J), underflow)
        smallest, error = root(values[0], rounding)
        return SingularValues(smallest, jnp.sqrt(jnp.maximum(values[-1], 0)), error)


class ResidualAlignment(eqx.Module):
    r"""$\|P r_t\|^2 / \|r_t\|^2$, P on the top eigenspace of the Gram matrix.

    Under gradient descent that space is learned first, so the share falls. It is 0
    where the residual is 0. If the eigenvalue number ``rank`` is repeated the space is
    not determined, and the number depends on rounding.

    Attributes:
        rank: dimension of the eigenspace, at most the number of outputs.
        follow: take the eigenspace of $J(\theta_t)J(\theta_t)^\top$ instead of that at
            the start, at $O((nm)^3)$ a record.
    """

    rank: int = eqx.field(default=1, converter=sized("rank"))
    follow: bool = False

    def _space(self, at: Point) -> Array:
        matrix = _jacobian(at).gram()
        if self.rank > matrix.shape[0]:
            msg = f"rank is {self.rank} and there are {matrix.shape[0]} outputs."
            raise ValueError(msg)
        return jnp.linalg.eigh(matrix)[1][:, -self.rank :]

    def prepare(self, start: Point) -> Any:
        """With the eigenspace at the start.

        Raises:
            TypeError: an objective without data.
            ValueError: a rank above the number of outputs.
        """
        return _AlignmentWith(None if self.follow else self._space(start), self)


class _AlignmentWith(eqx.Module):
    space: Float[Array, "n r"] | None
    settings: ResidualAlignment

    def __call__(self, now: Point) -> Float[Array, ""]:
        space = self.settings._space(now) if self.space is None else self.space
        residual = now.residual.reshape(-1)
        total = jnp.sum(residual**2)
        inside = jnp.sum(matmul(space.T, residual) ** 2)
        return jnp.where(total > 0, inside / jnp.where(total > 0, total, 1), 0)


class HessianTop(eqx.Module):
    r"""The largest eigenvalue of the Hessian.

    Attributes:
        value: a Ritz value: at most $\lambda_{\max}$ but for rounding.
        error: some eigenvalue is within it: a residual bound.
    """

    value: Float[Array, ""]
    error: Float[Array, ""]


class Sharpness(eqx.Module):
    r"""`HessianTop` of the objective, over the trained leaves, by Lanczos.

    Gradient descent with step $\eta$ is locally stable below $2/\eta$; training often
    climbs to there and stays ("edge of stability"). Works for any objective that JAX
    can differentiate twice; at a kink of ReLU its curvature counts as 0.

    Attributes:
        max_steps: Lanczos steps at most, each of them two passes forward and backward.
        tolerance: relative to the eigenvalue.
        seed: of the random start.
    """

    max_steps: int = eqx.field(default=24, converter=sized("max_steps"))
    tolerance: float = 1e-4
    seed: int = 0

    def __call__(self, now: Point) -> HessianTop:
        """The eigenvalue."""
        flat, unravel = ravel_pytree(now.trained)

        def gradient(flat):
            found = evaluate(now.objective, unravel(flat), now.rest)[1]
            return ravel_pytree(found)[0]

        def product(vector):
            return jax.jvp(gradient, (flat,), (vector,))[1]

        start = jrandom.normal(jrandom.key(self.seed), flat.shape, flat.dtype)
        _, _, value, error, _ = lanczos_ends(
            product,
            start / norm(start),
            tolerance=self.tolerance,
            max_steps=self.max_steps,
        )
        return HessianTop(value, error)
