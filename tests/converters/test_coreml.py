"""The Core ML converter: what the package holds, what is refused, and what coremltools must not do unseen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit.converters.coreml import CONVERTER, quiet_coremltools
from edgekit.converters.coreml_lowering import lower
from edgekit.converters.coreml_report import read_contract
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.contract import QuantizationContract
from edgekit.core.errors import ContractError, ConversionError, UnsupportedOpError
from edgekit.core.files import sha256
from edgekit.core.task import Task
from edgekit.pipeline import compress
from edgekit.runtimes.coreml.package import read_package
from edgekit.runtimes.coreml.reference import RUNTIME


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


def small(model: nn.Module, *shapes: tuple[int, ...], recipe: str = "int8", **fields: Any) -> Compressed:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    batch = tuple(rng.standard_normal((8, *shape[1:])).astype(np.float32) for shape in shapes)
    example = tuple(array[:1] for array in batch)
    one = len(shapes) == 1
    task = Task(
        name="small",
        model=model,
        example_inputs=example[0] if one else example,
        calibration=[batch[0] if one else batch],
        **fields,
    )
    return compress(task, recipe=recipe)


@pytest.fixture(scope="module")
def compressed() -> Compressed:
    torch.manual_seed(0)
    return small(Mobile(), (1, 3, 16, 16), labels=list("abcde"), preprocessing={"mean": [0.5]})


@pytest.fixture(scope="module")
def artifact(compressed: Compressed, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return CONVERTER.convert(compressed, output=tmp_path_factory.mktemp("int8"), options=ExportOptions())


def scales(path: Path, kind: str) -> set[float]:
    program = read_package(path)
    found = [operation.inputs["scale"][0] for operation in program.operations if operation.type == kind]
    return {float(program.constants[str(name)]) for name in found}  # type: ignore[arg-type]


def test_weights_are_int8_and_nothing_else_is_large(compressed: Compressed, artifact: Artifact) -> None:
    program = read_package(artifact.path)
    kinds = [operation.type for operation in program.operations]
    assert kinds.count("constexpr_affine_dequantize") == 5
    assert kinds.count("conv") == 4
    assert kinds.count("linear") == 1
    floats = [value for value in program.constants.values() if not isinstance(value, str) and value.dtype.kind == "f"]
    assert max(value.size for value in floats) <= 16
    assert not {"relu", "relu6", "clip"} & set(kinds), "saturation is the clamp"


def test_every_scale_is_the_contracts(compressed: Compressed, artifact: Artifact) -> None:
    """coremltools' default passes would put 1.0 and quotients of scales around the residual addition."""
    wanted = {float(np.float32(entry.scale[0])) for entry in compressed.contract.activations}
    assert scales(artifact.path, "quantize") == wanted
    assert scales(artifact.path, "dequantize") == wanted


def test_report_holds_every_entry(compressed: Compressed, artifact: Artifact) -> None:
    report = artifact.contract_report
    assert [outcome.name for outcome in report.outcomes] == [entry.name for entry in compressed.contract.entries]
    by_role = {entry.name: entry.role for entry in compressed.contract.entries}
    program = read_package(artifact.path)
    for outcome in report.outcomes:
        entry = compressed.contract[outcome.name]
        if by_role[outcome.name] == "weight":
            assert outcome.outcome == "honoured"
        elif by_role[outcome.name] == "bias":
            assert outcome.outcome == "re-typed"
            assert "exactly integer * scale" in outcome.reason
            stored = program.constants[outcome.tensor]
            assert stored.dtype == np.float32
        else:
            variable = program.variables[outcome.tensor]
            assert variable.shape == entry.shape
            assert (outcome.outcome, outcome.zero_point_shift, variable.dtype) in {
                ("honoured", 0, "int8"),
                ("re-typed", 128, "uint8"),
            }


def test_every_layer_is_within_one_step(compressed: Compressed, artifact: Artifact) -> None:
    session = RUNTIME.load(artifact.path)
    step = compressed.contract["head"].scale[0]
    for image, expected in zip(compressed.golden.inputs["image"], compressed.golden.outputs["output"], strict=True):
        assert np.abs(session.run({"image": image})["output"] - expected).max() <= 1.01 * step


