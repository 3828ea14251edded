r"""Path lifting: the products of weights along all paths through a ReLU network.

$\Phi(\theta)_p = \prod_{e \in p} \theta_e$ over paths p from an input or a bias to an
output (Stock & Gribonval; Gonon et al.); for one hidden layer without biases
$\Phi = (c_i a_i^\top)_i$. Positive rescalings do not change it, and
$\|\Phi\|_1$ is the forward pass of $|\theta|$ on the all-ones input.

If $\theta_i\theta_i' \ge 0$ for all i, then for ReLU networks of any depth
$$ \|f_\theta(x) - f_{\theta'}(x)\|_1 \le \max(\|x\|_\infty, 1)\,
   \|\Phi(\theta) - \Phi(\theta')\|_1 $$
(without biases with the factor $\|x\|_\infty$). Proof, for weights without zeros; zeros
follow by continuity. Let $\theta_i(t) = \pm|\theta_i|^{1-t}|\theta_i'|^t$. Every
coordinate of $\Phi(\theta(t))$ is ± an exponential of t, hence monotone, so the total
variation of $\Phi$ along the way is $\|\Phi(\theta) - \Phi(\theta')\|_1$.
Pre-activations are piecewise analytic in t, so [0, 1] splits into finitely many
intervals of constant activation pattern, and on each of them
$f = \sum_p \Phi_p\,[\text{p active}]\,x_p$ with $|x_p| \le \max(\|x\|_\infty, 1)$. The
sign condition is needed: $(a, c) = (1, 1)$ and $(-1, -1)$ have equal Φ.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrelu._checks import is_concrete
from jaxrelu._memory import require_bytes
from jaxrelu._products import matmul
from jaxrelu.networks import DenseNetwork, Shallow


def _layers(network: Any) -> tuple[list[Array], list[Array | None]]:
    biases: list[Array | None] = [None, None]
    if isinstance(network, Shallow):
        weights = [network.inner, network.outer]
    elif isinstance(network, DenseNetwork):
        weights, biases = list(network.weights), list(network.biases)
    else:
        msg = (
            f"got a {type(network).__name__}; expected a Shallow network or a "
            "DenseNetwork."
        )
        raise TypeError(msg)
    slopes = network.activation.slopes
    if slopes is None:
        msg = (
            f"the activation is {network.activation.name!r}; expected one that is "
            "linear on both sides of 0, such as 'relu'."
        )
        raise ValueError(msg)
    if weights[-1].ndim == 1:
        weights[-1] = weights[-1][None]
        final = biases[-1]
        biases[-1] = None if final is None else final[None]
    return weights, biases


def path_norm(network: Shallow | DenseNetwork) -> Float[Array, ""]:
    r"""$\|\Phi(\theta)\|_1$: the sum over all paths of the product of $|\theta_e|$.

    One hidden layer: $\sum_i \|c_i\|_1\|a_i\|_1$. Paths from biases count. Invariant
    under permutations and rescalings; an upper bound on $|f|_{W^{1,\infty}}$ when there
    are no biases.

    Raises:
        TypeError, ValueError: not a dense network with a piecewise linear activation.

    Cost: one forward pass of $|\theta|$ on one input.
    """
    weights, biases = _layers(network)
    value = jnp.ones((weights[0].shape[1],), weights[0].dtype)
    for weight, bias in zip(weights, biases, strict=True):
        value = matmul(jnp.abs(weight), value)
        value = value if bias is None else value + jnp.abs(bias)
    return jnp.sum(value)


def path_lifting(network: Shallow | DenseNetwork) -> tuple[Float[Array, "..."], ...]:
    r"""$\Phi(\theta)$, one array per place where paths start.

    The first array holds the paths from the inputs, with the axes (output, neurons of
    the last hidden layer, …, neurons of the first, input); then one array for each
    bias, from the first layer to the last: (output, neurons of the last hidden layer,
    …, neurons of the bias's own layer). `Shallow`: one array (m, k, d),
    $c_{pi} a_{iq}$.

    Raises:
        TypeError, ValueError: as `path_norm`.
        MemoryRefusedError: too many paths; `path_norm` needs none of them.

    Cost: as many numbers as there are paths, $\prod$ of the widths.
    """
    weights, biases = _layers(network)
    sizes = [weights[0].shape[1], *(w.shape[0] for w in weights)]
    starts = [0, *(i + 1 for i, b in enumerate(biases) if b is not None)]
    count = sum(math.prod(sizes[start:]) for start in starts)
    require_bytes(
        2 * count * weights[0].dtype.itemsize,
        f"{count:,} paths",
        "path_norm sums them without writing them out.",
    )
    tails = [jnp.eye(sizes[-1], dtype=weights[0].dtype)]
    for weight in reversed(weights[1:]):
        tails.append(tails[-1][..., None] * _expand(weight, tails[-1].ndim + 1))
    tails.reverse()  # tails[l] runs from layer l's output to the network's
    lifted = [tails[0][..., None] * _expand(weights[0], tails[0].ndim + 1)]
    for level, bias in enumerate(biases):
        if bias is not None:
            tail = tails[level]
            lifted.append(tail * bias.reshape((1,) * (tail.ndim - 1) + (-1,)))
    return tuple(_diagonal(paths) for paths in lifted)


def _expand(weight: Array, rank: int) -> Array:
    return weight.reshape((1,) * (rank - 2) + weight.shape)


def _diagonal(paths: Array) -> Array:
    """Drops the doubled output axis that the identity at the end brings."""
    return jnp.einsum("oo...->o...", paths) if paths.ndim > 2 else jnp.diagonal(paths)


def same_orthant(a: Any, b: Any) -> Bool[Array, ""]:
    r"""Whether $\theta_i\theta_i' \ge 0$ for all weights and biases."""
    products = jax.tree.map(
        lambda x, y: jnp.all(jnp.sign(x) * jnp.sign(y) >= 0),
        eqx.filter(a, eqx.is_inexact_array),
        eqx.filter(b, eqx.is_inexact_array),
    )
    return jnp.all(jnp.stack(jax.tree.leaves(products)))


class PathBound(eqx.Module):
    r"""What the path-lifting inequality says of two networks.

    Attributes:
        bound: bound on $\|f_\theta(x) - f_{\theta'}(x)\|_1$ per input, infinite where
            the sign condition fails.
        distance: $\|\Phi(\theta) - \Phi(\theta')\|_1$.
        applies: whether $\theta_i\theta_i' \ge 0$ for all i.
    """

    bound: Float[Array, " n"]
    distance: Float[Array, ""]
    applies: Bool[Array, ""]


def path_bound(
    a: Shallow | DenseNetwork, b: Shallow | DenseNetwork, inputs: Float[Array, "n d"]
) -> PathBound:
    r"""The path-lifting inequality of this module for two networks of one shape.

    Args:
        a: θ, a ReLU network of any depth.
        b: θ′, of the same shape.
        inputs: where the outputs are compared.

    Raises:
        ValueError: shapes that differ, or an activation with slopes beyond 1.

    Cost: as `path_lifting`.
    """
    if jax.tree.map(np.shape, a) != jax.tree.map(np.shape, b):
        msg = "the networks have different shapes; paths cannot be compared."
        raise ValueError(msg)
    slopes = [abs(s) for s in a.activation.slopes or () if is_concrete(s)]
    if any(float(s) > 1 for s in slopes):
        msg = f"the activation has slopes {slopes}; expected none beyond 1."
        raise ValueError(msg)
    first, second = path_lifting(a), path_lifting(b)
    gaps = [jnp.sum(jnp.abs(p - q)) for p, q in zip(first, second, strict=True)]
    distance = jnp.sum(jnp.stack(gaps))
    size = jnp.max(jnp.abs(inputs), axis=1)
    size = size if len(first) == 1 else jnp.maximum(size, 1)
    applies = same_orthant(a, b)
    bound = jnp.where(applies, size * distance, jnp.inf)
    return PathBound(bound, distance, applies)
