"""Each example's task loads, its data has the promised shapes, and nothing it is judged on was learned from."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

SHAPES = {
    "smartwatch": (6, 200), "fashion": (1, 28, 28), "mobilenet": (3, 224, 224), "residual": (1, 28, 28),
    "resnet18": (3, 224, 224), "sentiment": (32,), "bilstm": (32,), "minilm": (32,),
}  # fmt: skip
DATA = {
    "smartwatch": ["smartwatch"], "fashion": ["fashion"], "mobilenet": ["mobilenet", "pictures"], "residual": ["fashion"],
    "resnet18": ["pictures"], "sentiment": ["sentences"], "bilstm": ["sentences"], "minilm": ["minilm", "sentences"],
}  # fmt: skip
NETS = {
    "smartwatch": ("MotionNet", 7), "fashion": ("FashionNet", 10), "mobilenet": ("MobileNetV2", 1000),
    "residual": ("ResidualNet", 10), "resnet18": ("ResNet18", 1000), "sentiment": ("SentimentTransformer", 2),
    "bilstm": ("SentenceLSTM", 2), "minilm": ("MiniLM", 384),
}  # fmt: skip
PARAMETERS = {
    "smartwatch": (30_000, 36_000), "fashion": (33_000, 36_000), "mobilenet": (3_504_872, 3_504_872), "residual": (47_050,) * 2,
    "resnet18": (11_689_512, 11_689_512), "sentiment": (324_000, 326_000), "bilstm": (299_000, 301_000),
    "minilm": (22_565_000, 22_570_000),
}  # fmt: skip
WORDS = {"sentiment", "bilstm", "minilm"}


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
        inputs = torch.ones(2, *SHAPES[name], dtype=torch.int32 if name in WORDS else torch.float32)
        assert net(inputs).shape == (2, classes)


@pytest.mark.parametrize("name", SHAPES)
def test_batches_have_the_promised_shapes(name: str, load_example: Callable, needs: Callable) -> None:
    needs(*DATA[name])
    task, data = load_example(name)
    dtype = np.int32 if name in WORDS else np.float32
    batch = next(data.calibration())
    assert batch.shape[1:] == SHAPES[name] and batch.dtype == dtype
    inputs, targets = next(iter(data.evaluation()))
    assert inputs.shape[1:] == SHAPES[name] and inputs.dtype == dtype
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


@pytest.mark.parametrize("name", ["smartwatch", pytest.param("fashion", marks=pytest.mark.proof), "residual"])
def test_the_order_of_training_data_comes_from_the_global_seed(name: str, load_example: Callable, needs: Callable) -> None:
    needs(*DATA[name])
    task, _ = load_example(name)
    epochs = []
    for seed in (0, 0, 1):
        np.random.seed(seed)  # noqa: NPY002  as the trainer does
        inputs, classes = next(task.training_batches())
        epochs.append(next(iter(inputs.values())))
    assert np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[0], epochs[2])
    assert len(set(classes)) > 4 and set(classes) <= set(range(len(task.labels)))


def test_smartwatch_recordings_teach_or_choose_but_not_both(load_example: Callable, needs: Callable) -> None:
    needs("smartwatch")
    task, data = load_example("smartwatch")
    import training  # beside the task, found once it is loaded

    taught, held_back = training.split()
    assert sum(len(classes) for _, classes in task.training()) > 2600
    assert len(taught[1]) + len(held_back[1]) == len(data.training_set()[1]) and len(held_back[1]) > 250
    chosen = np.concatenate([inputs["signal"] for inputs, _ in task.validation_batches()])
    np.testing.assert_array_equal(chosen, held_back[0])
    starts = {window[:, :50].tobytes() for window in held_back[0]}
    assert not any(window[:, at : at + 50].tobytes() in starts for window in taught[0] for at in (0, 50, 100, 150))


@pytest.mark.proof  # trains for minutes where nobody did yet
def test_fashion_pictures_teach_or_choose_but_not_both(load_example: Callable, needs: Callable) -> None:
    needs("fashion")
    task, data = load_example("fashion")
    pictures, classes = data.load("train")
    chosen = np.concatenate([targets for _, targets in task.validation_batches()])
    np.testing.assert_array_equal(chosen, classes[-5000:])
    first = {picture.tobytes() for picture in data.normalise(pictures[-5000:])}
    taught = [picture.tobytes() in first for inputs, _ in task.training() for picture in inputs]
    assert len(taught) == 54_912 and sum(taught) < 20  # a few pictures were published twice


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


def test_two_examples_share_data_under_names_of_their_own(load_example: Callable) -> None:
    _, fashion = load_example("fashion")
    _, residual = load_example("residual")
    assert residual.LABELS == fashion.LABELS and residual is not fashion
    assert residual.load.__module__ == "fashion_data"


def test_sentences_judge_or_teach_but_not_both(load_example: Callable, needs: Callable) -> None:
    needs("sentences")
    _, data = load_example("sentiment")
    rated = data.sentences()
    assert len(rated) == 19_459 and {label for _, label in rated} == {0, 1}
    judged = {text for text, _ in rated if data.is_test(text)}
    taught = {text for text, _ in rated if not data.is_test(text)}
    assert not judged & taught
    assert 0.18 < len(judged) / len(rated) < 0.23
    assert sum(len(classes) for _, classes in data.evaluation()) == sum(data.is_test(text) for text, _ in rated)
    numbers, _ = data.split(test=False)
    assert set(map(bytes, np.concatenate(list(data.calibration())))) <= set(map(bytes, numbers))


def test_words_are_numbered_by_how_often_they_are_taught(load_example: Callable, needs: Callable) -> None:
    needs("sentences")
    _, data = load_example("sentiment")
    [row] = data.encode(["The the xyzzyx :)"])
    numbers = data.vocabulary()
    assert len(numbers) == data.VOCABULARY_SIZE - 2 and max(numbers.values()) == data.VOCABULARY_SIZE - 1
    assert row.tolist() == [numbers["the"], numbers["the"], data.UNKNOWN, numbers[":)"], *[data.PADDING] * 28]
    assert numbers["the"] < numbers["wonderful"]


def test_word_pieces_are_those_of_the_published_tokenizer(load_example: Callable, needs: Callable) -> None:
    """Numbers written down from the tokenizer that was published with the weights."""
    needs("minilm", "sentences")
    _, data = load_example("minilm")
    [row] = data.encode(["naïve café: don't_panic"])
    assert row[:10].tolist() == [101, 15743, 7668, 1024, 2123, 1005, 1056, 1035, 6634, 102]
    assert not row[10:].any()
    assert data.pieces("embeddings") == ["em", "##bed", "##ding", "##s"]
    assert data.pieces("\u2603") == ["[UNK]"]


def test_minilm_knows_what_is_alike(load_example: Callable, needs: Callable) -> None:
    needs("minilm", "sentences")
    task, data = load_example("minilm")
    queries = torch.from_numpy(data.encode(["The movie was wonderful.", "I loved this film!", "The camera's battery died."]))
    with torch.inference_mode():
        directions = task.build_model()(queries)
    similar = (directions @ directions.T).numpy()
    np.testing.assert_allclose(np.diag(similar), 1.0, atol=1e-5)
    assert similar[0, 1] == pytest.approx(0.639, abs=2e-3)  # as the published encoder says
    assert similar[0, 1] > 2 * max(similar[0, 2], similar[1, 2])


def test_minilm_sets_have_no_sentence_in_common(load_example: Callable, needs: Callable) -> None:
    needs("minilm", "sentences")
    _, data = load_example("minilm")
    sets = [data.library(), np.concatenate([batch for batch, _ in data.evaluation()]), np.concatenate(list(data.calibration()))]
    assert [len(part) for part in sets] == [512, 400, 128]
    seen = [set(map(bytes, part)) for part in sets]
    assert not seen[0] & seen[1] and not seen[1] & seen[2] and not seen[0] & seen[2]


def test_resnet18_favours_no_class(load_example: Callable, needs: Callable) -> None:
    """Random weights, but ranges of real photographs, and answers that differ from picture to picture."""
    needs("pictures")
    task, data = load_example("resnet18")
    pictures, _ = next(data.evaluation())
    with torch.inference_mode():
        logits = task.build_model()(torch.from_numpy(pictures))
    assert len(set(logits.argmax(1).tolist())) >= 5
    assert 0.1 < logits.std().item() < 1.0
