"""What the tests of the house rules share."""

import ast
import functools
import pkgutil
import textwrap
from pathlib import Path

import jaxrelu


ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "jaxrelu"
SOURCES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(
    path
    for folder in ("tests", "examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)


def source_id(path):
    return str(path.relative_to(ROOT))


def dotted_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_names():
    found = pkgutil.walk_packages(jaxrelu.__path__, "jaxrelu.")
    return ["jaxrelu", *(m.name for m in found if not m.name.endswith("__main__"))]


@functools.cache
def parsed(path):
    """The tree of a file, which several rules look at."""
    return ast.parse(path.read_text())


def breaches_of(check, source, *args):
    return check(ast.parse(textwrap.dedent(source)), *args)
