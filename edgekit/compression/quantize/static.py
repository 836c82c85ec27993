"""Static post-training quantization, from one program to the next."""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from edgekit.compression.quantize.calibrate.observe import Statistics, calibrate, program_inputs
from edgekit.compression.quantize.canonical.form import canonicalize, copy_graph
from edgekit.compression.quantize.canonical.pooling import pools_as_convolutions
from edgekit.compression.quantize.equalize import equalize, find_streams
from edgekit.compression.quantize.exact.check import check_exactness
from edgekit.compression.quantize.lower import Lowered, lower
from edgekit.compression.quantize.plan import Plan, make_plan
from edgekit.compression.quantize.repair.layers import repair
from edgekit.compression.quantize.repair.sequential import affordable_sample_count, layer_axes
from edgekit.compression.quantize.smooth import find_chains, smooth
from edgekit.compression.quantize.training.prepared import learn, prepare, restore
from edgekit.core.compressed import Compressed, StepRecord
from edgekit.core.contract import QuantizationContract, TensorQuantization
from edgekit.core.errors import ContractError, UsageError
from edgekit.core.program import answer_samples

if TYPE_CHECKING:
    from pathlib import Path

    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from edgekit.compression.quantize.training.prepared import PreparedModel
    from edgekit.core.plugins import Progress
    from edgekit.core.recipe import Quantize
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = ["calibrate_program", "prepare_program", "quantize_static"]

_REPAIR_SAMPLES = 256  # what a layer's repair looks at, as far as memory allows


def quantize_static(
    state: Compressed,
    *,
    step: Quantize,
    task: Task,
    progress: Progress,
    work: Path | None = None,
    prepared: PreparedModel | None = None,
) -> tuple[Compressed, StepRecord]:
    """Quantize weights, activations and biases of ``state.program``; see :mod:`edgekit.compression.quantize`.

    Args:
        state: The float program.
        step: What to do.
        task: Brings the data.
        progress: Called as the work advances.
        work: Folder for training's checkpoints; None: none are kept.
        prepared: A net trained elsewhere; its weights and scales stand in for calibration and training.
    """
    if state.contract.entries:
        raise UsageError("The program is quantized already; a recipe can hold one quantize step.")
    clock, cpu = time.perf_counter(), time.process_time()
    example = task.named_inputs(task.example_inputs)
    arguments = tuple(torch.from_numpy(array.copy()) for array in example.values())
    module, plan = _plan_program(state, arguments, step=step, task=task)
    if prepared is not None:
        statistics, details = restore(prepared, module, plan)
    else:
        statistics, details = _calibrate(module, plan, step=step, task=task, example=example, progress=progress)
        if step.training is not None:
            statistics, trained = learn(module, plan, statistics, state=state, step=step, task=task, work=work, progress=progress)
            details |= trained
    is_trained = prepared is not None or step.training is not None  # training has set weights and biases: nothing is repaired
    plain = step.replace(rounding="nearest", bias_correction=False) if is_trained else step
    lowered, details = _quantize_graph(
        module, plan, statistics, details, step=plain, align=step.exact or not is_trained, task=task, progress=progress
    )
    program = _export_again(lowered, arguments)
    exactness = check_exactness(program)
    details["exact_kernel_count"] = sum(kernel.is_exact for kernel in exactness.kernels)
    details["inexact_kernels"] = [f"{kernel.layer} ({kernel.op}): {kernel.reason}" for kernel in exactness.inexact]
    contract = QuantizationContract(entries=_with_nodes(lowered, program), float_layers=plan.float_layers)
    outputs = answer_samples(program, state.golden.inputs, [spec.name for spec in state.record.outputs])
    golden = dataclasses.replace(state.golden, outputs=outputs)
    record = _describe(plan, lowered, details, step, time.perf_counter() - clock, time.process_time() - cpu)
    source = None if state.program is state.float_program else state.program
    result = dataclasses.replace(state, program=program, contract=contract, golden=golden, source_program=source, module=None)
    return result, record


def prepare_program(state: Compressed, *, step: Quantize, task: Task, progress: Progress) -> PreparedModel:
    """The trainable net of ``state.program``, its scales set by calibration."""
    example = task.named_inputs(task.example_inputs)
    arguments = tuple(torch.from_numpy(array.copy()) for array in example.values())
    module, plan = _plan_program(state, arguments, step=step, task=task)
    statistics, details = _calibrate(module, plan, step=step, task=task, example=example, progress=progress)
    return prepare(module, plan, statistics, details, state=state, task=task, step=step)


def calibrate_program(
    state: Compressed, *, step: Quantize, task: Task, progress: Progress
) -> tuple[GraphModule, Plan, Statistics]:
    """The float graph as it stands just before it is lowered (canonical, equalized), its plan, and its ranges."""
    example = task.named_inputs(task.example_inputs)
    arguments = tuple(torch.from_numpy(array.copy()) for array in example.values())
    module, plan = _plan_program(state, arguments, step=step, task=task)
    statistics, _ = _calibrate(module, plan, step=step, task=task, example=example, progress=progress)
    return module, plan, statistics


def _plan_program(
    state: Compressed, arguments: Sequence[torch.Tensor], *, step: Quantize, task: Task
) -> tuple[GraphModule, Plan]:
    """The program's canonical graph, and what of it becomes integers."""
    module = canonicalize(state.program, arguments)
    if step.exact:
        pools_as_convolutions(module)
    plan = make_plan(
        module, input_names=task.input_names, keep_float=step.keep_float, precision=step.precision, layers=step.layers
    )
    if not plan.kernels and not plan.weight_only:
        raise ContractError(
            f"Task '{task.name}': no layer of the model can take the recipe '{step.word()}', so there is nothing to quantize."
            " Use the recipe 'none'."
        )
    return module, plan


