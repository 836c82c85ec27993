"""Which class colours what: the colours themselves stand in ``report.css``."""

from __future__ import annotations

__all__ = ["colour"]

_TARGETS = {"onnx": "hue-1", "tflite": "hue-2", "coreml": "hue-3", "torch": "hue-0"}
_MORE = 3


def colour(target: str) -> str:
    """The class of a target: the same in every figure, table and run.

    >>> colour("onnx"), colour("a-plug-in")
    ('hue-1', 'hue-6')
    """
    return _TARGETS.get(target) or f"hue-{4 + sum(target.encode()) % _MORE}"
