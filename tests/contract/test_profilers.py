"""Every runtime at the edge can say where its time goes, in one form; and files are timed in any format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit import registry
from edgekit.core.errors import UsageError
from edgekit.core.file_bench import FileBench
from edgekit.core.measurement import Evidence
from edgekit.core.model_inputs import draw_inputs
from edgekit.core.operator_profile import OperatorProfile, Profiler
from edgekit.core.run import RunFolder
from edgekit.file_bench import bench

FILES = {"onnxruntime": "onnx/model.onnx", "litert": "tflite/model.tflite", "coreml-reference": "coreml/model.mlpackage"}
"""Runtime -> the artifact it is asked about."""
MULTIPLYING = {"QLinearConv", "Convolution", "conv"}


def profile_of(run: RunFolder, name: str, precision: str = "", **options: object) -> OperatorProfile:
    runtime = registry.runtime(name)
    assert isinstance(runtime, Profiler)
    folder, _, file = FILES[name].partition("/")
    path = run.artifacts / f"{folder}{precision}" / file
    session = runtime.load(path)
    inputs = draw_inputs(session.inputs)
    session.close()
    return runtime.profile(path, inputs, options=options, run_count=5)


@pytest.mark.parametrize("name", FILES)
def test_an_int8_file_computes_in_integers(name: str, run: RunFolder) -> None:
    found = profile_of(run, name)
    assert sum(one.share for one in found.operators) == pytest.approx(1)
    assert found.operator_ms > 0
    assert found.inference_ms >= 0.5 * found.operator_ms
    assert {one.type for one in found.operators} & MULTIPLYING
    if name != "coreml-reference":  # which computes in float32, between quantize and dequantize
        assert {one.kind for one in found.operators if one.type in MULTIPLYING} == {"integer"}
    assert {one.kind for one in found.operators} <= {"integer", "float", "conversion", "movement"}
    assert found.evidence is (Evidence.REFERENCE if name == "coreml-reference" else Evidence.MEASURED)
    assert OperatorProfile.parse(found.model_dump(mode="json"), source="itself") == found


@pytest.mark.parametrize("name", FILES)
def test_a_float_file_computes_in_floats(name: str, run: RunFolder) -> None:
    found = profile_of(run, name, "-float32")
    assert found.share_of("integer") == 0
    assert found.share_of("float") > 0
    assert not any(one.is_fallback for one in found.operators)


def test_other_kernels_of_litert_are_told_apart(run: RunFolder) -> None:
    delegated, built_in = (profile_of(run, "litert", provider=provider) for provider in ("xnnpack", "builtin"))
    assert {one.provider for one in delegated.operators} == {"xnnpack"}
    assert {one.provider for one in built_in.operators} == {"builtin"}
    assert "CONV_2D" in {one.type for one in built_in.operators}
    with pytest.raises(UsageError, match="xnnpack and builtin"):
        profile_of(run, "litert", provider="reference")


def test_a_provider_that_is_not_there(run: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"no execution provider 'cudda'; it has .*cpu"):
        profile_of(run, "onnxruntime", provider="cudda")
    with pytest.raises(UsageError, match=r"no delegate library /nowhere/delegate\.so"):
        profile_of(run, "litert", provider="/nowhere/delegate.so")


def test_a_library_that_is_no_delegate(run: RunFolder, tmp_path: Path) -> None:
    library = tmp_path / "delegate.so"
    library.write_bytes(b"not a library")
    with pytest.raises(UsageError, match=r"delegate\.so is not a library this system can load"):
        registry.runtime("litert").load(run.artifacts / FILES["litert"], options={"provider": str(library)})


def test_bound_buffers_answer_the_same(run: RunFolder) -> None:
    runtime, path = registry.runtime("onnxruntime"), run.artifacts / FILES["onnxruntime"]
    plain, bound = runtime.load(path), runtime.load(path, options={"io_binding": True})
    for seed in range(3):
        inputs = draw_inputs(plain.inputs, seed=seed)
        expected, found = plain.run(inputs), bound.run(inputs)
        assert list(found) == list(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)


@pytest.fixture(scope="module")
def timed(run: RunFolder) -> FileBench:
    files = [run.artifacts / file for file in FILES.values()]
    return bench(*files, seconds=0.05, profile=True)


def test_files_of_all_formats_are_timed_in_turn(timed: FileBench, run: RunFolder) -> None:
    first, second, reference = timed.files
    assert [file.runtime for file in timed.files] == list(FILES)
    for file in timed.files:
        names = [one.name for one in file.measurements]
        assert {"load_time", "first_inference", "latency", "cpu_time", "peak_memory"} <= set(names)
        latency = file.find("latency")
        assert latency is not None
        assert latency.value > 0
        assert latency.evidence is file.evidence
    cpu = first.find("cpu_time")
    assert cpu is not None
    assert cpu.value > 0, "the clock of the confined process moves"
    assert first.find("slowdown_ratio") is None
    assert second.find("slowdown_ratio") is not None
    assert reference.evidence is Evidence.REFERENCE
    assert all(file.profile is not None for file in timed.files), [file.profile_failure for file in timed.files]
    assert timed.first_answer_s is None or timed.first_answer_s > 0


def test_a_bench_round_trips_and_is_drawn(timed: FileBench) -> None:
    assert FileBench.parse(timed.model_dump(mode="json"), source="itself") == timed
    html = timed._repr_html_()
    assert html is not None
    assert "not the Neural Engine" in html


def test_wrong_bench(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one model file"):
        bench()
    with pytest.raises(UsageError, match="seconds is 0"):
        bench(run.artifacts / FILES["litert"], seconds=0)
    with pytest.raises(UsageError, match="does not exist"):
        bench(tmp_path / "gone.tflite")
