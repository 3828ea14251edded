"""Second derivatives of an objective as an operator."""

from collections.abc import Callable
from typing import Any

from jaxrelu.objectives import PopulationLoss, SquaredLoss
from jaxrelu.operators._empirical_hessian import empirical_hessian
from jaxrelu.operators._interface import AbstractOperator
from jaxrelu.operators._population_hessian import population_hessian


def hessian(
    objective: Any, network: Any, where: Callable | None = None
) -> AbstractOperator:
    r"""$\nabla^2 L$ at a network, as a symmetric linear operator.

    For a `PopulationLoss` a `PopulationHessian` in closed form, with respect to the
    student's inner weights. For a `SquaredLoss` an `EmpiricalHessian`, with the parts
    `.gauss_newton` and `.curvature`, of any network and any trained leaves.

    Args:
        objective: a `PopulationLoss` or a `SquaredLoss`.
        network: where; for a population loss an array of inner weights will do.
        where: the trained leaves; a population loss has a closed form for the default,
            the inner weights, only.

    Raises:
        TypeError: another objective.
        ValueError: a network that does not fit, or a `where` without a closed form.
    """
    if isinstance(objective, PopulationLoss):
        if where is not None:
            msg = (
                "`where` was given; the Hessian of a PopulationLoss is that of the "
                "inner weights. Leave it out."
            )
            raise ValueError(msg)
        return population_hessian(objective, network)
    if isinstance(objective, SquaredLoss):
        return empirical_hessian(objective, network, where)
    msg = (
        f"objective is a {type(objective).__name__}; expected a PopulationLoss or a "
        "SquaredLoss."
    )
    raise TypeError(msg)
