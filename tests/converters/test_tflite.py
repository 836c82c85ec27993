"""The TFLite converter: what the file holds, what the report reads back from it, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit import pipeline
from edgekit.converters import tflite
from edgekit.converters.tflite import CHANNELS_FIRST_METADATA, CONVERTER
from edgekit.converters.tflite_check import check_outputs
from edgekit.converters.tflite_flatbuffer import Graph
from edgekit.converters.tflite_recognise import recognise
from edgekit.converters.tflite_report import report
from edgekit.converters.tflite_values import Evidence, program_integers
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ConversionError, UnsupportedOpError
from edgekit.core.task import Task
from edgekit.core.tensors import dequantize, from_stored, quantize, to_stored
from edgekit.runtimes.litert import RUNTIME


class Signal(nn.Module):
    """A 1-D CNN as for windows of an inertial sensor: strides, padding, depthwise, a residual, all kinds of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(6, 8, 5, 2, 2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2))
        self.depthwise = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv1d(8, 8, 1)
        self.tail = nn.Sequential(
            nn.AvgPool1d(2), nn.Conv1d(8, 12, 3, bias=False), nn.ReLU6(), nn.AdaptiveAvgPool1d(1), nn.Flatten()
        )
        self.head = nn.Linear(12, 7)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        x = self.stem(signal)
        return self.head(self.tail(x + self.pointwise(torch.relu(self.depthwise(x)))))


