"""A release beside the one before it: another run's file of the same target, on the same samples, timed in turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.core.errors import UsageError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.paired import samples_to_decide
from edgekit.core.profile import Tolerances
from edgekit.core.validation import Regression
from edgekit.core.verdict import Gate, Outcome

if TYPE_CHECKING:
    from edgekit.core.artifact import Artifact
    from edgekit.core.run import RunFolder
    from edgekit.core.tensors import TensorSpec

__all__ = ["VARIANT", "Baselines", "match_baselines", "regression_gates"]

VARIANT = "baseline"
"""What the other run's artifacts are called here: ``"onnx-baseline"``."""


@dataclasses.dataclass(frozen=True)
class Baselines:
    """The release before.

    Args:
        run: Its run folder, in words.
        artifacts: Its artifact for each compressed artifact that is validated, by that one's label.
    """

    run: str = ""
    artifacts: Mapping[str, Artifact] = dataclasses.field(default_factory=dict)


def match_baselines(artifacts: Sequence[Artifact], run: RunFolder) -> Baselines:
    """The other run's artifact for each compressed artifact.

    Args:
        artifacts: What is validated.
        run: The release before.

    Raises:
        UsageError: The run holds no artifact of any target that is validated, or its model is another one.
    """
    before = {artifact.label: artifact for artifact in run.load_artifacts()}
    found = {}
    for artifact in artifacts:
        known = before.get(artifact.label)
        if known is None or artifact.is_baseline:
            continue
        _check_same_model(artifact, known, run)
        found[artifact.label] = known.replace(variant=VARIANT)
    if not found:
        have = ", ".join(before) or "none"
        raise UsageError(
            f"The baseline {run.path} has none of the artifacts that are validated; it has {have}. Export them there."
        )
    return Baselines(str(run.path), found)


def _check_same_model(artifact: Artifact, before: Artifact, run: RunFolder) -> None:
    for what, ours, theirs in (
        ("inputs", _edges(artifact.inputs), _edges(before.inputs)),
        ("outputs", _edges(artifact.outputs), _edges(before.outputs)),
        ("labels", artifact.labels, before.labels),
    ):
        if ours != theirs:
            raise UsageError(
                f"The baseline {run.path} is of another model: the {what} of its {before.label} are {theirs}, here they are"
                f" {ours}. Name a run of the same model."
            )


def _edges(specs: Sequence[TensorSpec]) -> list[tuple[str, str]]:
    return [(spec.name, spec.sizes) for spec in specs]


def regression_gates(target: str, found: Regression, *, tolerances: Tolerances, evidence: Evidence) -> Iterator[Gate]:
    """What the release before asks of this one: not a worse metric, not slower, not larger, each beyond a tolerance."""
    if found.failure:
        yield Gate(
            name="regression", target=target, found=found.failure, limit=f"{found.run} answers every input",
            outcome=Outcome.INCONCLUSIVE, advice="Read the message and the run's log, or name another baseline.",
        )  # fmt: skip
        return
    if found.metric is not None:
        yield _metric(target, found, tolerances.metric_drop_points)
    ratio = next((one for one in found.measurements if one.name == "regression_ratio"), None)
    if evidence is Evidence.MEASURED:
        yield _latency(target, ratio, 1 + tolerances.latency_growth)
    limit = 1 + tolerances.size_growth
    yield Gate(
        name="size regression", target=target, found=f"{found.size_ratio:.3f} times the baseline's size",
        limit=f"at most {limit:g} times",
        outcome=Outcome.PASS if found.size_ratio <= limit else Outcome.FAIL,
        advice="" if found.size_ratio <= limit else "See what grew: edgekit diff BASELINE RUN.",
    )  # fmt: skip


def _metric(target: str, found: Regression, limit: float) -> Gate:
    metric = found.metric
    gate = Gate(
        name="metric regression", target=target, found="", limit=f"less than {limit:g} points", outcome=Outcome.INCONCLUSIVE
    )
    if metric is None:
        return gate
    low, high = metric.drop_interval
    interval = f"95 % CI {low:+.2f} to {high:+.2f}; {metric.sample_count:,} samples"
    gate = gate.replace(found=f"{metric.drop_points:+.2f} points ({interval})")
    if high < limit:
        return gate.replace(outcome=Outcome.PASS)
    if low > limit:
        advice = f"{metric.name} falls from {metric.float_value:.4f} to {metric.value:.4f} since {found.run}."
        return gate.replace(outcome=Outcome.FAIL, advice=advice)
    more = samples_to_decide(metric.sample_count, estimate=metric.drop_points, interval=metric.drop_interval, limit=limit)
    return gate.replace(advice=f"It needs about {more:,} more evaluation samples." if more else "Bring more evaluation samples.")


def _latency(target: str, ratio: Measurement | None, limit: float) -> Gate:
    gate = Gate(
        name="latency regression", target=target, found="not measured", outcome=Outcome.INCONCLUSIVE,
        limit=f"at most {limit:g} times the baseline's latency",
    )  # fmt: skip
    if ratio is None or ratio.interval is None:
        return gate.replace(advice="Validate again; the run's log says what went wrong.")
    low, high = ratio.interval
    gate = gate.replace(found=f"{ratio.value:.3f} (95 % CI {low:.3f} to {high:.3f}; measured in turn)")
    if high <= limit:
        return gate.replace(outcome=Outcome.PASS)
    if low > limit:
        return gate.replace(
            outcome=Outcome.FAIL, advice="It is slower than the release before: edgekit bench --profile shows where."
        )
    return gate.replace(advice="The limit lies inside the interval: measure on a quieter machine, or for longer.")
