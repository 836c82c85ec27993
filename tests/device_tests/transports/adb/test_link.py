"""The link over the real adb client, to the labelled test daemon (no Android device)."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from edgekit.core.device_link import Link
from edgekit.core.errors import DeviceError, ProfileError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.transports.adb import AdbLink
from edgekit.device_tests.transports.adb import link as link_module
from edgekit.device_tests.transports.adb.shells import OldShell, ShellV2
from tests.device_tests.adb_daemon.device import MODEL, AdbServer, TestDevice

Profiles = Callable[..., DeviceProfile]
BYTES = random.Random(0).randbytes(700_000)
"""Several payloads of the transport's largest, 256 KiB."""


@pytest.fixture(scope="module")
def old_device(adb_server: AdbServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestDevice]:
    device = TestDevice(tmp_path_factory.mktemp("old"), is_old=True)
    yield device
    device.stop()


@pytest.fixture(params=["device", "old_device"])
def any_device(request: pytest.FixtureRequest) -> Iterator[TestDevice]:
    """A device of today, and one before Android 7."""
    device: TestDevice = request.getfixturevalue(request.param)
    yield device
    device.mend()


@pytest.fixture
def any_link(any_device: TestDevice, profile_of: Profiles) -> AdbLink:
    link = AdbLink(profile_of(any_device))
    link.connect()
    return link


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(BYTES)
    return path


def test_it_is_a_link_to_something_that_says_it_is_no_android_device(link: AdbLink) -> None:
    assert isinstance(link, Link)
    assert link.run("getprop ro.product.model", timeout_s=9).output.strip() == MODEL
    assert "no Android device" in MODEL


def test_both_kinds_of_shell_are_met(profile_of: Profiles, device: TestDevice, old_device: TestDevice) -> None:
    kinds = []
    for one in (device, old_device):
        link = AdbLink(profile_of(one))
        link.connect()
        kinds.append(type(link._connected()))
    assert kinds == [ShellV2, OldShell]


def test_a_command_says_how_it_ended(any_link: AdbLink) -> None:
    done = any_link.run("pwd; echo wrong >&2; exit 3", timeout_s=9)
    assert (done.code, done.output, done.errors.strip()) == (3, "/data/local/tmp/edgekit\n", "wrong")


def test_a_command_gets_its_input_and_nothing_is_added_or_lost(any_link: AdbLink) -> None:
    done = any_link.run('cat; printf "\'"', timeout_s=9, given=b"a\n$b `c` \xc3\xa9 \\d\n\n")
    assert done.output == "a\n$b `c` é \\d\n\n'"
    assert any_link.run("ls -A", timeout_s=9).output.count(".given") == 0


def test_a_command_that_is_no_shell_is_no_lost_device(any_link: AdbLink) -> None:
    done = any_link.run("if (", timeout_s=9)
    assert done.code and "syntax error" in done.errors


def test_a_command_without_input_does_not_wait_for_any(any_link: AdbLink) -> None:
    assert any_link.run("cat; echo done", timeout_s=9).output == "done\n"


