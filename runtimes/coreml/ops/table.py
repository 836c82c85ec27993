"""Operation type -> kernel, and what a kernel's builder is told about its operation.

To add an operation, write a builder in the file of its family::

    @register("softsign")
    def softsign(call: Call) -> Kernel:
        return Kernel(lambda x: x / (1 + x.abs()), "x")

A builder runs once, when the model is loaded: it reads constant arguments and returns the function that is called with
tensors at every inference. Where a value or a shape it asks for is only known at run time, it runs again then, once for each
combination it meets (see :mod:`edgekit.runtimes.coreml.late`); a builder need not know. Semantics are those of the MIL
operation set documented by coremltools (``coremltools.converters.mil.mil.ops.defs``). Floats are float32 inside; the executor
rounds to float16 where asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgekit.core.errors import IntegrityError, UnsupportedOpError, nearest
from edgekit.runtimes.coreml.program import Literal, Operation, Variable

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.coreml.program import Value

__all__ = ["FAILURES", "FRAME", "Builder", "Call", "Kernel", "RunTimeValueError", "builder", "register", "supported"]

FRAME = ("classify", "cond", "const", "while_loop")
"""Operations without a builder: constants and class names are read with the package, blocks are compiled with the program."""


FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError)
"""What torch, numpy and Python raise where a program asks for what cannot be done."""


class RunTimeValueError(UnsupportedOpError):
    """A builder asked for a value or a shape that is only known at run time."""


class Kernel:
    """What runs at every inference.

    Args:
        function: Called with one tensor for each variable or constant bound to ``arguments``, in that order; None for
            an argument the operation leaves out. Returns a tensor, or as many as the operation has outputs.
        arguments: Names of the MIL arguments it wants. One that binds several variables (``concat``) is spread out.
    """

    def __init__(self, function: Callable[..., Any], *arguments: str) -> None:
        self.function = function
        self.arguments = arguments


@dataclasses.dataclass(frozen=True)
class Call:
    """One operation as its builder sees it.

    Args:
        operation: The operation.
        constants: Decoded constants by variable name.
        variables: Declared types by variable name.
    """

    operation: Operation
    constants: Mapping[str, Value]
    variables: Mapping[str, Variable]

    def has(self, argument: str) -> bool:
        """Whether the operation is given ``argument``."""
        return bool(self.operation.inputs.get(argument))

    def is_constant(self, argument: str) -> bool:
        """Whether ``argument`` is given and known when the model is loaded."""
        bound = self.operation.inputs.get(argument, ())
        return bool(bound) and all(isinstance(b, Literal) or b in self.constants for b in bound)

    def value(self, argument: str) -> Value | None:
        """The value bound to ``argument``; None where the operation leaves it out.

        Raises:
            RunTimeValueError: It is computed at run time.
        """
        return self.values(argument)[0] if self.has(argument) else None

    def values(self, argument: str) -> tuple[Value, ...]:
        """All values bound to ``argument``, which may take several.

        Raises:
            RunTimeValueError: One is computed at run time.
        """
        return tuple(self._known(argument, bound) for bound in self.operation.inputs.get(argument, ()))

    def _known(self, argument: str, bound: str | Literal) -> Value:
        if isinstance(bound, Literal):
            return bound.value
        if bound in self.constants:
            return self.constants[bound]
        return self.computed(argument, bound)

    def computed(self, argument: str, name: str) -> Array:
        """The value of a variable that is no constant.

        Raises:
            RunTimeValueError: It is not known yet.
        """
        raise RunTimeValueError(f"{self}: argument '{argument}' reads '{name}', which is computed at run time.")

    def computed_shape(self, argument: str, name: str) -> tuple[int, ...]:
        """The shape of a variable that is no constant.

        Raises:
            RunTimeValueError: A size is not known yet.
        """
        declared = self.variables[name].shape
        static = tuple(size for size in declared if size is not None)
        if len(static) != len(declared):
            raise RunTimeValueError(f"{self}: argument '{argument}' has a shape that is only known at run time ({declared}).")
        return static

    def array(self, argument: str) -> Array:
        """The constant array bound to ``argument``.

        Raises:
            IntegrityError: There is none.
        """
        value = self.value(argument)
        if value is None or isinstance(value, str):
            raise IntegrityError(f"{self}: argument '{argument}' must be an array; found {value!r}.")
        return value

    def integers(self, argument: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A constant vector of integers."""
        if default is not None and not self.has(argument):
            return default
        return tuple(int(number) for number in np.atleast_1d(self.array(argument)))

    def flags(self, argument: str, default: tuple[bool, ...]) -> tuple[bool, ...]:
        """A constant vector of booleans."""
        return tuple(bool(flag) for flag in np.atleast_1d(self.array(argument))) if self.has(argument) else default

    def integer(self, argument: str, default: int | None = None) -> int:
        """A constant integer."""
        return int(self.number(argument, default))

    def number(self, argument: str, default: float | None = None) -> float:
        """A constant number."""
        if default is not None and not self.has(argument):
            return default
        return float(self.array(argument).reshape(()))

    def flag(self, argument: str, default: bool = False) -> bool:
        """A constant boolean."""
        return bool(self.array(argument).reshape(())) if self.has(argument) else default

    def text(self, argument: str, default: str) -> str:
        """A constant string."""
        value = self.value(argument)
        return default if value is None else str(value)

    def shape(self, argument: str) -> tuple[int, ...]:
        """Shape of the tensor bound to ``argument``.

        Raises:
            RunTimeValueError: A size is only known at run time.
            IntegrityError: There is no such argument.
        """
        bound = self.operation.inputs.get(argument, ())
        if not bound:
            raise IntegrityError(f"{self}: argument '{argument}' is missing.")
        if self.is_constant(argument):
            return tuple(self.array(argument).shape)
        return self.computed_shape(argument, str(bound[0]))

    def dtype(self, argument: str) -> str:
        """Declared element type of the tensor bound to ``argument``."""
        bound = self.operation.inputs[argument][0]
        if isinstance(bound, Literal) or bound in self.constants:
            return str(self.array(argument).dtype)
        return self.variables[bound].dtype

    @property
    def outputs(self) -> tuple[Variable, ...]:
        """What the operation computes."""
        return self.operation.outputs

    def __str__(self) -> str:
        return f"Operation '{self.operation.name}' ({self.operation.type})"


Builder = Callable[[Call], Kernel]
_B = TypeVar("_B", bound=Builder)
_BUILDERS: dict[str, Builder] = {}


def register(*types: str) -> Callable[[_B], _B]:
    """Register a builder for MIL operation types."""

    def keep(function: _B) -> _B:
        _BUILDERS.update(dict.fromkeys(types, function))
        return function

    return keep


def builder(operation: Operation) -> Builder:
    """The builder for an operation.

    Raises:
        UnsupportedOpError: There is none; says where to add it.
    """
    if operation.type not in _BUILDERS:
        raise UnsupportedOpError(
            f"The Core ML reference executor has no kernel for operation type '{operation.type}' (operation '{operation.name}')."
            f"{nearest(operation.type, _BUILDERS)} docs/coreml-operations.md lists what it runs and why the rest is"
            f" missing. Add a builder with @register('{operation.type}') to the file of its family in runtimes/coreml/ops, or run"
            " the model on macOS with the runtime 'coreml'."
        )
    return _BUILDERS[operation.type]


def supported() -> tuple[str, ...]:
    """Every operation type that is run, sorted."""
    return tuple(sorted({*_BUILDERS, *FRAME}))
