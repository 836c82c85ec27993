"""The compression plan as data: an ordered list of steps, with a short written form.

Grammar of the written form::

    recipe := "none" | word ("+" word)*
    word   := "int8"                      static post-training quantization

Each step type reads its own words (:meth:`Step.from_word`), so a plug-in's step joins the grammar.
The TOML form names the same fields one by one; both forms round-trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pydantic
import tomli_w

from edgekit.core.errors import EdgekitError, RecipeError, nearest
from edgekit.core.model import Record

__all__ = ["BUILT_IN_STEPS", "Quantize", "Recipe", "Step"]


class Step(Record):
    """Base of all step configurations. The type decides which algorithm runs."""

    error: ClassVar[type[EdgekitError]] = RecipeError
    words: ClassVar[tuple[str, ...]] = ()
    """Words of the written form this step understands, for help texts and error messages."""

    kind: str

    @classmethod
    def from_word(cls, word: str) -> Self | None:
        """Read one word of the written form; None if it is not this step's."""
        raise RecipeError(f"Step type {cls.__name__} has no written form; use a TOML recipe for '{word}'.")

    def word(self) -> str:
        """The word this step is written as, or its kind where no word says all of it."""
        return self.kind


class Quantize(Step):
    """Static post-training quantization: integers for weights, activations and biases.

    Args:
        weights: Weight type; symmetric, one scale per output channel.
        activations: Activation type; affine, one scale per tensor.
        keep_float: Module paths or shell patterns (``"head.*"``) that stay in float.
        sample_count: At most this many calibration samples are used.
        equalization: Scale hidden channels to use the whole grid (cross-layer equalization, arXiv:1906.04721).
        bias_correction: Move biases so that rounding does not shift any layer's mean (arXiv:1906.04721, section 4.2).

    >>> Quantize().word()
    'int8'
    """

    words: ClassVar[tuple[str, ...]] = ("int8",)

    kind: Literal["quantize"] = "quantize"  # pyright: ignore[reportIncompatibleVariableOverride]  # fields are frozen
    weights: Literal["int8"] = "int8"
    activations: Literal["int8"] = "int8"
    keep_float: tuple[str, ...] = ()
    sample_count: int = pydantic.Field(default=512, ge=1)
    equalization: bool = False
    bias_correction: bool = False

    @classmethod
    def from_word(cls, word: str) -> Self | None:
        """``int8`` is the whole grammar so far."""
        return cls() if word == "int8" else None

    def word(self) -> str:
        """``int8``."""
        return "int8"


BUILT_IN_STEPS: tuple[type[Step], ...] = (Quantize,)


class Recipe(Record):
    """An ordered list of steps.

    >>> Recipe.parse_text("int8").steps == (Quantize(),)
    True
    >>> Recipe.parse_text("none").steps
    ()
    >>> Recipe.parse_text("int9")
    Traceback (most recent call last):
    edgekit.core.errors.RecipeError: Recipe 'int9': unknown word 'int9'; known words are none, int8. Did you mean 'int8'?
    """

    error: ClassVar[type[EdgekitError]] = RecipeError

    schema_version: Literal[1] = 1
    name: str
    steps: tuple[pydantic.SerializeAsAny[Step], ...] = ()

    @classmethod
    def parse_text(cls, text: str, *, step_types: Sequence[type[Step]] = BUILT_IN_STEPS) -> Recipe:
        """Read the written form.

        Raises:
            RecipeError: Names the word it could not read and the nearest known one.
        """
        if text.strip() == "none":
            return cls(name="none")
        steps = tuple(_step_from_word(word.strip(), text, step_types) for word in text.split("+"))
        return cls(name=text.strip(), steps=steps)

    @classmethod
    def from_data(cls, data: Any, *, source: str, step_types: Sequence[type[Step]] = BUILT_IN_STEPS) -> Recipe:
        """Read the table form (from TOML or JSON)."""
        if not isinstance(data, dict):
            raise RecipeError(f"{source}: expected a table with 'name' and 'steps', found {type(data).__name__}.")
        rows = data.get("steps", [])
        if not isinstance(rows, list | tuple):
            raise RecipeError(f"{source}: 'steps' must be an array of tables ([[steps]]), found {type(rows).__name__}.")
        steps = tuple(_step_from_row(row, f"{source}: steps[{i}]", step_types) for i, row in enumerate(rows))
        return cls.parse({**data, "steps": steps}, source=source)

    @classmethod
    def read(cls, source: str | Path, *, step_types: Sequence[type[Step]] = BUILT_IN_STEPS) -> Recipe:
        """Read a recipe from its written form, or from a ``.toml`` file."""
        if str(source).endswith(".toml"):
            raw = _RawRecipe.read_toml(Path(source))
            return cls.from_data(
                {"name": Path(source).stem, **(raw.model_extra or {})}, source=str(source), step_types=step_types
            )
        return cls.parse_text(str(source), step_types=step_types)

    def to_toml(self) -> str:
        """The TOML form, every default written out."""
        data = self.model_dump(mode="json")
        return tomli_w.dumps(data)


class _RawRecipe(Record):
    """Any table: lets :meth:`Recipe.read` reuse the TOML reader and its messages."""

    model_config = pydantic.ConfigDict(extra="allow")
    error: ClassVar[type[EdgekitError]] = RecipeError


def _step_from_word(word: str, text: str, step_types: Sequence[type[Step]]) -> Step:
    for step_type in step_types:
        step = step_type.from_word(word)
        if step is not None:
            return step
    known = ["none", *(word for step_type in step_types for word in step_type.words)]
    raise RecipeError(f"Recipe '{text}': unknown word '{word}'; known words are {', '.join(known)}.{nearest(word, known)}")


def _step_from_row(row: Any, source: str, step_types: Sequence[type[Step]]) -> Step:
    kinds = {str(step_type.model_fields["kind"].default): step_type for step_type in step_types}
    kind = row.get("kind") if isinstance(row, dict) else None
    if kind not in kinds:
        raise RecipeError(f"{source}: unknown kind {kind!r}; known kinds are {', '.join(kinds)}.{nearest(str(kind), kinds)}")
    return kinds[kind].parse(row, source=source)
