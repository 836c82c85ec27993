"""What every link to a device promises: an SSH server on loopback, adb's client to a labelled test daemon, the shell's double."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edgekit.core.device_link import Link
from edgekit.core.errors import DeviceError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.remote.facts import device_facts
from edgekit.device_tests.testing import ShellLink
from edgekit.device_tests.transports.adb import AdbLink
from edgekit.device_tests.transports.ssh import SshLink
from tests.device_tests.adb_daemon.device import AdbServer, TestDevice, missing
from tests.device_tests.remote.ssh_server import MISSING, SshServer, is_installed, start_sshd

DATA = bytes(range(256)) * 1200 + b"the end"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if not is_installed():
        pytest.skip(MISSING)
    made = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield made
    made.stop()


@contextmanager
def adb_link(folder: Path, *, is_old: bool) -> Iterator[AdbLink]:
    """A link to the test daemon, speaking as a phone of today or as one before Android 7."""
    if reason := missing():
        pytest.skip(reason)
    server, device = AdbServer(folder), TestDevice(folder / "daemon", is_old=is_old)
    try:
        connection = {"serial": device.serial, "server_port": server.port, "folder": "/data/local/tmp/not there yet"}
        yield AdbLink(DeviceProfile(name="daemon", title="A test daemon", transport="adb", connection=connection, runtimes={}))
    finally:
        device.stop()
        server.stop()


@pytest.fixture(scope="module", params=["shell", "ssh", "adb", "adb before Android 7"])
def link(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Link]:
    folder = tmp_path_factory.mktemp("device") / "not there yet"
    made: Link
    with ExitStack() as stack:
        if request.param == "shell":
            made = ShellLink(folder)
        elif request.param == "ssh":
            made = SshLink(request.getfixturevalue("server").profile(folder=folder))
        else:
            made = stack.enter_context(adb_link(folder.parent, is_old="before" in request.param))
        made.connect()
        yield made
        made.close()


def test_a_link_is_one(link: Link) -> None:
    assert isinstance(link, Link)


def test_commands_run_in_the_folder_and_say_how_they_ended(link: Link) -> None:
    finished = link.run("pwd; cat; echo 'it''s wrong' >&2; exit 7", timeout_s=10, given=b"given \xc3\xa9")
    assert finished.code == 7
    assert finished.output.endswith("/not there yet\ngiven é")
    assert finished.errors.strip() == "its wrong"


def test_a_command_may_leave_what_it_is_given(link: Link) -> None:
    assert link.run("echo done", timeout_s=10, given=bytes(2**17)).output == "done\n"


def test_a_command_that_takes_too_long_loses_the_link(link: Link) -> None:
    with pytest.raises(DeviceError):
        link.run("sleep 5", timeout_s=0.3)
    link.connect()
    assert link.run("echo again", timeout_s=10).output == "again\n"


def test_files_travel_there_and_back(link: Link, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for data in (b"", b"x", DATA):
        source.write_bytes(data)
        target.write_bytes(b"stale and longer" * 40_000)
        link.push(source, "a folder/it's one")
        link.pull("a folder/it's one", target)
        assert target.read_bytes() == data


@pytest.mark.parametrize("offset", [1, 2**16, 2**16 + 1, 200_003, len(DATA)])
def test_files_are_resumed_from_an_offset(link: Link, tmp_path: Path, offset: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA)
    link.run(f"rm -f resumed; head -c {offset} /dev/zero >resumed", timeout_s=10)
    link.push(source, "resumed", offset=offset)
    target.write_bytes(b"\1" * offset)
    link.pull("resumed", target, offset=offset)
    assert target.read_bytes() == b"\1" * offset + DATA[offset:], "what was there is kept"
    link.pull("resumed", target)
    assert target.read_bytes() == bytes(offset) + DATA[offset:], "there, too"


def test_a_file_that_is_not_there_is_an_error(link: Link, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        link.pull("nowhere", tmp_path / "target")


def test_a_place_that_cannot_be_written_is_an_error(link: Link, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    link.run("mkdir -p taken", timeout_s=10)
    with pytest.raises(DeviceError, match=r"irectory"):
        link.push(tmp_path / "source", "taken")


def test_several_threads_may_use_it(link: Link, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA * 10)
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(link.push, tmp_path / "source", "big")
        said = [pool.submit(link.run, f"echo {number}", timeout_s=20) for number in range(4)]
        assert [one.result().output for one in said] == ["0\n", "1\n", "2\n", "3\n"]
        sent.result()
    assert link.run("wc -c <big", timeout_s=10).output.strip() == str(len(DATA) * 10)


def test_the_device_says_what_it_is(link: Link) -> None:
    facts = device_facts(link)
    assert {
        "processor",
        "architecture",
        "cores",
        "memory",
        "system",
        "system version",
        "load average",
        "free disk",
    } <= facts.keys()


def test_a_closed_link_can_be_connected_again(link: Link) -> None:
    link.close()
    link.close()
    with pytest.raises(DeviceError):
        link.run("echo", timeout_s=5)
    link.connect()
    assert link.run("echo here", timeout_s=10).output == "here\n"
