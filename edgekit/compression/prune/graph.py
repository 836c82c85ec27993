"""Which channels of a net depend on each other, and which of them can go.

The dependencies come from Torch-Pruning's graph (Fang et al., "DepGraph: Towards Any Structural Pruning", arXiv:2301.12900). It
reads them off autograd by rules of thumb, so every group is proven before it is used: see :mod:`edgekit.compression.prune.proof`.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import fnmatch
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch_pruning  # type: ignore[import-untyped, unused-ignore]
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch_pruning import ops as kinds

from edgekit.compression.prune.groups import Group, Heads, Member
from edgekit.compression.prune.heads import head_counts, head_fields
from edgekit.compression.prune.layers import is_depthwise, part, side_width
from edgekit.compression.prune.stand_ins import TracedRecurrent, replace_modules
from edgekit.core.errors import PruningError, RecipeError, nearest

__all__ = ["Call", "Found", "find_groups", "kept_names"]

Call = Callable[[nn.Module], Sequence[torch.Tensor]]
"""Runs a net on fixed inputs and returns its outputs in order."""

_ROOTS = (_ConvNd, nn.Linear, nn.Embedding)
_MIXERS = {kinds.OPTYPE.SPLIT, kinds.OPTYPE.SLICE, kinds.OPTYPE.UNBIND}


@dataclasses.dataclass(frozen=True)
class Found:
    """Groups of a net.

    Args:
        groups: Those that may be pruned, in the order of the net's layers.
        refused: Layer -> why its channels stay.
    """

    groups: tuple[Group, ...]
    refused: Mapping[str, str]


def find_groups(net: nn.Module, call: Call, *, keep: Iterable[str] = ()) -> Found:
    """The groups of dependent channels in a net, by its layers; none of them is proven yet.

    Args:
        net: In eval mode; not changed.
        call: Runs it.
        keep: Paths or shell patterns of layers whose outputs stay.

    Raises:
        RecipeError: A pattern matches no layer.
        PruningError: The net's dependencies cannot be traced.
    """
    kept = kept_names(net, keep)
    traced, graph = _traced(net, call)
    counts = head_counts(net, call)
    shared = _shared(net)
    # Named as in the net itself, where a recurrent layer has no linear layer inside.
    names = {module: name.removesuffix(".traced_as_linear") for name, module in traced.named_modules()}
    groups, refused, visited = [], {}, set()
    for module, name in names.items():
        if not isinstance(module, _ROOTS) or name in visited:
            continue
        if module not in graph.module2node:
            refused[name] = "no gradient of the outputs reaches it"
            continue
        members = _members(graph, module, names)
        outs = [member.name for member in members if member.side == "out"]
        visited.update(outs)
        reason = _reason(net, members, kept=kept, shared=shared)
        group = _group(net, graph, module, name=name, members=members, heads=counts)
        if not reason and group.width < 2:
            reason = "it has a single channel"
        if not reason and group.unit_count < 2:
            reason = "its channels are tied to each other by a grouped layer: they could only go all at once"
        if reason:
            refused.update((out, reason) for out in outs if isinstance(part(net, out), (*_ROOTS, nn.RNNBase)))
        else:
            groups.append(group)
    return Found(tuple(groups), refused)


def kept_names(net: nn.Module, keep: Iterable[str]) -> frozenset[str]:
    """Layers that patterns name; a pattern that names a container names all in it.

    Raises:
        RecipeError: A pattern matches nothing.
    """
    layers = [name for name, module in net.named_modules() if name]
    found: set[str] = set()
    for pattern in keep:
        matches = [name for name in layers if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise RecipeError(
                f"keep: no layer is named '{pattern}'.{nearest(pattern, layers)} Layers: {', '.join(layers[:12])} …"
            )
        found.update(name for name in layers for match in matches if name == match or name.startswith(f"{match}."))
    return frozenset(found)


def _traced(net: nn.Module, call: Call) -> tuple[nn.Module, Any]:
    """A copy of the net in which recurrent layers can be traced, and its dependency graph."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in net.modules())
    for follows_state in (True, False) if recurrent else (True,):
        traced = copy.deepcopy(net)
        replace_modules(traced, nn.RNNBase, lambda module, follows=follows_state: TracedRecurrent(module, follows_state=follows))
        try:
            return traced, _trace(traced, call)
        except PruningError:
            # The last state of two directions, joined by the net's own code, is beyond the graph; the answers may do without.
            if not (recurrent and follows_state):
                raise
    raise PruningError("The dependencies between the net's layers cannot be traced.")


