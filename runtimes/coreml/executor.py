"""A MIL program compiled once into a flat list of calls, and run on torch's CPU kernels.

Every value has a slot in one list. Constants are decoded when the program is loaded and stay in theirs; a value that no
later operation reads is dropped at once. Reference semantics: each operation is computed in float32; a result the program
declares as float16 is rounded to float16 after its operation. The Neural Engine, the GPU and Core ML's own CPU kernels
fuse and round in their own ways.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from edgekit.core.errors import ContractError, DataError, EdgekitError, IntegrityError, UnsupportedOpError
from edgekit.runtimes.coreml import program as mil
from edgekit.runtimes.coreml.features import as_variable
from edgekit.runtimes.coreml.ops.elementwise import torch_dtype
from edgekit.runtimes.coreml.ops.library import builder
from edgekit.runtimes.coreml.ops.table import Call, Kernel

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Executable", "Precision", "ProgramCompiler", "compile_program"]

Precision = Literal["declared", "float32", "float16"]
"""``declared``: round what the program declares as float16. ``float32``: never round. ``float16``: round every float."""

_ROUNDED: dict[Precision, tuple[str, ...]] = {"declared": ("float16",), "float32": (), "float16": ("float16", "float32")}

_MOVES = {
    "identity", "reshape", "reshape_like", "transpose", "expand_dims", "squeeze", "flatten2d", "concat", "stack", "split",
    "tile", "reverse", "slice_by_index", "slice_by_size", "slice_update", "band_part", "pixel_shuffle", "pixel_unshuffle",
    "depth_to_space", "space_to_depth", "gather", "gather_along_axis", "gather_nd", "topk", "relu", "crop", "max_pool",
    "maximum", "minimum", "select", "reduce_max", "reduce_min", "abs", "sign",
}  # fmt: skip
"""Operations whose result holds only values that were rounded before: nothing to round again."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One call: where its arguments lie, where its results go, and which values nobody reads afterwards."""

    function: Callable[..., Any]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    dead: tuple[int, ...]
    operation: mil.Operation


