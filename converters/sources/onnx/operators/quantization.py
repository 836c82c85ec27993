"""Integers with scales: files that are quantized already keep their integers."""

from __future__ import annotations

import math
from typing import Any

import torch

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.convolution import convolve
from edgekit.converters.sources.onnx.operators.pooling import average
from edgekit.converters.sources.onnx.operators.table import MICROSOFT, operator
from edgekit.converters.sources.onnx.operators.windows import windows_of
from edgekit.converters.sources.onnx.tensors import torch_type
from edgekit.core.program import register_operators

__all__: list[str] = []

register_operators()
_OWN = {torch.int8, torch.uint8, torch.int16, torch.int32}


def _scalar(call: Call, index: int) -> bool:
    return call.known(index) is not None and math.prod(call.shape(index)) == 1


def _grid(dtype: torch.dtype) -> tuple[int, int]:
    limits = torch.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _spread(grid: torch.Tensor, values: torch.Tensor, axis: int, block: int) -> torch.Tensor:
    """Scales or zero points as they are broadcast over a tensor: one number, one an index of an axis, or one a block."""
    if grid.dim() == 0 or grid.numel() == 1:
        return grid.reshape(())
    if grid.dim() == 1:
        return grid.reshape([-1 if at == axis % values.dim() else 1 for at in range(values.dim())])
    return grid.repeat_interleave(block, axis).narrow(axis, 0, int(values.shape[axis])) if block else grid


def quantize(call: Call, values: torch.Tensor, scale: int, zero: int | None, dtype: torch.dtype) -> torch.Tensor:
    """``round(x / scale) + zero``, saturated; ``scale`` and ``zero`` are input positions.

    Raises:
        UnsupportedOpError: The result has an element type without integer arithmetic in torch.
    """
    if "float8" in str(dtype):
        axis, block = call.attribute("axis", 1), call.attribute("block_size", 0)
        largest = torch.finfo(dtype).max
        return torch.clamp(values / _spread(call.tensor(scale), values, axis, block), -largest, largest).to(dtype)
    low, high = _grid(dtype)
    if dtype in _OWN and _scalar(call, scale) and (zero is None or _scalar(call, zero)) and values.dtype == torch.float32:
        offset = 0 if zero is None else int(call.scalar(zero, 0))
        step = float(call.scalar(scale, 1.0))
        made: torch.Tensor = torch.ops.quantized_decomposed.quantize_per_tensor(values, step, offset, low, high, dtype)
        return made
    axis, block = call.attribute("axis", 1), call.attribute("block_size", 0)
    steps = torch.round(values.to(torch.float32) / _spread(call.tensor(scale), values, axis, block).to(torch.float32))
    if zero is not None:
        steps = steps + _spread(call.tensor(zero), values, axis, block).to(torch.float32)
    return torch.clamp(steps, low, high).to(torch.int32).to(dtype)


def dequantize(call: Call, index: int, scale: int, zero: int | None) -> torch.Tensor:
    """``(q - zero) scale`` of the input at ``index``."""
    values, kind = call.tensor(index), call.dtype(scale)
    if values.dtype in _OWN and kind == torch.float32:
        if _scalar(call, scale) and (zero is None or _scalar(call, zero)):
            return _dequantize_tensor(call, values, scale, zero)
        if len(call.shape(scale)) == 1 and call.known(scale) is not None and (zero is None or call.known(zero) is not None):
            return _dequantize_channels(call, index, scale, zero)
    axis, block = call.attribute("axis", 1), call.attribute("block_size", 0)
    real = values.to(torch.float32)
    if zero is not None:
        real = real - _spread(call.tensor(zero), values, axis, block).to(torch.float32)
    return (real * _spread(call.tensor(scale), values, axis, block).to(torch.float32)).to(kind)


