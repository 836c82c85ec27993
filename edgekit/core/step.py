"""The base of all steps of a recipe: plain data whose type decides which algorithm runs."""

from __future__ import annotations

from typing import ClassVar, Self

from edgekit.core.errors import EdgekitError, RecipeError
from edgekit.core.model import Record

__all__ = ["Step"]


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
