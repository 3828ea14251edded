r"""Skip normal form: a linear map and one neuron per kink.

Every bias-free ReLU network with one hidden layer is uniquely
$$ f(x) = M x + \sum_H w_H\,\rho(\langle n_H, x\rangle), $$
with pairwise non-parallel $n_H$ of sup-norm 1 whose first nonzero entry is positive
and $w_H \ne 0$: in the canonical form $\rho(t) = \tfrac12(t + |t|)$ gives
$w_H = 2\kappa_H$, $M = L - \sum_H \kappa_H n_H^\top$. Opposite pairs are absorbed by
$\rho(-t) = \rho(t) - t$, and M is the Jacobian on the cell of
$-(1, \varepsilon, \varepsilon^2, \dots)$.

Inverse stability holds in these coordinates without any restriction of the functions:
if $r = |f - g|_{W^{1,\infty}}$, then $\|M_f - M_g\|_{\max} \le r$, because both
Jacobians belong to one cell, and after the best matching (zero neurons filling up) the
balanced neurons differ by at most $2\sqrt2\,r^{1/2}$, because across a plane the
Jacobian of f - g jumps by at most 2r (proof in `_inverse_stability`).
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._products import matmul
from jaxrelu.networks import Shallow
from jaxrelu.realization._canonical import canonical
from jaxrelu.realization._fibre import bottleneck_assignment
from jaxrelu.realization._neurons import neurons, sup


class SkipForm(eqx.Module):
    r"""$x \mapsto M x + \sum_H c_H\,\rho(\langle a_H, x\rangle)$, neurons balanced.

    Attributes:
        linear: M, (m, d).
        inner: $a_H = \|w_H\|_\infty^{1/2} n_H$, (h, d).
        outer: $c_H = w_H/\|w_H\|_\infty^{1/2}$, (m, h).
        scalar: whether the network has no output axis.
    """

    linear: Float[Array, "m d"]
    inner: Float[Array, "h d"]
    outer: Float[Array, "m h"]
    scalar: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "..."]:
        """Outputs (*batch,) or (*batch, m)."""
        hidden = jnp.maximum(matmul(x, self.inner.T), 0)
        value = matmul(x, self.linear.T) + matmul(hidden, self.outer.T)
        return value[..., 0] if self.scalar else value

    def to_network(self) -> Shallow:
        r"""The same function without the skip: two neurons more per column of M."""
        d = self.linear.shape[1]
        ends = jnp.eye(d, dtype=self.linear.dtype)
        inner = jnp.concatenate([self.inner, ends, -ends])
        outer = jnp.concatenate([self.outer, self.linear, -self.linear], axis=1)
        return Shallow(inner, outer[0] if self.scalar else outer)


class SkipDistance(eqx.Module):
    r"""How far two functions are in the coordinates of the skip normal form.

    Attributes:
        linear: $\|M_f - M_g\|_{\max}$.
        neurons: bottleneck distance of the balanced neurons, zero ones filling up.
    """

    linear: float
    neurons: float


def skip_normal_form(network: Any, tolerance: float | None = None) -> SkipForm:
    """The skip normal form of a bias-free ReLU network with one hidden layer.

    Args:
        network: `Shallow`, or a `DenseNetwork` without biases.
        tolerance: as in `canonical`.

    Raises:
        TypeError, ValueError: not such a network.

    Cost: as `canonical`.
    """
    neurons(network, affine=False)
    form = canonical(network, tolerance)
    linear = form.linear - form.kinks.T @ form.normals
    weights = 2 * form.kinks.T
    root = np.sqrt(sup(weights.T))
    return SkipForm(
        jnp.asarray(linear, form.dtype),
        jnp.asarray(form.normals * root[:, None], form.dtype),
        jnp.asarray(weights / root[None], form.dtype),
        form.scalar,
    )


def skip_distance(f: SkipForm, g: SkipForm) -> SkipDistance:
    r"""Distances of two skip normal forms, bounded by r and $2\sqrt2\,r^{1/2}$.

    $r = |f - g|_{W^{1,\infty}}$; see this module for the proof.

    Args:
        f: a skip normal form.
        g: another, with inputs and outputs of the same sizes.

    Raises:
        ValueError: sizes that differ.

    Cost: a bottleneck assignment of h neurons.
    """
    if f.linear.shape != g.linear.shape:
        msg = f"linear parts have shapes {f.linear.shape} and {g.linear.shape}."
        raise ValueError(msg)
    linear = np.abs(np.asarray(f.linear) - np.asarray(g.linear)).max()
    h = max(len(f.inner), len(g.inner))
    if h == 0:
        return SkipDistance(float(linear), 0.0)
    tables = []
    for form in (f, g):
        rows = np.concatenate([np.asarray(form.inner), np.asarray(form.outer).T], 1)
        tables.append(np.pad(rows.astype(np.float64), ((0, h - len(rows)), (0, 0))))
    costs = np.abs(tables[0][:, None] - tables[1][None]).max(axis=2)
    return SkipDistance(float(linear), bottleneck_assignment(costs)[0])
