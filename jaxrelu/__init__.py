"""Exact answers, with error bars, to what theory asks of a small neural network."""

from jaxrelu import (
    activations as activations,
    data as data,
    dynamics as dynamics,
    experiments as experiments,
    landscape as landscape,
    networks as networks,
    operators as operators,
    realization as realization,
    spectra as spectra,
    theory as theory,
)
from jaxrelu._memory import MemoryRefusedError as MemoryRefusedError
from jaxrelu._results import RESULTS as RESULTS, Estimate as Estimate
from jaxrelu.dynamics import (
    Trajectory as Trajectory,
    gradient_descent as gradient_descent,
    gradient_flow as gradient_flow,
    sgd as sgd,
    sweep as sweep,
    train as train,
)
from jaxrelu.landscape import (
    dominance as dominance,
    find_critical_points as find_critical_points,
    one_point_convexity as one_point_convexity,
    regularity as regularity,
    symmetric_minimum as symmetric_minimum,
)
from jaxrelu.networks import (
    DenseNetwork as DenseNetwork,
    LinearNetwork as LinearNetwork,
    LinearResidualNetwork as LinearResidualNetwork,
    Shallow as Shallow,
    near_kinks as near_kinks,
)
from jaxrelu.objectives import (
    PopulationLoss as PopulationLoss,
    SobolevLoss as SobolevLoss,
    SquaredLoss as SquaredLoss,
)
from jaxrelu.operators import (
    expected_gram as expected_gram,
    gauss_newton as gauss_newton,
    gram as gram,
    hessian as hessian,
    jacobian as jacobian,
    neural_covariance as neural_covariance,
)
from jaxrelu.spectra import (
    Extreme as Extreme,
    SpectralDensity as SpectralDensity,
    Spectrum as Spectrum,
    certify_smallest as certify_smallest,
    density as density,
    extreme as extreme,
    spectrum as spectrum,
)
from jaxrelu.theory import certify_convergence as certify_convergence
