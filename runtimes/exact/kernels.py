"""Kernels by name: each takes one operation with its values and its runtime's rules, and returns the integers it computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.runtimes.exact.convolution import convolve, convolve_transposed
from edgekit.runtimes.exact.elementwise import Operand
from edgekit.runtimes.exact.products import check_accumulators, matmul, patches
from edgekit.runtimes.exact.requantization import Output, Requantizer
from edgekit.runtimes.exact.table import look_up

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.exact.graph import Graph, Operation, Tensor
    from edgekit.runtimes.exact.rules import Rules

__all__ = ["KERNELS", "MOVING", "Call"]


@dataclasses.dataclass(frozen=True)
class Call:
    """One operation with the values it reads.

    Args:
        graph: The graph.
        operation: The operation.
        values: Tensor -> value, for everything that is not a constant.
        rules: The rounding rules.
    """

    graph: Graph
    operation: Operation
    values: Mapping[str, Array]
    rules: Rules

    @property
    def options(self) -> Mapping[str, Any]:
        """The operation's settings."""
        return self.operation.options

    def tensor(self, at: int) -> Tensor | None:
        """The tensor at a place among those read; None where it is absent."""
        reads = self.operation.reads
        return self.graph.tensors[reads[at]] if at < len(reads) and reads[at] else None

    def value(self, at: int) -> Array:
        """The value at a place."""
        name = self.operation.reads[at]
        constant = self.graph.tensors[name].constant
        return self.values[name] if constant is None else constant

    def operand(self, at: int) -> Operand:
        """The value at a place with its grid, one scale for all."""
        tensor = self.graph.tensors[self.operation.reads[at]]
        return Operand(self.value(at), tensor.step, tensor.zero)

    def steps(self, at: int) -> Array:
        """int64 steps from the zero point, which may differ along an axis."""
        tensor, value = self.graph.tensors[self.operation.reads[at]], self.value(at).astype(np.int64)
        if tensor.zero_point is None or not np.any(tensor.zero_point):
            return value
        shape = [1] * value.ndim
        if len(tensor.zero_point) > 1:
            shape[tensor.axis] = -1
        steps: Array = value - tensor.zero_point.reshape(shape)
        return steps

    @property
    def output(self) -> Output:
        """The grid of the result, with a fused activation's limits."""
        tensor = self.graph.tensors[self.operation.writes[0]]
        low, high = tensor.bounds
        low, high = self.options.get("clamp", (low, high))
        return Output(tensor.step, tensor.zero, low, high, tensor.dtype)


def _convolution(call: Call) -> Array:
    data, weights, bias = call.steps(0), call.steps(1), call.value(2) if call.tensor(2) else None
    first = bool(call.options.get("channels_first"))
    data = np.moveaxis(data, 1, -1) if first else data
    weights = np.moveaxis(weights, 1, -1) if first else weights
    if call.options.get("depthwise_layout"):  # TFLite stores [1, *kernel, O]
        weights = weights[0].transpose(2, 0, 1)[..., None]
    is_depthwise = call.options["groups"] == data.shape[-1] and weights.shape[-1] == 1
    rule = call.rules.depthwise if is_depthwise else call.rules.convolution
    return _requantized(call, convolve(data, weights, bias, call.options), rule, channels_first=first)


def _transposed(call: Call) -> Array:
    bias, first = call.value(2) if call.tensor(2) else None, bool(call.options.get("channels_first"))
    data, weights = call.steps(0), call.steps(1)
    if first:  # ONNX stores [C, O, *kernel]
        data, weights = np.moveaxis(data, 1, -1), np.moveaxis(weights, (0, 1), (-1, 0))
    return _requantized(call, convolve_transposed(data, weights, bias, call.options), call.rules.transposed, channels_first=first)


def _linear(call: Call) -> Array:
    return _product(call, call.rules.linear)


def _matmul(call: Call) -> Array:
    return _product(call, call.rules.matmul)


def _product(call: Call, rule: Requantizer) -> Array:
    data, weights = call.steps(0), call.steps(1)
    data = np.swapaxes(data, -1, -2) if call.options.get("flip_data") else data
    weights = np.swapaxes(weights, -1, -2) if call.options.get("flip_weights") else weights
    if call.options.get("flatten"):
        data = data.reshape(-1, weights.shape[-2])
    sums = matmul(data, weights)
    if call.tensor(2):
        sums = sums + call.value(2).astype(np.int64)
    made = _requantized(call, sums, rule)
    return made.reshape(call.options["shape"]) if "shape" in call.options else made


