"""Labelled sweeps on disk: one file per cell, resumable after a kill."""

from jaxrelu.experiments._census import run_census as run_census
from jaxrelu.experiments._grid import Cell as Cell, Grid as Grid
from jaxrelu.experiments._labelled import (
    check_output as check_output,
    load as load,
    save as save,
    to_xarray as to_xarray,
)
from jaxrelu.experiments._lazy import (
    LazyScaling as LazyScaling,
    lazy_scaling as lazy_scaling,
)
from jaxrelu.experiments._phase_result import PhaseTransition as PhaseTransition
from jaxrelu.experiments._phase_transition import phase_transition as phase_transition
from jaxrelu.experiments._rates import (
    EmpiricalRate as EmpiricalRate,
    Overlay as Overlay,
    beside_prediction as beside_prediction,
    empirical_rate as empirical_rate,
)
from jaxrelu.experiments._sweeps import run_sweep as run_sweep
from jaxrelu.experiments._transition import (
    Transition as Transition,
    fit_transition as fit_transition,
)
