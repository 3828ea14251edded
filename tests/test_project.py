"""The house rules, as tests. Each checker is also shown a breach it must find."""

import ast
import pkgutil
import re
import tomllib

import pytest
from _project import (
    ROOT,
    SCRIPTS,
    SOURCES,
    breaches_of,
    dotted_name,
    parsed,
    source_id,
)

import jaxrelu


# ---------------------------------------------------------------- public JAX only

PRIVATE = ("jax._src", "jax.core", "jax.interpreters", "jaxlib")
SHARDED_HAZARDS = ("equinox.error_if", "equinox.branched_error_if")


def imported_names(tree):
    """What each local name stands for, by the module's own imports."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def uses(tree):
    """Every (line, dotted name) that a module imports or reads from an import."""
    names = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Attribute):
            parts, inner = [], node
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in names:
                yield node.lineno, ".".join([names[inner.id], *reversed(parts)])


def forbidden_uses(tree, forbidden):
    return [
        f"line {line}: {name}"
        for line, name in uses(tree)
        if any(name == bad or name.startswith(bad + ".") for bad in forbidden)
    ]


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_public_jax_only(path):
    found = forbidden_uses(parsed(path), PRIVATE)
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_failures_are_data(path):
    found = forbidden_uses(parsed(path), SHARDED_HAZARDS)
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import jax._src.core",
        "import jax.core as c",
        "from jax import core",
        "from jax._src import util",
        "from jax.interpreters import mlir",
        "import jax\ndef f(x):\n    return jax.core.get_aval(x)",
        "import jax as j\nj.interpreters.ad",
        "import jaxlib",
    ],
)
def test_private_jax_is_found(source):
    assert breaches_of(forbidden_uses, source, PRIVATE)


def test_public_jax_is_not_mistaken():
    source = "import jax\nfrom jax import lax\nimport jax.numpy as jnp\njnp.core\n"
    assert not breaches_of(forbidden_uses, source, PRIVATE)


def test_error_if_is_found():
    source = "import equinox as eqx\ny = eqx.error_if(x, x < 0, 'no')"
    assert breaches_of(forbidden_uses, source, SHARDED_HAZARDS)


# ------------------------------------------------------------ annotations at run time


def postponed_annotations(tree):
    return [
        f"line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]


@pytest.mark.parametrize("path", SOURCES + SCRIPTS, ids=source_id)
def test_annotations_are_not_postponed(path):
    """Strings instead of types would turn the jaxtyping checks off."""
    found = postponed_annotations(parsed(path))
    assert found == []


def test_postponed_annotations_are_found():
    source = "from __future__ import annotations"
    assert breaches_of(postponed_annotations, source)


CHECKED_DUNDERS = ("__init__", "__call__")


def is_public(name):
    return not name.startswith("_") or name in CHECKED_DUNDERS


def unannotated(tree, prefix="", method=False):
    """Public functions and methods with an argument or a return left open."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            found += unannotated(node, f"{prefix}{node.name}.", method=True)
        if not isinstance(node, ast.FunctionDef) or not is_public(node.name):
            continue
        decorators = {getattr(d, "id", None) for d in node.decorator_list}
        args = node.args.posonlyargs + node.args.args
        if method and "staticmethod" not in decorators:
            args = args[1:]
        args += node.args.kwonlyargs
        args += [a for a in (node.args.vararg, node.args.kwarg) if a is not None]
        missing = [a.arg for a in args if a.annotation is None]
        if node.returns is None and node.name != "__init__":
            missing.append("return")
        if missing:
            found.append(f"{prefix}{node.name} (line {node.lineno}): {missing}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_public_functions_are_annotated(path):
    found = unannotated(parsed(path))
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(x) -> int: ...",
        "def f(x: int): ...",
        "def f(*args) -> int: ...",
        "def f(*, key) -> int: ...",
        "class A:\n    def f(self, x) -> int: ...",
        "class A:\n    @staticmethod\n    def f(x) -> int: ...",
        "class A:\n    def __call__(self, x: int): ...",
    ],
)
def test_missing_annotations_are_found(source):
    assert breaches_of(unannotated, source)


def test_annotated_and_private_functions_pass():
    source = """
        def f(x: int, *, key: int, **more: int) -> int: ...
        def _g(x): ...
        class A:
            def f(self, x: int) -> int: ...
            @classmethod
            def g(cls) -> int: ...
    """
    assert not breaches_of(unannotated, source)


# ----------------------------------------------------------- rooms stand on each other

