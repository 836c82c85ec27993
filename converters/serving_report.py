"""What became of the contract in a format of general serving: same integers in the weights, float kernels between grids.

These formats hold a quantized program as arithmetic: weights as the contract's integers, activations rounded to their grids,
and products computed in float. So weights are looked for by their digests among the file's constants, and grids by their
scales; nothing here is taken from what the converter said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgekit.core.contract import ContractReport, EntryOutcome, QuantizationContract, TensorQuantization

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["NOTE", "digest", "read_back"]

NOTE = (
    "The program's integers are kept, but kernels compute in float: for the speed of integers export to onnx, tflite or coreml."
)
_KERNELS = "its values lie on the contract's grid; kernels compute in float"
_BIAS = "a float on the grid of its int32 integers"


def digest(values: Array) -> str:
    """Of integers, as the contract has it: little-endian, C order."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def read_back(
    contract: QuantizationContract,
    *,
    constants: Mapping[str, Array],
    scales: Iterable[float],
    exact: Mapping[str, str] | None = None,
) -> ContractReport:
    """One outcome for each entry.

    Args:
        contract: The contract.
        constants: Name in the file -> values.
        scales: Float32 numbers that stand in the file's code: scales, or their reciprocals.
        exact: Activation entries whose quantize operator stands in the file as it is, and its name there.
    """
    by_digest = {digest(values): name for name, values in constants.items() if values.dtype.kind in "iu"}
    floats = [(name, values) for name, values in constants.items() if values.dtype.kind == "f"]
    known = {np.float32(scale) for scale in scales}
    return ContractReport(outcomes=tuple(_outcome(entry, by_digest, floats, known, exact or {}) for entry in contract.entries))


def _outcome(
    entry: TensorQuantization,
    by_digest: Mapping[str, str],
    floats: list[tuple[str, Array]],
    scales: set[np.float32],
    exact: Mapping[str, str],
) -> EntryOutcome:
    if entry.role in {"input", "activation"}:
        if entry.name in exact:
            return EntryOutcome(name=entry.name, outcome="honoured", tensor=exact[entry.name], dtype=entry.dtype)
        scale = np.float32(entry.scale[0])
        if {scale, np.float32(1) / scale, np.float32(1 / entry.scale[0])} & scales:
            return EntryOutcome(name=entry.name, outcome="re-typed", dtype="float32", reason=_KERNELS)
    elif entry.role == "bias":
        name = next((name for name, values in floats if _is_bias(values, entry)), "")
        if name:
            return EntryOutcome(name=entry.name, outcome="re-typed", tensor=name, dtype="float32", reason=_BIAS)
    elif entry.dtype == "float16":
        name = next((name for name, values in floats if digest(values.astype(np.float16)) == entry.sha256), "")
        if name:
            return EntryOutcome(name=entry.name, outcome="honoured", tensor=name, dtype="float16", bits=16)
    elif entry.sha256 in by_digest:
        bits = 8
        reason = "" if entry.dtype == "int8" else "4 bits are kept in 8"
        outcome = EntryOutcome(name=entry.name, outcome="honoured", tensor=by_digest[entry.sha256], dtype="int8", bits=bits)
        return outcome.replace(outcome="re-typed", reason=reason) if reason else outcome
    return EntryOutcome(name=entry.name, outcome="dropped", reason="not found in the file")


def _is_bias(values: Array, entry: TensorQuantization) -> bool:
    """Whether float values are an entry's int32 integers on their grid."""
    scales = np.asarray(entry.scale, np.float64)
    if values.size % max(scales.size, 1) or values.size == 0 or values.reshape(-1).shape != (int(np.prod(entry.shape)),):
        return False
    steps = np.rint(values.reshape(-1).astype(np.float64) / scales)
    return bool(digest(steps.astype(np.int32)) == entry.sha256)
