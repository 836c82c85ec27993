"""Where the values of a program lie in a file made from it: what a file computes on given inputs, and which tensor is which node.

A runtime's ``trace`` returns a :class:`TracedFile`; matching one with a program gives :class:`TensorMatch` records.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.model import Record

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Kernels", "Provenance", "TensorMatch", "TracedFile", "TracedOperation", "Tracer"]

Kernels = Literal["reference", "shipped"]
"""The runtime's plainest kernels, or those that ship, as far as they let their results be seen."""


@dataclasses.dataclass(frozen=True)
class TracedOperation:
    """One operator of a file.

    Args:
        name: Its name in the file; may be empty.
        type: As the format spells it, e.g. ``"CONV_2D"``.
        reads: Tensors it reads, constants included; absent optional ones left out.
        writes: Tensors it computes.
        options: Settings written into it, e.g. ``{"pads": "[1, 1, 1, 1]"}``.
    """

    name: str
    type: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class TracedFile:
    """What a file computed.

    Args:
        operations: Operators in the order they ran.
        values: Input and every computed tensor -> ``[S, *shape]`` as stored (integers where quantized); tensors without data
            left out.
        grids: Tensor with integers that stand for real numbers -> scale and zero point.
        inputs: Tensor of each input, by the input's name.
        outputs: Tensor of each output, by the output's name.
        method: How the file was run, in words.
        constants: Constant tensor -> its values as stored.
    """

    operations: tuple[TracedOperation, ...]
    values: Mapping[str, Array]
    grids: Mapping[str, tuple[float, int]]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    method: str
    constants: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    def real(self, tensor: str) -> Array:
        """A tensor's values as real numbers, ``[S, *shape]``: float32 where it is on a grid, else as stored."""
        from edgekit.core.tensors import dequantize

        values = self.values[tensor]
        if tensor not in self.grids:
            return values
        scale, zero_point = self.grids[tensor]
        return dequantize(values, scale=scale, zero_point=zero_point)


@runtime_checkable
class Tracer(Protocol):
    """A runtime that can show every tensor of a file, and take a piece out of it."""

    name: str
    target: str

    def trace(self, path: Path, inputs: Mapping[str, Array], *, kernels: Kernels = "reference") -> TracedFile:
        """Run a file and keep every tensor.

        Args:
            path: The file.
            inputs: Input name -> ``[S, *shape]``, as the file wants them.
            kernels: Which of its kernels run.

        Raises:
            IntegrityError: The file is not one the runtime can read.
            UnsupportedOpError: It holds an operator the runtime cannot run.
        """
        ...

    def cut(self, path: Path, destination: Path, *, reads: Mapping[str, Array], writes: Sequence[str]) -> Path:
        """Write the piece of a file between some of its tensors into the folder ``destination``.

        Args:
            path: The file.
            destination: An existing folder.
            reads: Tensors the piece is given -> one value ``[*shape]`` as stored, which says type and shape.
            writes: Tensors it computes.

        Returns:
            The new file; its inputs and outputs have the tensors' names.
        """
        ...


class TensorMatch(Record):
    """A value of the program found in a file.

    Args:
        node: Node of the program's graph.
        tensor: Tensor of the file.
        axes: Axis of the program's value that each axis of the file's tensor runs along, sizes of 1 left out; empty where both
            hold the same values in the same order.
        by: How it was found: ``"edge"`` (an output), ``"value"`` (equal on every sample), ``"name"`` (the tensor of that name
            holds it in the exported file), or ``"effect"`` (not equal, but with the file's value in its place more of what
            comes after it is equal).
    """

    node: str
    tensor: str
    axes: tuple[int, ...] = ()
    by: Literal["edge", "value", "name", "effect"]


class Provenance(Record):
    """Which node of a program each tensor of a file holds.

    Args:
        sha256: The file's digest.
        matches: In the program's order.
        unmatched_nodes: Nodes without a tensor of their own: fused, folded or computed otherwise.
        unmatched_tensors: Computed tensors that hold no node's value.
        ambiguous: Tensors that hold the same values as another one, so that which is which is a guess.
    """

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    sha256: str
    matches: tuple[TensorMatch, ...]
    unmatched_nodes: tuple[str, ...] = ()
    unmatched_tensors: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
