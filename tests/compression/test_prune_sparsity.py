"""Sparsity: zeros where they are asked for, held while the rest is trained, and an honest word on where they help."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compression.capture import capture
from edgekit.compression.prune.sparsity import sparsify
from edgekit.core.compressed import StepRecord
from edgekit.core.errors import DataError, PruningError, RecipeError
from edgekit.core.plugins import silent
from edgekit.core.pruning import Sparsify
from edgekit.core.recipe import Recipe
from edgekit.core.task import Task
from edgekit.core.training import Training

INPUTS = np.random.default_rng(0).standard_normal((64, 4, 8, 8), dtype=np.float32)
LABELS = (INPUTS[:, 0].mean((1, 2)) > 0).astype(np.int64)


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16), nn.Flatten(), nn.Linear(576, 2)]
    return nn.Sequential(*layers)


def run(step: Sparsify, **changes: Any) -> tuple[nn.Module, StepRecord]:
    data = {"calibration": [INPUTS[:8]], "training": [(INPUTS, LABELS)]}
    task = Task(**({"name": "net", "model": net, "example_inputs": INPUTS[:1]} | data | changes))
    state = capture(task, recipe=Recipe.read("none"))
    result, record = sparsify(state, step=step, task=task, progress=silent, work=None, bench=None)
    assert result.module is not None
    return result.module, record


def test_unstructured_zeros_are_the_smallest_and_stay_while_the_rest_is_trained() -> None:
    module, record = run(Sparsify(ratio=0.75, training=Training(epochs=2, ema=0.9)))
    dense = net()
    for at in (0, 4):
        weight, before = module[at].weight.detach(), dense[at].weight.detach()
        assert float((weight == 0).float().mean()) == pytest.approx(0.75, abs=0.01)
        assert float(before[weight == 0].abs().max()) <= float(before[weight != 0].abs().min())
        assert not torch.equal(weight[weight != 0], before[weight != 0])
    assert "depthwise" in record.details["dense_layers"]["2"]
    assert "neither smaller nor faster" in record.details["where_it_helps"]["onnx"]
    assert "none is faster" in record.summary


def test_two_of_four_neighbours_along_the_input_axis() -> None:
    module, _ = run(Sparsify(pattern="2:4", recover=False))
    conv = (module[0].weight.detach().movedim(1, -1).reshape(-1, 4) != 0).sum(1)
    linear = (module[4].weight.detach().reshape(-1, 4) != 0).sum(1)
    assert set(conv.tolist()) == set(linear.tolist()) == {2}


def test_kept_layers_stay_dense() -> None:
    module, record = run(Sparsify(ratio=0.5, keep=("4",), recover=False))
    assert bool((module[4].weight != 0).all())
    assert record.details["dense_layers"]["4"] == "named by keep"


def test_bad_input() -> None:
    with pytest.raises(RecipeError, match="no layer is named 'head'"):
        run(Sparsify(keep=("head",), recover=False))
    with pytest.raises(DataError, match="has no training data"):
        run(Sparsify(), training=None)
    with pytest.raises(PruningError, match="No layer of task 'net' can be sparse"):
        run(Sparsify(recover=False), model=lambda: nn.Sequential(nn.Conv2d(4, 4, 1, groups=4), nn.Flatten()))
    with pytest.raises(RecipeError, match=r"2:4 is a ratio of 0\.5"):
        Sparsify.parse({"pattern": "2:4", "ratio": 0.6}, source="step")
