r"""Climbing over cells along random great circles, vmapped: lower bounds in JAX.

A great circle through a point of the present cell meets h further pairs of cells; one
sort and one running sum evaluate all of them, so a step never loses.
"""

from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jrandom
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrelu._products import matmul
from jaxrelu.realization._norms import jax_norm


def _angles(normals: Array, point: Array, towards: Array) -> tuple[Array, ...]:
    """Orthonormal frame of the circle; sides, boundary angles and their order."""
    first = point / jnp.linalg.norm(point)
    second = towards - jnp.sum(towards * first) * first
    second = second / jnp.linalg.norm(second)
    x, y = matmul(normals, first), matmul(normals, second)
    angle = jnp.arctan2(y, x)
    side = jnp.where((angle >= -jnp.pi / 2) & (angle < jnp.pi / 2), 1, -1)
    turned = jnp.where(angle < 0, angle + 3 * jnp.pi / 2, angle - jnp.pi / 2)
    boundary = jnp.where(side == 1, angle + jnp.pi / 2, turned)
    return first, second, side, boundary, jnp.argsort(boundary)


def _step(
    normals: Array,
    jumps: Array,
    total: Array,
    required: tuple[tuple[int, int], ...],
    norm: str,
    point: Array,
    towards: Array,
) -> tuple[Array, Array]:
    """The best cell on one circle: a point of it, and its norm."""
    first, second, side, boundary, order = _angles(normals, point, towards)
    signed = side.astype(jumps.dtype)[:, None, None] * jumps
    sums = jnp.sum(signed, 0)[None] - 2 * jnp.cumsum(signed[order], 0)
    total = total[None]
    values = jax_norm(jnp.stack([total + sums, total - sums]), norm) / 2
    ordered = boundary[order]
    ends = jnp.append(ordered[1:], ordered[0] + jnp.pi)
    wide = ends - ordered > 64 * jnp.finfo(jumps.dtype).eps
    allowed = jnp.stack([wide, wide])
    rank = jnp.argsort(order)
    arcs = jnp.arange(order.size)
    for plane, sign in required:
        crossed = arcs >= rank[plane]
        here = jnp.where(crossed, -side[plane], side[plane])
        allowed &= jnp.stack([here == sign, here == -sign])
    values = jnp.where(allowed, values, -jnp.inf)
    top = jnp.argmax(values)
    flip, arc = top // order.size, top % order.size
    middle = (ordered[arc] + ends[arc]) / 2
    moved = jnp.cos(middle) * first + jnp.sin(middle) * second
    moved = jnp.where(flip == 1, -moved, moved)
    found = values.ravel()[top]
    return jnp.where(jnp.isfinite(found), moved, point), found


@partial(jax.jit, static_argnames=("required", "norm", "num_starts", "num_steps"))
def climb(
    key: PRNGKeyArray,
    normals: Float[Array, "h r"],
    jumps: Float[Array, "h m d"],
    total: Float[Array, "m d"],
    required: tuple[tuple[int, int], ...],
    norm: str,
    num_starts: int,
    num_steps: int,
) -> tuple[Float[Array, "starts r"], Float[Array, " starts"]]:
    """Ends of `num_starts` climbs of `num_steps` circles each, and their norms."""

    def one(key: PRNGKeyArray) -> tuple[Array, Array]:
        start, *steps = jrandom.split(key, num_steps + 1)
        start = jrandom.normal(start, (normals.shape[1],), normals.dtype)

        def step(carry: tuple[Array, Array], key: PRNGKeyArray) -> tuple:
            point, value = carry
            towards = jrandom.normal(key, point.shape, point.dtype)
            moved, found = _step(normals, jumps, total, required, norm, point, towards)
            better = found > value
            carry = jnp.where(better, moved, point), jnp.where(better, found, value)
            return carry, None

        lowest = jnp.asarray(-jnp.inf, normals.dtype)
        return jax.lax.scan(step, (start, lowest), jnp.stack(steps))[0]

    return jax.lax.map(one, jrandom.split(key, num_starts), batch_size=16)
