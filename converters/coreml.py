"""Program -> ``.mlpackage`` (ML program) through coremltools.

::

    ExportedProgram ──coreml_lowering──> operators coremltools has ──coremltools──> MIL ──> model.mlpackage
                                                                                 coreml_report <── bytes

Two of coremltools' passes are left out for quantized models: one moves the scale of an addition's operand into the
other operand and the sum, the other turns a reshape between two grids into a reshape of integers. Both would change
what the contract says.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.converters.coreml_shapes import widened
from edgekit.core.artifact import Artifact, ExportOptions, RewriteRecord
from edgekit.core.errors import ContractError, ConversionError
from edgekit.core.files import sha256, size_bytes, write_bytes, write_text
from edgekit.core.run import tool_versions
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

    from edgekit.converters.coreml_palettes import PaletteWriter
    from edgekit.converters.weights import SmallWeight
    from edgekit.core.compressed import Compressed
    from edgekit.core.tensors import Array

__all__ = ["CONVERTER", "CoreMLConverter", "quiet_coremltools"]

_INT8_IOS = 17
_SMALL_WEIGHTS_IOS = 16
_BLOCKS_IOS = 18
_INPUT_DTYPES = {"float32": "float32", "float16": "float16", "int32": "int32", "int64": "int32", "bool": "int32"}
"""Model input -> what a Core ML model can be given (FeatureTypes.proto knows neither int64 nor booleans)."""

_UNWANTED = ("tensorflow", "keras", "onnx", "onnxruntime", "sklearn", "xgboost", "transformers", "executorch", "torchvision")
"""Frameworks coremltools imports where it finds them, none of which is needed here: seconds, and hundreds of megabytes."""

_METADATA_FIELDS = {"author": "author", "license": "license", "version": "versionString", "description": "shortDescription"}
"""Entry -> its place of its own in a package (``Metadata`` of Model.proto); others are user-defined."""

_CHANGES_SCALES = "common::distributive_quantized_binary_op_scale_normalization"
_MERGES_RESHAPE = "common::int_op_canonicalization"
_MOVES = {
    "aten.reshape.default", "aten.view.default", "aten._unsafe_view.default", "aten.flatten.using_ints", "aten.squeeze.dim",
    "aten.squeeze.dims", "aten.squeeze.default", "aten.unsqueeze.default", "aten.permute.default", "aten.transpose.int",
    "aten.clone.default", "aten.contiguous.default", "aten.alias.default", "aten.dropout.default", "aten.expand.default",
}  # fmt: skip
_QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"
_DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor.default"


class CoreMLConverter:
    """Program -> ``model.mlpackage``."""

    name = "coreml"
    extra = "coreml"
    modules = ("coremltools",)
    hides = (*_UNWANTED, "litert_torch", "ai_edge_litert", "ai_edge_quantizer", "jax")

    def convert(self, compressed: Compressed, *, output: Path, options: ExportOptions) -> Artifact:
        """Write the package into ``output`` and say what became of every contract entry.

        Activations of 16 bits and inputs quantized at run time do not exist in Core ML: such layers get float kernels over
        their int8 weights, and the report says so.

        Raises:
            ContractError: The recipe needs a later iOS than was asked for.
            UnsupportedOpError: Names the operator, its layer and what to do.
            ConversionError: coremltools refused the program.
        """
        from edgekit.converters import coreml_features, coreml_palettes
        from edgekit.converters.coreml_report import read_contract
        from edgekit.converters.coreml_sparse import sparse_weights, store_sparse

        coreml_palettes.refuse_integers(compressed, options)
        ios = _lowest_ios(compressed, options)
        palettes = coreml_palettes.PaletteWriter(options.palette_bits, ios) if options.palette_bits else None
        images = coreml_features.image_inputs(compressed, options)
        inputs, outputs = _edges(compressed, images)
        with quiet_coremltools():
            model, rewrites, remarks = _convert(
                coreml_features.with_image_entries(compressed, images), inputs, outputs, options, ios, palettes
            )
            _check_names(model, inputs)
            sparse = sparse_weights(compressed.program) if palettes is None else ()
            model = store_sparse(model) if sparse else model
            path = _write(model, output / "model.mlpackage", compressed, options.metadata)
            stored = coreml_palettes.check_palettes(path, palettes) if palettes else ()
            stored += (f"Stored as mask and values: {', '.join(sparse)}.",) if sparse else ()
            report = read_contract(path, compressed.contract, biases=_biases(compressed), folded=_same_integers(compressed))
        return Artifact(
            target=self.name,
            path=path,
            sha256=sha256(path),
            size_bytes=size_bytes(path),
            precision=compressed.precision,
            inputs=inputs,
            outputs=outputs,
            labels=compressed.record.labels,
            preprocessing=compressed.record.preprocessing,
            contract_report=report,
            versions=tool_versions(),
            options=options,
            rewrites=rewrites,
            notes=(*_notes(compressed, options, ios), *remarks, *stored),
        )


def _lowest_ios(compressed: Compressed, options: ExportOptions) -> int:
    """The iOS to convert for: what was asked for, else the first that has everything the recipe needs, 17 at least.

    Raises:
        ContractError: What was asked for is too old.
    """
    from edgekit.converters.coreml_palettes import lowest_ios

    contract = compressed.contract
    weights = [entry for entry in contract.parameters if entry.role == "weight"]
    blocks = [entry for entry in weights if entry.block_size is not None]
    asked = options.minimum_ios_version
    if asked is None and options.palette_bits is not None:
        return max(_INT8_IOS, lowest_ios(options.palette_bits))
    if asked is None:
        return _BLOCKS_IOS if blocks or any(entry.dtype == "int4" for entry in weights) else _INT8_IOS
    if any(entry.dtype == "int8" for entry in contract.activations) and asked < _INT8_IOS:
        raise ContractError(
            f"int8 needs iOS {_INT8_IOS} or later, but minimum_ios_version is {asked}: Core ML had no"
            f" integer activations before. Export with minimum_ios_version={_INT8_IOS}, or recipe 'none' for older phones."
        )
    if blocks and asked < _BLOCKS_IOS:
        raise ContractError(
            f"Layer '{blocks[0].layer}' has one scale for {blocks[0].block_size} weights, which needs iOS {_BLOCKS_IOS}, but"
            f" minimum_ios_version is {asked}. Export with minimum_ios_version={_BLOCKS_IOS}, or compress with one scale a"
            " channel."
        )
    if weights and asked < _SMALL_WEIGHTS_IOS:
        raise ContractError(
            f"Small weights need iOS {_SMALL_WEIGHTS_IOS} or later, but minimum_ios_version is {asked}."
            f" Export with minimum_ios_version={_SMALL_WEIGHTS_IOS}, or recipe 'none' for older phones."
        )
    return asked


@contextlib.contextmanager
def quiet_coremltools() -> Iterator[None]:
    """Import coremltools without the frameworks it would drag in, and without its warnings about versions."""
    hidden = [name for name in _UNWANTED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is the documented way to make an import fail
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import coremltools  # noqa: F401

            yield
    finally:
        for name in hidden:
            if sys.modules.get(name, ...) is None:
                del sys.modules[name]


def _edges(compressed: Compressed, images: Sequence[str]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs as the package will have them.

    Raises:
        ConversionError: An input has a type Core ML models cannot be given.
    """
    inputs = []
    for spec in widened(compressed.record.inputs):
        if spec.name in images:
            inputs.append(spec)
            continue
        if spec.dtype not in _INPUT_DTYPES:
            known = ", ".join(sorted(set(_INPUT_DTYPES.values())))
            raise ConversionError(
                f"Input '{spec.name}' is {spec.dtype}; Core ML models can be given {known}. Take one of these and convert inside."
            )
        inputs.append(spec.replace(dtype=_INPUT_DTYPES[spec.dtype]))
    outputs = [spec.replace(dtype="int32" if spec.dtype.startswith("int") else "float32") for spec in compressed.record.outputs]
    return tuple(inputs), tuple(outputs)


