"""TFLite Model Metadata: what a ``.tflite`` file tells the standard tools about its inputs and labels.

A flatbuffer of its own (``metadata_schema.fbs`` of github.com/tensorflow/tflite-support, version 1.1.0) in the metadata entry
``TFLITE_METADATA``, and files the metadata name in a zip behind the model. Written and read here by hand, since the
schema's own package cannot be installed beside current versions of anything::

    ModelMetadata ── SubGraphMetadata ─┬─ inputs:  TensorMetadata ─┬─ Content ── ImageProperties (colour space, size)
                                       │                           └─ ProcessUnit ── NormalizationOptions (mean, std)
                                       └─ outputs: TensorMetadata ── AssociatedFile labels.txt (TENSOR_AXIS_LABELS)
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.core.errors import IntegrityError
from edgekit.core.pictures import ImagePreprocessing
from edgekit.core.raw_data import Preprocessing

if TYPE_CHECKING:
    from edgekit.core.tensors import TensorSpec

__all__ = [
    "COLOUR_SPACES",
    "ENTRY",
    "LABELS_FILE",
    "StoredInput",
    "StoredMetadata",
    "read_metadata",
    "with_files",
    "write_metadata",
]

ENTRY = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # nothing written here is newer
_FEATURE, _IMAGE = 1, 2  # union ContentProperties
_NORMALIZATION = 1  # union ProcessUnitOptions
_AXIS_LABELS = 2  # enum AssociatedFileType
COLOUR_SPACES = {"rgb": 1, "grey": 2, "bgr": 0}  # enum ColorSpaceType: it knows RGB and GRAYSCALE only


@dataclasses.dataclass(frozen=True)
class StoredInput:
    """What the metadata say of one input.

    Args:
        name: The input's name.
        colour_space: 1 RGB, 2 grey, 0 unknown; None where it is no image.
        size: Height and width; None where it is no image.
        mean: Taken away from raw values; empty where nothing is said.
        std: What the difference is divided by.
    """

    name: str
    colour_space: int | None
    size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class StoredMetadata:
    """What the metadata say of a file.

    Args:
        inputs: In the file's order.
        label_files: Output name -> file of its axis labels.
        files: Files packed behind the model.
    """

    inputs: tuple[StoredInput, ...]
    label_files: Mapping[str, str]
    files: Mapping[str, bytes]

    def labels(self) -> tuple[str, ...]:
        """Class names of the first labelled output."""
        for name in self.label_files.values():
            return tuple(self.files.get(name, b"").decode("utf-8", "replace").split("\n"))
        return ()


def write_metadata(
    name: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    records: Mapping[str, Preprocessing],
    label_count: int,
) -> bytes:
    """The metadata flatbuffer.

    Args:
        name: The model's name.
        inputs: In the order of the file's subgraph.
        outputs: Likewise; one whose last axis has ``label_count`` entries gets the label file.
        records: Input name -> what is left to do before it.
        label_count: Number of class names; 0 for none.
    """
    builder = importlib.import_module("flatbuffers").Builder(1024)
    tables = _Tables(builder)
    front = [_input(tables, spec, records.get(spec.name)) for spec in inputs]
    back = [_output(tables, spec, has_labels=bool(label_count) and spec.shape[-1:] == (label_count,)) for spec in outputs]
    graph = tables.table(7, {2: tables.vector(front), 3: tables.vector(back)})
    root = tables.table(8, {0: tables.text(name), 3: tables.vector([graph]), 7: tables.text(_PARSER_VERSION)})
    builder.Finish(root, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def with_files(model: bytes, files: Mapping[str, str]) -> bytes:
    """A model with files in a zip behind it, as the metadata's readers expect; the same files give the same bytes."""
    if not files:
        return model
    stream = io.BytesIO(model)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # dated 1980: no clock gets into the file
    return stream.getvalue()


def read_metadata(metadata: bytes, model: bytes) -> StoredMetadata:
    """What a file's metadata say.

    Args:
        metadata: The entry ``TFLITE_METADATA``.
        model: The whole file, with what is packed behind it.

    Raises:
        IntegrityError: They are no metadata flatbuffer.
    """
    if metadata[4:8] != _IDENTIFIER:
        raise IntegrityError(f"The entry {ENTRY} is damaged: its identifier is {metadata[4:8]!r}, expected {_IDENTIFIER!r}.")
    try:
        root = _View.root(metadata)
        graph = root.tables(3)[0]
        labelled = {
            output.text(0): file.text(0)
            for output in graph.tables(3)
            for file in output.tables(6)
            if file.byte(2) == _AXIS_LABELS
        }
        inputs = tuple(_read_input(view) for view in graph.tables(2))
    except Exception as reason:  # offsets that point anywhere break the reader anywhere
        raise IntegrityError(f"The entry {ENTRY} is damaged ({type(reason).__name__}: {reason}).") from reason
    return StoredMetadata(inputs=inputs, label_files=labelled, files=_files(model))


