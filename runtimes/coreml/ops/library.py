"""All kernels: importing this module registers every family."""

from __future__ import annotations

from edgekit.runtimes.coreml.ops import (
    activation,
    attention,
    constexpr,
    convolution,
    creation,
    detection,
    elementwise,
    image,
    indexing,
    linear,
    lists,
    normalization,
    pooling,
    quantization,
    quantized_convolution,
    random,
    recurrent,
    reduction,
    sampling,
    shape,
    sparse,
    state,
    windows,
)
from edgekit.runtimes.coreml.ops.table import builder, supported

__all__ = [
    "activation", "attention", "builder", "constexpr", "convolution", "creation", "detection", "elementwise", "image",
    "indexing", "linear", "lists", "normalization", "pooling", "quantization", "quantized_convolution", "random",
    "recurrent", "reduction", "sampling", "shape", "sparse", "state", "supported", "windows",
]  # fmt: skip
