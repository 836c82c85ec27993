"""What the weights and activations of a layer become, and its written form."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import pydantic

from edgekit.core.errors import EdgekitError, RecipeError, nearest
from edgekit.core.model import Record

__all__ = ["ActivationType", "LayerPrecision", "Precision", "WeightType"]

WeightType = Literal["int8", "int4", "float16", "float32"]
ActivationType = Literal["int8", "int16", "dynamic-int8", "float32"]


class Precision(Record):
    """What one layer's weights and activations become.

    ============= ============== =========== =================================================================
    weights       activations    written as  meaning
    ============= ============== =========== =================================================================
    int8          int8           int8        integer kernels, scales known beforehand
    int4          int8           w4a8        the same with 4-bit weights
    int8          int16          w8a16       the same with symmetric 16-bit activations
    int8          dynamic-int8   dynamic-int8  integer kernels, the input's scale taken from each input
    int8          float32        w8          weight-only: float kernels over decoded weights
    int4          float32        w4, w4-g32  weight-only; g32: one scale for 32 weights along the input axis
    float16       float32        fp16        weights stored as float16
    float32       float32        float32     untouched
    ============= ============== =========== =================================================================

    Args:
        weights: Stored type of the weights.
        activations: Type of the layer's input and output.
        block_size: Weights along the input axis that share one scale; None: one scale per output channel.
    """

    error: ClassVar[type[EdgekitError]] = RecipeError

    weights: WeightType = "int8"
    activations: ActivationType = "int8"
    block_size: int | None = pydantic.Field(default=None, ge=2)

    @pydantic.model_validator(mode="after")
    def _check_combination(self) -> Self:
        integer_weights = self.weights in {"int8", "int4"}
        if not integer_weights and self.activations != "float32":
            msg = f"{self.activations} activations need integer weights, found {self.weights}"
            raise ValueError(msg)
        if self.weights == "int4" and self.activations in {"int16", "dynamic-int8"}:
            msg = f"no target has a kernel for int4 weights with {self.activations} activations"
            raise ValueError(msg)
        if self.block_size is not None and (not integer_weights or self.activations != "float32"):
            msg = f"block_size is for weight-only recipes (activations float32), found {self.weights} and {self.activations}"
            raise ValueError(msg)
        return self

    @property
    def word(self) -> str:
        """The written form of this precision."""
        stem = next((word for word, known in _PRECISIONS.items() if known == self.replace(block_size=None)), "quantize")
        return stem if self.block_size is None else f"{stem}-g{self.block_size}"

    @classmethod
    def from_word(cls, word: str) -> Precision | None:
        """Read a written form.

        >>> Precision.from_word("w4-g32").block_size
        32
        """
        stem, dash, size = word.partition("-g")
        if dash and size.isdecimal() and stem in {"w4", "w8"}:
            return _PRECISIONS[stem].replace(block_size=int(size))
        return _PRECISIONS.get(word)


_PRECISIONS: dict[str, Precision] = {
    "int8": Precision(),
    "w4a8": Precision(weights="int4"),
    "w8a16": Precision(activations="int16"),
    "dynamic-int8": Precision(activations="dynamic-int8"),
    "w8": Precision(activations="float32"),
    "w4": Precision(weights="int4", activations="float32"),
    "fp16": Precision(weights="float16", activations="float32"),
    "float32": Precision(weights="float32", activations="float32"),
}


class LayerPrecision(Record):
    """Another precision for some layers (mixed precision).

    Args:
        layers: Module path or shell pattern (``"head.*"``).
        precision: Its written form: ``"w4a8"``, ``"w8a16"``, ``"w8"``, ``"fp16"``, ``"float32"`` ...
    """

    error: ClassVar[type[EdgekitError]] = RecipeError

    layers: str
    precision: str

    @pydantic.field_validator("precision")
    @classmethod
    def _check_word(cls, word: str) -> str:
        if Precision.from_word(word) is None:
            msg = f"unknown precision {word!r}; known: {', '.join(_PRECISIONS)}.{nearest(word, _PRECISIONS)}"
            raise ValueError(msg)
        return word