def _trace(net: nn.Module, call: Call) -> Any:
    net.eval().requires_grad_(True)

    def forward(model: nn.Module, _: Any) -> Any:
        return list(call(model))

    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            return torch_pruning.DependencyGraph().build_dependency(net, example_inputs=(), forward_fn=forward, verbose=False)
    except Exception as reason:
        from edgekit.compression.capture import user_line

        raise PruningError(
            f"The dependencies between the net's layers cannot be traced. {user_line(reason)}. Leave the step out, or keep"
            " the layers in question out of the model."
        ) from reason


def _members(graph: Any, module: nn.Module, names: Mapping[nn.Module, str]) -> tuple[Member, ...]:
    width = side_width(module, "out")
    found = []
    for item in graph.get_pruning_group(module, graph.get_pruner_of_module(module).prune_out_channels, list(range(width))):
        target = item.dep.target.module
        if isinstance(target, nn.Parameter):
            name, axis = graph._param_to_name[target], int(item.dep.target.pruning_dim)
        elif target in names:
            name, axis = names[target], -1
        else:
            continue  # an operation without weights
        by_itself = isinstance(target, nn.Module) and is_depthwise(target)
        reads = item.dep.handler.__name__ == "prune_in_channels" and not by_itself
        roots = [-1 if root is None else root for root in item.root_idxs]
        found.append(Member(name, "in" if reads else "out", torch.tensor(roots), torch.tensor(item.idxs), axis))
    return tuple(found)


def _shared(net: nn.Module) -> dict[str, str]:
    """Layers that share a weight with another one -> that one."""
    owners = collections.defaultdict(list)
    for name, module in net.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)].append(name)
    shared = {}
    for layers in owners.values():
        for name in layers if len(layers) > 1 else ():
            shared[name] = next(other for other in layers if other != name)
    return shared


def _reason(net: nn.Module, members: Sequence[Member], *, kept: frozenset[str], shared: Mapping[str, str]) -> str:
    for member in members:
        if member.side == "out" and member.name in kept:
            return f"'keep' names {member.name}, whose channels go with it"
        if member.name in shared:
            return f"the weight of {member.name} is shared with {shared[member.name]}"
        if bool((member.roots < 0).any()):
            return f"its channels are repeated in a way that is not followed, at {member.name}"
        module = net.get_submodule(member.name) if member.name in dict(net.named_modules()) else None
        if isinstance(module, nn.RNNBase) and module.proj_size:
            return f"{member.name} projects its hidden state (proj_size)"
    return ""


def _group(
    net: nn.Module, graph: Any, module: nn.Module, *, name: str, members: tuple[Member, ...], heads: Mapping[str, int]
) -> Group:
    width = side_width(module, "out")
    parent = list(range(width))

    def top(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    def tie(keys: Iterable[int], roots: Iterable[int]) -> None:
        first: dict[int, int] = {}
        for key, root in zip(keys, roots, strict=True):
            parent[top(root)] = top(first.setdefault(key, root))

    for root, others in _entangled(graph, module, width).items():
        tie([0] * len(others), [root, *others][: len(others)])
    for member in members:
        modulus = _tied_modulus(net, member)
        if modulus:
            tie((member.positions % modulus).tolist(), member.roots.tolist())
    fields: tuple[Heads, ...] = ()
    for member in members:
        if member.side == "out" and member.name in heads:
            block = side_width(net.get_submodule(member.name), "out") // heads[member.name]
            tie((member.positions // block).tolist(), member.roots.tolist())
            fields = tuple(dict.fromkeys((*fields, *head_fields(net, member.name, count=heads[member.name], block=block))))
    tops = [top(at) for at in range(width)]
    order = {root: unit for unit, root in enumerate(dict.fromkeys(tops))}
    return Group(name, width, torch.tensor([order[root] for root in tops]), members, fields)


def _tied_modulus(net: nn.Module, member: Member) -> int:
    """Channels of a layer at the same place modulo this go together; 0: each on its own."""
    try:
        module = net.get_submodule(member.name)
    except AttributeError:
        return 0  # a bare parameter
    if isinstance(module, _ConvNd) and module.groups > 1 and not is_depthwise(module):
        return side_width(module, member.side) // module.groups
    if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
        return module.num_channels // module.num_groups
    if isinstance(module, nn.RNNBase) and member.side == "out":
        return module.hidden_size
    return 0


def _entangled(graph: Any, module: nn.Module, width: int) -> dict[int, list[int]]:
    """Root channel -> root channels that must go with it, where the net splits or joins channels on the way."""
    prune = graph.get_pruner_of_module(module).prune_out_channels
    group = graph.get_pruning_group(module, prune, list(range(width)))
    if not any(item.dep.target.type in _MIXERS for item in group):
        return {}
    found = {}
    for channel in range(width):
        closure = graph.get_pruning_group(module, prune, [channel])
        same = {
            index
            for item in closure
            if item.dep.target.module is module and item.dep.handler.__name__ != "prune_in_channels"
            for index in item.idxs
        }
        if len(same) > 1:
            found[channel] = sorted(same)
    return found
