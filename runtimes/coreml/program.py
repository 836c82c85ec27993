"""A MIL program as plain values: what an ``.mlpackage`` holds, decoded but not yet executable."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

    Value = Array | str
    """A decoded constant: numpy array (rank 0 for a scalar), or text."""

__all__ = ["Classifier", "Literal", "Operation", "Program", "Variable"]


@dataclasses.dataclass(frozen=True)
class Variable:
    """A named tensor of the program.

    Args:
        name: Unique in the program.
        dtype: MIL's type in numpy's spelling (``"float16"``, ``"int8"``, ``"str"``, ``"int4"`` …).
        shape: Static sizes; None where the file leaves a size open.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]


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
    """

    type: str
    name: str
    inputs: Mapping[str, tuple[str | Literal, ...]]
    outputs: tuple[Variable, ...]


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
    """The main function of an ML program.

    Args:
        inputs: Inputs in the file's order, as callers see them.
        outputs: Outputs in the file's order, as callers see them.
        operations: In execution order, constants left out.
        constants: Variable name -> decoded constant.
        variables: Every input and every tensor the operations compute, by name.
        opset: e.g. ``"CoreML7"`` (iOS 17).
        images: Input that is an image -> its colour space (``"RGB"``, ``"BGR"`` or ``"GRAYSCALE"``); callers give it
            ``uint8 [1, H, W, C]`` in the order red, green, blue, the variable of its name is ``[1, C, H, W]``.
        classifier: For a package that names classes: its outputs are shown as the array of values instead.
        constant_types: Variable name -> type of a constant in the file; ``"int4"`` is decoded into int8.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operations: tuple[Operation, ...]
    constants: Mapping[str, Value]
    variables: Mapping[str, Variable]
    opset: str
    constant_types: Mapping[str, str] = dataclasses.field(default_factory=dict)
    images: Mapping[str, str] = dataclasses.field(default_factory=dict)
    classifier: Classifier | None = None