def _files(model: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile:
        return {}


def _input(tables: _Tables, spec: TensorSpec, record: Preprocessing | None) -> int:
    if record is None:
        return tables.table(7, {0: tables.text(spec.name)})
    if isinstance(record, ImagePreprocessing):
        size = tables.table(2, numbers={0: record.size[1], 1: record.size[0]})
        properties = tables.table(2, {1: size}, bytes_={0: COLOUR_SPACES[record.colour]})
        content = tables.table(3, {1: properties}, bytes_={0: _IMAGE})
        what = f"{record.colour} picture, {record.layout}; {record.resize} resize to {record.size[0]} x {record.size[1]}"
    else:
        content = tables.table(3, {1: tables.table(0, {})}, bytes_={0: _FEATURE})
        what = ", ".join(f"{key} {value}" for key, value in record if key in {"sample_rate", "window", "channels"})
    options = tables.table(
        2,
        {
            0: tables.floats([mean / record.scale for mean in record.mean]),
            1: tables.floats([std / record.scale for std in record.std]),
        },
    )
    unit = tables.table(2, {1: options}, bytes_={0: _NORMALIZATION})
    slots = {0: tables.text(spec.name), 1: tables.text(what), 3: content, 4: tables.vector([unit])}
    return tables.table(7, slots)


def _output(tables: _Tables, spec: TensorSpec, *, has_labels: bool) -> int:
    slots = {0: tables.text(spec.name)}
    if has_labels:
        slots[6] = tables.vector([tables.table(5, {0: tables.text(LABELS_FILE)}, bytes_={2: _AXIS_LABELS})])
    return tables.table(7, slots)


def _read_input(view: _View) -> StoredInput:
    content, units = view.table(3), view.tables(4)
    image = content.table(1) if content is not None and content.byte(0) == _IMAGE else None
    size = image.table(1) if image is not None else None
    options = [unit.table(1) for unit in units if unit.byte(0) == _NORMALIZATION]
    mean, std = (options[0].floats(0), options[0].floats(1)) if options and options[0] is not None else ((), ())
    return StoredInput(
        name=view.text(0),
        colour_space=image.byte(0) if image is not None else None,
        size=(size.number(1), size.number(0)) if size is not None else None,
        mean=mean,
        std=std,
    )


class _Tables:
    """Writes tables of the schema by slot number."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def table(
        self,
        slot_count: int,
        offsets: Mapping[int, int] | None = None,
        *,
        bytes_: Mapping[int, int] | None = None,
        numbers: Mapping[int, int] | None = None,
    ) -> int:
        """A table of offsets, bytes and unsigned numbers by slot."""
        self.builder.StartObject(slot_count)
        for slot, offset in (offsets or {}).items():
            self.builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, number in (numbers or {}).items():
            self.builder.PrependUint32Slot(slot, number, 0)
        for slot, number in (bytes_ or {}).items():
            self.builder.PrependUint8Slot(slot, number, 0)
        return int(self.builder.EndObject())

    def text(self, value: str) -> int:
        return int(self.builder.CreateString(value))

    def vector(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def floats(self, values: Sequence[float]) -> int:
        self.builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self.builder.PrependFloat32(value)
        return int(self.builder.EndVector())


class _View:
    """Reads a table of the schema by slot number."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._types = importlib.import_module("flatbuffers.number_types")

    @classmethod
    def root(cls, data: bytes) -> _View:
        tables = importlib.import_module("flatbuffers.table")
        return cls(tables.Table(data, int.from_bytes(data[:4], "little")))

    def _place(self, slot: int) -> int:
        return int(self._table.Offset(4 + 2 * slot))

    def _at(self, position: int) -> _View:
        return _View(type(self._table)(self._table.Bytes, position))

    def table(self, slot: int) -> _View | None:
        place = self._place(slot)
        return self._at(self._table.Indirect(place + self._table.Pos)) if place else None

    def tables(self, slot: int) -> list[_View]:
        place = self._place(slot)
        if not place:
            return []
        start = self._table.Vector(place)
        return [self._at(self._table.Indirect(start + 4 * index)) for index in range(self._table.VectorLen(place))]

    def text(self, slot: int) -> str:
        place = self._place(slot)
        return bytes(self._table.String(place + self._table.Pos)).decode() if place else ""

    def byte(self, slot: int) -> int:
        place = self._place(slot)
        return int(self._table.Get(self._types.Uint8Flags, place + self._table.Pos)) if place else 0

    def number(self, slot: int) -> int:
        place = self._place(slot)
        return int(self._table.Get(self._types.Uint32Flags, place + self._table.Pos)) if place else 0

    def floats(self, slot: int) -> tuple[float, ...]:
        place = self._place(slot)
        if not place:
            return ()
        start, kind = self._table.Vector(place), self._types.Float32Flags
        return tuple(float(self._table.Get(kind, start + 4 * index)) for index in range(self._table.VectorLen(place)))
