"""What the fuzz campaign found in readers of model files: each is an error that says what is wrong with the file."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from onnx import TensorProto, helper

from edgekit.core.errors import DataError, IntegrityError
from edgekit.core.file_kinds import kind_of
from edgekit.runtimes.inspection.onnx_file import INSPECTOR
from edgekit.runtimes.litert import RUNTIME as LITERT
from edgekit.runtimes.onnxruntime import RUNTIME
from tests.runtimes.native.tflite_models import int8_net

FLOAT = TensorProto.FLOAT


def model(*, shape: list[int], target: list[int]) -> bytes:
    """``y = reshape(x_name_of_input, target)`` with a note in its metadata; the target is an input, so that a run finds out."""
    edges = [helper.make_tensor_value_info(name, FLOAT, shape) for name in ("x_name_of_input", "y_name_of_output")]
    edges.append(helper.make_tensor_value_info("target", TensorProto.INT64, [len(target)]))
    node = helper.make_node("Reshape", ["x_name_of_input", "target"], ["y_name_of_output"])
    graph = helper.make_graph([node], "g", [edges[0], edges[2]], [edges[1]])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(made, {"a_note": "its_value"})
    whole: bytes = made.SerializeToString()
    return whole


PARTS = [b"x_name_of_input", b"y_name_of_output", b"its_value", b"a_note", b"Reshape", b"target"]


@pytest.mark.parametrize("part", PARTS, ids=bytes.decode)
def test_names_that_are_no_text_are_damage(tmp_path: Path, part: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(model(shape=[4], target=[4]).replace(part, b"\xff" + part[1:]))
    with pytest.raises(IntegrityError, match=r"net\.onnx"):
        INSPECTOR.inspect(path)
    try:
        RUNTIME.load(path).close()
    except Exception as reason:
        assert isinstance(reason, IntegrityError), reason


def test_an_element_type_that_is_none_is_damage(tmp_path: Path) -> None:
    edges = [helper.make_tensor_value_info(name, FLOAT, [4]) for name in ("x", "y")]
    edges[0].type.tensor_type.elem_type = 32767
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", edges[:1], edges[1:])
    (tmp_path / "net.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(IntegrityError, match=r"net\.onnx"):
        INSPECTOR.inspect(tmp_path / "net.onnx")


def test_a_run_that_fails_is_about_the_inputs(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(model(shape=[4], target=[2, 2]))
    session = RUNTIME.load(tmp_path / "net.onnx")
    with pytest.raises(DataError, match="could not run the model on these inputs"):
        session.run({"x_name_of_input": np.zeros(4, np.float32), "target": np.array([3, 5])})
    session.close()


def test_what_is_neither_file_nor_folder_has_no_kind(tmp_path: Path) -> None:
    (tmp_path / "a.pt2").write_bytes(b"PK\x03\x04" + bytes(40))
    assert kind_of(tmp_path / "a.pt2") is not None


def test_a_signature_of_tensors_that_are_not_there_is_damage(tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(int8_net(), 0)
    model.signatureDefs[0].inputs[0].tensorIndex = 270
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "net.tflite").write_bytes(bytes(builder.Output()))
    with pytest.raises(IntegrityError, match=r"net\.tflite is not a model LiteRT .* can load: Invalid tensor index 270"):
        LITERT.load(tmp_path / "net.tflite")
