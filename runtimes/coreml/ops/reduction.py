"""Reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []

_Reduce = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=None if x.is_floating_point() else x.dtype)


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


_OVER_AXES: dict[str, _Reduce] = {
    "reduce_sum": _sum,
    "reduce_prod": _product,
    "reduce_mean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "reduce_max": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "reduce_min": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "reduce_l1_norm": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "reduce_l2_norm": lambda x, axes, keep: torch.sqrt(_sum(x * x, axes, keep)),
    "reduce_log_sum": lambda x, axes, keep: torch.log(_sum(x, axes, keep)),
    "reduce_log_sum_exp": lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
    "reduce_sum_square": lambda x, axes, keep: _sum(x * x, axes, keep),
}

_OVER_AXIS: dict[str, Callable[..., Any]] = {"reduce_argmax": torch.argmax, "reduce_argmin": torch.argmin}


@register(*_OVER_AXES)
def over_axes(call: Call) -> Kernel:
    """Reduction over several axes; all of them where none is named."""
    function, keep = _OVER_AXES[call.operation.type], call.flag("keep_dims")
    axes = call.integers("axes", tuple(range(len(call.shape("x")))))
    return Kernel(lambda x: function(x, axes, keep), "x")


@register(*_OVER_AXIS)
def over_axis(call: Call) -> Kernel:
    """Index of the largest or smallest value along one axis, as int32."""
    function, keep, axis = _OVER_AXIS[call.operation.type], call.flag("keep_dims"), call.integer("axis", -1)
    return Kernel(lambda x: function(x, axis, keep).to(torch.int32), "x")
