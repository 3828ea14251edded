r"""The lemmas: bounds on Jacobians, activation flips, initial values.

X has rows $x_i$, J is the Jacobian of $f(x) = v^\top\varphi(Wx)$ in W, so that
$JJ^\top = (\varphi'(XW^\top)\operatorname{diag}(v)^2\varphi'(WX^\top)) \circ XX^\top$.
All functions are pure and work under `jax.jit`.
"""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrelu.activations import AbstractActivation, variance
from jaxrelu.networks import Shallow
from jaxrelu.spectra import spectrum
from jaxrelu.theory._conditions import Scalar
from jaxrelu.theory._instance import (
    as_inputs,
    bend_bound,
    derivative_coefficient,
    khatri_rao_smallest,
    kink,
    lower,
)
from jaxrelu.theory._meta import check_fraction


CHERNOFF = (1 - math.log(2)) / 2
r"""$-\log(e^{-1/2}/\sqrt{1/2}) = 0.1534$: exponent of the matrix Chernoff bound."""


def _norm(x: Array) -> Scalar:
    return spectrum(x, method="gram").values[0]


def _outer(network: Shallow) -> Float[Array, " k"]:
    if network.out_size is not None:
        msg = (
            f"outer has shape {network.outer.shape}; the lemma is about one scalar "
            "output, outer (k,). Take one output at a time, for example outer[0]."
        )
        raise ValueError(msg)
    return network.outer


def _lengths(x: Array) -> Float[Array, " n"]:
    return jnp.sqrt(jnp.sum(x * x, axis=1))


# ------------------------------------------------------------ norms and Lipschitz


def schur_bounds(
    a: Float[Array, "n n"], m: Float[Array, "n n"]
) -> tuple[Scalar, Scalar]:
    r"""Bounds on the spectrum of $A \circ M$ for positive semidefinite A and M.

    $\lambda_{\min}(A \circ M) \ge \min_i M_{ii}\,\lambda_{\min}(A)$ and
    $\lambda_{\max}(A \circ M) \le \max_i M_{ii}\,\lambda_{\max}(A)$ (Schur): with
    $M = \sum_q u_q u_q^\top$, $x^\top(A \circ M)x = \sum_q (u_q x)^\top A (u_q x)$ and
    $\sum_q \|u_q x\|^2 = \sum_i M_{ii} x_i^2$.

    Args:
        a: A.
        m: M.

    Returns:
        (lower bound, upper bound).
    """
    values = jnp.linalg.eigvalsh(a)
    diagonal = jnp.diagonal(m)
    return diagonal.min() * values[0], diagonal.max() * values[-1]


def jacobian_norm_bound(network: Shallow, inputs: Float[Array, "n d"]) -> Scalar:
    r"""$\|J(W)\| \le B_1 \|v\|_2 \|X\|$ for every W.

    By `schur_bounds`, the diagonal being $\sum_l v_l^2\varphi'(w_l x_i)^2$. The form
    with $\sqrt k\,\|v\|_\infty$ for $\|v\|_2$ was read elsewhere; both agree when all
    $|v_l|$ are equal, this one is sharper otherwise. Rows of any norm.

    Args:
        network: v and φ are used.
        inputs: X, (n, d).
    """
    slope = network.activation.derivative_bound
    return slope * jnp.linalg.norm(_outer(network)) * _norm(inputs)


def jacobian_lipschitz_bound(network: Shallow, inputs: Float[Array, "n d"]) -> Scalar:
    r"""$\ell = B_2 \|v\|_\infty \|X\| \max_i\|x_i\|$.

    $\|J(W')-J(W)\| \le \ell\,\|W'-W\|_F$, and even with the spectral norm of $W' - W$:
    the diagonal of `schur_bounds` is at most
    $\|v\|_\infty^2 B_2^2 \|(W'-W)x_i\|^2$. Read for unit rows, proved here for all.
    Infinite where φ' jumps.

    Args:
        network: v and φ are used.
        inputs: X, (n, d).
    """
    bend = bend_bound(network.activation)
    reach = jnp.max(jnp.abs(_outer(network))) * _lengths(inputs).max()
    return bend * reach * _norm(inputs)


