from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compression.capture import capture, split_batches
from edgekit.core.errors import CaptureError, DataError, TaskError, UnsupportedOpError
from edgekit.core.recipe import Recipe
from edgekit.core.task import Task

NONE = Recipe.parse_text("none")


def test_program_answers_like_the_model(image_task: Task) -> None:
    state = capture(image_task, recipe=NONE)
    model = image_task.build_model()
    for image, answer in zip(state.golden.inputs["image"], state.golden.outputs["output"], strict=True):
        with torch.no_grad():
            np.testing.assert_allclose(model(torch.from_numpy(image)).numpy(), answer, rtol=1e-5, atol=1e-6)
    assert state.record.inputs[0].shape == (1, 3, 16, 16)
    assert state.record.outputs[0].name == "output"
    assert state.precision == "float32"


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, right: torch.Tensor, left: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"z": self.fc(left) * 2, "a": self.fc(right)}


def test_dictionaries_keep_their_names_and_order(make_task: Callable[..., Task]) -> None:
    batch = {"left": np.ones((3, 4), np.float32), "right": np.zeros((3, 4), np.float32)}
    task = make_task(Named(), (1, 4), example_inputs={name: value[:1] for name, value in batch.items()}, calibration=[batch])
    state = capture(task, recipe=NONE)
    assert [spec.name for spec in state.record.inputs] == ["left", "right"]
    assert [spec.name for spec in state.record.outputs] == ["z", "a"]
    model: Any = task.build_model()
    np.testing.assert_allclose(state.golden.outputs["a"][0], model.fc(torch.zeros(1, 4)).detach(), rtol=1e-6)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:  # the line the error must show
            return x
        return -x


def test_untraceable_model_shows_the_users_line(make_task: Callable[..., Task]) -> None:
    with pytest.raises(CaptureError, match=r"test_capture.py:\d+: if x.sum\(\) > 0"):
        capture(make_task(Branching(), (1, 4)), recipe=NONE)


def test_model_that_fails_on_its_example(make_task: Callable[..., Task]) -> None:
    with pytest.raises(TaskError, match="fails on example_inputs"):
        capture(make_task(nn.Linear(3, 2), (1, 4)), recipe=NONE)


def test_nan_weights_are_named(make_task: Callable[..., Task]) -> None:
    model = nn.Linear(4, 2)
    model.weight.data[0, 0] = float("nan")
    with pytest.raises(TaskError, match="weight 'weight' holds 1 values"):
        capture(make_task(model, (1, 4)), recipe=NONE)


def test_double_inputs_are_refused(make_task: Callable[..., Task]) -> None:
    with pytest.raises(DataError, match="float64; the targets take"):
        capture(make_task(nn.ReLU(), (1, 4), example_inputs=np.zeros((1, 4)), calibration=None), recipe=NONE)


@torch.library.custom_op("edgekit_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return twice(self.inner(x))


def test_operator_no_target_can_take_is_named(make_task: Callable[..., Task]) -> None:
    with pytest.raises(UnsupportedOpError, match=r"edgekit_test.twice.* no lowering to onnx, tflite or coreml"):
        capture(make_task(Custom(), (1, 4)), recipe=NONE)


def test_batches_of_any_size_become_program_sized() -> None:
    example = {"x": np.zeros((4, 2), np.float32)}
    cut = list(split_batches([{"x": np.arange(12, dtype=np.float32).reshape(6, 2)}], example))
    assert [batch["x"].shape for batch in cut] == [(4, 2), (4, 2)]
    np.testing.assert_array_equal(cut[1]["x"][:, 0], [8, 10, 10, 10])
