"""The target matrix: one row an artifact, with every number and ratio the report shows about it.

A time is a *device latency* only where its evidence is ``measured``; any other time is kept apart
(:attr:`Row.executor_time`) and enters no ratio.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from edgekit.core.artifact import Artifact
from edgekit.core.contract import ContractReport
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.validation import ArtifactResult, DeviceResult, LayerParity, ValidationReport

__all__ = ["Row", "SpeedUp", "rows"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """Float time over compressed time, of the same target on the same device, the two measured in turn.

    Args:
        value: How many times as fast as float.
        low: Lower end of its 95 % interval.
        high: Upper end.
        by_cpu: The same of CPU times, which a busy machine disturbs less; None where it was not taken.
        note: How it was taken.
    """

    value: float
    low: float
    high: float
    by_cpu: float | None
    note: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One artifact on one device.

    Args:
        artifact: The artifact.
        result: What was found; None where the device has no runtime for it.
        baseline: The float artifact of the same target on this device; None for float artifacts and where there is none.
        skipped: Why it is not for this device; empty where it is.
    """

    artifact: Artifact
    result: ArtifactResult | None
    baseline: Row | None = None
    skipped: str = ""

    @property
    def label(self) -> str:
        """``"onnx"``, or ``"onnx-float32"``."""
        return self.artifact.label

    @property
    def target(self) -> str:
        """``"onnx"``."""
        return self.artifact.target

    @property
    def is_baseline(self) -> bool:
        """Whether this is a float baseline."""
        return self.artifact.is_baseline

    @property
    def failure(self) -> str:
        """Why there are no numbers; empty if there are."""
        if self.result is None:
            return self.skipped or "The device profile names no runtime for it."
        return self.result.failure

    @property
    def evidence(self) -> Evidence | None:
        """What the result rests on."""
        return self.result.evidence if self.result else None

    @property
    def runtime(self) -> str:
        """Runtime and version."""
        return f"{self.result.runtime} {self.result.runtime_version}".strip() if self.result else ""

    def taken(self, name: str) -> Measurement | None:
        """The measurement called ``name``."""
        return self.result.measurement(name) if self.result else None

    @property
    def latency(self) -> Measurement | None:
        """Device latency: only where the evidence is ``measured``."""
        found = self.taken("latency")
        return found if found and found.evidence is Evidence.MEASURED else None

    @property
    def executor_time(self) -> Measurement | None:
        """Time per inference of an executor that is not the device."""
        found = self.taken("latency")
        return found if found and found.evidence is not Evidence.MEASURED else None

    @property
    def cpu_time(self) -> Measurement | None:
        """CPU time per inference on the device: only where the evidence is ``measured``."""
        found = self.taken("cpu_time")
        return found if found and found.evidence is Evidence.MEASURED else None

    @property
    def speed_up(self) -> SpeedUp | None:
        """How much faster than the float artifact of the same target: only where the evidence is ``measured``."""
        found, cpu = self.taken("slowdown_ratio"), self.taken("slowdown_ratio_cpu")
        if found is None or found.evidence is not Evidence.MEASURED or found.value <= 0:
            return None
        low, high = found.interval or (found.value, found.value)
        by_cpu = 1 / cpu.value if cpu and cpu.value > 0 else None
        return SpeedUp(value=1 / found.value, low=1 / high, high=1 / low, by_cpu=by_cpu, note=found.note)

    @property
    def size_ratio(self) -> float | None:
        """Size of the float artifact of the same target over this one's."""
        return (
            self.baseline.artifact.size_bytes / self.artifact.size_bytes if self.baseline and self.artifact.size_bytes else None
        )

    @property
    def layers(self) -> tuple[LayerParity, ...]:
        """Layer parity, in program order."""
        return self.result.layers if self.result else ()

    @property
    def worst_layer(self) -> LayerParity | None:
        """The layer with the largest difference, and of those the one with the fewest exact values."""
        return max(self.layers, key=lambda layer: (layer.largest_steps, -layer.exact_share), default=None)

    @property
    def exact_share(self) -> float | None:
        """Share of all layers' values that are exactly the compressed program's."""
        total = sum(layer.value_count for layer in self.layers)
        if not total:
            return None
        if all(layer.exact_share == 1 for layer in self.layers):
            return 1.0
        return sum(layer.exact_share * layer.value_count for layer in self.layers) / total

    @property
    def contract(self) -> ContractReport:
        """What became of the contract's entries."""
        return self.artifact.contract_report


def rows(report: ValidationReport, device: DeviceResult | None) -> tuple[Row, ...]:
    """Rows of one device: targets in the order they were exported, each float baseline right after its compressed artifact.

    Without a device the rows hold what is known of the artifacts alone.
    """
    results = {result.artifact.label: result for result in (device.results if device else ())}
    skipped = {one.label: one.reason for one in (device.skipped if device else ())}
    artifacts = {artifact.label: artifact for artifact in report.artifacts}
    artifacts |= {label: result.artifact for label, result in results.items()}

    def row(artifact: Artifact, baseline: Row | None = None) -> Row:
        label = artifact.label
        return Row(artifact=artifact, result=results.get(label), baseline=baseline, skipped=skipped.get(label, ""))

    floats = {artifact.target: row(artifact) for artifact in artifacts.values() if artifact.is_baseline}
    ordered: list[Row] = []
    for target in _targets(artifacts.values()):
        compressed = [a for a in artifacts.values() if a.target == target and not a.is_baseline]
        ordered += [row(artifact, floats.get(target)) for artifact in compressed]
        ordered += [floats[target]] if target in floats else []
    return tuple(ordered)


def _targets(artifacts: Iterable[Artifact]) -> list[str]:
    return list(dict.fromkeys(artifact.target for artifact in artifacts))
