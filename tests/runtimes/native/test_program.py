"""The program alone: .npy in and out, the report, timing, requests over a pipe, and what it refuses; also under sanitizers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.errors import UsageError, WorkerError
from edgekit.core.measurement import Evidence
from edgekit.runtimes.native.build import build_runner, missing_tools, runner_path
from edgekit.runtimes.native.libraries import library_of
from edgekit.runtimes.native.measurement import measure, target_of
from edgekit.runtimes.native.runtime import ONNX_RUNTIME

Net = tuple[Path, dict[str, np.ndarray]]


def call(runner: Path, net: Net, folder: Path, *words: str, **files: Path) -> subprocess.CompletedProcess[str]:
    """Run the program on a net's inputs; ``files`` take the place of inputs."""
    given = []
    for index, (name, values) in enumerate(net[1].items()):
        file = files.get(name, folder / f"{index}.npy")
        if name not in files:
            np.save(file, values)
        given += ["--input", f"{name}={file}"]
    library = str(library_of(target_of(net[0])))
    command = [str(runner), str(net[0]), "--library", library, *given, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.parametrize("name", ["onnx_net", "tflite_net", "tflite_mix"])
def test_the_report_says_what_was_done(name: str, runner: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    net: Net = request.getfixturevalue(name)
    found = report_of(call(runner, net, tmp_path, "--output-dir", str(tmp_path / "out"), "--repeat", "50", "--warm-up", "2"))
    assert found["model"]["sha256"] == hashlib.sha256(net[0].read_bytes()).hexdigest()
    assert found["model"]["size_bytes"] == net[0].stat().st_size
    for row in found["inputs"]:
        assert row["sha256"] == hashlib.sha256(net[1][row["name"]].tobytes()).hexdigest()
    for row in found["outputs"]:
        values = np.load(row["file"])
        assert (str(values.dtype), list(values.shape)) == (row["dtype"], row["found_shape"])
        assert row["sha256"] == hashlib.sha256(values.tobytes()).hexdigest()
    latency = found["latency"]
    samples = np.array(latency["samples_ns"])
    assert len(samples) == latency["sample_count"] == 50
    for percent, key in ((0, "minimum_ns"), (50, "p50_ns"), (90, "p90_ns"), (99, "p99_ns"), (100, "maximum_ns")):
        assert latency[key] == pytest.approx(np.percentile(samples, percent))
    assert latency["mean_ns"] == pytest.approx(samples.mean())
    assert 0 < samples.sum() <= latency["total_wall_ns"]
    assert latency["preemptions"] >= 0
    assert 0 < found["memory"]["after_load_bytes"] <= found["memory"]["peak_bytes"]
    assert found["load_ns"] > 0
    assert found["first_inference_ns"] > 0


def test_process_time_is_sampled_where_it_costs_nothing(runner: Path, tmp_path: Path) -> None:
    import onnx.helper

    from tests.runtimes.native.conftest import save_onnx

    make = onnx.helper.make_node
    nodes = [make("MatMul", ["x", "x"], ["y0"]), *(make("MatMul", [f"y{i}", "x"], [f"y{i + 1}"]) for i in range(4))]
    values = np.eye(200, dtype=np.float32)
    net = (save_onnx(tmp_path, "large", nodes, {"x": values}, {"y4": "float32"}), {"x": values})
    latency = report_of(call(runner, net, tmp_path, "--repeat", "5"))["latency"]
    assert len(latency["cpu_samples_ns"]) == 5
    assert sum(latency["cpu_samples_ns"]) <= latency["total_cpu_ns"]


def test_seconds_end_the_timing(runner: Path, tflite_net: Net, tmp_path: Path) -> None:
    latency = report_of(call(runner, tflite_net, tmp_path, "--seconds", "0.2"))["latency"]
    assert 0.2e9 <= latency["total_wall_ns"] < 2e9
    assert latency["sample_count"] > 10


def test_audit_times_both_loops(runner: Path, tflite_net: Net, tmp_path: Path) -> None:
    audit = report_of(call(runner, tflite_net, tmp_path, "--audit-overhead", "4"))["audit"]
    assert {len(audit[key]) for key in audit if key.endswith("_ns")} == {4}
    assert all(reported <= whole for reported, whole in zip(audit["reported_ns"], audit["sampled_wall_ns"], strict=True))
    assert audit["inferences_in_block"] > 1


def test_affinity_and_threads_are_honoured(runner: Path, onnx_net: Net, tmp_path: Path) -> None:
    cpu = sorted(os.sched_getaffinity(0))[-1]
    found = report_of(call(runner, onnx_net, tmp_path, "--affinity", str(cpu), "--threads", "2", "--optimization", "none"))
    assert found["options"]["affinity"] == [cpu]
    assert found["options"]["threads"] == 2
    assert found["runtime"]["options"]["optimization"] == "none"


def test_stacked_samples_are_answered_one_by_one(runner: Path, tflite_net: Net, tmp_path: Path) -> None:
    path, inputs = tflite_net
    stack = np.random.default_rng(3).integers(-128, 128, (5, *inputs["image"].shape), np.int8)
    words = ("--stacked", "--output-dir", str(tmp_path / "out"))
    found = report_of(call(runner, (path, {"image": stack}), tmp_path, *words))
    assert found["sample_count"] == 5
    rows = np.load(tmp_path / "out" / "output_0.npy")
    assert rows.shape == (5, 1, 16)
    for values, row in zip(stack, rows, strict=True):
        alone = report_of(call(runner, (path, {"image": values}), tmp_path))
        assert alone["outputs"][0]["sha256"] == hashlib.sha256(row.tobytes()).hexdigest()


def test_without_inputs_zeros_are_taken(runner: Path, onnx_net: Net, tmp_path: Path) -> None:
    found = report_of(call(runner, (onnx_net[0], {}), tmp_path))
    zeros = {name: np.zeros_like(values) for name, values in onnx_net[1].items()}
    given = report_of(call(runner, (onnx_net[0], zeros), tmp_path))
    assert (found["inputs_are"], given["inputs_are"]) == ("zeros", "given")
    assert found["outputs"] == given["outputs"]


def header(text: str, *, magic: bytes = b"\x93NUMPY", version: int = 1, values: int = 1 * 3 * 9 * 7 * 4) -> bytes:
    body = text.encode()
    length = len(body).to_bytes(2 if version == 1 else 4, "little")
    return magic + bytes([version, 0]) + length + body + bytes(values)


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 9, 7), }"
HOSTILE = {
    "empty": b"",
    "not npy": b"PK\x03\x04" * 40,
    "version 9": header(GOOD, version=9),
    "header longer than the file": b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + GOOD.encode(),
    "too few values": header(GOOD, values=5),
    "too many values": header(GOOD, values=5000),
    "objects": header(GOOD.replace("<f4", "|O")),
    "big-endian": header(GOOD.replace("<f4", ">f4")),
    "Fortran order": header(GOOD.replace("False", "True")),
    "negative size": header(GOOD.replace("9", "-9")),
    "enormous size": header(GOOD.replace("9", "9" * 30)),
    "overflowing shape": header(GOOD.replace("(1, 3, 9, 7)", "(4294967296, 4294967296, 4294967296)"), values=0),
    "many axes": header(GOOD.replace("(1, 3, 9, 7)", "(" + "1, " * 40 + ")")),
    "code for a shape": header(GOOD.replace("(1, 3, 9, 7)", "__import__('os')")),
    "key twice": header(GOOD.replace("'fortran_order': False", "'descr': '<f4'")),
    "unclosed": header(GOOD[:-4]),
    "something after it": header(GOOD + "; 1"),
    "no header": header(""),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_npy_files_are_refused(what: str, runner: Path, onnx_net: Net, tmp_path: Path) -> None:
    file = tmp_path / "image.npy"
    file.write_bytes(HOSTILE[what])
    done = call(runner, onnx_net, tmp_path, image=file)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"edgekit-runner: {file} ")
    assert done.stdout == ""


