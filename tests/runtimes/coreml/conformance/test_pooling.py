"""Pooling window by window."""

from __future__ import annotations

import itertools

import numpy as np
from coreml_cases import Array, Draw, Example, both_of, conforms, floats, one_of, wide
from hypothesis import assume
from hypothesis import strategies as st
from test_convolution import same_pads


def out_size(size: int, pads: tuple[int, int], window: int, stride: int, *, up: bool) -> int:
    """The documented size; in ceil mode a window that would start behind the data and its padding in front is left out."""
    free = size + sum(pads) - window
    count = (-(-free // stride) if up else free // stride) + 1
    return count - 1 if up and (count - 1) * stride >= size + pads[0] and sum(pads) > 0 else count


def pool(op: str, x: Array, kernel: list[int], strides: list[int], pads: list[tuple[int, int]], up: bool, exclude: bool) -> Array:
    """Each window's values, those in the padding marked by NaN."""
    geometry = list(zip(x.shape[2:], pads, kernel, strides, strict=True))
    counts = [out_size(n, p, k, s, up=up) for n, p, k, s in geometry]
    ends = [(c - 1) * s + k for c, (_, _, k, s) in zip(counts, geometry, strict=True)]
    behind = [max(0, end - n - p[0]) for end, (n, p, _, _) in zip(ends, geometry, strict=True)]
    padded = np.pad(
        x, [(0, 0), (0, 0), *((p[0], b) for (_, p, _, _), b in zip(geometry, behind, strict=True))], constant_values=np.nan
    )
    result = np.zeros((*x.shape[:2], *counts))
    for at in itertools.product(*map(range, counts)):
        spans = [slice(i * s, i * s + k) for i, s, k in zip(at, strides, kernel, strict=True)]
        values = padded[(slice(None), slice(None), *spans)].reshape(*x.shape[:2], -1)
        result[(slice(None), slice(None), *at)] = summarize(op, values, exclude, at, geometry)
    return result


def summarize(op: str, values: Array, exclude: bool, at: tuple[int, ...], geometry: list) -> Array:
    if op == "max_pool":
        return np.nanmax(values, axis=-1)
    if op == "l2_pool":
        return np.sqrt(np.nansum(values**2, axis=-1))
    if exclude:
        return np.nanmean(values, axis=-1)
    # the part of the window that ends behind the padding does not count, as in torch
    count = np.prod([min(i * s + k, n + sum(p)) - i * s for i, (n, p, k, s) in zip(at, geometry, strict=True)])
    return np.nansum(values, axis=-1) / count


@conforms("max_pool", "avg_pool", "l2_pool")
def pooling(draw: Draw, op: str) -> Example:
    up = draw(st.booleans())
    rank = draw(st.integers(1, 2 if up or op == "l2_pool" else 3))
    kernel, strides = [draw(st.integers(1, 3)) for _ in range(rank)], [draw(st.integers(1, 3)) for _ in range(rank)]
    sizes = [k + draw(st.integers(0, 4)) for k in kernel]
    x = floats(draw, (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *sizes))
    kind = one_of(draw, "valid", "custom") if up else one_of(draw, "valid", "custom", "same")
    constants = {"kernel_sizes": kernel, "strides": strides, "pad_type": kind, "ceil_mode": up}
    pads = [(0, 0)] * rank
    if kind == "custom":
        pads = [(draw(st.integers(0, k // 2)), draw(st.integers(0, k // 2))) for k in kernel]
        pads = [(before, before) for before, _ in pads] if up else pads
        constants["pad"] = [amount for pair in pads for amount in pair]
    if kind == "same":
        pads = [same_pads(n, k, s, lower=False) for n, k, s in zip(sizes, kernel, strides, strict=True)]
    # without padding a ceiled window may start behind the data: what it holds is not documented
    assume(
        not up
        or all(
            (out_size(n, p, k, s, up=True) - 1) * s < n + p[0] for n, p, k, s in zip(sizes, pads, kernel, strides, strict=True)
        )
    )
    exclude = op == "avg_pool" and draw(st.booleans())
    constants |= {"exclude_padding_from_average": exclude} if op == "avg_pool" else {}
    expected = pool(op, wide(x), kernel, strides, pads, up, exclude)
    return Example(inputs={"x": x}, constants=constants, expected=expected, atol=1e-5)


@conforms("max_pool", "avg_pool", "l2_pool", since="iOS16")
def lower(draw: Draw, op: str) -> Example:
    """``same_lower`` came with iOS 16."""
    k, s, n = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(4, 8))
    x = floats(draw, (1, 2, n))
    pads = [same_pads(n, k, s, lower=True)]
    constants = {"kernel_sizes": [k], "strides": [s], "pad_type": "same_lower"}
    return Example(inputs={"x": x}, constants=constants, expected=pool(op, wide(x), [k], [s], pads, False, False), atol=1e-5)


test_conforms, test_conforms_widely = both_of(__name__)
