r"""Proofs that a true local minimum lies next to a computed point."""

import math
import operator
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

from jaxrelu._checks import check_choice, is_concrete
from jaxrelu._memory import require_bytes
from jaxrelu._results import RESULTS
from jaxrelu.landscape.certificates._balls import FLOAT64, Ball, multiprecision
from jaxrelu.landscape.certificates._enclosures import (
    gradient_enclosure,
    hessian_enclosure,
    loss_enclosure,
    spectral_bound,
)
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss
from jaxrelu.spectra import certify_smallest


Verdict = Literal["spurious", "global", "undecided", "nothing proved"]
_UP = 1 + 1e-9  # covers the rounding of a few thousand operations
_COMPARE = {">": operator.gt, ">=": operator.ge}


class MinimumCondition(eqx.Module):
    """One inequality that a certificate needs, with both sides.

    Attributes:
        left: its left side.
        right: its right side.
        name: the inequality in words and symbols.
        relation: ``">"`` or ``">="``.
    """

    left: float
    right: float
    name: str = eqx.field(static=True)
    relation: Literal[">", ">="] = eqx.field(static=True)

    @property
    def met(self) -> bool:
        """Whether it holds; False when a side is NaN."""
        return bool(_COMPARE[self.relation](self.left, self.right))

    def __str__(self) -> str:
        mark = "met" if self.met else "NOT MET"
        return f"{self.name}: {self.left:.4g} {self.relation} {self.right:.4g} ({mark})"


class MinimumCertificate(eqx.Module):
    r"""What `certify_minimum` proved; numbers are float64, rounded to the safe side.

    Attributes:
        radius: a true local minimum $W^*$ has $\|W^* - W\|_F \le$ this. Infinite if
            nothing is proved.
        isolation_radius: F is strictly convex in the open ball of this radius, and
            $W^*$ the only critical point in it. 0 if nothing is proved.
        gradient_norm: $\gamma \ge \|\nabla F(W)\|_F$.
        lambda_min: $\lambda \le \lambda_{\min}(\nabla^2 F(W))$.
        lambda_min_outside: the same for the block M of dimensions beyond d, see
            `PopulationHessian.reduced_block`.
        third_derivative: $B$, a Lipschitz constant of the Hessian on the ball of radius
            ``region``.
        region: the radius $R$ for which B was computed.
        loss: F at $W^*$ is between these two numbers.
        conditions: what had to hold, with both sides.
        every_dimension: whether W padded with zeros has a local minimum within
            ``radius`` for every larger input dimension, too.
        verdict: ``"spurious"`` if $F(W^*) > 0$ while the student can reach 0;
            ``"global"`` if $F(W^*) = 0$; ``"undecided"`` for a minimum of which neither
            is proved; ``"nothing proved"``.
        method: how the gradient was enclosed.
    """

    radius: float
    isolation_radius: float
    gradient_norm: float
    lambda_min: float
    lambda_min_outside: float
    third_derivative: float
    region: float
    loss: tuple[float, float]
    conditions: tuple[MinimumCondition, ...]
    every_dimension: bool
    verdict: Verdict = eqx.field(static=True)
    method: str = eqx.field(static=True)

    @property
    def holds(self) -> bool:
        """Whether a local minimum is proved."""
        return all(condition.met for condition in self.conditions)

    @property
    def reason(self) -> str:
        """The conditions that fail; empty when all hold."""
        return "; ".join(str(c) for c in self.conditions if not c.met)

    def __str__(self) -> str:
        if not self.holds:
            return f"No local minimum proved: {self.reason}."
        where = f"within {self.radius:.3e} (Frobenius) of the given point"
        only = f"the only critical point within {self.isolation_radius:.3e}"
        low, high = self.loss
        return (
            f"A local minimum ({self.verdict}) lies {where}, {only}; its loss is in "
            f"[{low:.15g}, {high:.15g}], λ_min ≥ {self.lambda_min:.6g} at the point."
        )


