from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.core.errors import DataError, TaskError
from edgekit.core.metric import Metric, top1
from edgekit.core.task import Task, load_task


class Two(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image * mask


def make(**changes: Any) -> Task:
    fields: dict[str, Any] = {"name": "t", "model": torch.nn.Linear(4, 2), "example_inputs": np.zeros((1, 4), np.float32)}
    return Task(**(fields | changes))


def test_inputs_are_named_after_forward() -> None:
    assert make().input_names == ("input",)
    ones = np.ones((1, 4), np.float32)
    assert make(model=Two(), example_inputs=(ones, ones)).input_names == ("image", "mask")
    assert make(model=Two(), example_inputs={"mask": ones, "image": ones}).input_names == ("mask", "image")


def test_model_factory_is_called_once_and_evaluates() -> None:
    calls = []

    def factory() -> torch.nn.Module:
        calls.append(1)
        return torch.nn.Dropout()

    task = make(model=factory)
    assert task.build_model() is task.build_model()
    assert len(calls) == 1
    assert not task.build_model().training


def test_batches_accept_tensors_and_functions() -> None:
    task = make(
        calibration=lambda: [torch.zeros(3, 4), np.ones((2, 4), np.float32)], evaluation=[(np.zeros((5, 4), np.float32), [0] * 5)]
    )
    assert [batch["input"].shape for batch in task.calibration_batches()] == [(3, 4), (2, 4)]
    ((inputs, targets),) = list(task.evaluation_batches())
    assert inputs["input"].shape == (5, 4)
    assert targets is not None
    assert targets.shape == (5,)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (None, "has no calibration data"),
        ([], "is empty"),
        ([np.zeros((2, 5), np.float32)], r"float32 \[2, 5\], but example_inputs says float32 \['N', 4\]"),
        ([np.zeros((2, 4), np.float64)], "float64"),
        ([np.full((2, 4), np.nan, np.float32)], "8 values that are NaN"),
        ([np.zeros((0, 4), np.float32)], "at least one"),
        ([(np.zeros((2, 4), np.float32),) * 2], "2 inputs, the model takes 1"),
    ],
)
def test_bad_calibration(data: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        list(make(calibration=data).calibration_batches())


def test_evaluation_needs_pairs() -> None:
    with pytest.raises(DataError, match=r"not a pair \(inputs, targets\)"):
        list(make(evaluation=[np.zeros((2, 4), np.float32)]).evaluation_batches())


@pytest.mark.parametrize(
    ("model", "complaint"), [(3, "model is a int"), (lambda: 3, "returned a int"), (lambda: 1 // 0, "ZeroDivisionError")]
)
def test_bad_models(model: Any, complaint: str) -> None:
    with pytest.raises(TaskError, match=complaint):
        make(model=model).build_model()


def test_task_file(tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(
        "import edgekit, numpy as np, torch\n"
        "def other(): return edgekit.Task(name='b', model=torch.nn.ReLU(), example_inputs=np.zeros((1, 2), np.float32))\n"
        "task = edgekit.Task(name='a', model=torch.nn.ReLU(), example_inputs=np.zeros((1, 2), np.float32))\n"
    )
    assert load_task(file).name == "a"
    assert load_task(f"{file}:other").name == "b"
    assert load_task(file).source == file


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1\n", "defines no 'task'"),
        ("task = 3\n", "'task' is a int"),
        ("task = (\n", "syntax error"),
        ("import edgekit\nraise ValueError('no data')\n", "ValueError: no data .*task.py:2: raise ValueError"),
    ],
)
def test_bad_task_files(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text(text)
    with pytest.raises(TaskError, match=complaint):
        load_task(file)


def test_missing_task_file() -> None:
    with pytest.raises(TaskError, match="does not exist"):
        load_task("nowhere/task.py")


def test_metric_checks_scores() -> None:
    outputs = {"output": np.eye(3, dtype=np.float32)}
    assert list(top1.scores(outputs, np.array([0, 1, 0]))) == [1, 1, 0]
    with pytest.raises(DataError, match="needs targets"):
        top1.scores(outputs, None)
    with pytest.raises(DataError, match="one score a sample"):
        Metric(name="m", score=lambda *_: np.zeros(1)).scores(outputs, np.zeros(3))
    with pytest.raises(DataError, match="returned nan for sample 1"):
        Metric(name="m", score=lambda *_: np.array([0, np.nan, 1])).scores(outputs, np.zeros(3))
