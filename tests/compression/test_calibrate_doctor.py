"""The doctor finds what was done to the data, and says nothing where nothing was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
from edgekit.compression.doctor.preprocessing import check_preprocessing
from edgekit.compression.doctor.samples import read_samples
from edgekit.core.calibration import CalibrationReport, Finding, InputStatistics
from edgekit.core.errors import DataError, RecipeError
from edgekit.core.plugins import silent
from edgekit.core.task import Task

Array = np.ndarray[Any, Any]
SHAPE = (3, 8, 8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(picture)).mean([2, 3]))


def pictures(count: int = 60, *, seed: int = 0) -> Array:
    """Values of one kind in [-1, 1]: extremes are reached soon."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, *SHAPE)).astype(np.float32)


@pytest.fixture
def check(make_task: Callable[..., Task]) -> Callable[..., CalibrationReport]:
    """``check(calibration, evaluation)``: the report on a small net's data."""

    def run(
        calibration: Array, evaluation: Array | None = None, *, net: nn.Module | None = None, **fields: Any
    ) -> CalibrationReport:
        torch.manual_seed(0)
        options = {name: fields.pop(name) for name in ("estimator", "sample_count", "recipe") if name in fields}
        judged = None if evaluation is None else [(evaluation, np.zeros(len(evaluation), np.int64))]
        task = make_task(net or Net(), (1, *SHAPE), calibration=[calibration], evaluation=judged, **fields)
        return edgekit.check_calibration(task, **options)

    return run


def of_kind(report: CalibrationReport, kind: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.kind == kind]


def test_healthy_data_is_stable_and_blameless(check: Callable[..., CalibrationReport]) -> None:
    report = check(pictures(), pictures(40, seed=1), preprocessing={"range": (-1, 1)})
    assert report.findings == ()
    assert report.is_good
    assert (report.sample_count, report.evaluation_count) == (60, 40)
    assert [one.name for one in report.tensors] == ["picture", "conv", "mean", "head"]
    assert report.stable_after is not None
    for point in report.curve:
        assert (point.largest_change <= report.tolerance) or point.sample_count < report.stable_after
    before = [point for point in report.curve if point.sample_count < report.stable_after]
    assert before[-1].largest_change > report.tolerance


def test_stable_after_is_the_last_sample_that_moved_a_scale(check: Callable[..., CalibrationReport]) -> None:
    data = pictures(50)
    data[20] *= 3
    report = check(data)
    assert report.stable_after == 21
    assert [one.settled_after for one in report.tensors if one.name == "picture"] == [21]


def test_data_that_keeps_growing_is_not_stable(check: Callable[..., CalibrationReport]) -> None:
    report = check(pictures(50) * np.linspace(0.1, 3, 50, dtype=np.float32).reshape(-1, 1, 1, 1))
    assert report.stable_after is None
    [finding] = of_kind(report, "not-stable")
    assert finding.serious
    assert not report.is_good


def test_one_sample_is_never_stable(check: Callable[..., CalibrationReport]) -> None:
    assert check(pictures(1)).stable_after is None


@pytest.mark.parametrize("estimator", ["moving-average", "percentile", "mse", "entropy"])
def test_every_estimator_has_a_curve(check: Callable[..., CalibrationReport], estimator: str) -> None:
    report = check(pictures(30), estimator=estimator, sample_count=24)
    assert (report.estimator, report.sample_count) == (estimator, 24)
    assert report.curve[-1].sample_count == 24
    assert report.curve[-1].largest_change == 0.0
    assert [point.sample_count for point in report.curve] == sorted({point.sample_count for point in report.curve})


def test_leaked_samples_are_counted_and_named(check: Callable[..., CalibrationReport]) -> None:
    calibration, evaluation = pictures(), pictures(40, seed=1)
    evaluation[[3, 9]] = calibration[[50, 7]]
    [finding] = of_kind(check(calibration, evaluation), "leakage")
    assert finding.serious
    assert finding.samples == (7, 50)
    assert finding.message.startswith("2 of 60 calibration samples are in the evaluation data too")


def test_copies_are_advice_until_they_are_most_of_the_set(check: Callable[..., CalibrationReport]) -> None:
    data = pictures()
    data[40] = data[3]
    [finding] = of_kind(check(data), "duplicates")
    assert (finding.serious, finding.samples) == (False, (40,))
    data[20:] = data[0]
    [finding] = of_kind(check(data), "duplicates")
    assert finding.serious
    assert "as good as one of 20" in finding.message


def test_a_broken_sample_is_pointed_at(check: Callable[..., CalibrationReport]) -> None:
    data = pictures()
    data[17, 0, 2, 2] = 500.0
    report = check(data)
    [finding] = of_kind(report, "outlier-sample")
    assert finding.serious
    assert finding.samples == (17,)
    assert finding.layers[0] == "picture"
    [tensor] = [one for one in report.tensors if one.name == "picture"]
    assert tensor.widest_sample == 17
    assert tensor.without_widest == pytest.approx(1.0, abs=0.01)
    [outliers] = of_kind(report, "outliers")
    assert not outliers.serious
    assert "picture (5" in outliers.message  # 500 against about 1


