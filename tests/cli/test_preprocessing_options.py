"""Options of ``export`` that say what becomes of the preprocessing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        ("", {"preprocessing": "describe", "image_inputs": False, "class_labels": False}),
        ("--preprocessing bake", {"preprocessing": "bake"}),
        ("--image-inputs --class-labels", {"image_inputs": True, "class_labels": True}),
    ],
)
def test_flags_become_options(
    flags: str, fields: dict[str, object], command_line: Callable[..., Result], write_task: Callable[..., Path]
) -> None:
    write_task()
    result = command_line(f"export task.py --target coreml {flags} -o runs/plain --dry-run --json")
    assert result.exit_code == 0, result.output
    options = json.loads(result.stdout)["options"]
    assert {name: options[name] for name in fields} == fields


def test_an_unknown_way_is_a_usage_error(command_line: Callable[..., Result], write_task: Callable[..., Path]) -> None:
    write_task()
    result = command_line("export task.py --target onnx --preprocessing baked --dry-run")
    assert result.exit_code == 2
    assert "'describe', 'bake'" in result.output
