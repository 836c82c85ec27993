"""A compiled program: a flat list of calls over the slots of one list, with states kept between runs where a caller wants them.

Every value has a slot. Constants stay in theirs; a value that no later call reads is dropped at once. Slot 0 is an argument
that is left out, slot 1 the list itself: control flow gets it to run its own calls on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edgekit.core.errors import ContractError, DataError, EdgekitError, IntegrityError, UnsupportedOpError
from edgekit.runtimes.coreml.features import as_variable
from edgekit.runtimes.coreml.ops.state import StateCell
from edgekit.runtimes.coreml.ops.table import FAILURES

if TYPE_CHECKING:
    from edgekit.runtimes.coreml import program as mil

__all__ = ["ABSENT_SLOT", "FIRST_SLOT", "VALUES_SLOT", "Executable", "Layout", "Plan", "Step", "round_to_half"]

ABSENT_SLOT, VALUES_SLOT, FIRST_SLOT = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class Step:
    """One call: where its arguments lie, where its results go, and which values nobody reads afterwards."""

    function: Callable[..., Any]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    dead: tuple[int, ...]
    operation: mil.Operation


class Plan:
    """Calls in execution order: a program's, or those of a block nested in it.

    Args:
        steps: The calls.
        kept: Slots that stay when their last reader has run: constants, results, and what belongs to the blocks around.
    """

    def __init__(self, steps: Sequence[Step], kept: set[int]) -> None:
        self.steps = _with_deaths(steps, kept)
        self._calls = [(s.function, s.sources, s.targets[0] if len(s.targets) == 1 else s.targets, s.dead) for s in self.steps]

    def run(self, values: list[Any]) -> None:
        """Compute everything, in place.

        Raises:
            DataError: An index is out of range.
            IntegrityError: An operation cannot run on the values the program gives it.
        """
        position = 0
        with self.naming_failures(lambda: position):
            for position, (function, sources, targets, dead) in enumerate(self._calls):  # noqa: B007
                result = function(*[values[source] for source in sources])
                if isinstance(targets, int):
                    values[targets] = result
                else:
                    for target, part in zip(targets, result, strict=True):
                        values[target] = part
                for slot in dead:
                    values[slot] = None

    def walk(self, values: list[Any]) -> Iterator[tuple[Step, tuple[Any, ...]]]:
        """Run call by call, nothing dropped: each call and its results, which whoever walks puts into their slots."""
        position = 0
        with self.naming_failures(lambda: position):
            for position, step in enumerate(self.steps):  # noqa: B007
                result = step.function(*[values[source] for source in step.sources])
                yield step, (result,) if len(step.targets) == 1 else tuple(result)

    @contextlib.contextmanager
    def naming_failures(self, position: Callable[[], int]) -> Iterator[None]:
        """Say which operation failed."""
        try:
            yield
        except EdgekitError:
            raise
        except FAILURES as reason:
            operation = self.steps[position()].operation
            kind = DataError if isinstance(reason, IndexError) else IntegrityError
            raise kind(f"Operation '{operation.name}' ({operation.type}) cannot run: {reason}") from reason


@dataclasses.dataclass(frozen=True)
class Layout:
    """What lies where.

    Args:
        initial: Every slot's value before a run: constants, and None.
        slots: Slot by variable name.
        outputs: Names of the values to return.
        states: Tensors that are kept between runs.
        images: Inputs that are images, and their colour spaces.
        rounds_inputs: Whether float inputs are rounded to float16.
    """

    initial: list[Tensor | None]
    slots: Mapping[str, int]
    outputs: tuple[str, ...]
    states: tuple[mil.Variable, ...]
    images: Mapping[str, str]
    rounds_inputs: bool


class Executable:
    """A compiled program.

    Args:
        plan: Its calls.
        layout: What lies where.
        threads: Threads torch may use.
    """

    def __init__(self, plan: Plan, layout: Layout, *, threads: int) -> None:
        self._plan = plan
        self._layout = layout
        self._threads = threads

    @property
    def states(self) -> tuple[mil.Variable, ...]:
        """Tensors that are kept between runs."""
        return self._layout.states

    def make_states(self) -> dict[str, StateCell]:
        """All states at their beginning: zeros."""
        return {state.name: StateCell.zeros(state) for state in self._layout.states}

    def run(self, inputs: Mapping[str, Tensor], states: Mapping[str, StateCell] | None = None) -> dict[str, Tensor]:
        """Outputs by name for inputs by name.

        Args:
            inputs: Input name -> tensor.
            states: What :meth:`make_states` gave, written to by the run; fresh ones where it is left out.

        Raises:
            DataError: An index among the inputs is out of range.
            IntegrityError: An operation cannot run on the shapes the program gives it.
        """
        with self._running(inputs, states) as values:
            self._plan.run(values)
            return {name: _present(values[self._layout.slots[name]], name) for name in self._layout.outputs}

    def trace(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every tensor an operation computes, by name; those inside a branch or a loop are left out."""
        found: dict[str, Tensor] = {}
        with self._running(inputs) as values:
            for step, parts in self._plan.walk(values):
                for variable, target, part in zip(step.operation.outputs, step.targets, parts, strict=True):
                    values[target] = part
                    if isinstance(part, Tensor):
                        found[variable.name] = part
        return found

    def clocked(self, inputs: Mapping[str, Tensor]) -> list[tuple[mil.Operation, int]]:
        """Every operation and the nanoseconds it took, in order; a branch or a loop counts as one."""
        found = []
        with self._running(inputs) as values:
            start = time.perf_counter_ns()
            for step, parts in self._plan.walk(values):
                found.append((step.operation, time.perf_counter_ns() - start))
                for target, part in zip(step.targets, parts, strict=True):
                    values[target] = part
                for slot in step.dead:
                    values[slot] = None
                start = time.perf_counter_ns()
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
        computed: dict[str, Tensor] = {}
        with self._running(inputs) as values:
            for step, parts in self._plan.walk(values):
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
        return any(variable.name == name for step in self._plan.steps for variable in step.operation.outputs)

    def untouched_by(self, names: set[str], forced: set[str]) -> set[str]:
        """Those of ``forced`` whose computation does not depend on the variables ``names`` once all of ``forced`` are given."""
        tainted = {self._layout.slots[name] for name in names}
        clean: set[str] = set()
        for step in self._plan.steps:
            depends = any(source in tainted for source in step.sources)
            for variable, target in zip(step.operation.outputs, step.targets, strict=True):
                if variable.name in forced:
                    clean |= set() if depends else {variable.name}
                elif depends:
                    tainted.add(target)
        return clean

    @contextlib.contextmanager
    def _running(self, inputs: Mapping[str, Tensor], states: Mapping[str, StateCell] | None = None) -> Iterator[list[Any]]:
        """The slots of one run, with everything set that is known before it."""
        values: list[Any] = list(self._layout.initial)
        values[VALUES_SLOT] = values
        for name, tensor in inputs.items():
            variable = as_variable(name, tensor, self._layout.images)
            rounds = self._layout.rounds_inputs and variable.is_floating_point()
            values[self._layout.slots[name]] = round_to_half(variable) if rounds else variable
        for name, cell in (self.make_states() if states is None else states).items():
            values[self._layout.slots[name]] = cell
        try:
            with torch.inference_mode(), _threads(self._threads):
                yield values
        finally:
            values.clear()  # a list that holds itself would wait for the garbage collector


def round_to_half(value: Tensor) -> Tensor:
    """A float tensor rounded to what float16 can hold, half to even; kept as float32."""
    return value.to(torch.float16).to(torch.float32)


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


def _fitting(given: Tensor, computed: Tensor, name: str) -> Tensor:
    if given.shape != computed.shape or given.dtype != computed.dtype:
        raise ContractError(
            f"Tensor '{name}' is {computed.dtype} {list(computed.shape)} in the package, but the values to replay are"
            f" {given.dtype} {list(given.shape)}."
        )
    return given


def _present(value: Any, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise UnsupportedOpError(f"Output '{name}' is no tensor; found {type(value).__name__}.")
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
