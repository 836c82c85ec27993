"""What the file readers of the audit see in files whose content is known: packed integers, blocks, kernels, work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.litert import RUNTIME as LITERT
from edgekit.runtimes.onnxruntime_stored import read_file

INTEGERS = np.random.default_rng(0).integers(-8, 8, (6, 64)).astype(np.int8)
SCALES = np.random.default_rng(1).uniform(0.01, 0.02, (6, 2)).astype(np.float32)
SAMPLE = {"x": np.random.default_rng(2).standard_normal((3, 64)).astype(np.float32)}


def model(nodes: list[Any], constants: dict[str, Any], *, opset: int = 21) -> bytes:
    """A file ``x [3, 64] -> y [3, 6]``."""
    import onnx
    from onnx import TensorProto, helper

    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", (3, 64)), ("y", (3, 6)))]
    held = [value if isinstance(value, onnx.TensorProto) else onnx.numpy_helper.from_array(value, name)
            for name, value in constants.items()]  # fmt: skip
    graph = helper.make_graph(nodes, "g", edges[:1], edges[1:], held)
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10).SerializeToString()


def test_four_bits_packed_by_matmulnbits() -> None:
    from onnx import helper

    unsigned = (INTEGERS.astype(np.int16) + 8).astype(np.uint8)
    packed = (unsigned[:, 0::2] | (unsigned[:, 1::2] << 4)).reshape(6, 2, 16)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=64, N=6, bits=4, block_size=32, name="head"
    )
    file = read_file(model([node], {"w": packed, "s": SCALES.reshape(-1)}), "test", SAMPLE)
    [weight] = [constant for constant in file.constants if constant.name == "w"]
    np.testing.assert_array_equal(weight.values, INTEGERS)
    assert (weight.dtype, weight.grid.granularity) == ("int4", "block 32")
    np.testing.assert_array_equal(weight.grid.scale, SCALES.reshape(-1))
    [kernel] = file.kernels
    assert (kernel.op, kernel.arithmetic, kernel.macs, kernel.weights) == ("MatMulNBits", "float", 3 * 64 * 6, ("w",))


def test_four_bits_in_blocks_under_a_dequantize_node() -> None:
    import onnx
    from onnx import TensorProto, helper

    unsigned = (INTEGERS.T.reshape(-1) & 15).astype(np.uint8)
    data = (unsigned[0::2] | (unsigned[1::2] << 4)).tobytes()
    weight = onnx.TensorProto(name="w", data_type=TensorProto.INT4, dims=(64, 6), raw_data=data)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wf"], axis=0, block_size=32, name="decode"),
        helper.make_node("MatMul", ["x", "wf"], ["y"], name="head"),
    ]
    file = read_file(model(nodes, {"w": weight, "s": np.ascontiguousarray(SCALES.T)}), "test", SAMPLE)
    [found] = [constant for constant in file.constants if constant.name == "w"]
    np.testing.assert_array_equal(found.values, INTEGERS.T)
    assert found.grid is not None and (found.dtype, found.grid.granularity) == ("int4", "block 32")
    [kernel] = file.kernels
    assert kernel.arithmetic == "float" and kernel.macs == 3 * 64 * 6
    assert file.stray_dequantizes == 0  # a weight's is none


def test_a_dynamic_kernel_is_told_from_a_static_one() -> None:
    from onnx import helper

    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "w", "xz"], ["acc"], name="head"),
        helper.make_node("Cast", ["acc"], ["accf"], to=1),
        helper.make_node("Mul", ["xs", "s"], ["step"]),
        helper.make_node("Mul", ["accf", "step"], ["y"]),
    ]
    constants = {"w": np.ascontiguousarray(INTEGERS.T), "s": SCALES[:, 0].copy()}
    file = read_file(model(nodes, constants), "test", SAMPLE)
    [weight] = [constant for constant in file.constants if constant.name == "w"]
    assert weight.grid is not None and weight.grid.granularity == "channel"
    np.testing.assert_array_equal(weight.grid.scale, SCALES[:, 0])
    [kernel] = file.kernels
    assert kernel.arithmetic == "dynamic" and kernel.macs == 3 * 64 * 6


def test_a_stray_dequantize_is_counted() -> None:
    from onnx import helper

    scale, zero = np.array(0.1, np.float32), np.array(0, np.uint8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="head"),
    ]
    weight = INTEGERS.T.astype(np.float32)
    file = read_file(model(nodes, {"w": weight, "s": scale, "z": zero}), "test", SAMPLE)
    assert file.stray_dequantizes == 1
    assert file.kernels[0].arithmetic == "float"
    assert file.grids["q"].scale.tolist() == [pytest.approx(0.1)] and file.grids["q"].dtype == "uint8"


def test_bytes_that_are_no_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="is not a model ONNX Runtime can run"):
        read_file(b"not a model", "there.onnx", {})
    (tmp_path / "m.tflite").write_bytes(b"not a model")
    with pytest.raises(IntegrityError):
        LITERT.read_file(tmp_path / "m.tflite", {})
