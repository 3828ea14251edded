"""The landscape: minimisers, critical points, and the constants around them."""

from jaxrelu.landscape._census import (
    Census as Census,
    CensusRow as CensusRow,
    PublishedCount as PublishedCount,
    Share as Share,
    census as census,
    published_counts as published_counts,
    share as share,
    z_score as z_score,
)
from jaxrelu.landscape._classification import (
    CriticalPoints as CriticalPoints,
    classify as classify,
)
from jaxrelu.landscape._convexity_failures import (
    OpenedPair as OpenedPair,
    cubic_decay_constant as cubic_decay_constant,
    cubic_growth_constant as cubic_growth_constant,
    opened_pair as opened_pair,
    tilt_curvature as tilt_curvature,
    toy_valley as toy_valley,
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
from jaxrelu.landscape._direction_search import (
    SlackStatistic as SlackStatistic,
    WorstDirection as WorstDirection,
    sample_displacement as sample_displacement,
    slack_statistic as slack_statistic,
    worst_direction as worst_direction,
)
from jaxrelu.landscape._dominance import (
    Dominance as Dominance,
    dominance as dominance,
    strong_convexity_in_ball as strong_convexity_in_ball,
)
from jaxrelu.landscape._dominance_theorem import (
    DominanceTheorem as DominanceTheorem,
    TheoremCondition as TheoremCondition,
    dominance_theorem as dominance_theorem,
)
from jaxrelu.landscape._escape import (
    Escape as Escape,
    escape as escape,
)
from jaxrelu.landscape._full_spectrum import hessian_spectrum as hessian_spectrum
from jaxrelu.landscape._gauss_newton_spectrum import (
    balanced_spectrum as balanced_spectrum,
    hessian_rank as hessian_rank,
    minimizer_gram as minimizer_gram,
    minimizer_spectrum as minimizer_spectrum,
    scalar_curvature as scalar_curvature,
    spectrum_bounds as spectrum_bounds,
)
from jaxrelu.landscape._global_minima import (
    GlobalMinimumTest as GlobalMinimumTest,
    global_minimum as global_minimum,
    is_global_minimum as is_global_minimum,
    sample_global_minimum as sample_global_minimum,
)
from jaxrelu.landscape._global_spectrum import (
    coupling_spectrum as coupling_spectrum,
    global_minimum_spectrum as global_minimum_spectrum,
    pulled_back_hessian as pulled_back_hessian,
    split_minimum_spectrum as split_minimum_spectrum,
    strong_convexity_constant as strong_convexity_constant,
)
from jaxrelu.landscape._gradient_dominance import (
    DominanceChain as DominanceChain,
    asymptotic_dominance as asymptotic_dominance,
    dominance_chain as dominance_chain,
    neighbourhood_dominance as neighbourhood_dominance,
    residual_dominance as residual_dominance,
    single_factor_dominance as single_factor_dominance,
    two_singular_factors as two_singular_factors,
    unbounded_dominance as unbounded_dominance,
)
from jaxrelu.landscape._implications import (
    dominance_from_pl as dominance_from_pl,
    error_bound_from_pl as error_bound_from_pl,
    error_bound_from_secant as error_bound_from_secant,
    growth_from_pl as growth_from_pl,
    growth_from_secant as growth_from_secant,
    implied as implied,
    one_point_from_strong as one_point_from_strong,
    pl_from_dominance as pl_from_dominance,
    pl_from_error_bound as pl_from_error_bound,
    pl_from_quasi_strong as pl_from_quasi_strong,
    pl_from_regularity as pl_from_regularity,
    quasi_strong_from_strong as quasi_strong_from_strong,
    regularity_from_curvature as regularity_from_curvature,
    regularity_from_secant as regularity_from_secant,
    regularity_from_strong as regularity_from_strong,
    secant_from_one_point as secant_from_one_point,
    secant_from_quasi_strong as secant_from_quasi_strong,
    secant_from_regularity as secant_from_regularity,
)
from jaxrelu.landscape._jacobian_lipschitz import (
    jacobian_lipschitz as jacobian_lipschitz,
)
from jaxrelu.landscape._linear_critical_points import (
    CriticalPointCheck as CriticalPointCheck,
    ShallowLevels as ShallowLevels,
    check_critical_point as check_critical_point,
    escape_direction as escape_direction,
    origin_spectrum as origin_spectrum,
    shallow_critical_point as shallow_critical_point,
    shallow_levels as shallow_levels,
    spurious_relu_minimum as spurious_relu_minimum,
)
from jaxrelu.landscape._linear_minimizers import (
    balanced_minimizer as balanced_minimizer,
    least_squares_map as least_squares_map,
    linear_minimizer as linear_minimizer,
    minimizer_tangent as minimizer_tangent,
    residual_minimizer as residual_minimizer,
    sample_linear_minimizer as sample_linear_minimizer,
    sample_residual_minimizer as sample_residual_minimizer,
)
from jaxrelu.landscape._local_certificate import (
    LocalCertificate as LocalCertificate,
    local_certificate as local_certificate,
)
from jaxrelu.landscape._minimizer_set import (
    MinimizerCheck as MinimizerCheck,
    Projection as Projection,
    check_minimizer as check_minimizer,
    minimum_gap as minimum_gap,
    minimum_value as minimum_value,
    project_to_minimizers as project_to_minimizers,
)
from jaxrelu.landscape._minimum_certificate import (
    MinimumCertificate as MinimumCertificate,
    MinimumCondition as MinimumCondition,
    certify_minimum as certify_minimum,
    third_derivative_bound as third_derivative_bound,
)
from jaxrelu.landscape._most_directions import (
    ConjectureCounterexample as ConjectureCounterexample,
    MostDirections as MostDirections,
    conjecture_counterexample as conjecture_counterexample,
    most_directions_inequality as most_directions_inequality,
    transposed_product_bound as transposed_product_bound,
)
from jaxrelu.landscape._names import family_name as family_name
from jaxrelu.landscape._near_identity import (
    polar_minimizer as polar_minimizer,
    root_minimizer as root_minimizer,
)
from jaxrelu.landscape._neighbourhoods import Neighbourhood as Neighbourhood
from jaxrelu.landscape._new_neuron import (
    NewNeuronDescent as NewNeuronDescent,
    OriginMaximum as OriginMaximum,
    new_neuron_descent as new_neuron_descent,
    origin_maximum as origin_maximum,
)
from jaxrelu.landscape._nonlinear_dominance import (
    NonlinearDominance as NonlinearDominance,
    nonlinear_dominance as nonlinear_dominance,
    nonlinear_neighbourhood_dominance as nonlinear_neighbourhood_dominance,
    shallow_lipschitz as shallow_lipschitz,
    sign_radius as sign_radius,
)
from jaxrelu.landscape._nonlinear_minimizers import (
    OutputActivated as OutputActivated,
    activation_inverse as activation_inverse,
    nonlinear_minimizer as nonlinear_minimizer,
    sample_shallow_minimizer as sample_shallow_minimizer,
    shallow_minimizer as shallow_minimizer,
)
from jaxrelu.landscape._one_point import (
    OnePoint as OnePoint,
    one_point_convexity as one_point_convexity,
)
from jaxrelu.landscape._parallel_pair import (
    ParallelPair as ParallelPair,
    parallel_pair as parallel_pair,
)
from jaxrelu.landscape._quadratic_conditions import (
    AbstractCondition as AbstractCondition,
    ErrorBound as ErrorBound,
    GradientDominance as GradientDominance,
    LocalValues as LocalValues,
    OnePointConvexity as OnePointConvexity,
    PolyakLojasiewicz as PolyakLojasiewicz,
    QuadraticGrowth as QuadraticGrowth,
    QuasiStrongConvexity as QuasiStrongConvexity,
    RegularityCondition as RegularityCondition,
    RestrictedSecant as RestrictedSecant,
    StrongConvexity as StrongConvexity,
    from_wirtinger as from_wirtinger,
    growth_without_dominance as growth_without_dominance,
    local_values as local_values,
    to_wirtinger as to_wirtinger,
)
from jaxrelu.landscape._rates import (
    DescentRate as DescentRate,
    LocalConvergence as LocalConvergence,
    asymptotic_rate as asymptotic_rate,
    certify_local_convergence as certify_local_convergence,
    descent_rate as descent_rate,
    flow_gap as flow_gap,
    path_length as path_length,
)
from jaxrelu.landscape._regularity import (
    Regularity as Regularity,
    regularity as regularity,
)
from jaxrelu.landscape._regularity_cone import (
    EPSILON_LIMIT as EPSILON_LIMIT,
    RegularityCone as RegularityCone,
    cone_ratio as cone_ratio,
    kernel_failure as kernel_failure,
    regularity_cone as regularity_cone,
    regularity_on_ball as regularity_on_ball,
    sample_cone as sample_cone,
    sharp_regularity as sharp_regularity,
)
from jaxrelu.landscape._runs import (
    POLISHED_BY as POLISHED_BY,
    Runs as Runs,
    starting_weights as starting_weights,
)
from jaxrelu.landscape._series import (
    HalfPowerSeries as HalfPowerSeries,
    series as series,
)
from jaxrelu.landscape._split import (
    SplitVerdict as SplitVerdict,
    add_neuron as add_neuron,
    split as split,
    split_hessian as split_hessian,
    split_verdict as split_verdict,
)
from jaxrelu.landscape._symmetric import (
    IsotypicPart as IsotypicPart,
    SymmetricPoint as SymmetricPoint,
    symmetric_critical_point as symmetric_critical_point,
    symmetric_minimum as symmetric_minimum,
)
from jaxrelu.landscape._symmetry import Isotropy as Isotropy
from jaxrelu.landscape._worst_case import reduced_loss as reduced_loss
