"""A device agent that needs nothing but sh on the device, for tests of what carries jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.core.device_link import Errand, Link
from edgekit.core.errors import IntegrityError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.remote.carrier import RemoteTransport

PROFILE = DeviceProfile(name="board", title="A folder of this machine", runtimes={})
UPPER = "tr a-z A-Z <input.txt >output.txt; echo said; echo x >>../../../starts"
"""What a job does where a test says nothing else; every start leaves a line in the device's folder."""


@dataclasses.dataclass
class ShAgent:
    """Runs one sh line in the job's folder.

    Args:
        line: The line; it must leave ``output.txt``.
        returns: What comes back.
        environment: Set for it.
    """

    line: str = UPPER
    returns: tuple[str, ...] = ("output.txt",)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def prepare(self, job: Path, *, facts: Mapping[str, str]) -> Errand:
        assert facts["system"]
        files = {path.relative_to(job).as_posix(): path for path in sorted(job.rglob("*")) if path.is_file()}
        files = {name: path for name, path in files.items() if name not in {*self.returns, "result.json", "log.txt"}}
        return Errand(
            files=files,
            commands=[["sh", "-c", self.line]],
            returns=self.returns,
            programs=[name for name in files if name.endswith(".sh")],
            environment=self.environment,
        )

    def collect(self, job: Path) -> None:
        if not (job / self.returns[0]).exists():
            raise IntegrityError("nothing came back")
        (job / "result.json").write_text("{}")


def make_job(folder: Path, text: str = "hello\n") -> Path:
    """A job folder with one input."""
    folder.mkdir(parents=True)
    (folder / "input.txt").write_text(text)
    return folder


def carrier(link: Link, agent: ShAgent | None = None, **changes: Any) -> RemoteTransport:
    """A carrier of few seconds."""
    settings: dict[str, Any] = {"lease_s": 3.0, "patience_s": 10.0, "lock_wait_s": 10.0} | changes
    return RemoteTransport(PROFILE, link=link, agent=agent or ShAgent(), **settings)
