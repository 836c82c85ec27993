"""Tensors made of nothing, or of numbers."""

from __future__ import annotations

import math
from typing import Any

import torch

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator
from edgekit.converters.sources.onnx.tensors import torch_type
from edgekit.core.errors import IntegrityError

__all__: list[str] = []

_LARGEST = 2**29


def _check(call: Call, count: int) -> None:
    if count > _LARGEST:
        raise IntegrityError(f"A '{call.operator}' node makes {count} numbers: the file is damaged or hostile.")


@operator("Constant")
def constant(call: Call) -> torch.Tensor:
    """Numbers that stand in the node.

    Raises:
        UnsupportedOpError: They are strings, or a sparse tensor.
    """
    for name, dtype in (
        ("value_float", torch.float32),
        ("value_floats", torch.float32),
        ("value_int", torch.int64),
        ("value_ints", torch.int64),
    ):
        if (numbers := call.attribute_or_none(name)) is not None:
            return torch.tensor(numbers, dtype=dtype)
    value: Any = call.attribute_or_none("value")
    if not isinstance(value, torch.Tensor):
        raise call.unsupported("holds strings or a sparse tensor", "Write it as a tensor of numbers.")
    return value


@operator("ConstantOfShape")
def constant_of_shape(call: Call) -> torch.Tensor:
    """One number, repeated."""
    sizes = call.ints(0)
    _check(call, math.prod(sizes))
    return call.attribute("value", torch.zeros(1)).reshape(()).expand(sizes).clone()


@operator("Range")
def numbers(call: Call) -> torch.Tensor:
    """``start, start + delta, …`` up to ``limit``."""
    start, limit, delta = (call.numbers(index)[0] for index in range(3))
    count = max(0, math.ceil((limit - start) / delta))
    _check(call, count)
    return torch.arange(count, dtype=torch.float64).mul(delta).add(start).to(call.dtype(0))


@operator("EyeLike")
def eye_like(call: Call) -> torch.Tensor:
    """Ones on a diagonal."""
    rows, columns = call.shape(0)
    kind = call.attribute_or_none("dtype")
    dtype = call.dtype(0) if kind is None else torch_type(kind, "The result of 'EyeLike'")
    diagonal = torch.arange(columns)[None, :] - torch.arange(rows)[:, None] == call.attribute("k", 0)
    return diagonal.to(dtype)


@operator("OneHot", grows=True)
def one_hot(call: Call) -> torch.Tensor:
    """``on`` where the class is the index's, ``off`` elsewhere."""
    depth, axis = int(call.scalar(1, 0)), call.attribute("axis", -1)
    indices = call.tensor(0).to(torch.int64)
    rank = indices.dim() + 1
    axis = axis % rank
    classes = call.computed("classes", lambda: torch.arange(depth).reshape([depth if at == axis else 1 for at in range(rank)]))
    hot = torch.where(indices < 0, indices + depth, indices).unsqueeze(axis) == classes
    off, on = call.tensor(2)[0], call.tensor(2)[1]
    return torch.where(hot, on, off)


@operator("Trilu")
def triangle(call: Call) -> torch.Tensor:
    """The upper or the lower triangle; zero elsewhere."""
    values, diagonal = call.tensor(0), int(call.scalar(1, 0))
    rows, columns = call.shape(0)[-2:]
    upper = call.attribute("upper", 1)

    def triangle_of_ones() -> torch.Tensor:
        offset = torch.arange(columns)[None, :] - torch.arange(rows)[:, None]
        return offset >= diagonal if upper else offset <= diagonal

    kept = call.computed("kept", triangle_of_ones)
    return torch.where(kept, values, torch.zeros_like(values))


@operator("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
def random(call: Call) -> torch.Tensor:
    """Refused: no two runtimes draw the same numbers.

    Raises:
        UnsupportedOpError: Always.
    """
    raise call.unsupported(
        "draws numbers at random, and no two runtimes draw the same", "Make the random numbers an input of the model."
    )
