"""The contract between the lab and a device that is not this machine: links carry files and commands, agents know what to run.

====================== ================================================= ==========================================
part                   knows                                             examples
====================== ================================================= ==========================================
:class:`Link`          how to reach the device                           ssh, adb
:class:`DeviceAgent`   what executes a job there and what it leaves      Python with edgekit; the native runner alone
the carrier            resume, lock, time limits, leaving nothing behind :mod:`edgekit.device_tests.remote`
====================== ================================================= ==========================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

__all__ = ["DeviceAgent", "Errand", "Finished", "Link"]


@dataclasses.dataclass(frozen=True)
class Finished:
    """A command that ended on the device.

    Args:
        code: Its exit status.
        output: What it wrote to its standard output.
        errors: What it wrote to its standard error.
    """

    code: int
    output: str
    errors: str = ""


@runtime_checkable
class Link(Protocol):
    """One connection to one device. Paths there are POSIX, relative to the folder that the link was given for edgekit's use.

    Every method raises :class:`~edgekit.core.errors.DeviceError` when the connection is lost or cannot be made; the link can
    then be connected again. A file whose transfer was cut may be there in part under the name it was sent to: the sender checks.
    """

    def connect(self) -> None:
        """Reach the device, anew where a connection was lost.

        Raises:
            DeviceError: It cannot be reached, does not know the user, or refuses.
        """
        ...

    def run(self, command: str, *, timeout_s: float, given: bytes = b"") -> Finished:
        """Run a short POSIX ``sh`` command line in edgekit's folder on the device and wait for it.

        Args:
            command: The command line.
            timeout_s: After so long the connection counts as lost.
            given: Its standard input.
        """
        ...

    def push(self, source: Path, target: str, *, offset: int = 0) -> None:
        """Send one file's bytes from ``offset`` on; what the device holds before that offset is kept."""
        ...

    def pull(self, source: str, target: Path, *, offset: int = 0) -> None:
        """Fetch one file's bytes from ``offset`` on into ``target``, whose bytes before that offset are kept."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


@dataclasses.dataclass(frozen=True)
class Errand:
    """What an agent wants done in a job's folder on the device.

    Args:
        files: Path in the folder there -> the local file that belongs there.
        commands: Words of the commands, run one after the other in the folder; the first that fails ends the job. A word that
            begins with ``./`` names a file of the folder.
        programs: Those of ``files`` that must be executable.
        returns: Files the commands leave in the folder, which must all come back.
        environment: Set for the commands.
    """

    files: Mapping[str, Path]
    commands: Sequence[Sequence[str]]
    returns: Sequence[str]
    programs: Sequence[str] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@runtime_checkable
class DeviceAgent(Protocol):
    """Executes job folders (:mod:`edgekit.device_tests.jobs`) on a device, by commands."""

    def prepare(self, job: Path, *, facts: Mapping[str, str]) -> Errand:
        """What is to be sent and run for a local job folder; may write files of its own into it.

        Args:
            job: The folder with ``job.json``.
            facts: What the device says of itself.

        Raises:
            DeviceError: The device has the wrong architecture, or lacks a program.
            UnsupportedOpError: The agent cannot do this job.
        """
        ...

    def collect(self, job: Path) -> None:
        """Turn what came back into the job folder's ``result.json`` and ``outputs.npz``.

        Raises:
            IntegrityError: What came back is not what the agent writes.
        """
        ...
