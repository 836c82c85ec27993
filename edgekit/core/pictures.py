"""Pictures before a model: resize, crop, order of colours, layout, normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import pydantic

from edgekit.core.errors import DataError
from edgekit.core.raw_data import Positive, Preprocessing
from edgekit.core.resampling import Interpolation, centre, resize, shorter_side

if TYPE_CHECKING:
    from edgekit.core.tensors import Array

__all__ = ["ImagePreprocessing"]

_GREY_WEIGHTS = (19595, 38470, 7471)
"""ITU-R 601 luma in 16 binary places, as Pillow's ``convert("L")`` computes it (``libImaging/Convert.c``)."""


class ImagePreprocessing(Preprocessing):
    """Pictures: resize, crop, order of colours, layout, normalisation.

    Raw pictures are bytes, ``[H, W, 3]`` in the order red, green, blue, or grey ``[H, W]``; one, a batch ``[N, H, W, C]``, or a
    list of pictures of any sizes.

    Args:
        size: Height and width of the model input.
        resize: ``"shorter-side"`` keeps the proportions, ``"stretch"`` does not, ``"none"`` leaves pictures as they are.
        resize_to: Length of the shorter side before the crop; None: the longer side of ``size``.
        crop: ``"center"`` cuts the middle out; ``"none"`` expects pictures of ``size``.
        interpolation: Filter of the resize.
        antialias: Widen the filter where pictures become smaller: Pillow's numbers, bit for bit (as torchvision's default).
            Without: those of ``torch.nn.functional.interpolate``.
        colour: Channels of the model input; grey pictures are made of coloured ones by ITU-R 601, as Pillow does.
        layout: Axes of the model input.
        raw_size: Height and width of all raw pictures, where they are known: then resize and crop can be baked in too.
    """

    kind: Literal["image"] = "image"
    size: tuple[Positive, Positive]
    resize: Literal["none", "shorter-side", "stretch"] = "none"
    resize_to: Positive | None = None
    crop: Literal["none", "center"] = "none"
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    colour: Literal["rgb", "bgr", "grey"] = "rgb"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    scale: float = 1 / 255
    raw_size: tuple[Positive, Positive] | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        self._check_numbers()
        if self.resize == "shorter-side" and self.crop == "none":
            raise ValueError("resize 'shorter-side' leaves pictures of many widths; add crop='center', or use resize='stretch'")
        if self.resize_to is not None and (self.resize != "shorter-side" or self.resize_to < max(self.size)):
            raise ValueError(f"resize_to is {self.resize_to}; it needs resize='shorter-side' and at least {max(self.size)}")
        return self

    @property
    def channel_count(self) -> int:
        """Channels of the model input."""
        return 1 if self.colour == "grey" else 3

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in the model input."""
        return 1 if self.layout == "NCHW" else 3

    @property
    def raw_dtype(self) -> str:
        """Pictures are bytes."""
        return "uint8"

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest byte."""
        return 0.0, 255.0

    @property
    def framed_shape(self) -> tuple[int, ...]:
        """``(H, W, C)``."""
        return *self.size, self.channel_count

    @property
    def frames(self) -> bool:
        """Whether resize or crop change a picture's size."""
        return self.resize != "none" or self.crop != "none"

    def frame(self, raw: Any) -> Array:
        """Pictures of the model's size, uint8 ``[N, H, W, C]`` in the order red, green, blue.

        Raises:
            DataError: A picture is not of bytes, or has another size or number of channels than declared.
        """
        import numpy as np

        return np.stack([self._frame_one(picture) for picture in _pictures(raw)])

    def synthetic(self, count: int, *, seed: int = 0) -> Array:
        """Pictures of the model's size, uint8 ``[count, H, W, C]``: a slope of its own in each channel, and noise."""
        import numpy as np

        draw = np.random.default_rng(seed)
        height, width, channels = self.framed_shape
        down, across = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
        slopes = np.array([[90.0, 20.0], [15.0, 100.0], [60.0, -50.0]])[:channels]
        smooth = np.array([120.0, 90.0, 70.0])[:channels] + down * slopes[:, 0] + across * slopes[:, 1]
        noise = draw.normal(0, 25, (count, height, width, channels))
        pictures: Array = np.clip(np.rint(smooth + noise), 0, 255).astype(np.uint8)
        return pictures

    def ordered(self, values: Array) -> Array:
        """Colours in the model's order; the same again puts them back."""
        return values[..., ::-1] if self.colour == "bgr" else values

    def laid_out(self, values: Array) -> Array:
        """``[N, H, W, C]`` -> the model's axes."""
        return values.transpose(0, 3, 1, 2) if self.layout == "NCHW" else values

    def unlaid(self, prepared: Array) -> Array:
        """The model's axes -> ``[N, H, W, C]``."""
        return prepared.transpose(0, 2, 3, 1) if self.layout == "NCHW" else prepared

    def remaining(self, *, dtype: Literal["float32", "uint8", "int16"]) -> Self:
        """What is left for the application: framing. Pictures go in as red, green, blue, channels last."""
        colour = "grey" if self.colour == "grey" else "rgb"
        return super().remaining(dtype=dtype).replace(colour=colour, layout="NHWC")

    def without_framing(self) -> Self:
        """The same for pictures of :attr:`raw_size`, which go in as they are: resize and crop are part of the file."""
        return self.replace(size=self.raw_size, resize="none", resize_to=None, crop="none", raw_size=None)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture after the resize, before the crop."""
        if self.resize == "stretch":
            return self.size
        if self.resize == "shorter-side":
            return shorter_side(height, width, self.resize_to or max(self.size))
        return height, width

    def _frame_one(self, picture: Array) -> Array:
        import numpy as np

        picture = self._coloured(picture)
        height, width = self.resized(*picture.shape[:2])
        if (height, width) != picture.shape[:2]:
            picture = resize(picture, height, width, interpolation=self.interpolation, antialias=self.antialias)
        wanted = self.size
        if self.crop == "center" and height >= wanted[0] and width >= wanted[1]:
            top, left = centre(height, wanted[0]), centre(width, wanted[1])
            picture = picture[top : top + wanted[0], left : left + wanted[1]]
        if picture.shape[:2] != wanted:
            raise DataError(
                f"Input '{self.input}': a picture is {picture.shape[0]} x {picture.shape[1]} pixels after resize '{self.resize}'"
                f" and crop '{self.crop}', the model takes {wanted[0]} x {wanted[1]}. Declare how pictures get that size."
            )
        return np.ascontiguousarray(picture)

    def _coloured(self, picture: Array) -> Array:
        import numpy as np

        found = np.asarray(picture)
        found = found[..., None] if found.ndim == 2 else found
        if found.dtype != np.uint8 or found.ndim != 3:
            raise DataError(
                f"Input '{self.input}': a raw picture is {found.dtype} {list(found.shape)}; expected bytes, uint8 [H, W, C]."
                " Prepared data are for Task(data='prepared')."
            )
        if self.colour == "grey" and found.shape[2] == 3:
            luma = (found.astype(np.uint32) * np.array(_GREY_WEIGHTS, np.uint32)).sum(2) + 0x8000
            grey: Array = (luma >> 16).astype(np.uint8)[..., None]
            return grey
        if found.shape[2] != self.channel_count:
            raise DataError(
                f"Input '{self.input}': a raw picture has {found.shape[2]} channels, colour '{self.colour}' needs"
                f" {self.channel_count}."
            )
        return found


def _pictures(raw: Any) -> Sequence[Array]:
    """One picture, a batch, or a list of pictures of any sizes, as a sequence of pictures."""
    if isinstance(raw, list | tuple):
        return raw
    shape = raw.shape
    is_one = len(shape) == 2 or (len(shape) == 3 and shape[2] in {1, 3})
    return [raw] if is_one else list(raw)
