"""The native agent does what the Python agent does: same answers, same batching, samples of the same form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.artifact import Artifact
from edgekit.core.device_link import DeviceAgent
from edgekit.core.errors import DataError, IntegrityError, UnsupportedOpError, UsageError, WorkerError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.agent import run
from edgekit.device_tests.arrays import read_arrays, write_arrays
from edgekit.device_tests.jobs import Answers, Job, ScenarioPlan, Start, SustainedPlan, SustainedTimes, Timing
from edgekit.device_tests.measurement import read_series, summarise
from edgekit.device_tests.native_agent import NativeAgent
from edgekit.device_tests.native_agent.errands import carry_out

FACTS = {"architecture": "x86_64"}
MakeJob = Callable[..., Path]
Nets = dict[str, Artifact]


@pytest.fixture(autouse=True)
def _same_machine() -> None:
    import platform

    if platform.machine() != FACTS["architecture"]:
        pytest.skip(f"the device of these tests is this machine, and must be {FACTS['architecture']}")


def do(job: Path, profile: DeviceProfile) -> None:
    agent = NativeAgent(profile)
    carry_out(agent.prepare(job, facts=FACTS), job, what="testing", timeout_s=60)
    agent.collect(job)


@pytest.mark.parametrize("name", ["onnx", "onnx-batch", "tflite"])
def test_answers_are_those_of_the_python_agent(name: str, nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    native, python = (make_job(f"{kind}-{name}", nets[name]) for kind in ("native", "python"))
    do(native, here)
    run(str(python))
    found, expected = (read_arrays(job / "outputs.npz") for job in (native, python))
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key], array)
    assert len(found[f"evaluation/{nets[name].outputs[0].name}"]) == 7
    one, other = (Answers.read_json(job / "result.json") for job in (native, python))
    assert one.runtime_version == other.runtime_version
    assert 0 < one.load_ms <= one.first_load_ms
    assert 0 < one.base_bytes < one.peak_bytes
    assert not (native / "native").exists()


def test_it_is_a_device_agent(here: DeviceProfile) -> None:
    assert isinstance(NativeAgent(here), DeviceAgent)


def test_evaluation_inputs_of_another_shape_are_a_run_of_their_own(
    nets: Nets, make_job: MakeJob, here: DeviceProfile, tmp_path: Path
) -> None:
    """A file with an open axis: golden inputs are 6 long, evaluation inputs 9."""
    import onnx
    import onnx.helper

    from edgekit.core.files import sha256
    from edgekit.core.tensors import FlexibleAxis

    path = tmp_path / "open.onnx"
    model = onnx.load(nets["onnx"].path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "length"
    (spec,) = nets["onnx"].inputs
    flexible = spec.replace(flexible=(FlexibleAxis(axis=2, minimum=1, maximum=64),))
    onnx.helper.set_model_props(model, {"edgekit.inputs": json.dumps([flexible.model_dump(mode="json")])})
    onnx.save(model, path)
    artifact = nets["onnx"].replace(path=path, sha256=sha256(path), inputs=(flexible,))
    jobs = [make_job(f"open-{kind}", artifact) for kind in ("native", "python")]
    for job in jobs:
        write_arrays(job / "evaluation.npz", {"x": np.random.default_rng(2).standard_normal((5, 3, 9), np.float32)})
    errand = NativeAgent(here).prepare(jobs[0], facts=FACTS)
    assert len(errand.commands) == 2
    do(jobs[0], here)
    run(str(jobs[1]))
    found, expected = (read_arrays(job / "outputs.npz") for job in jobs)
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array)


def test_weights_beside_the_model_are_sent_with_it(nets: Nets, make_job: MakeJob, here: DeviceProfile, tmp_path: Path) -> None:
    import onnx

    from edgekit.core.files import sha256

    path = tmp_path / "model.onnx"
    onnx.save(onnx.load(nets["onnx"].path), path, save_as_external_data=True, location="model.onnx.data", size_threshold=50)
    jobs = [make_job(f"beside-{kind}", nets["onnx"].replace(path=path, sha256=sha256(path))) for kind in ("native", "python")]
    for job in jobs:
        (job / "onnx" / "model.onnx.data").write_bytes((tmp_path / "model.onnx.data").read_bytes())
    do(jobs[0], here)
    run(str(jobs[1]))
    found, expected = (read_arrays(job / "outputs.npz") for job in jobs)
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array)


def test_layers_are_said_not_to_be_replayed(nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    job = make_job("replay", nets["tflite"], replay=True)
    do(job, here)
    found = Answers.read_json(job / "result.json")
    assert found.layers == ()
    assert found.layers_failure == ""
    assert "edgekit-runner runs whole files" in found.layers_absent


def test_models_are_timed_in_turn(nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    other = nets["onnx"].replace(precision="float32", is_baseline=True)
    job = make_job("timing", nets["onnx"], other, kind="timing", budget_s=0.2, fewest_rounds=6, loads=3)
    do(job, here)
    timing = Timing.read_json(job / "result.json")
    series = read_series(read_arrays(job / "outputs.npz"), timing)
    assert list(series) == ["onnx", "onnx-float32"]
    for one in series.values():
        assert one.loads is not None
        assert set(one.loads.tolist()) == {0, 1, 2}
        assert one.wall_ns.size == one.cpu_ns.size == one.rounds.size
        latency, cpu = summarise(one, threads=1, evidence=here.runtimes["onnx"].evidence)
        assert latency.value > 0
        assert cpu.value > 0
    assert timing.runtime_version
    assert timing.interference is not None
    assert timing.interference.round_count >= 6
    assert timing.interference.waiting_share is not None


def test_a_start_is_one_load_in_a_fresh_process(nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    for cold in (False, True):
        job = make_job(f"start-{cold}", nets["tflite"], kind="start", cold=cold)
        do(job, here)
        found = Start.read_json(job / "result.json")
        assert found.load_ms > 0
        assert found.first_inference_ms > 0
        assert 0 < found.base_bytes < found.peak_bytes
        assert cold or not found.is_cold


def test_a_sustained_run_comes_in_windows(nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    plan = SustainedPlan(minutes=0.01, window_s=0.2)
    job = make_job("sustained", nets["tflite"], kind="sustained", sustained=plan)
    do(job, here)
    found = SustainedTimes.read_json(job / "result.json")
    assert len(found.windows) >= 2
    assert found.inference_count >= sum(window.inference_count for window in found.windows)
    assert all(0 < window.p50_ms <= window.p90_ms for window in found.windows)


def test_what_the_runner_cannot_do_is_said_before_anything_is_sent(nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    scenario = make_job("scenario", nets["onnx"], kind="scenario", scenario=ScenarioPlan(name="offline"))
    metered = make_job("meter", nets["onnx"], kind="sustained", sustained=SustainedPlan(power_meter="/sys/class/hwmon/hwmon3"))
    other = make_job("torch", nets["onnx"], runtime="torch")
    unknown = make_job("option", nets["onnx"], options={"io_binding": True})
    for job, error, words in (
        (scenario, UnsupportedOpError, "no job of the kind 'scenario'"),
        (metered, UnsupportedOpError, "reads no power meter"),
        (other, UnsupportedOpError, "not 'onnx' in 'torch'"),
        (unknown, UsageError, "has no option 'io_binding'"),
    ):
        with pytest.raises(error, match=words):
            NativeAgent(here).prepare(job, facts=FACTS)


def test_data_the_file_cannot_take_are_refused(nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    job = make_job("wrong", nets["onnx"])
    write_arrays(job / "golden.npz", {"x": np.zeros((3, 1, 3, 5), np.float32)})
    with pytest.raises(DataError, match=r"Input 'x' is float32 \[1, 3, 5\]"):
        NativeAgent(here).prepare(job, facts=FACTS)


def test_what_the_program_says_of_the_model_is_an_error_of_ours(nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    job = make_job("damaged", nets["tflite"])
    (job / "tflite" / "net.tflite").write_bytes(b"\0\0\0\0TFL3" + bytes(100))
    with pytest.raises(IntegrityError, match="is not a model LiteRT can read"):
        do(job, here)


def test_a_job_that_takes_too_long_is_ended(nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    job = make_job("long", nets["tflite"], kind="sustained", sustained=SustainedPlan(minutes=10))
    errand = NativeAgent(here).prepare(job, facts=FACTS)
    with pytest.raises(WorkerError, match="took more than 1 s"):
        carry_out(errand, job, what="testing", timeout_s=1)
    assert not (job / "result.json").exists()


def change_report(job: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = job / "report_0.json"
    report = json.loads(path.read_text())
    change(report)
    path.write_text(json.dumps(report))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut report": (lambda job: (job / "report_0.json").write_text("{"), "no report of edgekit-runner"),
    "no report": (lambda job: (job / "report_0.json").unlink(), "no report of edgekit-runner"),
    "a list": (lambda job: (job / "report_0.json").write_text("[]"), "no report of edgekit-runner"),
    "another model": (lambda job: change_report(job, lambda one: one["model"].update(sha256="0" * 64)), "The device ran a file"),
    "no times": (lambda job: change_report(job, lambda one: one.pop("reload_ns")), "lacks a number"),
    "no outputs": (lambda job: change_report(job, lambda one: one.pop("outputs")), "names no outputs"),
    "other outputs": (lambda job: change_report(job, lambda one: one["outputs"][0].update(name="z")), "lacks the output"),
    "a flipped bit": (lambda job: flip(job / "answers_0" / "output_0.npy"), "changed on the way"),
    "cut outputs": (lambda job: (job / "answers_0" / "output_0.npy").write_bytes(b"\x93NUMPY"), "cannot be read as an array"),
    "too few": (lambda job: np.save(job / "answers_0" / "output_0.npy", np.zeros((2, 1, 16), np.int8)), "expected 10 times"),
}


def test_what_came_back_damaged_is_no_result(nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    agent = NativeAgent(here)
    for name, (damage, words) in DAMAGE.items():
        job = make_job(f"damage {name}", nets["tflite"])
        carry_out(agent.prepare(job, facts=FACTS), job, what="testing", timeout_s=60)
        damage(job)
        with pytest.raises(IntegrityError, match=words):
            agent.collect(job)
        assert not (job / "result.json").exists(), name


def test_times_that_came_back_damaged_are_no_result(nets: Nets, make_job: MakeJob, here: DeviceProfile) -> None:
    agent = NativeAgent(here)
    job = make_job("times", nets["tflite"], kind="timing", budget_s=0.01, fewest_rounds=2)
    carry_out(agent.prepare(job, facts=FACTS), job, what="testing", timeout_s=60)
    whole = (job / "report_0.json").read_text()
    for change, words in (
        (lambda one: one["rounds"]["models"][0]["wall_ns"].pop(), "samples of different lengths|is not whole"),
        (lambda one: one["rounds"]["models"].clear(), "is not whole"),
        (lambda one: one["rounds"]["models"][0].update(sha256="0"), "timed another file"),
        (lambda one: one.pop("conditions"), "is not whole"),
    ):
        (job / "report_0.json").write_text(whole)
        change_report(job, change)
        with pytest.raises(IntegrityError, match=words):
            agent.collect(job)
    (job / "report_0.json").write_text(whole)
    agent.collect(job)
    assert Job.read_json(job / "job.json").kind == "timing"
    assert (job / "result.json").exists()
