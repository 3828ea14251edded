"""JAX without jaxrelu: what a user writes first, second and third, and the floors."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg


def _arrays(problem, dtype):
    return tuple(
        jax.device_put(problem[name].astype(dtype))
        for name in ("inner", "outer", "inputs")
    )


def _network(inner, outer, x):
    return outer @ jax.nn.relu(inner @ x)


def _factor(inner, outer, inputs):
    return jnp.where(inputs @ inner.T > 0, outer[None, :], 0.0)


def _hadamard(factor, inputs):
    return (inputs @ inputs.T) * (factor @ factor.T)


def _gram(inner, outer, inputs):
    return _hadamard(_factor(inner, outer, inputs), inputs)


def _values_of(gram):
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram), 0.0))


def jacrev_svd(problem, dtype):
    """jax.jacrev of the batched network, then the SVD of the wide matrix."""

    @jax.jit
    def compute(inner, outer, inputs):
        def batched(inner):
            return jax.nn.relu(inputs @ inner.T) @ outer

        jacobian = jax.jacrev(batched)(inner).reshape(len(inputs), -1)
        # full_matrices=False: with the default JAX allocates the (p, p) factor.
        return jnp.linalg.svd(jacobian, full_matrices=False, compute_uv=False)[::-1]

    data = _arrays(problem, dtype)
    return lambda: {"values": compute(*data).block_until_ready()}


def sample_gram(problem, dtype):
    """vmap(jacrev) over samples, Gram matrix of the rows, jnp.linalg.eigvalsh."""

    @jax.jit
    def compute(inner, outer, inputs):
        per_sample = jax.vmap(jax.jacrev(_network), in_axes=(None, None, 0))
        jacobian = per_sample(inner, outer, inputs).reshape(len(inputs), -1)
        return _values_of(jacobian @ jacobian.T)

    data = _arrays(problem, dtype)
    return lambda: {"values": compute(*data).block_until_ready()}


def structured_scipy(problem, dtype):
    """The structured formula by hand, then values-only LAPACK through SciPy."""
    gram = jax.jit(_gram)
    data = _arrays(problem, dtype)

    def run():
        matrix = np.array(gram(*data))
        eigenvalues = scipy.linalg.eigh(
            matrix,
            eigvals_only=True,
            driver="evd",
            overwrite_a=True,
            check_finite=False,
        )
        return {"values": np.sqrt(np.maximum(eigenvalues, 0))}

    return run


def gram_formula(problem, dtype):
    """The structured Gram by floating GEMMs: what the ReLU fast path must beat."""
    gram = jax.jit(_gram)
    data = _arrays(problem, dtype)
    return lambda: {"gram": gram(*data).block_until_ready()}


def gram_formula_alone(problem, dtype):
    """The same with the backward pass done: the two products and the Hadamard one."""
    gram = jax.jit(_hadamard)
    inner, outer, inputs = _arrays(problem, dtype)
    factor = jax.jit(_factor)(inner, outer, inputs).block_until_ready()
    return lambda: {"gram": gram(factor, inputs).block_until_ready()}


def eigvalsh(problem, dtype):
    """jnp.linalg.eigvalsh of the given Gram matrix (computes vectors on CPU)."""
    matrix = jax.jit(_gram)(*_arrays(problem, dtype)).block_until_ready()
    compute = jax.jit(_values_of)
    return lambda: {"values": compute(matrix).block_until_ready()}


def lapack(problem, dtype):
    """Values-only LAPACK of the given Gram matrix, by SciPy's fastest call here.

    Drivers and triangles are raced in preparation (on at most 2048 rows). The matrix is
    in LAPACK's own order, so that nothing is copied but what it overwrites.
    """
    matrix = np.array(jax.jit(_gram)(*_arrays(problem, dtype)), order="F")
    part = np.asfortranarray(matrix[:2048, :2048])

    def solve(matrix, driver, lower):
        return scipy.linalg.eigh(
            matrix, lower=lower, eigvals_only=True, driver=driver, check_finite=False
        )

    def lap(choice):
        times = []
        for _ in range(2):
            start = time.perf_counter()
            solve(part, *choice)
            times.append(time.perf_counter() - start)
        return min(times)

    choices = [(name, lower) for name in ("ev", "evd", "evr") for lower in (0, 1)]
    best = min(choices, key=lap)
    return lambda: {"values": np.sqrt(np.maximum(solve(matrix, *best), 0))}


def gemm(problem, dtype):
    """Square matrix product, default precision: the machine's rate in JAX."""
    return _gemm(len(problem["inputs"]), dtype, "default")


def gemm_highest(problem, dtype):
    """Square matrix product, full precision (differs from `gemm` on accelerators)."""
    return _gemm(len(problem["inputs"]), dtype, "highest")


def _gemm(n, dtype, precision):
    left, right = (
        jax.random.normal(key, (n, n), dtype)
        for key in jax.random.split(jax.random.key(0))
    )
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))

    def run():
        product(left, right).block_until_ready()
        return {"flop": 2.0 * n**3}

    return run
