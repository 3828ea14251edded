r"""Dual kernels of activations, with derivatives that are right at parallel vectors.

These are $E_w[\varphi^{(r)}(w \cdot x)\, \varphi^{(r)}(w \cdot y)]$ for
$w \sim N(0, I_d)$ and r = 0, 1. Write $A = |x|^2$, $B = |y|^2$, $C = x \cdot y$,
$G = AB - C^2$ and $\theta$ for the angle. With
$T_{ij} = E[\varphi^{(i)}(w \cdot x)\, \varphi^{(j)}(w \cdot y)]$,
Gaussian integration by parts (Price's theorem) gives every derivative:
$$ dT_{ij} = T_{i+1,j+1}\, (y \cdot dx + x \cdot dy)
           + T_{i+2,j}\, x \cdot dx + T_{i,j+2}\, y \cdot dy . $$
These are the derivative rules here; differentiating through $\theta$ instead gives
NaN or wrong numbers at parallel vectors, where $\theta$ has a conical point and the
kernels do not.
"""

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxrelu._checks import as_floating, check_choice
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.activations._angle import (
    angle_pair,
    check_pair,
    product,
    row_norms,
    row_products,
    sine,
    split_angle,
    unit_rows,
)
from jaxrelu.activations._functions import (
    GELU,
    AbstractActivation,
    Erf,
    Linear,
    Quadratic,
    Softplus,
)
from jaxrelu.activations._series import angle_series, matrix_series, series_error


# ---------------------------------------------------------------- ReLU family


@jax.custom_jvp
def _sin_minus_cos(delta: Array) -> Array:
    r"""$\sin\delta - \delta\cos\delta$, by its series where that cancels."""
    square = delta * delta
    series = jnp.zeros_like(delta)
    for k in range(10, 0, -1):
        series = (-1) ** (k + 1) * 2 * k / math.factorial(2 * k + 1) + square * series
    return jnp.where(
        delta < 1, delta * square * series, jnp.sin(delta) - delta * jnp.cos(delta)
    )


_sin_minus_cos.defjvps(lambda dd, out, d: d * jnp.sin(d) * dd)  # noqa: ARG005


def _arc_value(p: Array, q: Array, complement: Array) -> Array:
    r"""E[relu(u) relu(v)] $= pq\,(\sin\delta - \delta\cos\delta)/2\pi$, δ = π - θ."""
    return _times(_sin_minus_cos(complement), p * q) / (2 * math.pi)


def _arc_gate(p: Array, q: Array, complement: Array) -> Array:
    r"""P(u > 0, v > 0) $= \delta/2\pi$; 0 if u or v is 0 identically."""
    return jnp.where((p > 0) & (q > 0), complement / (2 * math.pi), 0)


def _arc_mixed(slope: Array, rise: Array, p: Array, q: Array) -> Array:
    r"""What is left of $E[\varphi'(u)\varphi'(v)]$ besides rise² P(u > 0, v > 0).

    $\varphi' = s + r 1\{z > 0\}$, and P(u > 0) is 1/2, or 0 at a zero vector.
    """
    half = (jnp.asarray(p > 0, p.dtype) + jnp.asarray(q > 0, q.dtype)) / 2
    return slope * slope + slope * rise * half


def _times(factor: Array, inner: Array) -> Array:
    """The product, 0 where the first factor is and the second overflows."""
    return factor * jnp.where((factor == 0) & ~jnp.isfinite(inner), 0, inner)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _relu_kernel(same: bool, x: Array, y: Array) -> Array:
    _, complement = angle_pair(same, x, y)
    return _arc_value(row_norms(x)[:, None], row_norms(y)[None, :], complement)


def _relu_gate(same: bool, x: Array, y: Array) -> Array:
    _, complement = angle_pair(same, x, y)
    return _arc_gate(row_norms(x)[:, None], row_norms(y)[None, :], complement)