def test_a_file_arrives_and_comes_back(any_link: AdbLink, source: Path, tmp_path: Path) -> None:
    any_link.push(source, "it's one")
    any_link.pull("it's one", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == BYTES


def test_an_empty_file_replaces_another(any_link: AdbLink, source: Path, tmp_path: Path) -> None:
    any_link.push(source, "emptied")
    source.write_bytes(b"")
    any_link.push(source, "emptied")
    any_link.pull("emptied", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_transfers_go_on_at_an_offset(any_link: AdbLink, source: Path, tmp_path: Path) -> None:
    any_link.run("printf 'kept, and a tail that is not' > partial", timeout_s=9)
    any_link.push(source, "partial", offset=4)
    any_link.pull("partial", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"kept" + BYTES[4:]
    (tmp_path / "back").write_bytes(b"mine, and a tail")
    any_link.pull("partial", tmp_path / "back", offset=4)
    assert (tmp_path / "back").read_bytes() == b"mine" + BYTES[4:]


def test_a_transfer_does_not_go_on_behind_what_is_there(any_link: AdbLink, source: Path) -> None:
    any_link.run("printf short > behind", timeout_s=9)
    with pytest.raises(DeviceError, match="did not take behind"):
        any_link.push(source, "behind", offset=1000)


def test_a_file_that_is_not_there_cannot_be_fetched(any_link: AdbLink, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"has no file nothing to fetch: .*No such file"):
        any_link.pull("nothing", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_real_client_ends_well_although_the_device_died(link: AdbLink, device: TestDevice, adb_server: AdbServer) -> None:
    words = ["adb", "-P", str(adb_server.port), "-s", device.serial, "shell", "echo half; sleep 9; echo whole"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as client:
        assert client.stdout is not None and client.stdout.readline() == "half\n"
        device.reboot()
        assert client.stdout.read() == ""
    assert client.returncode == 0, "this is why edgekit looks for a line of its own behind every command"


@pytest.mark.parametrize("kind", ["cut", "tear"])
def test_a_command_is_whole_or_the_device_is_lost(any_link: AdbLink, any_device: TestDevice, kind: str) -> None:
    any_device.count()
    any_link.run("echo whole", timeout_s=9)
    total, lost = any_device.ask()["messages"], 0
    for at in range(1, total + 1):
        any_device.fail(kind, at=at)
        try:
            assert any_link.run("echo whole", timeout_s=9).output == "whole\n"
        except DeviceError as reason:
            assert not reason.is_final
            lost += 1
        any_device.mend()
        any_link.connect()
    assert lost >= 4, "the last messages come behind the answer"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_what_arrived_before_a_cut_is_kept_and_the_rest_sent(
    link: AdbLink, device: TestDevice, source: Path, tmp_path: Path, share: float
) -> None:
    source.write_bytes(BYTES * 4)
    device.fail("cut", at_bytes=int(2_800_000 * share))
    with pytest.raises(DeviceError, match="lost"):
        link.push(source, "sent")
    link.connect()
    there = int(link.run("wc -c < sent", timeout_s=9).output)
    link.push(source, "sent", offset=there)
    link.pull("sent", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == BYTES * 4
    assert there > 0


def test_a_fetch_that_was_cut_is_not_taken_for_whole(link: AdbLink, device: TestDevice, source: Path, tmp_path: Path) -> None:
    source.write_bytes(BYTES * 4)
    link.push(source, "fetched")
    device.fail("cut", at_bytes=2_000_000)
    with pytest.raises(DeviceError, match=r"of 2800000 bytes of fetched arrived"):
        link.pull("fetched", tmp_path / "back")
    link.connect()
    there = (tmp_path / "back").stat().st_size
    link.pull("fetched", tmp_path / "back", offset=there)
    assert (tmp_path / "back").read_bytes() == BYTES * 4
    assert there > 0


def test_a_client_that_hangs_is_killed_and_the_device_found_again(
    link: AdbLink, device: TestDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_PING_S", 0.3)
    device.fail("stall", at=4)
    with pytest.raises(DeviceError, match=r"not done after 0.3 s: the device hangs"):
        link.run("echo", timeout_s=0.3)
    assert not [child for child in psutil.Process().children(recursive=True) if child.name() == "adb"]
    link.connect()
    assert link.run("echo back", timeout_s=9).output == "back\n"


def test_a_transfer_in_which_nothing_passes_is_lost(
    link: AdbLink, device: TestDevice, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_SILENCE_S", 0.3)
    device.fail("stall", at_bytes=300_000)
    with pytest.raises(DeviceError, match=r"Nothing passed the adb client for 0.3 s"):
        link.push(source, "silent")


def test_a_device_that_rebooted_is_found_again_with_another_boot_id(link: AdbLink, device: TestDevice) -> None:
    before = link.run("cat /proc/sys/kernel/random/boot_id", timeout_s=9).output
    link.run("sleep 1000 >/dev/null 2>&1 </dev/null &", timeout_s=9)
    assert any("sleep 1000" in words for words in device.ask()["processes"])
    device.reboot()
    with pytest.raises(DeviceError):
        link.run("echo", timeout_s=9)
    link.connect()
    assert link.run("cat /proc/sys/kernel/random/boot_id", timeout_s=9).output != before
    assert device.ask()["processes"] == []


def test_a_full_disk_is_said_to_be_full(adb_server: AdbServer, profile_of: Profiles, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(BYTES)
    device = TestDevice(tmp_path / "device", disk_bytes=300_000)
    try:
        link = AdbLink(profile_of(device))
        link.connect()
        with pytest.raises(DeviceError, match=r"disk of device 'daemon' is full.*Make room") as caught:
            link.push(tmp_path / "large", "large")
    finally:
        device.stop()
    assert caught.value.is_final


def test_a_folder_that_cannot_be_made_is_named(device: TestDevice, profile_of: Profiles) -> None:
    link = AdbLink(profile_of(device, connection={"folder": "/system/edgekit"}))
    with pytest.raises(DeviceError, match=r"folder /system/edgekit: .*Read-only.*connection.folder") as caught:
        link.connect()
    assert caught.value.is_final


def test_a_device_without_the_small_programs_is_told_so(
    device: TestDevice, profile_of: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_PROGRAMS", ("cat", "a_program_nobody_has"))
    with pytest.raises(DeviceError, match="no program 'a_program_nobody_has' in its shell: edgekit needs Android 6") as caught:
        AdbLink(profile_of(device)).connect()
    assert caught.value.is_final


def test_nothing_runs_without_a_connection(device: TestDevice, profile_of: Profiles, source: Path) -> None:
    link = AdbLink(profile_of(device))
    with pytest.raises(DeviceError, match="not connected"):
        link.run("echo", timeout_s=9)
    with pytest.raises(DeviceError, match="not connected"):
        link.push(source, "x")


def test_without_a_client_the_package_is_named(profile_of: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceError, match="no adb client here: install Debian's package 'adb'") as caught:
        AdbLink(profile_of()).connect()
    assert caught.value.is_final


def test_a_port_where_nobody_listens_is_said_with_adbs_reason(profile_of: Profiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_FIRST_CONNECT_S", 0.1)
    link = AdbLink(profile_of(connection={"serial": "127.0.0.1:9"}))
    with pytest.raises(DeviceError, match=r"cannot be reached at 127.0.0.1:9: .*refused.*adb tcpip 5555") as caught:
        link.connect()
    assert not caught.value.is_final


def test_a_serial_that_is_not_attached_is_said_with_those_that_are(
    link: AdbLink, profile_of: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_FIRST_CONNECT_S", 0.1)
    with pytest.raises(DeviceError, match=rf"\(R5CT1\) is not attached; adb sees .*{link.serial} \(device\)"):
        AdbLink(profile_of(connection={"serial": "R5CT1"})).connect()


def test_without_a_serial_there_must_be_one_device(
    link: AdbLink, device: TestDevice, old_device: TestDevice, profile_of: Profiles, adb_server: AdbServer
) -> None:
    AdbLink(profile_of(old_device)).connect()
    with pytest.raises(DeviceError, match=r"no connection.serial, and \d devices are attached: ") as caught:
        AdbLink(profile_of()).connect()
    assert caught.value.is_final
    adb_server.run("disconnect")
    with pytest.raises(DeviceError, match="adb sees no device"):
        AdbLink(profile_of()).connect()
    adb_server.run("connect", device.serial)
    alone = AdbLink(profile_of())
    alone.connect()
    assert alone.serial == device.serial


def test_a_device_that_does_not_trust_this_machine_says_what_to_do(
    adb_server: AdbServer, profile_of: Profiles, tmp_path: Path
) -> None:
    device = TestDevice(tmp_path / "device")
    try:
        device.ask(authorises=False)
        link = AdbLink(profile_of(device))
        with pytest.raises(
            DeviceError, match=r"'unauthorized': it does not trust this machine yet. Unlock it and accept"
        ) as caught:
            link.connect()
        assert caught.value.is_final
        device.ask(authorises=True)
        adb_server.run("disconnect", device.serial)
        link.connect()
    finally:
        device.stop()


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        ({"serail": "x"}, "connection.serail, which the transport 'adb' does not know. Did you mean 'serial'"),
        ({"folder": "edgekit"}, "write a whole path of edgekit's own"),
        ({"folder": "/data/local/tmp/"}, "write a whole path of edgekit's own"),
        ({"server_port": 70000}, "connection.server_port to 70000: write a port"),
        ({"server_port": "5037"}, "connection.server_port to '5037': write a port"),
        ({"cluster": "huge"}, "connection.cluster to 'huge': write 'big', 'middle' or 'little'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(connection: dict[str, str | int], words: str) -> None:
    profile = DeviceProfile.parse(
        {"name": "d", "title": "D", "runtimes": {}, "transport": "adb", "connection": connection}, source="test"
    )
    with pytest.raises(ProfileError, match=words):
        AdbLink(profile)


def test_a_command_that_is_longer_than_adb_takes_is_refused(link: AdbLink) -> None:
    with pytest.raises(DeviceError, match="longer than adb takes"):
        link.run("echo " + "x" * 60_000, timeout_s=9)
