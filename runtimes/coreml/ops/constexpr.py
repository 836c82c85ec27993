"""Compressed weights, decoded once when the model is loaded.

iOS 16 introduced ``constexpr_affine_dequantize``, ``_lut_to_dense``, ``_sparse_to_dense`` and ``_cast``; iOS 18 gave the table
and the mask their own shapes and added blocks. Both forms are decoded.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from edgekit.core.errors import UnsupportedOpError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register
from edgekit.runtimes.coreml.weights import unpack_bits

__all__: list[str] = []


@register("constexpr_affine_dequantize")
def affine_dequantize(call: Call) -> Kernel:
    """``scale * (quantized_data - zero_point)``, one scale, or one for each position along ``axis``."""
    data = call.array("quantized_data")
    scale, zero = call.array("scale").astype(np.float32), call.array("zero_point").astype(np.float32)
    shape = [1] * data.ndim
    shape[call.integer("axis", 0) % data.ndim] = -1
    scale, zero = (part.reshape(shape) if part.ndim else part for part in (scale, zero))
    decoded = torch.from_numpy(np.asarray((data.astype(np.float32) - zero) * scale))
    return Kernel(lambda: decoded)


@register("constexpr_blockwise_shift_scale")
def blockwise_shift_scale(call: Call) -> Kernel:  # noqa: ARG001
    """``scale * (data - offset)`` with one scale for each block; the sizes say how large a block is."""
    return Kernel(_shift_and_scale, "data", "scale", "offset")


def _shift_and_scale(data: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    values = data.to(torch.float32)
    for axis, (size, count) in enumerate(zip(data.shape, scale.shape, strict=True)):
        scale = scale.repeat_interleave(size // count, axis)
        offset = None if offset is None else offset.repeat_interleave(size // count, axis)
    return (values if offset is None else values - offset.to(torch.float32)) * scale


@register("constexpr_lut_to_dense")
def lut_to_dense(call: Call) -> Kernel:
    """Indices into a table of values."""
    if not call.has("shape"):
        axis = call.integer("vector_axis", 0)
        return Kernel(lambda indices, lut: _grouped_table(indices, lut, axis), "indices", "lut")
    shape, table = call.integers("shape"), call.array("lut")
    indices = unpack_bits(call.array("indices"), int(math.log2(table.size)), count=math.prod(shape))
    decoded = torch.from_numpy(table[indices].astype(np.float32).reshape(shape))
    return Kernel(lambda: decoded)


def _grouped_table(indices: Tensor, lut: Tensor, vector_axis: int) -> Tensor:
    """Indices ``[*D]``, tables ``[*groups, entries, vector]``: each group of positions has its own table."""
    rank, vector = indices.dim(), lut.shape[-1]
    for axis in range(rank):
        lut = lut.repeat_interleave(indices.shape[axis] // lut.shape[axis], axis)
    where = indices.long()[..., None, None].expand(*indices.shape, 1, vector)
    picked = torch.gather(lut, rank, where).squeeze(rank)
    if vector == 1:
        return picked.squeeze(-1)
    axis = vector_axis % rank
    return picked.movedim(-1, axis + 1).flatten(axis, axis + 1)


@register("constexpr_sparse_to_dense")
def sparse_to_dense(call: Call) -> Kernel:
    """Values where the mask has a bit, zero elsewhere."""
    values, mask = call.array("nonzero_data"), call.array("mask")
    if call.has("shape"):
        shape = call.integers("shape")
        mask = unpack_bits(mask, 1, count=math.prod(shape)).reshape(shape)
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask != 0] = values
    decoded = torch.from_numpy(dense.astype(np.float32) if dense.dtype == np.float16 else dense)
    return Kernel(lambda: decoded)


@register("constexpr_cast")
def cast(call: Call) -> Kernel:
    """float16 kept in the file, float32 in use."""
    if call.text("output_dtype", "fp32") != "fp32":
        raise UnsupportedOpError(f"{call}: only output_dtype 'fp32' is defined.")
    return Kernel(lambda x: x, "source_val")
