"""Preprocessing as part of a program: the same numbers as the reference gives outside, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.compression.capture import capture
from edgekit.converters.coreml import CONVERTER as COREML
from edgekit.converters.preprocessing.baking import bake
from edgekit.core.artifact import Artifact, ExportOptions
from edgekit.core.compressed import Compressed
from edgekit.core.errors import ConversionError, DataError, TaskError
from edgekit.core.evaluation import gather_evaluation
from edgekit.core.feeding import to_file
from edgekit.core.preprocessing import AudioPreprocessing, ImagePreprocessing, Preprocessing, read_preprocessing
from edgekit.core.program import answer_samples
from edgekit.core.recipe import Recipe
from edgekit.core.task import Task
from edgekit.raw_parity import check_raw_parity
from edgekit.runtimes.coreml.package import read_package
from edgekit.runtimes.coreml.reference import RUNTIME

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BAKE = ExportOptions(preprocessing="bake")
IMAGE = ImagePreprocessing(size=(6, 8), mean=MEAN, std=STD)
SOUND = AudioPreprocessing(sample_rate=8000, window=40, mean=0.01, std=0.2)
RECORDS: dict[str, Preprocessing] = {
    "rgb": IMAGE,
    "bgr": IMAGE.replace(colour="bgr"),
    "channels last": IMAGE.replace(layout="NHWC", mean=0.5, std=0.5),
    "grey": IMAGE.replace(colour="grey", mean=0.286, std=0.353),
    "scaled only": IMAGE.replace(mean=0.0, std=1.0, scale=1 / 127.5),
    "mono": SOUND,
    "mono with channel axis": SOUND.replace(layout="NCT"),
    "stereo": SOUND.replace(layout="NCT", channels=2, mean=(0.1, 0.2)),
    "stereo, time first": SOUND.replace(layout="NTC", channels=2, std=(0.1, 0.2)),
    "float sound": SOUND.replace(dtype="float32", scale=2.0),
}


class Weigh(nn.Module):
    """Every input value has a weight of its own, so that none can take another's place."""

    def __init__(self, shape: tuple[int, ...], outputs: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(int(np.prod(shape)), outputs)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.linear(values.flatten(1))


def captured(record: Preprocessing, net: nn.Module | None = None, **fields: Any) -> Compressed:
    torch.manual_seed(0)
    is_sized = isinstance(record, ImagePreprocessing) and record.raw_size is not None
    task = Task(
        name="net",
        model=net or Weigh(record.shape),
        example_inputs=np.zeros((1, *record.shape), np.float32),
        calibration=[record.without_framing().synthetic(3) if is_sized else record.synthetic(3)],
        data="raw",
        preprocessing=record,
        **fields,
    )
    return capture(task, recipe=Recipe.parse_text("none"))


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("target", ["onnx", "coreml"])
def test_a_baked_program_computes_what_the_reference_does_outside(name: str, target: str) -> None:
    record = RECORDS[name]
    state = captured(record)
    baked = bake(state, target=target, options=BAKE)
    (spec,) = baked.record.inputs
    raw_dtype = "float32" if target == "coreml" else record.raw_dtype
    assert spec.dtype == raw_dtype and spec.shape[-1] in {record.channel_count, 40}
    (left,) = read_preprocessing(baked.record.preprocessing).values()
    assert not left.normalises and left.output_dtype == raw_dtype
    raw = record.synthetic(1, seed=5)
    outside = answer_samples(state.program, {spec.name: record.apply(raw)[None]}, ["output"])["output"]
    inside = answer_samples(baked.program, {spec.name: left.apply(raw)[None]}, ["output"])["output"]
    np.testing.assert_array_equal(inside, outside)
    np.testing.assert_allclose(baked.golden.outputs["output"], state.golden.outputs["output"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("resize", "crop"), [("shorter-side", "center"), ("stretch", "none"), ("none", "center")])
def test_resize_and_crop_are_baked_where_the_raw_size_is_known(resize: str, crop: str, antialias: bool) -> None:
    record = ImagePreprocessing(size=(6, 8), resize=resize, crop=crop, antialias=antialias, scale=1.0, raw_size=(19, 23))
    state = captured(record, nn.Flatten())
    baked = bake(state, target="onnx", options=BAKE)
    assert baked.record.inputs[0].shape == (1, 19, 23, 3)
    raw = record.without_framing().synthetic(1, seed=3)
    found = answer_samples(baked.program, {"input": raw[None]}, ["output"])["output"]
    difference = np.abs(found.reshape(-1) - record.apply(raw).reshape(-1))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.05  # sums of float32, at exact halves


def test_nothing_is_baked_unasked() -> None:
    state = captured(IMAGE)
    assert bake(state, target="onnx", options=ExportOptions()) is state
    assert bake(state, target="onnx", options=ExportOptions(image_inputs=True)) is state


def test_there_must_be_something_to_bake() -> None:
    state = captured(IMAGE)
    plain = dataclasses.replace(state, record=state.record.replace(preprocessing={"mean": [0.5]}))
    with pytest.raises(ConversionError, match="declares no preprocessing that can be part of the file"):
        bake(plain, target="onnx", options=BAKE)


def artifact_of(baked: Compressed) -> Artifact:
    record = baked.record
    edges = {"inputs": record.inputs, "outputs": record.outputs, "preprocessing": record.preprocessing, "baked": record.baked}
    return Artifact(target="onnx", path=Path("m"), sha256="", size_bytes=0, precision="float32", **edges)


def test_prepared_data_are_turned_back_for_files_that_take_raw_values() -> None:
    baked = bake(captured(IMAGE), target="onnx", options=BAKE)
    raw = IMAGE.synthetic(2)
    np.testing.assert_array_equal(to_file({"values": IMAGE.apply(raw)}, artifact_of(baked))["values"], raw)
    with pytest.raises(DataError, match="Give the task raw data, with data='raw'"):
        to_file({"values": IMAGE.apply(raw) + 0.001}, artifact_of(baked))


def test_files_that_resize_are_fed_the_task_s_own_raw_pictures() -> None:
    record = IMAGE.replace(resize="stretch", raw_size=(9, 11))
    pictures = record.without_framing().synthetic(3)
    net = Weigh(IMAGE.shape)
    task = Task(
        name="net",
        model=net,
        example_inputs=np.zeros((1, *IMAGE.shape), np.float32),
        calibration=[list(pictures)],
        evaluation=[(pictures[:2], np.zeros(2, np.int64))],
        data="raw",
        preprocessing=record,
    )
    state = capture(task, recipe=Recipe.parse_text("none"))
    np.testing.assert_array_equal(state.golden.raw["values"], pictures[:, None])
    baked = bake(state, target="onnx", options=BAKE)
    np.testing.assert_array_equal(baked.golden.inputs["values"], pictures[:, None])
    np.testing.assert_allclose(baked.golden.outputs["output"], state.golden.outputs["output"], atol=0.02)
    evaluation = gather_evaluation(task)
    assert evaluation is not None
    given = {**evaluation.inputs, "raw/values": evaluation.raw["values"]}
    np.testing.assert_array_equal(to_file(given, artifact_of(baked))["values"], pictures[:2])
    assert list(to_file(given, artifact_of(captured(IMAGE)))) == ["values"], "files that take prepared inputs get those alone"
    with pytest.raises(DataError, match="resizes input 'values' itself"):
        to_file(evaluation.inputs, artifact_of(baked))
    with pytest.raises(DataError, match="a picture is 8 x 11 pixels"):
        list(dataclasses.replace(task, calibration=[pictures[:, :8]]).sized_batches("calibration"))


class Normalising(Weigh):
    """Does by itself what the task declares."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(numbers).reshape(1, 3, 1, 1) for numbers in (MEAN, STD))
        return super().forward((values - mean) / std)


def test_a_model_that_normalises_itself_is_found_out() -> None:
    with pytest.raises(DataError, match="the model begins with the normalisation that preprocessing declares for input 'values'"):
        captured(IMAGE, Normalising(IMAGE.shape))
    assert captured(IMAGE.replace(mean=0.0, std=1.0), Normalising(IMAGE.shape)).record.preprocessing


@pytest.mark.parametrize(("scale", "words"), [(1.0, "not normalised at all"), (1 / 255, "scaled, but without mean and std")])
def test_calibration_data_prepared_otherwise_are_found_out(scale: float, words: str) -> None:
    task = Task(
        name="net",
        model=Weigh(IMAGE.shape),
        example_inputs=np.zeros((1, *IMAGE.shape), np.float32),
        calibration=[IMAGE.replace(scale=scale, mean=0.0, std=1.0).apply(IMAGE.synthetic(4))],
        preprocessing=IMAGE,
    )
    with pytest.raises(DataError, match=f"calibration data of input 'values' do not look as .*its values are {words}"):
        capture(task, recipe=Recipe.parse_text("none"))


def test_raw_data_need_a_preprocessing_that_can_be_applied() -> None:
    task = Task(name="net", model=Weigh((3,)), example_inputs=np.zeros((1, 3), np.float32), data="raw", calibration=[np.zeros(3)])
    with pytest.raises(TaskError, match="says nothing edgekit can apply"):
        next(task.calibration_batches())


@pytest.fixture(scope="module")
def picture_state() -> Compressed:
    return captured(IMAGE.replace(colour="bgr"), labels=("cat", "dog", "owl"))


def converted(state: Compressed, folder: Path, **options: Any) -> Artifact:
    choices = ExportOptions(**options)
    given = bake(state, target="coreml", options=choices)
    return COREML.convert(given, output=folder, options=choices).replace(options=choices, baked=given.record.baked)


def test_core_ml_takes_images_and_names_classes(picture_state: Compressed, tmp_path: Path) -> None:
    artifact = converted(picture_state, tmp_path, image_inputs=True, class_labels=True)
    program = read_package(artifact.path)
    assert program.images == {"values": "RGB"}
    assert program.classifier is not None and program.classifier.classes == ("cat", "dog", "owl")
    session = RUNTIME.load(artifact.path)
    assert session.inputs == artifact.inputs and session.outputs == artifact.outputs
    assert artifact.inputs[0].dtype == "uint8" and artifact.inputs[0].shape == (1, 6, 8, 3)
    raw = IMAGE.synthetic(1, seed=2)
    prepared = IMAGE.replace(colour="bgr").apply(raw)
    expected = answer_samples(picture_state.program, {"values": prepared[None]}, ["output"])["output"][0]
    np.testing.assert_allclose(session.run({"values": raw})["output"], expected, atol=1e-5)
    check_raw_parity(artifact, picture_state)
    other = dataclasses.replace(picture_state, record=picture_state.record.replace(labels=("cat", "owl", "dog")))
    with pytest.raises(ConversionError, match="number 1 is the first to differ"):
        check_raw_parity(artifact, other)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ((), "has none. Give Task"),
        (("cat", "dog"), r"2 labels, but no output of shape \[1, 2\] \(outputs: 'output' \[1, 3\]\)"),
        (("cat", "cat", "owl"), "not all different"),
    ],
)
def test_class_labels_must_fit(picture_state: Compressed, labels: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    state = dataclasses.replace(picture_state, record=picture_state.record.replace(labels=labels))
    with pytest.raises(ConversionError, match=complaint):
        converted(state, tmp_path, class_labels=True)


def test_image_inputs_must_be_pictures_one_at_a_time(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="no input that is declared as a picture"):
        converted(captured(SOUND), tmp_path, image_inputs=True)
    two = Task(
        name="net",
        model=Weigh(IMAGE.shape),
        example_inputs=np.zeros((2, *IMAGE.shape), np.float32),
        calibration=[IMAGE.synthetic(4)],
        data="raw",
        preprocessing=IMAGE,
    )
    with pytest.raises(ConversionError, match="takes 2 pictures at once"):
        converted(capture(two, recipe=Recipe.parse_text("none")), tmp_path, image_inputs=True)
