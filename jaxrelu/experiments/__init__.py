"""Labelled sweeps on disk: one file per cell, resumable after a kill."""

from jaxrelu.experiments._census import run_census as run_census
from jaxrelu.experiments._labelled import (
    check_output as check_output,
    load as load,
    save as save,
    to_xarray as to_xarray,
)
from jaxrelu.experiments._rates import (
    EmpiricalRate as EmpiricalRate,
    Overlay as Overlay,
    beside_prediction as beside_prediction,
    empirical_rate as empirical_rate,
)
