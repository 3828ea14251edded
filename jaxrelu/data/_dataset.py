"""A data set: inputs, targets, and what was done to them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxrelu._checks import (
    as_floating,
    check_finite,
    check_rank,
    check_size,
    is_concrete,
)
from jaxrelu.data._arguments import floating_dtype, listing
from jaxrelu.data._geometry import check_unit_rows, unit_rows


class Dataset(eqx.Module):
    r"""Samples $(x_i, y_i)$, $i = 1, \dots, n$; the rows of ``inputs`` are samples.

    A pytree of two arrays, so it can be an argument of `jax.jit` and the axis of a
    `jax.vmap`. Shapes and dtypes are checked on every construction, values (NaN,
    infinity, unit length) only where they are known, that is outside of tracing.

    Attributes:
        inputs: shape (n, d).
        targets: shape (n,) for scalar outputs or (n, m); the dtype of ``inputs``.
        name: what results call this data set.
        normalised: whether the rows of ``inputs`` have unit length to within the
            rounding of their dtype; verified when the data set is built.

    Raises:
        TypeError: integer inputs or targets, or two different dtypes.
        ValueError: wrong rank, different numbers of rows, no rows or no columns, NaN
            or infinity, or rows that are not unit although ``normalised``.
    """

    inputs: Float[Array, "n d"]
    targets: Float[Array, " n"] | Float[Array, "n m"]
    name: str = eqx.field(static=True)
    normalised: bool = eqx.field(static=True)

    def __init__(
        self,
        inputs: Any,
        targets: Any,
        *,
        name: str = "data",
        normalised: bool = False,
    ):
        inputs = as_floating(inputs, "inputs")
        targets = as_floating(targets, "targets")
        check_rank(inputs, 2, "inputs", "(n, d)")
        if targets.ndim not in (1, 2):
            msg = (
                f"targets has shape {targets.shape}; expected (n,) for scalar outputs "
                "or (n, m). Reshape it first."
            )
            raise ValueError(msg)
        if inputs.shape[0] != targets.shape[0]:
            msg = (
                f"inputs has shape {inputs.shape} and targets {targets.shape}; "
                "expected the same number of rows. Rows are samples: transpose inputs "
                "if its columns are."
            )
            raise ValueError(msg)
        for array, called in ((inputs, "inputs"), (targets, "targets")):
            if array.size == 0:
                msg = (
                    f"{called} has shape {array.shape}; expected at least one row and "
                    "one column. Check the selection that produced it."
                )
                raise ValueError(msg)
        if inputs.dtype != targets.dtype:
            msg = (
                f"inputs has dtype {inputs.dtype} and targets {targets.dtype}; "
                f"expected one dtype for both. Use targets.astype('{inputs.dtype}')."
            )
            raise TypeError(msg)
        check_finite(inputs, "inputs")
        check_finite(targets, "targets")
        if normalised:
            check_unit_rows(inputs)
        self.inputs = inputs
        self.targets = targets
        self.name = name
        self.normalised = normalised

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.inputs.shape[0]

    @property
    def d(self) -> int:
        """Input dimension."""
        return self.inputs.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Floating dtype of inputs and targets."""
        return self.inputs.dtype

    def __repr__(self) -> str:
        # jax.tree.map may have put anything in the place of the arrays.
        def words(leaf):
            return getattr(leaf, "shape", leaf)

        dtype = getattr(self.inputs, "dtype", "")
        unit = ", unit rows" if self.normalised else ""
        return (
            f"Dataset({self.name!r}, inputs {words(self.inputs)}, "
            f"targets {words(self.targets)}, {dtype}{unit})"
        )

    def _replace(self, inputs: Any, targets: Any, normalised: bool) -> "Dataset":
        return Dataset(inputs, targets, name=self.name, normalised=normalised)

    def subset(self, which: Any) -> "Dataset":
        """Some of the samples.

        Args:
            which: a number of samples (the first ones), row indices of shape (r,), or
                a boolean mask of shape (n,). For a random subset pass
                ``jax.random.permutation(key, data.n)[:r]``.

        Raises:
            TypeError: indices that are neither integers nor booleans.
            ValueError: an empty selection, or a mask of the wrong length.
            IndexError: more samples, or larger indices, than there are.
        """
        if np.ndim(which) == 0:
            count = check_size(which, "which")
            if count > self.n:
                msg = (
                    f"{count} samples were asked of {self!r}; expected at most "
                    f"{self.n}. Ask for fewer."
                )
                raise IndexError(msg)
            first = slice(count)
            inputs, targets = self.inputs[first], self.targets[first]
        else:
            inputs, targets = _taken(self.inputs, self.targets, self._rows(which))
        return self._replace(inputs, targets, self.normalised)

    def _rows(self, which: Any) -> Any:
        rows = which if isinstance(which, jax.Array) else np.asarray(which)
        if rows.ndim != 1:
            msg = f"which has shape {rows.shape}; expected (r,). Flatten it first."
            raise ValueError(msg)
        if rows.size == 0:
            msg = "which is empty; expected at least one row. Check the selection."
            raise ValueError(msg)
        if rows.dtype == bool:
            if rows.shape != (self.n,):
                msg = (
                    f"which is a mask of shape {rows.shape}; expected ({self.n},), one "
                    "entry per sample. Pass indices to select by position."
                )
                raise ValueError(msg)
            return np.flatnonzero(rows)
        if not jnp.issubdtype(rows.dtype, jnp.integer):
            msg = (
                f"which has dtype {rows.dtype}; expected integers or booleans. Convert "
                "it first, for example which.astype(int)."
            )
            raise TypeError(msg)
        if is_concrete(rows):
            # JAX clamps indices beyond the end instead of complaining.
            host = np.asarray(rows)
            wrong = host[(host < -self.n) | (host >= self.n)]
            if wrong.size:
                msg = (
                    f"which holds {listing(wrong)}; expected indices from 0 to "
                    f"{self.n - 1}. Drop the others."
                )
                raise IndexError(msg)
        return rows

    def drop_duplicates(self) -> "Dataset":
        """Keeps the first of each group of identical input rows, in their order.

        Their targets need not agree; the first one's is kept. Not under tracing.
        Cost O(n d log n) on the host.
        """
        _, first = np.unique(np.asarray(self.inputs), axis=0, return_index=True)
        return self.subset(np.sort(first))

    def normalise(self) -> "Dataset":
        """The same samples with inputs of unit length; see `unit_rows`."""
        return self._replace(unit_rows(self.inputs), self.targets, True)

    def with_targets(self, targets: Any) -> "Dataset":
        """The same inputs with other targets, of shape (n,) or (n, m)."""
        return self._replace(self.inputs, targets, self.normalised)

    def shuffle_targets(self, key: PRNGKeyArray) -> "Dataset":
        """The same inputs with the targets in a uniformly random order."""
        return self.with_targets(jax.random.permutation(key, self.targets, axis=0))

    def astype(self, dtype: Any) -> "Dataset":
        """The same numbers in another floating dtype.

        Widening keeps the numbers, so rows that were unit to float32 rounding are not
        unit to float64 rounding: the result is then marked as not normalised.
        """
        dtype = floating_dtype(dtype)
        finer = jnp.finfo(dtype).eps < jnp.finfo(self.dtype).eps
        return self._replace(
            self.inputs.astype(dtype),
            self.targets.astype(dtype),
            self.normalised and not finer,
        )


@jax.jit
def _taken(inputs: Array, targets: Array, rows: Any) -> tuple[Array, Array]:
    return inputs[rows], targets[rows]
