"""Independent runs split over devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec


Devices = tuple[Any, ...]  # of jax.Device, which is no type for a checker


def local_devices() -> Devices:
    """The devices of this process on JAX's default platform."""
    default = jnp.zeros(()).devices().pop()
    return tuple(d for d in jax.local_devices() if d.platform == default.platform)


def over_devices(function: Any, devices: Devices) -> Any:
    """``function(shared, block) -> block`` with the blocks' rows split over devices.

    Every device runs its rows by itself: nothing is exchanged, so no loop waits for
    another device at each step. The number of rows must be a multiple of the devices.
    """
    if len(devices) == 1:
        return function
    axes = (AxisType.Auto,)
    mesh = Mesh(np.array(devices), ("runs",), axis_types=axes)
    rows = PartitionSpec("runs")
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(PartitionSpec(), rows),
        out_specs=rows,
        check_vma=False,
    )
