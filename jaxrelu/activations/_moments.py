r"""Gaussian moments and Hermite coefficients of activations, each with its error.

All averages are over $g \sim N(0, 1)$. With parameters that are numbers everything is
computed in float64 on the host and then cast, also while ``jit`` traces; parameters
that are traced give differentiable results in the working precision.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from jaxrelu._checks import check_choice, is_concrete
from jaxrelu._results import RESULTS, Estimate
from jaxrelu.activations._functions import (
    GELU,
    AbstractActivation,
    Erf,
    Linear,
    Quadratic,
    Sigmoid,
    Tanh,
)
from jaxrelu.activations._quadrature import (
    HALVINGS,
    REACH,
    hermite_functions,
    innermost,
    nodes,
    root_density,
)


_POINTS = (12, 20)
_ROOT = math.sqrt(2 * math.pi)


def gaussian_mean(
    act: AbstractActivation,
    power: int = 1,
    derivative: int = 0,
    *,
    dtype: DTypeLike | None = None,
) -> Estimate:
    r"""$E[\varphi^{(r)}(g)^p]$.

    Closed forms for piecewise linear, quadratic and (most of) erf, quadrature for the
    others: composite Gauss-Legendre with panels that end at 0 and shrink towards it,
    as far as $B_2/B_1$ asks for.

    Args:
        act: $\varphi$.
        power: p, at least 1.
        derivative: r, 0, 1 or 2.
        dtype: of the result; JAX's default floating dtype if None.

    Returns:
        A number with its error: a rounding bound, or the difference of two rules and
        a bound on the mass that lies beyond their nodes (infinite for powers so high
        that most of it may).

    Raises:
        ValueError: ``power`` or ``derivative`` out of range, a power whose mean
            overflows, or the second derivative of an activation with a kink, which is
            no function.
    """
    _check(act, derivative, power)
    try:
        closed = _closed_mean(act, power, derivative)
    except OverflowError as error:
        msg = (
            f"power is {power}; the mean of that power of {act.name} is beyond "
            "float64. Pass a smaller power."
        )
        raise ValueError(msg) from error
    if closed is not None:
        return _closed_form(closed, dtype)
    estimate = _first(_project(act, derivative, 0, lambda f: f**power, dtype))
    # a derivative does not grow: beyond is less than rounding, whatever its power
    beyond = 0.0 if derivative else _beyond(act, power)
    beyond = jnp.asarray(beyond, estimate.error.dtype)
    return eqx.tree_at(lambda e: e.error, estimate, estimate.error + beyond)


def variance(act: AbstractActivation, *, dtype: DTypeLike | None = None) -> Estimate:
    r"""$\operatorname{Var} \varphi(g)$.

    Args:
        act: $\varphi$.
        dtype: of the result; JAX's default floating dtype if None.

    Returns:
        A number with its error, as in `gaussian_mean`.
    """
    if isinstance(act, Quadratic):
        return _closed_form(0.5, dtype)
    mean, square = _closed_mean(act, 1, 0), _closed_mean(act, 2, 0)
    if mean is not None and square is not None:
        return _closed_form(square - mean * mean, dtype)
    mean = _two_rules(act, 0, 0, lambda f: f, _dtype(dtype))[0][0]
    return _first(_project(act, 0, 0, lambda f: (f - mean) ** 2, dtype))


def mu(act: AbstractActivation, *, dtype: DTypeLike | None = None) -> Estimate:
    r"""$\mu_\varphi = E[g \varphi'(g)]$, the first Hermite coefficient of $\varphi'$.

    Equal to $E[\varphi''(g)]$ (with the atom of $\varphi''$ at a kink) and to
    $E[\varphi(g)(g^2 - 1)]$. It vanishes when $\varphi'$ is even: tanh, erf, sigmoid.

    Args:
        act: $\varphi$.
        dtype: of the result; JAX's default floating dtype if None.

    Returns:
        A number with its error; closed forms for slopes $s, t$ ($(t-s)/\sqrt{2\pi}$),
        GELU ($3/(4\sqrt\pi)$), quadratic (1), and the zeros.
    """
    if isinstance(act, Tanh | Erf | Sigmoid | Linear):
        return _closed_form(0.0, dtype)
    if isinstance(act, GELU):
        return _closed_form(3 / (4 * math.sqrt(math.pi)), dtype)
    coefficients = hermite_coefficients(act, 1, 1, dtype=dtype)
    return _first(coefficients, 1)


def hermite_coefficients(
    act: AbstractActivation,
    degree: int,
    derivative: int = 0,
    *,
    dtype: DTypeLike | None = None,
) -> Estimate:
    r"""$c_r = E[\varphi^{(i)}(g)\, He_r(g)]/\sqrt{r!}$ for $r = 0, \dots,$ ``degree``.

    Coefficients in the orthonormal Hermite basis, so
    $\sum_r c_r^2 = E[\varphi^{(i)}(g)^2]$ and
    $E[\varphi^{(i)}(u)\varphi^{(i)}(v)] = \sum_r c_r^2 \rho^r$ for standard normal
    u, v of correlation $\rho$. Closed forms:

    * slopes $s, t$: $c_0(\varphi') = (s+t)/2$ and
      $c_r(\varphi') = (t-s)\, h_{r-1}(0)/\sqrt{2\pi r} + s\,\delta_{r0}$ with
      $h_{m+2}(0) = -\sqrt{(m+1)/(m+2)}\, h_m(0)$;
    * erf: $c_{2m}(\varphi') = (-1)^m \sqrt{(2m)!}/(4^m m! \sqrt\pi)$, odd ones 0;
    * quadratic: $z^2/2 = (h_0 + \sqrt 2\, h_2)/2$;

    with $c_r(\varphi) = c_{r-1}(\varphi')/\sqrt r$. Everything is a normalised
    recurrence, so no degree overflows.

    Args:
        act: $\varphi$.
        degree: the last r.
        derivative: i, 0, 1 or 2.
        dtype: of the result; JAX's default floating dtype if None.

    Returns:
        Value and error of shape (degree + 1,).

    Raises:
        ValueError: ``degree`` or ``derivative`` out of range, or the second derivative
            of an activation with a kink.

    Cost: degree · N operations, N of the order of 2000 + 400 √degree nodes, and 40 more
    for every doubling of $B_2/B_1$ (Softplus: β/4).
    """
    _check(act, derivative, degree + 1)
    closed = _closed_coefficients(act, degree, derivative)
    if closed is not None:
        return _closed_form(closed, dtype, steps=np.arange(degree + 1))
    return _project(act, derivative, degree, lambda f: f, dtype)


# ---------------------------------------------------------------- closed forms


def _slopes(act: AbstractActivation) -> tuple[Any, Any] | None:
    """As Python floats, unless they are traced."""
    if act.slopes is None:
        return None
    low, high = act.slopes
    return (
        float(low) if is_concrete(low) else low,
        float(high) if is_concrete(high) else high,
    )


def _odd_factorial(n: int) -> int:
    """1 · 3 · 5 ... (n - 1), the n-th moment of a normal variable, for even n."""
    return math.prod(range(1, n, 2))


def _closed_mean(act: AbstractActivation, power: int, derivative: int) -> Any:
    slopes = _slopes(act)
    if slopes is not None:
        low, high = slopes
        if derivative == 2:
            return 0.0
        if derivative == 1:
            return (low**power + high**power) / 2
        # E[max(g, 0)^p]
        half = 2 ** (power / 2 - 1) * math.gamma((power + 1) / 2) / math.sqrt(math.pi)
        if half == math.inf:
            raise OverflowError
        return (high**power + (-low) ** power) * half
    if isinstance(act, Quadratic):
        even = power % 2 == 0
        moments = (
            lambda: _odd_factorial(2 * power) / 2**power,
            lambda: float(_odd_factorial(power)) if even else 0.0,
            lambda: 1.0,
        )
        return moments[derivative]()
    if isinstance(act, Erf):
        if derivative == 1:
            return (2 / math.pi) ** (power / 2) / math.sqrt(1 + power)
        if power % 2 == 1:
            return 0.0
        if derivative == 0 and power == 2:
            return 1 / 3
    return None


def _gate_coefficients(degree: int) -> np.ndarray:
    """Hermite coefficients of the indicator of z > 0."""
    out = np.zeros(degree + 1)
    out[0] = 0.5
    at_zero = 1.0
    for r in range(1, degree + 1, 2):
        out[r] = at_zero / (_ROOT * math.sqrt(r))
        at_zero *= -math.sqrt(r / (r + 1))
    return out


def _bell_coefficients(degree: int) -> np.ndarray:
    """Hermite coefficients of the derivative of erf(z/√2)."""
    out = np.zeros(degree + 1)
    value = 1 / math.sqrt(math.pi)
    for r in range(0, degree + 1, 2):
        out[r] = value
        value *= -math.sqrt((r + 1) / (r + 2)) / 2
    return out


def _integrated(first: Any, derivative_coefficients: Any) -> Any:
    """Coefficients of φ from the mean of φ and those of φ'."""
    roots = np.sqrt(np.arange(1, len(derivative_coefficients) + 1))
    if isinstance(derivative_coefficients, np.ndarray):
        return np.concatenate([[first], derivative_coefficients / roots])
    rest = derivative_coefficients / jnp.asarray(roots, derivative_coefficients.dtype)
    return jnp.concatenate([jnp.asarray(first, rest.dtype)[None], rest])


def _closed_coefficients(act: AbstractActivation, degree: int, derivative: int) -> Any:
    slopes = _slopes(act)
    if slopes is not None:
        low, high = slopes
        rise = high - low
        if derivative == 2:
            return np.zeros(degree + 1)
        gate, one = _gate_coefficients(degree), np.eye(degree + 1)[0]
        if is_concrete(rise):
            slope = rise * gate * (1 - one) + (low + high) / 2 * one
        else:
            slope = rise * jnp.asarray(gate * (1 - one), rise.dtype)
            slope = slope + (low + high) / 2 * jnp.asarray(one, rise.dtype)
        return slope if derivative else _integrated(rise / _ROOT, slope)[: degree + 1]
    if isinstance(act, Quadratic):
        known = ([0.5, 0.0, math.sqrt(0.5)], [0.0, 1.0], [1.0])[derivative]
        return np.pad(known, (0, degree + 1))[: degree + 1]
    if isinstance(act, Erf):
        bell = _bell_coefficients(degree + 1)
        if derivative == 0:
            return _integrated(0.0, bell)[: degree + 1]
        if derivative == 2:
            return np.sqrt(np.arange(1, degree + 2)) * bell[1:]
        return bell[: degree + 1]
    return None


def _closed_form(value: Any, dtype: DTypeLike | None, steps: Any = 0) -> Estimate:
    value = jnp.asarray(value, _dtype(dtype))
    steps = jnp.asarray(steps, value.dtype)
    error = (4 + steps) * float(jnp.finfo(value.dtype).eps) * jnp.abs(value)
    return Estimate(
        value=value,
        error=jnp.broadcast_to(error, value.shape),
        result=RESULTS.successful,  # pyright: ignore[reportArgumentType]
        error_kind="rounding bound",
        method="closed form",
    )


# ---------------------------------------------------------------- quadrature


def _project(
    act: AbstractActivation,
    derivative: int,
    degree: int,
    transform: Callable[[Any], Any],
    dtype: DTypeLike | None,
) -> Estimate:
    """Hermite coefficients of ``transform(φ^(derivative))`` with their error."""
    dtype = _dtype(dtype)
    value, error = _two_rules(act, derivative, degree, transform, dtype)
    cast = abs(value) * float(jnp.finfo(dtype).eps)
    return Estimate(
        value=jnp.asarray(value, dtype),
        error=jnp.asarray(error + cast, dtype),
        result=RESULTS.successful,  # pyright: ignore[reportArgumentType]
        error_kind="quadrature estimate",
        method=f"composite Gauss-Legendre, {_POINTS[1]} nodes per panel",
    )


def _two_rules(act, derivative, degree, transform, dtype):
    """Value and error: float64 of NumPy, unless a parameter is traced."""
    function = (act, act.derivative, act.second_derivative)[derivative]
    fixed = all(is_concrete(leaf) for leaf in jax.tree.leaves(act))
    halvings = _halvings(act) if fixed else _BLIND
    (coarse, _), (value, norm) = (
        _rule(function, points, degree, transform, None if fixed else dtype, halvings)
        for points in _POINTS
    )
    epsilon = float(np.finfo(np.float64 if fixed else dtype).eps)
    # |c_r| is at most the norm; the rounding of the sum is that times a few eps
    error = abs(value - coarse) + 8 * epsilon * norm
    return value, error if fixed else error + _hidden(act, degree, dtype)


# Halvings of the panels next to 0 where the activation is traced: enough for B₂/B₁ up
# to 1e17 and few enough for reverse mode's memory.
_BLIND = 60


def _halvings(act: AbstractActivation) -> int:
    """Panels next to 0 much shorter than B₁/B₂, within which φ' hardly changes."""
    first, second = float(act.derivative_bound), float(act.second_derivative_bound)
    if not 0 < first < second < math.inf:
        return HALVINGS
    return min(HALVINGS + math.ceil(math.log2(second) - math.log2(first)), 1000)


def _hidden(act: AbstractActivation, degree: int, dtype: Any) -> Any:
    """Infinite where a traced φ bends closer to 0 than all nodes, else 0."""
    first, second = (
        jnp.asarray(bound, dtype)
        for bound in (act.derivative_bound, act.second_derivative_bound)
    )
    unseen = second * innermost(degree, _BLIND) > first / 4
    return jnp.where(unseen & jnp.isfinite(second), jnp.inf, 0)


def _beyond(act: AbstractActivation, power: int) -> Any:
    r"""At least the mean of $|\varphi(g)|^p$ over $|g| > R$, where the panels end.

    With $|\varphi(z)| \le a + b|z|$ the logarithm of $(a + bz)^p e^{-z^2/2}$ falls
    at the rate $s = R - pb/(a + bR)$ at R, and faster beyond it, so the integral is at
    most the integrand at R over s.
    """
    a, b, module = 1.0, 0.0, np
    if not isinstance(act, Tanh | Erf | Sigmoid):  # those stay within [-1, 1]
        with jax.ensure_compile_time_eval():
            a, b = abs(act(jnp.zeros(()))), act.derivative_bound
    if is_concrete(a) and is_concrete(b):
        a, b = float(a), float(b)
    else:
        module = jnp
    largest = a + b * REACH
    fall = REACH - power * b / largest
    log = power * module.log(largest) - REACH**2 / 2 - module.log(abs(fall))
    with np.errstate(over="ignore"):
        mass = 2 / _ROOT * module.exp(log)
    return module.where(fall > 0, mass, math.inf)


def _rule(function, points, degree, transform, dtype, halvings):
    z, weights = nodes(points, degree, halvings)
    if dtype is None:
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            values = np.asarray(function(jnp.asarray(_padded(z), jnp.float64)))
        values = values[: len(z)]
    else:
        values = function(jnp.asarray(z, dtype))
    values = transform(values)
    root = root_density(z)
    constant = np.asarray if dtype is None else lambda x: jnp.asarray(x, dtype)
    weighted = values * constant(weights * root)
    blocks = [constant(rows) @ weighted for rows in hermite_functions(z, degree)]
    module = np if dtype is None else jnp
    with np.errstate(over="ignore"):
        norm = (values * values * constant(weights * root * root)).sum() ** 0.5
    # |h_r p^{1/2}| < 1, so this too bounds |c_r|, and better for a spike
    return module.concatenate(blocks), module.minimum(norm, abs(weighted).sum())


def _padded(z: np.ndarray) -> np.ndarray:
    """With zeros to a power of two: every other length would be compiled apart."""
    length = max(4096, 1 << (len(z) - 1).bit_length())
    return np.pad(z, (0, length - len(z)))


def _first(estimate: Estimate, index: int = 0) -> Estimate:
    return Estimate(
        value=estimate.value[index],
        error=estimate.error[index],
        result=estimate.result,
        error_kind=estimate.error_kind,
        method=estimate.method,
    )


def _dtype(dtype: DTypeLike | None) -> Any:
    return jnp.zeros((), dtype).dtype


def _check(act: AbstractActivation, derivative: int, count: int) -> None:
    check_choice(str(derivative), ("0", "1", "2"), "derivative")
    if count < 1:
        msg = "power must be at least 1 and degree at least 0."
        raise ValueError(msg)
    if derivative == 2 and act.slopes is not None and not isinstance(act, Linear):
        msg = (
            f"the second derivative of {act.name} is an atom at 0, not a function; "
            "its Gaussian mean is `mu`."
        )
        raise ValueError(msg)
