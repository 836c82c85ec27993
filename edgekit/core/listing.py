"""What a model file holds, in one form for every format: operations, constants, inputs and outputs, metadata."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from edgekit.core.errors import IntegrityError
from edgekit.core.model import Record
from edgekit.core.plugins import Framework

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["RENDERERS", "Arithmetic", "Constant", "Inspector", "Listing", "Operation", "Value", "constant_of", "with_sizes"]

RENDERERS: dict[str, Callable[[Listing], str]] = {}
"""How a notebook shows a listing, by MIME type; see :data:`edgekit.core.validation.RENDERERS`."""

Arithmetic = Literal["integer", "dynamic", "float", "device", ""]
"""How an operation multiplies (:data:`edgekit.core.stored.Arithmetic`); empty where it does not multiply."""


class Value(Record):
    """A computed tensor, an input or an output.

    Args:
        name: Its name in the file.
        shape: Sizes; None where the file leaves one open. None as a whole: not recorded.
        dtype: Element type as numpy spells it, or the format's own word.
        scale: For a tensor on an integer grid: real = ``scale * (integer - zero_point)``.
        zero_point: The same.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


class Constant(Record):
    """A stored tensor.

    Args:
        name: Its name in the file.
        shape: Sizes in the file's own axis order.
        dtype: Stored type.
        size_bytes: What it takes in the file.
        granularity: ``"tensor"``, ``"channel"``, ``"block 32"`` for integers on a grid; empty for others.
        content: Digest of its stored numbers in the file's order.
        grid: Digest of its scales and zero points, where the format keeps them with it.
        values: Digest of its stored numbers sorted: equal for the same numbers in another axis order.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size_bytes: int
    granularity: str = ""
    content: str
    grid: str = ""
    values: str


class Operation(Record):
    """One operation of the file's graph.

    Args:
        name: Its name; that of its first output where the format gives it none.
        op: Operator as the format spells it.
        inputs: Names of the tensors and constants it reads.
        outputs: What it computes.
        macs: Multiply-accumulates of one inference.
        weight_bytes: Size of the constants it is the first to compute with; one that is only decoded or moved before counts
            for the operation behind.
        arithmetic: How it multiplies; empty where it does not.
        fused: What is fused into it, e.g. ``"RELU6"``.
        source: Line of the model's code it comes from, where the file says.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[Value, ...]
    macs: int = 0
    weight_bytes: int = 0
    arithmetic: Arithmetic = ""
    fused: str = ""
    source: str = ""


class Listing(Record):
    """Everything a file holds.

    Args:
        path: Where it was read.
        format: ``"onnx"``, ``"ort"``, ``"tflite"``, ``"coreml"`` or ``"pt2"``.
        sha256: Digest of the file, or of the package's contents.
        size_bytes: Size of what ships.
        inputs: Inputs in the file's order.
        outputs: Outputs in the file's order.
        operations: Operations in the order they are executed.
        constants: Stored tensors.
        metadata: What the file says about itself.
        versions: Of the format, the operator set and the tool that wrote it.
        kernels: Kernels the runtime executes after its own fusions, with their number; empty where only the device knows.
        integer_mac_share: Share of multiply-accumulates in integer kernels; None where the device decides.
        method: How kernels and share were found.
        notes: What could not be read.
    """

    error = IntegrityError

    schema_version: Literal[1] = 1
    path: str
    format: str
    sha256: str
    size_bytes: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operations: tuple[Operation, ...] = ()
    constants: tuple[Constant, ...] = ()
    metadata: dict[str, str] = {}
    versions: dict[str, str] = {}
    kernels: dict[str, int] = {}
    integer_mac_share: float | None = None
    method: str = ""
    notes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(operation.macs for operation in self.operations)

    @property
    def weight_bytes(self) -> int:
        """Size of all constants."""
        return sum(constant.size_bytes for constant in self.constants)

    @property
    def op_counts(self) -> dict[str, int]:
        """Operator -> how many there are, most frequent first."""
        return dict(collections.Counter(operation.op for operation in self.operations).most_common())

    @property
    def bytes_by_dtype(self) -> dict[str, int]:
        """Stored type -> size of the constants of that type, largest first."""
        found: collections.Counter[str] = collections.Counter()
        for constant in self.constants:
            found[constant.dtype] += constant.size_bytes
        return dict(found.most_common())

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None


@runtime_checkable
class Inspector(Framework, Protocol):
    """Model file -> listing. ``inspect`` is called in a confined worker process; only ``recognises`` in the caller's own."""

    runtime: str
    """The runtime that runs such files; empty where none does."""

    def recognises(self, path: Path) -> bool:
        """Whether a file or folder is of this kind, by its name and its first bytes; it is not parsed."""
        ...

    def inspect(self, path: Path, *, kept: dict[str, Array] | None = None) -> Listing:
        """List what the file holds.

        Args:
            path: The file.
            kept: Filled with the constants' numbers by name, in the file's axis order.

        Raises:
            IntegrityError: The file is damaged, hostile, or not what its name says.
        """
        ...


def constant_of(
    name: str,
    values: Array,
    *,
    dtype: str = "",
    size_bytes: int | None = None,
    granularity: str = "",
    grid: Mapping[str, Any] | None = None,
    kept: dict[str, Array] | None = None,
) -> Constant:
    """A constant with its digests.

    Args:
        name: Its name in the file.
        values: Its numbers in the file's axis order.
        dtype: Stored type, where numpy has none for it (``"int4"``).
        size_bytes: What it takes in the file, where that is not what the array takes.
        granularity: See :class:`Constant`.
        grid: Further arrays that belong to its content, by name: scales and zero points.
        kept: Where the numbers themselves are kept too.
    """
    import numpy as np

    plain = np.ascontiguousarray(values)
    if kept is not None:
        kept[name] = plain
    scales = hashlib.sha256()
    for key in sorted(grid or {}):
        scales.update(np.ascontiguousarray((grid or {})[key]).tobytes())
    ordered = np.sort(plain, axis=None)
    return Constant(
        name=name,
        shape=tuple(plain.shape),
        dtype=dtype or str(plain.dtype),
        size_bytes=plain.nbytes if size_bytes is None else size_bytes,
        granularity=granularity,
        content=hashlib.sha256(plain.tobytes()).hexdigest(),
        grid=scales.hexdigest() if grid else "",
        values=hashlib.sha256(ordered.tobytes()).hexdigest(),
    )


def with_sizes(operations: Sequence[Operation], constants: Mapping[str, Constant]) -> tuple[Operation, ...]:
    """The operations with the size of the constants each computes with.

    Args:
        operations: In the order they are executed.
        constants: Stored tensors by name.
    """
    decoded: dict[str, list[str]] = {name: [name] for name in constants}
    taken: set[str] = set()
    found = []
    for operation in operations:
        sources = [name for read in operation.inputs for name in decoded.get(read, ())]
        if operation.inputs and all(read in decoded for read in operation.inputs):  # a function of constants alone
            decoded |= {value.name: sources for value in operation.outputs}
            found.append(operation)
            continue
        new = [name for name in dict.fromkeys(sources) if name not in taken]
        taken.update(new)
        found.append(operation.replace(weight_bytes=sum(constants[name].size_bytes for name in new)))
    return tuple(found)
