"""What validating artifacts on devices found. The device lab writes these records, the report reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from edgekit.core.artifact import Artifact
from edgekit.core.compressed import CompressedRecord
from edgekit.core.contract import QuantizationContract
from edgekit.core.error_split import ErrorSplit
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.model import Record
from edgekit.core.profile import DeviceProfile
from edgekit.core.verdict import Verdict

__all__ = [
    "RENDERERS",
    "ArtifactResult",
    "DeviceResult",
    "LayerError",
    "LayerParity",
    "MetricResult",
    "OutputParity",
    "Regression",
    "Skipped",
    "SliceResult",
    "Spread",
    "ValidationReport",
]

RENDERERS: dict[str, Callable[[ValidationReport], str]] = {}
"""How a notebook shows a report, by MIME type: ``edgekit.report`` enters itself when it is imported, for core knows no
one above it. Empty, a report shows as its fields."""


class LayerParity(Record):
    """One quantized layer, fed the compressed program's own integers, against the program's own answer.

    Args:
        entry: Contract entry of the layer's output.
        value_count: Integers compared.
        exact_share: Share that is equal.
        within_one_share: Share within one quantization step.
        largest_steps: Largest difference, in output quantization steps.
        difference_counts: How many integers differ by 0, 1, 2, ... steps; the last number counts its own and all larger ones.
    """

    entry: str
    op: str
    value_count: int
    exact_share: float
    within_one_share: float
    largest_steps: int
    difference_counts: tuple[int, ...] = ()


class OutputParity(Record):
    """An artifact's outputs against the compressed program's on the golden inputs, end to end.

    Args:
        output: Output name.
        snr_db: Signal-to-noise ratio; None where the outputs are identical.
        largest_difference: Largest absolute difference in the output's own unit.
        largest_steps: The same in steps of the output's quantization; None for float outputs.
        exact_share: Share of equal values.
    """

    output: str
    snr_db: float | None
    largest_difference: float
    largest_steps: int | None
    exact_share: float


class SliceResult(Record):
    """The metric on one part of the evaluation set.

    Args:
        group: What the set was divided by: ``"class"``, ``"person"``.
        name: The part.
        sample_count: Its samples.
        value: Mean score of the artifact.
        float_value: Mean score of the float program on the same samples.
        drop_points: ``100 * (float_value - value)``.
        drop_interval: 95 % interval of the drop (see :func:`edgekit.core.paired.drop_interval`), points; of this slice alone.
        lowest_drop_points: The drop is not below this, with 95 % confidence for all slices together (Bonferroni), points.
        flip_count: Samples whose decision differs from float's; None where outputs are no decisions.
    """

    group: str
    name: str
    sample_count: int
    value: float
    float_value: float
    drop_points: float
    drop_interval: tuple[float, float]
    lowest_drop_points: float
    flip_count: int | None = None


class MetricResult(Record):
    """The task metric in the artifact's own runtime, over the whole evaluation set, paired with float.

    Args:
        name: The metric's name.
        value: Mean score of the artifact.
        float_value: Mean score of the float program on the same samples.
        sample_count: Evaluation samples.
        drop_points: ``100 * (float_value - value)``.
        drop_interval: 95 % interval of the drop (see :func:`edgekit.core.paired.drop_interval`), points.
        flip_count: Samples whose decision differs from float's; None where outputs are no decisions.
        gained: Samples wrong in float and right here.
        lost: Samples right in float and wrong here.
        p_value: Exact McNemar test of gained against lost, two-sided; None for scores that are not 0 or 1.
        slices: The same of parts of the evaluation set, the largest drop first.
    """

    name: str
    value: float
    float_value: float
    sample_count: int
    drop_points: float
    drop_interval: tuple[float, float]
    flip_count: int | None = None
    gained: int | None = None
    lost: int | None = None
    p_value: float | None = None
    slices: tuple[SliceResult, ...] = ()


class Spread(Record):
    """How far two executors of the same integers are from each other, end to end over the evaluation set.

    Args:
        first: Target (runtime) name, or ``"torch"`` for the compressed program.
        second: Likewise.
        snr_db: Signal-to-noise ratio between their outputs; None where identical.
        identical_share: Share of output values that are equal.
        disagreement_share: Share of samples whose decision differs; None where outputs are no decisions.
        sample_count: Samples compared.
    """

    first: str
    second: str
    snr_db: float | None
    identical_share: float
    disagreement_share: float | None
    sample_count: int


class Regression(Record):
    """An artifact beside that of the release before.

    Args:
        run: The other run folder.
        sha256: Digest of its file.
        metric: The task's metric, paired with the other file's answers: ``float_value`` is *its* score.
        measurements: ``regression_ratio`` (latency over the other's, measured in turn) and ``regression_ratio_cpu``.
        size_ratio: Size over the other's.
        failure: Why the other file could not be run.
    """

    run: str
    sha256: str
    metric: MetricResult | None = None
    measurements: tuple[Measurement, ...] = ()
    size_ratio: float = 1.0
    failure: str = ""


class ArtifactResult(Record):
    """Everything found about one artifact in one runtime on one device.

    Args:
        runtime: Runtime name, e.g. ``"onnxruntime"``.
        runtime_version: Its version, or what stands for one.
        evidence: What every number in here rests on.
        measurements: Latency, CPU time, load time, peak memory, size.
        outputs: End-to-end parity on the golden inputs.
        layers: Layer parity; empty for float artifacts.
        metric: The task metric; None where the task has no evaluation data.
        regression: The artifact beside a baseline's; None where none was named.
        failure: Why the artifact could not be run (then the rest is empty).
    """

    artifact: Artifact
    runtime: str
    runtime_version: str = ""
    evidence: Evidence
    measurements: tuple[Measurement, ...] = ()
    outputs: tuple[OutputParity, ...] = ()
    layers: tuple[LayerParity, ...] = ()
    metric: MetricResult | None = None
    regression: Regression | None = None
    failure: str = ""

    def measurement(self, name: str) -> Measurement | None:
        """The measurement called ``name``, if it was taken."""
        return next((m for m in self.measurements if m.name == name), None)


class Skipped(Record):
    """An artifact that is not for a device.

    Args:
        label: The artifact's label.
        target: Its target.
        reason: Why it was not run there.
    """

    label: str
    target: str
    reason: str


class DeviceResult(Record):
    """One device: its profile, its facts, each artifact's result, the spread between them, the verdict.

    Args:
        profile: The profile as it was resolved for the device's own system.
        facts: What the device says of itself.
        results: One per artifact, in the order they were given.
        spreads: Every pair of executors of the compressed program's integers.
        verdict: The gates and the decision.
        notes: What was not asked and why, in sentences (budgets that need measured evidence, say).
        seconds: Wall time of the validation.
        skipped: Artifacts that the device has no runtime for.
        available_samples: Evaluation samples the task has; ``MetricResult.sample_count`` of them ran here. None: no data.
    """

    profile: DeviceProfile
    facts: dict[str, str] = {}
    results: tuple[ArtifactResult, ...]
    spreads: tuple[Spread, ...] = ()
    verdict: Verdict
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    skipped: tuple[Skipped, ...] = ()
    available_samples: int | None = None


class LayerError(Record):
    """Quantization error of one activation, over the golden inputs, as two signal-to-noise ratios.

    * *inherited*: the running compressed program's real value (its integers, dequantized) against the value the float
      program has at the same place, after the fused activation. Noise of this layer's weights and bias, of its own
      rounding and clipping, and of all layers before it.
    * *own*: the same integers against the number that the running compressed program was about to round, clamped first
      where saturation stands for the model's own clamp. Noise of this one rounding and clipping alone; where own is far
      above inherited, the error came from earlier.

    A layer error says nothing about a runtime: both programs run in torch, in one process.

    Args:
        entry: Contract entry.
        inherited_snr_db: See above; None where there is no noise, or (with a reason) where there is no such value.
        own_snr_db: See above; None where there is no noise.
        reason: Why the float program has no value at the same place; empty where it has.
    """

    entry: str
    inherited_snr_db: float | None
    own_snr_db: float | None = None
    reason: str = ""


class ValidationReport(Record):
    """The whole story of one run, ready to be rendered.

    Args:
        created: ISO 8601, UTC.
        compressed: Names, shapes, recipe, history.
        contract: The quantization contract.
        artifacts: All exported artifacts, by the order of export.
        layer_errors: Quantization error per layer on the golden inputs.
        devices: Results by device.
        environment: Tool versions and host facts.
        error_splits: Every layer's error by its causes, one for each int8 artifact; empty where it was not asked for.
    """

    schema_version: Literal[1] = 1
    created: str
    compressed: CompressedRecord
    contract: QuantizationContract
    artifacts: tuple[Artifact, ...]
    layer_errors: tuple[LayerError, ...] = ()
    devices: tuple[DeviceResult, ...] = ()
    environment: dict[str, str] = {}
    error_splits: tuple[ErrorSplit, ...] = ()

    @property
    def verdict(self) -> str:
        """``SHIP`` if every device ships, ``BLOCK`` if one blocks, else ``INCONCLUSIVE``."""
        decisions = {device.verdict.decision.value for device in self.devices}
        if "BLOCK" in decisions:
            return "BLOCK"
        return "SHIP" if decisions == {"SHIP"} else "INCONCLUSIVE"

    def _repr_html_(self) -> str | None:
        draw = RENDERERS.get("text/html")
        return draw(self) if draw else None
