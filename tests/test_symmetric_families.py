"""Symmetric critical points: against dense gradients and Hessians, and known numbers.

The dense references are written in NumPy and mpmath, neuron by neuron; the dense
Hessian is itself held to automatic differentiation of the population loss.
"""

import itertools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from _population_oracle import dense_hessian

from jaxrelu.landscape import (
    symmetric_critical_point,
    symmetric_minimum,
)
from jaxrelu.landscape.families._blocks import (
    assemble,
    entries,
    flatten,
    geometry,
    gradient,
    hessian_product,
    loss,
)
from jaxrelu.networks import Shallow
from jaxrelu.objectives import PopulationLoss


EVERY_FAMILY = ("global", "A", "I", "II", "M_2", "M_3", "N_3", "N_6")


# ------------------------------------------------------------------ dense references


def dense(sizes, matrix):
    block = np.repeat(np.arange(len(sizes)), sizes)
    out = np.array(matrix.cross, float)[block[:, None], block[None]]
    np.fill_diagonal(out, np.array(matrix.diag, float)[block])
    return out


def random_matrix(sizes, seed):
    values = np.random.default_rng(seed).normal(size=len(entries(sizes)))
    return assemble(sizes, [float(x) for x in values])


def kernel_mp(w, v):
    norms = mpmath.sqrt(mpmath.fdot(w, w)), mpmath.sqrt(mpmath.fdot(v, v))
    cos = mpmath.fdot(w, v) / (norms[0] * norms[1])
    theta = mpmath.acos(min(max(cos, -1), 1))
    return (
        norms[0]
        * norms[1]
        * (mpmath.sin(theta) + (mpmath.pi - theta) * cos)
        / (2 * mpmath.pi)
    )


def neuron_loss_mp(rows, i):
    """The terms of the loss that hold neuron i."""
    k, w = len(rows), rows[i]
    teacher = [[mpmath.mpf(j == l) for l in range(k)] for j in range(k)]
    total = mpmath.fdot(w, w) / 4 - sum(kernel_mp(w, v) for v in teacher)
    return total + sum(kernel_mp(w, rows[j]) for j in range(k) if j != i)


def rows_mp(point):
    matrix = assemble(point.sizes, point.numbers)
    block = np.repeat(np.arange(len(point.sizes)), point.sizes)
    return [
        [matrix.diag[a] if i == j else matrix.cross[a][b] for j, b in enumerate(block)]
        for i, a in enumerate(block)
    ]


# ---------------------------------------------------------------------- block formulas


def test_dense_reference_is_the_hessian_of_the_population_loss(float64):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)))
    objective = PopulationLoss(Shallow.orthonormal(2, 3))
    by_autodiff = np.asarray(jax.jit(jax.hessian(objective))(weights)).reshape(6, 6)
    got = dense_hessian(np.asarray(weights))
    np.testing.assert_allclose(got, by_autodiff, atol=1e-13)


def test_block_formulas_are_those_of_the_dense_matrix(float64):
    objective = PopulationLoss(Shallow.orthonormal(6))
    value_and_slope = jax.jit(lambda w: (objective(w), objective.gradient(w)))
    for sizes in [(6,), (5, 1), (2, 4), (1, 2, 3), (2, 2, 1, 1)]:
        point = geometry(mpmath.fp, sizes, random_matrix(sizes, 1))
        u = random_matrix(sizes, 2)
        weights, direction = dense(sizes, point.weights), dense(sizes, u)
        product = dense_hessian(weights) @ direction.ravel()
        got = dense(sizes, hessian_product(point, u)).ravel()
        np.testing.assert_allclose(got, product, atol=1e-13)
        value, slope = value_and_slope(jnp.asarray(weights))
        assert loss(point) == pytest.approx(float(value), abs=1e-13)
        np.testing.assert_allclose(dense(sizes, gradient(point)), slope, atol=1e-13)


def test_block_formulas_at_a_real_size():
    """The Jacobian in the reduced numbers is the derivative of the gradient."""
    sizes, ctx = (4.3, 1.7), mpmath.fp
    w, u, h = random_matrix(sizes, 3), random_matrix(sizes, 4), 1e-5

    def moved(t):
        pairs = zip(flatten(sizes, w), flatten(sizes, u), strict=True)
        at = assemble(sizes, [x + t * y for x, y in pairs])
        return np.array(flatten(sizes, gradient(geometry(ctx, sizes, at))))

    product = hessian_product(geometry(ctx, sizes, w), u)
    got = np.array(flatten(sizes, product))
    np.testing.assert_allclose(got, (moved(h) - moved(-h)) / (2 * h), atol=1e-8)


# -------------------------------------------------------------------- critical points


