"""The test daemon itself, by what the real adb client makes of it: what it announces it does, as a phone would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.device_tests.adb_daemon.device import MODEL, AdbServer, TestDevice


@pytest.fixture
def adb(adb_server: AdbServer, device: TestDevice) -> Callable[..., str]:
    """``adb("shell", "ls")``: what the client prints."""
    adb_server.run("connect", device.serial)
    return lambda *words: adb_server.run("-s", device.serial, *words)


def test_it_introduces_itself_as_what_it_is(adb: Callable[..., str], adb_server: AdbServer) -> None:
    adb("get-state")
    assert "model:edgekit_adb_test_daemon__no_Android_device_" in adb_server.run("devices", "-l")
    assert adb("shell", "getprop", "ro.product.model").strip() == MODEL
    assert adb("shell", "getprop").splitlines()[1] == f"[ro.product.model]: [{MODEL}]"
    assert adb("features").split() == ["shell_v2", "stat_v2", "fixed_push_mkdir"]


def test_files_and_folders_travel_by_its_sync_service(adb: Callable[..., str], tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "below/large").write_bytes(bytes(range(256)) * 2000)
    (source / "empty").touch()
    (source / "empty").chmod(0o755)
    assert "2 files pushed" in adb("push", str(source), "/data/local/tmp/sent")
    assert "2 files pulled" in adb("pull", "/data/local/tmp/sent", str(tmp_path / "back"))
    assert (tmp_path / "back/below/large").read_bytes() == (source / "below/large").read_bytes()
    assert (tmp_path / "back/empty").read_bytes() == b""
    listing = {line.split()[-1]: line.split()[0][-4:] for line in adb("ls", "/data/local/tmp/sent").splitlines()}
    assert listing.keys() >= {"below", "empty"}
    assert listing["empty"] == "81ed", "a file that all may execute"


def test_it_refuses_what_a_phone_refuses(adb: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Read-only file system" in adb("push", str(tmp_path / "file"), "/system/file")
    assert "No such file" in adb("pull", "/data/local/tmp/nothing", str(tmp_path / "x"))
    assert "closed" in adb("jdwp")


def test_its_file_system_is_not_this_machines(adb: Callable[..., str], tmp_path: Path) -> None:
    assert adb("shell", f"ls {tmp_path}").strip().endswith("No such file or directory")
    assert adb("shell", "id -u").strip() == "2000"
    assert {"bin", "data", "system"} <= set(adb("shell", "ls /").split())
    assert "home" not in adb("shell", "ls /")


def test_commands_say_their_exit_code_and_outlive_their_client(adb: Callable[..., str], device: TestDevice) -> None:
    assert adb("shell", "sh -c 'exit 7'; echo $?").strip() == "7"
    adb("shell", "sleep 900 >/dev/null 2>&1 </dev/null &")
    assert any("sleep 900" in words for words in device.ask()["processes"])
    device.reboot()
    assert device.ask()["processes"] == []
