"""Core ML's file format as message classes, without coremltools itself.

``import coremltools`` imports every framework it finds (seconds, and a gigabyte where TensorFlow is installed). Its
generated protocol buffer modules need only ``google.protobuf``: they are loaded here on their own, in milliseconds.
Loading coremltools before or after is harmless, since both register the very same descriptors.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from typing import Any

from edgekit.core.errors import MissingExtraError

__all__ = ["model_messages"]

_PACKAGE = "edgekit_coreml_messages"


@functools.cache
def model_messages() -> Any:
    """The generated module ``Model_pb2``, whose ``Model`` is the root message of every Core ML file.

    Raises:
        MissingExtraError: coremltools is not installed.
    """
    loaded = sys.modules.get("coremltools.proto.Model_pb2")
    if loaded is not None:
        return loaded
    found = importlib.util.find_spec("coremltools")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("coreml", module="coremltools")
    package = types.ModuleType(_PACKAGE)
    package.__path__ = [f"{folder}/proto" for folder in found.submodule_search_locations]
    sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.Model_pb2")
