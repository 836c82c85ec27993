"""TensorFlow Lite: ``.tflite`` files that are integer inside, through litert_torch.

::

    program ─ unfold, pin, lift ─> litert_torch ─> flatbuffer ─ edges, names, scales ─> model.tflite
                                                                       read back: contract report, golden check
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.converters.compiler_settings import compiler_settings
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.errors import ConversionError, UnsupportedOpError
from edgekit.core.files import sha256, write_bytes
from edgekit.core.preprocessing import for_file, read_preprocessing
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from edgekit.converters.tflite_flatbuffer import Graph
    from edgekit.converters.tflite_recognise import Recognised
    from edgekit.converters.tflite_values import Evidence
    from edgekit.converters.weights import SmallWeight
    from edgekit.core.compressed import Compressed
    from edgekit.core.tensors import Array

__all__ = ["CHANNELS_FIRST_METADATA", "CONVERTER", "TFLiteConverter"]

CHANNELS_FIRST_METADATA = "edgekit.channels_first"
"""Metadata of a file: names, one a line, of tensors that keep the program's axis order although ``[N, H, W, C]`` fits too."""

_MISSING_LOWERING = re.compile(r"Lowering not found: ([\w.:]+)")
_ILLEGAL_OPERATION = re.compile(r"'((?:stablehlo|chlo|mhlo|tfl|tf)\.\w+)'")
_SETTINGS = {
    "LITERT_TORCH_SHOW_PROGRESS": "n",
    # Stay in TFLite's axis order once there. The default (minimum cut) counts transposes whatever their size, and turns a whole
    # feature map to save two transposes of one pixel (squeeze and excitation).
    "LAYOUT_OPTIMIZE_PARTITIONER": "GREEDY",
}


class TFLiteConverter:
    """Program -> ``model.tflite``."""

    name = "tflite"
    extra = "tflite"
    modules = ("litert_torch", "ai_edge_litert")
    hides = ("tensorflow", "keras", "coremltools", "onnx", "onnxruntime", "onnxscript", "matplotlib", "pandas", "sklearn")

    def convert(self, compressed: Compressed, *, output: Path, options: ExportOptions) -> Artifact:
        """Write ``model.tflite`` into ``output``, read it back, and check it on the golden inputs.

        Raises:
            UnsupportedOpError: Names the operator, its layer and what to do.
            ConversionError: LiteRT refused the program, or converted it wrongly.
        """
        from edgekit.converters.half import half_notes
        from edgekit.converters.tflite_check import check_outputs
        from edgekit.converters.tflite_flatbuffer import Graph
        from edgekit.converters.tflite_report import notes, report
        from edgekit.converters.tflite_values import program_integers
        from edgekit.converters.weights import plain_weights

        plain, weights = plain_weights(compressed)
        expected = program_integers(compressed) if compressed.contract.entries else {}
        path = output / "model.tflite"
        write_bytes(path, _finish(_lower(plain), compressed, options, expected, weights))
        data = path.read_bytes()
        graph = Graph(data)
        found, evidence = _recognise(graph, data, compressed, expected, options)
        outcomes = report(graph, compressed.contract, found)
        check_outputs(data, compressed, evidence=evidence, tensors=found.tensors, options=options)
        inputs, outputs = graph.signature()
        specs = _specs(graph, inputs, compressed.record.inputs, options)
        return Artifact(
            target=self.name,
            path=path,
            sha256=sha256(path),
            size_bytes=len(data),
            precision=compressed.precision,
            inputs=specs,
            outputs=_specs(graph, outputs, compressed.record.outputs, options),
            labels=compressed.record.labels,
            preprocessing=for_file(compressed.record.preprocessing, specs),
            contract_report=outcomes,
            versions={name: metadata.version(name) for name in ("litert-torch", "litert-converter", "ai-edge-litert")},
            options=options,
            notes=(*notes(graph, compressed.contract, outcomes), *half_notes(compressed)),
        )


def _lower(compressed: Compressed) -> bytes:
    """The file as litert_torch makes it.

    Raises:
        UnsupportedOpError: Names the operator, its layer and what to do.
        ConversionError: LiteRT refused the program.
    """
    import torch

    from edgekit.converters.tflite_program import lowerable

    module = lowerable(compressed.program)
    arguments = tuple(torch.from_numpy(compressed.golden.inputs[spec.name][0]) for spec in compressed.record.inputs)
    has_int64 = any(spec.dtype == "int64" for spec in (*compressed.record.inputs, *compressed.record.outputs))
    try:
        with compiler_settings(_SETTINGS):
            import litert_torch
            from litert_torch.quantize.quant_config import QuantConfig

            # All that QuantConfig reads of a quantizer. It switches the compiler from float to static integers.
            static: Any = types.SimpleNamespace(global_config=types.SimpleNamespace(is_dynamic=False))
            config = QuantConfig(pt2e_quantizer=static) if compressed.contract.activations else None
            model = litert_torch.convert(module, arguments, quant_config=config, enable_x64=has_int64)
            return bytes(model.model_content())
    except Exception as reason:  # the compiler raises RuntimeError, AssertionError, ValueError, its own MLIRError, ...
        raise _explain(reason, compressed.program, compressed.name) from reason


