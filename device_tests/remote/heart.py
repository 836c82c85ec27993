"""Signs of life while a file travels: nobody takes the device over meanwhile, and somebody sees how far it is."""

from __future__ import annotations

import contextlib
import secrets
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from edgekit.core.errors import DeviceError
from edgekit.core.progress import Progress
from edgekit.device_tests.remote.lock import DeviceLock
from edgekit.device_tests.remote.shell import DeviceShell
from edgekit.device_tests.remote.store import StoredFile

__all__ = ["Heart"]

_BEAT_S = 5.0


class Heart:
    """Renews the lock from a thread of its own as long as it is entered; short transfers see nothing of it.

    Args:
        shell: The device; its link must take a command while a file travels.
        lock: What is renewed.
        progress: Told how far the file is.
    """

    def __init__(self, shell: DeviceShell, lock: DeviceLock, *, progress: Progress) -> None:
        self.shell = shell
        self.lock = lock
        self.progress = progress
        self._sending: StoredFile | None = None
        self._arriving: tuple[Path, int] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="device lock", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(timeout=1.0)  # a beat on a dead link takes longer to end, and does no harm

    def sending(self, file: StoredFile | None) -> None:
        """This file travels to the device now."""
        self._sending = file

    def arriving(self, place: Path, size_bytes: int) -> None:
        """This file comes from the device now."""
        self._arriving = place, size_bytes

    def _beat(self) -> None:
        while not self._stop.wait(min(_BEAT_S, self.lock.lease_s / 4)):
            file, arriving = self._sending, self._arriving
            lines: list[str] = []
            with contextlib.suppress(DeviceError):
                lines = self.shell.ask("beat", self.lock.token, secrets.token_hex(4), file.sha256 if file else "")
            if self._stop.is_set():
                return
            if file is not None and lines and lines[0].startswith("there "):
                self.progress(f"sending {file.path.name}", int(lines[0].split()[1]), file.size_bytes)
            elif arriving is not None and arriving[0].exists():
                self.progress("fetching results", arriving[0].stat().st_size, arriving[1])
