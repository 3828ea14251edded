"""What the tests of the benchmarks share."""

import json


def report(module, tmp_path, *arguments):
    """What a benchmark writes, run in this process as briefly as it can be."""
    status = module.main(
        [
            *("--in-process", "--rounds", "1", "--pause", "0", "--stem", "here"),
            *("--steady-seconds", "0.01", "--cache", str(tmp_path / "cache")),
            *("--output", str(tmp_path), *arguments),
        ]
    )
    assert status == 0
    return json.loads((tmp_path / "here.json").read_text())
