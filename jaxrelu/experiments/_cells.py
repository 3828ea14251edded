"""A folder of results: one file per piece of work, whole or not there."""

import dataclasses
import functools
import hashlib
import inspect
import json
import platform
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jrandom
import numpy as np
from jaxtyping import PRNGKeyArray

from jaxrelu._files import beside, replacing, write_first


_CONFIG = "config.json"


def digest(values: Any) -> str:
    """Shape and SHA-256 of an array's bytes."""
    host = np.ascontiguousarray(values)
    return f"{host.shape} sha256:{hashlib.sha256(host.tobytes()).hexdigest()}"


def identity(tree: Any, within: tuple = ()) -> Any:
    """What a function, module or pytree is made of, as JSON holds it.

    Names of types and functions, digests of arrays, text and numbers, static fields,
    what partial functions hold and closures close over. Not: code, and the insides of
    objects that are none of these, which count by the name of their type.

    Args:
        tree: any object.
        within: the functions being looked into, which may close over themselves.
    """
    look = functools.partial(identity, within=within)
    kind = f"{type(tree).__module__}.{type(tree).__qualname__}"
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree if tree == tree else "nan"
    if eqx.is_array(tree) and jnp.issubdtype(tree.dtype, jax.dtypes.prng_key):
        return ["key", *key_words(tree)]
    if eqx.is_array_like(tree):
        return f"{np.asarray(tree).dtype} {digest(tree)}"
    if isinstance(tree, functools.partial):
        return ["partial", *map(look, (tree.func, tree.args, tree.keywords))]
    if isinstance(tree, types.MethodType):
        return ["method", *map(look, (tree.__func__, tree.__self__))]
    if isinstance(tree, types.FunctionType):
        name = f"{tree.__module__}.{tree.__qualname__}"
        if tree in within:
            return ["function", name]
        cells = inspect.getclosurevars(tree).nonlocals
        held = [dict(cells), tree.__defaults__, tree.__kwdefaults__]
        return ["function", name, identity(held, (*within, tree))]
    if isinstance(tree, Mapping):
        return [kind, {str(name): look(value) for name, value in tree.items()}]
    if isinstance(tree, list | tuple | set | frozenset):
        return [kind, *map(look, tree)]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [field.name for field in dataclasses.fields(tree)]
        held = {name: look(getattr(tree, name, None)) for name in names}
        return [kind, held]
    wrapped = getattr(tree, "__wrapped__", None)
    if wrapped is not None:  # what jit and the like make of a function
        return ["wrapped", kind, look(wrapped)]
    if hasattr(tree, "__qualname__"):
        return f"{tree.__module__}.{tree.__qualname__}"
    leaves = jax.tree.leaves(tree)
    inside = [] if len(leaves) == 1 and leaves[0] is tree else leaves
    return [kind, *map(look, inside)]


def key_words(key: PRNGKeyArray) -> list[Any]:
    """The integers that a key is made of, after its generator if that is no default."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    data = jrandom.key_data(key) if typed else key
    kind = [str(jrandom.key_impl(key))] if typed else []
    usual = [] if kind == ["threefry2x32"] or not typed else kind
    return [*usual, *(int(word) for word in np.asarray(data).ravel())]


def made_with() -> dict[str, str]:
    """Versions and device, for the record."""
    return {
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": str(jnp.zeros(()).devices().pop().device_kind),
    }


def claim(place: Path, config: Mapping[str, Any], what: str) -> str:
    """Writes the configuration, or compares it with the one there; its digest.

    Raises:
        ValueError: the folder holds ``what`` of another configuration.
        OSError: nothing can be written there.
    """
    _require_writable(place)
    path = place / _CONFIG
    config = json.loads(json.dumps(config))  # tuples become lists, as in the file
    if not path.exists():
        write_first(path, json.dumps({**config, "made_with": made_with()}, indent=1))
    try:
        there = json.loads(path.read_text())
        there.pop("made_with", None)
    except (ValueError, AttributeError, TypeError) as error:
        msg = f"{path} is damaged ({error}). Delete it if the folder's results are new."
        raise ValueError(msg) from error
    different = sorted(
        name for name in {*there, *config} if there.get(name) != config.get(name)
    )
    if different:
        name = different[0]
        msg = (
            f"{place} holds {what} of another configuration: {', '.join(different)} "
            f"differ ({name} is {_short(config.get(name))}, there "
            f"{_short(there.get(name))}). "
            "Choose another folder, or the settings in its config.json."
        )
        raise ValueError(msg)
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _require_writable(place: Path) -> None:
    probe = beside(place / "probe")
    try:
        place.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        msg = (
            f"{place} cannot be written to ({error.strerror}); expected a folder, or a "
            "path where one can be made. Nothing has been computed."
        )
        raise OSError(msg) from error


def write_arrays(path: Path, arrays: Mapping[str, Any], config: str) -> None:
    """Arrays by name in an npz file, with the digest of what they belong to."""
    held: Any = {name: np.asarray(value) for name, value in arrays.items()}
    held["config"] = np.array(config)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **held)


def read_arrays(path: Path, config: str, what: str) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote.

    Raises:
        ValueError: a damaged file, or one that belongs to another ``what``.
    """
    try:
        with open(path, "rb") as whole, np.load(whole, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
            owner = str(arrays.pop("config"))
    except Exception as error:
        msg = f"{path} cannot be read ({error}). Delete it: it will be run again."
        raise ValueError(msg) from error
    if owner != config:
        msg = f"{path} belongs to another {what}. Delete it: it will be run again."
        raise ValueError(msg)
    return arrays


def bar(total: int, done: int, unit: str, wanted: bool) -> Any:
    """A bar of tqdm with the time that is left, or None.

    Raises:
        ImportError: wanted, and tqdm is missing.
    """
    if not wanted:
        return None
    try:
        from tqdm import tqdm
    except ImportError as error:
        msg = "progress=True needs tqdm; pip install tqdm, or pass progress=False."
        raise ImportError(msg) from error
    return tqdm(total=total, initial=done, unit=unit)
