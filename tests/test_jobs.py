"""Cells of a sweep as jobs: in processes of their own, the same numbers."""

import sys

import jax.numpy as jnp
import jax.random as jrandom
import pytest

from jaxrelu.experiments import run_sweep


pytest.importorskip("h5netcdf")


def arguments(dtype):
    def moments(key, k, power, scale):  # local: a job gets its code, not its name
        drawn = scale * jrandom.normal(key, (k,), scale.dtype)
        return {"moment": jnp.sum(drawn**power)}

    return {
        "function": moments,
        "key": jrandom.key(3),
        "num_seeds": 2,
        "grid": {"scale": jnp.array([1.0, 1 / 3], dtype)},
        "cells": {"k": (3, 5), "power": (2,)},
    }


class Refusing:
    """An executor that no job may reach."""

    def batch(self):
        raise AssertionError


@pytest.mark.slow
@pytest.mark.multiprocess
def test_jobs_give_the_numbers_of_this_process(tmp_path, float64, monkeypatch):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    given = arguments(float64)
    here = run_sweep(tmp_path / "here", **given)
    jobs = submitit.LocalExecutor(folder=tmp_path / "jobs")
    there = run_sweep(tmp_path / "there", **given, executor=jobs)
    assert there.equals(here)
    assert {value.dtype for value in there.values()} == {float64}
    # what is there is not run again
    again = run_sweep(tmp_path / "there", **given, executor=Refusing())
    assert again.identical(there)


def test_executors_that_cannot_be_used(tmp_path, float64, monkeypatch):
    given = arguments(float64)
    with pytest.raises(ValueError, match="devices are of this process"):
        run_sweep(tmp_path / "a", **given, executor=Refusing(), devices=(None,))
    with pytest.raises(ValueError, match="expected 'local', 'slurm'"):
        run_sweep(tmp_path / "a", **given, executor="slum")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"jaxrelu\[slurm\]"):
        run_sweep(tmp_path / "a", **given, executor="slurm")
    assert not (tmp_path / "a").exists()
