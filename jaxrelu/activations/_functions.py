r"""Activation functions $\varphi$ with exact $\varphi'$, $\varphi''$ and their bounds.

Two conventions hold in the whole package and are stated here only:

* the derivative at a kink is the negative slope: $\varphi'(0) = 0$ for ReLU
  (the mask is $z > 0$, as in `jax.nn.relu`), $\varphi'(0) = $ slope for leaky ReLU;
* $\varphi'' = 0$ for piecewise linear $\varphi$, its value almost everywhere; the
  atom at 0 enters only integrals, where `jaxrelu.activations` accounts for it.

Every class agrees with automatic differentiation: ``jax.grad(act)`` is
``act.derivative`` and ``jax.grad(act.derivative)`` is ``act.second_derivative`` at
every point, 0 included; further derivatives of the smooth ones are right as well.
"""

import abc
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxrelu._checks import as_floating, check_choice, check_positive, is_concrete
from jaxrelu.activations._special import (
    density,
    entropy,
    logistic,
    mills_gap,
    normal_cdf,
    square_sech,
)


Parameter = float | Float[Array, ""]


def _parameter(value: Any) -> Parameter:
    return value if isinstance(value, jax.Array) else float(value)


class AbstractActivation(eqx.Module):
    r"""A scalar function $\varphi$ applied entry by entry.

    Calls keep shape and dtype. Scalar parameters may be Python floats (fixed) or
    arrays (then they are leaves that can be trained, mapped over and traced).
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The word that `activation` knows it by."""

    @property
    @abc.abstractmethod
    def derivative_bound(self) -> Parameter:
        r"""$B_1 = \sup_z |\varphi'(z)|$."""

    @property
    @abc.abstractmethod
    def second_derivative_bound(self) -> Parameter:
        r"""$B_2$, the Lipschitz constant of $\varphi'$: infinite where that jumps."""

    @property
    @abc.abstractmethod
    def slopes(self) -> tuple[Parameter, Parameter] | None:
        """(slope for z < 0, slope for z > 0) if piecewise linear, else None."""

    @abc.abstractmethod
    def __call__(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\varphi(z)$."""

    @abc.abstractmethod
    def derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\varphi'(z)$."""

    @abc.abstractmethod
    def second_derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\varphi''(z)$."""


class ReLU(AbstractActivation):
    r"""$\varphi(z) = \max(z, 0)$, $\varphi'(z) = 1\{z > 0\}$."""

    name: ClassVar[str] = "relu"
    derivative_bound: ClassVar[float] = 1.0
    second_derivative_bound: ClassVar[float] = math.inf
    slopes: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __call__(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\max(z, 0)$."""
        return jax.nn.relu(as_floating(z, "z"))

    def derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$1\{z > 0\}$."""
        z = as_floating(z, "z")
        return (z > 0).astype(z.dtype)

    def second_derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        """0, almost everywhere."""
        return jnp.zeros_like(as_floating(z, "z"))


class LeakyReLU(AbstractActivation):
    r"""$\varphi(z) = z$ for $z > 0$ and $s z$ for $z \le 0$.

    Attributes:
        slope: $s$, the slope for negative arguments and, by convention, at 0. An
            array makes it trainable (parametric ReLU).
    """

    slope: Parameter = eqx.field(default=0.01, converter=_parameter)

    name: ClassVar[str] = "leaky_relu"
    second_derivative_bound: ClassVar[float] = math.inf

    def __call__(self, z: ArrayLike) -> Float[Array, "..."]:
        """$z$ or $s z$."""
        z = as_floating(z, "z")
        return jnp.where(z > 0, z, jnp.asarray(self.slope, z.dtype) * z)

    def derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        """1 or $s$."""
        z = as_floating(z, "z")
        return jnp.where(z > 0, jnp.ones_like(z), jnp.asarray(self.slope, z.dtype))

    def second_derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        """0, almost everywhere."""
        return jnp.zeros_like(as_floating(z, "z"))

    @property
    def derivative_bound(self) -> Parameter:
        r"""$\max(1, |s|)$."""
        if isinstance(self.slope, float):
            return max(1.0, abs(self.slope))
        return jnp.maximum(jnp.abs(self.slope), 1.0)

    @property
    def slopes(self) -> tuple[Parameter, Parameter]:
        """$(s, 1)$."""
        return (self.slope, 1.0)


@jax.custom_jvp
def _softplus(z: Array, beta: Array) -> Array:
    # beta z may overflow: exp(-inf) = 0 is then the right answer
    return jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(beta * z))) / beta


