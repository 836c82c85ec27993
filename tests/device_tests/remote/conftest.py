"""A real SSH server on loopback, a proxy that breaks connections to it, and a device that is a folder and a shell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.device_tests.remote.cut_proxy import CutProxy
from tests.device_tests.remote.ssh_server import SshServer, check_nothing_left, serve


@pytest.fixture(scope="package")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """One server for all tests here."""
    yield from serve(tmp_path_factory)


@pytest.fixture
def proxy(sshd: SshServer) -> Iterator[CutProxy]:
    """A proxy before the server."""
    made = CutProxy(sshd.port)
    sshd.trust(made.port)
    yield made
    made.close()


@pytest.fixture
def nothing_left() -> Callable[[Path], None]:
    """A check that no process is left in a device's folder."""
    return check_nothing_left
