"""A quantized graph as the kernels read it: tensors on grids, and operations between them.

File readers translate an operator of their format into one of the kernels' names; both keep the format's own layout::

    CONV_2D, DEPTHWISE_CONV_2D, QLinearConv  ->  convolution        ADD, QLinearAdd  ->  add
    FULLY_CONNECTED, QGemm, QLinearMatMul    ->  linear             MEAN, QLinearGlobalAveragePool  ->  mean
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Graph", "Operation", "Tensor"]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Args:
        name: Its name, unique in the file.
        dtype: Element type as numpy spells it.
        scale: float32 ``[1]`` or ``[C]``; None where it is on no grid.
        zero_point: int64, as many as there are scales.
        axis: The axis that per-channel scales run along.
        constant: Its values where it is one.
    """

    name: str
    dtype: str
    scale: Array | None = None
    zero_point: Array | None = None
    axis: int = 0
    constant: Array | None = None

    @property
    def step(self) -> np.float32:
        """Scale of a tensor that has one for all values."""
        return np.float32(1.0 if self.scale is None else self.scale[0])

    @property
    def zero(self) -> int:
        """Zero point of a tensor that has one for all values."""
        return 0 if self.zero_point is None or not len(self.zero_point) else int(self.zero_point[0])

    @property
    def is_integer(self) -> bool:
        """Whether its values are integers that stand for real numbers."""
        return self.scale is not None and np.dtype(self.dtype).kind in "iu"

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest integer of its type."""
        limits = np.iinfo(self.dtype)
        return int(limits.min), int(limits.max)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operator.

    Args:
        type: As the format spells it, ``"CONV_2D"``.
        kernel: Name of the kernel that computes it; empty where there is none.
        reads: Tensor names in the kernel's order; an empty one is an absent optional input.
        writes: Tensor names.
        options: Settings the kernel reads.
        reason: Why there is no kernel.
    """

    type: str
    kernel: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Graph:
    """A file's graph.

    Args:
        tensors: By name.
        operations: In the order they run.
        inputs: Tensor names of the inputs, in order.
        outputs: Tensor names of the outputs, in order.
    """

    tensors: Mapping[str, Tensor]
    operations: tuple[Operation, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
