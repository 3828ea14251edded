"""All Hessian eigenvalues of the population loss, in any number of dimensions."""

import math
from typing import Any

import jax.numpy as jnp
import lineax as lx
import numpy as np

from jaxrelu._checks import is_concrete
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss
from jaxrelu.operators._population_hessian import population_hessian
from jaxrelu.spectra import spectrum
from jaxrelu.spectra._distinct import DistinctSpectrum


def hessian_spectrum(objective: PopulationLoss, student: Any) -> DistinctSpectrum:
    r"""Eigenvalues of $\nabla^2 F(W)$ from the span of the neurons alone.

    With $r$ the rank of all rows of $W$ and $V$ together, the Hessian is that of the
    same weights written in a basis of their span, $nr \times nr$, and
    $M \otimes I_{d - r}$ with the $n \times n$ matrix $M$ of
    `PopulationHessian.reduced_block`. So $d$ costs nothing: $4(nr)^3/3$ operations.

    Args:
        objective: a population loss.
        student: W, or a network; no zero neuron.

    Returns:
        Values with a rounding bound each, labelled ``"span"`` (multiplicity 1) and
        ``"orthogonal"`` (multiplicity $d - r$). The bound covers the eigenvalue
        algorithm, the rounding of the entries, and singular values of the stacked
        weights that count as 0.

    Raises:
        ValueError: traced weights, or what `jaxrelu.hessian` refuses.
        MemoryRefusedError: with the bytes needed, before anything is allocated.
    """
    student, teacher = objective.student(student), objective.teacher
    if not (is_concrete(student.inner) and is_concrete(teacher.inner)):
        msg = (
            "the weights are traced; expected numbers, whose rank decides how many "
            "eigenvalues there are. Use spectrum(hessian(objective, student))."
        )
        raise ValueError(msg)
    operator = population_hessian(objective, student)
    rows = np.concatenate([np.asarray(student.inner), np.asarray(teacher.inner)])
    eps = float(np.finfo(rows.dtype).eps)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, sizes, basis = np.linalg.svd(unit, full_matrices=False)
    dropped = 4 * eps * math.sqrt(len(rows))
    rank = int(np.sum(sizes > dropped))
    d = objective.in_size
    if rank < d:
        basis = basis[:rank].T
        inside = lambda net: Shallow(
            jnp.asarray(np.asarray(net.inner) @ basis), net.outer
        )
        student = inside(student)
        operator = population_hessian(PopulationLoss(inside(teacher)), student)
    span = spectrum(operator)
    # entries and basis: each weight is off by a few roundings of its norm
    norms = np.linalg.norm(rows, axis=1)
    n = student.width
    outer = np.concatenate([np.asarray(student.outer), np.asarray(teacher.outer)])
    mass = np.sum(norms * np.abs(outer))
    spread = np.max(np.abs(np.asarray(student.outer)) / norms[:n]) * mass
    extra = dropped * spread
    values, error = np.asarray(span.values), np.asarray(span.error)
    multiplicities, labels = (1,) * len(values), ("span",) * len(values)
    if rank < d:
        outside = spectrum(
            lx.MatrixLinearOperator(operator.reduced_block(), lx.symmetric_tag)
        )
        values = np.concatenate([values, np.asarray(outside.values)])
        error = np.concatenate([error, np.asarray(outside.error)])
        multiplicities += (d - rank,) * n
        labels += ("orthogonal",) * n
    order = np.argsort(-values, kind="stable")
    return DistinctSpectrum(
        values=jnp.asarray(values[order]),
        error=jnp.asarray(error[order] + error.dtype.type(extra)),
        multiplicities=tuple(multiplicities[i] for i in order),
        labels=tuple(labels[i] for i in order),
        method=f"{span.method}, and n x n beyond the span of rank {rank}",
        error_kind="rounding bound",
    )
