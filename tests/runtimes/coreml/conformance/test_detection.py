"""Regions, warped pictures and non-maximum suppression, position by position."""

from __future__ import annotations

import numpy as np
from coreml_cases import Array, Draw, Example, both_of, conforms, floats, one_of
from hypothesis import strategies as st

SAMPLING = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")
ORDERS = ("CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST")


def linspace(first: float, last: float, count: int, mode: str) -> list[float]:
    """Positions between two corners, by the table of the documentation: an interval of ``last - first + 1`` values."""
    size = last - first + 1
    if mode == "OFFSET_CORNERS":
        spacing = max(1.0, size - 1) / count
        return [first + spacing / 2 + spacing * i for i in range(count)]
    if mode == "UNALIGN_CORNERS":
        return [first - 0.5 + (size / count) * (i + 0.5) for i in range(count)]
    if mode == "ALIGN_CORNERS" and count == 1:
        return [(first + last) / 2]
    end = first + size - size / count if mode == "DEFAULT" else last
    return list(np.linspace(first, end, count))


def bilinear(picture: Array, row: float, column: float, fill: float) -> Array:
    """``picture [C, H, W]`` at one position; ``fill`` outside."""
    (_, height, width) = picture.shape
    if not (0 <= row <= height - 1 and 0 <= column <= width - 1):
        return np.full(picture.shape[0], fill)
    total = np.zeros(picture.shape[0])
    for i in range(height):
        for j in range(width):
            total += picture[:, i, j] * max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
    return total


def cut(picture: Array, box: Array, options: dict[str, object]) -> Array:
    """One box of one picture, ``[C, h, w]``."""
    order, scale = str(options["box_coordinate_mode"]), float(options["spatial_scale"])  # type: ignore[arg-type]
    first, second = np.float32(box[:2]), np.float32(box[2:])
    if "WIDTH" in order:
        first, second = first[::-1], second[::-1]
    if "CENTER" in order:
        first, second = first - second / 2, first + second / 2
    limits = np.array(picture.shape[1:]) - 1 if options["normalized_coordinates"] else np.ones(2)
    start, end = first * scale * limits, second * scale * limits
    axes = [
        linspace(float(start[axis]), float(end[axis]), int(options[name]), str(options["sampling_mode"]))  # type: ignore[call-overload]
        for axis, name in enumerate(("target_height", "target_width"))
    ]
    fill = float(options.get("pad_value", 0.0))  # type: ignore[arg-type]
    return np.stack([np.stack([bilinear(picture, r, c, fill) for c in axes[1]], -1) for r in axes[0]], 1)


@conforms("crop_resize")
def crop_resize(draw: Draw, op: str, opset: str) -> Example:
    batch, channels, count = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    x = floats(draw, (batch, channels, draw(st.integers(2, 5)), draw(st.integers(2, 5))), dtype="float32")
    normalized = draw(st.booleans())
    options = {
        "target_height": draw(st.integers(1, 3)), "target_width": draw(st.integers(1, 3)),
        "normalized_coordinates": normalized, "spatial_scale": one_of(draw, 1.0, 0.5),
        "box_coordinate_mode": one_of(draw, *ORDERS), "sampling_mode": one_of(draw, *SAMPLING),
    }  # fmt: skip
    if opset != "iOS15":
        options["pad_value"] = one_of(draw, 0.0, 7.0)
    # odd numbers over 64: no sampled position falls on the border itself, where the last bit would decide
    boxes = (2 * np.random.default_rng(draw(st.integers(0, 999))).integers(0, 32, (count, 4)) + 1) / 64
    boxes = np.float32(boxes if normalized else boxes * np.tile(np.array(x.shape[2:]) - 1, 2))
    inside = np.random.default_rng(count).integers(0, batch, count)
    wide = x.astype(np.float64)
    if opset in {"iOS17", "iOS18"}:
        expected = np.stack([cut(wide[i], box, options) for i, box in zip(inside, boxes, strict=True)])
        given = {"x": x, "boxes": boxes, "box_indices": np.int32(inside)}
        return Example(inputs=given, constants=options, expected=expected, atol=1e-4)
    if batch == 1 and draw(st.booleans()):  # with more, coremltools declares B crops of each box; its documentation says one
        roi = np.float32(np.concatenate([inside[:, None], boxes], 1))[:, None, :, None, None]
        expected = np.stack([cut(wide[i], box, options) for i, box in zip(inside, boxes, strict=True)])[:, None]
        return Example(inputs={"x": x, "roi": roi}, constants=options, expected=expected, atol=1e-4)
    roi = boxes[:, None, :, None, None]
    expected = np.stack([[cut(picture, box, options) for picture in wide] for box in boxes])
    return Example(inputs={"x": x, "roi": roi}, constants=options, expected=expected, atol=1e-4)


