"""Objectives: callables from a network to a scalar that know their residual."""

from jaxrelu.objectives._empirical import SquaredLoss as SquaredLoss
