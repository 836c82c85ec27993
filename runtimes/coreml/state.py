"""What a stateful model keeps between runs, as a caller sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgekit.core.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.coreml.ops.state import StateCell
    from edgekit.runtimes.coreml.program import Variable

__all__ = ["ReferenceState"]


class ReferenceState:
    """The states of one use of a model, zeros at the beginning; runs it is given to read them and write to them.

    The methods are those of coremltools' ``MLState``.

    Args:
        variables: What the program declares.
        cells: Where the values are held, by name.
    """

    def __init__(self, variables: tuple[Variable, ...], cells: Mapping[str, StateCell]) -> None:
        self._variables = {variable.name: variable for variable in variables}
        self.cells = cells
        """Where the values are held, by name: what the executor works on."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the states."""
        return tuple(self._variables)

    def read_state(self, name: str) -> Array:
        """A copy of a state's value, in the declared type and shape.

        Raises:
            UsageError: There is no such state.
        """
        variable = self._variable(name)
        return self.cells[name].value.numpy().astype(variable.dtype)

    def write_state(self, name: str, value: Array) -> None:
        """Set a state's value.

        Args:
            name: Name of the state.
            value: Of the declared shape; rounded to the declared type.

        Raises:
            UsageError: There is no such state.
            DataError: The value has another shape.
        """
        import torch

        from edgekit.runtimes.coreml.ops.elementwise import torch_dtype

        variable = self._variable(name)
        if tuple(value.shape) != variable.shape:
            raise DataError(f"State '{name}' has shape {list(variable.shape)}; the value given has {list(value.shape)}.")
        self.cells[name].value = torch.from_numpy(value.astype(variable.dtype)).to(torch_dtype(variable.dtype))

    def _variable(self, name: str) -> Variable:
        if name not in self._variables:
            known = ", ".join(self._variables) or "none"
            raise UsageError(f"This model has no state '{name}'; its states are: {known}.{nearest(name, self._variables)}")
        return self._variables[name]
