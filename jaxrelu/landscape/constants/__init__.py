"""The constants of quadratic conditions around a point: theorems and searches."""

from jaxrelu.landscape.constants._dominance import (
    Dominance as Dominance,
    dominance as dominance,
    strong_convexity_in_ball as strong_convexity_in_ball,
)
from jaxrelu.landscape.constants._dominance_theorem import (
    DominanceTheorem as DominanceTheorem,
    TheoremCondition as TheoremCondition,
    dominance_theorem as dominance_theorem,
)
from jaxrelu.landscape.constants._gradient_dominance import (
    DominanceChain as DominanceChain,
    asymptotic_dominance as asymptotic_dominance,
    dominance_chain as dominance_chain,
    neighbourhood_dominance as neighbourhood_dominance,
    residual_dominance as residual_dominance,
    single_factor_dominance as single_factor_dominance,
    two_singular_factors as two_singular_factors,
    unbounded_dominance as unbounded_dominance,
)
from jaxrelu.landscape.constants._implications import (
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
from jaxrelu.landscape.constants._jacobian_lipschitz import (
    jacobian_lipschitz as jacobian_lipschitz,
)
from jaxrelu.landscape.constants._local_certificate import (
    LocalCertificate as LocalCertificate,
    local_certificate as local_certificate,
)
from jaxrelu.landscape.constants._nonlinear_dominance import (
    NonlinearDominance as NonlinearDominance,
    nonlinear_dominance as nonlinear_dominance,
    nonlinear_neighbourhood_dominance as nonlinear_neighbourhood_dominance,
    shallow_lipschitz as shallow_lipschitz,
    sign_radius as sign_radius,
)
from jaxrelu.landscape.constants._one_point import (
    OnePoint as OnePoint,
    one_point_convexity as one_point_convexity,
)
from jaxrelu.landscape.constants._quadratic_conditions import (
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
from jaxrelu.landscape.constants._rates import (
    DescentRate as DescentRate,
    LocalConvergence as LocalConvergence,
    asymptotic_rate as asymptotic_rate,
    certify_local_convergence as certify_local_convergence,
    descent_rate as descent_rate,
    flow_gap as flow_gap,
    path_length as path_length,
)
from jaxrelu.landscape.constants._regularity import (
    Regularity as Regularity,
    regularity as regularity,
)
from jaxrelu.landscape.constants._regularity_cone import (
    EPSILON_LIMIT as EPSILON_LIMIT,
    RegularityCone as RegularityCone,
    cone_ratio as cone_ratio,
    kernel_failure as kernel_failure,
    regularity_cone as regularity_cone,
    regularity_on_ball as regularity_on_ball,
    sample_cone as sample_cone,
    sharp_regularity as sharp_regularity,
)
from jaxrelu.landscape.constants._worst_case import (
    reduced_loss as reduced_loss,
)
