"""Two users of one device."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from edgekit.core.errors import DeviceError
from edgekit.device_tests.remote import lock
from edgekit.device_tests.remote.lock import DeviceLock
from edgekit.device_tests.remote.patience import Patience
from edgekit.device_tests.remote.shell import DeviceShell
from edgekit.device_tests.testing import ShellLink
from tests.device_tests.remote.sh_jobs import ShAgent, carrier, make_job
from tests.device_tests.remote.ssh_server import check_nothing_left, edgekit_processes


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_LOOK_S", 0.1)


def a_lock(device: Path, *, lease_s: float = 1.0, wait_s: float = 20.0, told: list[str] | None = None) -> DeviceLock:
    link = ShellLink(device)
    patience = Patience(link, name="board", limit_s=5)
    said = told if told is not None else []
    return DeviceLock(DeviceShell(link, folder="device"), patience, lease_s=lease_s, wait_s=wait_s, waiting=said.append)


def test_a_lock_is_held_until_it_is_released(tmp_path: Path) -> None:
    first, told = a_lock(tmp_path), list[str]()
    first.acquire()
    first.acquire()
    with pytest.raises(DeviceError, match=r"'board' is in use by .* \(process \d+, since .* UTC\)") as caught:
        a_lock(tmp_path, lease_s=30.0, wait_s=0.3, told=told).acquire()
    assert caught.value.is_final
    assert len(told) == 1
    assert told[0].startswith("waiting for device 'board': in use by ")
    first.release()
    second = a_lock(tmp_path, wait_s=0.3)
    second.acquire()
    assert second.is_held


def test_a_holder_who_is_silent_loses_it_and_notices(tmp_path: Path) -> None:
    first, second = a_lock(tmp_path), a_lock(tmp_path)
    first.acquire()
    begun = time.monotonic()
    second.acquire()
    assert time.monotonic() - begun >= 1.0
    assert first.shell.ask("poll", "key", first.token, "1") == ["state lost-lock"]
    first.release()
    assert second.shell.ask("poll", "key", second.token, "1") == ["state gone"], "only the holder releases"


def test_a_holder_who_gives_signs_of_life_keeps_it(tmp_path: Path) -> None:
    first = a_lock(tmp_path)
    first.acquire()
    stop = threading.Event()

    def live() -> None:
        number = 0
        while not stop.wait(0.1):
            first.shell.ask("beat", first.token, str(number := number + 1), "")

    thread = threading.Thread(target=live)
    thread.start()
    with pytest.raises(DeviceError, match="in use by"):
        a_lock(tmp_path, lease_s=1.0, wait_s=2.5).acquire()
    stop.set()
    thread.join()


def test_two_users_take_turns(tmp_path: Path) -> None:
    """Each job writes when it begins and ends; nothing lies between."""
    line = "echo begin >>../../../diary; sleep 0.3; echo end >>../../../diary; echo x >output.txt"

    def work(number: int) -> None:
        transport = carrier(ShellLink(tmp_path / "device"), ShAgent(line), lease_s=5.0, lock_wait_s=60.0)
        transport.run_agent(make_job(tmp_path / f"job-{number}"), timeout_s=30)
        transport.close()

    users = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert (tmp_path / "device" / "diary").read_text().split() == ["begin", "end"] * 3


def test_taking_over_ends_what_the_last_one_left(tmp_path: Path) -> None:
    device = tmp_path / "device"
    first = carrier(ShellLink(device), ShAgent("sleep 60"), lease_s=50.0)
    run, is_gone = first.link.run, False

    def vanish(command: str, *, timeout_s: float, given: bytes = b"") -> object:
        nonlocal is_gone
        if is_gone := is_gone or " poll " in command:
            raise SystemExit
        return run(command, timeout_s=timeout_s, given=given)

    first.link.run = vanish  # type: ignore[method-assign, assignment]
    with pytest.raises(SystemExit):
        first.run_agent(make_job(tmp_path / "job"), timeout_s=100)
    (left,) = device.glob("jobs/*")
    assert edgekit_processes(device)
    second = carrier(ShellLink(device), lease_s=0.5)
    second.run_agent(make_job(tmp_path / "second"), timeout_s=20)
    second.close()
    assert not left.exists()
    check_nothing_left(device)
