"""Logic on booleans and choices between tensors, in the forms coremltools takes."""

from __future__ import annotations

from typing import Any

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]


def _is_boolean(node: torch.fx.Node) -> bool:
    return bool(node.meta["val"].dtype == torch.bool)


def _or(first: torch.Tensor, second: torch.Tensor | bool) -> torch.Tensor:
    return torch.logical_or(first, _like(second, first))


def _xor(first: torch.Tensor, second: torch.Tensor | bool) -> torch.Tensor:
    return torch.logical_xor(first, _like(second, first))


def _and(first: torch.Tensor, second: torch.Tensor | bool) -> torch.Tensor:
    return torch.logical_and(first, _like(second, first))


def _like(value: torch.Tensor | float, other: torch.Tensor) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.full_like(other, value)


def _where(condition: torch.Tensor, chosen: torch.Tensor | float, other: torch.Tensor | float) -> torch.Tensor:
    """All three of one shape and both values of one type, as MIL's ``select`` wants them."""
    dtype = torch.result_type(chosen, other)
    sizes: Any = torch.broadcast_shapes  # has no types
    shape: torch.Size = sizes(condition.shape, *(x.shape for x in (chosen, other) if isinstance(x, torch.Tensor)))
    first, second = (_as_tensor(x, dtype, shape) for x in (chosen, other))
    condition = condition if condition.dtype == torch.bool else condition != 0
    return torch.where(condition if condition.shape == shape else condition.expand(shape), first, second)


def _as_tensor(value: torch.Tensor | float, dtype: torch.dtype, shape: torch.Size) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        return torch.full(shape, value, dtype=dtype)
    value = value if value.dtype == dtype else value.to(dtype)
    return value if value.shape == shape else value.expand(shape)


def _is_uneven(node: torch.fx.Node) -> bool:
    """Whether anything about the three arguments differs."""
    values: list[Any] = [argument.meta["val"] if isinstance(argument, torch.fx.Node) else argument for argument in node.args]
    if not all(isinstance(value, torch.Tensor) for value in values):
        return len(values) == len(("condition", "chosen", "other"))
    condition, chosen, other = values
    same_shape = condition.shape == chosen.shape == other.shape
    return not (same_shape and chosen.dtype == other.dtype and condition.dtype == torch.bool)


def _operators(word: str) -> tuple[str, ...]:
    dunder = f"__{word}__"
    return tuple(f"aten.{name}.{form}" for name in (dunder, f"bitwise_{word}") for form in ("Tensor", "Scalar"))


_NO_BITS = "coremltools 9 has no function for logic written with |, ^ and &"

REWRITES = (
    Rewrite(name="boolean-or", targets=("coreml",), because=_NO_BITS, operators=_operators("or"), build=_or, applies=_is_boolean),
    Rewrite(
        name="boolean-xor", targets=("coreml",), because=_NO_BITS, operators=_operators("xor"), build=_xor, applies=_is_boolean
    ),
    Rewrite(
        name="boolean-and", targets=("coreml",), because=_NO_BITS, operators=_operators("and"), build=_and, applies=_is_boolean
    ),
    Rewrite(
        name="where-of-equal-shapes",
        targets=("coreml",),
        because="coremltools 9 refuses where with numbers, mixed types or a condition without axes",
        operators=("aten.where.self", "aten.where.Scalar", "aten.where.ScalarSelf", "aten.where.ScalarOther"),
        build=_where,
        applies=_is_uneven,
    ),
)