class Mobile(nn.Module):
    """Inverted residual with as many channels as rows and columns: sizes do not tell the axis order. Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.wide, self.deep, self.narrow = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 8, 1)
        self.squeeze, self.head = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        x = x + self.narrow(functional.relu6(self.deep(functional.relu6(self.wide(x)))))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3)))).reshape(1, 8, 1, 1)
        return self.head(x.mean((2, 3)))


class Mixed(nn.Module):
    """Two outputs; transposed convolution, concatenation, hard swish, softmax; GELU and layer normalisation stay float."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(4, 8, 3, 2, 1), nn.ConvTranspose1d(8, 4, 3, 2, 1, 1)
        self.norm, self.mix, self.head = nn.LayerNorm(8), nn.Conv1d(8, 6, 3, padding=2, dilation=2), nn.Linear(6, 3)

    def forward(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low = functional.hardswish(self.down(signal))
        both = torch.cat([functional.relu(self.up(low)), signal * torch.sigmoid(signal)], 1)
        found = functional.max_pool1d(self.mix(both), 4).transpose(1, 2)
        return low, self.head(found).softmax(-1) + self.norm(functional.gelu(low.transpose(1, 2)))[:, :8, :3]


class Attention(nn.Module):
    """Scores are [1, 4, 4, 4]: channels last would have the same sizes, but a matmul keeps the program's order."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.leave = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.reshape(1, 4, 4, 2).transpose(1, 2) for part in self.mix(tokens).chunk(3, -1))
        return self.leave(((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).reshape(1, 4, 8))


SHAPES: dict[type[nn.Module], tuple[int, ...]] = {
    Signal: (1, 6, 40), Mobile: (1, 3, 16, 16), Mixed: (1, 4, 32), Attention: (1, 4, 8),
}  # fmt: skip
KERNELS: dict[type[nn.Module], dict[str, int]] = {
    Signal: {
        "QUANTIZE": 1, "RESHAPE": 1, "TRANSPOSE": 1, "PAD": 1, "CONV_2D": 3, "MAX_POOL_2D": 1, "DEPTHWISE_CONV_2D": 1, "ADD": 1,
        "AVERAGE_POOL_2D": 1, "MEAN": 1, "FULLY_CONNECTED": 1, "DEQUANTIZE": 1,
    },
    Mobile: {
        "QUANTIZE": 1, "TRANSPOSE": 1, "PAD": 1, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 1, "ADD": 1, "MEAN": 2, "FULLY_CONNECTED": 2,
        "LOGISTIC": 1, "MUL": 1, "DEQUANTIZE": 1,
    },
}  # fmt: skip


def make_task(model: Callable[[], nn.Module], shape: tuple[int, ...], name: str = "net") -> Task:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return model()

    samples = np.random.default_rng(0).standard_normal((16, *shape[1:]), np.float32)
    return Task(name=name, model=build, example_inputs=samples[: shape[0]], calibration=[samples], labels=["zero", "one"])


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
                compress(model), output=tmp_path_factory.mktemp("tflite"), options=ExportOptions(**options)
            )
        return kept[key]

    return once


def read(artifact: Artifact) -> Graph:
    return Graph(artifact.path.read_bytes())


def answers(artifact: Artifact, compressed: Compressed) -> dict[str, np.ndarray]:
    session = RUNTIME.load(artifact.path)
    (name, values), *_ = compressed.golden.inputs.items()
    rows = [session.run({name: value}) for value in values]
    return {spec.name: np.stack([row[spec.name] for row in rows]) for spec in artifact.outputs}


def record(compressed: Compressed) -> dict[str, np.ndarray]:
    """The program's integers for all golden inputs, ``[S, *shape]``."""
    count = len(next(iter(compressed.golden.inputs.values())))
    rows = []
    for at in range(count):
        inputs = {name: values[at : at + 1] for name, values in compressed.golden.inputs.items()}
        rows.append(
            program_integers(dataclasses.replace(compressed, golden=dataclasses.replace(compressed.golden, inputs=inputs)))
        )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def read_again(data: bytes, compressed: Compressed) -> dict[str, str]:
    """Outcome by entry, for other bytes than the converter wrote."""
    graph = Graph(data)
    evidence = Evidence.collect(data, compressed, program_integers(compressed))
    found = recognise(graph, compressed.contract, compressed.program, evidence=evidence)
    return {outcome.name: outcome.outcome for outcome in report(graph, compressed.contract, found).outcomes}


@pytest.mark.parametrize("model", SHAPES, ids=lambda model: model.__name__)
class TestEveryNet:
    def test_edges_are_the_programs(self, convert: Any, compress: Any, model: type[nn.Module]) -> None:
        artifact, names = convert(model), compress(model).record
        session = RUNTIME.load(artifact.path)
        assert (artifact.inputs, artifact.outputs) == (names.inputs, names.outputs)
        assert (session.inputs, session.outputs) == (names.inputs, names.outputs)

    def test_every_entry_is_in_the_file(self, convert: Any, compress: Any, model: type[nn.Module]) -> None:
        artifact, contract = convert(model), compress(model).contract
        for outcome, entry in zip(artifact.contract_report.outcomes, contract.entries, strict=True):
            assert outcome.name == entry.name
            if outcome.outcome == "folded":
                assert "only moves values" in outcome.reason
            else:
                assert (outcome.outcome, outcome.dtype, outcome.zero_point_shift) == ("honoured", entry.dtype, 0)
                assert outcome.tensor in {entry.name, f"{entry.name}/int8"} or not entry.layer

    def test_every_layer_is_within_one_step(self, convert: Any, compress: Any, model: type[nn.Module]) -> None:
        artifact, compressed = convert(model), compress(model)
        recorded = record(compressed)
        replayed = RUNTIME.replay_layers(artifact, compressed.contract, recorded)
        computed = [entry.name for entry in compressed.contract.activations if entry.role == "activation"]
        assert list(replayed) == [name for name in computed if name in artifact.contract_report.tensors]
        exact = []
        for name, values in replayed.items():
            steps = np.abs(values.astype(int) - recorded[name].astype(int))
            assert steps.max() <= 1, f"{name}: {steps.max()} steps"
            exact.append((steps == 0).ravel())
        assert np.concatenate(exact).mean() > 0.95

    def test_answers_are_the_programs_within_two_steps(self, convert: Any, compress: Any, model: type[nn.Module]) -> None:
        compressed = compress(model)
        for name, values in answers(convert(model), compressed).items():
            expected = compressed.golden.outputs[name]
            step = float(np.ptp(expected)) / 255
            assert np.abs(values - expected).max() < 2.5 * step

    def test_nothing_private_is_in_the_file(self, convert: Any, model: type[nn.Module]) -> None:
        data = convert(model).path.read_bytes()
        assert Path(__file__).name.encode() not in data
        assert b"site-packages" not in data
        assert b"locals" not in data


class TestInside:
    @pytest.mark.parametrize("model", KERNELS, ids=lambda model: model.__name__)
    def test_pure_integer(self, convert: Any, model: type[nn.Module]) -> None:
        graph = read(convert(model))
        assert Counter(graph.kind(operator) for operator in graph.operators) == KERNELS[model]
        for operator in graph.operators[:-1]:
            assert {graph.dtype(int(index)) for index in operator.outputs} == {"int8"}
        weighted = [operator for operator in graph.operators if graph.kind(operator) in {"CONV_2D", "FULLY_CONNECTED"}]
        assert {graph.dtype(int(operator.inputs[2])) for operator in weighted} == {"int32"}

    def test_only_the_input_is_transposed(self, convert: Any) -> None:
        (note,) = convert(Signal).notes
        assert note == "1 transpose(s) from the program's [N, C, ...] to TFLite's [N, ..., C] at the inputs"

    def test_float_islands_are_named(self, convert: Any) -> None:
        (note,) = (note for note in convert(Mixed).notes if "float" in note)
        assert "GELU x1" in note
        assert "CONV" not in note
        assert "RELU" not in note

    def test_transposed_convolutions_are_integer(self, convert: Any) -> None:
        graph = read(convert(Mixed))
        (operator,) = (operator for operator in graph.operators if graph.kind(operator) == "TRANSPOSE_CONV")
        assert [graph.dtype(int(index)) for index in operator.inputs] == ["int32", "int8", "int8", "int32"]
        assert graph.dtype(int(operator.outputs[0])) == "int8"

    def test_parameters_are_the_contracts_integers_and_scales(self, convert: Any, compress: Any) -> None:
        artifact, contract = convert(Mobile), compress(Mobile).contract
        graph = read(artifact)
        places = {graph.name(index): index for index in range(len(graph.subgraph.tensors))}
        for entry in contract.parameters:
            index = places[artifact.contract_report.tensors[entry.name].tensor]
            scales, zero_points, _ = graph.scales(index)
            assert scales.tolist() == list(entry.scale)
            assert not zero_points.any()
            if entry.role == "bias":
                assert hashlib.sha256(graph.constant(index).tobytes()).hexdigest() == entry.sha256
            else:
                assert sorted(graph.constant(index).ravel()) == sorted(integers_of(compress(Mobile), entry.node).ravel())

    def test_axis_order_is_stored_where_sizes_do_not_tell(self, convert: Any) -> None:
        graph = read(convert(Attention))
        stored = {bytes(entry.name): bytes(graph.model.buffers[entry.buffer].data) for entry in graph.model.metadata}
        assert stored[CHANNELS_FIRST_METADATA.encode()].decode().splitlines() == ["softmax"]
        assert CHANNELS_FIRST_METADATA.encode() not in convert(Mobile).path.read_bytes()

    def test_labels_travel(self, convert: Any) -> None:
        graph = read(convert(Signal))
        stored = {bytes(entry.name): bytes(graph.model.buffers[entry.buffer].data) for entry in graph.model.metadata}
        assert stored[b"edgekit.labels"] == b'["zero", "one"]'

    def test_same_program_same_bytes(self, convert: Any, compress: Any, tmp_path: Path) -> None:
        again = CONVERTER.convert(compress(Signal), output=tmp_path, options=ExportOptions())
        assert again.sha256 == convert(Signal).sha256


def integers_of(compressed: Compressed, node: str) -> np.ndarray:
    return compressed.program.state_dict[compressed.program.graph_signature.inputs_to_buffers[node]].numpy()


class TestOptions:
    @pytest.mark.parametrize("model", [Signal, Mixed])
    def test_float_baseline_is_the_float_program(self, compress: Any, model: type[nn.Module], tmp_path: Path) -> None:
        state = compress(model).as_float()
        artifact = CONVERTER.convert(state, output=tmp_path, options=ExportOptions())
        assert (artifact.precision, artifact.contract_report.outcomes) == ("float32", ())
        graph = read(artifact)
        assert {graph.dtype(int(index)) for operator in graph.operators for index in operator.outputs} == {"float32"}
        for name, values in answers(artifact, state).items():
            np.testing.assert_allclose(values, state.golden.outputs[name], atol=1e-5)

    @pytest.mark.parametrize("model", [Signal, Mixed])
    def test_integer_edges(self, convert: Any, compress: Any, model: type[nn.Module]) -> None:
        compressed, artifact = compress(model), convert(model, integer_io=True)
        integer, reference = RUNTIME.load(artifact.path), RUNTIME.load(convert(model).path)
        assert (integer.inputs, integer.outputs) == (artifact.inputs, artifact.outputs)
        (spec,) = artifact.inputs
        assert (spec.dtype, spec.name) == ("int8", "signal")
        entry = compressed.contract["signal"]
        assert (spec.scale, spec.zero_point) == (entry.scale[0], entry.zero_point[0])
        real = compressed.golden.inputs["signal"][0]
        found = integer.run({"signal": quantize(real, scale=entry.scale[0], zero_point=entry.zero_point[0])})
        for output in artifact.outputs:
            values = found[output.name]
            if output.dtype == "int8":
                values = dequantize(values, scale=output.scale or 0, zero_point=output.zero_point or 0)
            np.testing.assert_array_equal(values, reference.run({"signal": real})[output.name])

    @pytest.mark.parametrize("integer_io", [False, True])
    def test_channels_last_edges(self, convert: Any, compress: Any, integer_io: bool) -> None:
        """The picture goes in as a camera gives it, and no transpose is left in the file."""
        compressed = compress(Mobile)
        artifact = convert(Mobile, image_layout="channels-last", integer_io=integer_io, signature="classify")
        (spec,) = artifact.inputs
        assert (spec.shape, spec.is_channels_last, artifact.outputs[0].is_channels_last) == ((1, 16, 16, 3), True, False)
        graph = read(artifact)
        assert graph.model.signatureDefs[0].signatureKey in {"classify", b"classify"}
        assert "TRANSPOSE" not in {graph.kind(operator) for operator in graph.operators}
        real = compressed.golden.inputs["image"][0]
        found = RUNTIME.load(artifact.path).run({"image": to_stored(real, spec)})["output"]
        plain = RUNTIME.load(convert(Mobile).path).run({"image": real})["output"]
        np.testing.assert_array_equal(from_stored(found, artifact.outputs[0]), plain)
        assert {outcome.outcome for outcome in artifact.contract_report.outcomes} <= {"honoured", "re-typed", "folded"}

    def test_channels_last_pictures_come_out_too(self, tmp_path: Path) -> None:
        task = make_task(lambda: nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU()), (1, 3, 6, 7))
        state = pipeline.compress(task, recipe="none")
        options = ExportOptions(image_layout="channels-last")
        artifact = CONVERTER.convert(state, output=tmp_path, options=options)
        assert [spec.shape for spec in (*artifact.inputs, *artifact.outputs)] == [(1, 6, 7, 3), (1, 6, 7, 5)]
        graph = read(artifact)
        assert "TRANSPOSE" not in {graph.kind(operator) for operator in graph.operators}
        (real,) = state.golden.inputs.values()
        found = RUNTIME.load(artifact.path).run({artifact.inputs[0].name: to_stored(real[0], artifact.inputs[0])})
        returned = from_stored(found["output"], artifact.outputs[0])
        np.testing.assert_allclose(returned, state.golden.outputs["output"][0], atol=1e-6)


