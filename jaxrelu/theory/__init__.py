"""What theorems say of an instance: conditions, constants, predictions, certificates.

Oymak & Soltanolkotabi, "Towards moderate overparameterization" (arXiv 1902.04674).
"""

from jaxrelu.theory._certificate import certify_convergence as certify_convergence
from jaxrelu.theory._conditions import (
    Condition as Condition,
    Prediction as Prediction,
    Report as Report,
)
from jaxrelu.theory._gradient_descent import (
    moderate_overparameterization as moderate_overparameterization,
)
from jaxrelu.theory._instance import (
    Instance as Instance,
    covariance_smallest as covariance_smallest,
    instance as instance,
    khatri_rao_smallest as khatri_rao_smallest,
    spectral_norm as spectral_norm,
)
from jaxrelu.theory._lemmas import (
    InitialJacobian as InitialJacobian,
    flip_deviation_bound as flip_deviation_bound,
    flip_failure_probability as flip_failure_probability,
    flip_radii as flip_radii,
    flip_radius as flip_radius,
    flips as flips,
    gradient_row_bound as gradient_row_bound,
    hermite_lower_bound as hermite_lower_bound,
    initial_jacobian as initial_jacobian,
    initial_output_bound as initial_output_bound,
    initial_output_rms as initial_output_rms,
    jacobian_lipschitz_bound as jacobian_lipschitz_bound,
    jacobian_norm_bound as jacobian_norm_bound,
    max_flips as max_flips,
    order_statistic as order_statistic,
    row_norm_bound as row_norm_bound,
    schur_bounds as schur_bounds,
)
from jaxrelu.theory._meta import (
    gradient_descent_bounds as gradient_descent_bounds,
    gradient_flow_bounds as gradient_flow_bounds,
    polyak_lojasiewicz_bounds as polyak_lojasiewicz_bounds,
    sgd_bounds as sgd_bounds,
)
from jaxrelu.theory._random_features import (
    feature_covariance_smallest as feature_covariance_smallest,
    random_features as random_features,
)
from jaxrelu.theory._random_spectra import (
    bulk_density as bulk_density,
    finite_width_count as finite_width_count,
    smoothed_count as smoothed_count,
    sphere_density as sphere_density,
)
from jaxrelu.theory._sgd import (
    stochastic_gradient_descent as stochastic_gradient_descent,
)
from jaxrelu.theory._sphere import (
    SphereAsymptotics as SphereAsymptotics,
    equicorrelated_eigenvalues as equicorrelated_eigenvalues,
    half_circle_relu_eigenvalue as half_circle_relu_eigenvalue,
    orthonormal_eigenvalue as orthonormal_eigenvalue,
    separation_eigenvalue as separation_eigenvalue,
    slope_kernel as slope_kernel,
    sphere_asymptotics as sphere_asymptotics,
)
