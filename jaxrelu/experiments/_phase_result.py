"""What a phase transition's cells came to: shares, fitted curves, labelled arrays."""

import json
from typing import Any, Literal

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxrelu._checks import check_choice
from jaxrelu._shares import Share, share
from jaxrelu.experiments._cells import made_with
from jaxrelu.experiments._grid import Cell, Grid
from jaxrelu.experiments._transition import Transition, fit_transition


Test = Literal["gd", "interpolation"]
_TESTS = ("gd", "interpolation")


class PhaseTransition(eqx.Module):
    r"""Every trial of every cell.

    Attributes:
        grid: what was run.
        gd_residual: $\lVert r\rVert/\lVert y\rVert$ after gradient descent, (c, t).
        gd_steps: steps it took, to a fit or to the budget's end; where it diverged, to
            the step at which it did, (c, t).
        gd_diverged: where it diverged, (c, t).
        lm_residual: the same misfit after Levenberg-Marquardt, (c, t).
        lm_steps: steps it tried, (c, t).
    """

    grid: Grid
    gd_residual: Float[np.ndarray, "c t"]
    gd_steps: Int[np.ndarray, "c t"]
    gd_diverged: Bool[np.ndarray, "c t"]
    lm_residual: Float[np.ndarray, "c t"]
    lm_steps: Int[np.ndarray, "c t"]

    def successes(self, test: Test = "gd") -> Bool[np.ndarray, "c t"]:
        """Which trials passed a test.

        ``"gd"``: gradient descent fitted within its budget. ``"interpolation"``: it or
        Levenberg-Marquardt did, so weights that fit exist. Runs that pass only the
        second were slow; those that pass neither are not proved impossible, only not
        fitted by a method that is not slow.

        Raises:
            ValueError: another test.
        """
        check_choice(test, _TESTS, "test")
        fitted = self.gd_residual < self.grid.tolerance
        if test == "interpolation":
            fitted = fitted | (self.lm_residual < self.grid.tolerance)
        return fitted

    def shares(self, test: Test = "gd") -> tuple[Share, ...]:
        """Successes of each cell with Wilson's 95 % interval."""
        counts = self.successes(test).sum(axis=1)
        return tuple(share(int(count), self.grid.trials) for count in counts)

    def select(self, **wanted: Any) -> list[int]:
        """Indices of the cells with these entries, ``select(k=8, data="sphere")``.

        Raises:
            ValueError: no cell has them.
        """
        found = [
            i
            for i, cell in enumerate(self.grid.cells)
            if all(getattr(cell, name) == value for name, value in wanted.items())
        ]
        if not found:
            msg = f"No cell has {wanted}; the grid's are {self.grid.cells[:3]} ..."
            raise ValueError(msg)
        return found

    def transition(self, test: Test = "gd", **wanted: Any) -> Transition:
        """The logistic curve through the cells with these entries; see `select`."""
        cells = self.select(**wanted)
        counts = self.successes(test).sum(axis=1)[cells]
        ratios = [self.grid.cells[i].ratio for i in cells]
        return fit_transition(ratios, counts, np.full(len(cells), self.grid.trials))

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` with dimensions ``cell`` and ``trial``.

        Coordinates along ``cell`` are the fields of `Cell` and ``ratio`` = kd/n;
        variables the arrays above and, for either test, ``share``, ``low`` and
        ``high``; attributes the grid as JSON, versions and device. `save` writes it.

        Raises:
            ImportError: xarray is missing.
        """
        try:
            import xarray
        except ImportError as error:
            msg = 'to_xarray() needs xarray. Run: pip install "jaxrelu[io]"'
            raise ImportError(msg) from error
        cells, both = self.grid.cells, ("cell", "trial")
        coordinates: dict[str, Any] = {
            name: ("cell", np.array([getattr(cell, name) for cell in cells]))
            for name in (*Cell._fields, "ratio")
        }
        coordinates["trial"] = np.arange(self.grid.trials)
        names = ("gd_residual", "gd_steps", "gd_diverged", "lm_residual", "lm_steps")
        variables: dict[str, Any] = {
            name: (both, getattr(self, name)) for name in names
        }
        for test in _TESTS:
            shares = self.shares(test)
            for part, field in (
                ("share", "fraction"),
                ("low", "low"),
                ("high", "high"),
            ):
                values = np.array([getattr(one, field) for one in shares])
                variables[f"{test}_{part}"] = ("cell", values)
        attributes = {"grid": json.dumps(self.grid.config), **made_with()}
        return xarray.Dataset(variables, coordinates, attributes)

    def __str__(self) -> str:
        head = ("cell", "kd/n", "descent", "interpolation", "diverged")
        lines = [" | ".join(head), " | ".join(["---"] * len(head))]
        for cell, gd, fit, gone in zip(
            self.grid.cells,
            self.shares("gd"),
            self.shares("interpolation"),
            self.gd_diverged.sum(axis=1),
            strict=True,
        ):
            words = ", ".join(f"{k}={v}" for k, v in cell._asdict().items())
            lines.append(f"{words} | {cell.ratio:.3g} | {gd} | {fit} | {gone}")
        return "\n".join(f"| {line} |" for line in lines)
