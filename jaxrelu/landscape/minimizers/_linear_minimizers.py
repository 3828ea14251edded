r"""Global minimisers of deep linear and linear residual networks, written down.

$f(W) = \tfrac12\|XP^\top - Y\|^2$, rows of X are samples, $P = M_l\cdots M_1$. With the
least-squares map $P^* = (X^+Y)^\top$ (Pythagoras, $X^\top(XP^{*\top} - Y) = 0$),

$$f = f^* + \tfrac12\|X(P - P^*)^\top\|^2, \qquad
f^* = \tfrac12\|(I - XX^+)Y\|^2,$$

so W is a global minimiser iff $XP^\top = XP^{*\top}$, provided every hidden layer is as
wide as the input or the output. Re-derived here from the notes on Zhou & Liang
(arXiv 1710.06910); none of that paper's theorem numbers is confirmed.
"""

import itertools
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import jax.random as jrandom
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrelu._checks import check_rank
from jaxrelu._products import matmul
from jaxrelu.data import Dataset
from jaxrelu.landscape.minimizers._matrix_products import (
    check_square,
    inverse_values,
    layers_of,
    reduced_data,
)
from jaxrelu.networks import LinearNetwork, LinearResidualNetwork


@eqx.filter_jit
def least_squares_map(
    data: Dataset, free: Float[Array, "m d"] | None = None
) -> Float[Array, "m d"]:
    r"""$P^* = (X^+Y)^\top$, or $P^* + Z(I - X^+X)$ with a free Z.

    These are all the linear maps of least squared error; one of them if X has rank d.

    Args:
        data: inputs (n, d), targets (n, m).
        free: Z, (m, d); adds nothing where X has rank d.

    Raises:
        ValueError: targets without an output axis, or Z of another shape.
    """
    reduced = reduced_data(data)
    scaled = inverse_values(reduced)[:, None] * reduced.targets
    best = matmul(scaled.T, reduced.right)
    if free is None:
        return best
    if free.shape != best.shape:
        msg = f"free has shape {free.shape}; expected {best.shape}, one row per output."
        raise ValueError(msg)
    basis = jnp.where(reduced.kept[:, None], reduced.right, 0)
    return best + free - matmul(matmul(free, basis.T), basis)


def linear_minimizer(
    data: Dataset,
    changes: Sequence[Float[Array, "d d"]],
    free: Float[Array, "m d"] | None = None,
) -> LinearNetwork:
    r"""The minimiser with $C_k = W_k \cdots W_1$ prescribed for $k < l$.

    $$W_1 = C_1,\quad W_k = C_kC_{k-1}^{-1},\quad W_l = P^*C_{l-1}^{-1}.$$

    For $d = m$ and $P^*$ invertible the minimisers are exactly these, each once: a
    manifold of dimension $(l-1)d^2$ with $2^{l-1}$ components, the signs of
    $\det C_k$. If $P^*$ is singular no minimiser has all layers invertible, and there
    are others than these.

    Args:
        data: inputs (n, d), targets (n, m).
        changes: $C_1, \dots, C_{l-1}$, invertible; none gives one layer.
        free: Z of `least_squares_map`, for inputs of rank below d.

    Raises:
        ValueError: a singular or misshapen $C_k$; data or Z that do not fit.

    Cost: $O(nd\min(n,d) + ld^3)$.
    """
    target = least_squares_map(data, free)
    return LinearNetwork(_chain(target, changes))


def residual_minimizer(
    data: Dataset,
    changes: Sequence[Float[Array, "d d"]],
    free: Float[Array, "d d"] | None = None,
) -> LinearResidualNetwork:
    r"""The same with $M_k = I + W_k$: the weights of `linear_minimizer` minus I.

    "Full rank" then means $I + W_k$ invertible; $W_k$ itself may be 0.

    Raises:
        ValueError: as `linear_minimizer`, or m ≠ d.
    """
    target = square_target(data, free)
    eye = jnp.eye(target.shape[0], dtype=target.dtype)
    return LinearResidualNetwork(tuple(w - eye for w in _chain(target, changes)))


def square_target(
    data: Dataset, free: Float[Array, "d d"] | None = None
) -> Float[Array, "d d"]:
    """`least_squares_map`, refused unless it is square."""
    target = least_squares_map(data, free)
    if target.shape[0] != target.shape[1]:
        msg = (
            f"the data have {target.shape[1]} inputs and {target.shape[0]} outputs; "
            "expected as many outputs as inputs: residual layers keep the width."
        )
        raise ValueError(msg)
    return target


