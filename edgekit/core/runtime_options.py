"""How a model is run, in one form for every runtime: each says as data which of these options it has, and their values.

============== ====================================================== ==================================================
option         meaning                                                who has it
============== ====================================================== ==================================================
``provider``   what computes: execution provider (ONNX Runtime),      all but the formats of general serving
               delegate (LiteRT), compute units (Core ML)
``precision``  where results are rounded to float16                   Core ML's reference executor
``io_binding`` inputs and outputs stay in buffers that are bound once ONNX Runtime
============== ====================================================== ==================================================

Threads are an argument of their own everywhere. A runtime's further options stand beside these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from edgekit.core.errors import UsageError, nearest
from edgekit.core.model import Record

__all__ = ["RuntimeOption", "Setting", "parse_settings", "read_settings"]

Setting = str | int | float | bool
"""A value of an option."""

_WORDS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}


class RuntimeOption(Record):
    """One option of a runtime.

    Args:
        name: ``"provider"``, ``"precision"``, ``"io_binding"``, or one of the runtime's own.
        kind: ``"choice"``: one of ``values``; ``"text"``: one of ``values`` or what only the runtime can judge (a path);
            ``"flag"``: true or false.
        default: Value where nothing is said.
        values: Known values.
        meaning: What it does, in a sentence.
    """

    name: str
    kind: Literal["choice", "text", "flag"]
    default: str | bool
    values: tuple[str, ...] = ()
    meaning: str


def read_settings(given: Mapping[str, Any] | None, options: Sequence[RuntimeOption], *, runtime: str) -> dict[str, Any]:
    """Every option's value: the given one, or its default.

    Args:
        given: Values by option name.
        options: What the runtime has.
        runtime: Its title, for messages.

    Raises:
        UsageError: An option or a value is unknown.

    >>> option = RuntimeOption(name="provider", kind="choice", default="cpu", values=("cpu",), meaning="What computes.")
    >>> read_settings({}, [option], runtime="X")
    {'provider': 'cpu'}
    """
    known = {option.name: option for option in options}
    for name in given or {}:
        if name not in known:
            raise UsageError(f"{runtime} has no option '{name}'; known: {', '.join(known) or 'none'}.{nearest(name, known)}")
    chosen = {name: (given or {}).get(name, option.default) for name, option in known.items()}
    for name, value in chosen.items():
        _check(value, known[name], runtime)
    return chosen


def _check(value: Any, option: RuntimeOption, runtime: str) -> None:
    if option.kind == "flag":
        if not isinstance(value, bool):
            raise UsageError(f"{runtime}: option '{option.name}' is {value!r}; it must be true or false.")
    elif not isinstance(value, str) or (option.kind == "choice" and value not in option.values):
        raise UsageError(
            f"{runtime}: option '{option.name}' is {value!r}; known: {', '.join(option.values)}."
            f"{nearest(str(value), option.values)}"
        )


def parse_settings(words: Sequence[str]) -> dict[str, Setting]:
    """Options from a command line's ``NAME=VALUE``; ``true`` and ``false`` (``on``, ``off``) are flags.

    Raises:
        UsageError: A word has no ``=``, or names an option again.

    >>> parse_settings(["provider=xnnpack", "io_binding=true"])
    {'provider': 'xnnpack', 'io_binding': True}
    """
    found: dict[str, Setting] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"'{word}' is no option of a runtime; write NAME=VALUE, such as provider=xnnpack.")
        if name in found:
            raise UsageError(f"Option '{name}' is given twice: {found[name]} and {value}.")
        found[name] = _WORDS.get(value.lower(), value)
    return found