def third_derivative_bound(
    objective: PopulationLoss, student: Any, radius: float = 0.0
) -> float:
    r"""A Lipschitz constant of $\nabla^2 F$ on a Frobenius ball around W.

    $$ B = \max_i \frac{3\sqrt3\,|a_i|}{4\pi\,\omega_i^2} \Bigl(\sum_{j \ne i}
       |a_j||w_j| + R\|a\|_2 + \sum_j |b_j||v_j|\Bigr)
       + \frac3\pi \|a\|_2 \max_i \frac{|a_i|}{\omega_i}, \qquad
       \omega_i = |w_i| - R . $$

    *Proof.* With $n$ the unit vector of the part of $v$ orthogonal to $w$, $x_1 =
    x \cdot n$, primes for what is orthogonal to both, differentiation of $h_2 =
    E[1_{w\cdot x>0} 1_{v\cdot x>0}\, x x^\top]$ under the integral gives
    $f_{wwv}[p,s,q] = S(p,s,q)/2\pi|w|$, where the symmetric form
    $S(p,s,t) = 2p_1s_1t_1 + p_1 s'\!\cdot t' + s_1 p'\!\cdot t' + t_1 p'\!\cdot s'$
    sees only parts orthogonal to $w$; and with $p_0 = p\cdot\bar w$
    $$ f_{www}[p,p,p] = -\frac{|v|}{2\pi|w|^2} \bigl(\cos\theta\,(2p_1^3 + 3p_1|p'|^2)
       + 3\sin\theta\, p_0 (2p_1^2 + |p'|^2)\bigr) . $$
    A symmetric trilinear form attains its norm at $p = s = t$ (Banach). So $\|S\| =
    \max (3x - x^3) = 2$ and $\|f_{wwv}\| = 1/\pi|w|$. For $X + Y + Z = 1$, the squares
    of $p_1, p', p_0$, the bracket is at most the root of $X(2X+3Y)^2 + 9Z(2X+Y)^2 \le
    4(X+Y)^2(X+Y+9Z) \le 27/4$, hence $\|f_{www}\| \le 3\sqrt3|v|/4\pi|w|^2$, with
    equality at $\theta = \pi/3$. Summing, for $\sum|u_i|^2 = 1$,
    $\sum|u_i|^3 \le 1$ and $\sum_i |u_i|^2 \sum_j |a_j||u_j| \le \|a\|_2$. The third
    derivative does not exist at parallel neurons; but on a segment a pair is parallel
    at finitely many points or everywhere, and the Hessian is continuous. $\square$

    The bound in Safran and Shamir's program (2018) is
    $n(\sqrt2(n-1)(w_{\max}+w_{\min}) + k v_{\max})/\pi w_{\min}^2$, larger by a
    factor that grows like n. Its constant $1/\pi$ for the teacher is smaller than
    $\|f_{www}\|$ can be, which its factor n makes up for when n ≥ 2.

    Args:
        objective: any teacher, any outer weights.
        student: W, or a network.
        radius: R. The bound is infinite when a neuron can vanish within it.

    Returns:
        B, rounded up.

    Raises:
        ValueError: a student that does not fit the teacher, traced weights, a negative
            radius.

    Cost: O((n + k)d).
    """
    student = _concrete(objective, student)
    if not radius >= 0:
        msg = f"radius is {radius}; expected a number of at least 0."
        raise ValueError(msg)
    w, a = (np.asarray(x, float) for x in (student.inner, student.outer))
    v, b = (
        np.asarray(x, float) for x in (objective.teacher.inner, objective.teacher.outer)
    )
    norms, sizes = np.linalg.norm(w, axis=1), np.abs(a)
    room = norms - radius * _UP - 1e-12 * norms
    if room.min() <= 0:
        return math.inf
    length = float(np.linalg.norm(a))
    parts = sizes * norms
    others = parts.sum() - parts + 1e-12 * parts.sum() + radius * length
    others = others + np.abs(b) @ np.linalg.norm(v, axis=1)
    own = 3 * math.sqrt(3) / (4 * math.pi) * sizes / room**2 * others
    mixed = 3 / math.pi * length * (sizes / room).max()
    return float((own.max() + mixed) * _UP)


