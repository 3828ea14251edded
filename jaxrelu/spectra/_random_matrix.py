r"""The Marchenko-Pastur law: the spectrum of $X X^\top$ when $X$ is pure noise."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxrelu._checks import as_floating, check_positive, is_concrete


class MarchenkoPastur(eqx.Module):
    r"""Limit law of the eigenvalues of $\frac1p X X^\top$, $X$ $n \times p$ iid.

    With $c = n/p$ and entries of mean 0 and variance $s^2$, as $n, p \to \infty$: an
    atom of mass $\max(0, 1 - 1/c)$ at 0 and, on $[a, b] = s^2 (1 \mp \sqrt c)^2$, the
    density $\frac{\sqrt{(b-x)(x-a)}}{2\pi s^2 c\, x}$.

    Source: V. A. Marchenko and L. A. Pastur, Distribution of eigenvalues for some sets
    of random matrices, Math. USSR Sbornik 1 (1967).

    Attributes:
        ratio: $c = n/p$.
        variance: $s^2$.
    """

    ratio: Float[Array, ""]
    variance: Float[Array, ""]

    @property
    def edges(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Both ends $(a, b)$ of the continuous part."""
        root = jnp.sqrt(self.ratio)
        return self.variance * (1 - root) ** 2, self.variance * (1 + root) ** 2

    @property
    def atom(self) -> Float[Array, ""]:
        r"""Mass at 0: the $n - p$ exact zeros when $n > p$."""
        return jnp.maximum(0, 1 - 1 / self.ratio)

    def density(self, x: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        """Density of the continuous part (its integral is 1 less the atom)."""
        low, high = self.edges
        inside = (x > low) & (x < high)
        safe = jnp.where(inside, x, (low + high) / 2)
        value = jnp.sqrt((high - safe) * (safe - low)) / (
            2 * jnp.pi * self.variance * self.ratio * safe
        )
        return jnp.where(inside, value, 0)

    def cdf(self, x: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        r"""Mass of $(-\infty, x]$, in closed form, the atom included."""
        low, high = self.edges
        c = self.ratio
        up = jnp.clip(high - x, 0, high - low) / self.variance
        down = jnp.clip(x - low, 0, high - low) / self.variance
        root = jnp.sqrt(up * down)
        a, b = low / self.variance, high / self.variance
        gap = jnp.abs(1 - c)
        total = (
            root
            - (1 + c) * jnp.arctan2(up - down, 2 * root)
            + gap * jnp.arctan2(a * up - b * down, 2 * gap * root)
        )
        continuous = jnp.minimum(1, 1 / c) / 2 + total / (2 * jnp.pi * c)
        return jnp.where(x < 0, 0, jnp.clip(self.atom + continuous, 0, 1))


def marchenko_pastur(
    ratio: float | Float[ArrayLike, ""], variance: float | Float[ArrayLike, ""] = 1.0
) -> MarchenkoPastur:
    r"""The Marchenko-Pastur law of $\frac1p X X^\top$ for $X$ with iid entries.

    Examples:
        >>> law = marchenko_pastur(0.25)
        >>> [round(float(edge), 3) for edge in law.edges]
        [0.25, 2.25]

    Args:
        ratio: rows over columns, $n/p$.
        variance: of an entry.

    Raises:
        ValueError: a ratio or variance that is not positive.
    """
    given = (ratio, variance)
    ratio, variance = (
        jnp.asarray(x) if isinstance(x, float | int) else as_floating(x, "argument")
        for x in given
    )
    for value, name in ((ratio, "ratio"), (variance, "variance")):
        if is_concrete(value):
            check_positive(float(value), name)
    dtype = jnp.result_type(float)
    return MarchenkoPastur(ratio.astype(dtype), variance.astype(dtype))
