"""ONNX operators between dequantize and quantize nodes, translated into exact kernels.

A group's operator is replaced by one of integers (``UnaryOpQDQRules``, ``BinaryOpQDQRules``, ``ConvQDQRules`` ... of
``qdq_selector_action_transformer.cc``), or runs in float32 between the two grids; then its table is filled as float32 would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgekit.runtimes.exact.graph import Operation

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["ALL_QUANTIZED", "BETWEEN", "ON_INTEGERS", "Group", "attributes"]

Settings = dict[str, Any]


class Reader(Protocol):
    """What a group asks of the file's reader."""

    @property
    def constants(self) -> Mapping[str, Array]:
        """Constant tensors by name."""
        ...


class Group:
    """One operator with the integers it reads and the one tensor it makes."""

    def __init__(self, reader: Reader, node: Any, reads: tuple[str, ...], made: str) -> None:
        self._reader, self.node, self.reads, self.made = reader, node, reads, made
        self.attributes = attributes(node)

    def constant(self, at: int) -> Array:
        """The constant at a place among those read."""
        return self._reader.constants[self.reads[at]]

    def has(self, at: int) -> bool:
        """Whether an optional input is there."""
        return at < len(self.reads) and bool(self.reads[at])

    def shape(self, at: int) -> tuple[int, ...]:
        """Sizes of a constant."""
        return tuple(self.constant(at).shape)

    def operation(self, kernel: str, reads: tuple[str, ...] | None = None, **settings: Any) -> Operation:
        """The group as one operation."""
        return Operation(self.node.op_type, kernel, self.reads if reads is None else reads, (self.made,), settings)

    def unknown(self, reason: str) -> Operation:
        """The group as an operation without a kernel."""
        return Operation(self.node.op_type, "", self.reads, (self.made,), reason=reason)


def attributes(node: Any) -> Settings:
    """A node's attributes as Python values."""
    import onnx.helper

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _convolution(group: Group) -> Operation:
    weights, settings = group.shape(1), group.attributes
    rank = len(weights) - 2
    flat = settings.get("pads", [0] * 2 * rank)
    if settings.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
        return group.unknown("its padding is automatic")
    return group.operation(
        "convolution",
        channels_first=True,
        groups=int(settings.get("group", 1)),
        strides=tuple(settings.get("strides", [1] * rank)),
        dilations=tuple(settings.get("dilations", [1] * rank)),
        pads=tuple((int(flat[axis]), int(flat[axis + rank])) for axis in range(rank)),
    )


def _transposed(group: Group) -> Operation:
    weights, settings = group.shape(1), group.attributes
    rank = len(weights) - 2
    flat, ones = settings.get("pads", [0] * 2 * rank), [1] * rank
    if settings.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in settings or settings.get("group", 1) != 1:
        return group.unknown("it has groups, or padding that is automatic")
    if list(settings.get("dilations", ones)) != ones:
        return group.unknown("it is dilated")
    return group.operation(
        "transposed_convolution",
        channels_first=True,
        strides=tuple(settings.get("strides", ones)),
        pads=tuple((int(flat[axis]), int(flat[axis + rank])) for axis in range(rank)),
        more=tuple(settings.get("output_padding", [0] * rank)),
    )


def _gather(group: Group) -> Operation:
    return group.operation("gather", group.reads[:1], indices=group.constant(1), axis=int(group.attributes.get("axis", 0)))


def _gelu(group: Group) -> Operation:
    exact = group.attributes.get("approximate", b"none") == b"none"
    return group.operation("table", function="gelu") if exact else group.unknown("it approximates GELU by tanh")


def _leaky_relu(group: Group) -> Operation:
    return group.operation("leaky_relu", slope=float(group.attributes.get("alpha", 0.01)))


def _gemm(group: Group) -> Operation:
    settings = group.attributes
    if float(settings.get("alpha", 1.0)) != 1.0 or float(settings.get("beta", 1.0)) != 1.0:
        return group.unknown("it is scaled by alpha or beta")
    return group.operation("linear", flip_data=bool(settings.get("transA", 0)), flip_weights=bool(settings.get("transB", 0)))


def _global_average(group: Group) -> Operation:
    return group.operation("mean", axes=None, keepdims=True)


def _reduce_mean(group: Group) -> Operation:
    axes = group.attributes.get("axes") or (tuple(int(axis) for axis in group.constant(1)) if group.has(1) else None)
    return group.operation("mean", group.reads[:1], axes=axes, keepdims=bool(group.attributes.get("keepdims", 1)))


def _reshape(group: Group) -> Operation:
    return group.operation("reshape", group.reads[:1], shape=tuple(int(size) for size in group.constant(1)), copies_zero=True)


