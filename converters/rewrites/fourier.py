"""Fourier transforms of pairs of real tensors, as products with the transform's matrix.

``X[k] = sum_n x[n] exp(-2 pi i k n / N)``: https://docs.pytorch.org/docs/stable/fft.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

__all__ = ["TRANSFORMS", "Complex", "inverse_short_time", "short_time"]


class Complex(NamedTuple):
    """A complex tensor."""

    real: torch.Tensor
    imaginary: torch.Tensor


_PLANE = (-2, -1)


def _matrix(rows: int, columns: int, *, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of ``2 pi r c / size``, ``[rows, columns]``, reduced before they are rounded."""
    turns = torch.outer(torch.arange(rows), torch.arange(columns)) % size
    angle = turns.double() * (2 * math.pi / size)
    return angle.cos(), angle.sin()


def _constant(value: torch.Tensor) -> torch.Tensor:
    """A constant that tracing does not see being computed."""
    return torch.from_numpy(_untraced(lambda: value.float().numpy().copy()))


def _constants(rows: int, columns: int, *, size: int, scales: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrix's cosines and sines, each times its scale, as constants."""
    cosines, sines = _untraced(_matrix, rows, columns, size=size)
    return _constant(_untraced(torch.mul, cosines, scales[0])), _constant(_untraced(torch.mul, sines, scales[1]))


def _factor(size: int, norm: str | None, *, inverse: bool) -> float:
    name = norm or "backward"
    if name == "ortho":
        return 1 / math.sqrt(size)
    return 1 / size if (name == "forward") != inverse else 1.0


def _fitted(values: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    """Cut or filled with zeros to ``size``, with the axis last."""
    moved = values.movedim(axis, -1)
    length = int(moved.shape[-1])
    if length > size:
        return moved[..., :size]
    return torch.nn.functional.pad(moved, (0, size - length)) if length < size else moved


def _transform(
    values: torch.Tensor | Complex, size: int | None, axis: int, norm: str | None, *, inverse: bool = False, half: bool = False
) -> Complex:
    """Along one axis; ``half``: only the first ``size // 2 + 1`` of the results."""
    parts = values if isinstance(values, Complex) else (values,)
    count = int(parts[0].shape[axis]) if size is None else int(size)
    scale = _factor(count, norm, inverse=inverse)
    width = count // 2 + 1 if half else count
    forward, turned = _constants(count, width, size=count, scales=(scale, scale if inverse else -scale))
    real = _fitted(parts[0], count, axis)
    if len(parts) == 1:
        found = Complex(real @ forward, real @ turned)
    else:
        other = _fitted(parts[1], count, axis)
        found = Complex(real @ forward - other @ turned, real @ turned + other @ forward)
    return Complex(*(part.movedim(-1, axis) for part in found))


def _untraced(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function on numbers while a program is being traced, without its steps becoming part of the program."""
    from torch.utils._python_dispatch import _disable_current_modes

    with _disable_current_modes():
        return function(*arguments, **named)


def _to_real(values: Complex, size: int | None, axis: int, norm: str | None) -> torch.Tensor:
    """Inverse transform along one axis whose second half is the first's mirror image."""
    count = 2 * (int(values.real.shape[axis]) - 1) if size is None else int(size)
    half = count // 2 + 1
    weights = _untraced(lambda: _mirror_weights(count) * _factor(count, norm, inverse=True))
    cosines, sines = _constants(half, count, size=count, scales=(weights, weights))
    real, imaginary = (_fitted(part, half, axis) for part in values)
    made = real @ cosines - imaginary @ sines
    return made.movedim(-1, axis)


def _mirror_weights(count: int) -> torch.Tensor:
    """How often each coefficient counts: those with a mirror image twice."""
    weights = torch.full((count // 2 + 1, 1), 2.0, dtype=torch.float64)
    weights[0] = 1
    if count % 2 == 0:
        weights[-1] = 1
    return weights


def _axes(values: torch.Tensor | Complex, sizes: Any, axes: Any) -> tuple[list[int | None], list[int]]:
    shape = (values.real if isinstance(values, Complex) else values).shape
    if axes is None:
        axes = range(-len(sizes), 0) if sizes is not None else range(-len(shape), 0)
    found = list(axes)
    wanted: list[int | None] = [None] * len(found) if sizes is None else [None if size == -1 else int(size) for size in sizes]
    return wanted, found


def _many(*, inverse: bool) -> Callable[..., Complex]:
    def transform(values: Any, sizes: Any = None, axes: Any = None, norm: str | None = None) -> Complex:
        for size, axis in zip(*_axes(values, sizes, axes), strict=True):
            values = _transform(values, size, axis, norm, inverse=inverse)
        return values  # type: ignore[no-any-return]

    return transform


def _many_half(values: torch.Tensor, sizes: Any = None, axes: Any = None, norm: str | None = None) -> Complex:
    wanted, found = _axes(values, sizes, axes)
    result = _transform(values, wanted[-1], found[-1], norm, half=True)
    for size, axis in zip(wanted[:-1], found[:-1], strict=True):
        result = _transform(result, size, axis, norm)
    return result


def _many_to_real(values: Complex, sizes: Any = None, axes: Any = None, norm: str | None = None) -> torch.Tensor:
    wanted, found = _axes(values, sizes, axes)
    for size, axis in zip(wanted[:-1], found[:-1], strict=True):
        values = _transform(values, size, axis, norm, inverse=True)
    return _to_real(values, wanted[-1], found[-1], norm)


def _on_plane(transform: Callable[..., Any]) -> Callable[..., Any]:
    def transform_plane(values: Any, sizes: Any = None, axes: Any = _PLANE, norm: str | None = None) -> Any:
        return transform(values, sizes, axes, norm)

    return transform_plane


def _one(*, inverse: bool = False, half: bool = False) -> Callable[..., Complex]:
    def transform(values: Any, size: int | None = None, axis: int = -1, norm: str | None = None) -> Complex:
        return _transform(values, size, axis, norm, inverse=inverse, half=half)

    return transform


def _one_to_real(values: Complex, size: int | None = None, axis: int = -1, norm: str | None = None) -> torch.Tensor:
    return _to_real(values, size, axis, norm)


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "fft_fft": _one(),
    "fft_ifft": _one(inverse=True),
    "fft_rfft": _one(half=True),
    "fft_irfft": _one_to_real,
    "fft_fft2": _on_plane(_many(inverse=False)),
    "fft_ifft2": _on_plane(_many(inverse=True)),
    "fft_rfft2": _on_plane(_many_half),
    "fft_irfft2": _on_plane(_many_to_real),
    "fft_fftn": _many(inverse=False),
    "fft_ifftn": _many(inverse=True),
    "fft_rfftn": _many_half,
    "fft_irfftn": _many_to_real,
}


def short_time(
    samples: torch.Tensor,
    size: int,
    hop: int | None = None,
    window_size: int | None = None,
    window: torch.Tensor | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Any:
    """``torch.stft`` of ``[T]`` or ``[B, T]``: a convolution with the windowed rows of the transform's matrix.

    Returns:
        ``[B, F, frames]``, or with ``return_complex`` False a real tensor ``[B, F, frames, 2]``.
    """
    del align_to_window
    count = size // 2 + 1 if onesided is not False else size
    batch = samples if samples.ndim == 2 else samples[None]
    kernel = _untraced(_frame_kernel, size, count, window_size or size, window, normalized)
    frames = torch.nn.functional.conv1d(batch[:, None], kernel, stride=hop or size // 4)
    real, imaginary = frames[:, :count], frames[:, count:]
    if samples.ndim == 1:
        real, imaginary = real[0], imaginary[0]
    return torch.stack([real, imaginary], -1) if return_complex is False else Complex(real, imaginary)


def _frame_kernel(size: int, count: int, window_size: int, window: torch.Tensor | None, normalized: bool) -> torch.Tensor:
    cosines, sines = _matrix(count, size, size=size)
    scale = 1 / math.sqrt(size) if normalized else 1.0
    weights = _centred(window, window_size, size) * scale
    return _constant(torch.cat([cosines, -sines])[:, None] * weights)


def _centred(window: torch.Tensor | None, window_size: int, size: int) -> torch.Tensor:
    """The window, ones where there is none, in the middle of ``size`` zeros."""
    values = torch.ones(window_size, dtype=torch.float64) if window is None else window.double()
    left = (size - window_size) // 2
    return torch.nn.functional.pad(values, (left, size - window_size - left))


def inverse_short_time(
    values: Complex,
    size: int,
    hop: int | None = None,
    window_size: int | None = None,
    window: torch.Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> torch.Tensor:
    """``torch.istft``: frames by the inverse transform, added up where they overlap, over the windows' own sum of squares."""
    del return_complex
    step, frames = hop or size // 4, int(values.real.shape[-1])
    is_batch = values.real.ndim == 3
    real, imaginary = values if is_batch else (values.real[None], values.imaginary[None])
    kernel, envelope = _untraced(_overlap, size, step, frames, window_size or size, window, normalized, onesided is not False)
    total = torch.nn.functional.conv_transpose1d(torch.cat([real, imaginary], 1), kernel, stride=step)[:, 0]
    start = size // 2 if center else 0
    natural = int(total.shape[-1]) - start
    end = start + int(length) if length is not None else int(total.shape[-1]) - (size // 2 if center else 0)
    cut = total[:, start:end] / envelope[start:end]
    if length is not None and length > natural:
        cut = torch.nn.functional.pad(cut, (0, int(length) - natural))
    result: torch.Tensor = cut if is_batch else cut[0]
    return result


def _overlap(
    size: int, step: int, frames: int, window_size: int, window: torch.Tensor | None, normalized: bool, onesided: bool
) -> Sequence[torch.Tensor]:
    """Kernel ``[2 F, 1, size]`` that turns one frame's coefficients into windowed samples, and the sum of squared windows."""
    count = size // 2 + 1 if onesided else size
    cosines, sines = _matrix(count, size, size=size)
    weights = _centred(window, window_size, size)
    mirror = _mirror_weights(size) if onesided else torch.ones(size, 1, dtype=torch.float64)
    scale = (math.sqrt(size) if normalized else 1.0) / size
    kernel = torch.cat([cosines * mirror, -sines * mirror]) * weights * scale
    envelope = torch.zeros((frames - 1) * step + size, dtype=torch.float64)
    for frame in range(frames):
        envelope[frame * step : frame * step + size] += weights**2
    return _constant(kernel[:, None]), _constant(torch.where(envelope > 1e-11, envelope, 1.0))
