"""Normalizations by their definitions in float64."""

from __future__ import annotations

import numpy as np
from coreml_cases import Array, Draw, Example, both_of, conforms, floats, one_of, shapes, wide
from hypothesis import strategies as st


def spread(values: Array, rank: int) -> Array:
    """A value for each channel, to broadcast."""
    return wide(values).reshape(-1, *[1] * (rank - 2))


def scale_and_shift(draw: Draw, count: tuple[int, ...], x: Array) -> tuple[Array, Array, dict[str, Array]]:
    gamma, beta = (floats(draw, count, 0.5, 2, dtype=str(x.dtype)) for _ in range(2))
    if draw(st.booleans()):
        return np.ones(count), np.zeros(count), {}
    return gamma, beta, {"gamma": gamma, "beta": beta}


@conforms("batch_norm")
def batch_norm(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw, least=3, most=5))
    count = (x.shape[1],)
    mean, variance = floats(draw, count, dtype=str(x.dtype)), floats(draw, count, 0.25, 2, dtype=str(x.dtype))
    gamma, beta, given = scale_and_shift(draw, count, x)
    epsilon = x.dtype.type(2.0**-7)
    parts = [spread(part, x.ndim) for part in (mean, variance, gamma, beta)]
    expected = (wide(x) - parts[0]) / np.sqrt(parts[1] + float(epsilon)) * parts[2] + parts[3]
    constants = {"mean": mean, "variance": variance, "epsilon": epsilon, **given}
    return Example(inputs={"x": x}, constants=constants, expected=expected, atol=1e-5)


@conforms("instance_norm")
def instance_norm(draw: Draw, op: str) -> Example:
    x = floats(draw, (*shapes(draw, least=2, most=2), *(draw(st.integers(2, 4)) for _ in range(draw(st.integers(1, 2))))))
    gamma, beta, given = scale_and_shift(draw, (x.shape[1],), x)
    epsilon = x.dtype.type(2.0**-7)
    flat = wide(x).reshape(*x.shape[:2], -1)
    centred = flat - flat.mean(-1, keepdims=True)
    scaled = (centred / np.sqrt((centred**2).mean(-1, keepdims=True) + float(epsilon))).reshape(x.shape)
    expected = scaled * spread(gamma, x.ndim) + spread(beta, x.ndim)
    return Example(inputs={"x": x}, constants={"epsilon": epsilon, **given}, expected=expected, atol=1e-4)


@conforms("layer_norm")
def layer_norm(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw, least=2))
    axes = sorted(draw(st.sets(st.integers(0, x.ndim - 1), min_size=1)))
    sizes = tuple(x.shape[axis] for axis in axes)
    gamma, beta, given = scale_and_shift(draw, sizes, x)
    epsilon = x.dtype.type(2.0**-7)
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    over = tuple(axes)
    mean = wide(x).sum(over, keepdims=True) / np.prod(sizes)
    variance = (wide(x) ** 2).sum(over, keepdims=True) / np.prod(sizes) - mean**2
    expected = (wide(x) - mean) / np.sqrt(variance + float(epsilon)) * wide(gamma).reshape(shape) + wide(beta).reshape(shape)
    named = [axis - x.ndim if draw(st.booleans()) else axis for axis in axes]
    return Example(inputs={"x": x}, constants={"axes": named, "epsilon": epsilon, **given}, expected=expected, atol=1e-4)


@conforms("l2_norm")
def l2_norm(draw: Draw, op: str) -> Example:
    x = floats(draw, shapes(draw, least=3, most=5))
    epsilon = x.dtype.type(2.0**-7)
    length = np.sqrt(np.einsum("...abc,...abc->...", wide(x), wide(x)) + float(epsilon))
    expected = wide(x) / length[..., None, None, None]
    return Example(inputs={"x": x}, constants={"epsilon": epsilon}, expected=expected, atol=1e-5)


@conforms("local_response_norm")
def local_response_norm(draw: Draw, op: str) -> Example:
    x = floats(draw, (1, draw(st.integers(1, 6)), *shapes(draw, least=1, most=2)))
    size = one_of(draw, 1, 2, 3, 4, 5)
    alpha, beta, k = (x.dtype.type(value) for value in (0.5, 0.75, 2))
    squares = wide(x) ** 2
    sums = np.zeros_like(squares)
    for channel in range(x.shape[1]):
        first = channel - size // 2
        sums[:, channel] = squares[:, max(0, first) : first + size].sum(1)
    expected = wide(x) / (float(k) + float(alpha) / size * sums) ** float(beta)
    return Example(inputs={"x": x}, constants={"size": size, "alpha": alpha, "beta": beta, "k": k}, expected=expected, atol=1e-5)


test_conforms, test_conforms_widely = both_of(__name__)
