"""All kernels: importing this module registers every family."""

from __future__ import annotations

from edgekit.runtimes.coreml.ops import (
    activation,
    attention,
    constexpr,
    convolution,
    creation,
    elementwise,
    image,
    indexing,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    sampling,
    shape,
)
from edgekit.runtimes.coreml.ops.table import builder, supported

__all__ = [
    "activation", "attention", "builder", "constexpr", "convolution", "creation", "elementwise", "image", "indexing",
    "linear", "normalization", "pooling", "quantization", "recurrent", "reduction", "sampling", "shape", "supported",
]  # fmt: skip