def row_norm_bound(network: Shallow, inputs: Float[Array, "n d"]) -> Scalar:
    r"""$\|J_i(W)\| \le B_1 \|v\|_2 \max_i\|x_i\|$ for every row and every W.

    Args:
        network: v and φ are used.
        inputs: X, (n, d).
    """
    slope = network.activation.derivative_bound
    return slope * jnp.linalg.norm(_outer(network)) * _lengths(inputs).max()


def gradient_row_bound(network: Shallow, inputs: Float[Array, "n d"]) -> Scalar:
    r"""No neuron's gradient exceeds $B_1 \|v\|_\infty \|X\|\,\|u\|$.

    $\operatorname{mat}(J^\top u) = \operatorname{diag}(v)\,\varphi'(WX^\top)
    \operatorname{diag}(u)\,X$ has rows of at most that norm for $\|u\| = 1$.

    Args:
        network: v and φ are used.
        inputs: X, (n, d).
    """
    slope = network.activation.derivative_bound
    return slope * jnp.max(jnp.abs(_outer(network))) * _norm(inputs)


# ---------------------------------------------------------------------- flips


def order_statistic(values: Float[Array, "... k"], m: int) -> Float[Array, "..."]:
    r"""$|u|_{(m)}$, the m-th smallest modulus along the last axis, $1 \le m \le k$.

    Raises:
        ValueError: m out of range.
    """
    if not 1 <= m <= values.shape[-1]:
        msg = f"m is {m}; expected 1 to {values.shape[-1]}, the length of the axis."
        raise ValueError(msg)
    return jnp.sort(jnp.abs(values), axis=-1)[..., m - 1]


def flip_radius(network: Shallow, inputs: Float[Array, "n d"], m: int) -> Scalar:
    r"""$\sqrt{m}\,\min_i |W_0 x_i|_{(m)}$: within it, fewer than 2m flips per sample.

    For unit rows. If $\|W - W_0\|_F$ is at most this, then at most $m - 1$ of the
    neurons that flip at $x_i$ lie below $\tau = |W_0x_i|_{(m)}$, and each other one
    moved by $|(w_l - w_l^0) \cdot x_i| \ge \tau$, which happens at most m times.

    Args:
        network: $W_0$ is used.
        inputs: X, (n, d), unit rows.
        m: $1 \le m \le k$.
    """
    return m**0.5 * order_statistic(inputs @ network.inner.T, m).min()


def flips(one: Shallow, two: Shallow, inputs: Float[Array, "n d"]) -> Int[Array, " n"]:
    """Neurons whose activation bit differs between two networks, per sample.

    Args:
        one: a network.
        two: another of the same width.
        inputs: X, (n, d).
    """
    first, second = (inputs @ net.inner.T > 0 for net in (one, two))
    return jnp.sum(first != second, axis=1, dtype=jnp.int32)


def flip_radii(network: Shallow, inputs: Float[Array, "n d"]) -> Float[Array, " k"]:
    r"""$\rho_s$, $s = 1, \dots, k$: the least $\|W-W_0\|_F$ at which s bits can flip.

    To flip the bits of a set S at $x_i$ costs
    $\|W-W_0\|_F^2 \ge \sum_{l \in S} (w_l^0 \cdot x_i)^2/\|x_i\|^2$, and this is enough
    (move along $x_i$, then a little more). So
    $\rho_s^2 = \min_i \sum_{j \le s} |W_0x_i|_{(j)}^2/\|x_i\|^2$, and within a radius
    below $\rho_{s+1}$ no sample has more than s flips. Sharper than `flip_radius`, and
    proved here. Zero rows are left out: their bits never flip.

    Args:
        network: $W_0$ is used.
        inputs: X, (n, d).

    Cost: $nk\log k$ beside the pre-activations.
    """
    lengths = _lengths(inputs)
    z = jnp.abs(inputs @ network.inner.T)
    squares = jnp.sort(z / jnp.where(lengths > 0, lengths, 1)[:, None], axis=1) ** 2
    costs = jnp.where(lengths[:, None] > 0, jnp.cumsum(squares, axis=1), jnp.inf)
    return jnp.sqrt(costs.min(axis=0))


