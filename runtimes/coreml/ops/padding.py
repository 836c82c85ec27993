"""How convolution and pooling say what to pad."""

from __future__ import annotations

from edgekit.core.errors import IntegrityError
from edgekit.runtimes.coreml.ops.table import Call

__all__ = ["paired_padding", "torch_order"]

Pairs = tuple[tuple[int, int], ...]
"""(before, after) for each spatial axis."""


def paired_padding(call: Call, *, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> Pairs:
    """Padding (before, after) of each spatial axis.

    ``same`` makes the output ``ceil(input / stride)`` long; an odd cell goes behind the data, with ``same_lower`` before it.

    Args:
        call: An operation with arguments ``x``, ``pad_type`` and ``pad``.
        kernel: Kernel size by spatial axis.
        strides: Stride by spatial axis.
        dilations: Dilation by spatial axis.

    Raises:
        IntegrityError: The padding does not fit the number of axes, or its type is unknown.
    """
    kind = call.text("pad_type", "valid")
    if kind == "valid":
        return tuple((0, 0) for _ in kernel)
    if kind == "custom":
        flat = call.integers("pad", (0, 0) * len(kernel))
        if len(flat) != 2 * len(kernel):
            raise IntegrityError(f"{call}: 'pad' has {len(flat)} numbers; {len(kernel)} spatial axes need {2 * len(kernel)}.")
        return tuple(zip(flat[::2], flat[1::2], strict=True))
    if kind not in {"same", "same_lower"}:
        raise IntegrityError(f"{call}: unknown pad_type '{kind}'; known: valid, custom, same, same_lower.")
    sizes = call.shape("x")[2:]
    pairs = []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size)
        less = total // 2
        pairs.append((less, total - less) if kind == "same" else (total - less, less))
    return tuple(pairs)


def torch_order(pairs: Pairs) -> tuple[int, ...]:
    """``torch.nn.functional.pad``'s order: last axis first.

    >>> torch_order(((1, 2), (3, 4)))
    (3, 4, 1, 2)
    """
    return tuple(number for pair in reversed(pairs) for number in pair)
