"""Cross-layer equalization: give every channel of a hidden tensor its fair use of the int8 grid.

Between a convolution and the single one that reads it, channel ``c`` may be scaled up by ``a[c]`` and scaled down again
in the reader's weights: the function stays the same through ReLU, which is positively homogeneous (Nagel et al., 2019,
arXiv:1906.04721). A tensor has one scale for all its channels, so a channel that uses a tenth of the range has a tenth of
the steps; ``a[c] = widest / range[c]`` gives it all of them.

Weights have one scale per output channel, so scaling the producer is free, and so is a depthwise reader. A dense reader
mixes the channels in each row; there ``a[c] ** power`` with the power whose expected rounding error is least. A ReLU6 stays
where it is: channels are scaled up to its bound at most, which clips channel ``c`` at the largest value calibration saw.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node

from edgekit.compression.quantize.calibrate import ChannelStatistics, Range, Statistics
from edgekit.compression.quantize.canonical import constant

if TYPE_CHECKING:
    from edgekit.compression.quantize.plan import Plan

__all__ = ["Pair", "equalize", "find_pairs"]

_LARGEST_FACTOR = 64.0  # beyond it a nearly dead channel's rounding noise would be all that grows
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A producer, the hidden tensor, and the one layer that reads it.

    Args:
        producer: Convolution that makes the channels.
        hidden: The node whose result is quantized: the producer, or the clamp after it.
        reader: The one convolution that reads it.
        depthwise: The reader keeps channels apart.
    """

    producer: Node
    hidden: Node
    reader: Node
    depthwise: bool


def find_pairs(module: GraphModule, plan: Plan) -> list[Pair]:
    """Pairs of convolutions with nothing between them but a ReLU-like clamp, in graph order."""
    convolutions = {kernel.node: kernel for kernel in plan.kernels if kernel.family.name == "conv"}
    pairs = []
    for kernel in convolutions.values():
        users = list(kernel.end.users)
        reader = convolutions.get(users[0]) if len(users) == 1 else None
        if reader is None or reader.node.args[0] is not kernel.end or not _clamps_at_zero(kernel.end, kernel.node):
            continue
        weight, groups = constant(module, reader.node.args[1]), _group_count(reader.node)
        if weight is not None and groups in {1, weight.shape[0]} and _is_called_once(kernel.node, reader.node):
            pairs.append(Pair(kernel.node, kernel.end, reader.node, depthwise=groups != 1))
    return pairs


def equalize(module: GraphModule, pairs: list[Pair], statistics: Statistics) -> Statistics:
    """Scale the channels of each pair's hidden tensor.

    Args:
        module: Canonical float graph. Its weights are changed; within the calibrated range its function is not.
        pairs: From :func:`find_pairs`.
        statistics: With the channels of every pair's hidden node.

    Returns:
        The statistics of the scaled graph.
    """
    ranges, channels = dict(statistics.ranges), dict(statistics.channels)
    for pair in pairs:
        factors = _choose_factors(module, pair, channels[pair.hidden])
        _scale(module, pair, factors)
        channels[pair.hidden] = channels[pair.hidden].scaled(factors)
        ranges[pair.hidden] = Range(float(channels[pair.hidden].low.min()), float(channels[pair.hidden].high.max()))
    return dataclasses.replace(statistics, ranges=ranges, channels=channels)


def _clamps_at_zero(end: Node, node: Node) -> bool:
    if end is node or str(end.target) in {"aten.relu.default", "aten.relu6.default"}:
        return True
    low: Any = end.args[1] if len(end.args) > 1 else None
    return str(end.target) == "aten.hardtanh.default" and low == 0.0


def _group_count(node: Node) -> int:
    groups: Any = node.args[6] if len(node.args) > 6 else 1
    return int(groups)


def _is_called_once(producer: Node, reader: Node) -> bool:
    """Neither layer's weights are used a second time, where they would be scaled without a partner."""
    held = [argument for node in (producer, reader) for argument in node.args[1:3] if isinstance(argument, Node)]
    return all(len(argument.users) == 1 for argument in held)


def _choose_factors(module: GraphModule, pair: Pair, channels: ChannelStatistics) -> torch.Tensor:
    peaks = torch.maximum(channels.high.abs(), channels.low.abs())
    widest = peaks.max()
    weight = constant(module, pair.reader.args[1])
    if weight is None or float(widest) == 0.0:
        return torch.ones_like(peaks)
    full = (widest / peaks.clamp_min(float(widest) / _LARGEST_FACTOR)).clamp(1.0, _LARGEST_FACTOR)
    if pair.depthwise:
        return full
    return min((full**power for power in _POWERS), key=lambda factors: _expected_error(weight, factors, channels, float(widest)))


def _expected_error(weight: torch.Tensor, factors: torch.Tensor, channels: ChannelStatistics, widest: float) -> float:
    """Mean squared output error of a dense reader from rounding its input and its weights, up to a constant.

    Rounding to steps of ``s`` leaves ``s**2 / 12``. The input's step is ``widest / 255`` whatever the factors are, for they never
    widen the range; a row's step is its largest scaled weight over 127.
    """
    rows = (weight.double() / factors.reshape(1, -1, *[1] * (weight.ndim - 2))).flatten(2)
    from_input = (widest / 255) ** 2 * (rows**2).sum()
    steps = rows.abs().amax((1, 2)) / 127
    from_weights = (steps**2).sum() * rows.shape[2] * (channels.mean_square * factors**2).sum()
    return float(from_input + from_weights)


def _scale(module: GraphModule, pair: Pair, factors: torch.Tensor) -> None:
    weight, reader = constant(module, pair.producer.args[1]), constant(module, pair.reader.args[1])
    bias = constant(module, pair.producer.args[2]) if len(pair.producer.args) > 2 else None
    if weight is None or reader is None:
        return
    weight.mul_(factors.reshape(-1, *[1] * (weight.ndim - 1)))
    if bias is not None:
        bias.mul_(factors)
    axis = 0 if pair.depthwise else 1
    reader.div_(factors.reshape([-1 if at == axis else 1 for at in range(reader.ndim)]))
