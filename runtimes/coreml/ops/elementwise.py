"""Elementwise arithmetic, comparison, logic and type conversion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgekit.core.errors import UnsupportedOpError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__ = ["TORCH_DTYPES", "torch_dtype"]

TORCH_DTYPES = {
    "bool": torch.bool, "int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64,
    "uint8": torch.uint8, "uint16": torch.int32, "uint32": torch.int64, "uint64": torch.int64,
    "int4": torch.int8, "uint1": torch.uint8, "uint2": torch.uint8, "uint3": torch.uint8, "uint4": torch.uint8,
    "uint6": torch.uint8, "fp16": torch.float32, "fp32": torch.float32, "double": torch.float32,
    "float16": torch.float32, "float32": torch.float32, "float64": torch.float32,
}  # fmt: skip
"""MIL type -> the type its values have in the executor.

Floats are float32 throughout; unsigned integers torch computes little with are held in the next wider type.
"""

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs, "acos": torch.acos, "asin": torch.asin, "atan": torch.atan, "atanh": torch.atanh, "ceil": torch.ceil,
    "cos": torch.cos, "cosh": torch.cosh, "erf": torch.erf, "exp": torch.exp, "exp2": torch.exp2, "floor": torch.floor,
    "logical_not": torch.logical_not, "round": torch.round, "sign": torch.sign, "sin": torch.sin, "sinh": torch.sinh,
    "sqrt": torch.sqrt, "square": torch.square, "tan": torch.tan, "tanh": torch.tanh,
}  # fmt: skip

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "maximum": torch.maximum, "minimum": torch.minimum,
    "pow": torch.pow, "floor_div": torch.floor_divide, "mod": torch.remainder, "equal": torch.eq, "not_equal": torch.ne,
    "greater": torch.gt, "greater_equal": torch.ge, "less": torch.lt, "less_equal": torch.le,
    "logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_xor": torch.logical_xor,
}  # fmt: skip


def torch_dtype(name: str) -> torch.dtype:
    """The executor's type for a MIL type name.

    Raises:
        UnsupportedOpError: The type is unknown.
    """
    if name not in TORCH_DTYPES:
        raise UnsupportedOpError(f"The Core ML reference executor does not know the type '{name}'.")
    return TORCH_DTYPES[name]


@register(*_UNARY)
def unary(call: Call) -> Kernel:
    """One tensor in, one of the same shape out."""
    return Kernel(_UNARY[call.operation.type], "x")


@register(*_BINARY)
def binary(call: Call) -> Kernel:
    """Two tensors, broadcast as numpy does."""
    return Kernel(_BINARY[call.operation.type], "x", "y")


@register("real_div")
def real_div(call: Call) -> Kernel:
    """Division; the quotient of integers is truncated to the declared integer type."""
    dtype = torch_dtype(call.outputs[0].dtype)
    if dtype is torch.float32:
        return Kernel(torch.true_divide, "x", "y")
    return Kernel(lambda x, y: torch.true_divide(x, y).to(dtype), "x", "y")


@register("log")
def log(call: Call) -> Kernel:
    """``log(x + epsilon)``."""
    epsilon = call.number("epsilon", 1e-45)
    return Kernel(lambda x: torch.log(x + epsilon), "x")


@register("inverse")
def inverse(call: Call) -> Kernel:
    """``1 / (x + epsilon)``."""
    epsilon = call.number("epsilon", 1e-4)
    return Kernel(lambda x: torch.reciprocal(x + epsilon), "x")


@register("rsqrt")
def rsqrt(call: Call) -> Kernel:
    """``1 / sqrt(x + epsilon)``."""
    epsilon = call.number("epsilon", 1e-12)
    return Kernel(lambda x: torch.rsqrt(x + epsilon), "x")


@register("clip")
def clip(call: Call) -> Kernel:
    """Values limited to ``[alpha, beta]``."""
    low, high = call.number("alpha"), call.number("beta")
    return Kernel(lambda x: torch.clamp(x, low, high), "x")


@register("threshold")
def threshold(call: Call) -> Kernel:
    """``max(x, alpha)``."""
    low = call.number("alpha")
    return Kernel(lambda x: torch.clamp(x, min=low), "x")


@register("select")
def select(call: Call) -> Kernel:  # noqa: ARG001
    """``a`` where ``cond`` holds, else ``b``; all three broadcast."""
    return Kernel(_select, "cond", "a", "b")


def _select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond.bool(), a, b)


@register("cast")
def cast(call: Call) -> Kernel:
    """Conversion to another type; rounding to float16 is left to the executor."""
    dtype = torch_dtype(call.text("dtype", "fp32"))

    def convert(x: Tensor) -> Any:
        return x.to(dtype)

    return Kernel(convert, "x")
