"""A confined worker tries everything a hostile file would; what it must not do has to fail, and the caller has to live."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit.core import landlock, syscall_filter, worker
from edgekit.core.confinement import Confinement
from edgekit.core.errors import WorkerError

pytestmark = pytest.mark.skipif(not landlock.abi(), reason="confines files by Landlock: runs on Linux 5.13 and later")

CHILD = """
from __future__ import annotations
import os, pathlib, signal, socket, subprocess, sys, time

def attempt(name, action, found):
    try:
        action()
        found[name] = "done"
    except BaseException as reason:
        found[name] = type(reason).__name__

def attack(*, outside, secret, inside, parent):
    found = {}
    outside, inside = pathlib.Path(outside), pathlib.Path(inside)
    attempt("write outside", lambda: (outside / "new.txt").write_text("x"), found)
    attempt("overwrite outside", lambda: pathlib.Path(secret).write_text("x"), found)
    attempt("append outside", lambda: open(secret, "a").write("x"), found)
    attempt("truncate outside", lambda: os.truncate(secret, 0), found)
    attempt("delete outside", lambda: os.unlink(secret), found)
    attempt("rename outside", lambda: os.rename(secret, inside / "taken"), found)
    attempt("read outside", lambda: open(secret).read(), found)
    attempt("link to outside", lambda: os.symlink(secret, inside / "link"), found)
    attempt("hard link to outside", lambda: os.link(secret, inside / "hard"), found)
    attempt("make a pipe", lambda: os.mkfifo(inside / "pipe"), found)
    attempt("open a socket", lambda: socket.socket(), found)
    attempt("open a unix socket", lambda: socket.socket(socket.AF_UNIX), found)
    attempt("signal the caller", lambda: os.kill(parent, signal.SIGTERM), found)
    attempt("leave the group", os.setsid, found)
    shell = f"echo x > {outside}/shell.txt"
    attempt("write by a shell", lambda: subprocess.run(["/bin/sh", "-c", shell], check=True, stderr=subprocess.DEVNULL), found)
    attempt("regain rights", lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_DATA, (-1, -1)), found)
    attempt("write inside", lambda: (inside / "a").mkdir() or (inside / "a" / "b.txt").write_text("x"), found)
    attempt("rename inside", lambda: os.rename(inside / "a" / "b.txt", inside / "c.txt"), found)
    attempt("write to a temporary file", lambda: __import__("tempfile").TemporaryFile().write(b"x"), found)
    attempt("write to null", lambda: open(os.devnull, "w").write("x"), found)
    return found

def eat_at_once(): return len(bytearray(2 * 2**30))
def eat_slowly():
    held = []
    while True:
        held.append(b"x" * 2**22)
def shortest_cpu_time():
    found = []
    for _ in range(200):
        start = time.process_time_ns()
        sum(range(200))
        found.append(time.process_time_ns() - start)
    return min(found)
def hang(): time.sleep(60)
def spin():
    while True:
        pass
def flood():
    while True:
        sys.stdout.write("\\x1b[31m" * 2**16)
def forge(*, answer):
    import pathlib, os
    path = next(pathlib.Path(os.environ["TMPDIR"]).glob("job.json")).with_name("answer.json")
    path.write_text(answer)
    os._exit(0)
