"""The declared preprocessing in torch operators that every target has, for the front of a program.

Value by value it is the reference's arithmetic, in the same order: ``(raw * scale - mean) / std`` in float32. A resize is a
product with one matrix for the columns and one for the rows; its sums are float32 here and exact in the reference, so a
value that lies at a rounding tie may differ by one of 256 levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit.core.preprocessing import AudioPreprocessing, ImagePreprocessing, Preprocessing
from edgekit.core.resampling import centre, weights

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Prefix"]

Build = Callable[..., torch.Tensor]


class Prefix:
    """What is computed from an artifact's raw input before the program.

    Args:
        record: The declared preprocessing.
        framing: Resize and crop too; raw pictures then have the record's ``raw_size``.
    """

    def __init__(self, record: Preprocessing, *, framing: bool = False) -> None:
        self.constants: list[torch.Tensor] = []
        self._steps: list[Callable[[torch.Tensor, tuple[torch.Tensor, ...]], torch.Tensor]] = []
        if isinstance(record, ImagePreprocessing):
            self._image(record, framing=framing)
        elif isinstance(record, AudioPreprocessing):
            self._audio(record)
        else:
            raise TypeError(f"'{type(record).__name__}' is no known preprocessing.")

    def build(self, raw: torch.Tensor, *constants: torch.Tensor) -> torch.Tensor:
        """The program's input, of raw values and :attr:`constants`."""
        values = raw if raw.dtype == torch.float32 else raw.to(torch.float32)
        for step in self._steps:
            values = step(values, constants)
        return values

    def _image(self, record: ImagePreprocessing, *, framing: bool) -> None:
        self._add(lambda values: values.permute(0, 3, 1, 2))
        if framing and record.raw_size is not None:
            self._frame(record, *record.raw_size)
        if record.colour == "bgr":
            self._add(lambda values: torch.flip(values, (1,)))
        self._normalise(record, lambda numbers: numbers.reshape(1, -1, 1, 1))
        if record.layout == "NHWC":
            self._add(lambda values: values.permute(0, 2, 3, 1))

    def _audio(self, record: AudioPreprocessing) -> None:
        if record.channels > 1 and record.layout == "NCT":
            self._add(lambda values: values.permute(0, 2, 1))
        elif record.channels == 1 and record.layout != "NT":
            axis = record.channel_axis
            self._add(lambda values: values.unsqueeze(axis))
        self._normalise(record, lambda numbers: numbers.reshape((1, -1, 1) if record.layout == "NCT" else (1, 1, -1)))

    def _frame(self, record: ImagePreprocessing, height: int, width: int) -> None:
        tall, wide = record.resized(height, width)
        top, left = centre(tall, record.size[0]), centre(wide, record.size[1])
        rows = self._matrix(record, height, tall)[top : top + record.size[0]]
        columns = self._matrix(record, width, wide)[left : left + record.size[1]]
        rounds = record.antialias and record.interpolation != "nearest"
        if wide != width or columns.shape[0] != width:
            self._with(columns.T, torch.matmul)
            if rounds and wide != width:
                self._add(_whole)
        if tall != height or rows.shape[0] != height:
            self._with(rows, lambda values, matrix: torch.matmul(matrix, values))
        self._add(_whole)

    def _matrix(self, record: ImagePreprocessing, size: int, wanted: int) -> Array:
        if size == wanted:
            return np.eye(size)
        return weights(size, wanted, interpolation=record.interpolation, antialias=record.antialias)

    def _normalise(self, record: Preprocessing, shaped: Callable[[Array], Array]) -> None:
        if record.scale != 1:
            scale = record.scale
            self._add(lambda values: values * scale)
        if any(value != 0 for value in record.mean):
            self._each(record.mean, shaped, torch.sub)
        if any(value != 1 for value in record.std):
            self._each(record.std, shaped, torch.div)

    def _each(self, numbers: tuple[float, ...], shaped: Callable[[Array], Array], operate: Build) -> None:
        """Take away or divide by one number, or one for each channel."""
        if len(set(numbers)) == 1:
            number: Any = numbers[0]
            self._add(lambda values: operate(values, number))
        else:
            self._with(shaped(np.array(numbers)), operate)

    def _add(self, step: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._steps.append(lambda values, _: step(values))

    def _with(self, constant: Array, step: Build) -> None:
        position = len(self.constants)
        self.constants.append(torch.from_numpy(np.ascontiguousarray(constant, np.float32)))
        self._steps.append(lambda values, constants: step(values, constants[position]))


def _whole(values: torch.Tensor) -> torch.Tensor:
    """A picture of bytes again; half is rounded up."""
    return torch.clamp(torch.floor(values + 0.5), 0.0, 255.0)
