r"""Krylov spaces of an operator known by its products, inside `jit` and `vmap`.

Lanczos and Golub-Kahan recurrences with full reorthogonalisation, done twice. When the
space becomes invariant (a low rank, a repeated eigenvalue) the recurrence goes on from
a fresh direction (the random start, rolled) with a zero coupling, so that all $r$ steps
give the whole spectrum, multiplicities included. `matfree` has the same recurrences but
divides by the zero coupling.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


Product = Callable[[Array], Array]


class Tridiagonal(eqx.Module):
    r"""$A Q = Q T + \beta_k q_{k+1} e_k^\top$ after ``steps`` steps.

    Rows of ``basis`` are $q_1, ..., q_k$, then zeros; ``off`` holds
    $\beta_1, ..., \beta_k$, the last of which couples to ``following``.
    """

    basis: Float[Array, "m n"]
    diagonal: Float[Array, " m"]
    off: Float[Array, " m"]
    following: Float[Array, " n"]
    steps: Int[Array, ""]


class Bidiagonal(eqx.Module):
    r"""$A V = U B$ and $A^\top U = V B^\top + \beta_k v_{k+1} e_k^\top$."""

    left: Float[Array, "m rows"]
    right: Float[Array, "m cols"]
    diagonal: Float[Array, " m"]
    off: Float[Array, " m"]
    following: Float[Array, " cols"]
    spare: Float[Array, " rows"]
    steps: Int[Array, ""]


def _project_out(w: Array, basis: Array) -> Array:
    """Part of ``w`` orthogonal to ``basis``.

    The caller subtracts what the recurrence knows first: when almost nothing is left of
    a product, two projections alone square the loss of orthogonality at every step.
    """
    for _ in range(2):
        w = w - jnp.dot(
            basis.T, jnp.dot(basis, w, precision="highest"), precision="highest"
        )
    return w


def _norm(w: Array) -> Array:
    """Length of ``w`` without underflow or overflow of the squares."""
    largest = jnp.maximum(jnp.abs(w).max(), jnp.finfo(w.dtype).tiny)
    return largest * jnp.linalg.norm(w / largest)


def _split(w: Array, basis: Array, scale: Array, spare: Array) -> tuple[Array, Array]:
    """(Length, direction) of ``w``; at a breakdown (0, the part of ``spare`` left)."""
    length = _norm(w)
    broke = length <= 4 * jnp.finfo(w.dtype).eps * scale
    w = jax.lax.cond(
        broke,
        lambda: _project_out(spare, basis),
        lambda: w,
    )
    unit = w / jnp.maximum(_norm(w), jnp.finfo(w.dtype).tiny)
    return jnp.where(broke, 0, length), unit


def start_lanczos(start: Float[Array, " n"], size: int) -> Tridiagonal:
    """An empty space of room ``size`` that begins with ``start``."""
    empty = jnp.zeros((size,), start.dtype)
    return Tridiagonal(
        basis=jnp.zeros((size, start.shape[0]), start.dtype),
        diagonal=empty,
        off=empty,
        following=start / jnp.linalg.norm(start),
        steps=jnp.asarray(0, jnp.int32),
    )


def extend_lanczos(space: Tridiagonal, product: Product, count: int) -> Tridiagonal:
    """``count`` further steps (never beyond the room). Cost: that many products."""
    size = space.diagonal.shape[0]

    def step(_, space):
        k, q = space.steps, space.following
        basis = space.basis.at[k].set(q)
        w = product(q)
        alpha = jnp.dot(q, w, precision="highest")
        coupling = jnp.where(k > 0, space.off[k - 1], 0)
        w = _project_out(w - alpha * q - coupling * basis[k - 1], basis)
        scale = jnp.maximum(jnp.abs(space.diagonal).max(), space.off.max())
        scale = jnp.maximum(scale, jnp.abs(alpha))
        beta, following = _split(w, basis, scale, jnp.roll(basis[0], k + 1))
        return Tridiagonal(
            basis=basis,
            diagonal=space.diagonal.at[k].set(alpha),
            off=space.off.at[k].set(beta),
            following=following,
            steps=k + 1,
        )

    return jax.lax.fori_loop(0, jnp.minimum(count, size - space.steps), step, space)


def ritz(space: Tridiagonal) -> tuple[Array, Array, Array]:
    r"""Ritz values (ascending), residual norms, first components of the Ritz vectors.

    Room not yet used is filled with copies of $\alpha_1$, which lies between the
    extremes and has first component 0.
    """
    index = jnp.arange(space.diagonal.shape[0], dtype=space.steps.dtype)
    diagonal = jnp.where(index < space.steps, space.diagonal, space.diagonal[0])
    off = jnp.where(index < space.steps - 1, space.off, 0)[:-1]
    matrix = jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1)
    values, vectors = jnp.linalg.eigh(matrix)
    last = space.steps - 1
    return values, jnp.abs(space.off[last] * vectors[last]), vectors[0]


def has_converged(
    ends: tuple[Array, Array, Array, Array], tolerance: float | Array, both: bool
) -> Array:
    """Residuals below ``tolerance`` times the value and 1 % of the spread, or rounding.

    A residual that is not small beside the spread of the Ritz values may belong to any
    eigenvalue of a narrow spectrum, not to the outermost.
    """
    low, low_residual, high, high_residual = ends
    floor = jnp.finfo(low.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
    spread = 0.01 * (high - low)

    def small(value, residual):
        goal = jnp.minimum(tolerance * jnp.abs(value), spread)
        return residual <= jnp.maximum(goal, floor)

    done = small(high, high_residual)
    return done & small(low, low_residual) if both else done


def _no_ends(dtype: jnp.dtype) -> tuple[Array, Array, Array, Array]:
    """Ends that have not converged: the loop's body does the first steps, too.

    A call before the loop would trace and compile the steps a second time.
    """
    zero, infinite = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
    return zero, infinite, zero, infinite


def lanczos_ends(
    product: Product,
    start: Float[Array, " n"],
    *,
    tolerance: float | Array,
    max_steps: int,
    both: bool = False,
) -> tuple[Array, Array, Array, Array, Array]:
    r"""Extreme Ritz values of a symmetric product with their residual norms.

    For a Ritz pair $(\theta, x)$, $\|Ax-\theta x\| = \beta_k |e_k^\top s|$, and an
    eigenvalue of $A$ lies within that distance of $\theta$.

    Args:
        product: $v -> A v$.
        start: not orthogonal to what is sought; random.
        tolerance: stop when the residual is below it times the Ritz value, or at the
            rounding of the products.
        max_steps: room for the basis (times n numbers).
        both: wait for the lower end too, not only for the upper.

    Returns:
        (lowest, its residual, highest, its residual, steps done).
    """
    size = min(max_steps, start.shape[0])

    def unfinished(carry):
        space, ends = carry
        return (space.steps < size) & ~has_converged(ends, tolerance, both)

    def advance(carry):
        space = extend_lanczos(carry[0], product, 8)
        values, residuals, _ = ritz(space)
        return space, (values[0], residuals[0], values[-1], residuals[-1])

    first = start_lanczos(start, size), _no_ends(start.dtype)
    space, ends = jax.lax.while_loop(unfinished, advance, first)
    return *ends, space.steps


def start_bidiagonal(
    start: Float[Array, " cols"], spare: Float[Array, " rows"], size: int
) -> Bidiagonal:
    """Empty spaces of room ``size``; the right one begins with ``start``.

    ``spare``, random too, serves when the left one becomes invariant.
    """
    empty = jnp.zeros((size,), start.dtype)
    return Bidiagonal(
        left=jnp.zeros((size, spare.shape[0]), start.dtype),
        right=jnp.zeros((size, start.shape[0]), start.dtype),
        diagonal=empty,
        off=empty,
        following=start / jnp.linalg.norm(start),
        spare=spare,
        steps=jnp.asarray(0, jnp.int32),
    )


def extend_bidiagonal(
    space: Bidiagonal, mv: Product, rmv: Product, count: int
) -> Bidiagonal:
    """``count`` further Golub-Kahan steps, one product with each side per step."""
    size = space.diagonal.shape[0]

    def step(_, space):
        k, v = space.steps, space.following
        scale = jnp.maximum(space.diagonal.max(), space.off.max())
        right = space.right.at[k].set(v)
        coupling = jnp.where(k > 0, space.off[k - 1], 0)
        u = _project_out(mv(v) - coupling * space.left[k - 1], space.left)
        alpha, u = _split(u, space.left, scale, jnp.roll(space.spare, k))
        scale = jnp.maximum(scale, alpha)
        w, spare = _project_out(rmv(u) - alpha * v, right), jnp.roll(right[0], k + 1)
        beta, following = _split(w, right, scale, spare)
        return Bidiagonal(
            left=space.left.at[k].set(u),
            right=right,
            diagonal=space.diagonal.at[k].set(alpha),
            off=space.off.at[k].set(beta),
            following=following,
            spare=space.spare,
            steps=k + 1,
        )

    return jax.lax.fori_loop(0, jnp.minimum(count, size - space.steps), step, space)


def singular_ritz(space: Bidiagonal) -> tuple[Array, Array, Array]:
    r"""Ritz singular values (descending), residuals, first components on the right.

    For a Ritz triplet $(\sigma, u, v)$: $Av = \sigma u$ exactly and
    $\|A^\top u - \sigma v\| = \beta_k |e_k^\top s|$, so a singular value of $A$ lies
    within that distance (Jordan-Wielandt matrix, vector $(u, v)/\sqrt 2$, sharper by
    $\sqrt 2$).
    """
    index = jnp.arange(space.diagonal.shape[0], dtype=space.steps.dtype)
    diagonal = jnp.where(index < space.steps, space.diagonal, space.diagonal[0])
    off = jnp.where(index < space.steps - 1, space.off, 0)[:-1]
    matrix = jnp.diag(diagonal) + jnp.diag(off, 1)
    left, values, right = jnp.linalg.svd(matrix)
    last = space.steps - 1
    residuals = jnp.abs(space.off[last] * left[last]) / jnp.sqrt(
        jnp.asarray(2, values.dtype)
    )
    return values, residuals, right[:, 0]


def bidiagonal_ends(
    mv: Product,
    rmv: Product,
    start: Float[Array, " cols"],
    spare: Float[Array, " rows"],
    *,
    tolerance: float,
    max_steps: int,
) -> tuple[Array, Array, Array, Array, Array]:
    """Extreme Ritz singular values of a tall operator; see `lanczos_ends`."""
    size = min(max_steps, start.shape[0])

    def unfinished(carry):
        space, ends = carry
        return (space.steps < size) & ~has_converged(ends, tolerance, True)

    def advance(carry):
        space = extend_bidiagonal(carry[0], mv, rmv, 8)
        values, residuals, _ = singular_ritz(space)
        return space, (values[-1], residuals[-1], values[0], residuals[0])

    first = start_bidiagonal(start, spare, size), _no_ends(start.dtype)
    space, ends = jax.lax.while_loop(unfinished, advance, first)
    return *ends, space.steps
