"""The landscape: minimisers, critical points, and the constants around them."""

from jaxrelu.landscape._classification import (
    CriticalPoints as CriticalPoints,
    classify as classify,
)
from jaxrelu.landscape._critical_points import (
    find_critical_points as find_critical_points,
    refine_critical_points as refine_critical_points,
)
from jaxrelu.landscape._dimensions import (
    CriticalDimension as CriticalDimension,
    FamilyTable as FamilyTable,
    critical_dimension as critical_dimension,
    family_table as family_table,
)
from jaxrelu.landscape._full_spectrum import hessian_spectrum as hessian_spectrum
from jaxrelu.landscape._names import family_name as family_name
from jaxrelu.landscape._runs import (
    POLISHED_BY as POLISHED_BY,
    Runs as Runs,
    starting_weights as starting_weights,
)
from jaxrelu.landscape._symmetric import (
    IsotypicPart as IsotypicPart,
    SymmetricPoint as SymmetricPoint,
    symmetric_critical_point as symmetric_critical_point,
    symmetric_minimum as symmetric_minimum,
)
from jaxrelu.landscape._symmetry import Isotropy as Isotropy
