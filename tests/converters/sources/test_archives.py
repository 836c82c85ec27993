"""Archives and wrong names: what is refused before any framework sees it. No worker is needed to find out."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.converters.sources.archives import check_archive
from edgekit.core.errors import IntegrityError, UnsupportedOpError, UsageError
from edgekit.core.file_kinds import kind_of
from edgekit.intake import find_source


def link(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("net/data/0")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(member, "/etc/passwd")


def device(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("net/data/0")
    member.external_attr = (stat.S_IFCHR | 0o666) << 16
    archive.writestr(member, "")


def twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("net/data.pkl", "one")
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("net/data.pkl", "other")


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("net/data/0", bytes(80 * 2**20), zipfile.ZIP_DEFLATED)


HOSTILE: dict[str, tuple[Callable[[zipfile.ZipFile], object], str]] = {
    "link": (link, "is a link or a device"),
    "device": (device, "is a link or a device"),
    "absolute": (lambda archive: archive.writestr("/etc/cron.d/job", "x"), "leads out"),
    "up": (lambda archive: archive.writestr("net/../../job", "x"), "leads out"),
    "up, as Windows writes it": (lambda archive: archive.writestr("net\\..\\..\\job", "x"), "leads out"),
    "drive": (lambda archive: archive.writestr("C:/job", "x"), "leads out"),
    "twice": (twice, "holds 'net/data.pkl' 2 times"),
    "bomb": (bomb, r"unpacks to 84 MB: it is made to fill memory or disk"),
    "odd method": (lambda archive: archive.writestr("a", "x", zipfile.ZIP_LZMA), "compressed by method 14"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_not_opened(tmp_path: Path, name: str) -> None:
    make, words = HOSTILE[name]
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        make(archive)
    with pytest.raises(IntegrityError, match=words):
        check_archive(path)


def test_a_healthy_archive_lists_its_members(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data/0", bytes(1000))
        archive.writestr("net/version", "3", zipfile.ZIP_DEFLATED)
    assert check_archive(path) == ("net/data/0", "net/version")


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.99])
def test_archives_that_were_cut_off_are_damaged(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data/0", bytes(1000))
        archive.writestr("net/archive_format", "pt2")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(IntegrityError, match="is damaged"):
        check_archive(path)
    assert find_source(path).name == "pt2"  # the reader says what is wrong, in its worker


def archive_of(*names: str) -> bytes:
    import io

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    return held.getvalue()


KERAS = archive_of("config.json", "metadata.json", "model.weights.h5")
PT2 = archive_of("net/archive_format", "net/models/model.json")
SCRIPT = archive_of("net/constants.pkl", "net/code/__torch__.py", "net/data.pkl")
WEIGHTS = archive_of("net/data.pkl", "net/data/0")
TFLITE = b"\x1c\0\0\0TFL3" + bytes(64)
ORT = b"\x1c\0\0\0ORTM" + bytes(64)
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(64)
SAFETENSORS = (64).to_bytes(8, "little") + b'{"w":{}}' + bytes(64)

CASES: list[tuple[str, bytes, str, type[Exception], str]] = [
    ("tflite", TFLITE, "net.tflite", UnsupportedOpError, "a TensorFlow Lite model.*inspects and runs it"),
    ("ort", ORT, "net.ort", UnsupportedOpError, "Export the .onnx file"),
    ("hdf5", HDF5, "net.h5", UnsupportedOpError, "save it again as model.keras"),
    ("gguf", b"GGUF" + bytes(64), "net.gguf", UnsupportedOpError, "GGUF"),
    ("pickle", b"\x80\x04\x95" + bytes(64), "net.pkl", UnsupportedOpError, "Reading a pickle runs whatever"),
    ("tflite called onnx", TFLITE, "net.onnx", IntegrityError, r"a TensorFlow Lite model, which is usually called \*.tflite"),
    ("keras called pt2", KERAS, "net.pt2", IntegrityError, r"a Keras 3 model, which is usually called \*.keras"),
    ("pt2 called onnx", PT2, "net.onnx", IntegrityError, "a program of torch.export"),
    ("hdf5 called keras", HDF5, "net.keras", IntegrityError, "an HDF5 file"),
    ("TorchScript called pt2", SCRIPT, "net.pt2", IntegrityError, "a TorchScript program"),
    ("weights called keras", WEIGHTS, "net.keras", IntegrityError, "a checkpoint of torch.save"),
    ("some zip", archive_of("letter.txt"), "net.zip", IntegrityError, "a zip archive of no known kind"),
    ("text", b"hello, world, this is text", "net.txt", IntegrityError, "no model file edgekit can read"),
    ("frozen graph", b"\n\x05graph", "net.pb", UnsupportedOpError, "Give the SavedModel's folder"),
]


@pytest.mark.parametrize(("data", "name", "error", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_no_source_is_named(tmp_path: Path, data: bytes, name: str, error: type[Exception], words: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(error, match=words):
        find_source(path)


@pytest.mark.parametrize(
    ("data", "name", "source"),
    [
        (PT2, "net.pt2", "pt2"),
        (SCRIPT, "net.pt", "torchscript"),
        (SCRIPT, "net.ts", "torchscript"),
        (WEIGHTS, "net.pth", "checkpoint"),
        (b"\x80\x02\x8a" + bytes(64), "old.pth", "checkpoint"),
        (SAFETENSORS, "net.safetensors", "checkpoint"),
        (KERAS, "net.keras", "keras"),
        (b"\x08\x08\x12\x07pytorch" + bytes(64), "net.onnx", "onnx"),
    ],
)
def test_sources_are_found_by_name_and_content(tmp_path: Path, data: bytes, name: str, source: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert find_source(path).name == source


def test_folders_are_told_apart(tmp_path: Path) -> None:
    for name, inner in (("saved", "saved_model.pb"), ("net.mlpackage", "Manifest.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / inner).write_text("{}")
    assert find_source(tmp_path / "saved").name == "saved-model"
    with pytest.raises(UnsupportedOpError, match="a Core ML package"):
        find_source(tmp_path / "net.mlpackage")
    (tmp_path / "empty").mkdir()
    assert kind_of(tmp_path / "empty") is None
    with pytest.raises(IntegrityError, match="no model file"):
        find_source(tmp_path / "empty")
    with pytest.raises(UsageError, match="does not exist"):
        find_source(tmp_path / "nothing.onnx")
