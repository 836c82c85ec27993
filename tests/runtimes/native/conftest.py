"""The program, built once; tiny models in every format, and Python's answers to the same inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from edgekit.runtimes.native.build import build_runner, missing_tools
from tests.runtimes.native import tflite_models

Array = np.ndarray


@pytest.fixture(scope="session", autouse=True)
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """edgekit-runner, kept by the digest of its sources: one build serves every session; the driver is told to use it."""
    missing = missing_tools()
    if missing:
        pytest.skip(f"edgekit-runner cannot be built here: {', '.join(missing)} not found; apt-get install cmake g++ make")
    with pytest.MonkeyPatch.context() as patch:
        path = build_runner()
        patch.setenv("EDGEKIT_RUNNER", str(path))
        yield path


def save_onnx(folder: Path, name: str, nodes: list[onnx.NodeProto], inputs: Mapping[str, Array], outputs: Mapping[str, str],
              constants: Mapping[str, Array] | None = None) -> Path:  # fmt: skip
    """A model of these nodes; ``outputs``: name -> numpy dtype."""
    kind = onnx.helper.np_dtype_to_tensor_dtype
    graph = onnx.helper.make_graph(
        nodes,
        name,
        [onnx.helper.make_tensor_value_info(key, kind(value.dtype), value.shape) for key, value in inputs.items()],
        [onnx.helper.make_tensor_value_info(key, kind(np.dtype(dtype)), None) for key, dtype in outputs.items()],
        [onnx.numpy_helper.from_array(value, key) for key, value in (constants or {}).items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def convnet(folder: Path) -> tuple[Path, dict[str, Array]]:
    """A float net with two inputs of different type and two outputs."""
    random = np.random.default_rng(0)
    inputs: dict[str, Array] = {
        "image": random.standard_normal((1, 3, 9, 7), np.float32),
        "place": np.array([2], np.int64),
    }
    constants = {
        "weight": random.standard_normal((8, 3, 3, 3), np.float32),
        "table": random.standard_normal((4, 8), np.float32),
        "head": random.standard_normal((8, 5), np.float32),
    }
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["image", "weight"], ["x"], pads=[1, 1, 1, 1]),
        make("Relu", ["x"], ["y"]),
        make("GlobalAveragePool", ["y"], ["z"]),
        make("Flatten", ["z"], ["f"]),
        make("Gather", ["table", "place"], ["g"]),
        make("Add", ["f", "g"], ["sum"]),
        make("MatMul", ["sum", "head"], ["scores"]),
        make("ArgMax", ["scores"], ["best"], axis=1),
    ]
    return save_onnx(folder, "convnet", nodes, inputs, {"scores": "float32", "best": "int64"}, constants), inputs


@pytest.fixture(scope="session")
def onnx_net(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Array]]:
    return convnet(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def ort_net(onnx_net: tuple[Path, dict[str, Array]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Array]]:
    import onnxruntime

    path = tmp_path_factory.mktemp("ort") / "convnet.ort"
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(path)
    settings.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(onnx_net[0]), settings, providers=["CPUExecutionProvider"])
    return path, onnx_net[1]


@pytest.fixture(scope="session")
def tflite_net(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Array]]:
    """An int8 net with a signature."""
    path = tmp_path_factory.mktemp("tflite") / "net.tflite"
    path.write_bytes(tflite_models.int8_net())
    return path, {"image": np.random.default_rng(1).integers(-128, 128, (1, 9, 8, 3), np.int8)}


@pytest.fixture(scope="session")
def tflite_mix(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Array]]:
    """A file without a signature: six inputs of as many types."""
    path = tmp_path_factory.mktemp("mix") / "mix.tflite"
    path.write_bytes(tflite_models.mixed_types())
    return path, tflite_models.MIXED
