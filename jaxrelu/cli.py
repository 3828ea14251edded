"""What the scripts share: options, the platform, and what they leave behind."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax

from jaxrelu import figures
from jaxrelu.report import Progress, Table, page, provenance, write


@dataclasses.dataclass(frozen=True)
class AbstractOptions:
    """The options of every script; its own come on top.

    Attributes:
        QUICK: options that ``quick`` replaces, with their values.
    """

    QUICK: ClassVar[Mapping[str, Any]] = {}

    quick: bool = False
    """Small sizes: seconds instead of minutes."""
    out: Path = Path("out")
    """Folder for the figures and the page."""
    require: Literal["cpu", "gpu", "tpu"] | None = None
    """Stop unless JAX runs on this platform."""

    def sized(self) -> Any:
        """The options with ``quick`` carried out."""
        return dataclasses.replace(self, **self.QUICK) if self.quick else self


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


def illustrate(config: AbstractOptions, drawn: Mapping[str, Any]) -> dict[str, bytes]:
    """Each figure as a PNG, also written to ``out`` under its name."""
    pictures = {name: figures.png(figure) for name, figure in drawn.items()}
    for name, png in pictures.items():
        write(config.out / f"{name}.png", png)
    return pictures


def publish(
    config: AbstractOptions,
    say: Progress,
    name: str,
    title: str,
    blocks: Iterable[Any],
    *,
    lead: str,
    **more: Any,
) -> Path:
    """Prints the tables among the blocks; writes the page, with its provenance.

    Args:
        config: carried out; the page lists what decides its numbers.
        say: the script's clock.
        name: of the page, ``out/name.html``.
        title: see `report.page`, as for ``blocks`` and ``lead``.
        blocks: of the page.
        lead: one sentence under the title.
        more: further entries of the provenance.
    """
    blocks = list(blocks)
    for table in blocks:
        if isinstance(table, Table):
            print(f"\n{table.text()}\n")
    aside = ("out", "require")
    settings = {k: v for k, v in vars(config).items() if k not in aside}
    record = provenance(**more, configuration=settings, time=f"{say.seconds():.1f} s")
    text = page(title, blocks, lead=lead, record=record)
    where = write(config.out / f"{name}.html", text)
    say(f"wrote {where} and its figures")
    return where


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
