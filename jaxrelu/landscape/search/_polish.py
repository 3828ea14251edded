r"""From the end of a descent to a critical point, by second derivatives.

Three ways, in the order in which the search tries them:

* `newton`, for a point in the basin of a nondegenerate minimum, with a test that
  descent would have ended at the same point;
* `nearest_global_minimum`, for the degenerate minima with several neurons on one
  teacher, where descent is sublinear and Newton's matrix singular;
* `levenberg_marquardt` on $\nabla F = 0$, for a critical point of any kind, flat
  directions included.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrelu._devices import Devices, over_devices
from jaxrelu._products import matmul
from jaxrelu.landscape.search._first_order import (
    Problem,
    gradients,
)
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss
from jaxrelu.operators import hessian


_NEWTON_STEPS = 12
_MARQUARDT_STEPS = 100


class Polished(eqx.Module):
    r"""Critical points reached from given points.

    Attributes:
        weights: the new points, (s, n, d).
        gradient_norms: $\lVert\nabla F\rVert$ there, infinite where nothing was done,
            (s,).
        accepted: whether the method vouches for the point, (s,).
    """

    weights: Float[Array, "s n d"]
    gradient_norms: Float[Array, " s"]
    accepted: Bool[Array, " s"]


def loss_of(problem: Problem) -> PopulationLoss:
    """The objective of a problem."""
    return PopulationLoss(Shallow(problem.inner, problem.teacher_outer))


def gradient_of(
    problem: Problem, weights: Float[Array, "n d"]
) -> tuple[Float[Array, "n d"], Float[Array, ""]]:
    """The gradient at one point, and its norm."""
    gradient = gradients(problem, weights[None])[0]
    return gradient, jnp.sqrt(jnp.sum(gradient * gradient))


def dense_hessian(
    problem: Problem, weights: Float[Array, "n d"]
) -> Float[Array, "p p"]:
    """The Hessian at one point."""
    student = Shallow(weights, problem.outer)
    return hessian(loss_of(problem), student).as_matrix()


def gradient_floor(problem: Problem, weights: np.ndarray) -> np.ndarray:
    r"""What rounding leaves of $\lVert\nabla F\rVert$ at a critical point, about.

    $\tfrac14\varepsilon\sqrt n\,\max_i|a_i|\sum_u |q_u|\,\lVert u\rVert$ over student
    and teacher: row i is a sum of such terms, each of norm at most half of that.

    Args:
        problem: what was searched.
        weights: points, (s, n, d).

    Returns:
        (s,).
    """
    a, b = np.abs(problem.outer), np.abs(problem.teacher_outer)
    theirs = np.linalg.norm(problem.inner, axis=1) @ b
    own = np.linalg.norm(weights, axis=2) @ a
    eps = float(np.finfo(weights.dtype).eps)
    return (own + theirs) * a.max() * (eps * weights.shape[1] ** 0.5 / 4)


def newton(
    problem: Problem, start: Float[Array, "n d"], tolerance: Float[Array, ""]
) -> tuple[Array, Array, Array]:
    r"""Newton's method from a point where the Hessian is positive definite.

    Every step must at least halve $\lVert\nabla F\rVert$. The end $W^*$ is accepted if
    $$\lambda_{\min}(\nabla^2F(W^*)) >
      \lVert\nabla^2F(W_0) - \nabla^2F(W^*)\rVert_F:$$
    by as much as the Hessian changed on the way it cannot become indefinite, so that
    start and end lie in one convex basin as far as two points of it can tell, and a
    descent from $W_0$ ends at $W^*$. Positive definite is what has a Cholesky factor.

    Returns:
        The last point, its gradient norm, and whether it is accepted; the start
        itself if not.
    """
    shape = start.shape

    # the Hessian, which is most of the program, appears in the loop alone
    def advance(state):
        weights, gradient, norm, first, _, step, _ = state
        matrix = dense_hessian(problem, weights)
        lower = jnp.linalg.cholesky(matrix)
        first = jnp.where(step == 0, matrix, first)
        move = jsl.cho_solve((lower, True), gradient.reshape(-1))
        moved = weights - move.reshape(shape)
        new, new_norm = gradient_of(problem, moved)
        goes = jnp.isfinite(lower[-1, -1]) & (norm > tolerance)
        goes &= (step < _NEWTON_STEPS) & (new_norm <= norm / 2)
        keep = lambda new, old: jnp.where(goes, new, old)
        kept = keep(moved, weights), keep(new, gradient), keep(new_norm, norm)
        return *kept, first, matrix, step + 1, goes

    gradient, norm = gradient_of(problem, start)
    none = jnp.zeros((start.size, start.size), start.dtype)
    state = (start, gradient, norm, none, none, jnp.int32(0), jnp.array(True))
    found = jax.lax.while_loop(lambda state: state[-1], advance, state)
    weights, _, norm, first, last, *_ = found
    change = jnp.sqrt(jnp.sum((first - last) ** 2))
    eye = jnp.eye(last.shape[0], dtype=last.dtype)
    lower = jnp.linalg.cholesky(last - change * eye)
    accepted = (norm <= tolerance) & jnp.isfinite(lower[-1, -1])
    return jnp.where(accepted, weights, start), norm, accepted


def nearest_global_minimum(
    problem: Problem, start: Float[Array, "n d"], part: Float[Array, ""]
) -> tuple[Array, Array, Array]:
    r"""The point $w_i = \alpha_i v_{j(i)}$ near ``start`` at which $F = 0$.

    Every neuron goes to the teacher at the smallest angle among those whose outer
    weight has its sign, with $\alpha_i \propto \langle w_i, v_j\rangle$ so that
    $\sum_{i: j(i)=j} a_i\alpha_i = b_j$: then student and teacher are one function.
    Safran et al. 2021 show that for orthonormal teachers with $a = b = 1$ there are no
    other global minima. Accepted if every row moves by at most ``part`` of
    $|b_j|\,\lVert v_j\rVert/|a_i|$, j = j(i), with the root mean square over all
    teachers where that is less.
    """
    a, b, v = problem.outer, problem.teacher_outer, problem.inner
    inner = matmul(start, v.T)
    size = jnp.sqrt(jnp.sum(v * v, axis=1))
    same = jnp.sign(a)[:, None] == jnp.sign(b)[None, :]
    target = jnp.argmax(jnp.where(same, inner / size[None], -jnp.inf), axis=1)
    chosen = jax.nn.one_hot(target, v.shape[0], dtype=v.dtype)
    share = jnp.maximum(jnp.sum(chosen * inner, axis=1) / (chosen @ size**2), 0)
    total = (a * share) @ chosen
    served = (total != 0) | (b == 0)
    scale = b / jnp.where(total == 0, 1, total)
    weights = (share * (chosen @ scale))[:, None] * matmul(chosen, v)
    # |a_i| w_i is what compares with |b_j| v_j, whatever the units of either layer
    distance = jnp.abs(a) * jnp.sqrt(jnp.sum((weights - start) ** 2, axis=1))
    taught = problem.taught
    radius = part * jnp.minimum(chosen @ taught, jnp.sqrt(jnp.mean(taught**2)))
    accepted = jnp.all(served) & jnp.all(share > 0) & jnp.all(distance <= radius)
    accepted &= jnp.all(jnp.any(same, axis=1))
    weights = jnp.where(accepted, weights, start)
    return weights, gradient_of(problem, weights)[1], accepted


def levenberg_marquardt(
    problem: Problem, start: Float[Array, "n d"], tolerance: Float[Array, ""]
) -> tuple[Array, Array, Array]:
    r"""Damped Newton steps on $\nabla F = 0$: $-(H^2 + \mu^2)^{-1} H\,\nabla F$.

    By eigenvalues of $H$: directions with $|\lambda| \gg \mu$ get Newton's step,
    whatever its sign, flat ones none. $\mu$ is a damping times
    $$\min(\alpha\lVert\nabla F\rVert/s,\ \max|\lambda|),$$
    $\alpha = \max|a_i|$ and s the root mean square of $|b_j|\,\lVert v_j\rVert$: an
    eigenvalue, in whatever units weights and outputs are. The damping follows the fate
    of the steps; one that does not lower $\lVert\nabla F\rVert^2$ by a fiftieth of what
    the linearisation $\nabla F + H\,\delta$ promises is taken back. It converges to
    critical points of any kind, quadratically where $H$ is regular, and where flat
    directions grow cubically by a factor of 4 a step.
    """
    shape = start.shape
    size = jnp.sqrt(jnp.mean(problem.taught**2))
    unit = jnp.max(jnp.abs(problem.outer)) / jnp.where(size > 0, size, 1)

    def eigen(weights):
        values, vectors = jnp.linalg.eigh(dense_hessian(problem, weights))
        return values, vectors

    def proceed(state):
        _, _, norm, _, _, _, damping, step = state
        alive = (norm > tolerance) & (step < _MARQUARDT_STEPS)
        return alive & (damping < 1e6)

    def advance(state):
        weights, gradient, norm, moves, values, vectors, damping, step = state
        # here alone: the Hessian is most of the program
        values, vectors = jax.lax.cond(
            moves, lambda: eigen(weights), lambda: (values, vectors)
        )
        # in proportion to ‖∇F‖ it keeps the order of convergence
        mu = damping * jnp.minimum(unit * norm, jnp.max(jnp.abs(values)))
        shrunk = values / (values**2 + mu**2)
        turned = matmul(vectors.T, gradient.reshape(-1))
        move = matmul(vectors, shrunk * turned)
        moved = weights - move.reshape(shape)
        new, new_norm = gradient_of(problem, moved)
        # of ‖∇F‖², over ‖∇F‖ so that no square overflows: a short step lowers it little
        kept = 1 - shrunk * values
        promised = jnp.sum(turned / norm * (1 - kept**2) * turned)
        lowered = (norm - new_norm) * (1 + new_norm / norm)
        good = (lowered >= 0.02 * promised) & (new_norm < norm)
        keep = lambda new, old: jnp.where(good, new, old)
        return (
            keep(moved, weights),
            keep(new, gradient),
            keep(new_norm, norm),
            good,
            values,
            vectors,
            jnp.where(good, damping / 8, damping * 8 + 1e-3),
            step + 1,
        )

    gradient, norm = gradient_of(problem, start)
    none = jnp.zeros((start.size, start.size), start.dtype)
    state = (
        start,
        gradient,
        norm,
        jnp.array(True),
        none[0],
        none,
        jnp.ones_like(norm),
        jnp.int32(0),
    )
    weights, _, norm, *_ = jax.lax.while_loop(proceed, advance, state)
    return weights, norm, norm <= tolerance


METHODS = (newton, nearest_global_minimum, levenberg_marquardt)


@functools.partial(jax.jit, static_argnames=("method", "batch", "devices"))
def polish(
    problem: Problem,
    weights: Float[Array, "s n d"],
    pending: Bool[Array, " s"],
    tolerance: Float[Array, " s"],
    method: Any,
    batch: int,
    devices: Devices,
) -> Polished:
    """One of `METHODS` on the pending points, one after the other on each device.

    On a CPU a batch of factorisations is a loop anyway, and points one by one stop at
    their own time; accelerators want several at once (``batch``).
    """

    def one(problem, argument):
        point, wanted, tolerance = argument

        def work():
            return method(problem, point, tolerance)

        def idle():
            return point, jnp.full_like(tolerance, jnp.inf), jnp.zeros_like(wanted)

        return jax.lax.cond(wanted, work, idle)

    def block(problem, arguments):
        function = functools.partial(one, problem)
        if batch == 1:
            return jax.lax.map(function, arguments)
        return jax.lax.map(function, arguments, batch_size=batch)

    found = over_devices(block, devices)(problem, (weights, pending, tolerance))
    return Polished(*found)
