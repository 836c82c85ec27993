"""Inputs from files and from words, and one drawn where none is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.core.errors import DataError, UsageError
from edgekit.core.model_inputs import draw_inputs, pick_inputs, read_arrays, split_samples
from edgekit.core.tensors import TensorSpec

PICTURE = TensorSpec(name="picture", shape=(1, 2, 3), dtype="float32")
TOKENS = TensorSpec(name="tokens", shape=(4,), dtype="int64")
PIXELS = TensorSpec(name="pixels", shape=(1, 64), dtype="uint8")


def test_drawn_inputs_are_of_their_kind() -> None:
    drawn = draw_inputs([PICTURE, TOKENS, PIXELS])
    assert {name: (str(a.dtype), a.shape) for name, a in drawn.items()} == {
        "picture": ("float32", (1, 2, 3)), "tokens": ("int64", (4,)), "pixels": ("uint8", (1, 64)),
    }  # fmt: skip
    assert set(drawn["tokens"]) <= {0, 1}
    assert drawn["pixels"].max() > 200
    np.testing.assert_array_equal(draw_inputs([PICTURE], seed=0)["picture"], drawn["picture"])
    assert (draw_inputs([PICTURE], seed=1)["picture"] != drawn["picture"]).any()


def test_samples_may_be_stacked() -> None:
    picture, tokens = np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3), np.arange(4)
    first, second = split_samples([PICTURE, TOKENS], {"picture": picture, "tokens": tokens}, of="m")
    np.testing.assert_array_equal(second["picture"], picture[1])
    np.testing.assert_array_equal(first["tokens"], tokens)
    np.testing.assert_array_equal(pick_inputs([PICTURE], {"picture": picture}, of="m")["picture"], picture[0])


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"pictur": np.zeros(1)}, "m has no input 'pictur'; its inputs are picture, tokens. Did you mean 'picture'"),
        ({"tokens": np.zeros(4, np.int64)}, "m needs the input 'picture' too; given are tokens"),
        ({"picture": np.zeros((2, 1, 2, 3)), "tokens": np.zeros((3, 4))}, "same number of samples"),
        ({"picture": np.zeros((0, 1, 2, 3)), "tokens": np.zeros(4)}, "at least one"),
    ],
)
def test_wrong_inputs(given: dict[str, np.ndarray], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        split_samples([PICTURE, TOKENS], given, of="m")


def test_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones(2), b=np.zeros(3))
    np.save(tmp_path / "c.npy", np.full(4, 7))
    found = read_arrays([str(tmp_path / "x.npz"), f"c={tmp_path / 'c.npy'}"])
    assert found is not None
    assert sorted(found) == ["a", "b", "c"]
    assert read_arrays([]) is None
    for words, complaint in (
        ([str(tmp_path / "c.npy")], "one array without a name"),
        ([f"a={tmp_path / 'x.npz'}"], "holds several arrays"),
        ([str(tmp_path / "x.npz"), f"a={tmp_path / 'c.npy'}"], "'a' is given twice"),
    ):
        with pytest.raises(UsageError, match=complaint):
            read_arrays(words)


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_arrays([str(tmp_path / "gone.npz")])
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npz").write_text("no arrays")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("objects.npy", "text.npz", "empty.npz"):
        with pytest.raises(DataError, match="is no file of plain arrays"):
            read_arrays([str(tmp_path / name)])