def max_flips(radii: Float[Array, " k"], radius: Any) -> Int[Array, "..."]:
    r"""The most bits that one sample can flip within ``radius``.

    Args:
        radii: from `flip_radii`.
        radius: any shape.
    """
    found = jnp.searchsorted(radii, jnp.asarray(radius, radii.dtype), side="right")
    return found.astype(jnp.int32)


def flip_deviation_bound(
    network: Shallow, inputs: Float[Array, "n d"], count: Any
) -> Float[Array, "..."]:
    r"""$\|J(W)-J(W_0)\| \le |t-s|\,\|v\|_\infty\,\|X\|\sqrt{\text{count}}$.

    For slopes s, t of φ (ReLU: $t-s = 1$) and at most ``count`` flips per sample: the
    diagonal of `schur_bounds` is $\sum_{l\ \text{flips}} v_l^2 (t-s)^2$.

    Args:
        network: v and φ are used.
        inputs: X, (n, d).
        count: flips, any shape.

    Raises:
        ValueError: an activation that is not piecewise linear.
    """
    rise = kink(network.activation, inputs.dtype)
    scale = rise * jnp.max(jnp.abs(_outer(network))) * _norm(inputs)
    return scale * jnp.sqrt(jnp.asarray(count, inputs.dtype))


def flip_failure_probability(n: int, m: int) -> float:
    r"""$n e^{-m/6}$: for Gaussian $W_0$, `flip_radius` $\ge m^{3/2}/(2k)$ otherwise.

    $P(|u|_{(m)} < m/(2k)) \le e^{-m/6}$ for $u \sim N(0, I_k)$: the number of entries
    below $m/(2k)$ is binomial with mean at most $m/\sqrt{2\pi}$, and Chernoff's bound
    for reaching m is $e^{-0.318 m}$.

    Args:
        n: number of samples.
        m: as in `flip_radius`.
    """
    return min(1.0, n * math.exp(-m / 6))


# ------------------------------------------------------ Jacobian at initialisation


class InitialJacobian(eqx.Module):
    r"""A lower bound on $\sigma_{\min}(J(W_0))$ and how likely it is to fail.

    Attributes:
        sigma_min: the bound.
        failure_probability: at most this, over Gaussian $W_0$ (not capped at 1).
        effective_width: $\|v\|_2^2/\|v\|_\infty^2$; k when all $|v_l|$ are equal.
        required_width: what it must be for a failure probability of $1/n$.
    """

    sigma_min: Scalar
    failure_probability: Scalar
    effective_width: Scalar
    required_width: Scalar


def initial_jacobian(
    network: Shallow,
    inputs: Float[Array, "n d"],
    covariance_min: Any,
    *,
    fraction: float = 0.5,
) -> InitialJacobian:
    r"""$\sigma_{\min}(J(W_0)) \ge \|v\|_2\sqrt{(1-t)\lambda}$ with high probability.

    $JJ^\top = \sum_l v_l^2 D_l XX^\top D_l$, $D_l =
    \operatorname{diag}(\varphi'(Xw_l))$, is a sum of independent matrices with norms at
    most $\|v\|_\infty^2 B_1^2\|X\|^2$ and mean $\|v\|_2^2\Sigma(X)$. The matrix
    Chernoff bound gives failure probability
    $n\,[e^{-t}(1-t)^{t-1}]^{\|v\|_2^2\lambda/(\|v\|_\infty^2B_1^2\|X\|^2)}$. For
    $t = 1/2$ the exponent is 0.1534, and $1/n$ needs
    $\|v\|_2^2/\|v\|_\infty^2 \ge 13.04 \log(n) B_1^2\|X\|^2/\lambda$ (the form is that
    of the paper's lemma as recalled; the constant is derived here).

    Args:
        network: v and φ are used; `inner` is what the probability is over.
        inputs: X, (n, d), unit rows.
        covariance_min: $\lambda(X)$ or a lower bound on it.
        fraction: t in (0, 1).

    Raises:
        ValueError: t outside (0, 1).
    """
    check_fraction(fraction, "fraction", one=False)
    v, n = _outer(network), inputs.shape[0]
    lam = jnp.asarray(covariance_min, inputs.dtype)
    effective = jnp.sum(v**2) / jnp.max(v**2)
    slope = network.activation.derivative_bound
    spread = (slope * _norm(inputs)) ** 2 / lam
    exponent = fraction + (1 - fraction) * math.log1p(-fraction)
    return InitialJacobian(
        sigma_min=jnp.linalg.norm(v) * jnp.sqrt((1 - fraction) * lam),
        failure_probability=n * jnp.exp(-exponent * effective / spread),
        effective_width=effective,
        required_width=2 * math.log(n) / exponent * spread,
    )


