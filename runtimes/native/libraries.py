"""Where the runtimes' shared libraries lie, found without importing anything: they come with the Python packages."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from edgekit.core.errors import UsageError

__all__ = ["library_of", "version_of"]

_PLACES: Mapping[str, tuple[str, str, str]] = {
    "onnx": ("onnxruntime", "capi", "libonnxruntime.so*"),
    "tflite": ("ai_edge_litert", "", "libLiteRt.so"),
}
"""Target -> package, folder in it, and file name."""


def library_of(target: str) -> Path:
    """The library that runs a target's files.

    Args:
        target: ``"onnx"`` or ``"tflite"``.

    Raises:
        UsageError: The package is not installed, or ships no library.
    """
    package, folder, pattern = _PLACES[target]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UsageError(f"'{package}' is not installed, and no other library was named. Name one: option library=PATH.")
    place = Path(spec.origin).parent / folder
    found = sorted(path for path in place.glob(pattern) if path.is_file())
    if not found:
        raise UsageError(f"{place} holds no {pattern}. Install '{package}' again, or name a library: option library=PATH.")
    return found[0]


def version_of(target: str) -> str:
    """Version of the package that brings a target's library.

    Raises:
        PackageNotFoundError: It is not installed.
    """
    from importlib import metadata

    return metadata.version({"onnx": "onnxruntime", "tflite": "ai-edge-litert"}[target])