@_relu_kernel.defjvp
def _(same, primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    p, q = row_norms(x), row_norms(y)
    # One angle for both terms: in reverse mode its two cotangents, which cancel at
    # nearly parallel rows, then meet before they are divided by sin θ.
    theta, complement = angle_pair(same, x, y)
    gate = _arc_gate(p[:, None], q[None, :], complement)
    atom = sine(theta, complement) / (2 * math.pi)  # T_20 = (q/p) sin θ / 2π
    along_x = row_products(unit_rows(x, p), dx)[:, None] * q[None, :]
    along_y = row_products(unit_rows(y, q), dy)[None, :] * p[:, None]
    change = gate * (product(dx, y) + product(x, dy))
    return _relu_kernel(same, x, y), change + atom * (along_x + along_y)


def _piecewise_linear(act, derivative, same, x, y):
    slope, top = (jnp.asarray(s, x.dtype) for s in act.slopes)
    rise = top - slope
    p, q = row_norms(x)[:, None], row_norms(y)[None, :]
    mixed = _arc_mixed(slope, rise, p, q)
    if derivative:
        return mixed + rise * rise * _relu_gate(same, x, y)
    return _times(mixed, product(x, y)) + rise * rise * _relu_kernel(same, x, y)


# ------------------------------------------------- closed forms in A, B, C and G


class _Law(NamedTuple):
    r"""Law of (u, v) = (w·x, w·y): variances A, B and covariance C."""

    a: Array
    b: Array
    c: Array


def _linear(derivative: int, law: _Law) -> Array:
    return jnp.ones_like(law.c) if derivative else law.c


def _quadratic(derivative: int, law: _Law) -> Array:
    return law.c if derivative else (law.a * law.b + 2 * law.c * law.c) / 4


class _Shrunk(NamedTuple):
    r"""The same of $\tilde x = x/\sqrt{1 + A}$ and $\tilde y = y/\sqrt{1 + B}$.

    Numbers of at most 1, whatever the norms. With $D = (1 + A)(1 + B) - C^2$:

    Attributes:
        c: C.
        left: $(1 + A)^{-1/2}$.
        right: $(1 + B)^{-1/2}$.
        tau: $\tau = \tilde x \cdot \tilde y$.
        root: $(1 - \tau^2)^{1/2} = (D/(1 + A)(1 + B))^{1/2}$, without cancellation.
        det: $|\tilde x|^2 |\tilde y|^2 \sin^2\theta$, likewise.
    """

    c: Array
    left: Array
    right: Array
    tau: Array
    root: Array
    det: Array


def _factor(p: Array) -> Array:
    r"""$(1 + p^2)^{-1/2}$ for p ≥ 0, without overflow of p²."""
    large = p > 1
    small = jnp.where(large, 0, p)
    over = 1 / jnp.where(large, p, 1)
    far = over / jnp.sqrt(1 + over * over)
    factor = jnp.where(large, far, 1 / jnp.sqrt(1 + small * small))
    return jnp.maximum(factor, float(jnp.finfo(p.dtype).tiny))


@jax.custom_jvp
def _factors(x: Array) -> Array:
    """`_factor` of the rows' norms; smooth at zero rows."""
    return _factor(row_norms(x))


@_factors.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    factors = _factors(x)
    along = row_products(factors[:, None] * x, factors[:, None] * dx)
    return factors, -factors * along


def _shrink(x: Array) -> Array:
    return _factors(x)[:, None] * x


def _shrunk_product(x: Array, y: Array) -> Array:
    return product(_shrink(x), _shrink(y))


def _root_of(p: Array, q: Array, sin: Array) -> Array:
    r"""$(D/(1+A)(1+B))^{1/2}$ of norms p and q: a sum of four squares."""
    left, right = _factor(p), _factor(q)
    rise, run = p * left, q * right
    # symmetric in p and q to the last digit
    terms = (left * run, right * rise, left * right, rise * run * sin)
    size = functools.reduce(jnp.maximum, map(jnp.abs, terms))
    size = jax.lax.stop_gradient(size)  # squares neither overflow nor vanish
    return size * jnp.sqrt(sum((term / size) ** 2 for term in terms))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _root(same: bool, x: Array, y: Array) -> Array:
    sin = sine(*angle_pair(same, x, y))
    return _root_of(row_norms(x)[:, None], row_norms(y)[None, :], sin)


@_root.defjvp
def _(same, primals, tangents):
    root = _root(same, *primals)
    tau, change = jax.jvp(_shrunk_product, primals, tangents)
    return root, -tau * (change / root)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _shrunk_determinant(same: bool, x: Array, y: Array) -> Array:
    sin = sine(*angle_pair(same, x, y))
    p, q = row_norms(x), row_norms(y)
    return ((p * _factor(p))[:, None] * (q * _factor(q))[None, :] * sin) ** 2


@_shrunk_determinant.defjvp
def _(same, primals, tangents):
    (x, dx), (y, dy) = (
        jax.jvp(_shrink, (rows,), (change,))
        for rows, change in zip(primals, tangents, strict=True)
    )
    a, b = row_products(x, x)[:, None], row_products(y, y)[None, :]
    along = b * row_products(x, dx)[:, None] + a * row_products(y, dy)[None, :]
    across = product(x, y) * (product(dx, y) + product(x, dy))
    return _shrunk_determinant(same, *primals), 2 * (along - across)


def _inverse_root(law: _Shrunk) -> Array:
    r"""$D^{-1/2}$, symmetric to the last digit and without underflow on the way."""
    half = jnp.sqrt(law.root)
    return (law.left / half) * (law.right / half)


def _erf(derivative: int, law: _Shrunk) -> Array:
    if derivative:
        return (2 / math.pi) * _inverse_root(law)
    return (2 / math.pi) * jnp.arctan2(law.tau, law.root)


def _gelu(derivative: int, law: _Shrunk) -> Array:
    c, left, right, tau, root, det = law
    # E[Φ(u)Φ(v)]
    both = jnp.arctan2(root, -tau) / (2 * math.pi)
    if derivative:
        tilt = (left * left + right * right) + _inverse_root(law) ** 2
        return both + tau * (tilt / root) / (2 * math.pi)
    tilt = tau * (left / right + right / left)
    return c * both + (det / root / left / right + tau * tilt / root) / (2 * math.pi)


_CLOSED = {Linear: _linear, Quadratic: _quadratic, Erf: _erf, GELU: _gelu}


def _closed(act, derivative, same, x, y):
    c = product(x, y)
    if isinstance(act, Erf | GELU):
        law = _Shrunk(
            c=c,
            left=_factors(x)[:, None],
            right=_factors(y)[None, :],
            tau=_shrunk_product(x, y),
            root=_root(same, x, y),
            det=_shrunk_determinant(same, x, y),
        )
    else:
        law = _Law(row_products(x, x)[:, None], row_products(y, y)[None, :], c)
    return _CLOSED[type(act)](derivative, law)


def _closed_entries(act, derivative, cos, sin, p, q):
    c = p * cos * q
    if isinstance(act, Erf | GELU):
        left, right = _factor(p), _factor(q)
        long = p * left * (q * right)
        law = _Shrunk(
            c=c,
            left=left,
            right=right,
            tau=long * cos,
            root=_root_of(p, q, sin),
            det=(long * sin) ** 2,
        )
    else:
        law = _Law(p * p, q * q, c)
    return _CLOSED[type(act)](derivative, law)


# ---------------------------------------------------------------- public functions


def dual_kernel(
    act: AbstractActivation,
    inputs_a: Any,
    inputs_b: Any = None,
    *,
    derivative: int = 0,
    order: int = 256,
) -> Float[Array, "n m"]:
    r"""$E_w[\varphi^{(r)}(w \cdot x_i)\, \varphi^{(r)}(w \cdot y_j)]$, $w \sim N(0, I_d)$.

    Closed forms hold at any norm, series up to a norm and angle (below). With $A, B, C,
    G, \theta$ as at the head of this module, $D = 1 + A + B + G$ and $P = \operatorname{atan2}(\sqrt D, -C)/2\pi$:

    | $\varphi$ | r = 0 | r = 1 |
    | --- | --- | --- |
    | slopes $s, t$ | $st\,C + (t-s)^2 \sqrt{AB}\,(\sin\theta + (\pi-\theta)\cos\theta)/2\pi$ | $st + (t-s)^2 (\pi-\theta)/2\pi$ |
    | erf | $(2/\pi) \operatorname{atan2}(C, \sqrt D)$ | $(2/\pi)/\sqrt D$ |
    | GELU | $C P + (G + C^2 (\tfrac1{1+A} + \tfrac1{1+B}))/2\pi\sqrt D$ | $P + C(\tfrac1{1+A} + \tfrac1{1+B} + \tfrac1D)/2\pi\sqrt D$ |
    | $z^2/2$ | $(AB + 2C^2)/4$ | $C$ |
    | linear | $C$ | 1 |

    The others are summed as the Mehler series
    $\sum_{k \le \text{order}} c_k(|x|)\, c_k(|y|) \cos^k\theta$,
    $c_k(p) = E[\varphi^{(r)}(p g)\, h_k(g)]$, whose coefficients are computed by
    quadrature. At parallel rows the terms fall like $e^{-2 a \sqrt k}$ with $a$ the
    distance of the poles of $\varphi(p z)$ from the real axis, at other angles at least
    like $|\cos\theta|^k$: for nearly parallel rows order 256 reaches float64 rounding
    for tanh up to norms of 1, for sigmoid and softplus(1) up to 3 (softplus(β): 3/β),
    some 1e-8 at twice these norms, and is far off at thirty times them. The diagonal of
    a kernel of one matrix (``inputs_b`` None) is an integral over one variable and
    needs no series. `dual_kernel_estimate` gives the error.

    Derivatives of all orders with respect to the inputs are exact for smooth
    $\varphi$. For the ReLU family so are those of $r = 0$ up to the second, at parallel
    and antiparallel rows too (third ones do not exist there). For $r = 1$ it has a
    conical point at parallel rows, an infinite slope as a function of $\cos\theta$:
    the derivative returned there is 0, the mean of the one-sided ones.

    At a zero row values are those of $\varphi^{(r)}(0)$, which for the ReLU family
    obeys the convention of `ReLU`: r = 0 gives 0, and so does r = 1 for ReLU. The
    ReLU kernels jump or have a corner there; derivatives follow the same convention.

    Args:
        act: $\varphi$; its parameters may be traced and differentiated.
        inputs_a: x, (n, d).
        inputs_b: y, (m, d); the same as ``inputs_a`` if None.
        derivative: r, 0 or 1.
        order: terms of the series, where one is used.

    Returns:
        (n, m), of the dtype of the inputs.

    Raises:
        TypeError: integer inputs.
        ValueError: wrong shapes, dtypes that differ, another ``derivative``.

    Cost: 2nmd operations for closed forms (see `angles` for nearly parallel rows);
    for a series up to 3nm · order more (it starts at the last term above
    rounding: 60 terms for softplus(1) and unit rows), and nm memory.
    """  # noqa: E501
    _check_orders(derivative, order)
    x, y, same = check_pair(inputs_a, inputs_b)
    return _matrix(act, derivative, order, same, x, y)


@eqx.filter_jit
def _matrix(act, derivative, order, same, x, y):
    if type(act) in _CLOSED:
        return _closed(act, derivative, same, x, y)
    if act.slopes is not None:
        return _piecewise_linear(act, derivative, same, x, y)
    act, scale, unit = _scaled(act, x.dtype)
    x, y = scale * x, scale * y
    series = matrix_series(act, derivative, derivative, order, same, x, y)
    return series if derivative else unit * (unit * series)


def _scaled(act, dtype) -> tuple[AbstractActivation, Array, Array]:
    """φ = unit · act(scale ·), with nothing traced left in the activation."""
    if not isinstance(act, Softplus):
        return act, jnp.ones((), dtype), jnp.ones((), dtype)
    beta = jnp.asarray(act.beta, dtype)
    return Softplus(), beta, 1 / beta


def dual_of_angle(
    act: AbstractActivation,
    theta: ArrayLike,
    norm_a: ArrayLike = 1.0,
    norm_b: ArrayLike = 1.0,
    *,
    derivative: int = 0,
    order: int = 256,
) -> Float[Array, "..."]:
    r"""The dual kernel of two vectors given by their angle and norms, entry by entry.

    The formulas of `dual_kernel`, smooth in the angle: differentiable in ``theta`` and
    the norms to every order. $\pi - \theta$ is taken without rounding $\pi$, so that
    the ReLU kernel keeps relative accuracy up to the antiparallel end, where it
    vanishes like $(\pi-\theta)^3/6\pi$.

    Args:
        act: $\varphi$.
        theta: angles in $[0, \pi]$.
        norm_a: |x|, non-negative; broadcast against ``theta`` (equal ranks or scalar).
        norm_b: |y|, likewise.
        derivative: r, 0 or 1.
        order: terms of the series, where one is used.

    Returns:
        The broadcast shape, of the dtype of ``theta``.

    Raises:
        TypeError: integer angles.
        ValueError: another ``derivative``.
    """
    _check_orders(derivative, order)
    theta = as_floating(theta, "theta")
    p, q = (jnp.asarray(norm, theta.dtype) for norm in (norm_a, norm_b))
    return _entries(act, derivative, order, theta, p, q)


@eqx.filter_jit
def _entries(act, derivative, order, theta, p, q):
    theta, complement = split_angle(theta)
    cos = jnp.cos(theta)
    if type(act) in _CLOSED:
        return _closed_entries(act, derivative, cos, sine(theta, complement), p, q)
    if act.slopes is not None:
        slope, top = (jnp.asarray(s, theta.dtype) for s in act.slopes)
        rise = top - slope
        mixed = _arc_mixed(slope, rise, p, q)
        if derivative:
            return mixed + rise * rise * _arc_gate(p, q, complement)
        return _times(mixed, p * cos * q) + rise * rise * _arc_value(p, q, complement)
    if isinstance(act, Softplus):
        beta = jnp.asarray(act.beta, theta.dtype)
        unit = angle_series(Softplus(), derivative, order, cos, beta * p, beta * q)
        return unit if derivative else unit / beta / beta
    return angle_series(act, derivative, order, cos, p, q)


def dual_kernel_estimate(
    act: AbstractActivation,
    inputs_a: Any,
    inputs_b: Any = None,
    *,
    derivative: int = 0,
    order: int = 256,
) -> Estimate:
    r"""`dual_kernel` with an error for each entry.

    For closed forms a rounding bound, $\delta = 4 (d + 8) \epsilon$ times
    $\sqrt{K_{ii} K_{jj}}$ of the kernel and of what its derivative multiplies, or (erf,
    and GELU for r = 1) the change when the angle moves by $\delta$.

    For a series that bound as well, the difference of two rules for the coefficients,
    and what the terms left out can amount to:
    $|\cos\theta|^{\text{order}+1}\, t(|x|)\, t(|y|)$ with
    $t(p)^2 = E\varphi^{(r)}(pg)^2 - \sum_{k \le \text{order}} c_k(p)^2$, a bound by the
    Cauchy-Schwarz inequality. φ may bend closer to 0 than all nodes (norms of 1e7 or
    more for tanh): what its bounds $B_1$ and $B_2$ then allow is added.

    Args:
        act: $\varphi$.
        inputs_a: x, (n, d).
        inputs_b: y, (m, d); the same as ``inputs_a`` if None.
        derivative: r, 0 or 1.
        order: terms of the finer series, where one is used.

    Returns:
        (n, m) value and error. ``result`` is ``unresolved`` if an entry of a series
        errs by more than $\sqrt{K_{ii} K_{jj}}$, which bounds it; ``not_finite`` if a
        value or error overflows.

    Raises:
        TypeError: integer inputs.
        ValueError: wrong shapes, dtypes that differ, another ``derivative``.
    """
    _check_orders(derivative, order)
    x, y, same = check_pair(inputs_a, inputs_b)
    closed = type(act) in _CLOSED or act.slopes is not None
    value = _matrix(act, derivative, order, same, x, y)
    error, lost = _error(act, derivative, order, same, x, y)
    finite = jnp.all(jnp.isfinite(value) & jnp.isfinite(error))
    result = RESULTS.where(
        lost,
        RESULTS.unresolved,
        RESULTS.successful,  # pyright: ignore[reportArgumentType]
    )
    return Estimate(
        value=value,
        error=error,
        result=RESULTS.where(finite, result, RESULTS.not_finite),
        error_kind="rounding bound" if closed else "quadrature estimate",
        method="closed form" if closed else f"Mehler series of order {order}",
    )


@eqx.filter_jit
def _error(act, derivative, order, same, x, y):
    """Of every entry, and whether a series leaves one unresolved."""
    if type(act) in _CLOSED or act.slopes is not None:
        return _rounding(act, derivative, same, x, y), jnp.zeros((), bool)
    act, scale, unit = _scaled(act, x.dtype)
    error, lost = series_error(act, derivative, order, same, scale * x, scale * y)
    return error if derivative else unit * (unit * error), lost


def _rounding(act, derivative, same, x, y):
    """For closed forms: of the entries, and through C of the inner products."""
    eps = 4 * (x.shape[1] + 8) * float(jnp.finfo(x.dtype).eps)
    p, q = row_norms(x), row_norms(y)
    error = _outer(_self_kernel(act, p, derivative), _self_kernel(act, q, derivative))
    if isinstance(act, Erf) or (derivative and isinstance(act, GELU)):
        # at large norms these change within angles of 1/p, which may be a rounding
        theta = angle_pair(same, x, y)[0]
        here, *there = (
            _entries(act, derivative, 2, turned, p[:, None], q[None, :])
            for turned in (
                theta,
                jnp.maximum(theta - eps, 0),
                jnp.minimum(theta + eps, math.pi),
            )
        )
        changes = [jnp.abs(value - here) for value in there]
        return eps * error + jnp.maximum(*changes)
    if derivative == 0:
        slopes = (norms * _self_kernel(act, norms, 1) for norms in (p, q))
        error = error + _outer(*slopes)
    return eps * error


def _outer(left: Array, right: Array) -> Array:
    return left[:, None] * right[None, :]


def _self_kernel(act, norms, derivative):
    """(K_ii)^{1/2} for every row."""
    zero = jnp.zeros_like(norms)
    return jnp.sqrt(jnp.abs(_entries(act, derivative, 2, zero, norms, norms)))


def _check_orders(derivative: int, order: int) -> None:
    check_choice(str(derivative), ("0", "1"), "derivative")
    if order < 2:
        msg = f"order is {order}; expected at least 2 terms, 256 by default."
        raise ValueError(msg)
