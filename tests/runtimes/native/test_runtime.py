"""The runner as a runtime: the same bits as Python's, the same specs, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pytest

from edgekit import registry
from edgekit.core.artifact import Artifact
from edgekit.core.errors import DataError, IntegrityError, UnsupportedOpError, UsageError, WorkerError
from edgekit.core.plugins import Runtime, Session
from edgekit.runtimes.native.runtime import ONNX_RUNTIME, TFLITE_RUNTIME
from tests.runtimes.native import tflite_models
from tests.runtimes.native.conftest import save_onnx

NETS = ("onnx_net", "ort_net", "tflite_net", "tflite_mix")
PYTHON = {"onnx": "onnxruntime", "tflite": "litert"}

Array = np.ndarray
Net = tuple[Path, dict[str, Array]]


def native_of(path: Path) -> Runtime:
    return TFLITE_RUNTIME if path.suffix == ".tflite" else ONNX_RUNTIME


def answers(runtime: Runtime, net: Net, **options: object) -> tuple[dict[str, Array], Session]:
    session = runtime.load(net[0], **options)
    found = session.run(net[1])
    session.close()
    return found, session


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_the_same_bits_as_python(name: str, threads: int, request: pytest.FixtureRequest) -> None:
    net: Net = request.getfixturevalue(name)
    runtime = native_of(net[0])
    found, session = answers(runtime, net, threads=threads)
    expected, other = answers(registry.runtime(PYTHON[runtime.target]), net, threads=threads)
    assert session.inputs == other.inputs
    assert session.outputs == other.outputs
    assert list(found) == list(expected)
    for output, values in expected.items():
        assert found[output].dtype == values.dtype
        np.testing.assert_array_equal(found[output], values, err_msg=output, strict=True)


@pytest.mark.parametrize("provider", ["xnnpack", "builtin", "reference"])
def test_litert_computes_with_the_kernels_asked_for(tflite_net: Net, provider: str) -> None:
    found, _ = answers(TFLITE_RUNTIME, tflite_net, options={"provider": provider})
    expected, _ = answers(registry.runtime("litert"), tflite_net, options={"provider": provider})
    np.testing.assert_array_equal(found["scores"], expected["scores"])


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_every_element_type_passes_both_ways(dtype: str, tmp_path: Path) -> None:
    given: Array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    found, session = answers(ONNX_RUNTIME, (save_onnx(tmp_path, "same", [node], {"x": given}, {"y": dtype}), {"x": given}))
    np.testing.assert_array_equal(found["y"], given, strict=True)
    assert session.inputs[0].dtype == dtype


def test_one_session_answers_many_runs_and_sizes(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("NonZero", ["x"], ["y"])]
    session = ONNX_RUNTIME.load(save_onnx(tmp_path, "places", nodes, {"x": np.zeros(5, np.float32)}, {"y": "int64"}))
    for given in ([0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [5, 5, 5, 5, 5]):
        values = np.array(given, np.float32)
        np.testing.assert_array_equal(session.run({"x": values})["y"], np.nonzero(values)[0][None])
    session.close()


def test_scalars_and_empty_arrays(tmp_path: Path) -> None:
    for given in (np.array(3.5, np.float32), np.zeros((0, 2), np.float32)):
        net = (
            save_onnx(tmp_path, "edge", [onnx.helper.make_node("Neg", ["x"], ["y"])], {"x": given}, {"y": "float32"}),
            {"x": given},
        )
        found, _ = answers(ONNX_RUNTIME, net)
        np.testing.assert_array_equal(found["y"], -given, strict=True)


def test_weights_in_a_file_beside_the_model(onnx_net: Net, tmp_path: Path) -> None:
    model, path = onnx.load(str(onnx_net[0])), tmp_path / "net.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="net.onnx.data", size_threshold=16)
    found, _ = answers(ONNX_RUNTIME, (path, onnx_net[1]))
    expected, _ = answers(ONNX_RUNTIME, onnx_net)
    np.testing.assert_array_equal(found["scores"], expected["scores"])


@pytest.mark.parametrize("name", ["onnx_net", "tflite_net"])
def test_wrong_inputs_are_refused_and_the_session_lives_on(name: str, request: pytest.FixtureRequest) -> None:
    path, inputs = request.getfixturevalue(name)
    session = native_of(path).load(path)
    first = next(iter(inputs))
    for wrong, complaint in (
        ({**inputs, "imag": inputs[first]}, "imag"),
        ({}, "missing"),
        ({**inputs, first: inputs[first][..., :-1]}, "expects"),
        ({**inputs, first: inputs[first].astype(np.float64)}, "float64"),
    ):
        with pytest.raises(DataError, match=complaint):
            session.run(wrong)
    assert session.run(inputs)
    session.close()
    session.close()
    with pytest.raises(DataError, match="closed"):
        session.run(inputs)


def test_what_the_program_itself_refuses_comes_as_an_error(onnx_net: Net) -> None:
    session = ONNX_RUNTIME.load(onnx_net[0])
    wrong = {**onnx_net[1], "place": np.array([9], np.int64)}  # the table has four rows: only the kernel can know
    with pytest.raises(DataError, match=r"ONNX Runtime could not run .*out of data bounds"):
        session.run(wrong)
    assert session.run(onnx_net[1])
    session.close()


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"library": "/nonexistent/libonnxruntime.so"}, UsageError, "there is no library /nonexistent"),
        ({"library": str(Path(__file__))}, UnsupportedOpError, "cannot be loaded as a library"),
        ({"provider": "warp"}, UnsupportedOpError, "without the execution provider 'warp'.*CPUExecutionProvider"),
        ({"optimization": "most"}, UsageError, "optimization"),
        ({"affinity": "3-1"}, UsageError, "backwards"),
        ({"affinity": "one"}, UsageError, "0,2-3"),
        ({"speed": "high"}, UsageError, "no option 'speed'"),
    ],
)
def test_options_that_cannot_be_had(onnx_net: Net, options: dict[str, str], error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        ONNX_RUNTIME.load(onnx_net[0], options=options)


@pytest.mark.parametrize(
    ("provider", "error", "complaint"),
    [
        ("warp", UsageError, "no delegate 'warp'; it has xnnpack, builtin"),
        ("/nonexistent/delegate.so", UsageError, "no delegate"),
        (str(Path(__file__)), UnsupportedOpError, "needs TFLite's C library"),
        ("npu", UnsupportedOpError, "'npu' does not compute the whole model here|cannot use 'npu'"),
    ],
)
def test_delegates_that_are_not_there(tflite_net: Net, provider: str, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        TFLITE_RUNTIME.load(tflite_net[0], options={"provider": provider})


def test_a_library_of_the_other_runtime_is_refused(tflite_net: Net, onnx_net: Net) -> None:
    from edgekit.runtimes.native.libraries import library_of

    with pytest.raises(UnsupportedOpError, match="neither LiteRT's nor TensorFlow Lite's"):
        TFLITE_RUNTIME.load(tflite_net[0], options={"library": str(library_of("onnx"))})
    with pytest.raises(UnsupportedOpError, match="no function OrtGetApiBase"):
        ONNX_RUNTIME.load(onnx_net[0], options={"library": str(library_of("tflite"))})


@pytest.mark.parametrize("name", ["onnx_net", "ort_net", "tflite_net"])
def test_damaged_files_are_refused(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path, _ = request.getfixturevalue(name)
    data = path.read_bytes()
    broken = tmp_path / f"broken{path.suffix}"
    for damage in (b"", data[:60], b"this is no model" * 64, data[: len(data) // 2], data[:8] + b"\xff" * 200 + data[208:]):
        broken.write_bytes(damage)
        with pytest.raises((IntegrityError, UnsupportedOpError), match="broken"):
            native_of(path).load(broken)
    with pytest.raises(IntegrityError, match="no such file"):
        native_of(path).load(tmp_path / f"absent{path.suffix}")


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    path = tmp_path / "custom.tflite"
    path.write_bytes(tflite_models.unknown_operator())
    with pytest.raises(UnsupportedOpError, match="NobodyKnowsThis"):
        TFLITE_RUNTIME.load(path)
    node = onnx.helper.make_node("NobodyKnowsThis", ["x"], ["y"])
    model = save_onnx(tmp_path, "custom", [node], {"x": np.zeros(4, np.float32)}, {"y": "float32"})
    with pytest.raises(UnsupportedOpError, match="NobodyKnowsThis"):
        ONNX_RUNTIME.load(model)


def test_layers_are_left_to_the_runtime_that_can(onnx_net: Net) -> None:
    artifact = Artifact.model_construct(target="onnx", path=onnx_net[0])
    with pytest.raises(UnsupportedOpError, match="Use runtime 'onnxruntime'"):
        ONNX_RUNTIME.replay_layers(artifact, None, {})  # type: ignore[arg-type]


def test_a_program_that_dies_is_an_error_message(onnx_net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script, complaint in (
        ("dies", "kill -SEGV $$", "signal 11"),
        ("babbles", "echo hello; sleep 5", "not understood: it answered 'hello'"),
        ("floods", "head -c 5000 /dev/zero; sleep 5", "more than 1024 bytes"),
        ("lies", "echo 'json 99999999999999'; sleep 5", "announced"),
    ):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("EDGEKIT_RUNNER", str(program))
        with pytest.raises(WorkerError, match=complaint):
            ONNX_RUNTIME.load(onnx_net[0])


def test_a_program_that_is_slow_is_ended(tmp_path: Path) -> None:
    from edgekit.runtimes.native.process import RunnerProcess

    program = tmp_path / "sleeps"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(WorkerError, match="did not answer within 0 s"):
        RunnerProcess([program], source="model", timeout_s=0.2)
