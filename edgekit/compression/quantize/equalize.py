"""Cross-layer equalization: give every channel of a hidden tensor its fair use of the int8 grid.

Channel ``c`` of a hidden tensor may be scaled up by ``a[c]`` in the layers that make it and scaled down again in the weights
of the layers that read it: the function stays the same through ReLU, which is positively homogeneous (Nagel et al., 2019,
arXiv:1906.04721), and through additions, poolings and means if every tensor they touch is scaled alike. So a whole
residual stream, with all its producers and readers, is one :class:`Stream`; a pair of convolutions is the smallest.

A tensor has one scale for all its channels, so a channel that uses a tenth of the range has a tenth of the steps;
``a[c] = widest / range[c]`` gives it all of them. Weights have one scale per output channel, so scaling a producer is free,
and so is a depthwise reader. A dense reader mixes the channels in each row; there ``a[c] ** power`` with the power whose
expected rounding error is least. A ReLU6 stays where it is: channels are scaled up to its bound at most, which clips channel
``c`` at the largest value calibration saw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node

from edgekit.compression.quantize.calibrate.clipping import Range
from edgekit.compression.quantize.canonical.form import constant
from edgekit.compression.quantize.weights import integer_range

if TYPE_CHECKING:
    from edgekit.compression.quantize.calibrate.channels import ChannelStatistics
    from edgekit.compression.quantize.calibrate.observe import Statistics
    from edgekit.compression.quantize.plan import Kernel, Plan

__all__ = ["Stream", "equalize", "find_streams"]

_LARGEST_FACTOR = 64.0  # beyond it a nearly dead channel's rounding noise would be all that grows
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_LAYERS = {"conv", "linear"}
_PASSING = {"add", "mean", "max_pool", "avg_pool", "move"}  # output channel c depends on the inputs' channel c alone, linearly
_HOMOGENEOUS = {"aten.relu.default", "aten.relu6.default"}


@dataclasses.dataclass(frozen=True)
class Stream:
    """Tensors whose channels are scaled together, and the layers at both ends.

    Args:
        producers: Layers that make the channels.
        tensors: Nodes that carry them: what is quantized.
        readers: Layers that read them.
        largest: Largest weight integer of the readers, on which their rounding error depends.
    """

    producers: tuple[Node, ...]
    tensors: tuple[Node, ...]
    readers: tuple[Node, ...]
    largest: int


def find_streams(module: GraphModule, plan: Plan) -> list[Stream]:
    """Tensors that only layers with weights make and read, joined where an addition or pooling couples them; in graph order."""
    owner = {kernel.end: kernel for kernel in plan.kernels}
    reading = {kernel.node: kernel for kernel in plan.kernels}
    joined = _join(owner)
    streams = []
    for tensors in joined:
        stream = _as_stream(tensors, owner, reading)
        if stream is not None and _can_scale(module, stream):
            streams.append(stream)
    return streams


def _join(owner: Mapping[Node, Kernel]) -> list[list[Node]]:
    """Kernel results in groups that must be scaled alike."""
    group: dict[Node, list[Node]] = {node: [node] for node in owner}
    for node, kernel in owner.items():
        if kernel.family.name not in _PASSING:
            continue
        for argument in kernel.activation_arguments:
            if argument in group and group[argument] is not group[node]:
                merged = group[argument] + group[node]
                for member in merged:
                    group[member] = merged
    unique = {id(members): members for members in group.values()}
    return list(unique.values())


def _as_stream(tensors: Sequence[Node], owner: Mapping[Node, Kernel], reading: Mapping[Node, Kernel]) -> Stream | None:
    producers, readers, inside = [], [], set(tensors)
    for node in tensors:
        kernel = owner[node]
        if not _is_homogeneous(kernel):
            return None
        if kernel.family.name in _LAYERS:
            producers.append(kernel.node)
        elif not _keeps_channels(kernel) or any(argument not in inside for argument in kernel.activation_arguments):
            return None
        for user in node.users:
            reader = reading.get(user)
            if reader is None or (reader.end not in inside and (reader.family.name not in _LAYERS or user.args[0] is not node)):
                return None
            if reader.end not in inside:
                readers.append(user)
    if not producers or not readers:
        return None
    largest = min(integer_range(reading[reader])[1] for reader in readers)
    return Stream(tuple(producers), tuple(tensors), tuple(dict.fromkeys(readers)), largest)


def _is_homogeneous(kernel: Kernel) -> bool:
    end = kernel.end
    if end is kernel.node or str(end.target) in _HOMOGENEOUS:
        return True
    low: Any = end.args[1] if len(end.args) > 1 else None
    return str(end.target) == "aten.hardtanh.default" and low == 0.0


def _keeps_channels(kernel: Kernel) -> bool:
    """Whether axis 1 of the result is axis 1 of the inputs."""
    if kernel.family.name not in _PASSING:
        return False
    shapes = [tuple(node.meta["val"].shape) for node in (*kernel.activation_arguments, kernel.node)]
    if any(len(shape) < 2 or shape[1] != shapes[-1][1] for shape in shapes):
        return False
    return kernel.family.name != "move" or (len(shapes[-1]) == 2 and all(size == 1 for size in shapes[0][2:]))


def _can_scale(module: GraphModule, stream: Stream) -> bool:
    """Every end is dense or depthwise, and no weight is used a second time, where it would be scaled without a partner."""
    for node in (*stream.producers, *stream.readers):
        weight = constant(module, node.args[1])
        if weight is None or any(len(held.users) != 1 for held in node.args[1:3] if isinstance(held, Node)):
            return False
        if node in stream.readers and _group_count(node) not in {1, weight.shape[0]}:
            return False
    ranks = {node.meta["val"].ndim for node in stream.producers if str(node.target) == "aten.linear.default"}
    return ranks <= {2}  # a linear layer over [..., K] has its channels last, not on axis 1


def equalize(module: GraphModule, streams: Sequence[Stream], statistics: Statistics) -> Statistics:
    """Scale the channels of each stream.

    Args:
        module: Canonical float graph. Its weights are changed; within the calibrated range its function is not.
        streams: From :func:`find_streams`.
        statistics: With the extremes of the channels of every stream's tensors.

    Returns:
        The statistics of the scaled graph.
    """
    ranges, channels = dict(statistics.ranges), dict(statistics.channels)
    for stream in streams:
        factors = _choose_factors(module, stream, [channels[node] for node in stream.tensors])
        _scale(module, stream, factors)
        for node in stream.tensors:
            channels[node] = channels[node].scaled(factors)
            ranges[node] = Range(float(channels[node].low.min()), float(channels[node].high.max()))
    return dataclasses.replace(statistics, ranges=ranges, channels=channels)


def _group_count(node: Node) -> int:
    groups: Any = node.args[6] if len(node.args) > 6 else 1
    return int(groups)


def _choose_factors(module: GraphModule, stream: Stream, channels: Sequence[ChannelStatistics]) -> torch.Tensor:
    peaks = torch.stack([torch.maximum(found.high.abs(), found.low.abs()) for found in channels]).amax(0)
    widest = peaks.max()
    if float(widest) == 0.0:
        return torch.ones_like(peaks)
    full = (widest / peaks.clamp_min(float(widest) / _LARGEST_FACTOR)).clamp(1.0, _LARGEST_FACTOR)
    dense = [reader for reader in stream.readers if not _is_depthwise(module, reader)]
    if not dense:
        return full
    mean_square = torch.stack([found.mean_square for found in channels]).mean(0)
    weights = [weight for reader in dense if (weight := constant(module, reader.args[1])) is not None]
    return min(
        (full**power for power in _POWERS),
        key=lambda factors: sum(
            _expected_error(weight, factors, mean_square, float(widest), stream.largest) for weight in weights
        ),
    )


def _is_depthwise(module: GraphModule, reader: Node) -> bool:
    weight = constant(module, reader.args[1])
    return weight is not None and _group_count(reader) == weight.shape[0] and weight.shape[0] != 1


def _expected_error(weight: torch.Tensor, factors: torch.Tensor, mean_square: torch.Tensor, widest: float, largest: int) -> float:
    """Mean squared output error of a dense reader from rounding its input and its weights, up to a constant.

    Rounding to steps of ``s`` leaves ``s**2 / 12``. The input's step is ``widest / 255`` whatever the factors are, for they never
    widen the range; a row's step is its largest scaled weight over ``largest``.
    """
    rows = weight.double().reshape(*weight.shape[:2], -1) / factors.reshape(1, -1, 1)
    from_input = (widest / 255) ** 2 * (rows**2).sum()
    steps = rows.abs().amax((1, 2)) / largest
    from_weights = (steps**2).sum() * rows.shape[2] * (mean_square * factors**2).sum()
    return float(from_input + from_weights)


def _scale(module: GraphModule, stream: Stream, factors: torch.Tensor) -> None:
    for producer in stream.producers:
        weight = constant(module, producer.args[1])
        bias = constant(module, producer.args[2]) if len(producer.args) > 2 else None
        if weight is not None:
            weight.mul_(factors.reshape(-1, *[1] * (weight.ndim - 1)))
        if bias is not None:
            bias.mul_(factors)
    for reader in stream.readers:
        weight = constant(module, reader.args[1])
        if weight is not None:
            axis = 0 if _is_depthwise(module, reader) else 1
            weight.div_(factors.reshape([-1 if at == axis else 1 for at in range(weight.ndim)]))
