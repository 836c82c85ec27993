"""Two roads from a net to a running file: edgekit's own, and the vendor's converter called directly on the float net.

=========  ===============================================================================================
target     the vendor's call
=========  ===============================================================================================
onnx       ``torch.onnx.export(net, args, dynamo=True)``, run by ONNX Runtime
tflite     ``litert_torch.convert(net, args)``, run by the model that it returns
coreml     ``coremltools.convert(torch.export.export(net, args).run_decompositions({}))``, run by edgekit's executor
=========  ===============================================================================================

coremltools computes in float32 here, as edgekit does by default, so that rounding to float16 is not mistaken for an error.
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zoo.architecture import Architecture
from zoo.judge import compare
from zoo.programs import load_answers

__all__ = ["RUNTIMES", "TARGETS", "import_framework", "ours", "theirs"]

TARGETS = ("onnx", "tflite", "coreml")
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}
_FRAMEWORKS = {
    "onnx": ("torch.onnx", "onnxscript", "onnx", "onnxruntime", "onnxruntime.tools.convert_onnx_models_to_ort"),
    "tflite": ("litert_torch", "ai_edge_litert.interpreter"),
    "coreml": ("coremltools",),
}

Answers = dict[str, np.ndarray]


class DoesNotRunError(RuntimeError):
    """A file was made, but its runtime refuses it."""


def import_framework(target: str, *, with_transformers: bool) -> None:
    """Import what the cells of a target need, in the parent, so that it is paid for once."""
    import torch

    torch.set_num_threads(1)
    small = np.zeros((1, 2), np.float32)
    importlib.import_module("edgekit.conversion")
    importlib.import_module("edgekit.converters.preparation")
    importlib.import_module("torch.ao.quantization.fx._decomposed")
    if with_transformers:
        importlib.import_module("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if target == "coreml":
            from edgekit.converters.coreml import quiet_coremltools

            with quiet_coremltools():
                importlib.import_module("edgekit.runtimes.coreml.executor")
                _coreml(torch.nn.Linear(2, 2).eval(), small, {"input": small[None]}, Path(tempfile.mkdtemp()))
            return
        for name in _FRAMEWORKS[target]:
            importlib.import_module(name)
        _VENDORS[target](torch.nn.Linear(2, 2).eval(), small, {"input": small[None]}, Path(tempfile.mkdtemp()))


def ours(place: Path, *, target: str, precision: str, scratch: Path) -> dict[str, Any]:
    """Convert the stored program as ``edgekit export`` does in its worker, load the file again and compare."""
    from edgekit import registry
    from edgekit.conversion import convert_in_worker
    from edgekit.core.artifact import Artifact

    convert_in_worker(target=target, compressed=str(place / precision), output=str(scratch), as_float=False, options={})
    artifact = Artifact.load(scratch)
    session = registry.runtime(RUNTIMES[target]).load(artifact.path)
    inputs, expected = load_answers(place, precision)
    dtypes = {spec.name: spec.dtype for spec in session.inputs}
    rows = [
        session.run({name: array[at].astype(dtypes[name], copy=False) for name, array in inputs.items()})
        for at in range(len(next(iter(inputs.values()))))
    ]
    found = {name: np.stack([row[name] for row in rows]) for name in expected}
    rewrites = {record.name: record.count for record in artifact.rewrites}
    return {**compare(found, expected, is_float=precision == "float"), "size_bytes": artifact.size_bytes, "rewrites": rewrites}


def theirs(architecture: Architecture, place: Path, *, target: str, scratch: Path) -> dict[str, Any]:
    """Call the vendor's converter on the float net, run what it makes and compare."""
    inputs, expected = load_answers(place, "float")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = _VENDORS[target](architecture.build(), architecture.inputs(0), inputs, scratch)
    found = {}
    for at, (name, right) in enumerate(expected.items()):
        values = [row[name] if isinstance(row, Mapping) and name in row else list(_values(row))[at] for row in rows]
        stacked = np.stack([np.asarray(value) for value in values])
        found[name] = stacked.reshape(right.shape) if stacked.size == right.size == len(values) else stacked  # () or (1,)
    return compare(found, expected, is_float=True)


def _values(row: Any) -> Any:
    if isinstance(row, Mapping):
        return row.values()
    return row if isinstance(row, tuple | list) else [row]


def _tensors(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments."""
    import torch

    if isinstance(example, Mapping):
        return (), {name: torch.from_numpy(array) for name, array in example.items()}
    return tuple(torch.from_numpy(array) for array in (example if isinstance(example, tuple) else (example,))), {}


def _samples(inputs: Answers) -> list[list[np.ndarray]]:
    count = len(next(iter(inputs.values())))
    return [[array[at] for array in inputs.values()] for at in range(count)]


def _narrow(array: np.ndarray) -> np.ndarray:
    """litert_torch makes int32 inputs of int64 ones."""
    return array.astype(np.int32) if array.dtype == np.int64 else array


def _onnx(model: Any, example: Any, inputs: Answers, scratch: Path) -> list[Any]:
    import onnxruntime
    import torch

    args, kwargs = _tensors(example)
    path = scratch / "vendor.onnx"
    made = torch.onnx.export(model, args, kwargs=kwargs, dynamo=True, external_data=False, verbose=False)
    made.save(path)
    try:
        session = onnxruntime.InferenceSession(path)
        names = [given.name for given in session.get_inputs()]
        return [session.run(None, dict(zip(names, sample, strict=True))) for sample in _samples(inputs)]
    except Exception as reason:
        raise DoesNotRunError(f"{type(reason).__name__}: {reason}") from reason


def _tflite(model: Any, example: Any, inputs: Answers, scratch: Path) -> list[Any]:  # noqa: ARG001
    import litert_torch

    args, kwargs = _tensors(example)
    made = litert_torch.convert(model, args or None, sample_kwargs=kwargs or None)
    samples = [[_narrow(array) for array in sample] for sample in _samples(inputs)]
    try:
        if kwargs:
            return [made(**dict(zip(inputs, sample, strict=True))) for sample in samples]
        return [made(*sample) for sample in samples]
    except Exception as reason:
        raise DoesNotRunError(f"{type(reason).__name__}: {reason}") from reason


def _coreml(model: Any, example: Any, inputs: Answers, scratch: Path) -> list[Any]:
    import coremltools
    import torch

    from edgekit import registry

    args, kwargs = _tensors(example)
    program = torch.export.export(model, args, kwargs=kwargs)
    made = coremltools.convert(
        program.run_decompositions({}),
        minimum_deployment_target=coremltools.target.iOS17,
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    path = scratch / "vendor.mlpackage"
    made.save(str(path))
    session = registry.runtime("coreml-reference").load(path)
    order = [spec.name for spec in made.get_spec().description.output]
    rows = []
    for sample in _samples(inputs):
        fed = {spec.name: array.astype(spec.dtype) for spec, array in zip(session.inputs, sample, strict=True)}
        answers = session.run(fed)
        rows.append([answers[name] for name in order])
    return rows


_VENDORS = {"onnx": _onnx, "tflite": _tflite, "coreml": _coreml}
