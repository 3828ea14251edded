"""The pages that map papers to functions name tests that exist."""

import ast
import functools
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(p for p in (ROOT / "docs").glob("*.md") if "::" in p.read_text())
ALIASES = {
    "lemmas": "theory_lemmas",
    "runs": "theory_runs",
    "phase": "phase_transition",
    "fit": "transition_fit",
    "lazy": "lazy_training",
}


@functools.cache
def functions_in(name):
    path = ROOT / "tests" / f"test_{name.removeprefix('test_').removesuffix('.py')}.py"
    if not path.exists():
        return None
    found = (n for n in ast.walk(ast.parse(path.read_text())))
    return {n.name for n in found if isinstance(n, ast.FunctionDef)}


def missing(text):
    """Evidence without a test behind it; `::name` goes on in the file named before."""
    lost, file = [], None
    text = text.replace("`file::test`", "")  # how it is written, said on the page
    for before, after in re.findall(r"`(\w*(?:\.py)?)::(\w+)`", text):
        file = ALIASES.get(before, before) if before else file
        known = functions_in(file) if file else None
        if known is None or not {after, f"test_{after}"} & known:
            lost.append(f"{file}::{after}")
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_evidence_exists(page):
    assert missing(page.read_text()) == []


def test_a_lost_test_is_found():
    text = "`docs::a_lost_test_is_found`, `::evidence_exists`, `::gone`, `nofile::x`"
    assert missing(text) == ["docs::gone", "nofile::x"]
