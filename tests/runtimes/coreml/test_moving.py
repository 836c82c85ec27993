"""Kernels that move, pick, make and resample values, against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgekit.core.errors import DataError, IntegrityError
from edgekit.runtimes.coreml.ops.image import positions
from edgekit.runtimes.coreml.program import Variable

Operate = Callable[..., Any]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def outputs(count: int, dtype: str = "float32") -> list[Variable]:
    return [Variable(f"out_{index}", dtype, ()) for index in range(count)]


def test_shapes(operate: Operate) -> None:
    x = random(2, 3, 4)
    same(operate("reshape", x=x, shape=[4, -1]), x.reshape(4, -1))
    same(operate("reshape", x=x, shape=torch.tensor([6, 4])), x.reshape(6, 4))
    same(operate("transpose", x=x, perm=[2, 0, 1]), x.permute(2, 0, 1))
    same(operate("expand_dims", x=x, axes=[0, -1]), x[None, ..., None])
    same(operate("squeeze", x=x[:, None, :, None], axes=[1, 3]), x)
    same(operate("squeeze", x=x[:, None]), x)
    same(operate("flatten2d", x=x, axis=2), x.reshape(6, 4))
    same(operate("tile", x=x, reps=[1, 2, 3]), x.repeat(1, 2, 3))
    same(operate("reverse", x=x, axes=[1]), x.flip(1))
    same(operate("shape", x=x), torch.tensor([2, 3, 4], dtype=torch.int32))


def test_zero_in_a_shape_counts_from_the_right(operate: Operate) -> None:
    x = random(2, 3, 4)
    same(operate("reshape", x=x, shape=[1, 0, -1, 0]), x.reshape(1, 2, 3, 4))
    same(operate("reshape", x=x, shape=[0, -1]), x.reshape(3, 8))
    same(operate("reshape", x=random(2, 50), shape=[1, 0, -1, 0]), random(2, 50).reshape(1, 1, 2, 50))


def test_joining_and_splitting(operate: Operate) -> None:
    x, y = random(2, 3, 4), random(2, 3, 4, seed=1)
    same(operate("stack", values=[x, y], axis=1), torch.stack([x, y], 1))
    same(operate("concat", values=[x, y], axis=-1), torch.cat([x, y], -1))
    for axis in (1, -2):
        woven = operate("concat", values=[x, y], axis=axis, interleave=True)
        same(woven[:, 0::2], x)
        same(woven[:, 1::2], y)
    for found, expected in zip(
        operate("split", x=x, axis=2, split_sizes=[1, 3], outputs=outputs(2)), x.split([1, 3], 2), strict=True
    ):
        same(found, expected)
    for found, expected in zip(operate("split", x=x, axis=1, num_splits=3, outputs=outputs(3)), x.split(1, 1), strict=True):
        same(found, expected)


def test_slicing(operate: Operate) -> None:
    x = random(3, 6, 7)
    same(
        operate("slice_by_index", x=x, begin=[0, 1, -3], end=[2, 5, 0], stride=[1, 2, 1], end_mask=[False, False, True]),
        x[0:2, 1:5:2, -3:],
    )
    found = operate(
        "slice_by_index", x=x, begin=[1, 0, 2], end=[9, 9, 6], begin_mask=[False, True, False], squeeze_mask=[True, False, False]
    )
    same(found, x[1, :9, 2:6])
    same(operate("slice_by_size", x=x, begin=torch.tensor([1, -2, 0]), size=[2, -1, 3]), x[1:3, -2:, :3])
    updated = x.clone()
    updated[1:2, 2:4] = 7
    same(operate("slice_update", x=x, update=torch.full((1, 2, 7), 7.0), begin=[1, 2, 0], end=[2, 4, 7]), updated)
    backwards = operate("slice_by_index", x=x, begin=[0, 3, 0], end=[2, 0, 3], stride=[1, -2, 1])
    same(backwards, x[0:2, 1:4:2, 0:3].flip(1))
    with pytest.raises(IntegrityError, match=r"stride .* holds a 0"):
        operate("slice_by_index", x=x, begin=[0, 0, 0], end=[1, 1, 1], stride=[1, 0, 1])
    same(operate("slice_by_index", x=x, begin=torch.tensor([0, 2, 0]), end=[1, 4, 1]), x[0:1, 2:4, 0:1])


@pytest.mark.parametrize("shape", [(3, 6), (2, 3, 6), (1, 2, 5, 6)])
@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_by_mirror(operate: Operate, mode: str, shape: tuple[int, ...]) -> None:
    x = random(*shape)
    expected = functional.pad(x.reshape(1, -1, shape[-1]), (2, 1), mode=mode).reshape(*shape[:-1], shape[-1] + 3)
    same(operate("pad", x=x, pad=[0, 0] * (len(shape) - 1) + [2, 1], mode=mode), expected)


def test_padding_by_a_constant(operate: Operate) -> None:
    x = random(1, 2, 5, 6)
    same(operate("pad", x=x, pad=[1, 0, 0, 2, 3, 1], constant_val=4.0), functional.pad(x, (3, 1, 0, 2, 1, 0), value=4.0))
    same(operate("pad", x=x, pad=[1, 2, 3, 4], mode="reflect"), functional.pad(x, (3, 4, 1, 2), mode="reflect"))


def test_channels_and_space(operate: Operate) -> None:
    x = random(2, 8, 4, 6)
    same(operate("pixel_shuffle", x=x, upscale_factor=2), functional.pixel_shuffle(x, 2))
    same(operate("pixel_unshuffle", x=x, downscale_factor=2), functional.pixel_unshuffle(x, 2))
    deep = operate("depth_to_space", x=x, block_size=2)
    assert deep.shape == (2, 2, 8, 12)
    same(deep[:, 0, 0, 1], x[:, 2, 0, 0])  # TensorFlow's order: the block's position is the slower part of the channel
    same(operate("space_to_depth", x=deep, block_size=2), x)


def test_band_part(operate: Operate) -> None:
    x = random(2, 5, 4)
    same(operate("band_part", x=x, lower=0, upper=-1), x.triu())
    same(operate("band_part", x=x, lower=-1, upper=0), x.tril())
    same(operate("band_part", x=x, lower=1, upper=1), x.triu(-1).tril(1))


def test_gather(operate: Operate) -> None:
    x, indices = random(4, 5, 6), torch.tensor([[2, 0], [-1, 3]], dtype=torch.int32)
    same(operate("gather", x=x, indices=indices), x[indices.long()])
    same(operate("gather", x=x, indices=indices, axis=1), x[:, indices.long()])
    same(operate("gather", x=x, indices=torch.tensor(2), axis=-1), x[..., 2])
    batched = operate("gather", x=x, indices=torch.tensor([[0, 1], [2, 3], [4, 0], [1, 1]]), axis=1, batch_dims=1)
    same(batched, torch.stack([row[index] for row, index in zip(x, torch.tensor([[0, 1], [2, 3], [4, 0], [1, 1]]), strict=True)]))
    same(operate("gather_along_axis", x=x, indices=torch.zeros(4, 1, 6, dtype=torch.int32), axis=1), x[:, :1])
    same(operate("gather_nd", x=x, indices=torch.tensor([[0, 1], [3, -1]])), torch.stack([x[0, 1], x[3, 4]]))


def test_scatter(operate: Operate) -> None:
    data, indices = torch.zeros(3, 4), torch.tensor([2, 0], dtype=torch.int32)
    replaced = operate("scatter", data=data, indices=indices, updates=torch.ones(2, 4), mode="update")
    same(replaced, torch.tensor([1.0, 0, 1])[:, None].expand(3, 4))
    same(operate("scatter", data=replaced, indices=indices, updates=torch.ones(2, 4)), 2 * replaced)
    same(operate("scatter_nd", data=data, indices=indices[:, None], updates=torch.ones(2, 4), mode="update"), replaced)
    along = operate("scatter_along_axis", data=data, indices=torch.full((3, 1), 1), updates=torch.ones(3, 1), axis=1, mode="add")
    same(along, torch.tensor([0.0, 1, 0, 0]).expand(3, 4))
    with pytest.raises(IntegrityError, match="unknown mode 'xor'"):
        operate("scatter", data=data, indices=indices, updates=torch.ones(2, 4), mode="xor")
    with pytest.raises(DataError, match="indices must lie from 0 to"):
        operate("scatter", data=data, indices=indices - 1, updates=torch.ones(2, 4), validate_indices=True)


def test_ordering(operate: Operate) -> None:
    x = torch.tensor([[3.0, 1, 2, 3], [0, 5, 5, 1]])
    values, indices = operate("topk", x=x, k=2, outputs=outputs(2))
    assert values.tolist() == [[3, 3], [5, 5]]
    assert indices.tolist() == [[0, 3], [1, 2]]
    assert operate("topk", x=x, k=1, ascending=True, axis=0).tolist() == [[0, 1, 2, 1]]
    assert operate("argsort", x=x).tolist() == [[0, 3, 2, 1], [1, 2, 3, 0]]
    assert operate("argsort", x=x, ascending=True).tolist() == [[1, 2, 0, 3], [0, 3, 1, 2]]
    assert operate("non_zero", x=torch.tensor([[0.0, 2.0], [1.0, 0.0]])).tolist() == [[0, 1], [1, 0]]


def test_making(operate: Operate) -> None:
    assert operate("fill", shape=torch.tensor([2, 1]), value=3.0).tolist() == [[3], [3]]
    assert operate("fill_like", ref_tensor=random(2), value=1, outputs=outputs(1, "int32")).dtype == torch.int32
    counted = operate("range_1d", start=torch.tensor(2), end=torch.tensor(9), step=torch.tensor(3), outputs=outputs(1, "int32"))
    assert counted.tolist() == [2, 5, 8]
    hot = operate("one_hot", indices=torch.tensor([1, 5]), one_hot_vector_size=3, on_value=2.0, off_value=-1.0)
    assert hot.tolist() == [[-1, 2, -1], [-1, -1, -1]]
    assert operate("one_hot", indices=torch.tensor([1, 0]), one_hot_vector_size=3, axis=0).shape == (3, 2)


def test_cumsum(operate: Operate) -> None:
    x = torch.tensor([[1.0, 2, 3]])
    assert operate("cumsum", x=x, axis=1).tolist() == [[1, 3, 6]]
    assert operate("cumsum", x=x, axis=1, exclusive=True).tolist() == [[0, 1, 3]]
    assert operate("cumsum", x=x, axis=1, reverse=True).tolist() == [[6, 5, 3]]
    assert operate("cumsum", x=x, axis=1, exclusive=True, reverse=True).tolist() == [[5, 3, 0]]


def test_resampling_against_torch(operate: Operate) -> None:
    x = random(1, 2, 5, 6)
    nearest = functional.interpolate(x, scale_factor=2)
    same(operate("upsample_nearest_neighbor", x=x, scale_factor_height=2, scale_factor_width=2), nearest)
    same(
        operate("resize_nearest_neighbor", x=x, target_size_height=7, target_size_width=4), functional.interpolate(x, size=(7, 4))
    )
    aligned = functional.interpolate(x, size=(10, 12), mode="bilinear", align_corners=True)
    centred = functional.interpolate(x, size=(10, 12), mode="bilinear", align_corners=False)
    factors = {"scale_factor_height": 2.0, "scale_factor_width": 2.0}
    torch.testing.assert_close(operate("upsample_bilinear", x=x, **factors), aligned)
    torch.testing.assert_close(operate("upsample_bilinear", x=x, align_corners=False, **factors), centred)
    sizes = {"target_size_height": 10, "target_size_width": 12}
    torch.testing.assert_close(operate("resize_bilinear", x=x, sampling_mode="STRICT_ALIGN_CORNERS", **sizes), aligned)
    torch.testing.assert_close(operate("resize_bilinear", x=x, sampling_mode="UNALIGN_CORNERS", **sizes), centred)
    out = [Variable("out", "float32", (1, 2, 10, 12))]
    found = operate("resize", x=x, shape=[10, 12], resized_dims=2, sampling_mode="UNALIGN_CORNERS", outputs=out)
    torch.testing.assert_close(found, centred)
    found = operate("resize", x=x, shape=[10, 12], resized_dims=2, interpolation_mode="NEAREST_NEIGHBOR", outputs=out)
    assert found.shape == (1, 2, 10, 12)
    same(operate("crop", x=x, crop_height=[1, 2], crop_width=[0, 3]), x[..., 1:3, 0:3])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("UNALIGN_CORNERS", [0.0, 0.1, 0.5, 0.9, 1.0]),
        ("STRICT_ALIGN_CORNERS", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("DEFAULT", [0.0, 0.4, 0.8, 1.0, 1.0]),
        ("OFFSET_CORNERS", [0.1, 0.3, 0.5, 0.7, 0.9]),
    ],
)
def test_sampling_positions_are_those_of_the_documentation(mode: str, expected: list[float]) -> None:
    """The table in coremltools' docstring of ``resize_bilinear``: two pixels resized to five."""
    np.testing.assert_allclose(positions(2, 5, mode).numpy(), expected, atol=1e-9)
    assert positions(3, 1, "ALIGN_CORNERS").item() == 1.0