class TestReport:
    @pytest.mark.parametrize("entry", ["narrow.weight", "narrow.bias"])
    def test_one_changed_integer_is_noticed(self, convert: Any, compress: Any, entry: str) -> None:
        graph = read(convert(Mobile))
        index = index_of(graph, entry)
        value = graph.constant(index).copy()
        value.flat[3] ^= 1
        graph.set_constant(index, value)
        assert changes(convert(Mobile), graph, compress(Mobile)) == {entry: "dropped"}

    def test_another_weight_scale_is_noticed(self, convert: Any, compress: Any) -> None:
        graph = read(convert(Mobile))
        index = index_of(graph, "narrow.weight")
        graph.set_scales(index, graph.scales(index)[0] * np.float32(1.001))
        assert changes(convert(Mobile), graph, compress(Mobile)) == {"narrow.weight": "dropped"}

    def test_rounding_in_a_scale_is_told(self, convert: Any, compress: Any) -> None:
        graph = read(convert(Mobile))
        index = index_of(graph, "narrow.bias")
        graph.set_scales(index, np.nextafter(graph.scales(index)[0], np.float32(1)))
        assert changes(convert(Mobile), graph, compress(Mobile)) == {"narrow.bias": "re-typed"}

    def test_another_activation_scale_is_noticed(self, convert: Any, compress: Any) -> None:
        graph = read(convert(Mobile))
        index = index_of(graph, "wide.conv2d") if "wide.conv2d" in names_of(graph) else index_of(graph, "wide")
        changed = graph.name(index)
        graph.set_scales(index, graph.scales(index)[0] * np.float32(1.5))
        assert changes(convert(Mobile), graph, compress(Mobile)) == {changed: "dropped"}


