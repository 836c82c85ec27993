"""Quantization-aware training inside a training loop of one's own: prepare, train as ever, finish."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from edgekit.compression.capture import capture
from edgekit.compression.quantize.static import prepare_program, quantize_static
from edgekit.compression.quantize.training.prepared import PreparedModel
from edgekit.core.errors import RecipeError, UsageError
from edgekit.core.plugins import silent
from edgekit.core.recipe import Quantize, Recipe
from edgekit.core.task import Task

if TYPE_CHECKING:
    from pathlib import Path

    from edgekit.core.compressed import Compressed
    from edgekit.core.plugins import Progress

__all__ = ["finish_qat", "prepare_qat"]


def prepare_qat(
    model: torch.nn.Module | Task,
    example_inputs: Any = None,
    *,
    calibration: Any = None,
    recipe: str | Path | Recipe = "int8-qat",
    name: str = "model",
    progress: Progress = silent,
) -> PreparedModel:
    """Make a model trainable as it will be quantized, its scales set by calibration.

    Args:
        model: The trained float model (put into eval mode), or a whole task.
        example_inputs: One batch, as :class:`~edgekit.core.task.Task` takes it; not for a task.
        calibration: Batches of inputs, as :class:`~edgekit.core.task.Task` takes them; not for a task.
        recipe: One with a single quantize step, e.g. ``"int8-qat"`` or ``"w4a8-qat"``.
        name: Names the run and the artifacts; not for a task.
        progress: Called as calibration advances.

    Returns:
        A net with the model's ``forward``; give its ``parameters()`` to an optimizer, then call :func:`finish_qat`.

    Raises:
        UsageError: A model came without example inputs or calibration data.
        RecipeError: The recipe is not one quantize step with integer activations.
        EdgekitError: What the model or the data does not allow.

    >>> import torch, edgekit as ek
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> data = torch.randn(32, 4)
    >>> prepared = ek.prepare_qat(model, data[:1], calibration=[data])
    >>> optimizer = torch.optim.Adam(prepared.parameters(), lr=1e-3)
    >>> loss = torch.nn.functional.mse_loss(prepared(data), data[:, :2])
    >>> loss.backward()
    >>> optimizer.step()
    >>> ek.finish_qat(prepared).precision
    'int8'
    """
    task = model if isinstance(model, Task) else _task_of(model, example_inputs, calibration, name)
    plan = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    step = _quantize_step(plan)
    state = capture(task, recipe=plan)
    return prepare_program(state, step=step, task=task, progress=progress)


def finish_qat(prepared: PreparedModel) -> Compressed:
    """The compressed program of a trained net: what its ``forward`` computes, in integers, ready for ``edgekit.export``.

    ``prepared`` is left as it is and may be trained on.

    Raises:
        UsageError: Not made by :func:`prepare_qat`.
        ContractError: A trained bias does not fit its grid.
    """
    if not isinstance(prepared, PreparedModel):
        raise UsageError(f"finish_qat takes what prepare_qat returned, found a {type(prepared).__name__}.")
    origin = prepared.origin
    state, record = quantize_static(origin.state, step=origin.step, task=origin.task, progress=silent, prepared=prepared)
    return dataclasses.replace(state, record=state.record.replace(history=(*state.record.history, record)))


def _task_of(model: torch.nn.Module, example_inputs: Any, calibration: Any, name: str) -> Task:
    if example_inputs is None or calibration is None:
        missing = "example_inputs" if example_inputs is None else "calibration"
        raise UsageError(f"prepare_qat needs {missing}: prepare_qat(model, example_inputs, calibration=batches), or a task.")
    return Task(name=name, model=model, example_inputs=example_inputs, calibration=calibration)


def _quantize_step(recipe: Recipe) -> Quantize:
    steps = [step for step in recipe.steps if isinstance(step, Quantize)]
    if len(recipe.steps) != 1 or not steps or steps[0].precision.activations not in {"int8", "int16"}:
        raise RecipeError(f"Recipe '{recipe.name}': prepare_qat takes one quantize step with integer activations ('int8-qat').")
    return steps[0]