def _dequantize_tensor(call: Call, values: torch.Tensor, scale: int, zero: int | None) -> torch.Tensor:
    offset, step = 0 if zero is None else int(call.scalar(zero, 0)), float(call.scalar(scale, 1.0))
    low, high = _grid(values.dtype)
    real: torch.Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor(values, step, offset, low, high, values.dtype)
    return real


def _dequantize_channels(call: Call, index: int, scale: int, zero: int | None) -> torch.Tensor:
    """One scale for each index of an axis: of weights the first, unless the node says another."""
    values, count = call.tensor(index), call.shape(scale)[0]
    axis = call.attribute("axis", 1) % len(call.shape(index)) if call.operator == "DequantizeLinear" else 0

    def offsets() -> torch.Tensor:
        return torch.zeros(count, dtype=torch.int64) if zero is None else call.constant(zero).to(torch.int64)

    zeros, (low, high) = call.computed(f"zero_points_{index}", offsets), _grid(values.dtype)
    real: torch.Tensor = torch.ops.quantized_decomposed.dequantize_per_channel(
        values, call.tensor(scale), zeros, axis, low, high, values.dtype
    )
    return real


def _optional(call: Call, index: int) -> int | None:
    return index if call.has(index) else None


@operator("QuantizeLinear")
def quantize_linear(call: Call) -> torch.Tensor:
    """Real numbers to integers.

    Raises:
        UnsupportedOpError: To 4 bits or fewer: torch holds them in bytes and would not saturate.
    """
    kind = call.attribute("output_dtype", 0)
    dtype = call.dtype(2) if call.has(2) else torch_type(kind, "The result of 'QuantizeLinear'") if kind else torch.uint8
    return quantize(call, call.tensor(0), 1, _optional(call, 2), dtype)


@operator("QuantizeLinear", domain=MICROSOFT)
def microsoft_quantize_linear(call: Call) -> torch.Tensor:
    """Real numbers to integers, in ONNX Runtime's own form."""
    return quantize(call, call.tensor(0), 1, _optional(call, 2), call.dtype(2) if call.has(2) else torch.uint8)


@operator("DequantizeLinear", keeps=True)
def dequantize_linear(call: Call) -> torch.Tensor:
    """Integers to real numbers."""
    return dequantize(call, 0, 1, _optional(call, 2))


@operator("DequantizeLinear", domain=MICROSOFT, keeps=True)
def microsoft_dequantize_linear(call: Call) -> torch.Tensor:
    """Integers to real numbers, in ONNX Runtime's own form."""
    return dequantize(call, 0, 1, _optional(call, 2))


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(call: Call) -> tuple[torch.Tensor, ...]:
    """To uint8 by the range of the numbers themselves: values, scale, zero point."""
    values = call.tensor(0)
    low, high = torch.clamp(values.amin(), max=0.0), torch.clamp(values.amax(), min=0.0)
    scale = (high - low) / 255.0
    zero = torch.clamp(torch.round((0.0 - low) / scale), 0, 255)
    made = torch.clamp(torch.round(values / scale) + zero, 0, 255)
    return made.to(torch.uint8), scale, zero.to(torch.uint8)


@operator("QLinearConv")
def quantized_convolution(call: Call) -> torch.Tensor:
    """Convolution of integers: dequantized, convolved, quantized. The bias is on the grid of the products."""
    values, weight = dequantize(call, 0, 1, 2), dequantize(call, 3, 4, 5)
    bias = None
    if call.has(8):
        scales = call.tensor(1).to(torch.float32) * call.tensor(4)
        bias = call.tensor(8).to(torch.float32) * scales.reshape(-1)
    return quantize(call, convolve(call, values, weight, bias), 6, 7, call.dtype(7))


@operator("QLinearMatMul")
def quantized_matmul(call: Call) -> torch.Tensor:
    """Product of matrices of integers."""
    a, b = _rows(call, 0, axis=-2), _rows(call, 3, axis=-1)
    return quantize(call, torch.matmul(a, b), 6, 7, call.dtype(7))


