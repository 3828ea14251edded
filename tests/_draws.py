"""Random inputs by NumPy: `jax.random` compiles a program for every shape."""

import jax
import numpy as np


def random_of(key):
    """NumPy's generator, seeded by a test's own key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def normal(key, shape, dtype=float):
    """Independent standard normal numbers, a NumPy array that belongs to the test."""
    return random_of(key).standard_normal(shape).astype(dtype)
