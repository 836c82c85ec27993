"""What became of every contract entry in an ONNX file, read back from the file's bytes.

Activations are found by the name of their quantize node, which the exporter keeps, and verified by scale and zero
point; weights and biases by the name of their buffer (or, where the exporter merged equal ones, by content), and
verified integer by integer and scale by scale.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekit.core.contract import ContractReport, EntryOutcome, QuantizationContract, TensorQuantization

if TYPE_CHECKING:
    import onnx
    from torch.export import ExportedProgram

    from edgekit.core.tensors import Array

__all__ = ["parameter_names", "read_contract"]

_SHIFTS = {"int8": 0, "uint8": 128, "int16": 0}


@dataclasses.dataclass(frozen=True)
class _Stored:
    """How a file stores one integer tensor: its type and its grid (``scale`` and ``zero_point`` flat).

    ``scale`` of blocks keeps its shape; ``note`` says what is beyond a plain dequantize.
    """

    dtype: str
    scale: Array
    zero_point: Array
    channel_axis: int
    block_size: int | None = None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class _File:
    """The tensors of a file by name: constants, and the grids of all that are quantized or restored."""

    constants: Mapping[str, Array]
    grids: Mapping[str, _Stored]


def read_contract(
    data: bytes, contract: QuantizationContract, program: ExportedProgram, *, renamed: Mapping[str, str]
) -> ContractReport:
    """Compare a file with the contract it was made from.

    Args:
        data: The .onnx file.
        contract: What was decided.
        program: The compressed program, which holds the integers.
        renamed: Tensor that became an input or output of the file -> its name there.
    """
    import onnx

    file = _read_file(onnx.load_model_from_string(data))
    names, aliases = parameter_names(program), _merged_quantizes(program)
    outcomes = []
    for entry in contract.entries:
        if entry.role in {"input", "activation"}:
            outcomes.append(_activation(entry, file, [renamed.get(node, node) for node in aliases.get(entry.node, [entry.node])]))
        else:
            name = names.get(entry.node, entry.node)
            outcomes.append(_parameter(entry, file, renamed.get(name, name), _expected(entry, program, name)))
    return ContractReport(outcomes=tuple(outcomes))


def parameter_names(program: ExportedProgram) -> dict[str, str]:
    """Placeholder of a parameter or buffer -> its dotted name, which is the initializer's name in the file."""
    signature = program.graph_signature
    return {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}


def _merged_quantizes(program: ExportedProgram) -> dict[str, list[str]]:
    """Quantize node -> itself and every other one that computes the same, which the exporter may have merged with it."""
    keys = _canonical_keys(program)
    groups: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        if str(node.target) == "quantized_decomposed.quantize_per_tensor.default":
            groups.setdefault(keys[node.name], []).append(node.name)
    return {name: [name, *(other for other in names if other != name)] for names in groups.values() for name in names}


def _canonical_keys(program: ExportedProgram) -> dict[str, str]:
    """A digest per node: equal for nodes that compute the same from the same inputs and from equal constants."""
    names = parameter_names(program)
    keys: dict[str, str] = {}
    for node in program.graph.nodes:
        held = _constant(program, names.get(node.name, ""))
        if node.op == "placeholder":
            said = node.name if held is None else f"{held.dtype}{held.shape}{hashlib.sha256(held.tobytes()).hexdigest()}"
        else:
            said = f"{node.target}{_said(node.args, keys)}{_said(node.kwargs, keys)}"
        keys[node.name] = hashlib.sha256(said.encode()).hexdigest()
    return keys


def _said(argument: Any, keys: Mapping[str, str]) -> str:
    """An argument in words, nodes by their digest."""
    if isinstance(argument, list | tuple):
        return "[" + ",".join(_said(part, keys) for part in argument) + "]"
    if isinstance(argument, Mapping):
        return "{" + ",".join(f"{name}:{_said(part, keys)}" for name, part in argument.items()) + "}"
    return keys.get(getattr(argument, "name", ""), repr(argument))


def _constant(program: ExportedProgram, name: str) -> Array | None:
    held: Any = program.state_dict.get(name)
    held = program.constants.get(name) if held is None else held
    return None if held is None or not hasattr(held, "detach") else np.ascontiguousarray(held.detach().numpy())


