"""Groups of channels that can only go together, and the surgery that takes some of them out of a net.

All places are those of the net before the surgery: a plan for many groups is carried out at once, so the order of groups does
not matter, and where two groups meet in one tensor (a concatenation) no index has to be shifted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from edgekit.compression.prune.layers import Axis, Side, axes, part, resize, side_width

__all__ = ["Group", "Heads", "Member", "Plan", "cut", "places", "silence", "unit_places"]

Plan = Mapping[str, torch.Tensor]
"""Group name -> the units that go, ``[K]`` int64."""


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One side of one layer that a group passes through.

    Args:
        name: Path of the layer, or of a bare parameter.
        side: Its output or input channels.
        roots: Channel of the group, ``[P]`` int64 ...
        positions: ... and the layer's channel that stands for it, ``[P]`` int64.
        axis: The axis of a bare parameter.
    """

    name: str
    side: Side
    roots: torch.Tensor
    positions: torch.Tensor
    axis: int = -1


@dataclasses.dataclass(frozen=True)
class Heads:
    """A number of heads that a module keeps in a field of its own.

    Args:
        module: Path of the module.
        field: Name of the field.
        scale: What one head adds to the field: 1, or the width of a head.
    """

    module: str
    field: str
    scale: int


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Channels of several layers that depend on each other.

    Args:
        name: Path of the layer the group is named after.
        width: Channels of that layer.
        unit_of: Channel -> unit, ``[width]`` int64. A unit goes or stays as a whole: a channel, the channels at the same offset
            of a grouped layer, a head.
        members: The layers it passes through.
        heads: Fields that count heads.
    """

    name: str
    width: int
    unit_of: torch.Tensor
    members: tuple[Member, ...]
    heads: tuple[Heads, ...] = ()

    @property
    def unit_count(self) -> int:
        """How many units there are."""
        return int(self.unit_of.max()) + 1

    @property
    def unit_width(self) -> int:
        """Channels of one unit."""
        return self.width // self.unit_count


def places(net: nn.Module, group: Group, units: torch.Tensor) -> Iterator[tuple[Axis, torch.Tensor]]:
    """Each axis a group passes through, with the places on it that belong to the given units."""
    chosen = torch.zeros(group.unit_count, dtype=torch.bool)
    chosen[units] = True
    for member in group.members:
        positions = member.positions[chosen[group.unit_of[member.roots]]]
        for axis in axes(part(net, member.name), member.name, member.side, axis=member.axis):
            yield axis, axis.indices(positions)


def unit_places(net: nn.Module, group: Group) -> Iterator[tuple[Axis, torch.Tensor, torch.Tensor]]:
    """Each axis a group passes through: its places ``[P]`` and the unit each belongs to ``[P]``."""
    for member in group.members:
        units = group.unit_of[member.roots]
        for axis in axes(part(net, member.name), member.name, member.side, axis=member.axis):
            within = member.positions if axis.modulus is None else member.positions % axis.modulus
            every = torch.cat([within + offset for offset in axis.offsets])
            yield axis, every, units.repeat(len(axis.offsets))


def _removed(net: nn.Module, groups: Iterable[Group], plan: Plan) -> dict[tuple[str, int], torch.Tensor]:
    found: dict[tuple[str, int], torch.Tensor] = {}
    for group in groups:
        if group.name not in plan or not len(plan[group.name]):
            continue
        for axis, indices in places(net, group, plan[group.name]):
            key = (axis.tensor, axis.axis)
            found[key] = torch.unique(torch.cat([found[key], indices])) if key in found else indices
    return found


def cut(net: nn.Module, groups: Iterable[Group], plan: Plan) -> None:
    """Take the planned units out of a net, in place (pass a deep copy)."""
    groups = tuple(groups)
    removed = _removed(net, groups, plan)
    widths = _new_widths(net, groups, plan)
    for (tensor, axis), indices in removed.items():
        parent, _, name = tensor.rpartition(".")
        owner = net.get_submodule(parent)
        old = getattr(owner, name)
        kept = torch.ones(old.shape[axis], dtype=torch.bool)
        kept[indices] = False
        new = old.detach().index_select(axis, kept.nonzero()[:, 0].to(old.device)).contiguous()
        if isinstance(old, nn.Parameter):
            setattr(owner, name, nn.Parameter(new, requires_grad=old.requires_grad))
        else:
            setattr(owner, name, new)
    for (name, side), width in widths.items():
        resize(part(net, name), side, width=width)
    for group in groups:
        gone = len(plan.get(group.name, ()))
        for heads in group.heads if gone else ():
            module = net.get_submodule(heads.module)
            setattr(module, heads.field, getattr(module, heads.field) - gone * heads.scale)


def _new_widths(net: nn.Module, groups: Iterable[Group], plan: Plan) -> dict[tuple[str, Side], int]:
    gone: dict[tuple[str, Side], set[int]] = {}
    for group in groups:
        if group.name not in plan or not len(plan[group.name]):
            continue
        chosen = torch.zeros(group.unit_count, dtype=torch.bool)
        chosen[plan[group.name]] = True
        for member in group.members:
            positions = member.positions[chosen[group.unit_of[member.roots]]]
            gone.setdefault((member.name, member.side), set()).update(positions.tolist())
    widths = {}
    for (name, side), positions_gone in gone.items():
        module = part(net, name)
        if not isinstance(module, nn.Parameter):
            widths[name, side] = side_width(module, side) - len(positions_gone)
    return widths


@torch.no_grad()
def silence(net: nn.Module, groups: Iterable[Group], plan: Plan) -> None:
    """Set the planned units' weights to zero, in place: what a net without them must answer."""
    for group in groups:
        for axis, indices in places(net, group, plan.get(group.name, torch.zeros(0, dtype=torch.int64))):
            if axis.role != "statistic" and len(indices):
                parent, _, name = axis.tensor.rpartition(".")
                getattr(net.get_submodule(parent), name).index_fill_(axis.axis, indices, 0.0)
