"""Open axes: traced, converted, run at their bounds; refused where a target or the model's code knows one size only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import pipeline, registry
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.errors import CaptureError, ConversionError, DataError, RecipeError, TaskError
from edgekit.core.run import RunFolder
from edgekit.core.task import Task

RUNTIMES = {"onnx": "onnxruntime", "coreml": "coreml-reference"}
SHAPES = {"image": {0: range(1, 9), 2: range(16, 65), 3: range(16, 65)}}


class Pictures(nn.Module):
    """Two outputs, one with as many axes open as the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.relu(self.stem(image))
        y = y + self.body(y)
        return {"logits": self.head(y.flatten(2).mean(2)), "map": nn.functional.interpolate(y, scale_factor=2.0)}


class Words(nn.Module):
    """Attention over a sequence; the mask's open axis must equal the tokens'."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.table(tokens)
        x, _ = self.attention(x, x, x, key_padding_mask=mask == 0, need_weights=False)
        weights = mask.unsqueeze(-1).float()
        return self.head((x * weights).sum(1) / weights.sum(1))


class Fixed(nn.Module):
    """Adds a table of one length, so that its input can have no other."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(32.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table


def pictures(**fields: object) -> Task:
    torch.manual_seed(0)
    return Task(
        name="pictures", model=Pictures(), example_inputs=np.zeros((1, 3, 32, 32), np.float32), **{"shapes": SHAPES, **fields}
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("flexible") / "run")
    pipeline.compress(pictures(), recipe="none", output=folder.path)
    pipeline.export(folder.path, targets=list(RUNTIMES))
    return folder


@pytest.mark.parametrize("target", RUNTIMES)
def test_runs_at_every_size(run: RunFolder, target: str) -> None:
    artifact = Artifact.load(run.artifacts / f"{target}-float32")
    assert artifact.inputs[0].sizes == "[1..8, 3, 16..64, 16..64]"
    assert [spec.sizes for spec in artifact.outputs] == ["[1..8, 5]", "[1..8, 8, 16..64, 16..64]"]
    net = pictures().build_model()
    session = registry.runtime(RUNTIMES[target]).load(artifact.path)
    for shape in [(1, 3, 16, 16), (8, 3, 64, 64), (3, 3, 18, 50), (1, 3, 32, 32)]:
        image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        found = session.run({"image": image})
        expected = net(torch.from_numpy(image))
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value.detach().numpy(), atol=1e-5)
    for shape in [(9, 3, 32, 32), (1, 3, 15, 32), (1, 4, 32, 32)]:
        with pytest.raises(DataError, match=r"expects float32 \[1\.\.8, 3, 16\.\.64, 16\.\.64\]"):
            session.run({"image": np.zeros(shape, np.float32)})


def test_a_target_of_fixed_shapes_says_what_to_do(run: RunFolder) -> None:
    with pytest.raises(ConversionError, match=r"'image' \[1\.\.8, 3, 16\.\.64, 16\.\.64\].*--fixed-shapes"):
        pipeline.export(run.path, targets=["tflite"])
    (artifact,) = pipeline.export(run.path, targets=["tflite"], options=ExportOptions(fixed_shapes=True))
    assert artifact.inputs[0].sizes == "[1, 3, 32, 32]"
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    found = registry.runtime("litert").load(artifact.path).run({"image": image})
    expected = pictures().build_model()(torch.from_numpy(image))
    np.testing.assert_allclose(found["map"], expected["map"].detach().numpy(), atol=1e-5)


def test_inputs_that_share_an_axis_and_enumerated_sizes() -> None:
    lengths = {1: [8, 16, 32]}
    example = {"tokens": np.ones((1, 16), np.int64), "mask": np.ones((1, 16), np.int64)}
    task = Task(name="words", model=Words(), example_inputs=example, shapes={"tokens": lengths, "mask": lengths})
    artifacts = pipeline.export(pipeline.compress(task, recipe="none"), targets=list(RUNTIMES))
    net = task.build_model()
    for artifact in artifacts:
        sizes = "8|16|32" if artifact.target == "onnx" else "8..32"  # Core ML: one input with enumerated shapes, no more
        assert [spec.sizes for spec in artifact.inputs] == [f"[1, {sizes}]"] * 2
        session = registry.runtime(RUNTIMES[artifact.target]).load(artifact.path)
        for length in (8, 32):
            tokens = np.random.default_rng(length).integers(0, 30, (1, length))
            mask = (np.arange(length)[None] < length - 3).astype(np.int64)
            given = {spec.name: array.astype(spec.dtype) for spec, array in zip(session.inputs, (tokens, mask), strict=True)}
            (found,) = session.run(given).values()
            expected = net(torch.from_numpy(tokens), torch.from_numpy(mask)).detach().numpy()
            np.testing.assert_allclose(found, expected, atol=1e-5)
        with pytest.raises(DataError, match=r"8(\|16\||\.\.)32"):
            session.run({spec.name: np.ones((1, 40), spec.dtype) for spec in session.inputs})


def test_code_for_one_size_only_is_named() -> None:
    task = Task(name="fixed", model=Fixed(), example_inputs=np.zeros((4, 32), np.float32), shapes={"x": {1: range(8, 65)}})
    with pytest.raises(CaptureError, match=r"'x'.*axis 1.*one size|specialized|[Cc]onstraint"):
        pipeline.compress(task, recipe="none")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"imag": {0: range(1, 9)}}, "Did you mean 'image'"),
        ({"image": {4: range(1, 9)}}, "axes 0 to 3"),
        ({"image": {0: range(2, 9)}}, "without the 1"),
        ({"image": {0: []}}, "give a range"),
        ({"image": {0: range(9)}}, "1 and more"),
    ],
)
def test_wrong_declarations(shapes: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        pipeline.compress(pictures(shapes=shapes), recipe="none")


def test_recipes_that_need_fixed_shapes() -> None:
    data = [np.zeros((2, 3, 32, 32), np.float32)]
    with pytest.raises(RecipeError, match="fixed shapes"):
        pipeline.compress(pictures(calibration=data), recipe="int8")
