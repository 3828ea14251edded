"""Labelled sweeps on disk: one file per cell, resumable after a kill."""

from jaxrelu.experiments._census import run_census as run_census
