"""What the function of one operator sees: its inputs as tensors or as numbers, and its attributes.

The same function is called twice. While planning, inputs are constants and fake tensors: the call notes which inputs are needed
as tensors, and makes constants from constants (a transposed weight). When the net runs, or is exported, they are real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch

from edgekit.converters.sources.onnx.values import Step, Value, is_fake
from edgekit.core.errors import UnsupportedOpError

__all__ = ["Call"]

T = TypeVar("T")


class Call:
    """One call of an operator.

    Args:
        step: The operator.
        tensors: Input position, or name of a made constant -> tensor. None while planning.
    """

    def __init__(self, step: Step, tensors: Mapping[int | str, torch.Tensor] | None = None) -> None:
        self._step = step
        self._tensors = tensors

    @property
    def operator(self) -> str:
        """Type of the operator."""
        return self._step.operator

    @property
    def version(self) -> int:
        """Opset version that decides what the operator means."""
        return self._step.version

    @property
    def input_count(self) -> int:
        """How many inputs the node lists."""
        return len(self._step.inputs)

    @property
    def output_count(self) -> int:
        """How many outputs the node lists, wanted or not."""
        return len(self._step.outputs)

    def wants(self, output: int) -> bool:
        """Whether somebody reads an output."""
        return output < len(self._step.outputs) and self._step.outputs[output] is not None

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self._step.inputs) and self._step.inputs[index] is not None

    def tensor(self, index: int) -> torch.Tensor:
        """An input as a tensor."""
        if self._tensors is not None:
            return self._tensors[index]
        self._step.reads.add(index)
        return self._value(index).tensor

    def optional(self, index: int) -> torch.Tensor | None:
        """An input as a tensor, or None where it is left out."""
        return self.tensor(index) if self.has(index) else None

    def weight(self, index: int, role: str = "weight") -> torch.Tensor:
        """An input that training may change: a constant one becomes a parameter of the net."""
        value = self._value(index)
        if value.constant is not None and not value.role:
            value.role = role
        return self.tensor(index)

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of an input."""
        return tuple(int(size) for size in self._value(index).tensor.shape)

    def dtype(self, index: int) -> torch.dtype:
        """Element type of an input."""
        return self._value(index).tensor.dtype

    def known(self, index: int) -> torch.Tensor | None:
        """An input's numbers where they are constant; None where they are computed or left out."""
        value = self._step.inputs[index] if self.has(index) else None
        return None if value is None else value.constant

    def constant(self, index: int) -> torch.Tensor:
        """An input's numbers.

        Raises:
            UnsupportedOpError: They depend on the model's inputs.
        """
        value = self._value(index)
        if value.constant is None:
            raise self.unsupported(
                f"takes input {index} ('{value.name}') from what the model computes, but fixed shapes need it constant",
                "Export the model with fixed shapes, or fix that input.",
            )
        return value.constant

    def numbers(self, index: int) -> list[Any]:
        """A constant input's numbers as a flat list."""
        if index not in self._step.numbers:
            self._step.numbers[index] = self.constant(index).reshape(-1).tolist()
        return cast("list[Any]", self._step.numbers[index])

    def ints(self, index: int) -> tuple[int, ...]:
        """A constant input as integers."""
        return tuple(int(number) for number in self.numbers(index))

    def scalar(self, index: int, default: T) -> T:
        """A constant input's one number, or the default where it is left out."""
        return cast("T", self.numbers(index)[0]) if self.has(index) else default

    def listed(self, attribute: str, index: int) -> tuple[int, ...] | None:
        """Integers that older opsets have as an attribute and newer ones as a constant input; None where left out."""
        found = self._step.attributes.get(attribute)
        if found is not None:
            return tuple(int(number) for number in found)
        return self.ints(index) if self.has(index) else None

    def operand(self, index: int, *, beside: int) -> Any:
        """An input as a tensor, or as a Python number where it is constant, has one element, and widens nothing.

        Converters fold numbers into operators; a constant tensor would be a tensor of the file.
        """
        known = self.known(index)
        plain = known is not None and known.numel() == 1 and known.dim() <= len(self.shape(beside))
        if known is not None and plain and self.known(beside) is None and known.dtype == self.dtype(beside):
            return self.numbers(index)[0]
        return self.tensor(index)

    def attribute(self, name: str, default: T) -> T:
        """An attribute, or its default."""
        return cast("T", self._step.attributes.get(name, default))

    def sizes(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """An attribute that lists integers, or the default where it is missing or empty."""
        return tuple(self._step.attributes.get(name) or default)

    def attribute_or_none(self, name: str) -> Any:
        """An attribute, or None where the node has none of that name."""
        return self._step.attributes.get(name)

    def changed(self, index: int, role: str, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """An input in another form: a constant is changed once, while planning, and becomes a parameter of the net.

        Args:
            index: Input position.
            role: What the result is called.
            change: Makes the other form.
        """
        value = self._value(index)
        if value.constant is None:
            return change(self.tensor(index))
        return self.computed(role, lambda: change(cast("torch.Tensor", value.constant)), role=role)

    def computed(self, name: str, make: Callable[[], torch.Tensor], *, role: str = "") -> torch.Tensor:
        """A constant that is made while planning.

        Args:
            name: What it is called, unique in this operator.
            make: Makes it.
            role: Given where training may change it.
        """
        if self._tensors is not None:
            return self._tensors[name]
        if name not in self._step.extra:
            self._step.extra[name] = Value(f"{self._step.name}.{name}", make().contiguous(), role)
        return self._step.extra[name].tensor

    def is_fake(self, index: int) -> bool:
        """Whether an input depends on the model's inputs."""
        return is_fake(self._value(index).tensor)

    def unsupported(self, what: str, remedy: str) -> UnsupportedOpError:
        """An error that names the operator and its node."""
        domain = self._step.domain or "ai.onnx"
        return UnsupportedOpError(
            f"Operator '{self.operator}' ({domain} {self.version}), node '{self._step.name}', {what}. {remedy}"
        )

    def _value(self, index: int) -> Value:
        value = self._step.inputs[index] if index < len(self._step.inputs) else None
        if value is None:
            raise self.unsupported(f"has no input {index}, which it needs", "The file is not valid ONNX; export it again.")
        return value
