"""Files that are whole or not there."""

import concurrent.futures
import os
from pathlib import Path

import pytest

from jaxrelu._files import replacing


def write(path, content):
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def fail(path, begin):
    with replacing(path) as temporary:
        begin(temporary)
        raise ZeroDivisionError


def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "x"
    write(path, b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == tmp_path
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write(path, b"old")
    with pytest.raises(ZeroDivisionError):
        fail(path, lambda temporary: temporary.write_bytes(b"ne"))

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write(path, b"new")
    with pytest.raises(OSError, match="No such file"), replacing(path):
        pass  # nothing was written
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders(tmp_path):
    path = tmp_path / "folder"
    for names in (("a", "b"), ("c",)):
        with replacing(path) as temporary:
            temporary.mkdir()
            for name in names:
                (temporary / name).touch()
        assert sorted(p.name for p in path.iterdir()) == list(names)
    with pytest.raises(ZeroDivisionError):
        fail(path, Path.mkdir)
    assert [p.name for p in path.iterdir()] == ["c"]
    assert list(tmp_path.iterdir()) == [path]


def test_writers_at_the_same_time_do_not_meet(tmp_path):
    """Also within one process, and on machines that share a disk."""
    path, contents = tmp_path / "x", [bytes([i]) * 2**16 for i in range(16)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write(path, content), contents))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]
