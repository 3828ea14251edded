"""The house rules, as tests. Each checker is also shown a breach it must find."""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import textwrap
import tomllib
import types
from pathlib import Path

import equinox as eqx
import pytest

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


def breaches_of(check, source, *args):
    return check(ast.parse(textwrap.dedent(source)), *args)


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
    found = forbidden_uses(ast.parse(path.read_text()), PRIVATE)
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=source_id)
def test_failures_are_data(path):
    found = forbidden_uses(ast.parse(path.read_text()), SHARDED_HAZARDS)
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
    found = postponed_annotations(ast.parse(path.read_text()))
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
    found = unannotated(ast.parse(path.read_text()))
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
    tree = ast.parse(path.read_text())
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


# ---------------------------------------------------------------- modules and names


def module_names():
    found = pkgutil.walk_packages(jaxrelu.__path__, "jaxrelu.")
    return ["jaxrelu", *(m.name for m in found if not m.name.endswith("__main__"))]


ROOMS = ["jaxrelu", *(dotted_name(p) for p in sorted(PACKAGE.glob("*/__init__.py")))]
ROOMS += [f"jaxrelu.{p.stem}" for p in PACKAGE.glob("[!_]*.py")]


def public_names(module):
    """Names without underscore that the module offers: its own, and alias imports.

    A name bound by a plain import (`import jax`, `from jaxtyping import Array`) is
    offered only in the form `from x import A as A`.
    """
    names = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom):
            names += [a.name for a in node.names if a.asname == a.name]
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [t.id for t in node.targets if isinstance(t, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.append(node.target.id)
    return [name for name in names if not name.startswith("_")]


def attribute_docstring(module, name):
    """The string literal below an assignment, followed through alias imports."""
    body = ast.parse(inspect.getsource(module)).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ImportFrom):
            if any((a.asname or a.name) == name for a in node.names):
                origin = importlib.import_module("." * node.level + (node.module or ""))
                return attribute_docstring(origin, name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                value = after.value if isinstance(after, ast.Expr) else None
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    return value.value
    return ""


def own_docstring(value):
    doc = getattr(value, "__doc__", None) or ""
    # dataclasses write "Name(field, ...)" where there is no docstring
    generated = isinstance(value, type) and doc.startswith(f"{value.__name__}(")
    return "" if generated else doc.strip()


def undocumented(module):
    """Public names of a module, and public methods of its classes, left unexplained."""
    found = []
    for name in public_names(module):
        value = getattr(module, name)
        is_code = isinstance(value, types.ModuleType | type) or inspect.isroutine(value)
        wrapped = hasattr(value, "__wrapped__")
        ours = type(value).__module__.split(".")[0] == "jaxrelu"
        doc = own_docstring(value) if is_code or wrapped or ours else ""
        if not (doc or attribute_docstring(module, name)):
            found.append(name)
        if isinstance(value, type):
            found += [
                f"{name}.{attribute}"
                for attribute, member in vars(value).items()
                if not attribute.startswith("_")
                and (
                    inspect.isroutine(member)
                    or isinstance(member, property)
                    or hasattr(member, "__wrapped__")
                )
                and not inspect.getdoc(getattr(value, attribute))
            ]
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_resolve_and_are_documented(room):
    module = importlib.import_module(room)
    assert own_docstring(module)
    found = undocumented(module)
    assert found == []


def made_module(tmp_path, monkeypatch, **sources):
    """Imports throw-away modules; the first one is returned."""
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []
    for name in sources:
        monkeypatch.delitem(sys.modules, name, raising=False)
        modules.append(importlib.import_module(name))
    return modules[0]


def test_missing_docstrings_are_found(tmp_path, monkeypatch):
    module = made_module(
        tmp_path,
        monkeypatch,
        face_of_rules="""
            from body_of_rules import (
                CONSTANT as CONSTANT,
                EXPLAINED as EXPLAINED,
                Bare as Bare,
                Good as Good,
                bare as bare,
                good as good,
            )
        """,
        body_of_rules='''
            import equinox as eqx

            CONSTANT = (1, 2)

            EXPLAINED = (1, 2)
            """Two numbers."""

            def bare(x): ...

            def good(x):
                """Nothing."""

            class Bare(eqx.Module):
                x: int

            class Good(eqx.Module):
                """A good one."""

                x: int

                def explained(self):
                    """Yes."""

                @property
                def silent(self): ...

                def method(self): ...
        ''',
    )
    found = undocumented(module)
    assert set(found) == {"CONSTANT", "Bare", "bare", "Good.silent", "Good.method"}


# ---------------------------------------------------------------- abstract or final


def is_abstract(cls):
    return cls.__name__.lstrip("_").startswith("Abstract")


def own_methods(cls):
    return {
        name
        for name, value in vars(cls).items()
        if (inspect.isroutine(value) or isinstance(value, property))
        and (name == "__call__" or not name.startswith("__"))
    }


def discipline_breaches(classes):
    """Concrete classes that are subclassed, concrete methods that are overridden."""
    found = []
    for cls in classes:
        if not issubclass(cls, eqx.Module):
            continue
        bases = [b for b in cls.__mro__[1:] if issubclass(b, eqx.Module)]
        bases = [b for b in bases if b is not eqx.Module]
        for base in bases:
            if not is_abstract(base):
                found.append(f"{cls.__name__} subclasses the concrete {base.__name__}")
            overridden = own_methods(cls) & own_methods(base)
            overridden -= getattr(base, "__abstractmethods__", frozenset())
            found += [f"{cls.__name__}.{m} (of {base.__name__})" for m in overridden]
        if not is_abstract(cls) and getattr(cls, "__abstractmethods__", None):
            found.append(f"{cls.__name__} is abstract and not named so")
    return found


def test_equinox_discipline():
    modules = [importlib.import_module(name) for name in module_names()]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    }
    assert classes
    found = sorted(discipline_breaches(classes))
    assert found == []


def test_breaches_of_discipline_are_found():
    import abc

    class AbstractShape(eqx.Module):
        @abc.abstractmethod
        def area(self): ...

        def double(self):
            return 2 * self.area()

    class Square(AbstractShape):
        def area(self):
            return 1

    class Cube(Square):
        pass

    class Disc(AbstractShape):
        def area(self):
            return 3

        def double(self):
            return 6

    class Line(AbstractShape):
        pass

    assert not discipline_breaches([AbstractShape, Square])
    for cls in (Cube, Disc, Line):
        assert len(discipline_breaches([cls])) == 1


# ---------------------------------------------------------------- in a fresh process

EVERY_MODULE = "import importlib\nfor m in {names!r}: importlib.import_module(m)\n"


def run_python(code, *options):
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def import_everything():
    return EVERY_MODULE.format(names=module_names())


@pytest.mark.multiprocess
def test_import_raises_no_warning():
    done = run_python(import_everything(), "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


CONFIG_AROUND = """
import json, os, jax
before, environment = dict(jax.config.values), dict(os.environ)
{body}
after = dict(jax.config.values)
changed = [name for name in after if after[name] != before.get(name)]
changed += [n for n in os.environ if os.environ[n] != environment.get(n)]
try:  # refused once a backend has been started
    jax.config.update("jax_num_cpu_devices", 5)
except RuntimeError:
    changed.append("backend started")
print(json.dumps(changed))
"""


def changed_by(body):
    done = run_python(CONFIG_AROUND.format(body=body))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.multiprocess
def test_import_changes_no_global_state():
    """Neither JAX's configuration nor the environment; no device is touched."""
    assert changed_by(import_everything()) == []


@pytest.mark.multiprocess
def test_changed_global_state_is_found():
    body = """
jax.config.update("jax_enable_x64", True)
os.environ["JAXRELU_TEST"] = "1"
jax.numpy.zeros(2)
"""
    assert changed_by(body) == ["jax_enable_x64", "JAXRELU_TEST", "backend started"]


REQUIRED_ONLY = """
import importlib.metadata as metadata, re, sys

def name_of(requirement):
    return re.sub("[-_.]+", "-", re.match(r"[\\w.-]+", requirement)[0]).lower()

required, pending = set(), {dependencies!r}
while pending:
    name = name_of(pending.pop())
    if name not in required:
        required.add(name)
        needs = metadata.requires(name) or []
        pending += [r for r in needs if "extra ==" not in r]
owners = metadata.packages_distributions()

class Required:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        dists = {{name_of(d) for d in owners.get(name.split(".")[0], [])}}
        if dists - {{"jaxrelu"}} and not dists & required:
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Required(finder) for finder in sys.meta_path]
{body}
"""


def imports_with_requirements_only(body):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    code = REQUIRED_ONLY.format(dependencies=project["dependencies"], body=body)
    return run_python(code)


@pytest.mark.multiprocess
def test_optional_dependencies_are_imported_lazily():
    """Every module imports where only the required dependencies are installed."""
    done = imports_with_requirements_only(import_everything())
    assert done.returncode == 0, done.stderr


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", ["matplotlib", "sklearn.datasets", "tqdm", "pytest"])
def test_an_eager_optional_import_is_found(name):
    done = imports_with_requirements_only(f"import {name}")
    assert "No module named" in done.stderr


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
