"""Options of the scripts, and the page that they leave."""

import dataclasses
from typing import ClassVar

import matplotlib.figure
import pytest

from jaxrelu import cli
from jaxrelu.report import Picture, Progress, Table, Text


@dataclasses.dataclass(frozen=True)
class Config(cli.AbstractOptions):
    """A script."""

    QUICK: ClassVar = {"n": 3}

    n: int = 10
    """Points."""


def test_quick_replaces_what_it_names_and_nothing_else(tmp_path):
    config = Config(out=tmp_path)
    assert config.sized() == config
    small = Config(quick=True, out=tmp_path).sized()
    assert (small.n, small.out, small.quick) == (3, tmp_path, True)


def test_the_command_line_fills_the_options(monkeypatch, capsys, tmp_path):
    line = ["script", "--n", "7", "--out", str(tmp_path), "--require", "cpu"]
    monkeypatch.setattr("sys.argv", line)
    config = cli.run(lambda config: config, Config)
    assert config == Config(n=7, out=tmp_path, require="cpu")
    monkeypatch.setattr("sys.argv", ["script", "--help"])
    with pytest.raises(SystemExit):
        cli.run(lambda config: config, Config)
    said = capsys.readouterr().out
    for words in ("A script.", "Points.", "Folder for the figures", "Small sizes"):
        assert words in said


def test_a_page_with_its_tables_printed_and_its_options_on_record(tmp_path, capsys):
    config = Config(out=tmp_path, n=7)
    pictures = cli.illustrate(config, {"empty": matplotlib.figure.Figure()})
    assert (tmp_path / "empty.png").read_bytes() == pictures["empty"]
    blocks = [
        Text("words"),
        Table(("a", "b"), [("1", "2")], "A table."),
        Picture(pictures["empty"], "caption", "alt"),
    ]
    say = Progress()
    where = cli.publish(config, say, "name", "Title", blocks, lead="", data="mine")
    assert where == tmp_path / "name.html"
    page, printed = where.read_text(), capsys.readouterr().out
    assert "A table." in printed
    assert "words" not in printed
    for said in ("Title", "words", "A table.", "&#x27;n&#x27;: 7", "mine"):
        assert said in page
    assert str(tmp_path) not in page