def _chain(target: Array, changes: Sequence[Array]) -> tuple[Array, ...]:
    size = target.shape[1]
    for k, change in enumerate(changes):
        check_square(change, size, f"changes[{k}]")
    ends = [*changes, target]
    weights = [ends[0]]
    for before, after in itertools.pairwise(ends):
        # after @ inv(before), by a solve
        weights.append(jnp.linalg.solve(before.T, after.T).T)
    return tuple(weights)


def balanced_minimizer(data: Dataset, depth: int) -> LinearNetwork:
    r"""$W_1 = \Sigma^{1/l}V^\top$, $W_k = \Sigma^{1/l}$, $W_l = U\Sigma^{1/l}$.

    $P^* = U\Sigma V^\top$ (thin, hidden width $\min(d, m)$). Balanced:
    $W_{k+1}^\top W_{k+1} = W_kW_k^\top$. It exists for singular $P^*$ too, and
    `balanced_spectrum` has its Hessian's eigenvalues for whitened inputs.

    Args:
        data: inputs (n, d), targets (n, m).
        depth: l ≥ 1.

    Raises:
        ValueError: depth below 1.
    """
    _check_depth(depth)
    target = least_squares_map(data)
    if depth == 1:
        return LinearNetwork((target,))
    left, values, right = jnp.linalg.svd(target, full_matrices=False)
    root = values ** (1 / depth)
    middle = (jnp.diag(root),) * (depth - 2)
    return LinearNetwork((root[:, None] * right, *middle, left * root[None]))


def sample_linear_minimizer(
    key: PRNGKeyArray, data: Dataset, depth: int, spread: float = 0.5
) -> LinearNetwork:
    r"""A random member of the family of `linear_minimizer`.

    $C_k = Qe^{\Lambda}Q'$ with independent uniform orthogonal Q, Q' and
    $\Lambda_i$ uniform in ± ``spread``: condition number at most $e^{2\,spread}$, and
    every component of the set is reached.

    Args:
        key: PRNG key.
        data: inputs (n, d), targets (n, m).
        depth: l ≥ 1.
        spread: of the logarithms of the singular values.
    """
    return linear_minimizer(data, _changes(key, data, depth, spread))


def sample_residual_minimizer(
    key: PRNGKeyArray, data: Dataset, depth: int, spread: float = 0.5
) -> LinearResidualNetwork:
    """A random member of `residual_minimizer`; arguments as for the linear one."""
    return residual_minimizer(data, _changes(key, data, depth, spread))


def _changes(
    key: PRNGKeyArray, data: Dataset, depth: int, spread: float
) -> tuple[Array, ...]:
    _check_depth(depth)
    size, dtype = data.inputs.shape[1], data.inputs.dtype
    changes = []
    for each in jrandom.split(key, depth - 1):
        one, two, three = jrandom.split(each, 3)
        left = jrandom.orthogonal(one, size, dtype=dtype)
        right = jrandom.orthogonal(two, size, dtype=dtype)
        logs = jrandom.uniform(three, (size,), dtype, -spread, spread)
        changes.append(matmul(left * jnp.exp(logs)[None], right))
    return tuple(changes)


def _check_depth(depth: int) -> None:
    if depth < 1:
        msg = f"depth is {depth}; expected at least 1 layer."
        raise ValueError(msg)


def minimizer_tangent(
    network: LinearNetwork | LinearResidualNetwork,
    directions: Sequence[Float[Array, "_ _"]],
) -> tuple[Float[Array, "out in"], ...]:
    r"""The tangent vector of the minimiser set along $\dot C_k = K_kC_k$.

    $\Delta_k = K_kM_k - M_kK_{k-1}$ with $K_0 = K_l = 0$: the derivative of
    $W_k = C_kC_{k-1}^{-1}$. They span the kernel of the Hessian where all $M_k$ are
    square and invertible, and lie in it anywhere on the set.

    Args:
        network: a minimiser (or any network: P does not change to first order).
        directions: $K_1, \dots, K_{l-1}$, each square of the width of layer k.

    Raises:
        ValueError: not l - 1 directions, or of a wrong shape.
    """
    layers = layers_of(network)
    if len(directions) != len(layers) - 1:
        msg = (
            f"got {len(directions)} directions for {len(layers)} layers; expected "
            "one less than layers."
        )
        raise ValueError(msg)
    for k, direction in enumerate(directions):
        check_rank(direction, 2, f"directions[{k}]", "(width, width)")
    tangent = []
    for k, layer in enumerate(layers):
        move = jnp.zeros_like(layer)
        if k < len(directions):
            move = move + matmul(directions[k], layer)
        if k > 0:
            move = move - matmul(layer, directions[k - 1])
        tangent.append(move)
    return tuple(tangent)
