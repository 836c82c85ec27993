"""Each example's task loads, its data has the promised shapes, and nothing it is judged on was learned from."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

SHAPES = {"smartwatch": (6, 200), "fashion": (1, 28, 28), "mobilenet": (3, 224, 224)}
DATA = {"smartwatch": ["smartwatch"], "fashion": ["fashion"], "mobilenet": ["mobilenet", "pictures"]}
NETS = {"smartwatch": ("MotionNet", 7), "fashion": ("FashionNet", 10), "mobilenet": ("MobileNetV2", 1000)}
PARAMETERS = {"smartwatch": (30_000, 36_000), "fashion": (33_000, 36_000), "mobilenet": (3_504_872, 3_504_872)}


@pytest.mark.parametrize("name", SHAPES)
def test_a_task_loads_without_its_data(name: str, load_example: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_ASSETS", "/nonexistent")
    task, _ = load_example(name)
    assert task.name == name
    assert np.asarray(task.example_inputs).shape == (1, *SHAPES[name])
    assert task.preprocessing
    with pytest.raises(Exception, match=r"Fetch it with: python examples/assets\.py"):
        next(task.calibration_batches())


@pytest.mark.parametrize("name", SHAPES)
def test_the_net_has_its_size_and_its_outputs(name: str, load_example: Callable) -> None:
    load_example(name)
    class_name, classes = NETS[name]
    net = getattr(sys.modules["model"], class_name)().eval()
    low, high = PARAMETERS[name]
    assert low <= sum(parameter.numel() for parameter in net.parameters()) <= high
    with torch.inference_mode():
        assert net(torch.zeros(2, *SHAPES[name])).shape == (2, classes)


@pytest.mark.parametrize("name", SHAPES)
def test_batches_have_the_promised_shapes(name: str, load_example: Callable, needs: Callable) -> None:
    needs(*DATA[name])
    task, data = load_example(name)
    batch = next(data.calibration())
    assert batch.shape[1:] == SHAPES[name] and batch.dtype == np.float32
    inputs, targets = next(iter(data.evaluation()))
    assert inputs.shape[1:] == SHAPES[name] and inputs.dtype == np.float32
    if task.metric.against_float:
        assert targets is None
    else:
        assert targets.shape == inputs.shape[:1] and set(targets) <= set(range(len(task.labels)))


def test_siblings_of_one_example_are_not_taken_for_those_of_another(load_example: Callable) -> None:
    _, watch = load_example("smartwatch")
    _, fashion = load_example("fashion")
    _, again = load_example("smartwatch")
    assert watch.LABELS == again.LABELS != fashion.LABELS


def test_smartwatch_is_split_by_person(load_example: Callable, needs: Callable) -> None:
    needs("smartwatch")
    _, data = load_example("smartwatch")
    signals, classes, subjects = data.load_windows()
    assert signals.shape == (4397, 6, 200) and set(subjects) == set(range(1, 11)) and set(classes) == set(range(7))
    trained, _ = data.training_set()
    judged = np.concatenate([batch for batch, _ in data.evaluation()])
    assert len(trained) + len(judged) == len(signals)
    held_out = np.isin(subjects, data.HELD_OUT_SUBJECTS)
    np.testing.assert_array_equal(judged, data.normalise(signals[held_out]))
    seen = {window.tobytes() for window in trained}
    assert not seen & {window.tobytes() for window in judged}
    assert {window.tobytes() for batch in data.calibration() for window in batch} <= seen


def test_smartwatch_normalisation_is_that_of_the_training_people(load_example: Callable, needs: Callable) -> None:
    needs("smartwatch")
    _, data = load_example("smartwatch")
    signals, _, subjects = data.load_windows()
    trained = signals[~np.isin(subjects, data.HELD_OUT_SUBJECTS)].astype(np.float64)
    np.testing.assert_allclose(trained.mean(axis=(0, 2)), data.MEAN, atol=1e-4)
    np.testing.assert_allclose(trained.std(axis=(0, 2)), data.STD, atol=1e-4)


def test_fashion_normalisation_and_sizes(load_example: Callable, needs: Callable) -> None:
    needs("fashion")
    _, data = load_example("fashion")
    pictures, classes = data.load("train")
    assert pictures.shape == (60_000, 28, 28) and np.bincount(classes).tolist() == [6000] * 10
    assert pictures.mean() / 255 == pytest.approx(data.MEAN, abs=1e-3)
    assert pictures.std() / 255 == pytest.approx(data.STD, abs=1e-3)
    assert sum(len(targets) for _, targets in data.evaluation()) == 10_000


def test_photographs_calibrate_or_judge_but_not_both(load_example: Callable, needs: Callable) -> None:
    needs("pictures")
    _, data = load_example("mobilenet")
    calibration, evaluation = data.split()
    assert (len(calibration), len(evaluation)) == (64, 195)
    assert not set(calibration) & set(evaluation)
    assert data.split() == (calibration, evaluation)


def test_photographs_stand_on_white(load_example: Callable, needs: Callable) -> None:
    """The stamps are cut out: outside them, alpha is 0 and the colour below must not show."""
    needs("pictures")
    _, data = load_example("mobilenet")
    picture = data.load(data.split()[1][0])
    white = (1 - np.array(data.MEAN)) / np.array(data.STD)
    np.testing.assert_allclose(picture[:, 0, 0], white, rtol=1e-3)


def test_mobilenet_knows_what_it_sees(load_example: Callable, needs: Callable) -> None:
    """The published weights sit in the right places: an ostrich is ImageNet's class 9, a flamingo 130."""
    needs("mobilenet", "pictures")
    task, data = load_example("mobilenet")
    paths = {path.stem: path for part in data.split() for path in part}
    chosen = torch.from_numpy(np.stack([data.load(paths[name]) for name in ("ostrich", "pink_flamingo")]))
    with torch.inference_mode():
        assert task.build_model()(chosen).argmax(1).tolist() == [9, 130]