def _quantize_graph(
    module: GraphModule,
    plan: Plan,
    statistics: Statistics,
    details: Mapping[str, Any],
    *,
    step: Quantize,
    align: bool,
    task: Task,
    progress: Progress,
) -> tuple[Lowered, dict[str, Any]]:
    """Lower, repair: the canonical graph (consumed) becomes a Q/DQ graph; and what was done, in numbers."""
    compensate = step.rounding == "compensated"
    layers = (
        layer_axes(plan, weight_only=compensate and task.calibration is not None) if compensate or step.bias_correction else {}
    )
    details = {"sample_count": statistics.sample_count, **details, "repaired_layer_count": len(layers)}
    if not layers:
        return lower(module, plan, statistics.ranges, align=align, exact=step.exact), details
    count = affordable_sample_count(module, wanted=min(step.sample_count, _REPAIR_SAMPLES))
    samples = list(program_inputs(task, task.named_inputs(task.example_inputs), sample_count=count))
    float_module = copy_graph(module)
    repaired = repair(
        lower(module, plan, statistics.ranges, align=align, exact=step.exact),
        float_module,
        layers,
        samples,
        compensate=compensate,
        correct_biases=step.bias_correction,
        keep_scales=align and step.exact,
        progress=lambda done: progress("repair", done, len(layers)),
    )
    return repaired, details


def _calibrate(
    module: GraphModule, plan: Plan, *, step: Quantize, task: Task, example: Mapping[str, Array], progress: Progress
) -> tuple[Statistics, dict[str, Any]]:
    """Equalize and smooth by channel statistics; then the ranges, as the recipe wants them estimated."""
    if not plan.values:  # weight-only: no activation gets a scale, so no data is needed
        return Statistics({}, {}, 0), {}
    streams = find_streams(module, plan) if step.equalization else []
    chains = find_chains(module, plan) if step.smoothing is not None else []
    hidden = {node for stream in streams for node in stream.tensors} | {chain.hidden for chain in chains}
    run = functools.partial(
        calibrate, module, plan, task=task, example=example, sample_count=step.sample_count, progress=progress
    )
    statistics = run(watched_channels=hidden, estimator="min-max" if hidden else step.estimator)
    statistics = equalize(module, streams, statistics)
    if step.smoothing is not None:
        statistics = smooth(module, chains, statistics, alpha=step.smoothing)
    if hidden and step.estimator != "min-max":  # only extremes can be rescaled; a histogram has to be taken again
        statistics = run(estimator=step.estimator)
    return statistics, {"equalized_stream_count": len(streams), "smoothed_chain_count": len(chains)}


def _export_again(lowered: Lowered, arguments: Sequence[torch.Tensor]) -> ExportedProgram:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.export.export(lowered.module, tuple(arguments), strict=False)


def _with_nodes(lowered: Lowered, program: ExportedProgram) -> tuple[TensorQuantization, ...]:
    """Entries with the names their nodes have in the exported program: activations in order, parameters after them."""
    quantizes = [node for node in program.graph.nodes if str(node.target) == "quantized_decomposed.quantize_per_tensor.default"]
    found = [(node.args[1], node.args[2]) for node in quantizes]
    expected = [(entry.scale[0], entry.zero_point[0]) for entry in lowered.activations]
    if found != expected:
        raise ContractError(
            f"The exported program holds {len(found)} quantized activations, the contract {len(expected)}, or in another order."
        )
    activations = [entry.replace(node=node.name) for entry, node in zip(lowered.activations, quantizes, strict=True)]
    placeholders = {buffer: name for name, buffer in program.graph_signature.inputs_to_buffers.items()}
    return (*activations, *(entry.replace(node=placeholders[entry.node]) for entry in lowered.parameters))


def _describe(
    plan: Plan, lowered: Lowered, details: dict[str, Any], step: Quantize, seconds: float, cpu_seconds: float
) -> StepRecord:
    words = ", ".join(dict.fromkeys(kernel.precision.word for kernel in (*plan.kernels, *plan.weight_only)))
    only_weights = f" {len(plan.weight_only)} layers with small weights and float kernels," if plan.weight_only else ""
    if lowered.dynamic_count:
        only_weights = only_weights[:-1] + f" ({lowered.dynamic_count} of them quantize their input at run time),"
    weighted = sum(kernel.family.role == "weighted" for kernel in plan.kernels)
    return StepRecord(
        kind="quantize",
        summary=(
            f"{words}: {len(plan.kernels)} integer kernels ({weighted} with weights), {len(lowered.activations)} activations,"
            f"{only_weights} {len(plan.float_layers)} operators stay float,"
            f" {details['sample_count']} calibration samples{_training(details)}{_exactness(details) if step.exact else ''}"
        ),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        details={
            "kernel_count": len(plan.kernels),
            "weighted_kernel_count": weighted,
            "activation_count": len(lowered.activations),
            "absorbed_clamp_count": lowered.absorbed_clamp_count,
            "float_operator_count": len(plan.float_layers),
            "weight_only_count": len(plan.weight_only),
            "dynamic_count": lowered.dynamic_count,
            **details,
            "estimator": step.estimator,
        },
    )


def _exactness(details: Mapping[str, Any]) -> str:
    inexact = details["inexact_kernels"]
    if not inexact:
        return f", exact: {details['exact_kernel_count']} of {details['exact_kernel_count']} kernels"
    return f", NOT exact in {len(inexact)} kernels: {'; '.join(inexact[:3])}{' ...' if len(inexact) > 3 else ''}"


def _training(details: Mapping[str, Any]) -> str:
    losses = details.get("losses")
    return f", trained {len(losses)} epochs (loss {losses[0]:.4f}, at last {losses[-1]:.4f})" if losses else ""
