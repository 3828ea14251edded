"""Data sets in files: `.npz`, `.csv` and `.parquet`; every defect has its own words."""

import csv
import difflib
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrelu._files import replacing
from jaxrelu.data._arguments import floating_dtype
from jaxrelu.data._dataset import Dataset


_SUFFIXES = (".npz", ".csv", ".parquet")
_OURS = {"inputs", "targets", "name", "normalised"}
"""The arrays of a file that `save` wrote."""


def load(
    path: str | os.PathLike[str],
    *,
    inputs: str | Sequence[str] | None = None,
    targets: str | Sequence[str] | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> Dataset:
    r"""A data set from a file, whose kind is told by its suffix.

    * ``.npz``: ``inputs`` and ``targets`` name arrays of shapes (n, d) and (n,) or
      (n, m); default ``"inputs"`` and ``"targets"``, which is what `save` writes.
      Nothing is unpickled.
    * ``.csv``: comma-separated UTF-8 text with a header. ``targets`` names a column, or
      several for shape (n, m); ``inputs`` lists columns in order, default all others.
      Every cell is read as a float; empty lines are skipped.
    * ``.parquet``: columns as for ``.csv``; needs pyarrow.

    Rows are neither normalised nor dropped: ``load(path, ...).normalise()``.

    Args:
        path: the file.
        inputs: array name, or column names.
        targets: array name, or one or several column names.
        dtype: floating dtype of the result. Default for ``.csv``: the current default
            float. Default for the others: the dtype in the file as JAX holds it
            (float64 becomes float32 while x64 is off), which must then be floating;
            an explicit dtype also converts integers and booleans.
        name: default the file's name without suffix, or what `save` wrote.

    Raises:
        FileNotFoundError: no such file.
        ImportError: pyarrow is missing.
        TypeError: entries that are not numbers, a column or array of integers or
            booleans without ``dtype``, or column names that are not strings.
        ValueError: unknown suffix, empty, truncated or malformed file, no such array or
            column (the message lists what there is), ragged rows, cells that are
            empty, NaN or not numbers (with line and column).
    """
    path = Path(path)
    dtype = None if dtype is None else floating_dtype(dtype)
    if path.suffix.lower() not in _SUFFIXES:
        msg = (
            f"{path} has suffix {path.suffix!r}; expected {' or '.join(_SUFFIXES)}. "
            "Convert the file, or build Dataset(inputs, targets) from arrays."
        )
        raise ValueError(msg)
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        msg = f"{path} {what}; expected a data file. Looked in {path.parent.resolve()}."
        raise FileNotFoundError(msg)
    if path.stat().st_size == 0:
        msg = f"{path} is empty (0 bytes); expected data. Write the file again."
        raise ValueError(msg)
    if path.suffix.lower() == ".npz":
        return _load_npz(path, inputs, targets, dtype, name)
    if path.suffix.lower() == ".csv":
        dtype = floating_dtype(None) if dtype is None else dtype
        x, y = _read_csv(path, inputs, targets)
    else:
        x, y = _read_parquet(path, inputs, targets, dtype)
    x, y = _numbers(path, x, y, dtype)
    return Dataset(x, y, name=path.stem if name is None else name)


def save(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Writes a data set to an ``.npz`` file that `load` reads back bit for bit.

    The file appears whole or not at all.

    Raises:
        TypeError: a dtype that NumPy files cannot hold, such as bfloat16.
        ValueError: a suffix other than ``.npz``.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        msg = f"{path} has suffix {path.suffix!r}; expected '.npz'. Rename it."
        raise ValueError(msg)
    if np.dtype(dataset.dtype).kind != "f":
        msg = (
            f"{dataset!r} cannot be written: NumPy files hold float16, float32 and "
            "float64. Convert it first with dataset.astype('float32')."
        )
        raise TypeError(msg)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            inputs=np.asarray(dataset.inputs),
            targets=np.asarray(dataset.targets),
            name=np.asarray(dataset.name),
            normalised=np.asarray(dataset.normalised),
        )


def _numbers(path: Path, inputs: Any, targets: Any, dtype: Any) -> tuple[Any, Any]:
    """Both arrays in one floating dtype of native byte order."""
    both = [
        _converted(path, array, what, dtype)
        for array, what in ((inputs, "inputs"), (targets, "targets"))
    ]
    if both[0].dtype != both[1].dtype:
        msg = (
            f"{path}: inputs has dtype {both[0].dtype} and targets {both[1].dtype}; "
            f"expected one dtype. Pass dtype='{both[0].dtype}' to convert."
        )
        raise TypeError(msg)
    return jnp.asarray(both[0]), jnp.asarray(both[1])


def _converted(path: Path, array: np.ndarray, what: str, dtype: Any) -> np.ndarray:
    """A floating array of native byte order."""
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        msg = (
            f"{path}: {what} has dtype {array.dtype}; expected float16, float32 or "
            "float64. Write numbers to the file."
        )
        raise TypeError(msg)
    if array.dtype.kind != "f" and dtype is None:
        msg = (
            f"{path}: {what} has dtype {array.dtype}; expected a floating dtype. "
            "Pass dtype='float32' (or another) to convert."
        )
        raise TypeError(msg)
    with np.errstate(over="ignore"):  # infinities are refused with their index
        return np.asarray(array, dtype or array.dtype.newbyteorder("="))


def _require(path: Path, wanted: str, there: Sequence[str], what: str) -> None:
    if wanted in there:
        return
    close = difflib.get_close_matches(wanted, there, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(map(repr, there[:20])) + (", ..." if len(there) > 20 else "")
    msg = f"{path} has no {what} {wanted!r}; there are {shown or 'none'}.{hint}"
    raise ValueError(msg)


def _load_npz(path, inputs, targets, dtype, name):
    inputs = "inputs" if inputs is None else inputs
    targets = "targets" if targets is None else targets
    wanted = (inputs, targets)
    for array in wanted:
        if not isinstance(array, str):
            msg = (
                f"{array!r} was asked of {path}; expected the name of one array in it. "
                "Pass a string."
            )
            raise TypeError(msg)
    try:
        if not zipfile.is_zipfile(path):
            msg = "it is not a zip archive, or its end is missing"
            raise zipfile.BadZipFile(msg)  # noqa: TRY301
        with np.load(path, allow_pickle=False) as file:
            there = list(file.files)
            ours = set(there) == _OURS
            read = {array: file[array] for array in there if ours or array in wanted}
        if not all(isinstance(array, np.ndarray) for array in read.values()):
            msg = "it holds members that are not arrays"
            raise zipfile.BadZipFile(msg)  # noqa: TRY301
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        msg = (
            f"{path} cannot be read as .npz: {error}. Expected plain numeric arrays "
            "written by numpy.savez; the file may be truncated. Write it again."
        )
        raise ValueError(msg) from error
    for array in wanted:
        _require(path, array, there, "array")
    x, y = _numbers(path, read[inputs], read[targets], dtype)
    if name is None:
        name = str(read["name"]) if ours else path.stem
    # Converted upwards, rows keep only the unit length of their old dtype.
    finer = x.dtype.itemsize > read[inputs].dtype.itemsize
    normalised = ours and inputs == "inputs" and bool(read["normalised"]) and not finer
    return Dataset(x, y, name=name, normalised=normalised)


def _names(path: Path, columns: Any, what: str) -> list[str]:
    names = [columns] if isinstance(columns, str) else columns
    names = list(names) if isinstance(names, Iterable) else None
    if names is None or not all(isinstance(name, str) for name in names):
        msg = (
            f"{what} of {path} is {columns!r}; expected a column name or a list of "
            "names. Pass strings, as in the header."
        )
        raise TypeError(msg)
    return names


def _columns(
    path: Path,
    inputs: str | Sequence[str] | None,
    targets: str | Sequence[str] | None,
    there: list[str],
) -> tuple[list[str], list[str]]:
    """The columns asked for, after checking that they are in the table."""
    twice = sorted({column for column in there if there.count(column) > 1})
    if twice:
        msg = (
            f"{path} has several columns called {twice[0]!r}; expected different "
            "names. Rename them in the file."
        )
        raise ValueError(msg)
    if targets is None:
        msg = (
            f"targets of {path} were not named; expected one of its columns or a list "
            f"of them. Pass for example targets={there[-1]!r}."
        )
        raise ValueError(msg)
    y = _names(path, targets, "targets")
    for column in y:
        _require(path, column, there, "column")
    if inputs is None:
        x = [column for column in there if column not in y]
    else:
        x = _names(path, inputs, "inputs")
    for column in x:
        _require(path, column, there, "column")
    if not x or not y:
        msg = (
            f"{path}: inputs {x} and targets {y} were asked; expected at least one "
            f"column each, of {there}. Name them."
        )
        raise ValueError(msg)
    return x, y


def _read_csv(path, inputs, targets):
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            rows = [(lines.line_num, row) for row in lines if row]
    except (csv.Error, UnicodeDecodeError) as error:
        msg = (
            f"{path} cannot be read as .csv: {error}. Expected comma-separated UTF-8 "
            "text. Write it again in that form."
        )
        raise ValueError(msg) from error
    if len(rows) < 2:
        msg = (
            f"{path} has {len(rows)} lines; expected a header and at least one row. "
            "Write the file again."
        )
        raise ValueError(msg)
    header = [column.strip() for column in rows[0][1]]
    _check_header(path, header)
    x, y = _columns(path, inputs, targets, header)
    for line, row in rows[1:]:
        if len(row) != len(header):
            msg = (
                f"{path}, line {line}: {len(row)} cells; expected {len(header)}, as in "
                "the header. Mend or drop that line."
            )
            raise ValueError(msg)

    def table(columns):
        places = [header.index(column) for column in columns]
        return np.array(
            [
                [_number(path, line, header[j], row[j]) for j in places]
                for line, row in rows[1:]
            ]
        )

    return table(x), table(y) if not isinstance(targets, str) else table(y)[:, 0]


def _check_header(path: Path, header: list[str]) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        msg = (
            f"{path} has one column, called {header[0]!r}; expected cells separated by "
            "commas. Write it with commas."
        )
        raise ValueError(msg)
    if all(_as_float(column) is not None for column in header):
        msg = (
            f"{path} starts with the numbers {', '.join(header[:3])}; expected a "
            "header with column names. Add one as the first line."
        )
        raise ValueError(msg)


def _as_float(cell: str) -> float | None:
    try:
        # float() also takes the underscores of Python literals.
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _number(path: Path, line: int, column: str, cell: str) -> float:
    number = _as_float(cell)
    if number is None or not np.isfinite(number):
        msg = (
            f"{path}, line {line}, column {column!r}: {cell!r}; expected a finite "
            "number. Mend the cell, or drop or impute that line."
        )
        raise ValueError(msg)
    return number


def _read_parquet(path, inputs, targets, dtype):
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        msg = (
            f"{path} needs pyarrow, which is not installed. "
            'Run: pip install "jaxrelu[data]"'
        )
        raise ImportError(msg) from error
    try:
        there = parquet.read_schema(path).names
        x, y = _columns(path, inputs, targets, there)
        table = parquet.read_table(path, columns=list(dict.fromkeys(x + y)))
    except (OSError, pa.ArrowException) as error:
        msg = (
            f"{path} cannot be read as .parquet: {error}. The file may be truncated. "
            "Write it again."
        )
        raise ValueError(msg) from error
    if table.num_rows == 0:
        msg = f"{path} has no rows; expected at least one. Write the file again."
        raise ValueError(msg)

    def numbers(column):
        values, kind = table[column], table.schema.field(column).type
        if not (
            pa.types.is_floating(kind)
            or pa.types.is_integer(kind)
            or pa.types.is_boolean(kind)
        ):
            msg = (
                f"{path}, column {column!r}: type {kind}; expected numbers. Leave the "
                "column out, or convert it in the file."
            )
            raise TypeError(msg)
        if values.null_count:
            msg = (
                f"{path}, column {column!r}: {values.null_count} missing values; "
                "expected none. Drop or impute those rows."
            )
            raise ValueError(msg)
        return values.to_numpy()

    def stacked(columns, what):
        # each by itself: stacking would turn integers next to others into floats
        parts = [
            _converted(path, numbers(column), f"{what}, column {column!r},", dtype)
            for column in columns
        ]
        return np.stack(parts, axis=1)

    rows, answers = stacked(x, "inputs"), stacked(y, "targets")
    return rows, answers[:, 0] if isinstance(targets, str) else answers
