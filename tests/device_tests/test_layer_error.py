from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgekit as ek
from edgekit.core.compressed import Compressed
from edgekit.core.validation import LayerError
from edgekit.device_tests.alignment import Alignment
from edgekit.device_tests.layer_error import layer_errors, measure

SAMPLES = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)


class Net(nn.Module):
    """Everything that compressing folds, drops or absorbs: a lone norm, conv-norm-relu6, dropout, a residual, concat, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6(inplace=True))
        self.body = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(self.norm(x))
        x = x + self.body(x)
        return self.head(torch.cat([x, nn.functional.hardswish(x)], 1))


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Compressed:
    torch.manual_seed(0)
    net = Net()
    for _ in range(5):
        net(torch.randn(8, 3, 8, 8) * 2 + 1)
    task = ek.Task(name="net", model=net, example_inputs=SAMPLES[:1], calibration=[SAMPLES])
    return ek.compress(task, recipe="int8").save(tmp_path_factory.mktemp("net") / "compressed")


def place(compressed: Compressed) -> dict[str, tuple[str, bool]]:
    """Entry -> name of the float program's operator it was aligned with, and whether a clamp was absorbed."""
    program: Any = compressed.program.module(check_guards=False)
    original: Any = compressed.float_program.module(check_guards=False)
    alignment = Alignment(program.graph, original.graph)
    nodes = {node.name: node for node in program.graph.nodes}
    found = {entry.name: (nodes[entry.node]) for entry in compressed.contract.activations}
    return {name: (str(alignment.counterpart(node)), alignment.clamps(node)) for name, node in found.items()}


def test_every_activation_has_its_counterpart(compressed: Compressed) -> None:
    places = place(compressed)
    assert places["x"] == ("x", False)
    assert places["norm"] == ("batch_norm", False)
    assert places["stem.0"][0].startswith(("relu6", "hardtanh"))
    assert places["body.0"] == ("batch_norm_2", False)
    assert places["add"] == ("add", False)
    assert places["cat"] == ("cat", False)
    assert places["head.3"] == ("linear", False)
    assert "None" not in {name for name, _ in places.values()}


def test_errors_are_those_of_the_definition(compressed: Compressed) -> None:
    assert compressed.folder is not None
    errors = {row["entry"]: LayerError.parse(row, source="test") for row in measure(str(compressed.folder))}
    assert list(errors) == [entry.name for entry in compressed.contract.activations]
    inputs = compressed.golden.inputs["x"].astype(np.float64)
    grid = compressed.contract["x"]
    rounded = grid.scale[0] * np.clip(np.rint(inputs / grid.scale[0]), -128 - grid.zero_point[0], 127 - grid.zero_point[0])
    expected = 10 * np.log10((inputs**2).sum() / ((rounded - inputs) ** 2).sum())
    assert errors["x"].inherited_snr_db == pytest.approx(expected, abs=0.1)
    assert errors["x"].own_snr_db == pytest.approx(expected, abs=0.1)
    output = compressed.golden.outputs["output"].astype(np.float64)
    module: Any = compressed.float_program.module(check_guards=False)
    with torch.no_grad():
        true = np.stack([module(torch.from_numpy(one)).double().numpy() for one in compressed.golden.inputs["x"]])
    expected = 10 * np.log10((true**2).sum() / ((output - true) ** 2).sum())
    assert errors["head.3"].inherited_snr_db == pytest.approx(expected, abs=0.01)


def test_an_absorbed_clamp_is_not_noise_and_shared_grids_add_none(compressed: Compressed) -> None:
    assert compressed.folder is not None
    errors = {row["entry"]: row for row in measure(str(compressed.folder))}
    assert errors["stem.0"]["own_snr_db"] > 30
    assert errors["cat"]["own_snr_db"] is None
    assert all(row["inherited_snr_db"] is not None for row in errors.values())


def test_the_parent_asks_a_worker(compressed: Compressed, tmp_path: Path) -> None:
    assert compressed.folder is not None
    errors = layer_errors(compressed.folder, log=tmp_path / "log.txt")
    rows = measure(str(compressed.folder))
    assert [error.entry for error in errors] == [row["entry"] for row in rows]
    for error, row in zip(errors, rows, strict=True):
        assert error.inherited_snr_db == pytest.approx(row["inherited_snr_db"], abs=0.01)


def test_a_float_program_has_no_layer_errors(tmp_path: Path) -> None:
    task = ek.Task(name="net", model=nn.Linear(3, 2), example_inputs=np.zeros((1, 3), np.float32))
    saved = ek.compress(task, recipe="none").save(tmp_path / "compressed")
    assert saved.folder is not None
    assert layer_errors(saved.folder) == ()


class Split(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x[:, :2], x[:, 2:]
        return torch.relu(second) + first


class Other(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        second, first = x[:, 2:], x[:, :2]
        return torch.relu(second).transpose(0, 1).transpose(0, 1) + first


def test_equal_operators_are_told_apart_by_their_numbers_and_strangers_have_no_counterpart() -> None:
    example = (torch.zeros(2, 4),)
    one: Any = torch.export.export(Split(), example).module()
    other: Any = torch.export.export(Other(), example).module()
    alignment = Alignment(other.graph, one.graph)
    slices = [node for node in other.graph.nodes if "slice" in str(node.target) and node.args[1] == 1]
    for node in slices:
        counterpart = alignment.counterpart(node)
        assert counterpart is not None
        assert counterpart.args[1:] == node.args[1:]
    transposes = [node for node in other.graph.nodes if "transpose" in str(node.target)]
    assert len(transposes) == 2
    assert all(alignment.counterpart(node) is None for node in transposes)