class Executable:
    """A compiled program.

    Args:
        steps: Calls in execution order.
        initial: Every slot's value before a run: constants, and None.
        slots: Slot by variable name.
        outputs: Names of the values to return.
        threads: Threads torch may use.
        images: Inputs that are images, and their colour spaces.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        initial: list[Tensor | None],
        slots: Mapping[str, int],
        outputs: Sequence[str],
        threads: int,
        images: Mapping[str, str] | None = None,
    ) -> None:
        self._images = images or {}
        self._steps = steps
        self._plan = [(s.function, s.sources, s.targets[0] if len(s.targets) == 1 else s.targets, s.dead) for s in steps]
        self._initial = initial
        self._slots = slots
        self._outputs = tuple(outputs)
        self._threads = threads

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name for inputs by name.

        Raises:
            DataError: An index among the inputs is out of range.
            IntegrityError: An operation cannot run on the shapes the program gives it.
        """
        values = self._start(inputs)
        position = 0
        with torch.inference_mode(), _threads(self._threads), self._naming_failures(lambda: position):
            for position, (function, sources, targets, dead) in enumerate(self._plan):  # noqa: B007
                result = function(*[values[source] for source in sources])
                if isinstance(targets, int):
                    values[targets] = result
                else:
                    for target, part in zip(targets, result, strict=True):
                        values[target] = part
                for slot in dead:
                    values[slot] = None
        return {name: _present(values[self._slots[name]], name) for name in self._outputs}

    def trace(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every value an operation computes, by name."""
        values, found = self._start(inputs), dict[str, Tensor]()
        position = 0
        with torch.inference_mode(), _threads(self._threads), self._naming_failures(lambda: position):
            for position, step in enumerate(self._steps):  # noqa: B007
                result = step.function(*[values[source] for source in step.sources])
                parts = (result,) if len(step.targets) == 1 else tuple(result)
                for variable, target, part in zip(step.operation.outputs, step.targets, parts, strict=True):
                    values[target] = found[variable.name] = part
        return found

    def replay(self, inputs: Mapping[str, Tensor], forced: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run with teacher forcing: each named value is computed, kept, and replaced by the given one for its readers.

        Args:
            inputs: Inputs by name.
            forced: Variable name -> the value its readers see.

        Returns:
            Variable name -> the value its own operation computed.

        Raises:
            ContractError: A given value does not fit the computed one.
        """
        values, computed = self._start(inputs), dict[str, Tensor]()
        position = 0
        with torch.inference_mode(), _threads(self._threads), self._naming_failures(lambda: position):
            for position, step in enumerate(self._steps):  # noqa: B007
                result = step.function(*[values[source] for source in step.sources])
                parts = (result,) if len(step.targets) == 1 else tuple(result)
                for variable, target, part in zip(step.operation.outputs, step.targets, parts, strict=True):
                    values[target] = part
                    if variable.name in forced:
                        computed[variable.name] = part
                        values[target] = _fitting(forced[variable.name], part, variable.name)
                for slot in step.dead:
                    values[slot] = None
        return computed

    def computes(self, name: str) -> bool:
        """Whether an operation of the program computes the variable ``name``."""
        return any(variable.name == name for step in self._steps for variable in step.operation.outputs)

    def untouched_by(self, names: set[str], forced: set[str]) -> set[str]:
        """Those of ``forced`` whose computation does not depend on the variables ``names`` once all of ``forced`` are given."""
        tainted = {self._slots[name] for name in names}
        clean: set[str] = set()
        for step in self._steps:
            depends = any(source in tainted for source in step.sources)
            for variable, target in zip(step.operation.outputs, step.targets, strict=True):
                if variable.name in forced:
                    clean |= set() if depends else {variable.name}
                elif depends:
                    tainted.add(target)
        return clean

    @contextlib.contextmanager
    def _naming_failures(self, position: Callable[[], int]) -> Iterator[None]:
        """Say which operation failed."""
        try:
            yield
        except EdgekitError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as reason:
            operation = self._steps[position()].operation
            kind = DataError if isinstance(reason, IndexError) else IntegrityError
            raise kind(f"Operation '{operation.name}' ({operation.type}) cannot run: {reason}") from reason

    def _start(self, inputs: Mapping[str, Tensor]) -> list[Any]:
        values: list[Any] = list(self._initial)
        for name, tensor in inputs.items():
            values[self._slots[name]] = as_variable(name, tensor, self._images)
        return values


def compile_program(program: mil.Program, *, threads: int = 1, precision: Precision = "declared") -> Executable:
    """Compile a program for repeated runs.

    Args:
        program: The program.
        threads: Threads torch may use.
        precision: Where to round to float16.

    Raises:
        UnsupportedOpError: An operation has no kernel, or is used in a way the kernel does not know.
        IntegrityError: An operation's arguments do not fit it, or it reads a value nothing computes.
    """
    if precision not in get_args(Precision):
        raise IntegrityError(f"Unknown precision '{precision}'; known: {', '.join(get_args(Precision))}.")
    return ProgramCompiler(program, precision).compile(threads)


class ProgramCompiler:
    """Builds the call list; constant expressions are evaluated on the way."""

    def __init__(self, program: mil.Program, precision: Precision) -> None:
        self._program = program
        self._precision: Precision = precision
        self._slots: dict[str, int] = {}
        self._initial: list[Tensor | None] = [None]  # slot 0 stays None: an argument that is left out
        self._steps: list[Step] = []

    def compile(self, threads: int) -> Executable:
        """Every operation, and what a run needs beside them."""
        for name in self._input_names():
            self._slot(name)
        for operation in self._program.operations:
            self.add(operation)
        outputs = [spec.name for spec in self._program.outputs]
        for name in outputs:
            value = self._program.constants.get(name)
            if name not in self._slots and isinstance(value, np.ndarray):
                self._initial[self._slot(name)] = torch.from_numpy(np.array(value)).to(torch_dtype(str(value.dtype)))
            if name not in self._slots:
                raise IntegrityError(f"The program names the output '{name}', which no operation computes.")
        kept = {self._slots[name] for name in outputs} | {slot for slot, value in enumerate(self._initial) if value is not None}
        steps = _with_deaths(self._steps, kept | {0})
        images = self._program.images
        return Executable(steps, initial=self._initial, slots=self._slots, outputs=outputs, threads=threads, images=images)

    def constant(self, slot: int) -> Tensor | None:
        """A slot's value before a run."""
        return self._initial[slot]

    def slot(self, name: str) -> int:
        """Where the variable ``name`` lies."""
        return self._slot(name)

    def _input_names(self) -> list[str]:
        computed = {output.name for operation in self._program.operations for output in operation.outputs}
        return [name for name in self._program.variables if name not in computed]

    def add(self, operation: mil.Operation) -> Step | None:
        """Compile one operation; None where it is a constant expression, which is evaluated at once.

        Raises:
            UnsupportedOpError: It has no kernel, or is used in a way the kernel does not know.
            IntegrityError: Its arguments do not fit it, or it reads a value nothing computes.
        """
        call = Call(operation, self._program.constants, self._program.variables)
        kernel = _build(call)
        function = self._rounding(kernel.function, operation)
        sources = tuple(slot for argument in kernel.arguments for slot in self._sources(call, argument))
        if operation.type.startswith("constexpr_"):
            self._fold(call, function, sources)
            return None
        targets = tuple(self._slot(output.name) for output in operation.outputs)
        self._steps.append(Step(function, sources, targets, (), operation))
        return self._steps[-1]

    def _fold(self, call: Call, function: Callable[..., Any], sources: tuple[int, ...]) -> None:
        try:
            value = function(*[self._initial[source] for source in sources])
        except (RuntimeError, ValueError, IndexError, TypeError) as reason:
            raise IntegrityError(f"{call}: its data cannot be decoded ({reason}).") from reason
        declared = tuple(size for size in call.outputs[0].shape if size is not None)
        if tuple(value.shape) != declared:
            raise IntegrityError(f"{call}: decodes to shape {list(value.shape)}, but {list(declared)} is declared.")
        self._initial[self._slot(call.outputs[0].name)] = value

    def _sources(self, call: Call, argument: str) -> list[int]:
        bound = call.operation.inputs.get(argument, ())
        if not bound:
            return [0]
        slots = []
        for binding in bound:
            name = f"{call.operation.outputs[0].name}/{argument}" if isinstance(binding, mil.Literal) else binding
            constant = binding.value if isinstance(binding, mil.Literal) else self._program.constants.get(binding)
            if constant is not None and name not in self._slots:
                self._initial[self._slot(name)] = self._constant(call, argument, constant)
            elif name not in self._slots:
                raise IntegrityError(f"{call}: argument '{argument}' reads '{name}', which nothing before it computes.")
            slots.append(self._slots[name])
        return slots

    def _constant(self, call: Call, argument: str, value: Array | str) -> Tensor:
        if isinstance(value, str):
            raise IntegrityError(f"{call}: argument '{argument}' is the text {value!r}; expected numbers.")
        if value.dtype.kind == "f" and self._precision == "float16":
            value = value.astype(np.float16)
        return torch.from_numpy(np.array(value, order="C")).to(torch_dtype(str(value.dtype)))

    def _rounding(self, function: Callable[..., Any], operation: mil.Operation) -> Callable[..., Any]:
        if operation.type in _MOVES or not any(output.dtype in _ROUNDED[self._precision] for output in operation.outputs):
            return function
        if len(operation.outputs) == 1:
            return lambda *arguments: function(*arguments).to(torch.float16).to(torch.float32)
        return lambda *arguments: tuple(_rounded(part) for part in function(*arguments))

    def _slot(self, name: str) -> int:
        if name not in self._slots:
            self._slots[name] = len(self._initial)
            self._initial.append(None)
        return self._slots[name]


def _build(call: Call) -> Kernel:
    build = builder(call.operation)
    try:
        return build(call)
    except EdgekitError:
        raise
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as reason:
        raise IntegrityError(f"{call}: its arguments do not fit the operation ({type(reason).__name__}: {reason}).") from reason


def _with_deaths(steps: Sequence[Step], kept: set[int]) -> list[Step]:
    """Note after which step each slot is read for the last time."""
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        last |= dict.fromkeys((*step.sources, *step.targets), index)
    deaths: dict[int, list[int]] = {}
    for slot, index in last.items():
        if slot not in kept:
            deaths.setdefault(index, []).append(slot)
    return [dataclasses.replace(step, dead=tuple(deaths.get(index, ()))) for index, step in enumerate(steps)]


def _rounded(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float16).to(torch.float32) if tensor.is_floating_point() else tensor


def _fitting(given: Tensor, computed: Tensor, name: str) -> Tensor:
    if given.shape != computed.shape or given.dtype != computed.dtype:
        raise ContractError(
            f"Tensor '{name}' is {computed.dtype} {list(computed.shape)} in the package, but the values to replay are"
            f" {given.dtype} {list(given.shape)}."
        )
    return given


def _present(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise UnsupportedOpError(f"Output '{name}' was not computed.")
    return value


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
