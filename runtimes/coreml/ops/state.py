"""States (iOS 18): tensors a program reads, and leaves for its next run.

``coreml_update_state`` of coremltools' own programs is written to a package as ``write_state`` and, where its result is
read, ``read_state``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgekit.runtimes.coreml.ops.elementwise import torch_dtype
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

if TYPE_CHECKING:
    from torch import Tensor

    from edgekit.runtimes.coreml.program import Variable

__all__ = ["StateCell"]


class StateCell:
    """Holds a state's value.

    Args:
        value: The value.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value

    @classmethod
    def zeros(cls, variable: Variable) -> StateCell:
        """A state at its beginning.

        Args:
            variable: Its declaration.
        """
        return cls(torch.zeros([size or 0 for size in variable.shape], dtype=torch_dtype(variable.dtype)))


@register("read_state")
def read_state(call: Call) -> Kernel:  # noqa: ARG001
    """A copy of what the state holds."""
    return Kernel(lambda state: state.value.clone(), "input")


@register("write_state")
def write_state(call: Call) -> Kernel:  # noqa: ARG001
    """A copy of ``data`` into the state; no result."""

    def run(state: StateCell, data: Tensor) -> tuple[()]:
        if data.shape != state.value.shape:
            message = f"the state has shape {list(state.value.shape)}, but {list(data.shape)} is written to it"
            raise ValueError(message)
        state.value = data.clone()
        return ()

    return Kernel(run, "input", "data")
