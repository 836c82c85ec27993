"""What became of every contract entry in an ``.mlpackage``, read back from the saved bytes.

Core ML's own loader turns the saved model into a MIL program again. In it, entries are found by what they hold, not by
name:

========== =========================================================================
entry      found by
========== =========================================================================
activation grid (scale, zero point) and shape; among equals by the order of computation
weight     the integers themselves (digest) and the scales, bit for bit
bias       float values that are exactly ``integer * scale`` (digest); Core ML has no integer bias
========== =========================================================================
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.converters.weights import precision_of
from edgekit.core.contract import ContractReport, EntryOutcome, QuantizationContract, TensorQuantization
from edgekit.core.errors import IntegrityError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["load_operations", "read_contract"]

_SHIFTS = {"int8": 0, "uint8": 128}
_BITS = {"int4": 4, "int8": 8, "fp16": 16}
_DTYPES = {"fp16": "float16"}
_Key = tuple[float, int, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class _Integers:
    """An integer activation of the file: its grid as its producer and all of its readers see it."""

    tensor: str
    dtype: str
    shape: tuple[int, ...]
    grids: tuple[tuple[Array, int], ...]

    @property
    def shift(self) -> int:
        """Integer here minus integer on the contract's grid."""
        return _SHIFTS[self.dtype]


@dataclasses.dataclass(frozen=True)
class _Weight:
    """A compressed constant: integers or float16 values, and scales laid out like them."""

    tensor: str
    data: Array
    scale: Array
    dtype: str


def read_contract(
    package: Path, contract: QuantizationContract, *, biases: Mapping[str, Array], folded: Mapping[str, str]
) -> ContractReport:
    """Compare a saved package with the contract it was made from.

    Args:
        package: The ``.mlpackage`` folder.
        contract: What was decided.
        biases: Bias entry -> the program's float values, which lie on the entry's integer grid.
        folded: Entry -> entry whose tensor it is exactly, where the program only moves or repeats integers.

    Raises:
        IntegrityError: Core ML's own loader cannot read the package.
    """
    operations = load_operations(package)
    activations = _activations(operations)
    found = _match([entry for entry in contract.activations if entry.dtype in _SHIFTS], activations)
    weights: dict[str, list[_Weight]] = {}
    for weight in _weights(operations):
        for form in _forms(weight):
            weights.setdefault(_digest(form.data), []).append(form)
    floats = _float_constants(operations)
    outcomes = []
    for entry in contract.entries:
        if entry.op == "constant":
            outcomes.append(_operand_outcome(entry, operations))
        elif entry.role == "weight":
            outcomes.append(_weight_outcome(entry, weights.get(entry.sha256, [])))
        elif entry.role == "bias":
            outcomes.append(_bias_outcome(entry, biases.get(entry.name), floats))
        else:
            outcomes.append(_activation_outcome(entry, found.get(entry.name), folded.get(entry.name, "")))
    return ContractReport(outcomes=tuple(outcomes))


def load_operations(package: Path) -> list[Any]:
    """Operations of a package as it lies on the disk, in the order they run.

    Raises:
        IntegrityError: coremltools cannot read it.
    """
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.converters.mil.mil.var import ListVar

    try:
        model: Any = coremltools.models.MLModel(str(package), skip_model_load=True)
        spec = model.get_spec()
        program = load(spec, spec.specificationVersion, model.weights_dir)
    except Exception as reason:
        raise IntegrityError(f"{package} was written, but Core ML's own loader cannot read it: {reason}") from reason
    classes = [operation for operation in program.functions["main"].operations if operation.op_type == "classify"]
    lists = {value for operation in classes for value in operation.inputs.values() if isinstance(value, ListVar)}
    left_out = {*classes, *(value.op for value in lists)}  # choosing a class, and the class names: nothing of the contract
    return [operation for operation in program.functions["main"].operations if operation not in left_out]


def _activations(operations: Sequence[Any]) -> list[_Integers]:
    """Integer tensors in the order they are computed; constants left out."""
    found = []
    for operation in operations:
        for output in operation.outputs:
            dtype = _dtype(output)
            if dtype not in _SHIFTS or output.val is not None or operation.op_type == "const":
                continue
            readers = [reader for reader in output.child_ops if reader.op_type == "dequantize"]
            sources = ([operation] if operation.op_type == "quantize" else []) + readers
            grids = tuple((np.asarray(source.scale.val, np.float32), _zero_point(source)) for source in sources)
            shape = tuple(int(size) for size in output.shape)
            found.append(_Integers(output.name, dtype, shape, grids))
    return found


def _dtype(variable: Any) -> str:
    from coremltools.converters.mil.mil import types

    return str(types.builtin_to_string(variable.dtype)) if variable.dtype is not None else ""


def _zero_point(operation: Any) -> int:
    return 0 if operation.zero_point is None else int(operation.zero_point.val)


