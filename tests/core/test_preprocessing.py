"""The declared preprocessing: its arithmetic against Pillow and torch, and everything it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from edgekit.core.errors import DataError, TaskError
from edgekit.core.preprocessing import (
    AudioPreprocessing,
    ImagePreprocessing,
    Preprocessing,
    check_shapes,
    describe,
    read_preprocessing,
    statistics,
)
from edgekit.core.preprocessing_evidence import find_fault, variants
from edgekit.core.resampling import resize
from edgekit.core.tensors import TensorSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = ImagePreprocessing(input="image", size=(24, 24), resize="shorter-side", crop="center", mean=MEAN, std=STD)
SIZES = [((37, 51), (16, 20)), ((16, 20), (37, 51)), ((10, 10), (10, 7)), ((5, 90), (7, 31))]


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_resize_is_pillow_s_bit_for_bit(before: tuple[int, int], after: tuple[int, int], interpolation: str) -> None:
    raw = picture(*before)
    found = resize(raw, *after, interpolation=interpolation, antialias=True)
    expected = Image.fromarray(raw).resize(after[::-1], Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_without_antialias_is_torch_s(before: tuple[int, int], after: tuple[int, int], interpolation: str) -> None:
    raw = picture(*before)
    found = resize(raw, *after, interpolation=interpolation, antialias=False)
    values = torch.from_numpy(raw).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(values, after, mode=interpolation, align_corners=False)
    difference = np.abs(found - expected.round().clamp(0, 255)[0].permute(1, 2, 0).numpy())
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # sums in another order, at exact halves


def test_a_photograph_is_prepared_as_torchvision_does() -> None:
    raw = picture(60, 47)
    resized = Image.fromarray(raw).resize((24, int(24 * 60 / 47)), Image.Resampling.BILINEAR)
    top = round((resized.height - 24) / 2)
    pixels = np.asarray(resized.crop((0, top, 24, top + 24)), np.float32)
    expected = (pixels * np.float32(1 / 255) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    found = IMAGENET.apply(raw)
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1)[None])
    assert found.dtype == np.float32 and found.flags.c_contiguous


def test_one_picture_a_batch_and_a_list_of_sizes() -> None:
    one, other = picture(30, 40), picture(50, 26, seed=1)
    np.testing.assert_array_equal(IMAGENET.apply([one, other]), np.concatenate([IMAGENET.apply(one), IMAGENET.apply(other)]))
    np.testing.assert_array_equal(IMAGENET.apply(np.stack([one, one]))[1:], IMAGENET.apply(one))


def test_colours_and_layouts() -> None:
    raw = picture(6, 8)
    plain = ImagePreprocessing(size=(6, 8), scale=1.0)
    np.testing.assert_array_equal(plain.apply(raw)[0], raw.transpose(2, 0, 1))
    np.testing.assert_array_equal(plain.replace(layout="NHWC").apply(raw)[0], raw)
    np.testing.assert_array_equal(plain.replace(colour="bgr").apply(raw)[0, 0], raw[..., 2])
    grey = plain.replace(colour="grey")
    np.testing.assert_array_equal(grey.apply(raw)[0, 0], np.asarray(Image.fromarray(raw).convert("L")))
    np.testing.assert_array_equal(grey.apply(raw[..., 0])[0, 0], raw[..., 0])


@pytest.mark.parametrize("colour", ["rgb", "bgr", "grey"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pixels_are_recovered_from_model_inputs(colour: str, layout: str) -> None:
    count = 1 if colour == "grey" else 3
    record = ImagePreprocessing(size=(9, 7), colour=colour, layout=layout, mean=MEAN[:count], std=STD[:count])
    raw = np.stack([picture(9, 7, count), picture(9, 7, count, seed=1)])
    pixels, distance = record.recover(record.apply(raw))
    np.testing.assert_array_equal(pixels, raw)
    assert distance < 1e-3
    remaining = record.remaining(dtype="uint8")
    np.testing.assert_array_equal(remaining.apply(raw), raw)


def test_sound_is_cut_into_windows_and_scaled() -> None:
    record = AudioPreprocessing(sample_rate=16000, window=400, hop=160)
    sound = np.random.default_rng(0).integers(-32768, 32767, 1000, dtype=np.int16)
    windows = record.windows(sound)
    assert windows.shape == (4, 400, 1)
    np.testing.assert_array_equal(windows[1, :, 0], sound[160:560])
    prepared = record.apply(windows)
    np.testing.assert_array_equal(prepared, windows[..., 0].astype(np.float32) / 32768)
    np.testing.assert_array_equal(record.recover(prepared)[0], windows)
    stereo = AudioPreprocessing(sample_rate=8000, window=4, channels=2, layout="NCT", scale=1.0, mean=(1, 2))
    np.testing.assert_array_equal(stereo.apply(np.arange(8, dtype=np.int16).reshape(4, 2))[0, 1], [-1, 1, 3, 5])
    assert record.windows(sound[:10]).shape == (0, 400, 1)


@pytest.mark.parametrize("record", [IMAGENET, AudioPreprocessing(input="image", sample_rate=16000, window=400, hop=160)])
def test_records_survive_json(record: Preprocessing) -> None:
    described = json.loads(json.dumps(describe(record, ["image"])))
    assert read_preprocessing(described) == {"image": record}


def test_a_mapping_of_one_s_own_is_passed_through() -> None:
    own = {"mean": [0.5], "what": "cut from the left"}
    assert describe(own, ["image"]) == own and read_preprocessing(own) == {}
    assert statistics(own) == own
    assert statistics(describe(IMAGENET, ["image"]))["image"] == {"range": [0.0, 1.0], "mean": MEAN, "std": STD}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"std": 0}, "nothing can be divided by 0"),
        ({"mean": (0.5, 0.5)}, "mean has 2 numbers for 3 channels"),
        ({"std": (1, float("nan"), 1)}, "finite"),
        ({"scale": 0}, "factor other than 0"),
        ({"colours": "rgb"}, "unknown field 'colours'. Did you mean 'colour'"),
        ({"size": (0, 3)}, "greater than or equal to 1"),
        ({"resize": "shorter-side"}, "add crop='center'"),
        ({"resize_to": 300}, "needs resize='shorter-side'"),
        ({"interpolation": "lanczos"}, "'bilinear', 'bicubic' or 'nearest'"),
    ],
)
def test_wrong_declarations_are_refused(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(TaskError, match="ImagePreprocessing: ") as caught:
        ImagePreprocessing(**{"size": (8, 8), **fields})
    assert complaint in str(caught.value)


def test_wrong_places_are_refused() -> None:
    with pytest.raises(TaskError, match=r"input 'imag'.*Did you mean 'image'"):
        describe(IMAGENET.replace(input="imag"), ["image"])
    with pytest.raises(TaskError, match="mixes records"):
        describe({"image": IMAGENET, "other": 3}, ["image", "other"])
    with pytest.raises(TaskError, match="is a list"):
        describe([1], ["image"])
    with pytest.raises(TaskError, match=r"'image' is float32 \[1, 24, 24, 3\], but its preprocessing gives float32 \['N', 3, 24"):
        check_shapes({"image": IMAGENET}, [TensorSpec(name="image", shape=(1, 24, 24, 3), dtype="float32")])
    with pytest.raises(TaskError, match="no axis for 2 channels"):
        AudioPreprocessing(sample_rate=16000, window=400, channels=2)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (np.zeros((24, 24, 3), np.float32), "expected bytes"),
        (np.zeros((24, 24, 1), np.uint8), "1 channels, colour 'rgb' needs 3"),
    ],
)
def test_wrong_pictures_are_refused(raw: np.ndarray, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        IMAGENET.apply(raw)


def test_a_picture_of_another_size_is_refused_where_nothing_resizes() -> None:
    with pytest.raises(DataError, match="a picture is 9 x 9 pixels"):
        ImagePreprocessing(size=(8, 8)).apply(picture(9, 9))
    with pytest.raises(DataError, match="expected int16"):
        AudioPreprocessing(sample_rate=16000, window=400).apply(np.zeros(399, np.int16))


def test_values_prepared_as_declared_have_no_fault() -> None:
    prepared = IMAGENET.apply([picture(30, 40), picture(30, 40, seed=1)])
    assert find_fault(IMAGENET, prepared) == ""
    assert find_fault(IMAGENET, np.zeros((1, 3, 24, 24), np.float32)) == "", "one value tells nothing"
    blurred = (prepared + np.roll(prepared, 1, -1)) / 2 + 0.001
    assert find_fault(IMAGENET, blurred) == "", "resampled floats are no whole pixels, and are allowed"


@pytest.mark.parametrize("words", variants(IMAGENET))
def test_values_prepared_otherwise_are_found_out(words: str) -> None:
    prepared = variants(IMAGENET)[words].apply([picture(30, 40), picture(30, 40, seed=1)])
    fault = find_fault(IMAGENET, prepared)
    same = {"scaled, but without mean and std", "scaled to 0 to 1"}
    assert any(one in fault for one in (same if words in same else {words}))


def test_values_out_of_the_declared_range_are_found_out() -> None:
    prepared = IMAGENET.apply(picture(30, 40)) * 3 + 0.0004
    assert "channel 2 reaches from -4.47 to 6.19, the declaration allows -1.8 to 2.64" in find_fault(IMAGENET, prepared)
