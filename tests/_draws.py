"""Random arrays by NumPy: `jax.random` compiles a program for every shape."""

import jax
import numpy as np


def normal(key, shape, dtype=float):
    """Independent standard normal numbers, a NumPy array that belongs to the test."""
    seed = np.asarray(jax.random.key_data(key))
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
