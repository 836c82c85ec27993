"""Tensors of an ONNX file as torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edgekit.core.errors import IntegrityError, UnsupportedOpError

if TYPE_CHECKING:
    import onnx

__all__ = ["TORCH_TYPES", "is_packed", "read_tensor", "torch_type"]

TORCH_TYPES: dict[str, torch.dtype] = {
    "FLOAT": torch.float32, "DOUBLE": torch.float64, "FLOAT16": torch.float16, "BFLOAT16": torch.bfloat16, "BOOL": torch.bool,
    "INT8": torch.int8, "INT16": torch.int16, "INT32": torch.int32, "INT64": torch.int64,
    "UINT8": torch.uint8, "UINT16": torch.uint16, "UINT32": torch.uint32, "UINT64": torch.uint64,
    "FLOAT8E4M3FN": torch.float8_e4m3fn, "FLOAT8E5M2": torch.float8_e5m2,
    "FLOAT8E4M3FNUZ": torch.float8_e4m3fnuz, "FLOAT8E5M2FNUZ": torch.float8_e5m2fnuz,
    "INT4": torch.int8, "UINT4": torch.uint8, "INT2": torch.int8, "UINT2": torch.uint8,
}  # fmt: skip
"""ONNX element type -> torch's; what torch has no arithmetic for (4 and 2 bits) is held in bytes."""

_BITS = {torch.bfloat16: torch.int16}
_PACKED = {"INT4", "UINT4", "INT2", "UINT2"}


def is_packed(number: int) -> bool:
    """Whether an element type has fewer than 8 bits: torch holds such numbers in bytes, and would not saturate them."""
    import onnx

    return number in onnx.TensorProto.DataType.values() and onnx.TensorProto.DataType.Name(number) in _PACKED


def torch_type(number: int, what: str, *, stored: bool = False) -> torch.dtype:
    """Element type by its number in the file.

    Args:
        number: The number.
        what: What has the type, for messages.
        stored: It is a constant that is only read; what is computed cannot have fewer than 8 bits.

    Raises:
        UnsupportedOpError: torch has no such type (strings, complex numbers, 4-bit floats).
    """
    import onnx

    name = onnx.TensorProto.DataType.Name(number) if number in onnx.TensorProto.DataType.values() else str(number)
    if name not in TORCH_TYPES or (is_packed(number) and not stored):
        raise UnsupportedOpError(
            f"{what} holds elements of type {name}, which no target computes with. Keep that part out of the exported model."
        )
    return TORCH_TYPES[name]


def read_tensor(proto: onnx.TensorProto, what: str) -> torch.Tensor:
    """A tensor of the file, with its own memory.

    Raises:
        IntegrityError: Its bytes do not fill its shape.
        UnsupportedOpError: Its element type has no counterpart.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    dtype = torch_type(proto.data_type, what, stored=True)
    try:
        array: Any = numpy_helper.to_array(proto)
    except (ValueError, TypeError) as reason:
        raise IntegrityError(f"{what} is damaged: its numbers do not fill shape {list(proto.dims)} ({reason}).") from reason
    if TensorProto.DataType.Name(proto.data_type) in _PACKED:
        array = array.astype(np.int8 if dtype == torch.int8 else np.uint8)
    shape = tuple(array.shape)
    flat = np.array(array, copy=True).reshape(-1)
    if dtype in _BITS or str(dtype).startswith("torch.float8"):
        flat = flat.view(np.int16 if dtype in _BITS else np.uint8)
        return torch.from_numpy(flat).view(dtype).reshape(shape)
    return torch.from_numpy(flat).reshape(shape)
