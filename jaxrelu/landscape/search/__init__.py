"""Critical points from random starts: descent, polishing, symmetry, names, counts."""

from jaxrelu._shares import Share as Share, share as share, z_score as z_score
from jaxrelu.landscape.search._census import (
    Census as Census,
    CensusRow as CensusRow,
    PublishedCount as PublishedCount,
    census as census,
    published_counts as published_counts,
)
from jaxrelu.landscape.search._classification import (
    CriticalPoints as CriticalPoints,
    classify as classify,
)
from jaxrelu.landscape.search._critical_points import (
    find_critical_points as find_critical_points,
    refine_critical_points as refine_critical_points,
)
from jaxrelu.landscape.search._names import (
    family_name as family_name,
)
from jaxrelu.landscape.search._runs import (
    POLISHED_BY as POLISHED_BY,
    Runs as Runs,
    starting_weights as starting_weights,
)
from jaxrelu.landscape.search._symmetry import (
    Isotropy as Isotropy,
)
