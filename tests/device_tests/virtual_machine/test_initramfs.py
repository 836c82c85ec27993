from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from edgekit.core.errors import IntegrityError
from edgekit.device_tests.virtual_machine.initramfs import archive, module_files, write_initramfs


def module(folder: Path, name: str, depends: str) -> None:
    """What of a kernel module is read: a string of its ``.modinfo`` section."""
    (folder / f"{name}.ko").write_bytes(b"\x7fELF" + bytes(60) + f"license=GPL\0depends={depends}\0intree=Y\0".encode())


def entries(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Name -> mode and content, read as the kernel reads a cpio archive."""
    found, place = {}, 0
    while place < len(data):
        assert data[place : place + 6] == b"070701"
        fields = [int(data[place + 6 + 8 * index : place + 14 + 8 * index], 16) for index in range(13)]
        start = place + 110
        name = data[start : start + fields[11] - 1].decode()
        body = (start + fields[11] + 3) // 4 * 4
        found[name] = (fields[1], data[body : body + fields[6]])
        place = (body + fields[6] + 3) // 4 * 4
    return found


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "fs").mkdir()
    module(tmp_path / "fs", "ext4", "jbd2,mbcache,crc16")
    module(tmp_path / "fs", "jbd2", "")
    module(tmp_path, "mbcache", "")
    module(tmp_path, "virtio-net", "net_failover")
    module(tmp_path, "net_failover", "failover")
    module(tmp_path, "failover", "")
    found = [path.stem for path in module_files(tmp_path, ("virtio_net", "ext4", "virtio_pci"))]
    assert found == ["failover", "net_failover", "virtio-net", "jbd2", "mbcache", "ext4"]  # crc16 and virtio_pci are built in


def test_a_kernel_without_modules_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ext4.ko.xz").touch()
    with pytest.raises(IntegrityError, match="holds no kernel modules"):
        module_files(tmp_path, ("ext4",))


def test_the_archive_holds_files_and_their_folders() -> None:
    found = entries(archive({"init": b"#!/bin/sh\n", "bin/sh": b"abc", "a/b/c": b""}))
    assert found["init"] == (0o100755, b"#!/bin/sh\n")
    assert found["bin/sh"] == (0o100755, b"abc")
    assert found["bin"] == found["a/b"] == (0o040755, b"")
    assert list(found)[-1] == "TRAILER!!!"


def test_what_is_written_is_the_same_each_time(tmp_path: Path) -> None:
    module(tmp_path, "virtio_blk", "")
    (tmp_path / "busybox").write_bytes(b"\x7fELF")
    for name in ("one", "other"):
        write_initramfs(tmp_path / name, modules=tmp_path, shell=tmp_path / "busybox", init="#!/bin/sh\n")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    found = entries(gzip.decompress((tmp_path / "one").read_bytes()))
    assert found["modules/order"][1] == b"virtio_blk\n"
