"""What flows through an imported graph: values, constants, and the calls that make one of another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["Step", "Value", "is_fake"]


@dataclasses.dataclass(eq=False)
class Value:
    """A tensor of the graph.

    Args:
        name: As the file names it; unique, since bodies that are unrolled have their names completed.
        tensor: The constant itself, or a fake tensor that has shape and dtype only.
        role: What a constant is to the operator that owns it: ``"weight"``, ``"bias"``; empty where it is no parameter.
    """

    name: str
    tensor: torch.Tensor
    role: str = ""

    @property
    def constant(self) -> torch.Tensor | None:
        """The tensor, where its numbers are known."""
        return None if is_fake(self.tensor) else self.tensor


@dataclasses.dataclass(eq=False)
class Step:
    """One operator that is computed when the net runs.

    Args:
        operator: Its type, e.g. ``"Conv"``.
        domain: Its domain; empty for ONNX's own.
        version: Opset version that its meaning is taken from.
        name: Name of the node, unique.
        attributes: Attributes by name, as Python values.
        inputs: Values by position; None where an optional one is left out.
        outputs: Values it makes; ``None`` where nobody wants one.
        reads: Positions of the inputs whose tensors are needed when the net runs.
        extra: Constants made from others while planning (a transposed weight), by name.
        numbers: Numbers of constant inputs as Python values, read while planning: when the net is exported, reading a
            tensor would become an operator of the program.
    """

    operator: str
    domain: str
    version: int
    name: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Value | None]
    outputs: Sequence[Value | None]
    reads: set[int] = dataclasses.field(default_factory=set)
    extra: dict[str, Value] = dataclasses.field(default_factory=dict)
    numbers: dict[int, Any] = dataclasses.field(default_factory=dict)


def is_fake(tensor: torch.Tensor) -> bool:
    """Whether a tensor has a shape and a dtype only."""
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)
