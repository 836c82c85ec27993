"""Convolution and transposed convolution, one to three spatial axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.padding import paired_padding, torch_order
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []

_CONV: dict[int, Callable[..., Tensor]] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _for_rank(call: Call, table: dict[int, Callable[..., Tensor]], rank: int) -> Callable[..., Tensor]:
    if rank not in table:
        raise IntegrityError(f"{call}: the weight has {rank} spatial axes; expected 1 to 3.")
    return table[rank]


@register("conv")
def conv(call: Call) -> Kernel:
    """Convolution: ``x [N, C_in, *D]``, ``weight [C_out, C_in / groups, *K]``, ``bias [C_out]``."""
    kernel = call.shape("weight")[2:]
    ones = (1,) * len(kernel)
    strides, dilations = call.integers("strides", ones), call.integers("dilations", ones)
    pairs = paired_padding(call, kernel=kernel, strides=strides, dilations=dilations)
    function, groups = _for_rank(call, _CONV, len(kernel)), call.integer("groups", 1)
    if all(before == after for before, after in pairs):
        padding = tuple(before for before, _ in pairs)
        return Kernel(lambda x, w, bias: function(x, w, bias, strides, padding, dilations, groups), "x", "weight", "bias")
    flat = torch_order(pairs)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return function(functional.pad(x, flat), weight, bias, strides, 0, dilations, groups)

    return Kernel(run, "x", "weight", "bias")


@register("conv_transpose")
def conv_transpose(call: Call) -> Kernel:
    """Transposed convolution: ``weight [C_in, C_out / groups, *K]``; padding is cut off the full result."""
    kernel, sizes = call.shape("weight")[2:], call.shape("x")[2:]
    ones = (1,) * len(kernel)
    strides, dilations, groups = call.integers("strides", ones), call.integers("dilations", ones), call.integer("groups", 1)
    full = tuple((d - 1) * s + (k - 1) * g + 1 for d, s, k, g in zip(sizes, strides, kernel, dilations, strict=True))
    wanted, before = _transposed_output(call, full, sizes, strides)
    extra = tuple(max(0, b + w - f) for b, w, f in zip(before, wanted, full, strict=True))
    function = _for_rank(call, _TRANSPOSED, len(kernel))

    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        result = function(x, weight, bias, strides, 0, extra, groups, dilations)
        for axis, (start, length) in enumerate(zip(before, wanted, strict=True), start=2):
            result = result.narrow(axis, start, length)
        return result

    return Kernel(run, "x", "weight", "bias")


def _transposed_output(
    call: Call, full: tuple[int, ...], sizes: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Spatial size of the result, and how much is cut off before it."""
    kind = call.text("pad_type", "valid")
    flat = call.integers("pad", (0, 0) * len(full)) if kind == "custom" else (0, 0) * len(full)
    wanted = tuple(f - b - a for f, b, a in zip(full, flat[::2], flat[1::2], strict=True))
    before = flat[::2]
    if kind == "same":
        wanted = tuple(d * s for d, s in zip(sizes, strides, strict=True))
        before = tuple(max(0, f - w) // 2 for f, w in zip(full, wanted, strict=True))
    if call.has("output_shape"):
        wanted = call.integers("output_shape")[2:]
    return wanted, before
