"""Files that are whole or not there, whenever the process ends."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


def beside(path: Path, word: str = "tmp") -> Path:
    """A name in the same folder that no other process, on any machine, has."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{word}")


def write_first(path: Path, text: str) -> None:
    """Writes a file whole, unless there is one: of several writers one is the first."""
    temporary = beside(path)
    try:
        with open(temporary, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError:  # no hard links here
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another name to write a file or a folder under; renamed to ``path`` at the end.

    A file is forced to disk first, and takes the place of what is there in one step. A
    folder takes it in two: a kill between them leaves the old one beside it as
    ``.NAME.*.old``. After an exception nothing has changed; a kill leaves the
    unfinished ``.NAME.*.tmp``.

        with replacing(path) as temporary:
            temporary.write_bytes(data)
    """
    temporary = beside(path)
    try:
        yield temporary
        if temporary.is_dir():
            old = beside(path, "old")
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