def test_package_describes_itself_and_is_the_same_twice(compressed: Compressed, artifact: Artifact, tmp_path: Path) -> None:
    again = CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())
    assert again.sha256 == artifact.sha256 == sha256(artifact.path)
    assert again.contract_report == artifact.contract_report
    files = {file.relative_to(artifact.path).as_posix() for file in artifact.path.rglob("*") if file.is_file()}
    content = "Data/com.apple.CoreML"
    assert files == {"Manifest.json", f"{content}/model.mlmodel", f"{content}/weights/weight.bin"}
    with quiet_coremltools():
        import coremltools

        metadata = coremltools.models.MLModel(str(artifact.path), skip_model_load=True).user_defined_metadata
    assert json.loads(metadata["edgekit.labels"]) == list("abcde")
    assert json.loads(metadata["edgekit.preprocessing"]) == {"mean": [0.5]}
    assert artifact.labels == tuple("abcde")


@pytest.mark.parametrize("version", [15, 16])
def test_int8_needs_ios17(compressed: Compressed, tmp_path: Path, version: Any) -> None:
    with pytest.raises(ContractError, match=rf"int8 needs iOS 17 or later, but minimum_ios_version is {version}"):
        CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions(minimum_ios_version=version))


def test_ios18_stores_the_same_integers(compressed: Compressed, artifact: Artifact, tmp_path: Path) -> None:
    newer = CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions(minimum_ios_version=18))
    kinds = [operation.type for operation in read_package(newer.path).operations]
    assert kinds.count("constexpr_blockwise_shift_scale") == 5
    assert newer.contract_report.counts == artifact.contract_report.counts


def test_float16_says_what_it_loses(compressed: Compressed, tmp_path: Path) -> None:
    half = CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions(compute_precision="float16"))
    assert half.outputs[0].dtype == "float32"
    assert any("float16" in note for note in half.notes)
    outcomes = {outcome.name: outcome for outcome in half.contract_report.outcomes}
    for entry in compressed.contract.entries:
        outcome = outcomes[entry.name]
        assert outcome.outcome == "dropped", entry.name
        assert outcome.tensor, entry.name
        assert "float16" in outcome.reason, entry.name
    session = RUNTIME.load(half.path)
    (image,), (expected,) = compressed.golden.inputs["image"][:1], compressed.golden.outputs["output"][:1]
    assert np.abs(session.run({"image": image})["output"] - expected).max() <= 3 * compressed.contract["head"].scale[0]


def test_a_package_that_lost_the_contract_is_found_out(compressed: Compressed, artifact: Artifact) -> None:
    """The report is read from the file, not assumed: entries with other numbers are dropped, each with its reason."""
    entries = []
    for entry in compressed.contract.entries:
        if entry.name == "narrow":
            entries.append(entry.replace(scale=(entry.scale[0] * 1.001,)))
        elif entry.name == "head":
            entries.append(entry.replace(zero_point=(entry.zero_point[0] + 1,)))
        elif entry.name == "head.weight":
            entries.append(entry.replace(scale=tuple(value * 2 for value in entry.scale)))
        elif entry.name == "wide.0.weight":
            entries.append(entry.replace(sha256="0" * 64))
        else:
            entries.append(entry)
    contract = QuantizationContract(entries=tuple(entries))
    with quiet_coremltools():
        report = read_contract(artifact.path, contract, biases={}, folded={})
    dropped = {outcome.name: outcome.reason for outcome in report.outcomes if outcome.outcome == "dropped"}
    biases = {entry.name for entry in contract.entries if entry.role == "bias"}
    assert set(dropped) == {"narrow", "head", "head.weight", "wide.0.weight", *biases}
    assert "no integer tensor with this grid" in dropped["head"]
    assert "scales are off by up to" in dropped["head.weight"]


