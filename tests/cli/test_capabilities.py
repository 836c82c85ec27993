"""``edgekit capabilities``: the table, as people and programs read it."""

from __future__ import annotations

import json
from collections.abc import Callable

from click.testing import Result

from edgekit import registry
from edgekit.compression.quantize.capability import families, targets


def test_every_target_has_a_converter() -> None:
    assert set(targets()) == set(registry.targets())
    named = {target for family in families().values() for target in family.kernels}
    assert named <= set(targets())


def test_the_table_names_every_family(command_line: Callable[..., Result]) -> None:
    result = command_line("capabilities --json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [family["name"] for family in document["families"]] == list(families())
    runs = {family["name"]: family["runs"] for family in document["families"]}
    assert runs["conv"]["onnx"] == "QLinearConv"
    assert runs["normalization"] == dict.fromkeys(targets(), "float between grids")
    assert all(family["reason"] for family in document["families"] if family["role"] == "float")


def test_one_target_can_be_asked_for(command_line: Callable[..., Result]) -> None:
    result = command_line("capabilities --target tflite")
    assert result.exit_code == 0, result.output
    assert "BATCH_MATMUL" in result.stdout
    assert "QLinearConv" not in result.stdout
    wrong = command_line("capabilities --target onx")
    assert wrong.exit_code == 2
    assert "Did you mean 'onnx'" in wrong.stderr
