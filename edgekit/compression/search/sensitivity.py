"""Task -> sensitivity report: capture, plan, calibrate, measure the noise of each layer, and run the worst layers alone."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from edgekit.compression.capture import capture
from edgekit.compression.quantize.calibrate.observe import program_inputs
from edgekit.compression.quantize.nodes import shape_of
from edgekit.compression.quantize.static import calibrate_program
from edgekit.compression.search.measure import NoiseMap, OutputNoise, decibels, measure_noise
from edgekit.compression.search.simulate import Simulation, as_outputs, weighted_kernels
from edgekit.core.errors import RecipeError
from edgekit.core.recipe import Quantize
from edgekit.core.sensitivity import LayerSensitivity, SensitivityReport

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch.fx import GraphModule, Node

    from edgekit.compression.quantize.plan import Kernel, Plan
    from edgekit.core.compressed import Compressed
    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Recipe
    from edgekit.core.task import Task

__all__ = ["Study", "begin_study", "examine_sensitivity", "macs_of"]

_CHECK_SAMPLES = 8


@dataclasses.dataclass
class Study:
    """A float graph with a plan, its grids, and a few samples to try things on."""

    module: GraphModule
    plan: Plan
    simulation: Simulation
    samples: list[list[torch.Tensor]]


def examine_sensitivity(
    task: Task, *, recipe: Recipe, sample_count: int, checked: int = 5, progress: Progress
) -> SensitivityReport:
    """Measure which layers hurt.

    Args:
        task: Model and calibration data.
        recipe: Its ``quantize`` step says which layers become integers, and how.
        sample_count: At most this many calibration samples.
        checked: So many of the worst layers are also run alone.
        progress: Called as the work advances.

    Raises:
        RecipeError: The recipe has no quantize step.
        DataError: No calibration data, or bad data.
    """
    steps = [step for step in recipe.steps if isinstance(step, Quantize)]
    if not steps:
        raise RecipeError(f"Recipe '{recipe.name}' has no quantize step, so no layer becomes integers. Try int8.")
    progress("trace model", 0, None)
    study = begin_study(capture(task, recipe=recipe), step=steps[0], task=task, sample_count=sample_count, progress=progress)
    total = len(study.samples)
    noise = measure_noise(study.simulation, study.samples, progress=lambda done: progress("measure layers", done, total))
    rows = layer_rows(study.plan, noise)
    worst = [row.layer for row in rows[:checked]]
    alone = {}
    for done, layer in enumerate(worst):
        progress("run the worst alone", done, len(worst))
        alone[layer] = decibels(_noise_alone(study, layer))
    return SensitivityReport(
        task=task.name,
        recipe=steps[0].word(),
        sample_count=total * next(iter(task.named_inputs(task.example_inputs).values())).shape[0],
        predicted_snr_db=decibels(total_noise(study.plan, noise)) if noise.is_traced else None,
        layers=tuple(row.replace(checked_snr_db=alone.get(row.layer)) for row in rows),
    )


def begin_study(state: Compressed, *, step: Quantize, task: Task, sample_count: int, progress: Progress) -> Study:
    """Bring a float program to the form it is lowered from, plan it, and calibrate on a few samples."""
    limited = step.replace(sample_count=min(sample_count, step.sample_count))
    module, plan, statistics = calibrate_program(state, step=limited, task=task, progress=progress)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    example = task.named_inputs(task.example_inputs)
    samples = list(program_inputs(task, example, sample_count=sample_count)) if task.calibration is not None else []
    return Study(module, plan, Simulation.of(module, plan, statistics.ranges), samples)


def layer_rows(plan: Plan, noise: NoiseMap) -> list[LayerSensitivity]:
    """One row a layer, the worst at the outputs first (at its own output where gradients cannot tell)."""
    kernels: dict[str, list[Kernel]] = defaultdict(list)
    values: dict[str, list[Node]] = defaultdict(list)
    for kernel in (*plan.kernels, *plan.weight_only):
        kernels[kernel.layer or "(model)"].append(kernel)
    for node, value in plan.values.items():
        values["(input)" if value.is_input else value.layer or "(model)"].append(node)
    whole = total_noise(plan, noise)
    names = dict.fromkeys([*values, *kernels])
    rows = [_row(name, kernels[name], values[name], plan, noise, whole) for name in names]
    return sorted(rows, key=lambda row: (-(row.share or 0.0), _lowest(row)))


def total_noise(plan: Plan, noise: NoiseMap) -> float:
    """Noise at the outputs with every layer as the plan has it, added up."""
    stored = {kernel.node: kernel.precision.weights for kernel in weighted_kernels(plan)}
    weights = sum(held[stored[node]].reached for node, held in noise.weights.items() if stored[node] in held)
    return weights + sum(noise.values[node].reached for node in plan.values if node in noise.values)


def _lowest(row: LayerSensitivity) -> float:
    known = [value for value in (row.weights_snr_db, row.activations_snr_db) if value is not None]
    return min(known, default=math.inf)


def _row(
    name: str, kernels: Sequence[Kernel], values: Sequence[Node], plan: Plan, noise: NoiseMap, whole: float
) -> LayerSensitivity:
    held = [(noise.weights[kernel.node], kernel.precision.weights) for kernel in kernels if kernel.node in noise.weights]
    own = [weights.get(kind, weights["int8"]) for weights, kind in held]
    grids = [noise.values[node] for node in values if node in noise.values]
    reached_weights, reached_values = sum(n.reached for n in own), sum(n.reached for n in grids)
    operators = [plan.values[node].op for node in values] or [kernel.family.name for kernel in kernels]
    return LayerSensitivity(
        layer=name,
        op=", ".join(dict.fromkeys(operators)),
        weights_snr_db=_worst(n.local for n in own),
        narrow_weights_snr_db=_worst(weights["int4"].local for weights, _ in held),
        activations_snr_db=_worst(n.local for n in grids),
        weights_output_snr_db=decibels(reached_weights) if noise.is_traced else None,
        activations_output_snr_db=decibels(reached_values) if noise.is_traced else None,
        share=(reached_weights + reached_values) / whole if noise.is_traced and whole > 0 else None,
        weight_count=sum(weight_count(kernel) for kernel in kernels),
        macs=sum(macs_of(kernel) for kernel in kernels),
    )


def _worst(noises: Iterable[float]) -> float | None:
    return decibels(max(noises, default=0.0))


def weight_count(kernel: Kernel) -> int:
    """Weights of a layer."""
    return math.prod(shape_of(kernel.node.args[kernel.family.weight])) if kernel.family.weight is not None else 0


def macs_of(kernel: Kernel) -> int:
    """Multiply-accumulates of one call: outputs times weights of a row; of activations, times the axis summed over."""
    made = math.prod(shape_of(kernel.node))
    if kernel.family.role == "weighted":
        if not kernel.family.inputs:  # rows are looked up, nothing is multiplied
            return 0
        source = kernel.node.args[kernel.family.inputs[0]] if isinstance(kernel.family.inputs, tuple) else None
        transposed = kernel.family.name == "conv_transpose"
        weight = shape_of(kernel.node.args[kernel.family.weight or 0])
        return math.prod(shape_of(source)) * math.prod(weight[1:]) if transposed else made * math.prod(weight[1:])
    if kernel.family.name == "matmul":
        return made * shape_of(kernel.node.args[0])[-1]
    return 0


def _noise_alone(study: Study, layer: str) -> float:
    """Noise at the outputs with only this layer rounded, by running it."""
    weights = {kernel.node for kernel in weighted_kernels(study.plan) if (kernel.layer or "(model)") == layer}
    values = {
        node
        for node, value in study.plan.values.items()
        if ("(input)" if value.is_input else value.layer or "(model)") == layer and node in study.simulation.grids
    }
    weights &= study.simulation.weights.keys()
    found = OutputNoise()
    for arguments in study.samples[:_CHECK_SAMPLES]:
        with torch.no_grad():
            reference = as_outputs(study.module(*arguments))
        found.add(study.simulation.run(arguments, weights=weights, values=values), reference)
    return found.mean()
