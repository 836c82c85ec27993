"""Moving values about without changing them: reshape, transpose, slice, join, pad."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.padding import torch_order
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__ = ["slicer"]


@register("identity")
def identity(call: Call) -> Kernel:  # noqa: ARG001
    """The tensor itself."""
    return Kernel(lambda x: x, "x")


@register("reshape")
def reshape(call: Call) -> Kernel:
    """New shape; 0 keeps the size counted from the right, -1 takes what is left."""
    if not call.is_constant("shape"):
        return Kernel(lambda x, shape: x.reshape(_target(x.shape, shape.tolist())), "x", "shape")
    wanted = call.integers("shape")
    if 0 in wanted:
        return Kernel(lambda x: x.reshape(_target(x.shape, wanted)), "x")
    return Kernel(lambda x: x.reshape(wanted), "x")


def _target(shape: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Fill in zeros as MIL's reshape does: aligned at the right, 1 where there is nothing to keep."""
    offset = len(shape) - len(wanted)
    return [size or (shape[axis + offset] if axis + offset >= 0 else 1) for axis, size in enumerate(wanted)]


@register("reshape_like")
def reshape_like(call: Call) -> Kernel:
    """The declared output shape."""
    wanted = [size if size is not None else -1 for size in call.outputs[0].shape]
    return Kernel(lambda x: x.reshape(wanted), "x")


@register("transpose")
def transpose(call: Call) -> Kernel:
    """Axes in the order ``perm``."""
    order = call.integers("perm")
    return Kernel(lambda x: x.permute(order), "x")


@register("expand_dims")
def expand_dims(call: Call) -> Kernel:
    """Axes of size 1 inserted at ``axes`` of the result."""
    axes = call.integers("axes")
    rank = len(call.shape("x")) + len(axes)
    new = sorted(axis % rank for axis in axes)

    def run(x: Tensor) -> Tensor:
        for axis in new:
            x = x.unsqueeze(axis)
        return x

    return Kernel(run, "x")


@register("squeeze")
def squeeze(call: Call) -> Kernel:
    """Axes of size 1 removed: ``axes``, or all of them."""
    if not call.has("axes"):
        return Kernel(torch.squeeze, "x")
    axes = call.integers("axes")
    return Kernel(lambda x: x.squeeze(axes), "x")


@register("flatten2d")
def flatten2d(call: Call) -> Kernel:
    """Two axes: those before ``axis``, and those from it on."""
    shape = call.shape("x")
    rows = torch.Size(shape[: call.integer("axis", 1)]).numel()
    return Kernel(lambda x: x.reshape(rows, -1), "x")


@register("concat")
def concat(call: Call) -> Kernel:
    """Tensors joined along ``axis``, one after the other or interleaved; numbers become a vector."""
    axis = call.integer("axis")
    if not call.flag("interleave"):
        return Kernel(lambda *values: torch.cat([value if value.ndim else value.reshape(1) for value in values], axis), "values")
    return Kernel(lambda *values: torch.stack(values, axis + 1 if axis >= 0 else axis).flatten(*_pair(axis)), "values")


def _pair(axis: int) -> tuple[int, int]:
    return (axis, axis + 1) if axis >= 0 else (axis - 1, axis)


@register("stack")
def stack(call: Call) -> Kernel:
    """Tensors joined along a new axis."""
    axis = call.integer("axis")
    return Kernel(lambda *values: torch.stack(values, axis), "values")


@register("split")
def split(call: Call) -> Kernel:
    """Pieces along ``axis``, of ``split_sizes`` or ``num_splits`` even ones."""
    axis = call.integer("axis")
    if call.has("split_sizes"):
        sizes = list(call.integers("split_sizes"))
        return Kernel(lambda x: torch.split(x, sizes, axis), "x")
    count = call.integer("num_splits")
    return Kernel(lambda x: torch.tensor_split(x, count, axis), "x")


@register("tile")
def tile(call: Call) -> Kernel:
    """Repeated ``reps`` times along each axis; the counts may be computed at run time."""
    if not call.is_constant("reps"):
        return Kernel(lambda x, reps: x.repeat(reps.tolist()), "x", "reps")
    reps = call.integers("reps")
    return Kernel(lambda x: x.repeat(reps), "x")


@register("reverse")
def reverse(call: Call) -> Kernel:
    """Reversed along ``axes``, or along all."""
    axes = call.integers("axes", tuple(range(len(call.shape("x")))))
    return Kernel(lambda x: torch.flip(x, axes), "x")


_PADS = {"constant": "constant", "reflect": "reflect", "replicate": "replicate"}


@register("pad")
def pad(call: Call) -> Kernel:
    """The last axes padded: ``pad`` holds (before, after) for each, the last axis last."""
    flat, mode = call.integers("pad"), call.text("mode", "constant")
    if mode not in _PADS:
        raise IntegrityError(f"{call}: unknown mode '{mode}'; known: {', '.join(_PADS)}.")
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if mode == "constant":
        order, fill = torch_order(tuple(pairs)), call.number("constant_val", 0.0)
        return Kernel(lambda x: functional.pad(x, order, value=fill), "x")
    while pairs and pairs[0] == (0, 0):
        pairs.pop(0)
    order, count = torch_order(tuple(pairs)), len(pairs)

    def run(x: Tensor) -> Tensor:
        if not count:
            return x
        padded = functional.pad(
            x.reshape(1, -1, *x.shape[-count:]), order, mode=mode
        )  # torch wants two axes before the padded ones
        return padded.reshape(*x.shape[:-count], *padded.shape[-count:])

    return Kernel(run, "x")


