"""Task -> calibration report: capture, plan, watch, read the samples, judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgekit.compression.capture import capture
from edgekit.compression.doctor.findings import judge
from edgekit.compression.doctor.samples import DataSet, read_samples
from edgekit.compression.doctor.tensors import TOLERANCE, examine_tensors
from edgekit.compression.quantize.calibrate.channels import channel_axis
from edgekit.compression.quantize.canonical.form import canonicalize
from edgekit.compression.quantize.plan import make_plan
from edgekit.core.calibration import CalibrationReport
from edgekit.core.errors import RecipeError
from edgekit.core.preprocessing import statistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.fx import GraphModule

    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Quantize, Recipe
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = ["examine_calibration"]


def examine_calibration(task: Task, *, recipe: Recipe, progress: Progress) -> CalibrationReport:
    """Examine the calibration data as a recipe would use it.

    Args:
        task: Model, calibration data, and evaluation data to compare it with where there is some.
        recipe: Its ``quantize`` step says which layers are quantized, which estimator and how many samples are used.
        progress: Called as the work advances.

    Raises:
        RecipeError: The recipe does not quantize activations with scales that calibration sets.
        DataError: No calibration data, or bad data.
        ContractError: A value became NaN or infinite; names the layer.
    """
    step = _quantize_step(recipe)
    progress("trace model", 0, None)
    example = task.named_inputs(task.example_inputs)
    arguments = tuple(torch.from_numpy(array.copy()) for array in example.values())
    module = canonicalize(capture(task, recipe=recipe).program, arguments)
    plan = make_plan(module, input_names=tuple(example), keep_float=step.keep_float, precision=step.precision, layers=step.layers)
    if not plan.values:
        raise RecipeError(f"Recipe '{recipe.name}' sets no activation scale on task '{task.name}', so nothing needs calibration.")
    axes = _channel_axes(module, example)
    calibration = read_samples(
        task.calibration_batches(), axes=axes, sample_count=step.sample_count, what="read calibration data", progress=progress
    )
    evaluation = _evaluation(task, axes, progress)
    tensors, found = examine_tensors(
        module, plan, task=task, example=example, sample_count=step.sample_count, estimator=step.estimator, progress=progress
    )
    return CalibrationReport(
        task=task.name,
        estimator=step.estimator,
        sample_count=len(calibration.digests),
        evaluation_count=len(evaluation.digests) if evaluation else 0,
        tolerance=TOLERANCE,
        stable_after=found.stable_after,
        curve=found.curve,
        tensors=tensors,
        calibration=calibration.inputs,
        evaluation=evaluation.inputs if evaluation else (),
        findings=judge(
            calibration=calibration,
            evaluation=evaluation,
            tensors=tensors,
            found=found,
            preprocessing=statistics(task.described_preprocessing),
        ),
    )


def _quantize_step(recipe: Recipe) -> Quantize:
    steps = [step for step in recipe.steps if step.kind == "quantize"]
    if not steps:
        raise RecipeError(f"Recipe '{recipe.name}' has no quantize step, so nothing needs calibration. Try int8.")
    step: Quantize = steps[0]  # type: ignore[assignment]  # the kind says which type it is
    return step


def _evaluation(task: Task, axes: Mapping[str, int], progress: Progress) -> DataSet | None:
    if task.evaluation is None:
        return None
    batches = (inputs for inputs, _ in task.evaluation_batches())
    return read_samples(batches, axes=axes, what="read evaluation data", progress=progress)


def _channel_axes(module: GraphModule, example: Mapping[str, Array]) -> dict[str, int]:
    """Where each input's channels lie: as the layers that read it see it; else axis 1."""
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    axes = {}
    for (name, array), node in zip(example.items(), placeholders, strict=True):
        axis = channel_axis(node)
        axes[name] = 1 if axis is None else axis % array.ndim
    return axes