def certify_minimum(
    objective: PopulationLoss,
    student: Any,
    *,
    rule: str = "newton",
    digits: int | None = None,
) -> MinimumCertificate:
    r"""Prove that F has a true local minimum close to W, and what its loss is.

    With the gradient g, $\gamma \ge \|g\|$, the Hessian H, $0 < \lambda \le
    \lambda_{\min}(H)$, $B$ a Lipschitz constant of the Hessian on the ball of radius
    $R$ and $\rho = \min(R, \lambda/B)$:

    * ``"newton"``: $\beta \ge \|H^{-1}g\|$ and $h = B\beta/\lambda < \tfrac12$. Then
      $\nabla F$ has a zero within $r = 2\beta/(1 + \sqrt{1 - 2h})$ (Newton's method
      from W converges to it: Kantorovich 1948), if $r < \rho$.
    * ``"sphere"``, Safran and Shamir's (2018):
      $$ r = \frac{3\lambda - \sqrt{9\lambda^2 - 25\gamma B}}{2B}, \qquad
         9\lambda^2 \ge 25 \gamma B, \qquad r < \rho . $$
      *Proof.* For $\|U\| = r$: $F(W+U) - F(W) \ge -\gamma r + \lambda r^2/2 -
      Br^3/6 = \gamma r/24$, since r solves $Br^2 - 3\lambda r + 25\gamma/4 = 0$; so
      the minimum over the closed ball lies inside (for $\gamma = 0$ it is W). It needs
      $\gamma B/\lambda^2 \le 0.36$, which implies the other rule's condition, as
      $\|H^{-1}g\| \le \gamma/\lambda$; the other is weaker by up to the condition
      number of H.

    The Hessian is at least $\lambda - B\rho \ge 0$ within ρ, strictly inside: F is
    strictly convex there, the point $W^*$ found is a local minimum and the only
    critical point, and $F(W) - \gamma\|W^* - W\| \le F(W^*) \le F(W)$. Last, if
    $\|W^* - W\| \le t$, then $0 = g + H(W^* - W) + e$ with $\|e\| \le \tfrac12 Bt^2$,
    hence $\|W^* - W\| \le \beta + Bt^2/2\lambda$: the radius comes down to little more
    than the distance itself. β is the norm of a computed step s plus
    $\|g + Hs\|/\lambda$.

    Other than in Safran and Shamir's program, B is that of `third_derivative_bound`, R
    is $\lambda/B(0)$ but at most half of the shortest neuron (theirs: $10^{-3}$ of the
    longest), neurons may be parallel or coincide (their $2r < \min\|w_i - w_j\|$ is
    not needed), and convexity stands in for their $r(L_H r + \gamma)$ with a bound
    $L_H$ on the Hessian, whose last summand $nk v_{\max}/2\pi w_{\min}$ the program
    multiplies by $\pi w_{\min}$ instead, by a slip of operator precedence.

    All rounding is included. The weights are exact numbers as stored, float32 too. The
    gradient, the loss and the entries of the Hessian are computed on the host in
    midpoint-radius arithmetic: in float64, assuming IEEE arithmetic and an arctangent
    within 8 units in the last place; or the first two in mpmath, whose elementary
    functions are taken to be right to one unit. $\lambda$ is the bound of
    `certify_smallest` less the norm of the radii.

    At over-parameterised global minima (n > k) the Hessian is singular and nothing can
    be proved this way.

    Args:
        objective: any teacher, any outer weights.
        student: the point W, or a network; it has to be concrete.
        rule: as above.
        digits: None for float64, or the decimal digits (30 or more) with which mpmath
            encloses gradient and loss. The proved radius is then limited by the
            gradient at the stored W instead of the rounding of its computation.

    Returns:
        The certificate. A point that is no minimum, or not close enough to one, gives
        one that does not hold, with the condition that fails.

    Raises:
        ValueError: traced weights; digits below 30; another rule; a student that does
            not fit.
        MemoryRefusedError: the Hessian and its error do not fit in memory.

    Cost: a dozen passes over the (nd)² entries and one Cholesky factorisation;
    with ``digits`` some ten microseconds for each of the n(n + k)d terms.
    """
    check_choice(rule, ("newton", "sphere"), "rule")
    student = _concrete(objective, student)
    if digits is not None and digits < 30:
        msg = f"digits is {digits}; expected at least 30, or None for float64."
        raise ValueError(msg)
    teacher = objective.teacher
    n, d = student.inner.shape
    require_bytes(
        16 * 8 * (n * d) ** 2,
        f"Enclosing a Hessian of order {n * d} in float64",
        "Certify at a smaller d: the span of student and teacher is enough, see "
        "every_dimension.",
    )
    shortest = float(np.linalg.norm(np.asarray(student.inner, float), axis=1).min())
    if shortest == 0:
        return _failure("no neuron is zero: min |w_i| > 0")
    arithmetic = FLOAT64 if digits is None else multiprecision(digits)
    with np.errstate(all="ignore"):
        gradient = gradient_enclosure(student, teacher, arithmetic)
        gamma = float(np.linalg.norm(gradient.upper)) * _UP
        loss, loss_error = loss_enclosure(student, teacher, arithmetic)
        inside, outside = hessian_enclosure(student, teacher, FLOAT64)
    smallest, beyond = _lambda_min(inside), _lambda_min(outside)
    region = 0.0
    if smallest > 0:
        region = smallest / third_derivative_bound(objective, student)
        region = min(region, shortest / 2)
    bound = third_derivative_bound(objective, student, region)
    isolation = min(region, smallest / bound) / _UP if smallest > 0 else 0.0
    beta = _newton_step(gradient, inside, smallest)
    crude, condition = _first_radius(rule, smallest, gamma, beta, bound)
    conditions = (
        MinimumCondition(
            shortest / _UP, region, "no neuron vanishes: min |w_i| > R", ">"
        ),
        MinimumCondition(smallest, 0.0, "positive definite: λ > 0", ">"),
        condition,
        MinimumCondition(isolation, crude, "convex on the ball: ρ > r", ">"),
    )
    proved = all(c.met for c in conditions) and math.isfinite(gamma)
    radius = math.inf
    interval = (0.0, math.inf)
    verdict: Verdict = "nothing proved"
    if proved:
        radius = crude
        for _ in range(4):
            closer = (beta + bound * radius**2 / (2 * smallest)) * _UP
            radius = min(radius, closer)
        below = (loss_error + gamma * radius) * _UP
        low = math.nextafter(loss - below, -math.inf)
        high = math.nextafter(loss + loss_error * _UP, math.inf)
        interval = (max(low, 0.0), max(high, 0.0))
        verdict = "undecided"
        if _distance_to_zero_loss(student, teacher) < isolation:
            verdict, interval = "global", (0.0, 0.0)
        elif interval[0] > 0 and _can_reach_zero(student, teacher):
            verdict = "spurious"
    return MinimumCertificate(
        radius=radius,
        isolation_radius=isolation if proved else 0.0,
        gradient_norm=gamma,
        lambda_min=smallest,
        lambda_min_outside=beyond,
        third_derivative=bound,
        region=region,
        loss=interval,
        conditions=conditions,
        every_dimension=proved and beyond > bound * radius * _UP,
        verdict=verdict,
        method="float64 with error bounds" if digits is None else f"{digits} digits",
    )