def _read_file(model: onnx.ModelProto) -> _File:
    import onnx.numpy_helper

    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    grids: dict[str, _Stored] = {}
    through = {"Cast", "Gather"}  # of 4-bit weights; of the rows of a table, and of their scales
    casts = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in through and node.input[0] in constants}
    for node in model.graph.node:
        parts = [casts.get(name, name) for name in node.input]
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and all(name in constants for name in parts[1:3]):
            tensor = node.output[0] if node.op_type == "QuantizeLinear" else parts[0]
            scale = constants[parts[1]]
            zero_point = constants[node.input[2]] if len(node.input) > 2 else _default_zero_point(constants, tensor, scale)
            numbers = {attribute.name: attribute.i for attribute in node.attribute}
            size = numbers.get("block_size") or None
            flat = scale if size else scale.reshape(-1)
            stored = _Stored(str(zero_point.dtype), flat, zero_point.reshape(-1), numbers.get("axis", 1), size)
            grids.setdefault(tensor, stored)
    grids |= {name: stored for name, stored in _dynamic_grids(model.graph, constants).items() if name not in grids}
    for node in model.graph.node:
        if node.op_type in {"Clip", "Pad"}:  # of integers: both sides are on one grid
            found = grids.get(node.input[0]) or grids.get(node.output[0])
            if found is not None:
                grids.setdefault(node.input[0], found)
                grids.setdefault(node.output[0], found)
    return _File(constants, grids)


def _dynamic_grids(graph: onnx.GraphProto, constants: Mapping[str, Array]) -> dict[str, _Stored]:
    """Weights of integer products whose other operand is quantized at run time: their scale is multiplied in afterwards."""
    makers = {output: node for node in graph.node for output in node.output}
    found = {}
    for node in graph.node:
        source = makers.get(node.input[0]) if node.op_type == "MatMulInteger" else None
        if source is None or source.op_type != "DynamicQuantizeLinear" or node.input[1] not in constants:
            continue
        steps = [other for other in graph.node if other.op_type == "Mul" and other.input[0] == source.output[1]]
        for step in steps:
            readers = {output for other in graph.node if step.output[0] in other.input for output in _sources(other, makers)}
            if node.output[0] in readers and step.input[1] in constants:
                scale = constants[step.input[1]].reshape(-1)
                note = "the input is quantized at run time, by its own range"
                found[node.input[1]] = _Stored("int8", scale, np.zeros(scale.shape, np.int8), 1, None, note)
    return found


