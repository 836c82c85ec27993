"""What a function for coremltools' torch frontend is given, and what it builds with."""

from __future__ import annotations

from typing import Any

__all__ = ["arguments", "builder"]


def arguments(context: Any, node: Any) -> list[Any]:
    """The node's positional arguments: MIL variables, lists of them, or None."""
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs

    return list(_get_inputs(context, node))


def builder() -> Any:
    """MIL's operations as functions that add themselves to the program being built."""
    from coremltools.converters.mil import Builder

    return Builder