def _newton_step(gradient: Ball, matrix: Ball, smallest: float) -> float:
    """A bound on the length of Newton's step, from a computed one and its residual."""
    finite = np.isfinite(matrix.radius).all() and np.isfinite(gradient.radius).all()
    if not (smallest > 0 and finite):
        return math.inf
    step = np.linalg.solve(matrix.centre, -gradient.centre.ravel())
    with np.errstate(all="ignore"):
        left = matrix.matmul(FLOAT64.exact(step))
        left = left + Ball(gradient.centre.ravel(), gradient.radius.ravel(), FLOAT64)
        residual = float(np.linalg.norm(left.upper))
    return (float(np.linalg.norm(step)) + residual / smallest) * _UP


def _first_radius(
    rule: str, smallest: float, gamma: float, beta: float, bound: float
) -> tuple[float, MinimumCondition]:
    """r, infinite where there is none, and the condition for it."""
    if rule == "newton":
        half = smallest / (2 * bound) / _UP
        condition = MinimumCondition(half, beta, "λ/2B > β", ">")
        if not (smallest > 0 and condition.met):
            return math.inf, condition
        return 2 * beta / (1 + math.sqrt(1 - beta / half)) * _UP, condition
    left, right = 9 * smallest**2 / _UP, 25 * gamma * bound * _UP
    condition = MinimumCondition(left, right, "9λ² >= 25γB", ">=")
    if not (smallest > 0 and condition.met):
        return math.inf, condition
    # this form of the smaller root does not cancel
    root = 3 * smallest + math.sqrt(left - right)
    return 25 * gamma / (2 * root) * _UP, condition


