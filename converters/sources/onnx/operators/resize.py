"""Resizing, in every coordinate mode: torch's own where it has the same meaning, else a small matrix for each axis."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F  # noqa: N812

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator

__all__: list[str] = []


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One axis: sizes, the scale as the file gives it, and the part of it that is looked at (``tf_crop_and_resize``)."""

    axis: int
    length: int
    size: int
    scale: float
    start: float = 0.0
    end: float = 1.0


@operator("Upsample")
def upsample(call: Call) -> torch.Tensor:
    """The older form: coordinates are divided by the scale."""
    scales = call.attribute("scales", ()) or tuple(call.numbers(1))
    sizes = call.shape(0)
    axes = [_Axis(at, sizes[at], math.floor(sizes[at] * scale), scale) for at, scale in enumerate(scales)]
    return _resized(call, axes, mode=call.attribute("mode", "nearest"), coordinates="asymmetric", rounding="floor")


@operator("Resize", grows=True)
def resize(call: Call) -> torch.Tensor:
    """Nearest, linear or cubic."""
    if call.version < 11:
        sizes, scales = call.shape(0), call.numbers(1)
        axes = [_Axis(at, sizes[at], math.floor(sizes[at] * scale), scale) for at, scale in enumerate(scales)]
        return _resized(call, axes, mode=call.attribute("mode", "nearest"), coordinates="asymmetric", rounding="floor")
    return _resized(
        call, _axes(call), mode=call.attribute("mode", "nearest"),
        coordinates=call.attribute("coordinate_transformation_mode", "half_pixel"),
        rounding=call.attribute("nearest_mode", "round_prefer_floor"),
    )  # fmt: skip


