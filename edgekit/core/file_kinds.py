"""What a model file is, by its first bytes (for zip archives: by the names of what they hold), whatever it is called."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["FileKind", "is_whole_zip", "kind_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileKind:
    """A kind of model file.

    Args:
        name: Short name, ``"torchscript"``.
        title: In words, with an article: ``"a TorchScript program"``.
        suffixes: What such files are usually called.
        advice: What to do with it, where edgekit does not read it as a model.
    """

    name: str
    title: str
    suffixes: tuple[str, ...] = ()
    advice: str = ""


_CHECKPOINTS = (".pt", ".pth", ".bin", ".ckpt", ".th")

PT2 = FileKind(name="pt2", title="a program of torch.export", suffixes=(".pt2",))
TORCHSCRIPT = FileKind(name="torchscript", title="a TorchScript program", suffixes=(".pt", ".pth", ".ts", ".torchscript", ".jit"))
CHECKPOINT = FileKind(name="torch-checkpoint", title="a checkpoint of torch.save", suffixes=_CHECKPOINTS)
SAFETENSORS = FileKind(name="safetensors", title="weights in the safetensors format", suffixes=(".safetensors",))
KERAS = FileKind(name="keras", title="a Keras 3 model", suffixes=(".keras",))
SAVED_MODEL = FileKind(name="saved-model", title="a TensorFlow SavedModel")
HDF5 = FileKind(
    name="hdf5",
    title="an HDF5 file, as Keras 2 wrote models",
    suffixes=(".h5", ".hdf5"),
    advice="Load it with keras.models.load_model(...) and save it again as model.keras.",
)
TFLITE = FileKind(
    name="tflite",
    title="a TensorFlow Lite model",
    suffixes=(".tflite",),
    advice="It is a finished artifact: edgekit inspects and runs it, but makes nothing else of it, since what was fused and"
    " rounded cannot be undone. Export the model it was made from (.pt2, .onnx, .keras or a SavedModel).",
)
ORT = FileKind(
    name="ort",
    title="an ONNX Runtime .ort model",
    suffixes=(".ort",),
    advice="It was optimized for ONNX Runtime alone. Export the .onnx file it was made from.",
)
CORE_ML = FileKind(
    name="coreml",
    title="a Core ML package",
    suffixes=(".mlpackage", ".mlmodel", ".mlmodelc"),
    advice="It is a finished artifact: edgekit inspects and runs it, but makes nothing else of it. Export the model it was made"
    " from (.pt2, .onnx, .keras or a SavedModel).",
)
GGUF = FileKind(name="gguf", title="a GGUF file", advice="Export the checkpoint it was made from.")
PICKLE = FileKind(
    name="pickle",
    title="a bare pickle",
    advice="Reading a pickle runs whatever its author put into it. Save the weights with torch.save(model.state_dict(), ...)"
    " or safetensors, or the program with torch.export.save.",
)
PARTIAL = FileKind(
    name="frozen-graph",
    title="a TensorFlow graph without its folder",
    suffixes=(".pb",),
    advice="Give the SavedModel's folder, which holds saved_model.pb and variables/.",
)
ZIP = FileKind(name="zip", title="a zip archive of no known kind")

_MAGIC: tuple[tuple[int, bytes, FileKind], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", HDF5),
    (4, b"TFL3", TFLITE),
    (4, b"ORTM", ORT),
    (0, b"GGUF", GGUF),
)


def kind_of(path: Path) -> FileKind | None:
    """What a file or folder is; None where its first bytes do not say (ONNX has no mark).

    Raises:
        OSError: It cannot be read.
    """
    if path.is_dir():
        return _kind_of_folder(path)
    with path.open("rb") as stream:
        head = stream.read(64)
    for offset, mark, kind in _MAGIC:
        if head[offset : offset + len(mark)] == mark:
            return kind
    if head[:4] == b"PK\x03\x04":
        return _kind_of_zip(path)
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 30:
        return SAFETENSORS
    if path.name == "saved_model.pb" or path.suffix == ".pb":
        return PARTIAL
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return CHECKPOINT if path.suffix in _CHECKPOINTS else PICKLE  # torch.save wrote bare pickles before 1.6
    return None


def _kind_of_folder(path: Path) -> FileKind | None:
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        return SAVED_MODEL
    if (path / "Manifest.json").is_file() or path.suffix in CORE_ML.suffixes:
        return CORE_ML
    return None


def is_whole_zip(path: Path) -> bool:
    """Whether a zip archive ends where its own directory does; one that was cut off may end in an archive it holds."""
    with path.open("rb") as stream:
        stream.seek(-min(22, path.stat().st_size), os.SEEK_END)
        return stream.read(4) == b"PK\x05\x06"


def _kind_of_zip(path: Path) -> FileKind:
    if not is_whole_zip(path):
        return _by_suffix(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, UnicodeDecodeError):
        return _by_suffix(path)
    return _kind_of_members(names) or _by_suffix(path)


def _kind_of_members(names: Sequence[str]) -> FileKind | None:
    inner = {name.partition("/")[2] for name in names}
    if "config.json" in names and "metadata.json" in names:
        return KERAS
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        return PT2
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return TORCHSCRIPT
    return CHECKPOINT if "data.pkl" in inner else None


def _by_suffix(path: Path) -> FileKind:
    """A damaged archive counts as what it is called, so that its reader says what is wrong with it."""
    return next((kind for kind in (PT2, TORCHSCRIPT, KERAS) if path.suffix in kind.suffixes), ZIP)
