"""report.json: round trip, relative paths, schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.validation import ValidationReport
from edgekit.report import json_schema, write_json


def placed(report: ValidationReport, folder: Path) -> ValidationReport:
    """The report with its artifacts below ``folder``."""
    text = report.to_json().replace("/runs/watch", folder.as_posix())
    return ValidationReport.model_validate_json(text)


def without_prose(schema: Any) -> Any:
    """The schema's structure: docstrings may be reworded freely."""
    if isinstance(schema, dict):
        return {
            key: without_prose(value) for key, value in schema.items() if not (key == "description" and isinstance(value, str))
        }
    return [without_prose(item) for item in schema] if isinstance(schema, list) else schema


def test_schema(golden: Callable[[str, str], None]) -> None:
    golden("report/report.schema.json", json.dumps(without_prose(json.loads(json_schema())), indent=1) + "\n")


def test_schema_names_its_dialect_and_version() -> None:
    schema = json.loads(json_schema())
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["properties"]["schema_version"]["const"] == 1
    assert schema["additionalProperties"] is False


def test_everything_round_trips_but_paths_become_relative(shipping: ValidationReport, tmp_path: Path) -> None:
    report = placed(shipping, tmp_path)
    write_json(report, tmp_path / "report.json")
    found = ValidationReport.read_json(tmp_path / "report.json")
    assert found.artifacts[0].path == Path("artifacts/onnx/watch.onnx")
    assert found.devices[0].results[1].artifact.path == Path("artifacts/onnx-float32/watch.onnx")
    assert placed(found, Path("nowhere")) == found
    restored = found.to_json().replace('"artifacts/', f'"{tmp_path.as_posix()}/artifacts/')
    assert ValidationReport.model_validate_json(restored) == report


def test_paths_elsewhere_stay(shipping: ValidationReport, tmp_path: Path) -> None:
    write_json(shipping, tmp_path / "report.json")
    assert ValidationReport.read_json(tmp_path / "report.json") == shipping


def test_it_is_strict_json(shipping: ValidationReport, tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    write_json(shipping, tmp_path / "report.json")
    json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_relative_output_path(shipping: ValidationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(placed(shipping, tmp_path), Path("report.json"))
    found = ValidationReport.read_json(Path("report.json"))
    assert not found.artifacts[0].path.is_absolute()
