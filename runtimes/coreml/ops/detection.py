"""What detectors need: regions cut out and resized, warped pictures, and non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.core.errors import IntegrityError, UnsupportedOpError
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []

_BOX_ORDERS = {
    "CORNERS_HEIGHT_FIRST": (0, 1, 2, 3),
    "CORNERS_WIDTH_FIRST": (1, 0, 3, 2),
    "CENTER_SIZE_HEIGHT_FIRST": (0, 1, 2, 3),
    "CENTER_SIZE_WIDTH_FIRST": (1, 0, 3, 2),
}
"""Where (height, width) of the first pair and (height, width) of the second stand in a box."""


def _corners(boxes: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """First and last position (height, width) of each box, ``[N, 2]`` each."""
    ordered = boxes[:, list(_BOX_ORDERS[mode])]
    first, second = ordered[:, :2], ordered[:, 2:]
    return (first - second / 2, first + second / 2) if mode.startswith("CENTER") else (first, second)


def _grid(start: Tensor, end: Tensor, count: int, mode: str) -> Tensor:
    """Sampled positions along one axis of each box, ``[N, count]``.

    The table of ``resize_bilinear``'s sampling modes, for an input of ``end - start + 1`` values that starts at ``start``.

    Raises:
        IntegrityError: The mode is unknown.
    """
    steps, span = torch.arange(count, dtype=torch.float32)[None, :], (end - start)[:, None]
    first = start[:, None]
    if mode in {"STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"}:
        if count == 1:
            return first + span / 2 if mode == "ALIGN_CORNERS" else first
        return first + steps * span / (count - 1)
    if mode == "DEFAULT":
        return first + steps * ((span + 1) - (span + 1) / count) / max(1, count - 1)
    if mode == "OFFSET_CORNERS":
        return first + (steps + 0.5) * span.clamp(min=1) / count
    if mode == "UNALIGN_CORNERS":
        return first + (steps + 0.5) * (span + 1) / count - 0.5
    raise IntegrityError(f"Unknown sampling mode '{mode}' of a crop_resize operation.")


def _between(x: Tensor, axis: int, where: Tensor, shaped: Tensor) -> Tensor:
    """``x`` at fractional positions ``where [N, count]`` along an axis; ``shaped`` are the same, broadcast to ``x``."""
    last = x.shape[axis] - 1
    size = [*x.shape[:axis], where.shape[1], *x.shape[axis + 1 :]]
    inside = shaped.clamp(0, last)
    low = inside.floor()
    lower, upper = (torch.gather(x, axis, at.long().expand(size)) for at in (low, (low + 1).clamp(max=last)))
    return lower * (1 - (inside - low)) + upper * (inside - low)


def _sample(x: Tensor, rows: Tensor, columns: Tensor, fill: float) -> Tensor:
    """``x [N, C, H, W]`` at every pair of ``rows [N, h]`` and ``columns [N, w]``, bilinear; ``fill`` outside the picture."""
    height, width = x.shape[-2:]
    x = _between(x, 2, rows, rows[:, None, :, None])
    x = _between(x, 3, columns, columns[:, None, None, :])
    inside = ((rows >= 0) & (rows <= height - 1))[:, None, :, None] & ((columns >= 0) & (columns <= width - 1))[:, None, None]
    return torch.where(inside, x, torch.tensor(fill))


@register("crop_resize")
def crop_resize(call: Call) -> Kernel:
    """Boxes cut out of ``x [B, C, H, W]`` and resized, bilinear; positions outside the picture hold ``pad_value``.

    Up to iOS 16 ``roi`` is ``[N, 1, 4, 1, 1]`` (every box of every picture) or ``[N, 1, 5, 1, 1]`` (a picture's index, then its
    box), the result ``[N, B or 1, C, h, w]``; from iOS 17 on ``boxes`` is ``[N, 4]`` and the result ``[N, C, h, w]``.
    """
    size = call.integer("target_height", 1), call.integer("target_width", 1)
    mode, scale = call.text("sampling_mode", "DEFAULT"), call.number("spatial_scale", 1.0)
    order, normalized = call.text("box_coordinate_mode", "CORNERS_HEIGHT_FIRST"), call.flag("normalized_coordinates")
    fill = call.number("pad_value", 0.0)
    if order not in _BOX_ORDERS:
        raise IntegrityError(f"{call}: unknown box_coordinate_mode '{order}'; known: {', '.join(_BOX_ORDERS)}.")

    def cut(x: Tensor, boxes: Tensor) -> Tensor:
        start, end = (corner * scale for corner in _corners(boxes.to(torch.float32), order))
        if normalized:
            limits = torch.tensor([x.shape[-2] - 1, x.shape[-1] - 1], dtype=torch.float32)
            start, end = start * limits, end * limits
        rows, columns = (_grid(start[:, axis], end[:, axis], size[axis], mode) for axis in (0, 1))
        return _sample(x, rows, columns, fill)

    def from_regions(x: Tensor, roi: Tensor) -> Tensor:
        regions = roi.reshape(roi.shape[0], -1)
        if regions.shape[1] == 5:  # a picture's index, then four coordinates
            return cut(x[regions[:, 0].long()], regions[:, 1:]).unsqueeze(1)
        every = regions.repeat_interleave(x.shape[0], 0)
        return cut(x.repeat(len(regions), 1, 1, 1), every).reshape(len(regions), *x.shape[:2], *size)

    def from_boxes(x: Tensor, boxes: Tensor, indices: Tensor | None) -> Tensor:
        return cut(x[: len(boxes)] if indices is None else x[indices.long()], boxes)

    return Kernel(from_regions, "x", "roi") if call.has("roi") else Kernel(from_boxes, "x", "boxes", "box_indices")


@register("affine")
def affine(call: Call) -> Kernel:
    """``x [B, C, H, W]`` sampled at ``(a0 x + a1 y + a2, b0 x + b1 y + b2)`` for output positions from -1 to 1; zeros outside.

    Raises:
        UnsupportedOpError: A mode MIL names but does not define: only what is said above is.
    """
    height, width = call.integer("output_height"), call.integer("output_width")
    modes = tuple(call.text(name, "") for name in ("sampling_mode", "padding_mode", "coordinates_mode"))
    defined = ("bilinear", "constant", "normalized_minus_one_to_one")
    if tuple(mode.lower() for mode in modes) != defined or not call.flag("align_corners", default=True):
        raise UnsupportedOpError(f"{call}: modes {modes} are not defined by MIL; expected {defined} with aligned corners.")
    if call.number("padding_value", 0.0) != 0:
        raise UnsupportedOpError(f"{call}: a border of anything but zeros is not defined by MIL.")

    def run(x: Tensor, matrix: Tensor) -> Tensor:
        theta = matrix.reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
        grid = functional.affine_grid(theta, [x.shape[0], x.shape[1], height, width], align_corners=True)
        return functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)

    return Kernel(run, "x", "transform_matrix")


@register("non_maximum_suppression")
def non_maximum_suppression(call: Call) -> Kernel:
    """The best boxes, without those that overlap a better one.

    Up to iOS 16: ``boxes [n, B, 4]`` as (x, y, width, height) of the centre, ``scores [n, B, K]``, a ``score_threshold``, and the
    number of boxes found as a fourth result. From iOS 17 on the boxes stand in the last axis. A box's score is its best
    class's; suppression goes by class only where ``per_class_suppression`` says so. Places that stay free hold zeros, and -1
    for the index. Where no box reaches the threshold the best one is given all the same: so coremltools' own tests.
    """
    overlap, most = call.number("iou_threshold"), call.integer("max_boxes")
    by_class, last = call.flag("per_class_suppression"), not call.has("score_threshold")
    floor = None if last else call.number("score_threshold")
    count = len(call.outputs)

    def one(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        best, kinds = scores.max(-1)
        kept = _survivors(boxes, best, kinds if by_class else None, overlap=overlap, floor=floor, most=most)
        place, free = torch.tensor(kept, dtype=torch.long), most - len(kept)
        indices = functional.pad(place.to(torch.int32), (0, free), value=-1)
        chosen = (functional.pad(part[place], (0, 0, 0, free)) for part in (boxes, scores))
        return (*chosen, indices, torch.tensor(len(kept), dtype=torch.int32))  # type: ignore[return-value]

    def run(boxes: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(*((part.transpose(1, 2) if last else part) for part in (boxes, scores)), strict=True)
        found = [torch.stack(parts) for parts in zip(*(one(*pair) for pair in pairs), strict=True)]
        if last:
            found[:2] = [part.transpose(1, 2) for part in found[:2]]
        return tuple(found[:count])

    return Kernel(run, "boxes", "scores")


def _survivors(
    boxes: Tensor, scores: Tensor, kinds: Tensor | None, *, overlap: float, floor: float | None, most: int
) -> list[int]:
    """Indices of the boxes that stay, best first.

    Args:
        boxes: ``[B, 4]``: centre x, centre y, width, height.
        scores: ``[B]``.
        kinds: ``[B]``, class of each box; None to suppress across classes.
        overlap: Share of the union above which the worse of two boxes goes.
        floor: Least score; None for any.
        most: How many at most.
    """
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    area = boxes[:, 2] * boxes[:, 3]
    alive = torch.ones(len(boxes), dtype=torch.bool) if floor is None else scores >= floor
    kept: list[int] = []
    for index in torch.sort(scores, descending=True, stable=True).indices.tolist():
        if len(kept) == most:
            break
        if not alive[index]:
            continue
        kept.append(index)
        common = (torch.minimum(high, high[index]) - torch.maximum(low, low[index])).clamp(min=0).prod(-1)
        goes = common > overlap * (area + area[index] - common)
        alive &= ~(goes if kinds is None else goes & (kinds == kinds[index]))
    return kept or [int(scores.argmax())][:most]
