"""TFLite operators translated into exact kernels.

Fused activations become limits of the integers, as ``CalculateActivationRangeQuantized`` makes them
(``tensorflow/lite/kernels/kernel_util.cc``); ``SAME`` padding becomes explicit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.runtimes.exact.graph import Operation

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.exact.graph import Tensor
    from edgekit.runtimes.litert_stored import StoredGraph

__all__ = ["TRANSLATORS", "Node"]

Settings = dict[str, Any]
_RELU, _RELU_N1_TO_1, _RELU6 = 1, 2, 3
_SAME = 0
_LIMITS = {_RELU: (0.0, math.inf), _RELU_N1_TO_1: (-1.0, 1.0), _RELU6: (0.0, 6.0)}


class Node:
    """One operator, with what a translator asks of it."""

    def __init__(
        self, file: StoredGraph, tensors: Mapping[str, Tensor], operator: Any, kind: str, reads: tuple[str, ...],
        writes: tuple[str, ...],
    ) -> None:  # fmt: skip
        self._file, self._tensors, self._operator = file, tensors, operator
        self.kind, self.reads, self.writes = kind, reads, writes
        self.options = operator.builtinOptions

    def shape(self, at: int) -> tuple[int, ...]:
        """Sizes of the tensor at a place among those read."""
        return self._file.shape(int(self._operator.inputs[at]))

    @property
    def made(self) -> tuple[int, ...]:
        """Sizes of the result."""
        return self._file.shape(int(self._operator.outputs[0]))

    def constant(self, at: int) -> Array | None:
        """The constant at a place; None where it is computed, or absent."""
        return self._tensors[self.reads[at]].constant if at < len(self.reads) and self.reads[at] else None

    def tensor(self, at: int) -> Tensor:
        """The tensor at a place."""
        return self._tensors[self.reads[at]]

    @property
    def output(self) -> Tensor:
        """The result."""
        return self._tensors[self.writes[0]]

    @property
    def clamp(self) -> Settings:
        """Limits of the fused activation."""
        return clamp_of(self.output, int(getattr(self.options, "fusedActivationFunction", 0) or 0))

    def integer(self, kernel: str, reads: tuple[str, ...] | None = None, **settings: Any) -> Operation:
        """An operation whose data and result are integers on grids; without a kernel where they are not."""
        chosen = self.reads if reads is None else reads
        if not (self._tensors[chosen[0]].is_integer and self.output.is_integer):
            reason = "its data are not integers on one grid"
            return Operation(self.kind, "", chosen, self.writes, reason=reason)
        return Operation(self.kind, kernel, chosen, self.writes, {**self.clamp, **settings})

    def moved(self, kernel: str, **settings: Any) -> Operation:
        """An operation that moves values of any type."""
        return Operation(self.kind, kernel, self.reads[:1], self.writes, settings)

    def unknown(self, reason: str) -> Operation:
        """An operation without a kernel."""
        return Operation(self.kind, "", self.reads, self.writes, reason=reason)


def clamp_of(output: Tensor, activation: int) -> Settings:
    """Limits of integers for a fused activation; empty where there is none."""
    if activation not in _LIMITS or not output.is_integer:
        return {}
    low, high = output.bounds
    ends = []
    for limit, end in zip(_LIMITS[activation], (low, high), strict=True):
        steps = np.float32(limit) / output.step
        ends.append(end if math.isinf(limit) else output.zero + math.floor(abs(steps) + 0.5) * (1 if steps >= 0 else -1))
    return {"clamp": (max(low, ends[0]), min(high, ends[1]))}


def _window(
    node: Node, kernel: tuple[int, ...], sizes: tuple[int, ...], made: tuple[int, ...], dilations: tuple[int, ...]
) -> Settings:
    """Strides, dilations and explicit pads of a window operator; ``SAME`` puts the odd cell at the end."""
    strides = (int(node.options.strideH), int(node.options.strideW))
    pads = []
    for size, result, span, stride, dilation in zip(sizes, made, kernel, strides, dilations, strict=True):
        needed = (result - 1) * stride + (span - 1) * dilation + 1 - size
        total = max(needed, 0) if int(node.options.padding) == _SAME else 0
        pads.append((total // 2, total - total // 2))
    return {"strides": strides, "dilations": dilations, "pads": tuple(pads)}


def _convolution(node: Node) -> Operation:
    dilations = (int(node.options.dilationHFactor), int(node.options.dilationWFactor))
    weights = node.shape(1)
    window = _window(node, weights[1:3], node.shape(0)[1:3], node.made[1:3], dilations)
    return node.integer("convolution", groups=node.shape(0)[3] // weights[3], **window)


def _depthwise(node: Node) -> Operation:
    dilations = (int(node.options.dilationHFactor), int(node.options.dilationWFactor))
    weights = node.shape(1)
    window = _window(node, weights[1:3], node.shape(0)[1:3], node.made[1:3], dilations)
    return node.integer("convolution", groups=node.shape(0)[3], depthwise_layout=True, **window)


def _transposed(node: Node) -> Operation:
    """Reads are output shape, weights, data, bias."""
    strides = (int(node.options.strideH), int(node.options.strideW))
    pads = []
    for size, made, span, stride in zip(node.shape(2)[1:3], node.made[1:3], node.shape(1)[1:3], strides, strict=True):
        total = max((size - 1) * stride + span - made, 0) if int(node.options.padding) == _SAME else 0
        pads.append((total // 2, total - total // 2))
    reads = (node.reads[2], node.reads[1], *node.reads[3:4])
    return node.integer("transposed_convolution", reads, strides=strides, pads=tuple(pads), sizes=node.made[1:3])


def _linear(node: Node) -> Operation:
    return node.integer("linear", flip_weights=True, flatten=True, shape=node.made)


def _matmul(node: Node) -> Operation:
    kernel = "matmul" if node.constant(1) is None else "linear"
    return node.integer(kernel, flip_data=bool(node.options.adjX), flip_weights=bool(node.options.adjY))


def _add(node: Node) -> Operation:
    return node.integer("add", sign=1 if node.kind == "ADD" else -1)


def _mean(node: Node) -> Operation:
    axes = node.constant(1)
    if axes is None:
        return node.unknown("its axes are computed")
    return node.integer(
        "mean", node.reads[:1], axes=tuple(int(axis) for axis in axes.reshape(-1)), keepdims=bool(node.options.keepDims)
    )


def _pad(node: Node) -> Operation:
    pads = node.constant(1)
    if pads is None:
        return node.unknown("its padding is computed")
    value = node.constant(2) if len(node.reads) > 2 else None
    filled = node.tensor(0).zero if value is None else value.reshape(-1)[0]
    return node.moved("pad", pads=tuple((int(low), int(high)) for low, high in pads), value=filled)


def _reshape(node: Node) -> Operation:
    return node.moved("reshape", shape=node.made)


def _transpose(node: Node) -> Operation:
    order = node.constant(1)
    return node.unknown("its order is computed") if order is None else node.moved("transpose", order=tuple(map(int, order)))


def _quantize(node: Node) -> Operation:
    kernel = "requantize" if node.tensor(0).is_integer else "quantize"
    return Operation(node.kind, kernel, node.reads[:1], node.writes)


def _dequantize(node: Node) -> Operation:
    if not node.tensor(0).is_integer:
        return node.unknown("its data are not integers on one grid")
    return Operation(node.kind, "dequantize", node.reads[:1], node.writes)


def _pool(node: Node) -> Operation:
    kernel = (int(node.options.filterHeight), int(node.options.filterWidth))
    window = _window(node, kernel, node.shape(0)[1:3], node.made[1:3], (1, 1))
    return node.integer("max_pool" if node.kind.startswith("MAX") else "average_pool", window=kernel, **window)


def _concatenate(node: Node) -> Operation:
    return node.integer("concatenate", axis=int(node.options.axis))


def _softmax(node: Node) -> Operation:
    return node.integer("softmax", beta=float(node.options.beta))


def _table(function: str) -> Callable[[Node], Operation]:
    return lambda node: node.integer("table", function=function)


def _leaky_relu(node: Node) -> Operation:
    return node.integer("leaky_relu", slope=float(node.options.alpha))


def _resize_nearest(node: Node) -> Operation:
    """``GetNearestNeighbor`` of ``internal/reference/reference_ops.h``: floor, or round where corners are aligned."""
    aligned, half = bool(node.options.alignCorners), np.float32(0.5 if node.options.halfPixelCenters else 0.0)
    places = []
    for size, made in zip(node.shape(0)[1:3], node.made[1:3], strict=True):
        scale = np.float32((size - 1) / (made - 1)) if aligned and made > 1 else np.float32(size) / np.float32(made)
        exact = (np.arange(made, dtype=np.float32) + half) * scale
        places.append(np.clip(np.floor(exact + np.float32(0.5)) if aligned else np.floor(exact), 0, size - 1).astype(np.int64))
    return node.moved("pick", places=tuple(places))


def _gelu(node: Node) -> Operation:
    return node.unknown("it approximates GELU by tanh") if node.options.approximate else node.integer("table", function="gelu")


def _clipped(activation: int) -> Callable[[Node], Operation]:
    return lambda node: node.integer("rescaled_clamp", **clamp_of(node.output, activation))


def _strided_slice(node: Node) -> Operation:
    begin, end, strides = (node.constant(at) for at in (1, 2, 3))
    masked = any(int(getattr(node.options, name)) for name in ("ellipsisMask", "newAxisMask"))
    if begin is None or end is None or strides is None or masked:
        return node.unknown("its limits are computed")
    picks = []
    for axis, (low, high, step) in enumerate(zip(begin, end, strides, strict=True)):
        bit = 1 << axis
        start = None if int(node.options.beginMask) & bit else int(low)
        stop = None if int(node.options.endMask) & bit else int(high)
        if int(node.options.shrinkAxisMask) & bit:
            start, stop = int(low), None if int(low) == -1 else int(low) + 1
        picks.append(slice(start, stop, int(step)))
    return node.moved("slice", picks=tuple(picks), shape=node.made)


def _slice(node: Node) -> Operation:
    begin, size = node.constant(1), node.constant(2)
    if begin is None or size is None:
        return node.unknown("its limits are computed")
    picks = tuple(
        slice(int(low), None if int(count) < 0 else int(low) + int(count)) for low, count in zip(begin, size, strict=True)
    )
    return node.moved("slice", picks=picks, shape=node.made)


TRANSLATORS: dict[str, Callable[[Node], Operation]] = {
    "ADD": _add, "AVERAGE_POOL_2D": _pool, "BATCH_MATMUL": _matmul, "CONCATENATION": _concatenate, "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise, "DEQUANTIZE": _dequantize, "EXPAND_DIMS": _reshape, "FULLY_CONNECTED": _linear,
    "GELU": _gelu, "HARD_SWISH": _table("hard_swish"), "LEAKY_RELU": _leaky_relu, "LOGISTIC": _table("logistic"),
    "MAX_POOL_2D": _pool, "MEAN": _mean, "MUL": lambda node: node.integer("multiply"), "PAD": _pad, "PADV2": _pad,
    "QUANTIZE": _quantize, "RELU": _clipped(_RELU), "RELU6": _clipped(_RELU6), "RESHAPE": _reshape,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest, "SLICE": _slice, "SOFTMAX": _softmax, "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice, "SUB": _add, "TANH": _table("tanh"), "TRANSPOSE": _transpose, "TRANSPOSE_CONV": _transposed,
}  # fmt: skip
"""Operator in the schema -> its translation."""
