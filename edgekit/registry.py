"""Name -> part, through entry points. Nothing is imported before it is used.

Built-in parts are declared in edgekit's own ``pyproject.toml``; a plug-in declares the same groups in its own.
"""

from __future__ import annotations

from typing import cast

from edgekit.core.entry_points import load, missing_module, names, require
from edgekit.core.listing import Inspector
from edgekit.core.plugins import Converter, Runtime, Source, StepRunner, Transport

__all__ = [
    "converter",
    "inspectors",
    "missing_module",
    "names",
    "require",
    "runtime",
    "sources",
    "step_runners",
    "targets",
    "transport",
]


def converter(name: str) -> Converter:
    """The converter for a target, e.g. ``"onnx"``."""
    return cast("Converter", load("converters", name))


def targets() -> tuple[str, ...]:
    """Converters for devices at the edge; those of general serving (``kind = "serving"``) are not among them."""
    return tuple(name for name in names("converters") if getattr(converter(name), "kind", "edge") == "edge")


def runtime(name: str) -> Runtime:
    """The runtime called ``name``, e.g. ``"onnxruntime"``."""
    return cast("Runtime", load("runtimes", name))


def transport(name: str) -> type[Transport]:
    """The transport class called ``name``, e.g. ``"local"``."""
    return cast("type[Transport]", load("transports", name))


def inspectors() -> dict[str, Inspector]:
    """All inspectors of model files by name, in the order in which they are asked whether they recognise a file."""
    return {name: cast("Inspector", load("inspectors", name)) for name in names("inspectors")}


def sources() -> dict[str, Source]:
    """All sources of models by name, in the order in which they are asked whether they recognise a file."""
    return {name: cast("Source", load("sources", name)) for name in names("sources")}


def step_runners() -> dict[str, StepRunner]:
    """All step runners by kind."""
    return {name: cast("StepRunner", load("steps", name)) for name in names("steps")}
