"""What the scripts share: options from the command line, the platform, progress."""

from collections.abc import Callable
from typing import Any

import jax

from jaxrelu.report import Progress


def start(require: str | None = None) -> Progress:
    """Says what JAX runs on, and stops the script if that is not what was asked for.

    Args:
        require: ``"cpu"``, ``"gpu"``, ``"tpu"``, or None for any.

    Raises:
        SystemExit: another platform, with how to get the wanted one.
    """
    say = Progress()
    platform = jax.default_backend()
    say(f"{platform}: {jax.device_count()} × {jax.devices()[0].device_kind}")
    if require not in (None, platform):
        msg = (
            f"JAX runs on {platform!r}; --require asked for {require!r}. "
            "Install the matching extra (cuda, cuda12, tpu), or leave the flag out."
        )
        raise SystemExit(msg)
    return say


def run(main: Callable[[Any], Any], config: type) -> Any:
    """``main(config)`` with the dataclass filled from the command line.

    Raises:
        SystemExit: tyro is missing, or options that do not parse.
    """
    try:
        import tyro
    except ImportError:
        msg = 'the options are read by tyro. Run: pip install "jaxrelu[all]"'
        raise SystemExit(msg) from None
    return main(tyro.cli(config))
