"""A model in a child process, seen from the caller: :mod:`edgekit.core.model_server` is the other end.

The caller never looks into the model file, and believes nothing the child says: every message is checked and bounded
(:mod:`edgekit.core.frames`), names and dtypes of answers are those announced, and a child that takes too long, eats too much
or dies is ended and explained. The caller goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import select
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgekit.core.errors import DataError, EdgekitError, IntegrityError, WorkerError
from edgekit.core.frames import Channel
from edgekit.core.model_server import Order
from edgekit.core.remote_errors import raise_error
from edgekit.core.supervision import death, last_words, plain, resident_bytes
from edgekit.core.tensors import TensorSpec

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Child", "Limits", "ServedModel"]

_POLL_S = 0.1
_END_S = 2.0
"""How long a child that closed its pipe is given to end by itself, so that its exit code is known."""
_CLOSED = "it is closed"
_MOST_SPECS = 4096
_LONGEST_NAME = 1024
_PIPE_BYTES = 2**20
"""What Linux lets anybody have in a pipe; with the default 64 KiB a picture takes ten changes of process."""
_SET_PIPE_SIZE = 1031
"""``F_SETPIPE_SZ`` of Linux."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a child may take.

    Args:
        timeout_s: Wall-clock limit of loading, and of each run.
        memory_bytes: Limit on the resident memory of the child and what it starts; None: what its confinement says.
        answer_bytes: Most bytes the outputs of one run may have together.
    """

    timeout_s: float = 60.0
    memory_bytes: int | None = None
    answer_bytes: int = 2**30


class Child(Protocol):
    """A process that serves a model."""

    pid: int
    reads: int
    """Descriptor its answers come from."""
    writes: int
    """Descriptor it is asked through."""

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code as ``subprocess`` gives it; None while it runs."""
        ...

    def end(self) -> None:
        """End it and what it started, and close the pipes; harmless when it has ended."""
        ...


