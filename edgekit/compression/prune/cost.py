"""What a net costs, and what it would cost with fewer channels, from shapes alone: nothing is cut to find out."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edgekit.compression.prune.graph import Call
from edgekit.compression.prune.groups import Group, unit_places

__all__ = ["Cost", "CostModel", "cost_model"]

BYTES_PER_WEIGHT = 4  # float32: what pruning leaves; quantization comes later


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a net costs.

    Args:
        macs: Multiply-accumulates of one sample, in layers with weights and in attention.
        parameters: Weights and biases.
        channels: Channels of all groups.
    """

    macs: float
    parameters: int
    channels: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights in float32."""
        return self.parameters * BYTES_PER_WEIGHT

    def of(self, goal: str) -> float:
        """The quantity a goal is about: ``macs``, ``parameters``, ``size`` or ``channels``."""
        return float({"macs": self.macs, "parameters": self.parameters, "size": self.size_bytes, "channels": self.channels}[goal])


@dataclasses.dataclass(frozen=True)
class CostModel:
    """Counts for any number of units removed from each group.

    Args:
        shapes: Tensor -> its shape.
        uses: Tensor -> how often each of its elements multiplies something, for one sample.
        shrinks: Tensor -> (axis, group, places of one unit on it) for each group that shrinks it.
        groups: The groups.
        attention_macs: Multiply-accumulates between activations.
    """

    shapes: Mapping[str, tuple[int, ...]]
    uses: Mapping[str, float]
    shrinks: Mapping[str, tuple[tuple[int, str, float], ...]]
    groups: Mapping[str, Group]
    attention_macs: float

    def cost(self, removed: Mapping[str, int]) -> Cost:
        """Cost with so many units of each group removed.

        Args:
            removed: Group -> units.
        """
        macs, parameters = 0.0, 0.0
        for tensor, shape in self.shapes.items():
            sizes = [float(size) for size in shape]
            for axis, group, places in self.shrinks.get(tensor, ()):
                sizes[axis] -= places * removed.get(group, 0)
            count = math.prod(sizes)
            parameters += count
            macs += count * self.uses.get(tensor, 0.0)
        channels = sum(group.width - removed.get(name, 0) * group.unit_width for name, group in self.groups.items())
        return Cost(macs + self.attention_macs * self._heads_left(removed), round(parameters), channels)

    def _heads_left(self, removed: Mapping[str, int]) -> float:
        split = [(group.unit_count, removed.get(name, 0)) for name, group in self.groups.items() if group.heads]
        total = sum(count for count, _ in split)
        return 1.0 - sum(gone for _, gone in split) / total if total else 1.0


def cost_model(net: nn.Module, groups: Sequence[Group], call: Call) -> CostModel:
    """Watch a net run once and note what each weight costs."""
    shrinks: dict[str, list[tuple[int, str, float]]] = collections.defaultdict(list)
    shapes = {name: tuple(parameter.shape) for name, parameter in net.named_parameters()}
    for group in groups:
        for axis, every, _ in unit_places(net, group):
            if axis.tensor in shapes:
                at = axis.axis % len(shapes[axis.tensor])
                shrinks[axis.tensor].append((at, group.name, len(torch.unique(every)) / group.unit_count))
    uses, attention = _uses(net, call)
    return CostModel(
        shapes, uses, {name: tuple(rows) for name, rows in shrinks.items()}, {group.name: group for group in groups}, attention
    )


@torch.no_grad()
def _uses(net: nn.Module, call: Call) -> tuple[dict[str, float], float]:
    from torch.utils.flop_counter import FlopCounterMode

    uses: dict[str, float] = collections.defaultdict(float)
    batch = [1]

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            result = output[0] if isinstance(output, tuple) else output
            if isinstance(module, nn.RNNBase):
                for tensor in dict(module.named_parameters()):
                    if tensor.startswith("weight"):
                        uses[f"{name}.{tensor}"] += inputs[0].shape[0] * inputs[0].shape[1]
                return
            if isinstance(module, _ConvTransposeNd):
                count = inputs[0].numel() / module.in_channels
            else:
                count = result.numel() / (module.out_channels if isinstance(module, _ConvNd) else module.out_features)
            uses[f"{name}.weight"] += float(count)

        return hook

    kinds = (_ConvNd, nn.Linear, nn.RNNBase)
    hooks = [module.register_forward_hook(note(name)) for name, module in net.named_modules() if isinstance(module, kinds)]
    try:
        with FlopCounterMode(display=False) as counter:
            batch[0] = call(net)[0].shape[0]
    finally:
        for hook in hooks:
            hook.remove()
    by_weights = counter.get_flop_counts().get("Global", {})
    attention = sum(count for op, count in by_weights.items() if "scaled_dot" in str(op) or "bmm" in str(op)) / 2
    return {name: count / batch[0] for name, count in uses.items()}, attention / batch[0]
