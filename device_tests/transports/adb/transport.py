"""Android devices: jobs are carried by adb, and executed by the native runner, for Android brings no Python."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgekit.core.errors import ProfileError
from edgekit.core.measurement import Evidence
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.jobs import Job
from edgekit.device_tests.native_agent import NativeAgent
from edgekit.device_tests.remote.carrier import RemoteTransport
from edgekit.device_tests.transports.adb.android import Cluster, affinity, android_facts
from edgekit.device_tests.transports.adb.client import INSTALL
from edgekit.device_tests.transports.adb.link import AdbLink

__all__ = ["AdbTransport"]


class AdbTransport(RemoteTransport):
    """Executes jobs on an Android device.

    Args:
        profile: ``connection`` says how to reach it (:class:`~.settings.AdbSettings`).

    Raises:
        ProfileError: ``connection`` has a setting that means nothing.
    """

    def __init__(self, profile: DeviceProfile) -> None:
        self._adb = AdbLink(profile)
        self._clusters: tuple[Cluster, ...] | None = None
        placed = profile.replace(connection={**profile.connection, "folder": self._adb.folder})
        super().__init__(placed, link=self._adb, agent=NativeAgent(profile))

    @staticmethod
    def obstacle(profile: DeviceProfile) -> str:
        """Why the device could not be tried from here; no connection is made."""
        try:
            AdbLink(profile)
        except ProfileError as reason:
            return str(reason)
        return "" if shutil.which("adb") else f"no adb client: {INSTALL}"

    def facts(self) -> dict[str, str]:
        """What every device says, and what only Android does: chip, clusters of cores, battery, heat."""
        super().facts()
        more, self._clusters = self._patience.keep_trying(lambda: android_facts(self._adb), what="it said what it is")
        self._facts |= more
        return dict(self._facts)

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:
        """Execute the job folder, on the cluster of cores that the profile names.

        Raises:
            DeviceError: The device was lost.
            ProfileError: It has no such cluster, or is an emulator whose numbers the profile calls measured.
            WorkerError: The agent crashed, or ran out of time or memory.
        """
        self._check_evidence()
        if self._adb.settings.cluster:
            plan = Job.read_json(job / "job.json")
            plan.replace(affinity=self._processors(self._adb.settings.cluster)).write_json(job / "job.json")
        super().run_agent(job, timeout_s=timeout_s, log=log)

    def _check_evidence(self) -> None:
        """Android's emulator must not pass for a phone."""
        if self._clusters is None:  # Android's own facts were not asked for, or the link broke between
            self.facts()
        wrong = [target for target, choice in self.profile.runtimes.items() if choice.evidence is Evidence.MEASURED]
        if "emulator" in self._facts and wrong:
            raise ProfileError(
                f"Device '{self.profile.name}' is an Android emulator, and its profile calls its numbers for '{wrong[0]}'"
                f" measured: write evidence = 'emulated' under [runtimes.{wrong[0]}]."
            )

    def _processors(self, name: str) -> str:
        """The processors of the clusters called so: some chips have two middle ones."""
        if self._clusters is None:
            self.facts()
        clusters = self._clusters or ()
        chosen = tuple(number for one in clusters if one.name == name for number in one.processors)
        if not chosen:
            there = "; ".join(str(one) for one in clusters) or "none that can be read"
            raise ProfileError(
                f"Device '{self.profile.name}' has no cluster '{name}' (connection.cluster); its clusters are: {there}. Name one"
                " of them, or set affinity to processor numbers."
            )
        return affinity(chosen)
