"""Realisations of shallow ReLU networks: cells, Sobolev norms, distances."""

from jaxrelu.realization._arrangement import num_cells as num_cells
from jaxrelu.realization._cells import Cells as Cells, cells as cells
from jaxrelu.realization._norms import Norm as Norm
from jaxrelu.realization._seminorm import (
    distance as distance,
    seminorm as seminorm,
)
from jaxrelu.realization._value import (
    cell_jacobian as cell_jacobian,
    seminorm_value as seminorm_value,
)
