"""An ONNX file read once and judged: whole, valid, and with nothing outside its own folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import IntegrityError, UnsupportedOpError

if TYPE_CHECKING:
    import onnx

__all__ = ["OLDEST_OPSET", "read_model"]

OLDEST_OPSET = 7
"""Before it, broadcasting was an attribute."""

_LARGEST_BYTES = 2**31 - 1  # protobuf's own limit


def read_model(path: Path) -> onnx.ModelProto:
    """The model, its external data brought in.

    Raises:
        IntegrityError: The file is damaged or no ONNX file, or its data lie outside its folder.
        UnsupportedOpError: It is written for an opset that is too old or too new.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise IntegrityError(
            f"{path} has {size} bytes, and an ONNX file has at most {_LARGEST_BYTES}: keep its weights in external data."
        )
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError) as reason:
        raise IntegrityError(
            f"{path} is not an ONNX file, or was cut short: {size} bytes that do not parse. Copy it again."
        ) from reason
    if not data or (not model.graph.node and not model.graph.output):
        raise IntegrityError(f"{path} holds no ONNX graph ({size} bytes). Copy or export it again.")
    _check_opset(model, path)
    _bring_in_external(model, path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as reason:
        first = next((line for line in str(reason).splitlines() if line.strip()), "")
        raise _judged(first, path) from reason
    return model


def _judged(message: str, path: Path) -> Exception:
    if "No Op registered" in message or "No opset import" in message:
        return UnsupportedOpError(f"{path}: {message} Export it with an opset this version of onnx knows.")
    return IntegrityError(f"{path} is not valid ONNX. The checker says: {message} Export it again.")


def _check_opset(model: onnx.ModelProto, path: Path) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    opset = max((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), default=OLDEST_OPSET)
    if not OLDEST_OPSET <= opset <= newest:
        raise UnsupportedOpError(
            f"{path} is written for opset {opset}; edgekit reads {OLDEST_OPSET} to {newest}. Export it again, or bring it there"
            " with onnx.version_converter."
        )


def _bring_in_external(model: onnx.ModelProto, path: Path) -> None:
    """Put the bytes of external tensors into the model.

    Raises:
        IntegrityError: A place is outside the model's folder, a link, or too short.
    """
    from onnx import TensorProto

    for tensor in _tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        where = _confined(path, place.get("location", ""), tensor.name)
        try:
            offset, length = int(place.get("offset", 0)), int(place.get("length", -1))
        except ValueError as reason:
            raise IntegrityError(f"{path}: the place of tensor '{tensor.name}' is no number: {place}.") from reason
        with where.open("rb") as stream:
            stream.seek(max(0, offset))
            data = stream.read(length if length >= 0 else -1)
        if offset < 0 or (length >= 0 and len(data) != length):
            raise IntegrityError(
                f"{path}: tensor '{tensor.name}' is said to be {length} bytes at {offset} of '{where.name}', which has"
                f" {where.stat().st_size}. Copy the file again, with its data."
            )
        tensor.raw_data = data
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _confined(path: Path, location: str, tensor: str) -> Path:
    """The data file, if it is an ordinary file below the model's folder, reached through no link."""
    where = path.parent / location
    outside = not location or Path(location).is_absolute() or ".." in Path(location).parts
    if outside:
        raise IntegrityError(
            f"{path}: tensor '{tensor}' takes its numbers from '{location}', outside the model's own folder:"
            " such a file is refused."
        )
    steps = [path.parent.joinpath(*Path(location).parts[: count + 1]) for count in range(len(Path(location).parts))]
    if any(step.is_symlink() for step in steps):
        raise IntegrityError(f"{path}: the data file '{location}' is reached through a link. Put the file itself there.")
    try:
        found: os.stat_result = where.stat()
    except OSError as reason:
        raise IntegrityError(f"{path}: its data file '{location}' is missing. Copy it beside the model.") from reason
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise IntegrityError(f"{path}: the data file '{location}' is a link or no ordinary file. Put a copy of the file there.")
    return where


def _tensors(graph: onnx.GraphProto) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _tensors(inner)
