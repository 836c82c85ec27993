"""Operations of a damaged file: every one is refused with its name, none with what torch or Python happen to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.core.errors import DataError, EdgekitError, IntegrityError
from edgekit.runtimes.coreml.ops.library import supported
from edgekit.runtimes.coreml.ops.lists import TensorList
from edgekit.runtimes.coreml.program import Variable

Operate = Callable[..., Any]


@pytest.mark.parametrize(
    ("kind", "arguments", "complaint"),
    [
        ("constexpr_cast", {}, "there is nothing to decode"),
        ("constexpr_blockwise_shift_scale", {}, "its data cannot be decoded"),
        ("constexpr_sparse_blockwise_shift_scale", {"data_mask": np.ones((2, 2), np.uint8)}, "'nonzero_data' must be an array"),
        ("write_state", {}, "NoneType"),
        ("list_read", {"ls": torch.ones(2), "index": torch.tensor(0)}, "'Tensor' object has no attribute 'read'"),
        ("gather", {"x": torch.tensor(1.0), "indices": torch.tensor(0), "axis": 0}, "modulo"),
        ("space_to_batch", {"x": torch.ones(1, 1, 2, 2), "block_shape": [0, 1], "paddings": [[0, 0], [0, 0]]}, "block_shape"),
        ("crop_resize", {"x": torch.ones(1, 1, 2, 2), "roi": torch.ones(1, 4), "box_coordinate_mode": "SIDEWAYS"}, "SIDEWAYS"),
        ("random_categorical", {"x": torch.ones(1, 3), "mode": "odds"}, "unknown mode 'odds'; known: logits, probs"),
    ],
)  # fmt: skip
def test_named(operate: Operate, kind: str, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(IntegrityError, match=rf"'under_test' \({kind}\).*{complaint}"):
        operate(kind, **arguments)


def test_an_element_behind_the_end_of_a_list_is_the_datas_fault() -> None:
    empty = TensorList((None,), (2,), torch.float32, True)
    assert empty.read(0).tolist() == [0, 0]
    assert len(empty.written({3: torch.ones(2)}).elements) == 4
    for index in (-1, 1):
        with pytest.raises(DataError, match=f"reads element {index} of a list of 1"):
            empty.read(index)
    with pytest.raises(DataError, match="writes elements"):
        empty.written({1 << 40: torch.ones(2)})


WRONG = [torch.ones(()), torch.zeros(0), torch.ones(2, 3), torch.tensor([9], dtype=torch.int32), np.float32([1, 2]), "text", True]
ARGUMENTS = (
    "x",
    "y",
    "shape",
    "axis",
    "axes",
    "weight",
    "indices",
    "data",
    "input",
    "ls",
    "value",
    "values",
    "begin",
    "end",
    "roi",
)


@pytest.mark.parametrize("kind", [name for name in supported() if name not in {"const", "classify", "cond", "while_loop"}])
def test_arguments_at_random_are_refused_or_computed(operate: Operate, kind: str) -> None:
    rng = np.random.default_rng(sum(map(ord, kind)))
    outputs = [Variable(f"out{at}", "float16", ()) for at in range(int(rng.integers(1, 3)))]
    for _ in range(8):
        chosen = rng.permutation(len(ARGUMENTS))[: rng.integers(0, 9)]
        arguments = {ARGUMENTS[at]: WRONG[rng.integers(len(WRONG))] for at in chosen}
        try:
            operate(kind, outputs=outputs, **arguments)
        except EdgekitError as refused:
            assert str(refused)