def _concrete(objective: PopulationLoss, student: Any) -> Shallow:
    student = objective.student(student)
    leaves = (student.inner, student.outer, *jax.tree.leaves(objective))
    if not all(is_concrete(leaf) for leaf in leaves):
        msg = (
            "the weights are traced; expected numbers: certificates are computed on "
            "the host. Call it outside jit and vmap."
        )
        raise ValueError(msg)
    return student


def _failure(name: str) -> MinimumCertificate:
    nan = math.nan
    conditions = (MinimumCondition(0.0, 0.0, name, ">"),)
    return MinimumCertificate(
        radius=math.inf,
        isolation_radius=0.0,
        gradient_norm=nan,
        lambda_min=nan,
        lambda_min_outside=nan,
        third_derivative=math.inf,
        region=0.0,
        loss=(0.0, math.inf),
        conditions=conditions,
        every_dimension=False,
        verdict="nothing proved",
        method="none",
    )


def _lambda_min(matrix: Ball) -> float:
    """A lower bound on the smallest eigenvalue of every symmetric member."""
    if not (np.isfinite(matrix.centre).all() and np.isfinite(matrix.radius).all()):
        return -math.inf
    lower = np.tril(matrix.centre)
    symmetric = lower + np.tril(matrix.centre, -1).T
    with jax.enable_x64(True):
        tagged = lx.MatrixLinearOperator(jnp.asarray(symmetric), lx.symmetric_tag)
        certificate = certify_smallest(tagged)
        if not bool(certificate.result == RESULTS.successful):
            return -math.inf
        bound = float(certificate.lower) - spectral_bound(matrix.radius)
    return bound - abs(bound) * 1e-12


def _distance_to_zero_loss(student: Shallow, teacher: Shallow) -> float:
    r"""To the W with $\{a_i w_i\} = \{b_j v_j\}$, signs kept, next to this one."""
    w, a = np.asarray(student.inner, float), np.asarray(student.outer, float)
    v, b = np.asarray(teacher.inner, float), np.asarray(teacher.outer, float)
    if w.shape != v.shape or not (a != 0).all():
        return math.inf
    ratio = b[None, :] / a[:, None]
    gaps = np.linalg.norm(w[:, None] - ratio[:, :, None] * v[None], axis=-1)
    gaps = np.where(ratio > 0, gaps, np.inf)
    nearest = gaps.argmin(1)
    if len(set(nearest.tolist())) < len(w):
        return math.inf
    sizes = np.linalg.norm(w) + np.abs(ratio).max() * np.linalg.norm(v)
    return float(np.linalg.norm(gaps.min(1)) * _UP + 1e-14 * sizes)


def _can_reach_zero(student: Shallow, teacher: Shallow) -> bool:
    """Whether there are enough neurons of both signs to copy the teacher."""
    a, b = np.asarray(student.outer), np.asarray(teacher.outer)
    return bool((a > 0).sum() >= (b > 0).sum() and (a < 0).sum() >= (b < 0).sum())
