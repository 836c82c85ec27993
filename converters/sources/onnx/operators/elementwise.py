"""Arithmetic by element, and casts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator
from edgekit.converters.sources.onnx.tensors import torch_type

__all__: list[str] = []

_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh, "Atan": torch.atan,
    "Atanh": torch.atanh, "Ceil": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh, "Erf": torch.erf, "Exp": torch.exp,
    "Floor": torch.floor, "IsNaN": torch.isnan, "Log": torch.log, "Neg": torch.neg, "Reciprocal": torch.reciprocal,
    "Round": torch.round, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh, "Sqrt": torch.sqrt, "Tan": torch.tan,
}  # fmt: skip
"""Functions of one tensor that torch has under the same meaning (Round: half to even)."""


@operator(*_UNARY)
def unary(call: Call) -> torch.Tensor:
    """A function of each element."""
    return _UNARY[call.operator](call.tensor(0))


def _pair(call: Call) -> tuple[Any, Any]:
    return call.operand(0, beside=1), call.operand(1, beside=0)


@operator("Add")
def add(call: Call) -> Any:
    """Sum of two, broadcast."""
    a, b = _pair(call)
    return b + a if isinstance(a, int | float) else a + b


@operator("Sub")
def sub(call: Call) -> Any:
    """Difference of two, broadcast."""
    a, b = _pair(call)
    return a - b


@operator("Mul")
def mul(call: Call) -> Any:
    """Product of two, broadcast."""
    a, b = _pair(call)
    return b * a if isinstance(a, int | float) else a * b


@operator("Div")
def div(call: Call) -> Any:
    """Quotient of two, broadcast; of integers rounded towards zero."""
    if call.dtype(0).is_floating_point:
        a, b = _pair(call)
        return a / b
    return torch.div(call.tensor(0), call.tensor(1), rounding_mode="trunc")


@operator("Pow")
def power(call: Call) -> torch.Tensor:
    """Power; the result has the type of the base."""
    base, known = call.tensor(0), call.known(1)
    if known is not None and known.numel() == 1 and known.dim() <= base.dim() and base.dtype.is_floating_point:
        exponent = call.scalar(1, 1.0)
        return torch.pow(base, int(exponent) if float(exponent).is_integer() else exponent)
    return torch.pow(base, call.tensor(1)).to(base.dtype)


@operator("Mod")
def mod(call: Call) -> torch.Tensor:
    """Remainder: with the divisor's sign, or with ``fmod`` with the dividend's."""
    a, b = call.tensor(0), call.tensor(1)
    return torch.fmod(a, b) if call.attribute("fmod", 0) else torch.remainder(a, b)


@operator("Sum")
def total(call: Call) -> torch.Tensor:
    """Sum of many."""
    return functools.reduce(torch.add, _all(call))


@operator("Mean")
def mean(call: Call) -> torch.Tensor:
    """Mean of many."""
    return functools.reduce(torch.add, _all(call)) / call.input_count


@operator("Max")
def maximum(call: Call) -> torch.Tensor:
    """Largest of many."""
    return functools.reduce(torch.maximum, _all(call))


@operator("Min")
def minimum(call: Call) -> torch.Tensor:
    """Smallest of many."""
    return functools.reduce(torch.minimum, _all(call))


def _all(call: Call) -> list[torch.Tensor]:
    return [call.tensor(index) for index in range(call.input_count)]


@operator("Clip")
def clip(call: Call) -> torch.Tensor:
    """Limits: attributes before opset 11, inputs since."""
    values = call.tensor(0)
    if call.version < 11:
        low, high = call.attribute_or_none("min"), call.attribute_or_none("max")
    elif all(not call.has(index) or call.known(index) is not None for index in (1, 2)):
        low, high = (call.scalar(index, None) for index in (1, 2))
    else:
        lowest, highest = call.optional(1), call.optional(2)
        values = torch.maximum(values, lowest) if lowest is not None else values
        return torch.minimum(values, highest) if highest is not None else values
    if low is None and high is None:
        return values
    if low == 0 and high is None and values.dtype.is_floating_point:
        return torch.relu(values)
    if low == 0 and high == 6 and values.dtype.is_floating_point:
        return torch.nn.functional.relu6(values)
    return torch.clamp(values, low, high)


@operator("Cast")
def cast(call: Call) -> torch.Tensor:
    """Another element type."""
    return _cast(call, call.tensor(0), torch_type(call.attribute("to", 1), f"The result of '{call.operator}'"))


@operator("CastLike")
def cast_like(call: Call) -> torch.Tensor:
    """The element type of another tensor."""
    return _cast(call, call.tensor(0), call.dtype(1))


def _cast(call: Call, values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if values.dtype == dtype:
        return values
    name = str(dtype)
    if "float8" in name and call.attribute("saturate", 1):
        largest = torch.finfo(dtype).max
        return torch.clamp(values.float(), -largest, largest).to(dtype)
    return values.to(dtype)


@operator("BitCast")
def bit_cast(call: Call) -> torch.Tensor:
    """The same bits read as another element type."""
    return call.tensor(0).view(torch_type(call.attribute("to", 1), "The result of 'BitCast'"))


@operator("Identity", "Dropout")
def identity(call: Call) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Nothing; dropout does nothing outside training.

    Raises:
        UnsupportedOpError: The dropout is one of training.
    """
    values = call.tensor(0)
    if call.operator == "Dropout":
        if call.has(2) and bool(call.scalar(2, False)) and call.scalar(1, 0.5) != 0:
            raise call.unsupported("drops values at random", "Export the model in evaluation mode.")
        if call.wants(1):
            return values, torch.ones_like(values, dtype=torch.bool)
    return values


@operator("BitShift")
def bit_shift(call: Call) -> torch.Tensor:
    """Bits moved left or right."""
    a, b = call.tensor(0), call.tensor(1)
    return torch.bitwise_left_shift(a, b) if call.attribute("direction", "") == "LEFT" else torch.bitwise_right_shift(a, b)
