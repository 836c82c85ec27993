"""Branches and loops: calls that run the calls of the blocks nested in them, on the same list of values."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.runtimes.coreml.executable import Plan

__all__ = ["CompiledBlock", "branch", "loop"]


@dataclasses.dataclass(frozen=True)
class CompiledBlock:
    """A nested block, ready to run.

    Args:
        plan: Its calls.
        inputs: Slots of what the outer operation hands in.
        outputs: Slots of what it hands back.
        reads: Slots of the blocks around it that it reads.
    """

    plan: Plan
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    reads: frozenset[int]

    def run(self, values: list[Any], given: list[Any]) -> list[Any]:
        """What the block hands back for what it is handed in.

        Args:
            values: All slots of the run.
            given: One value for each input.
        """
        for slot, value in zip(self.inputs, given, strict=True):
            values[slot] = value
        self.plan.run(values)
        return [values[slot] for slot in self.outputs]


def branch(values: list[Any], blocks: tuple[CompiledBlock, ...], condition: Any) -> list[Any]:
    """``cond``: the first block where the condition holds, else the second."""
    return blocks[0 if bool(condition) else 1].run(values, [])


def loop(values: list[Any], blocks: tuple[CompiledBlock, ...], *variables: Any) -> list[Any]:
    """``while_loop``: the second block for as long as the first one hands back true.

    A loop that never ends is ended by whoever limits the time of the process it runs in, or by an interrupt.
    """
    condition, body = blocks
    current = list(variables)
    while bool(condition.run(values, current)[0]):
        current = body.run(values, current)
    return current
