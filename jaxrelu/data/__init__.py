"""Where data come from: samplers, real sets, files; and the checks they pass."""

from jaxrelu.data._dataset import Dataset as Dataset
from jaxrelu.data._deterministic import (
    basis_and_bisectors as basis_and_bisectors,
    equicorrelated as equicorrelated,
    half_circle as half_circle,
)
from jaxrelu.data._files import load as load, save as save
from jaxrelu.data._geometry import (
    check_no_parallel_rows as check_no_parallel_rows,
    check_unit_rows as check_unit_rows,
    separation as separation,
    unit_rows as unit_rows,
)
from jaxrelu.data._labels import (
    cluster_signs as cluster_signs,
    linear_teacher as linear_teacher,
    random_signs as random_signs,
    signs as signs,
)
from jaxrelu.data._real import (
    breast_cancer as breast_cancer,
    diabetes as diabetes,
    digits as digits,
)
from jaxrelu.data._samplers import (
    clustered as clustered,
    gaussian as gaussian,
    orthonormal as orthonormal,
    separated as separated,
    separation_bound as separation_bound,
    sphere as sphere,
)
