"""Children forked from a process that has imported the runtime: they answer, die, hang and are confined like any other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.core import landlock
from edgekit.core.confinement import Confinement
from edgekit.core.errors import DataError, IntegrityError, WorkerError
from edgekit.core.fork_server import ForkServer
from edgekit.core.model_server import Order
from edgekit.core.served_model import Limits, ServedModel

CHILD = """
import os, pathlib, signal, time
import numpy as np
from edgekit.core.errors import IntegrityError
from edgekit.core.tensors import TensorSpec

IMPORTED_BY = os.getpid()
HELD = []

class Session:
    inputs = outputs = (TensorSpec(name="x", shape=(1,), dtype="int64"),)
    def __init__(self, path): self.path = path
    def run(self, inputs):
        HELD.append(1)
        match self.path.read_text():
            case "die": os.kill(os.getpid(), signal.SIGSEGV)
            case "hang": time.sleep(60)
            case "eat": np.ones(2**26).sum()
            case "write": (self.path.parent / "new").write_text("x")
            case "read": (self.path.parent.parent / "secret.txt").read_text()
        return {"x": np.array([IMPORTED_BY != os.getpid() and len(HELD)])}
    def close(self): pass

class Runtime:
    name, hides, modules = "tiny", (), ()
    def load(self, path, **more):
        if path.read_text() == "refuse": raise IntegrityError("bent")
        return Session(path)

RUNTIME = Runtime()
"""
GIVEN = {"x": np.zeros(1, np.int64)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    folder = tmp_path_factory.mktemp("code")
    (folder / "tiny_runtime.py").write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    with ForkServer(["numpy", "tiny_runtime"], environment=environment, log=folder / "log.txt") as started:
        yield started


@pytest.fixture
def opened(server: ForkServer, tmp_path: Path) -> Iterator[Any]:
    children = []

    def load(deed: str, **limits: Any) -> ServedModel:
        place = tmp_path / "model"
        place.mkdir(exist_ok=True)
        (place / "file").write_text(deed)
        (tmp_path / "secret.txt").write_text("secret")
        (tmp_path / "scratch").mkdir(exist_ok=True)
        log = tmp_path / "log.txt"
        with log.open("wb") as output:
            children.append(server.fork(output))
        rights = Confinement(reads=(str(place),), cpu_s=20).model_dump(mode="json")
        order = Order(
            runtime="tiny_runtime:RUNTIME", path=str(place / "file"), confined=rights, scratch=str(tmp_path / "scratch")
        )
        return ServedModel(children[-1], order, what="testing", limits=Limits(**{"timeout_s": 20, **limits}), log=log)

    yield load
    for child in children:
        child.end()


def test_each_child_starts_where_the_server_stands(opened: Any) -> None:
    first, second = opened(""), opened("")
    assert [first.run(GIVEN)["x"][0], first.run(GIVEN)["x"][0], second.run(GIVEN)["x"][0]] == [1, 2, 1]
    first.close()
    assert not Path(f"/proc/{first._child.pid}").exists()
    assert first._child.peak_bytes > 2**20


def test_deaths_hangs_and_refusals_leave_the_server_alone(opened: Any) -> None:
    with pytest.raises(WorkerError, match="SIGSEGV"):
        opened("die").run(GIVEN)
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"longer than 0\.3 s"):
        opened("hang").run(GIVEN, timeout_s=0.3)
    assert time.monotonic() - start < 10
    with pytest.raises(IntegrityError, match="bent"):
        opened("refuse")
    assert opened("").run(GIVEN)["x"][0] == 1


@pytest.mark.skipif(not landlock.abi(), reason="confines files by Landlock: runs on Linux 5.13 and later")
@pytest.mark.parametrize("deed", ["write", "read"])
def test_children_are_confined(opened: Any, tmp_path: Path, deed: str) -> None:
    with pytest.raises(DataError, match="PermissionError"):
        opened(deed).run(GIVEN)
    assert not (tmp_path / "model" / "new").exists()


def test_memory_that_a_child_took_is_told(opened: Any) -> None:
    model = opened("eat")
    model.run(GIVEN)
    model.close()
    assert model._child.peak_bytes > 2**29


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"did not start.*no such landlock") as caught:
        ForkServer(["broken"], environment={**os.environ, "PYTHONPATH": str(broken(tmp_path))}, log=tmp_path / "log.txt")
    assert isinstance(caught.value, WorkerError)


def broken(folder: Path) -> Path:
    (folder / "broken.py").write_text("raise RuntimeError('no such landlock')")
    return folder


def test_children_of_a_dead_server_are_not_waited_for(tmp_path: Path) -> None:
    server = ForkServer([], environment=dict(os.environ), log=tmp_path / "log.txt")
    with (tmp_path / "log.txt").open("ab") as log:
        child = server.fork(log)
    server.close()
    assert child.wait(5.0) == -9
    child.end()
    with (tmp_path / "log.txt").open("ab") as log, pytest.raises(WorkerError, match="is gone"):
        server.fork(log)
