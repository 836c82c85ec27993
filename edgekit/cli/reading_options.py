"""Options that say what a model file does not say itself (:class:`~edgekit.core.source.SourceOptions`), as one value."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.options import once, option

if TYPE_CHECKING:
    from edgekit.core.source import SourceOptions

__all__ = ["reading_options"]

_OPTIONS = (
    option("--shape", "shape", multiple=True, metavar="INPUT=1,3,224,224",
           help="Shape of an input that a model file leaves open. May be repeated."),
    option("--samples", type=click.Path(path_type=Path), metavar="FILE.npz",
           help="Inputs by name, for a model file: what is checked with, and calibrated with."),
    option("--constant", "constant", multiple=True, metavar="INPUT=NUMBER",
           help="An input of an ONNX file that is the same in every call, and is none any more. May be repeated."),
    option("--factory", metavar="FILE.py:FUNCTION", help="Function that builds the net a checkpoint belongs to."),
    once("--trust-pickle", is_flag=True,
         help="Read a checkpoint that can run code when it is read. Only for files you made yourself."),
)  # fmt: skip


def reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, and its function one ``reading`` in place of them.

    Raises:
        UsageError: A value cannot be read, when the command is called.
    """

    @functools.wraps(function)
    def call(
        *arguments: Any,
        shape: tuple[str, ...],
        samples: Path | None,
        constant: tuple[str, ...],
        factory: str | None,
        trust_pickle: bool,
        **others: Any,
    ) -> Any:
        from edgekit.core.errors import UsageError
        from edgekit.core.source import SourceOptions

        if samples is not None and not samples.is_file():
            raise UsageError(f"{samples} does not exist; --samples names an .npz file of inputs.")
        reading: SourceOptions = SourceOptions(
            shapes=_shapes(shape),
            samples=str(samples or ""),
            constants=_constants(constant),
            factory=factory or "",
            trust_pickle=trust_pickle,
        )
        return function(*arguments, reading=reading, **others)

    for one in reversed(_OPTIONS):
        call = one(call)
    return call


def _shapes(words: Sequence[str]) -> dict[str, tuple[int, ...]]:
    from edgekit.core.errors import UsageError

    found: dict[str, tuple[int, ...]] = {}
    for word in words:
        name, _, sizes = word.rpartition("=")
        numbers = sizes.replace("x", ",").strip("[]() ").split(",")
        if not name or not all(number.strip().isdigit() and int(number) > 0 for number in numbers):
            raise UsageError(f"--shape {word} is no shape: write INPUT=SIZES, e.g. image=1,3,224,224.")
        found[name] = tuple(int(number) for number in numbers)
    return found


def _constants(words: Sequence[str]) -> dict[str, float]:
    from edgekit.core.errors import UsageError

    found: dict[str, float] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"--constant {word} is no number: write INPUT=NUMBER, e.g. sr=16000.")
    return found
