"""What the bytes of an artifact hold: constants, grids and the kernels that use them, whatever the file format.

A runtime's ``read_file`` returns this; the audit compares it with the contract. Nothing in it comes from what a converter
said about its file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Arithmetic", "FileReader", "Grid", "Kernel", "StoredConstant", "StoredFile"]

Arithmetic = Literal["integer", "dynamic", "float", "device"]
"""How a kernel multiplies: integers with scales known beforehand; integers whose scale it takes from each input; floats; or the
device decides when it loads the file (Core ML)."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Scales of one tensor.

    Args:
        dtype: Stored type, ``"int8"``, ``"int4"`` ...
        scale: Float32 ``[1]``, ``[channels]``, or ``[channels * blocks]`` in the order of the stored weight.
        zero_point: As many as there are scales.
        block_size: Values that share a scale, where blocks are smaller than channels.
    """

    dtype: str
    scale: Array
    zero_point: Array
    block_size: int | None = None

    @property
    def granularity(self) -> str:
        """``"tensor"``, ``"channel"`` or ``"block 32"``."""
        if self.block_size is not None:
            return f"block {self.block_size}"
        return "tensor" if self.scale.size == 1 else "channel"


@dataclasses.dataclass(frozen=True)
class StoredConstant:
    """One weight.

    Args:
        name: Its name in the file.
        values: As stored: integers (int8 also for int4), or floats; in the file's own layout.
        dtype: Stored type.
        grid: Its grid; None for floats.
    """

    name: str
    values: Array
    dtype: str
    grid: Grid | None = None


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel that multiplies and adds.

    Args:
        name: Name of its node in the file.
        op: Operator as the runtime spells it, e.g. ``"QLinearConv"``.
        arithmetic: How it computes.
        macs: Multiply-accumulates of one inference.
        weights: Names of the constants it multiplies with.
    """

    name: str
    op: str
    arithmetic: Arithmetic
    macs: int
    weights: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """An artifact's content.

    Args:
        constants: Every constant with two axes or more that a kernel may multiply with.
        grids: Grids of computed tensors by name.
        kernels: Kernels in the order they run.
        stray_dequantizes: Activations turned back into floats, but for those that leave the model.
        method: How it was read, in words.
    """

    constants: tuple[StoredConstant, ...]
    grids: Mapping[str, Grid]
    kernels: tuple[Kernel, ...]
    stray_dequantizes: int
    method: str


@runtime_checkable
class FileReader(Protocol):
    """A runtime that can say what a file holds."""

    target: str

    def read_file(self, path: Path, inputs: Mapping[str, Array]) -> StoredFile:
        """Read an artifact back.

        Args:
            path: The file.
            inputs: One sample by input name, as the file wants it, for runtimes that must run to tell their kernels.

        Raises:
            IntegrityError: The file is not one the runtime can read.
        """
        ...