def _match(entries: Sequence[TensorQuantization], tensors: Sequence[_Integers]) -> dict[str, _Integers]:
    """Entry -> tensor: the longest common sequence of both orders, then leftovers of equal grid and shape in order."""
    wanted = [_entry_key(entry) for entry in entries]
    given = [_tensor_key(tensor) for tensor in tensors]
    pairs = list(_common_sequence(wanted, given))
    free_tensors = [j for j in range(len(given)) if j not in {j for _, j in pairs}]
    for i in sorted(set(range(len(wanted))) - {i for i, _ in pairs}):
        j = next((j for j in free_tensors if given[j] == wanted[i]), None)
        if j is not None:
            free_tensors.remove(j)
            pairs.append((i, j))
    return {entries[i].name: tensors[j] for i, j in pairs}


def _entry_key(entry: TensorQuantization) -> _Key:
    return _grid_key(np.float32(entry.scale[0]), entry.zero_point[0], entry.shape)


def _tensor_key(tensor: _Integers) -> _Key:
    if not tensor.grids:
        return (0.0, 0, tensor.shape)
    scale, zero = tensor.grids[0]
    return _grid_key(scale, zero - tensor.shift, tensor.shape)


def _grid_key(scale: Any, zero_point: int, shape: tuple[int, ...]) -> _Key:
    """Scales are compared as float16 holds them, so that a float16 package can be matched too."""
    with np.errstate(over="ignore"):
        return float(np.float16(scale)), zero_point, shape


def _common_sequence(first: Sequence[_Key], second: Sequence[_Key]) -> Iterator[tuple[int, int]]:
    """Index pairs of a longest common subsequence (dynamic programming, from the end)."""
    lengths = np.zeros((len(first) + 1, len(second) + 1), np.int32)
    for i in range(len(first) - 1, -1, -1):
        for j in range(len(second) - 1, -1, -1):
            best = max(lengths[i + 1, j], lengths[i, j + 1])
            lengths[i, j] = lengths[i + 1, j + 1] + 1 if first[i] == second[j] else best
    i = j = 0
    while i < len(first) and j < len(second):
        if first[i] == second[j]:
            yield i, j
            i, j = i + 1, j + 1
        elif lengths[i + 1, j] >= lengths[i, j + 1]:
            i += 1
        else:
            j += 1


def _activation_outcome(entry: TensorQuantization, tensor: _Integers | None, same_as: str) -> EntryOutcome:
    if entry.dtype not in _SHIFTS:
        reason = f"Core ML has no {entry.dtype} activations: the layers around it compute in float over their int8 weights"
        return EntryOutcome(name=entry.name, outcome="dropped", reason=reason)
    if tensor is None and same_as:
        reason = f"the integers are those of '{same_as}', moved or repeated: nothing to compute"
        return EntryOutcome(name=entry.name, outcome="folded", reason=reason)
    if tensor is None:
        return EntryOutcome(
            name=entry.name, outcome="dropped", reason="no integer tensor with this grid and shape is in the file"
        )
    found = EntryOutcome(
        name=entry.name, outcome="honoured", tensor=tensor.tensor, dtype=tensor.dtype, zero_point_shift=tensor.shift
    )
    for scale, zero in tensor.grids:
        if scale.shape or float(scale) != float(np.float32(entry.scale[0])) or zero - tensor.shift != entry.zero_point[0]:
            reason = f"read or written with scale {scale} and zero point {zero}, not {entry.scale[0]} and {entry.zero_point[0]}"
            return found.replace(outcome="dropped", reason=reason + _half_advice(scale, entry))
    if tensor.shift:
        reason = "uint8 with zero point 0, which Core ML's kernels prefer: the same real numbers"
        return found.replace(outcome="re-typed", reason=reason)
    return found


def _half_advice(scale: Array, entry: TensorQuantization) -> str:
    if scale.size == 1 and float(scale) == float(np.float16(entry.scale[0])):
        return " (rounded to float16; export with compute_precision='float32' to keep it)"
    return ""


def _weights(operations: Sequence[Any]) -> Iterator[_Weight]:
    for operation in operations:
        name = operation.outputs[0].name
        if operation.op_type == "constexpr_affine_dequantize" and not np.any(operation.zero_point.val):
            data, scale = np.asarray(operation.quantized_data.val), np.asarray(operation.scale.val, np.float32)
            if scale.size > 1:
                scale = scale.reshape([-1 if axis == int(operation.axis.val) else 1 for axis in range(data.ndim)])
            yield _Weight(name, data, scale, _dtype(operation.quantized_data))
        elif operation.op_type == "constexpr_blockwise_shift_scale" and operation.offset is None:
            data, scale = np.asarray(operation.data.val), np.asarray(operation.scale.val, np.float32)
            yield _Weight(name, data, scale, _dtype(operation.data))
        elif operation.op_type == "constexpr_cast":
            yield _Weight(name, np.asarray(operation.source_val.val), np.ones(1, np.float32), "fp16")
        elif operation.op_type == "const" and getattr(operation.outputs[0].val, "dtype", None) == np.float16:
            yield _Weight(name, np.asarray(operation.outputs[0].val), np.ones(1, np.float32), "fp16")


