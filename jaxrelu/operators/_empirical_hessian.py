r"""The Hessian of the squared loss over data: $J^\top J + \sum_i r_i \nabla^2 f_i$."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from jaxrelu._checks import check_finite
from jaxrelu._products import matmul
from jaxrelu.activations import AbstractActivation
from jaxrelu.networks import (
    AbstractNetwork,
    DenseNetwork,
    LinearNetwork,
    LinearResidualNetwork,
    Shallow,
    where_spec,
)
from jaxrelu.objectives import SquaredLoss
from jaxrelu.operators._autodiff import AutodiffCurvature
from jaxrelu.operators._curvature import LayeredCurvature, Leaf, Samples
from jaxrelu.operators._interface import (
    AbstractOperator,
    AbstractSymmetricOperator,
    require_hessian_bytes,
)
from jaxrelu.operators._jacobian import jacobian


class GaussNewton(AbstractSymmetricOperator):
    r"""$J^\top J$, symmetric and positive semidefinite.

    Attributes:
        jacobian: J, (nm, p).
    """

    jacobian: AbstractOperator

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p)."""
        return self.jacobian.shape[1], self.jacobian.shape[1]

    @property
    def dtype(self) -> jnp.dtype:
        """That of the Jacobian."""
        return self.jacobian.dtype

    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        r"""$J^\top (J u)$."""
        return self.jacobian.rmv(self.jacobian.mv(vector))

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The (p, p) matrix through the Jacobian's factors, see `KhatriRao.cogram`."""
        require_hessian_bytes(self.shape[0], self.dtype)
        return self.jacobian.cogram()


class EmpiricalHessian(AbstractSymmetricOperator):
    r"""$\nabla^2 L = J^\top J + \sum_i r_i \nabla^2 f(x_i)$, symmetric.

    Rows and columns are ordered as `jax.flatten_util.ravel_pytree` orders the trained
    leaves.

    Attributes:
        gauss_newton: the first part, positive semidefinite.
        curvature: the second part; exactly 0 where the residual is, and for a piecewise
            linear activation also where only one layer trains (`curvature.is_zero`).
    """

    gauss_newton: GaussNewton
    curvature: LayeredCurvature | AutodiffCurvature

    @property
    def shape(self) -> tuple[int, int]:
        """(p, p)."""
        return self.gauss_newton.shape

    @property
    def dtype(self) -> jnp.dtype:
        """Floating dtype of the trained leaves."""
        return self.gauss_newton.dtype

    def mv(self, vector: Float[Array, " cols"]) -> Float[Array, " rows"]:
        """One pass forward and one back for both parts, through the layers' factors.

        Neither p × p nor n × p numbers are formed. A module without known layers takes
        a product of each part, by automatic differentiation.
        """
        if isinstance(self.curvature, LayeredCurvature):
            return self.curvature.product(vector, gauss_newton=True)
        return self.gauss_newton.mv(vector) + self.curvature.mv(vector)

    def as_matrix(self) -> Float[Array, "rows cols"]:
        """The (p, p) matrix, by blocks; refused with the bytes if it would not fit."""
        require_hessian_bytes(self.shape[0], self.dtype, copies=3)
        dense = self.gauss_newton.as_matrix()
        return dense if self.curvature.is_zero else self.curvature.add_to(dense)


@lx.is_positive_semidefinite.register(GaussNewton)
def _(operator):  # noqa: ARG001
    return True


def gauss_newton(
    objective: Any, network: PyTree, where: Callable | None = None
) -> GaussNewton:
    r"""The Gauss-Newton matrix $J^\top J$ of a squared loss, (p, p), as an operator.

    It is the Hessian of the loss of the linearised network, positive semidefinite, and
    the whole Hessian where the residual is 0. Its eigenvalues are the squares of the
    singular values of `jacobian(network, data.inputs, where)`, which resolve small
    ones better.

    Args:
        objective: a `SquaredLoss`; its inputs are used, its targets are not.
        network: as for `jacobian`.
        where: the trained leaves, as for `jacobian`.

    Raises:
        TypeError: an objective that is no `SquaredLoss`.
        ValueError: as `jacobian`.

    Cost: products as those of the Jacobian. `as_matrix` for a layer of k neurons, d
    inputs and one output: nk²d²/2 operations, a quarter of forming J and multiplying.
    """
    _check_objective(objective)
    return GaussNewton(jacobian(network, objective.data.inputs, where))


