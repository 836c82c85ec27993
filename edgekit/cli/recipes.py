"""``edgekit recipes``: the words recipes are made of."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from edgekit.cli.options import command

if TYPE_CHECKING:
    from rich.console import Console

    from edgekit.cli.console import Terminal
    from edgekit.core.recipe import Step

__all__ = ["recipes"]


@command(examples=["recipes", "recipes --json"])
def recipes(terminal: Terminal) -> None:
    """List the words of which recipes are made, and what each step can be told.

    A recipe is one word, or several joined by '+'. The same fields stand in a .toml file, and can be changed one by one
    with --set.
    """
    from edgekit import registry

    steps = {kind: runner.config for kind, runner in registry.step_runners().items()}
    document = {
        "words": ["none", *(word for step in steps.values() for word in step.words)],
        "steps": [{"kind": kind, "words": list(step.words), "fields": _fields(step)} for kind, step in steps.items()],
    }
    terminal.finish(document, lambda console: _print_steps(console, steps))


def _fields(step: type[Step]) -> list[dict[str, Any]]:
    return [
        {"name": name, "default": field.get_default(), "type": _type_name(field.annotation)}
        for name, field in step.model_fields.items()
        if name != "kind"
    ]


def _print_steps(console: Console, steps: dict[str, type[Step]]) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print("[bold]none[/]  no step: the float model as it is")
    for kind, step in steps.items():
        purpose = inspect.cleandoc(step.__doc__ or "").splitlines()[0]
        console.print(f"[bold]{', '.join(step.words) or kind}[/]  {purpose}", soft_wrap=True)
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for heading in ("    field", "type", "default"):
            table.add_column(heading)
        for field in _fields(step):
            table.add_row(*(Text(text) for text in (f"    {field['name']}", field["type"], str(field["default"]))))
        console.print(table)


def _type_name(annotation: Any) -> str:
    """``int``, ``tuple[str, ...]``; the choices of a Literal."""
    if get_origin(annotation) is Literal:
        return " or ".join(repr(choice) for choice in get_args(annotation))
    return annotation.__name__ if get_origin(annotation) is None else str(annotation)
