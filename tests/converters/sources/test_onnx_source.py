"""ONNX files as sources: what is made of a graph, what names it keeps, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, parser

from edgekit.converters.sources.onnx import SOURCE
from edgekit.converters.sources.onnx.file import read_model
from edgekit.converters.sources.onnx.source import build_net
from edgekit.core.errors import ConversionError, IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.source import ImportedModel, SourceOptions


def write(path: Path, text: str, *, opset: int = 18, **constants: np.ndarray[Any, Any]) -> Path:
    """A graph in ONNX's own textual form, with constants by name."""
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    for node in model.graph.node:  # the textual form has no dots in names
        node.input[:] = [name.replace("_DOT_", ".") for name in node.input]
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    onnx.save(model, path)
    return path


def read(path: Path, **options: Any) -> ImportedModel:
    return SOURCE.read(path, options=SourceOptions(**options))


def operators_of(model: ImportedModel) -> list[str]:
    return [str(node.target) for node in model.program.graph.nodes if node.op == "call_function"]


def answer(model: ImportedModel, *inputs: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    with torch.no_grad():
        return [tensor.numpy() for tensor in model.program.module(check_guards=False)(*map(torch.from_numpy, inputs))]


def original(path: Path, **inputs: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    import onnxruntime

    return list(onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, inputs))


def normal(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


LAYER = """
agraph (float[1, 5, 8] x) => (float[1, 5, 6] y) {
  mean = ReduceMean <axes = [-1]> (x)
  centred = Sub (x, mean)
  square = Pow (centred, two)
  variance = ReduceMean <axes = [-1]> (square)
  shifted = Add (variance, epsilon)
  root = Sqrt (shifted)
  normal = Div (centred, root)
  scaled = Mul (normal, norm_DOT_weight)
  normed = Add (scaled, norm_DOT_bias)
  product = MatMul (normed, fc_DOT_weight)
  summed = Add (fc_DOT_bias, product)
  part = Div (summed, root2)
  error = Erf (part)
  more = Add (error, one)
  half_way = Mul (summed, more)
  y = Mul (half_way, half)
}
"""


def layer(path: Path) -> Path:
    scalars = {"two": 2.0, "epsilon": 1e-5, "root2": 2**0.5, "one": 1.0, "half": 0.5}
    weights = {"norm.weight": normal(8), "norm.bias": normal(8, seed=1), "fc.weight": normal(8, 6), "fc.bias": normal(6)}
    return write(path, LAYER, opset=13, **weights, **{name: np.float32(value) for name, value in scalars.items()})


def test_layers_taken_apart_become_whole_again_and_keep_their_names(tmp_path: Path) -> None:
    path = layer(tmp_path / "layer.onnx")
    model = read(path)
    assert operators_of(model) == ["aten.layer_norm.default", "aten.linear.default", "aten.gelu.default"]
    assert {"norm.weight", "norm.bias", "fc.bias"} <= set(model.program.state_dict)
    assert [node.name for node in model.program.graph.nodes if node.op == "call_function"] == ["normed", "summed", "y"]
    assert [spec.name for spec in model.outputs] == ["y"]
    x = normal(1, 5, 8, seed=3)
    np.testing.assert_allclose(answer(model, x)[0], original(path, x=x)[0], atol=1e-5)


def test_the_program_is_written_again_and_answers_the_same(tmp_path: Path) -> None:
    """Read, saved, loaded, converted to ONNX, run."""
    from edgekit.conversion import convert_in_worker
    from edgekit.core.artifact import ExportOptions
    from edgekit.intake import import_in_worker

    path, folder, output = layer(tmp_path / "layer.onnx"), tmp_path / "compressed", tmp_path / "out"
    output.mkdir()
    import_in_worker(
        source="onnx", path=str(path), output=str(folder), options=SourceOptions().model_dump(mode="json"), keep_all=False
    )
    options = ExportOptions().model_dump(mode="json")
    convert_in_worker(target="onnx", compressed=str(folder), output=str(output), as_float=False, options=options)
    x = normal(1, 5, 8, seed=4)
    np.testing.assert_allclose(original(output / "model.onnx", x=x)[0], original(path, x=x)[0], atol=1e-5)


def test_shapes_that_are_computed_are_folded(tmp_path: Path) -> None:
    text = """
    agraph (float[N, 4, 6] x) => (float[N, a, b] y) {
      whole = Shape (x)
      first = Gather <axis = 0> (whole, zero)
      row = Unsqueeze (first, axes)
      shape = Concat <axis = 0> (row, rest)
      y = Reshape (x, shape)
    }
    """
    path = write(tmp_path / "shape.onnx", text, zero=np.int64(0), axes=np.array([0]), rest=np.array([3, 8]))
    model = read(path)
    assert operators_of(model) == ["aten.reshape.default"]
    assert model.inputs[0].shape == (1, 4, 6)
    assert "fixed to [1, 4, 6]" in model.notes[0]
    assert read(path, shapes={"x": (2, 4, 6)}).outputs[0].shape == (2, 3, 8)


def test_open_sizes_are_asked_for_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "open.onnx", "agraph (float[N, C, 6] pixels) => (float[N, C, 6] y) { y = Relu (pixels) }")
    with pytest.raises(UsageError, match="--shape pixels="):
        read(path)
    with pytest.raises(UsageError, match="has no input 'pixel'"):
        read(path, shapes={"pixel": (1, 2, 6)})


IF = """
agraph (float[2, 3] x, bool c) => (float[2, 3] y) {
  y = If (c) <
    then_branch = yes () => (float[2, 3] a) { a = Relu (x) },
    else_branch = no () => (float[2, 3] b) { b = Neg (x) }
  >
}
"""


def test_a_choice_by_data_computes_both_branches(tmp_path: Path) -> None:
    path = write(tmp_path / "if.onnx", IF)
    model = read(path)
    assert operators_of(model) == ["aten.relu.default", "aten.neg.default", "aten.where.self"]
    x = normal(2, 3)
    for taken in (True, False):
        np.testing.assert_array_equal(answer(model, x, np.array(taken))[0], original(path, x=x, c=np.array(taken))[0])


def test_a_choice_by_a_constant_leaves_one_branch(tmp_path: Path) -> None:
    path = write(tmp_path / "if.onnx", IF.replace(", bool c", ""), c=np.array(False))
    assert operators_of(read(path)) == ["aten.neg.default"]


def test_an_input_that_is_fixed_leaves_one_branch(tmp_path: Path) -> None:
    model = read(write(tmp_path / "if.onnx", IF), constants={"c": 1})
    assert operators_of(model) == ["aten.relu.default"]
    assert [spec.name for spec in model.inputs] == ["x"]
    assert "Input 'c' is 1 in every call." in model.notes
    with pytest.raises(UsageError, match="no input 'd'"):
        read(tmp_path / "if.onnx", constants={"d": 1})


def test_branches_of_different_shapes_are_refused_with_the_way_out(tmp_path: Path) -> None:
    text = IF.replace("b = Neg (x)", "b = ReduceSum (x)")
    with pytest.raises(UnsupportedOpError, match=r"chooses by 'c'.*different shapes.*Fix that input"):
        read(write(tmp_path / "if.onnx", text))


def test_a_loop_of_known_length_is_unrolled(tmp_path: Path) -> None:
    text = """
    agraph (float[2] x) => (float[2] last, float[K, 2] all) {
      last, all = Loop (three, yes, x) <body = turn (int64 i, bool go, float[2] v) => (bool go_on, float[2] w, float[2] row) {
        go_on = Identity (go)
        w = Add (v, v)
        row = Identity (w)
      }>
    }
    """
    path = write(tmp_path / "loop.onnx", text, three=np.int64(3), yes=np.array(True))
    x = normal(2)
    for got, wanted in zip(answer(read(path), x), original(path, x=x), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_lstm_with_state(tmp_path: Path, steps: int, direction: str) -> None:
    count = 2 if direction == "bidirectional" else 1
    text = f"""
    agraph (float[{steps}, 1, 3] x, float[{count}, 1, 4] h, float[{count}, 1, 4] c)
        => (float[{steps}, {count}, 1, 4] y, float[{count}, 1, 4] hn, float[{count}, 1, 4] cn) {{
      y, hn, cn = LSTM <hidden_size = 4, direction = "{direction}"> (x, w, r, b, , h, c)
    }}
    """
    path = write(tmp_path / "lstm.onnx", text, w=normal(count, 16, 3), r=normal(count, 16, 4), b=normal(count, 32))
    model = read(path)
    assert ("aten.lstm.input" in operators_of(model)) == (steps > 1)
    values = {"x": normal(steps, 1, 3, seed=5), "h": normal(count, 1, 4, seed=6), "c": normal(count, 1, 4, seed=7)}
    for got, wanted in zip(answer(model, *values.values()), original(path, **values), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_plain_recurrent_layer(tmp_path: Path) -> None:
    text = "agraph (float[5, 1, 3] x) => (float[5, 1, 1, 4] y, float[1, 1, 4] h) { y, h = RNN <hidden_size = 4> (x, w, r, b) }"
    path = write(tmp_path / "rnn.onnx", text, w=normal(1, 4, 3), r=normal(1, 4, 4), b=normal(1, 8))
    x = normal(5, 1, 3, seed=2)
    for got, wanted in zip(answer(read(path), x), original(path, x=x), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_quantized_files_keep_their_integers(tmp_path: Path) -> None:
    text = """
    agraph (float[1, 2, 5, 5] x) => (float[1, 3, 5, 5] y) {
      q = QuantizeLinear (x, s, z)
      d = DequantizeLinear (q, s, z)
      w = DequantizeLinear <axis = 0> (weight, ws, wz)
      made = Conv <pads = [1, 1, 1, 1]> (d, w)
      r = QuantizeLinear (made, t, z)
      y = DequantizeLinear (r, t, z)
    }
    """
    weight = np.random.default_rng(0).integers(-127, 127, (3, 2, 3, 3), np.int8)
    grids = {"s": np.float32(0.02), "t": np.float32(0.05), "ws": np.array([0.01, 0.02, 0.03], np.float32)}
    path = write(tmp_path / "q.onnx", text, weight=weight, z=np.uint8(128), wz=np.zeros(3, np.int8), **grids)
    model = read(path)
    assert torch.equal(model.program.state_dict["weight"], torch.from_numpy(weight))
    assert "quantized_decomposed.dequantize_per_channel.default" in operators_of(model)
    x = normal(1, 2, 5, 5)
    np.testing.assert_allclose(answer(model, x)[0], original(path, x=x)[0], atol=0.0501)  # one step of rounding
    assert np.mean(answer(model, x)[0] == original(path, x=x)[0]) > 0.95


def test_an_unknown_operator_is_named_with_its_node(tmp_path: Path) -> None:
    node = helper.make_node("Sparkle", ["x"], ["y"], name="/head/Sparkle", domain="example.org")
    edge = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", edge[:1], edge[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("example.org", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "odd.onnx")
    with pytest.raises(UnsupportedOpError, match=r"'Sparkle' \(example.org 3\), node '/head/Sparkle'"):
        read(tmp_path / "odd.onnx")


def test_a_function_of_the_file_is_opened(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18, "own" : 1]>
    agraph (float[2] x) => (float[2] y) { y = own.twice <factor = 3.0> (x) }
    <domain: "own", opset_import: ["" : 18]> twice <factor> (a) => (b) {
      f = Constant <value_float: float = @factor> ()
      b = Mul (a, f)
    }"""
    model = parser.parse_model(text)
    onnx.save(model, tmp_path / "own.onnx")
    np.testing.assert_array_equal(answer(read(tmp_path / "own.onnx"), np.ones(2, np.float32))[0], np.full(2, 3, np.float32))


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    good = layer(tmp_path / "good.onnx").read_bytes()
    cases = {"empty": b"", "text": b"this is no model at all, but a letter to a friend", "cut": good[: len(good) // 2]}
    for name, data in cases.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(IntegrityError, match=str(path)):
            read(path)


def test_damaged_graphs_are_refused(tmp_path: Path) -> None:
    twice = "agraph (float[2] x) => (float[2] y) { y = Relu (x) y = Neg (x) }"
    nobody = "agraph (float[2] x) => (float[2] y) { y = Add (x, missing) }"
    for text in (twice, nobody):
        with pytest.raises(IntegrityError, match="not valid ONNX"):
            read(write(tmp_path / "bad.onnx", text))
    with pytest.raises(IntegrityError, match="two outputs of the name 'y'"):
        read(write(tmp_path / "bad.onnx", "agraph (float[2] x) => (float[2] y, float[2] y) { y = Relu (x) }"))
    with pytest.raises(IntegrityError, match="damaged or hostile"):
        read(write(tmp_path / "big.onnx", "agraph (float[1] x) => (float[N] y) { y = Expand (x, s) }", s=np.array([2**40])))


def test_opsets_that_are_too_old_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "old.onnx", "agraph (float[2] x) => (float[2] y) { y = Relu (x) }", opset=6)
    with pytest.raises(UnsupportedOpError, match="opset 6; edgekit reads 7 to"):
        read(path)


def test_shapes_that_do_not_fit_name_the_node(tmp_path: Path) -> None:
    text = "agraph (float[N, A] x) => (float[N, 4] y) { y = MatMul (x, w) }"
    path = write(tmp_path / "fit.onnx", text, w=normal(3, 4))
    with pytest.raises(ConversionError, match=r"MatMul.*x float32 \[1, 5\].*--shape"):
        read(path, shapes={"x": (1, 5)})


def external(path: Path, location: str) -> Path:
    """A model whose weight is said to lie elsewhere."""
    model = parser.parse_model('<ir_version: 8, opset_import: ["" : 18]> agraph (float[4] x) => (float[4] y) { y = Add (x, w) }')
    tensor = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    (path.parent / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="16")
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    model = read_model(external(tmp_path / "model.onnx", "weights.bin"))
    net, *_ = build_net(model, options=SourceOptions(), where="model")
    assert net(torch.zeros(4))[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("location", ["/etc/hostname", "../weights.bin", "", "link.bin", "hard.bin", "none.bin", "short.bin"])
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder / "model.onnx", location)
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    os.link(tmp_path / "weights.bin", folder / "hard.bin")
    (folder / "short.bin").write_bytes(bytes(7))
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        read(path)
