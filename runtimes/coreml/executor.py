"""A MIL program compiled once into a flat list of calls, and run on torch's CPU kernels.

Reference semantics, not the Neural Engine: each operation is computed in float32; a result the program declares as float16
is rounded to float16 after its operation, inside branches and loops too, and when it is put into a list or a state. The Neural
Engine, the GPU and Core ML's own CPU kernels fuse and round in their own ways.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import ChainMap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.runtimes.coreml import program as mil
from edgekit.runtimes.coreml.control import CompiledBlock, branch, loop
from edgekit.runtimes.coreml.executable import (
    ABSENT_SLOT,
    FIRST_SLOT,
    VALUES_SLOT,
    Executable,
    Layout,
    Plan,
    Step,
    round_to_half,
)
from edgekit.runtimes.coreml.late import LateKernel
from edgekit.runtimes.coreml.ops.elementwise import torch_dtype
from edgekit.runtimes.coreml.ops.library import builder
from edgekit.runtimes.coreml.ops.table import FAILURES, Call, Kernel, RunTimeValueError

if TYPE_CHECKING:
    from edgekit.core.tensors import Array
    from edgekit.runtimes.coreml.program import Value

__all__ = ["Executable", "Precision", "ProgramCompiler", "compile_program"]

Precision = Literal["declared", "float32", "float16"]
"""``declared``: round what the program declares as float16. ``float32``: never round. ``float16``: round every float."""

_ROUNDED: dict[Precision, tuple[str, ...]] = {"declared": ("float16",), "float32": (), "float16": ("float16", "float32")}

_MOVES = {
    "identity", "reshape", "reshape_like", "transpose", "expand_dims", "squeeze", "flatten2d", "concat", "stack", "split",
    "tile", "reverse", "slice_by_index", "slice_by_size", "slice_update", "band_part", "pixel_shuffle", "pixel_unshuffle",
    "depth_to_space", "space_to_depth", "gather", "gather_along_axis", "gather_nd", "topk", "relu", "crop", "max_pool",
    "maximum", "minimum", "select", "reduce_max", "reduce_min", "abs", "sign", "space_to_batch", "batch_to_space",
    "reverse_sequence", "sliding_windows", "cond", "while_loop", "make_list", "list_read", "list_gather", "read_state",
}  # fmt: skip
"""Operations whose result holds only values that were rounded before: nothing to round again."""

_STORES = {"list_write": ("ls", "value"), "list_scatter": ("ls", "value"), "write_state": ("input", "data")}
"""Operations that put a value into something typed: what it is put into, and the value, the last argument of their kernels."""

_CONTROL = {"cond": ("pred", branch), "while_loop": ("loop_vars", loop)}
"""Control flow: the argument handed to the function that runs its two blocks."""
_BLOCK_COUNT = 2


@dataclasses.dataclass(frozen=True)
class _Scope:
    """What the operations of a block see: their own names first, then those of the blocks around them."""

    constants: ChainMap[str, Value]
    variables: ChainMap[str, mil.Variable]
    slots: ChainMap[str, int]

    def inner(self, block: mil.Block) -> _Scope:
        """The scope of a block nested in this one.

        Raises:
            IntegrityError: It defines a name a second time.
        """
        outputs = [output for operation in block.operations for output in operation.outputs]
        for name in (*block.constants, *(variable.name for variable in (*block.inputs, *outputs))):
            if name in self.slots or name in self.constants:
                raise IntegrityError(f"The name '{name}' is bound twice: in a nested block and around it.")
        variables = {variable.name: variable for variable in (*block.inputs, *outputs)}
        constants = self.constants.new_child(dict(block.constants))
        return _Scope(constants, self.variables.new_child(variables), self.slots.new_child())


def compile_program(program: mil.Program, *, threads: int = 1, precision: Precision = "declared") -> Executable:
    """Compile a program for repeated runs.

    Args:
        program: The program.
        threads: Threads torch may use.
        precision: Where to round to float16.

    Raises:
        UnsupportedOpError: An operation has no kernel, or is used in a way the kernel does not know.
        IntegrityError: An operation's arguments do not fit it, it reads a value nothing computes, or a name is bound twice.
    """
    if precision not in get_args(Precision):
        raise IntegrityError(f"Unknown precision '{precision}'; known: {', '.join(get_args(Precision))}.")
    return ProgramCompiler(program, precision).compile(threads)


class ProgramCompiler:
    """Builds the call list; constant expressions are evaluated on the way."""

    def __init__(self, program: mil.Program, precision: Precision) -> None:
        self._program = program
        self._precision: Precision = precision
        self._initial: list[Tensor | None] = [None] * FIRST_SLOT
        self._top = _Scope(ChainMap({}, dict(program.constants)), ChainMap(dict(program.variables)), ChainMap())

    def compile(self, threads: int) -> Executable:
        """Every operation, and what a run needs beside them."""
        program, scope = self._program, self._top
        computed = {output.name for operation in program.operations for output in operation.outputs}
        for name in program.variables:
            if name not in computed:
                self._define(scope, name)
        steps = [step for operation in program.operations if (step := self.add(operation)) is not None]
        outputs = tuple(spec.name for spec in program.outputs)
        kept = {self._result(scope, name, "The program") for name in outputs} | self._constant_slots()
        layout = Layout(
            initial=self._initial,
            slots=scope.slots,
            outputs=outputs,
            states=program.states,
            images=program.images,
            rounds_inputs=self._precision == "float16",
        )
        return Executable(Plan(steps, kept | {ABSENT_SLOT, VALUES_SLOT}), layout, threads=threads)

    def constant(self, slot: int) -> Tensor | None:
        """A slot's value before a run."""
        return self._initial[slot]

    def slot(self, name: str) -> int:
        """Where the variable ``name`` of the outermost block lies.

        Raises:
            IntegrityError: Nothing computes it.
        """
        return self._result(self._top, name, "The program")

    def add(self, operation: mil.Operation) -> Step | None:
        """Compile one operation; None where it is a constant expression, which is evaluated at once.

        Raises:
            UnsupportedOpError: It has no kernel, or is used in a way the kernel does not know.
            IntegrityError: Its arguments do not fit it, it reads a value nothing computes, or it binds a name again.
        """
        return self._add(operation, self._top)

    def _add(self, operation: mil.Operation, scope: _Scope) -> Step | None:
        call = Call(operation, scope.constants, scope.variables)
        if operation.type in _CONTROL:
            function, sources = self._control(call, scope)
        else:
            function, sources = self._kernel(call, scope)
            function = self._rounding(call, function)
        if operation.type.startswith("constexpr_"):
            self._fold(call, scope, _decode(call, function, [self._initial[source] for source in sources]))
            return None
        targets = tuple(self._define(scope, output.name) for output in operation.outputs)
        return Step(function, sources, targets, (), operation)

    def _kernel(self, call: Call, scope: _Scope) -> tuple[Callable[..., Any], tuple[int, ...]]:
        """The function of an operation and what it is called with; built at run time where it cannot be built now."""
        try:
            kernel = _build(call)
        except RunTimeValueError:
            if call.operation.type.startswith("constexpr_"):
                raise
            late = LateKernel(call, _build, functools.partial(self._bound_constant, call, scope))
            return late, tuple(self._slot(call, "", name, scope) for name in late.variables)
        arguments = [(argument, bound) for argument in kernel.arguments for bound in self._bound(call, argument)]
        sources = tuple(ABSENT_SLOT if b is None else self._slot(call, argument, b, scope) for argument, b in arguments)
        return kernel.function, sources

    def _bound(self, call: Call, argument: str) -> tuple[str | mil.Literal | None, ...]:
        return call.operation.inputs.get(argument, ()) or (None,)

    def _slot(self, call: Call, argument: str, bound: str | mil.Literal, scope: _Scope) -> int:
        """Where an argument lies; constants get their place when they are first read."""
        if isinstance(bound, mil.Literal):
            self._initial.append(self._tensor(call, argument, bound.value))
            return len(self._initial) - 1
        if bound not in scope.slots:
            if bound not in scope.constants:
                raise IntegrityError(f"{call}: argument '{argument}' reads '{bound}', which nothing before it computes.")
            self._initial.append(self._tensor(call, argument, scope.constants[bound]))
            scope.slots[bound] = len(self._initial) - 1
        return scope.slots[bound]

    def _bound_constant(self, call: Call, scope: _Scope, argument: str, bound: str | mil.Literal) -> Tensor:
        if isinstance(bound, mil.Literal):
            return self._tensor(call, argument, bound.value)
        known = self._initial[scope.slots[bound]] if bound in scope.slots else None
        return self._tensor(call, argument, scope.constants[bound]) if known is None else known

    def _tensor(self, call: Call | str, argument: str, value: Array | str) -> Tensor:
        if isinstance(value, str):
            raise IntegrityError(f"{call}: argument '{argument}' is the text {value!r}; expected numbers.")
        if value.dtype.kind == "f" and self._precision == "float16":
            value = value.astype(np.float16)
        return torch.from_numpy(np.array(value, order="C")).to(torch_dtype(str(value.dtype)))

    def _fold(self, call: Call, scope: _Scope, values: Any) -> None:
        """Keep what a constant expression amounts to, as a constant."""
        outputs = call.outputs
        for output, value in zip(outputs, values if isinstance(values, tuple) else (values,), strict=True):
            declared = tuple(size for size in output.shape if size is not None)
            if not isinstance(value, Tensor):
                raise IntegrityError(f"{call}: there is nothing to decode; its data is missing.")
            if tuple(value.shape) != declared:
                raise IntegrityError(f"{call}: decodes to shape {list(value.shape)}, but {list(declared)} is declared.")
            self._initial[self._define(scope, output.name)] = value
            scope.constants[output.name] = value.numpy()

    def _control(self, call: Call, scope: _Scope) -> tuple[Callable[..., Any], tuple[int, ...]]:
        """A branch or a loop: its function gets all values, what it is handed, and what its blocks read around them."""
        argument, function = _CONTROL[call.operation.type]
        blocks = call.operation.blocks
        if len(blocks) != _BLOCK_COUNT:
            raise IntegrityError(f"{call}: has {len(blocks)} blocks; expected {_BLOCK_COUNT}.")
        handed = tuple(self._slot(call, argument, bound, scope) for bound in call.operation.inputs.get(argument, ()))
        is_loop = call.operation.type == "while_loop"
        taken = len(handed) if is_loop else 0
        given = (1, len(call.outputs)) if is_loop else (len(call.outputs), len(call.outputs))
        if (is_loop and taken != len(call.outputs)) or (not is_loop and len(handed) != 1):
            raise IntegrityError(f"{call}: is handed {len(handed)} values in '{argument}' and has {len(call.outputs)} outputs.")
        inner = tuple(self._block(call, block, scope, taken, count) for block, count in zip(blocks, given, strict=True))
        reads = tuple(sorted(set().union(*(block.reads for block in inner))))
        count, single = len(handed), len(call.outputs) == 1

        def run(values: list[Any], *given_values: Any) -> Any:
            results = function(values, inner, *given_values[:count])
            return results[0] if single else results

        return run, (VALUES_SLOT, *handed, *reads)

    def _block(self, call: Call, block: mil.Block, scope: _Scope, taken: int, given: int) -> CompiledBlock:
        if len(block.inputs) != taken or len(block.outputs) != given:
            raise IntegrityError(
                f"{call}: a nested block takes {len(block.inputs)} values and returns {len(block.outputs)}; expected {taken} and"
                f" {given}."
            )
        before = set(scope.slots.values())
        inner = scope.inner(block)
        inputs = tuple(self._define(inner, variable.name) for variable in block.inputs)
        steps = [step for operation in block.operations if (step := self._add(operation, inner)) is not None]
        outputs = tuple(self._result(inner, name, f"{call}: a nested block") for name in block.outputs)
        if given == len(call.outputs) and not (call.operation.type == "while_loop" and block is call.operation.blocks[0]):
            _check_types(call, block, inner)
        constants = self._constant_slots()
        read = {source for step in steps for source in step.sources} | set(outputs)
        outer = (before | set(scope.slots.values())) - constants
        plan = Plan(steps, outer | constants | set(outputs) | {ABSENT_SLOT, VALUES_SLOT})
        return CompiledBlock(plan, inputs, outputs, frozenset(read & outer))

    def _result(self, scope: _Scope, name: str, who: str) -> int:
        """Where a result lies: a computed value, or a constant."""
        if name not in scope.slots:
            if name not in scope.constants:
                raise IntegrityError(f"{who} names the output '{name}', which no operation computes.")
            self._initial.append(self._tensor(who, name, scope.constants[name]))
            scope.slots[name] = len(self._initial) - 1
        return scope.slots[name]

    def _constant_slots(self) -> set[int]:
        return {slot for slot, value in enumerate(self._initial) if value is not None}

    def _define(self, scope: _Scope, name: str) -> int:
        if name in scope.slots or name in scope.constants:
            raise IntegrityError(f"The name '{name}' is bound twice; a program assigns each name once.")
        scope.slots[name] = len(self._initial)
        self._initial.append(None)
        return scope.slots[name]

    def _rounding(self, call: Call, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its float results rounded where the precision asks for it."""
        rounded, operation = _ROUNDED[self._precision], call.operation
        if operation.type in _STORES:
            return self._rounding_what_is_stored(call, function)
        if operation.type in _MOVES or not any(output.dtype in rounded for output in operation.outputs):
            return function
        if len(operation.outputs) == 1:
            return lambda *arguments: function(*arguments).to(torch.float16).to(torch.float32)
        return lambda *arguments: tuple(_rounded(part) for part in function(*arguments))

    def _rounding_what_is_stored(self, call: Call, function: Callable[..., Any]) -> Callable[..., Any]:
        store, value = ((call.operation.inputs.get(argument) or ("",))[0] for argument in _STORES[call.operation.type])
        declared, rounded = call.variables.get(str(store)), _ROUNDED[self._precision]
        known = call.variables.get(str(value))
        if declared is None or declared.dtype not in rounded or (known is not None and known.dtype in rounded):
            return function  # the value was rounded when it was computed
        return lambda *arguments: function(*arguments[:-1], _rounded(arguments[-1]))


def _check_types(call: Call, block: mil.Block, scope: _Scope) -> None:
    """What a block hands back has the types its operation declares: where a value is rounded depends on them."""
    for name, declared in zip(block.outputs, call.outputs, strict=True):
        found = scope.variables.get(name)
        if found is not None and (found.dtype, found.kind) != (declared.dtype, declared.kind):
            raise IntegrityError(
                f"{call}: a nested block returns '{name}', a {found.dtype} {found.kind}; declared is a {declared.dtype}"
                f" {declared.kind}."
            )


def _build(call: Call) -> Kernel:
    build = builder(call.operation)
    try:
        return build(call)
    except EdgekitError:
        raise
    except FAILURES as reason:
        raise IntegrityError(f"{call}: its arguments do not fit the operation ({type(reason).__name__}: {reason}).") from reason


def _decode(call: Call, function: Callable[..., Any], arguments: list[Tensor | None]) -> Any:
    try:
        return function(*arguments)
    except FAILURES as reason:
        raise IntegrityError(f"{call}: its data cannot be decoded ({reason}).") from reason


def _rounded(tensor: Tensor) -> Tensor:
    return round_to_half(tensor) if tensor.is_floating_point() else tensor