# --------------------------------------------------------------- Hermite lower bound


def hermite_lower_bound(
    activation: AbstractActivation, inputs: Float[Array, "n d"], order: int = 1
) -> Scalar:
    r"""$c_r^2\, \sigma_{\min}^2(X^{*(r+1)}) \le \lambda(X)$ for unit rows.

    From $\Sigma(X) = \sum_r c_r^2 (XX^\top)^{\circ(r+1)}$ with
    $c_r = E[\varphi'(g)h_r(g)]$, every term being positive semidefinite; derived here.
    Order 1 is $\mu_\varphi^2\sigma_{\min}^2(X*X)$, with equality for $z^2/2$. It is 0,
    and says nothing, when φ' is even (tanh, sigmoid, erf) or $n > d(d+1)/2$: order 0
    gives $E[\varphi']^2\lambda_{\min}(XX^\top)$, useful for $n \le d$, and order 2
    reaches $n \le d(d+1)(d+2)/6$.

    Args:
        activation: φ.
        inputs: X, (n, d), unit rows.
        order: r.

    Returns:
        The bound; the error of the eigenvalue has been subtracted.
    """
    x = as_inputs(inputs)
    coefficient = derivative_coefficient(activation, order, x.dtype)
    return coefficient**2 * lower(khatri_rao_smallest(x, order + 1))


# -------------------------------------------------------------------- initial misfit


def initial_output_rms(activation: AbstractActivation, v: Float[Array, " k"]) -> Scalar:
    r"""$\sqrt{E f(x; W_0)^2} = \|v\|_2\sqrt{\operatorname{Var}\varphi(g)}$.

    For a unit vector x, Gaussian $W_0$ and $1^\top v = 0$.

    Args:
        activation: φ.
        v: outer weights.
    """
    return jnp.linalg.norm(v) * jnp.sqrt(variance(activation, dtype=v.dtype).value)


def initial_output_bound(
    network: Shallow, inputs: Float[Array, "n d"], delta: float = 1.0
) -> tuple[Scalar, Scalar]:
    r"""A bound on $\|f(W_0)\|$ that Gaussian $W_0$ break with small probability.

    $\|f(W_0)\| \le (\sqrt{\operatorname{Var}\varphi(g)} + \delta B_1)\sqrt n\,\|v\|$
    with probability at least $1 - e^{-\delta^2n/(2\|X\|^2)}$ over Gaussian $W_0$, for
    unit rows and $1^\top v = 0$: $\|f(W_0)\|$ is $B_1\|X\|\,\|v\|$-Lipschitz in $W_0$,
    its mean is at most $\sqrt n$ times `initial_output_rms`, and Gaussian
    concentration does the rest. Gaussian Poincaré,
    $\operatorname{Var}\varphi(g) \le B_1^2$, gives the form $(1+\delta)B_1$. The
    paper's Lemma 6.12 by number; statement recalled, re-derived here.

    Args:
        network: v and φ are used.
        inputs: X, (n, d), unit rows.
        delta: δ.

    Returns:
        (bound, probability of failure at most).
    """
    n = inputs.shape[0]
    spread = jnp.sqrt(variance(network.activation, dtype=inputs.dtype).value)
    slope = network.activation.derivative_bound
    bound = (spread + delta * slope) * (n**0.5 * jnp.linalg.norm(_outer(network)))
    return bound, jnp.exp(-(delta**2) * n / (2 * _norm(inputs) ** 2))
