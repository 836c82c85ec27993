"""Does an errand on this machine, in a folder of its own: directly, or under an emulator."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgekit.core.device_link import Errand
from edgekit.core.errors import IntegrityError, WorkerError
from edgekit.core.supervision import resident_bytes
from edgekit.runtimes.native.process import failure_of

__all__ = ["carry_out"]

_POLL_S = 0.05
_RESERVE_BYTES = 200_000_000
"""Memory that is left to everything else here."""


def carry_out(
    errand: Errand,
    job: Path,
    *,
    what: str,
    timeout_s: float,
    launcher: Sequence[str] = (),
    log: Path | None = None,
) -> None:
    """Run an errand's commands one after the other and put what they leave into the job's folder.

    Args:
        errand: What a device agent wants done.
        job: The job's folder.
        what: The work in words, for messages.
        timeout_s: Wall time of all commands together; then the running one is killed with all it started.
        launcher: Words before each command, such as an emulator's.
        log: What the commands say is appended to it.

    Raises:
        EdgekitError: What edgekit-runner said of the model, its inputs or the library.
        WorkerError: It crashed, or ran out of time or memory.
        IntegrityError: A command left nothing where it should have.
    """
    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryDirectory(prefix=".errand-", dir=job) as name:
        folder = Path(name)
        _place(errand, folder)
        for command in errand.commands:
            _run([*launcher, *command], errand, folder, what=what, deadline=deadline, timeout_s=timeout_s, log=log)
        for file in errand.returns:
            if not (folder / file).is_file():
                raise IntegrityError(f"{what}: {file} was not written, though the program ended well. Validate again.")
            (job / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).replace(job / file)


def _place(errand: Errand, folder: Path) -> None:
    for place, source in errand.files.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if place in errand.programs:
            shutil.copy2(source, target)
            target.chmod(0o700)
            continue
        try:  # no symbolic link: ONNX Runtime refuses weights that lead out of the model's folder
            os.link(source.resolve(), target)
        except OSError:  # another disk, or a file system without links
            shutil.copy2(source, target)


def _run(
    words: Sequence[str],
    errand: Errand,
    folder: Path,
    *,
    what: str,
    deadline: float,
    timeout_s: float,
    log: Path | None,
) -> None:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env={**os.environ, **errand.environment},
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
        try:
            excess = _watch(process, deadline)
        finally:
            _kill_group(process)
        text = _text(errors)
    if log is not None and text:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(text if text.endswith("\n") else f"{text}\n")
    if excess == "time":
        raise WorkerError(f"{what} took more than {timeout_s:.0f} s and was ended. Raise the profile's timeout_s.")
    if excess == "memory":
        raise WorkerError(f"{what} took nearly all the memory of this machine and was ended.")
    if process.returncode != 0:
        raise failure_of(process.returncode, text, what)


def _watch(process: subprocess.Popen[bytes], deadline: float) -> str:
    """Wait for the end; which limit was exceeded before it, if any."""
    import psutil

    most = psutil.virtual_memory().available - _RESERVE_BYTES
    while True:
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                return "time"
            if resident_bytes(process.pid) > most:
                return "memory"
            continue
        return ""


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what the command started too; its own number is not given to another process before it is waited for."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read(1 << 20).decode("utf-8", "replace")