def names_of(graph: Graph) -> list[str]:
    return [graph.name(index) for index in range(len(graph.subgraph.tensors))]


def index_of(graph: Graph, name: str) -> int:
    return names_of(graph).index(name)


def changes(artifact: Artifact, graph: Graph, compressed: Compressed) -> dict[str, str]:
    before = {outcome.name: outcome.outcome for outcome in artifact.contract_report.outcomes}
    after = read_again(graph.to_bytes(), compressed)
    return {name: outcome for name, outcome in after.items() if outcome != before[name]}


class TestEdges:
    def test_an_output_may_be_an_input_or_another_output(self, tmp_path: Path) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a = nn.Linear(4, 3)

            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
                y = self.a(x)
                return y, x * 1.0, y

        state = pipeline.compress(make_task(Twice, (1, 4)), recipe="none")
        artifact = CONVERTER.convert(state, output=tmp_path, options=ExportOptions())
        assert [spec.name for spec in artifact.outputs] == ["output_0", "output_1", "output_2"]
        for name, values in answers(artifact, state).items():
            np.testing.assert_allclose(values, state.golden.outputs[name], atol=1e-6)

    def test_whole_numbers_stay_int64(self, tmp_path: Path) -> None:
        class Words(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

            def forward(self, words: torch.Tensor) -> torch.Tensor:
                return self.head(self.table(words)).mean(1).argmax(-1)

        words = np.random.default_rng(0).integers(0, 9, (8, 5))
        state = pipeline.compress(Task(name="words", model=Words(), example_inputs=words[:1], calibration=[words]), recipe="int8")
        artifact = CONVERTER.convert(state, output=tmp_path, options=ExportOptions())
        assert (artifact.inputs[0].dtype, artifact.outputs[0].dtype) == ("int64", "int64")
        assert (answers(artifact, state)["output"] == state.golden.outputs["output"]).mean() >= 0.75


class TestRefusals:
    def test_operator_without_a_lowering_is_named_with_its_layer(self, tmp_path: Path) -> None:
        class Peaks(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.peaks = nn.Conv1d(2, 3, 3), nn.AdaptiveMaxPool1d(7)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.peaks(self.conv(x))

        state = pipeline.compress(make_task(Peaks, (1, 2, 20)), recipe="int8")
        with pytest.raises(UnsupportedOpError, match=r"adaptive_max_pool.*layer 'peaks'.*leave out the target tflite"):
            CONVERTER.convert(state, output=tmp_path, options=ExportOptions())

    def test_silently_wrong_file_is_caught_and_its_layer_named(self, convert: Any, compress: Any) -> None:
        compressed, graph = compress(Mobile), read(convert(Mobile))
        index = index_of(graph, "head.bias")
        graph.set_constant(index, graph.constant(index) - 10_000_000)
        data = graph.to_bytes()
        evidence = Evidence.collect(data, compressed, program_integers(compressed))
        places = {name: index_of(graph, found.tensor) for name, found in convert(Mobile).contract_report.tensors.items()}
        with pytest.raises(ConversionError, match=r"'output' is wrong: signal-to-noise.*first layer that differs is 'head'"):
            check_outputs(data, compressed, evidence=evidence, tensors=places)

    def test_silently_wrong_float_file_is_caught(self, compress: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        state, lower = compress(Signal).as_float(), tflite._lower

        def wrong(compressed: Compressed) -> bytes:
            graph = Graph(lower(compressed))
            operator = next(found for found in graph.operators if graph.kind(found) == "FULLY_CONNECTED")
            graph.set_constant(int(operator.inputs[2]), graph.constant(int(operator.inputs[2])) + np.float32(0.01))
            return graph.to_bytes()

        monkeypatch.setattr(tflite, "_lower", wrong)
        with pytest.raises(ConversionError, match=r"'output' is wrong: off by .* 0.001 allowed"):
            CONVERTER.convert(state, output=tmp_path, options=ExportOptions())