class ServedModel:
    """A model that was loaded in a child.

    Args:
        child: A running model server that waits for its order.
        order: What to load.
        what: The work in words, for error messages: ``"running x.tflite"``.
        limits: What the child may take.
        log: Where its output goes; its last words are quoted when it dies.
        shown: What stands for the order's path in messages.

    Attributes:
        inputs: What it takes.
        outputs: What it returns.
        notes: What this system cannot enforce of the confinement, a sentence each.
        import_s: Time the import of the runtime took in the child, seconds.
        load_s: Time the loading of the model took in the child, seconds.

    Raises:
        EdgekitError: Whatever the runtime says about the file.
        WorkerError: The child died, or exceeded a limit.
    """

    def __init__(self, child: Child, order: Order, *, what: str, limits: Limits, log: Path, shown: str = "") -> None:
        self._child, self._what, self._limits, self._log = child, what, limits, log
        self._path, self._shown = order.path, shown or order.path
        self._lock = threading.Lock()
        self._deadline = 0.0
        self._over = ""
        for descriptor in (child.reads, child.writes):
            _widen(descriptor)
        self._channel = Channel(reads=child.reads, writes=child.writes, waiting=self._wait)
        try:
            greeting, _ = self._exchange(dataclasses.asdict(order), {}, limits.timeout_s)
        except BaseException:
            self._end("it did not load")
            raise
        try:
            self.inputs, self.outputs = (_specs(greeting.get(key)) for key in ("inputs", "outputs"))
            self.notes = [plain(str(note)) for note in greeting["notes"]]
            self.import_s, self.load_s = float(greeting["import_s"]), float(greeting["load_s"])
        except (KeyError, TypeError, ValueError, EdgekitError) as reason:
            self._end("it answered nonsense")
            raise WorkerError(f"The worker {what} answered nonsense, and was stopped: {plain(str(reason), most=300)}") from reason

    def run(self, inputs: Mapping[str, Array], *, timeout_s: float | None = None) -> dict[str, Array]:
        """One inference; the inputs are checked by the child only.

        Raises:
            DataError: An input does not fit.
            WorkerError: The child died, or exceeded a limit; the model has to be loaded again.
        """
        _, found = self._exchange({}, inputs, timeout_s or self._limits.timeout_s)
        expected = {spec.name: spec.dtype for spec in self.outputs}
        if {name: str(array.dtype) for name, array in found.items()} != expected:
            self._end("it answered nonsense")
            raise WorkerError(f"The worker {self._what} returned other outputs than it announced, and was stopped.")
        return found

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        arrays: Mapping[str, Array] | None = None,
        timeout_s: float | None = None,
    ) -> tuple[Any, dict[str, Array]]:
        """Call ``package.module:function`` in the child, as ``function(loaded, arrays, **arguments)``.

        Args:
            function: Returns a JSON value and arrays by name; ``loaded`` is a :class:`~edgekit.core.model_server.LoadedModel`.
            arguments: JSON values.
            arrays: Arrays by name.
            timeout_s: Wall-clock limit; the model's where None.

        Raises:
            EdgekitError: Whatever edgekit error the function raised.
            WorkerError: The child died, or exceeded a limit; the model has to be loaded again.
        """
        asked = {"call": function, "arguments": dict(arguments or {})}
        header, found = self._exchange(asked, arrays or {}, timeout_s or self._limits.timeout_s)
        return header.get("value"), found

    def close(self) -> None:
        """End the child."""
        self._end(_CLOSED)

    def _exchange(
        self, header: Mapping[str, Any], arrays: Mapping[str, Array], timeout_s: float
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        with self._lock:
            if self._over == _CLOSED:
                raise DataError("This model is closed. Load it again.")
            if self._over:
                raise WorkerError(f"The worker {self._what} can do no more: {self._over}. Load the model again.")
            self._deadline = time.monotonic() + timeout_s
            self._timeout_s = timeout_s
            try:
                if arrays:
                    self._channel.send(header, arrays)
                else:
                    self._channel.send_plain(header)
                answer, found = self._channel.receive(limit_bytes=self._limits.answer_bytes)
            except (EOFError, BrokenPipeError) as reason:
                raise self._died() from reason
            except IntegrityError as reason:
                self._end("it answered nonsense")
                raise WorkerError(f"The worker {self._what} answered nonsense, and was stopped. {reason}") from reason
            except BaseException:  # a limit, Ctrl-C: what comes later would belong to this question
                self._end("it was stopped")
                raise
        if isinstance(answer.get("message"), str):
            answer["message"] = answer["message"].replace(self._path, self._shown)
        raise_error(answer, self._what)
        return answer, found

    def _wait(self, descriptor: int, event: int) -> None:
        """Until the child is ready, within the limits."""
        poll = select.poll()
        poll.register(descriptor, event)
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise WorkerError(f"The worker {self._what} ran longer than {self._timeout_s:g} s and was stopped.")
            if poll.poll(min(_POLL_S, left) * 1000):
                return
            limit = self._limits.memory_bytes
            if limit and (used := resident_bytes(self._child.pid)) > limit:
                raise WorkerError(
                    f"The worker {self._what} used {used / 2**20:.0f} MiB, more than its limit of {limit / 2**20:.0f} MiB,"
                    " and was stopped."
                )

    def _died(self) -> WorkerError:
        code = self._child.wait(_END_S)
        words = last_words(self._log).replace(self._path, self._shown)
        how = "closed its pipe" if code is None else death(code)
        self._end(f"it {how}")
        return WorkerError(f"The worker {self._what} {how}. Last words: {words}")

    def _end(self, why: str) -> None:
        if not self._over:
            self._over = why
            self._child.end()


def _specs(stored: Any) -> tuple[TensorSpec, ...]:
    if not isinstance(stored, list) or len(stored) > _MOST_SPECS:
        raise IntegrityError(f"its inputs or outputs are no list of up to {_MOST_SPECS} tensors")
    specs = tuple(TensorSpec.parse(row, source="a tensor") for row in stored)
    if len({spec.name for spec in specs}) != len(specs):
        raise IntegrityError("two of its tensors have one name")
    for spec in specs:
        if len(spec.name) > _LONGEST_NAME or any(not 0 <= size < 2**48 for size in spec.shape):
            raise IntegrityError(f"the tensor '{spec.name[:80]}' has a name or a shape that cannot be")
    return specs


def _widen(descriptor: int) -> None:
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # the user's share of pipe memory is used up
            fcntl.fcntl(descriptor, _SET_PIPE_SIZE, _PIPE_BYTES)
