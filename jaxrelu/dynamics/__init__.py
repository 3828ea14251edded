"""How training moves: gradient descent, plain and perturbed, as compiled scans."""

from jaxrelu.dynamics._descent import (
    Trajectory as Trajectory,
    gradient_descent as gradient_descent,
)
from jaxrelu.dynamics._perturbed import (
    PerturbationParameters as PerturbationParameters,
    perturbation_parameters as perturbation_parameters,
    perturbed_gradient_descent as perturbed_gradient_descent,
    stationary_variance as stationary_variance,
)
