"""Program -> ONNX file with Q/DQ nodes, and ONNX Runtime's own ``.ort`` format beside it.

::

    ExportedProgram ──torch.onnx──> graph ──onnx_rewrite──> patterns ONNX Runtime fuses
        ──onnx_integers──> int32 biases, uint8 activations ──onnx_edges──> model.onnx ──onnx_ort──> model.ort
                                                                               └──onnx_report──> what was honoured

The integers stay those of the contract; activations become uint8 with a shifted zero point unless asked otherwise.
"""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.contract import ContractReport
from edgekit.core.errors import ContractError, ConversionError, UnsupportedOpError
from edgekit.core.files import sha256, write_bytes
from edgekit.core.run import tool_versions

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edgekit.converters.onnx_edges import Edges
    from edgekit.converters.weights import SmallWeight
    from edgekit.core.compressed import Compressed

__all__ = ["CONVERTER", "OnnxConverter"]

_OPSET = 20  # the newest that torch's operator library is written for; ONNX Runtime runs it since 1.17
_FLOAT_LEFTOVERS = {"DequantizeLinear", "QuantizeLinear"}
_INTEGER_KERNELS = re.compile(r"QLinear|QGemm|MatMulInteger|ConvInteger|DynamicQuantize")
_MOVES_ANYTHING = {
    "Clip", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "NhwcMaxPool", "Pad", "ReduceMax",
    "ReduceMin", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip


class OnnxConverter:
    """Program -> ``model.onnx``, ``model.ort`` and its operator config."""

    name = "onnx"
    extra = "onnx"
    modules = ("onnx", "onnxscript", "onnx_ir", "onnxruntime")
    hides = (
        "tensorflow",
        "keras",
        "coremltools",
        "litert_torch",
        "ai_edge_litert",
        "ai_edge_quantizer",
        "jax",
        "transformers",
        "torchvision",
    )

    def convert(self, compressed: Compressed, *, output: Path, options: ExportOptions) -> Artifact:
        """Write the files into ``output`` and say what became of every contract entry.

        Raises:
            UnsupportedOpError: Names the operator, its layer and what to do.
            ConversionError: torch, ONNX or ONNX Runtime refused the program.
        """
        from edgekit.converters import onnx_delivery, onnx_edges, onnx_ort
        from edgekit.converters.weights import plain_weights

        onnx_edges.check_names(compressed.record)
        plain, weights = plain_weights(compressed)
        model = _export(plain, options.opset or _OPSET)
        edges = _shape(model.graph, compressed, options, weights)
        _settle_opset(model, asked=options.opset)
        data = _serialize(model, compressed, edges, options)
        path = output / "model.onnx"
        write_bytes(path, data)
        companions = onnx_ort.write_ort(path) if options.ort else {}
        report = _report(path, compressed, edges)
        notes = (*edges.notes, *_kernel_notes(path, compressed), *onnx_delivery.mobile_notes(path))
        if options.external_data:
            companions["data"] = onnx_delivery.move_weights_out(path)
        return Artifact(
            target=self.name,
            path=path,
            sha256=sha256(path),
            size_bytes=path.stat().st_size + (companions["data"].stat().st_size if options.external_data else 0),
            precision=compressed.precision,
            inputs=edges.inputs,
            outputs=edges.outputs,
            labels=compressed.record.labels,
            preprocessing=compressed.record.preprocessing,
            contract_report=report,
            companions=companions,
            versions=tool_versions(),
            options=options,
            notes=(*notes, onnx_ort.NOTE) if options.ort else notes,
        )


CONVERTER = OnnxConverter()


def _export(compressed: Compressed, opset: int) -> ir.Model:
    """The program as an ONNX graph with its own value names, in an operator set.

    Raises:
        UnsupportedOpError: An operator has no ONNX form.
        ConversionError: torch's exporter failed otherwise.
    """
    import torch

    from edgekit.converters.onnx_exact import compare_constants_exactly

    compare_constants_exactly()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own pytree API here
            exported: Any = torch.onnx.export(
                compressed.program, dynamo=True, external_data=False, verbose=False, opset_version=opset
            )
    except Exception as reason:
        raise _explain(reason, compressed.program, opset) from reason
    model = cast("ir.Model", exported.model)
    if model.opset_imports[""] != opset:  # torch writes 18 and later; what cannot be brought to an older one is left as it was
        raise ConversionError(
            f"'{compressed.name}' cannot be written in ONNX opset {opset}: an operator of it has no form there, so that the model"
            f" stayed in opset {model.opset_imports['']}. Export with --opset {model.opset_imports['']} or later."
        )
    return model


def _explain(reason: BaseException, program: ExportedProgram, opset: int) -> ConversionError:
    """What the exporter's chain of exceptions says, in one sentence that names operator and layer."""
    chain: list[BaseException] = []
    link: BaseException | None = reason
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    text = "\n".join(str(part) for part in chain)
    named = re.search(r"translating node %?(\w+)", text)
    missing = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", text)
    node = next((node for node in program.graph.nodes if named and node.name == named.group(1)), None)
    if node is None and missing is not None:  # it may come from the decomposition of an operator with a longer name
        last_part = missing.group(1).rpartition(".")[2]
        node = next((node for node in program.graph.nodes if last_part in str(node.target)), None)
    where = f" in layer '{_layer(node)}'" if node is not None and _layer(node) else ""
    if missing is not None:
        return UnsupportedOpError(
            f"Operator '{missing.group(1)}'{where} has no ONNX form in opset {opset}."
            " Write it with other operators of torch.nn.functional, or move it out of the model,"
            " before its first or after its last layer."
        )
    last = next((line for part in reversed(chain) for line in str(part).splitlines() if line.strip()), type(chain[-1]).__name__)
    operator = f" at operator '{node.target}'{where}" if node is not None else ""
    return ConversionError(f"torch.onnx could not export the program{operator}: {type(chain[-1]).__name__}: {last}")


def _layer(node: Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix("model.") if stack and str(stack[0][1]).endswith("_Plain") else path


def _shape(graph: ir.Graph, compressed: Compressed, options: ExportOptions, weights: Sequence[SmallWeight]) -> Edges:
    """Rewrite the graph for integer kernels, store its weights small, then name and type its edges."""
    from edgekit.converters import onnx_edges, onnx_integers, onnx_rewrite, onnx_weights
    from edgekit.converters.onnx_report import parameter_names
    from edgekit.converters.weights import is_weight_only

    quantized = bool(compressed.contract.activations)
    if quantized:
        names = parameter_names(compressed.program)
        biases = {names.get(entry.node, entry.node): entry for entry in compressed.contract.parameters if entry.role == "bias"}
        onnx_rewrite.fuse_for_integers(graph)
        onnx_integers.integer_biases(graph, biases)
        onnx_integers.own_zero_points(graph)
        onnx_integers.drop_idle_axes(graph)
        if options.activation_type == "uint8":
            onnx_integers.retype_activations(graph)
        own = {entry.node for entry in compressed.contract.parameters if entry.dtype == "int4" and not is_weight_only(entry)}
        onnx_weights.pack_weights(graph, [names.get(node, node) for node in sorted(own)])
    onnx_weights.store_weights(graph, weights)
    moved = onnx_edges.name_edges(graph, compressed.record)
    if quantized and options.integer_io:
        edges = onnx_edges.make_edges_integer(graph, compressed.record)
    else:
        edges = onnx_edges.describe(graph, compressed.record)
    onnx_edges.name_nodes(graph)
    renamed = edges.renamed | {old: edges.renamed.get(new, new) for old, new in moved.items()}
    return dataclasses.replace(edges, renamed=renamed)


def _settle_opset(model: ir.Model, *, asked: int | None) -> None:
    """Raise the opset where int4, int16 or blocks need it.

    Everything torch writes means the same there: only GroupNormalization changed in between, and torch does not write it.
    """
    from edgekit.converters.onnx_weights import OPSET_OF_SMALL_TYPES, needs_small_types

    if not needs_small_types(model.graph):
        return
    if asked is not None and asked < OPSET_OF_SMALL_TYPES:
        raise ContractError(
            f"Types of 4 and 16 bits, and one scale for a block of weights, need ONNX opset {OPSET_OF_SMALL_TYPES}, but {asked}"
            f" was asked for. Export with --opset {OPSET_OF_SMALL_TYPES} or later, or compress with int8."
        )
    model.opset_imports[""] = max(model.opset_imports[""], OPSET_OF_SMALL_TYPES)


def _serialize(model: ir.Model, compressed: Compressed, edges: Edges, options: ExportOptions) -> bytes:
    """Sweep what is unused, write down where the model comes from, and let ONNX's own checker judge the bytes.

    Raises:
        ConversionError: The checker refused the model.
    """
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from edgekit.converters.onnx_delivery import write_metadata
    from edgekit.converters.preprocessing import onnx_metadata

    RemoveUnusedNodesPass()(model)
    record = compressed.record
    versions = tool_versions()
    model.graph.name = record.name
    model.producer_name, model.producer_version = "edgekit", versions.get("edgekit", "")
    model.metadata_props.clear()
    model.metadata_props.update(
        {
            "edgekit.inputs": json.dumps([spec.model_dump(mode="json") for spec in edges.inputs]),
            "edgekit.outputs": json.dumps([spec.model_dump(mode="json") for spec in edges.outputs]),
            "edgekit.recipe": str(record.recipe.get("name", "")),
            "labels": json.dumps(list(record.labels)),
            "preprocessing": json.dumps(record.preprocessing, default=str),
            **onnx_metadata.image_properties(record.preprocessing),
        }
    )
    proto = ir.to_proto(model)
    onnx_metadata.denote_images(proto, record.preprocessing)
    write_metadata(proto, options.metadata)
    _thin_out(proto, quantized=bool(compressed.contract.activations))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as reason:
        raise ConversionError(f"The exported graph of '{record.name}' is not valid ONNX: {reason}") from reason
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _thin_out(proto: onnx.ModelProto, *, quantized: bool) -> None:
    """Drop what nobody reads: the exporter's own notes (kilobytes), and recorded shapes that readers find elsewhere.

    Those are the shapes of constants, and in a quantized file of all but its integer tensors.
    """
    import onnx

    constants = {tensor.name for tensor in proto.graph.initializer}
    integers = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT16}
    kept = [
        value
        for value in proto.graph.value_info
        if value.name not in constants and (not quantized or value.type.tensor_type.elem_type in integers)
    ]
    for value in kept:
        del value.metadata_props[:]
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept)


def _report(path: Path, compressed: Compressed, edges: Edges) -> ContractReport:
    from edgekit.converters.onnx_report import read_contract

    return read_contract(path.read_bytes(), compressed.contract, compressed.program, renamed=edges.renamed)


def _kernel_notes(path: Path, compressed: Compressed) -> tuple[str, ...]:
    """Which operators ONNX Runtime runs as integers and which it runs in float, as its optimiser decided here."""
    from edgekit.converters.onnx_ort import chosen_kernels

    if not compressed.contract.entries:
        return ()
    chosen = chosen_kernels(path)
    integer = {name: count for name, count in chosen.items() if _INTEGER_KERNELS.search(name)}
    floats = {
        name: n
        for name, n in chosen.items()
        if name not in integer and name not in _FLOAT_LEFTOVERS and name not in _MOVES_ANYTHING
    }
    notes = [f"Integer kernels of ONNX Runtime: {_list(integer)}."]
    if floats:
        notes.append(f"ONNX Runtime takes float kernels for: {_list(floats)}.")
    return tuple(notes)


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} × {count}" for name, count in sorted(counts.items())) or "none"
