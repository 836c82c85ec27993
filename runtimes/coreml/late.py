"""Operations that are built at run time, because a value or a shape their builder asks for is not known before.

Such an operation is built at its first call, and again when what its builder looked at has changed. What it looked at is
noted while it builds, so that a change elsewhere costs nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.table import Call, Kernel
from edgekit.runtimes.coreml.program import Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edgekit.core.tensors import Array

__all__ = ["LateKernel"]

_MOST_KEPT = 16
"""Kernels kept of one operation: a loop meets each of its shapes in turn."""

_Key = tuple[object, ...]


@dataclasses.dataclass(frozen=True)
class _LateCall(Call):
    """An operation together with what its arguments are in this run."""

    tensors: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    values_seen: set[str] = dataclasses.field(default_factory=set)
    shapes_seen: set[str] = dataclasses.field(default_factory=set)

    def computed(self, argument: str, name: str) -> Array:
        """The value in this run, in the declared type."""
        self.values_seen.add(name)
        value = self._tensor(argument, name).numpy()
        declared = self.variables[name].dtype
        return value.astype(np.float16) if declared == "float16" else value

    def computed_shape(self, argument: str, name: str) -> tuple[int, ...]:
        """The shape in this run."""
        self.shapes_seen.add(name)
        return tuple(self._tensor(argument, name).shape)

    def _tensor(self, argument: str, name: str) -> Tensor:
        value = self.tensors[name]
        if not isinstance(value, torch.Tensor):
            raise IntegrityError(f"{self}: argument '{argument}' is no tensor; found a {type(value).__name__}.")
        return value


class LateKernel:
    """The function of an operation that is built at run time.

    Args:
        call: The operation.
        build: Builds its kernel.
        constant: Turns a constant bound to an argument into a tensor: ``constant(argument, binding)``.
    """

    def __init__(self, call: Call, build: Callable[[Call], Kernel], constant: Callable[[str, str | Literal], Tensor]) -> None:
        self._call = call
        self._build = build
        self._constant = constant
        computed = [
            bound
            for several in call.operation.inputs.values()
            for bound in several
            if not isinstance(bound, Literal) and bound not in call.constants
        ]
        self.variables = tuple(dict.fromkeys(computed))
        """What it is called with: every variable that is no constant, once."""
        self._values: list[int] = []
        self._shapes: list[int] = []
        self._kept: dict[_Key, tuple[Callable[..., Any], tuple[int | Tensor | None, ...]]] = {}

    def __call__(self, *given: Any) -> Any:
        """Run it on the values of ``variables``.

        Raises:
            UnsupportedOpError: It is used in a way the kernel does not know.
            IntegrityError: Its arguments do not fit it.
        """
        found = self._kept.get(self._key(given))
        if found is None:
            found = self._make(given)
        function, chosen = found
        return function(*[given[item] if isinstance(item, int) else item for item in chosen])

    def _key(self, given: tuple[Any, ...]) -> _Key:
        shapes = [given[at].shape for at in self._shapes]
        return (*shapes, *((given[at].shape, given[at].numpy().tobytes()) for at in self._values))

    def _make(self, given: tuple[Any, ...]) -> tuple[Callable[..., Any], tuple[int | Tensor | None, ...]]:
        call = self._call
        late = _LateCall(call.operation, call.constants, call.variables, tensors=dict(zip(self.variables, given, strict=True)))
        kernel = self._build(late)
        values = {*self._values, *map(self.variables.index, late.values_seen)}
        shapes = {*self._shapes, *map(self.variables.index, late.shapes_seen)}
        if values != set(self._values) or shapes != set(self._shapes):
            self._values, self._shapes = sorted(values), sorted(shapes)
            self._kept.clear()  # their keys say less
        if len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        made = (kernel.function, tuple(item for argument in kernel.arguments for item in self._chosen(argument)))
        self._kept[self._key(given)] = made
        return made

    def _chosen(self, argument: str) -> list[int | Tensor | None]:
        """Where the values of an argument come from: a place among ``variables``, or a constant."""
        bound = self._call.operation.inputs.get(argument, ())
        places = {name: at for at, name in enumerate(self.variables)}
        if not bound:
            return [None]
        return [places[b] if isinstance(b, str) and b in places else self._constant(argument, b) for b in bound]