@conforms("affine")
def affine(draw: Draw, op: str) -> Example:
    x = floats(draw, (draw(st.integers(1, 2)), 2, draw(st.integers(2, 4)), draw(st.integers(2, 4))), dtype="float32")
    matrix = floats(draw, (one_of(draw, 1, x.shape[0]), 6), -1, 1, dtype="float32")
    height, width = draw(st.integers(2, 4)), draw(st.integers(2, 4))
    constants = {
        "output_height": height, "output_width": width, "sampling_mode": "bilinear", "padding_mode": "constant",
        "padding_value": 0.0, "coordinates_mode": "normalized_minus_one_to_one", "align_corners": True,
    }  # fmt: skip
    bordered = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.zeros((*x.shape[:2], height, width))
    for n, i, j in np.ndindex(x.shape[0], height, width):
        a0, a1, a2, b0, b1, b2 = matrix[n % len(matrix)].astype(np.float64)
        u, v = 2 * j / (width - 1) - 1, 2 * i / (height - 1) - 1
        column = (a0 * u + a1 * v + a2 + 1) / 2 * (x.shape[3] - 1)
        row = (b0 * u + b1 * v + b2 + 1) / 2 * (x.shape[2] - 1)
        expected[n, :, i, j] = bilinear(bordered[n], row + 1, column + 1, 0.0)
    return Example(inputs={"x": x, "transform_matrix": matrix}, constants=constants, expected=expected, atol=1e-4)


def overlap(a: Array, b: Array) -> float:
    """Intersection over union of two boxes given as (x, y, width, height) of the centre."""
    common = 1.0
    for k in (0, 1):
        high, low = min(a[k] + a[k + 2] / 2, b[k] + b[k + 2] / 2), max(a[k] - a[k + 2] / 2, b[k] - b[k + 2] / 2)
        common *= max(0.0, high - low)
    return float(common / (a[2] * a[3] + b[2] * b[3] - common))


@conforms("non_maximum_suppression")
def non_maximum_suppression(draw: Draw, op: str, opset: str) -> Example:
    batch, count, classes, most = (draw(st.integers(1, high)) for high in (2, 8, 3, 5))
    boxes = np.concatenate([floats(draw, (batch, count, 2), 0, 4), floats(draw, (batch, count, 2), 1, 3)], -1).astype(np.float32)
    scores = floats(draw, (batch, count, classes), 0, 1, dtype="float32")
    limit, floor, by_class = one_of(draw, 0.21, 0.47), one_of(draw, 0.0, 0.4, 1.5), draw(st.booleans())
    old = opset not in {"iOS17", "iOS18"}
    out_boxes, out_scores = np.zeros((batch, most, 4)), np.zeros((batch, most, classes))
    out_indices, found = np.full((batch, most), -1), np.zeros(batch)
    for n in range(batch):
        best, kind = scores[n].max(-1), scores[n].argmax(-1)
        chosen: list[int] = []
        for i in sorted(range(count), key=lambda i: -best[i]):
            rivals = [j for j in chosen if not by_class or kind[j] == kind[i]]
            free = all(overlap(boxes[n, i], boxes[n, j]) <= limit for j in rivals)
            if free and len(chosen) < most and (not old or best[i] >= floor):
                chosen.append(i)
        chosen = chosen or [int(best.argmax())]  # none above the threshold: the best one
        out_boxes[n, : len(chosen)], out_scores[n, : len(chosen)] = boxes[n, chosen], scores[n, chosen]
        out_indices[n, : len(chosen)], found[n] = chosen, len(chosen)
    constants = {"iou_threshold": limit, "max_boxes": most, "per_class_suppression": by_class}
    if old:
        constants["score_threshold"] = floor
        expected = (out_boxes, out_scores, out_indices, found)
        return Example(inputs={"boxes": boxes, "scores": scores}, constants=constants, expected=expected)
    flipped = {"boxes": np.ascontiguousarray(boxes.swapaxes(1, 2)), "scores": np.ascontiguousarray(scores.swapaxes(1, 2))}
    expected = (out_boxes.swapaxes(1, 2), out_scores.swapaxes(1, 2), out_indices)
    return Example(inputs=flipped, constants=constants, expected=expected)


test_conforms, test_conforms_widely = both_of(__name__)


def test_the_examples_of_the_definition() -> None:
    """The three boxes that coremltools' own tests of the operation use, with the values they expect on a device."""
    picture = np.arange(1, 17, dtype=np.float64).reshape(1, 4, 4)
    boxes = [[0.1, 0.3, 1.3, 1.0], [0.5, 1.8, 1.0, 0.3], [0.0, 0.4, 0.6, 0.7]]
    options = {
        "target_height": 2, "target_width": 2, "normalized_coordinates": True, "spatial_scale": 1.0, "pad_value": 10.0,
        "box_coordinate_mode": "CORNERS_HEIGHT_FIRST", "sampling_mode": "ALIGN_CORNERS",
    }  # fmt: skip
    found = np.stack([cut(picture, np.array(box), options) for box in boxes])
    wanted = np.array([3.1, 5.2, 10.0, 10.0, 10.0, 7.899, 10.0, 13.9, 2.2, 3.1, 9.4, 10.3]).reshape(3, 1, 2, 2)
    np.testing.assert_allclose(found, wanted, atol=2e-3)
