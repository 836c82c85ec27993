"""Three-dimensional convolutions in the forms TFLite's kernels have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from edgekit.converters.rewrites.rewrite import Rewrite

if TYPE_CHECKING:
    from edgekit.converters.program_edit import ProgramEdit

__all__ = ["REWRITES"]

_MOST_GROUPS = 64


def _split_groups(
    values: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """One convolution a group."""
    width, made = int(values.shape[1]) // groups, int(weight.shape[0]) // groups
    parts = [
        functional.conv3d(
            values.narrow(1, group * width, width),
            weight.narrow(0, group * made, made),
            None if bias is None else bias.narrow(0, group * made, made),
            stride,
            padding,
            dilation,
        )
        for group in range(groups)
    ]
    return torch.cat(parts, 1)


def _has_groups(node: torch.fx.Node) -> bool:
    groups: Any = node.args[6] if len(node.args) > 6 else 1
    return bool(1 < groups <= _MOST_GROUPS)


def _transposed(edit: ProgramEdit) -> int:
    """``conv_transpose3d`` as transposed convolutions of the slices, one for each depth of the kernel, added up."""
    count = 0
    for node in edit.find("aten.conv_transpose3d.input"):
        arguments: list[Any] = [*node.args, *[None, [1], [0], [0], 1, [1]][len(node.args) - 2 :]]
        weight = edit.value_of(arguments[1])
        if weight is None:
            continue
        taps = [edit.constant(part.contiguous(), name="tap") for part in weight.unbind(2)]
        made = edit.compute(node, _add_taps, arguments[0], taps, *arguments[2:], [int(size) for size in node.meta["val"].shape])
        node.replace_all_uses_with(made)
        edit.graph.erase_node(node)
        count += 1
    return count


def _add_taps(
    values: torch.Tensor,
    taps: list[torch.Tensor],
    bias: torch.Tensor | None,
    stride: Any,
    padding: Any,
    extra: Any,
    groups: int,
    dilation: Any,
    shape: list[int],
) -> torch.Tensor:
    """Values ``[N, C, D, H, W]``; each slice is widened in depth by zeros behind it and moved by its tap's place."""
    stride, padding, extra, dilation = (list(one) * (3 if len(one) == 1 else 1) for one in (stride, padding, extra, dilation))
    batch, _, depth = (int(size) for size in values.shape[:3])
    slices = values.transpose(1, 2).flatten(0, 1)
    length = (depth - 1) * stride[0] + dilation[0] * (len(taps) - 1) + 1 + extra[0]
    total: torch.Tensor | None = None
    for place, tap in enumerate(taps):
        plane = functional.conv_transpose2d(slices, tap, None, stride[1:], padding[1:], extra[1:], groups, dilation[1:])
        row = plane.reshape(batch, depth, 1, -1)
        wide = functional.pad(row, (0, 0, 0, stride[0] - 1)).reshape(batch, depth * stride[0], -1)[
            :, : (depth - 1) * stride[0] + 1
        ]
        before = place * dilation[0]
        moved = functional.pad(wide, (0, 0, before, length - before - int(wide.shape[1])))
        total = moved if total is None else total + moved
    if total is None:
        raise TypeError("A kernel of depth 0.")
    made = total[:, padding[0] : padding[0] + shape[2]].reshape(batch, shape[2], shape[1], shape[3], shape[4]).transpose(1, 2)
    return made if bias is None else made + bias.reshape(-1, 1, 1, 1)


REWRITES = (
    Rewrite(
        name="grouped-conv3d-to-parts",
        targets=("tflite",),
        because="litert-torch 0.10 writes a CONV_3D with groups, and LiteRT 2.3 dies on it (segmentation fault)",
        operators=("aten.conv3d.default",),
        build=_split_groups,
        applies=_has_groups,
    ),
    Rewrite(
        name="transposed-conv3d-to-slices",
        targets=("tflite",),
        because="litert-torch 0.10 writes CONV_3D_TRANSPOSE, which LiteRT 2.3 has no kernel for",
        edit=_transposed,
    ),
)
