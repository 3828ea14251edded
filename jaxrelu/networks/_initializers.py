r"""Initial weights, named after what they do."""

import functools

import jax
import jax.numpy as jnp
import jax.random as jrandom
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrelu._checks import check_choice, check_positive


_LIBRARY = {
    "glorot_normal": jax.nn.initializers.glorot_normal,
    "glorot_uniform": jax.nn.initializers.glorot_uniform,
    "he_normal": jax.nn.initializers.he_normal,
    "he_uniform": jax.nn.initializers.he_uniform,
}
INNER = ("gaussian", "xavier", *_LIBRARY)
OUTER = ("balanced", "signs", "ones", "gaussian", *_LIBRARY)


def inner_weights(
    key: PRNGKeyArray, k: int, d: int, scheme: str, dtype: jnp.dtype
) -> Float[Array, "k d"]:
    r"""First-layer weights, one neuron per row.

    Schemes:

    * ``"gaussian"``: entries iid $N(0, 1)$ (Oymak & Soltanolkotabi).
    * ``"xavier"``: entries iid $N(0, 1/d)$, so a neuron has unit norm on average.
      Safran & Shamir write $N(0, 1/k)$ with $k = d$; here the variance follows the
      fan-in.
    * ``"glorot_normal"``, ``"glorot_uniform"``, ``"he_normal"``, ``"he_uniform"``:
      those of `jax.nn.initializers`.

    Raises:
        ValueError: unknown scheme.
    """
    check_choice(scheme, INNER, "inner")
    if scheme in _LIBRARY:
        return _LIBRARY[scheme](in_axis=1, out_axis=0)(key, (k, d), dtype)
    weights = jrandom.normal(key, (k, d), dtype)
    return weights if scheme == "gaussian" else weights / d**0.5


@functools.partial(jax.jit, static_argnames=("rows", "k"))
def _balanced(size: Float[Array, ""], rows: int, k: int) -> Float[Array, "rows k"]:
    """Half of each row ``size``, the other half its negative."""
    return jnp.broadcast_to(jnp.where(jnp.arange(k) < k // 2, size, -size), (rows, k))


def outer_weights(
    key: PRNGKeyArray,
    k: int,
    m: int | None,
    scheme: str,
    norm: float,
    dtype: jnp.dtype,
) -> Float[Array, " k"] | Float[Array, "m k"]:
    r"""Second-layer weights, (k,) for a scalar output (m None) and (m, k) otherwise.

    Schemes:

    * ``"balanced"``: half of each row $+c$, half $-c$, with $c$ = `norm`$/\sqrt k$, so
      $1^\top v = 0$ and rows have Euclidean norm `norm`. Oymak & Soltanolkotabi take
      $\|v\|_2 = \|y\|_2/\sqrt n$, which is 1 for labels ±1. Needs an even k.
    * ``"signs"``: $\pm c$ with independent fair signs.
    * ``"ones"``: all ones (the networks of Safran & Shamir); `norm` is not used.
    * ``"gaussian"``: iid normal, rows of norm `norm` in root mean square.
    * ``"glorot_normal"``, ``"glorot_uniform"``, ``"he_normal"``, ``"he_uniform"``:
      those of `jax.nn.initializers`; `norm` is not used.

    Raises:
        ValueError: unknown scheme, odd k with ``"balanced"``, `norm` not positive.
    """
    check_choice(scheme, OUTER, "outer")
    check_positive(norm, "outer_norm")
    rows = 1 if m is None else m
    if scheme in _LIBRARY:
        v = _LIBRARY[scheme](in_axis=1, out_axis=0)(key, (rows, k), dtype)
    elif scheme == "balanced":
        if k % 2:
            msg = (
                f"outer='balanced' puts half of the {k} outer weights at + and half "
                "at -; expected an even k. Use an even width, or outer='signs'."
            )
            raise ValueError(msg)
        v = _balanced(jnp.asarray(norm / k**0.5, dtype), rows, k)
    elif scheme == "signs":
        v = jrandom.rademacher(key, (rows, k), dtype) * (norm / k**0.5)
    elif scheme == "ones":
        v = jnp.ones((rows, k), dtype)
    else:
        v = jrandom.normal(key, (rows, k), dtype) * (norm / k**0.5)
    return v[0] if m is None else v
