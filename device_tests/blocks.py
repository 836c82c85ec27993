"""Blocks of timed inferences, where the model is: in the agent, or in the child that serves a model.

Imports nothing but what clocks need: a child that times a model loads no more than its runtime.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import resource
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.core.model_server import LoadedModel
    from edgekit.core.tensors import Array

__all__ = ["Block", "begin", "choose_length", "profile", "sample", "take_block", "waited_ns"]

_TASKS = "/proc/self/task"
_TRIAL_RUNS = 3
_LONGEST_BLOCK = 2_000
_CPU_READINGS = 200
"""Of the CPU clock in a block at most about so many: with blocks of 20 ms one in 0.1 ms."""
_MORE_FIRST_RUNS = 2


@dataclasses.dataclass(frozen=True)
class Block:
    """Inferences one after the other.

    Args:
        wall_ns: Of each, monotonic clock.
        cpu_ns: Of each, CPU time of the whole process, all threads. In a block of many short ones it is the mean of some
            neighbours: reading that clock is a system call, and would be a good part of what it reads.
        preemption_count: How often the operating system took the processor away meanwhile.
        waited_ns: How long the process was ready to run and did not; None where the system does not tell.
    """

    wall_ns: list[int]
    cpu_ns: list[int]
    preemption_count: int
    waited_ns: int | None = None


def take_block(run: Callable[[], object], length: int) -> Block:
    """Time ``length`` inferences; one before them is not counted, because another model's data is in the caches."""
    if length > 1:
        run()
    wall, cpu = [0] * length, [0] * length
    group = max(length // _CPU_READINGS, 1)
    before, waited = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, waited_ns()
    for first in range(0, length, group):
        last = min(first + group, length)
        cpu_start = time.process_time_ns()
        for at in range(first, last):
            wall_start = time.perf_counter_ns()
            run()
            wall[at] = time.perf_counter_ns() - wall_start
        cpu[first:last] = [(time.process_time_ns() - cpu_start) // (last - first)] * (last - first)
    after = waited_ns()
    waiting = None if waited is None or after is None else max(after - waited, 0)
    return Block(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before, waiting)


class _Waiting:
    """How long the threads of this process have been ready to run and did not (``/proc/<pid>/schedstat``, field 2).

    Their files stay open: to find them and to open them around every block would cost the next inference its caches.
    """

    def __init__(self) -> None:
        self._files: dict[str, int] = {}

    def look(self) -> None:
        """Find the threads that there are now."""
        try:
            there = os.listdir(_TASKS)  # noqa: PTH208
        except OSError:
            return
        for task in self._files.keys() - set(there):
            os.close(self._files.pop(task))
        for task in set(there) - self._files.keys():
            with contextlib.suppress(OSError):  # it has ended, or the system keeps no such times
                self._files[task] = os.open(f"{_TASKS}/{task}/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def total_ns(self) -> int | None:
        """Of all threads that were found; None where the system does not tell."""
        total = None
        for file in self._files.values():
            try:
                total = (total or 0) + int(os.pread(file, 64, 0).split()[1])
            except (OSError, IndexError, ValueError):  # it has ended
                continue
        return total


_WAITING = _Waiting()


def waited_ns() -> int | None:
    """Nanoseconds that this process's threads waited for a processor; those it had when :func:`choose_length` was last called."""
    return _WAITING.total_ns()


def choose_length(run: Callable[[], object], block_s: float) -> int:
    """How many inferences last ``block_s`` seconds; called when the model is loaded and its threads are there."""
    once_s = _seconds(run)
    if once_s < block_s:  # worth knowing better: the first inference is slow, and any may be interrupted
        once_s = min(_seconds(run) for _ in range(_TRIAL_RUNS))
    _WAITING.look()
    return min(max(int(block_s / once_s), 1), _LONGEST_BLOCK)


def begin(
    loaded: LoadedModel, arrays: Mapping[str, Array], *, block_s: float, warm_up: int = 0
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The first inferences of a served model: what the first one took, the memory they needed, and how long a block is to be.

    ``answered_at_s`` is the system's monotonic clock when the first answer was there; ``warm_up`` more inferences are made
    before any is timed.
    """
    from edgekit.device_tests.memory import peak_bytes

    start = time.perf_counter()
    loaded.session.run(arrays)
    first_s = time.perf_counter() - start
    answered_at_s = time.monotonic()
    for _ in range(_MORE_FIRST_RUNS):
        loaded.session.run(arrays)
    found = {"first_inference_ms": first_s * 1e3, "answered_at_s": answered_at_s, "peak_bytes": peak_bytes()}
    for _ in range(warm_up):
        loaded.session.run(arrays)
    gc.collect()
    gc.disable()  # nothing but timing follows in this process
    return {**found, "block_length": choose_length(lambda: loaded.session.run(arrays), block_s)}, {}


def sample(loaded: LoadedModel, arrays: Mapping[str, Array], *, length: int) -> tuple[dict[str, int | None], dict[str, Array]]:
    """A block of timed inferences of a served model: ``preemption_count`` and ``waited_ns``, and the clocks."""
    import numpy as np

    block = take_block(lambda: loaded.session.run(arrays), length)
    signs = {"preemption_count": block.preemption_count, "waited_ns": block.waited_ns}
    return signs, {"wall_ns": np.array(block.wall_ns, np.int64), "cpu_ns": np.array(block.cpu_ns, np.int64)}


def profile(loaded: LoadedModel, arrays: Mapping[str, Array], *, run_count: int) -> tuple[Any, dict[str, Array]]:
    """A served model's operators, timed by its runtime."""
    from edgekit.core.errors import UnsupportedOpError
    from edgekit.core.operator_profile import Profiler

    if not isinstance(loaded.runtime, Profiler):
        raise UnsupportedOpError(f"The runtime '{loaded.runtime.name}' cannot time its operators one by one.")
    found = loaded.runtime.profile(loaded.path, arrays, threads=loaded.threads, options=loaded.options, run_count=run_count)
    return found.model_dump(mode="json"), {}


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return max(time.perf_counter() - start, 1e-7)
