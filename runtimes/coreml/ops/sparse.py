"""Compressed weights that stay sparse (iOS 18): palettes and scales applied to the values a mask keeps.

Both operations give a mask and the values at its ones; ``constexpr_sparse_to_dense`` puts them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__: list[str] = []


def _dense(call: Call, mask: Array, values: Array) -> Array:
    """The values where the mask has ones, zeros elsewhere.

    Raises:
        IntegrityError: There are more or fewer values than ones.
    """
    if int((mask != 0).sum()) != values.size:
        raise IntegrityError(f"{call}: the mask has {int((mask != 0).sum())} ones, but there are {values.size} values.")
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask != 0] = values.reshape(-1)
    return dense


def _spread(call: Call, table: Array, shape: tuple[int, ...]) -> Array:
    """A table with one entry for each block, repeated so that there is one for each position; further axes are kept.

    Raises:
        IntegrityError: The blocks do not divide the shape.
    """
    for axis, size in enumerate(shape):
        if table.ndim < len(shape) or size % table.shape[axis]:
            raise IntegrityError(f"{call}: blocks {list(table.shape)} do not divide the shape {list(shape)}.")
        table = np.repeat(table, size // table.shape[axis], axis)
    return table


def _kept(mask: Array, dense: Array) -> Kernel:
    values = torch.from_numpy(np.ascontiguousarray(dense[mask != 0].astype(np.float32)))
    bits = torch.from_numpy(np.ascontiguousarray(mask.astype(np.uint8)))
    return Kernel(lambda: (bits, values))


@register("constexpr_lut_to_sparse")
def lut_to_sparse(call: Call) -> Kernel:
    """Indices at the ones of a mask, looked up in tables ``[*groups, entries, vector]``; vectors lie along ``vector_axis``."""
    mask, table = call.array("indices_mask"), call.array("lut").astype(np.float32)
    indices = _dense(call, mask, call.array("indices_nonzero_data")).astype(np.int64)
    tables = _spread(call, table, mask.shape)
    vectors = np.take_along_axis(tables, indices[..., None, None], -2)[..., 0, :]
    width = table.shape[-1]
    if width == 1:
        return _kept(mask, vectors[..., 0])
    axis = call.integer("vector_axis") % mask.ndim
    longer = tuple(size * width if at == axis else size for at, size in enumerate(mask.shape))
    return _kept(np.repeat(mask, width, axis), np.moveaxis(vectors, -1, axis + 1).reshape(longer))


@register("constexpr_sparse_blockwise_shift_scale")
def sparse_blockwise_shift_scale(call: Call) -> Kernel:
    """``scale * (value - offset)`` at the ones of a mask, with one scale for each block of the dense shape."""
    mask = call.array("data_mask")
    values = _dense(call, mask, call.array("nonzero_data")).astype(np.float32)
    if call.has("offset"):
        values = values - _spread(call, call.array("offset").astype(np.float32), mask.shape)
    return _kept(mask, values * _spread(call, call.array("scale").astype(np.float32), mask.shape))
