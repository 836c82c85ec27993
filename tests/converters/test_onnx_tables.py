from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

import edgekit
from edgekit.converters.onnx import CONVERTER
from edgekit.core.artifact import ExportOptions
from edgekit.runtimes.onnxruntime import RUNTIME


class Words(nn.Module):
    """A table, picked from twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 8)
        self.layer = nn.Linear(8, 3)

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.layer(self.table(one) * self.table(other))


def test_rows_are_restored_after_they_are_picked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokens = tuple(np.random.default_rng(seed).integers(0, 40, (16, 5)) for seed in (0, 1))
    examples = (tokens[0][:2], tokens[1][:2])
    compressed = edgekit.compress(
        edgekit.Task(name="words", model=Words(), example_inputs=examples, calibration=[tokens]), recipe="int8"
    )
    artifact = CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())
    assert artifact.contract_report.counts.get("dropped", 0) == 0
    graph = onnx.load(artifact.path).graph
    constants = {tensor.name for tensor in graph.initializer}
    dequantized = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
    assert "table" not in str([node.input[0] for node in dequantized])
    session = RUNTIME.load(artifact.path)
    for at in range(4):
        found = session.run({name: array[at] for name, array in compressed.golden.inputs.items()})
        np.testing.assert_allclose(found["output"], compressed.golden.outputs["output"][at], atol=2e-2)
    session.close()
