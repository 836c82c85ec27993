"""Several devices, one after the other: what one of them says is kept when another is lost."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from edgekit.core.artifact import Artifact
from edgekit.core.errors import DeviceError, JobsWaitingError, UsageError
from edgekit.core.plugins import Progress, silent
from edgekit.core.profile import DeviceProfile
from edgekit.core.run import RunFolder
from edgekit.core.task import Task
from edgekit.core.validation import DeviceResult
from edgekit.device_tests.profiles import load_profiles
from edgekit.device_tests.validate import validate_device

__all__ = ["forget_finished", "lost_devices", "read_profiles", "validate_devices"]


def read_profiles(
    devices: Sequence[str | Path], *, jobs: Path | None = None, samples: int | None = None
) -> tuple[DeviceProfile, ...]:
    """Profiles of all devices that are named, those of a lab file each.

    Args:
        devices: Names of profiles, or paths of files with one device or several.
        jobs: Folder that the devices' jobs are left in instead of being run: one folder for each device's name.
        samples: At most so many evaluation samples, whatever the profiles say.

    Raises:
        ProfileError: There is no such profile, or it is wrong.
        UsageError: Two devices have one name.
    """
    found = [profile for device in devices for profile in load_profiles(device)]
    for profile in found:
        if [one.name for one in found].count(profile.name) > 1:
            raise UsageError(f"Device '{profile.name}' is named twice. Name it once, or give the profiles names of their own.")
    if jobs is not None:
        found = [one.replace(transport="job-folder", connection={"folder": str(jobs / one.name)}) for one in found]
    if samples is not None:
        found = [one.replace(evaluation_samples=samples) for one in found]
    return tuple(found)


def validate_devices(
    profiles: Sequence[DeviceProfile],
    *,
    run: RunFolder,
    artifacts: Sequence[Artifact],
    task: Task | None,
    baseline: RunFolder | None = None,
    progress: Progress = silent,
) -> list[DeviceResult]:
    """Run artifacts on every device and judge them (:func:`.validate.validate_device`).

    A device that is lost keeps none of the others from being asked. What was finished, on it and on them, is kept below the run
    for a day: validating again asks only for what is missing. :func:`forget_finished` ends that.

    Raises:
        DeviceError: Devices were lost, or wait for somebody to run their jobs; each with its reason.
    """
    results: list[DeviceResult] = []
    lost: list[DeviceError] = []
    for at, profile in enumerate(profiles):
        try:
            results.append(
                validate_device(
                    profile,
                    compressed_folder=run.compressed,
                    artifacts=artifacts,
                    task=task,
                    output=run.validation(profile.name),
                    log=run.log,
                    progress=_named(progress, profile, at, len(profiles)),
                    baseline=baseline,
                    finished=_finished(run, profile),
                )
            )
        except DeviceError as reason:
            lost.append(reason)
    if lost:
        names = ", ".join(result.profile.name for result in results)
        raise lost_devices(
            lost,
            kept=f"What {names} answered is kept; validating again within a day asks only for what is missing." if names else "",
        )
    return results


def forget_finished(run: RunFolder, profiles: Sequence[DeviceProfile]) -> None:
    """Remove what :func:`validate_devices` kept: the next validation measures anew."""
    for profile in profiles:
        shutil.rmtree(_finished(run, profile), ignore_errors=True)


def _finished(run: RunFolder, profile: DeviceProfile) -> Path:
    return run.validation(profile.name) / "finished"


def _named(progress: Progress, profile: DeviceProfile, at: int, count: int) -> Progress:
    """Progress that says which device it is about, where there are several."""
    if count == 1:
        return progress
    return lambda what, done, total: progress(f"{profile.name} ({at + 1} of {count}): {what}", done, total)


def lost_devices(lost: Sequence[DeviceError], *, kept: str) -> DeviceError:
    """The reasons in one error, and what was kept of the other devices; a single reason with nothing kept as it is."""
    if len(lost) == 1 and not kept:
        return lost[0]
    kind = JobsWaitingError if all(isinstance(one, JobsWaitingError) for one in lost) else DeviceError
    return kind(" ".join([*map(str, lost), *([kept] if kept else [])]))
