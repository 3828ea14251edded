"""Importing, in a fresh process: silent, without side effects, requirements alone."""

import json
import subprocess
import sys
import tomllib

import pytest
from _project import ROOT, module_names


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
    done = run_python(CONFIG_AROUND.format(body=body), "-W", "error")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # refuses anything else that was printed


@pytest.mark.multiprocess
def test_import_warns_and_prints_nothing_and_changes_no_global_state():
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
