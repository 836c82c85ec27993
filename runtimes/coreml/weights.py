"""Constants of a MIL program: written into the model file, or kept in a weight file beside it.

A weight file is Core ML's "MIL blob storage": a 64-byte header, and for each constant a 64-byte record that says where
its bytes lie. Types narrower than a byte are packed least significant bit first.

====== ===== ======================================
offset bytes record field
====== ===== ======================================
0      4     ``0xDEADBEEF``
4      4     element type
8      8     size of the data in bytes
16     8     where the data starts in the file
====== ===== ======================================
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.core.errors import IntegrityError, UnsupportedOpError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.coreml.program import Value

__all__ = ["DTYPES", "WeightFiles", "decode_value"]

DTYPES = {
    "BOOL": "bool", "STRING": "str", "FLOAT16": "float16", "FLOAT32": "float32", "FLOAT64": "float64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "INT4": "int4",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "UINT1": "uint1", "UINT2": "uint2", "UINT3": "uint3", "UINT4": "uint4", "UINT6": "uint6",
}  # fmt: skip
"""MIL's element types in numpy's spelling; those numpy lacks are named after their width."""

_BITS = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}
_RECORD = struct.Struct("<IIQQ")
_SENTINEL = 0xDEADBEEF


class WeightFiles:
    """Reads constants from the weight files of one package, each mapped into memory once.

    Args:
        folder: Folder of the model file: ``@model_path`` in the file's own references.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._files: dict[str, Array] = {}

    def read(self, reference: str, offset: int, *, dtype: str, shape: tuple[int, ...]) -> Array:
        """The constant whose record stands at ``offset`` of the file ``reference``.

        Raises:
            IntegrityError: The file is missing or outside the package, or its record does not fit.
        """
        data = self._map(reference)
        if offset + _RECORD.size > data.size:
            raise IntegrityError(f"Weight file {reference} ends at byte {data.size}; a constant is said to stand at {offset}.")
        sentinel, _, size_bytes, start = _RECORD.unpack(data[offset : offset + _RECORD.size].tobytes())
        needed = _size_bytes(dtype, shape)
        if sentinel != _SENTINEL or size_bytes < needed or start + size_bytes > data.size:
            raise IntegrityError(
                f"Weight file {reference}: the record at byte {offset} is damaged (marker {sentinel:#x}, {size_bytes} bytes from"
                f" {start} of {data.size}; {dtype} {list(shape)} needs {needed})."
            )
        return _from_bytes(data[start : start + needed], dtype, shape)

    def _map(self, reference: str) -> Array:
        if reference not in self._files:
            path = self._folder.joinpath(*reference.removeprefix("@model_path/").split("/"))
            if not path.resolve().is_relative_to(self._folder):
                raise IntegrityError(f"The model file names weights outside its package: {reference}. It is not to be trusted.")
            if not path.is_file():
                raise IntegrityError(f"The model file names weights {reference}, but {path} does not exist: incomplete package.")
            self._files[reference] = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
        return self._files[reference]


def decode_value(value: Any, *, dtype: str, shape: tuple[int, ...], weights: WeightFiles) -> Value:
    """Decode a MIL ``Value`` message.

    Raises:
        IntegrityError: Type, shape and stored data do not fit each other.
        UnsupportedOpError: It is a list or a dictionary.
    """
    if value.WhichOneof("value") == "blobFileValue":
        return weights.read(value.blobFileValue.fileName, value.blobFileValue.offset, dtype=dtype, shape=shape)
    if value.immediateValue.WhichOneof("value") != "tensor":
        raise UnsupportedOpError("The program holds a list or dictionary constant, which the executor does not run.")
    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    stored: Any = getattr(tensor, kind).values if kind else ()
    if dtype == "str":
        return str(stored[0]) if stored else ""
    if kind == "bytes":
        return _from_bytes(np.frombuffer(stored, np.uint8), dtype, shape)
    array = np.asarray(stored, dtype=dtype)
    if array.size != _count(shape):
        raise IntegrityError(f"A constant {dtype} {list(shape)} is stored with {array.size} values; it needs {_count(shape)}.")
    return array.reshape(shape)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _size_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    bits = _BITS.get(dtype) or 8 * np.dtype(dtype).itemsize
    return -(-_count(shape) * bits // 8)


def _from_bytes(data: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    if data.size < _size_bytes(dtype, shape):
        needed = _size_bytes(dtype, shape)
        raise IntegrityError(f"A constant {dtype} {list(shape)} is stored in {data.size} bytes; it needs {needed}.")
    if dtype not in _BITS:
        return np.frombuffer(data.tobytes(), dtype, count=_count(shape)).reshape(shape)
    return unpack_bits(data, _BITS[dtype], count=_count(shape), signed=dtype.startswith("int")).reshape(shape)


def unpack_bits(data: Array, bits: int, *, count: int, signed: bool = False) -> Array:
    """Unpack ``count`` integers of ``bits`` bits each, least significant bit first, into int8 or uint8.

    >>> unpack_bits(np.array([0xB1], np.uint8), 4, count=2)
    array([ 1, 11], dtype=uint8)
    """
    flat = np.unpackbits(np.asarray(data, np.uint8), bitorder="little")[: count * bits].reshape(count, bits)
    values: Array = (flat << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8)
    if not signed:
        return values
    half = 1 << (bits - 1)
    return (values.astype(np.int8) ^ np.int8(half)) - np.int8(half)
