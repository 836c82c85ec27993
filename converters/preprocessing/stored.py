"""What a finished file itself says of its inputs and labels: what an application reads before it feeds it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgekit.core.errors import ConversionError
from edgekit.core.preprocessing import Preprocessing, read_preprocessing

__all__ = ["Stored", "refuse", "stored_in"]

_READERS = {target: f"edgekit.converters.preprocessing.{target}_stored" for target in ("onnx", "tflite", "coreml")}


@dataclasses.dataclass(frozen=True)
class Stored:
    """What was read from a file.

    Args:
        records: Input name -> what is to be done before it.
        labels: Class names.
        classes: Class names that the file answers with itself; empty where it does not.
    """

    records: Mapping[str, Preprocessing]
    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def stored_in(target: str, path: Path, described: Mapping[str, Any]) -> Stored:
    """Read a file's metadata.

    Args:
        target: Name of the converter that made it.
        path: The file or package.
        described: What the artifact's record says, for targets whose files carry no metadata.

    Raises:
        ConversionError: Its standard metadata and what edgekit wrote beside them contradict each other.
    """
    if target not in _READERS:
        return Stored(records=read_preprocessing(described))
    read: Callable[[Path], Stored] = importlib.import_module(_READERS[target]).read_stored
    return read(path)


def refuse(name: str, what: str, found: object, expected: object) -> ConversionError:
    """The error for metadata that contradict each other."""
    return ConversionError(
        f"Input '{name}': the file's standard metadata say {what} {found}, its description of the preprocessing {expected}. An"
        " application that follows the one is wrong by the other. Nothing was exported."
    )
