"""Many runs at once: seeds × hyper-parameters, over all devices."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from jaxrelu._checks import check_size
from jaxrelu._devices import Devices, local_devices, over_devices


class Sweep(eqx.Module):
    """The results of all runs, and where each belongs.

    Attributes:
        values: what the function returned, every array with the axes ``dims`` in front.
        coords: the values along each axis; for the seeds their numbers.
        dims: names of the axes, ``"seed"`` first.
    """

    values: PyTree
    coords: dict[str, PyTree]
    dims: tuple[str, ...] = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of runs along each axis."""
        return tuple(axis_length(self.coords[name], name) for name in self.dims)


def sweep(
    function: Callable[..., PyTree],
    key: PRNGKeyArray,
    num_seeds: int,
    grid: Mapping[str, PyTree] | None = None,
    *,
    devices: Sequence[Any] | None = None,
    batch_size: int | None = None,
    lanes: int | None = None,
) -> Sweep:
    r"""``function(key, **point)`` for every seed and every point of a grid.

        def run(key, learning_rate):
            net = Shallow.init(key, d=20, k=50)
            return gradient_descent(loss, net, learning_rate=learning_rate, ...)

        sweep(run, key, 32, {"learning_rate": jnp.array([0.1, 0.2, 0.4])})

    Seed i runs with ``jax.random.fold_in(key, i)`` at every point of the grid, so
    points are compared on the same draws, and results depend neither on the number of
    seeds, nor on devices, batches or lanes, except for rounding: products of another
    batch may be summed in another order.

    Args:
        function: traced once under `jax.vmap`, so every run has the same shapes and
            static settings. Large data are best arguments of a grid axis or leaves of
            ``function`` itself (a module or an `equinox.Partial`); arrays that a plain
            function closes over become constants of the program. Another function
            object is compiled anew.
        key: PRNG key.
        num_seeds: s, at least 1.
        grid: name → values along the first axis of an array or of every array of a
            pytree (step sizes, stacked networks, data sets of equal shape). Points are
            all combinations.
        devices: where to run; None takes all devices of this process on the default
            platform. Runs are split evenly and nothing is exchanged, so a run that ends
            early waits for nobody on another device. A CPU is one device unless
            ``jax.config.update("jax_num_cpu_devices", ...)`` came first.
        batch_size: runs computed together on a device; the other batches follow, in the
            same program. None takes all on an accelerator, and on a CPU as many as keep
            the arrays of a step within 160 KB, at least 4: XLA splits operations on
            larger ones over all cores, which then wait for one another.
        lanes: dispatches under way at once on one device, from threads; None takes the
            number of cores if there is one device and it is a CPU, else 1. A batched
            product occupies one core.

    Returns:
        A `Sweep`; `jaxrelu.experiments.to_xarray` labels it.

    Raises:
        ValueError: no seeds, an empty axis, an axis whose arrays differ in length.

    Cost: that of the runs; one compilation for each number of runs per dispatch.
    """
    num_seeds = check_size(num_seeds, "num_seeds")
    axes = dict(grid or {})
    if "seed" in axes:
        msg = "the grid has an axis called 'seed', which num_seeds already is."
        raise ValueError(msg)
    lengths = {name: axis_length(values, name) for name, values in axes.items()}
    shape = (num_seeds, *lengths.values())
    total = math.prod(shape)
    places = tuple(devices) if devices else local_devices()
    lanes = _lanes(lanes, places, total)
    if batch_size is not None:
        batch_size = check_size(batch_size, "batch_size")
    rows = len(places) * -(-total // (len(places) * lanes))
    index = np.minimum(np.arange(-(-total // rows) * rows), total - 1)
    where = np.stack(np.unravel_index(index, shape), axis=1).astype(np.int32)
    blocks = where.reshape(-1, rows, len(shape))
    found = _all_blocks(function, key, axes, places, blocks, lanes, batch_size)
    values = jax.tree.map(
        lambda *parts: (
            _joined(parts, total, shape) if eqx.is_array(parts[0]) else parts[0]
        ),
        *found,
    )
    coords = {"seed": jnp.arange(num_seeds, dtype=jnp.int32), **axes}
    return Sweep(values, coords, ("seed", *axes))


def axis_length(values: PyTree, name: str) -> int:
    """Number of values along an axis of a grid."""
    lengths = {
        np.shape(leaf)[0] if np.ndim(leaf) else None
        for leaf in jax.tree.leaves(values)
        if eqx.is_array_like(leaf)
    }
    if len(lengths) != 1 or None in lengths or 0 in lengths:
        found = sorted(map(str, lengths))
        msg = (
            f"the axis {name!r} of the grid has first axes of length {found}; expected "
            "one length of at least 1 for all of its arrays. Stack the values."
        )
        raise ValueError(msg)
    return int(lengths.pop() or 0)


def _lanes(lanes: int | None, places: Devices, total: int) -> int:
    if lanes is not None:
        return min(check_size(lanes, "lanes"), total)
    if {place.platform for place in places} != {"cpu"} or len(places) > 1:
        return 1
    with contextlib.suppress(AttributeError):  # not on every system
        return min(len(os.sched_getaffinity(0)), total)
    return min(os.cpu_count() or 1, total)


def _all_blocks(
    function: Callable,
    key: PRNGKeyArray,
    axes: dict[str, PyTree],
    places: Devices,
    blocks: np.ndarray,
    lanes: int,
    batch_size: int | None,
) -> list[PyTree]:
    names = tuple(axes)  # a pytree of the axes forgets their order
    # committed to the first device, so that a choice of one device is kept
    home = places[0]
    key, axes = eqx.filter_shard((key, axes), home) if len(places) == 1 else (key, axes)

    def arguments(block: np.ndarray) -> tuple:
        return function, key, axes, names, places, batch_size, jnp.asarray(block)

    if lanes == 1:
        return [_block(*arguments(block)) for block in blocks]
    settings = _settings()

    def lane(block: np.ndarray) -> PyTree:
        with settings():
            return jax.block_until_ready(_block(*arguments(block)))

    # a CPU may run a program before its call returns, so every lane is a thread; the
    # threads find the program compiled
    _block.lower(*arguments(blocks[0])).compile()
    with ThreadPoolExecutor(lanes) as pool:
        return list(pool.map(lane, blocks))


def _settings() -> Callable:
    """JAX's settings of this thread, for other threads."""
    settings: Any = jax.config  # its attributes are not declared
    wide, precision = settings.jax_enable_x64, settings.jax_default_matmul_precision

    @contextlib.contextmanager
    def same() -> Iterator[None]:
        with jax.enable_x64(wide), jax.default_matmul_precision(precision):
            yield

    return same


@eqx.filter_jit
def _block(
    function: Callable,
    key: PRNGKeyArray,
    axes: dict[str, PyTree],
    names: tuple[str, ...],
    places: Devices,
    batch_size: int | None,
    index: Int[Array, "rows dims"],
) -> PyTree:
    static = []
    function_arrays, function_rest = eqx.partition(function, eqx.is_array)
    axes_arrays, axes_rest = eqx.partition(axes, eqx.is_array_like)

    def one(shared, place):
        arrays, key, axes = shared
        point = {
            name: eqx.combine(
                jax.tree.map(lambda x, i=i: jnp.asarray(x)[place[i]], axes[name]),
                axes_rest[name],
            )
            for i, name in enumerate(names, 1)
        }
        call = eqx.combine(arrays, function_rest)
        found = call(jrandom.fold_in(key, place[0]), **point)
        arrays, rest = eqx.partition(found, eqx.is_array)
        static.append(rest)
        return arrays

    def rows(shared, index):
        count = len(index)
        most = batch_size
        if most is None:
            on_cpu = places[0].platform == "cpu"
            most = _fitting_batch(one, shared, index[0]) if on_cpu else count
        size = _even(count, most)
        batches = -(-count // size)
        together = jax.vmap(lambda place: one(shared, place))
        if batches == 1:
            return together(index)
        last = jnp.full((batches * size - count,), count - 1)
        index = index[jnp.concatenate([jnp.arange(count), last])]
        found = jax.lax.map(together, index.reshape(batches, size, -1))
        return jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:])[:count],
            found,
        )

    shared = (function_arrays, key, axes_arrays)
    arrays = over_devices(rows, places)(shared, index)
    return eqx.combine(arrays, static[-1])


def _even(count: int, most: int) -> int:
    """Size of batches, from half of ``most`` up, that leaves the last one fullest."""
    most = min(most, count)
    return min(range(most, -(-most // 2) - 1, -1), key=lambda size: -count % size)


def _fitting_batch(one: Callable, *arguments: PyTree) -> int:
    """Runs whose arrays in a step take 160 KB each at most; at least 4."""
    largest = _largest(jax.make_jaxpr(one)(*arguments), inside=False)
    return max(4, 160 * 1024 // max(1, largest))


def _largest(program: Any, *, inside: bool) -> int:
    """Bytes of the largest array made in a loop's body, or anywhere if ``inside``."""
    found = 0
    for equation in getattr(program, "jaxpr", program).eqns:
        parts = jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        )
        bodies = [part for part in parts if hasattr(part, "eqns")]
        looping = inside or equation.primitive.name in ("scan", "while")
        sizes = [_largest(body, inside=looping) for body in bodies]
        if inside and not bodies:
            sizes = [_bytes_of(variable.aval) for variable in equation.outvars]
        found = max(found, *sizes, 0)
    return found


def _bytes_of(array: Any) -> int:
    """Of something with a shape and a dtype; nothing for a token or the like."""
    dtype = getattr(array, "dtype", None)
    return getattr(array, "size", 0) * getattr(dtype, "itemsize", 0)


def _joined(parts: tuple, total: int, shape: tuple[int, ...]) -> Array:
    if jnp.issubdtype(parts[0].dtype, jax.dtypes.prng_key):
        data = [jrandom.key_data(part) for part in parts]
        kind = jrandom.key_impl(parts[0])
        return jrandom.wrap_key_data(_joined(tuple(data), total, shape), impl=kind)
    host = np.concatenate([np.asarray(part) for part in parts])[:total]
    return jnp.asarray(host.reshape(*shape, *host.shape[1:]))
