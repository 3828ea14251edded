r"""Reports: tables for the terminal, one self-contained HTML page, and provenance.

A report is a sequence of blocks (`Heading`, `Text`, `Table`, `Picture`, `Code`).
`page` turns them into one HTML file that refers to nothing outside itself; `Table.text`
is the same table for a terminal.

All text is escaped. Four inline marks are understood, in the page as markup and in the
terminal as plain characters: `` `code` ``, `**strong**`, `_{sub}` and `^{super}`.
"""

import base64
import html
import importlib.metadata
import itertools
import math
import os
import platform
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxrelu._files import replacing
from jaxrelu._results import Estimate


def number(value: Any, error: Any = None, *, digits: int = 4) -> str:
    r"""A number as people read it, with its error if there is one.

    With an error, digits beyond the error's leading one are not shown, and never more
    than ``digits + 2``.

    Args:
        value: a real number.
        error: a non-negative number, or None.
        digits: significant digits when the error does not limit them.
    """
    value = float(value)
    if not math.isfinite(value):
        return {True: "nan", False: "∞" if value > 0 else "−∞"}[math.isnan(value)]
    if error is not None and float(error) > 0 and math.isfinite(float(error)):
        leading = _exponent(float(f"{float(error):.0e}"))
        resolved = _exponent(value) - leading + 1
        shown = _plain(value, min(max(resolved, 1), digits + 2))
        return f"{shown} ± {_plain(float(error), 1)}"
    whole = _exponent(value) + 1  # digits before the point are all shown
    shown = _plain(value, max(digits, whole) if whole <= 6 else digits)
    return shown if error is None else f"{shown} ± {number(error)}"


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def _plain(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    exponent = int(power)
    if -4 <= exponent < 6:
        places = max(digits - 1 - exponent, 0)
        rounded = float(f"{value:.{digits - 1}e}")
        return f"{rounded:,.{places}f}".replace(",", "\u202f").replace("-", "−")
    power = f"10^{{{exponent}}}".replace("-", "−")
    return f"{mantissa}·{power}".replace("-", "−")


def estimate(x: Estimate) -> str:
    """An `Estimate` as ``value ± error``."""
    return number(x.value, x.error)


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    title: str


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    text: str


@dataclass(frozen=True)
class Code:
    """Source text, shown as it is."""

    source: str


@dataclass(frozen=True)
class Picture:
    """A PNG file's bytes with a caption, and words for those who cannot see it."""

    png: bytes
    caption: str
    alt: str


@dataclass(frozen=True)
class Table:
    """Rows of short texts under named columns.

    Attributes:
        columns: their names.
        rows: one text per column each.
        caption: what the table shows.

    Raises:
        ValueError: a row with another number of entries than there are columns.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def __post_init__(self):
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                msg = (
                    f"row {i} has {len(row)} entries; expected {len(self.columns)}, "
                    f"one for each of {tuple(self.columns)}."
                )
                raise ValueError(msg)

    def text(self) -> str:
        """Aligned columns: numbers to the right, words to the left."""
        head = [plain(name) for name in self.columns]
        body = [[plain(cell) for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        right = [_is_numeric(column) for column in zip(*body, strict=True)] or [
            False
        ] * len(head)

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.rjust(w) if r else cell.ljust(w)
                for cell, w, r in zip(cells, widths, right, strict=True)
            )
            return "  ".join(padded).rstrip()

        rule = "  ".join("─" * w for w in widths)
        lines = [line(head), rule, *map(line, body)]
        caption = textwrap.wrap(plain(self.caption), 88) if self.caption else []
        return "\n".join([*caption, "", *lines])


def plain(text: str) -> str:
    """The text without its inline marks, for a terminal."""
    text = re.sub(r"`([^`]*)`|\*\*(.+?)\*\*", lambda m: m[1] or m[2] or "", text)
    return re.sub(r"([_^])\{([^{}]*)\}", r"\1\2", text)


def _markup(text: str) -> str:
    parts = re.split(r"(`[^`]*`)", html.escape(text))
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"<code>{part[1:-1]}</code>"
            continue
        part = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", part)
        part = re.sub(r"_\{([^{}]*)\}", r"<sub>\1</sub>", part)
        parts[i] = re.sub(r"\^\{([^{}]*)\}", r"<sup>\1</sup>", part)
    return "".join(parts)


def _is_numeric(cells: Iterable[str]) -> bool:
    """Whether a column reads as numbers: every cell that has a letter starts with one.

    Units and words after a number do not matter.
    """
    start = re.compile(r"[−+≤≥<>≈]?\s*(\d|nan|∞)|[–—-]?$")
    cells = list(cells)
    return any(cells) and all(start.match(cell) for cell in cells)


def _block(block: Any, figure_number: Any, table_number: Any) -> str:
    if isinstance(block, Heading):
        return f"<h2>{_markup(block.title)}</h2>"
    if isinstance(block, Text):
        return f"<p>{_markup(block.text)}</p>"
    if isinstance(block, Code):
        return f"<pre><code>{html.escape(block.source)}</code></pre>"
    if isinstance(block, Picture):
        data = base64.b64encode(block.png).decode("ascii")
        return (
            f'<figure><img src="data:image/png;base64,{data}" '
            f'alt="{html.escape(block.alt, quote=True)}">'
            f"<figcaption><b>Figure {next(figure_number)}.</b> "
            f"{_markup(block.caption)}</figcaption></figure>"
        )
    if isinstance(block, Table):
        return _table(block, table_number)
    msg = (
        f"got a {type(block).__name__}; expected a Heading, Text, Table, Picture or "
        "Code. Wrap it in one of them."
    )
    raise TypeError(msg)


def _table(table: Table, table_number: Any) -> str:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    kinds = [
        ' class="n"' if _is_numeric(map(plain, column)) else "" for column in columns
    ]
    caption = ""
    if table.caption:
        caption = (
            f"<figcaption><b>Table {next(table_number)}.</b> "
            f"{_markup(table.caption)}</figcaption>"
        )
    head = "".join(
        f'<th scope="col"{kind}>{_markup(name)}</th>'
        for name, kind in zip(table.columns, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{_markup(cell)}</td>"
            for cell, kind in zip(row, kinds, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<figure>{caption}<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></figure>"
    )


_STYLE = """
:root { color-scheme: light dark;
  --paper: #fdfdfc; --ink: #1c1e21; --soft: #5c6066; --rule: #d9dbde;
  --tint: #f3f4f5; --accent: #0b5c96; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #16181b; --ink: #e4e6e8; --soft: #a0a5ab; --rule: #363a3f;
  --tint: #202327; --accent: #7fbdea; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.6 Charter, "Bitstream Charter", "Iowan Old Style", Georgia, serif; }
main { max-width: 60rem; margin: 0 auto; padding: 3.5rem 1.5rem 5rem; }
h1, h2, th, figcaption, .lead, dl, footer {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.015em; }
.lead { color: var(--soft); font-size: 1.05rem; margin: 0 0 2.5rem; }
h2 { font-size: 1.3rem; margin: 3.2rem 0 .8rem; padding-top: 1rem;
  border-top: 1px solid var(--rule); }
p { max-width: 44rem; margin: 0 0 1rem; }
code { font: .86em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
p code, td code { background: var(--tint); padding: .1em .3em; border-radius: 3px; }
pre { background: var(--tint); border: 1px solid var(--rule); border-radius: 6px;
  padding: 1rem 1.2rem; white-space: pre-wrap; overflow-wrap: anywhere;
  max-width: 48rem; }
sub, sup { line-height: 0; font-size: .75em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; line-height: 1.4; }
figcaption { font-size: .85rem; line-height: 1.5; color: var(--soft);
  max-width: 52rem; margin: .6rem 0; }
figcaption b, figcaption strong { color: var(--ink); }
th { font-size: .78rem; font-weight: 600; text-align: left; vertical-align: bottom;
  border-bottom: 1.5px solid var(--ink); }
th, td { padding: .38rem .9rem .38rem 0; }
td { border-bottom: 1px solid var(--rule); vertical-align: top; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.n { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  font-size: .82rem; }
figure { margin: 1.8rem 0; }
figure img { display: block; width: 100%; height: auto; background: #fff;
  border: 1px solid var(--rule); border-radius: 6px; padding: .6rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem;
  font-size: .85rem; margin: 1rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { main { max-width: none; padding: 0; }
  figure, tr { break-inside: avoid; } }
""".strip()


def page(
    title: str,
    blocks: Iterable[Any],
    *,
    lead: str = "",
    record: Mapping[str, Any] | None = None,
) -> str:
    """One HTML page that refers to nothing outside itself.

    Args:
        title: of the page.
        blocks: `Heading`, `Text`, `Table`, `Picture`, `Code`, in their order.
        lead: one sentence under the title.
        record: what the numbers were computed with (see `provenance`), shown at the
            end.

    Raises:
        TypeError: something that is not a block.
    """
    figure_number, table_number = itertools.count(1), itertools.count(1)
    body = [_block(block, figure_number, table_number) for block in blocks]
    if record:
        items = "".join(
            f"<dt>{_markup(str(name))}</dt><dd>{html.escape(str(value))}</dd>"
            for name, value in record.items()
        )
        body.append(f"<h2>Provenance</h2><dl>{items}</dl>")
    head = f'<p class="lead">{_markup(lead)}</p>' if lead else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(plain(title))}</title><style>\n{_STYLE}\n</style></head>"
        f"<body><main><h1>{_markup(title)}</h1>{head}\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def write(path: str | Path, content: str | bytes) -> Path:
    """Writes a file whole or not at all, making its folder if need be."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return path


_PACKAGES = ("jaxrelu", "jax", "jaxlib", "equinox", "lineax", "optax", "numpy", "scipy")


def provenance(**more: Any) -> dict[str, str]:
    """What a result was computed with: device, precision, versions, date.

    Args:
        more: entries that come first: the key, the configuration, the time taken.
    """
    device = jax.devices()[0]
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    record = {name.replace("_", " "): str(value) for name, value in more.items()}
    return record | {
        "platform": jax.default_backend(),
        "device": f"{jax.device_count()} × {device.device_kind}",
        "dtype": jnp.zeros(()).dtype.name,
        "host": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


class Progress:
    """Lines with the time since the start, one per stage of a long computation."""

    def __init__(self, stream: Any = None):
        """The clock starts now; ``stream`` defaults to standard output."""
        self._start = time.perf_counter()
        self._stream = stream

    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self._start

    def __call__(self, text: str) -> None:
        """Prints one line at once."""
        stream = sys.stdout if self._stream is None else self._stream
        print(f"[{self.seconds():6.1f} s] {plain(text)}", file=stream, flush=True)
