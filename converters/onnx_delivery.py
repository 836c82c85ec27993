"""How an ONNX model is delivered: weights in a file of their own, and what phones' execution providers make of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.converters.onnx_ort import root_logger_kept
from edgekit.core.errors import ConversionError
from edgekit.core.files import write_bytes

if TYPE_CHECKING:
    import onnx

__all__ = ["mobile_notes", "move_weights_out", "write_metadata"]

_SMALLEST_BYTES = 1024
"""Smaller tensors stay in the model: shapes and scales are read when the graph is optimised."""
_PROVIDERS = {
    "NNAPI": "nnapi_supported_ops.md",
    "Core ML": "coreml_supported_mlprogram_ops.md",
}
_ADVICE = {"YES": "worth using", "MAYBE": "worth trying", "NO": "not worth using"}
_SHOWN = 4


def write_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Put the export's own entries into the model; ``description`` becomes its doc string."""
    known = {entry.key for entry in model.metadata_props}
    for name, value in metadata.items():
        if name == "description":
            model.doc_string = value
        elif name in known:
            raise ConversionError(f"Metadata '{name}' is written by edgekit itself. Choose another name.")
        else:
            model.metadata_props.add(key=name, value=value)


def move_weights_out(path: Path) -> Path:
    """Write the weights of a model into ``model.onnx.data`` beside it, and the model anew; the path of the data.

    Raises:
        ConversionError: ONNX refused the result.
    """
    import onnx

    model = onnx.load(path)
    place = path.with_name(f"{path.name}.data")
    data = bytearray()
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < _SMALLEST_BYTES:
            continue
        data += bytes(-len(data) % 64)  # aligned, so that the file can be mapped into memory
        raw = tensor.raw_data
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", place.name), ("offset", str(len(data))), ("length", str(len(raw)))):
            tensor.external_data.add(key=key, value=value)
        data += raw
        tensor.ClearField("raw_data")
    write_bytes(place, bytes(data))
    write_bytes(path, model.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as reason:
        raise ConversionError(f"ONNX refuses {path.name} with its weights in {place.name}: {reason}") from reason
    return place


def mobile_notes(path: Path) -> tuple[str, ...]:
    """How much of the model NNAPI and Core ML would take as execution providers of ONNX Runtime, in how many pieces.

    By ONNX Runtime's own usability checker (``onnxruntime.tools.mobile_helpers``): an estimate from its lists of operators.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    return tuple(_note(model, title, table) for title, table in _PROVIDERS.items())


def _note(model: onnx.ModelProto, title: str, table: str) -> str:
    with root_logger_kept():  # the tool calls logging.basicConfig when it is imported
        from onnxruntime.tools.mobile_helpers import usability_checker

        try:
            if title == "NNAPI":
                found: Any = usability_checker.check_nnapi_partitions(model, True)
            else:
                found = usability_checker.check_coreml_partitions(model, True, table)
        except ValueError as reason:  # it gives up where ONNX infers no shape, of the second output of a reduction, say
            return f"{title} execution provider of ONNX Runtime: its usability checker does not tell ({reason})."
    missing = sorted(name.removeprefix("ai.onnx:") for name in found.unsupported_ops)
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    left = f"; it has no {', '.join(missing[:_SHOWN])}{more}" if missing else ""
    return (
        f"{title} execution provider of ONNX Runtime (estimate of its usability checker): {found.num_supported_nodes} of"
        f" {found.num_nodes} nodes in {found.num_partitions} partition(s), {_ADVICE[found.suitability().name]}{left}."
    )
