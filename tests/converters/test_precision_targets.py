"""Every precision on every target: what the file holds, and what its runtime answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline, registry
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ContractError
from edgekit.core.recipe import LayerPrecision, Quantize, Recipe
from edgekit.core.task import Task

TARGETS = {"onnx": "onnxruntime", "tflite": "litert", "coreml": "coreml-reference"}
ROUNDING = 1e-5
"""Share of the largest output that another order of float additions may cost."""


class Mixed(nn.Module):
    """A convolution, a depthwise and a 1x1 one, and two linear layers, wide enough that weights outweigh a file's frame."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.depth = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.point = nn.Conv2d(32, 64, 1)
        self.fc = nn.Linear(64, 128)
        self.head = nn.Linear(128, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.point(torch.relu(self.depth(torch.relu(self.stem(x))))))
        return self.head(torch.relu(self.fc(x.mean([2, 3]))))


class Rows(nn.Module):
    """Linear layers over a sequence: products of three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


LAYERS = {
    "weight-only": {"stem": "w8", "depth": "w4", "point": "w4-g16", "fc": "fp16", "head": "w8-g64"},
    "w4a8": {},
    "dynamic-int8": {},
    "w8a16": {},
    "mixed": {"stem": "fp16", "depth": "w8a16", "point": "w4a8", "fc": "w4-g16", "head": "dynamic-int8"},
}


@pytest.fixture(scope="module")
def compressed() -> Callable[[str], Compressed]:
    torch.manual_seed(0)
    model, data = Mixed(), np.random.default_rng(0).standard_normal((16, 3, 16, 16), np.float32)
    task = Task(name="mixed", model=model, example_inputs=data[:1], calibration=[data])
    made: dict[str, Compressed] = {}

    def make(name: str) -> Compressed:
        if name not in made:
            base = Quantize.from_word({"weight-only": "w8", "mixed": "int8"}.get(name, name))
            layers = tuple(LayerPrecision(layers=layer, precision=word) for layer, word in LAYERS[name].items())
            recipe = Recipe(name=name, steps=(base.replace(layers=layers),) if base else ())
            made[name] = pipeline.compress(task, recipe=recipe)
        return made[name]

    return make


@pytest.fixture(scope="module")
def exported(
    compressed: Callable[[str], Compressed], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str], Artifact]]:
    made: dict[tuple[str, str], Artifact] = {}

    def export(name: str, target: str) -> Artifact:
        if (name, target) not in made:
            folder = tmp_path_factory.mktemp(f"{name}-{target}")
            made[name, target] = registry.converter(target).convert(compressed(name), output=folder, options=ExportOptions())
        return made[name, target]

    yield export
    made.clear()


def answer(artifact: Artifact, compressed: Compressed) -> np.ndarray:
    session = registry.runtime(TARGETS[artifact.target]).load(artifact.path, threads=1)
    samples = compressed.golden.inputs["x"]
    found = np.stack([session.run({"x": sample})["output"] for sample in samples])
    session.close()
    return found


def error(found: np.ndarray, compressed: Compressed) -> float:
    wanted = compressed.golden.outputs["output"]
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def outcomes(artifact: Artifact, role: str, compressed: Compressed) -> dict[str, tuple[str, int, int | None]]:
    held = {outcome.name: outcome for outcome in artifact.contract_report.outcomes}
    entries = [entry for entry in compressed.contract.entries if entry.role == role]
    return {entry.name: (held[entry.name].outcome, held[entry.name].bits, held[entry.name].block_size) for entry in entries}


@pytest.mark.parametrize("target", TARGETS)
def test_weight_only_files_hold_every_form_and_compute_in_float(
    target: str, compressed: Callable[[str], Compressed], exported: Callable[[str, str], Artifact]
) -> None:
    artifact, program = exported("weight-only", target), compressed("weight-only")
    assert error(answer(artifact, program), program) < ROUNDING
    in_blocks = "re-typed" if target == "tflite" else "honoured"  # TFLite's blocks are rows of another shape
    assert outcomes(artifact, "weight", program) == {
        "stem.weight": ("honoured", 8, None),
        "depth.weight": ("honoured", 4, None),
        "point.weight": (in_blocks, 4, 16),
        "fc.weight": ("honoured", 16, None),
        "head.weight": (in_blocks, 8, 64),
    }


@pytest.mark.parametrize("target", TARGETS)
def test_four_bits_beside_integers_stay_four_bits(
    target: str, compressed: Callable[[str], Compressed], exported: Callable[[str, str], Artifact]
) -> None:
    artifact, program = exported("w4a8", target), compressed("w4a8")
    assert set(outcomes(artifact, "weight", program).values()) == {("honoured", 4, None)}
    assert not any(outcome.outcome == "dropped" for outcome in artifact.contract_report.outcomes)
    step = program.contract.activations[-1].scale[0] / float(np.abs(program.golden.outputs["output"]).max())
    assert error(answer(artifact, program), program) < 3.1 * step
    integers = [entry.shape for entry in program.contract.parameters if entry.role == "weight"]
    assert artifact.size_bytes < sum(int(np.prod(shape)) for shape in integers) + 12_000  # a float file holds four times as much


@pytest.mark.parametrize("target", TARGETS)
def test_run_time_ranges(target: str, compressed: Callable[[str], Compressed], exported: Callable[[str, str], Artifact]) -> None:
    artifact, program = exported("dynamic-int8", target), compressed("dynamic-int8")
    found = outcomes(artifact, "weight", program)
    assert {name: found[name][:2] for name in ("stem.weight", "point.weight")} == {
        "stem.weight": ("honoured", 8), "point.weight": ("honoured", 8),
    }  # fmt: skip
    if target == "coreml":
        assert found["fc.weight"] == ("re-typed", 8, None)
        reasons = {outcome.name: outcome.reason for outcome in artifact.contract_report.outcomes}
        assert "quantizes nothing at run time" in reasons["fc.weight"]
        assert error(answer(artifact, program), program) < 0.05
    else:
        assert found["fc.weight"] == ("honoured", 8, None)
        assert error(answer(artifact, program), program) < 1e-3  # ties aside, the integers are the program's


@pytest.mark.parametrize("target", TARGETS)
def test_sixteen_bit_activations(
    target: str, compressed: Callable[[str], Compressed], exported: Callable[[str, str], Artifact]
) -> None:
    artifact, program = exported("w8a16", target), compressed("w8a16")
    found = outcomes(artifact, "activation", program)
    assert set(outcomes(artifact, "weight", program).values()) == {("honoured", 8, None)}
    kinds = {outcome for outcome, _, _ in found.values()}
    assert kinds == {"dropped"} if target == "coreml" else kinds <= {"honoured", "folded"}
    assert error(answer(artifact, program), program) < 1e-3
    if target == "coreml":
        assert "no int16 activations" in artifact.contract_report.outcomes[0].reason


@pytest.mark.parametrize("target", TARGETS)
def test_all_precisions_in_one_file(
    target: str, compressed: Callable[[str], Compressed], exported: Callable[[str, str], Artifact]
) -> None:
    artifact, program = exported("mixed", target), compressed("mixed")
    bits = {name: held[1] for name, held in outcomes(artifact, "weight", program).items()}
    assert bits == {"stem.weight": 16, "depth.weight": 8, "point.weight": 4, "fc.weight": 4, "head.weight": 8}
    assert error(answer(artifact, program), program) < 0.05
    dropped = [outcome.dtype for outcome in artifact.contract_report.outcomes if outcome.outcome == "dropped"]
    assert bool(dropped) == (target == "coreml")


def test_products_of_three_axes_stay_float_in_onnx_runtime(tmp_path: Path) -> None:
    """Left as a MatMul, ONNX Runtime would round its other operand to 8 bits."""
    torch.manual_seed(0)
    data = np.random.default_rng(0).standard_normal((4, 6, 32), np.float32)
    task = Task(name="rows", model=Rows(), example_inputs=data[:1], calibration=[data])
    for word in ("w4-g16", "w8"):
        program = pipeline.compress(task, recipe=word)
        folder = tmp_path / word
        folder.mkdir()
        artifact = registry.converter("onnx").convert(program, output=folder, options=ExportOptions())
        assert error(answer(artifact, program), program) < ROUNDING


def test_core_ml_keeps_four_bits_in_eight_for_older_phones(compressed: Callable[[str], Compressed], tmp_path: Path) -> None:
    program = compressed("w4a8")
    artifact = registry.converter("coreml").convert(program, output=tmp_path, options=ExportOptions(minimum_ios_version=17))
    assert set(outcomes(artifact, "weight", program).values()) == {("re-typed", 8, None)}
    assert error(answer(artifact, program), program) < 1e-6


def test_core_ml_refuses_blocks_for_older_phones(compressed: Callable[[str], Compressed], tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"Layer 'point' has one scale for 16 weights, which needs iOS 18"):
        registry.converter("coreml").convert(
            compressed("weight-only"), output=tmp_path, options=ExportOptions(minimum_ios_version=17)
        )


class Words(nn.Module):
    """A table whose rows are picked, before a layer on integers and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.fc, self.up = nn.Embedding(40, 16), nn.Linear(16, 16), nn.ConvTranspose1d(16, 8, 4, 2, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.up(torch.relu(self.fc(self.table(tokens))).transpose(1, 2))


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_tables_and_transposed_convolutions(target: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = np.random.default_rng(0).integers(0, 40, (8, 6))
    task = Task(name="words", model=Words(), example_inputs=data[:1], calibration=[data])
    program = pipeline.compress(task, recipe="w4a8")
    artifact = registry.converter(target).convert(program, output=tmp_path, options=ExportOptions())
    held = outcomes(artifact, "weight", program)
    assert held["fc.weight"] == ("honoured", 4, None)
    assert held["table.weight"] == ("honoured", 8, None)  # rows are picked, not multiplied: they stay int8
    assert held["up.weight"] == (("re-typed", 8, None) if target == "tflite" else ("honoured", 4, None))
