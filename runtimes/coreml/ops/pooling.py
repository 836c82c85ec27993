"""Pooling over one to three spatial axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.core.errors import IntegrityError, UnsupportedOpError
from edgekit.runtimes.coreml.ops.padding import paired_padding, torch_order
from edgekit.runtimes.coreml.ops.table import Call, Kernel, register

__all__: list[str] = []

_MAX: dict[int, Callable[..., Tensor]] = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE: dict[int, Callable[..., Tensor]] = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@dataclasses.dataclass(frozen=True)
class _Window:
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    ceil_mode: bool

    @property
    def padding(self) -> tuple[int, ...] | None:
        """Padding as torch's own pooling takes it; None where it cannot (uneven, or more than half the window)."""
        fits = all(before == after and 2 * before <= size for (before, after), size in zip(self.pairs, self.kernel, strict=True))
        return tuple(before for before, _ in self.pairs) if fits else None


def _window(call: Call) -> _Window:
    kernel = call.integers("kernel_sizes")
    if len(kernel) not in _MAX:
        raise IntegrityError(f"{call}: kernel_sizes has {len(kernel)} numbers; expected 1 to 3.")
    strides = call.integers("strides", (1,) * len(kernel))
    pairs = paired_padding(call, kernel=kernel, strides=strides, dilations=(1,) * len(kernel))
    window = _Window(kernel, strides, pairs, call.flag("ceil_mode"))
    if window.ceil_mode and window.padding is None:
        raise UnsupportedOpError(f"{call}: ceil_mode with padding {pairs} for windows of {kernel} is not defined by MIL.")
    return window


@register("max_pool")
def max_pool(call: Call) -> Kernel:
    """Largest value of each window; padding never wins."""
    window = _window(call)
    function, padding = _MAX[len(window.kernel)], window.padding
    if padding is not None:
        return Kernel(lambda x: function(x, window.kernel, window.strides, padding, 1, window.ceil_mode), "x")
    flat = torch_order(window.pairs)
    return Kernel(lambda x: function(functional.pad(x, flat, value=-math.inf), window.kernel, window.strides), "x")


@register("avg_pool")
def avg_pool(call: Call) -> Kernel:
    """Mean of each window; padding counts as zeros unless ``exclude_padding_from_average``."""
    return Kernel(_average(_window(call), exclude_padding=call.flag("exclude_padding_from_average")), "x")


@register("l2_pool")
def l2_pool(call: Call) -> Kernel:
    """Root of the sum of squares of each window."""
    window = _without_ceiling(_window(call), call.shape("x")[2:])
    mean, count = _average(window, exclude_padding=False), math.prod(window.kernel)
    return Kernel(lambda x: torch.sqrt(mean(x * x) * count), "x")


def _without_ceiling(window: _Window, sizes: tuple[int, ...]) -> _Window:
    """The same windows with the values behind the data as padding: torch's mean leaves out what a last window has beyond that."""
    if not window.ceil_mode:
        return window
    pairs = []
    for size, kernel, stride, (before, after) in zip(sizes, window.kernel, window.strides, window.pairs, strict=True):
        free = size + before + after - kernel
        count = -(-free // stride) + 1
        count -= (count - 1) * stride >= size + before  # a window that would start behind the data
        pairs.append((before, max(after, (count - 1) * stride + kernel - size - before)))
    return dataclasses.replace(window, pairs=tuple(pairs), ceil_mode=False)


def _average(window: _Window, *, exclude_padding: bool) -> Callable[[Tensor], Tensor]:
    function, padding = _AVERAGE[len(window.kernel)], window.padding
    if padding is not None:
        return lambda x: function(x, window.kernel, window.strides, padding, window.ceil_mode, not exclude_padding)
    flat = torch_order(window.pairs)

    def run(x: Tensor) -> Tensor:
        mean = function(functional.pad(x, flat), window.kernel, window.strides)
        if not exclude_padding:
            return mean
        share = function(functional.pad(torch.ones_like(x[:1, :1]), flat), window.kernel, window.strides)
        return mean / share

    return run
