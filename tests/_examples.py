"""What the tests of the examples share."""

import importlib.util
from pathlib import Path

import jax


EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load(name):
    """The example as a module; the precision that it asks for is taken back."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    before = jax.config.jax_enable_x64
    try:
        spec.loader.exec_module(module)
    finally:
        jax.config.update("jax_enable_x64", before)
    return module


def page_of(out, name, pictures):
    """The example's page, which holds its pictures and asks for nothing outside."""
    assert {p.name for p in out.iterdir()} == {
        *(f"{picture}.png" for picture in pictures),
        f"{name}.html",
    }
    page = (out / f"{name}.html").read_text()
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "src=" not in page.replace('src="data:', "")
    assert "http" not in page
    return page
