"""How training moves: descent, plain, stochastic and perturbed, and gradient flow."""

from jaxrelu.dynamics._descent import (
    gradient_descent as gradient_descent,
    train as train,
)
from jaxrelu.dynamics._flow import Flow as Flow, gradient_flow as gradient_flow
from jaxrelu.dynamics._perturbed import (
    PerturbationParameters as PerturbationParameters,
    perturbation_parameters as perturbation_parameters,
    perturbed_gradient_descent as perturbed_gradient_descent,
    stationary_variance as stationary_variance,
)
from jaxrelu.dynamics._recorders import (
    ActivationFlips as ActivationFlips,
    Flips as Flips,
    GradientNorm as GradientNorm,
    NeuronDistance as NeuronDistance,
    PolyakLojasiewicz as PolyakLojasiewicz,
    ResidualNorm as ResidualNorm,
)
from jaxrelu.dynamics._sgd import sgd as sgd
from jaxrelu.dynamics._spectral_recorders import (
    HessianTop as HessianTop,
    JacobianSpectrum as JacobianSpectrum,
    ResidualAlignment as ResidualAlignment,
    Sharpness as Sharpness,
    SingularValues as SingularValues,
)
from jaxrelu.dynamics._sweep import Sweep as Sweep, sweep as sweep
from jaxrelu.dynamics._trajectory import Point as Point, Trajectory as Trajectory
