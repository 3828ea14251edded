"""Explicit global minimisers, their Hessians, and the other critical points."""

from jaxrelu.landscape.minimizers._gauss_newton_spectrum import (
    balanced_spectrum as balanced_spectrum,
    hessian_rank as hessian_rank,
    minimizer_gram as minimizer_gram,
    minimizer_spectrum as minimizer_spectrum,
    scalar_curvature as scalar_curvature,
    spectrum_bounds as spectrum_bounds,
)
from jaxrelu.landscape.minimizers._linear_critical_points import (
    CriticalPointCheck as CriticalPointCheck,
    ShallowLevels as ShallowLevels,
    check_critical_point as check_critical_point,
    escape_direction as escape_direction,
    origin_spectrum as origin_spectrum,
    shallow_critical_point as shallow_critical_point,
    shallow_levels as shallow_levels,
    spurious_relu_minimum as spurious_relu_minimum,
)
from jaxrelu.landscape.minimizers._linear_minimizers import (
    balanced_minimizer as balanced_minimizer,
    least_squares_map as least_squares_map,
    linear_minimizer as linear_minimizer,
    minimizer_tangent as minimizer_tangent,
    residual_minimizer as residual_minimizer,
    sample_linear_minimizer as sample_linear_minimizer,
    sample_residual_minimizer as sample_residual_minimizer,
)
from jaxrelu.landscape.minimizers._minimizer_set import (
    MinimizerCheck as MinimizerCheck,
    Projection as Projection,
    check_minimizer as check_minimizer,
    minimum_gap as minimum_gap,
    minimum_value as minimum_value,
    project_to_minimizers as project_to_minimizers,
)
from jaxrelu.landscape.minimizers._near_identity import (
    polar_minimizer as polar_minimizer,
    root_minimizer as root_minimizer,
)
from jaxrelu.landscape.minimizers._nonlinear_minimizers import (
    OutputActivated as OutputActivated,
    activation_inverse as activation_inverse,
    nonlinear_minimizer as nonlinear_minimizer,
    sample_shallow_minimizer as sample_shallow_minimizer,
    shallow_minimizer as shallow_minimizer,
)
