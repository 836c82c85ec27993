"""A net that takes pictures, exported once; and artifacts made up for what needs no conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline
from edgekit.core.artifact import Artifact
from edgekit.core.files import sha256
from edgekit.core.pictures import ImagePreprocessing
from edgekit.core.run import RunFolder
from edgekit.core.selftest import CheckedOutput, SelfTest, write_selftest
from edgekit.core.task import Task
from edgekit.core.tensors import TensorSpec

PREPROCESSING = ImagePreprocessing(
    input="image", size=(12, 10), resize="shorter-side", resize_to=14, crop="center", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)
)
LABELS = ["owl", 'the "quoted" cat', "$dog", "ånd\\"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2)
        self.head = nn.Linear(6, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(image)).mean([2, 3]))


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An int8 run, exported to ONNX and TFLite."""
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 10, 3), np.uint8)
    images = PREPROCESSING.prepare(pixels)
    task = Task(
        name="pictures",
        model=Net(),
        example_inputs=images[:1],
        calibration=[images],
        labels=LABELS,
        preprocessing=PREPROCESSING,
    )
    folder = tmp_path_factory.mktemp("snippets") / "run"
    pipeline.compress(task, recipe="int8", output=folder)
    pipeline.export(folder, targets=["onnx", "tflite"], float_baseline=False)
    return RunFolder(folder)


def made_up(
    folder: Path,
    target: str,
    *,
    file: str,
    dtype: str = "float32",
    shape: tuple[int, ...] = (1, 3, 12, 10),
    **fields: object,
) -> Artifact:
    """An artifact with a self-test but no real model."""
    path = folder / file
    path.write_bytes(b"no model")
    inputs = (TensorSpec.model_validate({"name": "image", "shape": shape, "dtype": dtype}),)
    outputs = (TensorSpec(name="output", shape=(1, 4), dtype="float32"),)
    case = ({"image": np.zeros(shape, dtype)}, {"output": np.zeros((1, 4), np.float32)})
    checked = write_selftest(folder / "selftest", [case], specs=(inputs, outputs))
    record = SelfTest(
        model=f"../{file}",
        model_sha256=sha256(path),
        because="made up",
        inputs=checked[0],
        outputs=tuple(CheckedOutput(**dict(one), tolerance=0.5, rms_tolerance=0.25) for one in checked[1]),
    )
    record.write_json(folder / "selftest" / "selftest.json")
    data = {
        "target": target,
        "path": path,
        "sha256": sha256(path),
        "size_bytes": 8,
        "precision": "float32",
        "inputs": inputs,
        "outputs": outputs,
        "labels": tuple(LABELS),
        "selftest": folder / "selftest",
        "selftest_sha256": sha256(folder / "selftest"),
    }
    return Artifact.model_validate({**data, **fields})
