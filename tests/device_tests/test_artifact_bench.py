"""A bench of fake models on a device that is none: every part of it, and what it does where something fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.device_bench import BenchedDevice
from edgekit.core.errors import DeviceError, UnsupportedOpError, UsageError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.artifact_bench import BenchPlan, bench_device
from edgekit.device_tests.job_models import JobModels
from edgekit.device_tests.jobs import Job
from edgekit.device_tests.scenarios import scenario_plan
from edgekit.device_tests.testing import FakeDevice, FakeModel

FAKE = "edgekit.device_tests.testing:FAKE_RUNTIME"
MODEL = FakeModel(weight=((1.0, -1.0), (0.5, 2.0)), bias=(0.0, 0.1))
GOLDEN = {"x": np.random.default_rng(0).normal(size=(5, 1, 2)).astype(np.float32)}


def profile(**changes: Any) -> DeviceProfile:
    fields = {"name": "fake", "title": "A double", "runtimes": {"fake": {"runtime": FAKE}}, "timeout_s": 60} | changes
    return DeviceProfile.parse(fields, source="test")


def artifacts(folder: Path, *, sleep_s: float = 0.0, **faults: Any) -> list[Artifact]:
    return [
        MODEL.replace(**faults).export(folder, precision="int8"),
        MODEL.replace(sleep_s=sleep_s).export(folder, precision="float32"),
    ]


def benched(tmp_path: Path, *, device: FakeDevice | None = None, given: Any = None, **plan: Any) -> BenchedDevice:
    shape = profile()
    return bench_device(
        device.profile if device and device.profile else shape,
        artifacts=given or artifacts(tmp_path),
        golden=GOLDEN,
        plan=BenchPlan.model_validate({"seconds": 0.1, "starts": 1} | plan),
        folder=tmp_path / "bench",
        log=tmp_path / "log.txt",
        transport=device or FakeDevice(shape),
    )


def test_everything_that_can_be_asked(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "scenarios": ("single-stream", "offline"),
        "sustained_minutes": 0.005,
        "audit": True,
        "profile": True,
    }
    found = benched(tmp_path, given=artifacts(tmp_path, sleep_s=0.0005), **asked)
    ours, floats = found.artifacts
    assert [one.label for one in found.artifacts] == ["fake", "fake-float32"]
    names = [one.name for one in ours.measurements]
    assert names[:4] == ["latency", "cpu_time", "slowdown_ratio", "slowdown_ratio_cpu"]
    assert set(names[4:]) == {"cold_load_time", "warm_load_time", "first_inference", "peak_memory"}
    slowdown = ours.find("slowdown_ratio")
    assert slowdown is not None
    assert slowdown.value < 0.5  # the float one sleeps
    assert floats.find("slowdown_ratio") is None
    assert [one.scenario for one in ours.scenarios] == ["single-stream", "offline"]
    assert {check.name for check in ours.audit} == {"accuracy-in-performance-mode", "no-caching", "other-seed"}
    assert ours.audit[0].outcome == "passed"
    assert ours.sustained is not None
    assert ours.sustained.windows
    assert "cannot time its operators" in ours.profile_failure
    assert ours.runtime_version == "test double"
    assert ours.interference is not None
    assert ours.interference.round_count >= 5
    assert BenchedDevice.parse(json.loads(found.to_json()), source="test") == found
    assert list((tmp_path / "bench").iterdir()) == []


def test_loads_come_in_every_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = artifacts(tmp_path)
    plan = Job(kind="timing", what="a test", runtime=FAKE, threads=1, artifacts=tuple(models))
    loaded: list[str] = []
    made = JobModels(plan, tmp_path)

    def load(artifact: Artifact) -> Any:
        loaded.append(artifact.label)
        return made.runtime.load(artifact.path)

    monkeypatch.setattr(made, "load", load)
    for number in range(8):
        with made.opened(number) as sessions:
            assert list(sessions) == ["fake", "fake-float32"]
    firsts = loaded[::2]
    assert firsts.count("fake") == firsts.count("fake-float32") == 4


def test_queries_are_of_their_scenario(tmp_path: Path) -> None:
    single, multi, offline = (
        benched(tmp_path, starts=0, scenarios=("single-stream", "multi-stream", "offline"), query_size=4).artifacts[1].scenarios
    )
    assert (single.query_size, multi.query_size, offline.query_size) == (1, 4, 5)
    assert (single.percentile, multi.percentile, offline.percentile) == (90, 99, 50)
    assert multi.query_count >= scenario_plan("multi-stream").fewest_queries == 368
    assert multi.sample_count == 4 * multi.query_count
    assert multi.latency.value > 3 * single.latency.distribution.minimum if single.latency.distribution else False
    assert offline.throughput.value == pytest.approx(5e3 / offline.latency.value, rel=0.5)
    assert single.different_samples == 5
    assert single.relative_half_width is not None
    assert single.ended_by == "time" or single.relative_half_width <= 0.02  # the last samples may make it precise as time ends


def test_emulated_devices_are_not_timed_and_say_why(tmp_path: Path) -> None:
    emulated = FakeDevice(profile(runtimes={"fake": {"runtime": FAKE, "evidence": "emulated"}}))
    found = benched(tmp_path, device=emulated)
    assert emulated.jobs == []
    assert found.artifacts[0].measurements == ()
    assert "not timed: emulated" in found.artifacts[0].skipped[0]


def test_estimates_are_shown_as_what_they_are(tmp_path: Path) -> None:
    device = FakeDevice(profile(runtimes={"fake": {"runtime": FAKE, "evidence": "estimated"}}))
    found = benched(tmp_path, device=device)
    assert len(device.jobs) == 2
    assert found.artifacts[0].find("latency") is None
    assert "computed by a model of the hardware" in found.artifacts[0].skipped[0]


def test_a_model_that_fails_keeps_the_others_from_nothing(tmp_path: Path) -> None:
    found = benched(tmp_path, given=artifacts(tmp_path, fails="run"))
    assert "fails when it is run" in found.artifacts[0].failure
    assert found.artifacts[1].failure == ""
    assert found.artifacts[1].find("latency") is not None


@pytest.mark.parametrize("starts", [0, 1])
def test_the_failing_one_is_found_without_starts_too(tmp_path: Path, starts: int) -> None:
    found = benched(tmp_path, given=artifacts(tmp_path, fails="load"), starts=starts)
    assert "cannot be loaded" in found.artifacts[0].failure
    assert found.artifacts[1].find("latency") is not None


class Simple(FakeDevice):
    """An agent that answers and times, and knows nothing else, as the native runner."""

    def run_agent(self, job: Path, *, timeout_s: float, log: Path | None = None) -> None:
        if Job.read_json(job / "job.json").kind not in {"answers", "timing"}:
            raise UnsupportedOpError("This agent has no such job.")
        super().run_agent(job, timeout_s=timeout_s, log=log)


def test_an_agent_without_scenarios_still_times_in_turn(tmp_path: Path) -> None:
    found = benched(tmp_path, device=Simple(profile()), scenarios=("single-stream", "offline"), audit=True)
    ours = found.artifacts[0]
    assert ours.failure == ""
    assert ours.find("latency") is not None
    assert ours.find("slowdown_ratio") is not None
    assert ours.scenarios == ()
    assert any("Timed in turn instead" in sentence for sentence in ours.skipped)
    assert any(sentence.startswith("audit: This agent") for sentence in ours.skipped)


def test_a_lost_device_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="was lost after 3 jobs"):
        benched(tmp_path, device=FakeDevice(profile(), lost_after=3))
    assert list((tmp_path / "bench").iterdir()) == []


def test_artifacts_without_a_runtime_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing can be timed on 'fake': profile 'fake' has no runtime for target 'fake'"):
        benched(tmp_path, device=FakeDevice(profile(runtimes={"onnx": {"runtime": "onnxruntime"}})))


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    bench_device(
        profile(), artifacts=artifacts(tmp_path), golden=GOLDEN, plan=BenchPlan(seconds=0.05, starts=1, audit=True),
        folder=tmp_path / "bench", log=tmp_path / "log.txt", transport=FakeDevice(profile()),
        progress=lambda what, done, total: told.append((what, done, total)),
    )  # fmt: skip
    assert told[-1] == ("timed", told[0][2], told[0][2])
    assert [done for _, done, _ in told] == list(range(len(told)))
