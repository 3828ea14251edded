"""Random inputs of tests that compile no program."""

import jax
import numpy as np


def random_of(key):
    """NumPy's generator, seeded by a test's own key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))
