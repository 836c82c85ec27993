"""One rewrite: operators a vendor's converter chokes on, and the same function in operators it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import Node

    from edgekit.converters.program_edit import ProgramEdit

__all__ = ["Rewrite"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewrite:
    """Operators of a program -> other operators that compute the same.

    Args:
        name: What it does, in words joined by hyphens: ``"adaptive-max-pool-to-slices"``.
        targets: Converters whose vendor needs it.
        because: What the vendor's converter does with the operator as it is, with its version; shown in the export's log.
        operators: Operators it looks at, ``"aten.adaptive_max_pool2d.default"``.
        build: Called with the node's arguments, tensors for nodes; computes the same with other torch operators.
        applies: Which nodes with these operators it is for; all of them by default.
        edit: In place of ``build``, where more than one node changes: edits the program, returns how many places it changed.
    """

    name: str
    targets: tuple[str, ...]
    because: str
    operators: tuple[str, ...] = ()
    build: Callable[..., Any] | None = None
    applies: Callable[[Node], bool] = lambda node: True  # noqa: ARG005
    edit: Callable[[ProgramEdit], int] | None = None

    def carry_out(self, edit: ProgramEdit) -> int:
        """Change every place it applies to; how many there were."""
        if self.edit is not None:
            return self.edit(edit)
        if self.build is None:
            raise TypeError(f"Rewrite '{self.name}' has neither build nor edit.")
        count = 0
        for node in edit.find(*self.operators):
            if self.applies(node):
                edit.replace(node, self.build)
                count += 1
        return count