def _requantized(call: Call, sums: Array, rule: Requantizer, *, channels_first: bool = False) -> Array:
    """Sums with their channels last -> the output's integers in the file's order."""
    data, weights = call.graph.tensors[call.operation.reads[0]], call.graph.tensors[call.operation.reads[1]]
    if np.dtype(data.dtype).itemsize == 1:  # with wider data, sums have 64 bits
        check_accumulators(sums)
    scales = np.ones(1, np.float32) if weights.scale is None else weights.scale
    made: Array = rule(sums, data.step, scales, call.output)
    return np.moveaxis(made, -1, 1) if channels_first else made


def _add(call: Call) -> Array:
    return call.rules.add(*_broadcast(call), int(call.options.get("sign", 1)), call.output)


def _multiply(call: Call) -> Array:
    return call.rules.multiply(*_broadcast(call), 1, call.output)


def _broadcast(call: Call) -> tuple[Operand, Operand]:
    one, other = call.operand(0), call.operand(1)
    shape = np.broadcast_shapes(one.values.shape, other.values.shape)
    return tuple(dataclasses.replace(side, values=np.broadcast_to(side.values, shape)) for side in (one, other))  # type: ignore[return-value]


def _mean(call: Call) -> Array:
    data = call.operand(0)
    given = call.options["axes"]
    rank = data.values.ndim
    axes = tuple(range(2, rank)) if given is None else tuple(axis % rank for axis in given)
    count = int(np.prod([data.values.shape[axis] for axis in axes]))
    sums = data.steps.sum(axes, keepdims=bool(call.options.get("keepdims", True)))
    is_spatial = rank == 4 and set(axes) == {1, 2} and bool(call.options.get("keepdims", True))
    rule = call.rules.spatial_mean if is_spatial else call.rules.mean
    return rule(sums, count, data, call.output)


def _quantize(call: Call) -> Array:
    return call.rules.quantize(call.value(0), call.output)


def _dequantize(call: Call) -> Array:
    return call.rules.dequantize(call.operand(0))


def _clip(call: Call) -> Array:
    low, high = call.options["clamp"]
    made: Array = np.clip(call.value(0), low, high)
    return made


def _pad(call: Call) -> Array:
    return np.pad(call.value(0), call.options["pads"], constant_values=call.options["value"])


def _reshape(call: Call) -> Array:
    value, shape = call.value(0), call.options["shape"]
    if call.options.get("copies_zero"):
        shape = tuple(value.shape[axis] if size == 0 else size for axis, size in enumerate(shape))
    return value.reshape(shape)


def _flatten(call: Call) -> Array:
    value, axis = call.value(0), call.options["axis"]
    return value.reshape(int(np.prod(value.shape[:axis])), -1)


def _squeeze(call: Call) -> Array:
    return np.squeeze(call.value(0), call.options["axes"])


def _unsqueeze(call: Call) -> Array:
    return np.expand_dims(call.value(0), call.options["axes"])


def _transpose(call: Call) -> Array:
    return call.value(0).transpose(call.options["order"])


def _slice(call: Call) -> Array:
    value = call.value(0)
    if "picks" in call.options:
        chosen: Array = value[call.options["picks"]]
        return chosen.reshape(call.options["shape"])
    picks = [slice(None)] * value.ndim
    for axis, start, end, step in call.options["limits"]:
        size = value.shape[axis]
        stop = None if step < 0 and end < -size else end
        picks[axis] = slice(start, stop, step)
    picked: Array = value[tuple(picks)]
    return picked


def _concatenate(call: Call) -> Array:
    """Parts on other grids than the result's are put on it first."""
    output = call.output
    parts = []
    for at, _ in enumerate(call.operation.reads):
        part = call.operand(at)
        same = part.scale == output.scale and part.zero_point == output.zero_point
        parts.append(part.values if same else call.rules.requantize(part, output))
    return np.concatenate(parts, axis=call.options["axis"])


def _requantize(call: Call) -> Array:
    return _on_another_grid(call, call.rules.requantize)