def _rows(call: Call, index: int, *, axis: int) -> torch.Tensor:
    """A matrix of integers as real numbers; scales may be one a row (of the first) or one a column (of the second)."""
    if _scalar(call, index + 1) and _scalar(call, index + 2):
        return dequantize(call, index, index + 1, index + 2)
    values, scale, zero = call.tensor(index), call.tensor(index + 1).to(torch.float32), call.tensor(index + 2).to(torch.float32)
    if scale.dim() == 1 and scale.numel() > 1:
        shape = [1] * values.dim()
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return (values.to(torch.float32) - zero) * scale


@operator("MatMulInteger")
def matmul_integer(call: Call) -> torch.Tensor:
    """Product of matrices of integers, as int32; exact up to 2^24 in float arithmetic, which every target has."""
    a, b = call.tensor(0).to(torch.float32), call.tensor(1).to(torch.float32)
    if call.has(2):
        zero = call.tensor(2).to(torch.float32)
        a = a - (zero.reshape(-1, 1) if zero.numel() > 1 and zero.dim() == 1 else zero)
    if call.has(3):
        b = b - call.tensor(3).to(torch.float32)
    return torch.matmul(a, b).to(torch.int32)


@operator("ConvInteger")
def convolution_integer(call: Call) -> torch.Tensor:
    """Convolution of integers, as int32."""
    values, weight = call.tensor(0).to(torch.float32), call.tensor(1).to(torch.float32)
    if call.has(2):
        values = values - call.tensor(2).to(torch.float32)
    if call.has(3):
        zero = call.tensor(3).to(torch.float32)
        weight = weight - (zero.reshape(-1, *[1] * (weight.dim() - 1)) if zero.numel() > 1 else zero)
    return convolve(call, values, weight, None).to(torch.int32)


@operator("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def quantized_pair(call: Call) -> torch.Tensor:
    """Sum or product of integers on grids of their own."""
    a, b = dequantize(call, 0, 1, _optional(call, 2)), dequantize(call, 3, 4, _optional(call, 5))
    result = a + b if call.operator == "QLinearAdd" else a * b
    return quantize(call, result, 6, _optional(call, 7), call.dtype(0))


@operator("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", domain=MICROSOFT)
def quantized_activation(call: Call) -> torch.Tensor:
    """An activation of integers."""
    values = dequantize(call, 0, 1, _optional(call, 2))
    if call.operator == "QLinearSigmoid":
        result = torch.sigmoid(values)
    elif call.operator == "QLinearSoftmax":
        result = torch.softmax(values, call.attribute("axis", -1))
    else:
        result = torch.nn.functional.leaky_relu(values, call.attribute("alpha", 0.01))
    return quantize(call, result, 3, _optional(call, 4), call.dtype(0))


@operator("QLinearGlobalAveragePool", "QLinearAveragePool", domain=MICROSOFT)
def quantized_pool(call: Call) -> torch.Tensor:
    """A mean of integers."""
    last = bool(call.attribute("channels_last", 0))
    values = dequantize(call, 0, 1, _optional(call, 2))
    values = values.movedim(-1, 1) if last else values
    if call.operator == "QLinearGlobalAveragePool":
        result = values.mean(list(range(2, values.dim())), keepdim=True)
    else:
        sizes = [int(size) for size in values.shape[2:]]
        result = average(call, values, windows_of(call, sizes, call.sizes("kernel_shape")))
    return quantize(call, result.movedim(1, -1) if last else result, 3, _optional(call, 4), call.dtype(0))


@operator("QLinearConcat", domain=MICROSOFT)
def quantized_concat(call: Call) -> torch.Tensor:
    """Integers of several grids side by side on one."""
    parts: list[Any] = [dequantize(call, at, at + 1, at + 2) for at in range(2, call.input_count, 3)]
    return quantize(call, torch.cat(parts, call.attribute("axis", 0)), 0, 1, call.dtype(1))