def _axes_of(group: Group) -> tuple[int, ...] | None:
    if group.has(1):
        return tuple(int(axis) for axis in group.constant(1))
    found = group.attributes.get("axes")
    return None if found is None else tuple(int(axis) for axis in found)


def _squeeze(group: Group) -> Operation:
    return group.operation("squeeze", group.reads[:1], axes=_axes_of(group))


def _unsqueeze(group: Group) -> Operation:
    return group.operation("unsqueeze", group.reads[:1], axes=_axes_of(group))


def _flatten(group: Group) -> Operation:
    return group.operation("flatten", axis=int(group.attributes.get("axis", 1)))


def _transpose(group: Group) -> Operation:
    order = group.attributes.get("perm")
    return group.operation("transpose", order=None if order is None else tuple(order))


def _clip(group: Group) -> Operation:
    low = group.constant(1).item() if group.has(1) else -np.inf
    high = group.constant(2).item() if group.has(2) else np.inf
    return group.operation("clip", group.reads[:1], clamp=(low, high))


def _pad(group: Group) -> Operation:
    flat = [int(amount) for amount in group.constant(1)]
    if group.attributes.get("mode", b"constant") != b"constant" or group.has(3) or min(flat) < 0:
        return group.unknown("it pads otherwise than with a constant on all axes")
    rank = len(flat) // 2
    value = group.constant(2).item() if group.has(2) else 0
    return group.operation(
        "pad", group.reads[:1], pads=tuple((flat[axis], flat[axis + rank]) for axis in range(rank)), value=value
    )


def _concatenate(group: Group) -> Operation:
    return group.operation("concatenate", axis=int(group.attributes["axis"]))


def _slice(group: Group) -> Operation:
    starts, ends = group.constant(1), group.constant(2)
    axes = group.constant(3) if group.has(3) else np.arange(len(starts))
    steps = group.constant(4) if group.has(4) else np.ones(len(starts), np.int64)
    return group.operation(
        "slice", group.reads[:1], limits=tuple(zip(*(map(int, row) for row in (axes, starts, ends, steps)), strict=True))
    )


def _softmax(group: Group) -> Operation:
    return group.operation("softmax", axis=int(group.attributes.get("axis", -1)), beta=1.0)


def _table(function: str) -> Callable[[Group], Operation]:
    return lambda group: group.operation("table", function=function)


def _pool(kernel: str) -> Callable[[Group], Operation]:
    def translate(group: Group) -> Operation:
        settings = group.attributes
        shape = tuple(settings["kernel_shape"])
        rank = len(shape)
        flat = settings.get("pads", [0] * 2 * rank)
        if settings.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
            return group.unknown("its padding is automatic")
        return group.operation(
            kernel,
            channels_first=True,
            window=shape,
            strides=tuple(settings.get("strides", [1] * rank)),
            dilations=tuple(settings.get("dilations", [1] * rank)),
            pads=tuple((int(flat[axis]), int(flat[axis + rank])) for axis in range(rank)),
            counts_padding=bool(settings.get("count_include_pad", 0)),
            ceil=bool(settings.get("ceil_mode", 0)),
        )

    return translate


_MOVES: dict[str, Callable[[Group], Operation]] = {
    "Flatten": _flatten, "Gather": _gather, "Reshape": _reshape, "Slice": _slice, "Squeeze": _squeeze, "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}  # fmt: skip
BETWEEN: dict[str, Callable[[Group], Operation]] = {
    **_MOVES, "Add": lambda group: group.operation("add"), "AveragePool": _pool("average_pool"), "Concat": _concatenate,
    "Conv": _convolution, "ConvTranspose": _transposed, "Gelu": _gelu, "Gemm": _gemm, "GlobalAveragePool": _global_average,
    "HardSwish": _table("hard_swish"), "LeakyRelu": _leaky_relu, "MatMul": lambda group: group.operation("matmul"),
    "MaxPool": _pool("max_pool"), "Mul": lambda group: group.operation("multiply"), "ReduceMean": _reduce_mean,
    "Relu": _table("relu"), "Sigmoid": _table("logistic"), "Softmax": _softmax, "Tanh": _table("tanh"),
}  # fmt: skip
"""Operators that become one of integers between dequantize and quantize nodes."""
ON_INTEGERS: dict[str, Callable[[Group], Operation]] = {
    **_MOVES,
    "Clip": _clip,
    "Concat": _concatenate,
    "MaxPool": _pool("max_pool"),
    "Pad": _pad,
}
"""Operators that may stand on integers, or move values of any type."""
ALL_QUANTIZED = {"Add", "Conv", "ConvTranspose", "Gemm", "MatMul", "Mul"}
"""Operators all of whose inputs come from dequantize nodes."""
