"""Jobs come back whole or not at all, whatever breaks; nothing is left on the device."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from edgekit.core.errors import DeviceError, IntegrityError, WorkerError
from edgekit.device_tests.remote import patience
from edgekit.device_tests.testing import ShellLink
from tests.device_tests.remote.sh_jobs import ShAgent, carrier, make_job

NothingLeft = Callable[[Path], None]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE_S", 0.01)


def starts(device: Path) -> int:
    return (device / "starts").read_text().count("x")


def test_a_job_is_done_and_leaves_only_the_store(tmp_path: Path, nothing_left: NothingLeft) -> None:
    job, device = make_job(tmp_path / "job"), tmp_path / "device"
    transport = carrier(ShellLink(device))
    transport.run_agent(job, timeout_s=20, log=tmp_path / "log.txt")
    transport.close()
    assert (job / "output.txt").read_text() == "HELLO\n"
    assert "said" in (tmp_path / "log.txt").read_text()
    assert sorted(path.name for path in job.iterdir()) == ["input.txt", "output.txt", "result.json"]
    assert list((device / "jobs").iterdir()) == []
    nothing_left(device)


def test_what_is_there_is_not_sent_again(tmp_path: Path) -> None:
    link = ShellLink(tmp_path / "device")
    pushed: list[str] = []
    push = link.push
    link.push = lambda source, target, *, offset=0: (pushed.append(source.name), push(source, target, offset=offset))[1]  # type: ignore[method-assign]
    transport = carrier(link)
    for number in range(2):
        transport.run_agent(make_job(tmp_path / f"job-{number}"), timeout_s=20)
    transport.close()
    assert sorted(pushed) == ["input.txt", "plan", "returns"]
    assert starts(link.folder) == 2


@pytest.mark.parametrize(
    ("how", "step"),
    [
        ("after", 4),
        ("middle", 6),
        pytest.param("before", 1, marks=pytest.mark.proof),
        pytest.param("middle", 1, marks=pytest.mark.proof),
        pytest.param("after", 1, marks=pytest.mark.proof),
    ],
)
def test_a_cut_at_any_call_changes_nothing(tmp_path: Path, how: Literal["before", "middle", "after"], step: int) -> None:
    link = ShellLink(tmp_path / "uncut")
    transport = carrier(link)
    transport.run_agent(make_job(tmp_path / "job"), timeout_s=20)
    calls = link.calls
    assert calls >= 12
    for cut in range(2, calls + 1, step):
        link = ShellLink(tmp_path / f"device-{cut}", cuts={cut: how})
        job = make_job(tmp_path / f"job-{cut}")
        transport = carrier(link)
        transport.run_agent(job, timeout_s=20)
        transport.close()
        assert (job / "output.txt").read_text() == "HELLO\n"
        assert starts(link.folder) == 1, f"cut {how} call {cut}: a job that was done is collected, not repeated"
        assert list((link.folder / "jobs").iterdir()) == []


def test_a_device_that_stays_away_is_lost(tmp_path: Path) -> None:
    link = ShellLink(tmp_path / "device", cuts=dict.fromkeys(range(9, 1000), "before"))
    with pytest.raises(DeviceError, match=r"'board' was lost while .* did not bring it back"):
        carrier(link, patience_s=0.5).run_agent(make_job(tmp_path / "job"), timeout_s=20)
    assert not (tmp_path / "job" / "result.json").exists()
    assert not (tmp_path / "job" / "output.txt").exists()


def test_a_device_that_never_answered_is_said_to_be_away_soon(tmp_path: Path) -> None:
    link = ShellLink(tmp_path / "device", cuts=dict.fromkeys(range(1, 1000), "before"))
    with pytest.raises(DeviceError, match="lost at call 3"):
        carrier(link).facts()


def test_a_refusal_is_not_asked_for_twice(tmp_path: Path) -> None:
    link = ShellLink(tmp_path / "device")
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "store").write_text("in the way")
    with pytest.raises(DeviceError, match="File exists"):
        carrier(link).run_agent(make_job(tmp_path / "job"), timeout_s=20)


def test_a_job_that_fails_says_its_last_words(tmp_path: Path, nothing_left: NothingLeft) -> None:
    link = ShellLink(tmp_path / "device")
    transport = carrier(link, ShAgent("echo first; echo the reason >&2; exit 3"))
    with pytest.raises(WorkerError, match=r"'board' ended with code 3 .*first \| the reason"):
        transport.run_agent(make_job(tmp_path / "job"), timeout_s=20)
    assert list((link.folder / "jobs").iterdir()) == []
    nothing_left(link.folder)


def test_a_job_that_is_killed_says_by_what(tmp_path: Path) -> None:
    transport = carrier(ShellLink(tmp_path / "device"), ShAgent("kill -9 $$"))
    with pytest.raises(WorkerError, match="was killed by SIGKILL"):
        transport.run_agent(make_job(tmp_path / "job"), timeout_s=20)


def test_a_job_that_takes_too_long_is_ended(tmp_path: Path, nothing_left: NothingLeft) -> None:
    link = ShellLink(tmp_path / "device")
    transport = carrier(link, ShAgent("sleep 50 & sleep 60"))
    with pytest.raises(WorkerError, match="longer than 1 s"):
        transport.run_agent(make_job(tmp_path / "job"), timeout_s=1)
    nothing_left(link.folder)


def test_what_a_job_leaves_running_is_ended_with_it(tmp_path: Path, nothing_left: NothingLeft) -> None:
    link = ShellLink(tmp_path / "device")
    transport = carrier(link, ShAgent("sleep 60 & echo x >output.txt"))
    transport.run_agent(make_job(tmp_path / "job"), timeout_s=20)
    nothing_left(link.folder)


def test_a_job_that_leaves_less_than_it_should_is_no_result(tmp_path: Path) -> None:
    transport = carrier(ShellLink(tmp_path / "device"), ShAgent("echo x >one", returns=("one", "two")))
    with pytest.raises(IntegrityError, match="did not leave two"):
        transport.run_agent(make_job(tmp_path / "job"), timeout_s=20)
    assert not (tmp_path / "job" / "one").exists()


def test_a_link_that_is_left_behind_is_no_file(tmp_path: Path) -> None:
    transport = carrier(ShellLink(tmp_path / "device"), ShAgent("ln -s /etc/passwd output.txt"))
    with pytest.raises(IntegrityError, match=r"did not leave output\.txt"):
        transport.run_agent(make_job(tmp_path / "job"), timeout_s=20)


def test_names_commands_and_environment_arrive_as_they_are(tmp_path: Path) -> None:
    job = make_job(tmp_path / "job")
    (job / "a folder").mkdir()
    (job / "a folder" / "it's é.sh").write_text('#!/bin/sh\necho "$WORD|$1"\n')
    agent = ShAgent("'./a folder/it'\\''s é.sh' 'two  words' >output.txt", environment={"WORD": "a 'b' $c `d`"})
    carrier(ShellLink(tmp_path / "device"), agent).run_agent(job, timeout_s=20)
    assert (job / "output.txt").read_text() == "a 'b' $c `d`|two  words\n"


@pytest.mark.parametrize("name", ["../outside", "/outside", "a\nb"])
def test_names_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(IntegrityError, match="inside the job's folder"):
        carrier(ShellLink(tmp_path / "device"), ShAgent(returns=(name,))).run_agent(make_job(tmp_path / "job"), timeout_s=20)


def test_a_reboot_starts_the_job_again(tmp_path: Path) -> None:
    """The device's boot number is another one while the job runs; its processes are gone. (The machine itself does not boot.)"""
    link = ShellLink(tmp_path / "device")
    agent = ShAgent("echo x >>../../../starts; [ $(wc -l <../../../starts) -gt 1 ] || sleep 30; echo y >output.txt")
    transport = carrier(link, agent)
    rebooting = threading.Thread(target=_reboot, args=(link.folder,))
    rebooting.start()
    transport.run_agent(make_job(tmp_path / "job"), timeout_s=20)
    rebooting.join()
    assert starts(link.folder) == 2


