"""Comparisons, truth values, bits, and choices by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator

__all__: list[str] = []

_COMPARISONS: dict[str, Callable[[Any, Any], torch.Tensor]] = {
    "Equal": torch.eq, "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le,
}  # fmt: skip
_MIRRORED = {"Greater": "Less", "GreaterOrEqual": "LessOrEqual", "Less": "Greater", "LessOrEqual": "GreaterOrEqual"}
_PAIRS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
    "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip


@operator(*_COMPARISONS)
def compare(call: Call) -> torch.Tensor:
    """Truth by element."""
    a, b = call.operand(0, beside=1), call.operand(1, beside=0)
    if not isinstance(a, torch.Tensor):
        return _COMPARISONS[_MIRRORED.get(call.operator, call.operator)](b, a)
    return _COMPARISONS[call.operator](a, b)


@operator(*_PAIRS)
def combine(call: Call) -> torch.Tensor:
    """Truth values, or bits, of two tensors."""
    return _PAIRS[call.operator](call.tensor(0), call.tensor(1))


@operator("Not")
def negate(call: Call) -> torch.Tensor:
    """The other truth value."""
    return torch.logical_not(call.tensor(0))


@operator("BitwiseNot")
def bitwise_not(call: Call) -> torch.Tensor:
    """The other bits."""
    return torch.bitwise_not(call.tensor(0))


@operator("IsInf")
def is_infinite(call: Call) -> torch.Tensor:
    """Which elements are infinite, of one sign or of both."""
    values = call.tensor(0)
    up, down = call.attribute("detect_positive", 1), call.attribute("detect_negative", 1)
    if up and down:
        return torch.isinf(values)
    if not up and not down:
        return torch.zeros_like(values, dtype=torch.bool)
    return values == (float("inf") if up else float("-inf"))


@operator("Where")
def where(call: Call) -> torch.Tensor:
    """A choice by element."""
    return torch.where(call.tensor(0), call.tensor(1), call.tensor(2))
