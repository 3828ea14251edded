"""Spectra given as distinct eigenvalues with their multiplicities."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrelu._checks import is_concrete
from jaxrelu._memory import require_bytes
from jaxrelu._results import ErrorKind


class DistinctSpectrum(eqx.Module):
    r"""A symmetric matrix's spectrum, each eigenvalue once and how often it occurs.

    A matrix that commutes with a group has few distinct eigenvalues of large
    multiplicity. Multiplicities are Python numbers, exact beyond any integer dtype:
    integers, or floats where the size of the matrix was continued to a real number.
    Two entries may hold the same value: eigenvalues that agree without a symmetry
    behind it are not merged.

    Attributes:
        values: eigenvalues, descending, (r,).
        error: how far each can be off, (r,).
        multiplicities: of each, none 0.
        labels: of each, the representation of the symmetry group it belongs to.
        method: how the values were computed.
        error_kind: one of `jaxrelu.ErrorKind`.

    Raises:
        ValueError: lengths that differ, or a multiplicity of 0 or less.
    """

    values: Float[Array, " r"]
    error: Float[Array, " r"]
    multiplicities: tuple[int | float, ...] = eqx.field(static=True)
    labels: tuple[str, ...] = eqx.field(static=True)
    method: str = eqx.field(static=True)
    error_kind: ErrorKind = eqx.field(static=True)

    def __check_init__(self):
        r = jnp.shape(self.values)[-1]
        lengths = (r, jnp.shape(self.error)[-1])
        lengths += (len(self.multiplicities), len(self.labels))
        if len(set(lengths)) != 1:
            msg = (
                f"values, error, multiplicities and labels have lengths {lengths}; "
                "expected one length."
            )
            raise ValueError(msg)
        if any(not m > 0 for m in self.multiplicities):
            msg = (
                f"multiplicities are {self.multiplicities}; expected positive numbers. "
                "Leave out eigenvalues that do not occur."
            )
            raise ValueError(msg)

    @property
    def total(self) -> int | float:
        """Number of eigenvalues with multiplicity: the order of the matrix."""
        return sum(self.multiplicities)

    @property
    def minimum(self) -> Float[Array, "..."]:
        """The smallest eigenvalue."""
        return self.values[..., -1]

    @property
    def maximum(self) -> Float[Array, "..."]:
        """The largest eigenvalue."""
        return self.values[..., 0]

    def inertia(
        self, tolerance: float | None = None
    ) -> tuple[int | float, int | float, int | float]:
        """Numbers of negative, zero and positive eigenvalues, with multiplicity.

        A value counts as zero if its modulus is at most ``tolerance``; by default its
        own ``error``. Python numbers, so for concrete values only.
        """
        values = np.asarray(self.values)
        bound = np.asarray(self.error) if tolerance is None else tolerance
        sign = np.where(np.abs(values) <= bound, 0, np.sign(values))
        count: dict[int, int | float] = {-1: 0, 0: 0, 1: 0}
        for which, times in zip(sign, self.multiplicities, strict=True):
            count[int(which)] += times
        return count[-1], count[0], count[1]

    def expand(self) -> Float[Array, " total"]:
        """Every eigenvalue as often as it occurs, descending.

        Raises:
            MemoryRefusedError: with the bytes needed, before anything is allocated.
            ValueError: a multiplicity is not an integer.
        """
        if any(m != int(m) for m in self.multiplicities):
            msg = (
                f"multiplicities are {self.multiplicities}; expected integers. At a "
                "real dimension there is no matrix to list the eigenvalues of."
            )
            raise ValueError(msg)
        count, dtype = int(self.total), self.values.dtype
        require_bytes(
            count * (dtype.itemsize + 8),  # and the index of each
            f"{count:,} eigenvalues, {dtype.name},",
            "Use values and multiplicities, which hold the same.",
        )
        times = np.array([int(m) for m in self.multiplicities])
        if is_concrete(self.values):  # on the host: nothing to compile for each size
            return jnp.asarray(np.repeat(np.asarray(self.values), times))
        return self.values[np.repeat(np.arange(len(times)), times)]

    def __repr__(self) -> str:
        if not is_concrete(self.values) or self.values.ndim != 1:
            return eqx.tree_pformat(self)
        rows = zip(self.values, self.multiplicities, self.labels, strict=True)
        text = ", ".join(f"{float(v):.6g} x {m:,} ({name})" for v, m, name in rows)
        error = float(np.max(np.asarray(self.error), initial=0))
        return (
            f"<DistinctSpectrum: {self.total:,} eigenvalues, "
            f"{len(self.multiplicities)} distinct: {text}; "
            f"± {error:.1e} at most ({self.error_kind}; {self.method})>"
        )

    __str__ = __repr__
