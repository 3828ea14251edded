"""Objectives: callables from a network to a scalar that know their residual."""

from jaxrelu.objectives._empirical import SquaredLoss as SquaredLoss
from jaxrelu.objectives._population import PopulationLoss as PopulationLoss
from jaxrelu.objectives._relu_kernel import relu_kernel as relu_kernel
from jaxrelu.objectives._sobolev import SobolevLoss as SobolevLoss
