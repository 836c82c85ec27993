"""A device without a network: its jobs are left in a folder, somebody runs them there and brings the folder back."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.errors import IntegrityError, JobsWaitingError, ProfileError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.job_store import Done, JobStore, job_digest

__all__ = ["JobFolderTransport"]


class JobFolderTransport:
    """Leaves jobs in a folder, and takes the results of those that were run (:mod:`edgekit.device_tests.job_store`).

    Args:
        profile: ``connection.folder`` is where the jobs lie.

    Raises:
        ProfileError: The profile names no folder.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        if missing := self.obstacle(profile):
            raise ProfileError(missing)
        self.profile = profile
        self.store = JobStore(Path(str(profile.connection["folder"])))

    @staticmethod
    def obstacle(profile: DeviceProfile) -> str:
        """Why no job can be left anywhere; empty where it can."""
        if unknown := set(profile.connection) - {"folder"}:
            return (
                f"Profile '{profile.name}' sets connection.{min(unknown)}, which the transport 'job-folder' does not know;"
                " it knows connection.folder."
            )
        if not profile.connection.get("folder"):
            return (
                f"Device '{profile.name}' cannot be reached from here. Leave its jobs in a folder: edgekit jobs export RUN"
                f" --device {profile.name} -o FOLDER; run them there: edgekit jobs run FOLDER; then: edgekit validate RUN"
                f" --device {profile.name} --jobs FOLDER"
            )
        return ""

    def facts(self) -> dict[str, str]:
        """What the device said of itself when it ran the jobs; the profile's own words before that."""
        for place in sorted(self.store.folder.glob("*/done.json")):
            return Done.read_json(place).machine
        hardware = self.profile.hardware
        named = {"processor": hardware.processor, "architecture": hardware.architecture}
        return {key: value for key, value in named.items() if value}

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:  # noqa: ARG002  nobody waits
        """Bring the results of a job that was run; leave it in the folder where it was not.

        Raises:
            JobsWaitingError: The job waits.
            IntegrityError: Its results are not those that were recorded.
        """
        done = self.store.take(job_digest(job), job)
        if done is None:
            place = self.store.put(job)
            raise JobsWaitingError(f"The job {place} waits for device '{self.profile.name}'.")
        wanted, found = self.profile.hardware.architecture, done.machine.get("architecture")
        if wanted and found and wanted != found:
            raise IntegrityError(
                f"The jobs in {self.store.folder} were run on a machine of architecture {found}, but device"
                f" '{self.profile.name}' has {wanted}. Run them on the device itself."
            )

    def close(self) -> None:
        """Nothing to do: nothing runs."""