def empirical_hessian(
    objective: SquaredLoss, network: PyTree, where: Callable | None = None
) -> EmpiricalHessian:
    r"""$\nabla^2 L$ of $L(\theta) = \frac12 \sum_i \|f_\theta(x_i) - y_i\|^2$.

    `hessian` calls this for a `SquaredLoss`. With the residual $r = f_\theta(X) - y$,
    $$\nabla^2 L = J^\top J + \sum_{i,o} r_{io} \nabla^2 f_o(x_i),$$
    a sum without 1/n, with the parts in `.gauss_newton` and `.curvature`. For a shallow
    network and trained inner weights the second part is block diagonal over neurons,
    $\sum_i (r_i \cdot v_l)\,\varphi''(w_l \cdot x_i)\, x_i x_i^\top$.

    ReLU and other piecewise linear activations have φ'' = 0 here, its value almost
    everywhere: at weights with a pre-activation exactly 0 the loss may have no
    Hessian, and what is returned is that of the cell which the convention φ'(0)
    chooses. `near_kinks` counts the pre-activations that rounding could move across.

    Shallow, dense, linear and linear residual networks of any depth are known by their
    layers. Any other module, and trained leaves that are no weights, take automatic
    differentiation for the curvature (and for J, where it has no factors).

    Args:
        objective: the loss.
        network: a network, or any Equinox module that maps one sample to its output.
        where: the trained leaves, `lambda net: net.inner`; None takes the network's
            default.

    Raises:
        TypeError: an objective that is no `SquaredLoss`.
        ValueError: data that do not fit the network, NaN or infinite weights, dtypes
            that differ, `where` that selects nothing or an integer array.

    Cost: one pass forward and back to build, about two for a product. The dense matrix
    of a shallow network takes nk²d²/2 operations, and the curvature nkd² more.
    """
    _check_objective(objective)
    spec = where_spec(network, where)
    trained, rest = eqx.partition(network, spec)
    for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_inexact_array)):
        check_finite(leaf, "a weight of the network")
    first = GaussNewton(jacobian(network, objective.data.inputs, where))
    residual = objective.residual(network)
    inputs = objective.data.inputs
    second = _layered(network, spec, inputs, residual)
    if second is None:
        second = AutodiffCurvature(trained, rest, inputs, residual)
    return EmpiricalHessian(first, second)


def _check_objective(objective: Any) -> None:
    if not isinstance(objective, SquaredLoss):
        msg = (
            f"the objective is {type(objective).__name__}; expected a SquaredLoss, "
            "whose Jacobian over the data the Gauss-Newton matrix is made of."
        )
        raise TypeError(msg)


def _layered(
    network: PyTree, spec: PyTree[bool], inputs: Array, residual: Array
) -> LayeredCurvature | None:
    """The curvature by layers; None for a module or a leaf without known layers."""
    known = _levels(network)
    if known is None:
        return None
    weights, biases, activation, tags = known
    marks = zip(jax.tree.leaves(tags), jax.tree.leaves(spec), strict=True)
    leaves = tuple(tag for tag, mark in marks if mark)
    if not all(isinstance(leaf, Leaf) for leaf in leaves):
        return None
    residual = residual if residual.ndim == 2 else residual[:, None]
    samples = _samples(weights, biases, activation, inputs, residual)
    return LayeredCurvature(weights, samples, leaves)


def _levels(
    network: PyTree,
) -> tuple[tuple, tuple, AbstractActivation | None, AbstractNetwork] | None:
    """Weights and biases of all levels, φ, and the network with `Leaf`s for both."""
    match network:
        case Shallow():
            outer = network.outer if network.outer.ndim == 2 else network.outer[None]
            tags = eqx.tree_at(
                lambda net: (net.inner, net.outer),
                network,
                (Leaf(0, False), Leaf(1, False)),
            )
            return (network.inner, outer), (None, None), network.activation, tags
        case DenseNetwork():
            rows = [w if w.ndim == 2 else w[None] for w in network.weights]
            levels = range(len(rows))
            tags = eqx.tree_at(
                lambda net: (net.weights, net.biases),
                network,
                (
                    tuple(Leaf(level, False) for level in levels),
                    tuple(
                        None if network.biases[level] is None else Leaf(level, True)
                        for level in levels
                    ),
                ),
                is_leaf=lambda leaf: leaf is None,
            )
            biases = [b if b is None else b.reshape(-1) for b in network.biases]
            return tuple(rows), tuple(biases), network.activation, tags
        case LinearNetwork() | LinearResidualNetwork():
            weights = network.weights
            if isinstance(network, LinearResidualNetwork):
                identity = jnp.eye(network.in_size, dtype=weights[0].dtype)
                weights = tuple(identity + weight for weight in weights)
            new = tuple(Leaf(level, False) for level in range(len(weights)))
            tags = eqx.tree_at(lambda net: net.weights, network, new)
            return weights, (None,) * len(weights), None, tags
    return None


@eqx.filter_jit
def _samples(
    weights: tuple,
    biases: tuple,
    activation: AbstractActivation | None,
    inputs: Array,
    residual: Array,
) -> Samples:
    """One pass forward for inputs and slopes, one back for the weighted gradients."""
    hidden, before = [inputs], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        z = matmul(hidden[-1], weight.T)
        before.append(z if bias is None else z + bias[None])
        hidden.append(before[-1] if activation is None else activation(before[-1]))
    deltas, bends = [residual], []
    for weight, z in zip(reversed(weights[1:]), reversed(before), strict=True):
        carried = matmul(deltas[-1], weight)
        if activation is None:
            deltas.append(carried)
        else:
            deltas.append(activation.derivative(z) * carried)
            bends.append(activation.second_derivative(z) * carried)
    straight = activation is None or activation.slopes is not None
    return Samples(
        inputs=tuple(hidden),
        slopes=None
        if activation is None
        else tuple(activation.derivative(z) for z in before),
        bends=None if straight else tuple(reversed(bends)),
        deltas=tuple(reversed(deltas)),
    )
