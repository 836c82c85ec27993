"""``report.json``: the whole report as one versioned document, and the schema that describes it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgekit.core.artifact import Artifact
from edgekit.core.validation import ValidationReport

__all__ = ["json_schema", "write_json"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def write_json(report: ValidationReport, path: Path) -> None:
    """Write ``report.json``, whole or not at all; paths of artifacts become relative to its folder, so that a run can be moved.

    Raises:
        OutputError: The disk is full, or the place cannot be written.
    """
    _relative(report, path.parent).write_json(path)


def json_schema() -> str:
    """JSON Schema (draft 2020-12) of ``report.json``, as text."""
    schema: dict[str, Any] = ValidationReport.model_json_schema(mode="serialization")
    return json.dumps({"$schema": _DIALECT, **schema}, indent=2, sort_keys=True) + "\n"


def _relative(report: ValidationReport, folder: Path) -> ValidationReport:
    devices = tuple(
        device.replace(results=tuple(result.replace(artifact=_moved(result.artifact, folder)) for result in device.results))
        for device in report.devices
    )
    return report.replace(artifacts=tuple(_moved(artifact, folder) for artifact in report.artifacts), devices=devices)


def _moved(artifact: Artifact, folder: Path) -> Artifact:
    companions = {name: _shown_from(path, folder) for name, path in artifact.companions.items()}
    return artifact.replace(path=_shown_from(artifact.path, folder), companions=companions)


def _shown_from(path: Path, folder: Path) -> Path:
    """``path`` relative to ``folder`` if it lies below it; else as it is."""
    if not path.is_absolute():
        return path
    relative = Path(os.path.relpath(path, folder.resolve()))
    return path if relative.parts[:1] == ("..",) else relative