def test_tensors_with_equal_grids_are_told_apart_by_order(tmp_path: Path) -> None:
    class Chain(nn.Module):
        """Pooling keeps the grid; a flatten of it becomes a reshape of integers."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 4, 3, padding=1)
            self.pool = nn.MaxPool1d(3, 1, 1)
            self.head = nn.Linear(32, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.pool(self.pool(torch.relu(self.conv(x)))).flatten(1))

    compressed = small(Chain(), (1, 2, 8))
    artifact = CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())
    kinds = {output.name: operation.type for operation in read_package(artifact.path).operations for output in operation.outputs}
    tensors = artifact.contract_report.tensors
    names = [tensors[entry.name].tensor for entry in compressed.contract.activations if entry.name in tensors]
    assert len(names) == len(set(names))
    assert [kinds[name] for name in names][-2:] == ["reshape", "quantize"]
    order = list(kinds)
    assert [order.index(name) for name in names] == sorted(order.index(name) for name in names)


def test_reshape_between_two_grids_stays_a_computation(compressed: Compressed, tmp_path: Path) -> None:
    """coremltools' default passes would reshape the integers and read them with the wrong scale."""
    quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default

    class Regrid(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = dequantize(quantize(x, 0.02, 3, -128, 127, torch.int8), 0.02, 3, -128, 127, torch.int8).reshape(1, 8)
            return dequantize(quantize(x, 0.05, -7, -128, 127, torch.int8), 0.05, -7, -128, 127, torch.int8)

    x = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(Regrid(), (x,))
    first = compressed.contract["image"].replace(name="x", shape=(1, 2, 4), node="quantize_per_tensor")
    second = first.replace(name="reshape", role="activation", shape=(1, 8), node="quantize_per_tensor_1")
    entries = tuple(
        entry.replace(scale=(float(np.float32(scale)),), zero_point=(zero,))
        for entry, scale, zero in ((first, 0.02, 3), (second, 0.05, -7))
    )
    record = compressed.record.replace(
        inputs=(compressed.record.inputs[0].replace(name="x", shape=(1, 2, 4)),),
        outputs=(compressed.record.outputs[0].replace(shape=(1, 8)),),
    )
    state = dataclasses.replace(compressed, program=program, contract=QuantizationContract(entries=entries), record=record)
    artifact = CONVERTER.convert(state, output=tmp_path, options=ExportOptions())
    assert artifact.contract_report.counts == {"honoured": 2}
    found = RUNTIME.load(artifact.path).run({"x": x.numpy()})["output"]
    np.testing.assert_allclose(found, Regrid()(x).numpy(), atol=1e-6)


@pytest.mark.parametrize(("version", "precision"), [(15, "float32"), (17, "float16")])
def test_float_export(tmp_path: Path, version: Any, precision: Any) -> None:
    torch.manual_seed(0)
    compressed = small(Mobile(), (1, 3, 16, 16), recipe="none")
    options = ExportOptions(minimum_ios_version=version, compute_precision=precision)
    artifact = CONVERTER.convert(compressed, output=tmp_path, options=options)
    assert artifact.precision == "float32"
    assert artifact.contract_report.outcomes == ()
    found = RUNTIME.load(artifact.path).run({"image": compressed.golden.inputs["image"][0]})["output"]
    tolerance = 1e-4 if precision == "float32" else 1e-2
    np.testing.assert_allclose(found, compressed.golden.outputs["output"][0], atol=tolerance)


def test_names_and_order_are_the_programs(tmp_path: Path) -> None:
    class Pair(nn.Module):
        """Names that coremltools would give to tensors of its own, in no alphabetical order."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 3, 1)

        def forward(self, relu: torch.Tensor, conv1d: torch.Tensor) -> dict[str, torch.Tensor]:
            x = torch.relu(self.conv(relu))
            return {"zeta": x + conv1d, "alpha": x.mean(-1)}

    compressed = small(Pair(), (1, 2, 4), (1, 3, 4))
    artifact = CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())
    assert [spec.name for spec in artifact.inputs] == ["relu", "conv1d"]
    assert [spec.name for spec in artifact.outputs] == ["zeta", "alpha"]
    session = RUNTIME.load(artifact.path)
    assert (session.inputs, session.outputs) == (artifact.inputs, artifact.outputs)
    found = session.run({name: values[0] for name, values in compressed.golden.inputs.items()})
    for name, values in found.items():
        step = next(entry.scale[0] for entry in reversed(compressed.contract.activations) if entry.shape == values.shape)
        assert np.abs(values - compressed.golden.outputs[name][0]).max() <= 2.01 * step


def test_int64_inputs_become_int32_with_a_note(tmp_path: Path) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.table(ids).mean(1))

    tokens = np.arange(6).reshape(1, 6)
    compressed = compress(Task(name="bag", model=Bag(), example_inputs=tokens, calibration=[tokens]), recipe="int8")
    artifact = CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())
    assert artifact.inputs[0].dtype == "int32"
    assert "Input 'ids' is int32 in the package: Core ML has no int64 inputs." in artifact.notes


def test_boolean_inputs_are_int32_in_the_package(tmp_path: Path) -> None:
    class Mask(nn.Module):
        def forward(self, mask: torch.Tensor) -> torch.Tensor:
            return mask.float().mean(1)

    flags = np.ones((1, 4), bool)
    compressed = compress(Task(name="mask", model=Mask(), example_inputs=flags, calibration=[flags]), recipe="none")
    artifact = CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())
    assert artifact.inputs[0].dtype == "int32"
    assert "Input 'mask' is int32 in the package: Core ML has no bool inputs." in artifact.notes


def test_an_input_named_like_a_word_of_mil_is_refused(tmp_path: Path) -> None:
    class Cell(nn.Module):
        def forward(self, state: torch.Tensor) -> torch.Tensor:
            return state * 2

    values = np.ones((1, 4), np.float32)
    compressed = compress(Task(name="cell", model=Cell(), example_inputs=values, calibration=[values]), recipe="none")
    with pytest.raises(ConversionError, match="Input 'state' cannot be called so in Core ML"):
        CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())


def layer(function: Callable[..., Any]) -> nn.Module:
    class Wrapped(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd = Wrapped()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.odd(x) + 1

    return Outer()


def test_operator_without_conversion_is_named_with_its_layer(tmp_path: Path) -> None:
    compressed = small(layer(torch.erfinv), (1, 4), recipe="none")
    with pytest.raises(UnsupportedOpError, match=r"'aten.erfinv.default' in layer 'odd'.*other operators.*other targets"):
        CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())


def test_failure_inside_coremltools_is_named_with_its_layer(tmp_path: Path) -> None:
    compressed = small(layer(lambda x: functional.max_pool2d(x, 2, return_indices=True)[1]), (1, 2, 4, 4), recipe="none")
    with pytest.raises(
        ConversionError, match=r"could not convert 'aten.max_pool2d_with_indices.default' in layer 'odd': ValueError"
    ):
        CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.sub(x, x * x, alpha=0.5) + torch.add(x, x, alpha=3) + torch.rsub(x, x * x, alpha=2),
        lambda x: functional.gelu(x, approximate="tanh"),
        lambda x: functional.max_pool2d(x, 2).sum(1) + functional.max_pool1d(x[0], 8).sum(),
        lambda x: torch.where(x > 0, x, 0.5) + torch.diff(x, append=x[..., :1]) + x.new_ones(8),
        lambda x: ((x > 0) & (x < 1)).float() + torch.ops.aten.alias(x) + torch.trunc(x),
        lambda x: functional.celu(x) + torch.addcmul(x, x, x, value=0.5) + torch.addcdiv(x, x, x.abs() + 1, value=2),
        lambda x: functional.rms_norm(x, (8,)) + functional.channel_shuffle(x, 2) + torch.logaddexp(x, 2 * x),
        lambda x: functional.cosine_similarity(x, x + 1, dim=1) + torch.linalg.vector_norm(x, dim=1),
    ],
    ids=["alpha", "gelu", "max_pool", "where", "logic", "addc", "norms", "similarity"],
)
def test_what_coremltools_lacks_or_overlooks(tmp_path: Path, function: Callable[..., Any]) -> None:
    """Each of these fails, or is silently wrong, with ``coremltools.convert`` alone."""
    compressed = small(layer(function), (1, 4, 8, 8), recipe="none")
    artifact = CONVERTER.convert(compressed, output=tmp_path, options=ExportOptions())
    (name,) = compressed.golden.inputs
    found = RUNTIME.load(artifact.path).run({name: compressed.golden.inputs[name][0]})["output"]
    np.testing.assert_allclose(found, compressed.golden.outputs["output"][0], atol=1e-4)


def test_program_is_left_as_it_is(compressed: Compressed) -> None:
    before = compressed.program.graph_module.code
    with quiet_coremltools():
        lower(compressed.program)
    assert compressed.program.graph_module.code == before


def test_entries_that_only_move_integers_are_folded(compressed: Compressed, artifact: Artifact) -> None:
    """An identity pair that coremltools removes is not a loss."""
    ghost = compressed.contract["wide.0"].replace(name="ghost", shape=(3, 3, 3))
    contract = QuantizationContract(entries=(*compressed.contract.entries, ghost))
    with quiet_coremltools():
        report = read_contract(artifact.path, contract, biases={}, folded={"ghost": "wide.0"})
        lost = read_contract(artifact.path, contract, biases={}, folded={})
    assert (report.outcomes[-1].outcome, report.outcomes[-1].tensor) == ("folded", "")
    assert "'wide.0'" in report.outcomes[-1].reason
    assert lost.outcomes[-1].outcome == "dropped"


def test_nothing_hidden_stays_hidden() -> None:
    import sys

    with quiet_coremltools():
        pass
    assert all(sys.modules.get(name, ...) is not None for name in ("tensorflow", "onnx", "sklearn", "transformers"))
