"""A folder of results: one file per piece of work, whole or not there."""

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrelu._files import beside, replacing, write_first


_CONFIG = "config.json"


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