def full_slopes(point, shift):
    """Central differences of the dense loss, by one neuron of each block."""
    starts = [sum(point.sizes[:a]) for a in range(len(point.sizes))]
    with mpmath.workdps(90):
        rows, h = rows_mp(point), mpmath.mpf(10) ** -25
        rows[0][1] += shift
        for i, j in itertools.product(starts, range(point.k)):
            sides = []
            for sign in (1, -1):
                moved = [list(row) for row in rows]
                moved[i][j] += sign * h
                sides.append(neuron_loss_mp(moved, i))
            yield abs(sides[0] - sides[1]) / (2 * h)


@pytest.mark.parametrize(
    ("name", "k"),
    [("A", 6), ("I", 5), ("II", 6), ("M_2", 5), ("N_3", 5), ("II", 3)],
)
def test_full_gradient_vanishes_to_the_digits(name, k):
    point = symmetric_minimum(name, k, digits=45)
    assert point.gradient_norm < 1e-45
    assert max(full_slopes(point, 0)) < 1e-40
    if k == 3:  # the check sees a wrong digit
        assert max(full_slopes(point, mpmath.mpf(10) ** -38)) > 1e-40


def test_known_values(float64):
    """Numbers computed for the notes on Safran, Yehudai and Shamir (2021)."""
    point = symmetric_minimum("II", 6)
    assert float(point.loss) == pytest.approx(0.025081, abs=5e-7)
    smallest = point.smallest_eigenvalue
    assert float(smallest) == pytest.approx(0.004700, abs=5e-7)
    assert smallest.method.startswith("standard")
    for k, value in ((6, 0.199803206836), (20, 0.231362867598)):
        spectrum = symmetric_minimum("II", k, k + 1).hessian_spectrum()
        outside = [
            float(v)
            for v, name in zip(spectrum.values, spectrum.labels, strict=True)
            if name.startswith("outside")
        ]
        assert min(outside) == pytest.approx(value, abs=6e-13)
    double = symmetric_minimum("M_2", 8).smallest_eigenvalue
    assert float(double) == pytest.approx(0.003343409124, abs=6e-13)
    assert symmetric_minimum("M", 7, p=2).inertia[0] == 4
    many = symmetric_minimum("M", 100, p=34)
    assert float(many.loss) == pytest.approx(0.0855, abs=5e-5)


# ------------------------------------------------------------------------- the spectra


SOME = (4, 5, 6, 8, 12)  # the smallest, where some representations are missing
SIZES = {
    "global": SOME,
    "A": SOME,
    "I": SOME,
    "II": SOME,
    "M_2": SOME,
    "M_3": (5, 9, 12),
    "N_3": (5, 8),
    "N_6": (8, 12),
}
DISTINCT = {"global": 7, "A": 7, "I": 12, "II": 12}


@pytest.mark.parametrize("name", SIZES)
def test_isotypic_spectrum_is_the_dense_spectrum(name, float64):
    for k in SIZES[name]:
        point = symmetric_minimum(name, k, digits=20)
        spectrum = point.hessian_spectrum()
        values = np.linalg.eigvalsh(dense_hessian(np.asarray(point.weights())))[::-1]
        assert spectrum.total == k * k
        np.testing.assert_allclose(
            spectrum.expand(), values, rtol=0, atol=1e-14 * k, err_msg=f"k = {k}"
        )
        assert len(spectrum.labels) <= DISTINCT.get(name, 22)


@pytest.mark.parametrize("name", ["global", "A", "II", "M_2", "N_3"])
def test_extra_dimensions(name, float64):
    point = symmetric_minimum(name, 6, 9)
    spectrum = point.hessian_spectrum()
    values = np.linalg.eigvalsh(dense_hessian(np.asarray(point.weights())))[::-1]
    assert spectrum.total == 54
    np.testing.assert_allclose(spectrum.expand(), values, rtol=0, atol=1e-13)


def test_three_blocks(float64):
    """A block of A, one flipped neuron and the rest: a minimum at k = 19."""
    sizes = (6, 1, 12)
    start = dict(zip(entries(sizes), [0.0] * 11, strict=True)) | {
        (0, 0, True): -0.63,
        (0, 0, False): 0.3,
        (1, 1, True): -0.8,
        (2, 2, True): 1.0,
        (2, 1, False): 0.09,
        (1, 2, False): 0.06,
    }
    point = symmetric_critical_point(sizes, list(start.values()))
    spectrum = point.hessian_spectrum()
    values = np.linalg.eigvalsh(dense_hessian(np.asarray(point.weights())))[::-1]
    np.testing.assert_allclose(spectrum.expand(), values, rtol=0, atol=1e-12)
    assert point.isotropy == "Δ(S_6 x S_1 x S_12)"
    assert point.is_local_minimum
