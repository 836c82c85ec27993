"""SmoothQuant: outlier channels of an activation move into the weights that read it (Xiao et al., 2023, arXiv:2211.10438).

A transformer's normalised activations have a few channels that are tens of times as wide as the others and alone decide the
one scale. Channel ``c`` is divided by ``a[c]`` where it is made and multiplied again in the columns of the linear layers
that read it: the function stays the same::

    layer_norm (weight / a, bias / a) ─┬─ query (weight * a)      a[c] = max|x[c]| ** alpha / max|weight[:, c]| ** (1 - alpha)
                                       ├─ key   (weight * a)
                                       └─ value (weight * a)

Weights have a scale per output channel, which ``alpha`` keeps from doing too much: 0 leaves all trouble in the activations,
1 moves it into the weights, 0.5 shares it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import GraphModule, Node

from edgekit.compression.quantize.calibrate.observe import Range, Statistics
from edgekit.compression.quantize.canonical.form import constant

if TYPE_CHECKING:
    from edgekit.compression.quantize.plan import Plan

__all__ = ["Chain", "find_chains", "smooth"]

_NORMS = {"aten.layer_norm.default", "aten.rms_norm.default"}
_MOVES = {
    "aten.view.default", "aten.reshape.default", "aten.transpose.int", "aten.permute.default", "aten.unsqueeze.default",
    "aten.clone.default", "aten.contiguous.default",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Chain:
    """Who makes a tensor's channels, and the linear layers that read them.

    Args:
        producer: Layer norm or linear layer whose parameters scale the channels.
        hidden: The node whose channels are measured: the producer, or the activation after it.
        carriers: Nodes that hold the same numbers, rearranged.
        readers: All linear layers that read them; nothing else does.
    """

    producer: Node
    hidden: Node
    carriers: tuple[Node, ...]
    readers: tuple[Node, ...]


def find_chains(module: GraphModule, plan: Plan) -> list[Chain]:
    """Layer norms and linear layers whose every reader is a linear layer that becomes integers, in graph order."""
    weighted = {kernel.node for kernel in plan.kernels if kernel.family.name == "linear"}
    chains = []
    for node in module.graph.nodes:
        if str(node.target) not in _NORMS | {"aten.linear.default"} or not _scales_last_axis(module, node):
            continue
        hidden = _activation_after(node)
        carriers, readers = _follow(hidden, hidden.meta["val"].shape[-1], weighted)
        if readers and all(_is_own(module, held) for part in (node, *readers) for held in _parameters(part)):
            chains.append(Chain(node, hidden, tuple(carriers), tuple(readers)))
    return chains


def smooth(module: GraphModule, chains: list[Chain], statistics: Statistics, *, alpha: float) -> Statistics:
    """Divide each chain's channels and multiply its readers' weights.

    Args:
        module: Canonical float graph. Its parameters are changed, its function is not.
        chains: From :func:`find_chains`.
        statistics: With the channels of every chain's hidden node.
        alpha: How much of the trouble the weights take, 0 to 1.

    Returns:
        The statistics of the smoothed graph.
    """
    ranges, channels = dict(statistics.ranges), dict(statistics.channels)
    for chain in chains:
        seen = channels[chain.hidden]
        factors = _choose_factors(module, chain, torch.maximum(seen.high.abs(), seen.low.abs()), alpha)
        _scale(module, chain, factors)
        channels[chain.hidden] = seen = seen.scaled(1 / factors)
        for node in (chain.hidden, *chain.carriers):
            if node in ranges:
                ranges[node] = Range(float(seen.low.min()), float(seen.high.max()))
    return dataclasses.replace(statistics, ranges=ranges, channels=channels)


def _parameters(node: Node) -> list[Node]:
    """The nodes of a layer's weight and bias: positions 1 and 2 of a linear layer, 2 and 3 of a norm."""
    first = 2 if str(node.target) in _NORMS else 1
    return [held for held in node.args[first : first + 2] if isinstance(held, Node)]


def _scales_last_axis(module: GraphModule, node: Node) -> bool:
    """Whether the layer has parameters, one (or one row) for each channel along the last axis."""
    rank = 1 if str(node.target) in _NORMS else 2
    held = [constant(module, parameter) for parameter in _parameters(node)]
    return bool(held) and held[0] is not None and held[0].ndim == rank


def _is_own(module: GraphModule, held: Node) -> bool:
    """A constant that no other layer uses."""
    readers = sum(len(node.users) for node in module.graph.nodes if node.op == "get_attr" and node.target == held.target)
    return constant(module, held) is not None and readers == 1


def _activation_after(node: Node) -> Node:
    """The ReLU that follows alone, for it lets positive factors through; else the node itself."""
    follower = next(iter(node.users)) if len(node.users) == 1 else node
    return follower if str(follower.target) == "aten.relu.default" else node


def _follow(node: Node, width: int, weighted: set[Node]) -> tuple[list[Node], list[Node]]:
    """Rearrangements and linear readers reached from ``node``; no reader where anything else reads it."""
    carriers: list[Node] = []
    readers: list[Node] = []
    waiting = list(node.users)
    while waiting:
        user = waiting.pop(0)
        if user in weighted and user.args[0] in {node, *carriers}:
            readers.append(user)
        elif str(user.target) in _MOVES and _keeps_last_axis(user, width):
            carriers.append(user)
            waiting += list(user.users)
        else:
            return [], []
    return carriers, readers


def _keeps_last_axis(node: Node, width: int) -> bool:
    """Whether a rearrangement leaves the channels where they are: along the last axis, in order."""
    source: Any = node.args[0]
    rank = source.meta["val"].ndim
    name = str(node.target)
    if name == "aten.transpose.int":
        axes: tuple[Any, ...] = node.args[1:3]
        return all(axis % rank != rank - 1 for axis in axes)
    if name == "aten.permute.default":
        order: Any = node.args[1]
        return bool(order[-1] % rank == rank - 1)
    if name == "aten.unsqueeze.default":
        position: Any = node.args[1]
        return bool(position % (rank + 1) != rank)
    return bool(node.meta["val"].shape[-1] == width)


def _choose_factors(module: GraphModule, chain: Chain, peaks: torch.Tensor, alpha: float) -> torch.Tensor:
    """Equation 4 of the paper; 1 for a channel that is always zero, or that no reader weighs."""
    weights = [constant(module, reader.args[1]) for reader in chain.readers]
    columns = torch.stack([weight.abs().amax(0) for weight in weights if weight is not None]).amax(0).double()
    factors = peaks**alpha / columns ** (1 - alpha)
    return torch.where((peaks > 0) & (columns > 0), factors, torch.ones_like(factors))


def _scale(module: GraphModule, chain: Chain, factors: torch.Tensor) -> None:
    for held in _parameters(chain.producer):
        made = constant(module, held)
        if made is not None:
            made.div_(factors.reshape(-1, *[1] * (made.ndim - 1)))
    for reader in chain.readers:
        weight = constant(module, reader.args[1])
        if weight is not None:
            weight.mul_(factors)
