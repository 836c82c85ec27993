"""A MIL program as plain values: what an ``.mlpackage`` holds, decoded but not yet executable."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING
from typing import Literal as Choice

from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

    Value = Array | str
    """A decoded constant: numpy array (rank 0 for a scalar), or text."""

__all__ = ["Block", "Classifier", "Kind", "Literal", "Operation", "Program", "Variable", "nested_blocks"]

Kind = Choice["tensor", "list", "state"]
"""What a variable is: a tensor, a list of tensors of one shape, or a tensor that is kept between runs."""


@dataclasses.dataclass(frozen=True)
class Variable:
    """A named value of the program.

    Args:
        name: Unique in its block and those around it.
        dtype: MIL's type in numpy's spelling (``"float16"``, ``"int8"``, ``"str"``, ``"int4"`` …); of the elements of a list.
        shape: Static sizes; None where the file leaves a size open, ``(None,)`` where it leaves even the number of axes open.
            Of a list: of each element.
        kind: What it is.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    kind: Kind = "tensor"


@dataclasses.dataclass(frozen=True)
class Literal:
    """A constant written into an argument itself, and its type in the file."""

    value: Value
    dtype: str = ""


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation.

    Args:
        type: MIL operation type, e.g. ``"conv"``.
        name: Its own name, for messages.
        inputs: Argument name -> the variables (by name) and literals bound to it; several for ``concat`` and the like.
        outputs: What it computes.
        blocks: Of control flow: both branches of a ``cond``, condition and body of a ``while_loop``.
    """

    type: str
    name: str
    inputs: Mapping[str, tuple[str | Literal, ...]]
    outputs: tuple[Variable, ...]
    blocks: tuple[Block, ...] = ()

    @property
    def label(self) -> str:
        """A name for what belongs to it: its first output's, which is unique, where it has one."""
        return self.outputs[0].name if self.outputs else self.name


@dataclasses.dataclass(frozen=True)
class Block:
    """Operations nested in another; they see the values of the blocks around them.

    Args:
        inputs: Values the outer operation hands in (of a loop: its variables).
        outputs: Names of what it hands back.
        operations: In execution order, constants left out.
        constants: Variable name -> decoded constant.
        constant_types: Variable name -> type of a constant in the file.
    """

    inputs: tuple[Variable, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    constants: Mapping[str, Value]
    constant_types: Mapping[str, str] = dataclasses.field(default_factory=dict)


def nested_blocks(operations: Iterable[Operation]) -> Iterator[Block]:
    """Every block inside some operations, outer ones first."""
    for operation in operations:
        for block in operation.blocks:
            yield block
            yield from nested_blocks(block.operations)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """What a classifying package says besides its values.

    Args:
        scores: Variable with one value for each class.
        probabilities: Feature that shows them as a dictionary by class name.
        label: Feature that names the class with the largest.
        classes: Class names in the order of the values.
    """

    scores: str
    probabilities: str
    label: str
    classes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Program:
    """One function of an ML program.

    Args:
        inputs: Inputs in the file's order, as callers see them; states left out.
        outputs: Outputs in the file's order, as callers see them.
        operations: In execution order, constants left out.
        constants: Variable name -> decoded constant.
        variables: Every input, every state, and every value the operations compute, by name.
        opset: e.g. ``"CoreML7"`` (iOS 17).
        images: Input that is an image -> its colour space (``"RGB"``, ``"BGR"`` or ``"GRAYSCALE"``); callers give it
            ``uint8 [1, H, W, C]`` in the order red, green, blue, the variable of its name is ``[1, C, H, W]``.
        pictures: Output that is an image -> its colour space; callers get ``[1, H, W, C]``.
        classifier: For a package that names classes: its outputs are shown as the array of values instead.
        constant_types: Variable name -> type of a constant in the file; ``"int4"`` is decoded into int8.
        states: Tensors that are kept between runs.
        function: Its name in the file.
        functions: Names of all functions of the file.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operations: tuple[Operation, ...]
    constants: Mapping[str, Value]
    variables: Mapping[str, Variable]
    opset: str
    constant_types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pictures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    classifier: Classifier | None = None
    states: tuple[Variable, ...] = ()
    function: str = "main"
    functions: tuple[str, ...] = ("main",)
