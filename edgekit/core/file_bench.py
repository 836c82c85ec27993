"""What model files cost on this machine, measured side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from edgekit.core.errors import EdgekitError, IntegrityError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.model import Record
from edgekit.core.operator_profile import OperatorProfile
from edgekit.core.runtime_options import Setting

__all__ = ["RENDERERS", "BenchedFile", "FileBench"]

RENDERERS: dict[str, Callable[[FileBench], str]] = {}
"""How a notebook shows one, by MIME type; see :data:`edgekit.core.validation.RENDERERS`."""


class BenchedFile(Record):
    """One file.

    Args:
        path: The file.
        sha256: Digest of what was loaded.
        runtime: Name of the runtime.
        runtime_version: Its version.
        options: What it was loaded with, where that was not the default.
        evidence: What the times rest on.
        size_bytes: On disk.
        measurements: ``load_time``, ``first_inference``, ``latency``, ``cpu_time``, ``peak_memory``; and ``slowdown_ratio`` and
            ``slowdown_ratio_cpu`` against the first file.
        profile: Its operators' times, where they were asked for.
        profile_failure: Why there are none.
    """

    path: str
    sha256: str
    runtime: str
    runtime_version: str
    options: dict[str, Setting] = {}
    evidence: Evidence
    size_bytes: int
    measurements: tuple[Measurement, ...]
    profile: OperatorProfile | None = None
    profile_failure: str = ""

    def find(self, name: str) -> Measurement | None:
        """The measurement called ``name``."""
        return next((one for one in self.measurements if one.name == name), None)


class FileBench(Record):
    """Files that were timed in turn, the first being what the others are compared with.

    Args:
        machine: What the machine says of itself.
        threads: Threads each runtime might use.
        inputs: Where the inputs came from, in words.
        files: The files.
        first_answer_s: Seconds from the start of the command to the first file's first answer; None where the system cannot tell.
    """

    error: ClassVar[type[EdgekitError]] = IntegrityError

    schema_version: Literal[1] = 1
    machine: dict[str, str]
    threads: int
    inputs: str
    files: tuple[BenchedFile, ...]
    first_answer_s: float | None = None

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None
