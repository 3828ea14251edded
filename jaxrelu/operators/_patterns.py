r"""Exact products of bit patterns.

For $P \in \{0,1\}^{n \times k}$ the entries of $P P^\top$ are the integers
$C_{ij} = |\{l : P_{il} = P_{jl} = 1\}| \le k$. Three ways to count, all exact:

* **popcount**: pack 32 bits to a word and sum `population_count(a & b)`; int32 sums of
  integers that are at most $k < 2^{31}$.
* **int8**: 0/1 are exact in int8, each product is 0 or 1, accumulation is in int32.
* **bfloat16**: 0/1 are exact in bfloat16, so is each product; the accumulator is
  float32, where every integer up to $2^{24}$ is exact: exact for $k < 2^{24}$.

An accelerator takes int8, which its matrix units run at several times the float32
rate, and so does a CPU that has such a unit (AMX: measured 3 to 4 times faster than
popcount). Any other CPU takes popcount (AVX-512 or NEON words: measured 2 times faster
than int8 there). All are exact, so the choice changes no bit of the answer.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from jaxrelu._checks import check_choice


_WORD = 32
_ROWS = 16  # rows counted at once: 16 n int32 sums stay in the second-level cache
METHODS = ("auto", "popcount", "int8", "bfloat16")


def pack_bits(pattern: Bool[Array, "n k"]) -> UInt32[Array, "n words"]:
    """Each row as ceil(k / 32) words; the last one is padded with zeros."""
    n, k = pattern.shape
    padded = jnp.pad(pattern, ((0, 0), (0, -k % _WORD)))
    bits = padded.reshape(n, -1, _WORD).astype(jnp.uint32)
    shifts = jnp.arange(_WORD, dtype=jnp.uint32)
    return jnp.sum(bits << shifts[None, None, :], axis=-1, dtype=jnp.uint32)


def _popcount(one: Bool[Array, "n k"], two: Bool[Array, "q k"]) -> Int[Array, "n q"]:
    n = one.shape[0]
    rows, columns = pack_bits(one), pack_bits(two).T
    words, q = columns.shape
    rows = jnp.pad(rows, ((0, -n % _ROWS), (0, 0))).reshape(-1, _ROWS, words)

    def count(block):
        def add(word, total):
            both = block[:, word][:, None] & columns[word][None, :]
            return total + jax.lax.population_count(both).astype(jnp.int32)

        return jax.lax.fori_loop(0, words, add, jnp.zeros((_ROWS, q), jnp.int32))

    return jax.lax.map(count, rows).reshape(-1, q)[:n]


def _product(one: Array, two: Array, narrow: jnp.dtype, wide: jnp.dtype) -> Array:
    return jax.lax.dot_general(
        one.astype(narrow),
        two.astype(narrow),
        (((1,), (1,)), ((), ())),
        preferred_element_type=wide,
    ).astype(jnp.int32)


def common_ones(
    one: Bool[Array, "n k"],
    two: Bool[Array, "q k"] | None = None,
    *,
    method: str = "auto",
) -> Int[Array, "n q"]:
    r"""$C_{ij} = \sum_l P_{il} Q_{jl}$ for bit patterns, bit-exact in int32.

    Args:
        one: P, (n, k).
        two: Q, (q, k); P itself when None.
        method: `"popcount"`, `"int8"`, `"bfloat16"`, or `"auto"` (popcount on a CPU
            without an int8 matrix unit, int8 elsewhere).

    Raises:
        ValueError: unknown method, or k beyond the exact range of the method.

    Cost: n q k / 32 word operations, or 2 n q k narrow multiply-adds.
    """
    check_choice(method, METHODS, "method")
    two = one if two is None else two
    k = one.shape[1]
    if k >= 2**24 and method == "bfloat16":
        msg = f"k is {k}; float32 accumulation counts exactly below 2**24 = 16777216."
        raise ValueError(msg)

    cpu = "int8" if _cpu_multiplies_int8() else "popcount"
    return _counts(one, two, method, cpu)


def _int8(one: Bool[Array, "n k"], two: Bool[Array, "q k"]) -> Int[Array, "n q"]:
    return _product(one, two, jnp.dtype("int8"), jnp.dtype("int32"))


def _bfloat16(one: Bool[Array, "n k"], two: Bool[Array, "q k"]) -> Int[Array, "n q"]:
    return _product(one, two, jnp.dtype(jnp.bfloat16), jnp.dtype("float32"))


_WAYS = {"popcount": _popcount, "int8": _int8, "bfloat16": _bfloat16}


@functools.partial(jax.jit, static_argnames=("method", "cpu"))
def _counts(one: Array, two: Array, method: str, cpu: str) -> Array:
    """One program for a call from Python, not one for every step of it."""
    if method in _WAYS:
        return _WAYS[method](one, two)
    return jax.lax.platform_dependent(one, two, cpu=_WAYS[cpu], default=_int8)


@functools.cache
def _cpu_multiplies_int8() -> bool:
    """Whether this host's CPU has an int8 matrix unit that Linux knows of."""
    try:
        return "amx_int8" in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def gated_products(
    one: Bool[Array, "n k"],
    two: Bool[Array, "q k"],
    slopes: tuple[Any, Any],
    dtype: jnp.dtype,
) -> Float[Array, "n q"]:
    r"""$\sum_l s(P_{il})\, s(Q_{jl})$ with $s(0), s(1)$ = `slopes`, from exact counts.

    Of the k places, $C$ have both bits, $|P_i| + |Q_j| - 2C$ one, the rest none:
    three integers, exact, weighted by $s(1)^2$, $s(0)s(1)$ and $s(0)^2$. The absolute
    terms add up to at most the norms of the two rows, so no cancellation beyond that of
    the inner product itself.
    """
    both = common_ones(one, two)
    top = jnp.asarray(slopes[1], dtype) ** 2 * both.astype(dtype)
    if isinstance(slopes[0], float) and slopes[0] == 0:
        return top
    low, high = (jnp.asarray(slope, dtype) for slope in slopes)
    ones = jnp.sum(one, axis=1, dtype=jnp.int32)[:, None]
    twos = jnp.sum(two, axis=1, dtype=jnp.int32)[None, :]
    single = (ones - both) + (twos - both)
    neither = one.shape[1] - single - both
    rest = low * high * single.astype(dtype) + low**2 * neither.astype(dtype)
    return top + rest
