"""The distribution of a whole spectrum from products alone."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, ArrayLike, Float, Key

from jaxrelu._checks import check_positive
from jaxrelu._memory import require_bytes
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.spectra import _lanczos
from jaxrelu.spectra._dense import SUCCESS, Kind, as_operator, dtype_of, shape_of


class SpectralDensity(eqx.Module):
    r"""Quadrature of the empirical spectral distribution, one rule per random probe.

    The distribution puts mass $1/r$ on each of the $r$ eigenvalues of a symmetric
    operator, or on each of the $r = \min(\text{rows}, \text{cols})$ singular values
    (not their squares). A probe $v$, uniform on the unit sphere, has
    $\mathbb E\, v^\top f(A) v = \frac1r \operatorname{tr} f(A)$, and Lanczos gives the
    Gauss rule of its measure: nodes are Ritz values, weights squared first components.

    All means come with the standard error over probes. It does not hold the quadrature
    error: a rule of $m$ nodes is exact for polynomials of degree $2m-1$ in the
    eigenvalue (in the squared singular value), and a step function is resolved to the
    spacing of the nodes.

    Attributes:
        nodes: ascending in each row.
        weights: non-negative, rows sum to 1.
        kind: ``"eigenvalues"`` or ``"singular values"``.
        shape: of the operator.
        dtype: of the operator.
    """

    nodes: Float[Array, "probes steps"]
    weights: Float[Array, "probes steps"]
    kind: Kind = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)
    dtype: str = eqx.field(static=True)

    def expectation(self, function: Callable[[Array], Array]) -> Estimate:
        r"""Mean of $f$ over the spectrum, $\frac1r \operatorname{tr} f(A)$.

        Args:
            function: element-wise; the values of f at the nodes may have further
                leading axes, which the answer keeps.
        """
        value, error, result = _over_probes(self.weights, function(self.nodes))
        probes, steps = self.nodes.shape
        return Estimate(
            value=value,
            error=error,
            result=result,
            error_kind="standard error",
            method=f"stochastic Lanczos quadrature, {probes} probes of {steps} steps",
        )

    def moment(self, order: int) -> Estimate:
        r"""Mean of the values to a power, $\frac1r \sum_i \lambda_i^{\text{order}}$."""
        return self.expectation(lambda x: x**order)

    def cumulative(self, grid: Float[ArrayLike, " g"]) -> Estimate:
        """Fraction of the values at or below each grid point."""
        grid = jnp.asarray(grid, self.nodes.dtype)[:, None, None]
        return self.expectation(lambda x: (x[None] <= grid).astype(x.dtype))

    def smoothed(self, grid: Float[ArrayLike, " g"], width: float) -> Estimate:
        """Density at the grid points, convolved with a Gaussian.

        Args:
            grid: where.
            width: standard deviation of the Gaussian; below the spacing of the nodes
                the separate nodes show.
        """
        check_positive(width, "width")
        grid = jnp.asarray(grid, self.nodes.dtype)[:, None, None]
        scale = 1 / (width * (2 * jnp.pi) ** 0.5)
        return self.expectation(
            lambda x: scale * jnp.exp(-(((x[None] - grid) / width) ** 2) / 2)
        )


@jax.jit
def _over_probes(weights: Array, values: Array) -> tuple[Array, Array, RESULTS]:
    """Mean over all nodes, its standard error over the probes, and the result."""
    samples = jnp.sum(jnp.broadcast_to(weights, values.shape) * values, axis=-1)
    value = jnp.mean(samples, axis=-1)
    error = jnp.std(samples, axis=-1, ddof=1) / weights.shape[0] ** 0.5
    good = jnp.all(jnp.isfinite(value))
    return value, error, RESULTS.where(good, SUCCESS, RESULTS.not_finite)


def density(
    operator: lx.AbstractLinearOperator | ArrayLike,
    *,
    key: Key[Array, ""],
    num_samples: int = 16,
    num_steps: int = 64,
) -> SpectralDensity:
    r"""Distribution of all eigenvalues or singular values by products alone.

    Stochastic Lanczos quadrature: ``num_samples`` random unit vectors, ``num_steps``
    Lanczos (symmetric operator) or Golub-Kahan steps each, fully reorthogonalised.
    Cost: ``num_samples * num_steps`` products with $A$ (and as many with $A^\top$),
    ``num_steps`` stored vectors of each side. Works under `jit` and `vmap`.

    Args:
        operator: any lineax operator with flat vectors, or a matrix; one tagged
            symmetric gives signed eigenvalues.
        key: for the probes.
        num_samples: at least 2; errors fall with its square root.
        num_steps: nodes per probe, at most the number of values.

    Source: S. Ubaru, J. Chen, Y. Saad, Fast estimation of tr(f(A)) via stochastic
    Lanczos quadrature, SIAM J. Matrix Anal. Appl. 38 (2017); G. H. Golub and G.
    Meurant, Matrices, Moments and Quadrature (2010).
    """
    operator = as_operator(operator)
    check_positive(num_steps, "num_steps")
    if num_samples < 2:
        msg = f"num_samples is {num_samples}; expected at least 2 for a standard error."
        raise ValueError(msg)
    symmetric = bool(lx.is_symmetric(operator))
    rows, cols = shape_of(operator)
    steps, dtype = min(num_steps, rows, cols), dtype_of(operator)
    require_bytes(
        steps * (rows if symmetric else rows + cols) * dtype.itemsize,
        f"{steps} {dtype.name} Lanczos vectors",
        "Lower num_steps.",
    )
    nodes, weights = _rules(operator, key, symmetric, num_samples, steps)
    return SpectralDensity(
        nodes=nodes,
        weights=weights,
        kind="eigenvalues" if symmetric else "singular values",
        shape=(rows, cols),
        dtype=dtype.name,
    )


@eqx.filter_jit
def _rules(operator, key, symmetric, num_samples, steps):
    short, long = sorted(shape_of(operator))
    dtype = dtype_of(operator)
    tall = operator if operator.out_size() == long else operator.transpose()
    wide = tall.transpose()

    def rule(key):
        keys = jax.random.split(key)
        start = jax.random.normal(keys[0], (short,), dtype)
        if symmetric:
            space = _lanczos.start_lanczos(start, steps)
            space = _lanczos.extend_lanczos(space, operator.mv, steps)
            nodes, _, first = _lanczos.ritz(space)
            return nodes, first**2
        spare = jax.random.normal(keys[1], (long,), dtype)
        space = _lanczos.start_bidiagonal(start, spare, steps)
        space = _lanczos.extend_bidiagonal(space, tall.mv, wide.mv, steps)
        nodes, _, first = _lanczos.singular_ritz(space)
        return nodes[::-1], first[::-1] ** 2

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(rule, jax.random.split(key, num_samples))
