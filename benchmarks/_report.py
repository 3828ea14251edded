"""What a benchmark writes down: environment, rows, targets; as text, JSON, Markdown."""

import datetime as dt
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _harness import ROOT, Row, available_memory, child_environment


class Target(NamedTuple):
    """One promise, and what became of it.

    Attributes:
        name: the promise.
        got: the measured number, None where something it needs was not measured.
        wanted: the number promised.
        at_most: whether ``got`` must stay below ``wanted`` (else above).
        note: what ``got`` was computed from.
    """

    name: str
    got: float | None
    wanted: float
    at_most: bool
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the promise was kept; None if that was not measured."""
        if self.got is None or not math.isfinite(self.got):
            return None
        kept = self.got <= self.wanted if self.at_most else self.got >= self.wanted
        return bool(kept)

    @property
    def verdict(self) -> str:
        """The same in a word."""
        return {True: "met", False: "NOT met", None: "not measured"}[self.met]


def ratio(one: float | None, two: float | None) -> float | None:
    """The quotient; None if either is missing."""
    return one / two if one is not None and two else None


def seconds(value: float | None) -> str:
    """A duration with three figures."""
    if value is None:
        return "–"
    for unit, scale in (("µs", 1e-6), ("ms", 1e-3)):
        if value < 1000 * scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"


def megabytes(value: int | None) -> str:
    """Bytes in MB."""
    return "–" if value is None else f"{value / 1e6:.3g} MB" if value else "0"


def number(value: float | None, form: str = ".1e") -> str:
    """A number in the given form, or a dash."""
    return "–" if value is None else format(value, form)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, columns aligned, so that it reads well in a terminal too."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = [
        "| " + " | ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) + " |"
        for row in table
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def rows_table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """One line per candidate; ``columns`` are the accuracies shown.

    What was skipped or stopped has the word in its line and the reason below.
    """
    header = ["candidate", "compile", "first call", "steady", "min", "calls", "peak"]
    body, reasons = [], []
    for row in rows:
        if row.status != "ok":
            word = row.status.partition(":")[0]
            blank = ["–"] * (len(header) + len(columns) - 4)
            body.append([row.label, "–", "–", word, *blank])
            reasons.append(f"- {row.label}: {row.status}")
            continue
        peak = megabytes(row.memory)
        body.append(
            [
                row.label,
                seconds(row.compile_s) if row.compile_s else "–",
                seconds(row.first_s),
                seconds(row.median_s),
                seconds(row.min_s),
                str(len(row.seconds)),
                peak if row.peak_bytes is not None else f"{peak} (first)",
                *[number(row.accuracy.get(name)) for name in columns],
            ]
        )
    table = markdown([*header, *columns], body)
    return "\n".join([table, "", *reasons]) if reasons else table


def summary_table(rows: Sequence[Row], baseline: str) -> str:
    """Steady time of every candidate at every size, and as a multiple of one."""
    cells = list(dict.fromkeys(_cell(row) for row in rows))
    labels = list(dict.fromkeys((row.candidate, row.label) for row in rows))
    found = {(row.candidate, _cell(row)): row for row in rows}
    body = []
    for name, label in labels:
        line = [label]
        for cell in cells:
            row, ours = found.get((name, cell)), found.get((baseline, cell))
            if row is None or row.median_s is None:
                line.append("–")
                continue
            times = ratio(row.median_s, ours.median_s if ours else None)
            several = f" ({times:.3g}×)" if times and name != baseline else ""
            line.append(seconds(row.median_s) + several)
        body.append(line)
    return markdown(["candidate", *cells], body)


def _cell(row: Row) -> str:
    sizes = ", ".join(str(size) for size in row.sizes.values())
    return f"({sizes}) {row.dtype.replace('float', 'f')}"


def targets_table(targets: Sequence[Target]) -> str:
    """Got, wanted, and whether it was met."""
    return markdown(
        ["target", "got", "wanted", "verdict", "from"],
        [
            [
                target.name,
                number(target.got, ".3g"),
                f"{'≤' if target.at_most else '≥'} {target.wanted:g}",
                target.verdict,
                target.note,
            ]
            for target in targets
        ],
    )


def environment(interpreters: dict[str, str | None]) -> dict[str, Any]:
    """Everything a timing depends on, of the machine and of each interpreter."""
    record: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": _cores(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * _page() / 1e9, 1),
        "available_gb": round(available_memory() / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_at_start": round(os.getloadavg()[0], 2),
        "threads": {
            name: value
            for name, value in os.environ.items()
            if re.fullmatch(r"\w*NUM_THREADS|XLA_FLAGS|\w*JAX_PLATFORMS", name)
        },
        "revision": _revision(),
        "device": {"platform": "cpu", "kind": _cpu_model()},
        "versions": {},
    }
    main = interpreters.get("main")
    if main and main != "inline":
        probe = subprocess.run(
            [main, str(Path(__file__).with_name("_child.py")), "--probe"],
            env=child_environment(main, "float32"),
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.returncode == 0:
            answer = json.loads(probe.stdout.splitlines()[-1])
            record["versions"]["main"] = answer["versions"]
            if answer["device"]["platform"] != "cpu":
                record["device"] = answer["device"]
    return record


_PLACES = {"peers_python", "nt_python", "output", "cache", "stem"}


def settings(options: Any) -> dict[str, str]:
    """The options of a run as text, but for those that name places on this machine."""
    chosen = vars(options).items()
    return {key: str(value) for key, value in chosen if key not in _PLACES}


def hardware_name(record: dict[str, Any]) -> str:
    """File name that says what it was measured on, such as cpu-amd-epyc-2core."""
    platform_name, kind = record["device"]["platform"], record["device"]["kind"]
    kind = re.sub(r"\((R|TM)\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", kind, flags=re.I)
    slug = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    cores = f"-{record['cores']}core" if platform_name == "cpu" else ""
    return f"{platform_name}-{slug}{cores}"


def is_busy(record: dict[str, Any]) -> bool:
    """Whether other programs were already using more than a fifth of the cores."""
    return record["load_at_start"] > 0.2 * record["cores"]


def write(
    folder: Path,
    stem: str,
    title: str,
    record: dict[str, Any],
    sections: Sequence[tuple[str, str]],
    payload: dict[str, Any],
) -> tuple[Path, Path]:
    """Writes stem.md (title, environment, sections) and stem.json (payload)."""
    folder.mkdir(parents=True, exist_ok=True)
    text = [f"# {title}", "", *_environment_lines(record), ""]
    for heading, body in sections:
        text += [f"## {heading}", "", body, ""]
    document, data = folder / f"{stem}.md", folder / f"{stem}.json"
    document.write_text("\n".join(text))
    data.write_text(json.dumps({"environment": record, **payload}, indent=1) + "\n")
    return document, data


def _environment_lines(record: dict[str, Any]) -> list[str]:
    device = record["device"]
    lines = [
        f"- {record['date']}, revision {record['revision']}",
        f"- {record['cpu']}, {record['cores']} cores, {record['memory_gb']} GB, "
        f"{record['system']}",
        f"- load average at the start {record['load_at_start']}"
        + (" (**busy: do not trust these times**)" if is_busy(record) else ""),
    ]
    if device["platform"] != "cpu":
        lines.append(f"- device: {device['kind']}")
    if record["threads"]:
        lines.append(f"- variables: {record['threads']}")
    for name, versions in record["versions"].items():
        found = ", ".join(f"{key} {value}" for key, value in versions.items())
        lines.append(f"- environment {name}: {found}")
    return lines


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _page() -> int:
    return os.sysconf("SC_PAGE_SIZE")


def _revision() -> str:
    def git(*arguments: str) -> str:
        run = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return run.stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", "jaxrelu")
        return (git("rev-parse", "--short", "HEAD") or "unknown") + "+" * bool(dirty)
    except OSError:
        return "unknown"
