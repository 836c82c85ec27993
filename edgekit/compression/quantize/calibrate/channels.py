"""Channels of a tensor: along which axis they lie, and what each of them does on the calibration data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch.fx import Node

__all__ = ["ChannelStatistics", "channel_axis", "channel_statistics"]

_SECOND = ("aten.conv", "aten.batch_norm", "aten.group_norm", "aten.instance_norm", "aten.max_pool", "aten.avg_pool")
_LAST = ("aten.linear", "aten.layer_norm", "aten.rms_norm", "aten.embedding")
_CHANNELWISE = (
    "aten.relu", "aten.hardtanh", "aten.clamp", "aten.gelu", "aten.silu", "aten.hardswish", "aten.sigmoid", "aten.tanh",
    "aten.leaky_relu", "aten.elu", "aten.add", "aten.sub", "aten.mul",
)  # fmt: skip


@dataclasses.dataclass
class ChannelStatistics:
    """Per channel of one tensor: smallest, largest and mean squared value, each ``[C]``, float64."""

    low: torch.Tensor
    high: torch.Tensor
    mean_square: torch.Tensor

    def scaled(self, factors: torch.Tensor) -> ChannelStatistics:
        """The statistics of the tensor with channel ``c`` multiplied by ``factors[c] > 0``."""
        return ChannelStatistics(self.low * factors, self.high * factors, self.mean_square * factors**2)


def channel_axis(node: Node) -> int | None:
    """The axis along which a layer put its channels: 1 after a convolution, the last after a linear layer; None if unknown.

    An input's is that of the layers that read it.
    """
    name = str(node.target)
    if node.op == "placeholder":
        readers = [user for user in node.users if str(user.target).startswith(_SECOND + _LAST)]
        return _agreed(channel_axis(reader) for reader in readers)
    if name.startswith(_SECOND):
        return 1
    if name.startswith(_LAST):
        return -1
    if name.startswith(_CHANNELWISE):
        return _agreed(channel_axis(source) for source in node.all_input_nodes if source.op == "call_function")
    return None


def _agreed(axes: Iterable[int | None]) -> int | None:
    found = set(axes)
    return found.pop() if len(found) == 1 else None


def channel_statistics(node: Node, value: torch.Tensor) -> ChannelStatistics:
    """Statistics of one value of ``node``; where its channel axis is not known, axis 1, or the last of two."""
    axis = channel_axis(node)
    axis = (1 if value.ndim > 2 else -1) if axis is None else axis
    others = [at for at in range(value.ndim) if at != axis % value.ndim]
    wide = value.double()
    return ChannelStatistics(wide.amin(others), wide.amax(others), (wide**2).mean(others))
