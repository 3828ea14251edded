"""The code of the README and the guide runs: as written, but for sizes."""

import re
from pathlib import Path

import jax
import pytest


ROOT = Path(__file__).parents[1]
SMALLER = {
    r"digits\(\)(\.subset\(\d+\))?": "digits().subset(40)",
    r"k=\d+": "k=24",
    r"num_steps=\d+": "num_steps=3",
    # the whole session's setting; the test switches its own thread
    r'jax\.config\.update\("jax_enable_x64", True\)': "",
}


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/quickstart.md"])
def test_code_runs(page, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    code = "\n".join(blocks)
    for words, instead in SMALLER.items():
        code = re.sub(words, instead, code)
    shown = code.count("print(")
    names = {}
    with jax.enable_x64(True):
        exec(code, names)
    assert names["J"].shape[0] == len(names["data"].inputs) == 40
    assert len(capsys.readouterr().out.splitlines()) >= shown