@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_numpy_writes_are_read(version: int, runner: Path, onnx_net: Net, tmp_path: Path) -> None:
    file = tmp_path / "image.npy"
    with file.open("wb") as stream:
        np.lib.format.write_array(stream, onnx_net[1]["image"], version=(version, 0))
    found = report_of(call(runner, onnx_net, tmp_path, image=file))
    assert found["outputs"] == report_of(call(runner, onnx_net, tmp_path))["outputs"]


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        ([], 2, "no model was given"),
        (["a.onnx", "b.onnx"], 2, "two models"),
        (["--speed", "9", "a.onnx"], 2, "unknown option --speed"),
        (["a.onnx", "--repeat"], 2, "--repeat lacks its value"),
        (["a.onnx", "--repeat", "many"], 2, "whole number"),
        (["a.onnx", "--threads=0"], 2, "from 1 to 1024"),
        (["a.onnx", "--seconds", "nan"], 2, "seconds above 0"),
        (["a.onnx", "--spinning", "yes"], 2, "on or off"),
        (["a.onnx", "--input", "x.npy"], 2, "NAME=VALUE"),
        (["/nonexistent/a.onnx"], 5, "/nonexistent/a.onnx cannot be read: No such file"),
        (["/"], 5, "no regular file"),
        ([str(Path(__file__))], 5, "is no .tflite, .onnx or .ort file"),
    ],
)
def test_command_lines_that_are_refused(runner: Path, words: list[str], code: int, complaint: str) -> None:
    done = subprocess.run([str(runner), *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    assert complaint in done.stderr


def test_inputs_by_other_names_are_refused(runner: Path, onnx_net: Net, tmp_path: Path) -> None:
    path, inputs = onnx_net
    for wrong, complaint in (
        ({**inputs, "imag": inputs["image"]}, "no input 'imag'; it has image, place"),
        ({"image": inputs["image"]}, "input 'place' is missing"),
        ({**inputs, "place": inputs["place"].astype(np.int32)}, "expects int64 [1], and was given int32 [1]"),
        ({**inputs, "image": inputs["image"][:, :2]}, "expects float32 [1, 3, 9, 7], and was given float32 [1, 2, 9, 7]"),
    ):
        done = call(runner, (path, wrong), tmp_path)
        assert (done.returncode, complaint in done.stderr) == (2, True), done.stderr


def test_no_library_to_be_found(runner: Path, onnx_net: Net, tflite_net: Net) -> None:
    for path, names in ((onnx_net[0], "libonnxruntime.so"), (tflite_net[0], "libLiteRt.so, libtensorflowlite_c.so")):
        done = subprocess.run([str(runner), str(path)], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert names in done.stderr
        assert "--library PATH" in done.stderr


def test_help_and_version_need_nothing(runner: Path) -> None:
    for word in ("--help", "--version"):
        done = subprocess.run([str(runner), word], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("edgekit-runner ")


@pytest.mark.parametrize(
    "request_bytes",
    [b"dance\n", b"run\ntensor float32 9\n", b"run\ntensor float32 2 -1 5\n", b"run\ntensor float99 0\n", b"run\n", b"x" * 5000],
)
def test_requests_that_are_none_end_the_program(runner: Path, onnx_net: Net, request_bytes: bytes) -> None:
    words = [str(runner), str(onnx_net[0]), "--library", str(library_of("onnx")), "--serve"]
    done = subprocess.run(words, input=request_bytes, capture_output=True, check=False, timeout=60)
    assert done.returncode in {0, 2}  # an unreadable tensor is answered, and the input then ends
    assert b"error 2 " in done.stdout or done.stderr.startswith(b"edgekit-runner: ")


def test_measuring_from_python(tflite_net: Net, onnx_net: Net) -> None:
    for path, inputs in (tflite_net, onnx_net):
        found = measure(path, inputs, repeat=20)
        assert found.evidence is Evidence.MEASURED
        assert found.latency_ms is not None
        assert found.latency_ms.sample_count == 20
        assert found.peak_memory_bytes >= found.memory_after_load_bytes > 1e6
        assert found.output_sha256
    session = ONNX_RUNTIME.load(onnx_net[0])
    session.run(onnx_net[1])
    assert len(session.measure(repeat=7)["samples_ns"]) == 7
    with pytest.raises(UsageError, match="WARM_UP REPEAT SECONDS"):
        session.measure()
    session.close()
    with pytest.raises(WorkerError, match="took more than"):
        measure(tflite_net[0], repeat=0, seconds=30, timeout_s=0.3)


def test_the_build_is_kept_by_its_sources(runner: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGEKIT_RUNNER")
    assert build_runner() == runner_path() == runner
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"needs cmake, c\+\+.*apt-get install cmake g\+\+"):
        build_runner()
    monkeypatch.undo()
    monkeypatch.delenv("EDGEKIT_RUNNER")
    planted = tmp_path / "cache"
    monkeypatch.setenv("EDGEKIT_CACHE", str(planted))
    runner_path().parent.mkdir(parents=True)
    runner_path().parent.chmod(0o777)
    with pytest.raises(UsageError, match="belongs to another user"):
        build_runner()
    monkeypatch.setenv("EDGEKIT_RUNNER", "/nonexistent/runner")
    with pytest.raises(UsageError, match="EDGEKIT_RUNNER names /nonexistent/runner"):
        build_runner()


def test_nothing_leaks_and_nothing_is_undefined(
    onnx_net: Net, ort_net: Net, tflite_net: Net, tflite_mix: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing_tools():
        pytest.skip("no compiler: apt-get install cmake g++ make")
    program = build_runner(sanitize=True)
    for net in (onnx_net, ort_net, tflite_net, tflite_mix):
        report_of(call(program, net, tmp_path, "--output-dir", str(tmp_path), "--repeat", "3", "--audit-overhead", "1"))
        turns = ["--beside", str(net[0]), "--rounds", "3", "--loads", "2", "--seconds", "0.2", "--block-ms", "0.1"]
        assert report_of(call(program, (net[0], {}), tmp_path, "--load-again", *turns))["rounds"]["loads"]
    report_of(call(program, tflite_net, tmp_path, "--sustained-minutes", "0.001", "--window-seconds", "0.02", "--cold"))
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(tflite_net[0].read_bytes()[:300])
    assert call(program, (broken, {}), tmp_path).returncode == 5
    for what, data in HOSTILE.items():
        file = tmp_path / "image.npy"
        file.write_bytes(data)
        done = call(program, onnx_net, tmp_path, image=file)
        assert done.returncode == 2, f"{what}: {done.stderr}"
    words = [str(program), str(onnx_net[0]), "--library", str(library_of("onnx")), "--serve"]
    monkeypatch.setenv("EDGEKIT_RUNNER", str(program))
    session = ONNX_RUNTIME.load(onnx_net[0])
    assert session.run(onnx_net[1])
    session.close()
    done = subprocess.run(words, input=b"run\ntensor float32 0\n1234", capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.count(b"error 2 ")) == (0, 1), done.stderr
