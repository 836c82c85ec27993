"""Calls of a client that misbehaves: a shell script in the place of ``adb`` does what the real one does rarely."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edgekit.core.errors import DeviceError
from edgekit.device_tests.transports.adb import client as client_module
from edgekit.device_tests.transports.adb.client import AdbClient

Script = Callable[[str], AdbClient]
LARGE = 3_000_000


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """``script("exit 3")``: the client does that."""

    def make(body: str) -> AdbClient:
        path = tmp_path / "adb"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        return AdbClient(server_port=4711)

    return make


def children() -> list[str]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended, and nobody has asked how yet
            found.append(" ".join(child.cmdline()))
    return found


def test_the_port_stands_before_the_words(script: Script) -> None:
    done = script('printf "%s|" "$@"; echo wrong >&2; exit 3').ask("devices", "it's one", timeout_s=9)
    assert (done.code, done.output, done.errors) == (3, "-P|4711|devices|it's one|", "wrong\n")


def test_much_in_all_directions_at_once_stops_nothing(script: Script) -> None:
    client = script(f"cat; head -c {LARGE} /dev/zero >&2")
    taken: list[bytes] = []
    done = client.exchange(["x"], take=taken.append, given=[bytes(LARGE), b"end"], timeout_s=30)
    assert sum(map(len, taken)) == LARGE + 3
    assert len(done.errors) == LARGE


def test_a_client_that_takes_no_input_ends_well(script: Script) -> None:
    done = script("exec <&-; exit 5").exchange(["x"], take=len, given=(bytes(1 << 16) for _ in range(100)), timeout_s=9)
    assert done.code == 5


def test_a_client_that_hangs_is_killed_with_its_children(script: Script) -> None:
    began = time.monotonic()
    with pytest.raises(DeviceError, match=r"not done after 0.3 s"):
        script("sleep 987 & sleep 987").ask("shell", timeout_s=0.3)
    assert time.monotonic() - began < 5
    assert not any("sleep 987" in words for words in children())


def test_one_that_says_something_is_not_silent(script: Script) -> None:
    client = script("for i in 1 2 3 4 5; do echo $i; sleep 0.2; done; sleep 987")
    taken: list[bytes] = []
    with pytest.raises(DeviceError, match=r"Nothing passed the adb client for 0.6 s"):
        client.exchange(["x"], take=taken.append, silence_s=0.6)
    assert b"".join(taken) == b"1\n2\n3\n4\n5\n"


def test_one_that_closes_its_output_and_stays_is_killed(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_END_S", 0.2)
    with pytest.raises(DeviceError, match="does not end"):
        script("exec >&- 2>&- <&-; sleep 987").ask("x", timeout_s=9)
    assert not any("sleep 987" in words for words in children())


def test_what_cannot_be_taken_ends_the_client(script: Script) -> None:
    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        script("echo much; sleep 987").exchange(["x"], take=full, timeout_s=9)
    assert not any("sleep 987" in words for words in children())


def test_a_server_that_does_not_start_is_said_with_its_reason(script: Script) -> None:
    with pytest.raises(DeviceError, match="server does not start here: could not bind") as caught:
        script("echo 'could not bind' >&2; exit 1").start_server()
    assert caught.value.is_final
