"""Operators on tensors of more axes than TFLite's kernels take."""

from __future__ import annotations

from typing import Any

import torch

from edgekit.converters.rewrites.rewrite import Rewrite

__all__ = ["REWRITES"]

_MOST_AXES = 4
_MOST_PADDED_AXES = 5
_BECAUSE = "litert-torch 0.10 refuses the operator for more than four axes"
_NAMES = (
    "pow.Tensor_Scalar", "sign.default", "round.default", "floor_divide.Scalar", "remainder.Scalar", "fmod.Scalar",
    "eq.Scalar", "ne.Scalar", "sin.default", "cos.default", "erf.default", "elu.default",
)  # fmt: skip


def _flat(operator: Any) -> Any:
    def build(values: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        made: torch.Tensor = operator(values.reshape(-1), *rest, **named).reshape(values.shape)
        return made

    return build


def _has_many_axes(node: torch.fx.Node) -> bool:
    value: Any = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.ndim > _MOST_AXES


def _pad(values: torch.Tensor, amounts: Any, mode: str = "constant", value: Any = None) -> torch.Tensor:
    """One axis after the other, each as the middle one of three."""
    del mode
    for place in range(0, len(amounts), 2):
        before, after = amounts[place : place + 2]
        axis = values.ndim - 1 - place // 2
        if before or after:
            shape = list(values.shape)
            outer = values.reshape(-1, shape[axis], _count(shape[axis + 1 :]))
            shape[axis] += before + after
            values = torch.nn.functional.pad(outer, (0, 0, before, after), value=value or 0.0).reshape(shape)
    return values


def _count(sizes: list[int]) -> int:
    count = 1
    for size in sizes:
        count *= int(size)
    return count


def _constant_pad(values: torch.Tensor, amounts: Any, value: Any = 0) -> torch.Tensor:
    return _pad(values, amounts, value=value)


def _is_deep_pad(node: torch.fx.Node) -> bool:
    value: Any = node.meta["val"]
    return value.ndim > _MOST_PADDED_AXES and (
        len(node.args) < 3 or node.args[2] == "constant" or not isinstance(node.args[2], str)
    )


REWRITES = (
    *(
        Rewrite(
            name=f"flat-{name.split('.')[0].replace('_', '-')}",
            targets=("tflite",),
            because=_BECAUSE,
            operators=(f"aten.{name}",),
            build=_flat(getattr(getattr(torch.ops.aten, name.split(".")[0]), name.split(".")[1])),
            applies=_has_many_axes,
        )
        for name in _NAMES
    ),
    *(
        Rewrite(
            name=f"{name}-axis-by-axis",
            targets=("tflite",),
            because="litert-torch 0.10 refuses padding of more than five axes",
            operators=(operator,),
            build=build,
            applies=_is_deep_pad,
        )
        for name, operator, build in (
            ("pad", "aten.pad.default", _pad),
            ("constant-pad", "aten.constant_pad_nd.default", _constant_pad),
        )
    ),
)