def test_dead_channels_are_counted(check: Callable[..., CalibrationReport]) -> None:
    net = Net()
    with torch.no_grad():
        net.conv.bias[:2] = -50.0
    report = check(pictures(), net=net)
    tensor = next(one for one in report.tensors if one.name == "conv")
    assert (tensor.channel_count, tensor.dead_channels) == (4, (0, 1))
    [finding] = of_kind(report, "dead-channels")
    assert not finding.serious
    assert "conv (2 of 4)" in finding.message


def test_constant_input_channel(check: Callable[..., CalibrationReport]) -> None:
    data = pictures()
    data[:, 1] = 0.25
    [finding] = of_kind(check(data), "constant-input")
    assert not finding.serious
    [finding] = of_kind(check(data, pictures(40, seed=1)), "constant-input")
    assert finding.serious
    assert "channel 1 has one value (0.25)" in finding.message


@pytest.mark.parametrize(
    ("change", "serious"), [((0.7, 1.0), False), ((0.0, 3.0), False), ((5.0, 1.0), True), ((0.0, 30.0), True)]
)
def test_another_kind_of_data_than_the_evaluation_data(
    check: Callable[..., CalibrationReport], change: tuple[float, float], serious: bool
) -> None:
    shift, scale = (np.float32(part) for part in change)
    [finding] = of_kind(check(pictures(), pictures(40, seed=1) * scale + shift), "shift")
    assert finding.serious is serious


IMAGENET = {"range": (0, 1), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (None, ""),
        (lambda raw: raw, "as before the declared normalisation"),
        (lambda raw: 255 * raw, "0 to 255"),
        (lambda raw: (255 * raw - 0.45) / 0.225, "0 to 255"),
        (lambda raw: 2 * (raw - 0.45) / 0.225, "the declaration allows"),
    ],
    ids=["right", "not normalised", "bytes", "bytes, normalised", "twice"],
)
def test_preprocessing_that_does_not_fit(
    check: Callable[..., CalibrationReport], mistake: Callable[[Array], Array] | None, words: str
) -> None:
    raw = np.random.default_rng(0).beta(2, 2.4, (60, *SHAPE)).astype(np.float32)
    mean, std = (np.array(IMAGENET[part], np.float32).reshape(-1, 1, 1) for part in ("mean", "std"))
    data = ((raw - mean) / std if mistake is None else mistake(raw)).astype(np.float32)
    found = of_kind(check(data, preprocessing=IMAGENET), "preprocessing")
    if mistake is None:
        assert found == []
    else:
        assert found[0].serious
        assert words in found[0].message


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"range": "0..1", "mean": "imagenet", "std": None},
        {"mean": [0.1, 0.2], "std": [1.0]},
        {"range": [1, 0]},
        {"std": [0, 0, 0], "mean": 0},
    ],
)
def test_a_declaration_it_does_not_understand_is_left_alone(declared: dict[str, Any]) -> None:
    statistics = InputStatistics(name="x", channel_axis=1, low=(-9,) * 3, high=(9,) * 3, mean=(0.1,) * 3, std=(2.0,) * 3)
    assert check_preprocessing(statistics, declared) == []


def test_statistics_do_not_depend_on_batches() -> None:
    data = pictures(30) + 1000
    parts = [
        read_samples(
            ({"x": data[at : at + size]} for at in range(0, 30, size)), axes={"x": 1}, sample_count=20, what="", progress=silent
        )
        for size in (1, 7, 30)
    ]
    assert parts[0].digests == parts[1].digests == parts[2].digests
    assert len(parts[0].digests) == 20
    for part in parts:
        np.testing.assert_allclose(part.inputs[0].mean, data[:20].astype(np.float64).mean((0, 2, 3)), rtol=1e-9)
        np.testing.assert_allclose(part.inputs[0].std, data[:20].astype(np.float64).std((0, 2, 3)), rtol=1e-6)


def test_integer_inputs_are_compared_by_their_bytes(make_task: Callable[..., Task]) -> None:
    tokens = np.random.default_rng(0).integers(0, 20, (12, 6))
    net = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 4))
    task = make_task(net, (1, 6), example_inputs=tokens[:1], calibration=[tokens], evaluation=[(tokens[:2], np.zeros(2))])
    report = edgekit.check_calibration(task)
    assert report.calibration == ()
    assert of_kind(report, "leakage")[0].samples == (0, 1)


def test_a_report_is_data(check: Callable[..., CalibrationReport]) -> None:
    report = check(pictures(20), pictures(10, seed=1))
    assert CalibrationReport.model_validate_json(report.to_json()) == report
    assert "<svg" in (report._repr_html_() or "")


@pytest.mark.parametrize("recipe", ["none", "w8"])
def test_a_recipe_without_calibration_is_refused(check: Callable[..., CalibrationReport], recipe: str) -> None:
    with pytest.raises(RecipeError, match="nothing needs calibration"):
        check(pictures(4), recipe=recipe)


def test_missing_data_is_named(make_task: Callable[..., Task]) -> None:
    with pytest.raises(DataError, match="no calibration data"):
        edgekit.check_calibration(make_task(Net(), (1, *SHAPE), calibration=None))
