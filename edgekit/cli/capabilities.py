"""``edgekit capabilities``: which operators become integers, and what runs them on each target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import command

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.compression.quantize.capability import Target

__all__ = ["capabilities"]


@command(examples=["capabilities", "capabilities --target onnx", "capabilities --json"])
@click.option("--target", "names", multiple=True, metavar="TARGET", help="Only this target; can be given again.")
def capabilities(terminal: Terminal, names: tuple[str, ...]) -> None:
    """List the operators edgekit quantizes, how, and the kernel that runs each of them on integers.

    What is in no row stays float, with integers before and after it; the contract of a compressed model names each such
    layer and says why.
    """
    from edgekit.compression.quantize.capability import families, targets

    chosen = _choose(names, targets())
    document = {
        "targets": [target.model_dump(mode="json") for target in chosen],
        "families": [
            {**family.model_dump(mode="json"), "how": family.how, "runs": {one.name: family.kernel(one) for one in chosen}}
            for family in families().values()
        ],
    }
    terminal.finish(document, lambda console: _print(console, chosen))


def _choose(names: Sequence[str], known: dict[str, Target]) -> list[Target]:
    from edgekit.core.errors import UsageError, nearest

    for name in names:
        if name not in known:
            raise UsageError(f"Unknown target '{name}'; known are {', '.join(known)}.{nearest(name, known)}")
    return [target for name, target in known.items() if not names or name in names]


def _print(console: Console, targets: Sequence[Target]) -> None:
    from rich.table import Table
    from rich.text import Text

    from edgekit.compression.quantize.capability import families

    for target in targets:
        console.print(
            Text.assemble((target.name, "bold"), f"  {target.title}: {target.runtime}, {target.format}"), soft_wrap=True
        )
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("operators", "quantized as", *(target.name for target in targets)):
        table.add_column(heading)
    for family in families().values():
        how = f"{family.how}: {family.reason}" if family.reason else family.how
        table.add_row(*(Text(text) for text in (family.title, how, *(family.kernel(target) for target in targets))))
    console.print(table)