def _reboot(device: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for group in device.glob("jobs/*/group"):
            (group.parent / "boot").write_text("another boot\n")
            return
        time.sleep(0.02)


def test_a_device_that_reboots_each_time_is_lost(tmp_path: Path) -> None:
    agent = ShAgent("echo another boot >../boot; sleep 20")
    with pytest.raises(DeviceError, match="started 3 times: the device rebooted; the device rebooted; the device rebooted"):
        carrier(ShellLink(tmp_path / "device"), agent).run_agent(make_job(tmp_path / "job"), timeout_s=20)


def test_a_supervisor_that_dies_is_noticed(tmp_path: Path, nothing_left: NothingLeft) -> None:
    link = ShellLink(tmp_path / "device")
    agent = ShAgent("echo x >>../../../starts; [ $(wc -l <../../../starts) -gt 1 ] || kill -9 $(cat ../pid); echo y >output.txt")
    carrier(link, agent).run_agent(make_job(tmp_path / "job"), timeout_s=20)
    assert starts(link.folder) == 2
    nothing_left(link.folder)


def test_a_host_that_vanishes_leaves_nothing_running(tmp_path: Path, nothing_left: NothingLeft) -> None:
    link = ShellLink(tmp_path / "device", cuts=dict.fromkeys(range(14, 1000), "before"))
    with pytest.raises(DeviceError, match="was lost"):
        carrier(link, ShAgent("sleep 50 & sleep 60"), lease_s=1.0).run_agent(make_job(tmp_path / "job"), timeout_s=60)
    assert (link.folder / "starts").exists() is False
    nothing_left(link.folder)


def test_a_lease_that_ran_out_while_the_link_was_down_starts_the_job_again(tmp_path: Path) -> None:
    link = ShellLink(tmp_path / "device")
    agent = ShAgent("echo x >>../../../starts; [ $(wc -l <../../../starts) -gt 1 ] || sleep 60; echo y >output.txt")
    transport = carrier(link, agent, lease_s=1.0)
    run, begun = link.run, []

    def stall(command: str, *, timeout_s: float, given: bytes = b"") -> object:
        if " poll " in command and not begun:
            begun.append(time.sleep(3.5))
        return run(command, timeout_s=timeout_s, given=given)

    link.run = stall  # type: ignore[method-assign, assignment]
    transport.run_agent(make_job(tmp_path / "job"), timeout_s=60)
    assert starts(link.folder) == 2


def test_close_in_the_middle_of_a_job_ends_it(tmp_path: Path, nothing_left: NothingLeft) -> None:
    link = ShellLink(tmp_path / "device")
    transport = carrier(link, ShAgent("sleep 60"), lease_s=60.0)
    run = link.run

    def interrupt(command: str, *, timeout_s: float, given: bytes = b"") -> object:
        if " poll " in command:
            raise KeyboardInterrupt
        return run(command, timeout_s=timeout_s, given=given)

    link.run = interrupt  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        transport.run_agent(make_job(tmp_path / "job"), timeout_s=60)
    transport.close()
    assert list((link.folder / "jobs").iterdir()) == []
    nothing_left(link.folder)
