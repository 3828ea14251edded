"""Public names are documented; classes are abstract or final. Breaches are found."""

import ast
import importlib
import inspect
import sys
import textwrap
import types

import equinox as eqx
import pytest
from _project import PACKAGE, dotted_name, module_names


# ---------------------------------------------------------------- modules and names


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
