"""Eigenvalues with multiplicities: counted by hand and against the dense matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu import MemoryRefusedError
from jaxrelu.spectra import DistinctSpectrum


def made(values, multiplicities, error=1e-6, dtype=None):
    values = jnp.asarray(values, dtype)
    return DistinctSpectrum(
        values=values,
        error=jnp.full(values.shape, error, values.dtype),
        multiplicities=tuple(multiplicities),
        labels=tuple(f"V{i}" for i in range(len(multiplicities))),
        method="by hand",
        error_kind="exact",
    )


def test_expands_to_the_spectrum_of_the_matrix(dtype):
    n = 5  # a I + b (11' - I): a + 4b once, a - b four times
    matrix = 3.0 * np.eye(n) + 2.0 * (np.ones((n, n)) - np.eye(n))
    spectrum = made([11.0, 1.0], [1, n - 1], dtype=dtype)
    assert spectrum.total == n
    assert spectrum.expand().dtype == dtype
    np.testing.assert_allclose(
        spectrum.expand(), np.linalg.eigvalsh(matrix)[::-1], rtol=1e-6
    )
    np.testing.assert_array_equal(
        jax.jit(lambda s: s.expand())(spectrum), [11.0] + 4 * [1.0]
    )
    assert (float(spectrum.minimum), float(spectrum.maximum)) == (1.0, 11.0)


def test_inertia_counts_with_multiplicity_and_tolerance():
    spectrum = made([2.0, 1e-7, -1e-7, -0.5], [3, 4, 5, 6])
    assert spectrum.inertia() == (6, 9, 3)
    assert spectrum.inertia(tolerance=0.0) == (11, 0, 7)
    assert spectrum.inertia(tolerance=1.0) == (0, 15, 3)


def test_multiplicities_beyond_every_integer_dtype():
    many = 10**20 + 1
    spectrum = made([1.0, -1.0], [many, 7])
    assert spectrum.inertia() == (7, 0, many)
    assert spectrum.total == many + 7
    with pytest.raises(MemoryRefusedError, match="bytes"):
        spectrum.expand()
    assert f"{many:,}" in repr(spectrum)


def test_real_dimension():
    spectrum = made([1.0, -1.0], [0.5, 2.0])
    assert spectrum.total == 2.5
    assert spectrum.inertia() == (2.0, 0, 0.5)
    with pytest.raises(ValueError, match="integers"):
        spectrum.expand()


@pytest.mark.parametrize("multiplicities", [[1], [1, 2, 3], [1, 0], [1, -2]])
def test_bad_multiplicities_are_refused(multiplicities):
    with pytest.raises(ValueError, match="multiplicities"):
        made([1.0, 2.0], multiplicities)
