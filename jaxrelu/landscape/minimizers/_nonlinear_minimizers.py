r"""Global minimisers of networks with an injective activation, written down.

$f = \tfrac12\|\varphi(\cdots\varphi(XW_1^\top)\cdots)W_l^\top - Y\|^2$, rows of X are
samples. Given the hidden features $S_1, \dots, S_{l-1}$ (row per sample), each of rank
n and in the range of $\varphi$, and X of rank n ($n \le d$),

$$W_k = \bigl(S_{k-1}^+\varphi^{-1}(S_k)\bigr)^\top, \quad
W_l = (S_{l-1}^+Y)^\top, \quad S_0 = X,$$

has loss 0. The rank that matters is that of S, not that of $W_1$. For square,
invertible Y these are all minimisers of one hidden layer of n neurons ($S W_2^\top =
Y$). Re-derived here; the output layer of Zhou & Liang's model is not confirmed, so both
forms are here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrelu._checks import check_positive, is_concrete
from jaxrelu._products import matmul
from jaxrelu.activations import (
    AbstractActivation,
    Erf,
    LeakyReLU,
    Linear,
    Sigmoid,
    Softplus,
    Tanh,
    activation as get_activation,
)
from jaxrelu.data import Dataset
from jaxrelu.networks import DenseNetwork, Shallow


class OutputActivated(eqx.Module):
    r"""$x \mapsto \varphi(f(x))$: an activation after the last layer, too.

    Not one of the structured networks: operators differentiate it automatically.

    Attributes:
        network: f.
        activation: φ of the output.
    """

    network: Any
    activation: AbstractActivation

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "..."]:
        """The activated output."""
        return self.activation(self.network(x))


def activation_inverse(activation: AbstractActivation | str) -> Callable[[Any], Array]:
    r"""$\varphi^{-1}$ on the range of $\varphi$; NaN or infinity outside.

    Leaky ReLU with slope $s > 0$ and the linear one are bijections of the line; tanh,
    erf, logistic and softplus are injective with a smaller range.

    Raises:
        ValueError: an activation that is not injective (ReLU, GELU, quadratic, leaky
            ReLU with a slope that is not positive).
    """
    activation = get_activation(activation)
    match activation:
        case Linear():
            return lambda s: jnp.asarray(s)
        case LeakyReLU():
            slope = activation.slope
            if is_concrete(slope) and not float(slope) > 0:
                msg = f"the slope is {float(slope)}; expected > 0 for an inverse."
                raise ValueError(msg)
            return lambda s: jnp.where(s > 0, s, s / jnp.asarray(slope, s.dtype))
        case Tanh():
            return jnp.arctanh
        case Erf():
            return lambda s: jax.lax.erf_inv(s) * np.sqrt(2).item()
        case Sigmoid():
            return lambda s: jnp.log(s) - jnp.log1p(-s)
        case Softplus():
            beta = activation.beta
            return lambda s: s + jnp.log(-jnp.expm1(-beta * s)) / beta
    msg = (
        f"{activation.name} has no inverse; expected an injective activation, for "
        "example LeakyReLU(slope=0.1), or pass inverse=."
    )
    raise ValueError(msg)


def nonlinear_minimizer(
    data: Dataset,
    features: Sequence[Float[Array, "n _"]],
    activation: AbstractActivation | str = "leaky_relu",
    *,
    inverse: Callable | None = None,
    output_activation: AbstractActivation | str | None = None,
) -> DenseNetwork | OutputActivated:
    r"""The network of depth l, without biases, whose hidden features are given.

    Args:
        data: inputs (n, d) of rank n, targets (n, m) or (n,).
        features: $S_1, \dots, S_{l-1}$, (n, k) each, of rank n.
        activation: φ, injective.
        inverse: its inverse; that of `activation_inverse` by default.
        output_activation: also applied to the output; Y is then replaced by its
            inverse image.

    Raises:
        ValueError: X or an S of rank below n, entries outside the range of φ, shapes.
    """
    activation = get_activation(activation)
    inverse = activation_inverse(activation) if inverse is None else inverse
    targets = data.targets
    if output_activation is not None:
        output_activation = get_activation(output_activation)
        targets = activation_inverse(output_activation)(targets)
        _check_range(targets, "targets", output_activation)
    below, weights = data.inputs, []
    solve = _solver(below, "data.inputs")
    for k, each in enumerate(features):
        if each.ndim != 2 or each.shape[0] != data.n:
            msg = f"features[{k}] has shape {each.shape}; expected ({data.n}, k)."
            raise ValueError(msg)
        before = inverse(each)
        _check_range(before, f"features[{k}]", activation)
        weights.append(solve(before).T)
        solve = _solver(each, f"features[{k}]")
    last = solve(targets if targets.ndim == 2 else targets[:, None])
    weights.append(last.T if targets.ndim == 2 else last[:, 0])
    network = DenseNetwork(tuple(weights), None, activation)
    if output_activation is None:
        return network
    return OutputActivated(network, output_activation)


def shallow_minimizer(
    data: Dataset,
    features: Float[Array, "n k"],
    activation: AbstractActivation | str = "leaky_relu",
    *,
    inverse: Callable | None = None,
    free_inner: Float[Array, "k d"] | None = None,
    free_outer: Float[Array, "m k"] | Float[Array, " k"] | None = None,
) -> Shallow:
    r"""One hidden layer, from its features S (n, k): loss 0.

    $$W = (X^+\varphi^{-1}(S))^\top + Z_1(I - X^+X), \quad
    V = (S^+Y)^\top + Z_2(I - S^+S).$$

    Args:
        data: inputs (n, d) of rank n, targets (n, m) or (n,).
        features: S, of rank n, so $k \ge n$.
        activation: φ, injective.
        inverse: its inverse; that of `activation_inverse` by default.
        free_inner: $Z_1$, for $d > n$.
        free_outer: $Z_2$, for $k > n$; in the shape of V.

    Raises:
        ValueError: as `nonlinear_minimizer`.
    """
    network = nonlinear_minimizer(data, (features,), activation, inverse=inverse)
    assert isinstance(network, DenseNetwork)
    inner, outer = network.weights
    if free_inner is not None:
        _check_like(free_inner, inner, "free_inner")
        inner = inner + _off_rows(free_inner, data.inputs)
    if free_outer is not None:
        _check_like(free_outer, outer, "free_outer")
        outer = outer + _off_rows(jnp.atleast_2d(free_outer), features).reshape(
            outer.shape
        )
    return Shallow(inner, outer, network.activation)


def sample_shallow_minimizer(
    key: PRNGKeyArray,
    data: Dataset,
    num_neurons: int,
    activation: AbstractActivation | str = "leaky_relu",
    spread: float = 0.5,
) -> Shallow:
    r"""Random features $S = Ue^\Lambda V^\top$ with orthonormal U and V.

    $|\Lambda_i| \le$ spread. For a bijective φ (leaky ReLU, linear); others need
    features in their range.

    Raises:
        ValueError: fewer neurons than samples.
    """
    check_positive(spread, "spread")
    n, dtype = data.n, data.inputs.dtype
    if num_neurons < n:
        msg = f"num_neurons is {num_neurons}; expected at least the {n} samples."
        raise ValueError(msg)
    one, two, three = jrandom.split(key, 3)
    left = jrandom.orthogonal(one, n, dtype=dtype)
    right = jrandom.orthogonal(two, num_neurons, dtype=dtype)[:n]
    logs = jrandom.uniform(three, (n,), dtype, -spread, spread)
    features = matmul(left * jnp.exp(logs)[None], right)
    return shallow_minimizer(data, features, activation)


def _solver(matrix: Array, name: str) -> Callable[[Array], Array]:
    r"""$B \mapsto M^+B$ for M of full row rank."""
    rows, cols = matrix.shape
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    eps = float(jnp.finfo(matrix.dtype).eps)
    full = rows <= cols
    if full and is_concrete(values):
        full = bool(values[-1] > max(rows, cols) * eps * values[0])
    if not full:
        low = float(values[-1]) if is_concrete(values) else 0.0
        msg = (
            f"{name} has shape {matrix.shape} and smallest singular value {low:.3g}; "
            f"expected rank {rows}, the number of samples. Loss 0 is not guaranteed "
            "otherwise: use fewer samples or more columns."
        )
        raise ValueError(msg)
    return lambda b: matmul(right.T, matmul(left.T, b) / values[:, None])


def _off_rows(free: Array, matrix: Array) -> Array:
    """Z without its part in the row space of a matrix."""
    _, _, right = jnp.linalg.svd(matrix, full_matrices=False)
    return free - matmul(matmul(free, right.T), right)


def _check_like(given: Array, like: Array, name: str) -> None:
    if given.shape != like.shape:
        msg = f"{name} has shape {given.shape}; expected {like.shape}."
        raise ValueError(msg)


def _check_range(before: Array, name: str, activation: AbstractActivation) -> None:
    if is_concrete(before) and not np.isfinite(np.asarray(before)).all():
        msg = (
            f"{name} holds values outside the open range of {activation.name}; "
            "expected features that it can produce."
        )
        raise ValueError(msg)