def _convert(
    compressed: Compressed,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    options: ExportOptions,
    ios: int,
    palettes: PaletteWriter | None,
) -> tuple[Any, tuple[RewriteRecord, ...], tuple[str, ...]]:
    import coremltools
    import numpy as np

    from edgekit.converters import coreml_features
    from edgekit.converters.coreml_half import choose_precision
    from edgekit.converters.coreml_lowering import lower, naming_failures
    from edgekit.converters.weights import is_weight_only, plain_weights, without_types

    is_small = ios >= _BLOCKS_IOS  # int4 beside integer activations: a later pass stores it, for the frontend knows int8 only
    plain, weights = plain_weights(
        without_types(compressed, ["int16"]),
        wanted=lambda entry: is_weight_only(entry) or (is_small and entry.dtype == "int4"),
    )
    program, rewrites = lower(plain.program)
    precision, remarks = choose_precision(program, plain, options)
    with naming_failures(program):
        model = coremltools.convert(
            program,
            convert_to="mlprogram",
            inputs=coreml_features.input_types(inputs, coreml_features.image_inputs(compressed, options)),
            outputs=[coremltools.TensorType(name=s.name, dtype=np.dtype(s.dtype).type) for s in outputs],
            minimum_deployment_target=getattr(coremltools.target, f"iOS{ios}"),
            compute_precision=precision,
            pass_pipeline=_passes(program, weights, ios, palettes),
            skip_model_load=True,
            classifier_config=coreml_features.class_labels(compressed, options),
        )
    return model, rewrites, remarks


