"""The whole flow with the fake runtime: on a fake device in this process, and on this machine in real worker processes."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.errors import DataError, DeviceError, OutputError, ProfileError, UsageError
from edgekit.core.measurement import Evidence
from edgekit.core.metric import Metric, agreement
from edgekit.core.profile import Budgets, RuntimeChoice
from edgekit.core.validation import DeviceResult
from edgekit.core.verdict import Decision, Outcome
from edgekit.device_tests import workbench
from edgekit.device_tests.testing import FakeDevice
from edgekit.device_tests.validate import validate_device


def on_fake_device(bench: Any, *artifacts: Any, device: FakeDevice | None = None, **changes: Any) -> DeviceResult:
    device = device or FakeDevice()
    profile = changes.pop("profile", bench.profile)
    result = validate_device(profile, artifacts=artifacts, transport=device, **bench.arguments(**changes))
    assert device.is_closed
    return result


def gates(result: DeviceResult) -> dict[str, Outcome]:
    return {f"{gate.name} {gate.target}": gate.outcome for gate in result.verdict.gates}


def test_a_good_artifact_ships(bench: Any) -> None:
    steps: list[tuple[int, int | None]] = []
    result = on_fake_device(
        bench, bench.artifact(), bench.artifact("float32"), progress=lambda _, done, total: steps.append((done, total))
    )
    assert result.verdict.decision is Decision.SHIP
    assert gates(result) == {"contract fake": Outcome.PASS, "layer parity fake": Outcome.PASS, "metric drop fake": Outcome.PASS}
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1][0] == steps[-1][1] == 4
    int8, baseline = result.results
    assert int8.metric is not None
    assert int8.metric.sample_count == 400
    assert int8.metric.flip_count == int8.metric.lost is not None
    assert [layer.entry for layer in int8.layers] == ["fc"]
    assert baseline.layers == ()
    assert baseline.outputs[0].snr_db is None
    assert int8.outputs[0].snr_db is None
    (spread,) = result.spreads
    assert (spread.first, spread.second, spread.snr_db, spread.disagreement_share) == ("torch", "fake", None, 0.0)


@pytest.mark.parametrize(
    ("evidence", "names"),
    [
        (Evidence.REFERENCE, {"latency", "cpu_time", "slowdown_ratio", "slowdown_ratio_cpu", "load_time", "first_inference"}),
        (Evidence.EMULATED, set()),
    ],
)
def test_measurements_carry_the_profiles_evidence_and_emulated_clocks_are_not_read(
    bench: Any, evidence: Evidence, names: set[str]
) -> None:
    choice = RuntimeChoice(runtime=bench.runtime, evidence=evidence)
    profile = bench.profile.replace(runtimes={"fake": choice}, budgets=Budgets(slowdown_ratio=1.0))
    result = on_fake_device(bench, bench.artifact(), bench.artifact("float32"), profile=profile)
    int8 = result.results[0]
    assert {m.name for m in int8.measurements} - {"size", "peak_memory"} == names
    assert {m.evidence for m in int8.measurements if m.name != "size"} <= {evidence}
    assert "slowdown fake" not in gates(result)
    assert f"{evidence.value} evidence" in result.notes[0]
    assert all(m.interval for m in int8.measurements if m.unit == "ratio")


def test_the_result_and_the_raw_arrays_are_kept_and_nothing_else(bench: Any) -> None:
    result = on_fake_device(bench, bench.artifact(), bench.artifact("float32"))
    assert DeviceResult.read_json(bench.output / "result.json") == result
    kept = sorted(path.name for path in bench.output.iterdir())
    assert kept == ["fake-float32.npz", "fake-latency.npz", "fake.npz", "result.json"]
    with np.load(bench.output / "fake.npz") as arrays:
        assert arrays["evaluation/output"].shape == (400, 3)


def test_without_evaluation_data_the_metric_is_open_and_the_spread_is_of_golden_inputs(bench: Any) -> None:
    for task in (None, dataclasses.replace(bench.task, evaluation=None)):
        result = on_fake_device(bench, bench.artifact(), task=task)
        assert result.verdict.decision is Decision.INCONCLUSIVE
        assert gates(result)["metric drop fake"] is Outcome.INCONCLUSIVE
        assert "evaluation=" in result.verdict.gates[-1].advice
        assert result.spreads[0].sample_count == 4
        assert result.spreads[0].disagreement_share is None
    assert bench.references == ["None", "None"]


def test_a_worse_artifact_blocks(bench: Any) -> None:
    result = on_fake_device(bench, bench.artifact(bias=(2.0, 0.0, 0.0)))
    assert result.verdict.decision is Decision.BLOCK
    metric = result.results[0].metric
    assert metric is not None
    assert metric.drop_points > 10
    assert metric.drop_interval[0] > 1
    assert metric.gained == 0
    assert metric.p_value is not None
    assert metric.p_value < 1e-6


def test_layers_beyond_tolerance_block(bench: Any) -> None:
    result = on_fake_device(bench, bench.artifact(step_error=2))
    assert gates(result)["layer parity fake"] is Outcome.FAIL
    assert result.results[0].layers[0].difference_counts[2] == 12


def test_layers_that_cannot_be_replayed_leave_the_question_open(bench: Any) -> None:
    result = on_fake_device(bench, bench.artifact(fails="replay"))
    assert gates(result)["layer parity fake"] is Outcome.INCONCLUSIVE
    assert "cannot be cut into layers" in result.verdict.gates[1].found


@pytest.mark.parametrize(
    ("fault", "words"), [("load", "IntegrityError"), ("run", "ConversionError"), ("nan", "'output' holds 12 values that are NaN")]
)
def test_an_artifact_that_fails_is_recorded_and_the_others_go_on(bench: Any, fault: str, words: str) -> None:
    result = on_fake_device(bench, bench.artifact(fails=fault), bench.artifact("float32"))
    broken, baseline = result.results
    assert words in broken.failure
    assert (broken.measurements, broken.metric, result.spreads) == ((), None, ())
    assert gates(result) == {"runs fake": Outcome.FAIL}
    assert baseline.failure == ""
    assert baseline.metric is not None
    assert baseline.measurement("latency") is not None


def test_a_lost_device_ends_the_validation(bench: Any) -> None:
    for lost_after in (0, 1, 2):
        device = FakeDevice(lost_after=lost_after)
        with pytest.raises(DeviceError, match=f"lost after {lost_after} jobs"):
            on_fake_device(bench, bench.artifact(), bench.artifact("float32"), device=device)
        assert device.is_closed
        assert not list(bench.output.glob(".*"))
        assert not (bench.output / "result.json").exists()


def test_a_full_disk_is_explained_and_leaves_nothing_behind(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workbench, "bring", full)
    with pytest.raises(OutputError, match="the disk is full"):
        on_fake_device(bench, bench.artifact())
    assert list(bench.output.iterdir()) == []


def test_what_a_killed_validation_left_is_swept_away_and_a_running_ones_is_not(bench: Any) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale, alive = bench.output / f".job-{dead.pid}-x", bench.output / f".shared-{os.getppid()}-y"
    for folder in (stale, alive):
        folder.mkdir(parents=True)
    on_fake_device(bench, bench.artifact())
    assert not stale.exists()
    assert alive.exists()


def test_a_profile_follows_the_devices_own_system(bench: Any) -> None:
    systems = {"Fake": {"fake": RuntimeChoice(runtime=bench.runtime, evidence=Evidence.REFERENCE)}}
    result = on_fake_device(bench, bench.artifact(), profile=bench.profile.replace(systems=systems))
    assert result.results[0].evidence is Evidence.REFERENCE
    other = on_fake_device(
        bench, bench.artifact(), profile=bench.profile.replace(systems=systems), device=FakeDevice(system="Other")
    )
    assert other.results[0].evidence is Evidence.MEASURED


def test_what_cannot_be_validated_is_refused_before_any_work(bench: Any) -> None:
    device = FakeDevice()
    with pytest.raises(UsageError, match="nothing to validate"):
        on_fake_device(bench, device=device)
    with pytest.raises(UsageError, match="Two artifacts are called 'fake'"):
        on_fake_device(bench, bench.artifact(), bench.artifact(), device=device)
    with pytest.raises(ProfileError, match=r"no runtime for target 'fak'; it has fake\. Did you mean 'fake'\?"):
        on_fake_device(bench, bench.artifact().replace(target="fak"), device=device)
    assert device.jobs == []


def test_agreement_with_float_needs_no_labels(bench: Any) -> None:
    samples = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    task = dataclasses.replace(
        bench.task, evaluation=[({"x": samples[:150]}, None), ({"x": samples[150:]}, None)], metric=agreement
    )
    result = on_fake_device(bench, bench.artifact(), task=task)
    metric = result.results[0].metric
    assert metric is not None
    assert metric.float_value == 1.0
    assert metric.value > 0.99


def test_a_failing_metric_is_the_users_error(bench: Any) -> None:
    def score(outputs: Any, targets: Any) -> Any:
        return outputs["wrong name"]

    task = dataclasses.replace(bench.task, metric=Metric(name="mine", score=score))
    with pytest.raises(DataError, match=r"Metric 'mine' fails on the evaluation set\. KeyError: 'wrong name'"):
        on_fake_device(bench, bench.artifact(), task=task)


def test_a_real_valued_metric_has_no_gained_or_lost(bench: Any) -> None:
    def score(outputs: Any, targets: Any) -> Any:
        return -np.abs(outputs["output"] - bench.float_model.bias).mean(axis=1)

    task = dataclasses.replace(bench.task, metric=Metric(name="error", score=score, predict=None))
    result = on_fake_device(bench, bench.artifact(), task=task)
    metric = result.results[0].metric
    assert metric is not None
    assert (metric.gained, metric.lost, metric.p_value, metric.flip_count) == (None, None, None, None)
    assert metric.drop_interval[0] <= metric.drop_points <= metric.drop_interval[1]


def test_on_this_machine_workers_run_the_jobs_and_a_crash_is_a_failure(bench: Any) -> None:
    crashing, baseline = bench.artifact(fails="crash"), bench.artifact("float32")
    result = validate_device(bench.profile, artifacts=[crashing, baseline], **bench.arguments())
    assert "SIGABRT" in result.results[0].failure
    assert "running fake in" in result.results[0].failure
    assert result.results[1].failure == ""
    assert result.verdict.decision is Decision.BLOCK
    latency = result.results[1].measurement("latency")
    assert latency is not None
    assert latency.value > 0
    assert "cores" in result.facts
    assert Path(bench.folder / "log.txt").exists()


def test_on_this_machine_a_slow_artifact_runs_out_of_time(bench: Any) -> None:
    slow = bench.artifact(sleep_s=0.05)
    result = validate_device(bench.profile.replace(timeout_s=4.0), artifacts=[slow], **bench.arguments())
    assert "ran longer than 4 s" in result.results[0].failure
