"""The link to the test daemon breaks at chosen messages of a small job: it comes back whole, or the device is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from edgekit.core.errors import DeviceError
from edgekit.core.profile import DeviceProfile
from edgekit.device_tests.remote import patience
from edgekit.device_tests.remote.carrier import RemoteTransport
from edgekit.device_tests.transports.adb import AdbLink
from edgekit.device_tests.transports.adb import link as link_module
from tests.device_tests.adb_daemon.device import TestDevice
from tests.device_tests.remote.sh_jobs import ShAgent, make_job

Profiles = Callable[..., DeviceProfile]
LINE = "tr a-z A-Z <input.txt >output.txt; echo x >>../../../starts"
SLOW = f"sleep 2; {LINE}"
LEASE_S = 3.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(link_module, "_PING_S", 1.0)


def carrier(profile: DeviceProfile, line: str = LINE) -> RemoteTransport:
    return RemoteTransport(
        profile, link=AdbLink(profile), agent=ShAgent(line), lease_s=LEASE_S, patience_s=15.0, lock_wait_s=15.0
    )


def messages_of_a_job(device: TestDevice, profile: DeviceProfile, folder: Path) -> int:
    device.count()
    do_job(profile, folder)
    return int(device.ask()["messages"])


def do_job(profile: DeviceProfile, folder: Path, line: str = LINE) -> str:
    """``"whole"``, or ``"lost"``: nothing between, and the next connection finds nothing left."""
    job = make_job(folder, f"{folder.name}\n")
    transport = carrier(profile, line)
    try:
        transport.run_agent(job, timeout_s=20)
    except DeviceError:
        assert not (job / "output.txt").exists() and not (job / "result.json").exists()
        return "lost"
    finally:
        transport.close()
    assert (job / "output.txt").read_text() == f"{folder.name}\n".upper()
    return "whole"


def check_nothing_is_left(device: TestDevice) -> None:
    assert device.orphans(within_s=2 * LEASE_S) == []


@pytest.mark.parametrize("kind", ["cut", "tear"])
def test_a_break_at_some_messages_changes_nothing(device: TestDevice, profile_of: Profiles, tmp_path: Path, kind: str) -> None:
    profile = profile_of(device)
    total = messages_of_a_job(device, profile, tmp_path / "uncut")
    for at in range(9, total, total // 4):
        device.fail(kind, at=at)
        assert do_job(profile, tmp_path / f"job-{at}") == "whole"
        check_nothing_is_left(device)


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["cut", "tear"])
def test_a_break_at_every_message_changes_nothing(device: TestDevice, profile_of: Profiles, tmp_path: Path, kind: str) -> None:
    profile = profile_of(device)
    total = messages_of_a_job(device, profile, tmp_path / "uncut")
    for at in range(1, total + 1):
        device.fail(kind, at=at)
        assert do_job(profile, tmp_path / f"job-{at}") == "whole"
        check_nothing_is_left(device)


def test_a_job_that_ran_while_the_device_was_away_is_collected(device: TestDevice, profile_of: Profiles, tmp_path: Path) -> None:
    (device.data / "edgekit/starts").unlink(missing_ok=True)
    cut = threading.Timer(1.5, lambda: device.fail("cut", at=1, down_s=1.0))
    cut.start()
    assert do_job(profile_of(device), tmp_path / "job", SLOW) == "whole"
    cut.join()
    assert (device.data / "edgekit/starts").read_text() == "x\n"
    check_nothing_is_left(device)


def test_a_reboot_in_the_middle_starts_the_job_again(device: TestDevice, profile_of: Profiles, tmp_path: Path) -> None:
    (device.data / "edgekit/starts").unlink(missing_ok=True)
    boots = device.boots
    reboot = threading.Timer(1.5, device.reboot)
    reboot.start()
    assert do_job(profile_of(device), tmp_path / "job", SLOW) == "whole"
    reboot.join()
    assert device.boots == boots + 1
    assert (device.data / "edgekit/starts").read_text() == "x\n", "the first start did not come so far"
    check_nothing_is_left(device)


def test_a_link_that_says_nothing_any_more_is_made_anew(device: TestDevice, profile_of: Profiles, tmp_path: Path) -> None:
    stall = threading.Timer(1.0, lambda: device.fail("stall", at=1))
    profile = profile_of(device)
    transport = carrier(profile, SLOW)
    shell = transport._shell.link
    run = shell.run
    shell.run = lambda command, *, timeout_s, given=b"": run(command, timeout_s=min(timeout_s, 2.0), given=given)  # type: ignore[method-assign]
    stall.start()
    job = make_job(tmp_path / "job")
    transport.run_agent(job, timeout_s=20)
    stall.join()
    assert transport.reconnections >= 1
    transport.close()
    check_nothing_is_left(device)


def test_when_this_side_vanishes_the_lease_ends_the_job(device: TestDevice, profile_of: Profiles, tmp_path: Path) -> None:
    transport = carrier(profile_of(device), "sleep 1000")
    job, lost = make_job(tmp_path / "job"), list[DeviceError]()

    def use() -> None:
        try:
            transport.run_agent(job, timeout_s=99)
        except DeviceError as reason:
            lost.append(reason)

    worker = threading.Thread(target=use)
    worker.start()
    assert runs(device, "sleep 1000", within_s=20)
    transport.link.run = transport.link.connect = vanished  # type: ignore[method-assign]
    worker.join()
    assert lost
    assert runs(device, "sleep 1000", within_s=0), "nobody told the device"
    assert device.orphans(within_s=6 * LEASE_S) == []


def vanished(*_: object, **__: object) -> NoReturn:
    raise DeviceError("this side is gone, as it was told to", is_final=True)


def runs(device: TestDevice, words: str, *, within_s: float) -> bool:
    limit = time.monotonic() + within_s
    while not (found := any(words in line for line in device.ask()["processes"])) and time.monotonic() < limit:
        time.sleep(0.05)
    return found
