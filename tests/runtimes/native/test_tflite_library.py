"""TensorFlow Lite's own C library: the same program, another library, and delegates in files of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekit import registry
from edgekit.core.errors import IntegrityError, UnsupportedOpError, UsageError
from edgekit.runtimes.native.measurement import measure
from edgekit.runtimes.native.runtime import TFLITE_RUNTIME
from tests.runtimes.native import tflite_models

ASSETS = Path(os.environ.get("EDGEKIT_ASSETS") or Path(__file__).parents[3] / ".assets") / "tensorflow-lite"
Net = tuple[Path, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def library() -> str:
    path = ASSETS / "lib" / "libtensorflowlite_c.so"
    if not path.is_file():
        pytest.skip(f"{path} is not there; fetch it with: python examples/assets.py tensorflow-lite")
    return str(path)


@pytest.fixture(scope="module")
def delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler, path = shutil.which("c++"), tmp_path_factory.mktemp("delegate") / "libcounting.so"
    if compiler is None:
        pytest.skip("no C++ compiler: apt-get install g++")
    source = Path(__file__).with_name("delegate.cpp")
    subprocess.run([compiler, "-std=c++17", "-shared", "-fPIC", "-Wall", str(source), "-o", str(path), "-ldl"], check=True)
    return path


@pytest.mark.parametrize("name", ["tflite_net", "tflite_mix"])
def test_answers_as_litert_does(name: str, library: str, request: pytest.FixtureRequest) -> None:
    path, inputs = request.getfixturevalue(name)
    session, other = TFLITE_RUNTIME.load(path, options={"library": library}), registry.runtime("litert").load(path)
    assert session.description["runtime"]["name"] == "tflite"
    assert session.description["runtime"]["version"].startswith("2.")
    assert (session.inputs, session.outputs) == (other.inputs, other.outputs)
    for output, values in other.run(inputs).items():
        np.testing.assert_array_equal(session.run(inputs)[output], values, strict=True)
    session.close()


def test_state_is_kept_from_run_to_run(library: str) -> None:
    path = ASSETS / "models" / "okay_nabu.tflite"
    session, other = TFLITE_RUNTIME.load(path, options={"library": library}), registry.runtime("litert").load(path)
    spec, answers = session.inputs[0], set()
    for _ in range(40):  # always the same input: only the state can change the answer
        values = np.full(spec.shape, 127, np.int8)
        found, expected = (
            next(iter(session.run({spec.name: values}).values())),
            next(iter(other.run({spec.name: values}).values())),
        )
        np.testing.assert_array_equal(found, expected, strict=True)
        answers.add(int(found.item()))
    session.close()
    assert len(answers) > 1


def test_a_delegate_in_a_library_is_used(library: str, delegate: Path, tflite_net: Net, tmp_path: Path, runner: Path) -> None:
    path, inputs = tflite_net
    np.save(tmp_path / "image.npy", inputs["image"])
    words = [runner, path, "--library", library, "--provider", delegate, "--input", f"image={tmp_path}/image.npy"]
    words += ["--provider-option", f"runtime={library}", "--provider-option", f"count={tmp_path}/count"]
    done = subprocess.run([*map(str, words), "--output-dir", str(tmp_path / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "count").read_text() == "2"  # a convolution and a mean
    assert f'"provider":"{delegate}"' in done.stdout
    session = TFLITE_RUNTIME.load(path, options={"provider": "builtin"})
    expected = session.run(inputs)["scores"]
    session.close()
    found = np.load(tmp_path / "out" / "output_0.npy").astype(int)
    assert np.abs(found - expected.astype(int)).max() <= 1  # TFLite's own kernels, of another release


def test_a_delegate_that_cannot_start_says_why(library: str, delegate: Path, tflite_net: Net) -> None:
    with pytest.raises(UnsupportedOpError, match=r"cannot be used here.*the accelerator is not there"):
        TFLITE_RUNTIME.load(tflite_net[0], options={"library": library, "provider": str(delegate)})


@pytest.mark.parametrize(
    ("provider", "error", "complaint"),
    [
        ("builtin", UsageError, "no delegate 'builtin'; it has xnnpack"),
        ("/nonexistent/delegate.so", UsageError, "there is no library /nonexistent/delegate.so"),
        ("LIBRARY", UnsupportedOpError, "no function tflite_plugin_create_delegate"),
    ],
)
def test_delegates_that_are_none(library: str, tflite_net: Net, provider: str, error: type[Exception], complaint: str) -> None:
    with pytest.raises(error, match=complaint):
        TFLITE_RUNTIME.load(tflite_net[0], options={"library": library, "provider": provider.replace("LIBRARY", library)})


def test_damaged_and_unknown(library: str, tflite_net: Net, tmp_path: Path) -> None:
    path, data = tmp_path / "model.tflite", tflite_net[0].read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match="not a model TensorFlow Lite 2"):
        measure(path, library=library)
    path.write_bytes(tflite_models.unknown_operator())
    with pytest.raises(UnsupportedOpError, match="NobodyKnowsThis"):
        measure(path, library=library)
