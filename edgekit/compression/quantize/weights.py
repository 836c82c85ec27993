"""How weights lie in the program: stored small, restored to float32 right before the operator that reads them.

=========== ============================================================= ==================================
stored as   restored by                                                   scales
=========== ============================================================= ==================================
int8, int4  ``quantized_decomposed.dequantize_per_channel``               one a channel, ``[C]``
int8, int4  ``quantized_decomposed.dequantize_per_channel_group``         one a block, ``[C, blocks]``
float16     ``aten.to.dtype``                                             none
=========== ============================================================= ==================================

int4 weights lie in int8 tensors: PyTorch has no int4 tensor that can be exported. A target packs them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from edgekit.compression.quantize.canonical.form import constant, put_constant
from edgekit.compression.quantize.grid import covering_scales, half_weights
from edgekit.compression.quantize.plan import source_of
from edgekit.compression.quantize.precision import block_count
from edgekit.core.contract import TensorQuantization
from edgekit.core.program import register_operators

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

    from edgekit.compression.quantize.plan import Kernel
    from edgekit.core.tensors import Array

__all__ = ["digest", "integer_range", "parameter_entry", "restore_channels", "store_weight"]

register_operators()

_DQ_CHANNEL = torch.ops.quantized_decomposed.dequantize_per_channel.default
_DQ_GROUP = torch.ops.quantized_decomposed.dequantize_per_channel_group.default
_RESHAPE = torch.ops.aten.reshape.default
_CONVERT = torch.ops.aten.to.dtype


def integer_range(kernel: Kernel) -> tuple[int, int]:
    """Smallest and largest integer of a kernel's weights.

    int4 reaches -8 only where nothing but weights is integer: kernels that multiply integers want a symmetric range.
    """
    if kernel.precision.weights != "int4":
        return -127, 127
    return (-8 if kernel.precision.activations == "float32" else -7), 7


def store_weight(module: GraphModule, kernel: Kernel) -> list[TensorQuantization]:
    """Store the weight of a weight-only layer as its precision says; its bias stays float32.

    Args:
        module: Edited in place.
        kernel: The layer.

    Returns:
        The weight's entry; ``node`` holds the buffer's name.

    Raises:
        ContractError: The block size does not divide, or a weight is beyond float16's range.
    """
    node, position = kernel.node, kernel.family.weight or 0
    weight = constant(module, node.args[position])
    if weight is None:
        return []
    name = kernel.layer or node.name
    groups: Any = node.args[6] if kernel.family.name == "conv" and len(node.args) > 6 else 1
    blocks = block_count(weight, kernel.precision, family=kernel.family.name, groups=int(groups), layer=name)
    if kernel.precision.weights == "float16":
        restored, entry = _store_half(module, kernel, weight, name)
    elif blocks is not None:
        restored, entry = _store_blocks(module, kernel, weight, blocks, name)
    else:
        restored, entry = _store_channels(module, kernel, weight, name)
    restored.meta["val"] = weight
    node.args = (*node.args[:position], restored, *node.args[position + 1 :])
    return [entry]


def _store_half(module: GraphModule, kernel: Kernel, weight: torch.Tensor, name: str) -> tuple[Node, TensorQuantization]:
    half = half_weights(weight, layer=name)
    stored = put_constant(module, f"{name}.weight_float16", half, before=kernel.node)
    with module.graph.inserting_before(kernel.node):
        restored = module.graph.call_function(_CONVERT, (stored, torch.float32))
    entry = TensorQuantization(
        name=f"{name}.weight",
        role="weight",
        op=kernel.family.name,
        layer=kernel.layer,
        shape=tuple(half.shape),
        dtype="float16",
        scale=(),
        zero_point=(),
        minimum=0,
        maximum=0,
        node=str(stored.target),
        source=source_of(kernel.node),
        precision=kernel.precision.word,
        sha256=digest(half),
    )
    return restored, entry


def _store_channels(module: GraphModule, kernel: Kernel, weight: torch.Tensor, name: str) -> tuple[Node, TensorQuantization]:
    axis, (low, high) = kernel.family.channel_axis or 0, integer_range(kernel)
    rows = weight.movedim(axis, 0).flatten(1)
    scales = covering_scales(rows, minimum=low, maximum=high)
    integers = _round(rows, scales, low, high).reshape(weight.movedim(axis, 0).shape).movedim(0, axis).contiguous()
    stored, restored = restore_channels(module, kernel, integers, scales, name=name)
    return restored, parameter_entry(f"{name}.weight", "weight", kernel, integers, scales, axis=axis, buffer=str(stored.target))


def _store_blocks(
    module: GraphModule, kernel: Kernel, weight: torch.Tensor, blocks: int, name: str
) -> tuple[Node, TensorQuantization]:
    channels, size = int(weight.shape[0]), int(weight.shape[1]) // blocks
    rows, (low, high) = weight.reshape(channels * blocks, size), integer_range(kernel)
    scales = covering_scales(rows, minimum=low, maximum=high)
    integers = _round(rows, scales, low, high).reshape(weight.shape)
    stored = put_constant(module, f"{name}.weight_int8", integers, before=kernel.node)
    scale_node = put_constant(
        module, f"{name}.weight_scale", torch.from_numpy(scales).reshape(channels, blocks), before=kernel.node
    )
    graph, matrix, shape = module.graph, list(weight.shape[:2]), list(weight.shape)
    with graph.inserting_before(kernel.node):
        flat = stored if weight.ndim == len(matrix) else graph.call_function(_RESHAPE, (stored, matrix))
        restored = graph.call_function(_DQ_GROUP, (flat, scale_node, None, low, high, torch.int8, size, torch.float32))
        if weight.ndim != len(matrix):
            restored = graph.call_function(_RESHAPE, (restored, shape))
    entry = parameter_entry(f"{name}.weight", "weight", kernel, integers, scales, axis=0, buffer=str(stored.target))
    return restored, entry.replace(block_size=size)


def restore_channels(
    module: GraphModule, kernel: Kernel, integers: torch.Tensor, scales: Array, *, name: str
) -> tuple[Node, Node]:
    """Put integers with one scale a channel before a kernel; returns the constant's node and the float result's.

    Args:
        module: Edited in place.
        kernel: Its row in the table says which axis the channels are on.
        integers: int8 tensor of the weight's shape.
        scales: ``[C]``, float32.
        name: The layer.
    """
    node, (low, high) = kernel.node, integer_range(kernel)
    stored = put_constant(module, f"{name}.weight_int8", integers, before=node)
    scale_node = put_constant(module, f"{name}.weight_scale", torch.from_numpy(scales), before=node)
    zero_node = put_constant(module, f"{name}.weight_zero_point", torch.zeros(len(scales), dtype=torch.int64), before=node)
    arguments = (stored, scale_node, zero_node, kernel.family.channel_axis or 0, low, high, torch.int8)
    with module.graph.inserting_before(node):
        restored: Node = module.graph.call_function(_DQ_CHANNEL, arguments)
    return stored, restored


def parameter_entry(
    name: str,
    role: Literal["weight", "bias"],
    kernel: Kernel,
    integers: torch.Tensor,
    scales: Array,
    *,
    axis: int,
    buffer: str,
) -> TensorQuantization:
    """The contract entry of a weight or a bias; ``node`` holds its buffer's name."""
    low, high = (-(2**31), 2**31 - 1) if role == "bias" else integer_range(kernel)
    return TensorQuantization(
        name=name,
        role=role,
        op=kernel.family.name,
        layer=kernel.layer,
        shape=tuple(integers.shape),
        dtype="int32" if role == "bias" else "int4" if kernel.precision.weights == "int4" else "int8",
        scale=tuple(float(scale) for scale in scales),
        zero_point=(0,) * len(scales),
        channel_axis=axis,
        minimum=low,
        maximum=high,
        node=buffer,
        source=source_of(kernel.node),
        precision=kernel.precision.word if role == "weight" else "",
        sha256=digest(integers),
    )


def digest(values: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes (little-endian, C order)."""
    return hashlib.sha256(np.ascontiguousarray(values.numpy()).tobytes()).hexdigest()


def _round(rows: torch.Tensor, scales: Array, minimum: int, maximum: int) -> torch.Tensor:
    """``[R, K]`` rounded half to even on each row's scale."""
    steps = torch.round(rows.double() / torch.from_numpy(scales).double().unsqueeze(1))
    return steps.clamp(minimum, maximum).to(torch.int8)
