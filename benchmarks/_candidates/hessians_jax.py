"""Hessians by JAX without jaxrelu, and the floor."""

import jax
import jax.numpy as jnp
import numpy as np


def _kernel(w, v):
    """E[relu(w.x) relu(v.x)], finite under two derivatives: the double where.

    Clipping the cosine, or one `where`, gives NaN or wrong numbers at parallel neurons,
    and a student is always parallel to itself.
    """
    sizes = jnp.linalg.norm(w, axis=1)[:, None] * jnp.linalg.norm(v, axis=1)[None]
    dots = jnp.matmul(w, v.T, precision="highest")
    cosine = dots / sizes
    proper = 1 - cosine**2 > 16 * jnp.finfo(w.dtype).eps
    safe = jnp.where(proper, cosine, 0.0)
    ends = jnp.where(cosine > 0, 0.0, jnp.pi)
    angle = jnp.where(proper, jnp.arccos(safe), ends)
    sine = jnp.where(proper, jnp.sqrt(1 - safe**2), 0.0)
    return (sizes * sine + (jnp.pi - angle) * dots) / (2 * jnp.pi)


def _loss(w, v):
    own, cross, fixed = (jnp.sum(_kernel(*pair)) for pair in ((w, w), (w, v), (v, v)))
    return 0.5 * own - cross + 0.5 * fixed


def _put(problem, dtype, *names):
    return tuple(jax.device_put(problem[name].astype(dtype)) for name in names)


def population(problem, dtype):
    """jax.hessian of the double-where loss."""
    w, v = _put(problem, dtype, "inner", "teacher")
    dense = jax.jit(lambda w, v: jax.hessian(_loss)(w, v).reshape(w.size, w.size))
    return lambda: {"hessian": dense(w, v).block_until_ready()}


def population_product(problem, dtype):
    """jax.jvp of jax.grad of the double-where loss."""
    w, v, u = _put(problem, dtype, "inner", "teacher", "direction")
    product = jax.jit(
        lambda w, v, u: jax.jvp(lambda w: jax.grad(_loss)(w, v), (w,), (u,))[1]
    )
    return lambda: {"product": product(w, v, u).reshape(-1).block_until_ready()}


def write(problem, dtype):
    """One pass that writes as many numbers as the Hessian has."""
    size = problem["inner"].size
    fill = jax.jit(lambda x: jnp.full((size, size), x))
    number = jnp.asarray(0.5, dtype)

    def run():
        fill(number).block_until_ready()
        return {"bytes": float(size * size * number.dtype.itemsize)}

    return run


def empirical(problem, dtype):
    """jax.hessian of the squared loss over the data."""
    arrays = _put(problem, dtype, "inner", "outer", "inputs", "targets")

    def loss(inner, outer, inputs, targets):
        residual = jax.nn.relu(inputs @ inner.T) @ outer - targets
        return 0.5 * jnp.sum(residual**2)

    @jax.jit
    def dense(inner, *data):
        return jax.hessian(loss)(inner, *data).reshape(inner.size, inner.size)

    return lambda: {"hessian": dense(*arrays).block_until_ready()}


def descent_loop(problem, dtype):
    """A Python loop over starts, each a jitted while loop of gradient descent.

    The step and the starts' law are the published ones, the gradient is in closed form
    by jax.grad of the same loss; it stops at a gradient of 1e-9 or 200 000 steps.
    """
    (v,) = _put(problem, dtype, "teacher")
    k, d = v.shape
    n, starts = int(problem["neurons"]), int(problem["starts"])
    rate = 5 / max(n, k, 4)

    @jax.jit
    def descend(w, v):
        gradient = jax.grad(_loss)

        def more(state):
            _, g, step = state
            return (jnp.sum(g**2) > 1e-18) & (step < 200_000)

        def move(state):
            w, g, step = state
            w = w - rate * g
            return w, gradient(w, v), step + 1

        return jax.lax.while_loop(more, move, (w, gradient(w, v), jnp.int32(0)))

    def run():
        keys = jax.random.split(jax.random.key(0), starts)
        ends = []
        for key in keys:
            start = jax.random.normal(key, (n, d), dtype) / d**0.5
            ends.append(descend(start, v))
        jax.block_until_ready(ends)
        norms = np.array([float(jnp.linalg.norm(g)) for _, g, _ in ends])
        weights = np.stack([np.asarray(w) for w, _, _ in ends])
        return {"weights": weights, "reached": (norms < 1e-8).sum(), "starts": starts}

    return run