def _check_names(model: Any, inputs: Sequence[TensorSpec]) -> None:
    """Refuse an input that would be called otherwise in the package.

    Raises:
        ConversionError: Its name is a word of MIL's own, like ``state``.
    """
    found = [feature.name for feature in model.get_spec().description.input]
    renamed = [spec.name for spec in inputs if spec.name not in found]
    if renamed:
        raise ConversionError(
            f"Input '{renamed[0]}' cannot be called so in Core ML: the word belongs to its model language, and coremltools makes"
            f" another of it (the package has {', '.join(found)}). Rename the input, e.g. to '{renamed[0]}_in'."
        )


def _passes(program: ExportedProgram, weights: Sequence[SmallWeight], ios: int, palettes: PaletteWriter | None) -> Any:
    import coremltools
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    from edgekit.converters import coreml_palettes, coreml_weights

    pipeline: Any = coremltools.PassPipeline.DEFAULT
    unwanted = {_CHANGES_SCALES}
    if any(_is_quantize(node) and _source_grid(node) not in {None, _grid(node)} for node in program.graph_module.graph.nodes):
        unwanted.add(_MERGES_RESHAPE)
    pipeline.remove_passes(unwanted)
    if weights:
        registered: Any = PASS_REGISTRY.passes
        registered[coreml_weights.PASS] = coreml_weights.storing(weights, ios=ios)
        pipeline.append_pass(coreml_weights.PASS)
    if palettes is not None:
        PASS_REGISTRY.passes[coreml_palettes.PASS] = palettes.graph_pass()
        pipeline.append_pass(coreml_palettes.PASS)
    return pipeline


def _is_quantize(node: Node) -> bool:
    return str(node.target) == _QUANTIZE


def _grid(node: Node) -> tuple[Any, ...]:
    """Scale and zero point of a quantize or dequantize node."""
    return tuple(node.args[1:3])


