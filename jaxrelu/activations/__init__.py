"""Activation functions, their Gaussian moments and dual kernels."""

from jaxrelu.activations._angle import angle as angle, angles as angles
from jaxrelu.activations._dual import (
    dual_kernel as dual_kernel,
    dual_kernel_estimate as dual_kernel_estimate,
    dual_of_angle as dual_of_angle,
)
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
from jaxrelu.activations._moments import (
    gaussian_mean as gaussian_mean,
    hermite_coefficients as hermite_coefficients,
    mu as mu,
    variance as variance,
)