def _softplus_jvp(primals, tangents):
    z, beta = primals
    dz, dbeta = tangents
    out = _softplus(z, beta)
    zero = jax.custom_derivatives.SymbolicZero
    dout = jnp.zeros_like(out)
    if not isinstance(dz, zero):
        dout = logistic(beta * z) * dz
    if not isinstance(dbeta, zero):
        # z σ(βz)/β - φ/β without the cancellation for large z
        dout = dout - entropy(beta * z) / (beta * beta) * dbeta
    return out, dout


_softplus.defjvp(_softplus_jvp, symbolic_zeros=True)


class Softplus(AbstractActivation):
    r"""$\varphi(z) = \log(1 + e^{\beta z}) / \beta$, a smooth ReLU.

    Attributes:
        beta: $\beta > 0$; $\varphi$ tends to ReLU as it grows.
    """

    beta: Parameter = eqx.field(default=1.0, converter=_parameter)

    name: ClassVar[str] = "softplus"
    derivative_bound: ClassVar[float] = 1.0
    slopes: ClassVar[None] = None

    def __check_init__(self):
        if isinstance(self.beta, float) or (
            is_concrete(self.beta) and jnp.ndim(self.beta) == 0
        ):
            check_positive(float(self.beta), "beta")

    def __call__(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\log(1 + e^{\beta z})/\beta$."""
        z = as_floating(z, "z")
        return _softplus(z, jnp.asarray(self.beta, z.dtype))

    def derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\sigma(\beta z)$ with the logistic function $\sigma$."""
        z = as_floating(z, "z")
        return logistic(jnp.asarray(self.beta, z.dtype) * z)

    def second_derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\beta\, \sigma(\beta z)\, \sigma(-\beta z)$."""
        z = as_floating(z, "z")
        beta = jnp.asarray(self.beta, z.dtype)
        return beta / 4 * square_sech(beta / 2 * z)

    @property
    def second_derivative_bound(self) -> Parameter:
        r"""$\beta/4$, attained at 0."""
        return self.beta / 4


@jax.custom_jvp
def _tanh(z: Array) -> Array:
    return jnp.tanh(z)


_tanh.defjvps(lambda dz, out, z: square_sech(z) * dz)  # noqa: ARG005


class Tanh(AbstractActivation):
    r"""$\varphi(z) = \tanh z$."""

    name: ClassVar[str] = "tanh"
    derivative_bound: ClassVar[float] = 1.0
    second_derivative_bound: ClassVar[float] = 4 / (
        3 * math.sqrt(3)
    )  # at tanh(z)² = 1/3
    slopes: ClassVar[None] = None

    def __call__(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\tanh z$."""
        return _tanh(as_floating(z, "z"))

    def derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\operatorname{sech}^2 z$, accurate where $1 - \tanh^2 z$ is not."""
        return square_sech(as_floating(z, "z"))

    def second_derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$-2 \tanh z \operatorname{sech}^2 z$."""
        z = as_floating(z, "z")
        return -2 * _tanh(z) * square_sech(z)


@jax.custom_jvp
def _erf(z: Array) -> Array:
    return jax.lax.erf(z * math.sqrt(0.5))


_erf.defjvps(lambda dz, out, z: 2 * density(z) * dz)  # noqa: ARG005


class Erf(AbstractActivation):
    r"""$\varphi(z) = \operatorname{erf}(z/\sqrt 2) = 2\Phi(z) - 1$.

    $\Phi$ is the standard normal distribution function. Note the $\sqrt 2$: this is
    the scaling for which Gaussian averages take their simplest form.
    """

    name: ClassVar[str] = "erf"
    derivative_bound: ClassVar[float] = math.sqrt(2 / math.pi)
    second_derivative_bound: ClassVar[float] = math.sqrt(2 / math.pi) * math.exp(
        -0.5
    )  # at |z| = 1
    slopes: ClassVar[None] = None

    def __call__(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\operatorname{erf}(z/\sqrt 2)$."""
        return _erf(as_floating(z, "z"))

    def derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\sqrt{2/\pi}\, e^{-z^2/2}$."""
        return 2 * density(as_floating(z, "z"))

    def second_derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$-z\, \varphi'(z)$."""
        z = as_floating(z, "z")
        return -2 * z * density(z)


class Sigmoid(AbstractActivation):
    r"""$\varphi(z) = 1/(1 + e^{-z})$."""

    name: ClassVar[str] = "sigmoid"
    derivative_bound: ClassVar[float] = 0.25
    second_derivative_bound: ClassVar[float] = 1 / (
        6 * math.sqrt(3)
    )  # at tanh(z/2)² = 1/3
    slopes: ClassVar[None] = None

    def __call__(self, z: ArrayLike) -> Float[Array, "..."]:
        """$1/(1 + e^{-z})$."""
        return logistic(as_floating(z, "z"))

    def derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\varphi(z)\varphi(-z)$."""
        return square_sech(0.5 * as_floating(z, "z")) / 4

    def second_derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$-\varphi(z)\varphi(-z)\tanh(z/2)$."""
        z = as_floating(z, "z")
        return -square_sech(0.5 * z) * _tanh(0.5 * z) / 4


@jax.custom_jvp
def _gelu(z: Array) -> Array:
    return z * normal_cdf(z)


@jax.custom_jvp
def _gelu_derivative(z: Array) -> Array:
    # φ'(-t) = p(t) (M(t) - t) and φ'(t) = 1 - φ'(-t) for t ≥ 0
    tail = density(z) * mills_gap(jnp.abs(z))
    return jnp.where(z < 0, tail, 1 - tail)


def _gelu_second_derivative(z: Array) -> Array:
    slope = z * density(z)  # z² may overflow where the product is 0
    return 2 * density(z) - z * slope


_gelu.defjvps(lambda dz, out, z: _gelu_derivative(z) * dz)  # noqa: ARG005
_gelu_derivative.defjvps(
    lambda dz, out, z: _gelu_second_derivative(z) * dz  # noqa: ARG005
)


class GELU(AbstractActivation):
    r"""$\varphi(z) = z\, \Phi(z)$ with the normal distribution function $\Phi$ (exact).

    Not the tanh approximation. Both tails keep relative accuracy.
    """

    name: ClassVar[str] = "gelu"
    # φ'' = (2 - z²) p(z) vanishes at √2, so B₁ = Φ(√2) + √2 p(√2) with the density p;
    # φ''' = z (z² - 4) p(z), so |φ''| is largest at 0
    derivative_bound: ClassVar[float] = (1 + math.erf(1)) / 2 + math.exp(
        -1
    ) / math.sqrt(math.pi)
    second_derivative_bound: ClassVar[float] = math.sqrt(2 / math.pi)
    slopes: ClassVar[None] = None

    def __call__(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$z\, \Phi(z)$."""
        return _gelu(as_floating(z, "z"))

    def derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$\Phi(z) + z p(z)$ with the normal density $p$."""
        return _gelu_derivative(as_floating(z, "z"))

    def second_derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        r"""$(2 - z^2) p(z)$."""
        return _gelu_second_derivative(as_floating(z, "z"))


class Quadratic(AbstractActivation):
    r"""$\varphi(z) = z^2/2$."""

    name: ClassVar[str] = "quadratic"
    derivative_bound: ClassVar[float] = math.inf
    second_derivative_bound: ClassVar[float] = 1.0
    slopes: ClassVar[None] = None

    def __call__(self, z: ArrayLike) -> Float[Array, "..."]:
        """$z^2/2$."""
        z = as_floating(z, "z")
        return 0.5 * z * z

    def derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        """$z$."""
        return as_floating(z, "z")

    def second_derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        """1."""
        return jnp.ones_like(as_floating(z, "z"))


class Linear(AbstractActivation):
    r"""$\varphi(z) = z$."""

    name: ClassVar[str] = "linear"
    derivative_bound: ClassVar[float] = 1.0
    second_derivative_bound: ClassVar[float] = 0.0
    slopes: ClassVar[tuple[float, float]] = (1.0, 1.0)

    def __call__(self, z: ArrayLike) -> Float[Array, "..."]:
        """$z$."""
        return as_floating(z, "z")

    def derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        """1."""
        return jnp.ones_like(as_floating(z, "z"))

    def second_derivative(self, z: ArrayLike) -> Float[Array, "..."]:
        """0."""
        return jnp.zeros_like(as_floating(z, "z"))


_REGISTRY: dict[str, type[AbstractActivation]] = {
    kind.name: kind
    for kind in (
        ReLU, LeakyReLU, Softplus, Tanh, Erf, Sigmoid, GELU, Quadratic, Linear
    )
}  # fmt: skip


def activation(name: Any) -> AbstractActivation:
    """The activation of that name with its default parameters.

    Args:
        name: one of relu, leaky_relu, softplus, tanh, erf, sigmoid, gelu, quadratic,
            linear; an `AbstractActivation` is returned as it is.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
        TypeError: neither a name nor an activation.
    """
    if isinstance(name, AbstractActivation):
        return name
    if not isinstance(name, str):
        msg = (
            f"activation is a {type(name).__name__}; expected a name such as 'relu' "
            "or an instance such as jaxrelu.activations.Softplus(beta=5.0)."
        )
        raise TypeError(msg)
    check_choice(name, tuple(_REGISTRY), "activation")
    return _REGISTRY[name]()
