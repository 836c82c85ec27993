"""Heavy or crash-prone work in a process of its own: a crash there is an error message here.

The child is ``python -m edgekit.core.worker JOB``: it hides the modules it must not import, calls one function with
JSON arguments, and writes one JSON answer. Its output goes to a log file. The parent enforces time and
memory limits and ends the child's whole process group. A confined child (:class:`~edgekit.core.confinement.Confinement`)
gives up its rights before it imports the function's module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from edgekit.core.confinement import Confinement, confine
from edgekit.core.errors import MissingExtraError, WorkerError
from edgekit.core.files import write_text
from edgekit.core.remote_errors import describe_error, raise_error
from edgekit.core.spawned_child import CONFINED
from edgekit.core.supervision import death, end_with_caller, last_words, resident_bytes

__all__ = ["call"]

_POLL_S = 0.1
_ANSWER_BYTES = 64 * 2**20
"""Largest answer that is read; a child that was taken over may write anything."""


def call(
    function: str,
    arguments: Mapping[str, Any],
    *,
    what: str,
    hides: tuple[str, ...] = (),
    timeout_s: float = 900.0,
    memory_bytes: int | None = None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    confined: Confinement | None = None,
    stop: threading.Event | None = None,
) -> Any:
    """Call ``package.module:function`` in a new process and return its JSON answer.

    Args:
        function: The function, ``"package.module:name"``; called with ``arguments`` as keywords.
        arguments: JSON values.
        what: The work in words, for error messages: ``"converting to onnx"``.
        hides: Modules that must not be importable in the child.
        timeout_s: Wall-clock limit, seconds.
        memory_bytes: Limit on the resident memory of the child and its children.
        environment: Variables added to the child's environment.
        log: File its output is appended to; a temporary one where None.
        confined: What is left to it where it opens somebody else's file; it also sets the limit on memory where that is None.
            Its home and its temporary folder are then a folder of its own, which is gone afterwards.
        stop: Ends the child once it is set, for callers that wait in threads.

    Raises:
        EdgekitError: Whatever edgekit error the function raised.
        WorkerError: The child crashed, or exceeded a limit.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-worker-") as scratch:
        job, answer = Path(scratch, "job.json"), Path(scratch, "answer.json")
        order = {"function": function, "arguments": dict(arguments), "hides": hides, "answer": str(answer)}
        variables = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        if confined is not None:
            order["confined"] = confined.model_dump(mode="json")
            memory_bytes = memory_bytes or confined.memory_limit_bytes
            variables[CONFINED] = "1"
            variables |= dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "KERAS_HOME"), scratch)
        write_text(job, json.dumps(order))
        log = log or Path(scratch, "log.txt")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            output.write(f"\n--- {what} ---\n".encode())
            output.flush()
            start = output.tell()
            limits = _Limits(timeout_s=timeout_s, memory_bytes=memory_bytes, stop=stop or threading.Event())
            code = _run(job, what, output, limits=limits, variables=variables)
        return _unpack(_read_answer(answer, f"The worker {what} {death(code)}. Last words: {last_words(log, start)}"), what)


def _read_answer(path: Path, death: str) -> dict[str, Any]:
    if not path.is_file() or path.is_symlink() or path.stat().st_size > _ANSWER_BYTES:
        raise WorkerError(death)
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as reason:
        raise WorkerError(death) from reason
    if not isinstance(answer, dict):
        raise WorkerError(death)
    return answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Limits:
    timeout_s: float
    memory_bytes: int | None
    stop: threading.Event


def _run(job: Path, what: str, output: IO[bytes], *, limits: _Limits, variables: Mapping[str, str]) -> int:
    # -P: the folder it is started in is somebody's own, and a confined worker cannot read there what Python would look for
    command = [sys.executable, "-P", "-m", "edgekit.core.worker", str(job)]
    leads_group = CONFINED not in os.environ
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(variables), start_new_session=leads_group
    )
    deadline = time.monotonic() + limits.timeout_s
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=min(_POLL_S, max(0.0, deadline - time.monotonic())))
            if limits.stop.is_set():
                raise WorkerError(f"The worker {what} was stopped.")
            if time.monotonic() >= deadline:
                raise WorkerError(f"The worker {what} ran longer than {limits.timeout_s:.0f} s and was stopped.")
            if limits.memory_bytes and (used := resident_bytes(process.pid)) > limits.memory_bytes:
                raise WorkerError(
                    f"The worker {what} used {used / 2**20:.0f} MiB, more than its limit"
                    f" of {limits.memory_bytes / 2**20:.0f} MiB, and was stopped."
                )
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if leads_group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()


def _unpack(answer: dict[str, Any], what: str) -> Any:
    if "value" not in answer:
        raise_error({"error": "", **answer}, what)
    return answer["value"]


def _main(job_path: str) -> None:
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    for name in job["hides"]:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    answer: dict[str, Any]
    trace = ""
    try:
        if "confined" in job:
            rights = Confinement.parse(job["confined"], source="confinement")
            for lacking in confine(rights, scratch=Path(job_path).parent):
                sys.stderr.write(f"Warning: {lacking}\n")
            if rights.cpu_s is None:
                end_with_caller()
        module, _, name = job["function"].partition(":")
        answer = {"value": getattr(importlib.import_module(module), name)(**job["arguments"])}
    except Exception as reason:
        trace = "" if isinstance(reason, MissingExtraError) else traceback.format_exc()
        answer = describe_error(reason)
    write_text(Path(job["answer"]), json.dumps(answer))
    with contextlib.suppress(OSError):  # a log that a full disk cuts short must not cost the answer
        sys.stderr.write(trace)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)  # frameworks' exit handlers can hang or crash after the work is done


if __name__ == "__main__":
    _main(sys.argv[1])
