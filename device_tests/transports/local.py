"""This machine as a device: the agent is a process here."""

from __future__ import annotations

from pathlib import Path

from edgekit import registry
from edgekit.core.confinement import Confinement
from edgekit.core.profile import DeviceProfile
from edgekit.core.threads import thread_limits
from edgekit.core.worker import call
from edgekit.device_tests.host import host_facts
from edgekit.device_tests.jobs import Job, find_runtime

__all__ = ["LocalTransport", "thread_limits"]

_USABLE_MEMORY_SHARE = 0.9


class LocalTransport:
    """Runs the agent in a worker process of this machine.

    Args:
        profile: The device's profile; nothing in it is needed to reach this machine.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self.profile = profile

    def facts(self) -> dict[str, str]:
        """See :func:`edgekit.device_tests.host.host_facts`."""
        return host_facts()

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:
        """Execute the job in a process that can import only what its runtime needs.

        Raises:
            MissingExtraError: The runtime is not installed.
            WorkerError: The agent crashed, or ran out of time or memory.
        """
        plan = Job.read_json(job / "job.json")
        runtime = find_runtime(plan.runtime)
        registry.require(runtime)
        call(
            "edgekit.device_tests.agent:run",
            {"job": str(job)},
            what=plan.what,
            hides=runtime.hides,
            timeout_s=timeout_s,
            memory_bytes=plan.memory_bytes or _usable_memory(),
            environment=thread_limits(plan.threads),
            log=log,
            confined=_rights(job, plan),
        )

    def close(self) -> None:
        """Nothing to do: every agent has ended with its call."""


def _usable_memory() -> int:
    """Most of what is free now: a model that needs more would drag the whole machine down."""
    import psutil

    return int(psutil.virtual_memory().available * _USABLE_MEMORY_SHARE)


def _rights(job: Path, plan: Job) -> Confinement:
    """The job folder is all an agent reads and writes, but for libraries that options name; it reads its own CPU time."""
    named = [value for value in plan.options.values() if isinstance(value, str) and Path(value).is_file()]
    reads = (str(job.resolve()), *(str(Path(value).resolve()) for value in named))
    return Confinement(reads=reads, writes=(str(job.resolve()),), cpu_s=None)
