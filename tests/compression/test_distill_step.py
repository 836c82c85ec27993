"""The step ``distill`` of a recipe: which nets it takes, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compression.capture import capture
from edgekit.compression.distill import RUNNER
from edgekit.compression.quantize import RUNNER as QUANTIZE
from edgekit.core.compressed import Compressed, StepRecord
from edgekit.core.distillation import Distill, LossTerm
from edgekit.core.errors import RecipeError, TaskError
from edgekit.core.plugins import silent
from edgekit.core.program import run_program
from edgekit.core.recipe import AwareTraining, Quantize, Recipe
from edgekit.core.task import Task
from edgekit.core.training import Training

INPUTS = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)
CLASSES = (INPUTS[:, 0] > 0).astype(np.int64) + (INPUTS[:, 1] > 0)
QUICK = Training(epochs=2, learning_rate=1e-2, seed=5)

MODELS = """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))

def big():
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))

def wrong():
    return nn.Linear(6, 4)

def broken():
    return nn.Linear(6, sizes)

def text():
    return "net"
"""


def factory(*, width: float = 1.0, depth: float = 1.0) -> nn.Module:
    hidden = round(16 * width)
    middle = [layer for _ in range(round(2 * depth)) for layer in (nn.Linear(hidden, hidden), nn.ReLU())]
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), *middle, nn.Linear(hidden, 3))


def unscaled() -> nn.Module:
    return factory()


def make_task(folder: Path | None = None, **changes: Any) -> Task:
    fields: dict[str, Any] = {
        "name": "signs",
        "model": factory,
        "example_inputs": INPUTS[:1],
        "calibration": [INPUTS[:16]],
        "training": [(INPUTS[:32], CLASSES[:32]), (INPUTS[32:], CLASSES[32:])],
    }
    if folder is not None:
        (folder / "models.py").write_text(MODELS)
        fields["source"] = folder / "task.py"
    return Task(**(fields | changes))


def run(task: Task, *, before: Compressed | None = None, **fields: Any) -> tuple[Compressed, StepRecord]:
    step = Distill(training=QUICK, **fields)
    state = before or capture(task, recipe=Recipe(name="taught", steps=(step,)))
    return RUNNER(state, step=step, task=task, progress=silent)


def parameter_count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters())


def test_without_a_student_the_net_learns_from_itself_and_that_is_said() -> None:
    task = make_task()
    dense = task.build_model()
    before = [parameter.clone() for parameter in dense.parameters()]
    state, record = run(task)
    assert all(map(torch.equal, before, dense.parameters()))
    assert state.module is not dense
    assert record.kind == "distill" and "it learned from itself" in record.summary
    inputs = torch.from_numpy(INPUTS[:1])
    assert not torch.equal(run_program(state.program, (inputs,))[0], run_program(state.float_program, (inputs,))[0])
    with torch.no_grad():
        torch.testing.assert_close(run_program(state.program, (inputs,))[0], state.module(inputs))  # type: ignore[misc]


def test_what_a_step_before_changed_is_the_student() -> None:
    task = make_task()
    state = capture(task, recipe=Recipe(name="taught", steps=(Distill(),)))
    pruned = factory(width=0.5)
    state = dataclasses.replace(state, module=pruned, program=torch.export.export(pruned, (torch.from_numpy(INPUTS[:1]),)))
    after, record = run(task, before=state)
    assert parameter_count(after.module) == parameter_count(pruned)
    assert "itself" not in record.summary
    assert record.details["student_parameters"] < record.details["teacher_parameters"][0]


@pytest.mark.parametrize(
    ("student", "twin"), [("width0.5", {"width": 0.5}), ("depth.5", {"depth": 0.5}), ("width2", {"width": 2})]
)
def test_the_tasks_factory_is_called_with_less_width_or_depth(student: str, twin: dict[str, float]) -> None:
    state, record = run(make_task(), student=student)
    assert parameter_count(state.module) == parameter_count(factory(**twin))
    assert record.details["student_parameters"] == parameter_count(state.module)


def test_students_and_teachers_from_a_file_beside_the_task(tmp_path: Path) -> None:
    state, record = run(make_task(tmp_path), student="models.py:small", teachers=("models.py:big", f"{tmp_path}/models.py:small"))
    assert parameter_count(state.module) == 6 * 4 + 4 + 4 * 3 + 3
    assert record.details["teacher_parameters"] == [6 * 32 + 32 + 32 * 3 + 3, 43]
    assert "models.py:small learned from models.py:big and" in record.summary


def test_the_seed_decides_the_first_weights_and_leaves_the_callers_numbers_alone(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    task.build_model()
    torch.manual_seed(1)
    first = run(task, student="models.py:small")[0].module
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    second = run(task, student="models.py:small")[0].module
    assert first is not None and second is not None
    assert all(map(torch.equal, first.parameters(), second.parameters()))


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        (
            {"student": "smaller"},
            RecipeError,
            r"student 'smaller' cannot be read; write models.py:function, width0.5 or",
        ),
        ({"student": "width0"}, RecipeError, "'width0' is nothing; give a factor above 0"),
        ({"student": "gone.py:small"}, TaskError, r"File gone.py of the student does not exist, neither here nor beside"),
        ({"student": "models.py:smal"}, TaskError, r"models.py defines no 'smal'\. Did you mean 'small'\?"),
        ({"student": "models.py:text"}, TaskError, r"'text' gives a str; the student must be an nn.Module"),
        ({"student": "models.py:broken"}, TaskError, r"NameError: name 'sizes'.*models.py:15: return nn.Linear\(6, sizes\)"),
        ({"student": "models.py:wrong"}, TaskError, r"returns output float32 \[1, 4\], the model output float32 \[1, 3\]"),
        ({"teachers": ("models.py:wrong",)}, TaskError, r"the student answers \[1, 3\], the teacher \[1, 4\]"),
        ({"teachers": ("big",)}, RecipeError, r"teacher 'big' cannot be read; write models.py:function\."),
        ({"losses": (LossTerm(kind="feature-match", layers={"layer": "0"}),)}, RecipeError, "the student has no layer 'layer'"),
    ],
)
def test_what_cannot_be_done_is_said_before_training(
    tmp_path: Path, fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    def training() -> Any:
        pytest.fail("training has begun")

    with pytest.raises(error, match=f"(?i){words}"):
        run(make_task(tmp_path, training=training), **fields)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (factory(), "its model is a finished net, which has no width to change. Let the task's model be a function"),
        (unscaled, r"its model factory takes no argument 'width'\..*def build\(\*, width: float = 1.0\)"),
    ],
)
def test_a_model_that_cannot_be_scaled_is_told_how(model: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        run(make_task(model=model), student="width0.5")


def test_distillation_after_quantization_is_refused() -> None:
    task = make_task()
    state = capture(task, recipe=Recipe(name="taught", steps=(Distill(),)))
    with pytest.raises(RecipeError, match=r"'distill' stands after quantization.*distill\+int8"):
        run(task, before=dataclasses.replace(state, module=None))


def test_the_dense_model_may_teach_while_rounding_is_trained() -> None:
    """With labels that are all wrong, who has a teacher stays nearer to the dense model."""
    wrong = [(inputs, (classes + 1) % 3) for inputs, classes in make_task().training]  # type: ignore[union-attr]
    task = make_task(training=wrong)
    distances = []
    for teacher in (False, True):
        step = Quantize(training=AwareTraining(epochs=8, learning_rate=1e-2, teacher=teacher))
        state = capture(task, recipe=Recipe(name="trained", steps=(step,)))
        after, _ = QUANTIZE(state, step=step, task=task, progress=silent)
        inputs = [(torch.from_numpy(row[None]),) for row in INPUTS[:16]]
        answers = [torch.cat([run_program(program, row)[0] for row in inputs]) for program in (after.program, state.program)]
        distances.append(nn.functional.mse_loss(*answers).item())
    assert distances[1] < 0.8 * distances[0]
