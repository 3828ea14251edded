"""Symmetric families of critical points, for any number of neurons."""

from jaxrelu.landscape.families._dimensions import (
    CriticalDimension as CriticalDimension,
    FamilyTable as FamilyTable,
    critical_dimension as critical_dimension,
    family_table as family_table,
)
from jaxrelu.landscape.families._series import (
    HalfPowerSeries as HalfPowerSeries,
    series as series,
)
from jaxrelu.landscape.families._symmetric import (
    IsotypicPart as IsotypicPart,
    SymmetricPoint as SymmetricPoint,
    symmetric_critical_point as symmetric_critical_point,
    symmetric_minimum as symmetric_minimum,
)
