"""A release beside the one before: worse, slower or larger is a regression; another model is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.errors import UsageError
from edgekit.core.measurement import Evidence, Measurement
from edgekit.core.profile import Tolerances
from edgekit.core.validation import DeviceResult, MetricResult, Regression
from edgekit.core.verdict import Outcome
from edgekit.device_tests.baseline import match_baselines, regression_gates
from edgekit.device_tests.testing import FakeDevice
from edgekit.device_tests.validate import validate_device

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


@dataclasses.dataclass
class Release:
    """Stands for a run folder."""

    artifacts: Sequence[Artifact]
    path: Path = Path("runs/before")

    def load_artifacts(self) -> Sequence[Artifact]:
        return self.artifacts


def before(bench: Any, **changes: Any) -> Any:
    folder = bench.folder / "before"
    folder.mkdir(exist_ok=True)
    model = bench.int8_model.replace(**changes)
    return Release([model.export(folder, precision="int8", report=bench.report)])


def beside(bench: Any, baseline: Any, *artifacts: Artifact) -> DeviceResult:
    device = FakeDevice(bench.profile)
    return validate_device(bench.profile, artifacts=artifacts, transport=device, baseline=baseline, **bench.arguments())


def gates(result: DeviceResult) -> dict[str, Outcome]:
    return {gate.name: gate.outcome for gate in result.verdict.gates}


def test_the_same_release_is_no_regression(bench: Any) -> None:
    result = beside(bench, before(bench), bench.artifact(), bench.artifact("float32"))
    found = result.results[0].regression
    assert found is not None
    assert (found.run, found.size_ratio, found.failure) == ("runs/before", 1.0, "")
    assert found.metric is not None
    assert (found.metric.drop_points, found.metric.flip_count) == (0, 0)
    assert [one.name for one in found.measurements] == ["regression_ratio", "regression_ratio_cpu"]
    assert gates(result)["metric regression"] is PASS
    assert gates(result)["size regression"] is PASS
    assert result.results[1].regression is None, "float artifacts are not compared"


def test_a_worse_release_blocks_though_it_is_near_float(bench: Any) -> None:
    result = beside(bench, before(bench), bench.artifact(bias=(2.0, 0.0, 0.0)))
    gate = next(one for one in result.verdict.gates if one.name == "metric regression")
    assert gate.outcome is FAIL
    assert "since runs/before" in gate.advice


def test_a_baseline_that_fails_leaves_the_question_open(bench: Any) -> None:
    result = beside(bench, before(bench, fails="load"), bench.artifact())
    assert gates(result)["regression"] is OPEN
    assert result.results[0].metric is not None


def test_another_model_is_refused(bench: Any) -> None:
    with pytest.raises(UsageError, match=r"runs/before is of another model: the inputs of its fake are .*\[1, 2\]"):
        match_baselines([bench.artifact(weight=((1.0,),) * 3, bias=(0.0,))], before(bench))
    with pytest.raises(UsageError, match="has none of the artifacts that are validated; it has none"):
        match_baselines([bench.artifact()], Release([]))  # type: ignore[arg-type]


def ratio(value: float, low: float, high: float) -> Measurement:
    return Measurement(name="regression_ratio", value=value, unit="ratio", evidence=Evidence.MEASURED, interval=(low, high))


@pytest.mark.parametrize(
    ("measured", "size", "expected"),
    [
        (ratio(1.0, 0.99, 1.01), 1.0, (PASS, PASS)),
        (ratio(1.2, 1.1, 1.3), 1.04, (FAIL, PASS)),
        (ratio(1.04, 1.0, 1.08), 1.06, (OPEN, FAIL)),
        (None, 0.5, (OPEN, PASS)),
    ],
)
def test_latency_and_size(measured: Measurement | None, size: float, expected: tuple[Outcome, Outcome]) -> None:
    found = Regression(run="r", sha256="0", size_ratio=size, measurements=(measured,) if measured else ())
    outcomes = {
        gate.name: gate.outcome for gate in regression_gates("onnx", found, tolerances=Tolerances(), evidence=Evidence.MEASURED)
    }
    assert (outcomes["latency regression"], outcomes["size regression"]) == expected
    reference = regression_gates("onnx", found, tolerances=Tolerances(), evidence=Evidence.REFERENCE)
    assert "latency regression" not in [gate.name for gate in reference]


def test_too_few_samples_are_open() -> None:
    metric = MetricResult(name="m", value=0.9, float_value=0.9, sample_count=100, drop_points=0.0, drop_interval=(-2.0, 2.0))
    found = Regression(run="r", sha256="0", metric=metric)
    (gate, *_) = regression_gates("onnx", found, tolerances=Tolerances(), evidence=Evidence.REFERENCE)
    assert gate.outcome is OPEN
    assert "300 more evaluation samples" in gate.advice
