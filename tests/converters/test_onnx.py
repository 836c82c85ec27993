"""The ONNX converter: what the file holds, which kernels ONNX Runtime takes for it, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit import pipeline
from edgekit.converters import onnx_integers
from edgekit.converters.onnx import CONVERTER
from edgekit.converters.onnx_ort import chosen_kernels
from edgekit.converters.onnx_report import read_contract
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ConversionError, UnsupportedOpError
from edgekit.core.recipe import Quantize, Recipe
from edgekit.core.task import Task
from edgekit.core.tensors import dequantize, quantize
from edgekit.runtimes.onnxruntime import RUNTIME

EDGES_ONLY = {"QuantizeLinear": 1, "DequantizeLinear": 1}


class Mobile(nn.Module):
    """Inverted residual between a strided stem and a global mean, as in MobileNetV2."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.wide = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6())
        self.narrow = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)
        nn.init.normal_(self.stem[1].bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        x = x + self.narrow(self.depthwise(self.wide(x)))
        return self.head(functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class Signal(nn.Module):
    """1-D convolutions, pooling, and a global mean that torch lowers through a fourth axis."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(6, 8, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
            nn.Conv1d(8, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 7),
        )  # fmt: skip

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return self.layers(signal)


class Attention(nn.Module):
    """One block of a transformer: linear layers over [N, S, C], attention, float normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.mix, self.leave = nn.Linear(6, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.norm, self.grow, self.shrink, self.head = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.enter(tokens)
        q, k, v = self.mix(self.norm(x)).chunk(3, dim=-1)
        x = x + self.leave((q @ k.transpose(-1, -2)).softmax(-1) @ v)
        x = x + self.shrink(torch.relu(self.grow(x)))
        return self.head(x)


class SharedGrid(nn.Module):
    """A concatenation of a ReLU and a signed tensor: the ReLU is no longer the end of its grid."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(8, 4, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cat([functional.relu6(self.left(image)), self.right(image)], 1))


class Photo(nn.Module):
    """A large image of three channels: its first convolution gets a fourth."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.stem(image)).mean((2, 3)))


class TwoByTwo(nn.Module):
    """Two inputs, a dictionary of two outputs, one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(5, 8), nn.Linear(8, 3, bias=False)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> dict[str, torch.Tensor]:
        mixed = self.a(first) * self.b(second)
        return {"linear": self.c(mixed), "add": mixed + self.a(first)}


SHAPES: dict[type[nn.Module], dict[str, tuple[int, ...]]] = {
    Mobile: {"image": (1, 3, 16, 12)},
    Signal: {"signal": (1, 6, 40)},
    Attention: {"tokens": (2, 5, 6)},
    SharedGrid: {"image": (1, 3, 8, 8)},
    Photo: {"image": (1, 3, 32, 40)},
    TwoByTwo: {"first": (1, 4), "second": (1, 5)},
}
KERNELS: dict[type[nn.Module], dict[str, int]] = {
    Mobile: {"QLinearConv": 4, "QLinearAdd": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1, **EDGES_ONLY},
    Signal: {"QLinearConv": 3, "QLinearGlobalAveragePool": 1, "QGemm": 1, **EDGES_ONLY},
    Attention: {"QGemm": 8, "QLinearMatMul": 2, "QLinearAdd": 2, "QLinearSoftmax": 1, "LayerNormalization": 1},
    SharedGrid: {"QLinearConv": 3, "QLinearConcat": 1, "Clip": 1, **EDGES_ONLY},
    Photo: {"QLinearConv": 1, "Pad": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1, **EDGES_ONLY},
    TwoByTwo: {"QGemm": 4, "QLinearMul": 1, "QLinearAdd": 1, "QuantizeLinear": 2, "DequantizeLinear": 2},
}


def make_task(model: Callable[[], nn.Module], shapes: dict[str, tuple[int, ...]]) -> Task:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return model()

    random = np.random.default_rng(0)
    batch = {name: random.standard_normal((16 * shape[0], *shape[1:]), np.float32) for name, shape in shapes.items()}
    return Task(
        name="net",
        model=build,
        example_inputs={name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
        calibration=[batch],
        labels=["zero", "one"],
        preprocessing={"mean": [0.5]},
    )


@pytest.fixture(scope="module")
def compress() -> Callable[[type[nn.Module]], Compressed]:
    kept: dict[type[nn.Module], Compressed] = {}

    def once(model: type[nn.Module]) -> Compressed:
        if model not in kept:
            kept[model] = pipeline.compress(make_task(model, SHAPES[model]), recipe="int8")
        return kept[model]

    return once


@pytest.fixture(scope="module")
def convert(compress: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    kept: dict[Any, Artifact] = {}

    def once(model: type[nn.Module], **options: Any) -> Artifact:
        key = (model, *sorted(options.items()))
        if key not in kept:
            kept[key] = CONVERTER.convert(
                compress(model), output=tmp_path_factory.mktemp("onnx"), options=ExportOptions(**options)
            )
        return kept[key]

    return once


def answers(artifact: Artifact, compressed: Compressed) -> dict[str, np.ndarray]:
    session = RUNTIME.load(artifact.path)
    count = len(next(iter(compressed.golden.inputs.values())))
    rows = [session.run({name: values[i] for name, values in compressed.golden.inputs.items()}) for i in range(count)]
    return {spec.name: np.stack([row[spec.name] for row in rows]) for spec in artifact.outputs}


def read_again(model: onnx.ModelProto, artifact: Artifact, compressed: Compressed) -> dict[str, str]:
    report = read_contract(model.SerializeToString(), compressed.contract, compressed.program, renamed={})
    before = {outcome.name: outcome.outcome for outcome in artifact.contract_report.outcomes}
    return {outcome.name: outcome.outcome for outcome in report.outcomes if outcome.outcome != before[outcome.name]}


@pytest.mark.parametrize("model", SHAPES, ids=lambda model: model.__name__)
class TestEveryNet:
    def test_file_is_valid_onnx_with_the_recorded_edges(self, convert: Any, compress: Any, model: type[nn.Module]) -> None:
        artifact, record = convert(model), compress(model).record
        proto = onnx.load(artifact.path)
        onnx.checker.check_model(proto, full_check=True)
        assert [value.name for value in proto.graph.input] == [spec.name for spec in record.inputs]
        assert [value.name for value in proto.graph.output] == [spec.name for spec in record.outputs]
        assert (artifact.inputs, artifact.outputs) == (record.inputs, record.outputs)

    def test_every_entry_is_kept(self, convert: Any, compress: Any, model: type[nn.Module]) -> None:
        activations = {entry.name for entry in compress(model).contract.activations}
        for outcome in convert(model).contract_report.outcomes:
            expected = ("re-typed", 128, "uint8") if outcome.name in activations else ("honoured", 0, outcome.dtype)
            assert (outcome.outcome, outcome.zero_point_shift, outcome.dtype) == expected

    def test_onnx_runtime_takes_its_integer_kernels(self, convert: Any, model: type[nn.Module]) -> None:
        found = chosen_kernels(convert(model).path)
        wanted = KERNELS[model]
        assert {name: found[name] for name in wanted} == wanted
        assert not {"Conv", "Gemm", "MatMul", "ReduceMean", "Add", "Mul", "Concat", "Softmax"} & set(found)

    def test_answers_are_the_programs_within_two_steps(self, convert: Any, compress: Any, model: type[nn.Module]) -> None:
        compressed = compress(model)
        for name, values in answers(convert(model), compressed).items():
            steps = np.abs(values - compressed.golden.outputs[name]) / output_scale(compressed, name)
            assert steps.max() < 2.1
            assert (steps < 0.1).mean() > 0.8


class TestOptions:
    def test_signed_activations_are_the_contracts_own(self, convert: Any, compress: Any) -> None:
        artifact, compressed = convert(Mobile, activation_type="int8"), compress(Mobile)
        assert artifact.contract_report.counts == {"honoured": len(compressed.contract.entries)}
        steps = np.abs(answers(artifact, compressed)["output"] - compressed.golden.outputs["output"])
        assert steps.max() < 2.1 * output_scale(compressed, "output")

    @pytest.mark.parametrize("model", [Mobile, TwoByTwo])
    def test_float_baseline_is_the_float_program(self, compress: Any, model: type[nn.Module], tmp_path: Path) -> None:
        state = compress(model).as_float()
        artifact = CONVERTER.convert(state, output=tmp_path, options=ExportOptions())
        assert artifact.precision == "float32"
        assert artifact.contract_report.outcomes == ()
        assert not any("Quantize" in node.op_type for node in onnx.load(artifact.path).graph.node)
        for name, values in answers(artifact, state).items():
            np.testing.assert_allclose(values, state.golden.outputs[name], atol=1e-5)

    @pytest.mark.parametrize("model", [Mobile, TwoByTwo, SharedGrid, Photo])
    def test_integer_edges(self, convert: Any, compress: Any, model: type[nn.Module]) -> None:
        compressed, artifact = compress(model), convert(model, integer_io=True)
        session, reference = RUNTIME.load(artifact.path), RUNTIME.load(convert(model).path)
        assert (session.inputs, session.outputs) == (artifact.inputs, artifact.outputs)
        assert {spec.dtype for spec in (*artifact.inputs, *artifact.outputs)} == {"uint8"}
        real = {name: values[0] for name, values in compressed.golden.inputs.items()}
        integers = {
            spec.name: quantize(
                real[spec.name], scale=spec.scale or 0, zero_point=spec.zero_point or 0, minimum=0, maximum=255, dtype="uint8"
            )
            for spec in artifact.inputs
        }
        expected, found = reference.run(real), session.run(integers)
        for spec in artifact.outputs:
            values = dequantize(found[spec.name], scale=spec.scale or 0, zero_point=spec.zero_point or 0)
            np.testing.assert_array_equal(values, expected[spec.name])
        assert artifact.contract_report.counts == convert(model).contract_report.counts


def output_scale(compressed: Compressed, name: str) -> float:
    """The step of an output: the smallest difference between two of its values."""
    values = np.unique(compressed.golden.outputs[name])
    return float(np.diff(values).min())


class TestBytes:
    def test_a_layer_called_twice_has_integers_for_each_call(self, convert: Any) -> None:
        """Each call has a multiplier of its own, and so a scale; ONNX Runtime also fuses only weights that nothing else reads."""
        outcomes = {outcome.name: outcome for outcome in convert(TwoByTwo).contract_report.outcomes}
        assert outcomes["a.weight"].outcome == outcomes["a.weight:2"].outcome == "honoured"
        assert outcomes["a.weight"].tensor != outcomes["a.weight:2"].tensor

    def test_biases_are_the_contracts_int32(self, convert: Any, compress: Any) -> None:
        import hashlib

        artifact, contract = convert(Mobile), compress(Mobile).contract
        stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(artifact.path).graph.initializer}
        tensors = artifact.contract_report.tensors
        for entry in contract.parameters:
            values = stored[tensors[entry.name].tensor]
            assert str(values.dtype) == entry.dtype
            assert hashlib.sha256(values.tobytes()).hexdigest() == entry.sha256

    @pytest.mark.parametrize(("entry", "dtype"), [("narrow.weight", np.int8), ("narrow.bias", np.int32)])
    def test_report_notices_one_changed_integer(self, convert: Any, compress: Any, entry: str, dtype: type) -> None:
        artifact, proto = convert(Mobile), onnx.load(convert(Mobile).path)
        name = artifact.contract_report.tensors[entry].tensor
        tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
        values = onnx.numpy_helper.to_array(tensor).copy()
        values.flat[3] ^= 1
        assert values.dtype == dtype
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
        assert read_again(proto, artifact, compress(Mobile)) == {entry: "dropped"}

    @pytest.mark.parametrize("entry", ["narrow", "narrow.weight", "narrow.bias"])
    def test_report_notices_another_scale(self, convert: Any, compress: Any, entry: str) -> None:
        artifact, proto = convert(Mobile), onnx.load(convert(Mobile).path)
        name = artifact.contract_report.tensors[entry].tensor
        for node in proto.graph.node:
            if "Quantize".lower() in node.op_type.lower() and name in (node.input[0], node.output[0]):
                scale = next(tensor for tensor in proto.graph.initializer if tensor.name == node.input[1])
                changed = np.nextafter(onnx.numpy_helper.to_array(scale), np.float32(9))
                proto.graph.initializer.append(onnx.numpy_helper.from_array(changed, f"{entry}_other"))
                node.input[1] = f"{entry}_other"
        assert read_again(proto, artifact, compress(Mobile)) == {entry: "dropped"}

    def test_report_notices_another_zero_point(self, convert: Any, compress: Any) -> None:
        artifact, proto = convert(Mobile), onnx.load(convert(Mobile).path)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(7, np.uint8), "seven"))
        for node in proto.graph.node:
            if artifact.contract_report.tensors["narrow"].tensor in (node.input[0], node.output[0]):
                node.input[2] = "seven"
        assert read_again(proto, artifact, compress(Mobile)) == {"narrow": "dropped"}

    def test_channels_of_zeros_are_honest(self, convert: Any, compress: Any) -> None:
        artifact, proto = convert(Photo), onnx.load(convert(Photo).path)
        outcome = artifact.contract_report.tensors["stem.weight"]
        assert (outcome.outcome, outcome.reason.split(",")[0]) == ("honoured", "with input channels of zeros")
        tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == outcome.tensor)
        values = onnx.numpy_helper.to_array(tensor).copy()
        assert values.shape == (8, 4, 3, 3)
        values[2, 3, 1, 1] = 1
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, outcome.tensor))
        assert read_again(proto, artifact, compress(Photo)) == {"stem.weight": "dropped"}

    def test_a_bias_of_zeros_is_folded(self, tmp_path: Path) -> None:
        def model() -> nn.Module:
            layer = nn.Conv1d(4, 3, 1)
            nn.init.zeros_(layer.bias)
            return nn.Sequential(layer, nn.ReLU())

        compressed = pipeline.compress(
            make_task(model, {"input": (1, 4, 8)}),
            recipe=Recipe(name="uncorrected", steps=(Quantize(bias_correction=False, rounding="nearest"),)),
        )
        artifact = CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())
        outcomes = {outcome.name: outcome for outcome in artifact.contract_report.outcomes}
        assert outcomes["0.bias"].outcome == "folded"
        assert "zero" in outcomes["0.bias"].reason
        assert artifact.contract_report.counts.get("dropped", 0) == 0

    def test_metadata_travels_and_nothing_private_does(self, convert: Any) -> None:
        artifact = convert(Mobile)
        proto = onnx.load(artifact.path)
        stored = {pair.key: pair.value for pair in proto.metadata_props}
        assert json.loads(stored["labels"]) == ["zero", "one"]
        assert json.loads(stored["preprocessing"]) == {"mean": [0.5]}
        assert proto.producer_name == "edgekit"
        assert Path(__file__).name.encode() not in artifact.path.read_bytes()
        assert {node.name.split("/")[0] for node in proto.graph.node if node.op_type == "Conv"} >= {"depthwise.0", "narrow"}

    def test_same_program_same_bytes(self, convert: Any, compress: Any, tmp_path: Path) -> None:
        again = CONVERTER.convert(compress(Signal), output=tmp_path, options=ExportOptions())
        assert again.sha256 == convert(Signal).sha256

    def test_weights_may_be_retyped_by_the_runtime(self, convert: Any, compress: Any) -> None:
        """Processors without VNNI need it; ONNX Runtime fails on it where weights share a zero point."""
        artifact, compressed = convert(Mobile), compress(Mobile)
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", "1")
        session = onnxruntime.InferenceSession(artifact.path.read_bytes(), options, providers=["CPUExecutionProvider"])
        sample = {"image": compressed.golden.inputs["image"][0]}
        np.testing.assert_array_equal(session.run(None, sample)[0], RUNTIME.load(artifact.path).run(sample)["output"])


def test_a_float_constant_on_an_activations_grid_is_retyped_on_both_sides() -> None:
    """Learned queries of detection transformers: a constant that is quantized where it is used."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        net (float[2] x) => (float[2] y)
        <float[2] queries = {1.0, -2.0}, float scale = {0.5}, int8 zero = {3}> {
            q = QuantizeLinear (queries, scale, zero)
            d = DequantizeLinear (q, scale, zero)
            y = Add (x, d)
        }""")
    read = ir.from_proto(model)
    onnx_integers.retype_activations(read.graph)
    changed = ir.to_proto(read)
    onnx.checker.check_model(changed, full_check=True)
    zeros = {node.op_type: node.input[2] for node in changed.graph.node if node.op_type != "Add"}
    assert zeros["QuantizeLinear"] == zeros["DequantizeLinear"] == "zero_uint8"


class TestOrt:
    @pytest.mark.parametrize("options", [{}, {"integer_io": True}], ids=str)
    def test_answers_as_the_onnx_file(self, convert: Any, options: dict[str, bool]) -> None:
        artifact = convert(Mobile, **options)
        spec = artifact.inputs[0]
        sample = {spec.name: np.random.default_rng(1).integers(0, 9, spec.shape).astype(spec.dtype)}
        first, second = RUNTIME.load(artifact.path), RUNTIME.load(artifact.companions["ort"])
        assert second.outputs == first.outputs
        np.testing.assert_array_equal(second.run(sample)["output"], first.run(sample)["output"])

    def test_config_names_the_operators(self, convert: Any) -> None:
        config = convert(Mobile).companions["operators"].read_text(encoding="utf-8")
        assert "QLinearConv" in config
        assert "QGemm" in config

    def test_no_processors_private_layout(self, compress: Any, tmp_path: Path) -> None:
        artifact = CONVERTER.convert(compress(Mobile).as_float(), output=tmp_path, options=ExportOptions())
        assert "nchwc" not in artifact.companions["operators"].read_text(encoding="utf-8").lower()

    def test_conversion_is_silent(self, compress: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        handlers = list(logging.getLogger().handlers)
        CONVERTER.convert(compress(TwoByTwo), output=tmp_path, options=ExportOptions())
        captured = capfd.readouterr()
        assert captured.out == ""
        assert "Created config" not in captured.err
        assert logging.getLogger().handlers == handlers


class TestRefused:
    def test_operator_without_onnx_form(self, tmp_path: Path) -> None:
        class Bessel(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.special.bessel_j0(x)

        model = nn.Sequential(nn.Linear(4, 4), Bessel())
        compressed = pipeline.compress(make_task(lambda: model, {"input": (1, 4)}), recipe="none")
        with pytest.raises(UnsupportedOpError, match=r"bessel_j0' in layer '1' has no ONNX form.*torch\.nn\.functional"):
            CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())
        assert list(tmp_path.iterdir()) == []

    def test_one_name_for_input_and_output(self, compress: Any, tmp_path: Path) -> None:
        compressed = compress(Mobile)
        clash = compressed.record.replace(outputs=(compressed.record.outputs[0].replace(name="image"),))
        with pytest.raises(ConversionError, match="'image' is an input and an output"):
            CONVERTER.convert(dataclasses.replace(compressed, record=clash), output=tmp_path, options=ExportOptions())

    def test_edges_may_be_called_like_inner_values(self, compress: Any, tmp_path: Path) -> None:
        compressed = compress(Mobile)
        record = compressed.record.replace(
            inputs=(compressed.record.inputs[0].replace(name="conv2d"),),
            outputs=(compressed.record.outputs[0].replace(name="quantize_per_tensor_1"),),
        )
        artifact = CONVERTER.convert(dataclasses.replace(compressed, record=record), output=tmp_path, options=ExportOptions())
        sample = compressed.golden.inputs["image"][0]
        found = RUNTIME.load(artifact.path).run({"conv2d": sample})
        assert list(found) == ["quantize_per_tensor_1"]
        assert np.abs(found["quantize_per_tensor_1"] - compressed.golden.outputs["output"][0]).max() < 0.1
        assert artifact.contract_report.counts.get("dropped", 0) == 0
