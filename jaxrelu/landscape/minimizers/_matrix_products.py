r"""Linear and residual networks as products of matrices, and the data they can fit.

The notes this chapter was built on keep samples in columns; here rows are samples,
$f(W) = \tfrac12\|XP^\top - Y\|^2$ with $P = M_l \cdots M_1$, $M_k = W_k$ or $I + W_k$.
With $X = USV^\top$ and $R = SV^\top$,
$f - f^* = \tfrac12\|RP^\top - U^\top Y\|^2$: nothing is subtracted from $f$.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrelu._checks import is_concrete
from jaxrelu._products import matmul
from jaxrelu.data import Dataset
from jaxrelu.networks import LinearNetwork, LinearResidualNetwork
from jaxrelu.objectives import SquaredLoss


ProductNetwork = LinearNetwork | LinearResidualNetwork


class ReducedData(eqx.Module):
    r"""The singular value decomposition of the inputs, and the targets in its basis.

    Directions whose singular value is rounding, at most $\epsilon\max(n, d)$ of the
    largest, are zeroed and not dropped, so that shapes do not depend on numbers.

    Attributes:
        left: U, (n, r), r = min(n, d).
        values: S, descending.
        right: V^T, (r, d).
        targets: $U^\top Y$, (r, m).
        kept: which directions count.
    """

    left: Float[Array, "n r"]
    values: Float[Array, " r"]
    right: Float[Array, "r d"]
    targets: Float[Array, "r m"]
    kept: Bool[Array, " r"]

    @property
    def root(self) -> Float[Array, "r d"]:
        r"""$R = SV^\top$, so that $R^\top R = X^\top X$."""
        return self.values[:, None] * self.right

    @property
    def smallest(self) -> Float[Array, ""]:
        r"""$\sigma_{\min}^+(X)$."""
        return jnp.min(jnp.where(self.kept, self.values, jnp.inf))

    @property
    def largest(self) -> Float[Array, ""]:
        r"""$\|X\|_2$."""
        return self.values[0]


@eqx.filter_jit
def reduced_data(data: Dataset) -> ReducedData:
    """Raises `ValueError` for targets without an output axis."""
    if data.targets.ndim != 2:
        msg = (
            f"targets have shape {data.targets.shape}; expected (n, m). A network with "
            "one output needs targets[:, None] here."
        )
        raise ValueError(msg)
    left, values, right = jnp.linalg.svd(data.inputs, full_matrices=False)
    eps = float(jnp.finfo(values.dtype).eps)
    kept = values > eps * max(data.inputs.shape) * values[0]
    left = jnp.where(kept[None], left, 0)
    values = jnp.where(kept, values, 0)
    return ReducedData(left, values, right, matmul(left.T, data.targets), kept)


def inverse_values(reduced: ReducedData) -> Float[Array, " r"]:
    """Singular values of the pseudo-inverse."""
    return jnp.where(reduced.kept, 1 / jnp.where(reduced.kept, reduced.values, 1), 0)


def layers_of(network: Any) -> tuple[Float[Array, "out in"], ...]:
    r"""$M_1, \dots, M_l$.

    Raises:
        TypeError: neither a linear nor a linear residual network.
    """
    if isinstance(network, LinearNetwork):
        return network.weights
    if isinstance(network, LinearResidualNetwork):
        eye = jnp.eye(network.in_size, dtype=network.weights[0].dtype)
        return tuple(eye + weight for weight in network.weights)
    msg = (
        f"the network is a {type(network).__name__}; expected a LinearNetwork or a "
        "LinearResidualNetwork."
    )
    raise TypeError(msg)


def partial_products(
    layers: tuple[Array, ...],
) -> tuple[list[Array], list[Array]]:
    r"""$A_k = M_l \cdots M_{k+1}$ and $B_k = M_{k-1} \cdots M_1$ for all k."""
    dtype = layers[0].dtype
    above = [jnp.eye(layers[-1].shape[0], dtype=dtype)]
    below = [jnp.eye(layers[0].shape[1], dtype=dtype)]
    for layer in reversed(layers[1:]):
        above.append(matmul(above[-1], layer))
    for layer in layers[:-1]:
        below.append(matmul(layer, below[-1]))
    return above[::-1], below


def product(layers: tuple[Array, ...]) -> Float[Array, "m d"]:
    """$P = M_l ... M_1$."""
    whole = layers[0]
    for layer in layers[1:]:
        whole = matmul(layer, whole)
    return whole


def is_wide(layers: tuple[Array, ...]) -> bool:
    """Whether the products of such layers are all matrices of the outer shape."""
    widths = [layer.shape[0] for layer in layers]
    return min(widths) >= min(layers[0].shape[1], widths[-1])


def check_problem(objective: Any, network: Any) -> tuple[Array, ...]:
    r"""The layers, after a look at the shapes.

    Raises:
        TypeError: not a `SquaredLoss` of a linear or residual network.
        ValueError: shapes that do not fit, or a hidden layer narrower than both ends:
            then $f^*$ is not the least-squares value.
    """
    if not isinstance(objective, SquaredLoss):
        msg = f"objective is a {type(objective).__name__}; expected a SquaredLoss."
        raise TypeError(msg)
    layers = layers_of(network)
    inputs, targets = objective.data.inputs, objective.data.targets
    ends = (layers[0].shape[1], layers[-1].shape[0])
    if ends[0] != inputs.shape[1] or targets.shape[1:] != ends[1:]:
        msg = (
            f"the network maps {ends[0]} inputs to {ends[1]} outputs, the data have "
            f"inputs {inputs.shape} and targets {targets.shape}; expected "
            f"(n, {ends[0]}) and (n, {ends[1]})."
        )
        raise ValueError(msg)
    if not is_wide(layers):
        narrowest = min(layer.shape[0] for layer in layers)
        msg = (
            f"a layer has {narrowest} neurons, less than input and output "
            f"({min(ends)}): f* is then not the least-squares value. For two layers "
            "see shallow_levels and shallow_critical_point."
        )
        raise ValueError(msg)
    return layers


def reduced_residual(reduced: ReducedData, layers: tuple[Array, ...]) -> Array:
    r"""$D = RP^\top - U^\top Y$, (r, m); $f - f^* = \tfrac12\|D\|^2$."""
    return matmul(reduced.root, product(layers).T) - reduced.targets


def norm(matrix: Float[Array, "..."]) -> Float[Array, ""]:
    """The Frobenius norm, its gradient 0 at 0."""
    square = jnp.sum(matrix * matrix)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def singular_values(matrix: Float[Array, "a b"]) -> Float[Array, " r"]:
    """Descending, without vectors."""
    return jnp.linalg.svd(matrix, compute_uv=False)


def spectral_norm(matrix: Float[Array, "a b"]) -> Float[Array, ""]:
    r"""$\|M\|_2$."""
    return singular_values(matrix)[0]


def onto(matrix: Float[Array, "a b"]) -> Float[Array, ""]:
    r"""The a-th singular value: $\|M^\top u\| \ge$ this $\|u\|$; 0 if b < a."""
    rows, cols = matrix.shape
    return singular_values(matrix)[-1] if rows <= cols else jnp.zeros((), matrix.dtype)


def into(matrix: Float[Array, "a b"]) -> Float[Array, ""]:
    r"""The b-th singular value: $\|Mv\| \ge$ this $\|v\|$; 0 if a < b."""
    return onto(matrix.T)


def products_of_others(values: Float[Array, " l"]) -> Float[Array, " l"]:
    r"""$\prod_{j \ne k} v_j$ for all k, without divisions."""
    depth = values.shape[0]
    others = ~np.eye(depth, dtype=bool)
    return jnp.prod(jnp.where(others, values[None], 1), axis=1)


def product_lipschitz(
    layers: tuple[Array, ...], size: Float[Array, ""], radius: Array | float
) -> Float[Array, ""]:
    r"""A Lipschitz constant of the Jacobian of $W \mapsto XP^\top$ on a ball.

    $\|X\|_2\lambda_{\max}(N)$, $N_{jk} = \prod_{i \ne j,k}w_i$ off the diagonal and 0
    on it, $w_i = \|M_i\|_2 + \rho$. *Proof:* the second derivative along $V, V'$ is a
    sum over $j \ne k$ of products with $V_j$, $V'_k$ and the other factors, bounded by
    $\sum_{jk}N_{jk}\|V_j\|\|V'_k\|$. For two layers it is $\|X\|_2$, attained.

    Args:
        layers: $M_k$ at the centre.
        size: $\|X\|_2$.
        radius: $\rho$, Frobenius, of all parameters together.
    """
    norms = jnp.stack([spectral_norm(layer) for layer in layers]) + radius
    depth = len(layers)
    eye = np.eye(depth, dtype=bool)
    used = ~(eye[:, None, :] | eye[None, :, :])
    pairs = jnp.prod(jnp.where(used, norms[None, None], 1), axis=2)
    pairs = jnp.where(eye, 0, pairs)
    return size * jnp.linalg.eigvalsh(pairs)[-1]


def quotient(gap: Array, square: Array) -> Array:
    """Gap over squared gradient: NaN for 0/0, infinite at other critical points."""
    there = square > 0
    flat = jnp.where(gap > 0, jnp.inf, jnp.nan)
    return jnp.where(there, gap / jnp.where(there, square, 1), flat)


def half_inverse(mu: Array) -> Array:
    r"""$1/2\mu$, infinite for $\mu \le 0$."""
    return jnp.where(mu > 0, 0.5 / jnp.where(mu > 0, mu, 1), jnp.inf)


def check_square(matrix: Any, size: int, name: str) -> None:
    """Raises `ValueError` unless (size, size) and, if known now, invertible."""
    if jnp.shape(matrix) != (size, size):
        msg = f"{name} has shape {jnp.shape(matrix)}; expected ({size}, {size})."
        raise ValueError(msg)
    if not is_concrete(matrix):
        return
    values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
    eps = float(jnp.finfo(matrix.dtype).eps)
    if not values[-1] > size * eps * values[0]:
        msg = (
            f"{name} is singular to working precision (singular values "
            f"{values[0]:.3g} to {values[-1]:.3g}); expected an invertible matrix."
        )
        raise ValueError(msg)