def _finish(
    data: bytes,
    compressed: Compressed,
    options: ExportOptions,
    expected: Mapping[str, Array],
    weights: Sequence[SmallWeight],
) -> bytes:
    """Edges, integer kernels the compiler left out, small weights, the contract's exact scales, readable names."""
    from edgekit.converters.preprocessing.tflite_metadata import with_files
    from edgekit.converters.tflite_edges import name_tensors, set_edges
    from edgekit.converters.tflite_flatbuffer import Graph
    from edgekit.converters.tflite_integers import quantize_transposed_convolutions, remove_fences, widen_biases
    from edgekit.converters.tflite_layout import remove_idle_transposes
    from edgekit.converters.tflite_recognise import parameter_integers
    from edgekit.converters.tflite_softmax import softmax_on_its_grid
    from edgekit.converters.tflite_weights import pack_weights, store_weights
    from edgekit.converters.weights import is_weight_only

    graph = Graph(data)
    remove_fences(graph)
    remove_idle_transposes(graph)
    integers = parameter_integers(compressed.contract, compressed.program)
    quantize_transposed_convolutions(graph, compressed.contract, integers)
    softmax_on_its_grid(graph)
    widen_biases(graph, compressed.contract, integers)
    store_weights(graph, weights)
    set_edges(graph, compressed.record.inputs, compressed.record.outputs, options=options)
    remove_idle_transposes(graph)
    graph.remove_dead()
    found, _ = _recognise(graph, graph.to_bytes(), compressed, expected, options)
    for entry in compressed.contract.parameters:
        if entry.name in found.tensors and entry.scale:
            graph.set_scales(found.tensors[entry.name], entry.scale)
    small = [entry for entry in compressed.contract.parameters if entry.dtype == "int4" and not is_weight_only(entry)]
    pack_weights(graph, small, found.tensors)
    name_tensors(graph, found.tensors)
    graph.drop_buffers()
    graph.model.description = f"edgekit {metadata.version('edgekit')}"
    for name, value in options.metadata.items():
        if name == "description":
            graph.model.description = value
        else:
            graph.add_metadata(name, value.encode())
    files = _describe(graph, compressed, options)
    if found.channels_first:
        graph.add_metadata(CHANNELS_FIRST_METADATA, "\n".join(graph.name(index) for index in found.channels_first).encode())
    return with_files(graph.to_bytes(), files)


def _describe(graph: Graph, compressed: Compressed, options: ExportOptions) -> dict[str, str]:
    """Add labels and preprocessing as the standard tools read them and as edgekit does; returns the files to pack behind."""
    from edgekit.converters.preprocessing.tflite_metadata import ENTRY, LABELS_FILE, write_metadata

    record = compressed.record
    inputs, outputs = (
        _specs(graph, side, specs, options)
        for side, specs in zip(graph.signature(), (record.inputs, record.outputs), strict=True)
    )
    described = for_file(record.preprocessing, inputs)
    for name, value in (("labels", record.labels), ("preprocessing", described)):
        if value:
            graph.add_metadata(f"edgekit.{name}", json.dumps(value).encode())
    records = read_preprocessing(described)
    is_lines = bool(record.labels) and not any("\n" in label for label in record.labels)
    labelled = [spec for spec in outputs if is_lines and spec.shape[-1:] == (len(record.labels),)]
    if not records and not labelled:
        return {}
    count = len(record.labels) if labelled else 0
    content = write_metadata(record.name, inputs=inputs, outputs=outputs, records=records, label_count=count)
    graph.add_metadata(ENTRY, content)
    return {LABELS_FILE: "\n".join(record.labels)} if labelled else {}


def _recognise(
    graph: Graph, data: bytes, compressed: Compressed, expected: Mapping[str, Array], options: ExportOptions
) -> tuple[Recognised, Evidence | None]:
    """Tensors of the contract's entries in ``graph``, which ``data`` holds."""
    from edgekit.converters.tflite_recognise import recognise
    from edgekit.converters.tflite_values import Evidence

    evidence = Evidence.collect(data, compressed, expected, options=options) if expected else None
    return recognise(graph, compressed.contract, compressed.program, evidence=evidence), evidence


def _specs(
    graph: Graph, edges: Sequence[tuple[str, int]], program: Sequence[TensorSpec], options: ExportOptions
) -> tuple[TensorSpec, ...]:
    """Inputs or outputs as the file has them."""
    from edgekit.converters.tflite_edges import is_turned

    found = []
    for (name, index), spec in zip(edges, program, strict=True):
        grid = graph.scales(index)
        numbers = {"scale": float(grid[0][0]), "zero_point": int(grid[1][0])} if grid else {}
        fields = {"name": name, "shape": graph.shape(index), "dtype": graph.dtype(index), **numbers}
        found.append(TensorSpec.parse({**fields, "is_channels_last": is_turned(spec, options)}, source="TFLite edge"))
    return tuple(found)


def _explain(reason: Exception, program: ExportedProgram, name: str) -> ConversionError:
    text = str(reason)
    found = _MISSING_LOWERING.search(text) or _ILLEGAL_OPERATION.search(text)
    if found:
        operator = found.group(1)
        return UnsupportedOpError(
            f"Target tflite cannot take operator '{operator}'{_layer_with(program, operator)}. Replace it in the model by"
            " operators TFLite has, or leave out the target tflite."
        )
    first = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
    return ConversionError(
        f"LiteRT could not convert '{name}': {type(reason).__name__}: {first} Simplify that part of the model, or leave out the"
        " target tflite."
    )


def _layer_with(program: ExportedProgram, operator: str) -> str:
    """`` of layer 'x'`` for the first node of the program with this operator, whatever its rank or overload."""
    from edgekit.converters.tflite_nodes import layer_of, operator_name

    wanted = re.sub(r"[123]d$", "", operator.split(".")[1] if "." in operator else operator)
    names = [(node, re.sub(r"[123]d$", "", operator_name(node))) for node in program.graph.nodes]
    exact = [node for node, name in names if name == wanted]
    alike = [node for node, name in names if name and (name.startswith(wanted[:4]) or wanted.startswith(name))]
    for node in (*exact, *alike):
        return f" of layer '{layer_of(node) or 'the model itself'}' ({operator_name(node)})"
    return ""


CONVERTER = TFLiteConverter()
