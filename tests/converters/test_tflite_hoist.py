from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

import edgekit
from edgekit.converters.tflite_nodes import operator_name
from edgekit.converters.tflite_program import lowerable


class Selected(nn.Module):
    """A sum of a selection and a product of two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x[:, 0] + x[:, 1] * x[:, 2])


def test_sums_of_selections_are_computed_before_the_reshape_and_keep_their_grid() -> None:
    torch.manual_seed(0)
    data = np.random.default_rng(0).normal(size=(16, 4, 8)).astype(np.float32)
    task = edgekit.Task(name="selected", model=Selected(), example_inputs=data[:1], calibration=[data])
    compressed = edgekit.compress(task, recipe="int8")
    module: Any = lowerable(compressed.program)
    for node in module.graph.nodes:
        if operator_name(node) in {"add", "mul"}:
            assert node.meta["val"].shape == (1, 1, 8)
            (quantize,) = node.users
            assert quantize.args[1] == compressed.contract[operator_name(node)].scale[0]
    original: Any = compressed.program.module()
    with torch.no_grad():
        for sample in torch.from_numpy(data).split(1):
            torch.testing.assert_close(module(sample), original(sample), rtol=0, atol=0)