def _sources(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> set[str]:
    """What a node reads, and what the nodes that make it read."""
    return {*node.input, *(name for source in node.input if source in makers for name in makers[source].input)}


def _default_zero_point(constants: Mapping[str, Array], tensor: str, scale: Array) -> Array:
    """Without a zero point it is 0, of the integer constant's own type or else uint8 (ONNX operator specification)."""
    return np.zeros(scale.shape, constants[tensor].dtype if tensor in constants else np.uint8)


def _activation(entry: TensorQuantization, file: _File, candidates: list[str]) -> EntryOutcome:
    name = next((candidate for candidate in candidates if candidate in file.grids), "")
    if not name:
        return EntryOutcome(name=entry.name, outcome="dropped", reason="the file quantizes no tensor of this name")
    stored = file.grids[name]
    shift = _SHIFTS.get(stored.dtype)
    if shift is None or not np.array_equal(stored.scale, np.asarray(entry.scale, np.float32)):
        return _dropped(entry, stored)
    if not np.array_equal(stored.zero_point.astype(np.int64) - shift, entry.zero_point):
        return _dropped(entry, stored)
    if shift == 0:
        return EntryOutcome(name=entry.name, outcome="honoured", tensor=name, dtype=stored.dtype)
    reason = "the same real numbers as uint8, zero point + 128: ONNX Runtime's x86 kernels take unsigned activations"
    return EntryOutcome(
        name=entry.name, outcome="re-typed", tensor=name, dtype=stored.dtype, zero_point_shift=shift, reason=reason
    )


def _dropped(entry: TensorQuantization, stored: _Stored) -> EntryOutcome:
    reason = f"the file has {stored.dtype} with scale {stored.scale.tolist()[:3]} and zero point {stored.zero_point.tolist()[:3]}"
    return EntryOutcome(name=entry.name, outcome="dropped", reason=reason)


def _expected(entry: TensorQuantization, program: ExportedProgram, name: str) -> Array | None:
    """The integers the contract means: weights as they lie in the program, biases back from their float32 values."""
    values = _constant(program, name)
    if values is None or entry.role == "weight":
        return values
    integers: Array = np.rint(values.astype(np.float64) / np.asarray(entry.scale, np.float64)).astype(np.int32)
    return integers


def _parameter(entry: TensorQuantization, file: _File, name: str, expected: Array | None) -> EntryOutcome:
    if expected is None:
        return EntryOutcome(name=entry.name, outcome="dropped", reason=f"the program holds no constant '{name}'")
    if entry.op == "constant":
        return _operand(entry, file, expected)
    if entry.dtype == "float16":
        return _half(entry, file, name, expected)
    for candidate in [name, *_same_content(file, expected)]:
        stored, values = file.grids.get(candidate), file.constants.get(candidate)
        if stored is None or values is None:
            continue
        own = _without_zero_channels(values, expected)
        if _holds(entry, stored, own, expected):
            width = values.shape[1] if own is not values else 0
            filled = f"with input channels of zeros, {width} in all, for ONNX Runtime's fast kernel" if width else ""
            reasons = [stored.note, filled]
            return _honoured(entry, candidate, values).replace(reason="; ".join(filter(None, reasons)))
    if entry.role == "bias" and not expected.any():
        return EntryOutcome(name=entry.name, outcome="folded", reason="every value is zero, so the layer has no bias in the file")
    found = file.constants.get(name)
    held = "no constant of this name" if found is None else f"{found.dtype} {list(found.shape)} with other values or scales"
    return EntryOutcome(name=entry.name, outcome="dropped", reason=f"the file holds {held}")


def _operand(entry: TensorQuantization, file: _File, expected: Array) -> EntryOutcome:
    """A constant operand, found by its integers, as int8 or shifted to uint8."""
    for name, stored in file.grids.items():
        values, shift = file.constants.get(name), _SHIFTS.get(stored.dtype)
        if values is None or shift is None or not np.array_equal(values.astype(np.int64) - shift, expected):
            continue
        same = np.array_equal(stored.scale, np.asarray(entry.scale, np.float32))
        if same and np.array_equal(stored.zero_point.astype(np.int64) - shift, entry.zero_point):
            reason = "the same real numbers as uint8, as the activation beside it" if shift else ""
            outcome: Literal["re-typed", "honoured"] = "re-typed" if shift else "honoured"
            return EntryOutcome(
                name=entry.name, outcome=outcome, tensor=name, dtype=stored.dtype, zero_point_shift=shift, reason=reason
            )
    return EntryOutcome(name=entry.name, outcome="dropped", reason="no constant of the file holds these integers on this grid")


def _honoured(entry: TensorQuantization, name: str, values: Array) -> EntryOutcome:
    bits = 4 if str(values.dtype) == "int4" else 8 * values.dtype.itemsize
    return EntryOutcome(
        name=entry.name, outcome="honoured", tensor=name, dtype=str(values.dtype), bits=bits, block_size=entry.block_size
    )


def _half(entry: TensorQuantization, file: _File, name: str, expected: Array) -> EntryOutcome:
    """Weights kept as float16 values."""
    for candidate in [name, *file.constants]:
        values = file.constants.get(candidate)
        if values is not None and values.dtype == np.float16 and any(np.array_equal(form, expected) for form in _forms(values)):
            return _honoured(entry, candidate, values)
    return EntryOutcome(name=entry.name, outcome="dropped", reason="the file holds no such float16 constant")


def _forms(values: Array) -> list[Array]:
    """A constant as it lies, and a matrix turned round."""
    return [values, values.T] if values.ndim == len("OI") else [values]


def _without_zero_channels(values: Array, expected: Array) -> Array:
    """Weights without the zeros that a convolution's input channels were filled up with; any others as they are."""
    same_otherwise = values.ndim == expected.ndim > 2 and (values.shape[0], *values.shape[2:]) == (
        expected.shape[0],
        *expected.shape[2:],
    )
    if not same_otherwise or values.shape[1] <= expected.shape[1]:
        return values
    own = values[:, : expected.shape[1]]
    return values if values[:, expected.shape[1] :].any() else own


def _same_content(file: _File, expected: Array) -> list[str]:
    return [
        name
        for name, values in file.constants.items()
        if any(np.array_equal(_without_zero_channels(form, expected), expected) for form in _forms(values))
    ]


def _holds(entry: TensorQuantization, stored: _Stored, values: Array, expected: Array) -> bool:
    """Same integers, same scales along the same axis and over the same blocks, zero points all zero."""
    turned = not np.array_equal(values, expected)
    if turned and (values.ndim != len("OI") or not np.array_equal(values.T, expected)):
        return False
    scale = np.asarray(entry.scale, np.float32)
    axis = 1 if entry.block_size is not None else entry.channel_axis or 0
    same_axis = len(scale) == 1 or stored.channel_axis == (1 - axis if turned else axis)
    found = stored.scale.T if turned and stored.block_size else stored.scale
    return bool(
        (values.dtype == expected.dtype or str(values.dtype) == entry.dtype)
        and stored.block_size == entry.block_size
        and np.array_equal(found.reshape(-1), scale)
        and same_axis
        and not stored.zero_point.any()
    )
