"""The base of every record edgekit writes to disk: frozen, strict, and explained when it is wrong."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Self

import pydantic

from edgekit.core.errors import EdgekitError, IntegrityError, nearest
from edgekit.core.files import write_text

__all__ = ["Record", "explain"]


_LARGEST_BYTES = 2**29
"""No document edgekit writes comes near."""


class Record(pydantic.BaseModel):
    """A frozen, keyword-only value that round-trips through JSON; unknown fields are refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    error: ClassVar[type[EdgekitError]] = IntegrityError
    """Raised by :meth:`parse` when the data does not fit."""

    @classmethod
    def parse(cls, data: Any, *, source: str) -> Self:
        """Validate ``data``; on failure raise :attr:`error` naming ``source``, the field and the nearest field name."""
        try:
            return cls.model_validate(data)
        except pydantic.ValidationError as reason:
            problem = cls.error(f"{source}: {explain(reason, cls)}")
            problem.field = ".".join(str(part) for part in reason.errors()[0]["loc"])
            raise problem from reason

    @classmethod
    def read_json(cls, path: Path) -> Self:
        """Read one record from a JSON file."""
        try:
            data = json.loads(_text(path))
        except FileNotFoundError as reason:
            raise cls.error(f"{path} does not exist.") from reason
        except (OSError, ValueError, RecursionError) as reason:
            raise cls.error(f"{path} is not JSON: {reason}.") from reason
        return cls.parse(data, source=str(path))

    @classmethod
    def read_toml(cls, path: Path) -> Self:
        """Read one record from a TOML file."""
        try:
            data = tomllib.loads(_text(path))
        except FileNotFoundError as reason:
            raise cls.error(f"{path} does not exist.") from reason
        except (OSError, ValueError, RecursionError) as reason:
            raise cls.error(f"{path} is not TOML: {reason}.") from reason
        return cls.parse(data, source=str(path))

    def write_json(self, path: Path) -> None:
        """Write the record as indented JSON, whole or not at all."""
        write_text(path, self.to_json())

    def to_json(self) -> str:
        """The record as indented JSON text."""
        return self.model_dump_json(indent=2) + "\n"

    def replace(self, **changes: Any) -> Self:
        """A copy with the given fields changed (and validated)."""
        return type(self).model_validate({**dict(self), **changes})


def _text(path: Path) -> str:
    """A document's text.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no text, no plain file (a device never ends), or too large for a document.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no plain file")
    if path.stat().st_size > _LARGEST_BYTES:
        raise ValueError(f"it is larger than {_LARGEST_BYTES / 2**20:.0f} MiB")
    return path.read_text(encoding="utf-8")


def explain(reason: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> str:
    """Turn pydantic's first complaint into one sentence: field, what was found, nearest field name."""
    complaint = reason.errors()[0]
    where = ".".join(str(part) for part in complaint["loc"]) or "the whole document"
    if complaint["type"] == "extra_forbidden":
        name = str(complaint["loc"][-1])
        return f"unknown field '{where}'.{nearest(name, _field_names(model))}"
    if complaint["type"] == "value_error" and not complaint["loc"]:  # the record's own check, which says what it found
        return f"{complaint['msg'].removeprefix('Value error, ')}."
    found = repr(complaint["input"])
    found = found if len(found) <= 80 else found[:77] + "..."
    return f"field '{where}': {complaint['msg'].lower()} (found {found})."


def _field_names(model: type[pydantic.BaseModel], depth: int = 3) -> list[str]:
    names = list(model.model_fields)
    for field in model.model_fields.values() if depth else ():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, pydantic.BaseModel):
            names += _field_names(inner, depth - 1)
    return names