def _source(node: Node) -> Node | None:
    """The dequantize node whose values reach a quantize node only moved about; None if something is computed between."""
    found: Any = node.args[0]
    while str(found.target) in _MOVES:
        found = found.args[0]
    return found if str(found.target) == _DEQUANTIZE else None


def _source_grid(node: Node) -> tuple[Any, ...] | None:
    source = _source(node)
    return None if source is None else _grid(source)


def _same_integers(compressed: Compressed) -> dict[str, str]:
    """Entries whose integers are those of another entry, by name: the program only moves them."""
    by_node = {entry.node: entry.name for entry in compressed.contract.activations}
    same = {}
    for node in compressed.program.graph_module.graph.nodes:
        if _is_quantize(node) and node.name in by_node and _source_grid(node) == _grid(node):
            source: Any = _source(node)
            same[by_node[node.name]] = by_node.get(source.args[0].name, "")
    return {name: source for name, source in same.items() if source}


def _biases(compressed: Compressed) -> dict[str, Array]:
    """The program's float biases, by contract entry."""
    signature, state = compressed.program.graph_signature, compressed.program.state_dict
    names = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    entries = [entry for entry in compressed.contract.parameters if entry.role == "bias" and entry.node in names]
    return {entry.name: state[names[entry.node]].detach().cpu().numpy().reshape(-1) for entry in entries}


def _write(model: Any, path: Path, compressed: Compressed, own: Mapping[str, str]) -> Path:
    """Write the package: the same model gives the same bytes (coremltools' own writer adds random names and the date)."""
    spec = model.get_spec()
    metadata = spec.description.metadata
    metadata.shortDescription = f"{compressed.name}, {compressed.precision}, exported by edgekit"
    metadata.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
    if compressed.record.labels:
        metadata.userDefined["edgekit.labels"] = json.dumps(list(compressed.record.labels))
    if compressed.record.preprocessing:
        metadata.userDefined["edgekit.preprocessing"] = json.dumps(compressed.record.preprocessing, sort_keys=True)
    for name, value in own.items():
        if name in _METADATA_FIELDS:
            setattr(metadata, _METADATA_FIELDS[name], value)
        else:
            metadata.userDefined[name] = value
    content = path / "Data" / "com.apple.CoreML"
    write_bytes(content / "model.mlmodel", spec.SerializeToString(deterministic=True))
    weights = Path(model.weights_dir)
    shutil.copytree(weights, content / "weights")
    write_text(path / "Manifest.json", json.dumps(_manifest(sha256(content)), indent=4) + "\n")
    return path


def _manifest(digest: str) -> dict[str, Any]:
    """``Manifest.json``: the package's two items under identifiers made from its contents."""
    model, weights = (str(uuid.uuid5(uuid.NAMESPACE_OID, f"{digest}/{name}")).upper() for name in ("model", "weights"))
    author = "com.apple.CoreML"
    return {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            model: {
                "author": author,
                "description": "CoreML Model Specification",
                "name": "model.mlmodel",
                "path": f"{author}/model.mlmodel",
            },
            weights: {"author": author, "description": "CoreML Model Weights", "name": "weights", "path": f"{author}/weights"},
        },
        "rootModelIdentifier": model,
    }


def _notes(compressed: Compressed, options: ExportOptions, ios: int) -> tuple[str, ...]:
    changed = [spec for spec in compressed.record.inputs if spec.dtype in {"int64", "bool"}]
    notes = [f"Input '{spec.name}' is int32 in the package: Core ML has no {spec.dtype} inputs." for spec in changed]
    if ios > _INT8_IOS:
        notes.append(f"The package needs iOS {ios}.")
    if options.compute_precision == "float32":
        notes.append("Compute precision float32: bit-faithful, but the Neural Engine runs float16 only.")
    elif compressed.contract.entries:
        notes.append("Compute precision float16: scales and biases are rounded to float16, so layers differ from the contract.")
    return tuple(notes)


CONVERTER = CoreMLConverter()
