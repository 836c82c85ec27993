"""The child that holds somebody else's model: it loads it once, then answers runs over a pipe.

``python -P -m edgekit.core.model_server`` reads one order from its standard input (:class:`Order`), gives up its rights
(:mod:`edgekit.core.confinement`), imports the runtime, loads the model and says what its inputs and outputs are. Then each
message is one of

======== ==================================== =======================================================
message  carries                              is answered by
======== ==================================== =======================================================
``run``  an array for each input              an array for each output
``call`` ``package.module:function``, JSON    what ``function(loaded, arrays, **arguments)`` returns: a
         arguments, arrays                    JSON value and arrays
======== ==================================== =======================================================

It ends when the pipe is closed, or when its caller is no more. The other end is :mod:`edgekit.core.served_model`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.confinement import Confinement, confine
from edgekit.core.damage import explaining_damage
from edgekit.core.errors import DataError, EdgekitError
from edgekit.core.frames import Channel
from edgekit.core.remote_errors import describe_error
from edgekit.core.supervision import end_with_caller

if TYPE_CHECKING:
    from edgekit.core.plugins import Runtime, Session
    from edgekit.core.tensors import Array

__all__ = ["LoadedModel", "Order", "run_session", "serve"]

_ANY_BYTES = 2**62
"""The caller is trusted: it may send what it likes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """What a model server is started with, as it crosses the pipe.

    Args:
        runtime: The runtime object, ``"package.module:NAME"``.
        path: The model file.
        threads: Threads the runtime may use.
        options: The runtime's own.
        hides: Modules that must not be importable.
        confined: A :class:`~edgekit.core.confinement.Confinement` as JSON; None: nothing is given up.
        scratch: The process's temporary folder.
    """

    runtime: str
    path: str
    threads: int = 1
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hides: tuple[str, ...] = ()
    confined: Mapping[str, Any] | None = None
    scratch: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """What a function that is called in the child is given.

    Args:
        runtime: The runtime.
        session: The loaded model.
        path: Its file.
        threads: Threads the runtime may use.
        options: The runtime's own.
    """

    runtime: Runtime
    session: Session
    path: Path
    threads: int
    options: Mapping[str, Any]


def serve(channel: Channel, order: Order) -> None:
    """Load the model, then answer until the other side closes the pipe."""
    for name in order.hides:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    loaded: list[LoadedModel] = []
    greeting = _answered(functools.partial(_loaded, order, loaded))
    channel.send_plain(greeting[0])
    if not loaded:
        return
    while True:
        try:
            asked, arrays = channel.receive(limit_bytes=_ANY_BYTES)
        except EOFError:
            return
        answer, results = _answered(functools.partial(_carry_out, loaded[0], asked, arrays))
        try:
            channel.send(answer, results)
        except DataError as reason:
            channel.send_plain(describe_error(reason))


def _answered(work: Callable[[], tuple[dict[str, Any], dict[str, Array]]]) -> tuple[dict[str, Any], dict[str, Array]]:
    try:
        return work()
    except MemoryError:
        return {"error": "MemoryError", "message": "out of memory"}, {}
    except Exception as reason:
        with contextlib.suppress(OSError):  # a log that is full must not cost the answer
            traceback.print_exc()
            sys.stderr.flush()
        return describe_error(reason), {}


def _loaded(order: Order, into: list[LoadedModel]) -> tuple[dict[str, Any], dict[str, Array]]:
    start = time.perf_counter()
    notes: list[str] = []
    if order.confined is not None:
        notes = confine(Confinement.parse(dict(order.confined), source="confinement"), scratch=Path(order.scratch))
    end_with_caller()
    module, _, name = order.runtime.partition(":")
    runtime: Runtime = getattr(importlib.import_module(module), name)
    import_s, start = time.perf_counter() - start, time.perf_counter()
    with explaining_damage(order.path):
        session = runtime.load(Path(order.path), threads=order.threads, options=order.options)
    load_s = time.perf_counter() - start
    into.append(
        LoadedModel(runtime=runtime, session=session, path=Path(order.path), threads=order.threads, options=order.options)
    )
    return {
        "notes": notes,
        "inputs": [spec.model_dump(mode="json") for spec in session.inputs],
        "outputs": [spec.model_dump(mode="json") for spec in session.outputs],
        "import_s": import_s,
        "load_s": load_s,
    }, {}


def _carry_out(
    loaded: LoadedModel, asked: Mapping[str, Any], arrays: dict[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    if "call" not in asked:
        return {}, run_session(loaded.session, arrays)
    module, _, name = str(asked["call"]).partition(":")
    value, results = getattr(importlib.import_module(module), name)(loaded, arrays, **asked["arguments"])
    return {"value": value}, dict(results)


def run_session(session: Session, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """One inference; what a runtime raises in it is about these inputs, on which the file's own numbers do not fit.

    Raises:
        DataError: The runtime could not run the model on them.
    """
    try:
        return dict(session.run(inputs))
    except (EdgekitError, ImportError, MemoryError):
        raise
    except Exception as reason:
        words = " ".join(str(reason).split())[:400].rstrip(".")
        raise DataError(f"The model could not be run on these inputs: {type(reason).__name__}: {words}.") from reason


def _main() -> None:
    reads, writes = os.dup(0), os.dup(1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a library prints goes to the log, not between the messages
    import numpy  # noqa: ICN001, F401  every order needs it: while the caller still makes up its own

    channel = Channel(reads=reads, writes=writes)
    order, _ = channel.receive(limit_bytes=0)
    code = 1
    try:
        serve(channel, Order(**order))
        code = 0
    except BrokenPipeError:
        code = 0  # nobody wants the answer any more
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)  # frameworks' exit handlers can hang or crash after the work is done


if __name__ == "__main__":
    _main()
