"""Labelled sweeps on disk: one file per cell, resumable after a kill."""
