"""The native agent behind the carrier, on a device that is a folder of this machine: a whole bench, and a link that is cut."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.errors import DeviceError, WorkerError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.agent import run
from edgekit.device_tests.arrays import read_arrays
from edgekit.device_tests.artifact_bench import BenchPlan, bench_device
from edgekit.device_tests.jobs import SustainedPlan, SustainedTimes, Timing
from edgekit.device_tests.native_agent import NativeAgent
from edgekit.device_tests.remote.carrier import RemoteTransport
from edgekit.device_tests.testing import ShellLink

MakeJob = Callable[..., Path]
Nets = dict[str, Artifact]
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the device is this machine; the tests' facts are x86_64's"
)


def reach(profile: DeviceProfile, folder: Path, **options: object) -> RemoteTransport:
    there = profile.replace(connection={**profile.connection, "folder": str(folder)})
    return RemoteTransport(there, link=ShellLink(folder, **options), agent=NativeAgent(profile))  # type: ignore[arg-type]


def test_every_kind_of_job_is_carried(nets: Nets, make_job: MakeJob, here: DeviceProfile, tmp_path: Path) -> None:
    transport = reach(here, tmp_path / "device")
    answers, python = (make_job(name, nets["tflite"]) for name in ("answers", "python"))
    timing = make_job("timing", nets["tflite"], kind="timing", budget_s=0.05, fewest_rounds=2)
    long = make_job("long", nets["tflite"], kind="sustained", sustained=SustainedPlan(minutes=0.005, window_s=0.1))
    try:
        for job in (answers, timing, long):
            transport.run_agent(job, timeout_s=60)
    finally:
        transport.close()
    run(str(python))
    expected = read_arrays(python / "outputs.npz")
    for name, array in read_arrays(answers / "outputs.npz").items():
        np.testing.assert_array_equal(array, expected[name])
    assert Timing.read_json(timing / "result.json").preemption_counts.keys() == {"tflite"}
    assert len(SustainedTimes.read_json(long / "result.json").windows) >= 2
    assert not list((tmp_path / "device" / "jobs").glob("*"))


def test_a_cut_link_ends_in_a_whole_result_or_a_device_error(
    nets: Nets, make_job: MakeJob, here: DeviceProfile, tmp_path: Path
) -> None:
    whole = 0
    for number in (4, 9, 14):
        job = make_job(f"cut {number}", nets["tflite"])
        transport = reach(here, tmp_path / f"device {number}", cuts={number: "middle"})
        try:
            transport.run_agent(job, timeout_s=60)
            whole += 1
            assert (job / "result.json").exists()
        except DeviceError:
            assert not (job / "result.json").exists()
        finally:
            transport.close()
    assert whole


def test_what_the_program_says_comes_back(nets: Nets, make_job: MakeJob, here: DeviceProfile, tmp_path: Path) -> None:
    job = make_job("damaged", nets["tflite"])
    (job / "tflite" / "net.tflite").write_bytes(b"\0\0\0\0TFL3" + bytes(100))
    transport = reach(here, tmp_path / "device")
    try:
        with pytest.raises(WorkerError, match="is not a model LiteRT can read"):
            transport.run_agent(job, timeout_s=60)
    finally:
        transport.close()


def test_a_bench_takes_what_the_runner_can_measure(nets: Nets, here: DeviceProfile, tmp_path: Path) -> None:
    float_net = nets["onnx"].replace(precision="float32", is_baseline=True)
    found = bench_device(
        here,
        artifacts=[nets["onnx"], float_net],
        golden={"x": np.random.default_rng(0).standard_normal((2, 1, 3, 6), np.float32)},
        plan=BenchPlan(seconds=0.05, starts=1, sustained_minutes=0.005),
        folder=tmp_path / "bench",
        log=tmp_path / "log.txt",
        transport=reach(here, tmp_path / "device"),
    )
    ours, baseline = found.artifacts
    for row in (ours, baseline):
        assert row.failure == ""
        names = {measurement.name for measurement in row.measurements}
        assert {"latency", "cpu_time", "cold_load_time", "warm_load_time", "first_inference", "peak_memory"} <= names
        assert row.sustained is not None
        assert any("no job of the kind 'scenario'" in reason for reason in row.skipped)
    assert {"slowdown_ratio", "slowdown_ratio_cpu"} <= {measurement.name for measurement in ours.measurements}
