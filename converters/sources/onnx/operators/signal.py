"""Signals: Fourier transforms, windows, mel filters."""

from __future__ import annotations

import math

import torch

from edgekit.converters.sources.onnx.call import Call
from edgekit.converters.sources.onnx.operators.table import operator
from edgekit.converters.sources.onnx.tensors import torch_type

__all__: list[str] = []

_COSINES = {"HannWindow": (0.5, 0.5), "HammingWindow": (25 / 46, 21 / 46), "BlackmanWindow": (0.42, 0.5, 0.08)}


@operator(*_COSINES)
def window(call: Call) -> torch.Tensor:
    """A window as a sum of cosines."""
    size = int(call.scalar(0, 0))
    period = size if call.attribute("periodic", 1) else max(size - 1, 1)
    angle = torch.arange(size, dtype=torch.float64) * (2 * math.pi / period)
    parts = [(-1) ** order * weight * torch.cos(order * angle) for order, weight in enumerate(_COSINES[call.operator])]
    return torch.stack(parts).sum(0).to(torch_type(call.attribute("output_datatype", 1), "The result of a window"))


@operator("MelWeightMatrix")
def mel_matrix(call: Call) -> torch.Tensor:
    """Triangles ``[bins / 2 + 1, mels]`` that are equally wide on the mel scale."""
    mels, length, rate, low, high = (call.numbers(index)[0] for index in range(5))
    bins = int(length) // 2 + 1
    steps = torch.arange(int(mels) + 2, dtype=torch.float64)
    bottom, top = (2595 * math.log10(1 + edge / 700) for edge in (low, high))
    edges = 700 * (10 ** ((steps * ((top - bottom) / (mels + 2)) + bottom) / 2595) - 1)
    where = torch.floor((length + 1) * edges / rate).long()
    matrix = torch.zeros(bins, int(mels), dtype=torch.float64)
    for at in range(int(mels)):
        left, middle, right = (int(where[at + shift]) for shift in range(3))
        if middle == left:
            matrix[middle, at] = 1
        else:
            for row in range(left, middle + 1):
                matrix[row, at] = (row - left) / (middle - left)
        for row in range(middle, right):
            matrix[row, at] = (right - row) / (right - middle)
    return matrix.to(torch_type(call.attribute("output_datatype", 1), "The result of 'MelWeightMatrix'"))


@operator("DFT")
def fourier(call: Call) -> torch.Tensor:
    """Fourier transform as two products by constant matrices, of real or complex numbers ``[…, 1 or 2]``."""
    values = call.tensor(0)
    if call.version >= 20:
        axis, inverse = int(call.scalar(2, -2)), bool(call.attribute("inverse", 0))
    else:
        axis, inverse = call.attribute("axis", 1), bool(call.attribute("inverse", 0))
    axis, onesided = axis % values.dim(), bool(call.attribute("onesided", 0))
    whole = onesided and inverse  # the other half mirrors the half that is given
    size = int(values.shape[axis])
    count = int(call.scalar(1, 2 * (size - 1) if whole else size))
    values = values.narrow(axis, 0, min(size, count))
    kept = count // 2 + 1 if onesided and not inverse else count
    turned = values.movedim(axis, -2)
    cosine, sine = _matrices(call, int(turned.shape[-2]), kept, count, inverse, mirrored=whole)
    real, imaginary = turned[..., 0], turned[..., 1] if int(turned.shape[-1]) == 2 else None
    even, odd = torch.matmul(real, cosine), torch.matmul(real, sine)
    if imaginary is not None:
        even, odd = even - torch.matmul(imaginary, sine), odd + torch.matmul(imaginary, cosine)
    if whole:
        return even.unsqueeze(-1).movedim(-2, axis)
    return torch.stack([even, odd], -1).movedim(-2, axis)


def _matrices(
    call: Call, rows: int, columns: int, period: int, inverse: bool, *, mirrored: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    def angles() -> torch.Tensor:
        product = torch.arange(rows, dtype=torch.int64)[:, None] * torch.arange(columns, dtype=torch.int64)[None, :]
        return (product % period).to(torch.float64) * ((2 if inverse else -2) * math.pi / period)

    def weight() -> torch.Tensor:
        share = torch.full((rows, 1), 1 / period if inverse else 1.0, dtype=torch.float64)
        if mirrored:
            share[1 : (period + 1) // 2] *= 2
        return share

    kind = call.dtype(0)
    cosine = call.computed("cosine", lambda: (torch.cos(angles()) * weight()).to(kind))
    sine = call.computed("sine", lambda: (torch.sin(angles()) * weight()).to(kind))
    return cosine, sine


@operator("STFT")
def short_time_fourier(call: Call) -> torch.Tensor:
    """Fourier transforms of windows ``[N, L, 1 or 2]`` -> ``[N, frames, bins, 2]``, as a convolution where numbers are real."""
    values, step = call.tensor(0), int(call.scalar(1, 1))
    length = int(call.scalar(3, 0)) if call.has(3) else call.shape(2)[0]
    onesided = bool(call.attribute("onesided", 1))
    bins = length // 2 + 1 if onesided else length
    cosine, sine = _matrices(call, length, bins, length, False, mirrored=False)
    if call.has(2):
        shape = call.tensor(2).reshape(-1, 1)
        cosine, sine = cosine * shape, sine * shape
    parts = [values[..., 0] if values.dim() == 3 else values]
    if values.dim() == 3 and call.shape(0)[2] == 2:
        parts.append(values[..., 1])
    frames = [part.unfold(-1, length, step) for part in parts]
    even, odd = torch.matmul(frames[0], cosine), torch.matmul(frames[0], sine)
    if len(frames) == 2:
        even, odd = even - torch.matmul(frames[1], sine), odd + torch.matmul(frames[1], cosine)
    return torch.stack([even, odd], -1)
