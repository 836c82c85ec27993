"""What is loaded is what was hashed; links and devices are not read."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from edgekit.core.errors import IntegrityError, OutputError, UsageError
from edgekit.core.files import sha256
from edgekit.core.snapshot import take_snapshot


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "net.mlpackage"
    (folder / "Data" / "weights").mkdir(parents=True)
    (folder / "Manifest.json").write_text("{}")
    (folder / "Data" / "weights" / "weight.bin").write_bytes(bytes(3_000_000))
    (folder / "Data" / "model").write_bytes(b"model")
    return folder


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "room").mkdir()
    return tmp_path / "room"


def test_a_folder_is_copied_and_hashed_as_everywhere(package: Path, room: Path) -> None:
    copy = take_snapshot(package, room)
    assert copy.sha256 == sha256(package) == sha256(copy.path)
    assert copy.path == room / "net.mlpackage"


def test_a_file_that_changes_later_is_not_what_runs(tmp_path: Path, room: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(b"first")
    (tmp_path / "net.onnx.data").write_bytes(b"weights")
    copy = take_snapshot(file, room, companions=(".data",))
    expected = sha256(file)
    file.write_bytes(b"second")
    assert copy.path.read_bytes() == b"first"
    assert copy.sha256 == expected
    assert copy.files == {"net.onnx.data": sha256(room / "net.onnx.data")}


def test_a_link_the_user_names_is_followed(package: Path, tmp_path: Path, room: Path) -> None:
    (tmp_path / "link.mlpackage").symlink_to(package)
    assert take_snapshot(tmp_path / "link.mlpackage", room).sha256 == sha256(package)


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe"])
def test_what_is_no_plain_file_inside_is_refused(package: Path, tmp_path: Path, room: Path, kind: str) -> None:
    (tmp_path / "secret").mkdir()
    place = package / "Data" / "extra"
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(tmp_path / "secret" if kind == "folder link" else "/etc/passwd")
    with pytest.raises(IntegrityError, match="Data/extra"):
        take_snapshot(package, room)


def test_a_pipe_is_refused_at_once(tmp_path: Path, room: Path) -> None:
    os.mkfifo(tmp_path / "net.tflite")
    with pytest.raises(IntegrityError, match="no plain file"):
        take_snapshot(tmp_path / "net.tflite", room)


def test_a_linked_neighbour_is_left_out(tmp_path: Path, room: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"x")
    (tmp_path / "net.onnx.data").symlink_to("/etc/passwd")
    assert take_snapshot(tmp_path / "net.onnx", room, companions=(".data",)).files == {}
    assert [file.name for file in room.iterdir()] == ["net.onnx"]


def test_a_deep_folder_is_refused(tmp_path: Path, room: Path) -> None:
    (tmp_path / "deep" / "/".join("a" * 30)).mkdir(parents=True)
    with pytest.raises(IntegrityError, match="levels"):
        take_snapshot(tmp_path / "deep", room)


def test_what_is_missing_or_circular_is_said(tmp_path: Path, room: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        take_snapshot(tmp_path / "none.onnx", room)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises((IntegrityError, UsageError)):
        take_snapshot(tmp_path / "circle", room)


def test_a_full_disk_is_said(tmp_path: Path, room: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(bytes(3_000_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="disk is full"):
            take_snapshot(tmp_path / "net.tflite", room)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
