"""The landscape: minimisers, critical points, and the constants around them."""

from jaxrelu.landscape._dimensions import (
    CriticalDimension as CriticalDimension,
    FamilyTable as FamilyTable,
    critical_dimension as critical_dimension,
    family_table as family_table,
)
from jaxrelu.landscape._symmetric import (
    IsotypicPart as IsotypicPart,
    SymmetricPoint as SymmetricPoint,
    symmetric_critical_point as symmetric_critical_point,
    symmetric_minimum as symmetric_minimum,
)
