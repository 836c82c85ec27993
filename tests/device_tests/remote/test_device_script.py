"""The script on the device, in every sh that is here: Debian's dash, bash, mksh (Android's), BusyBox, toybox's tools."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekit.core.device_link import Finished
from edgekit.core.errors import DeviceError, WorkerError
from edgekit.device_tests.remote import store
from edgekit.device_tests.remote.facts import device_facts
from edgekit.device_tests.remote.patience import Patience
from edgekit.device_tests.remote.shell import DeviceShell, device_script
from edgekit.device_tests.remote.store import describe_file, send_files
from edgekit.device_tests.testing import ShellLink
from tests.device_tests.remote.sh_jobs import ShAgent, carrier, make_job

TOOLS = (
    "cat", "chmod", "cksum", "cp", "date", "df", "find", "grep", "head", "kill", "ln", "ls", "mkdir", "mv", "printf", "ps",
    "rm", "sed", "sh", "sleep", "sort", "tail", "touch", "tr", "uname", "wc",
)  # fmt: skip
"""What the script may use, but for hashing and starting sessions."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A device's shell and its tools.

    Args:
        shell: Words that start it.
        box: One program that is all the tools; else the tools are this machine's.
        more: Other tools.
    """

    shell: tuple[str, ...]
    box: str = ""
    more: tuple[str, ...] = ("sha256sum", "setsid")


KINDS = {
    "dash": Kind(("dash",)),
    "bash": Kind(("bash", "--posix")),
    "mksh": Kind(("mksh",)),
    "busybox": Kind(("busybox", "sh"), box="busybox"),
    "toybox": Kind(("mksh",), box="toybox"),
    "perl-and-shasum": Kind(("dash",), more=("shasum", "perl")),  # as on macOS, which has neither setsid nor sha256sum
    "python-and-openssl": Kind(("dash",), more=("openssl", "python3")),
}


USUAL = ("dash", "busybox")


@pytest.fixture(params=[pytest.param(kind, marks=[] if kind in USUAL else pytest.mark.proof) for kind in KINDS])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> ShellLink:
    """A folder with a shell that finds only the tools of its kind."""
    kind = KINDS[request.param]
    needed = [kind.shell[0], kind.box or "sh", *([] if kind.box else kind.more)]
    if lacking := [name for name in needed if not shutil.which(name)]:
        pytest.skip(f"not here: {', '.join(lacking)}; apt-get install mksh busybox toybox")
    tools = tmp_path / "tools"
    tools.mkdir()
    own_tools = (
        subprocess.run([kind.box], capture_output=True, text=True, check=True).stdout.split() if kind.box == "toybox" else ()
    )
    for name in (*TOOLS, *kind.more):
        box = kind.box if kind.box != "toybox" or name in own_tools else ""  # Debian's has no tr; Android's has
        own = sys.executable if name == "python3" else shutil.which(kind.shell[0] if name == "sh" else box or name)
        if name == "sh" and len(kind.shell) > 1:
            (tools / name).write_text(f'#!/bin/sh\nexec {" ".join([str(own), *kind.shell[1:]])} "$@"\n')
            (tools / name).chmod(0o755)
        else:
            (tools / name).symlink_to(str(own))
    return ShellLink(tmp_path / "device", shell=(str(shutil.which(kind.shell[0])), *kind.shell[1:]), path=str(tools))


def test_a_job_and_its_end(device: ShellLink, tmp_path: Path, nothing_left: Callable[[Path], None]) -> None:
    transport = carrier(device)
    job = make_job(tmp_path / "job")
    transport.run_agent(job, timeout_s=20)
    assert (job / "output.txt").read_text() == "HELLO\n"
    transport.agent = ShAgent("sleep 50 & sleep 60")
    with pytest.raises(WorkerError, match="longer than 1 s"):
        transport.run_agent(make_job(tmp_path / "second"), timeout_s=1)
    transport.close()
    assert list((device.folder / "jobs").iterdir()) == []
    nothing_left(device.folder)


def test_a_job_nobody_asks_for(device: ShellLink, tmp_path: Path, nothing_left: Callable[[Path], None]) -> None:
    lose_from(device, " poll ")
    with pytest.raises(DeviceError, match="was lost"):
        carrier(device, ShAgent("sleep 50 & sleep 60"), lease_s=1.0, patience_s=0.1).run_agent(
            make_job(tmp_path / "job"), timeout_s=60
        )
    nothing_left(device.folder)
    (done,) = device.folder.glob("jobs/*/done")
    assert done.read_text().split() == ["137", "abandoned"]


def lose_from(link: ShellLink, word: str) -> None:
    """The link is lost for good at the first command that holds a word."""
    run, connect, lost = link.run, link.connect, []

    def cut(command: str, *, timeout_s: float, given: bytes = b"") -> Finished:
        lost.extend([word] if word in command else [])
        if lost:
            raise DeviceError("lost for good")
        return run(command, timeout_s=timeout_s, given=given)

    def stay_away() -> None:
        if lost:
            raise DeviceError("lost for good")
        connect()

    link.run, link.connect = cut, stay_away  # type: ignore[method-assign]


def test_facts(device: ShellLink) -> None:
    device.connect()
    facts = device_facts(device)
    assert facts["system"] == "Linux"
    assert facts["cores"].startswith(f"{os.cpu_count()} logical")
    assert facts["memory"].endswith(" GiB")
    assert facts["free disk"].endswith(" GiB")


# ---- the script's own promises, in one shell


@pytest.fixture
def shell(tmp_path: Path) -> DeviceShell:
    link = ShellLink(tmp_path / "device")
    link.connect()
    return DeviceShell(link, folder="device")


def sender(shell: DeviceShell, *files: Path) -> None:
    send_files([describe_file(file) for file in files], shell, Patience(shell.link, name="board", limit_s=5))


def test_a_script_that_was_cut_off_or_changed_is_sent_again(shell: DeviceShell, tmp_path: Path) -> None:
    shell.ask("have")
    (script,) = (tmp_path / "device" / "store").iterdir()
    for damaged in (device_script()[:100], b""):
        script.chmod(0o600)
        script.write_bytes(damaged)
        assert shell.ask("have")[0].startswith("free ")


def test_a_file_is_resumed_where_it_was_cut(shell: DeviceShell, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    (tmp_path / "file").write_bytes(data)
    part = tmp_path / "device" / "store" / f"{describe_file(tmp_path / 'file').sha256}.part"
    part.parent.mkdir()
    part.write_bytes(data[:150_000])
    offsets = []
    link, push = shell.link, shell.link.push
    link.push = lambda source, target, *, offset=0: (offsets.append(offset), push(source, target, offset=offset))[1]  # type: ignore[method-assign]
    sender(shell, tmp_path / "file")
    assert offsets == [2 * 2**16]
    assert part.with_suffix("").read_bytes() == data
    assert not part.exists()


@pytest.mark.parametrize("wrong", [b"not what its name says", bytes(300_000)])
def test_a_wrong_beginning_is_thrown_away(shell: DeviceShell, tmp_path: Path, wrong: bytes) -> None:
    data = os.urandom(200_000)
    (tmp_path / "file").write_bytes(data)
    part = tmp_path / "device" / "store" / f"{describe_file(tmp_path / 'file').sha256}.part"
    part.parent.mkdir()
    part.write_bytes(wrong * 4000 if len(wrong) < 100 else wrong)
    sender(shell, tmp_path / "file")
    assert part.with_suffix("").read_bytes() == data


@pytest.mark.parametrize("rotten", ["HACKS\n", ""])
def test_a_stored_file_that_rotted_is_found_and_sent_again(tmp_path: Path, rotten: str) -> None:
    link = ShellLink(tmp_path / "device")
    transport = carrier(link)
    transport.run_agent(make_job(tmp_path / "first"), timeout_s=20)
    stored = link.folder / "store" / describe_file(tmp_path / "first" / "input.txt").sha256
    stored.chmod(0o600)
    stored.write_text(rotten)
    transport.run_agent(make_job(tmp_path / "second"), timeout_s=20)
    transport.close()
    assert (tmp_path / "second" / "output.txt").read_text() == "HELLO\n"


def test_a_device_that_damages_everything_is_an_error(shell: DeviceShell, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    push = shell.link.push

    def damage(source: Path, target: str, *, offset: int = 0) -> None:
        push(source, target, offset=offset)
        (tmp_path / "device" / target).write_bytes(b"dada")

    shell.link.push = damage  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="arrived damaged"):
        sender(shell, tmp_path / "file")


def test_old_files_are_swept_and_others_stay(shell: DeviceShell, tmp_path: Path) -> None:
    shell.ask("have")
    folder = tmp_path / "device" / "store"
    for name, days in {"old": 20, "young": 5, "stale.part": 3, "fresh.part": 0}.items():
        (folder / name).write_text("x")
        subprocess.run(["touch", "-d", f"{days} days ago", folder / name], check=True)
    shell.ask("sweep", 14)
    assert {path.name for path in folder.iterdir() if len(path.name) < 20} == {"young", "fresh.part"}


def test_too_little_room_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "df").write_text(
        "#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 100 90 10 90% /'\n"
    )
    (tools / "df").chmod(0o755)
    link = ShellLink(tmp_path / "device", path=f"{tools}:{os.environ['PATH']}")
    link.connect()
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DeviceError, match=r"0 MiB free in 'device', and 0 MiB are to be sent, with 8 MiB to spare"):
        sender(DeviceShell(link, folder="device"), tmp_path / "file")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A real file system of 256 KiB; not below pytest's own folder, whose cleaning a forgotten mount would stop."""
    place = Path(tempfile.mkdtemp(prefix="edgekit-disk-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "edgekit-test", place], capture_output=True, check=False)
    if mounted.returncode:
        place.rmdir()
        pytest.skip("a small file system cannot be mounted here: run as root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)
    place.rmdir()


@pytest.mark.parametrize("line", ["head -c 500000 /dev/zero >output.txt", "cat /dev/zero >output.txt; echo x >other"])
def test_a_disk_that_fills_in_the_middle_of_a_job(
    small_disk: Path, tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SPARE_BYTES", 0)
    transport = carrier(ShellLink(small_disk / "device"), ShAgent(line))
    with pytest.raises(DeviceError, match="disk of device 'board' was full"):
        transport.run_agent(make_job(tmp_path / "job"), timeout_s=20)
    transport.close()
    assert not (tmp_path / "job" / "output.txt").exists()
    assert list((small_disk / "device" / "jobs").iterdir()) == []


def test_a_disk_that_is_full_from_the_beginning(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "device").mkdir()
    subprocess.run(["sh", "-c", f"cat /dev/zero >{small_disk}/full"], check=False, stderr=subprocess.DEVNULL)
    with pytest.raises(DeviceError, match="disk is full"):
        carrier(ShellLink(small_disk / "device")).run_agent(make_job(tmp_path / "job"), timeout_s=20)


def test_a_folder_that_cannot_be_written(small_disk: Path, tmp_path: Path) -> None:
    link = ShellLink(small_disk / "device")
    link.connect()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(DeviceError, match=r"cannot be written .*Read-only file system.* connection.folder"):
        carrier(link).run_agent(make_job(tmp_path / "job"), timeout_s=20)


def test_an_answer_without_its_end_is_a_lost_link(shell: DeviceShell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.ask("have")
    run = shell.link.run

    def cut(command: str, *, timeout_s: float, given: bytes = b"") -> object:
        finished = run(command, timeout_s=timeout_s, given=given)
        return dataclasses.replace(finished, code=0, output=finished.output.rpartition("edgekit")[0])

    monkeypatch.setattr(shell.link, "run", cut)
    with pytest.raises(DeviceError, match="stopped answering") as caught:
        shell.ask("have")
    assert not caught.value.is_final


def test_what_a_login_prints_does_no_harm(shell: DeviceShell, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shell.link.run

    def chatter(command: str, *, timeout_s: float, given: bytes = b"") -> object:
        return run(f"echo 'Welcome to the board!'; {command}", timeout_s=timeout_s, given=given)

    monkeypatch.setattr(shell.link, "run", chatter)
    assert len(shell.ask("have")) == 1


def test_only_one_of_many_can_take_a_stale_lock(shell: DeviceShell, tmp_path: Path) -> None:
    assert "held" in shell.ask("lock", "gone", "1", "0", "somebody who is gone")
    answers: list[list[str]] = []

    def take(token: str) -> None:
        link = ShellLink(tmp_path / "device")
        link.connect()
        answers.append(DeviceShell(link, folder="device").ask("lock", token, "1", "1", f"user {token}"))

    takers = [threading.Thread(target=take, args=(str(number),)) for number in range(8)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    assert [answer[-1] for answer in answers].count("held") == 1
    assert all(answer[0].startswith("busy ") for answer in answers if "held" not in answer)