def _rescaled_clamp(call: Call) -> Array:
    return _on_another_grid(call, call.rules.rescaled_clamp)


def _on_another_grid(call: Call, rule: Callable[[Operand, Output], Array]) -> Array:
    data, output = call.operand(0), call.output
    if data.scale == output.scale and data.zero_point == output.zero_point and data.values.dtype == output.dtype:
        return np.clip(data.values, output.low, output.high)
    return rule(data, output)


def _windows(call: Call, filled: int) -> tuple[Array, tuple[int, ...]]:
    """Windows ``[N, *outputs, C, *window]`` of the stored integers, and the axes of a window."""
    value = np.moveaxis(call.value(0), 1, -1) if call.options.get("channels_first") else call.value(0)
    size, pads = call.options["window"], list(call.options["pads"])
    if call.options.get("ceil"):  # the last window may run over the edge, if it begins before it
        for axis, (low, high) in enumerate(pads):
            whole = value.shape[1 + axis] + low + high - (size[axis] - 1) * call.options["dilations"][axis] - 1
            missing = -whole % call.options["strides"][axis]
            begins = whole + missing < value.shape[1 + axis] + low
            pads[axis] = (low, high + (missing if begins else 0))
    padded = np.pad(value.astype(np.int64), [(0, 0), *pads, (0, 0)], constant_values=filled)
    windows = patches(padded, kernel=size, strides=call.options["strides"], dilations=call.options["dilations"])
    return windows, tuple(range(-len(size), 0))


def _max_pool(call: Call) -> Array:
    output = call.output
    windows, axes = _windows(call, output.low if output.zero_point >= output.low else output.zero_point)
    largest = np.clip(windows.max(axes), output.low, output.high).astype(output.dtype)
    return np.moveaxis(largest, -1, 1) if call.options.get("channels_first") else largest


def _average_pool(call: Call) -> Array:
    data = call.operand(0)
    windows, axes = _windows(call, data.zero_point)
    inside = np.ones_like(call.value(0)) if not call.options.get("counts_padding") else None
    steps = windows.reshape(*windows.shape[: -len(axes)], -1) - data.zero_point
    counts = np.full(steps.shape[:-1], steps.shape[-1])
    if inside is not None:
        ones = dataclasses.replace(call, values={**call.values, call.operation.reads[0]: inside})
        counts = _windows(ones, 0)[0].sum(axes)
    made = call.rules.average(steps, counts, data, call.output)
    return np.moveaxis(made, -1, 1) if call.options.get("channels_first") else made


def _table(call: Call) -> Array:
    return look_up(call.operand(0), call.options["function"], call.output, call.rules.quantize)


def _leaky_relu(call: Call) -> Array:
    return call.rules.leaky_relu(call.operand(0), float(call.options["slope"]), call.output)


def _pick(call: Call) -> Array:
    rows, columns = call.options["places"]
    picked: Array = call.value(0)[:, rows][:, :, columns]
    return picked


def _gather(call: Call) -> Array:
    picked: Array = np.take(call.value(0), call.options["indices"], axis=call.options["axis"])
    return picked


def _softmax(call: Call) -> Array:
    return call.rules.softmax(call.operand(0), call.output, axis=call.options.get("axis", -1), beta=call.options["beta"])


KERNELS: dict[str, Callable[[Call], Any]] = {
    "add": _add,
    "average_pool": _average_pool,
    "clip": _clip,
    "concatenate": _concatenate,
    "convolution": _convolution,
    "dequantize": _dequantize,
    "flatten": _flatten,
    "gather": _gather,
    "leaky_relu": _leaky_relu,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool": _max_pool,
    "mean": _mean,
    "multiply": _multiply,
    "pad": _pad,
    "pick": _pick,
    "quantize": _quantize,
    "requantize": _requantize,
    "rescaled_clamp": _rescaled_clamp,
    "reshape": _reshape,
    "slice": _slice,
    "softmax": _softmax,
    "squeeze": _squeeze,
    "table": _table,
    "transpose": _transpose,
    "transposed_convolution": _transposed,
    "unsqueeze": _unsqueeze,
}
"""Name -> kernel."""

MOVING = {"clip", "flatten", "gather", "max_pool", "pad", "pick", "reshape", "slice", "squeeze", "transpose", "unsqueeze"}
"""Kernels that round nothing."""
