"""A child Python that waits for a model to serve.

It is started before its caller knows all of the order, and imports what every order needs while the caller goes on: this module
imports nothing but the standard library for that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from edgekit.core.threads import thread_limits

__all__ = ["CONFINED", "SpawnedChild", "StartedChild"]

CONFINED = "EDGEKITCONFINED"
"""Set in confined processes and what they start. These cannot leave the process group, by which all of them are ended."""


class SpawnedChild:
    """A new Python.

    Args:
        environment: Its whole environment.
        log: What it writes to its standard output and error goes here.
    """

    def __init__(self, *, environment: Mapping[str, str], log: IO[bytes]) -> None:
        self._leads_group = CONFINED not in os.environ
        # -P: the folder it is started in is somebody's own, and a confined child cannot read there what Python would look for
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgekit.core.model_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=dict(environment),
            start_new_session=self._leads_group,
            bufsize=0,
        )
        self._streams: list[IO[bytes]] = [stream for stream in (self._process.stdin, self._process.stdout) if stream]
        self.writes, self.reads = (stream.fileno() for stream in self._streams)
        self.pid = self._process.pid

    def wait(self, timeout_s: float) -> int | None:
        """See :class:`Child`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        return None

    def end(self) -> None:
        """See :class:`Child`."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._leads_group:  # also where it has ended: what it started may live on
                os.killpg(self.pid, signal.SIGKILL)
            elif self._process.poll() is None:
                self._process.kill()
        self._process.wait()
        for stream in self._streams:
            stream.close()


class StartedChild:
    """A child and the folder it works in, which stays when the child has ended until :meth:`discard`.

    Args:
        threads: Threads its numeric libraries may start.
        log: File its output is appended to; one in the folder where None.

    Attributes:
        folder: Holds ``model``, which the child may read, and ``scratch``, its home and temporary folder.
        child: The process.
        log: Where its output goes.
    """

    def __init__(self, *, threads: int, log: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="edgekit-model-"))
        try:
            self.model.mkdir()
            self.scratch.mkdir()
            self.log = log or self.folder / "log.txt"
            variables = {**os.environ, "PYTHONUNBUFFERED": "1", CONFINED: "1", **thread_limits(threads)}
            variables |= dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "KERAS_HOME"), str(self.scratch))
            with self.log.open("ab") as output:
                self.child = SpawnedChild(environment=variables, log=output)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    @property
    def model(self) -> Path:
        """Folder of the model."""
        return self.folder / "model"

    @property
    def scratch(self) -> Path:
        """The child's own folder."""
        return self.folder / "scratch"

    def discard(self) -> None:
        """End the child and remove the folder."""
        self.child.end()
        shutil.rmtree(self.folder, ignore_errors=True)
