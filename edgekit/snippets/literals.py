"""How values are written down in each language."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from edgekit.core.selftest import CheckedInput, CheckedOutput
from edgekit.core.tensors import TensorSpec

__all__ = ["LITERALS", "Literals"]

_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Literals:
    """One language's way.

    Args:
        true: True.
        false: False.
        null: What stands for a number that is not there.
        numbers: Floats as a list of that language.
        texts: Texts as a list of that language, from their literals.
        single: Suffix of a float32 number.
        escapes: Characters of texts that are written otherwise; on top of quotes, backslashes and line ends.
        control: Form of any other control character, for ``format``.
        tensor: A ``Tensor`` of that language, for ``format`` with its fields.
    """

    true: str
    false: str
    null: str = "0"
    numbers: Callable[[Sequence[str]], str]
    texts: Callable[[Sequence[str]], str]
    single: str = ""
    escapes: dict[str, str] = dataclasses.field(default_factory=dict)
    control: str
    tensor: str

    def text(self, value: str) -> str:
        """A text in quotes.

        >>> LITERALS["cpp"].text("two words")
        '"two words"'
        """
        escapes = {**_ESCAPES, **self.escapes}
        written = "".join(escapes.get(character, character) for character in value)
        return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: self.control.format(ord(found[0])), written) + '"'

    def number(self, value: Any) -> str:
        """A truth value, a whole number, or a float32 number."""
        if isinstance(value, bool):
            return self.true if value else self.false
        if value is None:
            return self.null
        return str(value) if isinstance(value, int) else f"{float(value)!r}{self.single}"

    def list_of_numbers(self, values: Sequence[float]) -> str:
        """Float32 numbers."""
        return self.numbers([self.number(float(value)) for value in values])

    def list_of_texts(self, values: Sequence[str]) -> str:
        """Texts."""
        return self.texts([self.text(value) for value in values])

    def tensors(self, checked: Sequence[CheckedInput], specs: Sequence[TensorSpec]) -> str:
        """The records of inputs or outputs, one a line."""
        return "\n".join(self._tensor(one, spec) for one, spec in zip(checked, specs, strict=True))

    def _tensor(self, checked: CheckedInput, spec: TensorSpec) -> str:
        comma = "," if self.true == "True" else ""  # a Python tuple of one
        limits = (checked.tolerance, checked.rms_tolerance) if isinstance(checked, CheckedOutput) else (0.0, 0.0)
        return self.tensor.format(
            name=self.text(checked.name),
            dtype=self.text(checked.dtype),
            shape=", ".join(str(size) for size in checked.shape)
            + ("," if len(checked.shape) == 1 and self.true == "True" else ""),
            files=", ".join(self.text(name) for name in checked.files) + comma,
            scale=repr(float(spec.scale or 0)),
            zero_point=spec.zero_point or 0,
            tolerance=repr(limits[0]),
            rms_tolerance=repr(limits[1]),
        )


def _between(opening: str, closing: str) -> Callable[[Sequence[str]], str]:
    return lambda values: f"{opening}{', '.join(values)}{closing}"


LITERALS = {
    "python": Literals(
        true="True",
        false="False",
        null="None",
        numbers=_between("[", "]"),
        texts=_between("[", "]"),
        control="\\x{:02x}",
        tensor="    Tensor({name}, {dtype}, ({shape}), ({files}), {scale}, {zero_point}, {tolerance}, {rms_tolerance}),",
    ),
    "cpp": Literals(
        true="true",
        false="false",
        numbers=_between("{", "}"),
        texts=_between("{", "}"),
        single="f",
        control="\\{:03o}",
        tensor="    {{{name}, {dtype}, {{{shape}}}, {{{files}}}, {scale}, {zero_point}, {tolerance}, {rms_tolerance}}},",
    ),
    "swift": Literals(
        true="true",
        false="false",
        numbers=_between("[", "]"),
        texts=_between("[", "]"),
        control="\\u{{{:x}}}",
        tensor=(
            "    Tensor(\n        name: {name}, dtype: {dtype}, shape: [{shape}],\n        files: [{files}],\n"
            "        scale: {scale}, zeroPoint: {zero_point}, tolerance: {tolerance}, rmsTolerance: {rms_tolerance}),"
        ),
    ),
    "kotlin": Literals(
        true="true",
        false="false",
        numbers=_between("floatArrayOf(", ")"),
        texts=_between("listOf(", ")"),
        single="f",
        escapes={"$": "\\$"},
        control="\\u{:04x}",
        tensor=(
            "    Tensor(\n        {name}, {dtype}, intArrayOf({shape}),\n        listOf({files}),\n"
            "        {scale}, {zero_point}, {tolerance}, {rms_tolerance},\n    ),"
        ),
    ),
}
"""Language -> its literals."""
