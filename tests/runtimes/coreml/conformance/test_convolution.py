"""Convolutions as sums over the positions of the kernel."""

from __future__ import annotations

import itertools

import numpy as np
from coreml_cases import Array, Draw, Example, both_of, conforms, floats, integers, one_of, wide
from hypothesis import strategies as st


def same_pads(size: int, window: int, stride: int, lower: bool) -> tuple[int, int]:
    """TensorFlow's SAME: the output is ``ceil(size / stride)`` long."""
    total = max(0, (int(np.ceil(size / stride)) - 1) * stride + window - size)
    return (total - total // 2, total // 2) if lower else (total // 2, total - total // 2)


def direct(x: Array, weight: Array, pads: list[tuple[int, int]], strides: list[int], dilations: list[int], groups: int) -> Array:
    """Sum over kernel positions and input channels, group by group, in float64."""
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    windows = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    sizes = [(n - w) // s + 1 for n, w, s in zip(x.shape[2:], windows, strides, strict=True)]
    per_in, per_out = weight.shape[1], weight.shape[0] // groups
    result = np.zeros((x.shape[0], weight.shape[0], *sizes))
    for group in range(groups):
        ins, outs = slice(group * per_in, (group + 1) * per_in), slice(group * per_out, (group + 1) * per_out)
        for at in itertools.product(*map(range, weight.shape[2:])):
            spans = [slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, n, s in zip(at, dilations, sizes, strides, strict=True)]
            patch = x[(slice(None), ins, *spans)]
            result[:, outs] += np.einsum("nc...,oc->no...", patch, weight[(outs, slice(None), *at)])
    return result


@conforms("conv")
def conv(draw: Draw, op: str, opset: str) -> Example:
    rank = draw(st.integers(1, 3))
    groups, per_in, per_out = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    strides, dilations = ([draw(st.integers(1, 2)) for _ in range(rank)] for _ in range(2))
    dynamic = opset == "iOS17" and draw(st.booleans())
    dilations = [1] * rank if dynamic else dilations
    sizes = [(k - 1) * d + 1 + draw(st.integers(0, 4)) for k, d in zip(kernel, dilations, strict=True)]
    x = floats(draw, (draw(st.integers(1, 2)), groups * per_in, *sizes), -1, 1)
    weight = floats(draw, (groups * per_out, per_in, *kernel), -1, 1, dtype=str(x.dtype))
    bias = floats(draw, (groups * per_out,), -1, 1, dtype=str(x.dtype))
    kind = one_of(draw, "valid", "same", "same_lower", "custom") if opset != "iOS15" else one_of(draw, "valid", "same", "custom")
    constants = {"strides": strides, "dilations": dilations, "groups": groups, "pad_type": kind}
    windows = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = [(0, 0)] * rank
    if kind == "custom":
        pads = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(rank)]
        constants["pad"] = [amount for pair in pads for amount in pair]
    if kind.startswith("same"):
        pads = [same_pads(n, w, s, kind == "same_lower") for n, w, s in zip(sizes, windows, strides, strict=True)]
    expected = direct(wide(x), wide(weight), pads, strides, dilations, groups)
    inputs = {"x": x}
    (inputs if dynamic else constants)["weight"] = weight
    if draw(st.booleans()):
        constants["bias"] = bias
        expected = expected + wide(bias).reshape(-1, *[1] * rank)
    return Example(inputs=inputs, constants=constants, expected=expected, atol=1e-5)


@conforms("conv_quantized")
def conv_quantized(draw: Draw, op: str) -> Example:
    """Weights of eight bits; its arguments of that name are those of the whole tensor, or of each output channel."""
    x = floats(draw, (1, 3, draw(st.integers(3, 6)), 4), -1, 1)
    stored = integers(draw, (4, 3, 2, 2), 0, 255, dtype="uint8")
    count = (4,) if draw(st.booleans()) else ()
    scale, shift = (np.asarray(floats(draw, count, low, 0.01, dtype=str(x.dtype))) for low in (0.001, -0.5))
    spread = (-1, 1, 1, 1) if count else ()
    weight = stored * wide(scale).reshape(spread) + wide(shift).reshape(spread)
    expected = direct(wide(x), weight, [(0, 0)] * 2, [1, 1], [1, 1], 1)
    parts = [part if count else part[()] for part in (scale, shift)]
    constants = {"weight": stored, "quantization_type": "linear", "quant_scale": parts[0], "quant_bias": parts[1]}
    return Example(inputs={"x": x}, constants=constants, expected=expected, rtol=1e-4, atol=1e-4)


@conforms("conv_transpose")
def conv_transpose(draw: Draw, op: str) -> Example:
    rank = draw(st.integers(1, 3))
    groups, per_in, per_out = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    strides, dilations = ([draw(st.integers(1, 3)) for _ in range(rank)] for _ in range(2))
    sizes = [draw(st.integers(1, 4)) for _ in range(rank)]
    x = floats(draw, (draw(st.integers(1, 2)), groups * per_in, *sizes), -1, 1)
    weight = floats(draw, (groups * per_in, per_out, *kernel), -1, 1, dtype=str(x.dtype))
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(sizes, strides, kernel, dilations, strict=True)]
    whole = np.zeros((x.shape[0], groups * per_out, *full))
    for group, channel in itertools.product(range(groups), range(per_in)):
        for where in itertools.product(*map(range, sizes)):
            for at in itertools.product(*map(range, kernel)):
                target = tuple(w * s + a * d for w, s, a, d in zip(where, strides, at, dilations, strict=True))
                amount = wide(x)[(slice(None), group * per_in + channel, *where)]
                part = wide(weight)[(group * per_in + channel, slice(None), *at)]
                whole[(slice(None), slice(group * per_out, (group + 1) * per_out), *target)] += np.outer(amount, part)
    constants = {"weight": weight, "strides": strides, "dilations": dilations, "groups": groups}
    kind = one_of(draw, "valid", "custom")
    constants["pad_type"] = kind
    expected = whole
    if kind == "custom":
        pads = [(draw(st.integers(0, (f - 1) // 2)), draw(st.integers(0, (f - 1) // 2))) for f in full]
        constants["pad"] = [amount for pair in pads for amount in pair]
        inside = tuple(slice(before, size - after) for (before, after), size in zip(pads, full, strict=True))
        expected = whole[(slice(None), slice(None), *inside)]
    if draw(st.booleans()):
        bias = constants["bias"] = floats(draw, (groups * per_out,), -1, 1, dtype=str(x.dtype))
        expected = expected + wide(bias).reshape(-1, *[1] * rank)
    return Example(inputs={"x": x}, constants=constants, expected=expected, atol=1e-5)


test_conforms, test_conforms_widely = both_of(__name__)
