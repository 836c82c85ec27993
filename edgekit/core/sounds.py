"""Sound before a model: windows of samples, layout, normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import pydantic

from edgekit.core.errors import DataError
from edgekit.core.raw_data import Positive, Preprocessing

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["AudioPreprocessing"]


class AudioPreprocessing(Preprocessing):
    """Sound: a window of samples at one rate, scaled.

    Raw sound is a window ``[T]`` or ``[T, C]``, or a batch ``[N, T]`` or ``[N, T, C]``.

    Args:
        sample_rate: Samples a second, Hz.
        window: Samples the model takes at once.
        hop: Samples from the start of a window to the start of the next; None: windows do not overlap.
        channels: Channels of the recording.
        dtype: Type of raw samples.
        layout: Axes of the model input: ``"NT"`` (one channel only), ``"NCT"`` or ``"NTC"``.
    """

    kind: Literal["audio"] = "audio"
    sample_rate: Positive
    window: Positive
    hop: Positive | None = None
    channels: Positive = 1
    dtype: Literal["int16", "float32"] = "int16"
    layout: Literal["NT", "NCT", "NTC"] = "NT"
    scale: float = 1 / 32768

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        self._check_numbers()
        if self.layout == "NT" and self.channels != 1:
            raise ValueError(f"layout 'NT' has no axis for {self.channels} channels; use 'NCT' or 'NTC'")
        return self

    @property
    def channel_count(self) -> int:
        """Channels of the recording."""
        return self.channels

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in the model input; -1 for ``"NT"``."""
        return {"NT": -1, "NCT": 1, "NTC": 2}[self.layout]

    @property
    def raw_dtype(self) -> str:
        """As declared."""
        return self.dtype

    @property
    def limits(self) -> tuple[float, float]:
        """Of 16-bit samples, or -1 to 1."""
        return (-32768.0, 32767.0) if self.dtype == "int16" else (-1.0, 1.0)

    @property
    def framed_shape(self) -> tuple[int, ...]:
        """``(T, C)``."""
        return self.window, self.channels

    def frame(self, raw: Any) -> Array:
        """Windows ``[N, T, C]``.

        Raises:
            DataError: They have another type, length or number of channels than declared.
        """
        import numpy as np

        found = np.asarray(raw)
        if found.ndim == 1 or (found.ndim == 2 and found.shape == (self.window, self.channels) and self.channels > 1):
            found = found[None]
        found = found[..., None] if found.ndim == 2 else found
        if str(found.dtype) != self.dtype or found.shape[1:] != (self.window, self.channels):
            raise DataError(
                f"Input '{self.input}': raw sound is {found.dtype} {list(found.shape)}; expected {self.dtype}"
                f" [N, {self.window}, {self.channels}]. Cut recordings with windows()."
            )
        return found

    def synthetic(self, count: int, *, seed: int = 0) -> Array:
        """Windows ``[count, T, C]``: tones of their own in each channel, louder from window to window, and noise."""
        import numpy as np

        draw = np.random.default_rng(seed)
        at = np.arange(self.window)[:, None] / self.sample_rate
        tones = np.sin(2 * np.pi * at * (220.0 * (1 + np.arange(self.channels))))
        loud = np.linspace(0.2, 0.6, count)[:, None, None] if count > 1 else 0.4
        values = np.clip(tones * loud + draw.normal(0, 0.05, (count, self.window, self.channels)), -0.99, 0.99)
        sound: Array = values.astype(np.float32) if self.dtype == "float32" else np.rint(values * 32767).astype(np.int16)
        return sound

    def windows(self, recording: Array) -> Array:
        """All whole windows of a recording ``[T]`` or ``[T, C]``, each :attr:`hop` after the one before: ``[N, T, C]``."""
        import numpy as np

        samples = recording[:, None] if recording.ndim == 1 else recording
        starts = range(0, len(samples) - self.window + 1, self.hop or self.window)
        empty = np.zeros((0, self.window, self.channels), samples.dtype)
        return np.stack([samples[start : start + self.window] for start in starts]) if starts else empty

    def recover(self, prepared: Array) -> tuple[Array, float]:
        """As for pictures; samples of type float32 need not be whole."""
        import numpy as np

        if self.dtype == "int16":
            return super().recover(prepared)
        values = self.unlaid(prepared).astype(np.float64)
        return ((values * np.array(self.std) + np.array(self.mean)) / self.scale).astype(np.float32), 0.0

    def laid_out(self, values: Array) -> Array:
        """``[N, T, C]`` -> the model's axes."""
        return values[..., 0] if self.layout == "NT" else values.transpose(0, 2, 1) if self.layout == "NCT" else values

    def unlaid(self, prepared: Array) -> Array:
        """The model's axes -> ``[N, T, C]``."""
        if self.layout == "NT":
            return prepared[..., None]
        return prepared.transpose(0, 2, 1) if self.layout == "NCT" else prepared

    def remaining(self, *, dtype: Literal["float32", "uint8", "int16"]) -> Self:
        """What is left for the application: cutting windows. They go in as recordings hold them."""
        return super().remaining(dtype=dtype).replace(layout="NT" if self.channels == 1 else "NTC")
