"""Proof of a group: a net without some of its channels answers as the whole net does when those channels' weights are zero.

Layer and group norms mix all channels, so a net with them is another one when channels go, whatever was cut. For the proof they
are replaced by their scales alone: what is proven is that the right places were cut everywhere.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from edgekit.compression.capture import user_line
from edgekit.compression.prune.graph import Call, Found
from edgekit.compression.prune.groups import Group, cut, silence
from edgekit.compression.prune.layers import part
from edgekit.compression.prune.stand_ins import ChannelScale, replace_modules

__all__ = ["prove"]

# Float rounding in sums of other lengths stays below this share of the largest output (measured: at most 2e-6 on 50-layer nets);
# a wrongly cut place changes outputs by tenths.
_TOLERANCE = 1e-4


def prove(net: nn.Module, found: Found, call: Call) -> Found:
    """The groups that can be cut exactly; the others are refused with the reason.

    Args:
        net: In eval mode; not changed.
        found: What :func:`~edgekit.compression.prune.graph.find_groups` found.
        call: Runs it on inputs that are not zero.
    """
    probe = _probe(net)
    accepted: list[Group] = []
    refused = dict(found.refused)
    pending = [list(found.groups)]
    while pending:
        trial = pending.pop()
        reason = _failure(probe, [*accepted, *trial], call)
        if not reason:
            accepted += trial
        elif len(trial) > 1:
            half = len(trial) // 2
            pending += [trial[half:], trial[:half]]
        elif trial:
            refused.update((name, reason) for name in _outs(net, trial[0]))
    order = {group.name: at for at, group in enumerate(found.groups)}
    return dataclasses.replace(found, groups=tuple(sorted(accepted, key=lambda group: order[group.name])), refused=refused)


def _outs(net: nn.Module, group: Group) -> list[str]:
    """Layers with weights that make a group's channels."""
    made = [member.name for member in group.members if member.side == "out"]
    return [name for name in made if name == group.name or getattr(part(net, name), "weight", torch.empty(0)).dim() > 1]


@torch.no_grad()
def _probe(net: nn.Module) -> nn.Module:
    """A copy in which no channel is silent by chance (a branch that starts at zero hides a wrong cut)."""
    probe = copy.deepcopy(net).eval()
    replace_modules(probe, nn.LayerNorm | nn.GroupNorm, ChannelScale)
    generator = torch.Generator().manual_seed(0)
    for parameter in probe.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return probe


@torch.no_grad()
def _failure(probe: nn.Module, groups: Sequence[Group], call: Call) -> str:
    """Why these groups cannot be cut together; empty if they can."""
    generator = torch.Generator().manual_seed(0)
    plan = {
        group.name: torch.randperm(group.unit_count, generator=generator)[: max(1, group.unit_count // 2)].sort().values
        for group in groups
    }
    whole, small = copy.deepcopy(probe), copy.deepcopy(probe)
    silence(whole, groups, plan)
    try:
        cut(small, groups, plan)
        answers = call(small)
    except Exception as reason:
        return _said(reason, heads=any(group.unit_width > 1 for group in groups))
    for expected, answer in zip(call(whole), answers, strict=True):
        if answer.shape != expected.shape:
            return "its channels are an output of the net"
        if not answer.is_floating_point():
            continue
        error = float((answer - expected).abs().max()) if answer.numel() else 0.0
        if not error <= _TOLERANCE * float(expected.abs().max()) + 1e-6:
            return "the net computes something from all its channels together, so that leaving out zeros changes the answer"
    return ""


def _said(reason: Exception, *, heads: bool) -> str:
    line = user_line(reason)
    text = str(reason).lower()
    if "shape '[" in text or "view" in text or "reshape" in text:
        what = "a transformer" if heads else "it"
        return (
            f"Pruning {what} breaks reshape calls that use the residual width: derive the shape from the tensor"
            f" (-1 for what changes). {line}"
        )
    return f"the net does not run without some of its channels: {line}"
