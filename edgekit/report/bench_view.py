"""What benchmarks on devices found, prepared for the page and for notebooks: tables, sentences, figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from edgekit.core.device_bench import AuditCheck, BenchedArtifact, BenchedDevice, ScenarioResult
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.sustained import SustainedRun
from edgekit.report import quantities
from edgekit.report.drawn import Drawn
from edgekit.report.figure_operators import operator_figure
from edgekit.report.figure_sustained import sustained_figure
from edgekit.report.overview import NOT_TIMED

__all__ = ["BenchView", "ScenarioRow", "SustainedView", "TimeRow", "bench_views", "read_benches"]

AUDIT_WORDS = {
    "accuracy-in-performance-mode": "answers in the timed run are those of the accuracy run (TEST01)",
    "no-caching": "repeated inputs are no faster than different ones (TEST04)",
    "other-seed": "another seed gives the same speed (TEST05)",
}
_FEWEST_FOR_P90 = 10
"""Of fewer samples, the range says more than a percentile."""
SCENARIO_WORDS = {"single-stream": "single stream", "multi-stream": "multi stream", "offline": "offline"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeRow:
    """One artifact's own times, in words.

    Args:
        artifact: The records behind it.
        cells: Column -> value, second line, what it rests on.
        reason: Why there are none.
    """

    artifact: BenchedArtifact
    cells: tuple[tuple[str, str, str, Evidence | None], ...]
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScenarioRow:
    """One artifact in one scenario, in words."""

    artifact: BenchedArtifact
    scenario: ScenarioResult
    name: str
    latency: str
    interval: str
    throughput: str
    slowdown: str
    queries: str
    ended: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SustainedView:
    """One sustained run.

    Args:
        artifact: The records behind it.
        run: The sustained run itself.
        sentences: What to take home.
        figure: Figure.
    """

    artifact: BenchedArtifact
    run: SustainedRun
    sentences: tuple[str, ...]
    figure: Drawn


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchView:
    """One device's benchmark.

    Args:
        device: The records behind it.
        times: By artifact.
        scenarios: By artifact and scenario.
        sustained: By artifact.
        audits: Artifact and check.
        profiles: Artifact, its figure, and a remark.
        remarks: Interference, what was not done, how times were taken.
    """

    device: BenchedDevice
    times: tuple[TimeRow, ...]
    scenarios: tuple[ScenarioRow, ...]
    sustained: tuple[SustainedView, ...]
    audits: tuple[tuple[BenchedArtifact, AuditCheck, str], ...]
    profiles: tuple[tuple[BenchedArtifact, Drawn, str], ...]
    remarks: tuple[tuple[str, str], ...]


def read_benches(run: Path) -> tuple[BenchedDevice, ...]:
    """The benchmarks that lie in a run folder, the latest last.

    Raises:
        IntegrityError: One cannot be read.
    """
    found = [BenchedDevice.read_json(path) for path in sorted((run / "bench").glob("*.json"))]
    return tuple(sorted(found, key=lambda one: one.created))


def bench_views(devices: Sequence[BenchedDevice]) -> tuple[BenchView, ...]:
    """Prepare benchmarks."""
    return tuple(_view(device) for device in devices)


def _view(device: BenchedDevice) -> BenchView:
    artifacts = device.artifacts
    return BenchView(
        device=device,
        times=tuple(map(_times, artifacts)),
        scenarios=tuple(_scenario(artifact, one) for artifact in artifacts for one in artifact.scenarios),
        sustained=tuple(_sustained(artifact, artifact.sustained) for artifact in artifacts if artifact.sustained),
        audits=tuple((artifact, check, AUDIT_WORDS.get(check.name, "")) for artifact in artifacts for check in artifact.audit),
        profiles=tuple(found for artifact in artifacts if (found := _profile(artifact)) is not None),
        remarks=tuple(_remarks(device)),
    )


def _times(artifact: BenchedArtifact) -> TimeRow:
    latency, cpu = artifact.find("latency"), artifact.find("cpu_time")
    ratio = artifact.find("slowdown_ratio")
    weak = latency is not None and latency.evidence in NOT_TIMED
    cells = [
        ("latency", *_time(None if weak else latency)),
        ("CPU time", *_time(None if weak else cpu)),
        ("speed", *_faster(ratio)),
        ("cold start", *_time(artifact.find("cold_load_time"))),
        ("warm start", *_time(artifact.find("warm_load_time"))),
        ("first inference", *_time(artifact.find("first_inference"))),
        ("memory", *_bytes(artifact.find("peak_memory") or artifact.find("arena"))),
        ("size", quantities.size(artifact.size_bytes), "", None),
    ]
    not_timed = f"not timed: {artifact.evidence.value}" if weak else ""
    return TimeRow(artifact=artifact, cells=tuple(cells), reason=artifact.failure or not_timed)


def _time(found: Measurement | None) -> tuple[str, str, Evidence | None]:
    if found is None:
        return "", "", None
    spread = found.distribution
    detail = f"p90 {quantities.milliseconds(spread.p90)}" if spread else ""
    if spread and spread.sample_count == 1:
        detail = "taken once"
    elif spread and spread.sample_count < _FEWEST_FOR_P90:
        detail = (
            f"{quantities.significant(spread.minimum)} to {quantities.significant(spread.maximum)}, n = {spread.sample_count}"
        )
    return quantities.milliseconds(found.value), detail, found.evidence


def _faster(ratio: Measurement | None) -> tuple[str, str, Evidence | None]:
    if ratio is None or ratio.value <= 0 or ratio.evidence is not Evidence.MEASURED:
        return "", "", None
    low, high = ratio.interval or (ratio.value, ratio.value)
    interval = f"{quantities.ratio(1 / high)} to {quantities.ratio(1 / low)}" if low > 0 else ""
    return f"{quantities.ratio(1 / ratio.value)} float's", interval, ratio.evidence


def _bytes(found: Measurement | None) -> tuple[str, str, Evidence | None]:
    return ("", "", None) if found is None else (quantities.size(found.value), "", found.evidence)


def _scenario(artifact: BenchedArtifact, one: ScenarioResult) -> ScenarioRow:
    spread = one.latency.interval
    half = one.relative_half_width
    samples = f", {quantities.count(one.query_size)} samples each" if one.query_size > 1 else ""
    return ScenarioRow(
        artifact=artifact,
        scenario=one,
        name=SCENARIO_WORDS.get(one.scenario, one.scenario),
        latency=f"p{one.percentile} {quantities.milliseconds(one.latency.value)}",
        interval=f"{quantities.significant(spread[0])} to {quantities.milliseconds(spread[1])}" if spread else "",
        throughput=f"{quantities.significant(one.throughput.value)} {one.throughput.unit}",
        slowdown=f"{quantities.ratio(1 / one.slowdown.value)} float's" if one.slowdown and one.slowdown.value > 0 else "",
        queries=f"{quantities.count(one.query_count)}{samples}",
        ended="precise enough" if one.ended_by == "precision" else "time was up" + (f" at ±{100 * half:.1f} %" if half else ""),
    )


def _sustained(artifact: BenchedArtifact, run: SustainedRun) -> SustainedView:
    return SustainedView(
        artifact=artifact,
        run=run,
        sentences=tuple(_sustained_sentences(run)),
        figure=Drawn.by(lambda width: sustained_figure(run, target=artifact.target, label=artifact.label, width=width)),
    )


def _sustained_sentences(run: SustainedRun) -> list[str]:
    words = {True: "Throttled.", False: "Not throttled.", None: "Latency rose; neither clock nor temperature can be read here."}
    found = [words[run.is_throttled], *run.signs]
    if (drift := run.drift) is not None and not run.signs:
        low, high = (quantities.ratio(end) for end in drift.interval)
        found.append(
            f"latency at the end is {quantities.ratio(drift.ratio)} that at the beginning by the trend ({low} to {high})"
        )
    found += [f"{one.name.replace('_', ' ')}: {quantities.measured(one.value, one.unit)}" for one in run.measurements]
    found += [f"governor: {run.governor}" if run.governor else "", run.advice, run.note]
    return [_sentence(words) for words in found if words]


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def _profile(artifact: BenchedArtifact) -> tuple[BenchedArtifact, Drawn, str] | None:
    profile = artifact.profile
    if profile is None:
        return None
    shares = {kind: profile.share_of(kind) for kind in ("integer", "float", "conversion", "movement")}
    words = ", ".join(f"{quantities.share(share, decimals=1)} {kind}" for kind, share in shares.items() if share)
    fallbacks = sum(operator.is_fallback for operator in profile.operators)
    fell = f" {fallbacks} of {len(profile.operators)} operators fell back from {profile.provider}." if fallbacks else ""
    remark = f"{profile.run_count} inferences in {profile.runtime} on {profile.provider}: {words}.{fell} {profile.note}".strip()
    return artifact, Drawn.by(lambda width: operator_figure(profile, width=width)), remark


def _is_telling(one: Measurement) -> bool:
    """Whether a note changes how its number is read: how latency was taken, no cold start, what an estimate rests on."""
    is_false_start = one.name == "cold_load_time" and "not a cold start" in one.note
    return bool(one.note) and (one.name == "latency" or is_false_start or one.evidence is Evidence.ESTIMATED)


def _remarks(device: BenchedDevice) -> list[tuple[str, str]]:
    """Label and sentence."""
    found = [(label, reason) for label, reason in device.skipped.items()]
    for artifact in device.artifacts:
        found += [(artifact.label, sentence) for sentence in artifact.skipped]
        found += [(artifact.label, f"no operator profile: {artifact.profile_failure}")] if artifact.profile_failure else []
        disturbed = [artifact.interference, *(one.interference for one in artifact.scenarios)]
        found += [(artifact.label, one.sentence) for one in disturbed if one and one.sentence]
        found += [
            (artifact.label, f"{one.name.replace('_', ' ')}: {one.note}") for one in artifact.measurements if _is_telling(one)
        ]
    return [one for one in dict.fromkeys(found) if not any(_holds(other, one) for other in found)]


def _holds(other: tuple[str, str], one: tuple[str, str]) -> bool:
    """Whether the same is said of the same artifact in a longer sentence."""
    return other != one and other[0] == one[0] and one[1].rstrip(".") in other[1]