"""

REFUSED = (
    "write outside", "overwrite outside", "append outside", "truncate outside", "delete outside", "rename outside",
    "read outside", "link to outside", "hard link to outside", "make a pipe", "write by a shell",
)  # fmt: skip
ALLOWED = ("write inside", "rename inside", "write to a temporary file", "write to null")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) for name in ("code", "outside", "inside")}
    (found["code"] / "hostile.py").write_text(CHILD)
    (found["outside"] / "secret.txt").write_text("secret")
    return found


@pytest.fixture(scope="module")
def call(places: dict[str, Path]) -> Any:
    def run(name: str, arguments: dict[str, Any] | None = None, *, timeout_s: float = 20.0, **limits: Any) -> Any:
        return worker.call(
            f"hostile:{name}",
            arguments or {},
            what="testing",
            timeout_s=timeout_s,
            environment={"PYTHONPATH": str(places["code"])},
            confined=Confinement(writes=(str(places["inside"]),), **limits),
        )

    return run


@pytest.fixture(scope="module")
def attacked(call: Any, places: dict[str, Path]) -> dict[str, str]:
    outside = places["outside"]
    arguments = {"outside": str(outside), "secret": str(outside / "secret.txt"), "inside": str(places["inside"])}
    found: dict[str, str] = call("attack", {**arguments, "parent": os.getpid()})
    return found


@pytest.mark.parametrize("deed", REFUSED)
def test_files_outside_are_out_of_reach(attacked: dict[str, str], places: dict[str, Path], deed: str) -> None:
    assert attacked[deed] != "done"
    assert [path.name for path in places["outside"].iterdir()] == ["secret.txt"]
    assert (places["outside"] / "secret.txt").read_text() == "secret"


@pytest.mark.skipif(not syscall_filter.is_known_machine(), reason="the numbers of this machine's system calls are not known")
@pytest.mark.parametrize("deed", ["open a socket", "open a unix socket", "leave the group"])
def test_network_and_flight_are_refused(attacked: dict[str, str], deed: str) -> None:
    assert attacked[deed] == "PermissionError"


@pytest.mark.skipif(landlock.abi() < 6, reason="Landlock scopes signals from Linux 6.12 on")
def test_the_caller_cannot_be_signalled(attacked: dict[str, str]) -> None:
    assert attacked["signal the caller"] == "PermissionError"


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may raise limits: run as an ordinary user")
def test_limits_cannot_be_raised(attacked: dict[str, str]) -> None:
    assert attacked["regain rights"] != "done"


@pytest.mark.parametrize("deed", ALLOWED)
def test_its_own_folders_are_its_own(attacked: dict[str, str], deed: str) -> None:
    assert attacked[deed] == "done"


def test_memory_in_one_piece_is_refused(call: Any) -> None:
    with pytest.raises(WorkerError, match="MemoryError"):
        call("eat_at_once", memory_bytes=2**30)


def test_memory_in_small_pieces_is_refused(call: Any) -> None:
    with pytest.raises(WorkerError, match=r"MemoryError|more than its limit|SIG"):
        call("eat_slowly", memory_bytes=400 * 2**20)


def test_hanging_and_spinning_are_ended(call: Any) -> None:
    with pytest.raises(WorkerError, match="longer than 2 s"):
        call("hang", timeout_s=2)
    with pytest.raises(WorkerError, match=r"SIGXCPU|SIGKILL"):
        call("spin", cpu_s=2)


def test_a_flood_of_words_is_cut_and_harmless(call: Any) -> None:
    with pytest.raises(WorkerError) as caught:
        call("flood", file_bytes=2**20)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("answer", ["no JSON", "[1]", json.dumps({"error": "SystemExit", "message": 1}), json.dumps({})])
def test_a_forged_answer_is_an_error(call: Any, answer: str) -> None:
    with pytest.raises(WorkerError):
        call("forge", {"answer": answer})


def test_confinement_round_trips() -> None:
    there = Confinement(reads=("a",), memory_bytes=5, cpu_s=7)
    assert Confinement.parse(json.loads(there.to_json()), source="test") == there
    assert there.memory_limit_bytes == 5
    assert Confinement().memory_limit_bytes > 2**27, sys.platform


def test_a_confined_process_reads_its_cpu_time_exactly_unless_that_is_limited(call: Any) -> None:
    """With RLIMIT_CPU, Linux answers from what it summed up at the last tick: latencies would come in steps of milliseconds."""
    assert 0 < call("shortest_cpu_time", cpu_s=None) < 100_000
