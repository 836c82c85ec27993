"""Task -> captured float program: ``torch.export`` with errors that point at the user's own line.

See https://docs.pytorch.org/docs/stable/export.html for what can be exported.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from edgekit.compression.declaration import check_declaration
from edgekit.compression.flexible import check_recipe, flexible_specs, open_axes, trace_hints, traceable
from edgekit.core.compressed import Compressed, CompressedRecord, Golden, StepRecord
from edgekit.core.contract import QuantizationContract
from edgekit.core.errors import CaptureError, DataError, TaskError, UnsupportedOpError
from edgekit.core.program import answer_samples, run_program
from edgekit.core.run import tool_versions
from edgekit.core.tensors import DType, FlexibleAxis, TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edgekit.core.recipe import Recipe
    from edgekit.core.task import Task
    from edgekit.core.tensors import Array

__all__ = ["capture", "recapture", "split_batches", "user_line"]

GOLDEN_COUNT = 8
_KNOWN_NAMESPACES = {"aten", "prims", "prim", "quantized_decomposed", "torchao", "higher_order", "_operator", "math"}


class _Plain(torch.nn.Module):
    """Calls a model by input name and returns its outputs as a flat tuple: what every target can take."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str], *, by_name: bool) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)
        self.by_name = by_name

    def forward(self, *arrays: torch.Tensor) -> Any:
        result = self.model(**dict(zip(self.names, arrays, strict=True))) if self.by_name else self.model(*arrays)
        if isinstance(result, Mapping):
            return tuple(result.values())
        return result


def capture(task: Task, *, recipe: Recipe) -> Compressed:
    """Trace the task's model and return it as a compressed program that no step has touched yet.

    Raises:
        TaskError: The model cannot be built, or its weights are not finite.
        CaptureError: ``torch.export`` could not trace it.
        UnsupportedOpError: It calls an operator that no target can lower.
        RecipeError: The recipe needs fixed shapes, and the task leaves some open.
    """
    clock, cpu = time.perf_counter(), time.process_time()
    check_recipe(task, recipe)
    model = task.build_model()
    _check_weights(model, task.name)
    example = task.named_inputs(task.example_inputs)
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in example.values())
    output_names = _output_names(_call(model, task, arguments), task.name)
    axes = open_axes(task)
    module = _positional(model, task, wrap=output_names[0] == "{}")
    program = _export(module, arguments, task, axes=[axes.get(name, ()) for name in example])
    output_names = [name for name in output_names if name != "{}"]
    _check_operators(program)
    outputs = run_program(program, arguments)
    if len(outputs) != len(output_names):
        raise CaptureError(f"Task '{task.name}': the model has {len(output_names)} outputs, its program {len(outputs)}.")
    golden = first_samples(task, example, count=GOLDEN_COUNT)
    inputs = tuple(_spec(name, array) for name, array in example.items())
    returned = tuple(_spec(name, value.numpy()) for name, value in zip(output_names, outputs, strict=True))
    if axes:
        inputs, returned = flexible_specs(program, inputs, returned, axes)
    described = task.described_preprocessing
    check_declaration(
        task.name, described, program=program, inputs=inputs, samples=golden if task.calibration is not None else None
    )
    record = CompressedRecord(
        name=task.name,
        recipe=recipe.model_dump(mode="json"),
        inputs=inputs,
        outputs=returned,
        labels=tuple(task.labels),
        preprocessing=described,
        seed=task.seed,
        history=(_captured(program, time.perf_counter() - clock, time.process_time() - cpu),),
        versions=tool_versions(),
    )
    return Compressed(
        program=program,
        float_program=program,
        contract=QuantizationContract(),
        record=record,
        golden=Golden(
            inputs=golden,
            outputs=answer_samples(program, golden, output_names),
            raw=_stacked(task.sized_batches("calibration"), example, count=GOLDEN_COUNT),
        ),
        module=model,
    )


def recapture(state: Compressed, module: torch.nn.Module, task: Task) -> Compressed:
    """``state`` with its program traced anew from a net that a step changed; the float program stays what it was.

    Args:
        state: What the steps before made.
        module: Called like the task's model; put into eval mode.
        task: Brings the example inputs.

    Raises:
        TaskError: The net's weights are not finite, it fails on the example inputs, or its outputs are others than the model's.
        CaptureError: ``torch.export`` could not trace it.
    """
    module.eval()
    _check_weights(module, task.name)
    example = task.named_inputs(task.example_inputs)
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in example.values())
    names = _output_names(_call(module, task, arguments), task.name)
    program = _export(_positional(module, task, wrap=names[0] == "{}"), arguments, task)
    names = [name for name in names if name != "{}"]
    outputs = run_program(program, arguments)
    found = tuple(_spec(name, value.numpy()) for name, value in zip(names, outputs, strict=True))
    if found != state.record.outputs:
        expected = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in state.record.outputs)
        got = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in found)
        raise TaskError(f"Task '{task.name}': the changed net returns {got}, the model {expected}. They must be the same.")
    golden = dataclasses.replace(state.golden, outputs=answer_samples(program, state.golden.inputs, names))
    return dataclasses.replace(state, program=program, golden=golden, module=module)


def first_samples(task: Task, example: Mapping[str, Array], *, count: int) -> dict[str, Array]:
    """The first ``count`` program-sized samples of the calibration data, ``[count, *shape]`` by input name.

    A task without calibration data (possible for the recipe ``none``) gives its example inputs.
    """
    if task.calibration is None:
        return {name: array[None] for name, array in example.items()}
    return _stacked(task.calibration_batches(), example, count=count)