def _axes(call: Call) -> list[_Axis]:
    sizes, rank = call.shape(0), len(call.shape(0))
    axes = [axis % rank for axis in call.attribute("axes", tuple(range(rank)))]
    region = call.numbers(1) if call.has(1) and 0 not in call.shape(1) else []
    scales = [float(scale) for scale in call.numbers(2)] if call.has(2) and 0 not in call.shape(2) else []
    if scales:
        wanted = [math.floor(sizes[axis] * scale) for axis, scale in zip(axes, scales, strict=True)]
    else:
        wanted = list(call.ints(3))
        scales = [size / sizes[axis] for axis, size in zip(axes, wanted, strict=True)]
        policy = call.attribute("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scale = (min if policy == "not_larger" else max)(scales)
            scales = [scale] * len(axes)
            wanted = [math.floor(scale * sizes[axis] + 0.5) for axis in axes]
    parts = [(region[at], region[at + len(axes)]) if region else (0.0, 1.0) for at in range(len(axes))]
    return [
        _Axis(axis, sizes[axis], size, scale, *part) for axis, size, scale, part in zip(axes, wanted, scales, parts, strict=True)
    ]


def _resized(call: Call, axes: Sequence[_Axis], *, mode: str, coordinates: str, rounding: str) -> torch.Tensor:
    values = call.tensor(0)
    whole = coordinates == "tf_crop_and_resize"
    changed = [
        axis for axis in axes if (whole and (axis.start, axis.end) != (0.0, 1.0)) or axis.size != axis.length or axis.scale != 1
    ]
    if not changed:
        return values
    own = _torch_form(call, changed, mode=mode, coordinates=coordinates, rounding=rounding)
    if own is not None:
        sizes = [{axis.axis: axis.size for axis in changed}.get(at, size) for at, size in enumerate(call.shape(0))][2:]
        return F.interpolate(values, sizes, mode=own[0], align_corners=own[1])
    for axis in changed:
        positions = _positions(axis, coordinates)
        if mode == "nearest":
            where = _rounded(positions, rounding).clamp(0, axis.length - 1)
            picked = values.index_select(axis.axis, call.computed(f"rows_{axis.axis}", lambda where=where: where))  # type: ignore[misc]
            values = _outside(call, picked, axis, positions) if whole else picked
            continue
        matrix = call.computed(f"weights_{axis.axis}", lambda axis=axis, at=positions: _matrix(call, axis, at, mode))  # type: ignore[misc]
        kept = values.dtype
        values = torch.matmul(values.movedim(axis.axis, -1).to(torch.float32), matrix.t()).movedim(-1, axis.axis).to(kept)
        values = _outside(call, values, axis, positions) if whole else values
    return values


def _torch_form(
    call: Call, axes: Sequence[_Axis], *, mode: str, coordinates: str, rounding: str
) -> tuple[str, bool | None] | None:
    """Mode and ``align_corners`` of torch's function, where it means the same."""
    rank = len(call.shape(0))
    exact = all(math.isclose(axis.scale, axis.size / axis.length, rel_tol=1e-6) for axis in axes)
    if min(axis.axis for axis in axes) < 2 or rank not in {3, 4, 5} or not exact or call.attribute("antialias", 0):
        return None
    if not call.dtype(0).is_floating_point:
        return None
    if mode == "nearest":
        grows = all(axis.size % axis.length == 0 for axis in axes)
        floors = coordinates == "asymmetric" and rounding == "floor"
        halves = coordinates in {"half_pixel", "pytorch_half_pixel"} and rounding in {"round_prefer_floor", "round_prefer_ceil"}
        return (
            ("nearest", None)
            if floors or (grows and halves and all(axis.size // axis.length % 2 == 0 for axis in axes))
            else None
        )
    aligned = coordinates == "align_corners"
    plain = (
        coordinates == "half_pixel" or aligned or (coordinates == "pytorch_half_pixel" and all(axis.size > 1 for axis in axes))
    )
    if not plain:
        return None
    if mode == "linear":
        return {3: "linear", 4: "bilinear", 5: "trilinear"}[rank], aligned
    same = math.isclose(call.attribute("cubic_coeff_a", -0.75), -0.75) and not call.attribute("exclude_outside", 0)
    return ("bicubic", aligned) if mode == "cubic" and rank == 4 and same else None


def _positions(axis: _Axis, coordinates: str) -> torch.Tensor:
    """Where each new element lies between the old ones, ``[size]``."""
    new = torch.arange(axis.size, dtype=torch.float64)
    length, scale = axis.length, axis.scale
    if coordinates == "asymmetric":
        return new / scale
    if coordinates == "align_corners":
        exact = length * scale
        return new * 0 if exact == 1 or axis.size == 1 else new * (length - 1) / (exact - 1)
    if coordinates == "tf_crop_and_resize":
        if axis.size == 1:
            return new * 0 + 0.5 * (axis.start + axis.end) * (length - 1)
        return axis.start * (length - 1) + new * (axis.end - axis.start) * (length - 1) / (axis.size - 1)
    if coordinates == "tf_half_pixel_for_nn":
        return (new + 0.5) / scale
    if coordinates == "pytorch_half_pixel" and axis.size == 1:
        return new * 0
    if coordinates == "half_pixel_symmetric":
        adjusted = axis.size / (length * scale)
        return length / 2 * (1 - adjusted) + (new + 0.5) / scale - 0.5
    return (new + 0.5) / scale - 0.5


def _rounded(positions: torch.Tensor, rounding: str) -> torch.Tensor:
    if rounding == "floor":
        return positions.floor().long()
    if rounding == "ceil":
        return positions.ceil().long()
    return torch.ceil(positions - 0.5).long() if rounding == "round_prefer_floor" else torch.floor(positions + 0.5).long()


def _outside(call: Call, values: torch.Tensor, axis: _Axis, positions: torch.Tensor) -> torch.Tensor:
    """What lies outside the old tensor gets a number of its own."""
    beyond = (positions < 0) | (positions > axis.length - 1)
    if not bool(call.computed(f"beyond_{axis.axis}", lambda: beyond).numel()):
        return values
    shape = [-1 if at == axis.axis else 1 for at in range(values.dim())]
    mask = call.computed(f"beyond_{axis.axis}", lambda: beyond).reshape(shape)
    return torch.where(mask, torch.full_like(values, call.attribute("extrapolation_value", 0.0)), values)


def _matrix(call: Call, axis: _Axis, positions: torch.Tensor, mode: str) -> torch.Tensor:
    """Weights ``[size, length]`` of linear or cubic interpolation."""
    stretch = max(1.0, 1.0 / axis.scale) if call.attribute("antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) * stretch
    first = math.floor(-reach) - 1
    old = torch.arange(first, axis.length - first, dtype=torch.float64)
    distance = (positions[:, None] - old[None, :]).abs() / stretch
    weights = (1 - distance).clamp(min=0) if mode == "linear" else _cubic(distance, call.attribute("cubic_coeff_a", -0.75))
    inside = (old >= 0) & (old <= axis.length - 1)
    if call.attribute("exclude_outside", 0):
        weights = weights * inside
    weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(axis.size, axis.length, dtype=torch.float64)
    return matrix.index_add(1, old.clamp(0, axis.length - 1).long(), weights).to(torch.float32)


def _cubic(distance: torch.Tensor, a: float) -> torch.Tensor:
    """Keys' kernel: R. G. Keys, Cubic convolution interpolation for digital image processing (1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
