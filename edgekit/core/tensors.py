"""What a tensor at the edge of a model looks like, and how numbers become integers and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from edgekit.core.errors import DataError, nearest
from edgekit.core.model import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Arrays = Mapping[str, Array]

__all__ = [
    "DType",
    "FlexibleAxis",
    "TensorSpec",
    "check_inputs",
    "check_numbers",
    "dequantize",
    "from_stored",
    "quantize",
    "to_stored",
]

DType = Literal["bool", "int4", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"]


class FlexibleAxis(Record):
    """An axis whose size a caller chooses.

    Args:
        axis: Which one.
        minimum: Smallest size.
        maximum: Largest size.
        sizes: The only sizes allowed, where they are enumerated; empty: every size between the two.
    """

    axis: int
    minimum: int
    maximum: int
    sizes: tuple[int, ...] = ()

    def allows(self, size: int) -> bool:
        """Whether the axis may have this size."""
        return size in self.sizes if self.sizes else self.minimum <= size <= self.maximum

    def __str__(self) -> str:
        """``1..8``, or ``128|192|256``."""
        return "|".join(map(str, self.sizes)) if self.sizes else f"{self.minimum}..{self.maximum}"


class TensorSpec(Record):
    """One input or output of a model.

    Args:
        name: Name the runtime knows it by.
        shape: Sizes with the batch first, e.g. ``(1, 3, 224, 224)`` for ``[N, C, H, W]``.
        dtype: Element type as numpy spells it.
        scale: For integer I/O: real = ``scale * (integer - zero_point)``.
        zero_point: For integer I/O.
        flexible: Axes whose size a caller chooses; ``shape`` has the sizes of the example.
        is_channels_last: The file has ``[N, H, W, C]`` where the program has ``[N, C, H, W]``; ``shape`` is the file's.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    scale: float | None = None
    zero_point: int | None = None
    is_channels_last: bool = False
    flexible: tuple[FlexibleAxis, ...] = ()

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape can be given."""
        open_axes = {axis.axis: axis for axis in self.flexible}
        return len(shape) == len(self.shape) and all(
            open_axes[axis].allows(size) if axis in open_axes else size == expected
            for axis, (size, expected) in enumerate(zip(shape, self.shape, strict=True))
        )

    @property
    def sizes(self) -> str:
        """The shape in words: ``[1..8, 3, 224, 224]``."""
        open_axes = {axis.axis: str(axis) for axis in self.flexible}
        return f"[{', '.join(open_axes.get(axis, str(size)) for axis, size in enumerate(self.shape))}]"


def quantize(
    values: Array, *, scale: float, zero_point: int, minimum: int = -128, maximum: int = 127, dtype: str = "int8"
) -> Array:
    """Round ``values / scale`` half to even, add the zero point, saturate.

    The division is done as a multiplication by the float32 reciprocal, as
    ``quantized_decomposed.quantize_per_tensor`` does, so the integers are the same.

    >>> import numpy as np
    >>> quantize(np.array([0.0, 0.5, 9.0], np.float32), scale=0.5, zero_point=-3, maximum=10)
    array([-3, -2, 10], dtype=int8)
    """
    import numpy as np

    inverse = np.float32(1.0) / np.float32(scale)
    with np.errstate(over="ignore"):  # infinity saturates like any large value
        steps = np.rint(np.asarray(values, np.float32) * inverse) + zero_point
    integers: Array = np.clip(steps, minimum, maximum).astype(dtype)
    return integers


def dequantize(integers: Array, *, scale: float, zero_point: int) -> NDArray[np.float32]:
    """Real values ``scale * (integer - zero_point)`` as float32.

    >>> import numpy as np
    >>> dequantize(np.array([-3, -1], np.int8), scale=0.5, zero_point=-3)
    array([0., 1.], dtype=float32)
    """
    import numpy as np

    centred = np.asarray(integers, np.int32) - np.int32(zero_point)
    return centred.astype(np.float32) * np.float32(scale)


def to_stored(values: Array, spec: TensorSpec) -> Array:
    """The program's values as a file takes them: in its axis order, and on its grid where it has one.

    >>> import numpy as np
    >>> picture = TensorSpec(name="picture", shape=(1, 4, 5, 3), dtype="float32", is_channels_last=True)
    >>> to_stored(np.zeros((1, 3, 4, 5), np.float32), picture).shape
    (1, 4, 5, 3)
    """
    import numpy as np

    if spec.is_channels_last:
        values = np.ascontiguousarray(values.transpose(0, 2, 3, 1))
    if spec.scale is None or values.dtype.kind != "f":
        return values
    ends = np.iinfo(spec.dtype)
    minimum, maximum = int(ends.min), int(ends.max)
    return quantize(values, scale=spec.scale, zero_point=spec.zero_point or 0, minimum=minimum, maximum=maximum, dtype=spec.dtype)


def from_stored(values: Array, spec: TensorSpec) -> Array:
    """What a file returned, as the program returns it: real values in its axis order.

    >>> import numpy as np
    >>> spec = TensorSpec(name="score", shape=(2,), dtype="int8", scale=0.5, zero_point=1)
    >>> from_stored(np.array([1, 3], np.int8), spec)
    array([0., 1.], dtype=float32)
    """
    if spec.is_channels_last:
        values = values.transpose(0, 3, 1, 2)
    return values if spec.scale is None else dequantize(values, scale=spec.scale, zero_point=spec.zero_point or 0)


def check_inputs(inputs: Arrays, specs: tuple[TensorSpec, ...]) -> None:
    """Refuse inputs whose names, shapes or dtypes are not those of ``specs``.

    Raises:
        DataError: Names what was found and what the model expects.
    """
    known = [spec.name for spec in specs]
    for name in inputs:
        if name not in known:
            raise DataError(f"The model has no input '{name}'; its inputs are {known}.{nearest(name, known)}")
    for spec in specs:
        if spec.name not in inputs:
            raise DataError(f"Input '{spec.name}' is missing; the model expects {known}, got {list(inputs)}.")
        array = inputs[spec.name]
        if not spec.fits(tuple(array.shape)) or str(array.dtype) != spec.dtype:
            raise DataError(
                f"Input '{spec.name}' is {array.dtype} {list(array.shape)}, but the model expects {spec.dtype} {spec.sizes}."
                f"{_axis_hint(spec, tuple(array.shape))}"
            )


def check_numbers(inputs: Arrays) -> None:
    """Refuse inputs that hold NaN: what a model answers to them means nothing.

    Raises:
        DataError: Names the input and how many of its values are NaN.
    """
    import numpy as np

    for name, array in inputs.items():
        if array.dtype.kind == "f" and (count := int(np.count_nonzero(np.isnan(array)))):
            raise DataError(
                f"Input '{name}' holds {count} NaN among {array.size} values. Find out where they come from; if the model is"
                " meant to take them, load it with allow_nan=True."
            )


def _axis_hint(spec: TensorSpec, shape: tuple[int, ...]) -> str:
    """What to do with an array whose axes are there in another order, or whose batch axis is missing.

    >>> print(_axis_hint(TensorSpec(name="x", shape=(1, 3, 8, 9), dtype="float32"), (1, 8, 9, 3)).strip())
    Its channels are last where the model has them second: give x.transpose(0, 3, 1, 2).
    """
    last = tuple(range(len(shape)))
    if len(shape) >= 3:
        forward, back = (0, last[-1], *last[1:-1]), (0, *last[2:], 1)
        for order, words in ((forward, "last where the model has them second"), (back, "second where the model has them last")):
            if spec.fits(tuple(shape[axis] for axis in order)):
                return f" Its channels are {words}: give {spec.name}.transpose({', '.join(map(str, order))})."
    if spec.fits((1, *shape)):
        return f" It lacks the batch axis: give {spec.name}[None]."
    return ""