GROUND = {"activations", "data"}
MODELS = GROUND | {"networks", "objectives"}
MAY_IMPORT = {
    "activations": set(),
    "data": set(),
    "networks": {"activations"},
    "objectives": GROUND | {"networks"},
    "operators": MODELS,
    "spectra": {"operators._interface"},
    "landscape": MODELS | {"operators", "spectra"},
    "dynamics": MODELS | {"operators", "spectra"},
    "realization": {"activations", "networks"},
    "theory": MODELS | {"operators", "spectra", "landscape"},
}
MAY_IMPORT["experiments"] = set(MAY_IMPORT)
MAY_IMPORT["figures"] = {*MAY_IMPORT}
MAY_IMPORT["report"] = {*MAY_IMPORT}
MAY_IMPORT["cli"] = {*MAY_IMPORT}
FACADE = {"", "__main__"}


def own_imports(tree, module, is_package):
    """(line, target) of each import from jaxrelu, without the leading package name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "jaxrelu":
                    yield node.lineno, alias.name.partition(".")[2]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")
                package = package[: len(package) - node.level + is_package]
                base = ".".join(package + ([base] if base else []))
            if base.split(".")[0] == "jaxrelu":
                for alias in node.names:
                    yield node.lineno, f"{base}.{alias.name}".partition(".")[2]


def layer_breaches(tree, module, is_package):
    """Imports of a room that does not stand before the module's own."""
    room = module.partition(".")[2].split(".")[0]
    allowed = {room} | (set() if room.startswith("_") else MAY_IMPORT[room])
    found = []
    for line, target in own_imports(tree, module, is_package):
        foundation = target.startswith("_") and target.split(".")[0] not in FACADE
        inside = any(target == a or target.startswith(a + ".") for a in allowed)
        if not foundation and not inside:
            found.append(f"line {line}: jaxrelu.{target}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_rooms_import_only_what_stands_before_them(path):
    module = dotted_name(path)
    if module.partition(".")[2] in FACADE:
        return
    tree = parsed(path)
    found = layer_breaches(tree, module, path.name == "__init__.py")
    assert found == []


def test_every_room_is_in_the_table():
    rooms = {
        name
        for _, name, _ in pkgutil.iter_modules(jaxrelu.__path__)
        if not name.startswith("_")
    }
    assert rooms <= set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jaxrelu.activations._kernels", "from jaxrelu.networks import Shallow"),
        ("jaxrelu.activations._kernels", "from jaxrelu import networks"),
        ("jaxrelu.activations._kernels", "import jaxrelu as jr"),
        ("jaxrelu.activations._kernels", "from ..networks import Shallow"),
        ("jaxrelu.activations._kernels", "from .. import networks"),
        ("jaxrelu.spectra._dense", "from jaxrelu.operators import jacobian"),
        ("jaxrelu.spectra._dense", "def f():\n    import jaxrelu.networks"),
        ("jaxrelu.operators._jacobian", "import jaxrelu.spectra._dense"),
        ("jaxrelu._checks", "from jaxrelu.data import Dataset"),
    ],
)
def test_imports_from_above_are_found(module, source):
    assert breaches_of(layer_breaches, source, module, False)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("jaxrelu.networks._shallow", "from jaxrelu.activations import ReLU"),
        ("jaxrelu.networks._shallow", "from jaxrelu._checks import is_concrete"),
        ("jaxrelu.networks._shallow", "from ._base import AbstractNetwork"),
        ("jaxrelu.spectra._dense", "from jaxrelu.operators._interface import gram"),
        ("jaxrelu.theory._oymak", "from jaxrelu.spectra import spectrum"),
    ],
)
def test_imports_from_below_pass(module, source):
    assert not breaches_of(layer_breaches, source, module, False)


# ---------------------------------------------------------------- the project's files

PIN = re.compile(
    r'[A-Za-z0-9][\w.-]*==[\w.!+]+(; python_version (<|>=) "3\.\d+")?',
)


def test_constraints_are_names_and_versions():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    assert len(lines) > 20
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    for address in ("x @ https://a.b/x.whl", "-e .", "x==1 --hash=sha256:0", "x>=1"):
        assert not PIN.fullmatch(address)


def canonical(requirement):
    name = re.match(r"[A-Za-z0-9._-]+", requirement)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_cover_what_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    for name in extras.keys() - {"cuda", "cuda12", "tpu"}:
        wanted += extras[name]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonical(line) for line in lines if not line.startswith("#")}
    assert {canonical(r) for r in wanted} - {"jaxrelu"} - pinned == set()