def slicer(call: Call) -> tuple[slice | int, ...]:
    """The index that ``begin``, ``end``, ``stride`` and the masks of an operation amount to.

    Raises:
        IntegrityError: A stride is 0.
    """
    begin, end = call.integers("begin"), call.integers("end")
    rank = len(begin)
    stride, no = call.integers("stride", (1,) * rank), (False,) * rank
    begin_mask, end_mask, squeeze = call.flags("begin_mask", no), call.flags("end_mask", no), call.flags("squeeze_mask", no)
    if 0 in stride:
        raise IntegrityError(f"{call}: stride {stride} holds a 0.")
    return tuple(
        first if single else slice(None if no_begin else first, None if no_end else last, step)
        for first, last, step, no_begin, no_end, single in zip(begin, end, stride, begin_mask, end_mask, squeeze, strict=True)
    )


def _backward(index: Sequence[slice | int]) -> list[int]:
    """Axes a slice walks backwards, which torch's indexing does not know."""
    return [axis for axis, part in enumerate(index) if isinstance(part, slice) and part.step < 0]


def _forward(index: Sequence[slice | int], shape: Sequence[int]) -> tuple[slice | int, ...]:
    """The same positions of a tensor whose backward axes have been reversed."""
    found = list(index)
    for axis in _backward(index):
        size, part = shape[axis], index[axis]
        places = range(*part.indices(size)) if isinstance(part, slice) else range(0)
        first = size - 1 - places[0] if len(places) else 0
        found[axis] = slice(first, first - len(places) * places.step, -places.step)
    return tuple(found)


@register("slice_by_index")
def slice_by_index(call: Call) -> Kernel:
    """``x[begin:end:stride]`` on each axis, forwards or backwards, with masks for open ends and single positions."""
    index = slicer(call)
    axes = _backward(index)
    if not axes:
        return Kernel(lambda x: x[index], "x")
    return Kernel(lambda x: torch.flip(x, axes)[_forward(index, x.shape)], "x")


@register("slice_update")
def slice_update(call: Call) -> Kernel:
    """A copy of ``x`` whose slice is replaced by ``update``."""
    index = slicer(call)
    axes = _backward(index)

    def run(x: Tensor, update: Tensor) -> Tensor:
        result = torch.flip(x, axes) if axes else x.clone()
        result[_forward(index, x.shape)] = update
        return torch.flip(result, axes) if axes else result

    return Kernel(run, "x", "update")


@register("slice_by_size")
def slice_by_size(call: Call) -> Kernel:
    """``size`` values from ``begin`` on each axis; -1 takes the rest. ``begin`` may be computed at run time."""
    sizes, shape = call.integers("size"), call.shape("x")

    def run(x: Tensor, begin: Tensor) -> Tensor:
        for axis, (start, size) in enumerate(zip(begin.tolist(), sizes, strict=True)):
            first = int(start) % shape[axis] if start < 0 else int(start)
            x = x.narrow(axis, first, shape[axis] - first if size < 0 else size)
        return x

    return Kernel(run, "x", "begin")


@register("band_part")
def band_part(call: Call) -> Kernel:
    """Everything outside a band of the last two axes set to zero; a negative width keeps that side whole."""
    lower, upper = call.integer("lower", -1), call.integer("upper", -1)
    rows, columns = call.shape("x")[-2:]
    distance = torch.arange(rows)[:, None] - torch.arange(columns)[None, :]
    keep = torch.ones_like(distance, dtype=torch.bool)
    keep &= (distance <= lower) if lower >= 0 else keep
    keep &= (-distance <= upper) if upper >= 0 else keep
    return Kernel(lambda x: torch.where(keep, x, torch.zeros_like(x)), "x")


@register("pixel_shuffle")
def pixel_shuffle(call: Call) -> Kernel:
    """``[N, C f f, H, W]`` to ``[N, C, H f, W f]``."""
    factor = call.integer("upscale_factor")
    return Kernel(lambda x: functional.pixel_shuffle(x, factor), "x")


@register("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> Kernel:
    """``[N, C, H f, W f]`` to ``[N, C f f, H, W]``."""
    factor = call.integer("downscale_factor")
    return Kernel(lambda x: functional.pixel_unshuffle(x, factor), "x")


@register("depth_to_space")
def depth_to_space(call: Call) -> Kernel:
    """``[N, b b C, H, W]`` to ``[N, C, H b, W b]``; the block's position is the slower part of the channel, as in TensorFlow."""
    (n, c, h, w), b = call.shape("x"), call.integer("block_size")
    new = c // (b * b)
    return Kernel(lambda x: x.reshape(n, b, b, new, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, new, h * b, w * b), "x")


@register("space_to_depth")
def space_to_depth(call: Call) -> Kernel:
    """``[N, C, H, W]`` to ``[N, b b C, H / b, W / b]``: the inverse of ``depth_to_space``."""
    (n, c, h, w), b = call.shape("x"), call.integer("block_size")
    new = (n, c * b * b, h // b, w // b)
    return Kernel(lambda x: x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(new), "x")
