"""What the numbers say about a calibration set: the rules, and their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.compression.doctor.preprocessing import check_preprocessing
from edgekit.core.calibration import Finding, InputStatistics, TensorRange

if TYPE_CHECKING:
    from typing import Any

    from edgekit.compression.doctor.samples import DataSet
    from edgekit.compression.doctor.tensors import Convergence

__all__ = ["judge"]

_SERIOUS_CHANGE = 0.2  # of a scale since half of the samples: 2 dB more or less rounding noise
_MANY_COPIES = 0.5  # of the samples: then the set is half as large as it seems
_OUTLIER_RATIO = 8.0  # 99.9 % of the values share an eighth of the steps: three bits are gone
_ALONE_RATIO = 2.0  # one sample doubles the range of all the others
_STRAY_INPUT_RATIO = 8.0  # an input sample this far beyond all others is a broken one
_SHIFT, _SERIOUS_SHIFT = 0.5, 2.0  # difference of the means in standard deviations
_SPREAD, _SERIOUS_SPREAD = 2.0, 8.0  # ratio of the standard deviations
_NAMED = 3


def judge(
    *,
    calibration: DataSet,
    evaluation: DataSet | None,
    tensors: Sequence[TensorRange],
    found: Convergence,
    preprocessing: Mapping[str, Any],
) -> tuple[Finding, ...]:
    """Everything a person should know, serious findings first."""
    findings = [*_copies(calibration, evaluation), *_settling(found), *_outliers(tensors), *_dead_channels(tensors)]
    others = {one.name: one for one in (evaluation.inputs if evaluation else ())}
    for statistics in calibration.inputs:
        own: Any = preprocessing.get(statistics.name)
        findings += check_preprocessing(statistics, own if isinstance(own, Mapping) else preprocessing)
        findings += _constant_input(statistics, others.get(statistics.name))
        if statistics.name in others:
            findings += _shift(statistics, others[statistics.name])
    return tuple(sorted(findings, key=lambda finding: not finding.serious))


def _copies(calibration: DataSet, evaluation: DataSet | None) -> list[Finding]:
    findings = []
    total = len(calibration.digests)
    leaked = calibration.shared_with(evaluation) if evaluation else []
    if leaked:
        findings.append(
            Finding(
                kind="leakage",
                serious=True,
                samples=tuple(leaked[:20]),
                message=f"{len(leaked)} of {total} calibration samples are in the evaluation data too, byte for byte: accuracy"
                " would be measured on data that set the scales. Calibrate with samples that are not judged.",
            )
        )
    copies = calibration.copies
    if copies:
        at, first = next(iter(copies.items()))
        findings.append(
            Finding(
                kind="duplicates",
                serious=len(copies) > _MANY_COPIES * total,
                samples=tuple(copies)[:20],
                message=f"{len(copies)} of {total} calibration samples are copies of earlier ones ({at} is {first}):"
                f" they teach nothing, the set is as good as one of {total - len(copies)}.",
            )
        )
    return findings


def _settling(found: Convergence) -> list[Finding]:
    if found.stable_after is not None:
        return []
    late = next(point for point in found.curve if point.sample_count >= found.sample_count / 2)
    return [
        Finding(
            kind="not-stable",
            serious=late.largest_change > _SERIOUS_CHANGE,
            layers=(late.tensor,),
            message=f"Not stable yet after {found.sample_count} samples: after {late.sample_count} '{late.tensor}' had a scale"
            f" {late.largest_change:.0%} off its final one. Give at least twice as many samples, in random order, or choose"
            " an estimator that single values move less (percentile, mse).",
        )
    ]


def _outliers(tensors: Sequence[TensorRange]) -> list[Finding]:
    findings = []
    alone = [one for one in tensors if one.magnitude > _ALONE_RATIO * one.without_widest > 0]
    for position in dict.fromkeys(one.widest_sample for one in alone):
        made = sorted((one for one in alone if one.widest_sample == position), key=_alone_ratio, reverse=True)
        stray = any(one.op == "input" and _alone_ratio(one) > _STRAY_INPUT_RATIO for one in made)
        findings.append(
            Finding(
                kind="outlier-sample",
                serious=stray,
                layers=tuple(one.name for one in made),
                samples=(position,),
                message=f"Sample {position} alone makes the range of {_some([one.name for one in made])}"
                f" {_alone_ratio(made[0]):.3g} times as wide as all other samples do."
                " Look at it: is it broken, or rare and real?",
            )
        )
    far = sorted((one for one in tensors if one.outlier_ratio > _OUTLIER_RATIO), key=lambda one: -one.outlier_ratio)
    if far:
        named = _some([f"{one.name} ({one.outlier_ratio:.0f} times)" for one in far])
        findings.append(
            Finding(
                kind="outliers",
                serious=False,
                layers=tuple(one.name for one in far),
                message=f"A few values are far beyond 99.9 % of the others in {named}: nearly all values share few steps."
                " Try estimator = 'percentile' or 'mse', or smoothing = 0.5 where a layer norm makes them.",
            )
        )
    return findings


def _alone_ratio(one: TensorRange) -> float:
    return one.magnitude / one.without_widest


def _dead_channels(tensors: Sequence[TensorRange]) -> list[Finding]:
    dead = sorted((one for one in tensors if one.dead_channels and one.op != "input"), key=lambda one: -len(one.dead_channels))
    if not dead:
        return []
    named = _some([f"{one.name} ({len(one.dead_channels)} of {one.channel_count})" for one in dead])
    return [
        Finding(
            kind="dead-channels",
            serious=False,
            layers=tuple(one.name for one in dead),
            message=f"Channels that never change: {named}. Either the data does not reach them, and more varied samples would,"
            " or they can be pruned.",
        )
    ]


def _constant_input(statistics: InputStatistics, other: InputStatistics | None) -> list[Finding]:
    constant = [at for at, (low, high) in enumerate(zip(statistics.low, statistics.high, strict=True)) if low == high]
    if not constant:
        return []
    vary = [at for at in constant if other is not None and other.low[at] != other.high[at]]
    beside = f" In the evaluation data {_channels(vary)} does change." if vary else ""
    return [
        Finding(
            kind="constant-input",
            serious=bool(vary),
            layers=(statistics.name,),
            message=f"Input '{statistics.name}': {_channels(constant)} has one value ({statistics.low[constant[0]]:.3g}) in all"
            f" calibration samples.{beside} Check how it is read.",
        )
    ]


def _shift(ours: InputStatistics, theirs: InputStatistics) -> list[Finding]:
    """The calibration and the evaluation data should be of one kind: the channel that differs most."""
    worst: tuple[float, str, bool] = (0.0, "", False)
    for at, (mean, std, other_mean, other_std) in enumerate(zip(ours.mean, ours.std, theirs.mean, theirs.std, strict=True)):
        if std == 0 or other_std == 0:
            continue
        shift = abs(mean - other_mean) / ((std**2 + other_std**2) / 2) ** 0.5
        spread = max(std / other_std, other_std / std)
        score = max(shift / _SHIFT, spread / _SPREAD)
        words = f"channel {at}: mean {mean:.3g} against {other_mean:.3g}, standard deviation {std:.3g} against {other_std:.3g}"
        worst = max(worst, (score, words, shift > _SERIOUS_SHIFT or spread > _SERIOUS_SPREAD))
    if worst[0] <= 1:
        return []
    return [
        Finding(
            kind="shift",
            serious=worst[2],
            layers=(ours.name,),
            message=f"Input '{ours.name}' looks different in the calibration data and in the evaluation data ({worst[1]})."
            " Calibrate with samples like those the device will see, prepared in the same way.",
        )
    ]


def _channels(positions: Sequence[int]) -> str:
    return (
        f"channel {positions[0]}"
        if len(positions) == 1
        else f"each of {len(positions)} channels ({_some(list(map(str, positions)))})"
    )


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
