"""Activation functions, their Gaussian moments and dual kernels."""

from jaxrelu.activations._functions import (
    GELU as GELU,
    AbstractActivation as AbstractActivation,
    Erf as Erf,
    LeakyReLU as LeakyReLU,
    Linear as Linear,
    Quadratic as Quadratic,
    ReLU as ReLU,
    Sigmoid as Sigmoid,
    Softplus as Softplus,
    Tanh as Tanh,
    activation as activation,
)
