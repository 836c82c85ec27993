"""Kernels that are not worth their integers: cheap operators with float operators on the one side or the other.

::

    norm (float) ─ Q ─ add ─ Q ─ norm (float)      becomes      norm ─ add ─ norm
                   Q ┘                                                 ┘

Integers would save such an operator nothing and round its operands on the way in, and its result on the way out. The
integers then begin after it, or end before it. Model inputs and outputs count as integer sides; constants as neither.
So the residual stream of a post-norm transformer stays float from norm to norm, and an additive mask does not force
attention scores and minus infinity on one grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.compression.quantize.plan import Kernel

__all__ = ["REASON", "drop_idle"]

REASON = "between float operators: integers would only add rounding"

_LIGHT = {"move", "pad", "concat", "add", "sub", "mul", "clamp", "softmax", "sigmoid", "tanh", "hardswish", "leaky_relu"}
"""Families that are left float where nothing they read is made of integers."""

_IDLE_BEFORE_FLOAT = {"move", "pad", "add", "sub", "mul"}
"""Families that are left float where nothing reads their result as integers."""


def drop_idle(kernels: Sequence[Kernel]) -> tuple[list[Kernel], list[Kernel]]:
    """Split kernels, in graph order, into those to keep and those to leave float."""
    kept: list[Kernel] = list(kernels)
    dropped: list[Kernel] = []
    while True:
        idle = _without_integer_inputs(kept)
        idle |= _without_integer_readers([kernel for kernel in kept if kernel.node not in idle])
        if not idle:
            return kept, sorted(dropped, key=kernels.index)
        dropped += [kernel for kernel in kept if kernel.node in idle]
        kept = [kernel for kernel in kept if kernel.node not in idle]


def _without_integer_inputs(kernels: Sequence[Kernel]) -> set[Node]:
    makers = {kernel.end for kernel in kernels}
    idle: set[Node] = set()
    for kernel in kernels:
        if kernel.family.name not in _LIGHT:
            continue
        sources = [argument for argument in kernel.activation_arguments if argument.op != "get_attr"]
        integers = [source for source in sources if source in makers or source.op == "placeholder"]
        if not integers or (len(integers) < len(sources) and _leads_to_softmax(kernel.end)):
            makers.discard(kernel.end)
            idle.add(kernel.node)
    return idle


def _leads_to_softmax(node: Node) -> bool:
    """Whether a sum goes straight into a softmax: what it adds and no kernel makes is a mask."""
    return any("softmax" in str(user.target) for user in node.users)


def _without_integer_readers(kernels: Sequence[Kernel]) -> set[Node]:
    readers = {kernel.node for kernel in kernels}
    idle: set[Node] = set()
    for kernel in reversed(kernels):
        if kernel.family.name in _IDLE_BEFORE_FLOAT and not any(
            user in readers or user.op == "output" for user in kernel.end.users
        ):
            readers.discard(kernel.node)
            idle.add(kernel.node)
    return idle