def _forms(weight: _Weight) -> list[_Weight]:
    """The weight as it lies, and, for a matrix, transposed: coremltools folds transposes into weights."""
    if weight.data.ndim != len("OI"):
        return [weight]
    turned = weight.scale.T if weight.scale.ndim == len("OI") else weight.scale
    return [weight, dataclasses.replace(weight, data=weight.data.T, scale=turned)]


def _operand_outcome(entry: TensorQuantization, operations: Sequence[Any]) -> EntryOutcome:
    """A constant operand: the same integers on the same grid."""
    for operation in operations:
        if operation.op_type != "constexpr_affine_dequantize" or operation.scale.val.size != 1:
            continue
        same_grid = float(operation.scale.val) == entry.scale[0] and int(operation.zero_point.val) == entry.zero_point[0]
        if same_grid and _digest(np.asarray(operation.quantized_data.val)) == entry.sha256:
            return EntryOutcome(name=entry.name, outcome="honoured", tensor=operation.outputs[0].name, dtype="int8")
    return EntryOutcome(name=entry.name, outcome="dropped", reason="no constant of the file holds these integers on this grid")


def _digest(data: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()


def _weight_outcome(entry: TensorQuantization, candidates: Sequence[_Weight]) -> EntryOutcome:
    scale = np.asarray(entry.scale, np.float32)
    fitting = [weight for weight in candidates if np.array_equal(weight.scale.reshape(-1), scale)]
    if not candidates:
        return EntryOutcome(name=entry.name, outcome="dropped", reason="no constant of the file holds these integers")
    weight = (fitting or list(candidates))[0]
    found = EntryOutcome(
        name=entry.name,
        outcome="honoured",
        tensor=weight.tensor,
        dtype=_DTYPES.get(weight.dtype, weight.dtype),
        bits=_BITS.get(weight.dtype, 8),
        block_size=entry.block_size,
    )
    if not fitting and entry.dtype != "float16":
        return _rescaled(found, weight.scale.reshape(-1), scale)
    if entry.dtype == "int4" and found.bits != _BITS["int4"]:
        return found.replace(outcome="re-typed", reason="4 bits kept in 8: Core ML has 4-bit weights from iOS 18 (--ios 18)")
    if precision_of(entry).activations == "dynamic-int8":
        reason = "Core ML quantizes nothing at run time: a float kernel over the int8 weights"
        return found.replace(outcome="re-typed", reason=reason)
    return found


def _rescaled(found: EntryOutcome, scales: Array, expected: Array) -> EntryOutcome:
    off = float(np.abs(scales / expected - 1).max()) if scales.size == expected.size else float("nan")
    reason = f"the integers are there, but their scales are off by up to {off:.2e} (relative)"
    if np.array_equal(scales, expected.astype(np.float16)):
        reason += ": rounded to float16; export with compute_precision='float32' to keep them"
    return found.replace(outcome="dropped", reason=reason)


def _float_constants(operations: Sequence[Any]) -> dict[int, list[tuple[str, Array]]]:
    """Float vectors (axes of size 1 aside) by their length."""
    found: dict[int, list[tuple[str, Array]]] = {}
    for operation in operations:
        if operation.op_type != "const":
            continue
        value = operation.outputs[0].val
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size == max(value.shape, default=1):
            found.setdefault(value.size, []).append((operation.outputs[0].name, value.reshape(-1)))
    return found


def _bias_outcome(entry: TensorQuantization, expected: Array | None, floats: dict[int, list[tuple[str, Array]]]) -> EntryOutcome:
    scale = np.asarray(entry.scale, np.float32)
    missing = EntryOutcome(name=entry.name, outcome="dropped", reason="no float constant of the file holds integer * scale")
    if expected is None or _digest(np.rint(expected.astype(np.float64) / scale).astype("<i4")) != entry.sha256:
        return missing
    for name, value in floats.get(expected.size, []):
        if not np.array_equal(value, expected.astype(value.dtype)):
            continue
        found = missing.replace(tensor=name, dtype=str(value.dtype))
        off = float(np.abs((value.astype(np.float64) - expected) / scale).max(initial=0))
        if off:
            return found.replace(reason=f"rounded to {value.dtype}: off by up to {off:.2g} steps of the int32 grid")
        return found.replace(
            outcome="re-typed", reason=f"Core ML adds biases in float: exactly integer * scale, as {value.dtype}"
        )
    return missing
