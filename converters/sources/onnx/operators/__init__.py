"""ONNX operators in torch's words: one file per family, one function per operator.

A function takes a :class:`~edgekit.converters.sources.onnx.call.Call` and returns a tensor, or a tuple of them.
"""

from __future__ import annotations

import importlib

from edgekit.converters.sources.onnx.operators.table import Operator, find, known

__all__ = ["Operator", "find", "known", "load"]

_FAMILIES = (
    "activation", "attention", "convolution", "elementwise", "gather", "logic", "making", "matrix", "normalization", "padding",
    "picture", "pooling", "quantization", "recurrent", "reduction", "resize", "scatter", "shape", "signal", "sorting",
)  # fmt: skip


def load() -> None:
    """Make all operators known."""
    for family in _FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
