"""Where programs are converted and measured while a recipe still works on them (:class:`edgekit.core.plugins.Bench`).

A program is converted in a worker process, once for each target: what was made of it lies in the bench's folder under
the program's digest, so that a search that comes back to a program, or a run that was killed, does not convert it again.
Times are taken anew each time, in turn with what they are compared with.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import registry
from edgekit.conversion import convert_apart
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import IntegrityError, ProfileError, WorkerError, nearest
from edgekit.core.files import writing_folder
from edgekit.core.measurement import Measurement
from edgekit.core.profile import DeviceProfile
from edgekit.core.program import program_digest
from edgekit.core.stages import TimedProgram
from edgekit.device_tests.jobs import find_runtime
from edgekit.device_tests.measurement import Series, compare, summarise
from edgekit.device_tests.profiles import load_profile
from edgekit.device_tests.workbench import Workbench, connect

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["DeviceBench", "state_digest"]


class DeviceBench:
    """Converts programs and runs the files on devices; makes nothing before it is asked.

    Args:
        folder: Where the files are kept; None: in a temporary folder, until :meth:`close`.

    >>> with closing(DeviceBench()) as bench:
    ...     bench.log.name
    'log.txt'
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._is_temporary = folder is None
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where the files are kept."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="edgekit-bench-"))
        return self._folder

    @property
    def log(self) -> Path:
        """What the frameworks said."""
        return self.folder / "log.txt"

    def close(self) -> None:
        """Remove what is temporary."""
        if self._is_temporary and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def artifact(self, state: Compressed, *, target: str, label: str = "") -> Artifact:
        """The program's file for a target, with the export's defaults.

        Args:
            state: The program.
            target: Name in the ``edgekit.converters`` group.
            label: What the artifact is called; empty: by its digest.

        Raises:
            MissingExtraError: The target's framework is not installed.
            ConversionError: The target cannot take the program.
        """
        registry.require(registry.converter(target))
        digest = state_digest(state)
        variant = re.sub(r"[^\w.+-]+", "-", label) or digest[:12]
        place = self.folder / f"{digest[:24]}-{target}"
        if place.is_dir():
            try:
                return Artifact.load(place).replace(variant=variant)
            except IntegrityError:  # a disk that filled up, a hand that reached in: make it again
                shutil.rmtree(place)
        bare = dataclasses.replace(state, float_program=state.program, source_program=None)
        with tempfile.TemporaryDirectory(prefix=".program-", dir=_made(self.folder)) as scratch:
            source = bare.save(Path(scratch, "compressed")).folder or Path()
            with writing_folder(place) as temporary:
                what = f"{target} ({variant})"
                convert_apart(source, temporary, target=target, options=ExportOptions(), label=what, log=self.log)
        return Artifact.load(place).replace(variant=variant)

    def size_bytes(self, state: Compressed, *, target: str) -> int:
        """Size of the converted file.

        Raises:
            MissingExtraError: The target's framework is not installed.
            ConversionError: The target cannot take the program.
        """
        return self.artifact(state, target=target).size_bytes

    def time(self, states: Mapping[str, Compressed], *, target: str, device: str) -> dict[str, TimedProgram]:
        """Convert programs and time the files in turn, so that what disturbs one disturbs all.

        Args:
            states: Programs by label; the first is what the others are compared with.
            target: What to convert to.
            device: Profile name or file.

        Raises:
            MissingExtraError: The target's framework or runtime is not installed.
            ProfileError: There is no such device, or it has no runtime for the target.
            ConversionError: The target cannot take a program, or a file cannot be run.
            DeviceError: The device was lost.
        """
        self.profile(target=target, device=device)
        artifacts = {
            label: self.artifact(state, target=target, label=f"{at}-{label}") for at, (label, state) in enumerate(states.items())
        }
        return self.time_files(artifacts, golden=next(iter(states.values())).golden.inputs, device=device)

    def time_files(
        self, artifacts: Mapping[str, Artifact], *, golden: Mapping[str, Array], device: str
    ) -> dict[str, TimedProgram]:
        """Time files of one target in turn; the first is what the others are compared with.

        Args:
            artifacts: By label, each of a variant of its own.
            golden: Input name -> ``[S, *shape]``.
            device: Profile name or file.

        Raises:
            WorkerError: A file cannot be run.
            DeviceError: The device was lost.
        """
        target = next(iter(artifacts.values())).target
        with self.workbench(self.profile(target=target, device=device), golden=golden) as bench:
            timed = bench.timing(list(artifacts.values()))
            profile = bench.profile
        if timed.failure:
            raise WorkerError(f"Timing {', '.join(artifacts)} as {target} on '{profile.name}' failed: {timed.failure}")
        series = {label: timed.series[artifact.label] for label, artifact in artifacts.items()}
        return {
            label: _timed(artifact, series[label], next(iter(series.values())), profile) for label, artifact in artifacts.items()
        }

    def profile(self, *, target: str, device: str) -> DeviceProfile:
        """A device's profile, once it is sure that the device can run a target's files.

        Raises:
            MissingExtraError: The runtime is not installed.
            ProfileError: There is no such device, or it has no runtime for the target.
        """
        profile = load_profile(device)
        if target not in profile.runtimes:
            raise ProfileError(
                f"Profile '{profile.name}' has no runtime for target '{target}'; it has {', '.join(profile.runtimes)}."
                f"{nearest(target, profile.runtimes)} Measure another target, or add a [runtimes.{target}] table."
            )
        registry.require(find_runtime(profile.runtimes[target].runtime))
        return profile

    @contextmanager
    def workbench(
        self, profile: DeviceProfile, *, golden: Mapping[str, Array], evaluation: Mapping[str, Array] | None = None
    ) -> Iterator[Workbench]:
        """A workbench on a device that was handed the inputs.

        Args:
            profile: The device; the workbench's own is that of the device's system.
            golden: Input name -> ``[S, *shape]``.
            evaluation: Input name -> ``[N, ...]``.
        """
        transport = connect(profile)
        try:
            profile = profile.on_system(transport.facts().get("system", ""))
            output = _made(self.folder / "devices" / profile.name)
            with closing(Workbench(profile, transport, output=output, log=self.log)) as bench:
                bench.share("golden", golden)
                if evaluation is not None:
                    bench.share("evaluation", evaluation)
                yield bench
        finally:
            transport.close()


def state_digest(state: Compressed) -> str:
    """What a file made of a state depends on: the program and its contract."""
    parts = [program_digest(state.program), state.contract.to_json(), *(spec.to_json() for spec in state.record.inputs)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _timed(artifact: Artifact, series: Series, baseline: Series, profile: DeviceProfile) -> TimedProgram:
    evidence = profile.runtimes[artifact.target].evidence
    latency, _ = summarise(series, threads=profile.threads, evidence=evidence)
    value, low, high = 1.0, 1.0, 1.0
    if series is not baseline:
        ratio, _ = compare(series, baseline, threads=profile.threads, evidence=evidence)
        below, above = ratio.interval or (ratio.value, ratio.value)
        value, low, high = 1 / ratio.value, 1 / above, 1 / below
    return TimedProgram(
        target=artifact.target,
        device=profile.name,
        latency=_without_samples(latency),
        size_bytes=artifact.size_bytes,
        speedup=value,
        speedup_interval=(low, high),
    )


def _without_samples(latency: Measurement) -> Measurement:
    """The summary alone: a record of many stages need not hold thousands of times."""
    return latency.replace(distribution=latency.distribution.replace(samples=()) if latency.distribution else None)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