def _stacked(batches: Iterator[Mapping[str, Array]], example: Mapping[str, Array], *, count: int) -> dict[str, Array]:
    """The first ``count`` program-sized batches by input; empty where there is none."""
    first = list(itertools.islice(split_batches(batches, example), count))
    return {name: np.stack([batch[name] for batch in first]) for name in (first[0] if first else ())}


def split_batches(batches: Any, example: Mapping[str, Array]) -> Any:
    """Cut batches of any size into batches of the program's own size; a short last one is filled by repetition.

    Samples are taken in order and across batches, so the result does not depend on how they were batched.
    """
    size = next(iter(example.values())).shape[0]
    rest: dict[str, Array] = {}
    for batch in batches:
        joined = {name: np.concatenate([rest[name], array]) for name, array in batch.items()} if rest else batch
        total = next(iter(joined.values())).shape[0]
        for start in range(0, total - size + 1, size):
            yield {name: np.ascontiguousarray(array[start : start + size]) for name, array in joined.items()}
        rest = {name: array[total - total % size :] for name, array in joined.items()} if total % size else {}
    if rest:
        rows = np.minimum(np.arange(size), next(iter(rest.values())).shape[0] - 1)
        yield {name: np.ascontiguousarray(array[rows]) for name, array in rest.items()}


def _positional(model: torch.nn.Module, task: Task, *, wrap: bool) -> torch.nn.Module:
    by_name = isinstance(task.example_inputs, Mapping)
    return _Plain(model, task.input_names, by_name=by_name).eval() if wrap or by_name else model


def _call(model: torch.nn.Module, task: Task, arguments: tuple[torch.Tensor, ...]) -> Any:
    by_name = isinstance(task.example_inputs, Mapping)
    try:
        with torch.no_grad():
            return model(**dict(zip(task.input_names, arguments, strict=True))) if by_name else model(*arguments)
    except Exception as reason:
        raise TaskError(f"Task '{task.name}': the model fails on example_inputs. {user_line(reason)}") from reason


def _output_names(result: Any, task: str) -> list[str]:
    """Names of the outputs; a dictionary's start with the mark ``"{}"``."""
    if isinstance(result, torch.Tensor):
        return ["output"]
    if isinstance(result, Mapping) and result and all(isinstance(value, torch.Tensor) for value in result.values()):
        return ["{}", *(str(key) for key in result)]
    if isinstance(result, tuple | list) and result and all(isinstance(value, torch.Tensor) for value in result):
        return [f"output_{index}" for index in range(len(result))]
    raise TaskError(
        f"Task '{task}': the model returns {type(result).__name__}; return a tensor, a tuple of tensors or a dict of tensors."
    )


def _export(
    model: torch.nn.Module, arguments: tuple[torch.Tensor, ...], task: Task, *, axes: Sequence[Sequence[FlexibleAxis]] = ()
) -> ExportedProgram:
    hints: Any = trace_hints(axes) if any(axes) else None
    if hints and isinstance(model, _Plain):
        hints = (hints,)  # its arguments are one variadic parameter
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            given = traceable(arguments, axes) if hints else arguments
            return torch.export.export(model, given, dynamic_shapes=hints, strict=False)
    except Exception as reason:
        raise CaptureError(
            f"Task '{task.name}': torch.export cannot trace the model. {user_line(reason)}\n"
            "Shapes and branches may not depend on the values of tensors: use torch.where or torch.cond,"
            " or move that code out of the model."
        ) from reason


def user_line(reason: BaseException) -> str:
    """``Type: first line (file:line: code)`` for the innermost frame that is neither torch's nor edgekit's."""
    own = Path(__file__).parents[1]
    frames = [
        frame
        for frame in traceback.extract_tb(reason.__traceback__)
        if "site-packages" not in frame.filename and not Path(frame.filename).is_relative_to(own) and "<" not in frame.filename
    ]
    first = next((line for line in str(reason).splitlines() if line.strip()), "")
    where = f" ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""
    return f"{type(reason).__name__}: {first}{where}"


def _check_weights(model: torch.nn.Module, task: str) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            bad = int((~torch.isfinite(tensor)).sum())
            raise TaskError(
                f"Task '{task}': weight '{name}' holds {bad} values that are NaN or infinite. Load a healthy checkpoint."
            )


def _check_operators(program: ExportedProgram) -> None:
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        namespace = str(getattr(node.target, "namespace", None) or getattr(node.target, "__module__", ""))
        if namespace.split(".", maxsplit=1)[0] not in _KNOWN_NAMESPACES and "higher_order" not in namespace:
            stack = node.meta.get("nn_module_stack") or {}
            layer = list(stack.values())[-1][0] if stack else ""
            raise UnsupportedOpError(
                f"Operator '{node.target}' in layer '{layer or 'the model itself'}' has no lowering to onnx, tflite or coreml."
                " Replace it with operators of torch.nn.functional, or keep that layer out of the exported model."
            )


def _spec(name: str, array: Array) -> TensorSpec:
    dtype = str(array.dtype)
    if dtype not in {"bool", "int32", "int64", "float32"}:
        raise DataError(
            f"'{name}' is {dtype}; the targets take float32, int32, int64 and bool. Convert it, e.g. with .astype('float32')."
        )
    return TensorSpec(name=name, shape=tuple(array.shape), dtype=cast("DType", dtype))


def _captured(program: ExportedProgram, seconds: float, cpu_seconds: float) -> StepRecord:
    parameters = sum(tensor.numel() for tensor in program.state_dict.values() if tensor.is_floating_point())
    operators = sum(node.op == "call_function" for node in program.graph.nodes)
    return StepRecord(
        kind="capture",
        summary=f"traced {operators} operators, {parameters:,} parameters",
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        details={"operator_count": operators, "parameter_count": parameters},
    )
