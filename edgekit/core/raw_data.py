"""What happens to raw pixels or samples before the model, declared once.

::

    raw picture ─ frame ─> bytes of the model's size ─ prepare ─> model input        apply = frame, then prepare
                                    └──────── recover ────────────────┘

``prepare`` is, value by value in float32 and in this order, ``(raw * scale - mean) / std``. The same record says what an
artifact leaves for the application to do (:meth:`Preprocessing.remaining`), so a file into which the preprocessing is baked
and one that only describes it are fed by the same code.
"""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import pydantic

from edgekit.core.errors import DataError, EdgekitError, TaskError
from edgekit.core.model import Record, explain

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["Numbers", "Positive", "Preprocessing"]

Positive = Annotated[int, pydantic.Field(ge=1)]
Numbers = Annotated[
    tuple[float, ...], pydantic.BeforeValidator(lambda value: (value,) if isinstance(value, int | float) else value)
]
"""One number for all channels, or one for each."""


class Preprocessing(Record):
    """What pictures and sounds have in common: values are scaled, then centred and spread channel by channel.

    Args:
        input: The model input; may be left out where there is one only.
        scale: Factor that comes first, e.g. ``1 / 255``.
        mean: Taken away then; one number, or one for each channel.
        std: What it is divided by last; one number, or one for each channel.
        output_dtype: Type of what comes out; not ``float32`` only where an artifact takes raw values.
    """

    error: ClassVar[type[EdgekitError]] = TaskError

    input: str = ""
    scale: float = 1.0
    mean: Numbers = (0.0,)
    std: Numbers = (1.0,)
    output_dtype: Literal["float32", "uint8", "int16"] = "float32"

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except pydantic.ValidationError as reason:
            raise TaskError(f"{type(self).__name__}: {explain(reason, type(self))}") from reason

    @property
    @abc.abstractmethod
    def channel_count(self) -> int:
        """Channels of the model input."""

    @property
    @abc.abstractmethod
    def channel_axis(self) -> int:
        """Axis of the channels in the model input; -1 where it has none of its own."""

    @property
    @abc.abstractmethod
    def raw_dtype(self) -> str:
        """Type of raw values."""

    @property
    @abc.abstractmethod
    def limits(self) -> tuple[float, float]:
        """Smallest and largest raw value."""

    @property
    @abc.abstractmethod
    def framed_shape(self) -> tuple[int, ...]:
        """Shape of framed values, without the batch, channels last."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the model input, without the batch."""
        import numpy as np

        return tuple(self.laid_out(np.empty((1, *self.framed_shape), np.uint8)).shape[1:])

    @property
    def normalises(self) -> bool:
        """Whether scale, mean or std change anything."""
        return self.scale != 1 or any(value != 0 for value in self.mean) or any(value != 1 for value in self.std)

    def apply(self, raw: Any) -> Array:
        """Raw pictures or samples -> model input ``[N, ...]``: the one reference implementation.

        Raises:
            DataError: They have another type, size or number of channels.
        """
        return self.prepare(self.frame(raw))

    @abc.abstractmethod
    def frame(self, raw: Any) -> Array:
        """Raw data in the size and with the channels of the model, channels last."""

    @abc.abstractmethod
    def synthetic(self, count: int, *, seed: int = 0) -> Array:
        """Made-up framed values ``[count, ..., C]``, whose channels and places are all different."""

    def prepare(self, framed: Array) -> Array:
        """Framed values ``[N, ..., C]`` -> model input in its own layout and channel order."""
        import numpy as np

        values = self.ordered(framed)
        if self.output_dtype == "float32":
            values = self.normalise(values)
        elif str(values.dtype) != self.output_dtype:
            raise DataError(f"Raw values are {values.dtype}; input '{self.input}' takes {self.output_dtype}.")
        return np.ascontiguousarray(self.laid_out(values))

    def normalise(self, values: Array) -> Array:
        """``(values * scale - mean) / std`` in float32, channels last."""
        import numpy as np

        scaled = values.astype(np.float32) * np.float32(self.scale)
        prepared: Array = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return prepared

    def recover(self, prepared: Array) -> tuple[Array, float]:
        """Framed values a model input was made of, and how far from whole raw values the furthest one is.

        Args:
            prepared: Model input ``[N, ...]``.

        Returns:
            Values ``[N, ..., C]`` of :attr:`raw_dtype`, and the largest distance in raw steps (beyond the limits counts too).
        """
        import numpy as np

        values = self.unlaid(prepared).astype(np.float64)
        values = (values * np.array(self.std) + np.array(self.mean)) / self.scale
        nearest = np.clip(np.rint(values), *self.limits)
        return self.ordered(nearest.astype(self.raw_dtype)), float(np.abs(values - nearest).max(initial=0.0))

    def remaining(self, *, dtype: Literal["float32", "uint8", "int16"]) -> Self:
        """What is left for the application where all but framing is part of the file, which takes values of ``dtype``."""
        return self.replace(scale=1.0, mean=(0.0,), std=(1.0,), output_dtype=dtype)

    def bounds(self) -> tuple[list[float], list[float]]:
        """Smallest and largest value of each channel of the model input."""
        count = self.channel_count
        means, stds = (values * (count if len(values) == 1 else 1) for values in (self.mean, self.std))
        ends = [sorted((limit * self.scale - mean) / std for limit in self.limits) for mean, std in zip(means, stds, strict=True)]
        return [low for low, _ in ends], [high for _, high in ends]

    def ordered(self, values: Array) -> Array:
        """Channels in the model's order; the same again puts them back."""
        return values

    @abc.abstractmethod
    def laid_out(self, values: Array) -> Array:
        """Axes in the model's order."""

    @abc.abstractmethod
    def unlaid(self, prepared: Array) -> Array:
        """Channels last again."""

    def _check_numbers(self) -> None:
        count = self.channel_count
        if not (math.isfinite(self.scale) and self.scale != 0):
            raise ValueError(f"scale is {self.scale}; give a finite factor other than 0")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in {1, count}:
                raise ValueError(f"{name} has {len(values)} numbers for {count} channels; give one, or one a channel")
            if not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name} is {values}; give finite numbers")
        if any(value == 0 for value in self.std):
            raise ValueError(f"std is {self.std}: nothing can be divided by 0. A channel that never changes needs std 1")
