"""Every evaluation sample has a label in every group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.core.errors import DataError
from edgekit.core.evaluation import gather_evaluation
from edgekit.core.slices import read_slices
from edgekit.core.task import Task

INPUTS = {"x": np.arange(4.0, dtype=np.float32)[:, None]}
TARGETS = np.array([2, 0, 2, 7])


def test_classes_are_a_group() -> None:
    found = read_slices({}, INPUTS, TARGETS, names=["a", "b", "c"])
    assert {group: labels.tolist() for group, labels in found.items()} == {"class": ["c", "a", "c", "7"]}
    assert read_slices({"class": [1, 1, 2, 2]}, INPUTS, TARGETS)["class"].tolist() == ["1", "1", "2", "2"]
    for targets in (None, TARGETS.astype(np.float32), TARGETS[:, None], np.zeros(4, np.int64)):
        assert read_slices({}, INPUTS, targets) == {}


def test_functions_see_the_whole_set() -> None:
    found = read_slices({"large": lambda inputs, targets: inputs["x"][:, 0] > targets.mean()}, INPUTS, TARGETS)
    assert found["large"].tolist() == ["False", "False", "False", "True"]


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ([1, 2, 3], r"slices 'who' have shape \[3\] for 4 evaluation samples"),
        (lambda inputs, targets: inputs["y"], "slices 'who': the function fails on the evaluation set. KeyError"),
        (np.zeros((4, 2)), r"shape \[4, 2\]"),
    ],
)
def test_wrong_labels(labels: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read_slices({"who": labels}, INPUTS, TARGETS, task="t")


def test_samples_are_no_slices() -> None:
    inputs = {"x": np.zeros((1500, 1), np.float32)}
    with pytest.raises(DataError, match="are no slices but samples"):
        read_slices({"who": np.arange(1500)}, inputs, None)


def test_batches_are_joined_first() -> None:
    batches = [({"input": INPUTS["x"][:3]}, TARGETS[:3]), ({"input": INPUTS["x"][3:]}, TARGETS[3:])]
    import torch

    task = Task(
        name="t", model=torch.nn.Linear(1, 3), example_inputs=INPUTS["x"][:1], evaluation=batches, slices={"who": list("abba")}
    )
    found = gather_evaluation(task)
    assert found is not None
    assert found.slices["who"].tolist() == list("abba")
    assert found.slices["class"].tolist() == ["2", "0", "2", "7"]
